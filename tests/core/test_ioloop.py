from __future__ import annotations

import asyncio
import concurrent.futures
import datetime
import importlib.util
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bridge.core import ioloop
from bridge.core.ioloop import IOLoop, new_event_loop
from tests.support import ROOT


@pytest.fixture(autouse=True)
def _loops_are_closed() -> Iterator[None]:
    """No event loop is set before the test, and those that it wraps are closed after it."""
    asyncio.set_event_loop(None)
    known = set(IOLoop._known)
    IOLoop._main = None
    yield
    IOLoop._main = None
    for loop in set(IOLoop._known) - known:
        if not loop.is_running():
            loop.close()
    asyncio.set_event_loop(None)


def in_thread(function: Callable[[], Any]) -> Any:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result(20)


# --- which loop -------------------------------------------------------------------------------------------------------


def test_a_loop_is_made_where_there_is_none() -> None:
    current = IOLoop.current()
    assert IOLoop.current() is current
    assert current.asyncio_loop is asyncio.get_event_loop()
    assert type(current.asyncio_loop) is type_of_new_loops()


def type_of_new_loops() -> type:
    loop = new_event_loop()
    loop.close()
    return type(loop)


def test_the_loop_that_was_set_is_used() -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    assert IOLoop.current().asyncio_loop is loop
    assert IOLoop.instance() is IOLoop.current()


def test_a_loop_that_was_closed_is_not_used() -> None:
    first = IOLoop.current()
    first.close()
    second = IOLoop.current()
    assert second is not first
    assert not second.asyncio_loop.is_closed()
    assert first.asyncio_loop not in IOLoop._known


async def test_the_running_loop_is_used() -> None:
    asyncio.set_event_loop(None)
    assert IOLoop.current().asyncio_loop is asyncio.get_running_loop()
    assert IOLoop.instance() is IOLoop.current()


def test_no_loop_is_made_when_none_is_wanted() -> None:
    def ask() -> tuple[IOLoop | None, bool]:
        before = IOLoop.current(instance=False)
        made = IOLoop.current()
        same = IOLoop.current(instance=False) is made
        made.close()
        return before, same and IOLoop.current(instance=False) is None

    assert in_thread(ask) == (None, True)


def test_a_new_loop_becomes_the_current_one() -> None:
    made = IOLoop()
    assert IOLoop.current() is made
    other = IOLoop(make_current=False)
    assert IOLoop.current() is made
    other.close()


def test_a_loop_is_wrapped_once() -> None:
    loop = asyncio.new_event_loop()
    wrapped = IOLoop(loop)
    assert wrapped.asyncio_loop is loop
    with pytest.raises(RuntimeError, match="use IOLoop"):
        IOLoop(loop)
    asyncio.set_event_loop(loop)
    assert IOLoop.current() is wrapped


def test_every_thread_has_its_own() -> None:
    def other() -> IOLoop:
        made = IOLoop.current()
        assert IOLoop.current() is made
        made.close()
        return made

    assert in_thread(other) is not IOLoop.current()


def test_instance_in_another_thread_is_the_main_threads() -> None:
    main = IOLoop.current()
    assert in_thread(IOLoop.instance) is main

    def with_a_loop_that_runs() -> IOLoop:
        return asyncio.run(instance())

    async def instance() -> IOLoop:
        assert IOLoop.instance().asyncio_loop is asyncio.get_running_loop()
        return IOLoop.instance()

    assert in_thread(with_a_loop_that_runs) is not main
    main.close()

    def alone() -> IOLoop:
        made = IOLoop.instance()
        made.close()
        return made

    assert in_thread(alone) is not main


def test_uvloop_is_used_if_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("uvloop") is not None:
        loop = new_event_loop()
        loop.close()
        assert type(loop).__module__.startswith("uvloop")
    monkeypatch.setitem(sys.modules, "uvloop", None)
    loop, plain = new_event_loop(), asyncio.new_event_loop()
    loop.close()
    plain.close()
    assert type(loop) is type(plain)


def test_closed_loops_are_forgotten() -> None:
    before = len(IOLoop._known)
    for _ in range(20):
        IOLoop(make_current=False).close()
    assert len(IOLoop._known) <= before + 1


@pytest.mark.parametrize("filters", ["error", "default", "ignore"])
def test_a_fresh_program_gets_a_loop_of_ours_without_a_warning(filters: str) -> None:
    code = (
        "import warnings\n"
        "from bridge.core.ioloop import IOLoop, new_event_loop\n"
        "before = list(warnings.filters)\n"
        "current, made = IOLoop.current().asyncio_loop, new_event_loop()\n"
        "assert type(current) is type(made)\n"
        "assert warnings.filters == before\n"
        "current.close(), made.close()\n"
    )
    command = [sys.executable, "-W", filters, "-c", code]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


