"""The native delegate interfaces: what an adapter, or a user's own code, implements.

They are the interfaces that the ASGI and WSGI adapters use. Tornado's documented pair, HTTPServerConnectionDelegate
and HTTPMessageDelegate, is translated to them in ``http1connection``.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from bridge.core.connection.http1 import ServerConnection
    from bridge.core.connection.http1exchange import Exchange

__all__ = ["NOBODY", "ConnectionDelegate", "ExchangeDelegate"]


class ExchangeDelegate(Protocol):
    """Takes one request's content and is told how the request ends.

    After ``start_exchange`` comes ``data_received`` any number of times and then ``finish``, when the whole request was
    read. ``on_connection_close`` is called at most once, at any time after ``start_exchange``, if the exchange ends
    otherwise than by a complete response to a completely read request: the peer is lost or broke a rule or was too
    slow, or the response was finished before the content was read. Nothing is called after it.
    """

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """Take content; nothing more is read until an awaitable that is returned is done."""

    def finish(self) -> None:
        """The request is complete."""

    def on_connection_close(self) -> None:
        """Nobody waits for the response any more, or no more content will come."""

    def on_peer_eof(self) -> None:
        """The peer sends nothing more; it may still read the response (RFC 9112 section 9.6)."""


class ConnectionDelegate(Protocol):
    """Starts exchanges; one object serves all connections of a server."""

    def start_exchange(self, exchange: Exchange) -> ExchangeDelegate:
        """Return the delegate of a new exchange, whose ``head`` is complete.

        The response may be sent from here on, also before this method returns.
        """
        ...

    def on_close(self, connection: ServerConnection) -> None:
        """The connection has ended."""


class _Nobody:
    """The delegate of an exchange whose response is complete: it takes what is left of the request."""

    __slots__ = ()

    def data_received(self, chunk: bytes) -> None:
        pass

    def finish(self) -> None:
        pass

    def on_connection_close(self) -> None:
        pass

    def on_peer_eof(self) -> None:
        pass


NOBODY: ExchangeDelegate = _Nobody()
