"""Exchanges that note more than a plain one: when the response began, and an id for the request.

They cost nothing where nobody asks for them: a server that needs neither makes plain exchanges.
"""

from __future__ import annotations

from time import monotonic_ns
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

__all__ = ["IdentifiedExchange", "TimedExchange", "connection_type"]


class TimedExchange(ServedConnection):
    """Notes when its response began.

    Attributes:
        began: ``time.monotonic_ns()`` when the response's first byte was handed over; set by the observer before that,
            and left alone by responses that the server makes itself.
    """

    __slots__ = ("began",)

    began: int

    def _send_first(self, response: ResponseHead, data: bytes, last: bool) -> None:
        self.began = monotonic_ns()
        ServedConnection._send_first(self, response, data, last)


class IdentifiedExchange(TimedExchange):
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


class _TimedConnection(HTTP1ServerConnection):
    __slots__ = ()
    exchange_type = TimedExchange


class _IdentifyingConnection(HTTP1ServerConnection):
    __slots__ = ()
    exchange_type = IdentifiedExchange


def connection_type(params: ConnectionParameters) -> type[HTTP1ServerConnection]:
    """Return the class of connections whose exchanges note what *params* ask for."""
    if params.request_ids is not None:
        return _IdentifyingConnection
    return _TimedConnection if params.timed else HTTP1ServerConnection
