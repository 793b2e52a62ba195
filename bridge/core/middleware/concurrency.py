"""What is counted over all connections of a server."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from bridge.core.connection.interfaces import NULL_DELEGATE, Observer

if TYPE_CHECKING:
    from bridge.core.connection.interfaces import Connection, ConnectionDelegate, Exchange, ExchangeDelegate

__all__ = ["ConcurrencyLimit", "Observers", "RequestCount"]


class ConcurrencyLimit(Observer):
    """Answers 503 to requests beyond a number in progress; the application never sees them.

    It is a delegate around the application's, and an observer, which is how it learns that exchanges end.

    Attributes:
        count: Exchanges in progress.
    """

    def __init__(self, delegate: ConnectionDelegate, limit: int) -> None:
        self._delegate = delegate
        self._limit = limit
        self.count = 0

    def start_exchange(self, exchange: Exchange) -> ExchangeDelegate:
        """Pass the exchange on, or answer it."""
        if self.count <= self._limit:
            return self._delegate.start_exchange(exchange)
        text = b"" if exchange.head.method == b"HEAD" else b"Service Unavailable\r\n"
        exchange.respond(503, [(b"content-type", b"text/plain; charset=utf-8"), (b"retry-after", b"1")])
        exchange.send(text, True)
        return NULL_DELEGATE

    def on_close(self, connection: Connection) -> None:
        """Pass on the end of a connection."""
        self._delegate.on_close(connection)

    def exchange_started(self, exchange: Exchange) -> None:
        """Count the exchange."""
        self.count += 1

    def exchange_ended(self, exchange: Exchange) -> None:
        """Count it no more."""
        self.count -= 1


class RequestCount(Observer):
    """Observes exchanges and calls a function when there were as many as it may serve.

    Args:
        limit: How many.
        jitter: At most so many more, so that not all workers of a server end at once.
        reached: Called once.
    """

    def __init__(self, limit: int, jitter: int, reached: Callable[[], None]) -> None:
        from random import randint

        self._left = limit + randint(0, jitter)  # noqa: S311 - it only spreads the load
        self._reached = reached

    def exchange_started(self, exchange: Exchange) -> None:
        """Count it."""
        self._left -= 1
        if self._left == 0:
            self._reached()


class Observers(Observer):
    """Several observers as one."""

    def __init__(self, observers: list[Observer]) -> None:
        self._observers = observers

    @staticmethod
    def of(observers: list[Observer]) -> Observer | None:
        """Return None, the only one, or all as one."""
        if not observers:
            return None
        return observers[0] if len(observers) == 1 else Observers(observers)

    def exchange_started(self, exchange: Exchange) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.exchange_started(exchange)

    def exchange_ended(self, exchange: Exchange) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.exchange_ended(exchange)

    def connection_opened(self, connection: Connection) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.connection_opened(connection)

    def connection_closed(self, connection: Connection) -> None:
        """Tell all."""
        for observer in self._observers:
            observer.connection_closed(connection)
