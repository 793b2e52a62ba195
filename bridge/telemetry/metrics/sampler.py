"""What a process measures once a second, beside what it counts for each exchange."""

from __future__ import annotations

import gc
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from bridge.telemetry.metrics.catalog import SECOND
from bridge.telemetry.processes import cpu_times

if TYPE_CHECKING:
    import asyncio

    from bridge.core.connection.websocket import WebSocketConnection
    from bridge.telemetry.metrics.arena import Block
    from bridge.telemetry.metrics.observer import RequestMetrics

__all__ = ["Sampler", "Sources"]

# Seconds between two looks at how late the loop is, and how many of them make a sample.
_PROBE = 0.25
_PROBES = 4


class Sources(NamedTuple):
    """Where a sampler finds what it does not measure itself.

    Attributes:
        websockets: Returns the number of open WebSockets.
        threads: Returns how many threads for requests are busy, idle and lost.
        expiries: Returns when the certificates that are served end (seconds since 1970), by host.
    """

    websockets: Callable[[], int]
    threads: Callable[[], tuple[int, int, int]]
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
        self._probes = 0
        self._before = loop.time(), time.thread_time()
        self._gauges: set[tuple[tuple[str, str], ...]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._sample()
        self._wait()

    def stop(self) -> None:
        """Write a last sample, and no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._sample()

    def _wait(self) -> None:
        self._due = self._loop.time() + _PROBE
        self._timer = self._loop.call_at(self._due, self._probe)

    def _probe(self) -> None:
        self._lag = max(self._lag, self._loop.time() - self._due)
        self._probes += 1
        if self._probes >= _PROBES:
            self._probes = 0
            self._sample()
        self._wait()

    def _sample(self) -> None:
        block, observer, worker = self._block, self._observer, (("worker", self._worker),)
        now, cpu = self._loop.time(), time.thread_time()
        wall, busy = now - self._before[0], cpu - self._before[1]
        self._before = now, cpu
        lag, self._lag = self._lag, 0.0
        if wall > 0:
            # A loop that waits inside of a call uses no CPU, and is busy all the same: then it is late.
            block.set("bridge_loop_utilization", worker, int(min(max(busy, lag) / wall, 1.0) * 1_000_000))
        block.set("bridge_loop_lag_seconds", worker, int(lag * SECOND))
        self._sample_requests()
        websockets = self._sources.websockets()
        active = len({exchange.connection for exchange in observer.active})
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

    def _sample_requests(self) -> None:
        """Count the exchanges in progress by method and scheme."""
        counts: dict[tuple[tuple[str, str], ...], int] = dict.fromkeys(self._gauges, 0)
        for exchange in self._observer.active:
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
