"""What ``start_response`` is given: checked, and turned into bytes (PEP 3333 "The start_response() Callable").

Pure functions. Applications repeat themselves, so what was checked once is kept in two bounded tables; without them
a response with two fields costs 2 microseconds more (CPython 3.13).
"""

from __future__ import annotations

import re

from bridge.core.http1.grammar import FIELD_VALUE, TOKEN
from bridge.errors import LocalProtocolError

__all__ = ["check_headers", "check_status"]

_STATUS = re.compile(r"([2-9][0-9]{2}) ([\t\x20-\x7e\x80-\xff]*)")

# RFC 2616 section 13.5.1, which PEP 3333 refers to under "Other HTTP Features": the server's own affair.
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
_MAX = 1024
_SIZE_MAX = 256
_fields: dict[tuple[str, str], tuple[bytes, bytes]] = {}
_statuses: dict[str, tuple[int, bytes]] = {}


def check_status(status: object) -> tuple[int, bytes]:
    """Return the code and the reason phrase of a status string.

    Raises:
        LocalProtocolError: It is no str, not of the form "200 OK", or has control characters.
    """
    if not isinstance(status, str):
        raise LocalProtocolError(f"the status is a str, not {status!r:.80}")
    known = _statuses.get(status)
    if known is None:
        match = _STATUS.fullmatch(status)
        if match is None:
            raise LocalProtocolError(
                f"the status has the form '200 OK', from 200 to 999, latin-1, without control characters,"
                f" which {status[:80]!r} has not"
            )
        known = (int(match[1]), match[2].encode("latin-1"))
        if len(_statuses) >= _MAX:
            _statuses.clear()
        _statuses[status] = known
    return known


def check_headers(headers: object) -> tuple[list[tuple[bytes, bytes]], int | None]:
    """Return the response's fields as bytes, and the declared Content-Length in bytes or None.

    Raises:
        LocalProtocolError: *headers* is no list of tuples of two str, a name or value cannot stand in a field line,
            or a field is hop-by-hop.
    """
    if not isinstance(headers, list):
        raise LocalProtocolError(f"the headers are a list, not {headers!r:.80}")
    fields: list[tuple[bytes, bytes]] = []
    length: int | None = None
    known = _fields
    for header in headers:
        try:
            field = known.get(header)
        except TypeError:
            field = None
        if field is None:
            field = _encode(header)
        fields.append(field)
        if field[0] == b"Content-Length":
            length = _length(field[1], length)
    return fields, length


def _length(value: bytes, before: int | None) -> int:
    value = value.strip(b" \t")
    if not value.isdigit() or len(value) > 18:
        raise LocalProtocolError(f"Content-Length is a number, not {value[:80]!r}")
    length = int(value)
    if before is not None and before != length:
        raise LocalProtocolError(f"Content-Length {before} and {length} in one response")
    return length


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
    lower = raw_name.lower()
    if lower in _HOP_BY_HOP:
        raise LocalProtocolError(f"the hop-by-hop header {name!r}: {value[:80]!r} is the server's to send")
    if lower == b"content-length":
        raw_name = b"Content-Length"
    field = (raw_name, raw_value)
    # Cookies are secrets and never repeat.
    if len(name) + len(value) <= _SIZE_MAX and lower != b"set-cookie":
        if len(_fields) >= _MAX:
            _fields.clear()
        _fields[name, value] = field
    return field
