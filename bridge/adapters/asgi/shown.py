"""Requests whose scope observers may look at, since frameworks leave the route in it.

They are classes of their own, so that a server without such an observer does nothing for it.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from bridge.adapters.asgi.http import HTTPExchange, TimedHTTPExchange

if TYPE_CHECKING:
    from bridge.adapters.asgi.types import Application, Scope

__all__ = ["ShownHTTPExchange", "ShownTimedHTTPExchange"]


_run = HTTPExchange.run  # super() would be looked up for each request
_run_timed = TimedHTTPExchange.run


class ShownHTTPExchange(HTTPExchange):
    """A request that notes its scope."""

    __slots__ = ()

    def run(self, app: Application, scope: Scope) -> Coroutine[Any, Any, None]:
        """Note the scope, and run the application."""
        times = self._exchange.times
        if times is not None:
            times.called_with = scope
        return _run(self, app, scope)


class ShownTimedHTTPExchange(TimedHTTPExchange):
    """The same with a limit of its time."""

    __slots__ = ()

    def run(self, app: Application, scope: Scope) -> Coroutine[Any, Any, None]:
        """Note the scope, and run the application."""
        times = self._exchange.times
        if times is not None:
            times.called_with = scope
        return _run_timed(self, app, scope)
