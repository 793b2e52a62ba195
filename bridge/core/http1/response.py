"""Response heads and content as bytes (RFC 9112 sections 4, 6 and 7), checked before they are joined."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus

from bridge.core.http1.grammar import DIGITS, FIELD_VALUE, REASON, TOKEN
from bridge.errors import LocalProtocolError

__all__ = [
    "LAST_CHUNK",
    "NO_LENGTH",
    "ResponseHead",
    "Special",
    "check_fields",
    "chunk",
    "encode_fields",
    "status_line",
]

# In place of a declared Content-Length.
NO_LENGTH = -1
LAST_CHUNK = b"0\r\n\r\n"

STATUS_LINES = {status.value: b"HTTP/1.1 %d %s\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus}

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
# Field -> its line, what it means, and for Content-Length the number.
Entry = tuple[bytes, int, int]
_lines: dict[object, Entry] = {}
_text_lines: dict[object, Entry] = {}


def status_line(status: int, reason: bytes = b"") -> bytes:
    """Return a status line with its CRLF; without *reason* the registered phrase.

    Raises:
        LocalProtocolError: The status is not a three-digit one, or the reason has control characters.
    """
    if not reason:
        line = STATUS_LINES.get(status)
        if line is not None:
            return line
    if not isinstance(status, int) or not 100 <= status <= 999:
        raise LocalProtocolError(f"status {status!r} is not a number from 100 to 999")
    if REASON.fullmatch(reason) is None:
        raise LocalProtocolError(f"illegal reason phrase {reason[:80]!r}")
    return b"HTTP/1.1 %d %s\r\n" % (status, reason)


class Special:
    """What an application's fields say beyond their lines.

    Attributes:
        close: Connection says close.
        upgrade: The Upgrade field's value, empty if there is none; sent with 101 and 426 only.
        has_date: A Date field is among the lines.
        has_server: A Server field is among the lines.
    """

    __slots__ = ("close", "has_date", "has_server", "upgrade")

    def __init__(self) -> None:
        self.close = False
        self.upgrade = b""
        self.has_date = False
        self.has_server = False


class ResponseHead:
    """A response head, checked and encoded; nothing in it changes, so it may be sent any number of times.

    Attributes:
        status: The status code.
        line: The status line with its CRLF.
        fields: What :func:`check_fields` returns.
    """

    __slots__ = ("fields", "line", "status")

    def __init__(self, status: int, fields: Iterable[tuple[bytes, bytes]], reason: bytes = b"") -> None:
        if isinstance(status, int) and status < 200 and status != 101:
            raise LocalProtocolError(f"{status} is no final status")
        self.status = status
        self.line = status_line(status, reason)
        self.fields = check_fields(fields)

    def with_length(self, length: int) -> ResponseHead:
        """Return the same head with a Content-Length (bytes)."""
        head = ResponseHead.__new__(ResponseHead)
        head.status, head.line = self.status, self.line
        lines, _, special = self.fields
        head.fields = ([*without_length(lines), b"content-length: %d\r\n" % length], length, special)
        return head


def check_fields(
    fields: Iterable[tuple[bytes, bytes]] | Iterable[tuple[str, str]], text: bool = False
) -> tuple[list[bytes], int, Special | None]:
    """Check and encode response fields; every name and value by itself, before anything is joined.

    Args:
        fields: (name, value) pairs of bytes. They go out in the given order and spelling.
        text: The pairs are of str, which stands for latin-1.

    Returns:
        The field lines with their CRLF, without hop-by-hop fields; the declared Content-Length in
        bytes, or NO_LENGTH; what else the fields say, or None.

    Raises:
        LocalProtocolError: A name is no token, a value has control characters, Content-Length is no number or
            stands twice with different values, or something is not bytes.
    """
    lines: list[bytes] = []
    length = NO_LENGTH
    special: Special | None = None
    known = _text_lines if text else _lines
    for field in fields:
        try:
            entry = known.get(field)
        except TypeError:  # a list, or not hashable for a worse reason
            entry = None
        if entry is None:
            entry = _encode_text(field) if text else _encode_field(field)  # type: ignore[arg-type]  # text tells
        line, kind, number = entry
        if not kind:
            lines.append(line)
        elif kind == LENGTH:
            if length == NO_LENGTH:
                length = number
                lines.append(line)
            elif length != number:
                raise LocalProtocolError(f"Content-Length {length} and {number} in one response")
        elif kind != HOP:
            if special is None:
                special = Special()
            _note(special, lines, line, kind)
    return lines, length, special


def encode_fields(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return checked field lines as one block, for interim responses and trailer sections.

    Raises:
        LocalProtocolError: As :func:`check_fields`; fields that steer the connection are left out.
    """
    lines, length, _ = check_fields(fields)
    if length != NO_LENGTH:
        lines = without_length(lines)
    return b"".join(lines)


