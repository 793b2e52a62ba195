"""Request heads out of field blocks (RFC 9113 section 8): the counterpart of HTTP/1's ``parse_head``.

Grammar and limits are those of HTTP/1. What RFC 9113 calls malformed is an error of the stream; everything else has a
status that answers it.

What is kept from one request for the next ones is bounded and belongs to one connection. Every change of the dynamic
table drops it, since after that an equal block may stand for other fields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.core.http.cache import remember
from bridge.core.http.fields import FIELD_VALUE, TOKEN, VALUE_OCTETS, Field, content_length, list_members
from bridge.core.http.message import RequestHead, RequestLine, request_line
from bridge.core.http.uri import HOST, ORIGIN_FORM
from bridge.core.http2.codes import MalformedRequest
from bridge.core.http2.hpack import FieldDecoder
from bridge.core.http2.scheduler import DEFAULT_PRIORITY, parse_priority
from bridge.errors import LimitExceeded, RequestSyntaxError, UnsupportedFeature

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridge.core.http.limits import Limits

__all__ = ["HeadReader", "StreamHead"]

_COLON = ord(":")
_SCHEMES = frozenset({b"http", b"https"})

_USUAL_PSEUDO_FIELDS = frozenset({b":authority", b":method", b":path", b":scheme"})
_PSEUDO_FIELDS = frozenset({b":authority", b":method", b":path", b":protocol", b":scheme"})
# The fields of a connection; a request that has one is malformed (RFC 9113 section 8.2.2).
_FORBIDDEN = frozenset({b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"})
# What must not follow the pseudo-fields.
_MISPLACED = _FORBIDDEN | _PSEUDO_FIELDS | {b":status"}
# The regular fields that are checked or change how the request is served.
_STEERING = _MISPLACED | {b"content-length", b"cookie", b"expect", b"host", b"priority", b"te"}
_SECRETS = frozenset({b"authorization", b"cookie", b"proxy-authorization"})

# The most blocks of each kind that are kept, and the most bytes of such a block.
_BLOCKS_MAX = 16
_BLOCK_LENGTH_MAX = 2048
# Names that were checked before. Bounded, since peers choose them.
_NAMES_MAX = 1024
_NAME_LENGTH_MAX = 40
_names: dict[bytes, None] = dict.fromkeys(_PSEUDO_FIELDS)
# What is added to a method and a target to compare them with the limit of a request line: two spaces and "HTTP/2.0".
_LINE_REST = 10


# The value of the field `priority` as browsers write it -> what it means. Others are parsed.
_PRIORITIES = {
    b"u=%d%b" % (urgency, end): (urgency, bool(end)) for urgency in range(8) for end in (b"", b", i", b",i")
} | {b"i": (DEFAULT_PRIORITY[0], True)}


class StreamLine(RequestLine):
    """The request line that the pseudo-fields of HTTP/2 stand for. Shared values belong to the class."""

    __slots__ = ()

    version = b"2"
    version_text = "2"
    protocol_text = "HTTP/2.0"
    authority = b""


class StreamHead(RequestHead):
    """The head of a request of HTTP/2.

    ``upgrade`` is the value of the ``:protocol`` pseudo-field in lower case (RFC 8441). ``size`` is the size of the
    field block as received.

    Attributes:
        urgency: 0 is sent first, 7 last (RFC 9218).
        incremental: The response may be sent in turns with others.
    """

    __slots__ = ("incremental", "urgency")

    keep_alive = True
    urgency: int
    incremental: bool


class HeadReader:
    """Reads the request heads and trailer sections of one connection, in the order in which their blocks came.

    Args:
        limits: The limits of a head. ``head`` has no meaning here.
        list_size: Most bytes of a list of fields, as announced by SETTINGS_MAX_HEADER_LIST_SIZE.
        extended_connect: SETTINGS_ENABLE_CONNECT_PROTOCOL was sent (RFC 8441).
    """

    __slots__ = (
        *("_decoder", "_extended_connect", "_last", "_last_ended", "_last_regular", "_limits", "_line", "_memos"),
        *("_sizes", "_unchecked"),
    )

    def __init__(self, limits: Limits, list_size: int = 32768, *, extended_connect: bool = False) -> None:
        self._limits = limits
        self._extended_connect = extended_connect
        self._decoder = FieldDecoder(list_size)
        self._sizes = (list_size, limits.request_line, limits.field_line, limits.fields)
        # Blocks -> heads, of streams that go on and of those that end with their head. A block is kept only if it has
        # changed nothing in the table and has no secret in it. A change of the table drops all blocks.
        self._memos: tuple[dict[bytes, StreamHead], dict[bytes, StreamHead]] = ({}, {})
        self._line: RequestLine | None = None  # of the last head
        # The last head, whether its stream ended with it, and its fields as they were received.
        self._last: StreamHead | None = None
        self._last_ended = False
        self._last_regular: list[Field] = []
        self._unchecked = False  # the table may have fields that are malformed

    def read(self, block: bytes, ended: bool) -> StreamHead:
        """Return the head of a request.

        Args:
            block: A whole field block.
            ended: The stream ends with it: there is no content.

        Raises:
            ConnectionFault: COMPRESSION_ERROR or ENHANCE_YOUR_CALM; the connection cannot go on.
            MalformedRequest: RFC 9113 section 8.
            RequestSyntaxError: 400; the host is missing or malformed.
            FramingError: 400; Content-Length is no number.
            LimitExceeded: 414 for the request line, 431 for the fields, 413 for a Content-Length of too many digits.
            UnsupportedFeature: 501 for CONNECT.
        """
        memo = self._memos[ended]
        if memo:
            head = memo.get(block)
            if head is not None:
                return head
        values = None if self._unchecked else self._decoder.read_request(block, ended, self._sizes)
        if values is None:
            return self._read_unusual(block, ended)
        line = StreamLine()
        head = StreamHead.__new__(StreamHead)
        (
            line.method, line.method_text, line.target, line.path, line.path_text, line.query,
            head.fields, head.host, head.content_length, head.expect_continue, priority, keep, inserted,
        ) = values  # fmt: skip
        line.plain = line.method_text != "HEAD"
        head.line = line
        head.upgrade = b""
        head.size = len(block)
        head.urgency, head.incremental = (
            DEFAULT_PRIORITY if priority is None else _PRIORITIES.get(priority) or parse_priority(priority)
        )
        if keep:
            if head.size <= _BLOCK_LENGTH_MAX:
                remember(memo, block, head, _BLOCKS_MAX)
        elif inserted:
            self._forget()
        return head

    def _read_unusual(self, block: bytes, ended: bool) -> StreamHead:
        """Return the head of a request that the compiled function leaves to this one, or all if there is none."""
        memo = self._memos[ended]
        decoder = self._decoder
        generation = decoder.generation
        fields = self._decode(block)
        head = self._make_head(fields, len(block), ended)
        if (
            decoder.generation == generation
            and len(block) <= _BLOCK_LENGTH_MAX
            and not decoder.never_indexed
            and _SECRETS.isdisjoint([name for name, _ in decoder.literals])
        ):
            remember(memo, block, head, _BLOCKS_MAX)
        return head

    def trailers(self, block: bytes) -> tuple[Field, ...]:
        """Return the fields of a trailer section (RFC 9113 section 8.1).

        Raises:
            ConnectionFault: As :meth:`read`.
            MalformedRequest: A field is malformed, or is a pseudo-field.
            RequestSyntaxError: 400; a Host field is malformed.
            LimitExceeded: 431.
        """
        fields = self._decode(block)
        for name, value in fields:
            if name[0] == _COLON or name in _FORBIDDEN:
                raise MalformedRequest(f"{name[:80]!r} in a trailer section (RFC 9113 sections 8.1 and 8.2.2)")
            if name == b"host" and HOST.fullmatch(value) is None:
                raise RequestSyntaxError(f"Invalid Host header: {value[:80]!r}")
        self._check_sizes(fields, len(block))
        return tuple(fields)

    def on_idle(self) -> None:
        """Drop everything but the dynamic table: the connection is idle."""
        self._forget()
        self._line = self._last = None
        self._last_regular = []
        self._decoder.literals = []

    def _forget(self) -> None:
        for memo in self._memos:
            memo.clear()

    def _decode(self, block: bytes) -> list[Field]:
        """Return the checked fields of a block."""
        decoder = self._decoder
        generation = decoder.generation
        try:
            fields = decoder.decode(block)
        except LimitExceeded:
            # The rest of the block was not checked, and may be in the table.
            self._unchecked = True
            raise
        finally:
            if decoder.generation != generation:
                self._forget()
        # Fields out of the table were checked when they came as literals.
        unchecked = fields if self._unchecked else decoder.literals
        if unchecked:
            try:
                _check_fields(unchecked)
            except MalformedRequest:
                self._unchecked = True
                raise
        return fields

    def _make_head(self, fields: list[Field], size: int, ended: bool) -> StreamHead:
        # The usual four pseudo-fields, in any order, and nothing else that begins with a colon.
        pseudo = dict(fields[:4])
        if pseudo.keys() == _USUAL_PSEUDO_FIELDS and (len(fields) == 4 or fields[4][0][0] != _COLON):
            regular = fields[4:]
        else:
            pseudo, regular = _split_pseudo_fields(fields)
        line = self._make_line(pseudo)
        authority = pseudo.get(b":authority")
        received = regular
        head = StreamHead.__new__(StreamHead)
        head.line = line
        head.size = size
        last = self._last
        if (
            last is not None
            and authority == last.host
            and ended == self._last_ended
            and regular == self._last_regular
            and line.method != b"CONNECT"
        ):
            # As usual, only the request line is new. All other fields came out of the table, so comparing them means
            # comparing pointers.
            head.fields = last.fields
            head.host = last.host
            head.expect_continue = last.expect_continue
            head.content_length = last.content_length
            head.upgrade = b""
            head.urgency = last.urgency
            head.incremental = last.incremental
            return head
        head.expect_continue = False
        head.upgrade = pseudo[b":protocol"].lower() if line.method == b"CONNECT" else b""
        head.content_length = 0 if ended or head.upgrade else None
        head.urgency, head.incremental = DEFAULT_PRIORITY
        steering = [field for field in regular if field[0] in _STEERING]
        if steering:
            regular, authority = self._steer(head, regular, steering, authority, ended)
        if last is None or authority is None or authority != last.host:
            authority = _checked_host(authority)
        head.host = authority
        head.fields = ((b"host", authority), *regular)
        self._check_sizes(head.fields, size)
        if not head.upgrade:
            self._last = head
            self._last_ended = ended
            self._last_regular = received
        return head

    def _make_line(self, pseudo: dict[bytes, bytes]) -> RequestLine:
        """Return the request line that the pseudo-fields stand for (RFC 9113 section 8.3.1, RFC 8441 section 4)."""
        try:
            method = pseudo[b":method"]
            if method == b"CONNECT" and b":protocol" not in pseudo:
                return self._refuse_connect(pseudo)
            scheme = pseudo[b":scheme"]
            path = pseudo[b":path"]
        except KeyError as exc:
            raise MalformedRequest(f"no {exc.args[0].decode()} (RFC 9113 section 8.3.1)") from None
        if scheme not in _SCHEMES or b":protocol" in pseudo:
            self._check_rare(pseudo)
        line = self._line
        if line is not None and line.method == method:
            if line.target == path:
                return line
            method_text = line.method_text
        else:
            if TOKEN.fullmatch(method) is None:
                raise MalformedRequest(f":method is no token: {method[:80]!r} (RFC 9113 section 8.3.1)")
            method_text = method.decode("ascii")
        match = ORIGIN_FORM.fullmatch(path)
        if match is None:
            if path != b"*" or method != b"OPTIONS":
                raise MalformedRequest(f":path is not in origin-form: {path[:80]!r} (RFC 9113 section 8.3.1)")
            path_only, query = path, b""
        else:
            path_only, query = match.groups(b"")
        size = len(method) + len(path) + _LINE_REST
        if size > self._limits.request_line:
            raise LimitExceeded(414, f"request line {size} bytes, limit {self._limits.request_line}")
        line = self._line = request_line(method, method_text, path, b"2", path_only, query, b"")
        return line

    def _check_rare(self, pseudo: dict[bytes, bytes]) -> None:
        """Check a scheme that is not spelled in the usual way, and the pseudo-field ``:protocol``."""
        if pseudo[b":scheme"].lower() not in _SCHEMES:
            raise MalformedRequest(f":scheme is not http or https: {pseudo[b':scheme'][:80]!r}")
        protocol = pseudo.get(b":protocol")
        if protocol is None:
            return
        if not self._extended_connect:
            raise MalformedRequest(":protocol, which was not announced (RFC 8441 section 3)")
        if pseudo[b":method"] != b"CONNECT" or b":authority" not in pseudo or TOKEN.fullmatch(protocol) is None:
            raise MalformedRequest(":protocol without CONNECT and :authority, or no token (RFC 8441 section 4)")

    def _refuse_connect(self, pseudo: dict[bytes, bytes]) -> RequestLine:
        if b":scheme" in pseudo or b":path" in pseudo or b":authority" not in pseudo:
            raise MalformedRequest("CONNECT has :authority, and neither :scheme nor :path (RFC 9113 section 8.5)")
        raise UnsupportedFeature(501, "CONNECT: this server is no proxy")

    def _steer(
        self, head: StreamHead, regular: list[Field], steering: list[Field], authority: bytes | None, ended: bool
    ) -> tuple[list[Field], bytes | None]:
        """Set the head's attributes from the fields that steer the request.

        Args:
            head: Is set.
            regular: All fields but the pseudo-fields at the front.
            steering: Those of them that steer the request or have to be checked.
            authority: The value of ``:authority``; None if it is missing.
            ended: The stream ends with its head.

        Returns:
            The fields without Host and with one Cookie field; the host, None if it is missing.
        """
        values: dict[bytes, list[bytes]] = {}
        for name, value in steering:
            values.setdefault(name, []).append(value)
        misplaced = _MISPLACED.intersection(values)
        if misplaced:
            raise MalformedRequest(
                f"{min(misplaced).decode()}: a field of the connection, or a pseudo-field behind other fields "
                "(RFC 9113 sections 8.2.2 and 8.3)"
            )
        if b"te" in values and any(value.lower() != b"trailers" for value in values[b"te"]):
            raise MalformedRequest("te is not trailers (RFC 9113 section 8.2.2)")
        if b"host" in values:
            authority = _choose_host(values[b"host"], authority)
            regular = [field for field in regular if field[0] != b"host"]
        cookies = values.get(b"cookie", [])
        if len(cookies) > 1:
            size = sum(map(len, cookies)) + 2 * len(cookies) + 6
            if size > self._limits.field_line:
                raise LimitExceeded(431, f"cookie fields {size} bytes, limit {self._limits.field_line}")
            regular = _join_cookies(regular, cookies)
        lengths = values.get(b"content-length")
        if lengths is not None:
            head.content_length = content_length(lengths)
            if ended and head.content_length:
                raise MalformedRequest("content-length, but no content (RFC 9113 section 8.1.1)")
        expect = values.get(b"expect")
        if expect is not None:
            head.expect_continue = head.content_length != 0 and b"100-continue" in list_members(expect)
        priorities = values.get(b"priority")
        if priorities is not None:
            head.urgency, head.incremental = parse_priority(b",".join(priorities))
        return regular, authority

    def _check_sizes(self, fields: Sequence[Field], size: int) -> None:
        """Check the number of fields and the size of each.

        Args:
            fields: The fields.
            size: Bytes of their block.
        """
        limits = self._limits
        if len(fields) > limits.fields:
            raise LimitExceeded(431, f"{len(fields)} field lines, limit {limits.fields}")
        # No field can be larger than its literals, which are at most 8/5 of their code, and the table's largest entry.
        if size * 8 // 5 + self._decoder.largest + 2 > limits.field_line:
            longest = max([len(name) + len(value) for name, value in fields], default=0) + 2
            if longest > limits.field_line:
                raise LimitExceeded(431, f"field line {longest} bytes, limit {limits.field_line}")


def _check_fields(fields: list[Field]) -> None:
    """Check names and values (RFC 9113 sections 8.2.1 and 8.3).

    Raises:
        MalformedRequest: A name is no token in lower case and no known pseudo-field, or a value has a control character
            or white space around it.
    """
    for name, _ in fields:
        if name not in _names:
            _check_name(name)
    # Checking all values at once costs a third of checking each. Line feeds separate them, since no value has one.
    values = b"\n%b\n" % b"\n".join([value for _, value in fields])
    if (
        len(values.translate(None, VALUE_OCTETS)) != len(fields) + 1
        or b"\n " in values
        or b" \n" in values
        or b"\t" in values
    ):
        for name, value in fields:
            # In HTTP/1 white space around a value is no part of it.
            if FIELD_VALUE.fullmatch(value) is None or value != value.strip(b" \t"):
                raise MalformedRequest(f"value of {name.decode()!r:.80} (RFC 9113 section 8.2.1)")


def _check_name(name: bytes) -> None:
    if TOKEN.fullmatch(name) is None or name != name.lower():
        raise MalformedRequest(f"field name {name[:80]!r} (RFC 9113 sections 8.2.1 and 8.3)")
    if len(name) <= _NAME_LENGTH_MAX:
        if len(_names) >= _NAMES_MAX:
            _names.clear()
            _names.update(dict.fromkeys(_PSEUDO_FIELDS))
        _names[name] = None


def _split_pseudo_fields(fields: list[Field]) -> tuple[dict[bytes, bytes], list[Field]]:
    """Return the pseudo-fields at the front of *fields*, and the fields behind them (RFC 9113 section 8.3)."""
    count = 0
    while count < len(fields) and fields[count][0][0] == _COLON:
        count += 1
    pseudo = dict(fields[:count])
    if len(pseudo) != count or not pseudo.keys() <= _PSEUDO_FIELDS:  # the static table has :status
        raise MalformedRequest("a pseudo-field that comes twice, or :status (RFC 9113 section 8.3)")
    return pseudo, fields[count:]


def _checked_host(host: bytes | None) -> bytes:
    """Return the value of ``:authority`` or Host, if it may be one."""
    if host is None:
        raise RequestSyntaxError("Invalid Host header: missing (RFC 9110 section 7.2)")
    if not host:
        raise MalformedRequest(":authority or Host is empty (RFC 9113 section 8.3.1)")
    if HOST.fullmatch(host) is None:
        raise RequestSyntaxError(f"Invalid Host header: {host[:80]!r}")
    return host


def _choose_host(hosts: list[bytes], authority: bytes | None) -> bytes:
    """Return the host of a request that has Host fields, and perhaps ``:authority`` (RFC 9113 section 8.3.1)."""
    if len(hosts) > 1:
        raise RequestSyntaxError("Invalid Host header: more than one")
    if authority is None:
        return hosts[0]
    if authority.lower() != hosts[0].lower():
        raise MalformedRequest("Host is not :authority (RFC 9113 section 8.3.1)")
    return authority


def _join_cookies(fields: list[Field], cookies: list[bytes]) -> list[Field]:
    """Return *fields* with one Cookie field in the place of the first of several (RFC 9113 section 8.2.3)."""
    joined: list[Field] = []
    rest: list[bytes] | None = cookies
    for field in fields:
        if field[0] != b"cookie":
            joined.append(field)
        elif rest is not None:
            joined.append((b"cookie", b"; ".join(rest)))
            rest = None
    return joined
