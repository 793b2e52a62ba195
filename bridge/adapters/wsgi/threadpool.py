"""A pool of threads that grows when all are busy and shrinks when they are idle.

Made for short jobs in bursts: the event loop adds jobs and wakes at most one thread a turn. A thread that takes a
job while more are waiting wakes the next one, so there is always one on its way while jobs wait: if the first blocks,
the second goes on at once; if it does not, it does all the jobs in a row, without a switch of threads for each.

The module knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from _thread import allocate_lock
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from bridge.core.log import app_log, gen_log

__all__ = ["Job", "ThreadPool", "Worker"]


class Job(Protocol):
    """What a thread of the pool does."""

    def run(self, worker: Worker) -> None:
        """Do it; nothing may be raised."""

    def describe(self) -> str:
        """Return in a few words what is done, for the thread's name."""
        ...


class ThreadPool:
    """Runs jobs in daemon threads, in the order in which they came.

    A job that never ends does not keep the interpreter from exiting.

    Args:
        maximum: Most threads.
        minimum: Threads that stay although they are idle. None is started before there is work.
        idle_timeout: Seconds after which an idle thread beyond the minimum ends.
        queue_limit: Most jobs that wait for a thread.
        lost_limit: Most threads that are replaced while they are lost, see :meth:`lose`.
        name: What the threads' names begin with.

    Attributes:
        queue: The jobs that wait.
        count: Threads that exist, lost ones included.
        lost: Threads that are given up.
    """

    def __init__(
        self,
        maximum: int,
        *,
        minimum: int = 1,
        idle_timeout: float = 30.0,
        queue_limit: int = 1024,
        lost_limit: int | None = None,
        name: str = "bridge-wsgi",
    ) -> None:
        self.maximum = maximum
        self.minimum = min(minimum, maximum)
        self.idle_timeout = idle_timeout
        self.queue_limit = queue_limit
        self.lost_limit = maximum if lost_limit is None else lost_limit
        self.name = name
        self.queue: deque[Job] = deque()
        self.count = 0
        self.lost = 0
        self._idle: list[Worker] = []  # the last one to become idle is the first one to work
        self._waking = False  # a thread is on its way to the queue
        self._stopping = False
        self._ended: Callable[[], None] | None = None
        self._started = 0
        self._flushing = False
        self._lock = threading.Lock()  # count, lost and the end of threads

    @property
    def idle(self) -> int:
        """Threads that have nothing to do."""
        return len(self._idle)

    def add(self, job: Job, loop: asyncio.AbstractEventLoop) -> bool:
        """Queue a job, and see to it that a thread is woken at the end of this turn of the loop.

        Returns:
            False if too many jobs are waiting; the job was not taken.
        """
        queue = self.queue
        # Jobs of this very turn do not count against the limit as long as there are threads for them.
        if len(queue) >= self.queue_limit and len(queue) >= self.queue_limit + self._available():
            return False
        queue.append(job)
        if not self._flushing:
            self._flushing = True
            loop.call_soon(self._flush)
        return True

    def withdraw(self, job: Job) -> bool:
        """Take back a job that no thread has taken yet; tell whether there was one."""
        try:
            self.queue.remove(job)
        except ValueError:
            return False
        return True

    def stop(self, ended: Callable[[], None]) -> None:
        """End the idle threads now, and the others when the queue is empty.

        Args:
            ended: Called in every thread that ends.
        """
        self._ended = ended
        self._stopping = True
        while self._idle:
            try:
                worker = self._idle.pop()
            except IndexError:
                break
            worker.gate.release()

    def lose(self, worker: Worker, job: Job) -> bool:
        """Give up a thread whose job does not end, and allow another one in its place.

        Returns:
            False if the job has ended in the meantime.
        """
        with self._lock:
            if worker.job is not job or worker.lost:
                return False
            worker.lost = True
            self.lost += 1
        if self.queue and not self._waking:
            self._wake()
        return True

    def workers(self) -> list[Worker]:
        """Return the threads; their names say what they do."""
        return [thread for thread in threading.enumerate() if isinstance(thread, Worker) and thread.pool is self]

    def _available(self) -> int:
        return len(self._idle) + self._allowed() - self.count

    def _allowed(self) -> int:
        return self.maximum + min(self.lost, self.lost_limit)

    def _flush(self) -> None:
        self._flushing = False
        if self.queue and not self._waking:
            self._wake()

    def _wake(self) -> None:
        """Send one idle or new thread to the queue, if there is one."""
        self._waking = True
        try:
            worker = self._idle.pop()
        except IndexError:
            if not self._grow():
                self._waking = False
            return
        worker.gate.release()

    def _grow(self) -> bool:
        with self._lock:
            if self.count >= self._allowed():
                return False
            self.count += 1
            self._started += 1
            number = self._started
        try:
            Worker(self, number).start()
        except RuntimeError as exc:  # no more threads, says the operating system
            with self._lock:
                self.count -= 1
            gen_log.error("No thread could be started, %d are running: %s", self.count, exc)
            return False
        return True

    # ------------------------------------------------------------------ called by the threads

    def work(self, worker: Worker) -> None:
        """Do jobs until the thread is not needed any more."""
        queue = self.queue
        while True:
            self._waking = False
            while True:
                try:
                    job = queue.popleft()
                except IndexError:
                    break
                if queue and not self._waking:
                    self._wake()
                worker.job = job
                job.run(worker)
                worker.job = None
                if worker.lost and not self._found(worker):
                    return
            if not self._park(worker):
                return

    def _park(self, worker: Worker) -> bool:
        """Wait for work; False if the thread is to end."""
        idle = self._idle
        if self._stopping:
            return self._leave(worker, 0)
        idle.append(worker)
        # A job that came, or a stop, before the thread was seen among the idle ones has woken nobody.
        if self.queue or self._stopping:
            try:
                idle.remove(worker)
            except ValueError:
                worker.gate.acquire()  # somebody was faster, and opens the gate
            return not self._stopping or bool(self.queue) or self._leave(worker, 0)
        while not worker.gate.acquire(timeout=self.idle_timeout):
            if self.count > self.minimum:
                try:
                    idle.remove(worker)
                except ValueError:
                    worker.gate.acquire()
                    return True
                if self._leave(worker, self.minimum):
                    continue
                return False
        return True

    def _leave(self, worker: Worker, minimum: int) -> bool:
        """Let a thread end unless only *minimum* are left; tell whether it stays."""
        with self._lock:
            if self.count <= minimum:
                self._idle.append(worker)
                return True
            self.count -= 1
        if self._stopping and self._ended is not None:
            self._ended()
        return False

    def _found(self, worker: Worker) -> bool:
        """A lost thread has come back: tell whether it is still wanted."""
        with self._lock:
            worker.lost = False
            self.lost -= 1
            if self.count > self._allowed():
                self.count -= 1
                return False
        return True


