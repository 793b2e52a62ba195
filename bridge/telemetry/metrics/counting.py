"""Counts exchanges that have ended. The compiled part has an object that does the same (docs/speedups.md)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from time import monotonic_ns
from typing import TYPE_CHECKING

from bridge import speedups
from bridge.telemetry.metrics.catalog import BOUNDS, SECOND

if TYPE_CHECKING:
    from bridge.core.connection.times import Times

__all__ = ["BOUNDS_NS", "SUM", "PureCounter", "make_counter"]

#: The bounds of the buckets of durations, in nanoseconds.
BOUNDS_NS = tuple(int(bound * SECOND) for bound in BOUNDS)
#: The cell of the sum, behind the buckets.
SUM = len(BOUNDS) + 1
# Kinds of exchanges whose rows are remembered.
_REMEMBERED = 16
# Where frameworks leave the route: bridge/telemetry/metrics/routes.py reads them.
_ROUTES = ("bridge.route", "route")


class PureCounter:
    """Counts the exchanges of a process.

    It remembers the rows of kinds that came before. A kind is a status, a method, a state of the response, a version of
    HTTP and a scheme, without a route.

    Args:
        cells: The memory of this process, as numbers of 64 bits.
        queue: The index of the row for the time in the queue.
    """

    def __init__(self, cells: memoryview, queue: int) -> None:
        self._cells = cells
        self._queue = queue
        self._rows: dict[tuple[object, ...], int] = {}

    def learn(self, row: int, status: int, method: bytes, writing: object, version: str, protocol: str) -> None:
        """Remember the row of a kind; the one that was learned first may be forgotten for it.

        Args:
            row: The index of its first cell.
            status: The status of the response; 0 for none.
            method: The method.
            writing: The state of the response.
            version: The version of HTTP.
            protocol: ``http`` or ``https``.
        """
        kind = (status, method, writing, version, protocol)
        if len(self._rows) >= _REMEMBERED and kind not in self._rows:
            del self._rows[next(iter(self._rows))]
        self._rows.setdefault(kind, row)

    def count(
        self, times: Times | None, status: int, method: bytes, writing: object, version: str, protocol: str
    ) -> bool:
        """Count an exchange that ends now, if its row is remembered. Otherwise change nothing and return False.

        Nor is there a row if it was refused, or if a framework has left a route: the caller finds that out.

        Args:
            times: What the exchange has noted. ``called_with`` is None afterwards. Of an exchange that notes nothing,
                None: it is not counted, and the result is True.
            status: As for :meth:`learn`, like those behind it.
            method: See there.
            writing: See there.
            version: See there.
            protocol: See there.
        """
        if times is None:
            return True
        called_with = times.called_with
        if times.refused or (
            called_with is not None
            and (called_with.__class__ is not dict or any(name in called_with for name in _ROUTES))
        ):
            return False
        row = self._rows.get((status, method, writing, version, protocol))
        if row is None:
            return False
        self.add(times, row)
        return True

    def add(self, times: Times, row: int) -> None:
        """Count an exchange that ends now, whatever it is, in a row.

        Args:
            times: As for :meth:`count`.
            row: The index of the row.
        """
        elapsed = max(monotonic_ns() - times.opened, 0)
        cells = self._cells
        cells[row + bisect_left(BOUNDS_NS, elapsed)] += 1
        cells[row + SUM] += elapsed
        if times.queued > 0.0:
            waited = int(times.queued * SECOND)
            cells[self._queue + bisect_left(BOUNDS_NS, waited)] += 1
            cells[self._queue + SUM] += waited
        times.called_with = None


make_counter: Callable[[memoryview, int], PureCounter] = (
    PureCounter if speedups.make_counter is None else speedups.make_counter
)
