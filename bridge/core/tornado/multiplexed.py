"""Stands in for a request's stream in HTTP/2, where many requests share a connection."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bridge.core.tornado.startline import HTTPOutputError

if TYPE_CHECKING:
    from bridge.core.connection.interfaces import Exchange

__all__ = ["MultiplexedStream"]


class MultiplexedStream:
    """The part of Tornado's IOStream that has a meaning for one stream of HTTP/2. Other streams go on.

    Args:
        exchange: The request with its response.

    Attributes:
        socket: The socket of the whole connection, to look at; None after its end.
        error: None.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.error = None

    @property
    def socket(self) -> Any:
        """The socket of the whole connection, to look at; the TLS object under TLS, as for an SSLIOStream."""
        tls = self._exchange.tls
        transport = getattr(self._exchange.connection, "transport", None)
        return tls or (None if transport is None else transport.get_extra_info("socket"))

    def closed(self) -> bool:
        """Tell whether the stream was reset, or the connection has ended."""
        return self._exchange.peer_gone

    def close(self, exc_info: Any = False) -> None:
        """Reset the stream, unless its response is complete."""
        self._exchange.close_connection()

    def writing(self) -> bool:
        """Tell whether the application should wait before it writes more."""
        return self._exchange.write_paused

    def reading(self) -> bool:
        """Return False: the content goes to the delegate."""
        return False

    def set_nodelay(self, value: bool) -> None:
        """Do nothing: all responses of a turn go out together."""

    def set_close_callback(self, callback: Callable[[], object] | None) -> None:
        """Refuse; the exchange has a method of this name.

        Raises:
            HTTPOutputError: If *callback* is not None.
        """
        if callback is not None:
            raise HTTPOutputError("in HTTP/2 set_close_callback is a method of the request's connection")

    def write(self, data: Any) -> Any:
        """Refuse: bytes of the application's own would break the frames of all requests.

        Raises:
            HTTPOutputError: Always.
        """
        raise HTTPOutputError("stream.write(): in HTTP/2 a response is written by the request's connection")
