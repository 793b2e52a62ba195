"""A server on a real socket, and a client that sends exactly what it is told to."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from bridge.core.connection.parameters import ConnectionParameters
from bridge.core.httpserver import HTTPServer
from tests.support.faults import TEST_LIMIT, Raises, application_errors

__all__ = ["TIMEOUT", "Client", "TLSClient", "address_of", "serving", "until"]

# Nothing here takes long; this only keeps a test that fails from hanging (seconds).
TIMEOUT = 10.0


@asynccontextmanager
async def serving(delegate: Any, *, tls: Any = None, raises: Raises = (), **params: Any) -> AsyncIterator[HTTPServer]:
    """Serve on a free port with these ConnectionParameters; stop, and drain, at the end.

    What the delegate has raised is raised in the test, unless the test says that it *raises*.
    """
    with application_errors(raises):
        server = HTTPServer(delegate, ssl_options=tls, server_name=b"bridge", params=ConnectionParameters(**params))
        server.listen(0, "127.0.0.1")
        try:
            async with asyncio.timeout(TEST_LIMIT):
                yield server
        finally:
            server.stop()
            async with asyncio.timeout(TIMEOUT):
                await server.close_all_connections()
            assert not server.connections
            assert server.connection_count() == 0


def address_of(server: HTTPServer) -> tuple[str, int]:
    (sock,) = server._sockets.values()
    host, port = sock.getsockname()
    return host, port


async def until(condition: Callable[[], bool]) -> None:
    """Wait until something is so that nobody tells of, a turn of the loop at a time."""
    async with asyncio.timeout(TIMEOUT):
        while not condition():
            await asyncio.sleep(0.001)


class Client:
    """A TCP connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self.received = b""

    @classmethod
    async def connect(cls, server: HTTPServer, *, receive_buffer: int | None = None) -> Client:
        sock = socket.socket()
        sock.setblocking(False)
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(sock, address_of(server))
        return cls(sock)

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._sock.close()

    async def send(self, *pieces: bytes) -> None:
        """Send, until the server wants no more: it may have answered and closed."""
        async with asyncio.timeout(TIMEOUT):
            for piece in pieces:
                try:
                    await self._loop.sock_sendall(self._sock, piece)
                except (ConnectionResetError, BrokenPipeError):
                    return
                if len(pieces) > 1:
                    await asyncio.sleep(0)

    async def read(self, ending: bytes) -> bytes:
        """Read until *ending* has come; return all that was received so far."""
        async with asyncio.timeout(TIMEOUT):
            while not self.received.endswith(ending):
                data = await self._loop.sock_recv(self._sock, 1 << 18)
                assert data, (self.received, ending)
                self.received += data
        return self.received

    async def read_to_the_end(self) -> bytes:
        async with asyncio.timeout(TIMEOUT):
            while data := await self._loop.sock_recv(self._sock, 1 << 18):
                self.received += data
        return self.received

    def half_close(self) -> None:
        self._sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    def close(self) -> None:
        self._sock.close()


class TLSClient:
    """A TLS connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, server: HTTPServer, context: ssl.SSLContext) -> TLSClient:
        host, port = address_of(server)
        async with asyncio.timeout(TIMEOUT):
            return cls(*await asyncio.open_connection(host, port, ssl=context, server_hostname="localhost"))

    async def __aenter__(self) -> TLSClient:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._writer.close()
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._writer.wait_closed()
        except (OSError, ssl.SSLError):
            pass

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def read(self, ending: bytes) -> bytes:
        async with asyncio.timeout(TIMEOUT):
            return await self._reader.readuntil(ending)

    async def read_to_the_end(self) -> bytes:
        async with asyncio.timeout(TIMEOUT):
            return await self._reader.read()
