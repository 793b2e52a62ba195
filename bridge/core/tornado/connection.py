"""A server's TCP connection under Tornado's documented names: a wrapper of ServerConnection."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from bridge.core.connection.context import ConnectionContext
from bridge.core.stream.errors import StreamClosedError
from bridge.core.tornado.startline import HTTPOutputError

if TYPE_CHECKING:
    from bridge.core.connection.http1 import ServerConnection
    from bridge.core.connection.http1exchange import HTTP1Exchange
    from bridge.core.connection.interfaces import ConnectionDelegate
    from bridge.core.connection.parameters import ConnectionParameters
    from bridge.core.stream.stream import IOStream

__all__ = ["TornadoConnection", "context_of"]

#: The wrappers of open connections. One is made when it is first asked for, since most connections never need it.
_known: dict[ServerConnection, TornadoConnection] = {}


class TornadoConnection:
    """The server's side of one TCP connection: its stream, its two ends, its close.

    Args:
        connection: The connection that speaks HTTP.
        stream: The stream whose transport the connection reads; None if it has a transport of its own.
    """

    __slots__ = ("__weakref__", "_connection", "_ended", "_serving", "_stream")

    def __init__(self, connection: ServerConnection, stream: IOStream | None = None) -> None:
        self._connection = connection
        self._stream = stream
        self._ended: asyncio.Future[None] | None = None
        self._serving: asyncio.Task[None] | None = None
        _known[connection] = self
        connection.add_end_callback(self._end)

    @staticmethod
    def of(connection: ServerConnection) -> TornadoConnection:
        """Return the wrapper of *connection*, always the same one."""
        return _known.get(connection) or TornadoConnection(connection)

    @property
    def context(self) -> ConnectionContext:
        """The two ends."""
        return self._connection.context

    @property
    def params(self) -> ConnectionParameters:
        """The limits and times of the server. ``TornadoExchange.params`` has them under Tornado's names."""
        return self._connection.parameters

    @property
    def transport(self) -> asyncio.Transport | None:
        """The transport; None before and after the connection."""
        return self._connection.transport

    @property
    def stream(self) -> IOStream | None:
        """A stream over the connection's transport; None after :meth:`detach`, after the end, and in HTTP/2."""
        stream = self._stream
        if stream is None and self._connection.transport is not None and hasattr(self._connection, "take_transport"):
            from bridge.core.stream.stream import IOStream

            parameters = self._connection.parameters
            stream = self._stream = IOStream.of_connection(
                self._connection, parameters.max_buffer_size, parameters.chunk_size
            )
        return stream

    @property
    def exchange(self) -> HTTP1Exchange | None:
        """The current exchange; None between two, and in HTTP/2, where there may be many."""
        return getattr(self._connection, "exchange", None)

    def serve(self, stream: IOStream, delegate: ConnectionDelegate | None = None) -> None:
        """Serve *stream* as soon as it is ready, that is, after its TLS handshake.

        Args:
            stream: The stream.
            delegate: Starts the exchanges; None for the connection's own.
        """
        self._stream = stream
        if delegate is not None:
            self._connection.delegate = delegate
        self._serving = self._connection.loop.create_task(self._serve(stream))

    async def _serve(self, stream: IOStream) -> None:
        connection = self._connection
        try:
            await stream.ready()
            transport, rest = stream.lend(connection)
        except StreamClosedError:
            connection.connection_lost(None)
            return
        connection.connection_made(transport)
        if rest:
            connection.data_received(rest)

    async def close(self) -> None:
        """Close the connection and wait until it has ended. Several calls at once are allowed."""
        if self._ended is None:
            self._ended = self._connection.loop.create_future()
        if self._connection.transport is not None:
            self._connection.cut(reset=False)
        elif self._stream is not None and not self._stream.closed():
            self._stream.close()
        else:
            return
        await asyncio.shield(self._ended)

    def detach(self) -> IOStream:
        """Take the transport and the unread bytes from HTTP, and return them as a stream.

        Raises:
            HTTPOutputError: The connection was detached before, or has ended.
        """
        stream = self.stream
        if stream is None:
            raise HTTPOutputError("the connection was detached before, has ended, or speaks HTTP/2")
        if self._connection.transport is not None:
            self._stream = None
            stream.take_back(*self._connection.take_transport(stream))
        return stream

    def _end(self, error: Exception | None) -> None:
        """Note that HTTP has ended on the connection."""
        _known.pop(self._connection, None)
        if self._stream is not None:
            self._stream.lender_lost(error)
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)


def context_of(stream: IOStream, address: Any = None) -> ConnectionContext:
    """Return the two ends of a stream.

    Args:
        stream: The stream.
        address: The peer's address; None to ask the socket.
    """
    from bridge.core.stream.tls import SSLIOStream

    sock = stream.socket
    local = None
    with contextlib.suppress(OSError):  # not connected any more: the first read fails
        address, local = address or sock.getpeername(), sock.getsockname()
    return ConnectionContext(address, sock.family, "https" if isinstance(stream, SSLIOStream) else "http", local)
