"""A non-blocking, single-threaded TCP server (Tornado's documented TCPServer).

``add_reader`` watches the listening sockets, and ``connect_accepted_socket`` takes each accepted one. Unlike
``loop.create_server``, both can be set up before the loop runs and after a fork, and :meth:`TCPServer.stop` needs no
running loop.

It sets the time for a TLS handshake; ``core/net/tlstransport.py`` keeps it, or the loop does.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from bridge.core.connection.closing import SHUTDOWN_TIMEOUT
from bridge.core.log import app_log, gen_log
from bridge.core.net.readiness import Readiness
from bridge.core.net.tls import SSLOptions
from bridge.core.net.tlstransport import TLSTransport
from bridge.core.netutil import add_accept_handler, bind_sockets, check_ssl_options, ssl_options_to_context

if TYPE_CHECKING:
    from bridge.core.connection.context import ConnectionContext

__all__ = ["Preface", "PrefaceReader", "TCPServer", "is_loop"]

# accept_waiting() stops after so many connections, in case more keep coming. The settings allow no longer queue.
_MOST_WAITING = 65535
# Open connections wait while others are accepted, and each starting connection needs a task. With 128, 2,000
# simultaneous connections need 0.6 MiB more. The time for each is the same with 16 and with 128.
ACCEPTS_PER_TURN = 32
HANDSHAKE_TIMEOUT = 10.0
# Seconds between two log lines that say that max_connections is reached.
_WARNING_PAUSE = 60.0


class Preface(Protocol):
    """What a peer has said before TLS and before the protocol itself, such as a PROXY header."""

    def apply(self, context: ConnectionContext) -> None:
        """Write it into *context*, the context of a new connection."""


class PrefaceReader(Protocol):
    """Reads the preface of each accepted connection."""

    async def read(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, address: Any) -> Preface | None:
        """Read the preface, and not one byte of what follows it.

        Args:
            loop: The event loop.
            sock: The accepted socket, non-blocking. It has no transport yet.
            address: The peer's address.

        Returns:
            The preface; None to close the connection.
        """
        ...


class TCPServer:
    """Accepts connections; subclasses override :meth:`handle_stream`.

    Args:
        ssl_options: An ``ssl.SSLContext``, or a dictionary with certfile, keyfile, ssl_version, cert_reqs, ca_certs,
            ciphers.
        max_buffer_size: Most bytes buffered per connection; None for 100 MiB.
        read_chunk_size: Bytes read at once; None for 64 KiB.
        *more: Accepts the argument order of Tornado 4.5, whose first argument was io_loop.
        io_loop: Ignored: a server runs on the event loop that is current when it starts.
        tls: Returns the TLS context for the next connection, so that certificates can be replaced while serving. It
            takes the place of ssl_options.
        preface: Reads what each peer sends before TLS; None if peers send nothing there. :meth:`handle_stream` is not
            told what it says.
        tls_handshake_timeout: Seconds that a TLS handshake may take.
        max_connections: Most connections held at once; None for no limit. More wait in the listening socket's queue.
        accepts_per_turn: Most connections accepted in one turn of the loop. Processes that share a socket should
            accept few at a time.

    Attributes:
        tls_handshake_timeout: See above.
        max_connections: See above.
        accepts_per_turn: See above.
        on_refused: Called with a word when a connection ends before its protocol has begun: ``preface`` if what had to
            come first is missing or wrong, ``tls`` if the handshake has failed, ``gone`` if the peer has left or was
            too slow. None to tell nobody.

    Raises:
        KeyError: ssl_options without certfile.
        ValueError: ssl_options with a file that does not exist, or with an unknown key.
    """

    def __init__(
        self,
        ssl_options: SSLOptions | None = None,
        max_buffer_size: Any = None,
        read_chunk_size: int | None = None,
        *more: int | None,
        io_loop: object = None,
        tls: Callable[[], ssl.SSLContext] | None = None,
        preface: PrefaceReader | None = None,
        tls_handshake_timeout: float = HANDSHAKE_TIMEOUT,
        max_connections: int | None = None,
        accepts_per_turn: int = ACCEPTS_PER_TURN,
    ) -> None:
        if is_loop(ssl_options) or isinstance(max_buffer_size, Mapping | ssl.SSLContext):
            # Up to Tornado 4.5, io_loop was the first argument.
            ssl_options, max_buffer_size, read_chunk_size = max_buffer_size, read_chunk_size, (more or (None,))[0]
        check_ssl_options(ssl_options)
        self.ssl_options = ssl_options
        self.max_buffer_size = max_buffer_size or 104857600
        self.read_chunk_size = min(read_chunk_size or 65536, self.max_buffer_size // 2)
        self.tls_handshake_timeout = tls_handshake_timeout
        self.max_connections = max_connections
        self.accepts_per_turn = accepts_per_turn
        self.on_refused: Callable[[str], None] | None = None
        self._tls = tls
        self._preface = preface
        self._alpn: tuple[str, ...] = ("http/1.1",)  # the protocols offered in TLS, the preferred one first
        self._context: ssl.SSLContext | None = None
        self._sockets: dict[int, socket.socket] = {}
        self._removers: dict[int, Callable[[], None]] = {}
        self._pending: list[socket.socket] = []
        self._starting: set[asyncio.Task[None]] = set()
        self._met = 0  # how many of _starting have a protocol already
        self._full = False
        self._next_warning = 0.0
        self._started = False
        self._stopped = False

    # ------------------------------------------------------------------ starting

    def listen(
        self,
        port: int,
        address: str | None = None,
        family: socket.AddressFamily = socket.AF_UNSPEC,
        backlog: int = 128,
        flags: int | None = None,
        reuse_port: bool = False,
    ) -> None:
        """Bind and serve at once; may be called again for other ports. The loop need not be running yet.

        Args:
            port: 0 for any free one.
            address: An address or a host name; None or ``""`` for all interfaces.
            family: ``AF_INET`` or ``AF_INET6`` to restrict the addresses.
            backlog: Connections that may wait to be accepted.
            flags: ``AI_`` flags for ``getaddrinfo``.
            reuse_port: Let several processes bind the same port.

        Raises:
            OSError: The address cannot be bound.
        """
        self.add_sockets(bind_sockets(port, address, family, backlog, flags, reuse_port))

    def bind(
        self,
        port: int,
        address: str | None = None,
        family: socket.AddressFamily = socket.AF_UNSPEC,
        backlog: int = 128,
        flags: int | None = None,
        reuse_port: bool = False,
    ) -> None:
        """Bind now, serve from :meth:`start` on; may be called again. The arguments are those of :meth:`listen`."""
        sockets = bind_sockets(port, address, family, backlog, flags, reuse_port)
        if self._started:
            self.add_sockets(sockets)
        else:
            self._pending.extend(sockets)

    def start(self, num_processes: int | None = 1, max_restarts: int | None = None) -> None:
        """Serve the bound sockets, in this process or in child processes.

        Args:
            num_processes: 1 for this process only; None, 0 or less for a child per CPU; else that many children.
            max_restarts: How many children that died are replaced, in total; None for 100.

        Raises:
            ssl.SSLError: With children, a file of the TLS options has no certificate or key in it.
        """
        assert not self._started, "start() was called before"
        self._started = True
        if num_processes != 1:
            from bridge.core.process import fork_processes

            # Made before the fork, it has the same keys of session tickets in all children: each one resumes the TLS
            # sessions of the others.
            self._tls_context()
            fork_processes(num_processes, max_restarts)
        sockets, self._pending = self._pending, []
        self.add_sockets(sockets)

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        """Serve listening sockets, TCP or unix, on the current event loop. May be called after a :meth:`stop`."""
        self._stopped = False
        for sock in sockets:
            sock.setblocking(False)
            self._sockets[sock.fileno()] = sock
            self._removers[sock.fileno()] = add_accept_handler(sock, self._accepted, per_turn=self.accepts_per_turn)

    def add_socket(self, socket: socket.socket) -> None:
        """Serve one listening socket."""
        self.add_sockets([socket])

    def accept_waiting(self) -> None:
        """Accept the connections that wait in the listening sockets' queues: :meth:`stop` would reset them.

        Call it only if no other process listens on these sockets; otherwise that process accepts them.
        """
        for sock in self._sockets.values():
            with contextlib.suppress(OSError):  # BlockingIOError: the queue is empty
                for _ in range(_MOST_WAITING):
                    connection, address = sock.accept()
                    connection.setblocking(False)
                    self._accepted(connection, address)

    def stop(self) -> None:
        """Stop listening and close the listening sockets; open connections go on. May be called again."""
        self._stopped = True
        for remove in self._removers.values():
            remove()
        self._removers.clear()
        for sock in [*self._sockets.values(), *self._pending]:
            sock.close()
        self._sockets.clear()
        self._pending.clear()

    # ------------------------------------------------------------------ connections

    def handle_stream(self, stream: Any, address: Any) -> Any:
        """Take a new connection; override this. May be a coroutine function.

        Args:
            stream: The ``IOStream``.
            address: The peer's address.
        """
        raise NotImplementedError

    def connection_count(self) -> int:
        """Return how many connections are starting. A subclass that knows its open connections adds them."""
        return len(self._starting)

    def _accepted(self, sock: socket.socket, address: Any) -> None:
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._start_connection(loop, sock, address))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)
        if self.max_connections is not None and self.connection_count() >= self.max_connections:
            self._pause_accepting()

    async def _start_connection(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, address: Any) -> None:
        """Give an accepted socket its transport, after the preface and the TLS handshake if there are any."""
        protocol: asyncio.Protocol | None = None
        preface: Preface | None = None

        def make() -> asyncio.Protocol:
            nonlocal protocol
            protocol = self._protocol(loop, sock, address, preface)
            self._met += 1
            return protocol

        error: Exception | None = None
        try:
            if self._preface is not None:
                preface = await self._preface.read(loop, sock, address)
                if preface is None:
                    self._tell_refused("preface")
                    self._not_started(None, sock, None)
                    return
            context = self._tls_context()
            if context is None:
                await loop.connect_accepted_socket(make, sock)
            else:
                await self._start_tls(loop, sock, address, context, make)
        except ssl.SSLError as exc:
            # One line without a traceback: any client can cause this by speaking plain HTTP to the port.
            gen_log.info("SSL Error on %s: %s", address, exc)
            error = exc
        except OSError as exc:
            error = exc  # the peer left or was too slow, which is as common as a port scan: not logged
        except asyncio.CancelledError:
            self._not_started(protocol, sock, None)
            raise
        except Exception as exc:
            app_log.exception("Error in connection callback")
            error = exc
        else:
            return
        finally:
            # Not in the task's done callback, which comes a turn later: the connection would be counted twice.
            self._starting.discard(asyncio.current_task())
            if protocol is not None:
                self._met -= 1
        if error is not None:
            self._tell_refused("tls" if isinstance(error, ssl.SSLError) else "gone")
            # The traceback is a reference cycle: its frames refer to the error, and to the transport with a buffer of
            # 256 KiB. Clients that send garbage instead of a handshake would fill memory faster than the garbage
            # collector frees it.
            error.__traceback__ = None
        self._not_started(protocol, sock, error)

    async def _start_tls(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        address: Any,
        context: ssl.SSLContext,
        make: Callable[[], asyncio.Protocol],
    ) -> None:
        readiness = None if self._serves_streams else Readiness.of(loop)
        if readiness is not None:
            await TLSTransport.accept(
                loop,
                readiness,
                sock,
                address,
                context,
                make,
                handshake_timeout=self.tls_handshake_timeout,
                shutdown_timeout=SHUTDOWN_TIMEOUT,
            )
        else:
            await loop.connect_accepted_socket(
                make,
                sock,
                ssl=context,
                ssl_handshake_timeout=self.tls_handshake_timeout,
                ssl_shutdown_timeout=SHUTDOWN_TIMEOUT,
            )

    def _tell_refused(self, reason: str) -> None:
        if self.on_refused is not None:
            self.on_refused(reason)

    def _not_started(self, protocol: asyncio.Protocol | None, sock: socket.socket, error: Exception | None) -> None:
        """Give up a connection that got no transport."""
        if protocol is None:
            sock.close()
        else:
            # The transport owns the socket and closes it later. Closing it here could close a descriptor that another
            # connection has by then.
            protocol.connection_lost(error)  # asyncio calls it only for protocols whose transport was made
        self._connection_ended()

    def _protocol(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, address: Any, preface: Preface | None
    ) -> asyncio.Protocol:
        """Return the protocol of a new connection."""
        from bridge.core.iostream import stream_protocol

        return stream_protocol(
            self.handle_stream,
            loop,
            sock,
            address,
            tls=self._has_tls,
            max_buffer_size=self.max_buffer_size,
            read_chunk_size=self.read_chunk_size,
        )

    @property
    def _serves_streams(self) -> bool:
        """Whether connections are IOStreams. They start before their TLS handshake, on asyncio's transports."""
        return True

    @property
    def _has_tls(self) -> bool:
        return self.ssl_options is not None or self._tls is not None

    def _tls_context(self) -> ssl.SSLContext | None:
        """Return the context for the next connection, None without TLS."""
        if self._tls is not None:
            return self._tls()
        if self._context is None and self.ssl_options is not None:
            self._context = ssl_options_to_context(self.ssl_options, server_side=True, alpn=self._alpn)
        return self._context

    def _pause_accepting(self) -> None:
        if not self._full:
            self._full = True
            for remove in self._removers.values():
                remove()
            now = time.monotonic()
            if now >= self._next_warning:
                self._next_warning = now + _WARNING_PAUSE
                gen_log.warning(
                    "%d connections are open, the most allowed: new ones wait, health probes too",
                    self.max_connections,
                )

    def _connection_ended(self) -> None:
        """Accept again if the server was full."""
        if self._full and not self._stopped:
            self._full = False
            for number, sock in self._sockets.items():
                self._removers[number] = add_accept_handler(sock, self._accepted, per_turn=self.accepts_per_turn)


def is_loop(value: object) -> bool:
    """Tell whether *value* is an event loop: Tornado's, bridge's or asyncio's. Old programs pass one."""
    return hasattr(value, "add_callback") or hasattr(value, "call_soon")
