"""The contracts between a server's connections and those who use them, whatever the version of HTTP.

A connection asks its ConnectionDelegate to start an exchange for every request. The delegate gets an Exchange, through
which the response goes out, and returns an ExchangeDelegate, which takes the request's content. An Observer is told
of connections and exchanges, and changes nothing.

Adapters, middleware and logs know these contracts only. Nothing here is an implementation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable, Callable, Iterable

    from bridge.core.connection.clock import Clock
    from bridge.core.connection.context import ConnectionContext
    from bridge.core.connection.states import Writing
    from bridge.core.connection.times import Times
    from bridge.core.http.message import RequestHead, ResponseHead

__all__ = [
    "NULL_DELEGATE",
    "Connection",
    "ConnectionDelegate",
    "Exchange",
    "ExchangeDelegate",
    "Observer",
    "WriteLimits",
    "WriteState",
]


class WriteLimits(Protocol):
    """How much may wait to be sent, and for how long; ``ConnectionParameters`` has both."""

    high_water: int
    """Bytes waiting to be sent from which on writers are paused."""
    write_timeout: float | None
    """Seconds in which the peer must read something; None for no limit."""


class WriteState(Protocol):
    """Whether more may be written."""

    paused: bool
    """More is waiting to be sent than the high-water mark allows."""

    def writable(self) -> asyncio.Future[None]:
        """Return a future that is done when enough of what waits has been sent.

        It fails with ConnectionGone when the exchange ends first.
        """
        ...


class Connection(Protocol):
    """What a delegate or an observer may know of a connection; it can also be a key in a table of theirs."""

    context: ConnectionContext
    """The two ends."""

    @property
    def requests(self) -> int:
        """How many exchanges have been started on it."""
        ...


class ExchangeDelegate(Protocol):
    """Takes one request's content and is told how the request ends.

    After ``start_exchange`` comes ``data_received`` any number of times and then ``finish``, when the whole request was
    read. ``on_connection_close`` is called at most once, at any time after ``start_exchange``, if the exchange ends
    otherwise than by a complete response to a completely read request: the peer is lost or broke a rule or was too
    slow, or the response was finished before the content was read. Nothing is called after it.
    """

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """Take content; nothing more is read until an awaitable that is returned is done."""

    def finish(self) -> None:
        """The request is complete."""

    def on_connection_close(self) -> None:
        """Nobody waits for the response any more, or no more content will come."""

    def on_peer_eof(self) -> None:
        """The peer sends nothing more; it may still read the response (RFC 9112 section 9.6)."""


class ConnectionDelegate(Protocol):
    """Starts exchanges; one object serves all connections of a server."""

    def start_exchange(self, exchange: Exchange) -> ExchangeDelegate:
        """Return the delegate of a new exchange, whose ``head`` is complete.

        The response may be sent from here on, also before this method returns.
        """
        ...

    def on_close(self, connection: Connection) -> None:
        """HTTP has ended on a connection: it is closed, or another protocol has it."""


class Observer:
    """Is told of every connection and every exchange: for logs, counts and times. A subclass overrides what it needs.

    An observer changes nothing and raises nothing.
    """

    def connection_opened(self, connection: Connection) -> None:
        """A connection speaks HTTP from now on."""

    def connection_closed(self, connection: Connection) -> None:
        """HTTP has ended on a connection: it is closed, or another protocol has it."""

    def exchange_started(self, exchange: Exchange) -> None:
        """The head is complete; the delegate is asked next."""

    def exchange_ended(self, exchange: Exchange) -> None:
        """The response is complete, or nobody waits for it any more; called once.

        ``exchange.status`` is 0 if there was none, and ``exchange.finished`` is true in either case.
        """


class Exchange(Protocol):
    """One request with its response (RFC 9110 section 3.4), from the server's side.

    The exchange says nothing about the version of HTTP: framing, order and flow control are its own affair. All sizes
    are bytes, all times seconds. Everything is called on the event loop's thread.

    Attributes:
        head: The request's head.
        context: The two ends as this exchange sees them. Middleware may replace it by a changed copy.
        connection_context: The two ends of the connection itself.
        connection: The connection: a key, and what :class:`Connection` says.
        loop: The event loop.
        clock: The server's clock: deadlines without timers.
        writer: Whether more may be written; ``write_paused`` and ``writable()`` ask it.
        writing: How far the response has come; HEAD until the first byte of the final response was handed over.
        response: The final response's head; None until :meth:`respond`.
        status: The response's status code; 0 until :meth:`respond`.
        content_sent: Bytes of response content handed over so far, without transfer coding.
        trailers: The request's trailer fields once it is complete (RFC 9110 section 6.5).
        close_after: The connection ends with this exchange.
        max_body_size: The most bytes of request content; None for the connection's own limit.
        server_fields: (name, value) pairs that the server adds to the response, in place of the application's fields
            of these names. Empty unless middleware sets it.
        times: When the exchange began, waited, answered and ended; None where no observer asks for it.
        templates: What delegates keep between the requests of a connection, by their owners; see
            :meth:`keep_template`.
    """

    head: RequestHead
    loop: asyncio.AbstractEventLoop
    context: ConnectionContext
    close_after: bool
    connection_context: ConnectionContext
    content_sent: int
    max_body_size: int | None
    response: ResponseHead | None
    server_fields: tuple[tuple[bytes, bytes], ...]
    status: int
    times: Times | None
    trailers: Iterable[tuple[bytes, bytes]]
    writing: Writing

    @property
    def writer(self) -> WriteState:
        """Whether more may be written."""
        ...

    @property
    def connection(self) -> Connection:
        """The connection."""
        ...

    @property
    def parameters(self) -> WriteLimits:
        """How much may wait to be sent, and for how long."""
        ...

    @property
    def clock(self) -> Clock:
        """The server's clock."""
        ...

    @property
    def templates(self) -> Mapping[object, Any]:
        """What delegates keep for the next request of the same connection, by owner."""
        ...

    @property
    def tls(self) -> Any:
        """The connection's TLS object (``ssl.SSLObject`` or ``ssl.SSLSocket``); None without TLS."""
        ...

    def keep_template(self, owner: object, value: object) -> None:
        """Keep *value* for the connection's next requests, under *owner*.

        It is only a cache: it is dropped when the connection has been idle for about a second, and nothing is kept for
        a connection's first request, since most connections only ever send one.
        """

    # ------------------------------------------------------------------ the request's content

    def pause_reading(self) -> None:
        """Let no more content reach the delegate until :meth:`resume_reading`; the peer is slowed down."""

    def resume_reading(self) -> None:
        """Let content reach the delegate again, at once if some has been received."""

    def pause_until(self, waiting: Awaitable[None]) -> None:
        """Let no content reach the delegate until *waiting* is done; an exception in it is the delegate's."""

    def set_body_timeout(self, seconds: float | None) -> None:
        """Let the whole content be due in *seconds*; None for no limit."""

    def send_continue(self) -> None:
        """Send 100 (Continue) if the client waits for it (RFC 9110 section 10.1.1); else do nothing."""

    # ------------------------------------------------------------------ the response

    @property
    def response_started(self) -> bool:
        """Bytes of the final response have been handed over."""
        ...

    @property
    def finished(self) -> bool:
        """The response is complete, or nobody waits for it any more."""
        ...

    @property
    def peer_gone(self) -> bool:
        """The connection has failed; the delegate has been told, or will be in a moment."""
        ...

    @property
    def write_paused(self) -> bool:
        """More is waiting to be sent than the high-water mark (``ConnectionParameters.high_water``) allows."""
        ...

    def writable(self) -> asyncio.Future[None]:
        """Return a future that is done when enough of what waits has been sent.

        It fails with ConnectionGone when the exchange ends first.
        """
        ...

    def lower_high_water(self, size: int) -> None:
        """Pause writers when more than *size* bytes wait to be sent, if the mark so far is higher."""

    async def drained(self) -> None:
        """Wait until less than the high-water mark is waiting to be sent.

        Raises:
            ConnectionGone: The peer left.
        """

    def inform(self, status: int, fields: Iterable[tuple[bytes, bytes]]) -> None:
        """Send an interim response, such as 103 (RFC 9110 section 15.2), to clients that understand it.

        Raises:
            LocalProtocolError: The final response has begun, or the status or a field is illegal.
            ConnectionGone: The peer left.
        """

    def respond(self, status: int, fields: Iterable[tuple[bytes, bytes]], reason: bytes = b"") -> None:
        """Check and keep the head of the final response; it is sent with the first content.

        May be called again as long as nothing was sent. The framing is the exchange's: hop-by-hop fields are left out,
        ``Connection: close`` is obeyed, ``Date`` is added where it is missing.

        Args:
            status: 101, or 200 to 999.
            fields: (name, value) pairs of bytes.
            reason: The reason phrase; empty for the registered one.

        Raises:
            LocalProtocolError: The response has begun, or the status, the reason or a field is illegal.
            ConnectionGone: The peer left.
        """

    def respond_with(self, head: ResponseHead) -> None:
        """Keep a head that was checked before, perhaps in another thread; else as :meth:`respond`.

        Raises:
            LocalProtocolError: The response has begun, or 101 is out of place.
            ConnectionGone: The peer left.
        """

    def send_first(self, response: ResponseHead, data: bytes, last: bool = True) -> None:
        """Send a head that was checked before and the first content: as :meth:`respond_with` and then :meth:`send`.

        Raises:
            LocalProtocolError: As either.
            ConnectionGone: The peer left.
        """

    def send(self, data: bytes = b"", last: bool = False) -> None:
        """Send content, behind the head if this is the first; end the response with the last.

        Content of a response that has none by definition (to HEAD, 204, 304) is dropped.

        Args:
            data: Bytes; may be empty.
            last: The response ends with *data*.

        Raises:
            LocalProtocolError: There is no head yet, the response had ended, or it is longer or shorter than its
                Content-Length; in the last case the client notices, and never more than the length is sent.
            ConnectionGone: The peer left.
        """

    async def send_file(self, file: int, offset: int, count: int) -> None:
        """Send a part of a file as content, behind the head if this is the first; it does not end the response.

        Nothing else may be sent, and the file has to stay open, until this is done.

        Args:
            file: The descriptor of a regular file; its position is neither used nor moved.
            offset: Where to begin, in bytes.
            count: How many bytes to send.

        Raises:
            LocalProtocolError: As :meth:`send`; or the file is shorter, and the response cannot be completed.
            ConnectionGone: The peer left.
        """

    def end(self, trailers: Iterable[tuple[bytes, bytes]]) -> None:
        """End the response with a trailer section where the framing has room for one (RFC 9110 section 6.5).

        Raises:
            LocalProtocolError: As :meth:`send`; or a field is illegal.
            ConnectionGone: The peer left.
        """

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

    def fail(self, status: int = 500) -> None:
        """Answer *status* if nothing was sent yet; else end the response so that the client notices."""

    def finish_within(self, seconds: float | None) -> None:
        """Give the response up unless it is complete in *seconds*; None for no limit.

        The request has to be complete.
        """

    def send_raw(self, data: bytes) -> None:
        """Send bytes of a response that the application frames itself, head included; HTTP/1 only.

        :meth:`end_raw` ends it.

        Raises:
            LocalProtocolError: The response has begun otherwise, or has ended; or this is not HTTP/1.
            ConnectionGone: The peer left.
        """

    def end_raw(self) -> None:
        """End a response that the application has framed itself."""

    def close_connection(self) -> None:
        """Close the connection, whatever goes on; what was written is still sent."""

    def report_failure(self, error: BaseException) -> None:
        """Act on *error*, which a delegate's code raised outside of a call from the exchange: log it and fail."""

    def abort(self) -> None:
        """Give the response up at once, so that the client notices; nothing more is read or sent."""

    def response_field(self, name: bytes) -> bytes | None:
        """Return the value of the first field *name* (lower case) of the response, for logs; None if it has none.

        Fields that the server adds to every response, such as Date, are not among them.
        """
        ...

    def take_stream(self, protocol: asyncio.Protocol) -> tuple[asyncio.Transport, bytes, Callable[[], None]]:
        """Give the bytes of this exchange's stream, both ways, to another protocol (RFC 9110 section 7.8).

        HTTP is over for this exchange: its delegate hears nothing more.

        Returns:
            The transport; what was received and not read; what to call, once, when the transport is gone.

        Raises:
            ConnectionGone: The connection has ended.
        """
        ...


class _NullDelegate:
    """The delegate of an exchange whose response is complete: it takes what is left of the request."""

    __slots__ = ()

    def data_received(self, chunk: bytes) -> None:
        pass

    def finish(self) -> None:
        pass

    def on_connection_close(self) -> None:
        pass

    def on_peer_eof(self) -> None:
        pass


NULL_DELEGATE: ExchangeDelegate = _NullDelegate()
"""Takes everything and does nothing."""