class Worker(threading.Thread):
    """One thread of a pool.

    Attributes:
        pool: The pool.
        job: What it does now.
        gate: Locked while the thread is idle.
        bell: What a job waits on, see :meth:`wait`.
        lost: Its job takes too long.
    """

    def __init__(self, pool: ThreadPool, number: int) -> None:
        super().__init__(name=f"{pool.name}-{number}", daemon=True)
        self.pool = pool
        self.job: Job | None = None
        self.gate = allocate_lock()
        self.gate.acquire()
        self.bell = allocate_lock()
        self.bell.acquire()
        self.lost = False

    # Made when somebody asks: setting a name for every request would cost more than taking it from the queue.
    @property
    def name(self) -> str:
        """The thread's name, with what it does."""
        job = self.job
        return self._name if job is None else f"{self._name}: {job.describe()}"

    @name.setter
    def name(self, name: str) -> None:
        self._name = str(name)

    def run(self) -> None:
        """Work."""
        try:
            self.pool.work(self)
        except BaseException:
            app_log.critical("A thread of the pool has ended by a fault of the server's", exc_info=True)
            raise

    def wait(self, timeout: float) -> None:
        """Let the job wait until somebody rings, or *timeout* seconds; it may also return too early."""
        self.bell.acquire(timeout=timeout)

    def ring(self) -> None:
        """Let the job go on that waits in :meth:`wait`, or will."""
        with suppress(RuntimeError):  # it was rung before, and nobody has heard yet
            self.bell.release()

    def stack(self) -> str:
        """Return where the thread is, as text like a traceback."""
        frame = sys._current_frames().get(self.ident or 0)
        return "".join(traceback.format_stack(frame)) if frame is not None else "(the thread has ended)\n"
