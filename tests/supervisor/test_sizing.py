"""How many workers there should be, and which of them are too large."""

from __future__ import annotations

from bridge.supervisor.sizing import Load, Memory, Size, Target


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
    memory.began(150)
    assert memory.ignored
    assert memory.choose({1: 500}) == []


def test_a_limit_that_a_worker_has_broken_when_it_is_first_looked_at_holds() -> None:
    memory = Memory(100, 1)
    memory.began(50)
    assert memory.choose({1: 500}) == [1]
    assert not memory.ignored


def test_of_all_that_have_grown_the_largest_is_chosen_when_all_use_too_much() -> None:
    target = Target(200)
    assert target.choose(0, 150, {1: 50, 2: 60, 3: 90}) is None
    assert target.choose(1, 190, {1: 70, 2: 80, 3: 90}) is None
    assert target.choose(2, 240, {1: 70, 2: 80, 3: 90}) == 2
    assert not target.in_vain


def test_nobody_is_replaced_where_a_new_worker_would_be_as_large() -> None:
    target = Target(100)
    for pids in ((1, 2), (1, 3), (1, 3)):
        assert target.choose(0, 150, dict.fromkeys(pids, 60)) is None
        assert target.in_vain
    assert target.choose(1, 250, {1: 60, 3: 160}) == 3
    assert not target.in_vain
    assert target.choose(2, 90, {1: 60, 4: 20}) is None
    assert not target.in_vain


def test_workers_that_grow_to_the_same_size_again_are_replaced_ever_less_often() -> None:
    target, chosen, seen = Target(100), [], set()
    for now in range(3000):
        pid = len(chosen)
        if target.choose(now, 150, {pid: 70 if pid in seen else 50}) is not None:
            chosen.append(now)
        seen.add(pid)
    assert chosen[:5] == [1, 3, 5, 9, 17]
    assert len(chosen) < 15
    assert target.in_vain
    target.choose(3000, 90, {99: 50})
    assert not target.in_vain
    assert target.choose(3001, 150, {99: 100}) == 99
