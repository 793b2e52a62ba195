"""Scopes: what stands in them, what requests of one connection share, and what they must not share."""

from __future__ import annotations

import contextvars
import copy
import pickle
import socket
from collections.abc import Callable
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest

from bridge.adapters.asgi import ASGIDelegate
from bridge.adapters.asgi.scope import ASGI_VERSIONS, ReadOnly, ScopeTemplate, into_websocket_scope
from bridge.core.connection.context import ConnectionContext
from bridge.core.http1.request import Limits, parse_head
from tests.support.asgi import connect, served


async def ok(send: Any, data: bytes = b"ok") -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": data})


class FakeExchange(SimpleNamespace):
    """What a template needs of an exchange."""

    def __init__(self, target: str = "/", peer: Any = ("192.0.2.1", 4000), local: Any = ("192.0.2.2", 80)) -> None:
        head = parse_head(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode(), 0, Limits())
        family = socket.AF_INET if isinstance(peer, tuple) else socket.AF_UNIX
        context = ConnectionContext(peer, family, "http", local)
        super().__init__(head=head, context=context, connection_context=context, loop=None)


def template(exchange: Any, root: str = "", outer: str = "", extensions: Any = None) -> ScopeTemplate:
    return ScopeTemplate(exchange, root, outer, extensions or {})


def scope_of(made: ScopeTemplate, exchange: Any) -> Any:
    return made.make_scope(made.scope, exchange.head, ASGI_VERSIONS, made.extensions) or made.scope_of(exchange.head)


# ------------------------------------------------------------------ the template


@pytest.mark.parametrize(
    ("root", "outer", "target", "path"),
    [
        ("", "", "/x", "/x"),
        ("/api", "/api", "/api/x", "/api/x"),  # the proxy has removed nothing
        ("/api", "/api", "/x", "/api/x"),  # ... or all of it
        ("/api", "/api", "/apix", "/api/apix"),
        ("/outer/api", "/outer", "/api/x", "/outer/api/x"),  # ... or the part that is its own
        ("/outer/api", "/outer", "/outer/api/x", "/outer/api/x"),
        ("/api", "", "/api/x", "/api/x"),
    ],
)
def test_paths(root: str, outer: str, target: str, path: str) -> None:
    exchange: Any = FakeExchange(target)
    assert scope_of(template(exchange, root, outer), exchange)["path"] == path


@pytest.mark.parametrize(
    ("peer", "local", "client", "server"),
    [
        (("192.0.2.1", 4000), ("192.0.2.2", 80), ("192.0.2.1", 4000), ("192.0.2.2", 80)),
        ("", "/run/web.sock", None, ("/run/web.sock", None)),
        ("", b"\0abstract", None, ("\0abstract", None)),
        ("", "", None, None),
    ],
)
def test_addresses(peer: Any, local: Any, client: Any, server: Any) -> None:
    exchange: Any = FakeExchange(peer=peer, local=local)
    scope = scope_of(template(exchange), exchange)
    assert (scope["client"], scope["server"]) == (client, server)
    if client is not None:
        assert scope["client"] is exchange.context.address


@pytest.mark.parametrize(("scheme", "other"), [("http", "ws"), ("https", "wss")])
def test_the_scope_of_a_websocket(scheme: str, other: str) -> None:
    exchange: Any = FakeExchange()
    scope = scope_of(template(exchange, extensions={"tls": {"a": 1}, "http.response.trailers": {}}), exchange)
    scope["scheme"] = scheme
    into_websocket_scope(scope, ["chat"])
    assert (scope["type"], scope["scheme"], scope["subprotocols"]) == ("websocket", other, ["chat"])
    assert scope["extensions"] == {"websocket.http.response": {}, "tls": {"a": 1}}
    assert "method" not in scope


# ------------------------------------------------------------------ as an application sees it


async def test_scope() -> None:
    seen: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        await ok(send)

    async with served(app, root_path="/r", state={"a": 1}) as server, connect(server.port) as client:
        client.get("/caf%C3%A9/x%2Fy?q=%20", "X-A: 1", "x-a: 2")
        await client.response()
        peer = client.writer.get_extra_info("sockname")
    (scope,) = seen
    assert scope["type"] == "http"
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.5"}
    assert (scope["http_version"], scope["method"], scope["scheme"]) == ("1.1", "GET", "http")
    assert (scope["root_path"], scope["path"]) == ("/r", "/r/café/x/y")
    assert (scope["raw_path"], scope["query_string"]) == (b"/caf%C3%A9/x%2Fy", b"q=%20")
    assert scope["headers"] == [(b"host", b"a"), (b"x-a", b"1"), (b"x-a", b"2")]
    assert (scope["client"], scope["server"]) == (peer, ("127.0.0.1", server.port))
    assert scope["state"] == {"a": 1}
    assert scope["extensions"].keys() == {
        "http.response.trailers",
        "http.response.early_hint",
        "http.response.zerocopysend",
        "bridge.shutdown.notice",
    }


async def test_pathsend_is_offered_only_if_asked_for() -> None:
    seen: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append("http.response.pathsend" in scope["extensions"])
        await ok(send)

    for pathsend in (False, True):
        async with served(app, pathsend=pathsend) as server, connect(server.port) as client:
            client.get("/")
            await client.response()
    assert seen == [False, True]


async def test_path_with_the_root_path_is_left_alone() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await ok(send, scope["path"].encode())

    async with served(app, root_path="/api") as server, connect(server.port) as client:
        for target, path in (("/api/x", b"/api/x"), ("/x", b"/api/x"), ("/apix", b"/api/apix"), ("/api", b"/api")):
            client.get(target)
            assert (await client.response())[2] == path


