"""An ASGI application behind a real socket, and clients that say what they want byte by byte."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from bridge.adapters.asgi import ASGIDelegate
from bridge.core.httpserver import HTTPServer
from tests.support.faults import TEST_LIMIT, Raises, application_errors
from tests.support.protocols import in_front

__all__ = ["Client", "Served", "connect", "served"]

LIMIT = 10.0  # seconds after which a wait is a failed test


class Served:
    """A running server.

    Attributes:
        port: Where it listens, on 127.0.0.1.
        http: The server.
        delegate: Its delegate.
    """

    def __init__(self, port: int, http: HTTPServer, delegate: Any) -> None:
        self.port = port
        self.http = http
        self.delegate = delegate


@contextlib.asynccontextmanager
async def served(
    app: Any, *, params: Any = None, delegate: Any = None, raises: Raises = (), **options: Any
) -> AsyncIterator[Served]:
    """Serve *app*, or *delegate*, while the block runs; then raise what the application has raised.

    Args:
        app: An ASGI application.
        params: The connections' parameters.
        delegate: Served in place of *app*.
        raises: What the application is expected to raise.
        **options: The delegate's.
    """
    with application_errors(raises) as errors:
        delegate = ASGIDelegate(errors.asgi(app), **options) if delegate is None else delegate
        http = HTTPServer(delegate, params=params) if params is not None else HTTPServer(delegate)
        http.listen(0, "127.0.0.1")
        port = next(iter(http._sockets.values())).getsockname()[1]
        try:
            async with asyncio.timeout(TEST_LIMIT):
                async with in_front(http, port) as front:
                    yield Served(front, http, delegate)
        finally:
            http.stop()
            await http.drain(0)
            if isinstance(delegate, ASGIDelegate):
                cancelled = await delegate.wait(LIMIT)
        if isinstance(delegate, ASGIDelegate):
            assert cancelled == 0, "the application did not end"


class Client:
    """One connection to a server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def get(self, target: str = "/", *fields: str) -> None:
        """Send a GET request."""
        self.send("\r\n".join([f"GET {target} HTTP/1.1", "Host: a", *fields, "", ""]).encode())

    async def head(self) -> tuple[int, dict[str, str]]:
        """Return the status and the fields of the next response."""
        async with asyncio.timeout(LIMIT):
            lines = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines[1:] if line)}
        return int(lines[0].split(" ")[1]), fields

    async def response(self) -> tuple[int, dict[str, str], bytes]:
        """Return the next response with its content, for which it must have a length."""
        status, fields = await self.head()
        async with asyncio.timeout(LIMIT):
            return status, fields, await self.reader.readexactly(int(fields.get("content-length", "0")))

    async def rest(self) -> bytes:
        """Return everything up to the end of the connection, which may be a reset."""
        data = b""
        async with asyncio.timeout(LIMIT):
            with contextlib.suppress(ConnectionError):
                while piece := await self.reader.read(65536):
                    data += piece
        return data

    async def close(self) -> None:
        """Close at once."""
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    def reset(self) -> None:
        """Reset the connection."""
        import socket
        import struct

        sock = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


@contextlib.asynccontextmanager
async def connect(port: int) -> AsyncIterator[Client]:
    """Connect while the block runs."""
    client = Client(*await asyncio.open_connection("127.0.0.1", port))
    try:
        yield client
    finally:
        await client.close()
