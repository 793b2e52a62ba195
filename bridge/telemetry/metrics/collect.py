"""The sums of what all processes have counted, as families of samples."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from bridge.telemetry.metrics.arena import LEAVING, MASTER, READY, STARTING, read
from bridge.telemetry.metrics.catalog import CATALOG, GAUGE, HISTOGRAM, SECOND, Metric
from bridge.telemetry.processes import measured, resident

if TYPE_CHECKING:
    from bridge.telemetry.metrics.arena import Arena, Row

__all__ = ["Family", "Labels", "collect", "workers_of"]

Labels = tuple[tuple[str, str], ...]

_STATES = {STARTING: "starting", READY: "ready", LEAVING: "leaving"}


class Family(NamedTuple):
    """A metric with its samples.

    Attributes:
        metric: The metric.
        samples: The cells of each combination of labels: one number, or the buckets of a histogram, which are not
            cumulative, what is above, and the sum.
    """

    metric: Metric
    samples: dict[Labels, list[int]]


def collect(arenas: Iterable[Arena], accept_queues: Iterable[tuple[str, int]] = ()) -> list[Family]:
    """Return all metrics that have samples, summed over all processes.

    Args:
        arenas: The memory of this master and its workers, and of those before it.
        accept_queues: The connections that wait to be accepted, by listener.
    """
    sums: dict[str, dict[Labels, list[int]]] = {name: {} for name in CATALOG}
    workers: dict[Labels, list[int]] = {}
    now = time.monotonic()
    for state, slot, pid, since, rows in read(arenas):
        for row in rows:
            _add(sums, row, ended=state == MASTER)
        if state == MASTER:
            continue
        label: Labels = (("worker", str(slot)),)
        _count(workers, (("state", _STATES.get(state, "unknown")),), 1)
        _merge(sums, "process_uptime_seconds", label, int((now - since) * SECOND))
        for name, value in measured(pid).items():
            _merge(sums, name, label, value)
    sums["bridge_workers"] = workers
    for listener, number in accept_queues:
        _merge(sums, "bridge_accept_queue", (("listener", listener),), number)
    return [Family(metric, sums[name]) for name, metric in CATALOG.items() if sums[name]]


def workers_of(arenas: Iterable[Arena]) -> list[dict[str, Any]]:
    """Return the state of each process that serves, as json can write it. Times are seconds, sizes bytes."""
    now = time.monotonic()
    found = []
    for state, slot, pid, since, rows in read(arenas):
        if state == MASTER:
            continue
        values: dict[str, int] = {}
        for row in rows:
            metric = CATALOG.get(row.name)
            if metric is not None:
                width = len(metric.bounds) + 1 if metric.kind == HISTOGRAM else 1
                values[row.name] = values.get(row.name, 0) + sum(row.cells[:width])
                if metric.kind == HISTOGRAM:
                    values[f"{row.name} sum"] = values.get(f"{row.name} sum", 0) + row.cells[width]
                for _, value in row.labels:
                    values[f"{row.name} {value}"] = row.cells[0]
        found.append(
            {
                "worker": slot,
                "pid": pid,
                "state": _STATES.get(state, "unknown"),
                "age": round(now - since, 3),
                "requests": values.get("http_server_request_duration_seconds", 0),
                "active": values.get("http_server_active_requests", 0),
                "connections": values.get("bridge_connections", 0),
                "websockets": values.get("bridge_websockets", 0),
                "busy": values.get("bridge_loop_utilization", 0) / 1e6,
                "loop_lag": values.get("bridge_loop_lag_seconds", 0) / 1e9,
                "threads_busy": values.get("bridge_threads_utilization", 0) / 1e6,
                "waits": values.get("bridge_request_queue_duration_seconds", 0),
                "waited": values.get("bridge_request_queue_duration_seconds sum", 0) / 1e9,
                "threads": {name: values.get(f"bridge_threads {name}", 0) for name in ("busy", "idle", "lost")},
                "cpu": round(values.get("process_cpu_time_seconds", 0) / 1e9, 3),
                "rss": resident(pid),
            }
        )
    return sorted(found, key=lambda worker: (worker["worker"], -worker["age"]))


def _add(sums: dict[str, dict[Labels, list[int]]], row: Row, *, ended: bool) -> None:
    metric = CATALOG.get(row.name)
    if metric is None:
        return
    if metric.kind == GAUGE:
        if not ended or metric.merge == "sum":
            _merge(sums, row.name, row.labels, row.cells[0])
        return
    width = len(metric.bounds) + 2 if metric.kind == HISTOGRAM else 1
    found = sums[row.name].get(row.labels)
    if found is None:
        sums[row.name][row.labels] = row.cells[:width]
    else:
        for index in range(width):
            found[index] += row.cells[index]


def _merge(sums: dict[str, dict[Labels, list[int]]], name: str, labels: Labels, value: int) -> None:
    """Take in the value of a gauge, of which several processes may have one."""
    samples = sums[name]
    before = samples.get(labels)
    if before is None:
        samples[labels] = [value]
        return
    merge = CATALOG[name].merge
    before[0] = before[0] + value if merge == "sum" else (max if merge == "max" else min)(before[0], value)


def _count(samples: dict[Labels, list[int]], labels: Labels, value: int) -> None:
    samples.setdefault(labels, [0])[0] += value