async def test_nothing_leaks_to_the_next_request() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="clean")
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        extensions = scope["extensions"]
        seen.append(
            (
                variable.get(),
                dict(scope["state"]),
                len(scope["headers"]),
                "mine" in extensions,
                {name: list(value) for name, value in extensions.items()},
                dict(scope["asgi"]),
            )
        )
        variable.set("dirty")
        scope["state"]["dirty"] = 1
        scope["headers"].append((b"dirty", b"1"))
        scope["asgi"]["spec_version"] = "dirty"
        for name in extensions:
            with pytest.raises(TypeError, match="put a copy in their place"):
                extensions[name]["dirty"] = 1
            extensions[name] = {**extensions[name], "dirty": 1}
        extensions["mine"] = {}
        scope["mine"] = 1
        await ok(send)

    async with served(app, state={}) as server, connect(server.port) as client:
        for _ in range(3):
            client.get()
            await client.response()
    assert seen == [seen[0]] * 3
    assert seen[0][:4] == ("clean", {}, 1, False)


def test_what_all_scopes_share_is_read_only_and_copies_are_not() -> None:
    shared = ReadOnly(a=[1])
    changes: list[Callable[[Any], Any]] = [
        lambda value: value.__setitem__("b", 2),
        lambda value: value.__delitem__("a"),
        lambda value: value.__ior__({"b": 2}),
        lambda value: value.update(b=2),
        lambda value: value.setdefault("b", 2),
        lambda value: value.pop("a"),
        lambda value: value.popitem(),
        lambda value: value.clear(),
    ]
    for change in changes:
        with pytest.raises(TypeError, match="read-only"):
            change(shared)
    changing = set(dir(dict)) - set(dir(MappingProxyType)) - {"fromkeys"}
    assert changing <= vars(ReadOnly).keys()  # no method is forgotten
    assert shared == {"a": [1]}
    for made in (
        copy.copy(shared),
        copy.deepcopy(shared),
        shared.copy(),
        shared | {},
        pickle.loads(pickle.dumps(shared)),
    ):
        assert type(made) is dict
        assert made == shared


# ------------------------------------------------------------------ behind a proxy


async def test_what_a_proxy_has_reported() -> None:
    seen: list[Any] = []

    class Proxied:
        """Gives every exchange a context, as the delegate for forwarded fields does."""

        def __init__(self, delegate: ASGIDelegate) -> None:
            self.delegate = delegate

        def start_exchange(self, exchange: Any) -> Any:
            context = exchange.context = exchange.context.copy()
            context.remote_ip, context.remote_port, context.has_remote = "192.0.2.9", 0, True
            context.protocol = "https"
            context.local_address, context.forwarded_server = ("shop.example", 443), True
            context.prefix = "/sh%C3%B6p"
            return self.delegate.start_exchange(exchange)

        def on_close(self, connection: Any) -> None:
            self.delegate.on_close(connection)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append({key: scope[key] for key in ("scheme", "client", "server", "root_path", "path", "raw_path")})
        await ok(send)

    delegate = ASGIDelegate(app, root_path="/r")
    async with served(None, delegate=Proxied(delegate)) as server, connect(server.port) as client:
        for target in ("/x", "/r/x", "/sh%C3%B6p/r/x"):
            client.get(target)
            await client.response()
    common = {"scheme": "https", "client": ("192.0.2.9", 0), "server": ("shop.example", 443), "root_path": "/shöp/r"}
    assert seen == [
        {**common, "path": "/shöp/r/x", "raw_path": b"/x"},
        {**common, "path": "/shöp/r/x", "raw_path": b"/r/x"},
        # The proxy has taken one prefix off, so what looks like another one is the application's: a rule of the
        # proxy's for one path is not passed by way of another.
        {**common, "path": "/shöp/r/shöp/r/x", "raw_path": b"/sh%C3%B6p/r/x"},
    ]


async def test_every_scope_has_its_own_request_line() -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(f"{scope['http_version']} {scope['method']} {scope['raw_path'].decode()} {scope['path']}")
        seen[-1] += f" {scope['query_string'].decode()}"
        scope.update(http_version="?", method="?", raw_path=b"?", path="?", query_string=b"?")
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    lines = ["GET / HTTP/1.1", "GET / HTTP/1.1", "GET /a%20b?c HTTP/1.1", "HEAD /a%20b?c HTTP/1.1", "GET / HTTP/1.1"]
    async with served(app) as server, connect(server.port) as client:
        for line in (*lines, *reversed(lines), "GET /?c HTTP/1.0"):
            client.send(f"{line}\r\nHost: x\r\n\r\n".encode())
            await client.response()
    expected = ["1.1 GET / / ", "1.1 GET / / ", "1.1 GET /a%20b /a b c", "1.1 HEAD /a%20b /a b c", "1.1 GET / / "]
    assert seen == [*expected, *reversed(expected), "1.0 GET / / c"]


async def test_what_scopes_have_in_common_is_kept_from_the_second_request_on() -> None:
    scopes = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    async with served(app) as server, connect(server.port) as client:
        kept = []
        for number in range(6):
            client.get("/")
            await client.response()
            (connection,) = server.http.connections
            kept.append(connection.templates.get(server.delegate))
            if number == 3:
                connection.on_idle()
                assert not connection.templates
        assert kept[0] is None
        assert kept[1] is kept[2] is kept[3] is not None
        assert kept[4] is kept[5] is not kept[3]
    assert all(scope == scopes[0] for scope in scopes)
