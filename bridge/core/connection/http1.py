"""The server's side of one HTTP/1.x connection: order of exchanges, deadlines, refusals, closing (RFC 9112).

ServerConnection is the asyncio protocol. It asks a RequestReader for heads and content, and starts one exchange at a
time, so pipelined requests are answered in order. Only it sets the deadlines of reading, answers the peer's faults and
closes. Its Writer hands bytes to the transport.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from bridge.core.connection.budgets import SMALL
from bridge.core.connection.clock import NEVER, Clock
from bridge.core.connection.closing import close, holds_unread
from bridge.core.connection.http1content import RequestContent
from bridge.core.connection.http1exchange import HTTP1Exchange
from bridge.core.connection.interfaces import NULL_DELEGATE
from bridge.core.connection.pauses import BY_DELEGATE
from bridge.core.connection.preface import PREFACE_HEAD, agreed_on_http2, preface_refusal
from bridge.core.connection.reads import most_ahead, read_at_start, read_by_default, read_little, read_much
from bridge.core.connection.refusals import refusal_message, refusal_reason
from bridge.core.connection.states import (
    CLOSED,
    CONTENT,
    DONE,
    READ_CLOSED,
    READ_CONTENT,
    READ_DISCARD,
    READ_DONE,
    READ_HEAD,
    READ_SWITCHED,
)
from bridge.core.connection.writer import Writer, reset_now
from bridge.core.http.status import status_text
from bridge.core.http1.decoder import ChunkedDecoder
from bridge.core.http1.encoder import encode_refusal
from bridge.core.http1.reader import RequestReader
from bridge.core.log import app_log, gen_log
from bridge.errors import ConnectionGone, RemoteProtocolError, RequestTimeout, traceback_of
from bridge.forks import FAULTS, end_if_forked

if TYPE_CHECKING:
    from bridge.core.connection.budgets import Budget
    from bridge.core.connection.context import ConnectionContext
    from bridge.core.connection.interfaces import ConnectionDelegate, ExchangeDelegate
    from bridge.core.connection.parameters import ConnectionParameters
    from bridge.core.connection.states import Reading
    from bridge.core.http1.decoder import FixedDecoder

__all__ = ["ServerConnection", "noop"]

# The units (see ``turns``) that an exchange, or a piece of content, costs if it is read after another one. The first
# one in each piece of received data is free, so plain requests cost nothing. Chunks and KiB of content cost extra.
_STEP_UNITS = 64
# The units that going on in another turn costs.
_TURN_UNITS = 16
# After the last response the peer may still send this many bytes for this many seconds. A close with unread data would
# reset the connection, and could destroy the response on its way.
_LINGER_MAX = 1 << 20
_LINGER_TIME = 2.0
# When the server stops, a connection that has had no request may still send one within this many seconds.
_FIRST_REQUEST_GRACE = 1.0
# Bound once: CPython 3.13 has no fast look-up for a static method of a class.
_open_exchange = HTTP1Exchange.open
# The templates of all connections whose delegates have kept nothing. One dictionary, never changed, so that an idle
# connection needs none of its own.
_NO_TEMPLATES: dict[object, Any] = {}


class ServerConnection(asyncio.Protocol):
    """Serves HTTP/1.x on one connection.

    Args:
        delegate: Starts the exchanges.
        parameters: Limits and times.
        context: The two ends.
        clock: The server's clock.
        loop: The event loop.
        on_end: Called once as ``on_end(connection, taken)`` when HTTP has ended; *taken* is true if another protocol
            has the transport now. It returns a function that is called when that transport is gone.
        successor: Called with the connection when its peer speaks HTTP/2; returns the protocol that serves it in this
            one's place. None if HTTP/2 is not served.

    Attributes:
        clock: The argument.
        closing: The connection ends with the current exchange, or before.
        context: The argument.
        deadline: Loop time in seconds until which the peer has to send what the connection waits for.
        delegate: The argument; may be set before the first exchange.
        exchange: The current exchange; None between two.
        loop: The argument.
        parameters: The argument.
        reading: The state of reading requests, see ``states``.
        reader: The received bytes.
        templates: What delegates keep for the next requests, by owner. Dropped after about a second without a request.
        writer: The sending half.
    """

    __slots__ = (
        "_advancing",
        "_content",
        "_discarded",
        "_end_callbacks",
        "_eof",
        "_head_begun",
        "_idle_grace",
        "_noted",
        "_on_end",
        "_paused",
        "_reading_paused",
        "_successor",
        "_taken",
        "_turn_awaited",
        "_turns",
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
        successor: Callable[[ServerConnection], asyncio.Protocol] | None = None,
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
        self._head_begun = -1  # how many heads were read when the first byte of this one came and set its deadline
        self._noted = False  # the budget of the process counts what is kept
        self._advancing = False  # data_received() is running, or the connection waits for its turn
        self._taken = False  # another protocol has the transport
        self._turn_awaited = False
        self._turns = clock.turns
        self._content: RequestContent | None = None  # while a request's content is still to come
        self._discarded = 0  # bytes received after the last response
        self._end_callbacks: list[Callable[[Exception | None], None]] | None = None  # made for the first one
        self._eof = False  # the peer sends nothing more
        self._idle_grace = 0.0  # seconds that the connection may stay idle although it is closing
        self._reading_paused = False  # the transport was told to read nothing
        self._on_end = on_end
        self._successor = successor
        self._paused = 0  # the reasons for which content is paused now

    @property
    def requests(self) -> int:
        """How many exchanges were started."""
        return self.reader.heads

    @property
    def transport(self) -> asyncio.Transport | None:
        """The transport; None before and after the connection."""
        return self.writer.transport

    @property
    def exchanges(self) -> tuple[HTTP1Exchange, ...]:
        """The exchanges in progress, at most one."""
        return () if self.exchange is None else (self.exchange,)

    # ------------------------------------------------------------------ called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the connection and the deadline of the first head; or let HTTP/2 start, if TLS has agreed on it."""
        # A cast, since uvloop's transports are no instances of asyncio's class.
        transport = cast("asyncio.Transport", transport)
        if self._successor is not None and agreed_on_http2(transport):
            self._hand_over(transport, b"")
            return
        self.writer.open(transport)
        read_at_start(transport, crowd=self.clock.is_crowd)
        self.clock.watch(self)
        self.deadline = self.clock.after(self.parameters.head_timeout)
        if self.parameters.observer is not None:
            self.parameters.observer.connection_opened(self)

    def eof_received(self) -> bool:
        """Note that the peer sends nothing more; it may still wait for a response (RFC 9112 section 9.6).

        1. The request is complete: its delegate is told, and its response is still sent.
        2. Complete requests may be in the buffer, or the rest of the content and more requests behind it: they are
           served first.
        3. Otherwise nothing can be answered any more, and the transport closes.

        Returns:
            Whether the transport stays open.
        """
        self._eof = True
        self.writer.flush()  # before the return, after which the transport may close
        reading = self.reading
        unread = bool(self.reader.buffer)
        if reading is READ_DONE:
            assert self.exchange is not None
            try:
                self._tell_eof(self.exchange)
            except FAULTS as exc:
                self._log_and_fail(exc)
        elif reading is READ_HEAD and unread and (self._turn_awaited or self.writer.paused or not self.reader.scanned):
            self._advance_soon()  # the buffer has requests that wait for the peer to read, or for their turn
        elif reading is READ_CONTENT and (self._paused or unread):
            self._advance_soon()  # the buffer may have the rest of the content
        else:
            if reading is READ_CONTENT:
                # The transport's own close is not enough. The peer may still have to read an early response, which
                # needs a deadline. And a call of _advance() may be due, which has to find the state closed.
                self._give_up()
            return False
        transport = self.writer.transport
        # TLS has no half-closed connections: its transport closes in any case.
        stays = transport is not None and transport.can_write_eof()
        if not stays and self.exchange is not None and self.exchange.ends_by_close:
            self._give_up()
        return stays

    def connection_lost(self, exc: Exception | None) -> None:
        """End HTTP: the transport is gone."""
        transport = self.writer.transport
        self._end_http(exc, started=transport is not None)  # without a transport the TLS handshake has failed
        if transport is not None and transport.is_closing() and hasattr(transport, "_read_ready_cb"):
            # In 3.11 asyncio's transport holds a bound method of its own, a reference cycle (python/cpython#100348).
            transport._read_ready_cb = None

    def pause_writing(self) -> None:
        """Let writers wait: the transport's buffer is above its high-water mark."""
        self.writer.pause()

    def resume_writing(self) -> None:
        """Let writers go on, and serve the requests that waited until the peer reads."""
        self.writer.resume()
        if self.reading is READ_HEAD and self.reader.buffer:
            # It may have passed while the peer did not read: deadline_passed() does nothing then.
            if self.deadline == NEVER:
                self.deadline = self.clock.after(self.parameters.head_timeout)
            self._advance_soon()

    # ------------------------------------------------------------------ called by the clock

    def on_idle(self) -> None:
        """Drop, between two requests, what is kept only so that the next one is faster."""
        if self.reading is READ_HEAD and not self.reader.buffer:
            self.reader.on_idle()
            self.templates = _NO_TEMPLATES
            if self.writer.transport is not None:
                read_by_default(self.writer.transport, crowd=self.clock.is_crowd)

    def deadline_passed(self, now: float) -> None:
        """Act on a deadline of reading.

        1. A head: 408 if a part of it has come, otherwise the connection closes without an answer.
        2. Content: 408 if its next bytes are late; if the whole is, the connection closes without an answer.
        3. A response for which :meth:`expect_response` has set the deadline: the connection is reset.
        4. After the end of HTTP: the transport closes.

        Bytes that have come and were not processed yet are not late: the deadline is checked again after them.
        """
        transport = self.writer.transport
        if transport is None:
            return
        self.deadline = NEVER
        reading = self.reading
        if reading is READ_HEAD:
            if self._turn_awaited or (not self.reader.buffer and holds_unread(transport)):
                self.deadline = self.clock.after(0.0)
            elif not self.reader.buffer:
                self._close()
            elif not self.writer.paused:
                # Otherwise the buffer waits for the peer to read earlier responses. The writer's deadline watches that.
                self._refuse_fault(RequestTimeout("Timeout reading the request head"))
        elif reading is READ_CONTENT:
            if (content := self._content) is not None and content.whole_deadline < now:
                gen_log.info("Timeout reading body from %s", self.context)
                if self.parameters.observer is not None:
                    self.parameters.observer.request_refused(self, "body_timeout")
                self._give_up()
            elif self._turn_awaited:
                self.deadline = self.clock.after(0.0)
            else:
                self._refuse_fault(RequestTimeout(content.pace.describe() if content else "Timeout reading body"))
        elif reading is READ_DONE:
            self.cut(reset=True)
        elif reading in _ENDED and reading is not READ_CLOSED:
            self.reading = self.reading.close
            close(transport, self.loop)

    def write_stalled(self) -> None:
        """Reset the connection: the peer reads nothing."""
        self.cut(reset=True)

    def turn_ended(self) -> None:
        """Send the head of a response whose content has not come in the same turn of the loop."""
        if self.exchange is not None:
            self.exchange.send_head()

    # ------------------------------------------------------------------ reading

    def data_received(self, data: bytes) -> None:  # noqa: C901 -- calls would cost every request
        """Take what the peer sent; read heads and content, and start exchanges.

        This goes on until it has to wait: for more bytes, for the delegate, for the peer to read, or for its turn (see
        ``turns``). It also answers a fault of the peer or an exception of the delegate.
        """
        reader = self.reader
        if reader.buffer:
            if data:  # feed() copies all that is unread
                reader.feed(data)
        else:  # as nearly always; saves the call of feed()
            reader.buffer = data
        # A delegate that answers at once, or resumes reading, calls this method again. The call that runs already goes
        # on.
        if self._advancing:
            self._limit_read_ahead()
            return
        turns = self._turns
        if turns.left <= 0:
            self._advance_soon()
            self._limit_read_ahead()
            return
        self._advancing = True
        begun = False
        floor = 0  # what is left at the end of this connection's slice, once it has begun
        try:
            while True:
                reading = self.reading
                if reading is READ_HEAD:
                    if not reader.buffer or (begun and self._peer_left()) or not self._read_head():
                        break
                    if not reader.buffer and self.reading is not READ_CONTENT:
                        break
                elif reading is READ_CONTENT:
                    if not self._read_content():
                        break
                elif reading is READ_DISCARD:
                    self._discard_unread()
                    break
                else:
                    self._limit_read_ahead()
                    break
                if begun:
                    turns.left -= _STEP_UNITS
                else:
                    begun = True
                    floor = turns.left - turns.slice if turns.crowded else 0
                if turns.left <= floor:
                    self._await_turn(begun=True)
                    self._limit_read_ahead()
                    break
        except RemoteProtocolError as exc:
            self._refuse_fault(exc)
        except FAULTS as exc:
            self._log_and_fail(exc)
        finally:
            self._advancing = self._turn_awaited

    def _advance_soon(self) -> None:
        """Go on with the bytes that were received before, in the next turn of the loop."""
        if not self._turn_awaited:
            self._await_turn(begun=False)

    def _await_turn(self, *, begun: bool) -> None:
        # What arrives meanwhile is only kept: see the start of data_received().
        self._turn_awaited = self._advancing = True
        self._turns.later(self._take_turn, begun=begun, little=self.reader.unread <= SMALL)

    def _take_turn(self) -> None:
        self._turn_awaited = self._advancing = False
        self._turns.left -= _TURN_UNITS
        self._advance()
        waits = self._turn_awaited or (self._paused and self.reading is READ_CONTENT)
        if not waits and self.reader.unread <= most_ahead(self.clock):
            self._resume_reading()  # otherwise the peer's end would not be noticed

    def _advance(self) -> None:
        """Go on with the bytes that were received before."""
        self.data_received(b"")

    def _read_head(self) -> bool:  # noqa: C901 -- calls would cost every request
        """Start an exchange if a head is complete; tell whether one was started.

        The order matters:

        1. A peer that sends requests but does not read the responses gets no further exchange.
        2. The head is parsed. A malformed one is refused before there is an exchange.
        3. The exchange is made and the observer is told, so that every parsed request is logged, refused ones too.
        4. Content whose declared length exceeds the limit is refused before the delegate is asked.
        5. The delegate is asked. Before it returns, it may answer, close the connection, or lose the peer:
           a. The exchange is closed: the new delegate is told, since it was not known when the exchange ended.
           b. The response is complete: the delegate is told that the request is complete, or, if there is content,
              that it gets none.
           c. Otherwise the delegate gets the content, and then finish(). Without content finish() is called at once,
              unless the delegate has paused reading: then the state goes back to content that is empty.
        """
        if self.writer.paused:
            self._limit_read_ahead()
            return False
        head = self.reader.next_head()
        if head is None:
            self._await_head()
            return False
        length = head.content_length
        if self._noted:
            self._note_unread(0 if length != 0 else self.reader.unread)  # content is not the peer's fault
        parameters = self.parameters
        if self.reader.heads == parameters.max_requests:
            self.closing = True
        exchange = self.exchange = _open_exchange(self, head)
        if parameters.observer is not None:
            if (note := parameters.times) is not None:
                exchange.times = note()
            if (started := parameters.exchange_started) is not None:
                started(exchange)
        if length == 0:
            self.reading = self.reading.head_complete
            self.deadline = NEVER
        else:
            self.reading = self.reading.head_with_content
            self._expect_content(exchange, length)
        delegate = self.delegate.start_exchange(exchange)
        if self._taken:
            pass  # another protocol has the transport: the delegate is told nothing more
        elif exchange.writing is CLOSED:
            self._notify_closed(delegate)
        elif exchange.writing is DONE:
            if delegate is NULL_DELEGATE:
                pass  # saves the call, as most ASGI applications end here
            elif length == 0:
                delegate.finish()
            else:
                self._notify_closed(delegate)
        else:
            exchange.delegate = delegate
            if length == 0:
                if self._paused:
                    self.reading = self.reading.pause
                    self.reader.expect_content(0)
                else:
                    delegate.finish()
                    if self._eof:
                        self._tell_eof(exchange)
        return True

    def _tell_eof(self, exchange: HTTP1Exchange) -> None:
        """Tell the delegate of a complete request that the peer sends nothing more, if it still serves it."""
        if self.exchange is exchange and self.reading is READ_DONE:
            if not self.reader.buffer:
                exchange.close_after = True
            exchange.delegate.on_peer_eof()

    def _await_head(self) -> None:
        """Wait for more of a head, whose deadline begins with its first byte; close if the peer sends nothing more."""
        if self._eof:
            self._close()
            return
        heads = self.reader.heads
        if self.reader.scanned and self._head_begun != heads:
            self._head_begun = heads
            if heads:  # the first head's deadline began with the connection
                self.deadline = self.clock.after(self.parameters.head_timeout)
        if self.reader.unread > SMALL:
            self._note_unread(self.reader.unread)
        self._resume_reading()

    def _note_unread(self, unread: int) -> None:
        """Tell the budget of the process how many bytes of a head, or of later requests, are kept."""
        self._noted = unread > SMALL
        self.clock.budgets.unfinished.note(self, unread if self._noted else 0)

    def give_up(self, budget: Budget) -> str:
        """Answer 503 to a head that is not complete; reset a connection with too many requests behind the current one.

        Content that the delegate does not take is not noted: that is not the peer's fault.
        """
        if self.parameters.observer is not None:
            self.parameters.observer.request_refused(self, "budget")
        if self.exchange is None and not self.writer.paused:
            self.refuse(503)
        else:
            self.cut(reset=True)
        return f"the requests of {self.context}"

    def _expect_content(self, exchange: HTTP1Exchange, length: int | None) -> None:
        """Prepare for content of *length* bytes, None for chunks, and refuse it if it is declared too long."""
        self.reader.expect_content(length, self.parameters.max_body_size)
        self._content = RequestContent(length, self.parameters, self.clock)
        if exchange.continue_pending:
            self._content.pace.pause()  # the client waits for 100 (Continue), which the delegate sends
        self.deadline = self._content.deadline

    def _peer_left(self) -> bool:
        """Tell whether a write has failed, so that the peer will not read responses to further pipelined requests."""
        transport = self.writer.transport
        return transport is None or transport.is_closing()

    def set_body_timeout(self, seconds: float | None) -> None:
        """Set the deadline of the current request's whole content to *seconds* from now; None for no limit.

        Without effect when the content is complete: the deadline that then holds is that of the response.
        """
        if self.reading is READ_CONTENT and self._content is not None:
            self._content.set_timeout(seconds)
            self.deadline = self._content.deadline

    def _read_content(self) -> bool:
        """Hand one piece of content to the delegate, or the end of the request; tell whether to go on at once."""
        exchange = self.exchange
        reader = self.reader
        decoder = reader.decoder
        assert exchange is not None and decoder is not None
        if self._paused:
            self._limit_read_ahead()
            return False
        if not decoder.done:
            content = self._content
            assert content is not None
            if content.limit_pending:
                content.apply_limit(exchange.max_body_size, decoder)
            most = self.parameters.chunk_size
            size = len(reader.buffer)
            data: bytes | None
            if decoder.remaining is not None and 0 < size <= min(decoder.remaining, most) and not reader.position:
                # All of the buffer is content of a known length, as for nearly every piece of an upload. next_content()
                # would do the same with two calls more.
                data = bytes(reader.buffer)  # no copy, if it is of that class
                reader.buffer = b""
                decoder.remaining -= size
                decoder.done = not decoder.remaining
            else:
                data = reader.next_content(most)
            if data is None:
                self._await_content()
                return False
            self._turns.left -= decoder.steps + (len(data) >> 10)
            content.unnoted += len(data)
            if content.noted_at != self.clock.now:
                content.note(self.writer.transport, free=exchange.writing is CONTENT)
                self.deadline = content.deadline
            if exchange.continue_pending:  # the client did not wait for it
                exchange.continue_pending = False
                self.go_on_waiting()
            if data:
                waiting = exchange.delegate.data_received(data)
                if waiting is not None:
                    exchange.pause_until(waiting)
        if decoder.done:
            if self._paused:
                return False  # finish() is called when the pause ends
            if self.exchange is exchange:  # it may have ended while the delegate took the data
                self._finish_request(exchange, decoder)
            return bool(reader.buffer)
        if self.reading is not READ_CONTENT or self._paused:
            return False
        # With an empty buffer, the only reasons for another step are to resume reading and to act on the peer's EOF.
        return bool(reader.buffer) or self._reading_paused or self._eof

    def _await_content(self) -> None:
        """Wait for more of the content; give the exchange up if the peer sends nothing more."""
        self._resume_reading()
        if self._eof:
            self._give_up()

    def _finish_request(self, exchange: HTTP1Exchange, decoder: FixedDecoder | ChunkedDecoder) -> None:
        """End a request whose content was read, or dropped."""
        self.reader.decoder = None
        self._content = None
        self.deadline = NEVER
        self.reading = self.reading.content_complete
        exchange.trailers = decoder.trailers
        if self._reading_paused and self.reader.unread <= most_ahead(self.clock):
            self._resume_reading()  # otherwise the peer's end would not be noticed
        if exchange.writing is DONE:  # the response was early, and the content was dropped
            self.response_done(exchange, observed=True)
        else:
            exchange.delegate.finish()
            if self._eof:
                self._tell_eof(exchange)

    def _limit_read_ahead(self) -> None:
        """Stop reading from the transport if much waits in the buffer to be served; TCP slows the peer down.

        A connection that waits for its turn reads nothing more. Otherwise the loop would read megabytes from a thousand
        of them.
        """
        transport = self.writer.transport
        unread = self.reader.unread
        if transport is not None and unread > SMALL:
            if self.reading is not READ_CONTENT:
                self._note_unread(unread)
            if (self._turn_awaited or unread > most_ahead(self.clock)) and not self._reading_paused:
                self._reading_paused = True
                transport.pause_reading()
                if self._turn_awaited:
                    read_little(transport)

    def pause_content(self, reason: int = BY_DELEGATE) -> None:
        """Hand no content to the delegate.

        The deadline of the next bytes is off meanwhile, since the delegate and not the peer is slow. The deadline of
        the whole content stays.

        Args:
            reason: One of the bits of ``pauses``.
        """
        self._paused |= reason
        if self.reading is READ_CONTENT:
            content = self._content
            if content is not None:  # else the request has no content, and its delegate has paused nevertheless
                content.pace.pause()
                self.deadline = content.whole_deadline
            transport = self.writer.transport
            if not self._reading_paused and transport is not None:
                self._reading_paused = True
                transport.pause_reading()

    def resume_content(self, reason: int = BY_DELEGATE) -> None:
        """End the pause for *reason*. Content goes on if it is not paused for another reason, too."""
        if not self._paused & reason:
            return
        self._paused &= ~reason
        if self._paused:
            return
        self.go_on_waiting()
        self._resume_reading()
        decoder = self.reader.decoder
        if self.reader.buffer or self._eof or (decoder is not None and decoder.done):
            self._advance()

    def go_on_waiting(self) -> None:
        """Let the time for the next bytes go on, unless content is paused or the peer waits for 100 (Continue)."""
        content = self._content
        if self.reading is READ_CONTENT and not self._paused and content is not None:
            if self.exchange is None or not self.exchange.continue_pending:
                content.pace.resume()
            self.deadline = content.deadline

    def _resume_reading(self) -> None:
        """Let the transport read again."""
        transport = self.writer.transport
        if self._reading_paused and transport is not None:
            self._reading_paused = False
            if not transport.is_closing():
                transport.resume_reading()

    # ------------------------------------------------------------------ the end of an exchange

    def expect_response(self, seconds: float | None) -> None:
        """Reset the connection unless the current response is complete in *seconds*; None for no limit.

        Without effect while the request is not complete: its deadlines hold.
        """
        if self.reading is READ_DONE:
            self.deadline = self.clock.after(seconds)

    def response_done(self, exchange: HTTP1Exchange, observed: bool = False) -> None:
        """Go on after a complete response: to the next request, or to the end.

        1. The connection has given the exchange up already: nothing is left to do.
        2. The observer is told, once for each exchange.
        3. The request is not complete: its content is dropped. This method is called again at its end.
        4. The response is a 101: the application has to take the transport before the deadline.
        5. The response, the server or the peer ends the connection: it is closed. With unread bytes it lingers, since
           a close would reset it. During the grace of a stop it stays open, to announce the end with a response.
        6. Otherwise the next head is read. It may be in the buffer.

        Args:
            exchange: The exchange of the response.
            observed: The observer was told of its end before.
        """
        if self.exchange is not exchange:
            return
        if (ended := self.parameters.exchange_ended) is not None and not observed:
            ended(exchange)
        if self.reading is not READ_DONE:
            if self.reading is READ_CONTENT:
                self._drop_content(exchange)
            return
        unread = self.reader.buffer
        if exchange.close_after or (self.closing and not self._idle_grace) or (self._eof and not unread):
            self._end_after(exchange)
            return
        self.exchange = None
        exchange.delegate = NULL_DELEGATE  # ends a reference cycle: most delegates know their exchange
        self._paused = 0
        self.reading = self.reading.respond
        self.deadline = self.clock.idle_deadline
        if self._idle_grace:
            self.deadline = min(self.deadline, self.clock.after(self._idle_grace))
        if self._reading_paused and self.reader.unread <= most_ahead(self.clock):
            self._resume_reading()
        if unread and not self._advancing:  # not now: the caller is the delegate
            self._advance_soon()

    def _end_after(self, exchange: HTTP1Exchange) -> None:
        """End HTTP after a complete exchange: close, or wait until the application takes the transport."""
        if exchange.status == 101:
            self.reading = self.reading.switch
            self.deadline = self.clock.after(self.parameters.head_timeout)
        else:
            self.exchange = None
            exchange.delegate = NULL_DELEGATE
            self._close(linger=bool(self.reader.buffer))

    def _drop_content(self, exchange: HTTP1Exchange) -> None:
        """Read and drop the rest of the request's content, or close if the rest is large. The response is complete."""
        delegate = exchange.delegate
        close = exchange.close_after or self.closing or exchange.leaves_much_unread
        exchange.delegate = NULL_DELEGATE
        self._paused = 0
        if close:
            self.exchange = None
            self._close(linger=True)
        else:
            self.go_on_waiting()
            self._resume_reading()
            if not self._advancing:
                self._advance_soon()
        self._notify_closed(delegate)

    def _abandon_exchange(self) -> None:
        """Give up the current exchange, if there is one: its response cannot be sent. Tell observer and delegate."""
        exchange = self.exchange
        if exchange is not None:
            self.exchange = None
            self._end_unfinished(exchange)
            delegate = exchange.delegate
            exchange.delegate = NULL_DELEGATE
            self._notify_closed(delegate)

    def _end_unfinished(self, exchange: HTTP1Exchange) -> None:
        """Mark an exchange as closed and tell the observer, unless its response is complete."""
        if exchange.writing is not DONE:
            exchange.mark_closed()
            if self.parameters.exchange_ended is not None:
                self.parameters.exchange_ended(exchange)

    def _notify_closed(self, delegate: ExchangeDelegate) -> None:
        try:
            delegate.on_connection_close()
        except FAULTS:
            app_log.exception("Uncaught exception in on_connection_close of %s", self.context)

    def take_transport(self, protocol: asyncio.Protocol) -> tuple[asyncio.Transport, bytes, Callable[[], None]]:
        """Give the transport, and the bytes received but not read, to another protocol (RFC 9110 section 7.8).

        HTTP ends on this connection. The server counts the connection until it is told that the transport is gone.

        Returns:
            The transport; the unread bytes; a function to call, once, when the transport is gone.

        Raises:
            ConnectionGone: The connection has ended.
        """
        self.writer.flush()
        transport = self.writer.transport
        if transport is None:
            raise ConnectionGone("the connection is closed")
        rest = self.reader.take_rest()
        read_much(transport)
        if self._reading_paused:
            self._resume_reading()
        transport.set_protocol(protocol)
        if self._eof:
            self.loop.call_soon(_pass_on_eof, transport, protocol)
        self._taken = True
        exchange = self.exchange
        self.exchange = None
        if exchange is not None:
            exchange.delegate = NULL_DELEGATE  # the delegate is told nothing more
            self._end_unfinished(exchange)
        return transport, rest, self._end_http(None, taken=True)

    def _end_http(self, error: Exception | None, *, taken: bool = False, started: bool = True) -> Callable[[], None]:
        """End HTTP on this connection: tell the delegates, the observer, the server and the callbacks.

        Args:
            error: The error that ended the connection, if any.
            taken: Another protocol has the transport now; otherwise the transport is gone.
            started: The connection had a transport. Otherwise delegate and observer do not know of it.

        Returns:
            A function to call when a transport that was taken is gone.
        """
        self.clock.forget(self)
        if self._noted:
            self._note_unread(0)
        self.deadline = NEVER
        self.reading = self.reading.close
        self.closing = True
        self.writer.close()
        if not taken:  # else there is neither any more
            self.reader.clear()
            self._abandon_exchange()
        on_end, self._on_end = self._on_end, None
        gone = noop if on_end is None else on_end(self, taken)
        if started:
            if self.parameters.observer is not None:
                self.parameters.observer.connection_closed(self)
            try:
                self.delegate.on_close(self)
            except FAULTS:
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

    def _refuse_fault(self, error: RemoteProtocolError) -> None:
        """Log a fault of the peer, answer it if that is possible, and close."""
        if error.status == 505 and self._start_http2():
            return
        observer = self.parameters.observer
        if observer is not None:
            in_head = self.reading is READ_HEAD
            observer.request_refused(self, refusal_reason(error.status, in_head=in_head))
        gen_log.info("%s", refusal_message(error.status, str(self.context), error))
        self.refuse(error.status)

    def _start_http2(self) -> bool:
        """If the peer begins with HTTP/2's preface, let HTTP/2 serve it or refuse it. Tell whether it does.

        To HTTP/1 the preface is a request with a version that it refuses. So only refused requests are searched for it.
        """
        transport = self.writer.transport
        if self.reader.heads or transport is None or not self.reader.begins_with(PREFACE_HEAD):
            return False
        refusal = preface_refusal(self.parameters.http2, self.context, transport)
        if refusal is not None or self._successor is None:
            gen_log.info("HTTP/2 from %s refused: %s", self.context, refusal or "not on this stream")
            if self.parameters.observer is not None:
                self.parameters.observer.request_refused(self, "malformed")
            self.refuse(505)
            return True
        self.clock.forget(self)
        self.deadline = NEVER
        self._resume_reading()
        self._hand_over(transport, self.reader.take_rest())
        return True

    def _hand_over(self, transport: asyncio.Transport, received: bytes) -> None:
        """Let HTTP/2 serve the connection, on which no request was read."""
        if not self.clock.is_crowd:
            read_much(transport)
        self._note_unread(0)
        successor, self._successor, self._on_end = self._successor, None, None
        assert successor is not None
        protocol = successor(self)
        self.writer.close()
        self.reading = self.reading.close
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        if received:
            protocol.data_received(received)
        if self._eof:
            self.loop.call_soon(_pass_on_eof, transport, protocol)

    def refuse(self, status: int) -> None:
        """Answer with *status*, and close.

        1. HTTP has ended on the connection: nothing is sent.
        2. The response is complete, and the fault is in content that is dropped: the connection lingers, so that the
           response arrives whole.
        3. The response has begun: the connection is reset, so that the client does not take the response for whole.
        4. Otherwise the server's own response is sent.
        """
        exchange = self.exchange
        if self.writer.transport is None or self.reading in _ENDED:
            return
        if exchange is not None and exchange.response_started:
            if exchange.writing is DONE:
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
            exchange.content_sent = 0 if head_only else len(status_text(status))
        self.writer.write(encode_refusal(status, self.clock.default_fields, own_fields=fields, head_only=head_only))
        self._abandon_exchange()
        self._close(linger=True)

    def _log_and_fail(self, error: BaseException) -> None:
        """Log an exception of the delegate; answer 500, or end the connection if the response has begun."""
        end_if_forked(error)
        app_log.error("Uncaught exception while serving %s", self.context, exc_info=traceback_of(error))
        exchange = self.exchange
        if exchange is None or exchange.writing is DONE:
            # The response is complete: the client would take a 500 for the answer to its next request.
            self.exchange = None
            self._close(linger=True)
        else:
            exchange.fail()

    def delegate_failed(self, exchange: HTTP1Exchange, error: BaseException) -> None:
        """Act on *error*, which a delegate's code raised outside of a call by this connection."""
        if self.exchange is not exchange:
            if not isinstance(error, ConnectionGone):
                app_log.error("Uncaught exception after a request from %s", self.context, exc_info=traceback_of(error))
        elif isinstance(error, RemoteProtocolError):
            self._refuse_fault(error)
        else:
            self._log_and_fail(error)

    # ------------------------------------------------------------------ ways to end

    def close_when_idle(self, grace: float = 0.0) -> None:
        """Close when no request is in progress; part of a graceful stop.

        The next response announces the end with ``Connection: close``. A connection that has had no request yet stays
        open for a moment even without *grace*: its request may be on its way.

        Args:
            grace: Seconds that an idle connection stays open, so that its next response can announce the end; 0 closes
                idle connections now, and the others after their current response.
        """
        self.closing = True
        self._idle_grace = grace
        if self.reading is READ_HEAD and not self.reader.buffer:
            if not grace and self.reader.heads:
                self._close()
            else:
                self.deadline = min(self.deadline, self.clock.after(grace or _FIRST_REQUEST_GRACE))

    def abort(self) -> None:
        """Reset the connection at once."""
        self.cut(reset=True)

    def _give_up(self) -> None:
        """End the connection because of the peer, in the middle of an exchange.

        The peer may still read. It must not take a part of a response for the whole.
        """
        self.cut(reset=self.exchange is not None and self.exchange.ends_by_close)

    def cut(self, *, reset: bool) -> None:
        """End the connection in the middle of a response.

        Args:
            reset: Reset the connection, so that a client that reads until the close notices the missing rest. False if
                the framing shows that something is missing: then buffered bytes are still sent.
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
            self.clock.budgets.unfinished.forget(self)
            self.reader.clear()
            reset_now(transport)

    def _close(self, linger: bool = False) -> None:
        """Close when everything is sent.

        1. Responses that wait for the end of the loop's turn are written first.
        2. Without a transport, or when the connection is closing already, nothing more is done.
        3. Unread bytes are dropped.
        4. With *linger*, and while the peer may send, what it sends is dropped until its EOF or the deadline. The
           half-close tells it that no response will follow. Otherwise the transport closes.
        5. The peer has to read what is still buffered within the write timeout. A deadline that runs already is not
           renewed.

        Args:
            linger: Let the peer finish sending first: a close with unread data would reset the connection, and could
                destroy the response on its way.
        """
        writer = self.writer
        writer.flush()
        transport = writer.transport
        self.closing = True
        if transport is None or self.reading is READ_CLOSED:
            return
        if self._noted:
            self._note_unread(0)
        self.reader.clear()
        if linger and not self._eof:
            self.reading = self.reading.linger
            self._discarded = 0
            self.deadline = self.clock.after(_LINGER_TIME)
            self._resume_reading()
            if transport.can_write_eof():  # not with TLS, where the client notices the end by the framing
                try:
                    transport.write_eof()
                except OSError:  # asyncio's raises if the peer has reset the connection; connection_lost() follows
                    self.reading = self.reading.close
                    transport.abort()
        else:
            self.reading = self.reading.close
            self.deadline = NEVER
            close(transport, self.loop)
        writer.watch_end(ended=self.reading is READ_CLOSED)

    def _discard_unread(self) -> None:
        """Drop what the peer sends after the last response; close if that is too much."""
        self._discarded += self.reader.unread
        self.reader.clear()
        if self._noted:
            self._note_unread(0)
        transport = self.writer.transport
        if self._discarded > _LINGER_MAX and transport is not None:
            self.reading = self.reading.close
            close(transport, self.loop)


_ENDED = frozenset({READ_DISCARD, READ_CLOSED, READ_SWITCHED})


def noop() -> None:
    """Do nothing. ``on_end`` returns it where nothing has to be called when the transport is gone."""


def _pass_on_eof(transport: asyncio.Transport, protocol: asyncio.Protocol) -> None:
    """Tell *protocol*, which took *transport* after the peer's EOF, of that EOF."""
    if not transport.is_closing() and not protocol.eof_received():
        transport.close()
