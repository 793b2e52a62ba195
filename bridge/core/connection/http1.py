"""The server's side of one HTTP/1.x connection: buffer, deadlines, order of exchanges (RFC 9112).

This is the asyncio protocol. It pulls heads and content out of what was received, starts one exchange at a time, and
is the only one that touches the transport, answers refusals, arms deadlines and closes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic_ns
from typing import TYPE_CHECKING, Any, cast

from bridge.core.connection.clock import NEVER, Clock
from bridge.core.connection.ending import EndingConnection
from bridge.core.connection.http1exchange import Exchange
from bridge.core.connection.interfaces import NULL_DELEGATE
from bridge.core.connection.parameters import ConnectionParameters
from bridge.core.connection.states import CLOSED, CONTENT, DISCARD, DONE, HEAD, UPGRADED
from bridge.core.connection.times import Times
from bridge.core.http1.decoder import ChunkedContent, FixedContent
from bridge.core.http1.request import RequestHead, parse_head
from bridge.core.log import app_log
from bridge.errors import ConnectionGone, LimitExceeded, RemoteProtocolError

if TYPE_CHECKING:
    from bridge.core.connection.context import ConnectionContext
    from bridge.core.connection.interfaces import ConnectionDelegate

__all__ = ["ServerConnection", "nothing"]

# Unread content up to this size (bytes) is read and dropped so that the connection can go on (RFC 9112 section 9.3).
_DRAIN_MAX = 65536
# Received while a response is pending: the next requests. Past this many bytes the peer has to wait.
_AHEAD_MAX = 65536
# Pipelined exchanges started, or pieces of content handed over, in one turn of the loop.
_A_TURN = range(32)
# Empty lines in front of one request.
_BLANK_LINES_MAX = 4
# What a connection keeps for delegates that have kept nothing: never changed, so that it can be everybody's.
NO_TEMPLATES: dict[object, Any] = {}
# Who wants no content now; both may, and one's consent is not the other's.
_BY_DELEGATE, _BY_AWAITABLE = 1, 2


class ServerConnection(EndingConnection):
    """Serves HTTP/1.x on one connection.

    Attributes:
        delegate: Starts the exchanges.
        templates: What delegates keep for the next requests, by owner; dropped after about a second without one.

    Its ``on_end`` is called once, when HTTP has ended, and told whether another protocol goes on. It returns what is to
    be called when that one's transport is gone.
    """

    __slots__ = (
        "_blank_lines",
        "_blank_lines_before",
        "_busy",
        "_head",
        "_late_limit",
        "_on_end",
        "_paused",
        "_scanned",
        "delegate",
        "templates",
    )

    exchange_type: type[Exchange] = Exchange

    def __init__(
        self,
        delegate: ConnectionDelegate,
        params: ConnectionParameters,
        context: ConnectionContext,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        on_end: Callable[[ServerConnection, bool], Callable[[], None]] | None = None,
    ) -> None:
        super().__init__(params, context, clock, loop)
        self.delegate = delegate
        self.templates: dict[object, Any] = NO_TEMPLATES
        self._on_end = on_end
        self._scanned = 0
        self._head: RequestHead | None = None  # the last one, for the next to be compared with
        self._busy = False
        self._blank_lines = 0  # that were skipped in front of request number ...
        self._blank_lines_before = 0
        self._paused = 0  # who wants no content now
        self._late_limit = False

    # ------------------------------------------------------------------ called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start: the first head is due from now on."""
        # uvloop's transports are registered as nothing of asyncio's
        self.transport = transport = cast("asyncio.Transport", transport)
        transport.set_write_buffer_limits(high=self.params.high_water)
        self.clock.watch(self)
        self.deadline = self.clock.after(self.params.head_timeout)

    def data_received(self, data: bytes) -> None:
        """Take what the peer sent."""
        if self._buffer:
            if self._buffer.__class__ is bytes or self._position:
                self._buffer = bytearray(memoryview(self._buffer)[self._position :])
                self._position = 0
            self._buffer += data
        else:
            self._buffer = data
            self._position = 0
        self._advance()

    def eof_received(self) -> bool:
        """Note that the peer sends nothing more; it may still wait for a response (RFC 9112 section 9.6)."""
        self._eof = True
        self.flush()  # whether the transport closes now is for it to say
        reading = self._reading
        if reading is DONE:
            exchange = self.exchange
            assert exchange is not None
            if not self._buffer:
                exchange.close_after = True
            try:
                exchange.tell_eof()
            except Exception as exc:
                self._delegate_failed(exc)
        elif reading is HEAD and self._buffer and (self.write_paused or not self._scanned):
            self._advance_soon()  # complete requests wait for the peer to read, or for their turn
        elif reading is CONTENT and (self._paused or self._buffer):
            self._advance_soon()  # the rest of the content may be in the buffer, and more requests behind it
        else:
            if reading is CONTENT:
                self._lose()
                self._close()  # by hand: an early response may wait to be read, and a turn of _advance() to come
            return False
        # Under TLS, which knows no half-closed connections, the transport closes whatever is returned here.
        return self.transport is not None and self.transport.can_write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        """End: nobody is there any more."""
        started = self.transport is not None  # else its TLS handshake failed
        self.clock.forget(self)
        self.deadline = self.write_deadline = NEVER
        self._buffer = self._pending = b""
        self._position = 0
        self._reading = CLOSED
        self.closing = True
        self.wake_writers(ConnectionGone("the peer closed the connection"))
        self.write_paused = False
        self._lose()
        self.transport = None
        if self._on_end is not None:
            self._on_end(self, False)
            self._on_end = None
        if started:
            try:
                self.delegate.on_close(self)
            except Exception:
                app_log.exception("Uncaught exception in on_close of %s", self.context)

    def resume_writing(self) -> None:
        """Let writers go on, and requests that waited for the peer to read."""
        super().resume_writing()
        if self._reading is HEAD and self._buffer:
            self._advance_soon()

    def rest(self) -> None:
        """Forget, between two requests, what is only kept to be faster with the next one."""
        if self._reading is HEAD and not self._buffer:
            self._head = None
            self.templates = NO_TEMPLATES

    # ------------------------------------------------------------------ reading

    def _advance(self) -> None:
        """Go as far as the buffer, the delegate and the peer's reading allow."""
        if self._busy:
            return
        self._busy = True
        try:
            for step in _A_TURN:
                reading = self._reading
                if reading is HEAD:
                    if not self._buffer or (step and self._peer_left()) or not self._read_head():
                        break
                    if not self._buffer and self._reading is not CONTENT:
                        break
                elif reading is CONTENT:
                    if not self._read_content():
                        break
                elif reading is DISCARD:
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

    def _read_head(self) -> bool:
        """Start an exchange if a head is complete."""
        buffer = self._buffer
        if self.write_paused:  # the peer asks but does not read the answers
            self._read_ahead()
            return False
        head = self._head
        if head is not None and buffer == head.wire and not self._position:
            # The same once more, as of whom polls, and nothing else: it was parsed and checked.
            self._buffer = b""
        else:
            head = self._take_head(buffer)
            if head is None:
                return False
        self._scanned = 0
        self.requests += 1
        length = head.content_length
        params = self.params
        if self.requests == params.max_requests:
            self.closing = True
        exchange = self.exchange = self.exchange_type()
        exchange.begin(self, head, self.context)
        if params.timed:
            exchange.times = Times(monotonic_ns())
        if params.observer is not None:
            params.observer.exchange_started(exchange)
        if length == 0:
            self._reading = DONE
            self.deadline = NEVER
        else:
            self._reading = CONTENT
            self._expect_content(length)
        delegate = self.delegate.start_exchange(exchange)
        if exchange.writing is CLOSED:
            self._tell_closed(exchange, delegate)
        elif exchange.writing is DONE:  # answered before it returned; what content there is will be dropped
            if length == 0:
                delegate.finish()
            else:
                self._tell_closed(exchange, delegate)
        else:
            exchange.delegate = delegate
            if length == 0:
                if self._paused:  # the delegate wants no news now: finish() comes when it does
                    self._reading = CONTENT
                    self._content = FixedContent(0)
                else:
                    delegate.finish()
        return True

    def _take_head(self, buffer: bytes | bytearray) -> RequestHead | None:
        """Parse a head and take it out of the buffer, if it is complete."""
        start = self._position
        if buffer.startswith(b"\r", start):
            start = self._skip_blank_lines()
            if start < 0:
                return None
        head = parse_head(buffer, start, self.params.limits, self._scanned, self._head)
        if head is None:
            self._await_head(len(buffer) - start)
            return None
        if self.requests:
            self._head = head
        else:  # many connections have no second request: nothing is kept for one
            head.wire = head.lines = None
        start += head.size
        if start == len(buffer):
            self._buffer = b""
            start = 0
        self._position = start
        return head

    def _expect_content(self, length: int | None) -> None:
        params = self.params
        limit = params.max_body_size
        if length is None:
            self._content = ChunkedContent(params.limits, 1 << 62 if limit is None else limit)
        else:
            self._content = FixedContent(length)
            if limit is not None and length > limit and not params.late_limit:
                raise LimitExceeded(413, f"Content-Length too long: {length} bytes, limit {limit}")
        self._late_limit = params.late_limit
        self._content_deadline = self.clock.after(params.body_total_timeout)
        self.deadline = min(self.clock.after(params.body_timeout), self._content_deadline)

    def _peer_left(self) -> bool:
        """Tell, between two pipelined requests, whether a write has failed: nobody will read more answers."""
        return self.transport is None or self.transport.is_closing()

    def _skip_blank_lines(self) -> int:
        """Skip CRLF in front of a request line (RFC 9112 section 2.2), a few of them.

        Returns:
            Where the request line begins; -1 if nothing is there but, perhaps, the CR of one more.
        """
        if self._blank_lines_before != self.requests:
            self._blank_lines_before = self.requests
            self._blank_lines = 0
        buffer = self._buffer
        start = self._position
        while buffer.startswith(b"\r\n", start) and self._blank_lines < _BLANK_LINES_MAX:
            start += 2
            self._blank_lines += 1
        left = len(buffer) - start
        if not left:
            self._buffer = b""
            start = 0
        self._position = start
        if left and (left > 1 or buffer[start] != 0x0D or self._blank_lines == _BLANK_LINES_MAX):
            return start
        self._release()
        if self._eof:
            self._close()
        return -1

    def _await_head(self, size: int) -> None:
        """Keep the part of a head; the whole is due a while after its first byte."""
        if self._eof:
            self._close()
            return
        if self._scanned == 0 and self.requests and size:
            self.deadline = self.clock.after(self.params.head_timeout)
        self._scanned = size
        self._release()

    def _apply_late_limit(self, exchange: Exchange, content: FixedContent | ChunkedContent) -> None:
        """Compare the content with the limit that the delegate may have changed."""
        self._late_limit = False
        limit = self.params.max_body_size if exchange.max_body_size is None else exchange.max_body_size
        if limit is None:
            return
        if isinstance(content, ChunkedContent):
            content.limit = limit
        elif content.remaining > limit:
            raise LimitExceeded(413, f"Content-Length too long: {content.remaining} bytes, limit {limit}")

    def set_body_timeout(self, seconds: float | None) -> None:
        """Let the current request's content be due, as a whole, in *seconds*."""
        self.clock.shorten(seconds)
        self._content_deadline = self.clock.after(seconds)
        self.deadline = min(self.deadline, self._content_deadline)

    def _read_content(self) -> bool:
        """Hand content to the delegate; True when the request is complete."""
        exchange = self.exchange
        content = self._content
        assert exchange is not None and content is not None
        if self._paused:
            self._read_ahead()
            return False
        if self._late_limit:
            self._apply_late_limit(exchange, content)
        progress = False
        if not content.done:
            progress = self._take_content(exchange, content)
        if content.done:
            if self._paused:
                return False  # finish() comes when the delegate is ready for it
            if self.exchange is exchange:
                self._finish_request(exchange, content)
            return True
        if not progress and self._eof:
            self._lose()
            self._close()
        return progress and self._reading is CONTENT

    def _take_content(self, exchange: Exchange, content: FixedContent | ChunkedContent) -> bool:
        """Move content from the buffer to the delegate; tell whether anything moved."""
        buffer = self._buffer
        start = self._position
        if buffer:
            data, position = content.take(buffer, start, self.params.chunk_size)
        if not buffer or position == start:
            self._release()
            return False
        if position == len(buffer):
            self._buffer = b""
            position = 0
        self._position = position
        self.deadline = min(self.clock.after(self.params.body_timeout), self._content_deadline)
        exchange.continue_pending = False
        if data:
            waiting = exchange.delegate.data_received(data)
            if waiting is not None:
                self.hold_for(waiting)
        return True

    def _finish_request(self, exchange: Exchange, content: FixedContent | ChunkedContent) -> None:
        self._content = None
        self._content_deadline = NEVER
        self.deadline = NEVER
        self._reading = DONE
        exchange.trailers = content.trailers
        if exchange.finished:  # its response was early, the content was dropped
            self._next(exchange)
        else:
            exchange.delegate.finish()

    def _read_ahead(self) -> None:
        """Keep what arrives before its time, and slow the peer down when it is much."""
        if self.transport is not None and not self._held and len(self._buffer) - self._position > _AHEAD_MAX:
            self._held = True
            self.transport.pause_reading()

    def _advance_soon(self) -> None:
        self.loop.call_soon(self._advance)

    def pause_content(self, reason: int = _BY_DELEGATE) -> None:
        """Let no content reach the delegate; the deadline rests meanwhile, since it is not the peer who is slow."""
        self._paused |= reason
        if self._reading is CONTENT:
            self.deadline = self._content_deadline
            if not self._held and self.transport is not None:
                self._held = True
                self.transport.pause_reading()

    def resume_content(self, reason: int = _BY_DELEGATE) -> None:
        """Let content reach the delegate again, unless somebody else wants none."""
        if not self._paused & reason:
            return
        self._paused &= ~reason
        if self._paused:
            return
        if self._reading is CONTENT:
            self.deadline = min(self.clock.after(self.params.body_timeout), self._content_deadline)
        self._release()
        if self._buffer or self._eof or (self._content is not None and self._content.done):
            self._advance()

    def hold_for(self, waiting: Awaitable[None]) -> None:
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
                    self.cut(clean=False)
            elif (error := done.exception()) is not None:
                self.delegate_failed(exchange, error)
            elif self.exchange is exchange:
                self.resume_content(_BY_AWAITABLE)

        future.add_done_callback(go_on)

    # ------------------------------------------------------------------ the end of an exchange

    @property
    def reads_content(self) -> bool:
        """Content of the current request is still to come, or the delegate has not been told of its end."""
        return self._content is not None

    def must_close_after(self, exchange: Exchange) -> bool:
        """Tell, when a response is complete, whether what is unread of its request forbids another one."""
        if self._reading is not CONTENT or self._content is None or self._content.done:
            return False
        remaining = self._content.remaining
        return exchange.continue_pending or remaining is None or remaining > _DRAIN_MAX

    def response_done(self, exchange: Exchange) -> None:
        """Go on after a complete response: to the next request, or to the end."""
        if self.exchange is not exchange:
            return
        if self.params.observer is not None:
            self.params.observer.exchange_ended(exchange)
        if exchange.status == 101:
            self._reading = UPGRADED
            self.deadline = self.clock.after(self.params.head_timeout)  # for take_transport
        elif self._reading is DONE:
            self._next(exchange)
        elif self._reading is CONTENT:
            self._drop_content(exchange)

    def _next(self, exchange: Exchange) -> None:
        self.exchange = None
        exchange.delegate = NULL_DELEGATE  # ends a cycle of references: most delegates know their exchange
        if exchange.close_after or (self.closing and not self._grace) or (self._eof and not self._buffer):
            self._close(linger=bool(self._buffer))
            return
        self._paused = 0
        self._reading = HEAD
        self.deadline = self.clock.idle_deadline
        if self._grace:
            self.deadline = min(self.deadline, self.clock.after(self._grace))
        if self._held and len(self._buffer) - self._position <= _AHEAD_MAX:
            self._release()
        if self._buffer and not self._busy:
            self._advance_soon()

    def _drop_content(self, exchange: Exchange) -> None:
        """The response is complete, the request is not: read the little that is left, or close."""
        delegate = getattr(exchange, "delegate", None)
        close = exchange.close_after or self.closing or self.must_close_after(exchange)
        exchange.delegate = NULL_DELEGATE
        self._paused = 0
        if close:
            self.exchange = None
            self._close(linger=True)
        else:
            self.deadline = self.clock.after(self.params.body_timeout)
            self._release()
            if not self._busy:
                self._advance_soon()
        if delegate is not None:
            self._tell_closed(exchange, delegate)

    def take_transport(self, protocol: asyncio.Protocol) -> tuple[asyncio.Transport, bytes, Callable[[], None]]:
        """Give the transport, and the bytes received but not read, to another protocol (RFC 9110 section 7.8).

        The connection is over as far as HTTP is concerned. The server counts it all the same until it is told that the
        transport has ended.

        Returns:
            The transport; the bytes; what to call, once, when the transport is gone.

        Raises:
            ConnectionGone: The connection has ended.
        """
        self.flush()
        transport = self.transport
        if transport is None:
            raise ConnectionGone("the connection is closed")
        rest = bytes(memoryview(self._buffer)[self._position :])
        self._release()
        transport.set_protocol(protocol)
        if self._eof:
            self.loop.call_soon(_pass_on_eof, transport, protocol)
        exchange = self.exchange
        self.exchange = None
        if exchange is not None:
            self._end_unfinished(exchange)
        on_end, self._on_end = self._on_end, None
        self.connection_lost(None)
        return transport, rest, nothing if on_end is None else on_end(self, True)


def nothing() -> None:
    """Stand in for what is to be called when a transport is gone."""


def _pass_on_eof(transport: asyncio.Transport, protocol: asyncio.Protocol) -> None:
    """Tell a protocol that came later that the peer has sent all."""
    if not transport.is_closing() and not protocol.eof_received():
        transport.close()
