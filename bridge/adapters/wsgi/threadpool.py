"""A pool of threads that grows when all are busy and shrinks when they are idle.

It is made for bursts of short jobs. Switching between threads that want the interpreter costs more than such jobs do.
So the event loop wakes one thread a turn, and that thread does all the jobs that are queued. When jobs turn out to be
slow, each thread that takes one wakes another for the next.

The module knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
import traceback
import weakref
from _thread import allocate_lock
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Protocol

from bridge.core.log import app_log, gen_log

__all__ = ["Job", "ThreadPool", "Worker", "occupied", "states"]


# The pool is in one of three modes, and changes between them by itself.
#
# Quick: a thread that has work does job after job and wakes nobody. This is right for jobs of less than a millisecond:
#   a second thread would only compete for the interpreter. The pool begins in this mode. _slow is False.
# Guarded quick: several jobs were queued in one turn, and one thread has been woken for all of them. If one of them is
#   slow after all, the others wait behind it. So a timer looks again after _GUARD seconds, as long as jobs are queued;
#   if some still are, it wakes another thread and the mode is slow. _guarded is True while the timer runs.
# Slow: a thread that takes a job wakes another if more jobs are queued. This is right for jobs that wait, for a
#   database for example. One job of more than _SLOW seconds begins this mode, and _QUICK_IN_A_ROW quick jobs in a row
#   end it; _quick counts them. _slow is True.

# A job that takes longer than this (seconds) is a slow one.
_SLOW = 0.001
# This many quick jobs in a row end the slow mode.
_QUICK_IN_A_ROW = 50
# With this many jobs in one turn of the loop, it pays to wait one more turn for others.
_MANY = 4
# Two turns of the loop that take longer than this (seconds) mean that something has blocked the loop.
_BLOCKED = 0.05
# How soon (seconds) the loop looks whether queued jobs wait behind a slow one.
_GUARD = 0.002
# How soon (seconds) the pool asks for another thread when the system has refused one.
_RETRY = 1.0


_pools: weakref.WeakSet[ThreadPool] = weakref.WeakSet()


def _after_fork() -> None:
    for pool in list(_pools):
        pool._reset_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def states() -> tuple[int, int, int]:
    """Return how many threads of all pools are busy, idle and lost: abandoned with a job that does not end."""
    pools = list(_pools)
    idle, lost = sum(pool.idle for pool in pools), sum(pool.abandoned for pool in pools)
    return max(sum(pool.count for pool in pools) - idle - lost, 0), idle, lost


def occupied() -> float:
    """Return the share of its possible threads that have a job, of the pool where this share is largest."""
    return max(((pool.count - pool.idle - pool.abandoned) / pool.maximum for pool in list(_pools)), default=0.0)


class Job(Protocol):
    """What a thread of the pool does.

    Attributes:
        queued: When it was added, by ``time.monotonic()``; set by the pool, at most two turns of the loop early.
    """

    queued: float

    def run(self, worker: Worker, now: float) -> None:
        """Do the job. It must not raise anything: that would end the thread.

        Args:
            worker: The thread.
            now: ``time.monotonic()``.
        """

    def describe(self) -> str:
        """Return a few words for the thread's name."""
        ...


