"""Who is shown an exception by ``--debug``."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable
from typing import Any

import pytest

import bridge
from bridge.serving import debugging
from tests.support.running import Client

pytest_plugins = ["bridge.pytest_plugin"]
pytest.importorskip("werkzeug")


def wsgi(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    if environ["PATH_INFO"] == "/error":
        raise LookupError("the needle")
    content = " ".join(sorted(environ)).encode()
    start_response("200 OK", [("Content-Length", str(len(content)))])
    return [content]


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise NotImplementedError
    if scope["path"] == "/error":
        raise LookupError("the needle")
    content = b" ".join(name for name, _ in scope["headers"])
    fields = [(b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": content})


Serve = Callable[..., bridge.Server]
both = pytest.mark.parametrize("app", [wsgi, asgi], ids=["wsgi", "asgi"])


def page(server: bridge.Server, *lines: str, path: str = "/error", host: str = "localhost") -> bytes:
    address = server.sockets[0].getsockname()
    with Client(address) as client:
        text = "".join(f"{line}\r\n" for line in (f"GET {path} HTTP/1.1", f"Host: {host}", *lines))
        client.sock.sendall(text.encode() + b"Connection: close\r\n\r\n")
        received = b""
        while data := client.sock.recv(65536):
            received += data
    return received


@both
@pytest.mark.parametrize(
    "host", ["localhost", "localhost:8000", "LOCALHOST", "app.localhost:1", "127.0.0.1", "[::1]:80"]
)
def test_a_browser_on_this_machine_is_shown_it(bridge_server: Serve, app: Any, host: str) -> None:
    assert b"the needle" in page(bridge_server(app, debug=True), host=host)


REFUSED = [
    ((), "evil.example"),
    ((), "evil.example:8000"),
    ((), "localhost.evil.example"),
    ((), "127.0.0.1.evil.example"),
    ((), "192.168.1.5"),
    ((), "[fe80::1]"),
    (("X-Forwarded-Host: localhost",), "evil.example"),
    (("X-Forwarded-Host: localhost",), "localhost"),
    (("X-Forwarded-For: 127.0.0.1",), "localhost"),
    (("X-Forwarded-For: 203.0.113.9",), "localhost"),
    (("Forwarded: host=localhost;for=127.0.0.1",), "evil.example"),
    (("Via: 1.1 proxy",), "localhost"),
    *(((f"{name}: 203.0.113.9",), "localhost") for name in ("CF-Connecting-IP", "True-Client-IP", "X-Client-IP")),
    *(((f"{name}: x",), "localhost") for name in ("CDN-Loop", "X-Original-Forwarded-For", "X-Envoy-Attempt-Count")),
    *(((), host) for host in ("localhost.", "127.1", "2130706433", "0x7f000001", "0.0.0.0", "[::]", "[v1.localhost]")),
    ((), "127.0.0.1."),
]


@both
@pytest.mark.parametrize("trusted", [False, True])
@pytest.mark.parametrize(("lines", "host"), REFUSED)
def test_others_get_a_plain_500(
    bridge_server: Serve, app: Any, trusted: bool, lines: tuple[str, ...], host: str
) -> None:
    options = {"proxy_headers": True, "forwarded_allow_ips": ["*"]} if trusted else {}
    received = page(bridge_server(app, debug=True, **options), *lines, host=host)
    assert received.startswith(b"HTTP/1.1 500 ")
    assert received.endswith(b"\r\n\r\n500 Internal Server Error\r\n")


def test_the_console_is_not_there_for_others(bridge_server: Serve) -> None:
    server = bridge_server(wsgi, debug=True)
    path = "/?__debugger__=yes&cmd=resource&f=debugger.js"
    assert b"PATH_INFO" not in page(server, path=path)
    assert b"PATH_INFO" in page(server, path=path, host="evil.example")  # the application answers


def test_a_unix_socket_is_a_proxys(bridge_server: Serve, tmp_path: Any) -> None:
    server = bridge_server(asgi, debug=True, uds=str(tmp_path / "a.sock"), port=8000)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(server.sockets[0].getsockname())
        sock.sendall(b"GET /error HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"needle" not in sock.recv(65536)


@both
def test_everybody_is_shown_it_who_may_be_anywhere(bridge_server: Serve, app: Any) -> None:
    server = bridge_server(app, debug=True, debug_anywhere=True)
    assert b"the needle" in page(server, "X-Forwarded-For: 203.0.113.9", host="evil.example")


@both
def test_the_mark_is_not_seen_by_the_application(bridge_server: Serve, app: Any) -> None:
    assert b"x-debug" not in page(bridge_server(app, debug=True), path="/").lower().replace(b"_", b"-")


@both
def test_a_mark_cannot_be_guessed(bridge_server: Serve, app: Any) -> None:
    received = page(bridge_server(app, debug=True), "X-Debug-: 1", host="evil.example")
    assert b"needle" not in received


def test_all_workers_have_the_same_secret() -> None:
    pytest.importorskip("werkzeug", reason="werkzeug is not installed")
    first, second = debugging._WSGIDebugger(None), debugging._WSGIDebugger(None)
    assert first._debugged.secret == second._debugged.secret
    assert len(first._debugged.secret) > 20


def test_the_page_tells_the_programs_frames_from_those_of_libraries() -> None:
    def raising() -> None:
        json.loads("<b>")

    try:
        raising()  # stands for the call of the application by the page's own module
    except ValueError as exc:
        page = debugging._page(exc, "GET /<i>").decode()
    own = re.findall(r'<span class="own">(.*?)</span>', page, re.DOTALL)
    library = re.findall(r'<span class="lib">(.*?)</span>', page, re.DOTALL)
    assert len(own) == 1
    assert "in raising" in own[0]
    assert "in loads" in library[0]
    assert "json.loads(&quot;&lt;b&gt;&quot;)" in own[0]
    assert "<i>" not in page
    assert "color-scheme" in page
