"""A WSGI application behind a server in this process, asked over real sockets."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from bridge.adapters.wsgi import WSGIDelegate
from bridge.core.connection.parameters import ConnectionParameters
from bridge.core.httpserver import HTTPServer
from bridge.core.netutil import bind_sockets
from tests.support.faults import TEST_LIMIT, Raises, application_errors
from tests.support.protocols import in_front

TIMEOUT = 10.0


class Answer:
    """One response, taken apart."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        head, _, self.body = raw.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        self.status_line = lines[0].decode("latin-1")
        self.status = int(lines[0].split(b" ")[1]) if lines[0] else 0
        self.fields = [tuple(line.decode("latin-1").split(": ", 1)) for line in lines[1:]]
        self.headers = {name.lower(): value for name, value in self.fields}

    @property
    def chunks(self) -> list[bytes]:
        """The body taken apart; it must be complete."""
        found, body, at = [], self.body, 0
        while True:
            start = body.index(b"\r\n", at) + 2
            end = start + int(body[at : start - 2], 16)
            at = end + 2
            assert body[end:at] == b"\r\n"
            if start == end:
                assert at == len(body)
                return found
            found.append(body[start:end])

    @property
    def content(self) -> bytes:
        return b"".join(self.chunks) if self.headers.get("transfer-encoding") == "chunked" else self.body


class Served:
    """A server and what it takes to ask it."""

    def __init__(self, delegate: WSGIDelegate, server: HTTPServer, address: tuple[str, int]) -> None:
        self.delegate = delegate
        self.server = server
        self.address = address
        self.tls: ssl.SSLContext | None = None

    async def connect(self, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if self.tls is not None:
            options.update(ssl=self.tls, server_hostname="localhost")
        return await asyncio.open_connection(*self.address, **options)

    async def ask(self, raw: bytes) -> bytes:
        """Send bytes, and return all that comes back until the server closes."""
        reader, writer = await self.connect()
        writer.write(raw)
        try:
            return await asyncio.wait_for(reader.read(), TIMEOUT)
        finally:
            writer.close()

    async def get(self, path: str = "/", *lines: str, method: str = "GET", content: bytes = b"") -> Answer:
        """Send one request on a connection of its own."""
        head = [f"{method} {path} HTTP/1.1", "Host: a", "Connection: close", *lines]
        if content:
            head.append(f"Content-Length: {len(content)}")
        return Answer(await self.ask("\r\n".join([*head, "", ""]).encode("latin-1") + content))


@asynccontextmanager
async def serving(
    app: Any,
    *,
    params: ConnectionParameters | None = None,
    tls: ssl.SSLContext | None = None,
    close_timeout: float = 5.0,
    raises: Raises = (),
    **options: Any,
) -> AsyncIterator[Served]:
    """Serve *app*; every thread must have ended in the end. Then raise what the application has raised.

    Args:
        app: A WSGI application.
        params: The connections' parameters.
        tls: For TLS.
        close_timeout: Seconds in which all threads end.
        raises: What the application is expected to raise.
        **options: The delegate's.
    """
    with application_errors(raises):
        delegate = WSGIDelegate(app, **options)
        server = HTTPServer(delegate, params=params, ssl_options=tls)
        (sock,) = bind_sockets(0, "127.0.0.1")
        server.add_socket(sock)
        try:
            async with asyncio.timeout(TEST_LIMIT):
                host, port = sock.getsockname()
                async with in_front(server, port) as front:
                    yield Served(delegate, server, (host, front))
        finally:
            server.stop()
            await server.drain(1)
            left = await delegate.close(close_timeout)
        assert left == 0


def messages(caplog: Any) -> list[str]:
    """Return what the application's log says."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
