from __future__ import annotations

import datetime
import email.utils
import gc
import locale
import time
import weakref

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.connection.clock import NEVER, Clock
from bridge.core.http.date import http_date
from tests.support.manualloop import ManualLoop


class Item:
    """Has deadlines; writes down when they have passed."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.deadline = self.write_deadline = NEVER
        self.passed: list[float] = []
        self.rested: list[float] = []
        self.fails = False
        clock.watch(self)

    def deadline_passed(self, now: float) -> None:
        self.passed.append(now)
        self.deadline = self.write_deadline = NEVER
        if self.fails:
            raise ValueError("x")

    def on_idle(self) -> None:
        self.rested.append(self.clock.now)


# ---------------------------------------------------------------------- dates


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, b"Thu, 01 Jan 1970 00:00:00 GMT"),
        (784111777, b"Sun, 06 Nov 1994 08:49:37 GMT"),  # RFC 9110 section 5.6.7
        (951827696, b"Tue, 29 Feb 2000 12:34:56 GMT"),
        (2**31, b"Tue, 19 Jan 2038 03:14:08 GMT"),
        (4102444799.9, b"Thu, 31 Dec 2099 23:59:59 GMT"),
    ],
)
def test_http_date(seconds: float, text: bytes) -> None:
    assert http_date(seconds) == text


@given(st.integers(0, 4102444799))
def test_http_date_is_the_standard_library_s(seconds: int) -> None:
    date = datetime.datetime.fromtimestamp(seconds, datetime.UTC)
    assert http_date(seconds) == email.utils.format_datetime(date, usegmt=True).encode()


def test_http_date_does_not_follow_the_locale() -> None:
    before = locale.setlocale(locale.LC_TIME)
    try:
        for name in ("de_DE.UTF-8", "C.UTF-8", "C"):
            try:
                locale.setlocale(locale.LC_TIME, name)
            except locale.Error:
                continue
            assert http_date(784111777) == b"Sun, 06 Nov 1994 08:49:37 GMT"
    finally:
        locale.setlocale(locale.LC_TIME, before)


def test_the_date_line_follows_the_clock_of_the_system(loop: ManualLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 784111777.2
    monkeypatch.setattr(time, "time", lambda: now)
    clock = Clock(loop, server_name=b"me")
    assert (clock.date_line, clock.default_fields) == (b"", b"server: me\r\n")
    item = Item(clock)
    assert clock.date_line == b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\n"
    assert clock.default_fields == b"date: Sun, 06 Nov 1994 08:49:37 GMT\r\nserver: me\r\n"
    for now in (784111778.0, 784111777.0, 784115377.0, 784108177.0):  # also set back, and by an hour
        loop.advance(0.6)
        assert clock.date_line == b"date: %b\r\n" % http_date(now)
        assert clock.default_fields.startswith(clock.date_line)
    # ... which no deadline does
    assert item.passed == []
    clock.forget(item)


def test_there_may_be_no_date(loop: ManualLoop) -> None:
    clock = Clock(loop, date=False, server_name=b"me")
    item = Item(clock)
    loop.advance(3)
    assert (clock.date_line, clock.default_fields) == (b"", b"server: me\r\n")
    clock.forget(item)
    assert Clock(loop, date=False).default_fields == b""


# ---------------------------------------------------------------------- deadlines


@pytest.mark.parametrize("shortest", [0.02, 0.1, 1.0, 5.0, 60.0])
@pytest.mark.parametrize("seconds", [0.02, 0.1, 1.0, 7.3])
def test_a_deadline_is_never_early_and_at_most_two_intervals_late(
    loop: ManualLoop, shortest: float, seconds: float
) -> None:
    if seconds < shortest:
        return
    interval = min(0.5, max(shortest / 10, 0.005))
    clock = Clock(loop, shortest=shortest)
    item = Item(clock)
    for offset in (0.0, interval / 3, interval * 0.9):
        loop.advance(offset, interval / 3)
        item.passed.clear()
        begin = loop.time()
        item.deadline = clock.after(seconds)
        loop.advance(seconds + 3 * interval, interval / 3)
        (passed,) = item.passed
        assert seconds <= passed - begin <= seconds + 2 * interval + interval / 3 + 1e-6
    clock.forget(item)


def test_no_timeout_is_never(loop: ManualLoop) -> None:
    clock = Clock(loop)
    assert clock.after(None) == NEVER
    item = Item(clock)
    item.deadline = clock.after(None)
    loop.advance(1000, 0.5)
    assert item.passed == []
    clock.forget(item)


def test_a_shorter_timeout_can_come_later(loop: ManualLoop) -> None:
    clock = Clock(loop, shortest=60)
    item = Item(clock)
    for seconds in (None, 0, -1, 100):
        clock.shorten(seconds)  # changes nothing
    clock.shorten(0.1)
    item.deadline = clock.after(0.1)
    loop.advance(0.2, 0.005)
    assert len(item.passed) == 1
    clock.forget(item)


def test_shortening_before_anything_is_watched(loop: ManualLoop) -> None:
    clock = Clock(loop, shortest=60)
    clock.shorten(0.1)
    item = Item(clock)
    item.deadline = clock.after(0.1)
    loop.advance(0.2, 0.005)
    assert len(item.passed) == 1
    clock.forget(item)


def test_the_idle_deadline_is_ready_made(loop: ManualLoop) -> None:
    clock = Clock(loop, keep_alive=5.0)
    item = Item(clock)
    for _ in range(5):
        loop.advance(0.7)
        assert clock.idle_deadline == clock.after(5.0)
    clock.forget(item)
    clock = Clock(loop, keep_alive=None)
    assert clock.idle_deadline == NEVER


def test_one_timer_that_ends_when_nothing_is_left(loop: ManualLoop) -> None:
    clock = Clock(loop)
    assert not loop._scheduled
    items = [Item(clock) for _ in range(50)]
    assert len(loop._scheduled) == 1
    for item in items:
        clock.forget(item)
        clock.forget(item)
    loop.advance(2)
    assert not loop._scheduled
    # ... and begins again
    item = Item(clock)
    item.deadline = clock.after(1)
    loop.advance(3)
    assert len(item.passed) == 1
    clock.forget(item)


def test_stop_and_start_again(loop: ManualLoop) -> None:
    clock = Clock(loop)
    clock.stop()
    item = Item(clock)
    clock.stop()
    clock.stop()
    loop.advance(2)
    assert not loop._scheduled
    other = Item(clock)
    item.deadline = clock.after(1)
    loop.advance(3)
    assert len(item.passed) == 1
    clock.forget(item)
    clock.forget(other)


def test_items_may_come_and_go_while_deadlines_are_kept(loop: ManualLoop) -> None:
    clock = Clock(loop)
    added: list[Item] = []

    class Ending(Item):
        def deadline_passed(self, now: float) -> None:
            super().deadline_passed(now)
            self.clock.forget(self)
            added.append(Item(self.clock))

    items = [Ending(clock) for _ in range(20)]
    for item in items:
        item.deadline = clock.after(1)
    loop.advance(3)
    assert [len(item.passed) for item in items] == [1] * 20
    assert clock.watched == set(added)
    for item in added:
        clock.forget(item)


def test_one_failure_does_not_end_the_deadlines_of_all(loop: ManualLoop, caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock(loop)
    items = [Item(clock) for _ in range(10)]
    for item in items:
        item.fails = True
        item.deadline = clock.after(1)
    loop.advance(3)
    assert [len(item.passed) for item in items] == [1] * 10
    assert caplog.text.count("ValueError: x") == 10
    for item in items:
        item.deadline = clock.after(1)
        item.fails = False
    loop.advance(3)
    assert [len(item.passed) for item in items] == [2] * 10
    for item in items:
        clock.forget(item)


def test_time_in_which_the_loop_was_blocked_is_not_the_peer_s(loop: ManualLoop) -> None:
    clock = Clock(loop)
    before, during, idle = Item(clock), Item(clock), Item(clock)
    before.deadline = before.write_deadline = clock.after(10)
    loop.advance(4)
    # An application computes for half a minute; then everything that has arrived is read before the timer runs.
    loop.call_soon(setattr, loop, "_now", loop.time() + 30)
    loop.turn()
    during.deadline = clock.after(10)
    loop.settle()
    assert before.passed == during.passed == []
    loop.advance(5)
    assert before.passed == during.passed == []
    loop.advance(3)
    assert len(before.passed) == 1
    assert during.passed == []
    loop.advance(6)
    assert len(during.passed) == 1
    assert idle.passed == []
    assert idle.deadline == NEVER
    for item in (before, during, idle):
        clock.forget(item)


def test_a_pause_without_anything_to_watch_is_no_block(loop: ManualLoop) -> None:
    clock = Clock(loop)
    clock.forget(Item(clock))
    loop.advance(2)
    loop.advance(1000, 100)
    item = Item(clock)
    item.deadline = clock.after(1)
    loop.advance(2)
    assert len(item.passed) == 1
    clock.forget(item)


# ---------------------------------------------------------------------- what is idle


def test_what_is_idle_for_an_interval_may_rest(loop: ManualLoop) -> None:
    clock = Clock(loop, keep_alive=5.0)
    idle, busy = Item(clock), Item(clock)
    for offset in (0.0, 0.2, 0.4):
        loop.advance(offset, 0.1)
        idle.rested.clear()
        begin = loop.time()
        idle.deadline = clock.idle_deadline
        busy.deadline = clock.after(7.0)
        loop.advance(4.5, 0.1)
        (rested,) = idle.rested
        assert 0.5 <= rested - begin <= 1.1
    assert busy.rested == idle.passed == []
    clock.forget(idle)
    clock.forget(busy)


def test_what_is_idle_rests_also_when_the_loop_was_blocked(loop: ManualLoop) -> None:
    for before in (0.1, 0.6):  # one time that is shifted once, one that is shifted in the turn in which it counts
        clock = Clock(loop, keep_alive=5.0)
        item = Item(clock)
        loop.advance(0.7, 0.1)
        item.rested.clear()
        item.deadline = clock.idle_deadline
        loop.advance(before, 0.1)
        loop.jump(1234.5678)
        loop.settle()
        loop.advance(1.1, 0.1)
        assert len(item.rested) == 1
        assert item.passed == []
        clock.forget(item)


def test_what_may_be_idle_for_ever_rests(loop: ManualLoop) -> None:
    clock = Clock(loop, keep_alive=None)
    item = Item(clock)
    item.deadline = clock.idle_deadline
    loop.advance(1.1, 0.1)
    assert item.rested
    assert item.passed == []
    clock.forget(item)


def test_nothing_keeps_a_loop_that_has_ended() -> None:
    loop = ManualLoop()
    clock = Clock(loop)
    clock.turns.later(lambda: None, begun=False)
    loop.settle()
    loop.close()
    left = weakref.ref(loop)
    del loop, clock
    gc.collect()
    assert left() is None
