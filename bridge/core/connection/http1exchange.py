"""One exchange: a request with its response (RFC 9110 section 3.4), from the server's side.

The exchange writes the response; everything that touches the transport, the deadlines or the next request is the
connection's.
"""

from __future__ import annotations

from collections.abc import Iterable
from time import monotonic_ns
from typing import TYPE_CHECKING, Any

from bridge.core.connection.sendfile import read_piece, send_range
from bridge.core.connection.states import CLOSED, CONTENT, DONE, HEAD
from bridge.core.http1.encoder import (
    LAST_CHUNK,
    NO_CONTENT,
    NO_LENGTH,
    KnownHeads,
    chunk,
    encode_fields,
    status_line,
    without_length,
)
from bridge.errors import ConnectionGone, LocalProtocolError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Mapping

    from bridge.core.connection.clock import Clock
    from bridge.core.connection.context import ConnectionContext
    from bridge.core.connection.http1 import ServerConnection
    from bridge.core.connection.interfaces import ExchangeDelegate
    from bridge.core.connection.parameters import ConnectionParameters
    from bridge.core.connection.states import State
    from bridge.core.connection.times import Times
    from bridge.core.http1.encoder import ResponseHead, Special
    from bridge.core.http1.request import RequestHead

__all__ = ["Exchange"]

# Content from here on is handed to the transport by itself: joining it with the head would copy it.
_JOIN_MAX = 32768
# Statuses that must not declare a length either (RFC 9110 section 8.6).
_NO_LENGTH = frozenset({101, 204})
_CHUNKED = -2
_UNTIL_CLOSE = -3

_known_heads = KnownHeads()
_known_head = _known_heads.get


