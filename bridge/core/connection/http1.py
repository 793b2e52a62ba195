"""The server's side of one HTTP/1.x connection: deadlines, order of exchanges, refusals, the ends (RFC 9112).

This is the asyncio protocol. It asks a RequestReader for heads and content, starts one exchange at a time, and is the
only one that arms deadlines, answers refusals and closes. Its Writer hands bytes to the transport.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, cast

from bridge.core.connection.clock import NEVER, Clock
from bridge.core.connection.http1exchange import HTTP1Exchange
from bridge.core.connection.interfaces import NULL_DELEGATE
from bridge.core.connection.states import (
    CLOSED,
    DONE,
    READ_CLOSED,
    READ_CONTENT,
    READ_DISCARD,
    READ_DONE,
    READ_HEAD,
    READ_SWITCHED,
)
from bridge.core.connection.times import Times
from bridge.core.connection.writer import Writer
from bridge.core.http1.decoder import ChunkedDecoder
from bridge.core.http1.encoder import encode_refusal
from bridge.core.http1.reader import RequestReader
from bridge.core.log import app_log, gen_log
from bridge.errors import ConnectionGone, LimitExceeded, RemoteProtocolError, RequestTimeout

if TYPE_CHECKING:
    from bridge.core.connection.context import ConnectionContext
    from bridge.core.connection.interfaces import ConnectionDelegate, ExchangeDelegate
    from bridge.core.connection.parameters import ConnectionParameters
    from bridge.core.connection.states import Reading
    from bridge.core.http1.decoder import FixedDecoder

__all__ = ["ServerConnection", "noop"]

# Unread content up to this size (bytes) is read and dropped so that the connection can go on (RFC 9112 section 9.3).
_DRAIN_MAX = 65536
# Received while a response is pending: the next requests. Past this many bytes the peer has to wait.
_AHEAD_MAX = 65536
# Pipelined exchanges started, or pieces of content handed over, in one turn of the loop.
_A_TURN = range(32)
# After the last response the peer may go on sending this much (bytes) for this long (seconds) before it is cut off;
# a close with unread data would reset the connection and could destroy the response on its way.
_LINGER_MAX = 1 << 20
_LINGER_TIME = 2.0
# How long, in seconds, a connection that has had no request may still send one when the server stops.
_FRESH_GRACE = 1.0
# Who wants no content now; both may, and one's consent is not the other's.
_BY_DELEGATE, _BY_AWAITABLE = 1, 2
# What a connection keeps for delegates that have kept nothing. It is everybody's, and never changed.
_NO_TEMPLATES: dict[object, Any] = {}


class ServerConnection(asyncio.Protocol):
    """Serves HTTP/1.x on one connection.

    Args:
        delegate: Starts the exchanges.
        parameters: Limits and times.
        context: The two ends.
        clock: The server's clock.
        loop: The event loop.
        on_end: Called once, when HTTP has ended, and told whether another protocol goes on. Returns what is to be
            called when that one's transport is gone.

    Attributes:
        clock: The argument.
        closing: The connection ends with the current exchange, if not before.
        context: The argument.
        deadline: Loop time in seconds at which the peer must have sent what is awaited.
        delegate: The argument; may be set before the first exchange.
        exchange: The current exchange; None between two.
        loop: The argument.
        parameters: The argument.
        reading: Where reading a request has come to.
        reader: What was received.
        templates: What delegates keep for the next requests, by owner; dropped after about a second without one.
        writer: The sending half.
    """

    __slots__ = (
        "_awaited",
        "_busy",
        "_content_deadline",
        "_discarded",
        "_end_callbacks",
        "_eof",
        "_grace",
        "_held",
        "_on_end",
        "_paused",
        "_progress_at",
        "_unlimited",
        "clock",
        "closing",
        "context",
        "deadline",
        "delegate",
        "exchange",
        "loop",
        "parameters",
        "reader",
        "reading",
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
        on_end: Callable[[ServerConnection, bool], Callable[[], None]] | None = None,
    ) -> None:
        self.delegate = delegate
        self.parameters = parameters
        self.context = context
        self.clock = clock
        self.loop = loop
        self.reader = RequestReader(parameters.limits)
        self.writer = Writer(self, parameters, context, clock, loop)
        self.exchange: HTTP1Exchange | None = None
        self.templates: dict[object, Any] = _NO_TEMPLATES
        self.closing = parameters.no_keep_alive
        self.deadline = NEVER
        self.reading: Reading = READ_HEAD
        self._awaited = False  # the first byte of the next head has come, and its deadline is set
        self._busy = False  # _advance() is at work
        self._content_deadline = NEVER
        self._discarded = 0
        self._end_callbacks: list[Callable[[Exception | None], None]] | None = None
        self._eof = False
        self._grace = 0.0  # seconds that the connection may stay idle although it is closing
        self._held = False  # the transport was told to read nothing
        self._on_end = on_end
        self._paused = 0  # who wants no content now
        self._progress_at = NEVER  # the clock's time when content came last
        self._unlimited = False  # the content has not yet been compared with the limit that the delegate may have set

    @property
    def requests(self) -> int:
        """How many exchanges were started."""
        return self.reader.heads

    @property
    def transport(self) -> asyncio.Transport | None:
        """The transport; None before and after the connection."""
        return self.writer.transport

    @property
    def decoder(self) -> FixedDecoder | ChunkedDecoder | None:
        """Reads the current request's content; None while none is expected."""
        return self.reader.decoder

    # ------------------------------------------------------------------ called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start: the first head is due from now on."""
        # uvloop's transports are registered as nothing of asyncio's
        self.writer.open(cast("asyncio.Transport", transport))
        self.clock.watch(self)
        self.deadline = self.clock.after(self.parameters.head_timeout)
        if self.parameters.observer is not None:
            self.parameters.observer.connection_opened(self)

    def eof_received(self) -> bool:
        """Note that the peer sends nothing more; it may still wait for a response (RFC 9112 section 9.6)."""
        self._eof = True
        self.writer.flush()  # whether the transport closes now is for it to say
        reading = self.reading
        unread = bool(self.reader.buffer)
        if reading is READ_DONE:
            exchange = self.exchange
            assert exchange is not None
            if not unread:
                exchange.close_after = True
            try:
                exchange.delegate.on_peer_eof()
            except Exception as exc:
                self._delegate_failed(exc)
        elif reading is READ_HEAD and unread and (self.writer.paused or not self.reader.scanned):
            self._advance_soon()  # complete requests wait for the peer to read, or for their turn
        elif reading is READ_CONTENT and (self._paused or unread):
            self._advance_soon()  # the rest of the content may be in the buffer, and more requests behind it
        else:
            if reading is READ_CONTENT:
                self._abandon_exchange()
                self._close()  # by hand: an early response may wait to be read, and a turn of _advance() to come
            return False
        # Under TLS, which knows no half-closed connections, the transport closes whatever is returned here.
        transport = self.writer.transport
        return transport is not None and transport.can_write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        """End: nobody is there any more."""
        transport = self.writer.transport
        self._leave(exc, started=transport is not None)  # not started: its TLS handshake failed
        if transport is not None and transport.is_closing() and hasattr(transport, "_read_ready_cb"):
            # asyncio's transport keeps a bound method of its own in 3.11: a cycle (python/cpython#100348)
            transport._read_ready_cb = None

    def pause_writing(self) -> None:
        """Let writers wait: the transport's buffer is above its high-water mark."""
        self.writer.pause()

    def resume_writing(self) -> None:
        """Let writers go on, and requests that waited for the peer to read."""
        self.writer.resume()
        if self.reading is READ_HEAD and self.reader.buffer:
            if self.deadline == NEVER:  # it passed while the peer had not read what came before: see deadline_passed()
                self.deadline = self.clock.after(self.parameters.head_timeout)
            self._advance_soon()

    # ------------------------------------------------------------------ called by the clock

    def on_idle(self) -> None:
        """Forget, between two requests, what is only kept to be faster with the next one."""
        if self.reading is READ_HEAD and not self.reader.buffer:
            self.reader.on_idle()
            self.templates = _NO_TEMPLATES

    def deadline_passed(self, now: float) -> None:
        """Act on a deadline: an answer where a request had begun, silence where none had."""
        transport = self.writer.transport
        if transport is None:
            return
        self.deadline = NEVER
        reading = self.reading
        if reading is READ_HEAD:
            if not self.reader.buffer:
                self._close()
            elif (
                not self.writer.paused
            ):  # else the answers to what is buffered wait for the peer: the writer's deadline
                self._refuse(RequestTimeout("Timeout reading the request head"))
        elif reading is READ_CONTENT:
            if self._content_deadline < now:
                gen_log.info("Timeout reading body from %s", self.context)
                self.cut(reset=False)
            else:
                self._refuse(RequestTimeout("Timeout reading body"))
        elif reading is READ_DONE:  # see expect_response()
            self.cut(reset=True)
        elif reading in _OVER and reading is not READ_CLOSED:
            self.reading = self.reading.close
            transport.close()

    def write_stalled(self) -> None:
        """Give up a peer that reads nothing."""
        self.cut(reset=True)

    # ------------------------------------------------------------------ reading

    def data_received(self, data: bytes) -> None:
        """Take what the peer sent, and go as far as the buffer, the delegate and the peer's reading allow."""
        reader = self.reader
        if reader.buffer:
            reader.feed(data)
        else:  # as nearly always: saves a call
            reader.buffer = data
        if self._busy:
            return
        self._busy = True
        try:
            for step in _A_TURN:
                reading = self.reading
                if reading is READ_HEAD:
                    if not reader.buffer or (step and self._peer_left()) or not self._read_head():
                        break
                    if not reader.buffer and self.reading is not READ_CONTENT:
                        break
                elif reading is READ_CONTENT:
                    if not self._read_content():
                        break
                elif reading is READ_DISCARD:
                    self._discard()
                    break
                else:
                    self._read_ahead()
                    break
            else:
                self._advance_soon()
                self._read_ahead()
        except RemoteProtocolError as exc:
            self._refuse(exc)
        except Exception as exc:
            self._delegate_failed(exc)
        finally:
            self._busy = False

    def _advance(self) -> None:
        """Go on with what has been received."""
        self.data_received(b"")

    def _read_head(self) -> bool:
        """Start an exchange if a head is complete; tell whether it did.

        1. A peer that asks but does not read the answers gets no further exchange.
        2. The head is parsed, which may refuse it.
        3. The observer is told, whatever becomes of the request.
        4. Content that is declared too long is refused before the delegate is asked.
        5. The delegate is asked, and may answer at once, close, or lose the peer.
        """
        if self.writer.paused:
            self._read_ahead()
            return False
        head = self.reader.next_head()
        if head is None:
            self._await_head()
            return False
        self._awaited = False
        length = head.content_length
        parameters = self.parameters
        if self.reader.heads == parameters.max_requests:
            self.closing = True
        exchange = self.exchange = HTTP1Exchange.open(self, head)
        if parameters.observer is not None:
            if parameters.timed:
                exchange.times = Times(monotonic_ns())
            parameters.observer.exchange_started(exchange)
        if length == 0:
            self.reading = self.reading.head_complete
            self.deadline = NEVER
        else:
            self.reading = self.reading.head_with_content
            self._expect_content(length)
        delegate = self.delegate.start_exchange(exchange)
        if exchange.writing is CLOSED:
            self._tell_closed(delegate)
        elif exchange.writing is DONE:  # answered before it returned; what content there is will be dropped
            if length == 0:
                delegate.finish()
            else:
                self._tell_closed(delegate)
        else:
            exchange.delegate = delegate
            if length == 0:
                if self._paused:  # the delegate wants no news now: finish() comes when it does
                    self.reading = self.reading.pause
                    self.reader.expect_content(0)
                else:
                    delegate.finish()
        return True

    def _await_head(self) -> None:
        """Wait for more of a head; the whole is due a while after its first byte."""
        if self._eof:
            self._close()
            return
        if self.reader.scanned and not self._awaited:
            self._awaited = True
            if self.reader.heads:
                self.deadline = self.clock.after(self.parameters.head_timeout)
        self._release()

    def _expect_content(self, length: int | None) -> None:
        parameters = self.parameters
        limit = parameters.max_body_size
        self.reader.expect_content(length, limit)
        if length is not None and limit is not None and length > limit and not parameters.limit_after_start:
            raise LimitExceeded(413, f"Content-Length too long: {length} bytes, limit {limit}")
        self._unlimited = parameters.limit_after_start
        self._content_deadline = self.clock.after(parameters.body_total_timeout)
        self._progress_at = self.clock.now
        self.deadline = min(self.clock.after(parameters.body_timeout), self._content_deadline)

    def _peer_left(self) -> bool:
        """Tell, between two pipelined requests, whether a write has failed: nobody will read more answers."""
        transport = self.writer.transport
        return transport is None or transport.is_closing()

    def _apply_limit(self, exchange: HTTP1Exchange, decoder: FixedDecoder | ChunkedDecoder) -> None:
        """Compare the content with the limit that the delegate may have changed."""
        self._unlimited = False
        limit = self.parameters.max_body_size if exchange.max_body_size is None else exchange.max_body_size
        if limit is None:
            return
        if isinstance(decoder, ChunkedDecoder):
            decoder.limit = limit
        elif decoder.remaining > limit:
            raise LimitExceeded(413, f"Content-Length too long: {decoder.remaining} bytes, limit {limit}")

    def set_body_timeout(self, seconds: float | None) -> None:
        """Let the current request's content be due, as a whole, in *seconds*."""
        self.clock.shorten(seconds)
        self._content_deadline = self.clock.after(seconds)
        self.deadline = min(self.deadline, self._content_deadline)

    def _read_content(self) -> bool:
        """Hand content to the delegate; tell whether to go on reading at once."""
        exchange = self.exchange
        reader = self.reader
        decoder = reader.decoder
        assert exchange is not None and decoder is not None
        if self._paused:
            self._read_ahead()
            return False
        if self._unlimited:
            self._apply_limit(exchange, decoder)
        progress = False
        if not decoder.done:
            data = reader.next_content(self.parameters.chunk_size)
            if data is None:
                self._release()
            else:
                progress = True
                if self.clock.now != self._progress_at:  # the clock's time stands still between its ticks
                    self._progress_at = self.clock.now
                    self.deadline = min(self.clock.after(self.parameters.body_timeout), self._content_deadline)
                exchange.continue_pending = False
                if data:
                    waiting = exchange.delegate.data_received(data)
                    if waiting is not None:
                        self.pause_until(waiting)
        if decoder.done:
            if self._paused:
                return False  # finish() comes when the delegate is ready for it
            if self.exchange is exchange:
                self._finish_request(exchange, decoder)
            return True
        if not progress and self._eof:
            self._abandon_exchange()
            self._close()
        if not progress or self.reading is not READ_CONTENT:
            return False
        # With nothing in the buffer another step is only needed to let the peer send again, or to see its end.
        return bool(reader.buffer) or self._held or self._eof

    def _finish_request(self, exchange: HTTP1Exchange, decoder: FixedDecoder | ChunkedDecoder) -> None:
        self.reader.decoder = None
        self._content_deadline = NEVER
        self.deadline = NEVER
        self.reading = self.reading.content_complete
        exchange.trailers = decoder.trailers
        if exchange.finished:  # its response was early, the content was dropped
            self.response_done(exchange, observed=True)
        else:
            exchange.delegate.finish()

    def _read_ahead(self) -> None:
        """Keep what arrives before its time, and slow the peer down when it is much."""
        transport = self.writer.transport
        if transport is not None and not self._held and self.reader.unread > _AHEAD_MAX:
            self._held = True
            transport.pause_reading()

    def _advance_soon(self) -> None:
        self.loop.call_soon(self._advance)

    def pause_content(self, reason: int = _BY_DELEGATE) -> None:
        """Let no content reach the delegate; the deadline rests meanwhile, since it is not the peer who is slow."""
        self._paused |= reason
        if self.reading is READ_CONTENT:
            self.deadline = self._content_deadline
            transport = self.writer.transport
            if not self._held and transport is not None:
                self._held = True
                transport.pause_reading()

    def resume_content(self, reason: int = _BY_DELEGATE) -> None:
        """Let content reach the delegate again, unless somebody else wants none."""
        if not self._paused & reason:
            return
        self._paused &= ~reason
        if self._paused:
            return
        if self.reading is READ_CONTENT:
            self.deadline = min(self.clock.after(self.parameters.body_timeout), self._content_deadline)
        self._release()
        decoder = self.reader.decoder
        if self.reader.buffer or self._eof or (decoder is not None and decoder.done):
            self._advance()

    def pause_until(self, waiting: Awaitable[None]) -> None:
        """Read no content until *waiting*, which the delegate returned, is done."""
        future = asyncio.ensure_future(waiting, loop=self.loop)
        if future.done() and not future.cancelled() and future.exception() is None:
            return
        self.pause_content(_BY_AWAITABLE)
        exchange = self.exchange
        assert exchange is not None

        def go_on(done: asyncio.Future[None]) -> None:
            if done.cancelled():
                if self.exchange is exchange:
                    self.cut(reset=True)
            elif (error := done.exception()) is not None:
                self.delegate_failed(exchange, error)
            elif self.exchange is exchange:
                self.resume_content(_BY_AWAITABLE)

        future.add_done_callback(go_on)

    def _release(self) -> None:
        """Read from the peer again."""
        transport = self.writer.transport
        if self._held and transport is not None:
            self._held = False
            if not transport.is_closing():
                transport.resume_reading()

    # ------------------------------------------------------------------ the end of an exchange

    def must_close_after(self, exchange: HTTP1Exchange) -> bool:
        """Tell, when a response is complete, whether what is unread of its request forbids another one."""
        decoder = self.reader.decoder
        if self.reading is not READ_CONTENT or decoder is None or decoder.done:
            return False
        return exchange.continue_pending or decoder.remaining is None or decoder.remaining > _DRAIN_MAX

    def expect_response(self, seconds: float | None) -> None:
        """Let the current response be complete in *seconds*, if its request is; else the connection is reset."""
        if self.reading is READ_DONE:
            self.deadline = self.clock.after(seconds)

    def response_done(self, exchange: HTTP1Exchange, observed: bool = False) -> None:
        """Go on after a complete response: to the next request, or to the end.

        Args:
            exchange: The response's.
            observed: The observer was told of its end before.
        """
        if self.exchange is not exchange:
            return
        if self.parameters.observer is not None and not observed:
            self.parameters.observer.exchange_ended(exchange)
        if self.reading is not READ_DONE:
            if self.reading is READ_CONTENT:
                self._drop_content(exchange)
            return
        if exchange.status == 101:
            self.reading = self.reading.switch
            self.deadline = self.clock.after(self.parameters.head_timeout)  # for take_transport
            return
        self.exchange = None
        exchange.delegate = NULL_DELEGATE  # ends a cycle of references: most delegates know their exchange
        reader = self.reader
        if exchange.close_after or (self.closing and not self._grace) or (self._eof and not reader.buffer):
            self._close(linger=bool(reader.buffer))
            return
        self._paused = 0
        self.reading = self.reading.respond
        self.deadline = self.clock.idle_deadline
        if self._grace:
            self.deadline = min(self.deadline, self.clock.after(self._grace))
        if self._held and reader.unread <= _AHEAD_MAX:
            self._release()
        if reader.buffer and not self._busy:
            self._advance_soon()

    def _drop_content(self, exchange: HTTP1Exchange) -> None:
        """The response is complete, the request is not: read the little that is left, or close."""
        delegate = exchange.delegate
        close = exchange.close_after or self.closing or self.must_close_after(exchange)
        exchange.delegate = NULL_DELEGATE
        self._paused = 0
        if close:
            self.exchange = None
            self._close(linger=True)
        else:
            self.deadline = self.clock.after(self.parameters.body_timeout)
            self._release()
            if not self._busy:
                self._advance_soon()
        self._tell_closed(delegate)

    def _abandon_exchange(self) -> None:
        """Nobody waits for the response any more: tell the observer and the delegate."""
        exchange = self.exchange
        if exchange is not None:
            self.exchange = None
            self._end_unfinished(exchange)
            delegate = exchange.delegate
            exchange.delegate = NULL_DELEGATE
            self._tell_closed(delegate)

    def _end_unfinished(self, exchange: HTTP1Exchange) -> None:
        if exchange.writing is not DONE:
            exchange.mark_closed()
            if self.parameters.observer is not None:
                self.parameters.observer.exchange_ended(exchange)

    def _tell_closed(self, delegate: ExchangeDelegate) -> None:
        try:
            delegate.on_connection_close()
        except Exception:
            app_log.exception("Uncaught exception in on_connection_close of %s", self.context)

    def take_transport(self, protocol: asyncio.Protocol) -> tuple[asyncio.Transport, bytes, Callable[[], None]]:
        """Give the transport, and the bytes received but not read, to another protocol (RFC 9110 section 7.8).

        The connection is over as far as HTTP is concerned. The server counts it all the same until it is told that the
        transport has ended.

        Returns:
            The transport; the bytes; what to call, once, when the transport is gone.

        Raises:
            ConnectionGone: The connection has ended.
        """
        self.writer.flush()
        transport = self.writer.transport
        if transport is None:
            raise ConnectionGone("the connection is closed")
        rest = self.reader.take_rest()
        self._release()
        transport.set_protocol(protocol)
        if self._eof:
            self.loop.call_soon(_pass_on_eof, transport, protocol)
        exchange = self.exchange
        self.exchange = None
        if exchange is not None:
            exchange.delegate = NULL_DELEGATE  # it hears nothing more
            self._end_unfinished(exchange)
        return transport, rest, self._leave(None, taken=True)

    def _leave(self, error: Exception | None, *, taken: bool = False, started: bool = True) -> Callable[[], None]:
        """End HTTP on this connection, whose transport is gone or another protocol's, and tell everybody.

        Returns:
            What is to be called when a transport that was taken is gone.
        """
        self.clock.forget(self)
        self.deadline = NEVER
        self.reader.clear()
        self.reading = self.reading.close
        self.closing = True
        self.writer.close()
        self._abandon_exchange()
        on_end, self._on_end = self._on_end, None
        gone = noop if on_end is None else on_end(self, taken)
        if started:
            if self.parameters.observer is not None:
                self.parameters.observer.connection_closed(self)
            try:
                self.delegate.on_close(self)
            except Exception:
                app_log.exception("Uncaught exception in on_close of %s", self.context)
        callbacks, self._end_callbacks = self._end_callbacks, None
        for callback in callbacks or ():
            callback(error)
        return gone

    def add_end_callback(self, callback: Callable[[Exception | None], None]) -> None:
        """Call *callback* when HTTP has ended on this connection, with the error that ended it, if any."""
        if self._end_callbacks is None:
            self._end_callbacks = []
        self._end_callbacks.append(callback)

    # ------------------------------------------------------------------ refusals and faults

    def _refuse(self, error: RemoteProtocolError) -> None:
        """Answer a fault of the peer's, and close."""
        if error.status == 431:
            gen_log.info("Unsatisfiable read from %s: %s", self.context, error)
        elif error.status == 408:
            gen_log.info("%s from %s", error, self.context)
        else:
            gen_log.info("Malformed HTTP message from %s: %s", self.context, error)
        self.refuse(error.status)

    def refuse(self, status: int) -> None:
        """Answer with *status* if nothing of a response was sent, and close."""
        exchange = self.exchange
        if self.writer.transport is None or self.reading in _OVER:
            return
        if exchange is not None and exchange.response_started:
            if exchange.writing is DONE:
                # It was answered early, and the fault is in content that nobody wanted: the response must arrive whole.
                self.exchange = None
                self._close(linger=True)
            else:
                self.cut(reset=True)
            return
        fields: tuple[tuple[bytes, bytes], ...] = ()
        head_only = False
        if exchange is not None:
            exchange.status = status
            fields = exchange.server_fields
            head_only = exchange.head.method == b"HEAD"
        self.writer.write(encode_refusal(status, self.clock.default_fields, own_fields=fields, head_only=head_only))
        self._abandon_exchange()
        self._close(linger=True)

    def _delegate_failed(self, error: BaseException) -> None:
        app_log.error("Uncaught exception while serving %s", self.context, exc_info=error)
        exchange = self.exchange
        if exchange is None or exchange.writing is DONE:
            # The response is complete: a 500 would answer the next request.
            self.exchange = None
            self._close(linger=True)
        else:
            exchange.fail()

    def delegate_failed(self, exchange: HTTP1Exchange, error: BaseException) -> None:
        """Act on *error*, which a delegate's code raised outside of a call from here."""
        if self.exchange is not exchange:
            if not isinstance(error, ConnectionGone):
                app_log.error("Uncaught exception after the end of a request from %s", self.context, exc_info=error)
        elif isinstance(error, RemoteProtocolError):
            self._refuse(error)
        else:
            self._delegate_failed(error)

    # ------------------------------------------------------------------ ways to end

    def close_when_idle(self, grace: float = 0.0) -> None:
        """Close when no request is in progress; part of a graceful stop.

        The next response head says so with ``Connection: close``. A connection that has had no request yet is always
        given a moment: its request may be on its way.

        Args:
            grace: How long, in seconds, a connection may still be idle, so that the next response can announce the
                end; 0 closes idle connections now and the others after their current response.
        """
        self.closing = True
        self._grace = grace
        if self.reading is READ_HEAD and not self.reader.buffer:
            if not grace and self.reader.heads:
                self._close()
            else:
                self.deadline = min(self.deadline, self.clock.after(grace or _FRESH_GRACE))

    def abort(self) -> None:
        """Reset the connection, whatever is going on."""
        self.cut(reset=True)

    def cut(self, *, reset: bool) -> None:
        """End the connection in the middle of a response.

        Args:
            reset: The connection is reset, so that a client that reads until the close notices. Otherwise what is
                buffered is still sent; the framing shows that something is missing.
        """
        self.writer.flush()
        self.closing = True
        self._abandon_exchange()
        transport = self.writer.transport
        if transport is None:
            return
        if not reset:
            self._close(linger=self.reading is READ_CONTENT)
        else:
            self.reading = self.reading.close
            sock = transport.get_extra_info("socket")
            if sock is not None and sock.family in {socket.AF_INET, socket.AF_INET6}:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()

    def _close(self, linger: bool = False) -> None:
        """Close when all is sent; with *linger*, let the peer finish sending first."""
        writer = self.writer
        writer.flush()
        transport = writer.transport
        self.closing = True
        if transport is None or self.reading is READ_CLOSED:
            return
        self.reader.clear()
        if linger and not self._eof:
            self.reading = self.reading.linger
            self._discarded = 0
            self.deadline = self.clock.after(_LINGER_TIME)
            self._release()
            if transport.can_write_eof():  # not under TLS: there the client has to notice the end by the framing
                try:
                    transport.write_eof()
                except OSError:  # asyncio's: the peer has reset the connection, and nobody has told us yet
                    self.reading = self.reading.close
                    transport.abort()
        else:
            self.reading = self.reading.close
            self.deadline = NEVER
            transport.close()
        if writer.deadline == NEVER:
            writer.watch()

    def _discard(self) -> None:
        """Throw away what a peer sends after its last response, up to a limit."""
        self._discarded += self.reader.unread
        self.reader.clear()
        transport = self.writer.transport
        if self._discarded > _LINGER_MAX and transport is not None:
            self.reading = self.reading.close
            transport.close()


_OVER = frozenset({READ_DISCARD, READ_CLOSED, READ_SWITCHED})


def noop() -> None:
    """Do nothing: stands in for what is to be called when a transport is gone."""


def _pass_on_eof(transport: asyncio.Transport, protocol: asyncio.Protocol) -> None:
    """Tell a protocol that came later that the peer has sent all."""
    if not transport.is_closing() and not protocol.eof_received():
        transport.close()
