"""Counts requests over all connections of a server, and acts when the number is reached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        excluded: Paths whose requests do not count; one that ends with ``*`` stands for all that begin so.
    """

    def __init__(self, limit: int, jitter: int, reached: Callable[[], None], excluded: Sequence[str] = ()) -> None:
        from random import randint  # only servers with this limit need it

        self._left = limit + randint(0, jitter)  # noqa: S311 - it only spreads the load
        self._reached = reached
        names = [name.encode() for name in excluded]
        self._paths = frozenset(name for name in names if not name.endswith(b"*"))
        self._beginnings = tuple(name[:-1] for name in names if name.endswith(b"*"))

    def exchange_started(self, exchange: Exchange) -> None:
        """Count the exchange."""
        path = exchange.head.line.path
        if path in self._paths or path.startswith(self._beginnings):
            return
        self._left -= 1
        if self._left == 0:
            self._reached()
