"""The probes, metrics and commands of a master. They show its workers, and the sums of the workers' counts.

This module listens for them. ``commands.py`` carries the commands out.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from bridge._version import __version__
from bridge.config import Config
from bridge.core.log import gen_log
from bridge.errors import BindError
from bridge.operations.health import Condition
from bridge.operations.listener import Listener as AdminListener
from bridge.operations.listener import SelectorWatch
from bridge.operations.routes import Command, Routes
from bridge.serving.pages import application_metrics
from bridge.serving.sockets import Listener, accept_queues, bind_admin, bind_control, url
from bridge.supervisor.commands import Commands
from bridge.telemetry.metrics.arena import Arena, Block
from bridge.telemetry.metrics.catalog import COUNTED, KEPT
from bridge.telemetry.metrics.collect import Family, collect, workers_of
from bridge.telemetry.processes import resident, runs

if TYPE_CHECKING:
    from bridge.supervisor.exporter import Exporter
    from bridge.supervisor.steered import Steered
    from bridge.supervisor.workers import Worker
    from bridge.telemetry.metrics.application import ApplicationMetrics, Directory

__all__ = ["Administration"]

# Blocks in addition to one for each worker: for workers that are being replaced, and for workers added later.
_SPARE = 64


class Administration:
    """Operates a master, on its selector.

    Args:
        state: The master.
        selector: Its selector.
        config: The settings.
        inherited: The descriptors of the memory of the masters before this one.
        sockets: The descriptors of listening sockets that they hand over, by the name of their listener.

    Attributes:
        listeners: The addresses for probes and metrics.

    Raises:
        BindError: An address cannot be listened on.
    """

    def __init__(
        self,
        state: Steered,
        selector: selectors.BaseSelector,
        config: Config,
        inherited: Sequence[int] = (),
        sockets: Mapping[str, Sequence[int]] | None = None,
    ) -> None:
        self._state = state
        self._began = time.monotonic()
        self.application: ApplicationMetrics | None = None
        self._directory: Directory | None = None
        self._show_application(config, takes_over=sockets is not None)
        self._commands = Commands(state)
        self.reports: Mapping[str, Command] = self._commands.reports
        self.commands: Mapping[str, Command] = self._commands.commands
        state.workers.on_dump = self._commands.dumped
        watch = SelectorWatch(selector)
        self._http = AdminListener(watch, Routes(self, watch.soon).answer)
        self.listeners = bind_admin(config, sockets)
        self._control = self._open_control(config, sockets)
        answers = sockets is None  # otherwise the master before this one still does
        if answers:
            self._serve(self.sockets)
        self._inherited: list[Arena] = []
        for descriptor in inherited:
            with contextlib.suppress(OSError, ValueError):
                self._inherited.append(Arena(descriptor=descriptor))
        self._arena: Arena | None = None
        self._blocks: dict[int, Block] = {}
        self._exporter: Exporter | None = None
        if config.measures:
            self._measure(config)
        if config.pushes and answers:
            self._export(config)

    def _show_application(self, config: Config, *, takes_over: bool = False) -> None:
        self.application = application_metrics(config)
        if self.application is not None and self._directory is None:
            from bridge.telemetry.metrics.application import Directory

            self._directory = Directory(takes_over=takes_over)

    def _measure(self, config: Config) -> None:
        if self._arena is None:
            self._arena = Arena(1 + _SPARE + 2 * max(config.workers or 1, 8))

    def _export(self, config: Config, sent: list[Family] | None = None) -> None:
        from bridge.supervisor.exporter import Exporter

        self._exporter = Exporter(config, lambda: collect(self.arenas), self._leave_exporter, sent)
        self._state.workers.adopt(self._exporter.pid)

    def _leave_exporter(self) -> None:
        """Close what only a master may have: a listening socket would take connections that nobody accepts."""
        self.abandon()
        for listener in self._state.plan.listeners:
            for sock in listener.sockets:
                sock.close()
        for worker in self._state.workers:
            worker.channel.close()

    def _open_control(self, config: Config, sockets: Mapping[str, Sequence[int]] | None) -> Listener | None:
        path = config.control_path
        if path is None:
            return None
        try:
            listener = bind_control(path, config, sockets)
        except BindError as exc:
            if config.control_socket != "auto":
                for other in self.listeners:
                    other.close()
                raise
            gen_log.warning(
                "%s; there is no control socket", exc
            )  # it is on by default, so its absence is not an error
            return None
        return listener

    def _serve(self, listeners: Sequence[Listener]) -> None:
        for listener in listeners:
            self._http.add(listener.sockets, control=listener is self._control)

    @property
    def arenas(self) -> tuple[Arena, ...]:
        """The memory to sum; the first is this master's own."""
        own = () if self._arena is None else (self._arena,)
        return (*own, *self._inherited)

    @property
    def sockets(self) -> list[Listener]:
        """What a successor listens on, too."""
        return [*self.listeners, *([] if self._control is None else [self._control])]

    @property
    def memory(self) -> list[int]:
        """The descriptors of all memory, for a successor."""
        self._absorb()
        return [arena.descriptor for arena in self.arenas]

    # ------------------------------------------------------------------ told by the master

    def reload(self, config: Config) -> list[Listener]:
        """Bind the addresses of new settings; return those that are new.

        Raises:
            BindError: One cannot be listened on, and nothing has changed.
        """
        before = self.listeners
        self.listeners = bind_admin(config, keep=before)
        fresh = [listener for listener in self.listeners if listener not in before]
        self._serve(fresh)
        for listener in before:
            if listener not in self.listeners:
                self._http.remove(listener.sockets)
                listener.close()
        self._show_application(config)
        if config.measures:
            self._measure(config)
        self._end_exporter()
        if config.pushes:
            self._export(config)
        return fresh

    def allocate(self, slot: int) -> Block | None:
        """Return the cells for a worker that is about to start; None if nothing is counted."""
        if self._arena is None:
            return None
        block = self._arena.allocate(slot)
        if block is None:
            gen_log.warning("Metrics: there are more workers than there is room for; worker %d is not counted", slot)
        return block

    def worker_started(self, pid: int, block: Block | None) -> None:
        """Count the start of a worker."""
        if block is not None:
            block.pid = pid
            self._blocks[pid] = block
        self._add("bridge_worker_starts")

    def not_started(self, block: Block | None) -> None:
        """Take back the cells of a worker that could not be started."""
        if block is not None:
            block.clear()

    def worker_ended(self, worker: Worker, reason: str) -> None:
        """Count the end of a worker, and keep what it has counted."""
        block = self._blocks.pop(worker.pid, None)
        if block is not None and self._arena is not None:
            self._arena.retire(block, COUNTED, KEPT)
        self._add("bridge_worker_exits", (("reason", reason),))
        if self._directory is not None:
            self._directory.process_ended(worker.pid)

    def reload_begins(self) -> None:
        """Take note that a reload begins."""
        self._commands.reload_begins()

    def reload_ended(self, error: str, traceback: str) -> None:
        """Count a reload and answer those who wait for it. The arguments are those of :meth:`Commands.reload_ended`."""
        self._add("bridge_reloads", (("result", "failure" if error else "success"),))
        self._commands.reload_ended(error, traceback)

    def _add(self, name: str, labels: tuple[tuple[str, str], ...] = ()) -> None:
        if self._arena is not None:
            self._arena.own.add(name, labels)

    def next_event(self) -> list[float]:
        """Return the times at which :meth:`check` has something to do."""
        due = self._http.next_event()
        return self._commands.next_event() + ([] if due is None else [due])

    def check(self, now: float) -> None:
        """End the connections of clients that are too slow; answer commands whose time is up."""
        self._http.check(now)
        self._commands.check(now)

    def take_over(self) -> None:
        """From now on answer and send metrics, in place of the master before this one."""
        config = self._state.plan.config
        self._serve([listener for listener in self.sockets if not self._serves(listener)])
        if config.pushes and self._exporter is None:
            # The masters before this one have sent their counts, except those of the last milliseconds. The counts of
            # this one's workers are unsent.
            self._export(config, collect(self._inherited))

    def _serves(self, listener: Listener) -> bool:
        return any(sock in self._http.sockets for sock in listener.sockets)

    def hand_over(self) -> None:
        """Stop answering and sending metrics: another master does that now, on the same sockets."""
        self._http.remove(list(self._http.sockets))
        self._end_exporter()

    def _end_exporter(self) -> None:
        exporter, self._exporter = self._exporter, None
        if exporter is not None:
            exporter.close()

    def abandon(self) -> None:
        """Close what a worker must not have. Called in the child."""
        self._http.abandon()
        if self._exporter is not None:
            self._exporter.abandon()

    def close(self, *, keep: frozenset[str] = frozenset(), remove: bool = True) -> None:
        """Close everything.

        Args:
            keep: The names of the listeners whose files stay, since another master uses them.
            remove: Delete the files of unix sockets.
        """
        self._commands.close()
        if self._directory is not None:
            self._directory.close(remove=remove and not keep)
        self._end_exporter()
        self._http.close()
        for listener in self.sockets:
            listener.close(remove=remove and listener.name not in keep)
        for arena in self.arenas:
            arena.close()
        self._arena, self._inherited = None, []

    # ------------------------------------------------------------------ what is answered

    def families(self) -> list[Family]:
        """Return the metrics."""
        self._absorb()
        sockets = [sock for listener in self._state.plan.listeners for sock in listener.sockets]
        return collect(self.arenas, accept_queues(sockets))

    def _absorb(self) -> None:
        """Take in what masters before this one have counted, once they and all their workers have ended."""
        own = self._arena
        if own is None:
            return
        for arena in self._inherited[:]:
            blocks = [arena.own, *arena.blocks]
            if not any(block.pid and runs(block.pid) for block in blocks):
                for block in blocks:
                    own.retire(block, COUNTED, KEPT)
                self._inherited.remove(arena)
                arena.close()

    def status(self) -> dict[str, Any]:
        """Return the state of the master and its workers."""
        state = self._state
        plan = state.plan
        config = plan.config
        scheme = "https" if config.ssl_certfile or config.ssl_context_factory else "http"
        return {
            "version": __version__,
            "pid": os.getpid(),
            "state": state.phase,
            "uptime": round(time.monotonic() - self._began, 3),
            "application": config.target,
            "interface": next((worker.kind for worker in state.workers if worker.kind), ""),
            "listeners": [
                url(sock, scheme) for listener in plan.listeners for sock in listener.sockets if sock.fileno() >= 0
            ],
            "admin": [url(sock, "http") for listener in self.listeners for sock in listener.sockets],
            "wanted": plan.count,
            "workers": workers_of(self.arenas) or self._known_workers(),
            "counts": self._arena is not None,
        }

    def _known_workers(self) -> list[dict[str, Any]]:
        """Return what is known of the workers without counts."""
        now = time.monotonic()
        return [
            {
                "worker": worker.slot,
                "pid": worker.pid,
                "state": worker.state,
                "age": round(now - worker.started, 3),
                "rss": resident(worker.pid),
            }
            for worker in sorted(self._state.workers, key=lambda worker: (worker.slot, worker.started))
        ]

    def live(self) -> Sequence[Condition]:
        """The master runs, and a worker's loop does; or it is the first start."""
        workers = [worker for worker in self._state.workers if worker.state != "starting"]
        beating = sum(worker.kill_at is None or worker.draining for worker in workers)
        first = not self._state.was_ready
        text = "the first workers start" if first else f"{beating} of {len(workers)} workers run"
        return [Condition("workers", first or bool(beating) or self._state.phase == "stopping", text)]

    def started(self) -> Sequence[Condition]:
        """A worker has served."""
        started = self._state.was_ready or any(worker.ready for worker in self._state.workers)
        return [Condition("started", started, "started" if started else "starting")]

    def ready(self) -> Sequence[Condition]:
        """Workers serve, and the server is not about to stop."""
        phase = self._state.phase
        plan = self._state.plan
        serving = [worker for worker in self._state.workers if worker.state == "ready"]
        ready = sum(not worker.check for worker in serving)
        wanted = plan.config.ready_workers
        found = [
            Condition("serving", phase in {"serving", "reloading"}, phase),
            Condition(
                "workers",
                ready >= (plan.count if wanted is None else min(wanted, plan.count)),
                f"{ready} of {plan.count} workers are ready",
            ),
        ]
        checks = sorted({worker.check for worker in serving if worker.check})
        if plan.config.readiness_check is not None:
            found.append(Condition("check", ready > 0, ", ".join(checks) or "the check passed"))
        return found
