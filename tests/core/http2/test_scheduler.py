from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.http2.scheduler import DEFAULT_PRIORITY, Scheduler, parse_priority


@pytest.mark.parametrize(
    ("value", "priority"),
    [
        (b"", (3, False)),
        *((b"u=%d" % urgency, (urgency, False)) for urgency in range(8)),
        *((b"i", (3, True)), (b"i=?1", (3, True)), (b"i=?0", (3, False))),
        *((b"u=1, i", (1, True)), (b"u=1,i", (1, True)), (b"i, u=1", (1, True)), (b" u=1 ,\ti ", (1, True))),
        *((b"u=1, u=2", (2, False)), (b"i, i=?0", (3, False)), (b"u=1;x=y, i;z", (1, True)), (b"x=1, u=0", (0, False))),
        *(
            (b"u=8", (3, False)),
            (b"u=-1", (3, False)),
            (b"u=1.5", (3, False)),
            (b"u=11", (3, False)),
            (b"u", (3, False)),
        ),
        *(
            (b"U=1", (3, False)),
            (b"i=1", (3, False)),
            (b"\xff", (3, False)),
            (b",,,", (3, False)),
            (b"u=1 i", (3, False)),
        ),
    ],
)
def test_priorities(value: bytes, priority: tuple[int, bool]) -> None:
    assert parse_priority(value) == priority
    assert parse_priority(value) == priority


@given(st.binary(max_size=5000))
def test_any_value_is_a_priority(value: bytes) -> None:
    urgency, incremental = parse_priority(value)
    assert 0 <= urgency <= 7
    assert incremental in {True, False}


class Stream:
    def __init__(self, stream_id: int, urgency: int = 3, incremental: bool = True) -> None:
        self.stream_id = stream_id
        self.urgency = urgency
        self.incremental = incremental


def order(scheduler: Scheduler[Stream], count: int) -> list[int]:
    found = [scheduler.next() for _ in range(count)]
    return [stream.stream_id for stream in found if stream is not None]


def scheduler_of(*streams: Stream) -> Scheduler[Stream]:
    scheduler: Scheduler[Stream] = Scheduler()
    for stream in streams:
        scheduler.add(stream)
    return scheduler


def test_nobody_can_send() -> None:
    scheduler = scheduler_of()
    assert scheduler.next() is None
    assert len(scheduler) == 0


def test_requests_without_a_priority_take_turns() -> None:
    assert DEFAULT_PRIORITY == (3, True)
    assert order(scheduler_of(Stream(1), Stream(3), Stream(5)), 7) == [1, 3, 5, 1, 3, 5, 1]


def test_streams_that_are_not_incremental_are_sent_one_after_the_other() -> None:
    first, second = Stream(3, incremental=False), Stream(1, incremental=False)
    scheduler = scheduler_of(first, second)
    assert order(scheduler, 3) == [1, 1, 1]
    scheduler.remove(second)
    assert order(scheduler, 2) == [3, 3]


def test_they_have_one_turn_beside_the_incremental_ones() -> None:
    scheduler = scheduler_of(Stream(1), Stream(3, incremental=False), Stream(5, incremental=False), Stream(7))
    assert order(scheduler, 6) == [1, 3, 7, 1, 3, 7]


def test_the_lower_urgency_is_first() -> None:
    urgent, usual, background = Stream(5, 0), Stream(3), Stream(1, 7, incremental=False)
    scheduler = scheduler_of(background, usual, urgent)
    assert order(scheduler, 2) == [5, 5]
    scheduler.remove(urgent)
    assert order(scheduler, 2) == [3, 3]
    scheduler.remove(usual)
    assert order(scheduler, 2) == [1, 1]
    scheduler.add(urgent)
    assert order(scheduler, 1) == [5]


def test_a_priority_changes() -> None:
    one, two = Stream(1), Stream(3)
    scheduler = scheduler_of(one, two)
    scheduler.reprioritise(two, 1, False)
    assert order(scheduler, 3) == [3, 3, 3]
    scheduler.remove(one)
    scheduler.reprioritise(one, 0, True)
    assert one not in scheduler
    assert (one.urgency, one.incremental) == (0, True)
    scheduler.add(one)
    assert order(scheduler, 2) == [1, 1]


def test_adding_and_removing_twice() -> None:
    stream = Stream(1)
    scheduler = scheduler_of(stream, stream)
    assert len(scheduler) == 1
    scheduler.remove(stream)
    scheduler.remove(stream)
    assert scheduler.next() is None


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 2), st.booleans(), st.booleans())))
def test_every_stream_that_can_send_gets_its_turn(steps: list[tuple[int, int, bool, bool]]) -> None:
    scheduler: Scheduler[Stream] = Scheduler()
    streams: dict[int, Stream] = {}
    for number, urgency, incremental, adds in steps:
        stream = streams.setdefault(number, Stream(number * 2 + 1, urgency, incremental))
        if adds:
            scheduler.add(stream)
        else:
            scheduler.remove(stream)
        assert (stream in scheduler) == adds
        inside = [stream for stream in streams.values() if stream in scheduler]
        assert len(scheduler) == len(inside)
        if not inside:
            assert scheduler.next() is None
            continue
        lowest = min(stream.urgency for stream in inside)
        chosen = order(scheduler, 2 * len(inside))
        level = [stream for stream in inside if stream.urgency == lowest]
        sequential = [stream.stream_id for stream in level if not stream.incremental]
        expected = {stream.stream_id for stream in level if stream.incremental} | {*sorted(sequential)[:1]}
        assert set(chosen) == expected
        turns = [chosen.count(stream_id) for stream_id in expected]
        assert max(turns) - min(turns) <= 1
