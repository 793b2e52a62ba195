"""Ids of requests: which peers may bring one, what it may look like, how it is made; and the delegate that gives it."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from bridge.core.http.message import with_fields
from bridge.core.http.trace import parse_traceparent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bridge.core.connection.context import ConnectionContext
    from bridge.core.connection.interfaces import Connection, ConnectionDelegate, Exchange, ExchangeDelegate

__all__ = ["RequestIdDelegate", "RequestIds"]

# The forms that other servers and load balancers make: hexadecimal, UUIDs, base64, "Root=1-67891233-abcdef". No
# character could end a quotation or a line in a log, a page or a field, and the length suits a log line.
_SAFE = re.compile(rb"[A-Za-z0-9._~:;/+=@-]{1,200}")


class RequestIds:
    """Gives each request an id.

    Args:
        name: The field that carries it, in lower case.
        trusts: Called with the two ends of a connection. Tells whether an id from that peer is taken.
        traced: Take the trace id of a traceparent field (W3C Trace Context) as the id, from every client.

    Attributes:
        name: The argument.
    """

    __slots__ = ("_traced", "_trusts", "name")

    def __init__(self, name: bytes, trusts: Callable[[ConnectionContext], bool], *, traced: bool = False) -> None:
        self.name = name
        self._trusts = trusts
        self._traced = traced

    def identity(self, fields: Iterable[tuple[bytes, bytes]], context: ConnectionContext) -> str:
        """Return the id that a request has brought, if it is valid and its peer is trusted; otherwise a new one.

        A new id has 32 hexadecimal digits, all chosen at random by the system.

        Args:
            fields: The request's.
            context: The two ends of its connection.
        """
        if self._traced:
            trace = parse_traceparent(fields)
            if trace is not None:
                return trace[0]
        elif self._trusts(context):
            found = [value for name, value in fields if name == self.name]
            if len(found) == 1 and _SAFE.fullmatch(found[0]) is not None:  # two: nobody knows which one is meant
                return found[0].decode("ascii")
        return os.urandom(16).hex()


class RequestIdDelegate:
    """Gives each exchange an id. The request's field tells it to the application, the response's field to the client.

    The id stands in ``context.request_id``. The request's field is replaced, so that the application finds the id that
    is logged. A field of the response is replaced, too.

    Args:
        delegate: Gets the exchanges.
        ids: Makes the ids.
    """

    __slots__ = ("_delegate", "_ids")

    def __init__(self, delegate: ConnectionDelegate, ids: RequestIds) -> None:
        self._delegate = delegate
        self._ids = ids

    def start_exchange(self, exchange: Exchange) -> ExchangeDelegate:
        """Pass the exchange on with an id."""
        ids = self._ids
        head = exchange.head
        context = exchange.context.copy()
        context.request_id = identity = ids.identity(head.fields, context)
        field = (ids.name, identity.encode("ascii"))
        exchange.head = with_fields(head, (*(pair for pair in head.fields if pair[0] != ids.name), field))
        exchange.context = context
        exchange.server_fields = (field,)
        return self._delegate.start_exchange(exchange)

    def on_close(self, connection: Connection) -> None:
        """Pass on the end of a connection."""
        self._delegate.on_close(connection)
