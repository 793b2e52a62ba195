"""A non-blocking, single-threaded HTTP server (Tornado's documented HTTPServer)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal

from bridge.core.connection.clock import NEVER, Clock
from bridge.core.connection.context import ConnectionContext
from bridge.core.connection.http1 import ServerConnection, noop
from bridge.core.connection.parameters import ConnectionParameters
from bridge.core.connection.streams import StreamEnd, log_cut
from bridge.core.middleware.xheaders import ForwardedDelegate
from bridge.core.net.tls import SSLOptions
from bridge.core.tcpserver import ACCEPTS_PER_TURN, HANDSHAKE_TIMEOUT, Preface, PrefaceReader, TCPServer, is_loop
from bridge.core.tornado.interfaces import HTTPServerConnectionDelegate
from bridge.core.tornado.parameters import HTTP1ConnectionParameters, head_limits
from bridge.core.util import Configurable

if TYPE_CHECKING:
    from bridge.core.connection.http2 import HTTP2Connection
    from bridge.core.iostream import IOStream
    from bridge.core.tornado.legacy import HTTPConnection
    from bridge.core.tornado.request import HTTPServerRequest as HTTPRequest

__all__ = ["HTTPConnection", "HTTPRequest", "HTTPServer"]

# Seconds for the closing handshake of WebSockets that are still open at the time limit.
_LAST_WORDS = 2.0
# Seconds that a stop waits for connections whose TLS handshake or PROXY header is incomplete. A silent peer must not
# delay the stop until its handshake times out.
_STARTING = 2.0


def __getattr__(name: str) -> object:
    """Import Tornado's names on first use: a server of ASGI or WSGI does not need them."""
    if name == "HTTPRequest":
        from bridge.core.tornado.request import HTTPServerRequest

        return HTTPServerRequest
    if name == "HTTPConnection":
        from bridge.core.tornado.legacy import HTTPConnection

        return HTTPConnection
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class HTTPServer(TCPServer, Configurable, HTTPServerConnectionDelegate):
    """Serves HTTP/1.x, and HTTP/2 where *params* have ``http2``.

    Args:
        request_callback: Answers requests: a native delegate (with ``start_exchange``), a Tornado-style delegate (with
            ``start_request``), or a callable, plain or async, that takes one HTTPServerRequest.
        no_keep_alive: Close after every response.
        xheaders: Believe X-Real-Ip, X-Forwarded-For, X-Scheme and X-Forwarded-Proto; only behind a proxy.
        ssl_options: An ``ssl.SSLContext``, or a dictionary (see TCPServer).
        protocol: ``https`` behind a proxy that ends TLS without saying so.
        decompress_request: Decode gzip request content.
        chunk_size: Most content (bytes) handed to a delegate at once; 65536.
        max_header_size: Bytes of a request head; 65536, of which a line may have 8190. If it is given, a single line
            may be as long as the head.
        idle_connection_timeout: Seconds in which a head must arrive, counted from its first byte, from the
            connection's start, or from the previous exchange. Without it: 10 for a head, 5 between requests.
        body_timeout: Seconds for one request's whole content. In addition, content that makes no progress for 30
            seconds ends the connection.
        max_body_size: Bytes of one request's content; without it max_buffer_size for Tornado-style delegates and
            callables, no limit for native ones. 0 forbids content.
        max_buffer_size: Bytes buffered per connection; 104857600.
        trusted_downstream: Addresses that are skipped from the right of X-Forwarded-For.
        params: All limits and times at once, in place of the arguments for them above.
        server_name: The value of the Server field; empty for no such field.
        date_header: Add Date where a response has none.
        tls: Returns the TLS context for the next connection, in place of ssl_options.
        preface: Reads what each peer sends before TLS, such as a PROXY header. It may change the connection's context.
        tls_handshake_timeout: Seconds that a TLS handshake may take.
        max_connections: Most connections held at once; None for no limit.
        accepts_per_turn: Most connections accepted in one turn of the loop.
        proxy_keep_alive: Seconds that a connection of a proxy may be idle; None for as long as all others.
        is_proxy: Called with a connection's two ends, and whether it began with a preface. Returns True if the peer is
            a proxy, to which proxy_keep_alive applies. None if no peer is one.

    Raises:
        TypeError: An unknown argument.
        KeyError: ssl_options without certfile.
        ValueError: ssl_options with a file that does not exist, or with an unknown key.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # initialize() sets instances up, as in every Configurable.
        pass

    def initialize(
        self,
        request_callback: Any,
        no_keep_alive: bool = False,
        xheaders: bool = False,
        ssl_options: SSLOptions | None = None,
        protocol: Any = None,
        decompress_request: Any = False,
        chunk_size: int | None = None,
        max_header_size: int | None = None,
        idle_connection_timeout: float | None = None,
        body_timeout: float | None = None,
        max_body_size: int | None = None,
        max_buffer_size: int | None = None,
        trusted_downstream: Iterable[str] | None = None,
        *,
        params: ConnectionParameters | None = None,
        server_name: bytes = b"",
        date_header: bool = True,
        io_loop: object = None,
        tls: Callable[[], ssl.SSLContext] | None = None,
        preface: PrefaceReader | None = None,
        tls_handshake_timeout: float = HANDSHAKE_TIMEOUT,
        max_connections: int | None = None,
        accepts_per_turn: int = ACCEPTS_PER_TURN,
        proxy_keep_alive: float | None = None,
        is_proxy: Callable[[ConnectionContext, bool], bool] | None = None,
    ) -> None:
        """Set up the server; the arguments are the class's."""
        if is_loop(xheaders) or isinstance(ssl_options, bool):
            # Up to Tornado 4.5, io_loop was the third argument: (request_callback, no_keep_alive, io_loop, xheaders,
            # ssl_options, protocol). The arguments after these were keywords.
            xheaders, ssl_options, protocol = bool(ssl_options), protocol, decompress_request or None
            decompress_request = False
        TCPServer.__init__(
            self,
            ssl_options,
            max_buffer_size,
            chunk_size,
            tls=tls,
            preface=preface,
            tls_handshake_timeout=tls_handshake_timeout,
            max_connections=max_connections,
            accepts_per_turn=accepts_per_turn,
        )
        self.request_callback = request_callback
        self.xheaders = xheaders
        self.protocol = protocol
        self.trusted_downstream = frozenset(trusted_downstream or ())
        native = hasattr(request_callback, "start_exchange")
        if params is None:
            if max_body_size is None and not native:
                max_body_size = self.max_buffer_size
            params = ConnectionParameters(
                limits=head_limits(max_header_size),
                no_keep_alive=no_keep_alive,
                chunk_size=chunk_size or 65536,
                max_body_size=max_body_size,
                max_buffer_size=self.max_buffer_size,
                head_timeout=idle_connection_timeout or 10.0,
                keep_alive_timeout=idle_connection_timeout or 5.0,
                body_total_timeout=body_timeout or None,
                limit_after_start=not native,
            )
        self.params = params
        if params.http2 is not None:
            self._alpn = ("h2",) if params.http2.alone else ("h2", "http/1.1")
        self.conn_params = HTTP1ConnectionParameters.of(params, decompress=decompress_request)
        self._server_name = server_name
        self._date_header = date_header
        self._requests = self._delegate = request_callback
        if not native:
            from bridge.core.tornado.dispatch import DelegateAdapter, adapt

            self._requests = self._delegate = adapt(request_callback, decompress=decompress_request)
            overridden = type(self).start_request is not HTTPServer.start_request
            if overridden or type(self).on_close is not HTTPServer.on_close:
                self._delegate = DelegateAdapter(self, decompress_request)
        if xheaders:
            self._delegate = ForwardedDelegate(self._delegate, self.trusted_downstream)
        self._clock: Clock | None = None
        self._proxy_clock: Clock | None = None  # like _clock, with proxy_keep_alive for idle connections
        self._proxy_keep_alive = proxy_keep_alive
        self._is_proxy = None if proxy_keep_alive is None else is_proxy
        self._connections: set[ServerConnection | HTTP2Connection] = set()
        self._on_end = self._ended  # bound methods, one object each for all connections
        self._successor = self._http2
        self._local: Any = None  # the local address of the last connection; most connections share one object
        self._taken = 0  # how many connections belong to another protocol now
        self._drained_at = 0.0
        self._none_taken: asyncio.Event | None = None
        self._all_closed: asyncio.Event | None = None
        self._draining = False

    @classmethod
    def configurable_base(cls) -> type[Configurable]:
        """Return the class whose construction can be configured."""
        return HTTPServer

    @classmethod
    def configurable_default(cls) -> type[Configurable]:
        """Return the class that is built while none is configured."""
        return HTTPServer

    def start_request(self, server_conn: object, request_conn: Any) -> Any:
        """Return the message delegate of a new request; a subclass may override this (Tornado's interface)."""
        return self._requests.start_request(server_conn, request_conn)

    def on_close(self, server_conn: Any) -> None:
        """Pass on that a connection has ended; a subclass may override this."""
        self._requests.end_connection(server_conn)

    # ------------------------------------------------------------------ connections

    def connection_count(self) -> int:
        """Return how many connections are open or starting, WebSockets and other detached ones included."""
        starting = len(self._starting)
        if not self._serves_streams:
            starting -= self._met  # self._connections has these already
        return starting + len(self._connections) + self._taken

    @property
    def _serves_streams(self) -> bool:
        return type(self).handle_stream is not HTTPServer.handle_stream

    def handle_stream(self, stream: IOStream, address: Any) -> Any:
        """Serve HTTP on *stream*, whose TLS handshake may still have to take place.

        A program may call it with any stream. The server itself makes streams only for subclasses that override it.
        """
        from bridge.core.tornado.connection import TornadoConnection

        connection = self._connection(stream.io_loop.asyncio_loop, stream.socket, address)
        TornadoConnection(connection, stream).serve(stream)

    async def _cancel_starting(self) -> None:
        """Give up the connections that have no transport yet, or are in their TLS handshake."""
        if self._starting:
            await asyncio.sleep(0)  # a task that is cancelled before it has run cannot close its socket
        if starting := tuple(self._starting):
            for task in starting:
                task.cancel()
            await asyncio.wait(starting)

    def _protocol(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, address: Any, preface: Preface | None
    ) -> asyncio.Protocol:
        if self._serves_streams:
            return super()._protocol(loop, sock, address, preface)
        successor = self._successor if self.params.http2 is not None else None
        connection = self._connection(loop, sock, address, successor, preface)
        if preface is not None:
            preface.apply(connection.context)
        if self.params.http2 is not None and self.params.http2.alone:
            return self._http2(connection)
        return connection

    def _make_clock(self, loop: asyncio.AbstractEventLoop, keep_alive: float | None) -> Clock:
        return Clock(
            loop,
            shortest=self.params.shortest(),
            server_name=self._server_name,
            date=self._date_header,
            keep_alive=keep_alive,
        )

    def _http2(self, connection: ServerConnection) -> HTTP2Connection:
        """Return what serves HTTP/2 in the place of *connection*, which has served nothing."""
        from bridge.core.connection.http2 import HTTP2Connection

        successor = HTTP2Connection(
            connection.delegate, self.params, connection.context, connection.clock, connection.loop, self._on_end
        )
        successor.closing = connection.closing
        successor.observed = connection.transport is not None
        self._connections.discard(connection)
        self._connections.add(successor)
        return successor

    def _connection(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: Any,
        address: Any,
        successor: Callable[[ServerConnection], asyncio.Protocol] | None = None,
        preface: Preface | None = None,
    ) -> ServerConnection:
        protocol = self.protocol or ("https" if self._has_tls else "http")
        try:
            local = sock.getsockname()
        except OSError:
            local = None
        if local == self._local:
            local = self._local
        else:
            self._local = local
        context = ConnectionContext(address, sock.family, protocol, local, self.trusted_downstream)
        if self._is_proxy is not None and self._is_proxy(context, preface is not None):
            clock = self._proxy_clock = self._proxy_clock or self._make_clock(loop, self._proxy_keep_alive)
        else:
            clock = self._clock = self._clock or self._make_clock(loop, self.params.keep_alive_timeout)
        connection = ServerConnection(self._delegate, self.params, context, clock, loop, self._on_end, successor)
        if self._draining:
            connection.closing = True
        self._connections.add(connection)
        return connection

    def _ended(self, connection: ServerConnection | HTTP2Connection, taken: bool) -> Callable[[], None]:
        self._connections.discard(connection)
        if self._all_closed is not None and not self._connections:
            self._all_closed.set()
        if taken:
            self._taken += 1
            return self._taken_ended
        if self._full:
            self._connection_ended()
        return noop

    def _taken_ended(self) -> None:
        """A connection that belongs to another protocol has lost its transport."""
        self._taken -= 1
        if self._none_taken is not None and not self._taken:
            self._none_taken.set()
        if self._full:
            self._connection_ended()

    async def close_all_connections(self) -> None:
        """Abort every connection, those with requests in flight too, and wait until all have ended.

        Detached connections, such as WebSockets, stay open.
        """
        await self.drain(0)

    @property
    def connections(self) -> frozenset[ServerConnection | HTTP2Connection]:
        """The open connections, without those that are starting."""
        return frozenset(self._connections)

    def announce_end(self, grace: float) -> None:
        """Let every response close its connection, and go on to accept others, until :meth:`withdraw_end`.

        Args:
            grace: Seconds for which idle connections stay open, so that their next response can say so.
        """
        self._draining = True
        for connection in tuple(self._connections):
            connection.close_when_idle(grace)

    def withdraw_end(self) -> None:
        """Let connections that are accepted from now on persist again."""
        self._draining = False

    def end_streams(self, seconds: float | Literal["auto"] | None) -> StreamEnd:
        """End the event streams of a server that stops; cancel what this returns when the stop is over.

        Args:
            seconds: The time after which they are ended; "auto" to end those that send nothing for five seconds; None
                to end none.
        """
        return StreamEnd(lambda: self._connections, asyncio.get_running_loop(), seconds)

    async def taken_ended(self, *limits: float | None) -> None:
        """Wait until the connections that belong to another protocol, such as WebSockets, have ended.

        Args:
            *limits: Seconds to wait at most, since :meth:`drain` was called; None for no limit. WebSockets that are
                closed at the end of the first limit have two seconds more for that.
        """
        if self._taken:
            self._none_taken = asyncio.Event()
            first, *others = (NEVER if limit is None else self._drained_at + limit for limit in limits)
            end = min(first + _LAST_WORDS, *others)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(None if end == NEVER else end):
                    await self._none_taken.wait()

    async def drain(
        self, timeout: float | None, waiting: Callable[[int], None] | None = None, *, idle_grace: float = 0.0
    ) -> int:
        """Let the requests in flight finish, close idle connections, and wait until every connection has ended.

        Call :meth:`stop` first, so that no new connections come.

        Args:
            timeout: Seconds after which the remaining connections are aborted; None to wait as long as it takes. Those
                that have not finished their TLS handshake get two seconds of it, or *idle_grace* if that is longer.
            waiting: Called once with the number of connections, if any are left to wait for.
            idle_grace: Seconds for which connections without a request are kept, so that their next response can say
                ``Connection: close``; 0 closes them now. A connection that has had no request yet gets at least one
                second.

        Returns:
            The number of aborted connections.
        """
        self._drained_at = asyncio.get_running_loop().time()
        end = None if timeout is None else self._drained_at + timeout
        self._draining = True
        for connection in tuple(self._connections):
            connection.close_when_idle(idle_grace)
        if self._starting and timeout != 0:
            # They were accepted before the stop: their requests are coming.
            patience = max(idle_grace, _STARTING)
            await asyncio.wait(self._starting, timeout=patience if timeout is None else min(patience, timeout))
            for connection in tuple(self._connections):
                connection.close_when_idle(idle_grace)
        await self._cancel_starting()
        aborted = 0
        if self._connections:
            if self._all_closed is None:  # otherwise another call of drain() waits for the same event
                self._all_closed = asyncio.Event()
            all_closed = self._all_closed
            if timeout is None or timeout > 0:
                if waiting is not None:
                    waiting(len(self._connections))
                try:
                    async with asyncio.timeout_at(end):
                        await all_closed.wait()
                except TimeoutError:
                    pass
            else:
                # Connections that were just closed end first: an abort could destroy their last responses.
                await asyncio.sleep(0)
            aborted = len(self._connections)
            log_cut(exchange for connection in self._connections for exchange in connection.exchanges)
            for connection in tuple(self._connections):
                connection.abort()
            if self._connections:
                await all_closed.wait()
            self._all_closed = None
        self._draining = False  # if the server still listens, it serves on
        for clock in (self._clock, self._proxy_clock):
            if clock is not None and not clock.watched:  # WebSockets still need the clock
                clock.stop()
        return aborted
