"""Tornado's interface over HTTP/2: callables and delegates, and what has no meaning on a stream."""

from __future__ import annotations

from typing import Any

import pytest

from bridge.core.httputil import HTTPHeaders, ResponseStartLine
from bridge.core.tornado.dispatch import adapt
from bridge.core.tornado.startline import HTTPOutputError
from tests.support.http2 import HTTP2Link, linked2


def answer(request: Any, text: bytes = b"ok") -> None:
    request.connection.write_headers(
        ResponseStartLine("", 200, "OK"), HTTPHeaders({"Content-Length": str(len(text))}), text
    )
    request.connection.finish()


def test_a_callable_answers() -> None:
    def app(request: Any) -> None:
        answer(request, repr((request.version, request.host, request.body)).encode())

    with linked2(adapt(app)) as link:
        assert link.stream(link.request()).content == b"('HTTP/2.0', 'a', b'')"
        number = link.request(method="POST", ended=False)
        link.data(number, b"hello", ended=True)
        assert link.stream(number).content == b"('HTTP/2.0', 'a', b'hello')"


class Delegate:
    """A Tornado-style delegate that answers with the content, and pauses before it."""

    def __init__(self, link: HTTP2Link | None = None) -> None:
        self.calls: list[str] = []

    def start_request(self, server_connection: Any, connection: Any) -> Any:
        self.connection = connection
        self.body = b""
        return self

    def headers_received(self, start_line: Any, headers: Any) -> Any:
        self.calls.append(f"{start_line.method} {start_line.version} {headers['Host']}")

    def data_received(self, chunk: bytes) -> None:
        self.body += chunk

    def finish(self) -> None:
        self.connection.write_headers(
            ResponseStartLine("", 200, "OK"), HTTPHeaders({"Content-Length": str(len(self.body))}), self.body
        )
        self.connection.finish()

    def on_connection_close(self) -> None:
        self.calls.append("closed")

    def on_close(self, server_connection: Any) -> None:
        self.calls.append("connection closed")


def test_a_delegate_answers_and_is_told_of_resets() -> None:
    delegate = Delegate()
    with linked2(adapt(delegate)) as link:
        number = link.request(method="POST", ended=False)
        link.data(number, b"abc", ended=True)
        assert link.stream(number).content == b"abc"
        number = link.request(method="POST", ended=False)
        link.cancel(number)
    assert delegate.calls == ["POST HTTP/2.0 a", "POST HTTP/2.0 a", "closed", "connection closed"]


def test_what_has_no_meaning_on_a_stream_says_so() -> None:
    seen: list[Any] = []

    def app(request: Any) -> None:
        connection = request.connection
        stream = connection.stream
        assert (stream.closed(), stream.writing(), stream.reading()) == (False, False, False)
        assert stream.socket is not None
        stream.set_nodelay(True)
        stream.set_close_callback(None)
        for refused in (
            lambda: connection.write(b"HTTP/1.1 200 OK\r\n\r\n"),
            lambda: stream.write(b"x"),
            lambda: stream.set_close_callback(print),
        ):
            with pytest.raises(HTTPOutputError, match="HTTP/2") as caught:
                refused()
            seen.append(caught)
        if request.path == "/detach":
            with pytest.raises(HTTPOutputError, match="belongs to all of its requests"):
                connection.detach()
        elif request.path == "/close":
            connection.close()
            assert stream.closed()
        else:
            answer(request)

    with linked2(adapt(app)) as link:
        assert link.stream(link.request()).content == b"ok"
        assert link.stream(link.request(path="/detach")).status == 500
        assert link.stream(link.request(path="/close")).reset == 8
        assert link.stream(link.request()).content == b"ok"
    assert len(seen) == 12
