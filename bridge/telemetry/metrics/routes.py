"""The route of a request, where frameworks leave it: no middleware is needed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["route_of"]


def route_of(called_with: Any) -> str | None:
    """Return the route that has served a request, such as ``/items/{id}``; None if nobody has left one.

    Starlette and FastAPI leave their route in the scope, and werkzeug leaves its request in the environ, whose rule is
    Flask's route. Whoever else knows the route may leave it under ``bridge.route`` in either of them.

    Args:
        called_with: The ASGI scope or the WSGI environ with which the application was called, or werkzeug's request.
    """
    if not isinstance(called_with, (dict, Mapping)):  # to ask for the first is quick
        rule = getattr(getattr(called_with, "url_rule", None), "rule", None)
        return rule if isinstance(rule, str) else None
    route = called_with.get("bridge.route")
    if route is not None:
        return str(route)
    route = called_with.get("route")
    if route is not None:
        path = getattr(_whole_route(route, called_with), "path", None)
        if not isinstance(path, str):
            return None
        # Below a mount point the route is only the rest of the path.
        mounted = called_with.get("root_path", "")
        if not mounted:
            return path
        above = called_with.get("app_root_path", mounted)
        return f"{mounted.removeprefix(above)}{path}"
    return None


def _whole_route(route: object, scope: Mapping[str, Any]) -> object:
    """Return FastAPI's route with the prefixes of the routers that include it; *route* itself if there are none."""
    own = scope.get("fastapi")
    if not isinstance(own, dict):
        return route
    whole = own.get("effective_route_context")
    return whole if getattr(whole, "original_route", None) is route else route
