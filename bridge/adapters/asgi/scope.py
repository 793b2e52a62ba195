"""The scopes of requests (ASGI HTTP sub-specification 2.5, "HTTP Connection Scope", and the WebSocket one)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bridge.adapters.paths import is_below
from bridge.core.http.uri import percent_decoded
from bridge.speedups import make_scope as _compiled

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.adapters.asgi.types import Scope
    from bridge.core.connection.context import ConnectionContext
    from bridge.core.connection.interfaces import Exchange
    from bridge.core.http.message import RequestHead

__all__ = ["ASGI_VERSIONS", "ReadOnly", "ScopeTemplate", "into_websocket_scope", "set_forwarded"]

# The extensions that a WebSocket's scope keeps from the connection's.
_WEBSOCKET_EXTENSIONS = ("tls", "bridge.shutdown.notice", "bridge.request_id")


class ReadOnly(dict[str, Any]):
    """A dictionary that all scopes share. It refuses changes, since the next request would see them.

    A copy of it is a plain dictionary. Copying all of these dictionaries for each request would be 10 % of a plain
    request (python -m benchmarks.instructions plaintext, CPython 3.13: 56,700 instructions, and 51,300 before there
    were copies). ``scope["asgi"]`` is copied: there is middleware that sets ``spec_version``, to change what Starlette
    does.
    """

    __slots__ = ()

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise TypeError("the values of scope['extensions'] are read-only: put a copy in their place")

    __setitem__ = __delitem__ = __ior__ = clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[dict[str, Any]]]:
        return dict, (dict(self),)


ASGI_VERSIONS = {"version": "3.0", "spec_version": "2.5"}
"""``scope["asgi"]`` is a copy of it."""


class ScopeTemplate:
    """What the scopes of one connection have in common.

    Each request gets ``asgi``, fields and ``extensions`` of its own, so that the next request does not see what an
    application has put into them. Other values cannot be changed.

    Args:
        exchange: An exchange on the connection.
        root_path: Where the application is mounted; percent-decoded, without a slash at the end.
        outer_path: The part of *root_path* that a proxy removes from the paths that it passes on.
        extensions: The extensions; their values are ReadOnly.

    Attributes:
        scope: The scope of a request, without what comes from its head.
        extensions: The argument.
        make_scope: The compiled function, called with ``scope``, a head, the versions and ``extensions``. It returns
            None where :meth:`scope_of` has to make the scope; always, if paths have to be changed.
        context: The two ends of the connection.
        loop: The event loop.
    """

    __slots__ = (
        "_outer_path",
        "_root_path",
        "context",
        "extensions",
        "loop",
        "make_scope",
        "scope",
    )

    def __init__(self, exchange: Exchange, root_path: str, outer_path: str, extensions: dict[str, Any]) -> None:
        context = self.context = exchange.connection_context
        self.loop = exchange.loop
        self._root_path = root_path
        self._outer_path = outer_path
        self.make_scope: Callable[..., dict[str, Any] | None] = _none if root_path or _compiled is None else _compiled
        self.extensions = extensions
        self.scope: dict[str, Any] = {
            "type": "http",
            "asgi": ASGI_VERSIONS,
            "http_version": "1.1",
            "method": "GET",
            "scheme": context.protocol,
            "path": "/",
            "raw_path": b"/",
            "query_string": b"",
            "root_path": root_path,
            "headers": [],
            "client": _client(context),
            "server": _server(context),
            "extensions": None,
        }

    def scope_of(self, head: RequestHead) -> Scope:
        """Return the scope of the request with *head*."""
        line = head.line
        path = line.path_text
        root = self._root_path
        scope = self.scope.copy()
        scope["http_version"] = line.version_text
        scope["method"] = line.method_text
        # A path that is not below the root path lacks the part that a proxy has removed.
        scope["path"] = path if not root or is_below(path, root) else self._outer_path + path
        scope["raw_path"] = line.path
        scope["query_string"] = line.query
        scope["asgi"] = ASGI_VERSIONS.copy()
        scope["headers"] = [*head.fields]
        scope["extensions"] = self.extensions.copy()
        return scope


def _none(*_: object) -> None:
    return None


def into_websocket_scope(scope: Scope, subprotocols: list[str]) -> None:
    """Turn the scope of a request into that of the WebSocket that it asks for.

    Args:
        scope: The request's.
        subprotocols: Those that the client offers.
    """
    known = scope["extensions"]
    scope["type"] = "websocket"
    scope["scheme"] = "wss" if scope["scheme"] == "https" else "ws"
    scope["subprotocols"] = subprotocols
    scope["extensions"] = {"websocket.http.response": {}} | {
        name: known[name] for name in _WEBSOCKET_EXTENSIONS if name in known
    }
    del scope["method"]


def _client(context: ConnectionContext) -> tuple[str, int] | None:
    if not context.has_remote:
        return None
    client = (context.remote_ip, context.remote_port)
    return context.address if context.address == client else client  # one tuple in memory, not two


def _server(context: ConnectionContext) -> tuple[str, int | None] | None:
    local = context.local_address
    if isinstance(local, tuple):
        return local[:2]  # for IPv4 the same object, which all connections share
    if not local:
        return None
    return (local if isinstance(local, str) else local.decode("utf-8", "replace"), None)


def set_forwarded(scope: Scope, context: ConnectionContext) -> None:
    """Set what is the request's own and not the connection's: its id, and what a trusted proxy has reported.

    A report gives client, scheme, server, and the prefix that the proxy has removed from the path.
    """
    if context.request_id:
        scope["extensions"] = {**scope["extensions"], "bridge.request_id": {"id": context.request_id}}
    scope["scheme"] = context.protocol
    scope["client"] = (context.remote_ip, context.remote_port) if context.has_remote else None
    if context.forwarded_server:
        scope["server"] = context.local_address
    if context.prefix:
        prefix = percent_decoded(context.prefix.encode("latin-1")).decode("utf-8", "replace")
        scope["root_path"] = prefix + scope["root_path"]
        scope["path"] = prefix + scope["path"]
