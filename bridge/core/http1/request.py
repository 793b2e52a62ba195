"""Parses request heads: request line and header section (RFC 9112 sections 2, 3 and 5).

The same pass finds the few fields that steer the connection, so they are not searched for again. Only names of fields
are kept from one request for later ones, in a bounded table.
"""

from __future__ import annotations

from collections.abc import Callable

from bridge.core.http.cache import remember
from bridge.core.http.fields import FIELD_VALUE, TOKEN, VALUE_OCTETS, Field, list_members
from bridge.core.http.limits import Limits
from bridge.core.http.message import RequestHead, RequestLine, request_line
from bridge.core.http.uri import HOST, TARGET
from bridge.core.http1.framing import request_content_length
from bridge.core.http1.grammar import BAD_LINE_END, REQUEST_LINE, VERSION
from bridge.errors import LimitExceeded, RequestSyntaxError, UnsupportedFeature
from bridge.speedups import parse_head as _compiled

__all__ = ["parse_fields", "parse_head", "parse_head_pure", "parse_usual_head"]

_METHODS = {
    name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT")
}
_SLASH = ord("/")
# Nearly every browser sends this field. In HTTP/1.1 it changes nothing.
_PERSISTENT = (b"connection", b"keep-alive")
# The fields that decide about framing, persistence, or the host.
_STEERING = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade"})

# Field name as received -> in lower case. A name that is found here was checked before. Bounded, since peers choose the
# names (bytes).
_NAMES_MAX = 1024
_NAME_LENGTH_MAX = 40
_names: dict[bytes, bytes] = {}


def _none(_buffer: bytes | bytearray, _start: int, _limits: tuple[int, int, int, int]) -> RequestHead | None:
    return None


parse_usual_head: Callable[[bytes | bytearray, int, tuple[int, int, int, int]], RequestHead | None] = _compiled or _none
"""The compiled function: the head that begins at a position of a buffer, within ``limits.of_head``.

It returns None for a head that :func:`parse_head_pure` has to decide: one that is incomplete, has an unusual form or is
refused. Without the compiled part it returns None for every head.
"""


def parse_head(
    buffer: bytes | bytearray,
    start: int,
    limits: Limits,
    scanned: int = 0,
) -> RequestHead | None:
    """Parse the request head that begins at *start*, by the compiled function if it is there.

    The compiled function takes only complete heads of the usual form. :func:`parse_head_pure`, which has the same
    arguments, results and exceptions, decides all others, and so makes every refusal.
    """
    # The compiled function looks at a head that comes in pieces only when it is complete. Otherwise it would read the
    # first pieces again and again.
    if not scanned or buffer.find(b"\r\n\r\n", start + max(scanned - 3, 0)) >= 0:
        head = parse_usual_head(buffer, start, limits.of_head)
        if head is not None:
            return head
    return parse_head_pure(buffer, start, limits, scanned)


