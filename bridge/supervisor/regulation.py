"""Measures the workers of a master, and lets decisions about their number and their memory take effect."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from bridge.config.cgroups import memory_limit, memory_usage
from bridge.core.log import gen_log
from bridge.serving.sockets import accept_queues
from bridge.supervisor.sizing import Load, Memory, Size, Target
from bridge.supervisor.workers import LEAVING, READY, Worker
from bridge.telemetry.metrics.collect import workers_of
from bridge.telemetry.processes import resident

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bridge.config import Config
    from bridge.supervisor.steered import Steered
    from bridge.telemetry.metrics.arena import Arena

__all__ = ["Regulation"]

# Seconds between two measurements of the load.
_INTERVAL = 1.0
_NEVER = float("inf")


class Regulation:
    """Regulates a master's workers, if the settings ask for it.

    Args:
        master: The master.
        config: The settings.
        arenas: Returns the memory in which the workers count.
    """

    def __init__(self, master: Steered, config: Config, arenas: Callable[[], Iterable[Arena]]) -> None:
        self._master = master
        self._arenas = arenas
        least, most = config.workers or 1, getattr(config.workers, "most", config.workers) or 1
        self._size = Size(least, most, config.workers_idle) if most > least else None
        self._memory = None if config.workers_max_rss is None else Memory(config.workers_max_rss, config.rss_samples)
        self._limit = config.workers_max_rss
        self._target: Target | None = None
        limit = memory_limit() if config.memory_target is not None else None
        if config.memory_target is not None:
            if limit is None:
                gen_log.warning("--memory-target: nothing limits the memory of this process, so there is no target")
            else:
                self._target = Target(limit * config.memory_target / 100)
        self._shared = config.preload
        self._rss_interval = config.rss_interval
        watches = self._memory is not None or self._target is not None
        self._next_size = time.monotonic() + _INTERVAL if self._size is not None else _NEVER
        self._next_memory = time.monotonic() + self._rss_interval if watches else _NEVER
        self._before: dict[int, tuple[float, float, int]] = {}  # time, CPU seconds, requests
        self._waits = (0, 0.0)
        self._begun: set[int] = set()
        self._told = False
        self._told_target = False

    def next_event(self) -> list[float]:
        """Return the times at which :meth:`check` has something to do."""
        return [moment for moment in (self._next_size, self._next_memory) if moment != _NEVER]

    def moved(self, step: int) -> None:
        """Move the lowest number of workers, as TTIN and TTOU ask for."""
        if self._size is not None:
            self._size.least = min(max(self._size.least + step, 1), self._size.most)

    def check(self, now: float) -> None:
        """Measure and decide, if it is time."""
        if self._memory is not None:
            self._look_at_new_ones(self._memory)
        if self._next_memory <= now:
            self._next_memory = now + self._rss_interval
            self._check_memory()
        if self._next_size <= now and self._size is not None:
            self._next_size = now + _INTERVAL
            self._check_size(now, self._size)

    # ------------------------------------------------------------------ the number

    def _check_size(self, now: float, size: Size) -> None:
        master = self._master
        load = self._load(now)
        if master.phase != "serving" or master.workers.starting or len(load.busy) < master.plan.count:
            size.hold()
            return
        count = master.plan.count
        wanted = size.choose(now, count, load)
        if wanted > count and self._target is not None and (memory_usage() or 0) > self._target.limit:
            return
        if wanted != count:
            busy = sum(load.busy) / len(load.busy)
            gen_log.info("%d instead of %d workers: they are busy for %d %% of the time", wanted, count, busy * 100)
            master.scale(wanted)

    def _load(self, now: float) -> Load:
        serving = {worker.pid for worker in self._master.workers if worker.state == READY}
        busy: list[float] = []
        fresh: dict[int, tuple[float, float, int]] = {}
        waits, waited = 0, 0.0
        for worker in workers_of(self._arenas()):
            waits += worker["waits"]
            waited += worker["waited"]
            if worker["pid"] not in serving or worker["state"] != READY:
                continue
            fresh[worker["pid"]] = (now, worker["cpu"], worker["requests"])
            before = self._before.get(worker["pid"], fresh[worker["pid"]])
            part = (worker["cpu"] - before[1]) / (now - before[0]) if now > before[0] else 0.0
            # On a busy machine even the loop of an idle worker is late, so it counts only if the worker has requests.
            loop = worker["busy"] if worker["active"] or worker["requests"] > before[2] else 0.0
            busy.append(max(loop, worker["threads_busy"], min(part, 1.0)))
        self._before = fresh
        number, seconds = waits - self._waits[0], waited - self._waits[1]
        self._waits = (waits, waited)
        sockets = [sock for listener in self._master.plan.listeners for sock in listener.sockets]
        return Load(
            tuple(busy), seconds / number if number > 0 else 0.0, sum(length for _, length in accept_queues(sockets))
        )

    # ------------------------------------------------------------------ memory

    def _look_at_new_ones(self, memory: Memory) -> None:
        """Measure new workers at once: by the next measurement a leak may have filled one."""
        ready = {worker.pid for worker in self._master.workers if worker.state == READY}
        new, self._begun = ready - self._begun, ready
        for pid in new:
            if not self._has_served(pid):
                memory.began(self._bytes_of(pid))
        if new and memory.ignored and not self._told:
            self._told = True
            gen_log.error(
                "Every worker starts above --workers-max-rss, %d MiB: the limit is ignored", _mib(self._limit or 0)
            )

    def _has_served(self, pid: int) -> bool:
        return any(worker["pid"] == pid and worker["requests"] for worker in workers_of(self._arenas()))

    def _check_memory(self) -> None:
        serving = [worker for worker in self._master.workers if worker.state == READY and not worker.finished]
        sizes = {worker.pid: self._bytes_of(worker.pid) for worker in serving}
        if self._memory is not None:
            chosen = self._memory.choose(sizes)
            for worker in serving:
                if worker.pid in chosen:
                    self._recycle(worker, f"uses {_mib(sizes[worker.pid])} MiB, more than --workers-max-rss")
        if self._target is not None and self._master.phase == "serving":
            self._keep_target(serving, sizes, self._target)

    def _keep_target(self, serving: list[Worker], sizes: dict[int, int], target: Target) -> None:
        used = memory_usage()
        if used is None or self._master.workers.starting:
            return
        chosen = target.choose(time.monotonic(), used, sizes)
        if any(worker.state == LEAVING for worker in self._master.workers):
            return  # one at a time: a worker and its successor exist together for a while
        if chosen is not None:
            reason = f"is the largest, {_mib(sizes[chosen])} MiB, and all use {_mib(used)} MiB"
            for worker in serving:
                if worker.pid == chosen and not worker.finished:
                    self._recycle(worker, f"{reason}, more than --memory-target")
        if target.in_vain and not self._told_target:
            gen_log.warning(
                "All use %d MiB, more than --memory-target, %d MiB, and new workers use as much as those before",
                _mib(used),
                _mib(int(target.limit)),
            )
        self._told_target = target.in_vain

    def _recycle(self, worker: Worker, reason: str) -> None:
        """Let a worker be replaced: its successor serves before it goes."""
        worker.finished = True
        worker.cause = worker.cause or "memory"
        gen_log.warning("Worker %d (pid %d) is replaced: it %s", worker.slot, worker.pid, reason)

    def _bytes_of(self, pid: int) -> int:
        """Return the memory that a worker uses. After ``--preload``, memory shared with the master counts in part."""
        if self._shared:
            try:
                with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
                    for line in file:
                        if line.startswith(b"Pss:"):
                            return int(line.split()[1]) << 10
            except (OSError, ValueError, IndexError):
                pass
        return resident(pid) or 0


def _mib(size: int) -> int:
    return size >> 20
