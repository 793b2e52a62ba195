from __future__ import annotations

import contextvars
from typing import Any

import pytest

from bridge.core.httputil import (
    HTTPConnection,
    HTTPHeaders,
    HTTPMessageDelegate,
    HTTPServerConnectionDelegate,
    RequestStartLine,
    ResponseStartLine,
)
from bridge.core.iostream import StreamClosedError
from bridge.core.tornado.dispatch import adapt
from tests.support.link import GET, linked


def test_a_message_delegate_may_leave_out_what_it_does_not_need() -> None:
    delegate = HTTPMessageDelegate()
    assert delegate.headers_received(RequestStartLine("GET", "/", "HTTP/1.1"), HTTPHeaders()) is None
    assert delegate.data_received(b"a") is None
    delegate.finish()
    delegate.on_connection_close()


def test_a_server_delegate_must_take_requests() -> None:
    delegate = HTTPServerConnectionDelegate()
    delegate.on_close(object())
    with pytest.raises(NotImplementedError):
        delegate.start_request(object(), HTTPConnection())


def test_a_connection_must_write() -> None:
    connection = HTTPConnection()
    with pytest.raises(NotImplementedError):
        connection.write_headers(ResponseStartLine("HTTP/1.1", 200, "OK"), HTTPHeaders(), b"", lambda: None)
    with pytest.raises(NotImplementedError):
        connection.write(b"", lambda: None)
    with pytest.raises(NotImplementedError):
        connection.finish()


def test_writes_that_fail_let_others_run() -> None:
    connections: list[Any] = []
    with linked(adapt(lambda request: connections.append(request.connection))) as link:
        link.send(GET)
        link.reset()
        futures = [connections[0].write(b"x") for _ in range(40)]
        waiting = [number for number, future in enumerate(futures) if not future.done()]
        assert len(waiting) == 2
        assert waiting[1] - waiting[0] == 16
        link.loop.settle()
        assert all(isinstance(future.exception(), StreamClosedError) for future in futures)


variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="clean")


class NotingDelegate(HTTPServerConnectionDelegate):
    """Notes what each of its methods sees in a context variable that its methods set."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def start_request(self, server_conn: object, request_conn: Any) -> HTTPMessageDelegate:
        self.see("start")
        return NotingMessage(self, request_conn)

    def see(self, name: str) -> None:
        self.seen.append(variable.get())
        variable.set(name)


class NotingMessage(HTTPMessageDelegate):
    def __init__(self, server: NotingDelegate, connection: Any) -> None:
        self.server = server
        self.connection = connection

    def headers_received(self, start_line: Any, headers: Any) -> Any:
        self.server.see("headers")

        async def later() -> None:
            self.server.see("a task's own")

        return later()

    def data_received(self, chunk: bytes) -> None:
        self.server.see("data")

    def finish(self) -> None:
        self.server.see("finish")
        self.connection.set_close_callback(lambda: self.server.see("closed"))

    def on_connection_close(self) -> None:
        self.server.see("lost")


POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"


def answer(connection: Any) -> None:
    connection.write_headers(ResponseStartLine("HTTP/1.1", 200, "OK"), HTTPHeaders({"Content-Length": "0"}))
    connection.finish()


@pytest.mark.parametrize("awaits", [False, True])
@pytest.mark.parametrize("wire", [GET, POST])
def test_a_callable_sees_no_variables_of_the_request_before(wire: bytes, awaits: bool) -> None:
    seen = []

    def called(request: Any) -> None:
        seen.append(variable.get())
        variable.set("dirty")
        answer(request.connection)  # the next request, which has arrived, begins here

    async def coroutine(request: Any) -> None:
        called(request)

    with linked(adapt(coroutine if awaits else called)) as link:
        link.send(wire * 3)
        link.loop.settle()
        link.send(wire)
        link.loop.settle()
    assert seen == ["clean"] * 4


def test_a_delegate_sees_the_variables_of_its_own_request_only() -> None:
    delegate = NotingDelegate()
    with linked(adapt(delegate)) as link:
        link.send(POST)
        link.loop.settle()
        link.reset()
        link.loop.settle()
        assert delegate.seen == ["clean", "start", "headers", "headers", "data", "finish"]
    delegate.seen.clear()
    with linked(adapt(delegate)) as link:
        link.send(POST[:-1])
        link.loop.settle()
        link.reset()
        link.loop.settle()
        assert delegate.seen == ["clean", "start", "headers", "headers", "data"]
    assert variable.get() == "clean"
