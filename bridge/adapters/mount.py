"""Several applications on one port: a delegate that gives each exchange to the one that is mounted there.

Requests are passed on as they came. The delegate that adapts an ASGI or WSGI application knows where it is mounted,
and gives it its paths as those specifications say. Tornado's interface has no word for a place, and its ``path`` and
``full_url()`` are the client's: such an application has the path it is mounted at in its own patterns.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from bridge.adapters.paths import is_below
from bridge.core.connection.interfaces import NULL_DELEGATE
from bridge.core.tornado.dispatch import adapt
from bridge.errors import LimitExceeded

if TYPE_CHECKING:
    from bridge.core.connection.interfaces import Connection, ConnectionDelegate, Exchange, ExchangeDelegate

__all__ = ["Mount"]

_NO_LIMIT = 1 << 62


class MountPoint(NamedTuple):
    host: str  # lower case, without a port; "*.name" for every name below; empty for any
    path: str  # decoded, without a slash at the end; empty for all paths
    delegate: ConnectionDelegate
    limit: int | None  # bytes of content; None leaves the connection's

    @property
    def order(self) -> tuple[int, int, int]:
        """Names before patterns before any host; then long paths before short ones."""
        rank = 2 if not self.host else 1 if self.host.startswith("*.") else 0
        return rank, -len(self.host), -len(self.path)

    def holds(self, path: str, host: bytes) -> bool:
        """Tell whether a request for *path*, with the Host field's value *host*, belongs here."""
        if not is_below(path, self.path):
            # "*", the target of OPTIONS for the whole server, is below no path. The root for all hosts takes it.
            return not (self.path or self.host)
        return not self.host or _is_host(host, self.host)


class Mount:
    """A native delegate that looks at host and path; what is mounted nowhere is answered 404.

    The most telling place wins: one for the very host before one for ``*.`` and the names below, before one for any
    host; among these the longest path. A path matches itself and what follows it after a slash.

    Args:
        outer_path: The path of all this as clients see it, percent-decoded, if a proxy is in front. The proxy may have
            taken that off the paths that it passes on, or not.
    """

    def __init__(self, outer_path: str = "") -> None:
        self._outer = outer_path
        self._places: list[MountPoint] = []
        self._users: dict[Connection, set[int]] = {}  # whose delegates are to be told of a connection's end

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
                HTTPServerRequest. One that adapts an ASGI or WSGI application must know *path* as its root path.
            host: For this host name only (without a port), or with ``*.`` in front for the names below it.
            limit: The most bytes of a request's content; None for no limit.
            limited: *limit* holds here; otherwise the server's own limit does.

        Raises:
            ValueError: The path does not begin with a slash, or something is mounted there.
        """
        path = path.rstrip("/")
        if path and not path.startswith("/"):
            raise ValueError(f"path {path!r} does not begin with a slash")
        if any(place.host == host.lower() and place.path == path for place in self._places):
            raise ValueError(f"two applications at {host}{path or '/'}")
        native = delegate if hasattr(delegate, "start_exchange") else adapt(delegate)
        most = (_NO_LIMIT if limit is None else limit) if limited else None
        self._places.append(MountPoint(host.lower(), path, native, most))
        self._places.sort(key=lambda place: place.order)

    @property
    def websockets(self) -> frozenset[Any]:
        """The connections that are WebSockets now, of all applications."""
        return frozenset().union(*(getattr(place.delegate, "websockets", ()) for place in self._places))

    def start_exchange(self, exchange: Exchange) -> ExchangeDelegate:
        """Let the delegate that is mounted there start the exchange.

        Raises:
            LimitExceeded: 413, the content is announced to be larger than is allowed there.
        """
        head = exchange.head
        path = head.line.path_text
        if is_below(path, self._outer):
            path = path[len(self._outer) :]
        for index, place in enumerate(self._places):  # noqa: B007 - it is used behind the loop
            if place.holds(path, head.host):
                break
        else:
            exchange.answer(404)
            return NULL_DELEGATE
        if place.limit is not None:
            exchange.max_body_size = place.limit
            if head.content_length is not None and head.content_length > place.limit:
                raise LimitExceeded(413, f"Content-Length {head.content_length} bytes, limit {place.limit}")
        self._users.setdefault(exchange.connection, set()).add(index)
        return place.delegate.start_exchange(exchange)

    def on_close(self, connection: Connection) -> None:
        """Tell those that had exchanges on the connection."""
        for index in sorted(self._users.pop(connection, ())):
            self._places[index].delegate.on_close(connection)


def _is_host(field: bytes, host: str) -> bool:
    """Tell whether a Host field's value names *host*, whatever the port."""
    name = field.decode("ascii", "replace").lower()
    bare, colon, port = name.rpartition(":")
    if colon and (port.isdecimal() or not port):
        name = bare
    name = name.removesuffix(".")
    return name.endswith(host[1:]) if host.startswith("*.") else name == host
