"""Detects which interface an application object speaks, by looking at it and never by calling it.

These decide, in this order:

1. the methods that make an object a delegate;
2. the mark that says whether an ASGI application has the old or the new form;
3. the number of positional arguments of the callable, whether it is a coroutine function, and the name of its first
   parameter.

Where a doubt is left, detection does not guess: the error asks the user for ``interface``.
"""

from __future__ import annotations

import enum
import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from bridge.apps.loading import TargetError
from bridge.config.settings import option

__all__ = ["Interface", "detect", "interface_of"]


class Interface(enum.Enum):
    """The interface that an application speaks. The values are those of the setting ``interface``."""

    ASGI3 = "asgi3"
    """``await app(scope, receive, send)``."""

    ASGI2 = "asgi2"
    """``await app(scope)(receive, send)``."""

    WSGI = "wsgi"
    """``app(environ, start_response)``, PEP 3333."""

    TORNADO = "tornado"
    """An object with ``start_request(server_connection, request_connection)``."""

    DELEGATE = "delegate"
    """An object with ``start_exchange(exchange)``."""

    CALLABLE = "callable"
    """``app(request)`` with an `HTTPServerRequest`, plain or a coroutine function."""


def interface_of(app: object, wanted: str) -> Interface:
    """Return the interface of *app*: *wanted*, or what `detect` finds for "auto".

    Raises:
        TargetError: *app* lacks the method that *wanted* needs or cannot be called as it says, or `detect` fails.
    """
    if wanted == "auto":
        return detect(app)
    interface = Interface(wanted)
    method = {Interface.TORNADO: "start_request", Interface.DELEGATE: "start_exchange"}.get(interface, "__call__")
    if not callable(getattr(app, method, None)):
        raise TargetError(f"{option('interface')} {wanted}: {_described(app)} has no method {method}")
    if interface in _CALLS and not _fits(app, interface):
        words, cure = _CALLS[interface]
        raise TargetError(
            f"{option('interface')} {wanted}: {_described(app)} cannot be called with ({words}), so every request would"
            f" fail; {cure}"
        )
    return interface


# How an application is called, and what to do if it cannot be.
_CALLS = {
    Interface.WSGI: (
        "environ, start_response",
        "for an ASGI application pass --interface asgi3, or with bridge gunicorn -k uvicorn.workers.UvicornWorker",
    ),
    Interface.ASGI3: (
        "scope, receive, send",
        "for a WSGI application pass --interface wsgi, or with bridge gunicorn no -k",
    ),
}


def _fits(app: Any, interface: Interface) -> bool:
    """Tell whether *app* may speak *interface*: False only where a call must fail."""
    if interface is Interface.WSGI and _is_async(app):
        return False
    parameters = _parameters(app, follow_wrapped=False)  # what is called, and not what a decorator says of it
    return parameters is None or parameters.takes(2 if interface is Interface.WSGI else 3)


def detect(app: object) -> Interface:
    """Return the interface that *app* speaks.

    Raises:
        TargetError: It speaks none, or its signature fits more than one.
    """
    for interface, method in ((Interface.DELEGATE, "start_exchange"), (Interface.TORNADO, "start_request")):
        if _has(app, method):
            if isinstance(app, type):
                raise TargetError(f"{_described(app)} is a class of delegates; TARGET must name an instance")
            return interface
    if not callable(app):
        raise TargetError(
            f"{_described(app)} is not an application: it is neither callable nor a delegate; TARGET names the object"
            " that the framework has made, as in app = Flask(__name__), or app = FastAPI()"
        )
    if _has(app, "_asgi_single_callable"):
        return Interface.ASGI3
    if _has(app, "_asgi_double_callable"):
        return Interface.ASGI2
    parameters = _parameters(app)
    if parameters is None:
        raise _unclear(app, "its signature cannot be read")
    found = _of_class(app, parameters) if isinstance(app, type) else _of_callable(app, parameters)
    if found is not None:
        return found
    if parameters.takes(0) and not parameters.unbounded:
        what = "a class" if isinstance(app, type) else "a function"
        raise TargetError(
            f"{_described(app)} is {what} that takes no arguments; if it is a factory, pass {option('factory')}"
        )
    raise _unclear(app, f"it takes {parameters}")


