"""The types of the ASGI specification, and what one request or WebSocket asks of the delegate that started it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio

    from bridge.core.connection.interfaces import Exchange
    from bridge.core.connection.websocket import WebSocketConnection

__all__ = ["SENDS_IN_A_ROW", "Application", "Message", "Owner", "Receive", "Scope", "Send"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


SENDS_IN_A_ROW = 16
"""How many messages an application may send before the loop gets a turn, if none has to wait for the client."""


class Owner(Protocol):
    """The delegate, as the requests and WebSockets that it has started see it."""

    debug: bool
    """``http.response.debug`` messages are taken."""
    timeout: float | None
    """Seconds in which a response must be complete; None for no limit."""
    closing_code: int | None
    """The close code for WebSockets that are opened from now on; None while the server serves."""
    stopping: asyncio.Event
    """Set when the server is about to stop."""

    def cancel_after_grace(self, task: asyncio.Task[None]) -> None:
        """Cancel *task*, whose client has left, unless it ends within the grace time."""

    def cancel_if_idle(self, task: asyncio.Task[None], exchange: Exchange) -> None:
        """Cancel *task*, whose client has closed its sending side, when it sends nothing for the grace time."""

    def add_websocket(self, connection: WebSocketConnection) -> None:
        """Keep track of *connection* until its transport is gone."""
