from __future__ import annotations

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