class ThreadPool:
    """Runs jobs in daemon threads, in the order in which they came.

    A job that never ends does not keep the interpreter from exiting.

    Args:
        maximum: Most threads.
        minimum: Threads that stay when they are idle. No thread starts before there is work.
        idle_timeout: Seconds after which an idle thread beyond the minimum ends.
        queue_limit: Most jobs that wait for a thread.
        abandoned_limit: Most abandoned threads that are replaced, see :meth:`abandon`; None for *maximum*.
        on_jobs: The first value of the attribute.
        name: The beginning of the threads' names.

    Attributes:
        queue: The jobs that wait.
        count: How many threads there are, with the abandoned ones.
        abandoned: How many threads are abandoned.
        on_jobs: Called once, on the loop, after the next turn in which jobs are added; then set to None. None for no
            call.
    """

    def __init__(
        self,
        maximum: int,
        *,
        minimum: int = 1,
        idle_timeout: float = 30.0,
        queue_limit: int = 1024,
        abandoned_limit: int | None = None,
        on_jobs: Callable[[], None] | None = None,
        name: str = "bridge-wsgi",
    ) -> None:
        self.maximum = maximum
        self.minimum = min(minimum, maximum)
        self.idle_timeout = idle_timeout
        self.queue_limit = queue_limit
        self.abandoned_limit = maximum if abandoned_limit is None else abandoned_limit
        self.name = name
        self.on_jobs = on_jobs
        self.queue: deque[Job] = deque()
        self.count = 0
        self.abandoned = 0
        self._workers: set[Worker] = set()
        self._idle: list[Worker] = []  # the thread that became idle last works first, so the others can end
        self._waking = False  # a thread is on its way to the queue
        self._slow = False  # the mode, see above
        self._quick = 0
        self._stopping = False
        self._ended: Callable[[], None] | None = None
        self._started = 0
        self._next_start = 0.0  # when the system may be asked for another thread, after a refusal
        self._loop: asyncio.AbstractEventLoop | None = None
        self._flushing = False
        self._turn_start = 0.0  # when the first job of this turn of the loop was queued
        self._guarded = False
        self._shrinking = False
        self._lock = threading.Lock()  # guards count, abandoned and the end of threads
        _pools.add(self)

    @property
    def idle(self) -> int:
        """How many threads have nothing to do."""
        return len(self._idle)

    @property
    def queue_time(self) -> float:
        """How long the next job has waited, in seconds; 0 if no job waits."""
        try:
            return time.monotonic() - self.queue[0].queued
        except IndexError:
            return 0.0

    @property
    def alive(self) -> bool:
        """There are threads, or jobs that wait."""
        return bool(self.queue or self.count or self._workers)

    # ------------------------------------------------------------------ called by the loop

    def add(self, job: Job, loop: asyncio.AbstractEventLoop) -> bool:
        """Queue a job. A thread is woken at the end of this turn of the loop, or of the next one.

        Returns:
            False if too many jobs wait; the pool has not taken this one.
        """
        queue = self.queue
        if len(queue) >= self.queue_limit:
            return False
        if not self._flushing:
            self._flushing = True
            self._turn_start = time.monotonic()
            self._loop = loop
            loop.call_soon(self._flush, True)
        job.queued = self._turn_start
        queue.append(job)
        return True

    def withdraw(self, job: Job) -> bool:
        """Take a job out of the queue; return whether it was there."""
        try:
            self.queue.remove(job)
        except ValueError:
            return False
        return True

    def stop(self, ended: Callable[[], None]) -> None:
        """End the idle threads now, and the others once the queue is empty.

        Args:
            ended: Called in every thread that ends.
        """
        self._ended = ended
        self._stopping = True
        self._flush()
        while self._idle:
            self._dismiss()

    def abandon(self, worker: Worker, job: Job) -> bool:
        """Give up a thread whose job does not end, and allow another thread in its place.

        Returns:
            False if the job has ended in the meantime, or the thread was abandoned before.
        """
        with self._lock:
            if worker.job is not job or worker.abandoned:
                return False
            worker.abandoned = True
            self.abandoned += 1
        if self.queue and not self._waking:
            self._wake()
        return True

    def workers(self) -> list[Worker]:
        """Return the threads. Their names say what they do."""
        return list(self._workers)

    def forget_blocked_time(self, now: float) -> None:
        """Do not count time in which the loop was blocked as time in which jobs waited for a thread.

        This concerns the jobs for which no thread was woken yet. Without it, 45 of 79,000 requests were answered 503
        beside an application that blocks the loop for a second.

        Args:
            now: ``time.monotonic()``.
        """
        if self._flushing and now - self._turn_start > _BLOCKED:
            for job in self.queue.copy():  # threads take from it meanwhile
                if job.queued >= self._turn_start:
                    job.queued = now
            self._turn_start = now

    def _flush(self, gather: bool = False) -> None:
        """Wake a thread for the jobs of this turn of the loop.

        Args:
            gather: If there are many jobs, wait one more turn. The clients that were just answered send their next
                requests then. The more jobs a thread finds, the fewer switches there are between it and the loop:
                4 % less time for a small request.
        """
        if gather and not self._slow and len(self.queue) >= _MANY and self._loop is not None:
            self._loop.call_soon(self._flush)
            return
        now = time.monotonic()
        if now - self._turn_start > _BLOCKED:
            self.forget_blocked_time(now)
        self._flushing = False
        waiting = len(self.queue)
        on_jobs = self.on_jobs
        if on_jobs is not None:
            self.on_jobs = None
            on_jobs()
        if waiting:
            if waiting > 1 and not self._guarded:
                self._guard(False)
            if not self._waking:
                self._wake()
                if not self.count and not self._guarded:  # no thread could be started: try again
                    self._guard(False)

    def _guard(self, look: bool = True) -> None:
        """Look again as long as jobs are queued; with *look*, those that still are wait behind a slow job."""
        assert self._loop is not None
        self._guarded = bool(self.queue)
        if self._guarded:
            if look:
                self._slow = True
                self._quick = 0
                if not self._waking:
                    self._wake()
            self._loop.call_later(_GUARD, self._guard)

    def _shrink(self) -> None:
        """Dismiss threads that have been idle for too long."""
        assert self._loop is not None
        before = time.monotonic() - self.idle_timeout
        while self.count > self.minimum and self._idle and self._idle[0].idle_since < before:
            self._dismiss()
        self._shrinking = self.count > self.minimum and not self._stopping
        if self._shrinking:
            self._loop.call_later(self.idle_timeout / 2, self._shrink)

    def _dismiss(self) -> None:
        try:
            worker = self._idle.pop(0)
        except IndexError:  # it was woken in the meantime
            return
        with self._lock:
            self.count -= 1
        worker.dismissed = True
        worker.gate.open()

    # ------------------------------------------------------------------ called by the loop and by the threads

    def _allowed(self) -> int:
        return self.maximum + min(self.abandoned, self.abandoned_limit)

    def _wake(self) -> None:
        """Wake an idle thread or start a new one, if either is possible."""
        self._waking = True
        try:
            worker = self._idle.pop()
        except IndexError:
            if not self._grow():
                self._waking = False
        else:
            worker.gate.open()

    def _grow(self) -> bool:
        with self._lock:
            if self.count >= self._allowed() or time.monotonic() < self._next_start:
                return False
            self.count += 1
            self._started += 1
            number = self._started
        try:
            Worker(self, number).start()
        except (RuntimeError, OSError) as exc:  # the operating system has no more threads, or files
            with self._lock:
                self.count -= 1
            self._next_start = time.monotonic() + _RETRY
            gen_log.error("No thread could be started, %d are running: %s", self.count, exc)
            return False
        return True

    # ------------------------------------------------------------------ called by the threads

    def work(self, worker: Worker) -> None:
        """Do jobs until the thread is not needed any more."""
        queue = self.queue
        now = time.monotonic
        while True:
            self._waking = False
            start = now()
            while True:
                try:
                    job = queue.popleft()
                except IndexError:
                    break
                worker.job = job  # first of all: the last job must not seem to hang
                worker.waited = 0.0
                if self._slow and queue and not self._waking:
                    self._wake()
                    start = now()  # the woken thread may have run in between
                job.run(worker, start)
                end = now()
                if end - start > _SLOW:
                    self._slow = True
                    self._quick = 0
                elif self._slow:
                    self._quick += 1
                    if self._quick >= _QUICK_IN_A_ROW:
                        self._slow = False
                start = end
                if worker.abandoned and not self._reclaim(worker):
                    return
            worker.job = None
            if not self._await_job(worker):
                return

    def _await_job(self, worker: Worker) -> bool:
        """Wait for work; False if the thread is to end."""
        worker.idle_since = time.monotonic()
        idle = self._idle
        idle.append(worker)
        if not self._shrinking and self.count > self.minimum and self._loop is not None:
            self._shrinking = True
            self._call_loop(self._shrink)
        # A job that was queued before this thread was listed as idle has not woken it. Neither has a stop.
        if self.queue or self._stopping:
            try:
                idle.remove(worker)
            except ValueError:
                pass  # another thread, or the loop, has taken it off the list and opens the gate
            else:
                return bool(self.queue) or not self._end_one()
        worker.gate.wait()
        return not worker.dismissed

    def _end_one(self) -> bool:
        with self._lock:
            self.count -= 1
        return True

    def _reclaim(self, worker: Worker) -> bool:
        """Take an abandoned thread back; False if there are enough without it."""
        with self._lock:
            worker.abandoned = False
            self.abandoned -= 1
            if self.count > self._allowed():
                self.count -= 1
                return False
        return True

    def _remove_failed(self, worker: Worker) -> None:
        """Forget a thread that an exception has ended, and let another one take its place."""
        with self._lock:
            self.count -= 1
            self.abandoned -= worker.abandoned
        worker.job = None
        if self.queue and not self._waking:
            self._wake()

    def _reset_after_fork(self) -> None:
        """Start afresh in a child process, which has none of the threads, or one of them.

        It has one if the application, in that thread, has called ``fork``. Then the pool is stopped: the parent does
        the jobs that wait, and the child must not wait at the gates, which it shares with its parent.
        """
        self._lock = threading.Lock()  # another thread may have held it
        self.queue.clear()
        self._idle.clear()
        if threading.current_thread() in self._workers:
            self._stopping = True
            self._ended = None
        else:
            self._workers.clear()
            self.count = self.abandoned = 0
            self._waking = self._flushing = self._guarded = self._shrinking = False

    def _call_loop(self, function: Callable[[], None]) -> None:
        assert self._loop is not None
        with suppress(RuntimeError):  # the loop was closed: the process is about to end
            self._loop.call_soon_threadsafe(function)


