"""Counts one exchange that has ended. The compiled function does the same, where it is (docs/speedups.md)."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from typing import Any

from bridge import speedups
from bridge.telemetry.metrics.catalog import BOUNDS, SECOND

__all__ = ["BOUNDS_NS", "SUM", "count_exchange", "count_exchange_pure"]

#: The bounds of the buckets of durations, in nanoseconds.
BOUNDS_NS = tuple(int(bound * SECOND) for bound in BOUNDS)
#: The cell of the sum, behind the buckets.
SUM = len(BOUNDS) + 1
# Where frameworks leave the route: bridge/telemetry/metrics/routes.py reads them.
_ROUTES = ("bridge.route", "route", "werkzeug.request")


def count_exchange_pure(
    cells: memoryview,
    rows: dict[tuple[object, ...], int],
    method: bytes,
    status: int,
    writing: object,
    called_with: Mapping[str, Any] | str | None,
    version: str,
    protocol: str,
    elapsed: int,
    queue: int,
    queued: float,
) -> bool:
    """Count an exchange in the row of its kind. If that is not known, change nothing and return False.

    Args:
        cells: The memory of this process, as numbers of 64 bits.
        rows: The indices in *cells* of the rows that are known, by the five arguments behind it and the route.
        method: The method.
        status: The status of the response; 0 for none.
        writing: The state of the response.
        called_with: The scope or environ; a mapping in which a framework has left the route has no known row, and the
            caller finds the route out. Or the route, or None for none.
        version: The version of HTTP.
        protocol: ``http`` or ``https``.
        elapsed: Nanoseconds that the exchange has taken.
        queue: The index of the row for the time in the queue.
        queued: Seconds that it was there; 0.0 for no queue.
    """
    route = called_with
    if route is not None and route.__class__ is not str:
        if route.__class__ is not dict or any(name in route for name in _ROUTES):
            return False
        route = None
    row = rows.get((method, status, writing, route, version, protocol))
    if row is None:
        return False
    elapsed = max(elapsed, 0)
    cells[row + bisect_left(BOUNDS_NS, elapsed)] += 1
    cells[row + SUM] += elapsed
    if queued > 0.0:
        waited = int(queued * SECOND)
        cells[queue + bisect_left(BOUNDS_NS, waited)] += 1
        cells[queue + SUM] += waited
    return True


count_exchange = count_exchange_pure if speedups.count_exchange is None else speedups.count_exchange
