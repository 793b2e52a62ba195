"""The master: starts workers, replaces them, passes on what signals ask for.

It serves nothing, imports no application (unless ``--preload``) and runs no event loop, so a fork of it is a clean
start. The listening sockets are its own and shared by all workers: a worker that ends takes no waiting connection with
it. What is to be done follows from the state in :meth:`Master._reconcile`, whatever event has changed it.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bridge.config import Config
from bridge.core.log import gen_log
from bridge.errors import BridgeError
from bridge.supervisor.channel import Channel, Message
from bridge.supervisor.exits import OK
from bridge.supervisor.heartbeat import DUMP_SIGNAL
from bridge.supervisor.server import FAST, announce, serving_line
from bridge.supervisor.sockets import Listener, bind_all
from bridge.supervisor.successor import Handover, Successor
from bridge.supervisor.systemd import Notifier
from bridge.supervisor.worker import failure, run_worker

__all__ = ["Master"]

_SIGNALS = ("SIGHUP", "SIGTERM", "SIGINT", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGTTIN", "SIGTTOU", "SIGCHLD")
# A worker that lived longer than this (seconds) has not failed because it cannot live.
_LONG_LIFE = 10.0
_LONGEST_DELAY = 30.0
# Seconds between the news where a worker stands still and its end; what a stopped worker gets beyond its time.
_DUMP_TIME = 0.5
_OVERTIME = 3.0
_NEVER = float("inf")

STARTING, READY, LEAVING = "starting", "ready", "leaving"


@dataclass(slots=True, eq=False)
class Worker:
    """One worker process as the master sees it; times are of the monotonic clock, in seconds."""

    pid: int
    slot: int
    generation: int
    channel: Channel
    started: float
    state: str = STARTING
    kind: str = ""
    ready: float = 0.0
    beat: float = 0.0
    finished: bool = False  # it asks for a successor
    deaf: bool = False  # it accepts no more connections
    kill_at: float | None = None
    reason: str = ""
    code: int = 0


@dataclass(slots=True)
class Slot:
    """A place for one worker: how often it failed lately, and when the next may start."""

    failures: int = 0
    next_start: float = 0.0


class _Ended(Exception):
    """The master's work is done."""

    def __init__(self, code: int) -> None:
        self.code = code


@dataclass(slots=True)
class _Stop:
    """A stop in progress."""

    forced: bool = False
    code: int = OK
    retiring: bool = field(default=False)


