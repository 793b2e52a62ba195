"""The contracts between a server's connections and the code that uses them, for every version of HTTP.

A connection asks its ConnectionDelegate to start an exchange for every request. The delegate gets an Exchange, to which
it writes the response, and returns an ExchangeDelegate, which takes the request's content. An Observer is told of
connections and exchanges, and changes nothing.

Adapters, middleware and logs know only these contracts. This module has no implementation.
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
    """When more bytes than this wait to be sent, writers are paused."""
    write_timeout: float | None
    """Seconds within which the peer has to read something while bytes wait to be sent; None for no limit."""


class WriteState(Protocol):
    """Whether more may be written."""

    paused: bool
    """Whether more bytes wait to be sent than the high-water mark allows."""

    @property
    def unread(self) -> int:
        """How many of the bytes handed over the peer still has to take, as far as is known here."""
        ...

    def writable(self) -> asyncio.Future[None]:
        """Return a future that is done when enough of the waiting bytes has been sent.

        It fails with ConnectionGone if the exchange ends first.
        """
        ...


class Connection(Protocol):
    """What delegates and observers may know of a connection. It is hashable, so they can use it as a key."""

    context: ConnectionContext
    """The two ends."""

    @property
    def requests(self) -> int:
        """How many exchanges have been started on the connection."""
        ...


class ExchangeDelegate(Protocol):
    """Takes one request's content and is told how the request ends.

    Order of calls, after ``start_exchange`` has returned the delegate:

    1. :meth:`data_received`, any number of times;
    2. :meth:`finish`, when the whole request was read;
    3. :meth:`on_peer_eof`, at most once, after ``finish``.

    :meth:`on_connection_close` is called at most once, at any time, unless a complete response answers a completely
    read request. It means that the peer has left, broken a rule or been too slow, or that the response was complete
    before the content was read. Nothing is called after it.
    """

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """Take content.

        Args:
            chunk: At least one byte, and at most the server's ``chunk_size``. Transfer codings are undone.

        Returns:
            An awaitable; no more content is handed over until it is done. None if the delegate is ready for more.
        """

    def finish(self) -> None:
        """Take note that the request is complete."""

    def on_connection_close(self) -> None:
        """Take note that no more content comes, and that no response is sent unless it is complete already."""

    def on_peer_eof(self) -> None:
        """Take note that the peer sends nothing more; it may still read the response (RFC 9112 section 9.6)."""


class ConnectionDelegate(Protocol):
    """Starts exchanges. One object serves all connections of a server."""

    def start_exchange(self, exchange: Exchange) -> ExchangeDelegate:
        """Return the delegate of a new exchange.

        Args:
            exchange: Its ``head`` is complete. The response may be sent from now on, also before this method returns.
        """
        ...

    def on_close(self, connection: Connection) -> None:
        """Take note that HTTP has ended on *connection*: it is closed, or another protocol has its transport.

        It is told once for each connection that was opened. The object may be another one: a connection without TLS is
        HTTP/1's until the preface of HTTP/2 has come.
        """


class Observer:
    """Is told of every connection and every exchange, for logs, counts and times. Subclasses override what they need.

    An observer changes nothing and raises nothing.
    """

    def connection_opened(self, connection: Connection) -> None:
        """Take note that *connection* speaks HTTP from now on."""

    def connection_closed(self, connection: Connection) -> None:
        """Take note that HTTP has ended on *connection*: it is closed, or another protocol has its transport.

        It is told once for each connection that was opened. The object may be another one: a connection without TLS is
        HTTP/1's until the preface of HTTP/2 has come.
        """

    def request_refused(self, connection: Connection, reason: str) -> None:
        """Take note that the peer has broken a rule or a limit, and is answered by the connection itself.

        Args:
            connection: The connection. If the head was complete, the end of its exchange is told as well.
            reason: ``head_timeout``, ``body_timeout``, ``too_large``, ``malformed`` or ``budget``.
        """

    def exchange_started(self, exchange: Exchange) -> None:
        """Take note of a new exchange: its head is complete, and the delegate is asked next."""

    def exchange_ended(self, exchange: Exchange) -> None:
        """Take note that the response is complete, or that the exchange has ended without one; called once.

        ``exchange.status`` is 0 if no response was begun. ``exchange.finished`` is true in both cases.
        """


class Exchange(Protocol):
    """One request with its response (RFC 9110 section 3.4), from the server's side.

    The interface is the same for every version of HTTP: framing, order and flow control are the exchange's work. All
    sizes are bytes, all times seconds. Everything is called on the event loop's thread.

    Attributes:
        head: The request's head.
        context: The two ends as this exchange sees them. Middleware may replace it by a changed copy.
        connection_context: The two ends of the connection itself.
        connection: The connection, as :class:`Connection` describes it.
        loop: The event loop.
        clock: The server's clock: deadlines without timers.
        writer: Tells whether more may be written; ``write_paused`` and ``writable()`` ask it.
        writing: The state of the response, see ``states``; HEAD until bytes of the final response are handed over.
        response: The final response's head; None until :meth:`respond`.
        status: The response's status code; 0 until :meth:`respond`.
        content_sent: Bytes of response content handed over so far, without transfer coding.
        trailers: (name, value) of the request's trailer fields, once it is complete (RFC 9110 section 6.5).
        close_after: The connection, or HTTP on it, ends with this exchange.
        max_body_size: Most bytes of request content; None for the connection's limit. May be set before the first
            content is read, on connections with ``limit_after_start``.
        server_fields: (name, value) pairs that the server adds to the response. They replace the application's fields
            of these names. Empty unless middleware sets it.
        times: When the exchange began, how long it was queued, when it answered, and what else observers are told;
            None unless an observer asks for it.
        templates: What delegates keep between the requests of a connection, by owner; see :meth:`keep_template`.
        stream_id: The stream of HTTP/2 (RFC 9113 section 5.1.1); None over HTTP/1.
        reset_code: The error code with which either side has reset the stream; below 0 if neither has.
    """

    head: RequestHead
    context: ConnectionContext
    close_after: bool
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
        """Tells whether more may be written."""
        ...

    @property
    def stream_id(self) -> int | None:
        """The stream of HTTP/2; None over HTTP/1."""
        ...

    @property
    def reset_code(self) -> int:
        """The error code with which either side has reset the stream; below 0 if neither has."""
        ...

    @property
    def connection(self) -> Connection:
        """The connection."""
        ...

    @property
    def connection_context(self) -> ConnectionContext:
        """The two ends of the connection."""
        ...

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop."""
        ...

    @property
    def parameters(self) -> WriteLimits:
        """The limits of writing."""
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

        This is only a cache. It is dropped when the connection has been idle for about a second. During a connection's
        first request nothing is kept, since most connections only ever send one.

        Args:
            owner: The key in ``templates``; the delegate itself, for example.
            value: What later requests find there.
        """

    # ------------------------------------------------------------------ the request's content

    def pause_reading(self) -> None:
        """Hand no content to the delegate until :meth:`resume_reading`; the peer is slowed down."""

    def resume_reading(self) -> None:
        """Hand content to the delegate again; what has been received may be handed over before this returns."""

    def pause_until(self, waiting: Awaitable[None]) -> None:
        """Hand no content to the delegate until *waiting* is done; if it fails, the delegate has failed."""

    def set_body_timeout(self, seconds: float | None) -> None:
        """Set the deadline of the whole content to *seconds* from now; None for no limit."""

    def send_continue(self) -> None:
        """Send 100 (Continue) if the client waits for it (RFC 9110 section 10.1.1); otherwise do nothing."""

    # ------------------------------------------------------------------ the response

    @property
    def response_started(self) -> bool:
        """Whether bytes of the final response have been handed over."""
        ...

    @property
    def finished(self) -> bool:
        """Whether the response is complete, or the exchange has ended without one."""
        ...

    @property
    def peer_gone(self) -> bool:
        """Whether the connection has failed or is closing; the delegate has been told, or is told soon."""
        ...

    @property
    def write_paused(self) -> bool:
        """Whether more bytes wait to be sent than the high-water mark (``ConnectionParameters.high_water``) allows."""
        ...

    def writable(self) -> asyncio.Future[None]:
        """Return a future that is done when enough of the waiting bytes has been sent.

        It fails with ConnectionGone if the exchange ends first.
        """
        ...

    def lower_high_water(self, size: int) -> None:
        """Pause writers when more than *size* bytes wait to be sent; a lower mark of the connection's stays."""

    async def drained(self) -> None:
        """Wait until fewer bytes than the high-water mark wait to be sent.

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
        """Check and keep the head of the final response.

        It is sent with the first content, or at the end of this turn of the loop if none has come. Until then, this may
        be called again. The exchange frames the response: it leaves out hop-by-hop fields,
        obeys ``Connection: close``, and adds ``Date`` if it is missing.

        Args:
            status: 101, or 200 to 999.
            fields: (name, value) pairs of bytes.
            reason: The reason phrase; empty for the registered one.

        Raises:
            LocalProtocolError: The response has begun, or the status, the reason or a field is illegal.
            ConnectionGone: The peer left.
        """

    def respond_with(self, head: ResponseHead) -> None:
        """Keep a head that was made before, perhaps in another thread; otherwise as :meth:`respond`.

        Raises:
            LocalProtocolError: The response has begun, or 101 is out of place.
            ConnectionGone: The peer left.
        """

    def send_first(self, response: ResponseHead, data: bytes, last: bool = True) -> None:
        """Send a head that was made before and the first content: :meth:`respond_with` and :meth:`send` in one call.

        Args:
            response: The head.
            data: The first content; may be empty.
            last: The response ends with *data*.

        Raises:
            LocalProtocolError: As for the two methods.
            ConnectionGone: The peer left.
        """

    def send(self, data: bytes = b"", last: bool = False) -> None:
        """Send content; the first one is sent behind the head.

        Content of a response that has none by definition (to HEAD, 204, 304) is dropped.

        Args:
            data: Content; may be empty.
            last: The response ends with *data*.

        Raises:
            LocalProtocolError: There is no head, the response has ended, or it is longer or shorter than its
                Content-Length. In the last two cases the client notices, and at most the declared length is sent.
            ConnectionGone: The peer left.
        """

    async def send_file(self, file: int, offset: int, count: int) -> None:
        """Send a part of a file as content, behind the head if this is the first; it does not end the response.

        Until it returns, nothing else may be sent, and the file has to stay open.

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
            fields: More fields, (name, value) pairs.

        Raises:
            LocalProtocolError: The response has begun.
            ConnectionGone: The peer left.
        """

    def fail(self, status: int = 500) -> None:
        """Answer *status* if nothing was sent yet; otherwise end the response so that the client notices."""

    def finish_within(self, seconds: float | None) -> None:
        """Give the response up unless it is complete in *seconds*; None for no limit.

        Without effect while the request is not complete.
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
        """Close the connection, also in the middle of a response; what was written is still sent."""

    def report_failure(self, error: BaseException) -> None:
        """Act on *error*, which a delegate's code raised outside of a call by the connection.

        A RemoteProtocolError is answered with its status. Any other error is logged, and the response fails.
        """

    def abort(self) -> None:
        """Give the response up at once so that the client notices; nothing more is read or sent."""

    def response_field(self, name: bytes) -> bytes | None:
        """Return the value of the first field *name* (lower case) of the response, for logs; None if it has none.

        Fields that the server adds to every response, such as Date, are not among them.
        """
        ...

    def take_stream(self, protocol: asyncio.Protocol) -> tuple[asyncio.Transport, bytes, Callable[[], None]]:
        """Give this exchange's transport to another protocol (RFC 9110 section 7.8).

        HTTP ends for this exchange: its delegate is told nothing more.

        Returns:
            The transport; the unread bytes; a function to call, once, when the transport is gone.

        Raises:
            ConnectionGone: The connection has ended.
        """
        ...


class _NullDelegate:
    """The delegate of an exchange that has ended: it takes the rest of the request and does nothing."""

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
"""The only _NullDelegate: it has no state."""
