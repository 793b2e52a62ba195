"""Counts over all connections of a server, and what happens when a count is reached."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from bridge.core.connection.interfaces import Observer

if TYPE_CHECKING:
    from bridge.core.connection.interfaces import Exchange

__all__ = ["RequestCount"]


class RequestCount(Observer):
    """Observes exchanges, and calls a function when a number of them have started.

    Args:
        limit: The number.
        jitter: A random number up to this is added, so that not all workers of a server end at once.
        reached: Called once.
    """

    def __init__(self, limit: int, jitter: int, reached: Callable[[], None]) -> None:
        from random import randint  # only servers with this limit need it

        self._left = limit + randint(0, jitter)  # noqa: S311 - it only spreads the load
        self._reached = reached

    def exchange_started(self, exchange: Exchange) -> None:
        """Count the exchange."""
        self._left -= 1
        if self._left == 0:
            self._reached()