class Master:
    """Runs workers until it is told to stop.

    Args:
        config: The settings; ``config.workers`` says how many.
        app: The application if there is one already; else each worker imports ``config.target``.
        read_config: Reads the settings anew, for a reload; raises ConfigError.
    """

    def __init__(self, config: Config, app: Any = None, read_config: Callable[[], Config] | None = None) -> None:
        self.config = config
        self.count = config.workers or 1
        self._app = app
        self._loaded = app is not None
        self._read_config = read_config
        self._pid = os.getpid()
        self._listeners: list[Listener] = []
        self._workers: dict[int, Worker] = {}
        self._slots: dict[int, Slot] = {}
        self._generation = self._generations = 0
        self._previous: tuple[Config, list[Listener], int, int] | None = None  # what a reload falls back to
        self._reload_asked = False
        self._booted = False
        self._stop: _Stop | None = None
        self._selector = selectors.DefaultSelector()
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
        self._listeners = bind_all(self.config, self._handover.descriptors if self._handover else None)
        if self._handover is not None:
            self._handover.close_rest(self._listeners)
        try:
            if self.config.preload and self._app is None:
                from bridge.adapters.loading import load_target

                self._app = load_target(self.config.target, factory=self.config.factory, app_dir=self.config.app_dir)
                self._loaded = True
            return self._loop()
        finally:
            if os.getpid() == self._pid:
                self._close()

    def _loop(self) -> int:
        read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        for name in _SIGNALS:
            signal.signal(getattr(signal, name), _noted)
        self._selector.register(read, selectors.EVENT_READ, lambda: self._take_signals(read))
        if self.watch is not None:
            self._selector.register(self.watch, selectors.EVENT_READ, self._files_changed)
        try:
            while True:
                self._reconcile()
                patience = self._next_event()
                before = time.monotonic()
                for key, _ in self._selector.select(patience):
                    if key.fileobj in self._selector.get_map():
                        key.data()
                self._check_hearts(patience, before)
        except _Ended as end:
            return end.code

    def _close(self) -> None:
        signal.set_wakeup_fd(-1)
        handed_over = self._successor is not None and self._successor.ready
        for listener in self._listeners:
            listener.close(remove=not handed_over)
        self._selector.close()

    # ------------------------------------------------------------------ what is to be done

    def _reconcile(self) -> None:
        """Start, retire and kill what the state asks for."""
        now = time.monotonic()
        for worker in self._workers.values():
            if worker.kill_at is not None and worker.kill_at <= now:
                worker.kill_at = now + 1.0
                _kill(worker.pid, signal.SIGKILL)
        if self._stop is not None:
            if not self._workers:
                raise _Ended(self._stop.code)
            return
        if self._reload_asked and self._previous is None and not self._starting():
            self._reload_asked = False
            self._begin_reload()
        for number in range(self.count):
            self._fill(number, now)
        for worker in self._workers.values():
            if worker.slot >= self.count and worker.state != LEAVING:
                self._retire(worker)
        if not self._starting():
            self._settled()

    def _fill(self, number: int, now: float) -> None:
        """See to it that slot *number* has the worker it should have."""
        here = [worker for worker in self._workers.values() if worker.slot == number and worker.state != LEAVING]
        if any(worker.state == STARTING for worker in here):
            return
        current = any(worker.generation == self._generation and not worker.finished for worker in here)
        if current:
            return
        outdated = here and not any(worker.finished for worker in here)
        if outdated and self._starting():
            return  # a reload goes from worker to worker
        slot = self._slots.setdefault(number, Slot())
        if slot.next_start <= now:
            self._spawn(number)

    def _settled(self) -> None:
        """Nothing is starting: note the end of the start, or of a reload."""
        current = [w for w in self._workers.values() if w.state == READY and w.generation == self._generation]
        if len({worker.slot for worker in current}) < self.count:
            return
        if not self._booted:
            self._booted = True
            self._ready(current[0].kind)
        elif self._previous is not None:
            if any(not w.deaf and w.generation != self._generation for w in self._workers.values()):
                return  # the old code may still be asked
            listeners = self._previous[1]
            self._previous = None
            for listener in listeners:
                if listener not in self._listeners:
                    listener.close()
            gen_log.info("Reloaded: %d worker%s", self.count, "" if self.count == 1 else "s")
            self._notifier.ready(self._status())

    def _ready(self, kind: str) -> None:
        words = f"{self.count} worker{'' if self.count == 1 else 's'}, {kind}"
        sockets = [sock for listener in self._listeners for sock in listener.sockets]
        announce(serving_line(self.config, self._app, words, sockets))
        if self.on_ready is not None:
            self.on_ready()
        if self._handover is not None:
            self._handover.ready()
        self._notifier.ready(self._status())

    def _status(self) -> str:
        return f"{self.count} worker{'' if self.count == 1 else 's'}"

    def _starting(self) -> bool:
        return any(worker.state == STARTING for worker in self._workers.values())

    def _next_event(self) -> float | None:
        """Return how many seconds there is nothing to do unless something happens."""
        now = time.monotonic()
        times = [worker.kill_at for worker in self._workers.values() if worker.kill_at is not None]
        if self._stop is None:
            times += [slot.next_start for slot in self._slots.values() if now < slot.next_start < _NEVER]
            for worker in self._workers.values():
                times += self._limits(worker)
        if self._notifier.watchdog is not None:
            times.append(self._next_alive)
        return max(min(times) - now, 0.0) if times else None

    def _limits(self, worker: Worker) -> list[float]:
        """Return when *worker* is too late with its next word."""
        if worker.kill_at is not None or (worker.state == READY and (self.config.reload or self.config.debug)):
            return []  # somebody at a debugger's prompt is not hurried
        limit = self.config.timeout_worker_startup if worker.state == STARTING else self.config.timeout_worker
        return [] if limit is None or worker.state == LEAVING else [max(worker.beat, worker.started) + limit]

    # ------------------------------------------------------------------ workers

    def _spawn(self, number: int) -> None:
        ours, theirs = Channel.pair()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            ours.close()
            sys.exit(self._be_worker(theirs))
        theirs.close()
        now = time.monotonic()
        worker = Worker(pid, number, self._generation, ours, now)
        self._workers[pid] = worker
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._heard(worker))
        gen_log.debug("Worker %d (pid %d) starts", number, pid)

    def _be_worker(self, channel: Channel) -> int:
        """Serve; in the child."""
        for worker in self._workers.values():
            worker.channel.close()
        self._selector.close()
        if self._handover is not None:
            self._handover.close()
        if self._successor is not None:
            self._successor.close()
        return run_worker(self.config, self._app, self._listeners, channel)

    def _heard(self, worker: Worker) -> None:
        for message in worker.channel.receive():
            self._message(worker, message)
        if not worker.channel.open:
            self._selector.unregister(worker.channel)
            worker.channel.close()

    def _message(self, worker: Worker, message: Message) -> None:
        word, *values = message
        worker.beat = now = time.monotonic()
        if word == "ready" and worker.state == STARTING:
            worker.state = READY
            worker.ready = now
            worker.kind = str(values[0])
            gen_log.info("Worker %d (pid %d) is ready", worker.slot, worker.pid)
            for other in list(self._workers.values()):
                if other.slot == worker.slot and other is not worker and other.state == READY:
                    self._retire(other)
        elif word == "finished":
            worker.finished = True
            gen_log.info("Worker %d (pid %d) has served its time", worker.slot, worker.pid)
        elif word == "stuck":
            worker.finished = True
            gen_log.error(
                "Worker %d (pid %d) has no thread left to serve with, and is replaced", worker.slot, worker.pid
            )
        elif word == "deaf":
            worker.deaf = True
        elif word == "failed":
            worker.code = int(str(values[0]))
            worker.reason = str(values[1])

    def _retire(self, worker: Worker) -> None:
        """Let a worker finish what it does; another one has taken its place."""
        if worker.state == STARTING:
            _kill(worker.pid, signal.SIGKILL)
        worker.state = LEAVING
        worker.channel.send("retire")
        worker.kill_at = self._deadline()

    def _deadline(self) -> float | None:
        timeout = self.config.timeout_graceful_shutdown
        return None if timeout is None else time.monotonic() + timeout + _OVERTIME

    def _check_hearts(self, patience: float | None, before: float) -> None:
        """Replace workers that have not been heard of for too long.

        Args:
            patience: How many seconds the loop has meant to wait.
            before: When it began to wait.
        """
        now = time.monotonic()
        if patience is not None and now - before > patience + 1.0:
            # This process itself stood still, as everything on a suspended machine: nobody is blamed.
            for worker in self._workers.values():
                worker.beat = now
        for worker in self._workers.values():
            limits = self._limits(worker)
            if limits and limits[0] <= now:
                self._stands_still(worker, now)
        if self._notifier.watchdog is not None and self._next_alive <= now:
            self._next_alive = now + self._notifier.watchdog
            if any(w.state == READY and w.kill_at is None for w in self._workers.values()) or not self._booted:
                self._notifier.alive()

    def _stands_still(self, worker: Worker, now: float) -> None:
        if worker.state == STARTING:
            gen_log.error(
                "Worker %d (pid %d) did not start within %g s; this is where it is:",
                worker.slot, worker.pid, self.config.timeout_worker_startup,
            )  # fmt: skip
            worker.reason = "the application took too long to start"
        else:
            gen_log.error(
                "Worker %d (pid %d) has stood still for %g s and is replaced; this is where it is:",
                worker.slot, worker.pid, self.config.timeout_worker,
            )  # fmt: skip
        _kill(worker.pid, DUMP_SIGNAL)
        worker.kill_at = now + _DUMP_TIME
        if worker.state == READY:
            worker.state = LEAVING  # its place is free at once

    # ------------------------------------------------------------------ the end of workers

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            worker = self._workers.get(pid)
            if worker is None:
                continue  # an orphan, as the first process of a container gets them; or the successor
            if worker.channel.open:
                self._heard(worker)
            if worker.channel.open:
                self._selector.unregister(worker.channel)
                worker.channel.close()
            del self._workers[pid]
            self._ended(worker, os.waitstatus_to_exitcode(status))

    def _ended(self, worker: Worker, code: int) -> None:
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        if worker.state == LEAVING or self._stop is not None:
            gen_log.log(20 if code == 0 else 30, "Worker %d (pid %d) %s", worker.slot, worker.pid, how)
            return
        reason = worker.reason or how
        if worker.state == STARTING and not self._booted and not self._patient:
            announce(f"bridge: {reason}")
            self._end_all(worker.code or (code if code > 0 else 3))
            return
        if worker.state == STARTING and self._previous is not None:
            gen_log.error("Reload failed, the old workers go on: %s", reason)
            self._fall_back()
            return
        gen_log.error("Worker %d (pid %d): %s", worker.slot, worker.pid, reason)
        now = time.monotonic()
        slot = self._slots.setdefault(worker.slot, Slot())
        lived = worker.state == READY and now - worker.ready >= _LONG_LIFE
        slot.failures = 1 if lived else slot.failures + 1
        if self._patient and worker.state == STARTING:
            slot.next_start = _NEVER  # until a file changes
            return
        if slot.failures > 1 or worker.state == STARTING:
            delay = min(2.0 ** (slot.failures - 2), _LONGEST_DELAY)
            slot.next_start = now + delay
            gen_log.warning("Worker %d starts again in %g s", worker.slot, delay)

    # ------------------------------------------------------------------ signals

    def _take_signals(self, descriptor: int) -> None:
        for number in os.read(descriptor, 4096):
            name = signal.Signals(number).name
            if name == "SIGCHLD":
                self._reap()
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
        if name == "SIGQUIT":
            self._end_all(OK, 0.0)
        elif name == "SIGINT":
            timeout = self.config.timeout_graceful_shutdown
            self._end_all(OK, FAST if timeout is None else min(FAST, timeout))
        else:
            self._end_all(OK, self.config.timeout_graceful_shutdown)

    def _end_all(self, code: int, timeout: float | None = 0.0, *, retiring: bool = False) -> None:
        """Stop all workers; requests in progress have *timeout* seconds."""
        self._stop = _Stop(code=code, retiring=retiring)
        self._notifier.stopping("stopping")
        now = time.monotonic()
        for listener in self._listeners:
            for sock in listener.sockets:
                sock.close()  # the workers take what waits in the queues, the last one closes them
        for worker in self._workers.values():
            if worker.state == STARTING:
                _kill(worker.pid, signal.SIGKILL)
            elif worker.state == READY:
                worker.channel.send(*(["retire"] if retiring else ["stop", timeout]))
            worker.state = LEAVING
            worker.kill_at = None if timeout is None else now + timeout + _OVERTIME
        if timeout == 0.0:
            self._force()

    def _force(self) -> None:
        assert self._stop is not None
        self._stop.forced = True
        for worker in self._workers.values():
            worker.channel.send("force")
            worker.kill_at = time.monotonic() + _OVERTIME

    def _on_sighup(self) -> None:
        gen_log.info("Reloading on SIGHUP")
        self._reload_asked = True

    def _on_sigusr1(self) -> None:
        from bridge.supervisor.logs import reopen

        reopen()
        for worker in self._workers.values():
            worker.channel.send("reopen")
        gen_log.info("Log files reopened on SIGUSR1")

    def _on_sigttin(self) -> None:
        self.count += 1
        gen_log.info("%d workers from now on (SIGTTIN)", self.count)

    def _on_sigttou(self) -> None:
        if self.count > 1:
            self.count -= 1
        gen_log.info("%d worker%s from now on (SIGTTOU)", self.count, "" if self.count == 1 else "s")

    def _on_sigusr2(self) -> None:
        if self._successor is not None:
            gen_log.warning("SIGUSR2: a new master is starting already (pid %d)", self._successor.pid)
            return
        try:
            self._successor = Successor(self._listeners, self._notifier.path)
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
            gen_log.info("The new master (pid %d) serves: this one retires", successor.pid)
            self._end_all(OK, self.config.timeout_graceful_shutdown, retiring=True)
        else:
            gen_log.error("The new master (pid %d) has failed; this one goes on", successor.pid)
            successor.close()
            self._successor = None

    # ------------------------------------------------------------------ reloading

    def _files_changed(self) -> None:
        changes = self.watch.receive()
        if not self.watch.open:
            self._selector.unregister(self.watch)
        if changes and self._stop is None:
            names = [str(name) for change in changes for name in change[1:]]
            gen_log.info("Reloading: %s changed", ", ".join(names[:5]))
            for slot in self._slots.values():
                slot.next_start = 0.0
                slot.failures = 0
            for worker in self._workers.values():
                if worker.state == STARTING:
                    _kill(worker.pid, signal.SIGKILL)
            if self._booted:
                self._reload_asked = True

    def _begin_reload(self) -> None:
        """Let workers with new code and new settings take over, one after the other."""
        config, listeners = self.config, self._listeners
        try:
            if self._read_config is not None:
                config = self._read_config()
            from bridge.supervisor.checks import check

            check(config)
            listeners = bind_all(config, keep=self._listeners)
        except BridgeError as exc:
            gen_log.error("Reload failed, the old workers go on: %s", failure(config, exc)[1])
            return
        if self._loaded and self.config.preload:
            gen_log.warning("--preload: the application stays as it was imported; SIGUSR2 brings new code")
        self._notifier.reloading("reloading")
        self._previous = (self.config, self._listeners, self.count, self._generation)
        if config.workers != self.config.workers:
            self.count = config.workers or 1
        self.config, self._listeners = config, listeners
        self._generations += 1
        self._generation = self._generations

    def _fall_back(self) -> None:
        """Return to the settings before the reload; workers that had taken over already are replaced once more."""
        assert self._previous is not None
        config, listeners, count, generation = self._previous
        self._previous = None
        for listener in self._listeners:
            if listener not in listeners:
                listener.close()
        self.config, self._listeners, self.count = config, listeners, count
        failed, self._generation = self._generation, generation
        for worker in self._workers.values():
            if worker.generation == failed and worker.state == READY:
                worker.finished = True
        self._notifier.ready(self._status())


def _noted(number: int, frame: object) -> None:
    """Do nothing: the number has been written to the pipe."""


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):  # it has ended, and will be reaped
        os.kill(pid, number)
