"""The server's side of one HTTP/2 connection: its streams and their ends (RFC 9113).

HTTP2Connection is the asyncio protocol. It starts an exchange for each stream, ends it, and answers faults of the peer.
Its Incoming reads frames, its Output sends, its Ending has the deadlines and closes.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from bridge.core.connection.clock import NEVER, Clock
from bridge.core.connection.http2content import RequestContent
from bridge.core.connection.http2ending import Ending
from bridge.core.connection.http2exchange import LOST, HTTP2Exchange
from bridge.core.connection.http2incoming import Incoming
from bridge.core.connection.http2output import Output
from bridge.core.connection.interfaces import NULL_DELEGATE
from bridge.core.connection.preface import agreed_on_http2
from bridge.core.connection.refusals import refusal_message, refusal_reason
from bridge.core.connection.states import CLOSED, DONE
from bridge.core.connection.streamtransport import StreamTransport
from bridge.core.connection.writer import Writer, reset_now
from bridge.core.http2 import codes, frames
from bridge.core.http2.codes import ConnectionFault, StreamFault, StreamRefused
from bridge.core.http2.windows import INITIAL_WINDOW
from bridge.core.log import app_log, gen_log
from bridge.errors import ConnectionGone, LimitExceeded, RemoteProtocolError, UnsupportedFeature, traceback_of
from bridge.forks import FAULTS, end_if_forked

if TYPE_CHECKING:
    from bridge.core.connection.context import ConnectionContext
    from bridge.core.connection.interfaces import ConnectionDelegate, ExchangeDelegate
    from bridge.core.connection.parameters import ConnectionParameters
    from bridge.core.http2.request import StreamHead

__all__ = ["HTTP2Connection"]

# The most streams of one connection that were reset and whose delegates still run.
_LINGERING_MAX = 128
# Bytes of unread content that are read and dropped, so that the stream need not be reset.
_DRAIN_MAX = 65536

# Seconds that a connection has to begin when the server stops.
_FIRST_REQUEST_GRACE = 1.0

# The templates of all connections whose delegates have kept nothing. One dictionary, never changed.
_NO_TEMPLATES: dict[object, Any] = {}


class HTTP2Connection(asyncio.Protocol):
    """Serves HTTP/2 on one connection.

    Args:
        delegate: Starts the exchanges.
        parameters: Limits and times; with ``http2``.
        context: The two ends.
        clock: The server's clock.
        loop: The event loop.
        on_end: Called once as ``on_end(connection, False)`` when the connection has ended.

    Attributes:
        clock: The argument.
        closing: The connection has to end. The peer is told so at its next request, at the latest.
        context: The argument.
        deadline: Loop time in seconds when the deadlines of the connection and its streams are looked at.
        delegate: The argument.
        ending: Has the deadlines, and closes.
        initial_window: Bytes of content that the peer takes on each new stream.
        last_stream: The last stream that the peer has opened; -1 before the first.
        loop: The argument.
        observed: The observer knows the connection already, since it has begun as one of HTTP/1.
        output: Sends.
        parameters: The argument.
        requests: How many exchanges were started.
        streams: By stream, the exchanges whose request or response is not complete.
        templates: What delegates keep for the next requests, by owner.
        writer: Hands bytes to the transport and watches whether the peer reads.
    """

    __slots__ = (
        "_end_callbacks",
        "_eof",
        "_incoming",
        "_lingering",
        "_most_streams",
        "_on_end",
        "_on_gone",
        "_unsent",
        "_window_max",
        "clock",
        "closing",
        "context",
        "deadline",
        "delegate",
        "ending",
        "initial_window",
        "last_stream",
        "loop",
        "observed",
        "output",
        "parameters",
        "requests",
        "streams",
        "templates",
        "writer",
    )

    def __init__(
        self,
        delegate: ConnectionDelegate,
        parameters: ConnectionParameters,
        context: ConnectionContext,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        on_end: Callable[[HTTP2Connection, bool], Callable[[], None]] | None = None,
    ) -> None:
        assert parameters.http2 is not None
        self.delegate = delegate
        self.parameters = parameters
        self.context = context
        self.clock = clock
        self.loop = loop
        self.writer = Writer(self, parameters, context, clock, loop)
        self.output = Output(self.writer, parameters, clock, loop, self.watch, self._end_unread)
        self.ending = Ending(self)
        self.streams: dict[int, HTTP2Exchange] = {}
        self.templates: dict[object, Any] = _NO_TEMPLATES
        self._unsent = clock.budgets.unsent
        self.requests = 0
        self.initial_window = INITIAL_WINDOW
        self.last_stream = -1
        self.closing = parameters.no_keep_alive
        self.observed = False
        self.deadline = NEVER
        self._incoming = Incoming(self)
        self._most_streams = parameters.http2.max_concurrent_streams
        self._window_max = parameters.http2.max_stream_window
        self._on_end = on_end
        self._on_gone: Callable[[], None] | None = None  # set once the server does not wait for the connection any more
        self._lingering: set[weakref.ref[HTTP2Exchange]] = set()
        self._eof = False  # the peer sends nothing more, and all that it has sent is read
        self._end_callbacks: list[Callable[[Exception | None], None]] | None = None  # made for the first one

    # ------------------------------------------------------------------ what exchanges and delegates ask

    @property
    def transport(self) -> asyncio.Transport | None:
        """The transport; None before and after the connection."""
        return self.writer.transport

    @property
    def exchanges(self) -> tuple[HTTP2Exchange, ...]:
        """The exchanges in progress."""
        return tuple(self.streams.values())

    @property
    def gone(self) -> bool:
        """The connection has failed or is closing."""
        transport = self.writer.transport
        return transport is None or transport.is_closing()

    @property
    def tls(self) -> Any:
        """The TLS object; None without TLS."""
        transport = self.writer.transport
        return None if transport is None else transport.get_extra_info("ssl_object")

    def watch(self, time: float) -> None:
        """Check the deadlines at *time* at the latest (clock time without blocked time)."""
        self.ending.look_at(time)

    def announce_window(self, stream: int, increment: int) -> None:
        """Let the peer send *increment* more bytes of content of a stream."""
        self.output.send(frames.window_update_frame(stream, increment))

    def hold(self, size: int) -> None:
        """Note that *size* more bytes, or fewer, wait for delegates."""
        self._incoming.hold(size)

    # ------------------------------------------------------------------ called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the connection: send the settings, and expect the preface."""
        # A cast, since uvloop's transports are no instances of asyncio's class.
        transport = cast("asyncio.Transport", transport)
        self.writer.open(transport)
        self.clock.watch(self)
        self.ending.open()
        if agreed_on_http2(transport):  # otherwise the peer may be answered in text
            self._incoming.begin()
        if self.parameters.observer is not None and not self.observed:
            self.parameters.observer.connection_opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """End the connection: the transport is gone."""
        transport = self.writer.transport
        self.clock.forget(self)
        self.deadline = NEVER
        self.ending.closed = self.closing = True
        self._incoming.clear()
        self.output.close()
        self.writer.close()
        self.abandon_all(-1)
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(self, False)
        elif self._on_gone is not None:
            self._on_gone()
        if transport is not None:
            if self.parameters.observer is not None:
                self.parameters.observer.connection_closed(self)
            try:
                self.delegate.on_close(self)
            except FAULTS:
                app_log.exception("Uncaught exception in on_close of %s", self.context)
        callbacks, self._end_callbacks = self._end_callbacks, None
        for callback in callbacks or ():
            callback(exc)

    def data_received(self, data: bytes) -> None:
        """Take what the peer sent."""
        self._incoming.data_received(data)

    def eof_received(self) -> bool:
        """Note that the peer sends nothing more. What was received before is read first.

        Returns:
            Whether the transport stays open, for the responses.
        """
        self._incoming.eof = True
        self.output.flush()
        if not self._incoming.turn_awaited:
            self._fail_incomplete()
        transport = self.writer.transport
        stays = bool(self.streams) or self._incoming.turn_awaited
        # TLS has no half-closed connections: there the transport closes in any case.
        return stays and transport is not None and transport.can_write_eof()

    def peer_ended(self) -> None:
        """Act on the peer's end, after everything that it has sent was read."""
        self._fail_incomplete()
        if not self.streams:
            self.ending.close(linger=False)

    def _fail_incomplete(self) -> None:
        """Give up requests that will never be complete; tell the other delegates that the peer has ended."""
        self._eof = True
        self.output.shorten_deadlines([one.outbox for one in self.streams.values() if one.outbox is not None])
        for exchange in [*self.streams.values()]:
            if not exchange.received:
                self.abandon(exchange, codes.NO_ERROR)
            elif not exchange.finished:
                try:
                    exchange.delegate.on_peer_eof()
                except FAULTS as exc:
                    self._log_and_fail(exchange, exc)

    def pause_writing(self) -> None:
        """Let content wait in its streams: the transport's buffer is above its high-water mark."""
        self.output.blocked = True
        self.writer.pause()

    def resume_writing(self) -> None:
        """Go on sending, and reading."""
        self.output.blocked = False
        self.writer.resume()
        self.output.schedule()
        self._incoming.resume_reading()

    # ------------------------------------------------------------------ called by the clock

    def deadline_passed(self, now: float) -> None:
        """Look at the deadlines."""
        self.ending.look(now)

    def on_idle(self) -> None:
        """Drop, between two requests, what is kept only so that the next one is faster."""
        if not self.streams:
            self._incoming.reader.on_idle()
            self.output.encoder.on_idle()
            self.templates = _NO_TEMPLATES

    def turn_ended(self) -> None:
        """Do nothing: the output sends what waits for the end of a turn."""

    def write_stalled(self) -> None:
        """Reset the connection: the peer reads nothing."""
        transport = self.writer.transport
        if transport is not None:
            self.abandon_all(-1)
            reset_now(transport)

    # ------------------------------------------------------------------ streams

    def start_stream(self, stream: int, head: StreamHead, received: bool) -> None:
        """Start an exchange.

        The order matters:

        1. The exchange is made and the observer is told, so that every parsed request is logged, refused ones too.
        2. Content whose declared length exceeds the limit is refused before the delegate is asked.
        3. The delegate is asked. Before it returns, it may answer, or lose the peer: then it is told.
        4. Otherwise it gets the content, and is told of its end: at once if there is none, unless it has paused.

        Raises:
            RemoteProtocolError: The stream is refused, or its content is.
        """
        streams = self.streams
        if (
            len(streams) >= self._most_streams
            or self.ending.final
            or self._lingering
            or head.upgrade
            or self._unsent.is_short
        ):
            self._check_stream(head, received)
        parameters = self.parameters
        self.requests += 1
        if self.closing or self.requests == parameters.max_requests:
            self.ending.announce()
        exchange = HTTP2Exchange.open(self, head, stream, received)
        streams[stream] = exchange
        if parameters.observer is not None:
            if (note := parameters.times) is not None:
                exchange.times = note()
            if (started := parameters.exchange_started) is not None:
                started(exchange)
        if not received:
            tunnel = bool(head.upgrade)
            length = None if tunnel else head.content_length
            exchange.content = RequestContent(exchange, length, self._window_max, tunnel)
            limit = parameters.max_body_size
            if length is not None and limit is not None and length > limit and not parameters.limit_after_start:
                raise LimitExceeded(413, f"Content-Length too long: {length} bytes, limit {limit}")
        delegate = self.delegate.start_exchange(exchange)
        content = exchange.content
        if exchange.delegate is not NULL_DELEGATE:
            return  # another protocol has taken the stream
        if exchange.writing is CLOSED or (exchange.writing is DONE and content is not None):
            self._notify_closed(delegate)
        elif exchange.writing is DONE:
            delegate.finish()
        else:
            exchange.delegate = delegate
            if content is not None:
                content.finish()
            else:
                exchange.informed = True
                delegate.finish()

    def _check_stream(self, head: StreamHead, received: bool) -> None:
        """Refuse a stream for which there is no room, or of a kind that is not served.

        Raises:
            RemoteProtocolError: The stream is refused.
        """
        if len(self.streams) >= self._most_streams or self.ending.final:
            raise StreamFault(codes.REFUSED_STREAM, "too many concurrent streams (RFC 9113 section 5.1.2)")
        if self._unsent.is_short and self.streams:
            raise StreamRefused("too many responses wait for clients that do not read (--limit-unsent)")
        if len(self._lingering) >= _LINGERING_MAX:
            raise StreamFault(codes.REFUSED_STREAM, "too many streams that were reset and still run")
        if head.upgrade and head.upgrade != b"websocket":
            raise UnsupportedFeature(501, f"CONNECT for {head.upgrade!r:.80} (RFC 8441 section 4)")
        if head.upgrade and received:
            raise StreamFault(codes.PROTOCOL_ERROR, "CONNECT that ends its stream (RFC 8441 section 5)")

    def response_done(self, exchange: HTTP2Exchange) -> None:
        """Take note that a response is complete, although it may wait to be sent; drop the rest of its request."""
        if (ended := self.parameters.exchange_ended) is not None:
            ended(exchange)
        if exchange.is_tunnel:
            return  # another protocol takes the stream next
        delegate = exchange.delegate
        exchange.delegate = NULL_DELEGATE  # ends a reference cycle: most delegates know their exchange
        if not exchange.informed and delegate is not NULL_DELEGATE:
            if exchange.content is not None:
                exchange.content.drop()
            self._notify_closed(delegate)

    def exchange_over(self, exchange: HTTP2Exchange) -> None:
        """Take note that a response is complete and sent: :meth:`response_done` and :meth:`stream_sent` in one call."""
        if not exchange.received:
            self.response_done(exchange)
            self.stream_sent(exchange)
            return
        if (ended := self.parameters.exchange_ended) is not None:
            ended(exchange)
        if not exchange.informed and exchange.content is not None:  # the delegate has paused in front of the end
            exchange.content.drop()
            self._notify_closed(exchange.delegate)
        exchange.delegate = NULL_DELEGATE
        exchange.over = True
        self._incoming.budget.answered += 1
        self.close_stream(exchange)

    def stream_sent(self, exchange: HTTP2Exchange) -> None:
        """Take note that the end of a stream was handed over: it is closed, unless its request is not complete.

        The peer is asked to stop sending with RST_STREAM (section 8.1), but not if the rest is short: some clients do
        not read the response then.
        """
        exchange.over = True
        self._incoming.budget.answered += 1
        if exchange.received:
            self.close_stream(exchange)
        elif exchange.delegate is NULL_DELEGATE:
            content = exchange.content
            if content is None or not content.drain(_DRAIN_MAX):
                self.abandon(exchange, codes.NO_ERROR)

    def close_stream(self, exchange: HTTP2Exchange) -> None:
        """Forget a stream that has ended in both directions.

        After the last one, wait for the next stream, or close if none may come.
        """
        streams = self.streams
        if streams.pop(exchange.stream_id, None) is None:
            return
        ending = self.ending
        if streams:
            if ending.final:
                self.leave_if_tunnels()
        elif ending.final or self._eof:
            ending.close(linger=not self._eof)
        elif self._incoming.busy:  # many requests may come in one read
            self._incoming.emptied = True
        else:
            ending.idle()

    def abandon(self, exchange: HTTP2Exchange, code: int, by_peer: bool = False) -> None:
        """Give a stream up, if it is open. Tell observer and delegate.

        Args:
            exchange: The stream's exchange.
            code: The error code with which it is reset; -1 if it has a complete response of the server's own.
            by_peer: The peer has reset the stream.
        """
        stream = exchange.stream_id
        if self.streams.get(stream) is not exchange:
            return
        if code < 0 and not exchange.received:
            code = codes.NO_ERROR
        if code >= 0 and not by_peer:
            self.output.send(frames.reset_frame(stream, code))
            content = exchange.content
            self._incoming.ended.add_reset(stream, 0 if content is None else content.window.left)
        self._end_exchange(exchange, code)
        self.close_stream(exchange)

    def _end_exchange(self, exchange: HTTP2Exchange, code: int) -> None:
        exchange.reset_code = code
        if exchange.outbox is not None:
            exchange.outbox.close()
        if exchange.content is not None:
            exchange.content.drop()
        delegate, exchange.delegate = exchange.delegate, NULL_DELEGATE
        if exchange.writing is not DONE:
            exchange.mark_closed()
            if self.parameters.exchange_ended is not None:
                self.parameters.exchange_ended(exchange)
            # The delegate may go on running. The weak reference goes when nothing holds the exchange any more.
            self._lingering.add(weakref.ref(exchange, self._lingering.discard))
        self._notify_closed(delegate)

    def abandon_all(self, code: int) -> None:
        """Give all streams up.

        Args:
            code: The error code with which they are reset; -1 to send nothing, since the connection ends.
        """
        exchanges = [*self.streams.values()]
        if code < 0:
            self.streams.clear()
        for exchange in exchanges:
            if code < 0:
                self._end_exchange(exchange, LOST)
            else:
                self.abandon(exchange, code)

    def _notify_closed(self, delegate: ExchangeDelegate) -> None:
        try:
            delegate.on_connection_close()
        except FAULTS:
            app_log.exception("Uncaught exception in on_connection_close of %s", self.context)

    def take_stream(
        self, exchange: HTTP2Exchange, protocol: asyncio.Protocol
    ) -> tuple[asyncio.Transport, bytes, Callable[[], None]]:
        """Give the stream of *exchange* to another protocol (RFC 8441 section 5).

        Returns:
            Its transport; the unread bytes; a function to call when the transport is gone.

        Raises:
            ConnectionGone: The stream has ended.
            LocalProtocolError: It was not opened by an extended CONNECT that was accepted.
        """
        if self.streams.get(exchange.stream_id) is not exchange:
            raise ConnectionGone("the stream was reset, or the connection is closed")
        return StreamTransport.take(exchange, protocol)

    # ------------------------------------------------------------------ faults

    def refused(self, reason: str) -> None:
        """Tell the observer that the peer has broken a rule or a limit; see ``Observer.request_refused``."""
        if self.parameters.observer is not None:
            self.parameters.observer.request_refused(self, reason)

    def take_fault(self, stream: int, error: BaseException) -> None:
        """Act on an exception that the peer or a delegate has caused while the frames of *stream* were read."""
        try:
            exchange = self.streams.get(stream)
            if isinstance(error, StreamFault):
                if isinstance(error, StreamRefused):
                    gen_log.info("HTTP/2 from %s: stream %d refused: %s", self.context, stream, error)
                    self.refused("budget")
                    self._incoming.budget.spend_glitch(self.clock.now)
                else:
                    gen_log.info("Malformed HTTP message from %s, stream %d: %s", self.context, stream, error)
                    self.refused("malformed")
                    self._incoming.budget.spend_reset()
                if exchange is not None:
                    self.abandon(exchange, error.code)
                else:
                    self.output.send(frames.reset_frame(stream, error.code))
                    self._incoming.ended.add_reset(stream, INITIAL_WINDOW)
            elif isinstance(error, ConnectionFault):
                self.fault(error)
            elif isinstance(error, RemoteProtocolError):
                self._refuse_fault(stream, exchange, error)
            else:
                self._log_and_fail(exchange, error)
        except ConnectionFault as fault:
            self.fault(fault)

    def _end_unread(self) -> str:
        """End the connection, since its peer does not read; return what was ended, in words for the log."""
        self.fault(ConnectionFault(codes.ENHANCE_YOUR_CALM, "responses are not read"), "budget")
        return f"the HTTP/2 connection of {self.context}, which does not read"

    def fault(self, error: ConnectionFault, reason: str = "") -> None:
        """End the connection with GOAWAY (section 5.4.1), and say why; *reason* is for observers."""
        gen_log.info("HTTP/2 from %s ended, %s: %s", self.context, codes.error_name(error.code), error)
        late = error.code in {codes.NO_ERROR, codes.SETTINGS_TIMEOUT}
        self.refused(reason or ("head_timeout" if late else "malformed"))
        self.abandon_all(-1)
        self.output.send(frames.goaway_frame(max(self.last_stream, 0), error.code, str(error).encode()[:120]))
        self.ending.close()

    def _refuse_fault(self, stream: int, exchange: HTTP2Exchange | None, error: RemoteProtocolError) -> None:
        """Answer a fault of the peer with its status, on its stream."""
        gen_log.info("%s", refusal_message(error.status, f"{self.context}, stream {stream}", error))
        self.refused(refusal_reason(error.status, in_head=exchange is None))
        if exchange is not None:
            exchange.refuse(error.status)
            return
        # There is no exchange: the head was not read.
        output = self.output
        output.send(
            frames.headers_frame(stream, output.encoder.fields(b"", error.status), True)
            + frames.reset_frame(stream, codes.NO_ERROR)
        )
        self._incoming.ended.add_reset(stream, INITIAL_WINDOW)
        self._incoming.budget.spend_reset()

    def _log_and_fail(self, exchange: HTTP2Exchange | None, error: BaseException) -> None:
        """Log an exception of the delegate; answer 500, or reset the stream if the response has begun."""
        end_if_forked(error)
        app_log.error("Uncaught exception while serving %s", self.context, exc_info=traceback_of(error))
        if exchange is not None:
            exchange.fail()

    def delegate_failed(self, exchange: HTTP2Exchange, error: BaseException) -> None:
        """Act on *error*, which a delegate's code raised outside of a call by this connection."""
        if self.streams.get(exchange.stream_id) is not exchange or exchange.finished:
            if not isinstance(error, ConnectionGone):
                app_log.error("Uncaught exception after a request from %s", self.context, exc_info=traceback_of(error))
        elif isinstance(error, RemoteProtocolError):
            self._refuse_fault(exchange.stream_id, exchange, error)
        else:
            self._log_and_fail(exchange, error)

    # ------------------------------------------------------------------ ways to end

    def resume_reading(self) -> None:
        """Let the transport read again."""
        self._incoming.resume_reading()

    def close_when_idle(self, grace: float = 0.0) -> None:
        """Tell the peer to open no more streams, and close when the open ones have ended.

        Args:
            grace: Without meaning: the peer is told at once.
        """
        self.closing = True
        if self._incoming.begun:
            self.ending.announce()
        else:
            self.ending.hurry(_FIRST_REQUEST_GRACE)

    def leave_if_tunnels(self) -> None:
        """If all streams belong to other protocols, tell the server that it need not wait for this connection.

        A server counts connections that WebSockets have taken, but it does not wait for them (see ``drain``).
        """
        if self._on_end is not None and all(exchange.is_tunnel for exchange in self.streams.values()):
            on_end, self._on_end = self._on_end, None
            self._on_gone = on_end(self, True)

    def abort(self) -> None:
        """Reset the streams, and close; streams of other protocols go on."""
        if any(exchange.is_tunnel for exchange in self.streams.values()) and not self.ending.closed:
            for exchange in [*self.streams.values()]:
                if not exchange.is_tunnel:
                    self.abandon(exchange, codes.CANCEL)
            self.ending.announce()
            self.ending.finalize()
            self.leave_if_tunnels()
        else:
            self.ending.cut()

    def cut(self, *, reset: bool) -> None:
        """End the connection in the middle of responses; the peer notices by the resets."""
        self.ending.cut()

    def add_end_callback(self, callback: Callable[[Exception | None], None]) -> None:
        """Call *callback* when the connection has ended, with the error that ended it, if any."""
        if self._end_callbacks is None:
            self._end_callbacks = []
        self._end_callbacks.append(callback)
