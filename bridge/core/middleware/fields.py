"""Gives every response the same fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridge.core.connection.interfaces import Connection, ConnectionDelegate, Exchange, ExchangeDelegate

__all__ = ["FieldsDelegate"]


class FieldsDelegate:
    """Adds fields to the response of each exchange, in place of the application's fields of these names.

    Args:
        delegate: Gets the exchanges.
        fields: (name, value) pairs, the names in lower case.
    """

    __slots__ = ("_delegate", "_fields")

    def __init__(self, delegate: ConnectionDelegate, fields: tuple[tuple[bytes, bytes], ...]) -> None:
        self._delegate = delegate
        self._fields = fields

    def start_exchange(self, exchange: Exchange) -> ExchangeDelegate:
        """Pass the exchange on with the fields."""
        exchange.server_fields = (*exchange.server_fields, *self._fields)
        return self._delegate.start_exchange(exchange)

    def on_close(self, connection: Connection) -> None:
        """Pass on the end of a connection."""
        self._delegate.on_close(connection)
