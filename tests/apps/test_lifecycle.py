"""The settings reach the adapters, and an application below a root path and a mount is told where it is."""

from __future__ import annotations

import asyncio
import inspect
import json
import time
from typing import Any

import pytest

from bridge.adapters.asgi import ASGIDelegate
from bridge.adapters.wsgi import WSGIDelegate
from bridge.apps.detection import Interface
from bridge.apps.lifecycle import (
    MountedApplications,
    WSGIApplication,
    adapt_application,
)
from bridge.config import Config
from bridge.core.connection.parameters import ConnectionParameters
from bridge.core.connection.websocket import WebSocketOptions
from bridge.core.http.limits import Limits
from bridge.core.middleware.proxy import ProxyDelegate, ProxyPolicy
from tests.support.asgi import connect, served


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        (ASGIDelegate, {"timeout": "timeout_request", "grace": "timeout_disconnect_grace"}),
        (
            WSGIDelegate,
            {
                "threads_min": "threads_min",
                "threads_idle": "threads_idle",
                "queue": "wsgi_queue",
                "queue_timeout": "wsgi_queue_timeout",
                "buffer_requests": "wsgi_buffer_requests",
                "buffer_responses": "wsgi_buffer_responses",
                "timeout": "timeout_request",
            },
        ),
        (
            WebSocketOptions,
            {
                "max_size": "ws_max_size",
                "max_queue": "ws_max_queue",
                "ping_interval": "ws_ping_interval",
                "ping_timeout": "ws_ping_timeout",
            },
        ),
        (
            ConnectionParameters,
            {
                "head_timeout": "timeout_request_head",
                "keep_alive_timeout": "timeout_keep_alive",
                "body_timeout": "timeout_request_body",
                "write_timeout": "timeout_write",
            },
        ),
        (
            Limits,
            {
                "request_line": "limit_request_line",
                "field_line": "limit_request_field_size",
                "fields": "limit_request_fields",
                "head": "limit_request_head",
            },
        ),
    ],
)
def test_who_embeds_the_parts_has_the_defaults_of_the_settings(kind: Any, names: dict[str, str]) -> None:
    parameters = inspect.signature(kind).parameters
    found = {name: parameters[name].default for name in names}
    assert found == {name: getattr(Config(), setting) for name, setting in names.items()}


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "application/json")])
    keys = ("SCRIPT_NAME", "PATH_INFO", "wsgi.multithread", "wsgi.multiprocess")
    return [json.dumps({key: environ[key] for key in keys}).encode()]


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    found = {"root_path": scope["root_path"], "path": scope["path"]}
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": json.dumps(found).encode()})


async def ask(application: Any, target: str, *lines: str) -> Any:
    delegate = ProxyDelegate(application.delegate, ProxyPolicy(["127.0.0.1"]))
    async with served(None, delegate=delegate) as server, connect(server.port) as client:
        client.send("\r\n".join([f"GET {target} HTTP/1.1", "Host: a", *lines, "", ""]).encode("latin-1"))
        status, _, content = await client.response()
        await application.shutdown(5)
        return json.loads(content) if status == 200 else status


def mounted(root: str, *paths: str) -> MountedApplications:
    config = Config(root_path=root)
    return MountedApplications(
        [("", path, adapt_application(wsgi, Interface.WSGI, config, path)) for path in paths], config
    )


@pytest.mark.parametrize(
    ("root", "target", "script", "path"),
    [
        ("", "/in/x", "/in", "/x"),
        ("", "/in", "/in", ""),
        ("", "/in/in/x", "/in", "/in/x"),
        ("", "/other", "", "/other"),
        ("/out", "/in/x", "/out/in", "/x"),  # the proxy has taken /out off
        ("/out", "/in", "/out/in", ""),
        ("/out", "/in/", "/out/in", "/"),
        ("/out", "/out/in/x", "/out/in", "/x"),  # it has not
        ("/out", "/out/in", "/out/in", ""),
        ("/out", "/out/inner", "/out", "/inner"),
        ("/out", "/outer", "/out", "/outer"),
        ("/out", "/out", "/out", ""),
        ("/out", "/", "/out", "/"),
        ("/in", "/in/x", "/in", "/x"),  # the longer of the two readings
        ("/in", "/in/in/x", "/in/in", "/x"),
        ("/caf\xe9", "/caf%C3%A9/in/%C3%A9", "/caf\xc3\xa9/in", "/\xc3\xa9"),
        ("/caf\xe9", "/in/%C3%A9", "/caf\xc3\xa9/in", "/\xc3\xa9"),
    ],
)
async def test_a_mount_below_a_root_path(root: str, target: str, script: str, path: str) -> None:
    found = await ask(mounted(root, "/in", ""), target)
    assert (found["SCRIPT_NAME"], found["PATH_INFO"]) == (script, path)


