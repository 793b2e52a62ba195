"""The event loop of servers and clients."""

import asyncio
from collections.abc import Callable

__all__ = ["fastest"]


def fastest() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes uvloop's loops; None, which stands for asyncio's, where uvloop is not installed."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop
