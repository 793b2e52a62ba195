"""An exchange of HTTP/2: a request with its response, on one stream (RFC 9113 sections 5 and 8).

The exchange frames the response and hands the request's content over. Which streams there are, resets that the peer has
caused, and the end of the connection are left to the connection.
"""

from __future__ import annotations

from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Final

from bridge.core.connection.http2content import RequestContent
from bridge.core.connection.http2output import NEVER_PAUSED, Outbox
from bridge.core.connection.interfaces import NULL_DELEGATE
from bridge.core.connection.sendfile import read_piece
from bridge.core.connection.states import CLOSED, CONTENT, DONE, HEAD
from bridge.core.http.fields import NO_LENGTH, encode_fields
from bridge.core.http.message import KnownHeads
from bridge.core.http.status import is_bodiless, status_text
from bridge.core.http2.codes import CANCEL, INTERNAL_ERROR
from bridge.core.http2.frames import DATA, FRAME_SIZE, headers_frame, pack_header, response_frames
from bridge.errors import ConnectionGone, LocalProtocolError

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from typing import Protocol

    from bridge.core.connection.clock import Clock
    from bridge.core.connection.context import ConnectionContext
    from bridge.core.connection.http2output import Output
    from bridge.core.connection.interfaces import Connection, ExchangeDelegate, WriteState
    from bridge.core.connection.parameters import ConnectionParameters
    from bridge.core.connection.states import Writing
    from bridge.core.connection.times import Times
    from bridge.core.http.message import RequestHead, ResponseHead
    from bridge.core.http2.request import StreamHead

    class Owner(Connection, Protocol):
        """What an exchange needs of its connection. A protocol, since the connection's module imports this one."""

        clock: Clock
        initial_window: int
        loop: asyncio.AbstractEventLoop
        output: Output
        parameters: ConnectionParameters
        templates: dict[object, Any]

        @property
        def gone(self) -> bool: ...
        @property
        def transport(self) -> asyncio.Transport | None: ...
        @property
        def tls(self) -> Any: ...
        def abandon(self, exchange: HTTP2Exchange, code: int) -> None: ...
        def announce_window(self, stream: int, increment: int) -> None: ...
        def exchange_over(self, exchange: HTTP2Exchange) -> None: ...
        def delegate_failed(self, exchange: HTTP2Exchange, error: BaseException) -> None: ...
        def hold(self, size: int) -> None: ...
        def response_done(self, exchange: HTTP2Exchange) -> None: ...
        def stream_sent(self, exchange: HTTP2Exchange) -> None: ...
        def take_stream(
            self, exchange: HTTP2Exchange, protocol: asyncio.Protocol
        ) -> tuple[asyncio.Transport, bytes, Callable[[], None]]: ...
        def watch(self, deadline: float) -> None: ...


__all__ = ["LOST", "HTTP2Exchange"]

# Neither is an error code of HTTP/2.
NOT_RESET: Final = -1
LOST: Final = -2

_known_heads = KnownHeads()
_known_head = _known_heads.get  # bound once: saves the look-up of the method for each response


