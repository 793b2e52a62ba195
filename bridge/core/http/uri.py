"""Request targets and hosts (RFC 3986 section 3.2.2, RFC 9110 sections 4.2 and 7.2)."""

from __future__ import annotations

import re
from binascii import unhexlify

__all__ = ["HOST", "ORIGIN_FORM", "TARGET", "percent_decoded"]

# A request target is made of visible ASCII without "#". The fragment is not part of any form (RFC 9112 section 3.2),
# and octets above 0x7F have to be percent-encoded (RFC 3986 section 2): both are refused, not repaired. Brackets,
# braces and pipes are not URI characters either, but browsers send them and they do no harm, so they are accepted.
TARGET = re.compile(rb"[\x21\x22\x24-\x7e]+")

# origin-form (RFC 9112 section 3.2.1). Groups: path, query.
ORIGIN_FORM = re.compile(rb"(/[\x21\x22\x24-\x3e\x40-\x7e]*)(?:\?([\x21\x22\x24-\x7e]*))?")

# IPv6address (RFC 3986 section 3.2.2): eight groups, or fewer beside one "::"; the last two may be an IPv4 address.
_GROUP = rb"[0-9A-Fa-f]{1,4}"
_OCTET = rb"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_LAST = rb"(?:%b:%b|%b(?:\.%b){3})" % (_GROUP, _GROUP, _OCTET, _OCTET)
_IPV6 = b"|".join(
    [
        rb"(?:%b:){6}%b" % (_GROUP, _LAST),
        rb"::(?:%b:){5}%b" % (_GROUP, _LAST),
        *(
            rb"(?:(?:%b:){0,%d}%b)?::(?:%b:){%d}%b" % (_GROUP, before, _GROUP, _GROUP, 4 - before, _LAST)
            for before in range(5)
        ),
        rb"(?:(?:%b:){0,5}%b)?::%b" % (_GROUP, _GROUP, _GROUP),
        rb"(?:(?:%b:){0,6}%b)?::" % (_GROUP, _GROUP),
    ]
)

# uri-host [ ":" port ] (RFC 9110 section 7.2, RFC 3986 section 3.2.2). An empty host is refused (docs/http-support.md).
# The grammar allows ",", these patterns do not: two Host lines that a proxy has joined look like that.
_IP_LITERAL = rb"\[(?:%b|[vV][0-9A-Fa-f]+\.[0-9A-Za-z\-._~!$&'()*+;=:]+)\](?::[0-9]{0,5})?" % _IPV6
_NAME_OR_IPV4 = re.compile(
    # Possessive, so that it never backtracks: 8000 octets that are no host cost 9 us, and 380 us with backtracking.
    rb"(?:[0-9A-Za-z\-._~!$&'()*+;=]++|%[0-9A-Fa-f]{2})++(?::[0-9]{0,5})?"
)


class _Host:
    """The pattern of a host in two parts. The part for addresses in brackets is compiled when the first one comes."""

    # Compiling it at the start would take 2 ms of CPU, and most servers never see such an address.

    __slots__ = ()

    def fullmatch(self, octets: bytes) -> re.Match[bytes] | None:
        """Match all of *octets*."""
        if octets.startswith(b"["):
            return re.fullmatch(_IP_LITERAL, octets)  # re caches the compiled pattern
        return _NAME_OR_IPV4.fullmatch(octets)


HOST = _Host()


def percent_decoded(octets: bytes) -> bytes:
    """Return *octets* with every percent-encoded octet decoded once (RFC 3986 section 2.1).

    A percent sign that does not begin an encoding stays as it is.
    """
    # Not urllib.parse.unquote_to_bytes, which does the same: its import takes 3 ms of CPU at the start.
    first, *parts = octets.split(b"%")
    pieces = [first]
    for part in parts:
        try:
            pieces.append(unhexlify(part[:2]) + part[2:] if len(part) > 1 else b"%" + part)
        except ValueError:
            pieces.append(b"%" + part)
    return b"".join(pieces)
