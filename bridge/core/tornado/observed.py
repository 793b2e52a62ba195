"""Exchanges with an id; a server that needs none makes plain exchanges."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.core.http1connection import HTTP1ServerConnection
from bridge.core.middleware.proxy import with_fields
from bridge.core.tornado.exchange import ServedConnection

if TYPE_CHECKING:
    from bridge.core.connection.context import ConnectionContext
    from bridge.core.connection.http1 import ServerConnection
    from bridge.core.connection.parameters import ConnectionParameters
    from bridge.core.http1.encoder import ResponseHead
    from bridge.core.http1.request import RequestHead

__all__ = ["IdentifiedExchange", "connection_type"]


class IdentifiedExchange(ServedConnection):
    """Has an id, which the request's field tells the application, and the response's the client.

    The id stands in ``context.request_id``. The request's field is replaced, so that whatever looks for it there finds
    what is logged; so is the response's, should the application send one.
    """

    __slots__ = ("own_lines",)

    def begin(self, connection: ServerConnection, head: RequestHead, context: ConnectionContext) -> None:
        """Begin, with an id."""
        ids = connection.params.request_ids
        assert ids is not None
        identity = ids.identity(head.fields, context)
        field = (ids.name, identity.encode("ascii"))
        head = with_fields(head, [*(pair for pair in head.fields if pair[0] != ids.name), field])
        context = context.copy()
        context.request_id = identity
        super().begin(connection, head, context)
        self.own_lines = b"%b: %b\r\n" % field

    def _send_first(self, response: ResponseHead, data: bytes, last: bool) -> None:
        ids = self.server_connection.params.request_ids
        assert ids is not None
        self.response = response.with_line(ids.name, self.own_lines)
        super()._send_first(self.response, data, last)


class _IdentifyingConnection(HTTP1ServerConnection):
    __slots__ = ()
    exchange_type = IdentifiedExchange


def connection_type(params: ConnectionParameters) -> type[HTTP1ServerConnection]:
    """Return the class of connections whose exchanges note what *params* ask for."""
    if params.request_ids is not None:
        return _IdentifyingConnection
    return HTTP1ServerConnection