# --- running ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("factory", [asyncio.new_event_loop, new_event_loop], ids=["asyncio", "default"])
def test_what_is_put_off_by_the_turn_that_stops_the_loop_is_done(factory: Any) -> None:
    loop = IOLoop(factory())
    done: list[int] = []

    def last() -> None:
        loop.asyncio_loop.call_soon(done.append, 1)  # as a response is that is sent when the turn is over
        loop.stop()

    loop.asyncio_loop.call_soon(last)
    loop.start()
    assert done == [1]


def test_a_closed_loop_can_be_stopped() -> None:
    loop = IOLoop()
    loop.close()
    loop.stop()


def test_start_and_stop() -> None:
    loop = IOLoop.current()
    seen: list[str] = []
    loop.add_callback(seen.append, "first")
    loop.add_callback(loop.stop)
    loop.start()
    assert seen == ["first"]
    loop.stop()
    loop.add_callback(seen.append, "second")
    loop.start()
    assert seen == ["first", "second"]
    loop.close(all_fds=True)
    assert loop.asyncio_loop.is_closed()


def test_run_sync_of_a_function() -> None:
    assert IOLoop.current().run_sync(lambda: 3) == 3


def test_run_sync_of_a_coroutine_function() -> None:
    async def work() -> asyncio.AbstractEventLoop:
        await asyncio.sleep(0)
        return asyncio.get_running_loop()

    loop = IOLoop.current()
    assert loop.run_sync(work) is loop.asyncio_loop
    assert loop.run_sync(work, timeout=10) is loop.asyncio_loop


def test_run_sync_raises_what_is_raised() -> None:
    async def fail() -> None:
        raise LookupError("x")

    with pytest.raises(LookupError, match="x"):
        IOLoop.current().run_sync(fail)
    with pytest.raises(ZeroDivisionError):
        IOLoop.current().run_sync(lambda: 1 // 0)


def test_run_sync_waits_no_longer_than_allowed() -> None:
    cancelled = []

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(True)

    with pytest.raises(TimeoutError):
        IOLoop.current().run_sync(wait, timeout=0.01)
    assert cancelled == [True]
    assert IOLoop.current().run_sync(lambda: 1) == 1


# --- callbacks --------------------------------------------------------------------------------------------------------


def test_time_is_seconds_since_the_epoch() -> None:
    before = time.time()
    assert before <= IOLoop.current().time() <= time.time()


@pytest.mark.parametrize("name", ["add_callback", "spawn_callback", "add_callback_from_signal"])
async def test_callbacks_run_in_the_next_turn_with_their_arguments(name: str) -> None:
    seen: list[Any] = []
    getattr(IOLoop.current(), name)(lambda *args, **kwargs: seen.append((args, kwargs)), 1, a=2)
    assert seen == []
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert seen == [((1,), {"a": 2})]


async def test_callbacks_from_other_threads_wake_the_loop() -> None:
    loop = IOLoop.current()
    done = asyncio.Event()
    started = time.monotonic()
    timer = threading.Timer(0.05, loop.add_callback, (done.set,))  # by then the loop sleeps
    timer.start()
    async with asyncio.timeout(20):
        await done.wait()
    timer.join()
    assert time.monotonic() - started < 15


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="the platform has no SIGUSR1")
def test_callbacks_from_a_signal_handler_wake_the_loop() -> None:
    # A loop that sleeps in select() would sleep on: the handler runs in the loop's own thread.
    loop = IOLoop(asyncio.new_event_loop())
    before = signal.signal(signal.SIGUSR1, lambda number, frame: loop.add_callback_from_signal(loop.stop))
    rescue = loop.call_later(20, loop.stop)
    started = time.monotonic()
    timer = threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    try:
        loop.start()
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, before)
    loop.remove_timeout(rescue)
    assert time.monotonic() - started < 15


async def test_coroutine_functions_are_run() -> None:
    done = asyncio.Event()

    async def work(argument: int) -> None:
        await asyncio.sleep(0)
        assert argument == 1
        done.set()

    IOLoop.current().spawn_callback(work, 1)
    async with asyncio.timeout(20):
        await done.wait()


