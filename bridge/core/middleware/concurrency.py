"""Limits how many requests of a server are in progress at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.core.connection.interfaces import NULL_DELEGATE, Observer

if TYPE_CHECKING:
    from bridge.core.connection.interfaces import Connection, ConnectionDelegate, Exchange, ExchangeDelegate

__all__ = ["ConcurrencyLimit"]


class ConcurrencyLimit(Observer):
    """Answers 503 while too many requests are in progress. The application never sees these requests.

    It is both a delegate around the application's and an observer: only observers are told of every end of an exchange.

    Args:
        delegate: The application's delegate.
        limit: Most requests in progress.

    Attributes:
        count: Exchanges in progress.
    """

    def __init__(self, delegate: ConnectionDelegate, limit: int) -> None:
        self._delegate = delegate
        self._limit = limit
        self.count = 0

    def start_exchange(self, exchange: Exchange) -> ExchangeDelegate:
        """Pass the exchange on, or answer it."""
        if self.count <= self._limit:  # exchange_started has counted this one already
            return self._delegate.start_exchange(exchange)
        if exchange.times is not None:
            exchange.times.refused = "overload"
        text = b"" if exchange.head.method == b"HEAD" else b"Service Unavailable\r\n"
        exchange.respond(503, [(b"content-type", b"text/plain; charset=utf-8"), (b"retry-after", b"1")])
        exchange.send(text, True)
        return NULL_DELEGATE

    def on_close(self, connection: Connection) -> None:
        """Pass the end of a connection on."""
        self._delegate.on_close(connection)

    def exchange_started(self, exchange: Exchange) -> None:
        """Count the exchange."""
        self.count += 1

    def exchange_ended(self, exchange: Exchange) -> None:
        """Count the exchange no longer."""
        self.count -= 1
