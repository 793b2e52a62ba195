"""What all clients together may make a process hold, and who has to give up."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from bridge.core.connection import clock
from bridge.core.connection.budgets import Budget, Budgets
from tests.support.link import GET, Link, Recorder, ok
from tests.support.manualloop import ManualLoop


@pytest.fixture
def budget(loop: ManualLoop) -> Budget:
    return Budget(loop, "--limit-things", "things", 1000)


class Client:
    """Holds something, and writes down that it gave up."""

    def __init__(self, budget: Budget, *, ends: bool = True) -> None:
        self.budget = budget
        self.ends = ends
        self.given_up = 0
        self.bytes_read = 0

    def hold(self, size: int) -> None:
        self.budget.note(self, size)

    def wait(self, size: int, *, anew: bool = True) -> None:
        self.budget.note_reader(self, size, anew=anew)

    def give_up(self, budget: Budget) -> str:
        assert budget is self.budget
        self.given_up += 1
        if self.ends:
            budget.forget(self)
        return "a client"


def test_the_largest_for_the_longest_gives_up(loop: ManualLoop, budget: Budget) -> None:
    old, large, new = Client(budget), Client(budget), Client(budget)
    old.hold(300)
    loop.advance(10)
    large.hold(500)
    loop.advance(1)
    new.hold(300)
    assert [client.given_up for client in (old, large, new)] == [1, 0, 0]
    assert budget.total == 800


def test_one_that_is_alone_may_have_all(budget: Budget) -> None:
    client = Client(budget)
    client.hold(5000)
    assert (client.given_up, budget.total) == (0, 5000)


def test_who_notes_is_not_called_back_at_once(loop: ManualLoop, budget: Budget) -> None:
    small, large = Client(budget), Client(budget)
    small.hold(10)
    large.hold(1500)
    assert large.given_up == 0
    loop.advance(0.1)
    assert (small.given_up, large.given_up) == (0, 1)


def test_who_is_on_its_way_out_counts_but_is_not_asked_again(loop: ManualLoop, budget: Budget) -> None:
    first, second, third = Client(budget, ends=False), Client(budget), Client(budget)
    first.hold(900)
    second.hold(200)
    third.hold(100)
    assert [client.given_up for client in (first, second, third)] == [1, 0, 0]
    assert budget.total == 1200
    first.hold(300)  # it has given up a part, and may be asked again
    third.hold(600)
    loop.advance(0.1)
    assert sum(client.given_up for client in (first, second, third)) == 2


def test_many_lines_become_one(loop: ManualLoop, budget: Budget, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    for _ in range(2):
        clients = [Client(budget) for _ in range(20)]
        for client in clients:
            client.hold(400)
        for client in clients:
            budget.forget(client)
        loop.advance(11)
    first, second = [record.getMessage() for record in caplog.records]
    assert first.startswith("--limit-things is used up: clients make the server hold more than 1000 bytes of things;")
    assert "ended a client, 400 bytes in 0.0 s" in first
    assert second.endswith("after 17 others")
    assert budget.total == 0


def test_without_a_limit_nobody_gives_up(budget: Budget) -> None:
    budget.limit = None
    clients = [Client(budget) for _ in range(20)]
    for client in clients:
        client.hold(1 << 30)
    assert not any(client.given_up for client in clients)
    assert budget.take(1 << 40)


def test_readers_that_read_stay(loop: ManualLoop, budget: Budget) -> None:
    reads, rests, small = Client(budget), Client(budget), Client(budget)
    for client, size in ((reads, 600), (rests, 500), (small, 50)):
        client.wait(size)
    reads.bytes_read = 240 * 8
    loop.advance(4)
    assert rests.given_up == 0
    loop.advance(3)
    assert [client.given_up for client in (reads, rests, small)] == [0, 1, 0]


def test_readers_that_read_nothing_go_sooner_when_much_more_waits(loop: ManualLoop, budget: Budget) -> None:
    begun, reads, rests = Client(budget), Client(budget), Client(budget)
    for client, size in ((begun, 1500), (reads, 1400), (rests, 1300)):
        client.wait(size)
    begun.bytes_read = 60_000  # and nothing more: its window is shut
    for _ in range(8):
        reads.bytes_read += 1
        loop.advance(0.5)
    assert (begun.given_up, reads.given_up, rests.given_up) == (1, 0, 1)


def test_a_reader_that_waits_anew_has_its_time_again(loop: ManualLoop, budget: Budget) -> None:
    again, rests = Client(budget), Client(budget)
    again.wait(1100)
    for _ in range(4):
        loop.advance(3)
        again.wait(1100)
    assert again.given_up == 0
    rests.wait(100)
    for _ in range(2):
        loop.advance(3)
        again.wait(1100, anew=False)
    assert again.given_up == 1


def test_threads_take_half_at_most(budget: Budget) -> None:
    assert budget.take(500)
    assert not budget.take(1)
    budget.give_back(500)
    budget.keep(800)
    assert not budget.take(300)
    assert budget.take(200)
    budget.give_back(200)
    budget.release(800)
    assert budget.total == 0


def test_threads_count_right(budget: Budget) -> None:
    budget.limit = None
    client = Client(budget)

    def take() -> None:
        for _ in range(2000):
            budget.take(3)
            budget.give_back(3)

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for size in range(2000):
        client.hold(size)
    for thread in threads:
        thread.join()
    budget.forget(client)
    assert budget.total == 0


def test_connections_of_a_loop_share_the_budgets(loop: ManualLoop) -> None:
    assert Budgets.of(loop) is Budgets.of(loop)


# ---------------------------------------------------------------------- connections that hold


def links(loop: ManualLoop, count: int, **hooks: Any) -> list[Link]:
    return [Link(Recorder(**hooks), loop=loop) for _ in range(count)]


HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"x: " + b"y" * 6000 + b"\r\n"


def test_heads_that_do_not_end(loop: ManualLoop) -> None:
    first, second, third = links(loop, 3, on_finish=ok)
    budget = first.clock.budgets.unfinished
    budget.limit = 15_000
    first.send(GET, HEAD)
    loop.advance(1)
    second.send(HEAD)
    assert budget.total == 2 * len(HEAD)
    third.send(HEAD)
    assert [response.status for response in first.responses()] == [200, 503]
    second.send(b"\r\n")
    assert second.response().status == 200
    assert budget.total == len(HEAD)
    third.reset()
    assert budget.total == 0


def test_requests_behind_one_that_is_not_answered(loop: ManualLoop) -> None:
    first, second = links(loop, 2)
    budget = first.clock.budgets.unfinished
    budget.limit = 30_000
    for link in (first, second):
        link.send(GET + GET * (20_000 // len(GET)))
    assert [link.closed for link in (first, second)] == [True, False]
    loop.call(ok, second.told[0])
    second.reset()
    assert budget.total == 0


def test_content_that_the_delegate_does_not_take_is_in_no_budget(loop: ManualLoop) -> None:
    (link,) = links(loop, 1, on_start=lambda told: told.exchange.pause_reading())
    link.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999\r\n\r\n" + bytes(90_000))
    assert link.clock.budgets.unfinished.total == 0


def test_responses_that_are_not_read(loop: ManualLoop, caplog: pytest.LogCaptureFixture) -> None:
    reads, rests = links(loop, 2, on_finish=lambda told: ok(told, bytes(400_000)))
    budget = reads.clock.budgets.unsent
    budget.limit = 700_000
    for link in (reads, rests):
        link.stop_reading()
        link.send(GET)
    assert budget.total > 800_000
    for _ in range(8):
        reads.read(2000)
        loop.advance(1)
    assert [link.closed for link in (reads, rests)] == [False, True]
    assert "--limit-unsent is used up" in caplog.text
    reads.read()
    assert reads.response().content == bytes(400_000)
    assert budget.total == 0


def test_a_reader_is_not_blamed_for_the_time_in_which_the_loop_was_blocked(loop: ManualLoop, budget: Budget) -> None:
    client, other = Client(budget), Client(budget)
    client.wait(500)
    other.wait(700)
    loop.jump(20)
    assert (client.given_up, other.given_up) == (0, 0)
    client.bytes_read = other.bytes_read = 240 * 7
    loop.advance(4)
    assert (client.given_up, other.given_up) == (0, 0)
    loop.advance(5)
    assert other.given_up == 1


def test_what_was_read_long_ago_speaks_for_no_reader(loop: ManualLoop, budget: Budget) -> None:
    stops, reads = Client(budget), Client(budget)
    for client in (stops, reads):
        client.wait(600)
        client.bytes_read = 1_000_000
    loop.advance(31)
    assert (stops.given_up, reads.given_up) == (0, 0)
    for _ in range(7):
        reads.bytes_read += 1000
        loop.advance(1)
    assert (stops.given_up, reads.given_up) == (1, 0)


@pytest.mark.parametrize("length", [100_000, None])
def test_content_behind_a_head_that_was_noted_is_in_no_budget(loop: ManualLoop, length: int | None) -> None:
    (link,) = links(loop, 1)
    framing = b"Transfer-Encoding: chunked" if length is None else b"Content-Length: %d" % length
    content = b"186a0\r\n" + bytes(9000) if length is None else bytes(9000)
    link.send(HEAD.replace(b"GET", b"POST"), framing + b"\r\n\r\n" + content)
    assert link.clock.budgets.unfinished.total == 0
    assert link.told[0].data == bytes(9000)


def test_what_comes_after_the_last_response_is_in_no_budget(loop: ManualLoop) -> None:
    (link,) = links(loop, 1)
    link.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))

    def answer_while_the_loop_is_crowded() -> None:
        link.clock.turns.left = 0
        link.connection.data_received(GET)
        ok(link.told[0])
        link.connection.data_received(bytes(9000))
        assert link.clock.budgets.unfinished.total == 9000

    loop.call(answer_while_the_loop_is_crowded)
    assert not link.closed
    assert link.clock.budgets.unfinished.total == 0
    link.end()


def test_little_is_read_ahead_in_a_crowd(loop: ManualLoop, monkeypatch: pytest.MonkeyPatch) -> None:
    (link,) = links(loop, 1)
    count = 1000
    link.send(GET)
    monkeypatch.setattr(clock, "_CROWD", 0)
    link.send(GET * (8000 // len(GET)))
    assert link.transport.is_reading()
    link.send(GET * (count - 1 - 8000 // len(GET)))
    assert not link.transport.is_reading()
    monkeypatch.setattr(clock, "_CROWD", 128)
    for number in range(count):
        loop.call(ok, link.told[number])
    assert link.transport.is_reading()
    assert len(link.responses()) == count
    link.end()


def test_what_is_held_takes_whole_units(loop: ManualLoop) -> None:
    budget = Budget(loop, "--limit-things", "things", 100_000, unit=4096)
    client: Any = object()
    for size, counted in ((1, 4096), (4096, 4096), (4097, 8192), (0, 0)):
        budget.note(client, size)
        assert budget.total == counted
        budget.keep(size)
        assert budget.total == 2 * counted
        budget.release(size)
        assert budget.total == counted


def test_what_is_gone_late_is_given_up_early(loop: ManualLoop) -> None:
    budget = Budget(loop, "--limit-things", "things", 6400, late=True)
    first, second = Client(budget), Client(budget)
    first.hold(6000)
    second.hold(200)
    assert (first.given_up, second.given_up, budget.over) == (0, 0, False)
    second.hold(201)
    assert (first.given_up, second.given_up) == (1, 0)
    assert budget.total == 201
    budget.limit = None
    first.hold(1 << 40)
    assert not budget.over