def parse_head_pure(
    buffer: bytes | bytearray,
    start: int,
    limits: Limits,
    scanned: int = 0,
) -> RequestHead | None:
    """Parse the request head that begins at *start*.

    1. The head's end is searched. An incomplete head is refused at once if no further byte can make it valid.
    2. The limits are checked, before a long head is split into lines.
    3. The request line is parsed, then the field lines, and then the fields that steer the connection.

    Args:
        buffer: Received bytes; not changed.
        start: Where the request line begins.
        limits: The sizes above which a well-formed head is refused.
        scanned: Bytes behind *start* that an earlier call has searched without finding the end. They are not searched
            again, so a head that arrives in small pieces costs linear time.

    Returns:
        A head, which ends ``size`` bytes behind *start*; None while it is incomplete.

    Raises:
        RequestSyntaxError: 400, RFC 9112 sections 2, 3 and 5.
        FramingError: 400, RFC 9112 section 6, unknown transfer codings included.
        LimitExceeded: 414 for the request line, 431 for the header section, 413 for a Content-Length of too many
            digits.
        UnsupportedFeature: 501 for CONNECT, 505 for another major version.
    """
    end = buffer.find(b"\r\n\r\n", start + scanned - 3 if scanned > 3 else start)
    if end < 0:
        _check_incomplete(buffer, start, limits, scanned)
        return None
    size = end - start + 4
    wire = buffer[start:end]
    if wire.__class__ is not bytes:
        wire = bytes(wire)
    raw_line, _, section = wire.partition(b"\r\n")
    if size > limits.field_line or size > limits.request_line or size > limits.head:
        _check_sizes(raw_line, section, size, limits)
    line = _parse_request_line(raw_line)
    lines = section.split(b"\r\n") if section else []
    if len(lines) > limits.fields:
        raise LimitExceeded(431, f"{len(lines)} field lines, limit {limits.fields}")
    fields = _parse_lines(section, lines)
    head = RequestHead(line, fields, b"", size, keep_alive=line.version == b"1.1")
    steering = [field for field in fields if field[0] in _STEERING]
    if len(steering) == 1 or (len(steering) == 2 and steering[1] == _PERSISTENT):
        # The usual case: only a Host.
        name, host = steering[0]
        if name == b"host" and line.version == b"1.1" and not line.authority and HOST.fullmatch(host) is not None:
            head.host = host
            return head
    _steer(head, steering)
    return head


def _parse_lines(section: bytes, lines: list[bytes]) -> tuple[Field, ...]:
    """Return the fields of a section's lines, names in lower case, values without surrounding white space.

    Raises:
        RequestSyntaxError: 400.
    """
    # Without the octets that values may have, only the line ends are left: no line has a control character. This one
    # pass costs a third of a pass over each value. A browser's head of which three of eleven lines vary takes 10.9 us
    # and took 13.8 us when whole lines were cached (CPython 3.13).
    if lines and len(section.translate(None, VALUE_OCTETS)) == 2 * len(lines) - 2:
        try:
            fields = [
                (_names[name], value.strip(b" \t"))
                for line in lines
                # A line such as "a:b: c" is cut at the wrong colon. "a:b" is not in the table, so the lines are then
                # parsed one by one.
                for name, colon, value in [line.partition(b": ")]
                if colon
            ]
        except KeyError:
            pass
        else:
            if len(fields) == len(lines):
                return tuple(fields)
    return tuple([_parse_field_line(line) for line in lines])


def _parse_field_line(raw: bytes) -> Field:
    """Return a field line's name in lower case and its value."""
    name, colon, value = raw.partition(b":")
    lower = _names.get(name)
    if lower is None:
        lower = _lower_name(name, colon, raw)
    elif not colon:
        raise RequestSyntaxError(f"no colon in header line: {raw[:80]!r}")
    value = value.strip(b" \t")
    if FIELD_VALUE.fullmatch(value) is None:
        raise RequestSyntaxError(f"control character in the value of {name!r:.80}")
    return lower, value


def _lower_name(name: bytes, colon: bytes, raw: bytes) -> bytes:
    """Check a field name that is not in the table; return it in lower case."""
    if not colon or TOKEN.fullmatch(name) is None:
        # This also refuses white space before the colon and folded lines (section 5.2).
        reason = "no colon in header line" if not colon else "field name is not a token"
        raise RequestSyntaxError(f"{reason}: {raw[:80]!r}")
    lower = name.lower()
    if len(name) <= _NAME_LENGTH_MAX:
        lower = _names.setdefault(lower, lower)
        remember(_names, name, lower, _NAMES_MAX)
    return lower


