"""The worker processes of a master: started, listened to, watched, asked to leave, killed, reaped."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from bridge.config import Config
from bridge.core.log import gen_log
from bridge.errors import BridgeError
from bridge.supervisor.channel import Channel, Message
from bridge.supervisor.heartbeat import DUMP_SIGNAL

__all__ = ["LEAVING", "READY", "STARTING", "Crew", "NoProcess", "Worker"]

# Seconds between the news where a worker stands still and its end; what a stopped worker gets beyond its time.
_DUMP_TIME = 0.5
_OVERTIME = 3.0

STARTING, READY, LEAVING = "starting", "ready", "leaving"


class NoProcess(BridgeError):
    """The system has no room for another process."""


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
    dismissed: bool = False  # it was killed because it is not wanted any more, before it served anything
    unsaid: list[str] = field(default_factory=list)  # words for when it is ready
    kill_at: float | None = None
    reason: str = ""
    code: int = 0


class Crew:
    """All worker processes that have not been reaped; iterating over it gives them.

    Args:
        selector: Tells when workers have something to say.
        config: Returns the settings as they are.
        ended: Called with a worker that was reaped, and with its exit status as waitstatus_to_exitcode has it.
    """

    def __init__(
        self, selector: selectors.BaseSelector, config: Callable[[], Config], ended: Callable[[Worker, int], None]
    ) -> None:
        self._selector = selector
        self._config = config
        self._on_end = ended
        self._workers: dict[int, Worker] = {}

    def __iter__(self) -> Iterator[Worker]:
        return iter(self._workers.values())

    def __len__(self) -> int:
        return len(self._workers)

    @property
    def starting(self) -> bool:
        """One of them is not ready yet."""
        return any(worker.state == STARTING for worker in self)

    # ------------------------------------------------------------------ start, retire, kill

    def start(self, slot: int, generation: int, serve: Callable[[Channel], int]) -> None:
        """Fork a worker; in the child, *serve* gets its end of the line, and what it returns is the exit status.

        Raises:
            NoProcess: Nothing has changed then.
            SystemExit: In the child, at its end.
        """
        sys.stdout.flush()
        sys.stderr.flush()
        try:
            ours, theirs = Channel.pair()
        except OSError as exc:
            raise NoProcess(str(exc)) from exc
        try:
            pid = os.fork()
        except OSError as exc:
            ours.close()
            theirs.close()
            raise NoProcess(str(exc)) from exc
        if pid == 0:
            ours.close()
            for other in self:
                other.channel.close()
            sys.exit(serve(theirs))
        theirs.close()
        worker = Worker(pid, slot, generation, ours, time.monotonic())
        self._workers[pid] = worker
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._heard(worker))
        gen_log.debug("Worker %d (pid %d) starts", slot, pid)

    def retire(self, worker: Worker) -> None:
        """Let a worker finish what it does; another one has taken its place."""
        self._dismiss(worker)
        worker.state = LEAVING
        worker.channel.send("retire")
        self._limit(worker, self._config().timeout_graceful_shutdown)

    def stop(self, timeout: float | None, *, retiring: bool = False) -> None:
        """Let all of them finish what they do within *timeout* seconds; those that serve nothing yet are killed.

        Args:
            timeout: None for as long as it takes.
            retiring: Other processes serve the same sockets from now on.
        """
        for worker in self:
            self._dismiss(worker)
            if worker.state == READY:
                worker.channel.send(*(["retire"] if retiring else ["stop", timeout]))
            worker.state = LEAVING
            self._limit(worker, timeout)

    def _limit(self, worker: Worker, timeout: float | None) -> None:
        worker.kill_at = None if timeout is None else time.monotonic() + timeout + _OVERTIME

    def force(self) -> None:
        """Have all of them cut what they do."""
        for worker in self:
            worker.channel.send("force")
            self._limit(worker, 0.0)

    def kill_starting(self) -> None:
        """Kill those that are not ready yet."""
        for worker in self:
            self._dismiss(worker)

    def _dismiss(self, worker: Worker) -> None:
        """Kill *worker* if it is not ready yet."""
        if worker.state == STARTING:
            worker.dismissed = True
            kill(worker.pid, signal.SIGKILL)

    def kill_overdue(self, now: float) -> None:
        """Kill those that have not ended in their time."""
        for worker in self:
            if worker.kill_at is not None and worker.kill_at <= now:
                worker.kill_at = now + 1.0
                kill(worker.pid, signal.SIGKILL)

    def tell(self, word: str) -> None:
        """Send a word to all of them; those that are not ready get it when they are."""
        for worker in self:
            if worker.state == STARTING:
                worker.unsaid.append(word)
            else:
                worker.channel.send(word)

    # ------------------------------------------------------------------ what they say

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
            for unsaid in worker.unsaid:
                worker.channel.send(unsaid)
            gen_log.info("Worker %d (pid %d) is ready", worker.slot, worker.pid)
            for other in list(self):
                if other.slot == worker.slot and other is not worker and other.state == READY:
                    self.retire(other)
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

    # ------------------------------------------------------------------ hearts

    def next_events(self) -> list[float]:
        """Return when something is due: a worker to be killed, or too late with its next word."""
        times = [worker.kill_at for worker in self if worker.kill_at is not None]
        for worker in self:
            times += self._word_due(worker)
        return times

    def _word_due(self, worker: Worker) -> list[float]:
        """Return when *worker* is too late with its next word."""
        config = self._config()
        if worker.kill_at is not None or (worker.state == READY and (config.reload or config.debug)):
            return []  # somebody at a debugger's prompt is not hurried
        limit = config.timeout_worker_startup if worker.state == STARTING else config.timeout_worker
        return [] if limit is None or worker.state == LEAVING else [max(worker.beat, worker.started) + limit]

    def forgive(self) -> None:
        """Take all of them for alive now: the machine stood still, and nobody is blamed."""
        now = time.monotonic()
        for worker in self:
            worker.beat = now

    def check_hearts(self) -> None:
        """Have those killed that have not been heard of for too long, after they have shown where they are."""
        now = time.monotonic()
        for worker in self:
            due = self._word_due(worker)
            if due and due[0] <= now:
                self._stands_still(worker, now)

    def _stands_still(self, worker: Worker, now: float) -> None:
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
        kill(worker.pid, DUMP_SIGNAL)
        worker.kill_at = now + _DUMP_TIME
        if worker.state == READY:
            worker.state = LEAVING  # its place is free at once

    # ------------------------------------------------------------------ their end

    def reap(self) -> None:
        """Take note of the processes that have ended."""
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
            self._on_end(worker, os.waitstatus_to_exitcode(status))


def kill(pid: int, number: int) -> None:
    """Send a signal to a child of this process."""
    with contextlib.suppress(ProcessLookupError):  # it has ended, and will be reaped
        os.kill(pid, number)
