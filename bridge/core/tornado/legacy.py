"""HTTPConnection as in Tornado 3, whose constructor begins to serve a stream."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

from bridge.core.middleware.xheaders import ForwardedDelegate
from bridge.core.tornado.connection import context_of
from bridge.core.tornado.dispatch import adapt
from bridge.core.tornado.exchange import TornadoExchange
from bridge.core.tornado.parameters import HTTP1ConnectionParameters
from bridge.core.tornado.serverconnection import HTTP1ServerConnection

if TYPE_CHECKING:
    from bridge.core.connection.interfaces import ConnectionDelegate
    from bridge.core.stream.stream import IOStream

__all__ = ["HTTPConnection"]


class HTTPConnection:
    """Serves HTTP on a stream, from its construction to the stream's end. :meth:`write` answers the current request.

    Args:
        stream: An IOStream.
        address: The peer's address.
        request_callback: A callable that gets an HTTPRequest for every request; or a delegate.
        no_keep_alive: Close after every response.
        xheaders: Believe the fields in which a proxy reports client and scheme; see HTTPServer.
        protocol: ``https`` behind a proxy that ends TLS; None to see it from the stream.

    Attributes:
        address_family: The family of the stream's socket. The other attributes are the arguments.
    """

    def __init__(
        self,
        stream: IOStream,
        address: Any,
        request_callback: Any,
        no_keep_alive: bool = False,
        xheaders: bool = False,
        protocol: str | None = None,
    ) -> None:
        self.stream = stream
        self.address = address
        self.address_family = stream.socket.family
        self.request_callback = request_callback
        self.no_keep_alive = no_keep_alive
        self.xheaders = xheaders
        self.protocol = protocol
        params = HTTP1ConnectionParameters(no_keep_alive, header_timeout=3600)
        context = context_of(stream, address)
        if protocol:
            context.protocol = protocol
        self._connection = HTTP1ServerConnection(stream, params, context)
        delegate: ConnectionDelegate = adapt(request_callback)
        self._connection.serve(stream, ForwardedDelegate(delegate, frozenset()) if xheaders else delegate)

    def set_close_callback(self, callback: Callable[[], object] | None) -> None:
        """Call *callback* once when the connection is closed; None for no callback."""
        self.stream.set_close_callback(callback)

    def write(self, chunk: bytes | str, callback: Callable[[], object] | None = None) -> None:
        """Send bytes of the response as they are. Without a current request they are dropped.

        Args:
            chunk: A part of the response; text is sent in UTF-8.
            callback: Called when everything is flushed.
        """
        exchange = self._exchange()
        if exchange is not None:
            exchange.write(chunk, callback)

    def finish(self) -> None:
        """End the response. The connection waits for the next request, or closes."""
        exchange = self._exchange()
        if exchange is not None:
            exchange.finish()

    def close(self) -> None:
        """Close the connection."""
        self.stream.close()

    def _exchange(self) -> TornadoExchange | None:
        exchange = self._connection.exchange
        if exchange is None:
            return None
        ready = exchange.loop.create_future()
        ready.set_result(None)
        return TornadoExchange.open(exchange, ready, copy_context())
