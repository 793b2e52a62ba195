"""Routes of frameworks without any middleware, over a real server in this process."""

from __future__ import annotations

import asyncio
import contextlib
import re
from typing import Any

import pytest

import bridge
from tests.support.running import get


def fastapi_app() -> Any:
    import fastapi

    router = fastapi.APIRouter()

    @router.get("/inner/{name}")
    def inner(name: str) -> str:
        return name

    app = fastapi.FastAPI()
    app.include_router(router, prefix="/api")

    @app.get("/items/{item}")
    async def item(item: int) -> int:
        return item

    @app.get("/plain/{item}")
    def plain(item: int) -> int:
        return item

    app.mount("/sub", starlette_app())
    return app


def starlette_app() -> Any:
    from starlette.applications import Starlette
    from starlette.responses import PlainTextResponse
    from starlette.routing import Mount, Route

    async def show(request: Any) -> Any:
        return PlainTextResponse("ok")

    return Starlette(
        routes=[Route("/users/{name}", show), Mount("/mounted", routes=[Route("/users/{name:str}", show)])]
    )


def flask_app() -> Any:
    import flask

    app = flask.Flask("metrics_of_flask")

    @app.get("/users/<int:number>")
    def users(number: int) -> str:
        return str(number)

    part = flask.Blueprint("part", "metrics_of_flask", url_prefix="/part")

    @part.get("/<name>")
    def named(name: str) -> str:
        return name

    app.register_blueprint(part)
    return app


def plain_app() -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            if scope["path"] != "/none":
                scope["bridge.route"] = "/named/by/hand"
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"ok"})

    return app


def plain_wsgi_app() -> Any:
    def app(environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] != "/none":
            environ["bridge.route"] = "/named/by/hand"
        start_response("200 OK", [])
        yield b"ok"

    return app


CASES = [
    (plain_wsgi_app, "/", "/named/by/hand"),
    (plain_wsgi_app, "/none", None),
    (fastapi_app, "/items/3", "/items/{item}"),
    (fastapi_app, "/plain/3", "/plain/{item}"),
    (fastapi_app, "/items/x", "/items/{item}"),
    (fastapi_app, "/api/inner/a", "/api/inner/{name}"),
    (fastapi_app, "/sub/users/a", "/sub/users/{name}"),
    (fastapi_app, "/missing", None),
    (starlette_app, "/users/a", "/users/{name}"),
    (starlette_app, "/mounted/users/a", "/mounted/users/{name:str}"),
    (starlette_app, "/missing", None),
    (flask_app, "/users/7", "/users/<int:number>"),
    (flask_app, "/part/a", "/part/<name>"),
    (flask_app, "/missing", None),
    (plain_app, "/", "/named/by/hand"),
    (plain_app, "/none", None),
]


@pytest.mark.parametrize(("make", "path", "route"), CASES)
@pytest.mark.parametrize("options", [{}, {"timeout_request": 30.0}], ids=["", "timed"])
async def test_routes(make: Any, path: str, route: str | None, options: dict[str, Any]) -> None:
    async with bridge.Server(make(), port=0, access_log=False, metrics_path="/metrics", **options) as server:
        address = server.sockets[0].getsockname()
        await asyncio.to_thread(get, address, path)
        async with asyncio.timeout(10):
            found: list[str] = []
            while not found:  # a WSGI response is counted when its thread is done, which the client does not see
                text = (await asyncio.to_thread(get, address, "/metrics"))[2].decode()
                found = re.findall(r"^http_server_request_duration_seconds_count\{(.*)\} 1$", text, re.MULTILINE)
    assert len(found) == 1, text
    match = re.search(r'http_route="([^"]*)"', found[0])
    assert (match[1] if match else None) == route


@pytest.mark.parametrize(
    ("options", "sent", "reason"), [({"proxy_protocol": "auto"}, b"GET / HTTP/1.1\r\n\r\n", "preface")]
)
async def test_connections_that_speak_no_http(options: dict[str, Any], sent: bytes, reason: str, tmp_path: Any) -> None:
    async with bridge.Server(
        plain_app(), port=0, access_log=False, admin_bind=f"unix:{tmp_path / 'a'}", **options
    ) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(sent)
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()
        text = (await asyncio.to_thread(get, str(tmp_path / "a"), "/metrics"))[2].decode()
    assert f'bridge_connections_refused_total{{reason="{reason}"}} 1' in text


async def test_a_handshake_that_fails(tmp_path: Any) -> None:
    import trustme

    path = tmp_path / "cert.pem"
    trustme.CA().issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(path)
    async with bridge.Server(
        plain_app(), port=0, access_log=False, admin_bind=f"unix:{tmp_path / 'a'}", ssl_certfile=str(path)
    ) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        await reader.read()
        writer.close()
        text = (await asyncio.to_thread(get, str(tmp_path / "a"), "/metrics"))[2].decode()
    assert 'bridge_connections_refused_total{reason="tls"} 1' in text
    assert re.search(r'bridge_tls_certificate_expiry_seconds\{host="\*"\} [0-9]{10}', text)
