"""The worker processes of a master: start them, talk to them, watch them, retire them, kill them, reap them.

``master.py`` decides when a worker is started, and which one follows one that has died.
"""

from __future__ import annotations

import contextlib
import logging
import os
import selectors
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NoReturn

from bridge import forks
from bridge.config import Config
from bridge.core.log import gen_log
from bridge.errors import BridgeError
from bridge.serving.ending import ending
from bridge.supervisor.channel import Channel, Message
from bridge.supervisor.heartbeat import DUMP_SIGNAL
from bridge.supervisor.messages import FromWorker, ToWorker
from bridge.telemetry import messages, streams
from bridge.telemetry.logs import open_files

__all__ = ["LEAVING", "READY", "STARTING", "NoProcess", "Worker", "Workers", "how_ended"]

# Seconds that a stalled worker has to write its stacks before it is killed.
_DUMP_TIME = 0.5
# Seconds for which the master waits until its own messages are written.
_FLUSH_TIME = 0.1
# Seconds that a stopped worker has to end after the time of its requests is up.
_OVERTIME = 3.0

STARTING, READY, LEAVING = "starting", "ready", "leaving"


class NoProcess(BridgeError):
    """The system cannot make another process."""


@dataclass(slots=True, eq=False)
class Worker:
    """One worker process as the master sees it.

    Times are seconds of the monotonic clock.

    Attributes:
        pid: The process.
        slot: The number of the place that it fills.
        generation: The plan by which it was started; see :class:`bridge.supervisor.plan.Plan`.
        channel: The master's end of the line.
        started: When it was forked.
        state: STARTING, READY or LEAVING.
        kind: The application's interface in words, once ready.
        ready: When it became ready.
        beat: When its last message came.
        finished: It asks for a successor.
        draining: It accepts no more connections.
        dismissed: It was killed before it was ready, because it is no longer wanted.
        pending: Orders to send when it is ready, with their values.
        check: Why the readiness check says that it is not ready; empty if it is, or without such a check.
        kill_at: When to kill it; None for not at all.
        reason: Why it failed.
        traceback: What the application has raised, if that is why.
        cause: Why it is replaced, in a word for metrics; empty if it is not, or for another reason.
        code: The exit status that it has announced with the reason.
    """

    pid: int
    slot: int
    generation: int
    channel: Channel
    started: float
    state: str = STARTING
    kind: str = ""
    ready: float = 0.0
    beat: float = 0.0
    finished: bool = False
    draining: bool = False
    dismissed: bool = False
    pending: list[tuple[ToWorker, tuple[object, ...]]] = field(default_factory=list)
    check: str = ""
    kill_at: float | None = None
    reason: str = ""
    traceback: str = ""
    cause: str = ""
    code: int = 0


