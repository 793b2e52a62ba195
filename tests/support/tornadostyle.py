"""Servers of Tornado-style delegates and callables behind real sockets."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from bridge.core.httpserver import HTTPServer
from bridge.core.httputil import (
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    HTTPServerRequest,
    RequestStartLine,
    ResponseStartLine,
)
from tests.support.faults import TEST_LIMIT, Raises, application_errors

__all__ = ["OK", "Application", "Message", "answer", "echo", "port_of", "serving"]

OK = ResponseStartLine("HTTP/1.1", 200, "OK")


def port_of(server: Any) -> int:
    return int(next(iter(server._sockets.values())).getsockname()[1])


@contextlib.asynccontextmanager
async def serving(
    callback: Any, *, server_type: type[HTTPServer] = HTTPServer, raises: Raises = (), **options: Any
) -> AsyncIterator[int]:
    """Serve *callback* on 127.0.0.1 while the block runs; the value is the port.

    What the callback has raised is raised in the test, unless the test says that it *raises*.
    """
    with application_errors(raises):
        server = server_type(callback, **options)
        server.listen(0, "127.0.0.1")
        try:
            async with asyncio.timeout(TEST_LIMIT):
                yield port_of(server)
        finally:
            server.stop()
            async with asyncio.timeout(5):
                await server.close_all_connections()


def answer(connection: Any, content: bytes, **fields: str) -> Awaitable[None]:
    """Write a whole response."""
    headers = HTTPHeaders({"Content-Length": str(len(content)), **fields})
    flushed: Awaitable[None] = connection.write_headers(OK, headers, content)
    connection.finish()
    return flushed


def echo(request: HTTPServerRequest) -> None:
    """A callable that answers with the request's content."""
    answer(request.connection, request.body or request.uri.encode())


class Message(HTTPMessageDelegate):
    """Writes down what it is told, and answers when the request is complete.

    Attributes:
        calls: The names of the methods that were called.
        body: All content.
        chunks: The sizes of the pieces it came in.
    """

    def __init__(self, owner: Application, server_conn: Any, connection: Any) -> None:
        self.owner = owner
        self.server_conn = server_conn
        self.connection = connection
        self.calls: list[str] = []
        self.body = b""
        self.chunks: list[int] = []

    def headers_received(self, start_line: Any, headers: Any) -> Awaitable[None] | None:
        assert isinstance(start_line, RequestStartLine)
        assert isinstance(headers, HTTPHeaders)
        self.calls.append("headers")
        self.start_line, self.headers = start_line, headers
        return self._hook("on_headers")

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        self.calls.append("data")
        self.body += chunk
        self.chunks.append(len(chunk))
        return self._hook("on_data")

    def finish(self) -> None:
        self.calls.append("finish")
        if self._hook("on_finish") is None and "on_finish" not in self.owner.hooks:
            answer(self.connection, self.body)

    def on_connection_close(self) -> None:
        self.calls.append("close")
        self.owner.closed.set()
        self._hook("on_connection_close")

    def _hook(self, name: str) -> Any:
        hook: Callable[[Message], Any] | None = self.owner.hooks.get(name)
        return None if hook is None else hook(self)


class Application(HTTPServerConnectionDelegate):
    """Makes a Message for every request.

    Args:
        **hooks: Called with the message: on_headers, on_data, on_finish (in place of the answer), on_connection_close.

    Attributes:
        messages: All of them.
        closed: Some message was told on_connection_close.
        ended: What on_close was called with.
    """

    def __init__(self, **hooks: Callable[[Message], Any]) -> None:
        self.hooks = hooks
        self.messages: list[Message] = []
        self.closed = asyncio.Event()
        self.ended: list[Any] = []
        self.one_ended = asyncio.Event()

    def start_request(self, server_conn: Any, request_conn: Any) -> Message:
        message = Message(self, server_conn, request_conn)
        self.messages.append(message)
        return message

    def on_close(self, server_conn: Any) -> None:
        self.ended.append(server_conn)
        self.one_ended.set()
