"""An exchange of HTTP/1: a request with its response, which is written through an encoder.

The exchange does not touch deadlines or the next request. That is left to the connection.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, Final

from bridge.core.connection.interfaces import NULL_DELEGATE
from bridge.core.connection.pauses import BY_DELEGATE, pause_until
from bridge.core.connection.sendfile import read_piece, send_range
from bridge.core.connection.states import CLOSED, CONTENT, DONE, HEAD
from bridge.core.http.fields import NO_LENGTH, encode_fields
from bridge.core.http.message import KnownHeads
from bridge.core.http.status import is_bodiless, status_text
from bridge.core.http1.encoder import (
    BODILESS,
    CONTINUE,
    ChunkedEncoder,
    CloseEncoder,
    FixedEncoder,
    WrongLength,
    encode_head,
    encode_interim,
    encode_whole,
    raw_status,
    says_close,
)
from bridge.errors import ConnectionGone, LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import Protocol

    from bridge.core.connection.clock import Clock
    from bridge.core.connection.context import ConnectionContext
    from bridge.core.connection.interfaces import Connection, Exchange, ExchangeDelegate
    from bridge.core.connection.parameters import ConnectionParameters
    from bridge.core.connection.states import Writing
    from bridge.core.connection.times import Times
    from bridge.core.connection.writer import Writer
    from bridge.core.http.message import RequestHead, ResponseHead
    from bridge.core.http1.encoder import Encoder
    from bridge.core.http1.reader import RequestReader

    class Owner(Connection, Protocol):
        """What an exchange needs of its connection. A protocol, since the connection's module imports this one."""

        clock: Clock
        closing: bool
        exchange: HTTP1Exchange | None
        loop: asyncio.AbstractEventLoop
        parameters: ConnectionParameters
        reader: RequestReader
        templates: dict[object, Any]
        writer: Writer

        def cut(self, *, reset: bool) -> None: ...
        def delegate_failed(self, exchange: HTTP1Exchange, error: BaseException) -> None: ...
        def expect_response(self, seconds: float | None) -> None: ...
        def go_on_waiting(self) -> None: ...
        def pause_content(self, reason: int = BY_DELEGATE) -> None: ...
        def refuse(self, status: int) -> None: ...
        def response_done(self, exchange: HTTP1Exchange, observed: bool = False) -> None: ...
        def resume_content(self, reason: int = BY_DELEGATE) -> None: ...
        def set_body_timeout(self, seconds: float | None) -> None: ...
        def take_transport(self, protocol: asyncio.Protocol) -> tuple[asyncio.Transport, bytes, Callable[[], None]]: ...


__all__ = ["HTTP1Exchange"]

# Bytes; content of this size or more is handed to the transport as a part of its own. Joined with the head, it would
# be copied once more.
_JOIN_MAX = 32768
# Bytes of unread content that are read and dropped so that the connection persists (RFC 9112 section 9.3).
_DRAIN_MAX = 65536

_known_heads = KnownHeads()
_known_head = _known_heads.get  # bound once: saves the look-up of the method for each response