def without_length(lines: list[bytes]) -> list[bytes]:
    """Return field lines without Content-Length, for responses that must not have it (RFC 9110 section 8.6)."""
    return [line for line in lines if line[:15].lower() != b"content-length:"]


def chunk(data: bytes) -> bytes:
    """Return *data*, which is not empty, as one chunk (RFC 9112 section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def _note(special: Special, lines: list[bytes], line: bytes, kind: int) -> None:
    if kind == CONNECTION:
        options = {option.strip(b" \t").lower() for option in line.split(b",")}
        special.close = special.close or b"close" in options
    elif kind == UPGRADE:
        special.upgrade = line
    else:
        lines.append(line)
        if kind == DATE:
            special.has_date = True
        else:
            special.has_server = True


def _encode_field(field: tuple[bytes, bytes]) -> Entry:
    """Return a field's line (for Connection and Upgrade only the value), its kind, and the number if it has one."""
    try:
        name, value = field
        if TOKEN.fullmatch(name) is None or FIELD_VALUE.fullmatch(value) is None:
            raise LocalProtocolError(f"illegal field line {name[:80]!r}: {value[:80]!r}")
    except (TypeError, ValueError):
        raise LocalProtocolError(f"a field is a pair of bytes, not {field!r:.80}") from None
    name, value = bytes(name), bytes(value)  # what is kept must not change later
    kind = _KINDS.get(name.lower(), PLAIN)
    number = 0
    line = b"%b: %b\r\n" % (name, value)
    if kind == LENGTH:
        digits = value.strip(b" \t")
        if DIGITS.fullmatch(digits) is None or len(digits) > 18:
            raise LocalProtocolError(f"Content-Length {value[:80]!r} is not a number")
        number = int(digits)
        line = b"%b: %d\r\n" % (name, number)
    elif kind in {CONNECTION, UPGRADE}:
        line = value
    entry = (line, kind, number)
    if _worth_keeping(entry, name):
        if len(_lines) >= _LINES_MAX:
            _lines.clear()
        _lines[name, value] = entry
    return entry


def _encode_text(field: tuple[str, str]) -> Entry:
    """Return the same for a field of text."""
    try:
        first, second = field if not isinstance(field, str) else ()
        name, value = first.encode("latin-1"), second.encode("latin-1")
    except (AttributeError, TypeError, ValueError):  # a UnicodeEncodeError is a ValueError
        raise LocalProtocolError(f"a field is a pair of latin-1 text, not {field!r:.80}") from None
    entry = _encode_field((name, value))
    if _worth_keeping(entry, name):
        if len(_text_lines) >= _LINES_MAX:
            _text_lines.clear()
        _text_lines[field] = entry
    return entry


def _worth_keeping(entry: Entry, name: bytes) -> bool:
    """Tell whether a field is short and may come again; cookies are secrets, and never repeat."""
    line, kind, _ = entry
    return len(line) <= _LINE_LENGTH_MAX and kind in {PLAIN, DATE, LENGTH, CONNECTION} and name.lower() != b"set-cookie"
