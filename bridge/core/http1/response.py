"""Response heads and content as bytes (RFC 9112 sections 4, 6 and 7), checked before they are joined."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

from bridge.core.http1.grammar import DIGITS, FIELD_VALUE, REASON, TOKEN
from bridge.errors import LocalProtocolError

__all__ = ["LAST_CHUNK", "ResponseFields", "check_fields", "chunk", "encode_fields", "status_line"]

LAST_CHUNK = b"0\r\n\r\n"

_STATUS_LINES = {status.value: b"HTTP/1.1 %d %s\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus}

# What a field means to the connection.
PLAIN, LENGTH, DATE, SERVER, CONNECTION, UPGRADE, HOP = range(7)
_KINDS = {
    b"content-length": LENGTH,
    b"date": DATE,
    b"server": SERVER,
    b"connection": CONNECTION,
    b"upgrade": UPGRADE,
    # Hop-by-hop: this server frames and persists by its own rules (RFC 9110 section 7.6.1).
    b"transfer-encoding": HOP,
    b"keep-alive": HOP,
    b"proxy-connection": HOP,
    b"te": HOP,
}
_LINES_MAX = 2048
_LINE_LENGTH_MAX = 160
_lines: dict[tuple[bytes, bytes], tuple[bytes, int]] = {}


def status_line(status: int, reason: bytes = b"") -> bytes:
    """Return a status line with its CRLF; without *reason* the registered phrase.

    Raises:
        LocalProtocolError: The status is not a three-digit one, or the reason has control characters.
    """
    if not reason:
        line = _STATUS_LINES.get(status)
        if line is not None:
            return line
    if not isinstance(status, int) or not 100 <= status <= 999:
        raise LocalProtocolError(f"status {status!r} is not a number from 100 to 999")
    if REASON.fullmatch(reason) is None:
        raise LocalProtocolError(f"illegal reason phrase {reason[:80]!r}")
    return b"HTTP/1.1 %d %s\r\n" % (status, reason)


class ResponseFields:
    """An application's response fields, checked and encoded.

    Attributes:
        lines: Field lines with their CRLF; hop-by-hop fields and Content-Length are left out.
        length: The declared Content-Length in bytes; None if there is none.
        close: Connection says close.
        upgrade: The Upgrade field's value, empty if there is none; sent with 101 and 426 only.
        has_date: A Date field is among the lines.
        has_server: A Server field is among the lines.
    """

    __slots__ = ("close", "has_date", "has_server", "length", "lines", "upgrade")

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.length: int | None = None
        self.close = False
        self.upgrade = b""
        self.has_date = False
        self.has_server = False


def check_fields(fields: Iterable[tuple[bytes, bytes]]) -> ResponseFields:
    """Check and encode response fields; every name and value by itself, before anything is joined.

    Args:
        fields: (name, value) pairs of bytes. They go out in the given order and spelling.

    Raises:
        LocalProtocolError: A name is no token, a value has control characters, Content-Length is no number or
            stands twice with different values, or something is not bytes.
    """
    result = ResponseFields()
    lines = result.lines
    known = _lines
    for field in fields:
        try:
            entry = known.get(field)
        except TypeError:  # a list, or not hashable for a worse reason
            entry = None
        if entry is None:
            entry = _encode_field(field)
        line, kind = entry
        if not kind:
            lines.append(line)
        elif kind == LENGTH:
            length = int(line)
            if result.length is not None and result.length != length:
                raise LocalProtocolError(f"Content-Length {result.length} and {length} in one response")
            result.length = length
        elif kind != HOP:
            _note(result, line, kind)
    return result


def encode_fields(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return checked field lines as one block, for interim responses and trailer sections.

    Raises:
        LocalProtocolError: As :func:`check_fields`; fields that steer the connection are left out.
    """
    return b"".join(check_fields(fields).lines)


def chunk(data: bytes) -> bytes:
    """Return *data*, which is not empty, as one chunk (RFC 9112 section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _note(result: ResponseFields, line: bytes, kind: int) -> None:
    if kind == CONNECTION:
        options = {option.strip(b" \t").lower() for option in line.split(b",")}
        result.close = result.close or b"close" in options
    elif kind == UPGRADE:
        result.upgrade = line
    else:
        result.lines.append(line)
        if kind == DATE:
            result.has_date = True
        else:
            result.has_server = True


def _encode_field(field: tuple[bytes, bytes]) -> tuple[bytes, int]:
    """Return a field's line (for Content-Length, Connection and Upgrade only the value) and its kind."""
    try:
        name, value = field
        if TOKEN.fullmatch(name) is None or FIELD_VALUE.fullmatch(value) is None:
            raise LocalProtocolError(f"illegal field line {name[:80]!r}: {value[:80]!r}")
    except (TypeError, ValueError):
        raise LocalProtocolError(f"a field is a pair of bytes, not {field!r:.80}") from None
    kind = _KINDS.get(name.lower(), PLAIN)
    if kind == LENGTH:
        line = bytes(value.strip(b" \t"))
        if DIGITS.fullmatch(line) is None or len(line) > 18:
            raise LocalProtocolError(f"Content-Length {value[:80]!r} is not a number")
    elif kind in {CONNECTION, UPGRADE}:
        line = bytes(value)
    else:
        line = b"%b: %b\r\n" % (name, value)
    entry = (line, kind)
    # Cookies are secrets and never repeat; everything else that is short is worth keeping.
    if len(line) <= _LINE_LENGTH_MAX and kind in {PLAIN, LENGTH, CONNECTION} and name.lower() != b"set-cookie":
        if len(_lines) >= _LINES_MAX:
            _lines.clear()
        _lines[bytes(name), bytes(value)] = entry
    return entry