async def test_what_a_callback_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def later() -> None:
        await asyncio.sleep(0)
        raise LookupError("later")

    def now() -> None:
        raise LookupError("now")

    IOLoop.current().add_callback(now)
    IOLoop.current().add_callback(later)
    for _ in range(10):
        await asyncio.sleep(0)
    assert [(record.name, record.levelno) for record in caplog.records] == [("bridge.application", logging.ERROR)] * 2
    assert ["Exception in callback" in record.getMessage() for record in caplog.records] == [True, True]
    assert [record.exc_info and str(record.exc_info[1]) for record in caplog.records] == ["now", "later"]
    assert "test_what_a_callback_raises_is_logged.<locals>.now" in caplog.records[0].getMessage()


async def test_a_cancelled_callback_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await asyncio.sleep(0)

    IOLoop.current().add_callback(work)
    for _ in range(10):
        await asyncio.sleep(0)
    assert caplog.records == []


def test_a_closed_loop_takes_no_callbacks() -> None:
    loop = IOLoop.current()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.add_callback(lambda: None)


# --- timeouts ---------------------------------------------------------------------------------------------------------


class FakeLoop:
    """Notes what is to be called, and when."""

    def __init__(self) -> None:
        self.later: list[tuple[float, Callable[[], None]]] = []

    def call_later(self, delay: float, callback: Callable[..., None], *args: Any) -> str:
        self.later.append((delay, lambda: callback(*args)))
        return "handle"

    def is_closed(self) -> bool:
        return True

    def is_running(self) -> bool:
        return False

    def close(self) -> None:
        pass


NOW = 1_000_000.0
DEADLINES: list[tuple[str, Any, float]] = [
    ("call_later", 3, 3),
    ("call_later", 0.5, 0.5),
    ("call_later", -1, 0),
    ("call_at", NOW + 3, 3),
    ("call_at", NOW - 3, 0),
    ("add_timeout", NOW + 2, 2),
    ("add_timeout", NOW + 0.5, 0.5),
    ("add_timeout", 1, 0),
    ("add_timeout", datetime.timedelta(seconds=4), 4),
    ("add_timeout", datetime.timedelta(seconds=-4), 0),
]


@pytest.mark.parametrize(("name", "deadline", "delay"), DEADLINES)
def test_deadlines(name: str, deadline: Any, delay: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ioloop.time, "time", lambda: NOW)
    fake: Any = FakeLoop()
    seen: list[Any] = []
    handle = getattr(IOLoop(fake), name)(deadline, lambda *args, **kwargs: seen.append((args, kwargs)), 1, a=2)
    assert handle == "handle"
    ((when, call),) = fake.later
    assert when == delay
    call()
    assert seen == [((1,), {"a": 2})]


@pytest.mark.parametrize("deadline", ["3", None, datetime.datetime(2020, 1, 1)])
def test_no_deadline(deadline: Any) -> None:
    with pytest.raises(TypeError, match="is neither a number nor a timedelta"):
        IOLoop.current().add_timeout(deadline, lambda: None)


async def test_timeouts_come_in_order_and_can_be_removed() -> None:
    loop = IOLoop.current()
    seen: list[int] = []
    done = asyncio.Event()
    removed = loop.add_timeout(datetime.timedelta(0), seen.append, 0)
    loop.call_later(0.02, seen.append, 2)
    loop.add_timeout(loop.time() + 0.01, seen.append, 1)
    loop.call_later(0.03, done.set)
    loop.remove_timeout(removed)
    async with asyncio.timeout(20):
        await done.wait()
    assert seen == [1, 2]
    loop.remove_timeout(removed)


# --- futures ----------------------------------------------------------------------------------------------------------


async def test_add_future_of_asyncio() -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    seen: list[int] = []
    done = asyncio.Event()

    async def take(result: Any) -> None:
        seen.append(result.result())
        done.set()

    IOLoop.current().add_future(future, take)
    await asyncio.sleep(0)
    assert seen == []
    future.set_result(3)
    async with asyncio.timeout(20):
        await done.wait()
    assert seen == [3]


async def test_add_future_of_a_thread_calls_back_on_the_loop() -> None:
    future: concurrent.futures.Future[int] = concurrent.futures.Future()
    seen: list[Any] = []
    done = asyncio.Event()

    def take(result: Any) -> None:
        seen.append((result is future, threading.current_thread()))
        done.set()

    IOLoop.current().add_future(future, take)
    in_thread(lambda: future.set_result(3))
    async with asyncio.timeout(20):
        await done.wait()
    assert seen == [(True, threading.current_thread())]


async def test_a_failure_in_a_futures_callback_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    future.set_result(0)
    IOLoop.current().add_future(future, lambda done: 1 // done.result())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert [record.getMessage().partition(" <")[0] for record in caplog.records] == ["Exception in callback"]
