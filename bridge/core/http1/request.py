"""The request head: request line and header section (RFC 9112 sections 2, 3 and 5), bytes in, a value out.

The few fields that steer the connection are found on the way, so nobody looks for them again. What is kept of one
request for the next is bounded; lines that carry secrets are never kept beyond their connection's next request.
"""

from __future__ import annotations

from itertools import compress, count
from operator import ne

from bridge.core.http.cache import remember
from bridge.core.http.fields import FIELD_VALUE, TOKEN, VALUE_OCTETS, Field, list_members
from bridge.core.http.limits import Limits
from bridge.core.http.message import RequestHead, RequestLine, request_line
from bridge.core.http.uri import HOST, TARGET
from bridge.core.http1.framing import request_content_length
from bridge.core.http1.grammar import BAD_LINE_END, REQUEST_LINE, VERSION
from bridge.errors import LimitExceeded, RequestSyntaxError, UnsupportedFeature

__all__ = ["parse_fields", "parse_head"]

_new_head = RequestHead.__new__  # without __init__, as request_line()

_METHODS = {
    name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT")
}
_SLASH = ord("/")
# What nearly every browser says, and what changes nothing in HTTP/1.1.
_PERSISTENT = (b"connection", b"keep-alive")
# The fields that steer the connection.
_STEERING = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection", b"expect", b"upgrade"})
# A head that is longer (bytes) is not worth being compared with the next one.
_WIRE_MAX = 2048

# Field names as received -> in lower case.
_NAMES_MAX = 1024
_NAME_LENGTH_MAX = 40
_names: dict[bytes, bytes] = {}


def parse_head(
    buffer: bytes | bytearray,
    start: int,
    limits: Limits,
    scanned: int = 0,
    previous: RequestHead | None = None,
) -> RequestHead | None:
    """Parse the request head that begins at *start*.

    Returns None while the head is incomplete; else a head whose ``size`` tells where the rest begins.

    Args:
        buffer: Received bytes; left as it is.
        start: Where the request line begins.
        limits: What is refused although it is well-formed.
        scanned: Bytes behind *start* that an earlier call has searched in vain, so that a head that arrives in
            small pieces costs linear time.
        previous: The connection's last head. Most clients repeat their header section to the letter; then what was
            parsed and checked for it holds again.

    Raises:
        RequestSyntaxError: 400, RFC 9112 sections 2, 3 and 5.
        FramingError: 400, RFC 9112 section 6.
        LimitExceeded: 414 for the request line, 431 for the header section, 413 for an absurd Content-Length.
        UnsupportedFeature: 501 for CONNECT and unknown transfer codings, 505 for another major version.
    """
    end = buffer.find(b"\r\n\r\n", start + scanned - 3 if scanned > 3 else start)
    if end < 0:
        _check_incomplete(buffer, start, limits, scanned)
        return None
    size = end - start + 4
    wire = buffer[start : end + 4]
    if wire.__class__ is not bytes:
        wire = bytes(wire)
    raw_line, _, section = wire.partition(b"\r\n")
    if size > limits.field_line or size > limits.request_line or size > limits.head:
        _check_sizes(raw_line, section, size, limits)
    if previous is not None and wire == previous.wire:
        return previous
    line = _parse_request_line(raw_line)
    section = section[:-4]
    lines = section.split(b"\r\n") if section else []
    if len(lines) > limits.fields:
        raise LimitExceeded(431, f"{len(lines)} field lines, limit {limits.fields}")
    if previous is None:
        return _parse_section(line, wire, section, lines, b"")
    return _parse_changes(line, wire, section, lines, previous) or _parse_section(
        line, wire, section, lines, previous.host
    )