def parse_fields(block: bytes, limits: Limits) -> list[tuple[bytes, bytes]]:
    """Parse field lines that are separated by CRLF, as in a trailer section (RFC 9112 section 7.1.2).

    Args:
        block: The lines, without the last line end.
        limits: The limits of a line's size and of the number of lines.

    Returns:
        (name, value) of every line, names in lower case.

    Raises:
        RequestSyntaxError: 400; a line is malformed.
        LimitExceeded: 431; a line is too long, or there are too many.
    """
    if len(block) > limits.field_line and any(len(line) > limits.field_line for line in block.split(b"\r\n")):
        raise LimitExceeded(431, f"field line longer than {limits.field_line} bytes")
    lines = block.split(b"\r\n")
    if len(lines) > limits.fields:
        raise LimitExceeded(431, f"{len(lines)} field lines, limit {limits.fields}")
    fields = _parse_lines(block, lines)
    for name, value in fields:
        if name == b"host" and HOST.fullmatch(value) is None:
            raise RequestSyntaxError(f"Invalid Host header: {value[:80]!r}")
    return [*fields]


def _check_incomplete(buffer: bytes | bytearray, start: int, limits: Limits, scanned: int) -> None:
    """Refuse an incomplete head if no further byte can make it valid, so that a peer cannot fill the buffer with it."""
    length = len(buffer) - start
    if length and TOKEN.match(buffer, start) is None:
        raise RequestSyntaxError(f"Malformed HTTP request line: {bytes(buffer[start : start + 40])!r}")
    # + 2: a line whose size is the limit may still lack a part of its CRLF. Heads below the limits are not searched,
    # since this runs for every piece of a head.
    room = limits.request_line + 2
    if length >= room and buffer.find(b"\r\n", start, start + room) < 0:
        raise LimitExceeded(414, f"request line longer than {limits.request_line} bytes")
    if length > limits.head:
        raise LimitExceeded(431, f"header section longer than {limits.head} bytes")
    bad = BAD_LINE_END.search(buffer, start + max(0, scanned - 1))
    if bad is not None:
        raise RequestSyntaxError(
            f"line not ended by CRLF, or NUL, at byte {bad.start() - start} (RFC 9112 section 2.2)"
        )
    room = limits.field_line + 3
    if length >= room and buffer.rfind(b"\r\n", len(buffer) - room) < 0 and buffer.find(b"\r\n", start) >= 0:
        raise LimitExceeded(431, f"field line longer than {limits.field_line} bytes")


def _check_sizes(raw_line: bytes, section: bytes, size: int, limits: Limits) -> None:
    if len(raw_line) > limits.request_line:
        raise LimitExceeded(414, f"request line {len(raw_line)} bytes, limit {limits.request_line}")
    if size > limits.head:
        raise LimitExceeded(431, f"header section {size} bytes, limit {limits.head}")
    longest = max(map(len, section.split(b"\r\n")))
    if longest > limits.field_line:
        raise LimitExceeded(431, f"field line {longest} bytes, limit {limits.field_line}")


def _parse_request_line(raw: bytes) -> RequestLine:
    match = REQUEST_LINE.fullmatch(raw)
    if match is None:
        return _parse_odd_request_line(raw)
    method, target, path, query, version = match.groups(b"")
    method_text = _METHODS.get(method)
    if method_text is None:
        method_text = method.decode("ascii")
    elif method == b"CONNECT":
        return _parse_odd_request_line(raw)
    return request_line(method, method_text, target, version, path, query, b"")


def _parse_odd_request_line(raw: bytes) -> RequestLine:
    """Parse a request line that does not have the usual form."""
    try:
        method, target, protocol = raw.split(b" ")
    except ValueError:
        raise RequestSyntaxError(f"Malformed HTTP request line: {raw[:80]!r}") from None
    if TOKEN.fullmatch(method) is None or TARGET.fullmatch(target) is None:
        raise RequestSyntaxError(f"Malformed HTTP request line: {raw[:80]!r}")
    match = VERSION.fullmatch(protocol)
    if match is None:
        raise RequestSyntaxError(f"Malformed HTTP request line: version {protocol[:80]!r}")
    if match[1] != b"1":
        raise UnsupportedFeature(505, f"HTTP version {protocol!r}")
    version = b"1.0" if protocol == b"HTTP/1.0" else b"1.1"
    if target[0] == _SLASH and method != b"CONNECT":
        path, _, query = target.partition(b"?")
        authority = b""
    else:
        path, query, authority = _split_target(method, target)
    return request_line(method, method.decode("ascii"), target, version, path, query, authority)


