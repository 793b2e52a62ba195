"""A non-blocking, single-threaded TCP server (Tornado's documented TCPServer).

Listening sockets are watched with ``add_reader`` and every accepted one is given to ``connect_accepted_socket``; both
work before the loop runs, after a fork and with TLS, and ``stop`` is synchronous.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bridge.core.ioloop import IOLoop
from bridge.core.log import app_log, gen_log
from bridge.core.net.tls import SSLOptions
from bridge.core.netutil import add_accept_handler, bind_sockets, check_ssl_options, ssl_options_to_context

__all__ = ["TCPServer", "is_loop"]

# An end to the taking of waiting connections while more come in; the longest queue that settings allow.
_MOST_WAITING = 65535


class TCPServer:
    """Accepts connections; subclasses override :meth:`handle_stream`.

    Args:
        ssl_options: An ``ssl.SSLContext``, or a dictionary with certfile, keyfile, ssl_version, cert_reqs, ca_certs,
            ciphers.
        max_buffer_size: Most bytes buffered per connection; None for 100 MiB.
        read_chunk_size: Bytes read at once; None for 64 KiB.
        *more: For calls in the order of Tornado 4.5, whose first argument was io_loop.
        io_loop: Not used: a server runs on the event loop that is current when it starts.

    Raises:
        KeyError: ssl_options without certfile.
        ValueError: ssl_options with a file that does not exist, or with an unknown key.
    """

    #: Seconds that a TLS handshake may take.
    tls_handshake_timeout: float = 10.0
    #: Most connections taken in one turn of the loop. Processes that share a socket should take few at a time.
    #: One that starts has a task, which an idle one has not, and those that are open wait meanwhile:
    #: with 128, 2,000 at once need 0.6 MiB more. What each costs is the same with 16 and with 128.
    accepts_per_turn: int = 32
    #: Most connections held at once; None for no limit. More wait in the listening socket's queue.
    max_connections: int | None = None

    def __init__(
        self,
        ssl_options: SSLOptions | None = None,
        max_buffer_size: Any = None,
        read_chunk_size: int | None = None,
        *more: int | None,
        io_loop: object = None,
    ) -> None:
        if is_loop(ssl_options) or isinstance(max_buffer_size, Mapping | ssl.SSLContext):
            # Up to Tornado 4.5 io_loop stood first.
            ssl_options, max_buffer_size, read_chunk_size = max_buffer_size, read_chunk_size, (more or (None,))[0]
        check_ssl_options(ssl_options)
        self.ssl_options = ssl_options
        self.max_buffer_size = max_buffer_size or 104857600
        self.read_chunk_size = min(read_chunk_size or 65536, self.max_buffer_size // 2)
        self._context: ssl.SSLContext | None = None
        self._sockets: dict[int, socket.socket] = {}
        self._removers: dict[int, Callable[[], None]] = {}
        self._pending: list[socket.socket] = []
        self._starting: set[asyncio.Task[None]] = set()
        self._met = 0  # of these: whose protocol exists
        self._full = False
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
        """Serve the bound sockets, in child processes if there are to be several.

        Args:
            num_processes: 1 for this process only; None, 0 or less for a child per CPU; else that many children.
            max_restarts: How often, in total, a child that died is replaced; None for 100.
        """
        assert not self._started, "start() was called before"
        self._started = True
        if num_processes != 1:
            from bridge.core.process import fork_processes

            fork_processes(num_processes, max_restarts)
        sockets, self._pending = self._pending, []
        self.add_sockets(sockets)

    def add_sockets(self, sockets: Iterable[socket.socket]) -> None:
        """Serve listening sockets, TCP or unix, on the current event loop; also after a :meth:`stop`."""
        self._stopped = False
        for sock in sockets:
            sock.setblocking(False)
            self._sockets[sock.fileno()] = sock
            self._removers[sock.fileno()] = add_accept_handler(sock, self._accepted, per_turn=self.accepts_per_turn)

    def add_socket(self, socket: socket.socket) -> None:
        """Serve one listening socket."""
        self.add_sockets([socket])

    def accept_waiting(self) -> None:
        """Take the connections that wait in the listening sockets' queues: :meth:`stop` would reset them.

        For a server whose sockets nobody else listens on; others would take them.
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
        """Return how many connections are open, as far as this class knows."""
        return len(self._starting)

    def _accepted(self, sock: socket.socket, address: Any) -> None:
        loop = IOLoop.current().asyncio_loop
        task = loop.create_task(self._start_connection(loop, sock, address))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)
        if self.max_connections is not None and self.connection_count() >= self.max_connections:
            self._pause_accepting()

    async def _start_connection(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, address: Any) -> None:
        """Give an accepted socket its transport, after the handshake if there is TLS."""
        protocol: asyncio.Protocol | None = None

        def make() -> asyncio.Protocol:
            nonlocal protocol
            protocol = self._protocol(loop, sock, address)
            self._met += 1
            return protocol

        error: Exception | None = None
        try:
            context = self._tls_context()
            await loop.connect_accepted_socket(
                make,
                sock,
                ssl=context,
                ssl_handshake_timeout=self.tls_handshake_timeout if context is not None else None,
            )
        except ssl.SSLError as exc:
            # One line without a traceback: anybody can cause this by talking plain HTTP to the port.
            gen_log.info("SSL Error on %s: %s", address, exc)
            error = exc
        except OSError as exc:
            error = exc  # the peer left, or took too long: as common as a port scan, and nobody's fault here
        except asyncio.CancelledError:
            self._not_started(protocol, sock, None)
            raise
        except Exception as exc:
            app_log.exception("Error in connection callback")
            error = exc
        else:
            return
        finally:
            # At once: from here on it is counted as a connection, or not at all.
            self._starting.discard(asyncio.current_task())
            if protocol is not None:
                self._met -= 1
        if error is not None:
            # A cycle: its frames know the error, and the transport with a buffer of 256 KiB. Whoever sends garbage
            # instead of a handshake would fill the memory faster than the garbage collector empties it.
            error.__traceback__ = None
        self._not_started(protocol, sock, error)

    def _not_started(self, protocol: asyncio.Protocol | None, sock: socket.socket, error: Exception | None) -> None:
        """Give up a connection whose transport did not come about."""
        if protocol is None:
            sock.close()
        else:
            # The socket is the transport's, which closes it in its own time: by then the descriptor could be another's.
            protocol.connection_lost(error)  # which nobody else will call
        self._connection_ended()

    def _protocol(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, address: Any) -> asyncio.Protocol:
        """Return the protocol of a new connection."""
        from bridge.core.iostream import stream_protocol

        return stream_protocol(self, loop, sock, address)

    def _tls_context(self) -> ssl.SSLContext | None:
        """Return the context for the next connection; overriding this lets certificates be replaced while serving."""
        if self._context is None and self.ssl_options is not None:
            self._context = ssl_options_to_context(self.ssl_options, server_side=True)
        return self._context

    def _pause_accepting(self) -> None:
        if not self._full:
            self._full = True
            for remove in self._removers.values():
                remove()

    def _connection_ended(self) -> None:
        """Accept again if the server was full."""
        if self._full and not self._stopped:
            self._full = False
            for number, sock in self._sockets.items():
                self._removers[number] = add_accept_handler(sock, self._accepted, per_turn=self.accepts_per_turn)


def is_loop(value: object) -> bool:
    """Tell whether *value* is an event loop, Tornado's, ours or asyncio's, where an old program gives one."""
    return hasattr(value, "add_callback") or hasattr(value, "call_soon")
