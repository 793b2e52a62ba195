"""Paths of the application's port that the server answers itself: metrics and health."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from bridge.core.connection.interfaces import NULL_DELEGATE

if TYPE_CHECKING:
    import socket

    from bridge.config import Config
    from bridge.core.connection.context import ConnectionContext
    from bridge.core.connection.interfaces import Connection, ConnectionDelegate, Exchange, ExchangeDelegate
    from bridge.core.http.message import RequestHead
    from bridge.operations.health import Condition
    from bridge.operations.messages import Answer
    from bridge.telemetry.metrics.application import ApplicationMetrics
    from bridge.telemetry.metrics.arena import Arena

__all__ = ["OwnPages", "Page", "application_metrics", "for_peers", "health_page", "metrics_page"]

#: Makes the answer to a request for a path; None to leave it to the application.
Page = Callable[["Exchange"], "Answer | None"]

# With one of these, the request has come through a proxy: the peer is not the client.
_FORWARDED = frozenset({b"forwarded", b"x-forwarded-for", b"x-real-ip", b"x-forwarded-host", b"via"})


class OwnPages:
    """A delegate around the application's that answers a few paths itself, with GET and HEAD.

    Args:
        delegate: Gets all other exchanges.
        pages: The pages by path, spelled as in the request target.
        unseen: Called with each exchange that is answered here, so that it is not counted.
    """

    def __init__(
        self, delegate: ConnectionDelegate, pages: dict[bytes, Page], unseen: Callable[[Exchange], None]
    ) -> None:
        self._delegate = delegate
        self._pages = pages
        self._unseen = unseen

    def start_exchange(self, exchange: Exchange) -> ExchangeDelegate:
        """Answer the exchange, or pass it on."""
        page = self._pages.get(exchange.head.line.path)
        answer = None if page is None else page(exchange)
        if answer is None:
            return self._delegate.start_exchange(exchange)
        self._unseen(exchange)
        method = exchange.head.method
        if method not in {b"GET", b"HEAD"}:
            exchange.answer(405, fields=[(b"allow", b"GET, HEAD")])
            return NULL_DELEGATE
        length = b"%d" % len(answer.content)
        fields = [(b"content-type", answer.media_type.encode()), (b"content-length", length), *answer.fields]
        exchange.respond(answer.status, fields)
        exchange.send(answer.content, True)
        return NULL_DELEGATE

    def on_close(self, connection: Connection) -> None:
        """Pass the end of a connection on."""
        self._delegate.on_close(connection)


def for_peers(page: Page, allows: Callable[[ConnectionContext], bool]) -> Page:
    """Return *page* for the peers that *allows* names, and not for clients behind a proxy.

    Args:
        page: The page.
        allows: Called with the two ends of a connection. Tells whether its peer may see the page.
    """

    def answer(exchange: Exchange) -> Answer | None:
        if not allows(exchange.connection_context) or _is_forwarded(exchange.head):
            return None
        return page(exchange)

    return answer


def metrics_page(
    arenas: Sequence[Arena],
    sockets: Callable[[], Sequence[socket.socket]],
    application: ApplicationMetrics | None = None,
) -> Page:
    """Return the page with the metrics.

    Args:
        arenas: The memory to sum.
        sockets: Returns the listening sockets.
        application: The application's own metrics.
    """
    from bridge.operations.routes import metrics_answer
    from bridge.serving.sockets import accept_queues
    from bridge.telemetry.metrics.collect import collect
    from bridge.telemetry.metrics.exposition import negotiate

    def page(exchange: Exchange) -> Answer:
        accept = b",".join(value for name, value in exchange.head.fields if name == b"accept")
        media_type = negotiate(accept.decode("latin-1"))
        return metrics_answer(collect(arenas, accept_queues(sockets())), media_type, application)

    return page


def application_metrics(config: Config) -> ApplicationMetrics | None:
    """Return what shows the application's own metrics, if the settings ask for it.

    Raises:
        ConfigError: prometheus_client is not installed.
    """
    if not config.metrics_app:
        return None
    from bridge.telemetry.metrics.application import ApplicationMetrics

    return ApplicationMetrics()


def health_page(conditions: Callable[[], Sequence[Condition]]) -> Page:
    """Return the page that says whether this process is ready.

    Args:
        conditions: Returns what has to hold.
    """
    from bridge.operations.health import probe

    return lambda _: probe(conditions(), "not ready")


def _is_forwarded(head: RequestHead) -> bool:
    return any(name in _FORWARDED for name, _ in head.fields)