async def test_an_asgi_mount_is_found_below_a_root_path_that_the_proxy_leaves_on() -> None:
    config = Config(root_path="/out")
    application = MountedApplications([("", "/in", adapt_application(asgi, Interface.ASGI3, config, "/in"))], config)
    expected = {"root_path": "/out/in", "path": "/out/in/x"}
    assert await ask(application, "/in/x") == await ask(application, "/out/in/x") == expected


@pytest.mark.parametrize(
    ("root", "mount", "target", "script", "path"),
    [
        ("", "", "/x", "/shop", "/x"),
        ("", "", "/shop/x", "/shop", "/shop/x"),  # who sends the field has taken the prefix off
        ("", "/in", "/in/x", "/shop/in", "/x"),
        ("/out", "/in", "/in/x", "/shop/out/in", "/x"),
        ("/out", "/in", "/out/in/x", "/shop/out/in", "/x"),
        ("/out", "", "/out/x", "/shop/out", "/x"),
    ],
)
async def test_a_prefix_that_a_trusted_proxy_reports(
    root: str, mount: str, target: str, script: str, path: str
) -> None:
    found = await ask(mounted(root, mount), target, "X-Forwarded-Prefix: /shop")
    assert (found["SCRIPT_NAME"], found["PATH_INFO"]) == (script, path)


def test_the_servers_certificate_reaches_the_adapter() -> None:
    def certificate() -> str:
        return "PEM"

    application: Any = adapt_application(asgi, Interface.ASGI3, Config(), certificate=certificate)
    assert application.delegate._certificate is certificate


@pytest.mark.parametrize(
    ("workers", "threads", "multiprocess", "multithread"),
    [(None, 64, False, True), (1, 64, True, True), (4, 1, True, False), (None, 1, False, False)],
)
async def test_multiprocess_and_multithread(
    workers: int | None, threads: int, multiprocess: bool, multithread: bool
) -> None:
    found = await ask(WSGIApplication(wsgi, Config(workers=workers, threads=threads), ""), "/")
    assert (found["wsgi.multiprocess"], found["wsgi.multithread"]) == (multiprocess, multithread)


def test_the_settings_of_wsgi() -> None:
    config = Config(
        threads=7,
        threads_min=2,
        threads_idle=3.0,
        wsgi_queue=5,
        wsgi_queue_timeout=4.0,
        wsgi_buffer_requests=None,
        wsgi_buffer_responses=1000,
        timeout_request=9.0,
    )
    delegate = WSGIApplication(wsgi, config, "").delegate
    pool = delegate.pool
    assert (pool.maximum, pool.minimum, pool.idle_timeout, pool.queue_limit) == (7, 2, 3.0, 5)
    assert (delegate.queue_timeout, delegate.buffer_requests, delegate.response_file) == (4.0, None, 1000)
    assert delegate.timeout == 9.0


async def test_many_slow_requests_wait_by_default() -> None:
    """Clients that ask for something slow at once are served, not refused."""

    def slow(environ: Any, start_response: Any) -> list[bytes]:
        time.sleep(0.002)
        return wsgi(environ, start_response)

    application = WSGIApplication(slow, Config(), "")

    async def one(port: int) -> int:
        async with connect(port) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            return int((await client.response())[0])

    async with served(None, delegate=application.delegate) as server:
        found = await asyncio.gather(*(one(server.port) for _ in range(200)))
    await application.shutdown(5)
    assert set(found) == {200}
