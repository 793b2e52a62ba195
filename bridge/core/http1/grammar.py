"""The grammar of HTTP/1.x as patterns over bytes (RFC 9110 section 5, RFC 9112 sections 2 to 7).

Python's ``int()``, ``strip()``, ``split()`` and ``lower()`` take more than the grammar does when they work on
text, so everything here works on bytes, and every pattern is used with ``fullmatch``.
"""

from __future__ import annotations

import re
from binascii import unhexlify

__all__ = [
    "BAD_LINE_END",
    "CHUNK_LINE",
    "CHUNK_LINE_START",
    "DIGITS",
    "FIELD_VALUE",
    "HOST",
    "REASON",
    "REQUEST_LINE",
    "TARGET",
    "TOKEN",
    "VALUE_OCTETS",
    "VERSION",
    "list_members",
]

# token = 1*tchar (RFC 9110 section 5.6.2)
TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

# field-value without its surrounding white space: VCHAR, obs-text, SP and HTAB (RFC 9110 section 5.5).
FIELD_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
VALUE_OCTETS = bytes(octet for octet in range(256) if FIELD_VALUE.fullmatch(bytes([octet])))

# reason-phrase (RFC 9112 section 4).
REASON = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")

# A request target is made of visible ASCII. The fragment's "#" is not part of any form (RFC 9112 section 3.2), and
# octets above 0x7F have to be percent-encoded (RFC 3986 section 2); both are refused rather than repaired. Brackets,
# braces, pipes and the like are not URI characters either, but browsers send them, and they are harmless.
TARGET = re.compile(rb"[\x21\x22\x24-\x7e]+")

# HTTP-version (RFC 9112 section 2.3); the group is the major version.
VERSION = re.compile(rb"HTTP/([0-9])\.[0-9]")

# A request line of the usual form: origin-form, HTTP/1.0 or 1.1. Method, target, path, query, minor version.
REQUEST_LINE = re.compile(
    rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ((/[\x21\x22\x24-\x3e\x40-\x7e]*)(?:\?([\x21\x22\x24-\x7e]*))?) HTTP/(1\.[01])"
)

DIGITS = re.compile(rb"[0-9]+")

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

# uri-host [ ":" port ] (RFC 9110 section 7.2, RFC 3986 section 3.2.2); an empty host is refused (docs/http-support).
# "," would join two Host lines.
_IP_LITERAL = rb"\[(?:%b|[vV][0-9A-Fa-f]+\.[0-9A-Za-z\-._~!$&'()*+;=:]+)\](?::[0-9]{0,5})?" % _IPV6
_NAME_OR_IPV4 = re.compile(
    rb"(?:[0-9A-Za-z\-._~!$&'()*+;=]++|%[0-9A-Fa-f]{2})++(?::[0-9]{0,5})?"  # possessive: nothing to go back to
)


class _Host:
    """A pattern in two parts: to compile the one that few need takes 2 ms of CPU."""

    __slots__ = ()

    def fullmatch(self, octets: bytes) -> re.Match[bytes] | None:
        """Match all of *octets*."""
        if octets.startswith(b"["):
            return re.fullmatch(_IP_LITERAL, octets)  # which keeps what it has compiled
        return _NAME_OR_IPV4.fullmatch(octets)


HOST = _Host()

# chunk-size [ chunk-ext ] CRLF (RFC 9112 section 7.1). White space before ";" is the BWS that the grammar allows;
# white space after a bare size is not in the grammar.
CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})((?:[\t ]*;[\t\x20-\x7e\x80-\xff]*)?)\r\n")
CHUNK_LINE_START = re.compile(rb"(?:[0-9A-Fa-f]{1,16}(?:[\t ]*|[\t ]*;[\t\x20-\x7e\x80-\xff]*)\r?)?")

# In a header section that is not complete yet: LF without CR, CR without LF, NUL. CR as the last octet may go on.
BAD_LINE_END = re.compile(rb"(?<!\r)\n|\r(?=[^\n])|\x00")


def percent_decoded(octets: bytes) -> bytes:
    """Return *octets* with percent-encoded ones decoded, once (RFC 3986 section 2.1); what is no encoding stays.

    As urllib.parse does it, which takes 3 ms of CPU to import.
    """
    first, *parts = octets.split(b"%")
    pieces = [first]
    for part in parts:
        try:
            pieces.append(unhexlify(part[:2]) + part[2:] if len(part) > 1 else b"%" + part)
        except ValueError:
            pieces.append(b"%" + part)
    return b"".join(pieces)


def list_members(values: list[bytes]) -> list[bytes]:
    """Return the members of a comma-separated list in lower case (RFC 9110 section 5.6.1).

    Args:
        values: The values of all field lines of one name, in order. Empty members are left out.
    """
    return [member for value in values for part in value.split(b",") if (member := part.strip(b" \t").lower())]