class Workers:
    """All worker processes that have not been reaped; iterating over it gives them.

    Args:
        selector: Calls its data when a worker has sent something.
        config: Returns the current settings.
        ended: Called with each worker that was reaped, and its exit status in the form of waitstatus_to_exitcode.

    Attributes:
        on_dump: Called with a worker that has written what it does, and the dump's number.
        standing: Orders for every worker that starts from now on, with their values.
        ending: The server ends soon: a worker that a signal asks to end gets no successor.
        stalled: Called with a worker that is replaced because it stands still, and with True if it is killed at once.
    """

    def __init__(
        self, selector: selectors.BaseSelector, config: Callable[[], Config], ended: Callable[[Worker, int], None]
    ) -> None:
        self._selector = selector
        self._config = config
        self._on_end = ended
        self.stalled: Callable[[Worker, bool], None] = lambda worker, abort: None
        self._workers: dict[int, Worker] = {}
        self._helpers: set[int] = set()
        self.on_dump: Callable[[Worker, int], None] = lambda worker, number: None
        self.ending = False
        self.standing: list[tuple[ToWorker, tuple[object, ...]]] = []

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers.values())

    def __len__(self) -> int:
        return len(self._workers)

    @property
    def starting(self) -> bool:
        """At least one of them is not ready yet."""
        return any(worker.state == STARTING for worker in self)

    # ------------------------------------------------------------------ start, retire, kill

    def start(self, slot: int, generation: int, serve: Callable[[Channel], int]) -> int:
        """Fork a worker and return its process.

        Args:
            slot: The number of its place.
            generation: The plan by which it is started.
            serve: Called in the child with its end of the line; returns the exit status.

        Raises:
            NoProcess: The fork failed, and nothing has changed.
        """
        streams.flush()
        try:
            ours, theirs = Channel.pair()
        except OSError as exc:
            raise NoProcess(str(exc)) from exc
        try:
            pid = forks.fork()
        except OSError as exc:
            ours.close()
            theirs.close()
            raise NoProcess(str(exc)) from exc
        if pid == 0:
            ours.close()
            for other in self:
                other.channel.close()
            _live(lambda: serve(theirs))
        theirs.close()
        worker = Worker(pid, slot, generation, ours, time.monotonic(), pending=list(self.standing))
        if self._config().readiness_check is not None:
            worker.check = "the check has not ended so far"
        self._workers[pid] = worker
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._receive(worker))
        gen_log.debug("Worker %d (pid %d) starts", slot, pid)
        return pid

    def retire(self, worker: Worker) -> None:
        """Let a worker finish its requests and end. Another one has taken its place."""
        self._kill_if_starting(worker)
        worker.state = LEAVING
        worker.channel.send(ToWorker.RETIRE)
        self._limit_time(worker, self._config().timeout_graceful_shutdown)

    def stop(self, timeout: float | None, *, retiring: bool = False) -> None:
        """Let all of them finish their requests within *timeout* seconds. Kill those that are not ready.

        Args:
            timeout: None for as long as it takes.
            retiring: Other processes serve the same sockets from now on.
        """
        self.ending = True
        for worker in self:
            self._kill_if_starting(worker)
            if retiring and worker.state == READY:
                worker.channel.send(ToWorker.RETIRE)
            elif not retiring and worker.state != STARTING:
                worker.channel.send(ToWorker.STOP, timeout)  # a worker that already retires may get less time
            worker.state = LEAVING
            self._limit_time(worker, timeout)

    def _limit_time(self, worker: Worker, timeout: float | None) -> None:
        if timeout is not None:
            at = time.monotonic() + timeout + _OVERTIME
            worker.kill_at = at if worker.kill_at is None else min(worker.kill_at, at)

    def force(self) -> None:
        """Order all of them to cut off their requests."""
        for worker in self:
            worker.channel.send(ToWorker.FORCE)
            self._limit_time(worker, 0.0)

    def kill_starting(self) -> None:
        """Kill those that are not ready yet."""
        for worker in self:
            self._kill_if_starting(worker)

    def _kill_if_starting(self, worker: Worker) -> None:
        if worker.state == STARTING:
            worker.dismissed = True
            kill(worker.pid, signal.SIGKILL)

    def kill_overdue(self, now: float) -> None:
        """Kill those whose time to end is up."""
        for worker in self:
            if worker.kill_at is not None and worker.kill_at <= now:
                worker.kill_at = now + 1.0  # try again if it is still there
                kill(worker.pid, signal.SIGKILL)

    def broadcast(self, order: ToWorker, *values: object) -> None:
        """Send an order to all of them. Those that are starting get it when they are ready."""
        for worker in self:
            if worker.state == STARTING:
                worker.pending.append((order, values))
            else:
                _send(worker, order, values)

    # ------------------------------------------------------------------ reports

    def _receive(self, worker: Worker) -> None:
        channel = worker.channel
        garbled = channel.garbled
        for message in channel.receive():
            self._handle(worker, message)
        if channel.garbled and not garbled:
            gen_log.error(
                "Worker %d (pid %d) has sent something that is not a message: does the application write to "
                "descriptors that are not its own?", worker.slot, worker.pid,
            )  # fmt: skip
        if not channel.open:
            self._selector.unregister(channel)
            channel.close()

    def _handle(self, worker: Worker, message: Message) -> None:
        """Note what a worker reports. A message of another form is ignored: the application may have written it."""
        worker.beat = time.monotonic()
        match message:
            case [FromWorker.READY, str(kind)]:
                if worker.state == STARTING:
                    self._became_ready(worker, kind)
            case [FromWorker.FINISHED, "requests" | "lifetime" | "asked" as cause]:
                if worker.finished or (self.ending and cause == "asked"):
                    return
                worker.finished = True
                worker.cause = cause
                gen_log.info("Worker %d (pid %d) has served its time", worker.slot, worker.pid)
            case [FromWorker.STUCK]:
                worker.finished = True
                worker.cause = "blocked"
                gen_log.error(
                    "Worker %d (pid %d) has no thread left to serve with, and is replaced", worker.slot, worker.pid
                )
                self.stalled(worker, False)
            case [FromWorker.CHECKED, bool(holds), str(detail)]:
                worker.check = "" if holds else detail or "not ready"
            case [FromWorker.DRAINING]:
                worker.draining = True
            case [FromWorker.FAILED, int(code), str(reason), str(trace)]:
                worker.code = code & 0xFF  # a valid exit status, since this process may end with it
                worker.reason, worker.traceback = reason, trace
            case [FromWorker.DUMPED, int(number)]:
                self.on_dump(worker, number)

    def _became_ready(self, worker: Worker, kind: str) -> None:
        worker.state = READY
        worker.ready = worker.beat
        worker.kind = kind
        for order, values in worker.pending:
            _send(worker, order, values)
        gen_log.info("Worker %d (pid %d) is ready", worker.slot, worker.pid)
        for other in list(self):
            if other.slot == worker.slot and other is not worker and other.state == READY:
                self.retire(other)

    # ------------------------------------------------------------------ heartbeats

    def next_events(self) -> list[float]:
        """Return the times at which a worker must be killed, or its next heartbeat is overdue."""
        times = [worker.kill_at for worker in self if worker.kill_at is not None]
        for worker in self:
            due = self._heartbeat_due(worker)
            if due is not None:
                times.append(due)
        return times

    def _heartbeat_due(self, worker: Worker) -> float | None:
        """Return when the next heartbeat of *worker* is overdue; None if none is expected."""
        config = self._config()
        if worker.kill_at is not None or (worker.state == READY and (config.reload or config.debug)):
            return None  # in development the loop may stand still at a debugger's prompt
        limit = config.timeout_worker_startup if worker.state == STARTING else config.timeout_worker
        return None if limit is None or worker.state == LEAVING else max(worker.beat, worker.started) + limit

    def reset_heartbeats(self) -> None:
        """Restart every worker's time limits from now: the whole machine stood still, not one of them."""
        now = time.monotonic()
        for worker in self:
            worker.beat = now

    def check_heartbeats(self) -> None:
        """Kill those whose heartbeat is overdue, after they have written where their threads are."""
        now = time.monotonic()
        for worker in self:
            due = self._heartbeat_due(worker)
            if due is not None and due <= now:
                self._replace_stalled(worker, now)

    def _replace_stalled(self, worker: Worker, now: float) -> None:
        config = self._config()
        if worker.state == STARTING:
            gen_log.error(
                "Worker %d (pid %d) did not start within %g s; this is where it is:",
                worker.slot, worker.pid, config.timeout_worker_startup,
            )  # fmt: skip
            worker.reason = "the application took too long to start"
        else:
            gen_log.error(
                "Worker %d (pid %d) has stood still for %g s and is replaced; this is where it is:",
                worker.slot, worker.pid, config.timeout_worker,
            )  # fmt: skip
        worker.cause = "blocked"
        messages.flush(_FLUSH_TIME)  # so that the worker's lines come after this line, not in the middle of it
        kill(worker.pid, DUMP_SIGNAL)
        self.stalled(worker, True)
        worker.kill_at = now + _DUMP_TIME
        if worker.state == READY:
            worker.state = LEAVING  # a successor can start at once

    # ------------------------------------------------------------------ their end

    def reap(self) -> None:
        """Reap the workers that have ended and report each to ``ended``; reap the helpers that have ended.

        The application's own children are left to it.
        """
        for pid in [*self._helpers]:
            if _ended(pid) is not None:
                self._helpers.discard(pid)
        for worker in [*self]:
            status = _ended(worker.pid)
            if status is None:
                continue
            if worker.channel.open:
                self._receive(worker)
            if worker.channel.open:
                self._selector.unregister(worker.channel)
                worker.channel.close()
            del self._workers[worker.pid]
            self._on_end(worker, status)

    def adopt(self, pid: int) -> None:
        """Reap another child of this process, too: one that serves nothing."""
        self._helpers.add(pid)


