"""Fields that every response gets, over a real connection, for each interface."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.request import urlopen

import pytest

from bridge.serving.embedding import Server

pytest_plugins = ["bridge.pytest_plugin"]


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-frame-options", b"SAMEORIGIN")]})
    await send({"type": "http.response.body", "body": b"hi"})


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("X-Frame-Options", "SAMEORIGIN")])
    return [b"hi"]


def call(request: Any) -> None:
    from bridge.core.httputil import HTTPHeaders, ResponseStartLine

    request.connection.write_headers(
        ResponseStartLine("HTTP/1.1", 200, "OK"), HTTPHeaders({"X-Frame-Options": "SAMEORIGIN", "Content-Length": "2"})
    )
    request.connection.write(b"hi")
    request.connection.finish()


@pytest.mark.parametrize("app", [asgi, wsgi, call])
def test_every_response_has_them(bridge_server: Callable[..., Server], app: Any) -> None:
    interface = {"asgi": "asgi3", "wsgi": "wsgi", "call": "callable"}[app.__name__]
    server = bridge_server(
        app, interface=interface, lifespan="off", header=["X-Frame-Options: DENY", "Server: mine"], request_id="new"
    )
    with urlopen(server.url) as answer:
        fields = [(name.lower(), value) for name, value in answer.headers.items()]
    assert [value for name, value in fields if name == "x-frame-options"] == ["DENY"]
    assert [value for name, value in fields if name == "server"] == ["mine"]
    assert any(name == "x-request-id" for name, _ in fields)
