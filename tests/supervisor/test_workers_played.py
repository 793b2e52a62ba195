"""The crew alone: what is said to workers and heard from them, who is late, who is killed, who has ended."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import random
import selectors
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.config import Config
from bridge.supervisor.channel import Channel
from bridge.supervisor.messages import FromWorker, ToWorker
from bridge.supervisor.workers import LEAVING, READY, STARTING, NoProcess, Worker, Workers
from bridge.telemetry.logs import log_file
from tests.supervisor.stage import Player, Stage, a_child_that_ends_by_system_exit, staged


@pytest.fixture
def stage() -> Iterator[Stage]:
    before = signal.signal(signal.SIGCHLD, lambda *_: None)  # as a master has it
    try:
        with staged() as found:
            yield found
    finally:
        signal.signal(signal.SIGCHLD, before)


class Company:
    """A crew with what a master has for it."""

    def __init__(self, stage: Stage, **settings: object) -> None:
        self.stage = stage
        self.config = Config(**settings)  # type: ignore[arg-type]
        self.ended: list[tuple[Worker, int]] = []
        self.selector = selectors.SelectSelector()
        self.workers = Workers(
            self.selector, lambda: self.config, lambda worker, code: self.ended.append((worker, code))
        )

    def start(self, slot: int = 0, *, ready: bool = True) -> tuple[Worker, Player]:
        self.workers.start(slot, 0, never)
        player = self.stage.players[-1]
        if ready:
            player.says("ready", "ASGI")
            self.listen()
        return list(self.workers)[-1], player

    def listen(self) -> int:
        """Hear what there is to be heard; return from how many."""
        keys = self.selector.select(0)
        for key, _ in keys:
            key.data()
        return len(keys)

    def close(self) -> None:
        for worker in self.workers:
            worker.channel.close()
        self.selector.close()


@pytest.fixture
def company(stage: Stage) -> Iterator[Company]:
    found = Company(stage)
    yield found
    found.close()


def never(channel: Channel) -> int:
    raise AssertionError("this is the master")


def test_a_worker_is_starting_until_it_says_that_it_is_ready(company: Company) -> None:
    worker, player = company.start(1, ready=False)
    assert (worker.pid, worker.slot, worker.state, worker.started) == (101, 1, STARTING, 1000.0)
    assert company.workers.starting
    company.stage.now += 2
    player.says("ready", "WSGI, up to 64 threads")
    assert company.listen() == 1
    assert (worker.state, worker.kind, worker.ready, worker.beat) == (READY, "WSGI, up to 64 threads", 1002.0, 1002.0)
    assert not company.workers.starting
    assert company.stage.news() == ["INFO Worker 1 (pid 101) is ready"]
    assert player.heard == []


def test_ready_is_said_once(company: Company) -> None:
    worker, player = company.start()
    company.workers.retire(worker)
    company.stage.now += 5
    player.says("ready", "again")
    company.listen()
    assert (worker.state, worker.kind, worker.ready) == (LEAVING, "ASGI", 1000.0)


def test_the_one_before_is_retired_once_when_its_successor_is_ready(company: Company) -> None:
    old, old_player = company.start(0)
    _, neighbour = company.start(1)
    new, new_player = company.start(0, ready=False)
    assert old_player.heard == []
    new_player.says("ready", "ASGI")
    company.listen()
    assert (old.state, new.state) == (LEAVING, READY)
    assert old_player.heard == ["retire"]
    assert old.kill_at == 1000.0 + 30.0 + 3.0
    company.start(0)
    assert (old_player.heard, new_player.heard, neighbour.heard) == ([], ["retire"], [])


def test_words_for_a_worker_that_is_not_ready_are_kept_until_it_is(company: Company) -> None:
    _, ready = company.start(0)
    _, starting = company.start(1, ready=False)
    company.workers.broadcast(ToWorker.REOPEN)
    assert (ready.heard, starting.heard) == (["reopen"], [])
    starting.says("ready", "ASGI")
    company.listen()
    assert starting.heard == ["reopen"]
    company.workers.broadcast(ToWorker.REOPEN)
    assert (ready.heard, starting.heard) == (["reopen"], ["reopen"])


def test_workers_get_the_log_files_as_they_are_by_then(company: Company, tmp_path: Path) -> None:
    file = log_file("--access-logfile", str(tmp_path / "log"))
    _, player = company.start(ready=False)
    player.line._takes_descriptors = True
    company.workers.broadcast(ToWorker.REOPEN)
    (tmp_path / "log").rename(tmp_path / "log.1")
    file.reopen()
    player.says("ready", "ASGI")
    company.listen()
    assert player.heard == [["reopen", str(tmp_path / "log")]]
    (descriptor,) = player.line.descriptors
    assert os.path.samestat(os.fstat(descriptor), os.stat(tmp_path / "log"))
    os.close(descriptor)
    os.close(file.descriptor)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("finished", "asked"), "INFO Worker 0 (pid 101) has served its time"),
        (("stuck",), "ERROR Worker 0 (pid 101) has no thread left to serve with, and is replaced"),
    ],
)
def test_a_worker_that_asks_for_a_successor(company: Company, words: tuple[str, ...], line: str) -> None:
    worker, player = company.start()
    company.stage.news()  # that it is ready
    assert not worker.finished
    player.says(*words)
    company.listen()
    assert worker.finished
    assert worker.state == READY
    assert company.stage.news() == [line]
    assert player.heard == []


def test_that_a_worker_has_served_its_time_is_told_once(company: Company) -> None:
    worker, player = company.start()
    company.stage.news()  # that it is ready
    for cause in ("requests", "asked", "lifetime"):
        player.says("finished", cause)
        company.listen()
    assert worker.cause == "requests"
    assert company.stage.news() == ["INFO Worker 0 (pid 101) has served its time"]


@pytest.mark.parametrize("cause", ["asked", "requests"])
def test_a_signal_asks_for_no_successor_when_all_end(company: Company, cause: str) -> None:
    worker, player = company.start()
    company.stage.news()  # that it is ready
    company.workers.ending = True
    player.says("finished", cause)
    company.listen()
    assert worker.finished == (cause == "requests")
    assert len(company.stage.news()) == (cause == "requests")


def test_words_that_change_one_thing(company: Company) -> None:
    worker, player = company.start()
    company.stage.news()  # that it is ready
    assert not worker.draining
    player.says("draining")
    player.says("beat")
    player.says("whatever a later version says", 1)
    company.listen()
    assert worker.draining
    assert not worker.finished
    assert (worker.state, worker.code, worker.reason) == (READY, 0, "")
    player.says("failed", 4, "no database", "")
    company.listen()
    assert (worker.code, worker.reason) == (4, "no database")
    assert company.stage.news() == []


LINES = [
    b"",
    b"{",
    b"null",
    b"7",
    b'"ready"',
    b"[]",
    b"[7]",
    b"[[]]",
    b"{}",
    b"[" * 100_000,
    b"\xff\xfe",
    b'["ready"]',
    b'["ready", null]',
    b'["ready", "ASGI", 1]',
    b'["finished"]',
    b'["finished", ["asked"]]',
    b'["finished", "bored"]',
    b'["stuck", 1]',
    b'["checked"]',
    b'["checked", 0, "x"]',
    b'["checked", false]',
    b'["draining", 1]',
    b'["failed"]',
    b'["failed", "4", "no database", ""]',
    b'["failed", 4, 4, ""]',
    b'["failed", 4, "no database"]',
    b'["dumped"]',
    b'["dumped", "1"]',
    b'["dumped", 1e400]',
    b'["dumped", {}]',
    b'["beat", "beat"]',
]


@pytest.mark.parametrize("ready", [True, False], ids=["ready", "starting"])
def test_what_is_no_report_changes_nothing_and_ends_nothing(company: Company, ready: bool) -> None:
    worker, player = company.start(ready=ready)
    before = dataclasses.replace(worker, beat=0.0)
    for line in LINES:
        player.line._sock.sendall(line + b"\n")
        company.listen()
        assert dataclasses.astuple(dataclasses.replace(worker, beat=0.0, channel=None)) == dataclasses.astuple(  # type: ignore[arg-type]
            dataclasses.replace(before, channel=None)  # type: ignore[arg-type]  # it has a socket, which cannot be copied
        ), line
    news = [line for line in company.stage.news() if "that is not a message" in line]
    assert len(news) == 1
    assert worker.channel.garbled == 11
    player.says("ready", "ASGI")
    company.listen()
    assert worker.state == READY


def test_random_reports_end_nothing(company: Company) -> None:
    choose = random.Random(7)
    words = [*FromWorker, "", "later"]
    values = [None, True, 0, -1, 1 << 70, 1.5, "", "asked", "\ud800", [], [1], {}, {"a": 1}]
    for number in range(60):
        _, player = company.start(number, ready=choose.random() < 0.5)
        for _ in range(10):
            line = json.dumps([choose.choice(words), *choose.choices(values, k=choose.randrange(4))]).encode()
            if choose.random() < 0.3:
                place = choose.randrange(len(line))
                line = line[:place] + choose.randbytes(choose.randrange(3)) + line[place + choose.randrange(3) :]
            player.line._sock.sendall(line + b"\n")
            company.listen()
        player.ends(0)
        company.workers.reap()
    assert len(company.ended) == 60


def test_who_sends_without_end_keeps_nobody_from_anything_else(company: Company) -> None:
    _, player = company.start()
    received = []

    class Endless:
        """A line on which there is always more."""

        def recv(self, size: int) -> bytes:
            received.append(size)
            assert len(received) < 1000, "it reads without end"
            return b'["beat"]\n' * 100

        def fileno(self) -> int:
            return player.line.fileno()

    channel = Channel.__new__(Channel)
    vars(channel).update(vars(player.line), _sock=Endless())
    assert len(channel.receive()) == 1600
    assert channel.open


def test_a_message_without_end_is_the_end_of_the_line(company: Company) -> None:
    worker, player = company.start()
    for _ in range(40):
        with contextlib.suppress(OSError):
            player.line._sock.send(b"x" * 65536)
        company.listen()
    assert not worker.channel.open
    assert worker.channel.fileno() == -1  # the worker takes that for the end of the master, and ends
    assert company.selector.get_map() == {}
    assert any("that is not a message" in line for line in company.stage.news())


# --- the end of the time ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("timeout", "killed"), [(None, None), (0.0, 1003.0), (7.0, 1010.0)])
def test_a_stop_says_it_at_once_and_has_an_end(company: Company, timeout: float | None, killed: float | None) -> None:
    worker, player = company.start()
    company.workers.stop(timeout)
    assert player.heard == [["stop", timeout]]
    assert (worker.state, worker.kill_at) == (LEAVING, killed)
    assert company.workers.next_events() == ([] if killed is None else [killed])
    assert company.stage.killed == []


def test_a_stop_for_a_successor_retires(company: Company) -> None:
    worker, player = company.start()
    company.workers.stop(7.0, retiring=True)
    assert player.heard == ["retire"]
    assert (worker.state, worker.kill_at) == (LEAVING, 1010.0)


def test_a_stop_kills_who_serves_nothing_yet_and_tells_it_nothing(company: Company) -> None:
    worker, player = company.start(ready=False)
    company.workers.stop(7.0)
    assert company.stage.killed == [(101, "SIGKILL")]
    assert worker.dismissed
    assert player.line.receive() == []


def test_who_is_leaving_already_becomes_quicker_with_the_stop(company: Company) -> None:
    worker, player = company.start()
    company.workers.retire(worker)
    company.stage.now += 1
    company.workers.stop(7.0)
    assert player.heard == ["retire", ["stop", 7.0]]
    assert worker.kill_at == 1008.0 + 3.0
    company.workers.stop(90.0)
    assert worker.kill_at == 1008.0 + 3.0


def test_who_is_leaving_is_not_told_of_a_successor(company: Company) -> None:
    worker, player = company.start()
    company.workers.retire(worker)
    company.workers.stop(7.0, retiring=True)
    assert player.heard == ["retire"]


def test_a_forced_stop_says_it_to_all_and_ends_soon(company: Company) -> None:
    leaving, first = company.start(0)
    ready, second = company.start(1)
    company.workers.retire(leaving)
    company.workers.force()
    assert (first.heard, second.heard) == (["retire", "force"], ["force"])
    assert (leaving.kill_at, ready.kill_at) == (1003.0, 1003.0)


def test_a_worker_that_does_not_end_is_killed_in_time_and_again(company: Company) -> None:
    worker, _ = company.start()
    _, other = company.start(1)
    company.workers.kill_overdue(1e9)
    assert company.stage.killed == []  # nobody has asked for their end
    company.workers.retire(worker)
    company.workers.kill_overdue(1032.9)
    assert company.stage.killed == []
    company.workers.kill_overdue(1033.0)
    assert company.stage.killed == [(101, "SIGKILL")]
    assert worker.kill_at == 1034.0
    company.workers.kill_overdue(1033.5)
    company.workers.kill_overdue(1034.0)  # it is dead, and waits for being reaped
    assert company.stage.killed == [(101, "SIGKILL")] * 2
    assert other.alive


def test_only_those_that_are_not_ready_are_killed_for_a_change(company: Company) -> None:
    ready, _ = company.start(0)
    starting, _ = company.start(1, ready=False)
    company.workers.kill_starting()
    assert company.stage.killed == [(102, "SIGKILL")]
    assert (ready.dismissed, starting.dismissed) == (False, True)


# --- hearts ----------------------------------------------------------------------------------------------------------


def test_a_worker_that_stands_still_shows_where_and_is_killed_soon(company: Company) -> None:
    worker, player = company.start()
    company.stage.now += 10
    player.says("beat")
    company.listen()
    company.stage.news()  # that it is ready
    assert company.workers.next_events() == [1040.0]
    company.stage.now = 1039.9
    company.workers.check_heartbeats()
    assert (company.stage.killed, worker.state) == ([], READY)
    company.stage.now = 1040.0
    company.workers.check_heartbeats()
    assert company.stage.killed == [(101, "SIGUSR2")]
    assert (worker.state, worker.kill_at, worker.reason) == (LEAVING, 1040.5, "")
    assert company.workers.next_events() == [1040.5]
    assert company.stage.news() == [
        "ERROR Worker 0 (pid 101) has stood still for 30 s and is replaced; this is where it is:"
    ]
    company.stage.now = 1040.4
    company.workers.check_heartbeats()  # it is said once
    company.workers.kill_overdue(company.stage.now)
    assert (company.stage.killed[1:], company.stage.news()) == ([], [])
    company.workers.kill_overdue(1040.5)
    assert company.stage.killed[1:] == [(101, "SIGKILL")]


def test_a_worker_that_does_not_start_is_shown_and_stays_a_starting_one(company: Company) -> None:
    worker, _ = company.start(ready=False)
    assert company.workers.next_events() == [1060.0]
    company.stage.now = 1060.0
    company.workers.check_heartbeats()
    assert company.stage.killed == [(101, "SIGUSR2")]
    assert (worker.state, worker.kill_at) == (STARTING, 1060.5)
    assert worker.reason == "the application took too long to start"
    assert company.stage.news() == [
        "ERROR Worker 0 (pid 101) did not start within 60 s; this is where it is:",
    ]


@pytest.mark.parametrize(
    ("settings", "hurried"),
    [({}, True), ({"reload": True}, False), ({"debug": True}, False), ({"reload": True, "debug": True}, False)],
    ids=str,
)
def test_somebody_at_a_debugger_s_prompt_is_not_hurried(stage: Stage, settings: dict[str, bool], hurried: bool) -> None:
    company = Company(stage, **settings)
    worker, _ = company.start()
    stage.now += 1000
    company.workers.check_heartbeats()
    assert (worker.state, stage.killed) == ((LEAVING, [(101, "SIGUSR2")]) if hurried else (READY, []))
    starting, _ = company.start(1, ready=False)
    stage.now += 1000
    company.workers.check_heartbeats()
    assert stage.killed[-1] == (starting.pid, "SIGUSR2")  # a start is no debugging
    company.close()


@pytest.mark.parametrize("ready", [True, False])
def test_without_a_limit_nobody_is_late(stage: Stage, ready: bool) -> None:
    company = Company(stage, timeout_worker=None, timeout_worker_startup=None)
    company.start(ready=ready)
    assert company.workers.next_events() == []
    stage.now += 1e6
    company.workers.check_heartbeats()
    assert stage.killed == []
    company.close()


def test_who_is_leaving_is_not_late(stage: Stage) -> None:
    company = Company(stage, timeout_graceful_shutdown=None)
    worker, _ = company.start()
    company.workers.retire(worker)
    assert company.workers.next_events() == []
    stage.now += 1e6
    company.workers.check_heartbeats()
    company.workers.kill_overdue(stage.now)
    assert stage.killed == []
    company.close()


def test_nobody_is_blamed_for_a_machine_that_stood_still(company: Company) -> None:
    company.start(0)
    company.start(1, ready=False)
    company.stage.now += 1000
    company.workers.reset_heartbeats()
    company.workers.check_heartbeats()
    assert company.stage.killed == []
    assert company.workers.next_events() == [2030.0, 2060.0]


# --- their end -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 7, -9])
def test_an_end_is_told_once(company: Company, code: int) -> None:
    worker, player = company.start()
    company.workers.reap()  # nobody has ended
    assert company.ended == []
    player.ends(code)
    company.workers.reap()
    assert company.ended == [(worker, code)]
    assert len(company.workers) == 0
    assert company.selector.get_map() == {}
    assert worker.channel.fileno() == -1
    company.workers.reap()
    assert len(company.ended) == 1


def test_all_that_have_ended_are_reaped_in_one_go(company: Company) -> None:
    for slot in range(3):
        company.start(slot)[1].ends(slot)
    company.workers.reap()
    assert [(worker.slot, code) for worker, code in company.ended] == [(0, 0), (1, 1), (2, 2)]


@pytest.mark.parametrize("line_first", [False, True])
def test_the_last_words_of_a_worker_are_heard_whatever_comes_first(company: Company, line_first: bool) -> None:
    worker, player = company.start(ready=False)
    player.says("failed", 4, "no database", "")
    player.ends(4)
    if line_first:
        assert company.listen() == 1
        assert company.ended == []
        assert company.listen() == 0  # its line is closed, and listened to no more
    company.workers.reap()
    assert company.ended == [(worker, 4)]
    assert (worker.code, worker.reason) == (4, "no database")
    assert company.selector.get_map() == {}


@pytest.mark.parametrize("adopted", [True, False])
def test_a_child_that_is_no_worker_is_reaped_if_it_is_the_server_s(company: Company, adopted: bool) -> None:
    _, player = company.start()
    stranger = company.stage.stranger()
    if adopted:
        company.workers.adopt(stranger.pid)
        company.workers.reap()
    stranger.ends(1)
    player.ends(0)
    company.workers.reap()
    company.workers.reap()
    assert stranger.alive is not adopted
    assert [worker.pid for worker, _ in company.ended] == [101]


def test_a_worker_whose_status_somebody_has_taken_has_ended(company: Company) -> None:
    _, player = company.start()
    player.ends(0)
    os.waitpid(player.pid, os.WNOHANG)
    company.workers.reap()
    assert [code for _, code in company.ended] == [1]
    assert len(company.workers) == 0


def test_a_system_without_room_leaves_nothing_behind(company: Company) -> None:
    company.stage.full = 1
    with pytest.raises(NoProcess, match="Resource temporarily unavailable"):
        company.workers.start(0, 0, never)
    assert len(company.workers) == 0
    assert company.selector.get_map() == {}


def test_no_room_for_a_line_is_no_room_for_a_process(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> None:
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(Channel, "pair", staticmethod(full))
    with pytest.raises(NoProcess, match="Too many open files"):
        company.workers.start(0, 0, never)
    assert company.stage.forks == 0


def test_a_child_has_its_own_line_and_nobody_else_s(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    before, player = company.start(0)
    lines: list[Channel] = []

    def serve(channel: Channel) -> int:
        lines.append(channel)
        assert before.channel.fileno() == -1
        channel.send("ready", "ASGI")
        return 5

    company.selector.unregister(before.channel)  # the master's own goes on, which here is the same
    pair = company.stage.line()
    monkeypatch.setattr(Channel, "pair", staticmethod(lambda: pair))
    monkeypatch.setattr("os.fork", lambda: 0)
    with a_child_that_ends_by_system_exit(), pytest.raises(SystemExit) as ended:
        company.workers.start(1, 0, serve)
    assert ended.value.code == 5
    assert lines == [pair[1]]
    assert pair[0].fileno() == -1
    assert len(company.workers) == 1
    assert player.line.receive() == []
    pair[1].close()