class HTTP1Exchange:
    """Implements :class:`bridge.core.connection.interfaces.Exchange` over HTTP/1.

    The interface documents arguments, results and errors of the methods. The docstrings here say what HTTP/1 adds.

    Made by :meth:`open`.

    Attributes:
        connection: The connection.
        delegate: Takes the request's content. NULL_DELEGATE until ``start_exchange`` has returned, and from the
            exchange's end on.
        continue_pending: The client waits for 100 (Continue).
    """

    # open() in place of an __init__, for the reason that message.request_line gives. It sets every slot.

    __slots__ = (
        "_encoder",
        "close_after",
        "connection",
        "content_sent",
        "context",
        "continue_pending",
        "delegate",
        "head",
        "max_body_size",
        "response",
        "server_fields",
        "status",
        "templates",
        "times",
        "trailers",
        "writer",
        "writing",
    )

    connection: Owner
    writer: Writer
    _encoder: Encoder | None
    head: RequestHead
    context: ConnectionContext
    templates: Mapping[object, Any]
    delegate: ExchangeDelegate
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
    # HTTP/1 has no streams. Both are attributes of the class, so that they take no room in each exchange.
    stream_id: Final = None
    reset_code: Final = -1

    @staticmethod
    def open(connection: Owner, head: RequestHead) -> HTTP1Exchange:
        """Return a new exchange for the request with *head*."""
        self = HTTP1Exchange()
        self.connection = connection
        self.writer = connection.writer
        self._encoder = None
        self.head = head
        self.context = connection.context
        self.templates = connection.templates
        self.delegate = NULL_DELEGATE
        self.writing = HEAD
        self.response = None
        self.status = 0
        self.content_sent = 0
        self.close_after = not head.keep_alive
        self.continue_pending = head.expect_continue
        self.trailers = ()
        self.max_body_size = None
        self.server_fields = ()
        self.times = None
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
        transport = self.writer.transport
        return None if transport is None else transport.get_extra_info("ssl_object")

    def keep_template(self, owner: object, value: object) -> None:
        """Keep *value* for the connection's next requests under *owner*, from the connection's second request on."""
        connection = self.connection
        if connection.reader.heads > 1:
            if not connection.templates:  # the shared empty one, which must not be changed
                connection.templates = {}
            connection.templates[owner] = value

    def take_stream(self, protocol: asyncio.Protocol) -> tuple[asyncio.Transport, bytes, Callable[[], None]]:
        """Give the connection's transport to another protocol."""
        return self.connection.take_transport(protocol)

    # ------------------------------------------------------------------ the request's content

    @property
    def reads_content(self) -> bool:
        """Whether content is still to come, or the delegate has not been told of its end."""
        return self.connection.exchange is self and self.connection.reader.decoder is not None

    @property
    def leaves_much_unread(self) -> bool:
        """Whether too much of the request is unread for the connection to persist. Asked at the end of the response.

        That is so if the content is not complete and

        1. the client waits for 100 (Continue): it may send the content or the next request now (RFC 9110 section
           10.1.1); or
        2. the content is chunked, so that its length is not known; or
        3. more is left of it than the connection reads and drops.
        """
        decoder = self.connection.reader.decoder
        if decoder is None or decoder.done:
            return False
        return self.continue_pending or decoder.remaining is None or decoder.remaining > _DRAIN_MAX

    def pause_reading(self) -> None:
        """Hand no content to the delegate until :meth:`resume_reading`; the peer is slowed down."""
        if self.connection.exchange is self:
            self.connection.pause_content()

    def resume_reading(self) -> None:
        """Hand content to the delegate again; what has been received is handed over before this returns."""
        if self.connection.exchange is self:
            self.connection.resume_content()

    def pause_until(self, waiting: Awaitable[None]) -> None:
        """Hand no content to the delegate until *waiting* is done."""
        pause_until(waiting, self, self.connection.pause_content, self.connection.resume_content)

    def set_body_timeout(self, seconds: float | None) -> None:
        """Set the deadline of the whole content to *seconds* from now; None for no limit."""
        if self.connection.exchange is self:
            self.connection.set_body_timeout(seconds)

    def send_continue(self) -> None:
        """Send 100 (Continue) if the client waits for it (RFC 9110 section 10.1.1); otherwise do nothing."""
        if self.continue_pending and self.writing is HEAD:
            self.continue_pending = False
            self.writer.write(CONTINUE)
            self.connection.go_on_waiting()
            self.send_head()

    # ------------------------------------------------------------------ the response

    @property
    def response_started(self) -> bool:
        """Whether bytes of the final response have been handed over."""
        return self.writing is not HEAD

    @property
    def ends_by_close(self) -> bool:
        """Whether the response has begun and ends with the connection: an early close would look like its end."""
        return self.writing is CONTENT and self._encoder is not None and not self._encoder.delimits

    @property
    def finished(self) -> bool:
        """Whether the response is complete, or the exchange has ended without one."""
        return self.writing is DONE or self.writing is CLOSED

    @property
    def peer_gone(self) -> bool:
        """Whether the connection has failed or is closing; the delegate has been told, or is told soon."""
        transport = self.writer.transport
        return transport is None or transport.is_closing()

    @property
    def write_paused(self) -> bool:
        """Whether more bytes wait to be sent than the high-water mark allows."""
        return self.writer.paused

    def writable(self) -> asyncio.Future[None]:
        """Return a future that is done when enough of the waiting bytes has been sent."""
        return self.writer.writable()

    def lower_high_water(self, size: int) -> None:
        """Pause writers when more than *size* bytes wait to be sent; a lower mark of the connection's stays."""
        self.writer.set_high_water(min(size, self.connection.parameters.high_water))

    async def drained(self) -> None:
        """Wait until fewer bytes than the high-water mark wait to be sent."""
        if self.writing is CLOSED:
            raise ConnectionGone("the peer closed the connection")
        if self.writer.paused:
            await self.writer.writable()

    def inform(self, status: int, fields: Iterable[tuple[bytes, bytes]]) -> None:
        """Send an interim response, such as 103 (RFC 9110 section 15.2); HTTP/1.0 clients get none."""
        if self.writing is CLOSED:
            raise ConnectionGone("the peer closed the connection")
        if self.writing is not HEAD or not 102 <= status <= 199:
            raise LocalProtocolError(f"interim response {status} out of place")
        wire = encode_interim(status, fields)
        if self.head.line.version != b"1.0":
            self.writer.write(wire)

    def respond(self, status: int, fields: Iterable[tuple[bytes, bytes]], reason: bytes = b"") -> None:
        """Check and keep the head of the final response. It is sent with the first content, or at the turn's end."""
        key = (status, reason, tuple(fields))
        try:
            head = _known_head(key)
        except (TypeError, ValueError):  # it has no hash: a field is a list, or has a memoryview of a bytearray
            head = None
        if head is None:
            head = _known_heads.add(*key)
        if self.writing is not HEAD or head.status < 200:
            self._check_head(head)
        self.response = head
        self.status = head.status
        writer = self.writer
        if not writer.registered:  # as flush_at_turn_end() does it, without one more call for each request
            writer.registered = True
            clock = self.connection.clock
            unsent = clock.unsent
            if not unsent:
                writer.loop.call_soon(clock.flush)
            unsent.append(writer)
        elif writer.pending:  # the end of the response before: the writer does not ask for this head
            self.connection.loop.call_soon(self.send_head)

    def send_head(self) -> None:
        """Send the head if no content has come in this turn of the loop.

        A client that waits for 100 (Continue) gets that first: it would take the head for a refusal of its content.
        """
        response = self.response
        if self.writing is HEAD and response is not None and response.status != 101 and not self.continue_pending:
            self.send()

    def respond_with(self, head: ResponseHead) -> None:
        """Keep a head that was made before, perhaps in another thread; otherwise as :meth:`respond`."""
        if self.writing is not HEAD or head.status < 200:
            self._check_head(head)
        self.response = head
        self.status = head.status

    def _check_head(self, head: ResponseHead) -> None:
        """Refuse a head that comes too late, and a 101 that cannot be sent (RFC 9110 section 7.8)."""
        if self.writing is CLOSED:
            raise ConnectionGone("the peer closed the connection")
        if self.writing is not HEAD:
            raise LocalProtocolError("the response head was sent already")
        if head.status == 101:
            if head.special is None or not head.special.upgrade:
                raise LocalProtocolError("101 without an Upgrade field (RFC 9110 section 15.2.2)")
            if not self.head.upgrade:
                raise LocalProtocolError("101 for a client that did not ask to switch protocols")
            if self.reads_content:
                # The next protocol would take the rest of the content for its first bytes.
                raise LocalProtocolError("101 before the request's content was read")

    def send_first(self, response: ResponseHead, data: bytes, last: bool = True) -> None:
        """Send a head that was made before and the first content: :meth:`respond_with` and :meth:`send` in one call.

        Most responses are plain. They skip the encoder, and their head is usually encoded already. A response is plain
        if

        1. its length is known: *data* is all of it, or Content-Length is declared and not exceeded; a complete one has
           exactly the declared length;
        2. *data* is so small that it is joined with the head;
        3. its fields ask for nothing special, and its status has content;
        4. the request is HTTP/1.1 and not HEAD;
        5. the connection persists: neither the request, the application nor the server has asked for its end, and no
           unread content forbids another request.
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
        clock = connection.clock
        head = self.head
        size = len(data)
        length = response.length
        if (
            response.plain
            and head.line.plain
            and ((size == length if last else size <= length) if length >= 0 else last)
            and size < _JOIN_MAX
            and not self.close_after
            and not connection.closing
            and (head.content_length == 0 or not last or not self.leaves_much_unread)
        ):
            known, start = response.encoded
            if length >= 0 and known is clock.default_fields:
                wire = start + data  # as encode_whole() does it; the call would cost 1 % of a plain request
            else:
                wire = encode_whole(response, clock.default_fields, data)
            self.content_sent = size
            writer = self.writer
            if clock.write_through:
                writer.write(wire)
            elif writer.registered and not writer.pending:  # as write_at_turn_end() does it, without the call
                writer.pending = wire
            else:
                writer.write_at_turn_end(wire)
            if last:
                self.writing = self.writing.complete
                connection.response_done(self, False)
            else:
                self._encoder = encoder = FixedEncoder()
                encoder.length = length
                encoder.sent = size
                self.writing = self.writing.start
            return
        if is_bodiless(head.line.method, response.status):
            last = True  # the response is complete with its head, whatever the application still sends
        close = self.close_after or connection.closing
        close = close or (last and head.content_length != 0 and self.leaves_much_unread)
        block, self._encoder, self.close_after = encode_head(
            response, head.line, clock.fields_besides(response.special), size, last=last, close=close
        )
        self.writing = self.writing.start
        self.send(data, last, head=block)

    def send(self, data: bytes = b"", last: bool = False, *, head: bytes = b"") -> None:
        """Send content; the first one is sent behind the head.

        *head* is an encoded head that is sent in front of *data*; only for :meth:`send_first`. The connection is closed
        when the length is wrong, so that the client notices.
        """
        if self.writing is not CONTENT:
            if self.writing is HEAD and self.response is not None:
                self.send_first(self.response, data, last)
                return
            self._refuse_content()
            return
        encoder = self._encoder
        writer = self.writer
        assert encoder is not None
        size = len(data)
        if size >= _JOIN_MAX and isinstance(encoder, ChunkedEncoder):
            parts = encoder.parts(data, last)
            writer.write_content([head, *parts] if head else parts)
        else:
            try:
                wire = encoder.encode(data, last)
            except WrongLength as exc:
                self._end_wrong(exc, head)
                raise
            if not head:
                if wire:
                    writer.write_content([wire])
            else:
                writer.write_content([head, wire] if wire else [head])
        if encoder is not BODILESS:
            self.content_sent += size
        if last:
            self.writing = self.writing.complete
            self.connection.response_done(self)

    def _refuse_content(self) -> None:
        """Raise the reason why no content can be sent; return if the response has no content, so that it is dropped."""
        if self.writing is CLOSED:
            raise ConnectionGone("the peer closed the connection")
        if self.writing is DONE and self._encoder is BODILESS and self.status != 101:
            return  # it is dropped
        when = "before the response head" if self.writing is HEAD else "after the end of the response"
        raise LocalProtocolError(f"content {when}")

    def _end_wrong(self, error: WrongLength, head: bytes) -> None:
        """Send the part of the content that fits its declared length, and end the connection."""
        if head or error.fits:
            self.writer.write(head + error.fits)
        self.content_sent += len(error.fits)
        if error.complete:
            self.close_after = True
            self._complete()
        else:
            self.connection.cut(reset=False)

    def _complete(self) -> None:
        self.writing = self.writing.complete
        self.connection.response_done(self)

    def _note_sent(self, size: int) -> None:
        """Count content that did not go through the encoder."""
        self.content_sent += size
        if isinstance(self._encoder, FixedEncoder):
            self._encoder.sent += size

    async def send_file(self, file: int, offset: int, count: int) -> None:
        """Send a part of a file as content, behind the head if this is the first; it does not end the response.

        Without TLS and chunks the kernel copies (``sendfile``). Otherwise the file is read in pieces of 64 KiB.
        """
        if self.writing is not CONTENT:
            self.send()  # sends the head, or raises
        encoder = self._encoder
        assert encoder is not None
        if not count or encoder is BODILESS:
            return
        if isinstance(encoder, FixedEncoder) and encoder.length < encoder.sent + count:
            raise LocalProtocolError(f"a file of {count} bytes for a Content-Length of {encoder.length} bytes")
        writer = self.writer
        sent = 0
        if count >= _JOIN_MAX and not isinstance(encoder, ChunkedEncoder):
            sent = await send_range(writer, file, offset, count, self._note_sent)
        while sent < count:
            if writer.paused:
                await writer.writable()
            elif sent:
                await asyncio.sleep(0)  # with a client that reads fast nothing here would ever wait
            data = read_piece(file, offset + sent, min(count - sent, 65536))
            sent += len(data)
            self.send(data)

    def end(self, trailers: Iterable[tuple[bytes, bytes]]) -> None:
        """End the response with a trailer section where the framing has room for one (RFC 9112 section 7.1.2)."""
        block = encode_fields(trailers)
        if self.writing is HEAD:
            self.send()
        if self.writing is CONTENT and block and isinstance(self._encoder, ChunkedEncoder):
            self.writer.write(self._encoder.end(block))
            self._complete()
        else:
            self.send(b"", True)

    def send_raw(self, data: bytes) -> None:
        """Send bytes of a response that the application frames itself, head included.

        :meth:`end_raw` ends it. Only its status and ``Connection: close`` are read from the first bytes.
        """
        if self.writing is HEAD:
            self._encoder = CloseEncoder()
            self.writing = self.writing.start
            self.status = raw_status(data)
            if self.times is not None and self.times.answers:
                self.times.began = monotonic_ns()
            # The application has made this head, so it cannot announce a stop of the server. The connection closes
            # without an announcement.
            self.close_after = self.close_after or self.connection.closing or self.status == 101 or says_close(data)
        elif self.writing is CLOSED:
            raise ConnectionGone("the peer closed the connection")
        elif self.writing is not CONTENT or self.response is not None:
            raise LocalProtocolError("content after the end of the response")
        self.writer.write(data)

    def end_raw(self) -> None:
        """End a response that the application has framed itself."""
        if self.writing is CONTENT:
            self._complete()

    def answer(self, status: int, text: bytes = b"", fields: Iterable[tuple[bytes, bytes]] = ()) -> None:
        """Send a whole plain-text response of the server's own."""
        self.respond(status, [(b"content-type", b"text/plain; charset=utf-8"), *fields])
        self.send(text or status_text(status), True)

    def fail(self, status: int = 500) -> None:
        """Answer *status* if nothing was sent yet; otherwise end the connection so that the client notices."""
        if self.writing is HEAD:
            self.connection.refuse(status)
        elif self.writing is CONTENT:
            self.connection.cut(reset=self.ends_by_close)

    def finish_within(self, seconds: float | None) -> None:
        """Reset the connection unless the response is complete in *seconds*; None for no limit."""
        if self.connection.exchange is self:
            self.connection.expect_response(seconds)

    def report_failure(self, error: BaseException) -> None:
        """Act on *error*, which a delegate's code raised outside of a call by the connection."""
        self.connection.delegate_failed(self, error)

    def abort(self) -> None:
        """Reset the connection, if it still serves this exchange."""
        if self.connection.exchange is self:
            self.connection.cut(reset=True)

    def close_connection(self) -> None:
        """Close the connection, also in the middle of a response; what was written is still sent."""
        self.connection.cut(reset=False)

    def response_field(self, name: bytes) -> bytes | None:
        """Return the value of the first field *name* (lower case) of the response, for logs; None if it has none.

        Fields that the server adds to every response, such as Date, are not among them.
        """
        if self.response is None:
            return None
        value = self.response.field(name)
        if value is None and name == b"content-length" and self.response_started:
            if self._encoder is None:
                return b"%d" % self.content_sent
            if self._encoder.length != NO_LENGTH:
                return b"%d" % self._encoder.length
        return value

    # ------------------------------------------------------------------ called by the connection

    def mark_closed(self) -> None:
        """Note that the exchange has ended without a complete response."""
        if self.writing is not DONE:
            self.writing = self.writing.abandon


if TYPE_CHECKING:

    def _implements(exchange: HTTP1Exchange) -> Exchange:
        return exchange
