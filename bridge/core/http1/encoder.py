"""Response heads and content as bytes (RFC 9112 sections 4, 6 and 7), checked before they are joined."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from bridge.core.http1.grammar import DIGITS, FIELD_VALUE, REASON, TOKEN
from bridge.errors import LocalProtocolError

__all__ = [
    "LAST_CHUNK",
    "NO_CONTENT",
    "NO_LENGTH",
    "Fields",
    "KnownHeads",
    "ResponseHead",
    "Special",
    "check_fields",
    "chunk",
    "encode_fields",
    "status_line",
]

# In place of a declared Content-Length.
NO_LENGTH = -1
_NOT_SENT = (None, b"")
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
# Statuses without content (RFC 9110 section 6.4.1).
NO_CONTENT = frozenset({101, 204, 304})
_HEADS_MAX = 512
_HEAD_LENGTH_MAX = 1024
_ONCE_MAX = 64
_LINES_MAX = 2048
_LINE_LENGTH_MAX = 160
Fields = Iterable[tuple[bytes, bytes]]
TextFields = Iterable[tuple[str, str]]
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
    """A response head, checked and encoded; what it says does not change, so it may be sent any number of times.

    Attributes:
        status: The status code.
        line: The status line with its CRLF.
        lines: The field lines with their CRLF, without those that steer the connection.
        length: The declared Content-Length in bytes, or NO_LENGTH.
        special: What the fields say beyond their lines, or None.
        block: The field lines as one.
        plain: It goes out as it is: nothing special, and the status is one of those with content.
        start: The lines that all responses had in common when it was last sent, and what it was sent as.
    """

    __slots__ = ("block", "length", "line", "lines", "plain", "special", "start", "status")

    def __init__(self, status: int, fields: Fields | TextFields, reason: bytes = b"", text: bool = False) -> None:
        """Check and encode.

        Args:
            status: 101, or 200 to 999.
            fields: (name, value) pairs of bytes.
            reason: The reason phrase; empty for the registered one.
            text: The pairs are of str, which stands for latin-1.

        Raises:
            LocalProtocolError: The status, the reason or a field is illegal.
        """
        if isinstance(status, int) and status < 200 and status != 101:
            raise LocalProtocolError(f"{status} is no final status")
        line = status_line(status, reason)
        self._set(int(status), line, *check_fields(fields, text))

    def _set(self, status: int, line: bytes, lines: list[bytes], length: int, special: Special | None) -> None:
        self.status = status
        self.line = line
        self.lines = lines
        self.length = length
        self.special = special
        self.block = b"".join(lines)
        self.plain = special is None and status not in NO_CONTENT
        self.start: tuple[bytes | None, bytes] = _NOT_SENT

    def start_with(self, common: bytes) -> bytes:
        """Return the bytes that a response starts with whose common lines are *common*, and keep them as ``start``.

        That is all of the head; without a declared length, all but the Content-Length and the blank line.
        """
        start = b"".join((self.line, common, self.block, b"\r\n" if self.length >= 0 else b""))
        self.start = common, start  # at once: servers in several threads share heads
        return start

    def with_length(self, length: int) -> ResponseHead:
        """Return the same head with a Content-Length (bytes)."""
        head = self.with_line(b"content-length", b"content-length: %d\r\n" % length)
        head.length = length
        return head

    def with_line(self, name: bytes, line: bytes) -> ResponseHead:
        """Return the same head with *line* in place of all lines of the field *name* (lower case)."""
        head = ResponseHead.__new__(ResponseHead)
        name += b":"
        size = len(name)
        lines = [one for one in self.lines if one[:size].lower() != name]
        lines.append(line)
        head._set(self.status, self.line, lines, self.length, self.special)
        return head


class KnownHeads(dict[object, ResponseHead]):
    """Response heads that applications have sent before; bounded, since some put another value into each.

    A head that came twice within a short while is kept. To keep every one would cost more than it saves where values
    vary: what is written for nothing drives from the processor's cache what is read. Cookies are secrets, and long
    heads are rare; neither is kept.

    Args:
        text: The fields are of str.
    """

    def __init__(self, text: bool = False) -> None:
        super().__init__()
        self._text = text
        self._once: dict[object, None] = {}

    def add(self, status: int, reason: bytes | str | None, *fields: Any) -> ResponseHead:
        """Make a head, and keep it under a tuple of these arguments if it is worth it.

        Raises:
            LocalProtocolError: The status, the reason or a field is illegal.
        """
        key = (status, reason, *fields)
        if isinstance(reason, str):
            try:
                reason = reason.encode("latin-1")
            except UnicodeEncodeError:
                raise LocalProtocolError(f"illegal reason phrase {reason[:80]!r}") from None
        head = ResponseHead(status, fields, reason or b"", self._text)
        try:
            if key in self._once:
                if len(self) >= _HEADS_MAX:
                    self.clear()
                self._once.pop(key, None)  # servers in several threads share the table
                self[key] = head
            elif len(head.block) <= _HEAD_LENGTH_MAX and b"set-cookie" not in head.block.lower():
                if len(self._once) >= _ONCE_MAX:
                    self._once.clear()
                self._once[key] = None
        except (TypeError, ValueError):
            pass  # a field is a list, or has a view of something that may change, or is worse
        return head


def check_fields(fields: Fields | TextFields, text: bool = False) -> tuple[list[bytes], int, Special | None]:
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
        except (TypeError, ValueError):  # a list, or a view of something that may change, or worse
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
        _text_lines[first, second] = entry  # the field may be a list
    return entry


def _worth_keeping(entry: Entry, name: bytes) -> bool:
    """Tell whether a field is short and may come again; cookies are secrets, and never repeat."""
    line, kind, _ = entry
    return len(line) <= _LINE_LENGTH_MAX and kind in {PLAIN, DATE, LENGTH, CONNECTION} and name.lower() != b"set-cookie"