def _split_target(method: bytes, target: bytes) -> tuple[bytes, bytes, bytes]:
    """Return path, query and authority of a target that is not in origin-form (RFC 9112 section 3.2)."""
    if method == b"CONNECT":
        if target[:1] == b"/" or HOST.fullmatch(target) is None:
            raise RequestSyntaxError("Malformed HTTP request line: CONNECT asks for the authority-form")
        raise UnsupportedFeature(501, "CONNECT: this server is no proxy")
    if target == b"*":
        if method != b"OPTIONS":
            raise RequestSyntaxError("Malformed HTTP request line: the asterisk-form is for OPTIONS")
        return b"*", b"", b""
    scheme, separator, rest = target.partition(b"://")
    if not separator or scheme.lower() not in {b"http", b"https"}:
        raise RequestSyntaxError(f"Malformed HTTP request line: target {target[:80]!r}")
    cut = min((at for at in (rest.find(b"/"), rest.find(b"?")) if at >= 0), default=len(rest))
    authority, target = rest[:cut], rest[cut:]
    if HOST.fullmatch(authority) is None:
        raise RequestSyntaxError(f"Malformed HTTP request line: authority {authority[:80]!r}")
    if not target:
        # An absolute-form without a path: "/" for every method but OPTIONS (RFC 9112 section 3.2.4).
        return (b"*" if method == b"OPTIONS" else b"/"), b"", authority
    path, _, query = target.partition(b"?")
    return path or b"/", query, authority


def _use_authority(head: RequestHead, authority: bytes) -> None:
    """Let the authority of an absolute-form target replace the Host field (RFC 9112 section 3.2.2)."""
    head.host = authority
    head.fields = ((b"host", authority), *(field for field in head.fields if field[0] != b"host"))


def _steer(head: RequestHead, steering: list[Field]) -> None:
    """Set host, content length, persistence, upgrade and expectation from the fields that decide them."""
    line = head.line
    values: dict[bytes, list[bytes]] = {}
    for name, value in steering:
        values.setdefault(name, []).append(value)
    _take_host(head, values.get(b"host", []))
    lengths = values.get(b"content-length", [])
    codings = values.get(b"transfer-encoding", [])
    if lengths or codings:
        head.content_length = request_content_length(line.version, codings, lengths)
    connection = values.get(b"connection")
    if connection is not None:
        options = list_members(connection)
        if b"close" in options:
            head.keep_alive = False
        elif b"keep-alive" in options:
            head.keep_alive = True
        if b"upgrade" in options and line.version == b"1.1":
            head.upgrade = b", ".join(list_members(values.get(b"upgrade", [])))
    expect = values.get(b"expect")
    if expect is not None:
        # An HTTP/1.0 client gets no interim response, and a request without content needs none (RFC 9110 section
        # 10.1.1).
        head.expect_continue = (
            line.version == b"1.1" and head.content_length != 0 and b"100-continue" in list_members(expect)
        )


def _take_host(head: RequestHead, hosts: list[bytes]) -> None:
    """Check and set the host: exactly one Host field, which HTTP/1.0 may leave out (RFC 9112 section 3.2)."""
    if len(hosts) > 1:
        raise RequestSyntaxError("Invalid Host header: more than one")
    if hosts:
        if HOST.fullmatch(hosts[0]) is None:
            raise RequestSyntaxError(f"Invalid Host header: {hosts[0][:80]!r}")
        head.host = hosts[0]
    elif head.line.version != b"1.0":
        raise RequestSyntaxError("Invalid Host header: missing (RFC 9112 section 3.2)")
    if head.line.authority:
        _use_authority(head, head.line.authority)