class _EventGate:
    """Where a thread waits until it is needed.

    A write to a file releases the interpreter for a moment, so the woken thread gets it at once. Opening a lock wakes
    the thread while the waker still has the interpreter, and the thread has to wait a second time. That costs 2.5
    microseconds more for a small request (CPython 3.13).
    """

    __slots__ = ("_file",)

    def __init__(self) -> None:
        self._file = os.eventfd(0, os.EFD_CLOEXEC)

    def wait(self) -> None:
        while True:
            try:
                os.eventfd_read(self._file)
                return
            except InterruptedError:  # a signal has come to this thread: PEP 475 leaves this call out
                continue

    def open(self) -> None:
        os.eventfd_write(self._file, 1)

    def close(self) -> None:
        os.close(self._file)


class _LockGate:
    """Where a thread waits on systems without eventfd."""

    __slots__ = ("_lock",)

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._lock.acquire()

    def wait(self) -> None:
        self._lock.acquire()

    def open(self) -> None:
        self._lock.release()

    def close(self) -> None:
        pass


_Gate = _EventGate if hasattr(os, "eventfd") else _LockGate


def _gate() -> _EventGate | _LockGate:
    try:
        return _Gate()
    except OSError:  # no more files: a thread that waits at a lock is better than none
        return _LockGate()