def _ended(pid: int) -> int | None:
    """Reap a child if it has ended, and return its status; None if it has not. A status that is gone is 1."""
    try:
        found, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return 1  # other code has reaped it
    return os.waitstatus_to_exitcode(status) if found else None


def how_ended(code: int) -> str:
    """Return in words how a process has ended, from its status in the form of ``waitstatus_to_exitcode``."""
    if code >= 0:
        return f"ended with status {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:  # most of the real-time signals have only a number (signal(7))
        return f"was killed by signal {-code}"


def _live(serve: Callable[[], int]) -> NoReturn:
    """Live as a worker, and end there: the program of the parent does not go on in this process."""
    code = 1
    try:
        forks.begin_afresh()
        ending.begin()
        messages.begin_process()
        code = serve()
    except BaseException:
        messages.say("A fault of the server's own in a worker", logging.CRITICAL, traceback.format_exc())
    forks.leave(ending.last(code))


def kill(pid: int, number: int) -> None:
    """Send a signal to a child of this process."""
    with contextlib.suppress(ProcessLookupError):  # it has ended, and will be reaped
        os.kill(pid, number)


def _send(worker: Worker, order: ToWorker, values: tuple[object, ...] = ()) -> None:
    files = open_files() if order == ToWorker.REOPEN else {}
    worker.channel.send(order, *values, *files, descriptors=list(files.values()))
