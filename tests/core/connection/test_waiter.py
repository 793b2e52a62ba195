"""Those who wait for an event: all are woken once, the cancelled are forgotten."""

from __future__ import annotations

import asyncio

from bridge.core.connection.waiter import Waiters


async def test_all_who_wait_are_woken() -> None:
    waiters = Waiters(asyncio.get_running_loop())
    futures = [waiters.next_event() for _ in range(3)]
    assert not any(future.done() for future in futures)
    waiters.wake()
    assert [future.result() for future in futures] == [None] * 3


async def test_an_event_is_for_those_who_waited_before_it() -> None:
    waiters = Waiters(asyncio.get_running_loop())
    waiters.wake()
    first = waiters.next_event()
    assert not first.done()
    waiters.wake()
    second = waiters.next_event()
    assert first.done()
    assert not second.done()


async def test_who_is_cancelled_keeps_no_other_from_being_woken() -> None:
    waiters = Waiters(asyncio.get_running_loop())
    cancelled, other = waiters.next_event(), waiters.next_event()
    cancelled.cancel()
    waiters.wake()
    assert cancelled.cancelled()
    assert other.done()


async def test_attempts_that_are_given_up_leave_nothing_behind() -> None:
    waiters = Waiters(asyncio.get_running_loop())
    other = waiters.next_event()
    for _ in range(100):
        waiters.next_event().cancel()
    last = waiters.next_event()
    assert [waiters._first, *waiters._more] == [other, last]


async def test_who_waits_again_when_woken_waits_for_the_next_event() -> None:
    waiters = Waiters(asyncio.get_running_loop())
    events = 0

    async def reader() -> None:
        nonlocal events
        while events < 3:
            await waiters.next_event()
            events += 1

    reading = asyncio.ensure_future(reader())
    for number in range(1, 4):
        await asyncio.sleep(0)
        waiters.wake()
        await asyncio.sleep(0)
        assert events == number
    await reading
