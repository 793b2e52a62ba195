"""Fields: the grammar of names, values and lists, and the check of a response's fields (RFC 9110 sections 5 and 8).

Everything here works on bytes: on text, Python's ``int()``, ``strip()``, ``split()`` and ``lower()`` accept more than
the grammar does. Every pattern is used with ``fullmatch``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from bridge.core.http.cache import remember
from bridge.errors import FramingError, LimitExceeded, LocalProtocolError

__all__ = [
    "CONTENT_LENGTH_DIGITS",
    "DIGITS",
    "FIELD_VALUE",
    "NOT_IN_TRAILERS",
    "NO_LENGTH",
    "TOKEN",
    "VALUE_OCTETS",
    "Field",
    "Fields",
    "Special",
    "TextFields",
    "check_fields",
    "content_length",
    "encode_fields",
    "field_line",
    "list_members",
    "without_length",
]

Field = tuple[bytes, bytes]
Fields = Iterable[tuple[bytes, bytes]]
TextFields = Iterable[tuple[str, str]]

# token = 1*tchar (RFC 9110 section 5.6.2)
TOKEN = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

# field-value without its surrounding white space: VCHAR, obs-text, SP and HTAB (RFC 9110 section 5.5).
FIELD_VALUE = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")
VALUE_OCTETS = bytes(octet for octet in range(256) if FIELD_VALUE.fullmatch(bytes([octet])))

DIGITS = re.compile(rb"[0-9]+")

# More digits than the length of any content has. Converting a very long string of digits costs quadratic time.
CONTENT_LENGTH_DIGITS = 18

NO_LENGTH = -1
"""Stands for a length where no Content-Length is declared."""

NOT_IN_TRAILERS = frozenset(
    {
        b"authorization",
        b"cache-control",
        b"connection",
        b"content-encoding",
        b"content-length",
        b"content-range",
        b"content-type",
        b"cookie",
        b"expect",
        b"forwarded",
        b"host",
        b"keep-alive",
        b"max-forwards",
        b"proxy-authorization",
        b"proxy-connection",
        b"range",
        b"set-cookie",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-real-ip",
    }
)
"""Fields that would change how a message is framed, routed or trusted. They are dropped from trailer sections (RFC 9110
section 6.5.1)."""

# What a field means to the connection. PLAIN is 0, so that the common case is tested by truth.
PLAIN, LENGTH, DATE, SERVER, CONNECTION, UPGRADE, HOP = range(7)
_KINDS = {
    b"content-length": LENGTH,
    b"date": DATE,
    b"server": SERVER,
    b"connection": CONNECTION,
    b"upgrade": UPGRADE,
    # Hop-by-hop (RFC 9110 section 7.6.1): these are left out, since this server decides itself how a response is
    # framed and whether the connection persists.
    b"transfer-encoding": HOP,
    b"keep-alive": HOP,
    b"proxy-connection": HOP,
    b"te": HOP,
}
# Most applications send the same fields again and again, so checked and encoded fields are kept in tables. Both numbers
# limit a table: its entries, and the bytes of a field in it. Long fields seldom repeat.
_LINES_MAX = 2048
_LINE_LENGTH_MAX = 160
# The line with its CRLF (of Connection and Upgrade only the value), what the field means, the value of Content-Length.
Entry = tuple[bytes, int, int]
_lines: dict[object, Entry] = {}
_text_lines: dict[object, Entry] = {}


def list_members(values: list[bytes]) -> list[bytes]:
    """Return the members of a comma-separated list in lower case, without empty ones (RFC 9110 section 5.6.1).

    Args:
        values: The values of all field lines of one name, in order.
    """
    return [member for value in values for part in value.split(b",") if (member := part.strip(b" \t").lower())]


def content_length(values: list[bytes]) -> int:
    """Return the length in bytes that a request's Content-Length fields declare (RFC 9110 section 8.6).

    Args:
        values: The values of its field lines; at least one.

    Raises:
        FramingError: 400; there is more than one value, or it is no number.
        LimitExceeded: 413; the number has more digits than the length of any content.
    """
    value = values[0]
    if len(values) > 1 or b"," in value:
        raise FramingError(f"Multiple unequal Content-Lengths, or one repeated: {values!r:.80}")
    if DIGITS.fullmatch(value) is None:
        raise FramingError(f"Only integer Content-Length is allowed: {value!r:.80}")
    if len(value) > CONTENT_LENGTH_DIGITS:
        raise LimitExceeded(413, f"Content-Length too long: {len(value)} digits, limit {CONTENT_LENGTH_DIGITS}")
    return int(value)


class Special:
    """What a response's fields ask of the server, besides being sent.

    Attributes:
        close: The Connection field has the option close.
        upgrade: The Upgrade field's value, empty if there is none. It is sent with 101 and 426 only.
        has_date: The lines have a Date field, so the server adds none.
        has_server: The lines have a Server field, so the server adds none.
    """

    __slots__ = ("close", "has_date", "has_server", "upgrade")

    def __init__(self) -> None:
        self.close = False
        self.upgrade = b""
        self.has_date = False
        self.has_server = False


def check_fields(fields: Fields | TextFields, text: bool = False) -> tuple[list[bytes], int, Special | None]:
    """Check and encode the fields of a response.

    Every name and value is checked by itself, before anything is joined: in a joined block, a value that contains
    CRLF cannot be told from two field lines.

    Args:
        fields: (name, value) pairs of bytes. They are sent in this order and spelling.
        text: The pairs are of str, and are encoded in latin-1.

    Returns:
        A tuple of three: the field lines with their CRLF, without hop-by-hop fields; the declared Content-Length in
        bytes, or NO_LENGTH; a :class:`Special`, or None if the fields ask for nothing special.

    Raises:
        LocalProtocolError: A name is not a token, a value has control characters, Content-Length is not a number or
            occurs twice with different values, or a name or value has the wrong type.
    """
    lines: list[bytes] = []
    length = NO_LENGTH
    special: Special | None = None
    known = _text_lines if text else _lines
    for field in fields:
        try:
            entry = known.get(field)
        except (TypeError, ValueError):  # it has no hash: a list, or a memoryview of a bytearray
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
            _add_special(special, lines, line, kind)
    return lines, length, special


def encode_fields(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return checked field lines as one block, for interim responses and trailer sections.

    Content-Length and the fields that steer the connection are left out: neither may have them.

    Raises:
        LocalProtocolError: As :func:`check_fields`.
    """
    lines, length, _ = check_fields(fields)
    if length != NO_LENGTH:
        lines = without_length(lines)
    return b"".join(lines)


