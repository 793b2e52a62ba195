"""Shares each turn of the event loop among all connections of the process.

What a client sends can be cheap to send and expensive to read: chunks of one byte, pings, fragments, pipelined
requests. One connection could keep the loop busy for seconds, and so could a thousand harmless ones together. So every
piece of such work is counted in units, and all connections draw on one count. When it is used up, connections with more
work wait for the next turn.

A unit is about a microsecond of work: a chunk, a frame. Nothing here knows a protocol.

The order of pipelined requests on one connection is kept in ``http1.py``.
"""

from __future__ import annotations

import weakref
from collections import deque
from typing import TYPE_CHECKING

from bridge.core.log import app_log

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

__all__ = ["UNITS_PER_TURN", "Turns"]

UNITS_PER_TURN = 4096
"""Units of one turn, unless the process is told otherwise: about five milliseconds."""

# Units that a connection may take in a row while others wait: one that has worked before, and one that has done nothing
# yet.
_SLICE, _FIRST_SLICE = 64, 1

# Loops that have ended take their entries with them.
_of_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Turns] = weakref.WeakKeyDictionary()


class Turns:
    """Units of work for the turns of one loop.

    A connection that has work looks at ``left``. If that is 0 or less, it calls :meth:`later`, with *begun* false. Else
    it works, and subtracts what it has done. When nothing is left, or after ``slice`` units if the loop is ``crowded``,
    it has to stop and to call :meth:`later`, with *begun* true.

    New units are given out in the turn after the last ones are used up, and not in every turn: while connections do
    little, nothing has to be scheduled.

    Args:
        loop: The event loop.
        units: Units of one turn.

    Attributes:
        crowded: Connections wait for their turn.
        left: Units that are left. Connections subtract from it.
        slice: Units that a connection may take in a row while the loop is crowded.
        units: The argument; may be changed.
    """

    __slots__ = ("__weakref__", "_begun", "_little", "_loop", "_new", "crowded", "left", "slice", "units")

    def __init__(self, loop: asyncio.AbstractEventLoop, units: int = UNITS_PER_TURN) -> None:
        self._loop: asyncio.AbstractEventLoop = weakref.proxy(loop)  # otherwise the entry would keep its loop
        self.units = units
        self.left = units
        self.slice = _FIRST_SLICE
        # Work that has not begun, and work of which a part is done. Work that has not begun goes first, and little of
        # it before much of it: a client with little work does not wait for clients with much. Until each of a thousand
        # such clients had begun, it took 60 to 100 ms of processor time.
        self._little: deque[Callable[[], None]] = deque()
        self._new: deque[Callable[[], None]] = deque()
        self._begun: deque[Callable[[], None]] = deque()
        self.crowded = False

    @staticmethod
    def of(loop: asyncio.AbstractEventLoop) -> Turns:
        """Return the object that all connections on *loop* share."""
        turns = _of_loop.get(loop)
        if turns is None:
            turns = _of_loop[loop] = Turns(loop)
        return turns

    def later(self, work: Callable[[], None], *, begun: bool, little: bool = False) -> None:
        """Call *work* in the next turn, or in a later one if many wait.

        Args:
            work: A connection's method, which draws on ``left``. It is called once. A connection that has ended is
                called, too.
            begun: Some of the work has been done already.
            little: Nothing has been done, and no more than a few kilobytes wait.
        """
        (self._begun if begun else self._little if little else self._new).append(work)
        if not self.crowded:
            self.crowded = True
            self.slice = _FIRST_SLICE
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        """Give out units, and let waiting connections work: first those that have done nothing, each a little.

        A part of the units is kept for those that have begun, and an eighth for the data that arrives in this turn.
        With three quarters kept for that, a flood cost others 5 ms and not 18, but HTTP/2 cost a quarter more processor
        time: the 32 requests that a client sends at once were spread over more turns, with a write in each.
        """
        self.left = units = self.units
        self._work(self._little, units >> 2)
        self._work(self._new, units >> 2)
        self.slice = _SLICE
        self._work(self._begun, units >> 3)
        self.crowded = bool(self._little or self._new or self._begun)
        if self.crowded:
            self.slice = _FIRST_SLICE
            self._loop.call_soon(self._run)

    def _work(self, waiting: deque[Callable[[], None]], floor: int) -> None:
        while waiting and self.left > floor:
            work = waiting.popleft()
            try:
                work()
            except Exception:  # otherwise the other connections would wait for ever
                app_log.exception("Uncaught exception in %r", work)
