"""How a connection ends: on request, at a deadline, with a refusal, or in the middle of a response."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

from bridge.core.connection.clock import NEVER
from bridge.core.connection.interfaces import NULL_DELEGATE
from bridge.core.connection.states import CLOSED, CONTENT, DISCARD, DONE, HEAD, UPGRADED
from bridge.core.connection.writer import WriteSide
from bridge.core.http1.encoder import status_line
from bridge.core.log import app_log, gen_log
from bridge.errors import ConnectionGone, RemoteProtocolError, RequestTimeout

if TYPE_CHECKING:
    import asyncio

    from bridge.core.connection.clock import Clock
    from bridge.core.connection.context import ConnectionContext
    from bridge.core.connection.http1exchange import Exchange
    from bridge.core.connection.interfaces import ExchangeDelegate
    from bridge.core.connection.parameters import ConnectionParameters
    from bridge.core.connection.states import State
    from bridge.core.http1.decoder import ChunkedContent, FixedContent

__all__ = ["EndingConnection"]

# After the last response the peer may go on sending this much (bytes) for this long (seconds) before it is cut off;
# a close with unread data would reset the connection and could destroy the response on its way.
_LINGER_MAX = 1 << 20
_LINGER_TIME = 2.0
# How long, in seconds, a connection that has had no request may still send one when the server stops.
_FRESH_GRACE = 1.0


class EndingConnection(WriteSide):
    """The part of a ServerConnection that ends it, and what it has to know for that.

    Attributes:
        exchange: The current exchange, None between two.
        closing: The connection ends with the current exchange, if not before.
        deadline: Loop time in seconds at which the peer must have sent what is awaited.
        requests: How many were started.
    """

    __slots__ = (
        "_buffer",
        "_content",
        "_content_deadline",
        "_discarded",
        "_eof",
        "_grace",
        "_held",
        "_position",
        "_reading",
        "closing",
        "deadline",
        "exchange",
        "requests",
    )

    params: ConnectionParameters

    def __init__(
        self,
        params: ConnectionParameters,
        context: ConnectionContext,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        super().__init__(params, context, clock, loop)
        self.exchange: Exchange | None = None
        self.closing = params.no_keep_alive
        self.deadline = NEVER
        self.requests = 0
        self._buffer: bytes | bytearray = b""
        self._position = 0
        self._reading: State = HEAD
        self._content: FixedContent | ChunkedContent | None = None
        self._content_deadline = NEVER
        self._discarded = 0
        self._eof = False
        self._grace = 0.0  # seconds that the connection may stay idle although it is closing
        self._held = False  # the transport was told to read nothing

    # ------------------------------------------------------------------ asked for, or due

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
        if self._reading is HEAD and not self._buffer:
            if not grace and self.requests:
                self._close()
            else:
                self.deadline = min(self.deadline, self.clock.after(grace or _FRESH_GRACE))

    def abort(self) -> None:
        """Close at once, whatever is going on."""
        self.cut(clean=False)

    def deadline_passed(self, now: float) -> None:
        """Act on a deadline: an answer where a request had begun, silence where none had."""
        transport = self.transport
        if transport is None:
            return
        if self.write_deadline < now:
            if not self.peer_reads(transport):
                self.cut(clean=False)
            return
        self.deadline = NEVER
        if self._reading is HEAD:
            if not self._buffer:
                self._close()
            elif not self.write_paused:  # else the answers to what is buffered wait for the peer: write_deadline
                self._refuse(RequestTimeout("Timeout reading the request head"))
        elif self._reading is CONTENT:
            if self._content_deadline < now:
                gen_log.info("Timeout reading body from %s", self.context)
                self.cut(clean=True)
            else:
                self._refuse(RequestTimeout("Timeout reading body"))
        elif self._reading in {DISCARD, UPGRADED}:
            self._reading = CLOSED
            transport.close()

    # ------------------------------------------------------------------ refusals and failures

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
        if self.transport is None or self._reading in {DISCARD, CLOSED, UPGRADED}:
            return
        if exchange is not None and exchange.response_started:
            if exchange.writing is DONE:
                # It was answered early, and the fault is in content that nobody wanted: the response must arrive whole.
                self.exchange = None
                self._close(linger=True)
            else:
                self.cut(clean=False)
            return
        if exchange is not None:
            exchange.status = status
        line = status_line(status)
        text = line[9:]
        head_only = exchange is not None and exchange.head.method == b"HEAD"
        common = self.clock.common_lines + (b"" if exchange is None else exchange.own_lines)
        self.write(
            b"%b%bcontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
            % (line, common, len(text), b"" if head_only else text)
        )
        self._lose()
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

    def delegate_failed(self, exchange: Exchange, error: BaseException) -> None:
        """Act on *error*, which a delegate's code raised outside of a call from here."""
        if self.exchange is not exchange:
            if not isinstance(error, ConnectionGone):
                app_log.error("Uncaught exception after the end of a request from %s", self.context, exc_info=error)
        elif isinstance(error, RemoteProtocolError):
            self._refuse(error)
        else:
            self._delegate_failed(error)

    def _tell_closed(self, exchange: Exchange, delegate: ExchangeDelegate) -> None:
        try:
            exchange.tell_closed(delegate)
        except Exception:
            app_log.exception("Uncaught exception in on_connection_close of %s", self.context)

    # ------------------------------------------------------------------ ways to end

    def _close(self, linger: bool = False) -> None:
        """Close when all is sent; with *linger*, let the peer finish sending first."""
        self.flush()
        transport = self.transport
        self.closing = True
        if transport is None or self._reading is CLOSED:
            return
        self._content = None
        self._buffer = b""
        self._position = 0
        if linger and not self._eof:
            self._reading = DISCARD
            self._discarded = 0
            self.deadline = self.clock.after(_LINGER_TIME)
            self._release()
            if transport.can_write_eof():  # not under TLS: there the client has to notice the end by the framing
                try:
                    transport.write_eof()
                except OSError:  # asyncio's: the peer has reset the connection, and nobody has told us yet
                    self._reading = CLOSED
                    transport.abort()
        else:
            self._reading = CLOSED
            self.deadline = NEVER
            transport.close()
        if self.write_deadline == NEVER:
            self.watch_writing()

    def _discard(self) -> None:
        self._discarded += len(self._buffer)
        self._buffer = b""
        self._position = 0
        if self._discarded > _LINGER_MAX and self.transport is not None:
            self._reading = CLOSED
            self.transport.close()

    def cut(self, clean: bool) -> None:
        """End the connection in the middle of a response.

        Args:
            clean: Send what is buffered; the framing shows that something is missing. Otherwise the connection is
                reset, so that a client that reads until the close notices.
        """
        self.flush()
        self.closing = True
        self._lose()
        if self.transport is None:
            return
        if clean:
            self._close(linger=self._reading is CONTENT)
        else:
            self._reading = CLOSED
            sock = self.transport.get_extra_info("socket")
            if sock is not None and sock.family in {socket.AF_INET, socket.AF_INET6}:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()

    def _lose(self) -> None:
        """Tell the delegate that its exchange is over."""
        exchange = self.exchange
        if exchange is not None:
            self.exchange = None
            self._end_unfinished(exchange)
            delegate = getattr(exchange, "delegate", None)  # None: start_exchange has not returned
            exchange.delegate = NULL_DELEGATE
            if delegate is not None:
                self._tell_closed(exchange, delegate)

    def _end_unfinished(self, exchange: Exchange) -> None:
        if exchange.writing is not DONE:
            exchange.lost()
            if self.params.observer is not None:
                self.params.observer.exchange_ended(exchange)

    def _release(self) -> None:
        """Read from the peer again."""
        if self._held and self.transport is not None:
            self._held = False
            if not self.transport.is_closing():
                self.transport.resume_reading()
