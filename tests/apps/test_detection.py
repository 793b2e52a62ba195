"""Detection: applications of real frameworks, and the callables that mislead."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable
from typing import Any
from unittest.mock import AsyncMock, Mock

import asgiref.compatibility
import asgiref.wsgi
import pytest

from bridge.apps.detection import Interface, detect, interface_of
from bridge.apps.loading import TargetError

# --- real frameworks -------------------------------------------------------------------------------------------------


def flask_app() -> object:
    import flask

    return flask.Flask("probe")


def django_app(name: str) -> object:
    from django.conf import settings

    if not settings.configured:
        settings.configure(ROOT_URLCONF="none", SECRET_KEY="none")
    from django.core.handlers.asgi import ASGIHandler
    from django.core.handlers.wsgi import WSGIHandler

    return {"asgi": ASGIHandler, "wsgi": WSGIHandler}[name]()


def fastapi_app() -> object:
    import fastapi

    return fastapi.FastAPI()


def starlette_app() -> object:
    from starlette.applications import Starlette

    return Starlette()


def starlette_endpoint() -> object:
    from starlette.endpoints import HTTPEndpoint

    class Endpoint(HTTPEndpoint):
        pass

    return Endpoint


def starlette_middleware() -> object:
    from starlette.middleware.gzip import GZipMiddleware

    return GZipMiddleware(starlette_app())  # type: ignore[arg-type]


def tornado_app() -> object:
    import tornado.web

    return tornado.web.Application([])


def tornado_wsgi_container() -> object:
    import tornado.wsgi

    return tornado.wsgi.WSGIContainer(flask_app())  # type: ignore[arg-type]


def werkzeug_proxy_fix() -> object:
    from werkzeug.middleware.proxy_fix import ProxyFix

    return ProxyFix(flask_app())  # type: ignore[arg-type]


def a2wsgi_app(name: str) -> object:
    import a2wsgi

    return a2wsgi.WSGIMiddleware(flask_app()) if name == "asgi" else a2wsgi.ASGIMiddleware(starlette_app())


FRAMEWORKS: list[tuple[str, Callable[[], object], Interface]] = [
    ("Flask", flask_app, Interface.WSGI),
    ("Flask's wsgi_app, a bound method", lambda: flask_app().wsgi_app, Interface.WSGI),  # type: ignore[attr-defined]
    ("Django wsgi", lambda: django_app("wsgi"), Interface.WSGI),
    ("Django asgi", lambda: django_app("asgi"), Interface.ASGI3),
    ("FastAPI", fastapi_app, Interface.ASGI3),
    ("Starlette", starlette_app, Interface.ASGI3),
    ("Starlette endpoint, a class that is awaited", starlette_endpoint, Interface.ASGI3),
    ("Starlette middleware", starlette_middleware, Interface.ASGI3),
    ("tornado.web", tornado_app, Interface.TORNADO),
    ("tornado's WSGIContainer", tornado_wsgi_container, Interface.CALLABLE),
    ("Werkzeug's ProxyFix", werkzeug_proxy_fix, Interface.WSGI),
    ("asgiref's WsgiToAsgi", lambda: asgiref.wsgi.WsgiToAsgi(flask_app()), Interface.ASGI3),  # type: ignore[arg-type, no-untyped-call, unused-ignore]
    ("a2wsgi to ASGI", lambda: a2wsgi_app("asgi"), Interface.ASGI3),
    ("a2wsgi to WSGI", lambda: a2wsgi_app("wsgi"), Interface.WSGI),
]


@pytest.mark.parametrize(("make", "expected"), [pytest.param(make, kind, id=name) for name, make, kind in FRAMEWORKS])
def test_framework(make: Callable[[], object], expected: Interface) -> None:
    assert detect(make()) is expected


# --- callables by hand -----------------------------------------------------------------------------------------------


async def asgi3(scope: Any, receive: Any, send: Any) -> None: ...


def asgi2(scope: Any) -> Any: ...


def wsgi(environ: Any, start_response: Any) -> Iterable[bytes]:
    return []


async def async_handler(request: Any) -> None: ...


def handler(request: Any) -> None: ...


def keeping_the_name(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def careless(function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


async def async_careless(*args: Any, **kwargs: Any) -> None: ...


async def asgi_with_defaults(scope: Any, receive: Any = None, send: Any = None) -> None: ...


async def async_handler_with_defaults(request: Any, a: Any = 1, b: Any = 2) -> None: ...


async def async_any_with_defaults(what: Any, a: Any = 1, b: Any = 2) -> None: ...


async def async_of_two(environ: Any, start_response: Any) -> None: ...


def asgi_returning_awaitable(scope: Any, receive: Any, send: Any) -> Any: ...


def scope_and_more(scope: Any, *rest: Any) -> Any: ...


def scope_of_two(scope: Any, other: Any) -> Any: ...


def wsgi_with_more(env: Any, start_response: Any, extra: Any = None) -> Any: ...


def wsgi_by_other_names(e: Any, s: Any) -> Any: ...


def three_of_other_names(s: Any, r: Any, w: Any) -> Any: ...


def bound_by_partial(extra: Any, environ: Any, start_response: Any) -> Any: ...


def half_open(what: Any, *rest: Any) -> Any: ...


def keyword_only(environ: Any, *, start_response: Any) -> Any: ...


def of_four(a: Any, b: Any, c: Any, d: Any) -> Any: ...


def factory() -> Any: ...


class AsyncCall:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...

    async def method(self, scope: Any, receive: Any, send: Any) -> None: ...


class Delegate:
    def start_exchange(self, connection: Any) -> Any: ...


class TornadoDelegate:
    def start_request(self, server_conn: Any, request_conn: Any) -> Any: ...

    def __call__(self, environ: Any, start_response: Any) -> Any: ...


class DelegateByAttribute:
    def __init__(self) -> None:
        self.start_exchange = handler


class Consumer:
    """An ASGI 2 application: an instance per scope."""

    def __init__(self, scope: Any) -> None: ...

    async def __call__(self, receive: Any, send: Any) -> None: ...


class AppClass:
    """The class of PEP 3333: an iterable per request."""

    def __init__(self, environ: Any, start_response: Any) -> None: ...

    def __iter__(self) -> Any: ...


class IteratorClass:
    def __init__(self, environ: Any, start_response: Any) -> None: ...

    def __next__(self) -> bytes: ...


class Endpoint:
    def __init__(self, scope: Any, receive: Any, send: Any) -> None: ...

    def __await__(self) -> Any: ...


class NeedsApp:
    def __init__(self, app: Any) -> None: ...

    def __call__(self, environ: Any, start_response: Any) -> Any: ...


def marked(name: str) -> Callable[..., Any]:
    def app(*args: Any) -> Any: ...

    setattr(app, name, True)
    return app


KNOWN = [
    pytest.param(asgi3, Interface.ASGI3, id="async function"),
    pytest.param(AsyncCall(), Interface.ASGI3, id="instance with async __call__"),
    pytest.param(AsyncCall().method, Interface.ASGI3, id="bound async method"),
    pytest.param(functools.partial(asgi3), Interface.ASGI3, id="partial of an async function"),
    pytest.param(functools.partial(functools.partial(AsyncCall())), Interface.ASGI3, id="partials of an instance"),
    pytest.param(keeping_the_name(asgi3), Interface.ASGI3, id="wrapped with functools.wraps"),
    pytest.param(async_careless, Interface.ASGI3, id="async *args"),
    pytest.param(AsyncMock(), Interface.ASGI3, id="AsyncMock"),
    pytest.param(asgi_with_defaults, Interface.ASGI3, id="async with defaults, scope first"),
    pytest.param(asgi_returning_awaitable, Interface.ASGI3, id="plain function of scope, receive, send"),
    pytest.param(scope_and_more, Interface.ASGI3, id="plain function of scope and *args"),
    pytest.param(three_of_other_names, Interface.ASGI3, id="plain function of three"),
    pytest.param(Endpoint, Interface.ASGI3, id="class that is awaited"),
    pytest.param(marked("_asgi_single_callable"), Interface.ASGI3, id="marked as single callable"),
    pytest.param(asgiref.compatibility.double_to_single_callable(Consumer), Interface.ASGI3, id="asgiref's converter"),
    pytest.param(asgi2, Interface.ASGI2, id="function of scope"),
    pytest.param(Consumer, Interface.ASGI2, id="class of scope"),
    pytest.param(marked("_asgi_double_callable"), Interface.ASGI2, id="marked as double callable"),
    pytest.param(wsgi, Interface.WSGI, id="function of environ, start_response"),
    pytest.param(keeping_the_name(wsgi), Interface.WSGI, id="wrapped WSGI"),
    pytest.param(functools.partial(bound_by_partial, 1), Interface.WSGI, id="partial that binds the first"),
    pytest.param(wsgi_with_more, Interface.WSGI, id="WSGI with a default"),
    pytest.param(wsgi_by_other_names, Interface.WSGI, id="plain function of two"),
    pytest.param(AppClass, Interface.WSGI, id="class that is iterated"),
    pytest.param(IteratorClass, Interface.WSGI, id="class that is an iterator"),
    pytest.param(NeedsApp(wsgi), Interface.WSGI, id="instance of a middleware"),
    pytest.param(Delegate(), Interface.DELEGATE, id="native delegate"),
    pytest.param(DelegateByAttribute(), Interface.DELEGATE, id="delegate method set on the instance"),
    pytest.param(TornadoDelegate(), Interface.TORNADO, id="Tornado-style delegate that can also be called"),
    pytest.param(handler, Interface.CALLABLE, id="function of a request"),
    pytest.param(async_handler, Interface.CALLABLE, id="async function of a request"),
    pytest.param(async_handler_with_defaults, Interface.CALLABLE, id="async request first, with defaults"),
    pytest.param(lambda r: None, Interface.CALLABLE, id="lambda of one"),
]


@pytest.mark.parametrize(("app", "expected"), KNOWN)
def test_known(app: object, expected: Interface) -> None:
    assert detect(app) is expected


REFUSED = [
    pytest.param(careless(wsgi), r"takes \(\*args\)\); pass --interface", id="decorator without wraps"),
    pytest.param(Mock(), r"Mock: .*takes \(\*args\)\); pass --interface", id="Mock"),
    pytest.param(half_open, r"takes \(what, \*args\)", id="one and *args"),
    pytest.param(scope_of_two, r"takes \(scope, other\)", id="scope and one more"),
    pytest.param(keyword_only, r"takes \(environ, keywords\)", id="keyword-only start_response"),
    pytest.param(of_four, r"takes \(a, b, c, d\)", id="four"),
    pytest.param(async_of_two, r"takes \(environ, start_response\)", id="async of two"),
    pytest.param(async_any_with_defaults, r"takes \(what, a, b\)", id="async with defaults, unknown name"),
    pytest.param(operator.itemgetter, "pass --interface", id="extension class"),
    pytest.param(iter, r"its signature cannot be read\); pass --interface", id="builtin without a signature"),
    pytest.param(NeedsApp, r"takes \(app\)", id="class of a middleware"),
    pytest.param(AsyncCall, r"a class that takes no arguments; if it is a factory, pass --factory", id="class of apps"),
    pytest.param(factory, "a function that takes no arguments; if it is a factory", id="factory"),
    pytest.param(Delegate, "Delegate is a class of delegates; TARGET must name an instance", id="class of delegates"),
    pytest.param(object(), "builtins.object is not an application", id="not callable"),
    pytest.param("text", "builtins.str is not an application", id="text"),
]


@pytest.mark.parametrize(("app", "message"), REFUSED)
def test_refused(app: object, message: str) -> None:
    with pytest.raises(TargetError, match=message) as caught:
        detect(app)
    assert "\n" not in str(caught.value)


def test_a_mark_that_is_false_does_not_count() -> None:
    app = marked("_asgi_double_callable")
    app._asgi_double_callable = False  # type: ignore[attr-defined]
    with pytest.raises(TargetError, match="pass --interface"):
        detect(app)


@pytest.mark.parametrize("interface", list(Interface))
def test_interface_of_takes_the_users_word(interface: Interface) -> None:
    anything = Mock()
    assert interface_of(anything, interface.value) is interface


@pytest.mark.parametrize(
    ("app", "wanted", "message"),
    [
        (asgi3, "wsgi", r"asgi3 cannot be called with \(environ, start_response\).* --interface asgi3"),
        (AsyncCall(), "wsgi", "UvicornWorker"),
        (async_of_two, "wsgi", "cannot be called"),
        (asgi_returning_awaitable, "wsgi", "cannot be called"),
        (wsgi, "asgi3", r"wsgi cannot be called with \(scope, receive, send\).* --interface wsgi"),
        (handler, "asgi3", "cannot be called"),
    ],
)
def test_interface_of_refuses_what_every_request_would_fail_with(app: object, wanted: str, message: str) -> None:
    with pytest.raises(TargetError, match=f"^--interface {wanted}: .*{message}"):
        interface_of(app, wanted)


@pytest.mark.parametrize("wanted", ["wsgi", "asgi3"])
def test_interface_of_believes_the_callable_and_not_what_a_decorator_says_of_it(wanted: str) -> None:
    for app in (keeping_the_name(wsgi), keeping_the_name(asgi3), careless(wsgi), half_open, Mock()):
        assert interface_of(app, wanted) is Interface(wanted)


def test_interface_of_auto_detects() -> None:
    assert interface_of(wsgi, "auto") is Interface.WSGI


@pytest.mark.parametrize(
    ("wanted", "method"), [("delegate", "start_exchange"), ("tornado", "start_request"), ("wsgi", "__call__")]
)
def test_interface_of_refuses_what_cannot_be(wanted: str, method: str) -> None:
    with pytest.raises(TargetError, match=rf"--interface {wanted}: builtins\.object has no method {method}"):
        interface_of(object(), wanted)