def _parse_changes(
    line: RequestLine, wire: bytes, section: bytes, lines: list[bytes], previous: RequestHead
) -> RequestHead | None:
    """Parse those field lines that differ from the lines of *previous*, the connection's last head.

    Most clients repeat most of their lines to the letter: a browser changes its cookies and where it comes from. What
    was parsed and checked for the other lines holds again.

    Returns:
        None if this is not the way: much has changed, or one of the lines that steer the connection.
    """
    before = previous.lines
    if before is None or len(lines) != len(before) or line.version_text != previous.line.version_text or line.authority:
        return None
    changed = [*compress(count(), map(ne, lines, before))]
    if 2 * len(changed) > len(lines) or len(wire) > _WIRE_MAX:
        return None
    fields = previous.fields
    if changed:
        updated = [*fields]
        for at in changed:
            field = _parse_field_line(lines[at])
            if field[0] in _STEERING or updated[at][0] in _STEERING:
                return None
            updated[at] = field
        fields = tuple(updated)
    head = _new_head(RequestHead)
    head.line = line
    head.fields = fields
    head.host = previous.host
    head.size = len(wire)
    head.wire = wire
    head.section = section
    head.lines = lines
    head.content_length = previous.content_length
    head.keep_alive = previous.keep_alive
    head.expect_continue = previous.expect_continue
    head.upgrade = previous.upgrade
    return head


def _parse_section(
    line: RequestLine, wire: bytes, section: bytes, lines: list[bytes], known_host: bytes
) -> RequestHead:
    """Parse a header section, of which *lines* are the lines; *known_host* is a Host that was checked before."""
    fields = _parse_lines(section, lines)
    size = len(wire)
    head = RequestHead(line, fields, b"", size, keep_alive=line.version == b"1.1")
    if size <= _WIRE_MAX and not line.authority:
        head.wire = wire
        head.section = section
        head.lines = lines
    steering = [field for field in fields if field[0] in _STEERING]
    if len(steering) == 1 or (len(steering) == 2 and steering[1] == _PERSISTENT):
        name, host = steering[0]
        if host == known_host and name == b"host" and host and line.version == b"1.1":
            head.host = host
            if line.authority:
                _use_authority(head, line.authority)
            return head
    _steer(head, steering)
    return head


def _parse_lines(section: bytes, lines: list[bytes]) -> tuple[Field, ...]:
    """Return the fields of a section's lines, names in lower case, values without surrounding white space.

    Raises:
        RequestSyntaxError: 400.
    """
    # Nothing is left but the line ends that were found: no line has a control character. One pass over the section
    # costs a third of one over each value, and values that vary cost no more than those that came before.
    if lines and len(section.translate(None, VALUE_OCTETS)) == 2 * len(lines) - 2:
        try:
            fields = [
                (_names[name], value.strip(b" \t"))
                for line in lines
                for name, colon, value in [line.partition(b": ")]  # a longer name than the line's is none that is known
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
    if not colon or TOKEN.fullmatch(name) is None:
        # White space before the colon, folded lines (section 5.2) and lines without a colon end here too.
        reason = "no colon in header line" if not colon else "field name is not a token"
        raise RequestSyntaxError(f"{reason}: {raw[:80]!r}")
    lower = name.lower()
    if len(name) <= _NAME_LENGTH_MAX:
        lower = _names.setdefault(lower, lower)
        remember(_names, name, lower, _NAMES_MAX)
    return lower


def parse_fields(block: bytes, limits: Limits) -> list[tuple[bytes, bytes]]:
    """Parse field lines that are separated by CRLF, as in a trailer section (RFC 9112 section 7.1.2).

    Raises:
        RequestSyntaxError: 400.
        LimitExceeded: 431.
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
    """Refuse early what no further byte can mend."""
    length = len(buffer) - start
    if length and TOKEN.match(buffer, start) is None:
        raise RequestSyntaxError(f"Malformed HTTP request line: {bytes(buffer[start : start + 40])!r}")
    # A line of just the limit may still lack the LF of its CRLF. Fewer bytes than the limits are not searched, since
    # this runs for every piece of a head.
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
    """Parse a request line that has not the usual form, or say what is wrong with it."""
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
    """Return path, query and authority of a target that is not the usual origin-form (RFC 9112 section 3.2)."""
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
    """Set what the steering fields decide."""
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
        # To HTTP/1.0 no interim response is ever sent; a request without content needs none (RFC 9110 section 10.1.1).
        head.expect_continue = (
            line.version == b"1.1" and head.content_length != 0 and b"100-continue" in list_members(expect)
        )


def _take_host(head: RequestHead, hosts: list[bytes]) -> None:
    """Check and set the host (RFC 9112 section 3.2)."""
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
