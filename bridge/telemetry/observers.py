"""Several observers as one, since a connection calls one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.core.connection.interfaces import Observer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridge.core.connection.interfaces import Connection, Exchange

__all__ = ["Observers"]


class Observers(Observer):
    """Passes every call on to several observers, in their order."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    @staticmethod
    def of(observers: Sequence[Observer]) -> Observer | None:
        """Return the only observer itself, several as one, and None for none."""
        if not observers:
            return None
        return observers[0] if len(observers) == 1 else Observers(observers)

    def exchange_started(self, exchange: Exchange) -> None:
        """Tell all observers that the exchange has started."""
        for observer in self._observers:
            observer.exchange_started(exchange)

    def exchange_ended(self, exchange: Exchange) -> None:
        """Tell all observers that the exchange has ended."""
        for observer in self._observers:
            observer.exchange_ended(exchange)

    def connection_opened(self, connection: Connection) -> None:
        """Tell all observers that a connection speaks HTTP from now on."""
        for observer in self._observers:
            observer.connection_opened(connection)

    def connection_closed(self, connection: Connection) -> None:
        """Tell all observers that HTTP has ended on a connection."""
        for observer in self._observers:
            observer.connection_closed(connection)
