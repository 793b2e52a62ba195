"""Several applications on one port: a delegate that gives each exchange to the delegate mounted at its host and path.

Requests are passed on unchanged. The delegate of an ASGI or WSGI application knows where it is mounted, and splits the
path as those specifications say. Tornado's interface has no notion of a mount point: ``path`` and ``full_url()`` are
those that the client sent, so the patterns of a Tornado application include the path at which it is mounted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from bridge.adapters.paths import is_below
from bridge.core.connection.interfaces import NULL_DELEGATE
from bridge.core.tornado.dispatch import adapt
from bridge.errors import LimitExceeded

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.core.connection.interfaces import Connection, ConnectionDelegate, Exchange, ExchangeDelegate

__all__ = ["Mount"]

_NO_LIMIT = 1 << 62


class MountPoint(NamedTuple):
    """Where a delegate is mounted, and the limit of content there.

    Attributes:
        host: In lower case, without a port; ``*.name`` for every name below *name*; empty for any host.
        path: Percent-decoded, without a slash at the end; empty for all paths.
        delegate: The delegate.
        limit: The most bytes of a request's content; None for the connection's limit.
    """

    host: str
    path: str
    delegate: ConnectionDelegate
    limit: int | None

    @property
    def order(self) -> tuple[int, int, int]:
        """The most specific first: names before patterns before any host, then long paths before short ones."""
        rank = 2 if not self.host else 1 if self.host.startswith("*.") else 0
        return rank, -len(self.host), -len(self.path)

    def matches(self, path: str, host: bytes) -> bool:
        """Tell whether a request for *path*, with the Host field's value *host*, belongs here."""
        if not is_below(path, self.path):
            # "*", the target of OPTIONS for the whole server, is below no path. The root for all hosts takes it.
            return not (self.path or self.host)
        return not self.host or _is_host(host, self.host)


class Mount:
    """A native delegate that chooses another one by host and path. It answers 404 where nothing is mounted.

    The most specific mount point wins: first those for exactly this host, then those for ``*.`` and a domain above it,
    then those for any host. Among equal ones the longest path wins. A path matches itself, and what follows it after a
    slash.

    Args:
        outer_path: The path at which a proxy's clients see the whole server, percent-decoded. It does not matter
            whether the proxy removes it from the paths that it passes on.
    """

    def __init__(self, outer_path: str = "") -> None:
        self._outer = outer_path
        self._points: list[MountPoint] = []  # the most specific first
        self._used: dict[Connection, set[int]] = {}  # by connection, the indexes of the points that had its exchanges

    def add(
        self,
        path: str,
        delegate: Any,
        *,
        host: str = "",
        limit: int | None = None,
        limited: bool = False,
    ) -> None:
        """Mount a delegate.

        Args:
            path: Where, percent-decoded; ``/`` or empty for the root.
            delegate: A native delegate, a Tornado-style one (``start_request``), or a callable that takes an
                HTTPServerRequest. The delegate of an ASGI or WSGI application must have *path* as its root path.
            host: Only requests for this host name (without a port), or with ``*.`` in front for the names below it.
            limit: The most bytes of a request's content; None for no limit.
            limited: *limit* holds here; otherwise the server's own limit does.

        Raises:
            ValueError: The path does not begin with a slash, or something is mounted there.
        """
        path = path.rstrip("/")
        if path and not path.startswith("/"):
            raise ValueError(f"path {path!r} does not begin with a slash")
        if any(point.host == host.lower() and point.path == path for point in self._points):
            raise ValueError(f"two applications at {host}{path or '/'}")
        native = delegate if hasattr(delegate, "start_exchange") else adapt(delegate)
        most = (_NO_LIMIT if limit is None else limit) if limited else None
        self._points.append(MountPoint(host.lower(), path, native, most))
        self._points.sort(key=lambda point: point.order)

    @property
    def websockets(self) -> frozenset[Any]:
        """The open WebSocket connections of all applications."""
        return frozenset().union(*(getattr(point.delegate, "websockets", ()) for point in self._points))

    def observe(self, on_websocket: Callable[[Any], None]) -> None:
        """Let all applications show observers how they were called, see ``ASGIDelegate.observe``."""
        for point in self._points:
            observe = getattr(point.delegate, "observe", None)
            if observe is not None:
                observe(on_websocket)

    @property
    def takes_websockets(self) -> bool:
        """One of the applications is served WebSockets."""
        return any(getattr(point.delegate, "takes_websockets", False) for point in self._points)

    def exchanges(self) -> dict[Any, Exchange]:
        """Return the running tasks of all applications, each with the exchange that it serves."""
        found: dict[Any, Exchange] = {}
        for point in self._points:
            found |= getattr(point.delegate, "exchanges", dict)()
        return found

    def start_exchange(self, exchange: Exchange) -> ExchangeDelegate:
        """Let the delegate mounted at the exchange's host and path start the exchange.

        Raises:
            LimitExceeded: 413, the content is announced to be larger than is allowed there.
        """
        head = exchange.head
        path = head.line.path_text
        if is_below(path, self._outer):
            path = path[len(self._outer) :]
        for index, point in enumerate(self._points):  # noqa: B007 - it is used behind the loop
            if point.matches(path, head.host):
                break
        else:
            exchange.answer(404)
            return NULL_DELEGATE
        if point.limit is not None:
            exchange.max_body_size = point.limit
            if head.content_length is not None and head.content_length > point.limit:
                raise LimitExceeded(413, f"Content-Length {head.content_length} bytes, limit {point.limit}")
        if head.upgrade and head.line.method == b"CONNECT" and not getattr(point.delegate, "takes_websockets", False):
            exchange.answer(501)  # announced for the whole connection, but this application takes none (RFC 8441)
            return NULL_DELEGATE
        self._used.setdefault(exchange.connection, set()).add(index)
        return point.delegate.start_exchange(exchange)

    def on_close(self, connection: Connection) -> None:
        """Tell the delegates that had exchanges on the connection."""
        for index in sorted(self._used.pop(connection, ())):
            self._points[index].delegate.on_close(connection)


def _is_host(field: bytes, host: str) -> bool:
    """Tell whether a Host field's value names *host*, whatever the port."""
    name = field.decode("ascii", "replace").lower()
    bare, colon, port = name.rpartition(":")
    if colon and (port.isdecimal() or not port):
        name = bare
    name = name.removesuffix(".")
    return name.endswith(host[1:]) if host.startswith("*.") else name == host