def without_length(lines: list[bytes]) -> list[bytes]:
    """Return *lines* without Content-Length, for responses that must not have it (RFC 9110 section 8.6)."""
    return [line for line in lines if line[:15].lower() != b"content-length:"]


def _add_special(special: Special, lines: list[bytes], line: bytes, kind: int) -> None:
    """Note what a special field asks for. Add the lines of Date and Server to *lines*, since these are sent as well."""
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


def field_line(name: bytes, value: bytes) -> bytes:
    """Return a field line with its CRLF.

    Raises:
        LocalProtocolError: *name* is no token, or *value* has control characters.
    """
    if TOKEN.fullmatch(name) is None or FIELD_VALUE.fullmatch(value) is None:
        raise LocalProtocolError(f"illegal field line {name[:80]!r}: {value[:80]!r}")
    return b"%b: %b\r\n" % (name, value)


def _encode_field(field: tuple[bytes, bytes]) -> Entry:
    """Check a field of bytes and return its entry."""
    try:
        name, value = field
        line = field_line(name, value)
    except (TypeError, ValueError):
        raise LocalProtocolError(f"a field is a pair of bytes, not {field!r:.80}") from None
    name, value = bytes(name), bytes(value)  # a bytearray could change while its line is in the table
    kind = _KINDS.get(name.lower(), PLAIN)
    number = 0
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
        remember(_lines, (name, value), entry, _LINES_MAX)
    return entry


def _encode_text(field: tuple[str, str]) -> Entry:
    """Check a field of text and return its entry."""
    try:
        first, second = field if not isinstance(field, str) else ()
        name, value = first.encode("latin-1"), second.encode("latin-1")
    except (AttributeError, TypeError, ValueError):  # a UnicodeEncodeError is a ValueError
        raise LocalProtocolError(f"a field is a pair of latin-1 text, not {field!r:.80}") from None
    entry = _encode_field((name, value))
    if _worth_keeping(entry, name):
        remember(_text_lines, (first, second), entry, _LINES_MAX)  # not field itself, which may be a list
    return entry


def _worth_keeping(entry: Entry, name: bytes) -> bool:
    """Tell whether a field is short and may come again. Cookies are secrets and seldom repeat, so they are not kept."""
    line, kind, _ = entry
    return len(line) <= _LINE_LENGTH_MAX and kind in {PLAIN, DATE, LENGTH, CONNECTION} and name.lower() != b"set-cookie"