class HTTP2Exchange:
    """Implements :class:`bridge.core.connection.interfaces.Exchange` over a stream of HTTP/2.

    The interface documents arguments, results and errors of the methods. The docstrings here say what HTTP/2 adds.

    Made by :meth:`open`.

    Attributes:
        connection: The connection.
        stream_id: The stream's identifier.
        delegate: Takes the request's content. NULL_DELEGATE until ``start_exchange`` has returned, and from the
            exchange's end on.
        content: The request's content, while some is to come or waits for the delegate; None before and after.
        continue_pending: The client waits for 100 (Continue).
        received: The whole request was received.
        informed: The delegate was told that the request is complete.
        send_window: Bytes of content that the peer takes on the stream (RFC 9113 section 6.9).
        outbox: Content that waits to be sent; None if none has ever waited.
        reset_code: The error code with which the stream was reset, by either side; NOT_RESET if it was not, LOST if it
            has ended with the connection.
        answer_by: Clock time, without blocked time, until which the response has to be complete; None for no limit.
        urgency: From 0, the most urgent, to 7 (RFC 9218 section 4.1).
        incremental: The response is useful in parts (RFC 9218 section 4.2).
        over: All of the response was handed over, the end of the stream included.
    """

    # open() in place of an __init__, for the reason that message.request_line gives. It sets every slot.

    __slots__ = (
        "__weakref__",
        "_length",
        "answer_by",
        "close_after",
        "connection",
        "content",
        "content_sent",
        "context",
        "continue_pending",
        "delegate",
        "head",
        "incremental",
        "informed",
        "max_body_size",
        "outbox",
        "over",
        "received",
        "reset_code",
        "response",
        "send_window",
        "server_fields",
        "status",
        "stream_id",
        "templates",
        "times",
        "trailers",
        "urgency",
        "writer",
        "writing",
    )

    connection: Owner
    writer: WriteState
    stream_id: int
    head: RequestHead
    context: ConnectionContext
    templates: Mapping[object, Any]
    delegate: ExchangeDelegate
    content: RequestContent | None
    writing: Writing
    response: ResponseHead | None
    status: int
    content_sent: int
    close_after: bool
    continue_pending: bool
    trailers: Iterable[tuple[bytes, bytes]]
    max_body_size: int | None
    server_fields: tuple[tuple[bytes, bytes], ...]
    times: Times | None
    received: bool
    informed: bool
    send_window: int
    outbox: Outbox | None
    reset_code: int
    answer_by: float | None
    urgency: int
    incremental: bool
    over: bool
    _length: int  # the declared length of the response's content, or NO_LENGTH

    @staticmethod
    def open(connection: Owner, head: StreamHead, stream_id: int, received: bool) -> HTTP2Exchange:
        """Return a new exchange for the request with *head*.

        Args:
            connection: The connection.
            head: The request's head.
            stream_id: The stream's identifier.
            received: The request has no content.
        """
        self = HTTP2Exchange()
        self.connection = connection
        self.stream_id = stream_id
        self.head = head
        self.context = connection.context
        self.templates = connection.templates
        self.delegate = NULL_DELEGATE
        self.content = None
        self.writing = HEAD
        self.response = None
        self.status = 0
        self.content_sent = 0
        self.close_after = False
        self.continue_pending = head.expect_continue
        self.trailers = ()
        self.max_body_size = None
        self.server_fields = ()
        self.times = None
        self.received = received
        self.informed = False
        self.send_window = connection.initial_window
        self.outbox = None
        self.writer = NEVER_PAUSED
        self.reset_code = NOT_RESET
        self.answer_by = None
        self.urgency = head.urgency
        self.incremental = head.incremental
        self.over = False
        self._length = NO_LENGTH
        return self

    # ------------------------------------------------------------------ the connection

    @property
    def connection_context(self) -> ConnectionContext:
        """The two ends of the connection."""
        return self.connection.context

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop."""
        return self.connection.loop

    @property
    def parameters(self) -> ConnectionParameters:
        """The limits and times of the connection."""
        return self.connection.parameters

    @property
    def clock(self) -> Clock:
        """The server's clock."""
        return self.connection.clock

    @property
    def tls(self) -> Any:
        """The connection's TLS object; None without TLS."""
        return self.connection.tls

    def keep_template(self, owner: object, value: object) -> None:
        """Keep *value* for the connection's next requests under *owner*, from the connection's second request on."""
        connection = self.connection
        if connection.requests > 1:
            if not connection.templates:  # the shared empty one, which must not be changed
                connection.templates = {}
            connection.templates[owner] = value

    def take_stream(self, protocol: asyncio.Protocol) -> tuple[asyncio.Transport, bytes, Callable[[], None]]:
        """Give the stream, which an extended CONNECT has opened, to another protocol (RFC 8441 section 5)."""
        return self.connection.take_stream(self, protocol)

    # ------------------------------------------------------------------ the request's content

    def pause_reading(self) -> None:
        """Hand no content to the delegate until :meth:`resume_reading`; the stream's window is not renewed."""
        if self.content is None:
            if self.informed or self.finished:
                return
            self.content = RequestContent(self, 0, 0)
            self.content.ended = True
        self.content.pause()

    def resume_reading(self) -> None:
        """Hand content to the delegate again; what has been received is handed over before this returns."""
        if self.content is not None:
            self.content.resume()

    def pause_until(self, waiting: Awaitable[None]) -> None:
        """Hand no content to the delegate until *waiting* is done."""
        empty = self.content is None
        if empty:
            self.pause_reading()
        if self.content is not None:
            self.content.pause_until(waiting)
            if empty:
                self.content.resume()

    def set_body_timeout(self, seconds: float | None) -> None:
        """Set the deadline of the whole content to *seconds* from now; None for no limit."""
        if self.content is not None:
            self.content.set_timeout(seconds)

    def send_continue(self) -> None:
        """Send 100 (Continue) if the client waits for it (RFC 9110 section 10.1.1); otherwise do nothing."""
        if self.continue_pending and self.writing is HEAD:
            self.continue_pending = False
            output = self.connection.output
            output.send(headers_frame(self.stream_id, output.encoder.fields(b"", 100), False))
            if self.content is not None:
                self.content.go_on_waiting()

    # ------------------------------------------------------------------ called by the content

    def announce_window(self, increment: int) -> None:
        """Let the peer send *increment* more bytes of content."""
        self.connection.announce_window(self.stream_id, increment)

    @property
    def takes_content(self) -> bool:
        """Whether there is a delegate that takes content."""
        return self.delegate is not NULL_DELEGATE

    @property
    def is_tunnel(self) -> bool:
        """Whether the stream belongs to another protocol, or is about to."""
        return self.writing is DONE and bool(self.head.upgrade) and 200 <= self.status < 300

    def complete_request(self) -> None:
        """Tell the delegate that the request is complete."""
        self.content = None
        self.informed = True
        self.delegate.finish()

    def hold(self, size: int) -> None:
        """Note that *size* more bytes of content wait for delegates of this connection."""
        self.connection.hold(size)

    def watch(self, deadline: float) -> None:
        """Look at the deadlines again at *deadline*, at the latest."""
        self.connection.watch(deadline)

    # ------------------------------------------------------------------ the response

    @property
    def response_started(self) -> bool:
        """Whether bytes of the final response have been handed over."""
        return self.writing is not HEAD

    @property
    def finished(self) -> bool:
        """Whether the response is complete, or the exchange has ended without one."""
        return self.writing is DONE or self.writing is CLOSED

    @property
    def peer_gone(self) -> bool:
        """Whether the stream was reset, or the connection has failed or is closing."""
        return self.reset_code != NOT_RESET or self.connection.gone

    @property
    def write_paused(self) -> bool:
        """Whether more bytes of the stream wait to be sent than the high-water mark allows."""
        return self.outbox is not None and self.outbox.paused

    def writable(self) -> asyncio.Future[None]:
        """Return a future that is done when enough of the waiting bytes has been sent."""
        return self.writer.writable()

    def lower_high_water(self, size: int) -> None:
        """Pause writers when more than *size* bytes of a stream of this connection wait to be sent."""
        output = self.connection.output
        output.high_water = min(size, output.high_water)

    async def drained(self) -> None:
        """Wait until fewer bytes than the high-water mark wait to be sent."""
        if self.writing is CLOSED:
            raise ConnectionGone("the peer has reset the stream, or closed the connection")
        if self.outbox is not None and self.outbox.paused:
            await self.outbox.writable()

    def inform(self, status: int, fields: Iterable[tuple[bytes, bytes]]) -> None:
        """Send an interim response, such as 103 (RFC 9110 section 15.2); 101 has no meaning (RFC 9113 section 8.6)."""
        if self.writing is CLOSED:
            raise ConnectionGone("the peer has reset the stream, or closed the connection")
        if self.writing is not HEAD or not 102 <= status <= 199:
            raise LocalProtocolError(f"interim response {status} out of place")
        output = self.connection.output
        output.send(headers_frame(self.stream_id, output.encoder.fields(encode_fields(fields), status), False))

    def respond(self, status: int, fields: Iterable[tuple[bytes, bytes]], reason: bytes = b"") -> None:
        """Check and keep the head of the final response. It is sent with the first content, or at the turn's end.

        The reason phrase is not sent: HTTP/2 has none (RFC 9113 section 8.3.2).
        """
        key = (status, reason, tuple(fields))
        try:
            head = _known_head(key)
        except (TypeError, ValueError):  # it has no hash: a field is a list, or has a memoryview of a bytearray
            head = None
        if head is None:
            head = _known_heads.add(*key)
        # As respond_with(), which would be one call more.
        if self.writing is not HEAD or head.status < 200:
            self._check_head(head)
        self.response = head
        self.status = head.status
        output = self.connection.output
        output.heads.append(self)
        if not output.scheduled:
            output.schedule()

    def respond_with(self, head: ResponseHead) -> None:
        """Keep a head that was made before, perhaps in another thread; otherwise as :meth:`respond`."""
        if self.writing is not HEAD or head.status < 200:
            self._check_head(head)
        self.response = head
        self.status = head.status

    def _check_head(self, head: ResponseHead) -> None:
        """Refuse a head that comes too late, and 101 (RFC 9113 section 8.6)."""
        if self.writing is CLOSED:
            raise ConnectionGone("the peer has reset the stream, or closed the connection")
        if self.writing is not HEAD:
            raise LocalProtocolError("the response head was sent already")
        raise LocalProtocolError("101 has no meaning in HTTP/2 (RFC 9113 section 8.6)")

    def send_first(self, response: ResponseHead, data: bytes, last: bool = True) -> None:
        """Send a head that was made before and the first content: :meth:`respond_with` and :meth:`send` in one call.

        Most responses are complete, have content, and fit into both windows: head and content are two frames that go
        out together.
        """
        if self.writing is not HEAD or response is not self.response:  # else respond() has checked it
            if self.writing is not HEAD or response.status < 200:
                self._check_head(response)
            self.response = response
            self.status = response.status
        if self.times is not None and self.times.answers:
            self.times.began = monotonic_ns()
        if self.server_fields:
            self.response = response = response.with_fields(self.server_fields)
        connection = self.connection
        output = connection.output
        size = len(data)
        length = response.length
        stream_id = self.stream_id
        if (
            last
            and response.plain
            and self.head.line.plain
            and (length == size or length < 0)
            and 0 < size <= self.send_window
            and size <= output.window
            and not output.blocked
        ):
            block = output.encoder.head(response, connection.clock.default_fields, size if length < 0 else NO_LENGTH)
            frames = response_frames(stream_id, block, data)
            if frames is not None:
                output.window -= size
                output.parts.append(frames)
                if not output.scheduled:
                    output.schedule()
                self.content_sent = size
                self.writing = self.writing.complete
                connection.exchange_over(self)
                return
            head_frames = headers_frame(stream_id, block, False)
        else:
            bodiless = is_bodiless(self.head.line.method, response.status)
            tunnel = self.head.upgrade and 200 <= response.status < 300
            if bodiless and not tunnel:
                last = True  # the response is complete with its head, whatever the application still sends
                data = b""
                self._length = 0
            elif length >= 0:
                self._length = length
            ended = last and not data and not tunnel and (bodiless or length <= 0)
            block = output.encoder.head(
                response,
                connection.clock.fields_besides(response.special),
                size if last and length < 0 and not bodiless and not tunnel else NO_LENGTH,
            )
            head_frames = headers_frame(stream_id, block, ended)
            if ended or tunnel:
                output.send(head_frames)
                self.writing = self.writing.complete
                connection.response_done(self)
                if ended:
                    connection.stream_sent(self)
                return
        output.send(head_frames)
        self.writing = self.writing.start
        self.send(data, last)

    def send(self, data: bytes = b"", last: bool = False) -> None:
        """Send content; the first one is sent behind the head.

        The stream is reset when the length is wrong, so that the client notices.
        """
        if self.writing is not CONTENT:
            if self.writing is HEAD and self.response is not None:
                self.send_first(self.response, data, last)
                return
            self._refuse_content()
            return
        size = len(data)
        total = self.content_sent + size
        if self._length >= 0 and (total > self._length or (last and total < self._length)):
            self._end_wrong(data, total)
        self.content_sent = total
        self._put(data, size, last)
        if last:
            self.writing = self.writing.complete
            self.connection.response_done(self)
            if self.outbox is None or not self.outbox.unsent:
                self.connection.stream_sent(self)

    def _put(self, data: bytes, size: int, last: bool) -> None:
        """Send a frame of content, or let it wait where the windows or the transport have no room."""
        outbox = self.outbox
        output = self.connection.output
        if (
            (outbox is None or not outbox.unsent)
            and size <= self.send_window
            and size <= output.window
            and size <= FRAME_SIZE
            and not output.blocked
        ) or not (size or (outbox is not None and outbox.unsent)):
            if size or last:
                self.send_window -= size
                output.window -= size
                output.pieces += 1
                output.send(pack_header(size >> 8, size & 0xFF, DATA, last, self.stream_id) + data)
            return
        if outbox is None:
            outbox = self.outbox = self.writer = Outbox(self, output)
        if last:
            outbox.end()
        if size:
            outbox.put(data)

    def send_through(self, data: bytes, last: bool) -> None:
        """Send bytes of another protocol, which has taken the stream.

        Args:
            data: The bytes; may be empty.
            last: The stream ends with them.
        """
        if not self.over:
            self._put(data, len(data), last)
            if last and (self.outbox is None or not self.outbox.unsent):
                self.connection.stream_sent(self)

    @property
    def priority(self) -> tuple[int, bool]:
        """The urgency, and whether the response is useful in parts (RFC 9218 section 4)."""
        kind = self.response_field(b"content-type") or b""
        return self.urgency, self.incremental or kind.startswith(b"text/event-stream")  # an event is for now

    def prioritize(self, urgency: int, incremental: bool) -> None:
        """Change the priority (RFC 9218 section 7)."""
        self.urgency, self.incremental = urgency, incremental
        if self.outbox is not None:
            self.outbox.prioritize(*self.priority)

    def sent(self) -> None:
        """Note that all waiting content was sent, and the end of the stream with it."""
        self.connection.stream_sent(self)

    def _refuse_content(self) -> None:
        """Raise the reason why no content can be sent; return if the response has no content, so that it is dropped."""
        if self.writing is CLOSED:
            raise ConnectionGone("the peer has reset the stream, or closed the connection")
        if self.writing is DONE and is_bodiless(self.head.line.method, self.status):
            return  # it is dropped
        when = "before the response head" if self.writing is HEAD else "after the end of the response"
        raise LocalProtocolError(f"content {when}")

    def _end_wrong(self, data: bytes, total: int) -> None:
        """Send the part of the content that fits its declared length, reset the stream, and say what is wrong."""
        length = self._length
        fits = data[: length - self.content_sent]
        self.content_sent += len(fits)
        if fits:
            self._put(fits, len(fits), False)
        self.reset(INTERNAL_ERROR)
        if total > length:
            raise LocalProtocolError(f"content longer than its Content-Length of {length} bytes")
        raise LocalProtocolError(f"content of {total} bytes, its Content-Length is {length}")

    async def send_file(self, file: int, offset: int, count: int) -> None:
        """Send a part of a file as content, in pieces of 64 KiB: frames stand between its bytes."""
        if self.writing is not CONTENT:
            self.send()  # sends the head, or raises
        if self.writing is not CONTENT or not count:  # it has no content
            return
        if 0 <= self._length < self.content_sent + count:
            raise LocalProtocolError(f"a file of {count} bytes for a Content-Length of {self._length} bytes")
        sent = 0
        while sent < count:
            await self.drained()
            data = read_piece(file, offset + sent, min(count - sent, 65536))
            sent += len(data)
            self.send(data)

    def end(self, trailers: Iterable[tuple[bytes, bytes]]) -> None:
        """End the response with a trailer section (RFC 9113 section 8.1)."""
        fields = encode_fields(trailers)
        if self.writing is HEAD:
            self.send()
        if self.writing is not CONTENT or not fields or 0 <= self._length != self.content_sent:
            self.send(b"", True)
            return
        self.writing = self.writing.complete
        outbox = self.outbox
        if outbox is not None and outbox.unsent:
            outbox.end(fields)
            self.connection.response_done(self)
            return
        output = self.connection.output
        output.send(headers_frame(self.stream_id, output.encoder.fields(fields), True))
        self.connection.response_done(self)
        self.connection.stream_sent(self)

    def send_raw(self, data: bytes) -> None:
        """Refuse: an application can frame a response itself only in HTTP/1.

        Raises:
            LocalProtocolError: Always.
        """
        raise LocalProtocolError("HTTP/2 has no responses that the application frames itself")

    def end_raw(self) -> None:
        """Do nothing: there is no such response."""

    def answer(self, status: int, text: bytes = b"", fields: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """Send a whole plain-text response of the server's own."""
        self.respond(status, [(b"content-type", b"text/plain; charset=utf-8"), *fields])
        self.send(text or status_text(status), True)

    def fail(self, status: int = 500) -> None:
        """Answer *status* if nothing was sent yet; otherwise reset the stream so that the client notices."""
        if self.writing is HEAD:
            self.refuse(status)
        elif self.writing is CONTENT:
            self.reset(INTERNAL_ERROR)

    def refuse(self, status: int) -> None:
        """Send the server's own answer to a fault, and end the exchange."""
        if self.writing is not HEAD:
            if self.writing is CONTENT:
                self.reset(INTERNAL_ERROR)
            return
        connection = self.connection
        self.status = status
        self.content_sent = connection.output.refuse(
            self.stream_id,
            status,
            connection.clock.default_fields,
            self.server_fields,
            None if self.head.line.method == b"HEAD" else self.send_window,
        )
        connection.abandon(self, -1)

    def finish_within(self, seconds: float | None) -> None:
        """Reset the stream unless the response is complete in *seconds*; None for no limit."""
        if self.received and not self.finished:
            clock = self.connection.clock
            self.answer_by = None if seconds is None else clock.after(seconds) - clock.lost
            if self.answer_by is not None:
                self.connection.watch(self.answer_by)

    def report_failure(self, error: BaseException) -> None:
        """Act on *error*, which a delegate's code raised outside of a call by the connection."""
        self.connection.delegate_failed(self, error)

    def abort(self) -> None:
        """Reset the stream."""
        self.reset(CANCEL)

    def close_connection(self) -> None:
        """End this stream, also in the middle of a response; other streams of the connection go on."""
        self.reset(CANCEL)

    def reset(self, code: int) -> None:
        """Reset the stream with an error code (RFC 9113 section 7), if it has not ended."""
        self.connection.abandon(self, code)

    def response_field(self, name: bytes) -> bytes | None:
        """Return the value of the first field *name* (lower case) of the response, for logs; None if it has none.

        Fields that the server adds to every response, such as Date, are not among them.
        """
        value = None if self.response is None else self.response.field(name)
        if value is None and name == b"content-length" and self.writing is DONE and self._length == NO_LENGTH:
            return b"%d" % self.content_sent
        return value

    # ------------------------------------------------------------------ called by the connection

    def window_changed(self) -> None:
        """Go on sending or wait, after the peer has opened the stream's window or new settings have shut it."""
        if self.outbox is not None:
            self.outbox.activate()

    def mark_closed(self) -> None:
        """Note that the exchange has ended without a complete response."""
        if self.writing is not DONE:
            self.writing = self.writing.abandon
