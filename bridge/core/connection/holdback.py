"""Holds responses back while too much waits for clients that do not read.

For a client that reads nothing, first the system keeps megabytes, which cost the process nothing. Then the process
keeps the piece that the application has made last. A thousand such clients all get that piece before the first of them
can be told from a client that is merely slow. So once the budget is used up, a response goes on only when its client
has taken nearly everything that the system keeps, or when there is room again.

Nothing here knows a protocol.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import asyncio

__all__ = ["HoldBack"]

# Seconds between two checks of the responses that are held back.
_LOOK = 0.02
# Bytes of free budget that let one response go on although its client has not taken what the system keeps.
_ROOM = 65536


class Room(Protocol):
    """The budget, see ``budgets``."""

    @property
    def limit(self) -> int | None:
        """Most bytes; None for no limit."""
        ...

    @property
    def total(self) -> int:
        """Bytes that are held."""
        ...


class Held(Protocol):
    """A response, or the messages of a WebSocket, that can be held back."""

    @property
    def is_held_back(self) -> bool:
        """Whether it is still held back. It is not, for example, when the connection has ended."""
        ...

    @property
    def is_taken(self) -> bool:
        """Whether the client has taken nearly all."""
        ...

    def go_on(self) -> None:
        """Let the application send again."""
        ...


class HoldBack:
    """The responses that are held back on one loop.

    Args:
        loop: The event loop.
        budget: For what clients do not read.
    """

    __slots__ = ("_budget", "_held", "_loop", "_scheduled")

    def __init__(self, loop: asyncio.AbstractEventLoop, budget: Room) -> None:
        self._loop: asyncio.AbstractEventLoop = weakref.proxy(
            loop
        )  # otherwise the entry of Budgets would keep its loop
        self._budget = budget
        self._held: list[Held] = []
        self._scheduled = False

    def add(self, held: Held) -> None:
        """Call ``go_on()`` when the client has taken nearly all, or when there is room again."""
        self._held.append(held)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_later(_LOOK, self._look)

    def _look(self) -> None:
        self._scheduled = False
        limit = self._budget.limit
        waiting, self._held = self._held, []
        room = len(waiting) if limit is None else max(limit - self._budget.total, 0) // _ROOM
        for held in waiting:
            if not held.is_held_back:
                continue
            if held.is_taken:
                held.go_on()
            elif room:
                room -= 1
                held.go_on()
            else:
                self.add(held)
