"""What a process measures once a second, beside what it counts for each exchange."""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Callable, Mapping
from random import random
from typing import TYPE_CHECKING, Any, NamedTuple

from bridge.telemetry.metrics.catalog import SECOND
from bridge.telemetry.processes import cpu_times

if TYPE_CHECKING:
    import asyncio

    from bridge.core.connection.interfaces import Exchange
    from bridge.core.connection.websocket import WebSocketConnection
    from bridge.telemetry.metrics.arena import Block
    from bridge.telemetry.metrics.observer import RequestMetrics

__all__ = ["Sampler", "Sources"]

# Seconds: between two checks of how late the loop is, on average; and between two samples.
_PROBE = 0.05
_SAMPLE = 1.0
# A loop that is late by more than this (seconds) had something else to do: timers themselves are exact to 1 ms.
_LATE = 0.003


class Sources(NamedTuple):
    """Where a sampler finds what it does not measure itself.

    Attributes:
        active: Returns the exchanges in progress, which are looked for once a second: a set of them would cost each
            request a fifth of what metrics cost.
        websockets: Returns the number of open WebSockets.
        occupied: Returns the share of the possible threads that have a request.
        threads: Returns how many threads for requests are busy, idle and lost.
        expiries: Returns when the certificates that are served end (seconds since 1970), by host.
    """

    active: Callable[[], list[Exchange]]
    websockets: Callable[[], int]
    threads: Callable[[], tuple[int, int, int]]
    occupied: Callable[[], float]
    expiries: Callable[[], Mapping[str, int]]


class Sampler:
    """Writes samples into the cells of this process while its loop runs.

    Args:
        loop: The loop.
        block: The cells.
        observer: Knows the exchanges in progress and the open connections.
        sources: See :class:`Sources`.
    """

    def __init__(
        self, loop: asyncio.AbstractEventLoop, block: Block, observer: RequestMetrics, sources: Sources
    ) -> None:
        self._loop = loop
        self._block = block
        self._observer = observer
        self._sources = sources
        self._worker = str(block.slot)
        self._due = loop.time()
        self._lag = 0.0
        self._looks = self._late = self._occupied = 0.0
        self._before = loop.time(), time.thread_time()
        self._gauges: set[tuple[tuple[str, str], ...]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._sample()
        self._wait()

    def stop(self) -> None:
        """Write a last sample, and stop."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._sample()

    def _wait(self) -> None:
        # At random, or the looks could keep time with what the application does.
        self._due = self._loop.time() + _PROBE * (0.5 + random())  # noqa: S311 -- nothing is kept secret
        self._timer = self._loop.call_at(self._due, self._probe)

    def _probe(self) -> None:
        now = self._loop.time()
        late = now - self._due
        self._lag = max(self._lag, late)
        looks = 1.0 + late / _PROBE  # with those for which there was no time
        self._looks += looks
        self._late += looks if late > _LATE else 0.0
        self._occupied += looks * self._sources.occupied()
        if now - self._before[0] >= _SAMPLE:
            self._sample()
        self._wait()

    def _sample(self) -> None:
        block, observer, worker = self._block, self._observer, (("worker", self._worker),)
        now, cpu = self._loop.time(), time.thread_time()
        wall, busy = now - self._before[0], cpu - self._before[1]
        self._before = now, cpu
        lag, self._lag = self._lag, 0.0
        looks, late, occupied = self._looks or 1.0, self._late, self._occupied
        self._looks = self._late = self._occupied = 0.0
        if wall > 0:
            # A loop that waits inside of a call uses no CPU, and is busy all the same: then it is late.
            part = min(max(busy / wall, lag / wall, late / looks), 1.0)
            block.set("bridge_loop_utilization", worker, int(part * 1_000_000))
            block.set("bridge_threads_utilization", worker, int(min(occupied / looks, 1.0) * 1_000_000))
        block.set("bridge_loop_lag_seconds", worker, int(lag * SECOND))
        exchanges = self._sources.active()
        self._sample_requests(exchanges)
        websockets = self._sources.websockets()
        active = len({exchange.connection for exchange in exchanges})
        block.set("bridge_connections", (("state", "active"),), active)
        block.set("bridge_connections", (("state", "idle"),), observer.open - active)
        block.set("bridge_connections", (("state", "websocket"),), websockets)
        block.set("bridge_websockets", (), websockets)
        for state, number in zip(("busy", "idle", "lost"), self._sources.threads(), strict=True):
            block.set("bridge_threads", (("state", state),), number)
        for host, expiry in self._sources.expiries().items():
            block.set("bridge_tls_certificate_expiry_seconds", (("host", host),), expiry)
        for mode, seconds in zip(("user", "system"), cpu_times(), strict=True):
            block.set("process_cpu_time_seconds", (*worker, ("mode", mode)), int(seconds * SECOND))
        for generation, stats in enumerate(gc.get_stats()):
            labels = (*worker, ("generation", str(generation)))
            block.set("cpython_gc_collections", labels, stats["collections"])

    def _sample_requests(self, exchanges: list[Exchange]) -> None:
        """Count the exchanges in progress by method and scheme."""
        counts: dict[tuple[tuple[str, str], ...], int] = dict.fromkeys(self._gauges, 0)
        for exchange in exchanges:
            labels = self._observer.active_labels(exchange)
            counts[labels] = counts.get(labels, 0) + 1
        self._gauges = set(counts)
        for labels, number in counts.items():
            self._block.set("http_server_active_requests", labels, number)


class Counted(deque[Any]):
    """The messages that wait for a reader; every one that comes is counted.

    Args:
        count: Called for each.
    """

    def __init__(self, count: Callable[[], None]) -> None:
        super().__init__()
        self._count = count

    def append(self, message: Any) -> None:
        """Add a message."""
        self._count()
        super().append(message)


def count_messages(connection: WebSocketConnection, block: Block) -> None:
    """Count the messages of a WebSocket, in both directions, from now on."""
    cells = block.cells
    received = block.row("bridge_websocket_messages", (("direction", "in"),))
    sent = block.row("bridge_websocket_messages", (("direction", "out"),))

    def count() -> None:
        cells[received] += 1

    def counting(encode: Callable[[Any], bytes]) -> Callable[[Any], bytes]:
        def encoded(message: Any) -> bytes:
            cells[sent] += 1
            return encode(message)

        return encoded

    waiting = Counted(count)
    for message in connection.messages:
        waiting.append(message)
    connection.messages = waiting
    connection.encode_text = counting(connection.encode_text)
    connection.encode_binary = counting(connection.encode_binary)