class Exchange:
    """A request and its response on one connection.

    Attributes:
        head: The request head.
        server_connection: The connection.
        context: The two ends; a forwarded address stands here, never on the connection.
        delegate: Who takes the request's content.
        writing: HEAD until the first byte of the final response, then CONTENT, DONE; CLOSED when nobody reads it.
        response: The response's head, once there is one.
        status: The response's status code; 0 until :meth:`respond`.
        content_sent: Bytes of response content handed over so far, without transfer coding.
        trailers: The request's trailer fields once it is complete (RFC 9110 section 6.5).
        close_after: The connection ends with this exchange.
        max_body_size: Most bytes of request content, or None for the connection's own limit.
        times: When it began, waited and answered; None where no observer asks for it.
        templates: What delegates keep for the connection's next requests, by owner.
        own_lines: Field lines of the server's that belong to this response, whoever makes it.
    """

    __slots__ = (
        "_length",
        "close_after",
        "content_sent",
        "context",
        "continue_pending",
        "delegate",
        "head",
        "max_body_size",
        "response",
        "server_connection",
        "status",
        "templates",
        "times",
        "trailers",
        "writing",
    )

    delegate: ExchangeDelegate
    own_lines: bytes = b""
    server_fields: tuple[tuple[bytes, bytes], ...] = ()

    def begin(self, connection: ServerConnection, head: RequestHead, context: ConnectionContext) -> None:
        """Begin: the first call of all. An ``__init__`` in a class with slots costs twice as much (CPython 3.13)."""
        self.server_connection = connection
        self.head = head
        self.context = context
        self.writing: State = HEAD
        self.status = 0
        self.content_sent = 0
        self.close_after = not head.keep_alive
        self.continue_pending = head.expect_continue
        self.trailers: Iterable[tuple[bytes, bytes]] = ()
        self.max_body_size: int | None = None
        self.response: ResponseHead | None = None
        self.times: Times | None = None
        self.templates: Mapping[object, Any] = connection.templates

    @property
    def connection(self) -> ServerConnection:
        """The connection."""
        return self.server_connection

    @property
    def connection_context(self) -> ConnectionContext:
        """The two ends of the connection."""
        return self.server_connection.context

    @property
    def parameters(self) -> ConnectionParameters:
        """The limits and times of the connection."""
        return self.server_connection.params

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop."""
        return self.server_connection.loop

    @property
    def clock(self) -> Clock:
        """The server's clock."""
        return self.server_connection.clock

    @property
    def tls(self) -> Any:
        """The connection's TLS object; None without TLS."""
        transport = self.server_connection.transport
        return None if transport is None else transport.get_extra_info("ssl_object")

    def keep_template(self, owner: object, value: object) -> None:
        """Keep *value* for the connection's next requests, under *owner*; from its second request on."""
        connection = self.server_connection
        if connection.requests > 1:
            if not connection.templates:
                connection.templates = {}
            connection.templates[owner] = value

    # ------------------------------------------------------------------ the request's content

    def pause_reading(self) -> None:
        """Let no more content reach the delegate until :meth:`resume_reading`; the peer is slowed down."""
        if self.server_connection.exchange is self:
            self.server_connection.pause_content()

    def resume_reading(self) -> None:
        """Let content reach the delegate again, at once if some has been received."""
        if self.server_connection.exchange is self:
            self.server_connection.resume_content()

    def pause_until(self, waiting: Awaitable[None]) -> None:
        """Let no content reach the delegate until *waiting* is done."""
        self.server_connection.hold_for(waiting)

    def set_body_timeout(self, seconds: float | None) -> None:
        """Let the whole content be due in *seconds*; None for no limit."""
        if self.server_connection.exchange is self:
            self.server_connection.set_body_timeout(seconds)

    def send_continue(self) -> None:
        """Send 100 (Continue) if the client waits for it (RFC 9110 section 10.1.1); else do nothing."""
        if self.continue_pending and self.writing is HEAD:
            self.continue_pending = False
            self.server_connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    # ------------------------------------------------------------------ the response

    @property
    def response_started(self) -> bool:
        """Bytes of the final response have been sent."""
        return self.writing is not HEAD

    @property
    def finished(self) -> bool:
        """The response is complete, or nobody waits for it any more."""
        return self.writing is DONE or self.writing is CLOSED

    @property
    def peer_gone(self) -> bool:
        """The connection has failed; the delegate has been told, or will be in a moment."""
        transport = self.server_connection.transport
        return transport is None or transport.is_closing()

    def writable(self) -> asyncio.Future[None]:
        """Return a future that is done when enough of what waits has been sent."""
        return self.server_connection.writable()

    def lower_high_water(self, size: int) -> None:
        """Pause writers when more than *size* bytes wait to be sent, if the connection's own mark is higher."""
        connection = self.server_connection
        connection.set_high_water(min(size, connection.params.high_water))

    @property
    def write_paused(self) -> bool:
        """More is waiting to be sent than the high-water mark (bytes, ``ConnectionParameters.high_water``) allows."""
        return self.server_connection.write_paused

    async def drained(self) -> None:
        """Wait until less than the high-water mark is waiting to be sent.

        Raises:
            ConnectionGone: The peer left.
        """
        if self.writing is CLOSED:
            raise ConnectionGone("the peer closed the connection")
        if self.server_connection.write_paused:
            await self.server_connection.writable()

    def inform(self, status: int, fields: Iterable[tuple[bytes, bytes]]) -> None:
        """Send an interim response, such as 103 (RFC 9110 section 15.2); HTTP/1.0 clients get none.

        Raises:
            LocalProtocolError: The final response has begun, or the status or a field is illegal.
            ConnectionGone: The peer left.
        """
        if self.writing is CLOSED:
            raise ConnectionGone("the peer closed the connection")
        if self.writing is not HEAD or not 102 <= status <= 199:
            raise LocalProtocolError(f"interim response {status} out of place")
        block = status_line(status) + encode_fields(fields) + b"\r\n"
        if self.head.version != b"1.0":
            self.server_connection.write(block)

    def respond(self, status: int, fields: Iterable[tuple[bytes, bytes]], reason: bytes = b"") -> None:
        """Check and keep the head of the final response; it is sent with the first content.

        May be called again as long as nothing was sent. The framing is ours: Transfer-Encoding and other hop-by-hop
        fields are left out, ``Connection: close`` is obeyed, ``Date`` is added where it is missing.

        Args:
            status: 101, or 200 to 999.
            fields: (name, value) pairs of bytes.
            reason: The reason phrase; empty for the registered one.

        Raises:
            LocalProtocolError: The response has begun, or the status, the reason or a field is illegal.
            ConnectionGone: The peer left.
        """
        key = (status, reason, *fields)
        try:
            head = _known_head(key)
        except (TypeError, ValueError):  # a field is a list, or has a view of something that may change
            head = None
        if head is None:
            if status < 200 and status != 101:
                raise LocalProtocolError(f"{status} is no final status")
            head = _known_heads.add(status, reason, *key[2:])
        self.respond_with(head)

    def respond_with(self, head: ResponseHead) -> None:
        """Keep a head that was checked before, perhaps in another thread; else as :meth:`respond`.

        Raises:
            LocalProtocolError: The response has begun, or 101 is out of place.
            ConnectionGone: The peer left.
        """
        if self.writing is not HEAD:
            if self.writing is CLOSED:
                raise ConnectionGone("the peer closed the connection")
            raise LocalProtocolError("the response head was sent already")
        if head.status < 200:
            self._check_upgrade()
        self.response = head
        self.status = head.status

    def respond_whole(self, head: ResponseHead, data: bytes) -> None:
        """Send the whole response: as :meth:`respond_with` and then :meth:`send`.

        Raises:
            LocalProtocolError: As either.
            ConnectionGone: The peer left.
        """
        if self.writing is not HEAD or head.status < 200:
            self.respond_with(head)
        self.response = head
        self.status = head.status
        self._send_first(head, data, True)

    def send(self, data: bytes = b"", last: bool = False) -> None:
        """Send content, behind the head if this is the first; end the response with the last.

        Content of a response that has none by definition (to HEAD, 204, 304) is dropped.

        Args:
            data: Bytes; may be empty.
            last: The response ends with *data*.

        Raises:
            LocalProtocolError: There is no head yet, the response had ended, or it is longer or shorter than its
                Content-Length; in the last case the connection is closed, and never more than the length was sent.
            ConnectionGone: The peer left.
        """
        if self.writing is CONTENT:
            self._send_more(data, last)
        elif self.writing is HEAD:
            if self.response is None:
                raise LocalProtocolError("content before the response head")
            self._send_first(self.response, data, last)
        elif self.writing is CLOSED:
            raise ConnectionGone("the peer closed the connection")
        else:
            raise LocalProtocolError("content after the end of the response")

    async def send_file(self, file: int, offset: int, count: int) -> None:
        """Send a part of a file as content, behind the head if this is the first; it does not end the response.

        The kernel copies where it can (``sendfile``: no TLS, no chunks); else the file is read piece by piece. Nothing
        else may be sent, and the file has to stay open, until this is done.

        Args:
            file: The descriptor of a regular file; its position is neither used nor moved.
            offset: Where to begin, in bytes.
            count: How many bytes to send.

        Raises:
            LocalProtocolError: As :meth:`send`; or the file is shorter, and the connection has to be ended.
            ConnectionGone: The peer left.
        """
        if self.writing is not CONTENT:
            self.send()  # the head; or it raises what is right
        if not count or self.head.line.method == b"HEAD" or self.status in {204, 304}:
            return
        connection = self.server_connection
        length = self._length
        if 0 <= length < self.content_sent + count:
            raise LocalProtocolError(f"a file of {count} bytes for a Content-Length of {length} bytes")
        sent = 0
        if count >= _JOIN_MAX and length != _CHUNKED:
            sent = await send_range(connection, file, offset, count)
            self.content_sent += sent
        while sent < count:
            if connection.write_paused:
                await connection.writable()
            data = read_piece(file, offset + sent, min(count - sent, 65536))
            sent += len(data)
            self.send(data)

    def end(self, trailers: Iterable[tuple[bytes, bytes]]) -> None:
        """End the response with a trailer section where the framing has room for one (RFC 9112 section 7.1.2).

        Raises:
            LocalProtocolError: As :meth:`send`; or a field is illegal.
            ConnectionGone: The peer left.
        """
        block = encode_fields(trailers)
        if self.writing is HEAD:
            self.send()
        if self.writing is CONTENT and self._length == _CHUNKED and block:
            self.server_connection.write(b"0\r\n%b\r\n" % block)
            self._done()
        else:
            self.send(b"", True)

    def answer(self, status: int, text: bytes = b"", fields: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """Send a whole plain-text response of the server's own.

        Args:
            status: 200 to 599.
            text: The content; empty for the status and its phrase.
            fields: More fields.

        Raises:
            LocalProtocolError: The response has begun.
            ConnectionGone: The peer left.
        """
        self.respond(status, [(b"content-type", b"text/plain; charset=utf-8"), *fields])
        self.send(text or status_line(status)[9:], True)

    def report_failure(self, error: BaseException) -> None:
        """Act on *error*, which a delegate's code raised outside of a call from the exchange."""
        self.server_connection.delegate_failed(self, error)

    def take_stream(self, protocol: asyncio.Protocol) -> tuple[asyncio.Transport, bytes, Callable[[], None]]:
        """Give the connection's transport to another protocol.

        Returns:
            The transport; what was received and not read; what to call, once, when the transport is gone.

        Raises:
            ConnectionGone: The connection has ended.
        """
        return self.server_connection.take_transport(protocol)

    def fail(self, status: int = 500) -> None:
        """Answer *status* if nothing was sent yet; else end the connection so that the client notices."""
        if self.writing is HEAD:
            self.server_connection.refuse(status)
        elif self.writing is CONTENT:
            self.server_connection.cut(clean=self._length != _UNTIL_CLOSE)

    def response_field(self, name: bytes) -> bytes | None:
        """Return the value of the first field *name* (lower case) of the response, for logs; None if it has none.

        Fields that the server adds to every response, such as Date, are not among them.
        """
        if self.response is None:
            return None
        for line in self.response.lines:
            if line[: len(name)].lower() == name and line[len(name) : len(name) + 1] == b":":
                return line[len(name) + 1 :].strip()
        if name == b"content-length" and self.response_started and self._length >= 0:
            return b"%d" % self._length
        return None

    def abort(self) -> None:
        """Reset the connection, if it still serves this exchange."""
        if self.server_connection.exchange is self:
            self.server_connection.cut(clean=False)

    # ------------------------------------------------------------------ inside

    def _check_upgrade(self) -> None:
        """Refuse a 101 that was not asked for or cannot be given (RFC 9110 section 7.8)."""
        if not self.head.upgrade:
            raise LocalProtocolError("101 for a client that did not ask to switch protocols")
        if self.server_connection.reads_content:
            # The next protocol would take the rest of the content for its own first bytes.
            raise LocalProtocolError("101 before the request's content was read")

    def _send_first(self, response: ResponseHead, data: bytes, last: bool) -> None:
        connection = self.server_connection
        if self.times is not None:
            self.times.began = monotonic_ns()
        head = self.head
        size = len(data)
        length = response.length
        if last and head.content_length != 0 and connection.must_close_after(self):
            self.close_after = True
        if (
            (length == size or (last and length < 0))
            and size < _JOIN_MAX
            and response.plain
            and head.line.plain
            and not self.close_after
            and not connection.closing
        ):
            # Most responses are of this kind, and all of it goes out at once.
            clock = connection.clock
            common, start = response.start
            if common is not clock.common_lines:
                start = response.start_with(clock.common_lines)
            wire = start + data if length >= 0 else b"%bcontent-length: %d\r\n\r\n%b" % (start, size, data)
            self._length = self.content_sent = size
            self.writing = DONE if last else CONTENT
            if clock.at_once:
                connection.write(wire)
            else:
                connection.write_soon(wire)
            if last:
                connection.response_done(self)
            return
        block, length, bodiless = self._encode_head(response, size, last)
        if bodiless:
            data = b""
            size = 0
        self._length = length
        self.writing = CONTENT
        if 0 <= length < size or (last and size < length):
            connection.write(block)
            self._wrong_length(data, size)
        parts = [block, b"%x\r\n" % size, data, b"\r\n"] if length == _CHUNKED and size else [block, data]
        if size < _JOIN_MAX:
            connection.write(b"".join(parts))
        else:
            connection.write_parts(parts)
        self.content_sent = size
        if last:
            self.writing = DONE
            connection.response_done(self)

    def _send_more(self, data: bytes, last: bool) -> None:
        size = len(data)
        length = self._length
        connection = self.server_connection
        if length == _CHUNKED:
            if size >= _JOIN_MAX:
                connection.write_parts([b"%x\r\n" % size, data, b"\r\n0\r\n\r\n" if last else b"\r\n"])
            elif last:
                connection.write(chunk(data) + LAST_CHUNK if size else LAST_CHUNK)
            elif size:
                connection.write(chunk(data))
        elif self.head.line.method == b"HEAD" or self.status in {204, 304}:
            size = 0
        else:
            total = self.content_sent + size
            if length >= 0 and (total > length or (last and total < length)):
                self._wrong_length(data, size)
            if size:
                connection.write(data)
        self.content_sent += size
        if last:
            self._done()

    def _encode_head(self, response: ResponseHead, size: int, last: bool) -> tuple[bytes, int, bool]:
        """Return the head as bytes, how its content is framed, and whether it has none by definition."""
        line = self.head.line
        special = response.special
        length = response.length
        block = response.block
        framing = b""
        if self.server_connection.closing or (special is not None and special.close):
            self.close_after = True
        bodiless = line.method == b"HEAD" or response.status in NO_CONTENT
        if bodiless:
            if length != NO_LENGTH and response.status in _NO_LENGTH:
                block = b"".join(without_length(response.lines))
            length = 0
        elif length == NO_LENGTH:
            if last:
                length = size
                framing = b"content-length: %d\r\n" % size
            elif line.version == b"1.1":
                length = _CHUNKED
                framing = b"transfer-encoding: chunked\r\n"
            else:
                length = _UNTIL_CLOSE
                self.close_after = True
        parts = (response.line, self._common_lines(special), block, framing, self._connection_lines(special))
        return b"".join(parts), length, bodiless

    def _common_lines(self, special: Special | None) -> bytes:
        clock = self.server_connection.clock
        if special is None or (not special.has_date and not special.has_server):
            return clock.common_lines
        return (b"" if special.has_date else clock.date_line) + (b"" if special.has_server else clock.server_line)

    def _connection_lines(self, special: Special | None) -> bytes:
        """Return what ends the head: Connection and Upgrade where they are needed, and the blank line."""
        upgrade = b"" if special is None else special.upgrade
        if self.status == 101:
            return b"connection: upgrade\r\nupgrade: %b\r\n\r\n" % upgrade
        if self.status == 426 and upgrade:
            close = b", close" if self.close_after else b""
            return b"connection: upgrade%b\r\nupgrade: %b\r\n\r\n" % (close, upgrade)
        if self.head.line.version == b"1.0":  # which closes unless both say otherwise
            return b"\r\n" if self.close_after else b"connection: Keep-Alive\r\n\r\n"
        return b"connection: close\r\n\r\n" if self.close_after else b"\r\n"

    def _wrong_length(self, data: bytes, size: int) -> None:
        """Send what fits into the declared length, and close: the client must not take it for a whole response."""
        length = self._length
        room = length - self.content_sent
        if size > room:
            if room:
                self.server_connection.write(bytes(data[:room]))
            self.close_after = True
            self.content_sent = length
            self._done()
            raise LocalProtocolError(f"content longer than its Content-Length of {length} bytes")
        if size:
            self.server_connection.write(data)
            self.content_sent += size
        self.server_connection.cut(clean=True)
        raise LocalProtocolError(f"content of {self.content_sent} bytes, its Content-Length is {length}")

    def _done(self) -> None:
        self.writing = DONE
        self.server_connection.response_done(self)

    def tell_closed(self, delegate: ExchangeDelegate) -> None:
        """Tell *delegate* that the exchange ends otherwise than by a complete response to a complete request."""
        delegate.on_connection_close()

    def tell_eof(self) -> None:
        """Tell the delegate that the peer sends nothing more."""
        self.delegate.on_peer_eof()

    def lost(self) -> None:
        """The connection's word that nobody waits for the response any more."""
        if self.writing is not DONE:
            self.writing = CLOSED
