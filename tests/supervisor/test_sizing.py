"""How many workers there should be, and which of them are too large."""

from __future__ import annotations

from bridge.supervisor.sizing import Load, Memory, Size


def run(size: Size, count: int, loads: list[Load], step: float = 1.0, start: float = 0.0) -> list[int]:
    found = []
    for index, load in enumerate(loads):
        count = size.choose(start + index * step, count, load)
        found.append(count)
    return found


BUSY, IDLE = 0.95, 0.05


def test_it_rises_after_two_seconds_by_half_as_many_again() -> None:
    size = Size(2, 8, 60)
    assert run(size, 2, [Load((BUSY, BUSY))] * 3) == [2, 2, 3]
    assert run(size, 4, [Load((BUSY,) * 4)] * 3, start=10) == [4, 4, 6]
    assert run(size, 6, [Load((BUSY,) * 6)] * 3, start=20) == [6, 6, 8]
    assert run(size, 8, [Load((BUSY,) * 8)] * 9, start=30) == [8] * 9


def test_one_that_is_idle_is_enough_not_to_rise() -> None:
    assert run(Size(2, 8, 60), 2, [Load((BUSY, 0.5))] * 9) == [2] * 9


def test_waits_make_it_rise_too() -> None:
    assert run(Size(1, 8, 60), 1, [Load((IDLE,), waited=0.2)] * 3) == [1, 1, 2]
    assert run(Size(1, 8, 60), 1, [Load((IDLE,), queued=5)] * 3) == [1, 1, 2]


def test_it_falls_by_one_for_each_idle_time() -> None:
    size = Size(2, 8, 10)
    assert run(size, 4, [Load((IDLE,) * 4)] * 11)[-1] == 3
    assert run(size, 3, [Load((IDLE,) * 3)] * 11, start=11)[-1] == 2
    assert run(size, 2, [Load((IDLE,) * 2)] * 40, start=30)[-1] == 2


def test_a_load_that_comes_and_goes_does_not_make_it_flap() -> None:
    size = Size(1, 8, 10)
    loads = [Load((BUSY if index % 4 < 2 else IDLE,) * 2) for index in range(100)]
    assert set(run(size, 2, loads)) == {2}


def test_what_one_fewer_could_not_bear_is_no_idle_time() -> None:
    assert run(Size(1, 8, 10), 3, [Load((0.5, 0.5, 0.5))] * 40)[-1] == 3


def test_the_lowest_number_is_restored_and_can_be_moved() -> None:
    size = Size(3, 8, 10)
    assert size.choose(0, 1, Load((IDLE,))) == 3
    size.least = 4
    assert size.choose(1, 3, Load((IDLE,) * 3)) == 4


def test_a_hold_begins_anew() -> None:
    size = Size(1, 8, 10)
    size.choose(0, 1, Load((BUSY,)))
    size.hold()
    assert size.choose(2, 1, Load((BUSY,))) == 1


def test_a_worker_that_grows_is_chosen_after_some_samples() -> None:
    memory = Memory(100, 2)
    assert memory.choose({1: 50, 2: 60}) == []
    assert memory.choose({1: 150, 2: 60}) == []
    assert memory.choose({1: 150, 2: 60}) == [1]


def test_samples_must_be_in_a_row() -> None:
    memory = Memory(100, 2)
    memory.choose({1: 50})
    for size in (150, 90, 150, 90):
        assert memory.choose({1: size}) == []


def test_a_limit_below_what_a_fresh_worker_uses_is_ignored() -> None:
    memory = Memory(100, 1)
    assert memory.choose({1: 150}) == []
    assert memory.ignored
    assert memory.choose({1: 500}) == []