class Worker(threading.Thread):
    """One thread of a pool.

    Attributes:
        pool: The pool.
        job: Its current job; None while it is idle.
        gate: Where it waits while it is idle.
        idle_since: When it became idle, by ``time.monotonic()``.
        dismissed: It is to end.
        abandoned: Its job takes too long, and another thread may stand in for it.
        waits: The job waits now, see :meth:`wait`.
        waited: How long the job has waited in all, in seconds.
    """

    def __init__(self, pool: ThreadPool, number: int) -> None:
        super().__init__(name=f"{pool.name}-{number}", daemon=True)
        self.pool = pool
        self.job: Job | None = None
        self.gate = _gate()
        self.idle_since = 0.0
        self.dismissed = False
        self.abandoned = False
        self.waits = False
        self.waited = 0.0
        self._notified = allocate_lock()
        self._notified.acquire()

    # Made on demand: setting a name for every request would cost more than taking the request from the queue.
    @property
    def name(self) -> str:
        """The thread's name and its current job."""
        job = self.job
        return self._name if job is None else f"{self._name}: {job.describe()}"

    @name.setter
    def name(self, name: str) -> None:
        self._name = str(name)

    def run(self) -> None:
        """Work."""
        try:
            self.pool._workers.add(self)
            self.pool.work(self)
        except BaseException:
            app_log.critical("A thread of the pool has ended by a fault of the server's", exc_info=True)
            self.pool._remove_failed(self)
            raise
        finally:
            self.pool._workers.discard(self)
            self.gate.close()
            if self.pool._stopping and self.pool._ended is not None:
                self.pool._ended()

    def wait(self, timeout: float) -> None:
        """Let the job wait for :meth:`notify`, *timeout* seconds at most; it may also return too early."""
        begun = time.monotonic()
        self.waits = True
        self._notified.acquire(timeout=timeout)
        self.waits = False
        self.waited += time.monotonic() - begun

    def notify(self) -> None:
        """Let the job go on that waits in :meth:`wait`, or that comes there next."""
        with suppress(RuntimeError):  # it was notified before and has not come to wait() since
            self._notified.release()

    def stack(self) -> str:
        """Return where the thread is now, as the text of a traceback."""
        frame = sys._current_frames().get(self.ident or 0)
        return "".join(traceback.format_stack(frame)) if frame is not None else "(the thread has ended)\n"
