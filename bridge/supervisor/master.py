"""The master: starts workers, replaces them, passes on what signals ask for.

It serves nothing, imports no application (unless ``--preload``) and runs no event loop, so a fork of it is a clean
start. The listening sockets are its own and shared by all workers: a worker that ends takes no waiting connection with
it. What is to be done follows from the state in :meth:`Master._reconcile`, whatever event has changed it.
"""

from __future__ import annotations

import os
import selectors
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bridge.config import Config
from bridge.core.log import gen_log
from bridge.errors import BridgeError
from bridge.serving.exits import OK, TARGET_FAILED
from bridge.serving.server import announce, fast_stop_timeout, serving_line
from bridge.serving.sockets import bind_all
from bridge.serving.systemd import Notifier
from bridge.supervisor.channel import Channel
from bridge.supervisor.plan import Plan
from bridge.supervisor.signals import SignalPipe
from bridge.supervisor.successor import Handover, Successor
from bridge.supervisor.worker import failure, run_worker
from bridge.supervisor.workers import LEAVING, READY, STARTING, Crew, NoProcess, Worker

if TYPE_CHECKING:
    from bridge.apps.lifecycle import MountPoint

__all__ = ["Master"]

_SIGNALS = ("SIGHUP", "SIGTERM", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGTTIN", "SIGTTOU", "SIGCHLD")
# A worker that lived longer than this (seconds) has not failed because it cannot live.
_LONG_LIFE = 10.0
_LONGEST_DELAY = 30.0
_NEVER = float("inf")


@dataclass(slots=True)
class Slot:
    """A place for one worker: how often it failed lately, and when the next may start."""

    failures: int = 0
    next_start: float = 0.0

    def wait(self) -> float:
        """Note a failure, and put off the next start, each time longer; return by how many seconds."""
        self.failures += 1
        delay = min(2.0 ** (self.failures - 2), _LONGEST_DELAY)
        self.next_start = time.monotonic() + delay
        return delay


class _Ended(Exception):
    """The master's work is done."""

    def __init__(self, code: int) -> None:
        self.code = code


@dataclass(slots=True)
class _Stop:
    """A stop in progress."""

    forced: bool = False
    code: int = OK


class Master:
    """Runs workers until it is told to stop.

    Args:
        config: The settings; ``config.workers`` says how many.
        app: The application if there is one already; else each worker imports ``config.target``.
        read_config: Reads the settings anew, for a reload; raises ConfigError.

    Attributes:
        on_ready: Called when all workers serve.
        watch: Reports changed files (:class:`bridge.supervisor.reload.Watcher`).
    """

    def __init__(self, config: Config, app: Any = None, read_config: Callable[[], Config] | None = None) -> None:
        self._plan = Plan(config, [], config.workers or 1)
        self._previous: Plan | None = None  # what a reload falls back to
        self._generations = 0
        self._reload_asked = False
        self._read_config = read_config
        self._app = app
        self._mount_points: list[MountPoint] | None = None
        self._pid = os.getpid()
        self._selector = selectors.DefaultSelector()
        self._signals: SignalPipe | None = None
        self._crew = Crew(self._selector, lambda: self._plan.config, self._ended)
        self._slots: dict[int, Slot] = {}
        self._booted = False
        self._stop: _Stop | None = None
        self._notifier = Notifier()
        self._next_alive = 0.0
        self._handover = Handover.received()
        self._successor: Successor | None = None
        self._patient = config.reload  # a broken application is waited for, not given up
        self.on_ready: Callable[[], None] | None = None
        self.watch: Any = None

    @property
    def takes_over(self) -> bool:
        """Another master hands its sockets to this one."""
        return self._handover is not None

    # ------------------------------------------------------------------ the life of the master

    def run(self) -> int:
        """Bind, start the workers, and look after them; return the exit status.

        0 after a stop that was asked for; 3 or 4 when the application cannot start.

        Raises:
            BindError: An address cannot be listened on.
            ConfigError: A setting cannot be used.
            SystemExit: In a worker, when it ends.
        """
        config, handover = self._plan.config, self._handover
        self._plan.listeners = bind_all(config, handover.descriptors if handover else None)
        if handover is not None:
            handover.close_rest(self._plan.listeners)
        try:
            if config.preload:
                from bridge.apps.lifecycle import load_mount_points

                self._mount_points = load_mount_points(config, self._app)
            return self._loop()
        finally:
            if os.getpid() == self._pid:
                self._close()

    def _loop(self) -> int:
        self._signals = SignalPipe(_SIGNALS)
        self._selector.register(self._signals, selectors.EVENT_READ, self._take_signals)
        if self.watch is not None:
            self._selector.register(self.watch, selectors.EVENT_READ, self._files_changed)
        try:
            while True:
                self._reconcile()
                patience = self._next_event()
                before = time.monotonic()
                for key, _ in self._selector.select(patience):
                    # What came before it may have closed it: a signal that a worker has ended closes its line. By its
                    # number, since a closed line has none to be found by.
                    if self._selector.get_map().get(key.fd) is key:
                        key.data()
                if patience is not None and time.monotonic() - before > patience + 1.0:
                    self._crew.forgive()  # this process itself stood still, as everything on a suspended machine
                self._crew.check_hearts()
                self._feed_watchdog()
        except _Ended as end:
            return end.code

    def _close(self) -> None:
        if self._signals is not None:
            self._signals.close()
        if self._previous is not None:
            self._previous.close_beside(self._plan)
        # The file of a unix socket belongs to who serves: the new master, even one that is still about to; or, where
        # this is a new one that has failed, the old one.
        others = self._handover.descriptors if self._handover is not None and not self._booted else {}
        for listener in self._plan.listeners:
            listener.close(remove=self._successor is None and str(listener.address) not in others)
        self._selector.close()
        if self.watch is not None:
            self.watch.close()

    # ------------------------------------------------------------------ what is to be done

    def _reconcile(self) -> None:
        """Start, retire and kill what the state asks for."""
        now = time.monotonic()
        self._crew.kill_overdue(now)
        if self._stop is not None:
            if not self._crew:
                raise _Ended(self._stop.code)
            return
        if self._reload_asked and self._previous is None and not self._crew.starting:
            self._reload_asked = False
            self._begin_reload()
        for number in range(self._plan.count):
            self._fill(number, now)
        for worker in self._crew:
            if worker.slot >= self._plan.count and worker.state != LEAVING:
                self._crew.retire(worker)
        if not self._crew.starting:
            self._settled()

    def _fill(self, number: int, now: float) -> None:
        """See to it that slot *number* has the worker it should have."""
        here = [worker for worker in self._crew if worker.slot == number and worker.state != LEAVING]
        if any(worker.state == STARTING for worker in here):
            return
        current = any(worker.generation == self._plan.generation and not worker.finished for worker in here)
        if current:
            return
        outdated = here and not any(worker.finished for worker in here)
        if outdated and self._crew.starting:
            return  # a reload goes from worker to worker
        slot = self._slots.setdefault(number, Slot())
        if slot.next_start > now:
            return
        try:
            self._crew.start(number, self._plan.generation, self._serve)
        except NoProcess as exc:
            gen_log.error("Worker %d cannot be started: %s; next try in %g s", number, exc, slot.wait())

    def _serve(self, channel: Channel) -> int:
        """Be a worker; in the child."""
        self._selector.close()
        assert self._signals is not None
        self._signals.abandon()
        if self._handover is not None:
            self._handover.close()
        if self._successor is not None:
            self._successor.close()
        return run_worker(self._plan.config, self._app, self._plan.listeners, channel, self._mount_points)

    def _settled(self) -> None:
        """Nothing is starting: note the end of the start, or of a reload."""
        plan, previous = self._plan, self._previous
        current = [w for w in self._crew if w.state == READY and w.generation == plan.generation]
        if len({worker.slot for worker in current}) < plan.count:
            return
        if not self._booted:
            self._booted = True
            self._ready(current[0].kind)
        elif previous is not None:
            if any(not w.deaf and w.generation != plan.generation for w in self._crew):
                return  # the old code may still be asked
            self._previous = None
            previous.close_beside(plan)
            gen_log.info("Reloaded: %s", self._number)
            self._notifier.ready(self._number)

    def _ready(self, kind: str) -> None:
        sockets = [sock for listener in self._plan.listeners for sock in listener.sockets]
        announce(serving_line(self._plan.config, self._app, f"{self._number}, {kind}", sockets))
        if self.on_ready is not None:
            self.on_ready()
        if self._handover is not None:
            self._handover.ready()
        self._notifier.ready(self._number)

    @property
    def _number(self) -> str:
        return f"{self._plan.count} worker{'' if self._plan.count == 1 else 's'}"

    def _next_event(self) -> float | None:
        """Return how many seconds there is nothing to do unless something happens."""
        now = time.monotonic()
        times = self._crew.next_events()
        if self._stop is None:
            times += [slot.next_start for slot in self._slots.values() if now < slot.next_start < _NEVER]
        if self._notifier.watchdog is not None:
            times.append(self._next_alive)
        return max(min(times) - now, 0.0) if times else None

    def _feed_watchdog(self) -> None:
        """Tell systemd that a worker is alive; not before the next sign of life is due."""
        now = time.monotonic()
        if self._notifier.watchdog is not None and self._next_alive <= now:
            self._next_alive = now + self._notifier.watchdog
            if any(w.state == READY and w.kill_at is None for w in self._crew) or not self._booted:
                self._notifier.alive()

    # ------------------------------------------------------------------ the end of workers

    def _ended(self, worker: Worker, code: int) -> None:
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        if worker.state == LEAVING or self._stop is not None or worker.dismissed:
            expected = code == 0 or worker.dismissed
            gen_log.log(20 if expected else 30, "Worker %d (pid %d) %s", worker.slot, worker.pid, how)
            if worker.state == STARTING and self._previous is not None and self._stop is None:
                self._fall_back()  # what it was to serve has changed once more
            return
        reason = worker.reason or how
        if worker.state == STARTING and not self._booted and not self._patient:
            announce(f"bridge: {worker.reason or f'worker {worker.slot} {how} before it could serve'}")
            self._end_all(worker.code or TARGET_FAILED)
            return
        if worker.state == STARTING and self._previous is not None:
            gen_log.error("Reload failed, the old workers go on: %s", reason)
            self._fall_back()
            return
        gen_log.error("Worker %d (pid %d): %s", worker.slot, worker.pid, reason)
        slot = self._slots.setdefault(worker.slot, Slot())
        if worker.state == READY and time.monotonic() - worker.ready >= _LONG_LIFE:
            slot.failures = 0
        if self._patient and worker.state == STARTING:
            slot.next_start = _NEVER  # until a file changes
        elif slot.failures or worker.state == STARTING:
            gen_log.warning("Worker %d starts again in %g s", worker.slot, slot.wait())
        else:
            slot.failures = 1  # once is no reason to wait

    # ------------------------------------------------------------------ signals

    def _take_signals(self) -> None:
        assert self._signals is not None
        for name in self._signals.take():
            if name == "SIGCHLD":
                self._crew.reap()
            elif name in {"SIGTERM", "SIGINT", "SIGQUIT"}:
                self._asked_to_stop(name)
            elif self._stop is None:
                getattr(self, f"_on_{name.lower()}")()

    def _asked_to_stop(self, name: str) -> None:
        if self._stop is not None:
            if not self._stop.forced:
                gen_log.warning("Stopping at once on %s", name)
                self._force()
            return
        gen_log.info("Stopping on %s", name)
        timeout = self._plan.config.timeout_graceful_shutdown
        if name == "SIGQUIT":
            self._end_all(OK, 0.0)
        elif name == "SIGINT":
            self._end_all(OK, fast_stop_timeout(self._plan.config))
        else:
            self._end_all(OK, timeout)

    def _end_all(self, code: int, timeout: float | None = 0.0, *, retiring: bool = False) -> None:
        """Stop all workers; requests in progress have *timeout* seconds."""
        self._stop = _Stop(code=code)
        self._notifier.stopping("stopping")
        for listener in self._plan.listeners:
            for sock in listener.sockets:
                sock.close()  # the workers take what waits in the queues, the last one closes them
        self._crew.stop(timeout, retiring=retiring)
        if timeout == 0.0:
            self._force()

    def _force(self) -> None:
        assert self._stop is not None
        self._stop.forced = True
        self._crew.force()

    def _on_sighup(self) -> None:
        gen_log.info("Reloading on SIGHUP")
        self._reload_asked = True

    def _on_sigusr1(self) -> None:
        from bridge.telemetry.logs import reopen

        reopen()
        self._crew.tell("reopen")
        gen_log.info("Log files reopened on SIGUSR1")

    def _on_sigttin(self) -> None:
        self._plan.count += 1
        gen_log.info("%s from now on (SIGTTIN)", self._number)

    def _on_sigttou(self) -> None:
        if self._plan.count > 1:
            self._plan.count -= 1
        gen_log.info("%s from now on (SIGTTOU)", self._number)

    def _on_sigusr2(self) -> None:
        if self._successor is not None:
            gen_log.warning("SIGUSR2: a new master is starting already (pid %d)", self._successor.pid)
            return
        try:
            self._successor = Successor(self._plan.listeners, self._notifier.path)
        except OSError as exc:
            gen_log.error("SIGUSR2: no new master could be started: %s", exc)
            return
        gen_log.info("SIGUSR2: a new master starts (pid %d)", self._successor.pid)
        self._selector.register(self._successor, selectors.EVENT_READ, self._successor_heard)

    def _successor_heard(self) -> None:
        successor = self._successor
        assert successor is not None
        self._selector.unregister(successor)
        if successor.take_word():
            if self._stop is None:
                gen_log.info("The new master (pid %d) serves: this one retires", successor.pid)
                self._end_all(OK, self._plan.config.timeout_graceful_shutdown, retiring=True)
        else:
            gen_log.error("The new master (pid %d) has failed; this one goes on", successor.pid)
            successor.close()
            self._successor = None

    # ------------------------------------------------------------------ reloading

    def _files_changed(self) -> None:
        changes = self.watch.receive()
        if not self.watch.open:
            self._selector.unregister(self.watch)
            gen_log.error("--reload: the process that watches the files has ended; changes go unnoticed from now on")
        if changes and self._stop is None:
            names = [str(name) for change in changes for name in change[1:]]
            gen_log.info("Reloading: %s changed", ", ".join(names[:5]))
            for slot in self._slots.values():
                slot.next_start = 0.0
                slot.failures = 0
            self._crew.kill_starting()
            if self._booted:
                self._reload_asked = True

    def _begin_reload(self) -> None:
        """Let workers with new code and new settings take over, one after the other."""
        try:
            plan = self._plan.reloaded(self._read_config, self._generations + 1)
        except BridgeError as exc:
            gen_log.error("Reload failed, the old workers go on: %s", failure(self._plan.config, exc)[1])
            return
        if self._mount_points is not None:
            gen_log.warning("--preload: the application stays as it was imported; SIGUSR2 brings new code")
        self._notifier.reloading("reloading")
        self._generations += 1
        self._previous, self._plan = self._plan, plan

    def _fall_back(self) -> None:
        """Return to the settings before the reload; workers that had taken over already are replaced once more."""
        failed, previous = self._plan, self._previous
        assert previous is not None
        failed.close_beside(previous)
        self._plan, self._previous = previous, None
        for worker in self._crew:
            if worker.generation == failed.generation and worker.state == READY:
                worker.finished = True
        self._notifier.ready(self._number)
