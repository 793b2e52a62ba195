"""The scopes of requests (ASGI HTTP sub-specification 2.5, "HTTP Connection Scope", and the WebSocket one)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bridge.adapters.paths import is_below
from bridge.core.http.uri import percent_decoded

if TYPE_CHECKING:
    from bridge.adapters.asgi.types import Scope
    from bridge.core.connection.context import ConnectionContext
    from bridge.core.connection.interfaces import Exchange
    from bridge.core.http.message import RequestLine

__all__ = ["ScopeTemplate", "into_websocket_scope"]

# The extensions that a WebSocket's scope keeps from the connection's.
_WEBSOCKET_EXTENSIONS = ("tls", "bridge.shutdown.notice")


class ScopeTemplate:
    """What the scopes of one connection have in common.

    It also keeps what a request line gives, since clients often repeat the line: then a scope costs a copy and the
    list of fields.

    Args:
        exchange: An exchange on the connection.
        root_path: Where the application is mounted; percent-decoded, without a slash at the end.
        outer_path: The part of *root_path* that a proxy removes from the paths that it passes on.
        extensions: The scope's extensions.
    """

    __slots__ = ("_extension_count", "_extensions", "_line", "_original_extensions", "_outer_path", "_scope")

    def __init__(self, exchange: Exchange, root_path: str, outer_path: str, extensions: dict[str, Any]) -> None:
        context = exchange.connection_context
        self._line: RequestLine | None = None  # the last request's
        self._outer_path = outer_path
        self._original_extensions = extensions
        self._extensions = extensions.copy()
        self._extension_count = len(extensions)
        self._scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
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
            "extensions": self._extensions,
        }

    def scope(self, exchange: Exchange) -> dict[str, Any]:
        """Return the scope of a request on the connection."""
        template = self._scope
        if len(self._extensions) != self._extension_count:
            # Requests share the dictionary of extensions: a copy for each would cost 2 % of a plain request. When an
            # application adds or removes something, the following requests get a fresh one.
            self._extensions = template["extensions"] = self._original_extensions.copy()
        head = exchange.head
        line = head.line
        if line is not self._line:
            self._line = line
            path = line.path_text
            root = template["root_path"]
            template["http_version"] = line.version_text
            template["method"] = line.method_text
            # A path that is not below the root path lacks the part that a proxy has removed.
            template["path"] = path if not root or is_below(path, root) else self._outer_path + path
            template["raw_path"] = line.path
            template["query_string"] = line.query
        scope = template.copy()
        scope["headers"] = [*head.fields]
        if exchange.context is not exchange.connection_context:
            _set_forwarded(scope, exchange.context)
        return scope


def into_websocket_scope(scope: Scope, subprotocols: list[str]) -> None:
    """Turn the scope of a request into that of the WebSocket that it asks for.

    Args:
        scope: As :meth:`ScopeTemplate.scope` has made it.
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


def _set_forwarded(scope: Scope, context: ConnectionContext) -> None:
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
