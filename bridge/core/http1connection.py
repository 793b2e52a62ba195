"""Tornado's documented HTTP/1.x connection classes over the engine."""

from __future__ import annotations

from typing import Any

from bridge.core.exchange import Exchange
from bridge.core.serverconnection import ServerConnection

__all__ = ["HTTP1Connection", "HTTP1ServerConnection", "native_delegate"]


class HTTP1Connection(Exchange):
    """One exchange under Tornado's names."""

    __slots__ = ()


class HTTP1ServerConnection(ServerConnection):
    """One connection under Tornado's names."""

    __slots__ = ()
    exchange_type = HTTP1Connection


def native_delegate(server: Any, decompress: bool) -> Any:
    """Return the native delegate that drives *server*'s Tornado-style delegate or callable."""
    raise NotImplementedError
