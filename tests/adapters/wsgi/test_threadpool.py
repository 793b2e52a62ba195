"""The pool of threads: growth, order, limits, loss, rest and end."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

import pytest

from bridge.adapters.wsgi import threadpool
from bridge.adapters.wsgi.threadpool import ThreadPool, Worker
from tests.support import ROOT

WAIT = 5.0


class Work:
    """A job that tells when it runs and waits until it is let go."""

    def __init__(self, pool: ThreadPool, *, blocks: bool = True) -> None:
        self.loop = asyncio.get_running_loop()
        self.pool = pool
        self.started = asyncio.Event()
        self.done = asyncio.Event()
        self.release = threading.Event()
        self.thread: Worker | None = None
        self.names: list[str] = []
        if not blocks:
            self.release.set()

    def run(self, worker: Worker, now: float) -> None:
        self.thread = worker
        self.names.append(threading.current_thread().name)
        self.loop.call_soon_threadsafe(self.started.set)
        assert self.release.wait(WAIT)
        self.loop.call_soon_threadsafe(self.done.set)

    def describe(self) -> str:
        return "GET /x"

    def add(self) -> bool:
        self.queued = time.monotonic()
        return self.pool.add(self, self.loop)


async def ends(pool: ThreadPool) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wake() -> None:
        with suppress(RuntimeError):  # the loop was closed
            loop.call_soon_threadsafe(ended.set)

    pool.stop(wake)
    async with asyncio.timeout(WAIT):
        while pool.alive:
            await ended.wait()
            ended.clear()


async def within(event: asyncio.Event) -> None:
    async with asyncio.timeout(WAIT):
        await event.wait()


@pytest.fixture(params=["eventfd", "lock"])
def gates(request, monkeypatch):
    if request.param == "lock":
        monkeypatch.setattr(threadpool, "_Gate", threadpool._LockGate)
    elif threadpool._Gate is threadpool._LockGate:
        pytest.skip("this system has no eventfd")


async def test_no_thread_before_there_is_work(gates) -> None:
    pool = ThreadPool(4, minimum=2)
    assert pool.count == 0
    await ends(pool)


async def test_jobs_that_block_get_a_thread_each_up_to_the_maximum(gates) -> None:
    pool = ThreadPool(3)
    works = [Work(pool) for _ in range(5)]
    for work in works:
        assert work.add()
    for work in works[:3]:
        await within(work.started)
    assert pool.count == 3
    assert len(pool.queue) == 2
    assert not works[3].started.is_set()
    works[1].release.set()
    await within(works[3].started)  # in the order in which they came
    assert not works[4].started.is_set()
    for work in works:
        work.release.set()
    for work in works:
        await within(work.done)
    assert pool.count == 3
    await ends(pool)
    assert pool.workers() == []


async def test_a_thread_that_is_on_its_way_is_enough(gates, monkeypatch) -> None:
    may_begin = threading.Event()
    run = Worker.run

    def late(worker: Worker) -> None:
        assert may_begin.wait(WAIT)
        run(worker)

    monkeypatch.setattr(threadpool, "_SLOW", 60)
    monkeypatch.setattr(threadpool, "_GUARD", 60)
    monkeypatch.setattr(Worker, "run", late)
    pool = ThreadPool(4)
    works = [Work(pool, blocks=False) for _ in range(5)]
    for work in works:
        assert work.add()
        for _ in range(3):  # turns of the loop
            await asyncio.sleep(0)
        assert pool.count == 1
    may_begin.set()
    for work in works:
        await within(work.done)
    assert pool.count == 1
    await ends(pool)


async def test_quick_jobs_need_one_thread(gates, monkeypatch) -> None:
    monkeypatch.setattr(threadpool, "_SLOW", 60)  # however busy this machine is
    monkeypatch.setattr(threadpool, "_GUARD", 60)
    pool = ThreadPool(8)
    works = [Work(pool, blocks=False) for _ in range(20)]
    for work in works:
        work.add()
    for work in works:
        await within(work.done)
    assert pool.count == 1
    await ends(pool)


async def test_a_thread_that_wakes_another_is_seen_to_do_its_next_job(gates, monkeypatch) -> None:
    pool = ThreadPool(2)
    works = [Work(pool, blocks=False) for _ in range(3)]
    seen = []
    wake = pool._wake

    def look() -> None:
        seen.extend(worker.job for worker in pool.workers())
        wake()

    pool._slow = True
    monkeypatch.setattr(pool, "_wake", look)
    for work in works:
        assert work.add()
    for work in works:
        await within(work.done)
    assert seen[:1] == works[:1]
    await ends(pool)


async def test_many_jobs_of_one_turn_wait_for_those_of_the_next(gates) -> None:
    pool = ThreadPool(1)
    works = [Work(pool) for _ in range(threadpool._MANY + 1)]
    for work in works[:-1]:
        assert work.add()
    await asyncio.sleep(0)
    assert pool.count == 0
    assert works[-1].add()
    for work in works:
        work.release.set()
        await within(work.done)
    await ends(pool)


@pytest.mark.parametrize("number", [1, threadpool._MANY])
async def test_a_loop_that_was_busy_is_not_held_against_jobs(gates, number: int) -> None:
    pool = ThreadPool(1)
    blocking = Work(pool)
    assert blocking.add()
    await within(blocking.started)
    waiting = Work(pool, blocks=False)
    assert waiting.add()
    await asyncio.sleep(0.01)  # its turn is over: it waits for a thread
    queued = waiting.queued
    works = [Work(pool, blocks=False) for _ in range(number)]
    for work in works:
        assert work.add()
    time.sleep(2 * threadpool._BLOCKED)
    end = time.monotonic()
    pool.forget_blocked_time(end)  # by a timer, which may come before the rest
    assert [work.queued for work in works] == [end] * number
    assert waiting.queued == queued
    blocking.release.set()
    for work in works:
        await within(work.done)
    await ends(pool)


async def test_a_job_behind_one_that_was_thought_to_be_quick_is_not_kept_waiting(gates) -> None:
    pool = ThreadPool(2)
    slow, other = Work(pool), Work(pool, blocks=False)
    slow.add()
    other.add()  # in the same turn: one thread is woken for both
    await within(other.done)
    assert not slow.done.is_set()
    slow.release.set()
    await ends(pool)


async def test_the_queue_has_a_bound(gates) -> None:
    pool = ThreadPool(1, queue_limit=2)
    running = Work(pool)
    running.add()
    await within(running.started)
    waiting = [Work(pool, blocks=False) for _ in range(2)]
    assert all(work.add() for work in waiting)
    assert not Work(pool).add()
    running.release.set()
    for work in waiting:
        await within(work.done)
    await ends(pool)


async def test_a_job_can_be_withdrawn_until_a_thread_has_it(gates) -> None:
    pool = ThreadPool(1)
    running, waiting = Work(pool), Work(pool)
    running.add()
    await within(running.started)
    waiting.add()
    assert pool.withdraw(waiting)
    assert not pool.withdraw(waiting)
    assert not pool.withdraw(running)
    running.release.set()
    await ends(pool)
    assert not waiting.started.is_set()


async def test_idle_threads_end_down_to_the_minimum(gates) -> None:
    pool = ThreadPool(4, minimum=1, idle_timeout=0.05)
    works = [Work(pool) for _ in range(4)]
    for work in works:
        work.add()
    for work in works:
        await within(work.started)
    for work in works:
        work.release.set()
    async with asyncio.timeout(WAIT):
        while pool.count > 1 or len(pool.workers()) > 1:
            await asyncio.sleep(0.01)
    await asyncio.sleep(0.1)
    assert pool.count == 1
    again = Work(pool, blocks=False)
    again.add()
    await within(again.done)
    await ends(pool)


async def test_the_last_thread_to_rest_is_the_first_to_work(gates) -> None:
    pool = ThreadPool(2, minimum=2)
    works = [Work(pool), Work(pool)]
    for work in works:
        work.add()
        await within(work.started)
    works[0].release.set()
    async with asyncio.timeout(WAIT):
        while pool.idle < 1:
            await asyncio.sleep(0.001)
    works[1].release.set()
    async with asyncio.timeout(WAIT):
        while pool.idle < 2:
            await asyncio.sleep(0.001)
    third = Work(pool, blocks=False)
    third.add()
    await within(third.done)
    assert third.thread is works[1].thread
    await ends(pool)


async def test_names_say_what_runs(gates) -> None:
    pool = ThreadPool(1, name="test")
    work = Work(pool)
    work.add()
    await within(work.started)
    assert work.names == ["test-1: GET /x"]
    assert [worker.name for worker in pool.workers()] == ["test-1: GET /x"]
    assert "job.run(worker, start)" in pool.workers()[0].stack()
    work.release.set()
    await within(work.done)
    async with asyncio.timeout(WAIT):
        while pool.idle < 1:
            await asyncio.sleep(0.001)
    assert [worker.name for worker in pool.workers()] == ["test-1"]
    pool.workers()[0].name = "other"
    assert pool.workers()[0].name == "other"
    await ends(pool)


async def test_a_abandoned_thread_is_replaced_within_a_cap_and_taken_back(gates) -> None:
    pool = ThreadPool(1, abandoned_limit=1)
    works = [Work(pool) for _ in range(3)]
    for work in works:
        work.add()
    await within(works[0].started)
    first = works[0].thread
    assert first is not None
    assert pool.abandon(first, works[0])
    assert not pool.abandon(first, works[0])  # once is enough
    await within(works[1].started)
    assert pool.count == 2
    second = works[1].thread
    assert second is not None
    assert pool.abandon(second, works[1])
    await asyncio.sleep(0.05)
    assert not works[2].started.is_set()  # one replacement, not two
    works[0].release.set()  # the abandoned thread comes back, and goes on working
    await within(works[2].started)
    works[1].release.set()
    works[2].release.set()
    for work in works:
        await within(work.done)
    async with asyncio.timeout(WAIT):
        while pool.count > 1:
            await asyncio.sleep(0.001)
    assert pool.abandoned == 0
    await ends(pool)


async def test_a_job_that_has_ended_is_not_abandoned(gates) -> None:
    pool = ThreadPool(1)
    work = Work(pool, blocks=False)
    work.add()
    await within(work.done)
    async with asyncio.timeout(WAIT):
        while pool.idle < 1:
            await asyncio.sleep(0.001)
    assert work.thread is not None
    assert not pool.abandon(work.thread, work)
    await ends(pool)


async def test_what_waits_is_done_before_the_end(gates) -> None:
    pool = ThreadPool(1)
    works = [Work(pool, blocks=False) for _ in range(5)]
    for work in works:
        work.add()
    await ends(pool)
    await asyncio.sleep(0)
    assert all(work.done.is_set() for work in works)


async def test_no_more_threads_are_to_be_had(gates, monkeypatch, caplog) -> None:
    pool = ThreadPool(2)
    first = Work(pool)
    first.add()
    await within(first.started)

    def refuse(self) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(Worker, "start", refuse)
        second = Work(pool, blocks=False)
        second.add()
        await asyncio.sleep(0.05)
    assert pool.count == 1
    assert "can't start new thread" in caplog.text
    first.release.set()
    await within(second.done)  # by the thread that there is
    await ends(pool)


async def test_a_job_is_done_as_soon_as_there_is_a_thread(gates, monkeypatch, caplog) -> None:
    """It waits alone, and nobody else comes who would wake somebody."""
    monkeypatch.setattr(threadpool, "_RETRY", 0.05)
    refusals = iter([RuntimeError("can't start new thread"), OSError("Too many open files")])
    start = Worker.start

    def starts(worker: Worker) -> None:
        for refusal in refusals:
            raise refusal
        start(worker)

    monkeypatch.setattr(Worker, "start", starts)
    pool = ThreadPool(2)
    work = Work(pool, blocks=False)
    work.add()
    await within(work.done)
    assert len(caplog.records) == 2  # and not one for every look at the queue
    await ends(pool)


async def test_threads_start_without_files(monkeypatch) -> None:
    if threadpool._Gate is threadpool._LockGate:
        pytest.skip("this system has no eventfd")

    def none_left(*args: int) -> int:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr("os.eventfd", none_left)
    pool = ThreadPool(2)
    works = [Work(pool) for _ in range(3)]
    for work in works:
        work.add()
    for work in works:
        work.release.set()
    for work in works:
        await within(work.done)
    await ends(pool)


class Broken(Work):
    def run(self, worker: Worker, now: float) -> None:
        raise ZeroDivisionError


@pytest.fixture
def raised(monkeypatch):
    """What has ended threads; a thread tells at its very end, when its pool may have ended."""
    found: list[type[BaseException]] = []
    monkeypatch.setattr(threading, "excepthook", lambda args: found.append(args.exc_type))
    return found


async def until_raised(raised: list[type[BaseException]]) -> None:
    async with asyncio.timeout(WAIT):
        while not raised:
            await asyncio.sleep(0.001)
    assert raised == [ZeroDivisionError]


async def test_a_fault_of_the_servers_is_logged(gates, caplog, raised) -> None:
    pool = ThreadPool(1)
    Broken(pool).add()
    await until_raised(raised)
    (record,) = caplog.records
    assert record.levelno == logging.CRITICAL
    assert record.exc_info is not None
    assert record.exc_info[0] is raised[0]
    assert pool.count == 0
    work = Work(pool, blocks=False)
    work.add()
    await within(work.done)  # its place was not lost
    await ends(pool)


async def test_what_waits_behind_a_fault_of_the_servers_is_done(gates, caplog, raised) -> None:
    pool = ThreadPool(1)
    work = Work(pool, blocks=False)
    Broken(pool).add()
    work.add()
    await within(work.done)
    await ends(pool)
    await until_raised(raised)


async def test_a_bell_is_heard_also_if_it_rang_before() -> None:
    pool = ThreadPool(1)
    worker = Worker(pool, 1)
    worker.notify()
    worker.notify()
    start = time.monotonic()
    worker.wait(WAIT)
    assert time.monotonic() - start < WAIT / 2
    worker.wait(0.001)  # heard once only
    worker.gate.close()


def test_a_signal_that_comes_to_an_idle_thread_does_not_end_it(gates) -> None:
    gate = threadpool._Gate()
    thread = threading.Thread(target=gate.wait)
    before = signal.signal(signal.SIGUSR1, lambda number, frame: None)
    try:
        thread.start()
        for _ in range(20):
            signal.pthread_kill(thread.ident, signal.SIGUSR1)
            time.sleep(0.001)
        assert thread.is_alive()
        gate.open()
        thread.join(10)
        assert not thread.is_alive()
    finally:
        signal.signal(signal.SIGUSR1, before)
        gate.close()


def test_a_pool_does_not_keep_the_interpreter_from_exiting() -> None:
    pool = ThreadPool(1)
    assert Worker(pool, 1).daemon


FORKED = """
import asyncio, os, threading, time
from bridge.adapters.wsgi.threadpool import ThreadPool

pool = ThreadPool(2)

class Work:
    def __init__(self, loop):
        self.loop, self.queued, self.done = loop, time.monotonic(), asyncio.Event()

    def run(self, worker, now):
        self.thread = worker
        self.loop.call_soon_threadsafe(self.done.set)

    def describe(self):
        return ""

async def use():
    loop = asyncio.get_running_loop()
    threads = set()
    for _ in range(3):
        work = Work(loop)
        assert pool.add(work, loop)
        await asyncio.wait_for(work.done.wait(), 5)
        while not pool.idle:
            await asyncio.sleep(0.001)
        threads.add(work.thread)
    assert len(threads) == pool.count == 1, (threads, pool.count)

asyncio.run(use())
child = os.fork()
asyncio.run(use())
if child:
    assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork()")
def test_a_pool_in_a_process_that_was_forked_has_threads_of_its_own() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKED],
        capture_output=True,
        text=True,
        timeout=30,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode == 0, done.stderr