class _Parameters(NamedTuple):
    """The positional parameters of a callable."""

    names: tuple[str, ...]
    required: int
    unbounded: bool  # takes *args
    needs_keywords: bool  # has keyword-only parameters without a default

    def takes(self, count: int) -> bool:
        """Tell whether it can be called with *count* positional arguments and nothing else."""
        return not self.needs_keywords and self.required <= count and (self.unbounded or count <= len(self.names))

    @property
    def first(self) -> str:
        return self.names[0].strip("_").lower() if self.names else ""

    def __str__(self) -> str:
        names = [*self.names, *(["*args"] if self.unbounded else []), *(["keywords"] if self.needs_keywords else [])]
        return f"({', '.join(names)})"


def _of_callable(app: Callable[..., object], parameters: _Parameters) -> Interface | None:
    """Return the interface of a function, a method, a partial or an instance; None in doubt."""
    # A coroutine function is no WSGI application, whatever its parameters are called.
    if _is_async(app):
        return _of_coroutine_function(parameters)
    if parameters.first == "scope":
        if parameters.takes(3):  # a plain function that returns an awaitable, as decorators often make it
            return Interface.ASGI3
        return Interface.ASGI2 if parameters.takes(1) else None
    if parameters.first in {"environ", "env"} and parameters.takes(2):
        return Interface.WSGI
    if parameters.unbounded or not parameters.takes(parameters.required):
        return None
    return {1: Interface.CALLABLE, 2: Interface.WSGI, 3: Interface.ASGI3}.get(parameters.required)


def _of_coroutine_function(parameters: _Parameters) -> Interface | None:
    """Return ASGI3 for three arguments, CALLABLE for one. If both fit, the name of the first parameter decides."""
    three, one = parameters.takes(3), parameters.takes(1)
    # The first name is empty for *args alone, which is what decorators without functools.wraps leave.
    if three and (not one or parameters.first in {"", "scope"}):
        return Interface.ASGI3
    if one and (not three or parameters.first in {"request", "req"}):
        return Interface.CALLABLE
    return None


def _of_class(app: type, parameters: _Parameters) -> Interface | None:
    """Return the interface of a class that makes one instance per request; None in doubt.

    These are ASGI 3 endpoints, whose instances are awaited, PEP 3333's ``AppClass``, whose instances are iterated, and
    ASGI 2 consumers.
    """
    if parameters.takes(3) and hasattr(app, "__await__"):
        return Interface.ASGI3
    if parameters.takes(2) and (hasattr(app, "__iter__") or hasattr(app, "__next__")):
        return Interface.WSGI
    if parameters.takes(1) and inspect.iscoroutinefunction(getattr(app, "__call__", None)):  # noqa: B004 - the method itself is wanted
        return Interface.ASGI2
    return None


def _parameters(app: Callable[..., object], *, follow_wrapped: bool = True) -> _Parameters | None:
    try:
        signature = inspect.signature(app, follow_wrapped=follow_wrapped)
    except (TypeError, ValueError):  # a builtin, or an extension's callable without a text signature
        return None
    names, required, unbounded, needs_keywords = [], 0, False, False
    for parameter in signature.parameters.values():
        has_default = parameter.default is not parameter.empty
        if parameter.kind in {parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD}:
            names.append(parameter.name)
            required += not has_default
        elif parameter.kind is parameter.VAR_POSITIONAL:
            unbounded = True
        elif parameter.kind is parameter.KEYWORD_ONLY and not has_default:
            needs_keywords = True
    return _Parameters(tuple(names), required, unbounded, needs_keywords)


def _is_async(app: object) -> bool:
    while isinstance(app, functools.partial):
        app = app.func
    return inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(getattr(app, "__call__", None))  # noqa: B004 - the method itself is wanted


def _has(app: object, name: str) -> bool:
    """Tell whether *app* really has the attribute: ``hasattr`` is true of any name for mocks and proxies."""
    found = inspect.getattr_static(app, name, None)
    return found is not None and found is not False


def _unclear(app: object, why: str) -> TargetError:
    return TargetError(
        f"{_described(app)}: cannot tell whether this is ASGI, WSGI or a delegate ({why}); pass {option('interface')}"
    )


def _described(app: object) -> str:
    """Return the name of *app* or of its type, with its module."""
    named = app if isinstance(getattr(app, "__qualname__", None), str) else type(app)
    return f"{getattr(named, '__module__', None) or '?'}.{getattr(named, '__qualname__', '?')}"
