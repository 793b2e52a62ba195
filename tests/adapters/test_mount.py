"""Several applications on one port: which one gets a request, and what each is told of its place."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from bridge.adapters.asgi import ASGIDelegate
from bridge.adapters.mount import Mount
from bridge.apps.lifecycle import application_for, load_mount_points
from bridge.config import Config
from bridge.config.kinds import MOUNTS
from bridge.core.connection.parameters import ConnectionParameters
from bridge.core.httputil import HTTPServerRequest, ResponseStartLine
from bridge.errors import ConfigError, LifespanFailed
from tests.support.asgi import connect, served
from tests.support.protocols import BOTH_PROTOCOLS

pytestmark = BOTH_PROTOCOLS


def asgi(name: str) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        text = f"{name} {scope['root_path']} {scope['path']}".encode()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": text})

    return app


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [f"wsgi {environ['SCRIPT_NAME']} {environ['PATH_INFO']}".encode()]


def tornado_style(request: HTTPServerRequest) -> None:
    text = f"tornado {request.path}".encode()
    connection: Any = request.connection
    connection.write_headers(ResponseStartLine("HTTP/1.1", 200, "OK"), _headers(len(text)), text)
    connection.finish()


def _headers(length: int) -> Any:
    from bridge.core.httputil import HTTPHeaders

    return HTTPHeaders({"Content-Length": str(length)})


async def answers(delegate: Any, *targets: str) -> list[str]:
    """Ask for all targets on one connection; a host may stand in front of the path."""
    found = []
    async with served(None, delegate=delegate) as server, connect(server.port) as client:
        for target in targets:
            name, _, path = target.partition("/")
            client.send(f"GET /{path} HTTP/1.1\r\nHost: {name or 'a'}\r\n\r\n".encode())
            status, _, content = await client.response()
            found.append(content.decode() if status == 200 else str(status))
    return found


async def test_paths() -> None:
    mount = Mount()
    mount.add("/", ASGIDelegate(asgi("root")))
    mount.add("/api", ASGIDelegate(asgi("api"), root_path="/api"))
    mount.add("/api/v2/", ASGIDelegate(asgi("v2"), root_path="/api/v2"))
    mount.add("/caf\u00e9", ASGIDelegate(asgi("cafe"), root_path="/caf\u00e9"))
    mount.add("/legacy", tornado_style)
    assert await answers(
        mount,
        "/",
        "/api",
        "/api/",
        "/api/x",
        "/apix",
        "/api/v2/y",
        "/api/v2x",
        "/caf%C3%A9/z",
        "/legacy/a",
        "/other?/api/x",
        "/%61pi/x",
    ) == [
        "root  /",
        "api /api /api",
        "api /api /api/",
        "api /api /api/x",
        "root  /apix",
        "v2 /api/v2 /api/v2/y",
        "api /api /api/v2x",
        "cafe /caf\u00e9 /caf\u00e9/z",
        "tornado /legacy/a",
        "root  /other",
        "api /api /api/x",
    ]


async def test_hosts() -> None:
    mount = Mount()
    mount.add("/api", ASGIDelegate(asgi("api")))
    mount.add("/", ASGIDelegate(asgi("admin")), host="Admin.Example.com")
    mount.add("/", ASGIDelegate(asgi("any")), host="*.example.com")
    assert await answers(
        mount,
        "admin.example.com/x",
        "ADMIN.example.com:8000/api/x",
        "admin.example.com./x",
        "www.example.com/x",
        "a.b.example.com/x",
        "example.com/x",
        "example.com/api/x",
        "notexample.com/x",
    ) == [
        "admin  /x",
        "admin  /api/x",
        "admin  /x",
        "any  /x",
        "any  /x",
        "404",
        "api  /api/x",
        "404",
    ]


async def test_nothing_is_mounted_twice_or_nowhere() -> None:
    mount = Mount()
    mount.add("/a", asgi)
    with pytest.raises(ValueError, match="two applications at /a"):
        mount.add("/a/", asgi)
    with pytest.raises(ValueError, match="begin with a slash"):
        mount.add("a", asgi)
    with pytest.raises(TypeError):
        mount.add("/b", object())


async def test_limits_of_content() -> None:
    mount = Mount()
    mount.add("/small", ASGIDelegate(asgi("small")), limit=10, limited=True)
    mount.add("/any", ASGIDelegate(asgi("any")), limit=None, limited=True)
    mount.add("/", ASGIDelegate(asgi("root")))
    params = ConnectionParameters(max_body_size=100, limit_after_start=True)
    for target, size, status in (
        ("/small", 10, 200),
        ("/small", 11, 413),
        ("/any", 1000, 200),
        ("/", 100, 200),
    ):
        async with served(None, delegate=mount, params=params) as server, connect(server.port) as client:
            client.send(f"POST {target} HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n".encode() + bytes(size))
            assert (await client.head())[0] == status, (target, size)


async def test_delegates_are_told_of_the_end_of_connections() -> None:
    closed: list[str] = []

    class Told(ASGIDelegate):
        def on_close(self, connection: Any) -> None:
            closed.append(self.root_path)

    mount = Mount()
    for path in ("/a", "/b", "/c"):
        mount.add(path, Told(asgi(path), root_path=path))
    await answers(mount, "/a", "/b", "/a")
    assert closed == ["/a", "/b"]
    assert not mount._used


# ------------------------------------------------------------------ the setting


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("/api=api:app", (("", "/api", "api:app"),)),
        ("/=site.wsgi:application", (("", "", "site.wsgi:application"),)),
        ("/a/b/=x.py:app", (("", "/a/b", "x.py:app"),)),
        ("Admin.example.com/=m:make()", (("admin.example.com", "", "m:make()"),)),
        ("*.example.com/x=m", (("*.example.com", "/x", "m"),)),
        ("[::1]/=m", (("[::1]", "", "m"),)),
        ("/a=m:a,/b=m:b", (("", "/a", "m:a"), ("", "/b", "m:b"))),
    ],
)
def test_places(text: str, value: object) -> None:
    assert MOUNTS.parse(text) == value


@pytest.mark.parametrize("text", ["", "/api", "api=m:app", "/api=", "=m:app", "a b/=m", "/a?b=m", "ex*.com/=m"])
def test_places_that_are_none(text: str) -> None:
    with pytest.raises(ValueError):
        MOUNTS.parse(text)


async def test_hosting_of_all_kinds(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "mounted_apps", raising=False)  # of the other protocol
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mounted_apps.py").write_text(
        "events = []\n"
        "async def api(scope, receive, send):\n"
        "    if scope['type'] == 'lifespan':\n"
        "        scope['state']['who'] = 'api'\n"
        "        events.append((await receive())['type'])\n"
        "        await send({'type': 'lifespan.startup.complete'})\n"
        "        events.append((await receive())['type'])\n"
        "        await send({'type': 'lifespan.shutdown.complete'})\n"
        "        return\n"
        "    text = ' '.join((scope['state']['who'], scope['root_path'], scope['path'])).encode()\n"
        "    await send({'type': 'http.response.start', 'status': 200})\n"
        "    await send({'type': 'http.response.body', 'body': text})\n"
        "def site(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [' '.join(('site', environ['SCRIPT_NAME'], environ['PATH_INFO'])).encode()]\n"
    )
    config = Config(
        app_dir=str(tmp_path),
        mount=(("", "/api", "mounted_apps:api"), ("", "", "mounted_apps:site"), ("", "/wsgi", "mounted_apps:site")),
    )
    application = application_for(config, load_mount_points(config))
    assert application.kind.startswith("/api ASGI; / WSGI")
    assert application.limit_after_start
    await application.startup()
    found = await answers(application.delegate, "/api/x", "/x", "/wsgi/x")
    application.stop(restart=False)
    await application.shutdown(5)
    assert found == ["api /api /api/x", "site  /x", "site /wsgi /x"]
    import mounted_apps  # type: ignore[import-not-found]

    assert mounted_apps.events == ["lifespan.startup", "lifespan.shutdown"]


async def test_the_whole_server_is_a_path_of_the_root_only() -> None:
    """OPTIONS * asks for no path; RFC 9110 section 9.3.7."""

    async def answer(mount: Mount) -> int:
        async with served(None, delegate=mount) as server, connect(server.port) as client:
            client.send(b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n")
            status, _, _ = await client.response()
            return status

    mount = Mount()
    mount.add("/api", ASGIDelegate(asgi("api"), root_path="/api"))
    mount.add("/", ASGIDelegate(asgi("host")), host="a")
    assert await answer(mount) == 404
    mount.add("/", ASGIDelegate(asgi("root")))
    assert await answer(mount) == 200


async def test_below_a_root_path() -> None:
    mount = Mount()
    mount.add("/api", ASGIDelegate(asgi("api"), root_path="/outer/api", outer_path="/outer"))
    assert await answers(mount, "/api/x") == ["api /outer/api /outer/api/x"]


async def test_an_application_that_cannot_start_ends_the_others(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "half_broken", raising=False)  # of the other protocol
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "half_broken.py").write_text(
        "events = []\n"
        "async def good(scope, receive, send):\n"
        "    events.append((await receive())['type'])\n"
        "    await send({'type': 'lifespan.startup.complete'})\n"
        "    events.append((await receive())['type'])\n"
        "    await send({'type': 'lifespan.shutdown.complete'})\n"
        "async def bad(scope, receive, send):\n"
        "    await receive()\n"
        "    await send({'type': 'lifespan.startup.failed', 'message': 'no'})\n"
    )
    mount = (("", "/bad", "half_broken:bad"),)
    config = Config(app_dir=str(tmp_path), target="half_broken:good", mount=mount)
    application = application_for(config, load_mount_points(config))
    with pytest.raises(LifespanFailed, match="no"):
        await application.startup()
    await application.shutdown(0)
    import half_broken  # type: ignore[import-not-found]

    assert half_broken.events == ["lifespan.startup", "lifespan.shutdown"]


def test_a_place_that_is_given_twice(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "twice.py").write_text("async def app(scope, receive, send): pass\n")
    config = Config(app_dir=str(tmp_path), target="twice:app", mount=(("", "", "twice:app"),))
    with pytest.raises(ConfigError, match="--mount: two applications at /"):
        application_for(config, load_mount_points(config))


async def test_the_old_form_of_asgi() -> None:
    class Old:
        def __init__(self, scope: Any) -> None:
            self.scope = scope

        async def __call__(self, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200})
            await send({"type": "http.response.body", "body": self.scope["path"].encode()})

    config = Config(lifespan="off")
    application = application_for(config, load_mount_points(config, Old))
    assert application.kind == "ASGI 2"
    assert await answers(application.delegate, "/x") == ["/x"]
