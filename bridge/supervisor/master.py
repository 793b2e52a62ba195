"""The master: starts workers, replaces them, and carries out what signals ask for.

It serves nothing, imports no application (unless ``--preload``) and runs no event loop, so a forked child starts clean.
The master owns the listening sockets and all workers share them: when a worker ends, the connections that wait in a
socket's queue stay there.

Events only change the state. :meth:`Master._reconcile` then derives from the state alone what has to be done.
"""

from __future__ import annotations

import gc
import logging
import os
import selectors
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bridge import forks
from bridge.config import Config
from bridge.core.log import gen_log
from bridge.errors import BridgeError
from bridge.hooks import NO_HOOKS, hooks_of, reloaded
from bridge.serving.ending import ending
from bridge.serving.exits import OK, TARGET_FAILED
from bridge.serving.loops import Signals
from bridge.serving.privileges import drop_privileges
from bridge.serving.server import fast_stop_timeout, note_times, serving_line
from bridge.serving.sockets import bind_all
from bridge.serving.systemd import Notifier
from bridge.supervisor.channel import Channel
from bridge.supervisor.children import Children
from bridge.supervisor.messages import ToWorker
from bridge.supervisor.operated import Operated
from bridge.supervisor.plan import PRELOADED, Plan, name_threads
from bridge.supervisor.program import STOP_SIGNALS, Program
from bridge.supervisor.signalpipe import SignalPipe
from bridge.supervisor.slots import Slots
from bridge.supervisor.successor import Handover, Succession, Successor
from bridge.supervisor.worker import failure, run_worker
from bridge.supervisor.workers import LEAVING, READY, STARTING, NoProcess, Worker, Workers, how_ended
from bridge.telemetry import messages

if TYPE_CHECKING:
    from bridge.apps.lifecycle import MountPoint
    from bridge.telemetry.metrics.arena import Block

__all__ = ["Master"]

# Seconds within which this process ends after the time for requests is over. It kills the workers in them.
_OVERTIME = 6.0
_NEVER = float("inf")


class _Ended(Exception):
    """The master has nothing left to do."""

    def __init__(self, code: int) -> None:
        self.code = code


@dataclass(slots=True)
class _Stop:
    """A stop in progress."""

    forced: bool = False
    code: int = OK


@dataclass(slots=True)
class _Drain:
    """The workers announce the end.

    Attributes:
        since: When the drain began (seconds of the monotonic clock).
        until: When the stop begins; NEVER if it was not asked for.
    """

    since: float
    until: float = _NEVER


class Master:
    """Runs workers until it is told to stop.

    Args:
        config: The settings; ``config.workers`` says how many.
        app: The application; without it, each worker imports ``config.target``.
        read_config: Reads the settings again, for a reload; raises ConfigError.
        starting: The signals, until the master handles them itself.

    Attributes:
        on_ready: Called when all workers serve.
        watch: Reports changed files (:class:`bridge.supervisor.reload.Watcher`); None for no watching.
        program: The program that has started this process beside itself; None for none.
    """

    def __init__(
        self,
        config: Config,
        app: Any = None,
        read_config: Callable[[], Config] | None = None,
        starting: Signals | None = None,
    ) -> None:
        self._starting = starting
        self._plan = Plan(config, [], int(config.workers or 1))
        self._previous: Plan | None = None  # during a reload: the plan to return to if it fails
        self._generations = 0
        self._reload_asked = False
        self._read_config = read_config
        self._app = app
        self._mount_points: list[MountPoint] | None = None
        self._pid = os.getpid()
        self._selector = selectors.DefaultSelector()
        self._signals: SignalPipe | None = None
        self._hooks = NO_HOOKS
        self._workers = Workers(self._selector, lambda: self._plan.config, self._ended)
        self._workers.stalled = lambda worker, abort: self._hooks.stalled(worker.pid, abort=abort)
        self._children = Children(self._workers)
        self._slots = Slots(lambda: any(worker.state == READY for worker in self._workers))
        self._was_ready = False
        self._stop: _Stop | None = None
        self._drain: _Drain | None = None
        self._notifier = Notifier()
        self._next_alive = 0.0
        self._handover = Handover.received()
        self._succession = Succession(self._selector, self._make_way, self._obey)
        self._operated = Operated(self, self._selector, self._handover)
        self._waits_for_fix = config.reload  # a failed start is tried again when a file changes
        self._on_signal: dict[str, Callable[[], None]] = {
            "SIGHUP": self._on_sighup,
            "SIGUSR1": self._on_sigusr1,
            "SIGUSR2": self._on_sigusr2,
            "SIGTTIN": self._on_sigttin,
            "SIGTTOU": self._on_sigttou,
        }
        self.on_ready: Callable[[], None] | None = None
        self.watch: Any = None
        self.program: Program | None = None

    @property
    def takes_over(self) -> bool:
        """Another master hands its sockets over to this one."""
        return self._handover is not None

    # ------------------------------------------------------------------ the life of the master

    def run(self) -> int:
        """Bind, start the workers, and look after them; return the exit status.

        The status is 0 after a stop that was asked for, 3 or 4 if the application cannot start.

        Raises:
            BindError: An address cannot be listened on.
            ConfigError: A setting cannot be used.
            SystemExit: In a worker, when it ends.
        """
        config, handover = self._plan.config, self._handover
        self._plan.listeners = bind_all(config, handover.descriptors if handover else None)
        in_child = forks.add(self._in_child)
        try:
            self._operated.start(config)
            if handover is not None:
                handover.close_unused([*self._plan.listeners, *self._operated.sockets])
            if config.preload or config.log_config is not None or config.hooks:
                drop_privileges(config)  # code that is not the server's will run in this process
            self._hooks = hooks_of(config)
            sockets = [sock for listener in self._plan.listeners for sock in listener.sockets]
            self._hooks.starting(sockets, self._plan.count)
            if config.preload:
                from bridge.apps.lifecycle import load_mount_points

                self._mount_points = load_mount_points(config, self._app)
                name_threads()
                gc.collect()
                self._children.before_freeze()
                if hasattr(gc, "freeze"):  # PyPy has none
                    gc.freeze()  # keeps the workers' garbage collectors from writing to shared memory
            if self._starting is not None:
                self._starting.check()
                self._starting.stop_listening()
            return self._loop()
        finally:
            forks.remove(in_child)
            if os.getpid() == self._pid:
                self._hooks.exiting()
                self._close()

    def _in_child(self) -> None:
        """In a child that the application (``--preload``) has forked, close everything that is the master's."""
        listeners = [*self._plan.listeners, *self._operated.sockets]
        forks.drop_connections([sock.getsockname() for listener in listeners for sock in listener.sockets])
        parts = [self._selector, self._handover, self.successor, self.watch, self.program]
        parts += [worker.channel for worker in self._workers]
        forks.drop(part.fileno() for part in parts if part is not None)

    @property
    def plan(self) -> Plan:
        """The workers as they should be."""
        return self._plan

    @property
    def workers(self) -> Workers:
        """The worker processes."""
        return self._workers

    @property
    def successor(self) -> Successor | None:
        """The new master that starts, or serves already, in place of this one; None if there is none."""
        return self._succession.successor

    @property
    def was_ready(self) -> bool:
        """All workers have served at the same time."""
        return self._was_ready

    @property
    def phase(self) -> str:
        """``starting``, ``serving``, ``reloading``, ``draining`` or ``stopping``."""
        if self._stop is not None:
            return "stopping"
        if self._drain is not None:
            return "draining"
        if not self._was_ready:
            return "starting"
        return "serving" if self._previous is None and not self._reload_asked else "reloading"

    def _loop(self) -> int:
        self._signals = SignalPipe([*STOP_SIGNALS, "SIGCHLD", *self._on_signal])
        self._selector.register(self._signals, selectors.EVENT_READ, self._handle_signals)
        if self._starting is not None:
            for number in self._starting.put_off:
                self._obey(signal.Signals(number).name)
        if self.watch is not None:
            self._selector.register(self.watch, selectors.EVENT_READ, self._files_changed)
        if self.program is not None:
            self.program.listen(self._selector, self._obey)
        try:
            while True:
                before = time.monotonic()
                self._reconcile()
                patience = self._next_event()
                events = self._selector.select(patience)
                self._handle_signals()  # first, since a worker may be reporting a signal that the master has got too
                for key, _ in events:
                    # An event before it may have closed its file: the signal that a worker has ended closes the line
                    # to that worker. Compared by number, since the selector cannot find a closed file.
                    if self._selector.get_map().get(key.fd) is key:
                        key.data()
                if patience is not None and time.monotonic() - before > patience + 1.0:
                    self._workers.reset_heartbeats()  # this process stood still too, as on a suspended machine
                self._workers.check_heartbeats()
                self._children.check(time.monotonic())
                self._operated.check(time.monotonic())
                self._feed_watchdog()
        except _Ended as end:
            return end.code

    def _close(self) -> None:
        if self._signals is not None:
            self._signals.close()
        if self._previous is not None:
            self._previous.close_unshared(self._plan)
        self.remove_files()
        self._selector.close()
        for part in (self.watch, self.program, self._handover, self.successor):
            if part is not None:
                part.close()

    def remove_files(self) -> None:
        """Close the listening sockets and remove their files.

        The file of a unix socket stays if another master uses it: a successor, even one that is still starting; or, if
        this is a successor that has failed, the old master.
        """
        others = self._handover.descriptors if self._handover is not None and not self._was_ready else {}
        for listener in self._plan.listeners:
            listener.close(remove=self.successor is None and listener.name not in others)
        self._operated.close(keep=frozenset(others), remove=self.successor is None)

    # ------------------------------------------------------------------ what has to be done

    def _reconcile(self) -> None:
        """Start, retire and kill workers as the state requires."""
        now = time.monotonic()
        self._workers.kill_overdue(now)
        if self._stop is not None:
            if not self._workers:
                raise _Ended(self._stop.code)
            return
        if self._drain is not None and self._drain.until <= now:
            gen_log.info("Drained: stopping")
            self._end_all(OK, self._plan.config.timeout_graceful_shutdown)
            return
        if self._reload_asked and self._previous is None and not self._workers.starting:
            self._reload_asked = False
            self._begin_reload()
        for number in range(self._plan.count):
            self._fill_slot(number, now)
        for worker in self._workers:
            if worker.slot >= self._plan.count and worker.state != LEAVING:
                self._workers.retire(worker)
        if not self._workers.starting:
            self._note_progress()

    def _fill_slot(self, number: int, now: float) -> None:
        """Start a worker in slot *number* if it needs one."""
        here = [worker for worker in self._workers if worker.slot == number and worker.state != LEAVING]
        if any(worker.state == STARTING for worker in here):
            return
        current = any(worker.generation == self._plan.generation and not worker.finished for worker in here)
        if current:
            return
        outdated = here and not any(worker.finished for worker in here)
        if outdated and self._workers.starting:
            return  # a reload replaces one worker after the other
        if self._slots.next_start(number) > now:
            return
        block = self._operated.allocate(number)
        view = self._hooks.new_worker(number)
        try:
            pid = self._workers.start(
                number, self._plan.generation, lambda channel: self._serve(channel, number, block, view)
            )
            self._hooks.forked(view, pid)
            self._operated.worker_started(pid, block)
        except NoProcess as exc:
            self._operated.not_started(block)
            gen_log.error(
                "Worker %d cannot be started: %s; next try in %g s", number, exc, self._slots.postpone(number)
            )

    def _serve(self, channel: Channel, number: int, block: Block | None, view: Any) -> int:
        """Live as worker *number*, for which the hooks have the object *view*. This runs in the child."""
        os.environ["BRIDGE_WORKER"] = str(number)
        counts = self._operated.counts_in_child(block)
        self._selector.close()
        if self.watch is not None:
            self.watch.abandon()
        assert self._signals is not None
        self._signals.abandon()
        for part in (self._handover, self.successor, self.program):
            if part is not None:
                part.close()
        hooks = self._hooks.in_worker(view)
        plan = self._plan
        return run_worker(
            plan.config, self._app, plan.listeners, channel, self._mount_points, counts, hooks, plan.empty_context
        )

    def _note_progress(self) -> None:
        """Note that the start, or a reload, is complete. Called while no worker is starting."""
        plan, previous = self._plan, self._previous
        current = [w for w in self._workers if w.state == READY and w.generation == plan.generation]
        if len({worker.slot for worker in current}) < plan.count:
            return
        if not self._was_ready:
            self._was_ready = True
            self._ready(current[0].kind)
        elif previous is not None:
            if any(not w.draining and w.generation != plan.generation for w in self._workers):
                return  # the old code still accepts connections
            self._previous = None
            previous.close_unshared(plan)
            gen_log.info("Reloaded: %s", self._number)
            self._operated.reload_ended()
            self._notifier.ready(self._number)

    def _ready(self, kind: str) -> None:
        sockets = [sock for listener in self._plan.listeners for sock in listener.sockets]
        messages.say(serving_line(self._plan.config, self._app, f"{self._number_and_why}, {kind}", sockets))
        note_times(self._plan.config)
        if self.on_ready is not None:
            self.on_ready()
        if self._handover is not None:
            self._handover.ready()
            self._operated.take_over()
        self._notifier.ready(self._number)

    @property
    def _number(self) -> str:
        return f"{self._plan.count} worker{'' if self._plan.count == 1 else 's'}"

    @property
    def _number_and_why(self) -> str:
        why = getattr(self._plan.config.workers, "why", "") if self._plan.count == self._plan.config.workers else ""
        return f"{self._number}: {why}" if why else self._number

    def _next_event(self) -> float | None:
        """Return for how many seconds there is nothing to do unless an event comes; None for any time."""
        now = time.monotonic()
        times = self._workers.next_events()
        times += self._operated.next_event() + self._children.next_event()
        if self._stop is None:
            times += self._slots.next_starts(now)
        if self._drain is not None and self._drain.until != _NEVER and self._stop is None:
            times.append(self._drain.until)
        if self._notifier.watchdog is not None:
            times.append(self._next_alive)
        return max(min(times) - now, 0.0) if times else None

    def _feed_watchdog(self) -> None:
        """Send systemd's watchdog a sign of life if it is due and a worker serves."""
        now = time.monotonic()
        if self._notifier.watchdog is not None and self._next_alive <= now:
            self._next_alive = now + self._notifier.watchdog
            if any(w.state == READY and w.kill_at is None for w in self._workers) or not self._was_ready:
                self._notifier.alive()

    # ------------------------------------------------------------------ the end of workers

    def _ended(self, worker: Worker, code: int) -> None:
        reason = "stop" if self._stop is not None else self._plan.reason_for_end(worker)
        self._operated.worker_ended(worker, reason)
        self._hooks.ended(worker.pid)
        how = how_ended(code)
        if worker.state == LEAVING or self._stop is not None or worker.dismissed:
            expected = code == 0 or worker.dismissed
            level = logging.INFO if expected else logging.WARNING
            gen_log.log(level, "Worker %d (pid %d) %s", worker.slot, worker.pid, how)
            if worker.state == STARTING and self._previous is not None and self._stop is None:
                self._fall_back("the files have changed again")  # the files have changed again since the reload began
            return
        reason = worker.reason or how
        if worker.state == STARTING and not self._was_ready and not self._waits_for_fix:
            reason = worker.reason or f"worker {worker.slot} {how} before it could serve"
            messages.say(f"bridge: {reason}", logging.CRITICAL)
            self._end_all(worker.code or TARGET_FAILED)
            return
        if worker.state == STARTING and self._previous is not None:
            gen_log.error("Reload failed, the old workers go on: %s", reason)
            self._fall_back(reason, worker.traceback)
            return
        gen_log.error("Worker %d (pid %d): %s", worker.slot, worker.pid, reason)
        self._slots.failed(worker, waits_for_fix=self._waits_for_fix)

    # ------------------------------------------------------------------ signals

    def _handle_signals(self) -> None:
        assert self._signals is not None
        for name in self._signals.receive():
            if name == "SIGCHLD":
                self._children.reap()
            elif self.program is None or self.program.new(name):
                self._obey(name)

    def _obey(self, name: str) -> None:
        if name in STOP_SIGNALS:
            self._stop_on(name)
        elif self._stop is not None and name != "SIGUSR1":  # the last requests of a stop are logged, too
            gen_log.warning("%s: not while the server stops", name)
        elif not self._succession.puts_off(name):
            self._on_signal[name]()

    def _stop_on(self, name: str) -> None:
        if self._stop is not None:
            if not self._stop.forced:
                gen_log.warning("Stopping at once on %s", name)
                self._force()
            return
        if name == "SIGTERM" and self._drains_first():
            return
        gen_log.info("Stopping on %s", name)
        if name != "SIGTERM" and self._hooks is not NO_HOOKS:
            self._workers.broadcast(ToWorker.INTERRUPTED)
        config = self._plan.config
        limits = {"SIGQUIT": 0.0, "SIGINT": fast_stop_timeout(config)}
        self._end_all(OK, limits.get(name, config.timeout_graceful_shutdown))

    def _drains_first(self) -> bool:
        """Begin ``--drain-delay``, and tell whether a stop has to wait for it. A second signal waits no longer."""
        delay = self._plan.config.drain_delay
        if not delay or not self._was_ready or (self._drain is not None and self._drain.until != _NEVER):
            return False
        if self._drain is None:
            self.drain(delay)
        else:
            self._workers.broadcast(ToWorker.DRAIN, delay, True)  # it has begun, without notice of a stop
        assert self._drain is not None
        self._drain.until = self._drain.since + delay
        self._workers.ending = True
        left = max(self._drain.until - time.monotonic(), 0.0)
        gen_log.info("Draining on SIGTERM: serving for %.1f s more; a second SIGTERM stops now", left)
        self._notifier.stopping("draining")
        return True

    def drain(self, grace: float, *, notify: bool = True) -> None:
        """Let the workers announce the end and go on serving.

        Args:
            grace: Seconds for which idle connections stay open, so that their next response can announce it.
            notify: Give applications notice that the server is about to stop.
        """
        self._drain = _Drain(time.monotonic())
        self._workers.standing = [*self._workers.standing, (ToWorker.DRAIN, (grace, notify))]
        self._workers.broadcast(ToWorker.DRAIN, grace, notify)

    def undrain(self) -> None:
        """Serve as before :meth:`drain`."""
        self._drain = None
        self._workers.ending = False
        self._workers.standing = [order for order in self._workers.standing if order[0] != ToWorker.DRAIN]
        self._workers.broadcast(ToWorker.UNDRAIN)
        gen_log.info("Not draining any more")
        self._notifier.ready(self._number)

    def scale(self, number: int) -> None:
        """Run *number* workers from now on."""
        self._plan.count = number
        self._hooks.number_changed(number)
        gen_log.info("%s from now on", self._number)

    def ask_stop(self) -> None:
        """Stop as on SIGTERM. A second call while the server drains ends the drain."""
        if self._stop is None:
            self._stop_on("SIGTERM")

    def _end_all(self, code: int, timeout: float | None = 0.0, *, retiring: bool = False) -> None:
        """Stop all workers, and then this process with status *code*. Requests in progress have *timeout* seconds."""
        self._stop = _Stop(code=code)
        ending.status = code
        ending.within(timeout, _OVERTIME)
        self._notifier.stopping("stopping")
        for listener in self._plan.listeners:
            for sock in listener.sockets:
                sock.close()  # the workers accept what waits in the queues; the last one closes the sockets
        self._workers.stop(timeout, retiring=retiring)
        if timeout == 0.0:
            self._force()

    def _force(self) -> None:
        assert self._stop is not None
        self._stop.forced = True
        ending.within(0.0, _OVERTIME)
        self._workers.force()

    def _on_sighup(self) -> None:
        if self._drain is not None:
            gen_log.warning("SIGHUP: not while the server drains")
            return
        gen_log.info("Reloading on SIGHUP")
        self.ask_reload()

    def ask_reload(self) -> None:
        """Reload when no reload is in progress any more."""
        self._reload_asked = True

    def _on_sigusr1(self) -> None:
        self.reopen()
        gen_log.info("Log files reopened on SIGUSR1")

    def reopen(self) -> None:
        """Open the log files again, in all processes."""
        from bridge.telemetry.logs import reopen

        reopen()
        self._workers.broadcast(ToWorker.REOPEN)

    def _on_sigttin(self) -> None:
        self._plan.count += 1
        self._operated.moved(1)
        self._hooks.number_changed(self._plan.count)
        gen_log.info("%s from now on (SIGTTIN)", self._number)

    def _on_sigttou(self) -> None:
        if self._plan.count > 1:
            self._plan.count -= 1
            self._operated.moved(-1)
            self._hooks.number_changed(self._plan.count)
        gen_log.info("%s from now on (SIGTTOU)", self._number)

    def _on_sigusr2(self) -> None:
        if self._drain is not None:
            gen_log.warning("SIGUSR2: not while the server drains")
            return
        if self.successor is not None:
            gen_log.warning("SIGUSR2: a new master is starting already (pid %d)", self.successor.pid)
            return
        self._hooks.executing()
        listeners = [*self._plan.listeners, *self._operated.sockets]
        successor = self._succession.begin(listeners, self._notifier.path, self._operated.memory)
        if successor is not None:
            self._workers.adopt(successor.pid)

    def _make_way(self, successor: Successor) -> None:
        """Give way to a new master, which serves."""
        self._operated.hand_over()
        successor.close()  # this tells the new master that it may answer
        if self._stop is None:
            gen_log.info("The new master (pid %d) serves: this one retires", successor.pid)
            self._end_all(OK, self._plan.config.timeout_graceful_shutdown, retiring=True)

    # ------------------------------------------------------------------ reloading

    def _files_changed(self) -> None:
        changes = self.watch.receive()
        if not self.watch.open:
            self._selector.unregister(self.watch)
            gen_log.error("--reload: the process that watches the files has ended; changes go unnoticed from now on")
        if changes and self._stop is None:
            names = [str(name) for change in changes for name in change[1:]]
            gen_log.info("Reloading: %s changed", ", ".join(names[:5]))
            self._slots.forget()
            self._workers.kill_starting()
            if self._was_ready:
                self._reload_asked = True

    def _begin_reload(self) -> None:
        """Replace the workers, one after the other, by workers with new code and new settings."""
        self._operated.reload_begins()
        try:
            plan = self._plan.reloaded(self._read_config, self._generations + 1)
            self._hooks = reloaded(self._hooks, plan.config, plan.count)
            self._reload_administration(plan)
        except BridgeError as exc:
            gen_log.error("Reload failed, the old workers go on: %s", failure(self._plan.config, exc)[1])
            self._operated.reload_ended(failure(self._plan.config, exc)[1])
            return
        if self._mount_points is not None:
            gen_log.warning(PRELOADED)
        self._notifier.reloading("reloading")
        self._generations += 1
        self._previous, self._plan = self._plan, plan

    def _reload_administration(self, plan: Plan) -> None:
        try:
            self._operated.reload(plan.config)
        except BridgeError:
            plan.close_unshared(self._plan)
            raise

    def _fall_back(self, error: str, traceback: str = "") -> None:
        """Return to the plan before the reload, and replace the workers that the reload has started.

        Args:
            error: Why.
            traceback: What the application has raised, if that is why.
        """
        failed, previous = self._plan, self._previous
        assert previous is not None
        failed.close_unshared(previous)
        self._operated.reload_ended(error, traceback)
        self._plan, self._previous = previous, None
        for worker in self._workers:
            if worker.generation == failed.generation and worker.state == READY:
                worker.finished = True
        self._notifier.ready(self._number)
