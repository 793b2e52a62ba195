"""The master with played workers: what it does at once, what it does only later, and what it does not do."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from pathlib import Path

import pytest

from bridge.config import Config
from bridge.errors import ConfigError
from bridge.serving.sockets import Listener
from bridge.supervisor import master as master_module
from bridge.supervisor.channel import Channel
from bridge.supervisor.master import Master
from bridge.supervisor.messages import FromProgram
from bridge.supervisor.program import Program
from tests.supervisor.stage import Play, Player, Stage, a_child_that_ends_by_system_exit, descriptors, staged


@pytest.fixture
def stage() -> Iterator[Stage]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGUSR2)}
    with staged() as found:
        yield found
    assert before == {number: signal.getsignal(number) for number in before}


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "a.sock")


@pytest.fixture
def config(path: str) -> Callable[..., Config]:
    """Makes settings; workers are not late unless a test wants that."""

    def make(**values: object) -> Config:
        values = {"target": "shop:app", "uds": path, "workers": 1, "timeout_worker": None, **values}
        return Config(**values)  # type: ignore[arg-type]

    return make


def ready(*players: Player) -> None:
    for player in players:
        player.says("ready", "ASGI")


def end(stage: Stage) -> Play:
    """Stop a master whose workers do what they are told."""
    stage.signal("SIGTERM")
    yield
    for player in stage.players:
        if player.alive:
            player.ends(0)


def later(stage: Stage) -> Play:
    """Let news come, and days go: for what is not to happen."""
    for player in stage.players:
        if player.status is None:
            player.says("beat")
    yield
    yield 1e5


def announced(capfd: pytest.CaptureFixture[str]) -> list[str]:
    return [line for line in capfd.readouterr().err.splitlines() if line.startswith("bridge: ")]


# --- the program that has started the master -------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["own", "passed"])
def test_a_terminals_signal_counts_once_although_it_comes_on_two_ways(
    stage: Stage, config: Callable[..., Config], first: str
) -> None:
    program, line = map(Channel, socket.socketpair())
    master = Master(config())
    master.program = Program(line)
    ways = {"own": lambda: stage.signal("SIGINT"), "passed": lambda: program.send(FromProgram.SIGNAL, "SIGINT")}
    second = "passed" if first == "own" else "own"

    def play() -> Play:
        (worker,) = stage.players
        ready(worker)
        yield
        stage.news()
        for way in (first, second):
            ways[way]()
            yield
        assert (worker.heard, stage.news()) == ([["stop", 5.0]], ["INFO Stopping on SIGINT"])
        ways[first]()
        yield
        assert (worker.heard, stage.news()) == (["force"], ["WARNING Stopping at once on SIGINT"])
        worker.ends(0)

    assert stage.run(master, play()) == 0
    program.close()


def test_the_signals_and_the_end_of_the_program(stage: Stage, config: Callable[..., Config]) -> None:
    program, line = map(Channel, socket.socketpair())
    master = Master(config())
    master.program = Program(line)

    def play() -> Play:
        ready(*stage.players)
        yield
        stage.news()
        program.send(FromProgram.SIGNAL, "SIGTTIN")
        yield
        assert stage.news() == ["INFO 2 workers from now on (SIGTTIN)"]
        assert len(stage.players) == 2
        ready(stage.players[1])
        yield
        stage.news()
        program.close()
        yield
        assert stage.news() == [
            "INFO The program that has started the server has ended",
            "INFO Stopping on SIGTERM",
        ]
        for player in stage.players:
            player.ends(0)

    assert stage.run(master, play()) == 0


# --- start -----------------------------------------------------------------------------------------------------------


def test_all_start_at_once_and_it_is_said_once_when_all_are_ready(
    stage: Stage, config: Callable[..., Config], path: str, capfd: pytest.CaptureFixture[str]
) -> None:
    master = Master(config(workers=3))
    calls: list[str] = []
    master.on_ready = lambda: calls.append("ready")

    def play() -> Play:
        assert [player.pid for player in stage.players] == [101, 102, 103]
        ready(stage.players[0], stage.players[2])
        yield 50.0
        assert (calls, announced(capfd)) == ([], [])
        ready(stage.players[1])
        yield
        assert calls == ["ready"]
        assert announced(capfd) == [f"bridge: serving shop:app (3 workers, ASGI) on unix:{path}"]
        assert stage.news() == [
            f"INFO Worker {slot} (pid {pid}) is ready" for slot, pid in ((0, 101), (2, 103), (1, 102))
        ]
        yield from later(stage)
        assert (calls, announced(capfd), stage.news()) == (["ready"], [], [])
        assert stage.forks == 3
        assert [player.heard for player in stage.players] == [[], [], []]
        yield from end(stage)

    assert stage.run(master, play()) == 0
    assert stage.killed == []
    assert not os.path.exists(path)


@pytest.mark.parametrize("workers", [None, 1])
def test_one_worker_is_said_in_the_singular(
    stage: Stage, config: Callable[..., Config], capfd: pytest.CaptureFixture[str], workers: int | None
) -> None:
    def play() -> Play:
        ready(*stage.players)
        yield
        assert "(1 worker, ASGI)" in announced(capfd)[0]
        yield from end(stage)

    assert stage.run(Master(config(workers=workers)), play()) == 0
    assert stage.forks == 1


@pytest.mark.parametrize(
    ("words", "code", "status", "line"),
    [
        ((), 7, 3, "bridge: worker 0 ended with status 7 before it could serve"),
        ((), -6, 3, "bridge: worker 0 was killed by SIGABRT before it could serve"),
        ((), -40, 3, "bridge: worker 0 was killed by signal 40 before it could serve"),
        (("failed", 4, "shop:app: no database", ""), 4, 4, "bridge: shop:app: no database"),
    ],
)
def test_a_start_that_fails_ends_all_at_once(
    stage: Stage,
    config: Callable[..., Config],
    path: str,
    capfd: pytest.CaptureFixture[str],
    words: tuple[object, ...],
    code: int,
    status: int,
    line: str,
) -> None:
    def play() -> Play:
        first, second, _ = stage.players
        ready(second)
        yield
        if words:
            first.says(*words)  # type: ignore[arg-type]
        first.ends(code)
        yield
        assert stage.killed == [(103, "SIGKILL")]
        assert second.heard == [["stop", 0.0], "force"]
        assert announced(capfd) == [line]
        second.ends(0)

    assert stage.run(Master(config(workers=3)), play()) == status
    assert announced(capfd) == []
    assert stage.forks == 3
    assert not os.path.exists(path)


def test_a_start_that_takes_too_long_is_shown_and_ends(
    stage: Stage, config: Callable[..., Config], capfd: pytest.CaptureFixture[str]
) -> None:
    def play() -> Play:
        yield 59.5
        assert stage.killed == []
        yield 0.5
        assert stage.killed == [(101, "SIGUSR2")]
        yield 0.25
        assert stage.killed == [(101, "SIGUSR2")]
        yield 0.25

    assert stage.run(Master(config()), play()) == 3
    assert stage.killed == [(101, "SIGUSR2"), (101, "SIGKILL")]
    assert announced(capfd) == ["bridge: the application took too long to start"]


def test_a_system_without_room_is_asked_again_twice_a_second(stage: Stage, config: Callable[..., Config]) -> None:
    stage.full = 8

    def play() -> Play:
        assert stage.forks == 1
        for seconds in (0.5,) * 7:
            tries = stage.forks
            yield seconds - 0.25
            assert stage.forks == tries
            yield 0.25
            assert stage.forks == tries + 1
        yield 0.5
        assert len(stage.players) == 1
        lines = stage.news()
        assert len(lines) == 8
        assert lines[0] == (
            "ERROR Worker 0 cannot be started: [Errno 11] Resource temporarily unavailable; next try in 0.5 s"
        )
        ready(*stage.players)
        yield
        yield from end(stage)

    assert stage.run(Master(config()), play()) == 0


# --- workers that end ------------------------------------------------------------------------------------------------


def test_once_is_no_reason_to_wait_and_often_is(stage: Stage, config: Callable[..., Config]) -> None:
    def play() -> Play:
        ready(*stage.players)
        yield from later(stage)
        stage.news()
        stage.players[0].ends(7)
        yield
        assert len(stage.players) == 3  # at once
        assert stage.news() == ["ERROR Worker 0 (pid 101): ended with status 7"]
        for number, seconds in enumerate((0.125, 0.25, 0.5, 1, 2, 4, 8, 16, 30, 30), 3):
            ready(stage.players[-1])
            yield
            stage.news()
            stage.players[-1].ends(-9)
            yield seconds * 0.75
            assert stage.news() == [
                f"ERROR Worker 0 (pid {100 + number}): was killed by SIGKILL",
                f"WARNING Worker 0 starts again in {seconds} s",
            ]
            assert len(stage.players) == number
            yield seconds * 0.25
            assert len(stage.players) == number + 1
        ready(stage.players[-1])
        yield from end(stage)

    assert stage.run(Master(config(workers=2)), play()) == 0


def test_nobody_waits_for_long_while_nobody_serves(stage: Stage, config: Callable[..., Config]) -> None:
    def play() -> Play:
        ready(*stage.players)
        yield
        stage.players[0].ends(7)
        yield
        for number in range(3, 11):  # one place fails again and again, and the other one serves
            ready(stage.players[-1])
            yield
            stage.players[-1].ends(7)
            yield 30.0
            assert len(stage.players) == number + 1
        ready(stage.players[-1])
        yield
        stage.players[-1].ends(7)
        yield 5.0
        assert len(stage.players) == 11
        stage.players[1].ends(7)  # it has lived for long, and is replaced at once; now nobody serves
        yield
        assert len(stage.players) == 13
        ready(*stage.players[11:])
        yield from end(stage)

    assert stage.run(Master(config(workers=2)), play()) == 0


@pytest.mark.parametrize(("seconds", "waits"), [(0.25, True), (0.5, False)])
def test_a_long_life_makes_up_for_failures(
    stage: Stage, config: Callable[..., Config], seconds: float, waits: bool
) -> None:
    def play() -> Play:
        ready(*stage.players)
        yield
        stage.players[0].ends(7)
        yield
        ready(stage.players[1])
        yield seconds
        stage.players[1].ends(7)
        yield
        assert len(stage.players) == (2 if waits else 3)
        yield 1.0
        assert len(stage.players) == 3
        ready(stage.players[2])
        yield
        yield from end(stage)

    assert stage.run(Master(config()), play()) == 0


def test_the_others_are_not_touched(stage: Stage, config: Callable[..., Config]) -> None:
    def play() -> Play:
        ready(*stage.players)
        yield
        stage.players[1].ends(7)
        yield
        ready(stage.players[3])
        yield from later(stage)
        assert [player.heard for player in stage.players if player.alive] == [[], [], []]
        assert (stage.forks, stage.killed) == (4, [])
        yield from end(stage)

    assert stage.run(Master(config(workers=3)), play()) == 0


@pytest.mark.parametrize("words", [("finished", "asked"), ("stuck",)])
def test_a_worker_that_asks_for_it_is_replaced_and_serves_until_then(
    stage: Stage, config: Callable[..., Config], words: tuple[str, ...]
) -> None:
    def play() -> Play:
        old, other = stage.players
        ready(old, other)
        yield
        old.says(*words)
        yield
        assert stage.forks == 3
        yield 5.0
        assert (stage.forks, old.heard) == (3, [])
        ready(stage.players[2])
        yield
        assert (old.heard, other.heard, stage.players[2].heard) == (["retire"], [], [])
        stage.news()
        old.ends(0)
        yield from later(stage)
        assert stage.news() == ["INFO Worker 0 (pid 101) ended with status 0"]
        assert stage.forks == 3
        yield from end(stage)

    assert stage.run(Master(config(workers=2)), play()) == 0


@pytest.mark.parametrize("delay", [None, 5.0])
def test_a_signal_to_all_processes_is_no_wish_for_successors(
    stage: Stage, config: Callable[..., Config], delay: float | None
) -> None:
    def play() -> Play:
        ready(*stage.players)
        yield
        stage.news()
        stage.players[0].says("finished", "asked")  # it is heard in the same turn as the signal
        stage.signal("SIGTERM")
        yield
        stage.players[1].says("finished", "asked")
        yield
        assert stage.forks == 2
        if delay is not None:
            yield delay
        assert [player.heard for player in stage.players] == [
            [["drain", delay, True]] * bool(delay) + [["stop", 30]]
        ] * 2
        assert not any("served its time" in line for line in stage.news())
        for player in stage.players:
            player.ends(0)

    assert stage.run(Master(config(workers=2, drain_delay=delay, timeout_graceful_shutdown=30)), play()) == 0


def test_a_successor_that_does_not_start_is_tried_again_later(stage: Stage, config: Callable[..., Config]) -> None:
    def play() -> Play:
        old = stage.players[0]
        ready(old)
        yield
        old.says("finished", "asked")
        yield
        stage.news()
        stage.players[1].says("failed", 3, "no module", "")
        stage.players[1].ends(3)
        yield 0.25
        assert stage.news() == ["ERROR Worker 0 (pid 102): no module", "WARNING Worker 0 starts again in 0.5 s"]
        assert stage.forks == 2
        yield 0.25
        assert (stage.forks, old.heard) == (3, [])
        stage.players[2].ends(3)
        yield 1.0
        assert (stage.forks, old.heard) == (4, [])
        ready(stage.players[3])
        yield
        assert old.heard == ["retire"]
        yield from end(stage)

    assert stage.run(Master(config()), play()) == 0


def test_all_may_be_finished_at_once(stage: Stage, config: Callable[..., Config]) -> None:
    def play() -> Play:
        ready(*stage.players)
        yield
        for player in stage.players:
            player.says("finished", "asked")
        yield
        assert stage.forks == 4  # the successors start together: those before serve on
        yield from end(stage)

    assert stage.run(Master(config(workers=2)), play()) == 0


def test_a_worker_that_does_not_leave_is_killed(stage: Stage, config: Callable[..., Config]) -> None:
    def play() -> Play:
        ready(*stage.players)
        yield
        stage.players[0].says("finished", "asked")
        yield
        ready(stage.players[1])
        yield 9.75
        assert stage.killed == []
        yield 0.25
        assert stage.killed == [(101, "SIGKILL")]
        yield
        assert stage.news()[-1] == "WARNING Worker 0 (pid 101) was killed by SIGKILL"
        assert stage.forks == 2
        yield from end(stage)

    assert stage.run(Master(config(timeout_graceful_shutdown=7.0)), play()) == 0


def test_a_worker_that_stands_still_frees_its_place_at_once(stage: Stage, config: Callable[..., Config]) -> None:
    def play() -> Play:
        ready(*stage.players)
        yield 1.75
        assert stage.killed == []
        yield 0.25
        assert stage.killed == [(101, "SIGUSR2")]
        assert len(stage.players) == 2  # before the other one has gone
        yield 0.5
        assert stage.killed == [(101, "SIGUSR2"), (101, "SIGKILL")]
        yield
        assert stage.news()[1:] == [
            "ERROR Worker 0 (pid 101) has stood still for 2 s and is replaced; this is where it is:",
            "WARNING Worker 0 (pid 101) was killed by SIGKILL",
        ]
        ready(stage.players[1])
        yield
        yield from end(stage)

    assert stage.run(Master(config(timeout_worker=2.0)), play()) == 0
    assert stage.forks == 2


@pytest.mark.parametrize(("seconds", "blamed"), [(3.25, False), (2.75, True)])
def test_nobody_is_blamed_when_the_master_stood_still_itself(
    stage: Stage, config: Callable[..., Config], seconds: float, blamed: bool
) -> None:
    """More than a second longer than it wanted to wait."""

    def play() -> Play:
        ready(*stage.players)
        yield
        stage.now += seconds  # and it wanted to wait for two
        yield
        assert bool(stage.killed) == blamed
        yield 1.0
        assert bool(stage.killed) == blamed
        if not blamed:
            yield 1.0
            assert stage.killed == [(101, "SIGUSR2")]
        yield from end(stage)

    assert stage.run(Master(config(timeout_worker=2.0)), play()) == 0


# --- stopping --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "settings", "timeout"),
    [
        ("SIGTERM", {}, 30.0),
        ("SIGTERM", {"timeout_graceful_shutdown": 2.0}, 2.0),
        ("SIGTERM", {"timeout_graceful_shutdown": None}, None),
        ("SIGINT", {}, 5.0),
        ("SIGINT", {"timeout_graceful_shutdown": 2.0}, 2.0),
        ("SIGINT", {"timeout_graceful_shutdown": None}, 5.0),
    ],
    ids=str,
)
def test_a_stop_is_said_at_once_and_waits(
    stage: Stage, config: Callable[..., Config], path: str, name: str, settings: dict[str, float], timeout: float | None
) -> None:
    def play() -> Play:
        ready(*stage.players)
        yield
        stage.news()
        stage.signal(name)
        yield
        assert [player.heard for player in stage.players] == [[["stop", timeout]]] * 2
        assert stage.news() == [f"INFO Stopping on {name}"]
        stage.players[0].ends(0)
        if timeout is None:
            yield from later(stage)
            assert stage.killed == []
            stage.players[1].ends(0)
        else:
            yield timeout + 2.75
            assert stage.killed == []
            assert os.path.exists(path)  # the queue is served to the end
            yield 0.25

    assert stage.run(Master(config(workers=2, **settings)), play()) == 0
    assert stage.killed == ([] if timeout is None else [(102, "SIGKILL")])
    assert stage.news()[0] == "INFO Worker 0 (pid 101) ended with status 0"
    assert stage.forks == 2


def test_nobody_new_is_let_in_when_a_stop_has_begun(stage: Stage, config: Callable[..., Config], path: str) -> None:
    def play() -> Play:
        ready(*stage.players)
        yield
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
        yield from end(stage)
        with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
            client.connect(path)  # the played workers hold no copies

    assert stage.run(Master(config()), play()) == 0


def test_quit_cuts_at_once(stage: Stage, config: Callable[..., Config]) -> None:
    def play() -> Play:
        ready(*stage.players)
        yield
        stage.news()
        stage.signal("SIGQUIT")
        yield
        assert stage.players[0].heard == [["stop", 0.0], "force"]
        stage.signal("SIGTERM")  # more than that cannot be
        yield 2.75
        assert (stage.players[0].heard, stage.killed) == ([], [])
        assert stage.news() == ["INFO Stopping on SIGQUIT"]
        yield 0.25
        assert stage.killed == [(101, "SIGKILL")]

    assert stage.run(Master(config()), play()) == 0


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGQUIT"])
def test_the_second_signal_cuts_at_once_and_the_third_does_nothing(
    stage: Stage, config: Callable[..., Config], name: str
) -> None:
    def play() -> Play:
        ready(*stage.players)
        yield
        stage.signal("SIGTERM")
        yield 20.0
        stage.news()
        assert stage.players[0].heard == [["stop", 30.0]]
        stage.signal(name)
        yield
        assert stage.players[0].heard == ["force"]
        assert stage.news() == [f"WARNING Stopping at once on {name}"]
        yield 2.0
        stage.signal(name)
        yield
        assert (stage.players[0].heard, stage.news()) == ([], [])
        yield 1.0
        assert stage.killed == [(101, "SIGKILL")]

    assert stage.run(Master(config()), play()) == 0


def test_a_stop_during_the_start_kills_and_does_not_wait(stage: Stage, config: Callable[..., Config]) -> None:
    before = stage.now

    def play() -> Play:
        stage.signal("SIGTERM")
        yield

    assert stage.run(Master(config(workers=3)), play()) == 0
    assert stage.killed == [(101, "SIGKILL"), (102, "SIGKILL"), (103, "SIGKILL")]
    assert stage.now == before
    assert [line[:4] for line in stage.news()] == ["INFO"] * 4


def test_nothing_starts_after_a_stop(stage: Stage, config: Callable[..., Config]) -> None:
    def play() -> Play:
        ready(*stage.players)
        yield
        stage.players[0].says("finished", "asked")
        for name in ("SIGTERM", "SIGHUP", "SIGTTIN", "SIGTTOU", "SIGUSR1", "SIGUSR2"):
            stage.signal(name)
        yield
        for player in stage.players:
            assert player.heard[:1] == [["stop", 30.0]]
        news = stage.news()
        assert "INFO Stopping on SIGTERM" in news
        assert not [line for line in news if "Reload" in line or "from now on" in line]
        ignored = [
            f"WARNING {name}: not while the server stops" for name in ("SIGHUP", "SIGTTIN", "SIGTTOU", "SIGUSR2")
        ]
        assert [line for line in news if "not while" in line] == ignored
        assert "INFO Log files reopened on SIGUSR1" in news  # the last requests are logged, too
        stage.players[0].ends(7)
        yield
        assert stage.news() == ["WARNING Worker 0 (pid 101) ended with status 7"]
        for player in stage.players[1:]:
            player.ends(0)

    assert stage.run(Master(config(workers=2)), play()) == 0
    assert stage.forks <= 3


# --- reload ----------------------------------------------------------------------------------------------------------


def test_a_reload_goes_from_worker_to_worker(stage: Stage, config: Callable[..., Config]) -> None:
    def play() -> Play:
        one, two = stage.players
        ready(one, two)
        yield
        stage.news()
        stage.signal("SIGHUP")
        yield 5.0
        assert stage.forks == 3  # one of them, not both
        assert (one.heard, two.heard) == ([], [])
        ready(stage.players[2])
        yield
        assert (one.heard, two.heard) == (["retire"], [])
        assert stage.forks == 4
        ready(stage.players[3])
        yield 5.0
        assert (one.heard, two.heard) == ([], ["retire"])
        assert not [line for line in stage.news() if "Reloaded" in line]  # the old ones still accept connections
        one.says("draining")
        yield
        assert stage.news() == []
        two.ends(0)
        yield
        assert stage.news() == ["INFO Worker 1 (pid 102) ended with status 0", "INFO Reloaded: 2 workers"]
        one.ends(0)
        yield from later(stage)
        assert stage.news() == ["INFO Worker 0 (pid 101) ended with status 0"]
        assert stage.forks == 4
        assert [player.heard for player in stage.players[2:]] == [[], []]
        yield from end(stage)

    assert stage.run(Master(config(workers=2)), play()) == 0
    assert stage.killed == []


def test_what_is_asked_during_a_reload_is_one_more(stage: Stage, config: Callable[..., Config]) -> None:
    reads: list[int] = []

    def read() -> Config:
        reads.append(len(stage.players))
        return config()

    def play() -> Play:
        ready(*stage.players)
        yield
        stage.signal("SIGHUP")
        yield
        for _ in range(3):
            stage.signal("SIGHUP")
            yield
        assert (stage.forks, reads) == (2, [1])
        ready(stage.players[1])
        yield
        assert (stage.forks, reads) == (2, [1])
        stage.players[0].ends(0)
        yield
        stage.players[1].says("beat")  # with the next news at the latest
        yield
        assert (stage.forks, reads) == (3, [1, 2])
        ready(stage.players[2])
        yield
        stage.players[1].ends(0)
        yield from later(stage)
        assert (stage.forks, reads) == (3, [1, 2])
        yield from end(stage)

    assert stage.run(Master(config(), read_config=read), play()) == 0
    assert [line for line in stage.news() if "Reloaded" in line] == ["INFO Reloaded: 1 worker"] * 2


def test_a_reload_waits_for_the_end_of_a_start(stage: Stage, config: Callable[..., Config]) -> None:
    reads: list[int] = []

    def read() -> Config:
        reads.append(stage.forks)
        return config(workers=2)

    def play() -> Play:
        one, two = stage.players
        ready(one)
        yield
        stage.signal("SIGHUP")
        yield 5.0
        assert (stage.forks, one.heard, reads) == (2, [], [])
        ready(two)
        yield
        assert (stage.forks, reads) == (3, [2])
        yield from end(stage)

    assert stage.run(Master(config(workers=2), read_config=read), play()) == 0


def test_settings_that_cannot_be_used_change_nothing(stage: Stage, config: Callable[..., Config]) -> None:
    def read() -> Config:
        raise ConfigError("bridge.toml: prot: there is no such setting")

    def play() -> Play:
        ready(*stage.players)
        yield
        stage.news()
        stage.signal("SIGHUP")
        yield from later(stage)
        assert stage.news() == [
            "INFO Reloading on SIGHUP",
            "ERROR Reload failed, the old workers go on: bridge.toml: prot: there is no such setting",
        ]
        assert (stage.forks, stage.players[0].heard) == (1, [])
        yield from end(stage)

    assert stage.run(Master(config(), read_config=read), play()) == 0


def test_a_reload_that_fails_half_way_brings_the_old_code_back(
    stage: Stage, config: Callable[..., Config], path: str, tmp_path: Path
) -> None:
    new = str(tmp_path / "new.sock")

    def play() -> Play:
        one, two = stage.players
        ready(one, two)
        yield
        stage.signal("SIGHUP")
        yield
        assert os.path.exists(new)
        ready(stage.players[2])
        yield
        assert one.heard == ["retire"]
        stage.news()
        stage.players[3].says("failed", 3, "no module", "")
        stage.players[3].ends(3)
        yield
        assert stage.news() == ["ERROR Reload failed, the old workers go on: no module"]
        assert not os.path.exists(new)
        assert stage.forks == 5  # the one that had taken over is replaced once more
        assert (stage.players[2].heard, two.heard) == ([], [])
        ready(stage.players[4])
        yield
        assert (stage.players[2].heard, two.heard, stage.players[4].heard) == (["retire"], [], [])
        one.ends(0)
        stage.players[2].ends(0)
        yield from later(stage)
        assert not [line for line in stage.news() if "Reload" in line]
        assert stage.forks == 5
        assert os.path.exists(path)
        yield from end(stage)

    read = lambda: config(workers=2, uds=None, bind=config(uds=path).addresses + config(uds=new).addresses)  # noqa: E731
    assert stage.run(Master(config(workers=2), read_config=read), play()) == 0


def test_a_reload_may_follow_one_that_has_failed(stage: Stage, config: Callable[..., Config]) -> None:
    def play() -> Play:
        ready(*stage.players)
        yield
        stage.signal("SIGHUP")
        yield
        stage.players[1].ends(3)
        yield from later(stage)
        assert stage.forks == 2
        stage.signal("SIGHUP")
        yield
        assert stage.forks == 3
        ready(stage.players[2])
        stage.news()
        yield
        assert stage.players[0].heard == ["retire"]
        stage.players[0].ends(0)
        yield
        assert stage.news()[-1] == "INFO Reloaded: 1 worker"
        yield from end(stage)

    assert stage.run(Master(config()), play()) == 0


def test_a_reload_takes_sockets_and_their_number_from_the_settings(
    stage: Stage, config: Callable[..., Config], path: str, tmp_path: Path
) -> None:
    new = str(tmp_path / "new.sock")

    def play() -> Play:
        ready(*stage.players)
        yield
        stage.signal("SIGHUP")
        yield
        assert os.path.exists(path)
        assert os.path.exists(new)
        ready(*stage.players[1:])
        yield
        ready(*stage.players[1:])
        yield
        stage.players[0].says("draining")
        yield
        assert not os.path.exists(path)
        assert os.path.exists(new)
        assert stage.news()[-1] == "INFO Reloaded: 2 workers"
        assert stage.forks == 3
        yield from end(stage)

    assert stage.run(Master(config(), read_config=lambda: config(workers=2, uds=new)), play()) == 0
    assert not os.path.exists(new)


def test_a_change_of_their_number_by_hand_outlives_a_reload(stage: Stage, config: Callable[..., Config]) -> None:
    def play() -> Play:
        ready(*stage.players)
        stage.signal("SIGTTIN")
        yield
        ready(stage.players[1])
        yield
        stage.signal("SIGHUP")
        yield
        ready(stage.players[2])
        yield
        ready(stage.players[3])
        yield
        for player in stage.players[:2]:
            player.ends(0)
        yield
        assert stage.news()[-1] == "INFO Reloaded: 2 workers"
        yield from end(stage)

    assert stage.run(Master(config(), read_config=config), play()) == 0


# --- files that change -----------------------------------------------------------------------------------------------


def test_a_change_is_a_reload_and_makes_up_for_failures(stage: Stage, config: Callable[..., Config]) -> None:
    master = Master(config(reload=True))
    master.watch, files = stage.line()

    def play() -> Play:
        ready(*stage.players)
        yield
        for _ in range(2):
            stage.players[-1].ends(7)
            yield
            if stage.forks == 2:
                ready(stage.players[-1])
                yield
        assert stage.news()[-1] == "WARNING Worker 0 starts again in 0.05 s"
        files.send("changed", "a.py", "b.py", "c.py")
        files.send("changed", "d.py", "e.py", "f.py")
        yield
        assert stage.news() == ["INFO Reloading: a.py, b.py, c.py, d.py, e.py changed"]
        assert stage.forks == 3  # at once
        ready(stage.players[2])
        yield
        assert stage.news()[-1] == "INFO Reloaded: 1 worker"
        stage.players[2].ends(7)
        yield
        assert stage.forks == 4  # at once: it is the first failure
        ready(stage.players[3])
        yield from later(stage)
        assert stage.forks == 4
        yield from end(stage)

    assert stage.run(master, play()) == 0
    files.close()


def test_a_broken_application_waits_for_a_change(
    stage: Stage, config: Callable[..., Config], capfd: pytest.CaptureFixture[str]
) -> None:
    master = Master(config(reload=True))
    master.watch, files = stage.line()

    def play() -> Play:
        stage.players[0].says("failed", 3, "no module", "")
        stage.players[0].ends(3)
        yield from later(stage)
        assert stage.forks == 1
        assert stage.news() == ["ERROR Worker 0 (pid 101): no module"]
        files.send("changed", "a.py")
        yield
        assert stage.forks == 2
        ready(stage.players[1])
        yield
        assert len(announced(capfd)) == 1
        yield from later(stage)
        assert stage.forks == 2  # the start was the reload
        yield from end(stage)

    assert stage.run(master, play()) == 0
    files.close()


def test_a_change_ends_a_start_that_hangs(stage: Stage, config: Callable[..., Config]) -> None:
    reads: list[int] = []

    def read() -> Config:
        reads.append(stage.forks)
        return config(reload=True)

    master = Master(config(reload=True), read_config=read)
    master.watch, files = stage.line()

    def play() -> Play:
        files.send("changed", "a.py")
        yield
        assert stage.killed == [(101, "SIGKILL")]
        assert stage.forks == 2
        ready(stage.players[1])
        yield
        files.send("changed", "a.py")
        yield
        assert stage.forks == 3
        files.send("changed", "b.py")
        yield
        assert stage.killed[1:] == [(103, "SIGKILL")]
        assert (stage.forks, reads) == (4, [2, 3])  # for the start there was nothing to be read anew
        ready(stage.players[3])
        yield
        assert stage.players[1].heard == ["retire"]
        stage.players[1].ends(0)
        yield from later(stage)
        assert (stage.forks, reads) == (4, [2, 3])
        assert stage.news()[-1] == "INFO Reloaded: 1 worker"
        yield from end(stage)

    assert stage.run(master, play()) == 0
    files.close()


def test_the_end_of_the_watching_is_said_once(stage: Stage, config: Callable[..., Config]) -> None:
    master = Master(config(reload=True))
    master.watch, files = stage.line()

    def play() -> Play:
        ready(*stage.players)
        yield
        stage.news()
        files.close()
        yield from later(stage)
        assert [line[:60] for line in stage.news()] == ["ERROR --reload: the process that watches the files has ended"]
        assert (stage.forks, stage.players[0].heard) == (1, [])
        yield from end(stage)

    assert stage.run(master, play()) == 0


def test_a_change_during_a_stop_starts_nothing(stage: Stage, config: Callable[..., Config]) -> None:
    master = Master(config(reload=True))
    master.watch, files = stage.line()

    def play() -> Play:
        ready(*stage.players)
        yield
        stage.signal("SIGTERM")
        yield
        stage.news()
        files.send("changed", "a.py")
        yield 1.0
        assert (stage.forks, stage.news()) == (1, [])
        stage.players[0].ends(0)

    assert stage.run(master, play()) == 0
    files.close()


# --- other signals ---------------------------------------------------------------------------------------------------


def test_more_and_fewer_workers(stage: Stage, config: Callable[..., Config]) -> None:
    def play() -> Play:
        ready(*stage.players)
        yield
        stage.news()
        stage.signal("SIGTTIN")
        yield
        assert stage.news() == ["INFO 2 workers from now on (SIGTTIN)"]
        assert stage.forks == 2
        ready(stage.players[1])
        yield
        stage.news()
        stage.signal("SIGTTOU")
        yield
        assert stage.news() == ["INFO 1 worker from now on (SIGTTOU)"]
        assert [player.heard for player in stage.players] == [[], ["retire"]]
        stage.players[1].ends(0)
        yield
        stage.signal("SIGTTOU")
        yield from later(stage)
        assert stage.news()[1:] == ["INFO 1 worker from now on (SIGTTOU)"]  # there is always one
        assert (stage.forks, stage.players[0].heard) == (2, [])
        yield from end(stage)

    assert stage.run(Master(config()), play()) == 0


def test_logs_are_opened_anew_by_all_once(stage: Stage, config: Callable[..., Config]) -> None:
    def play() -> Play:
        one, two = stage.players
        ready(one)
        yield
        stage.news()
        stage.signal("SIGUSR1")
        yield
        assert stage.news() == ["INFO Log files reopened on SIGUSR1"]
        assert (one.heard, two.heard) == (["reopen"], [])
        ready(two)
        yield
        assert (one.heard, two.heard) == ([], ["reopen"])
        yield from end(stage)

    assert stage.run(Master(config(workers=2)), play()) == 0


class Spawned:
    """New masters that were started: their environment, and their end of the line."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.environ: list[dict[str, str]] = []
        self.lines: list[int] = []
        self.fault: OSError | None = None
        monkeypatch.setattr(os, "posix_spawn", self.spawn)

    def spawn(self, path: str, argv: list[str], environ: dict[str, str]) -> int:
        if self.fault is not None:
            raise self.fault
        handed = json.loads(environ["BRIDGE_HANDOVER"])
        self.environ.append(environ)
        for number in (handed["ready"], *chain(*handed["listeners"].values())):
            assert os.get_inheritable(number)
        self.lines.append(os.dup(handed["ready"]))
        return 500 + len(self.lines)

    def says(self, word: bytes) -> None:
        if word:
            os.write(self.lines[-1], word)
        else:
            os.close(self.lines[-1])

    def told(self) -> bool:
        """Tell whether the old master has closed its end, and close this one."""
        try:
            return os.read(self.lines[-1], 1) == b""
        finally:
            os.close(self.lines[-1])


def test_a_new_master_that_serves_lets_this_one_retire(
    stage: Stage, config: Callable[..., Config], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawned = Spawned(monkeypatch)

    def play() -> Play:
        ready(*stage.players)
        yield
        stage.news()
        stage.signal("SIGUSR2")
        yield
        [(name, numbers)] = json.loads(spawned.environ[0]["BRIDGE_HANDOVER"])["listeners"].items()
        assert name == f"unix:{path}"
        assert not any(map(os.get_inheritable, numbers))  # the workers' own children have no use for it
        stage.signal("SIGUSR2")
        yield from later(stage)
        assert stage.news() == [
            "INFO SIGUSR2: a new master starts (pid 501)",
            "WARNING SIGUSR2: a new master is starting already (pid 501)",
        ]
        assert (len(spawned.lines), stage.players[0].heard) == (1, [])
        spawned.says(b"ready")
        yield
        assert stage.news() == ["INFO The new master (pid 501) serves: this one retires"]
        assert spawned.told()  # that this one answers no probes any more
        assert stage.players[0].heard == ["retire"]
        assert stage.killed == []
        stage.players[0].ends(0)

    assert stage.run(Master(config()), play()) == 0
    assert os.path.exists(path)  # it is the new one's


def test_a_new_master_that_fails_leaves_everything_as_it_was(
    stage: Stage, config: Callable[..., Config], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawned = Spawned(monkeypatch)

    def play() -> Play:
        ready(*stage.players)
        yield
        stage.signal("SIGUSR2")
        yield
        stage.news()
        spawned.says(b"")
        yield from later(stage)
        assert stage.news() == ["ERROR The new master (pid 501) has failed; this one goes on"]
        assert (stage.players[0].heard, stage.forks) == ([], 1)
        spawned.fault = OSError(12, "Cannot allocate memory")
        stage.signal("SIGUSR2")
        yield
        assert stage.news() == ["ERROR SIGUSR2: no new master could be started: [Errno 12] Cannot allocate memory"]
        spawned.fault = None
        stage.signal("SIGUSR2")  # and another one may follow
        yield
        assert len(spawned.lines) == 2
        spawned.says(b"")
        yield
        yield from end(stage)

    assert stage.run(Master(config()), play()) == 0
    assert not os.path.exists(path)


@pytest.mark.parametrize("serves", [True, False])
def test_signals_wait_for_the_master_that_goes_on(
    serves: bool, stage: Stage, config: Callable[..., Config], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawned = Spawned(monkeypatch)
    names = ["SIGTTIN", "SIGUSR1", "SIGHUP"]
    sent: list[tuple[int, str]] = []
    monkeypatch.setattr(os, "kill", lambda pid, number: sent.append((pid, signal.Signals(number).name)))

    def play() -> Play:
        ready(*stage.players)
        yield
        stage.signal("SIGUSR2")
        yield
        stage.news()
        for name in names:
            stage.signal(name)
        yield
        assert stage.news() == [
            "INFO SIGTTIN waits: a new master starts (pid 501), or this one goes on",
            "INFO Log files reopened on SIGUSR1",
            "INFO SIGHUP waits: a new master starts (pid 501), or this one goes on",
        ]
        assert stage.forks == 1
        spawned.says(b"ready" if serves else b"")
        yield
        if serves:
            assert sent == [(501, name) for name in names]
            assert stage.news() == ["INFO The new master (pid 501) serves: this one retires"]
            assert spawned.told()
            stage.players[0].ends(0)
            return
        assert stage.news() == [
            "ERROR The new master (pid 501) has failed; this one goes on",
            "INFO 2 workers from now on (SIGTTIN)",
            "INFO Reloading on SIGHUP",
        ]
        assert (stage.forks, sent) == (3, [])
        yield from end(stage)

    assert stage.run(Master(config()), play()) == 0


def test_a_new_master_is_nothing_to_one_that_stops(
    stage: Stage, config: Callable[..., Config], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spawned = Spawned(monkeypatch)

    def play() -> Play:
        ready(*stage.players)
        yield
        stage.signal("SIGUSR2")
        yield
        stage.signal("SIGTERM")
        yield
        stage.news()
        spawned.says(b"ready")
        yield 1.0
        assert stage.news() == []
        assert stage.players[0].heard == [["stop", 30.0]]
        assert spawned.told()
        stage.players[0].ends(0)

    assert stage.run(Master(config()), play()) == 0
    assert os.path.exists(path)


# --- systemd ---------------------------------------------------------------------------------------------------------


def test_systemd_is_told_what_happens_and_nothing_else(
    stage: Stage, config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.listen_for_notices(str(tmp_path / "notify"), None, monkeypatch)

    def play() -> Play:
        yield 5.0
        assert stage.noticed() == []
        ready(*stage.players)
        yield from later(stage)
        assert stage.noticed() == ["READY"]
        stage.signal("SIGHUP")
        yield
        assert stage.noticed() == ["RELOADING"]
        stage.players[1].ends(3)  # it fails: the reload is over
        yield
        assert stage.noticed() == ["READY"]
        stage.signal("SIGHUP")
        yield
        ready(stage.players[2])
        yield
        assert stage.noticed() == ["RELOADING"]
        stage.players[0].ends(0)
        yield from later(stage)
        assert stage.noticed() == ["READY"]
        stage.signal("SIGTERM")
        yield
        assert stage.noticed() == ["STOPPING"]
        stage.signal("SIGTERM")
        yield
        stage.players[2].ends(0)

    assert stage.run(Master(config()), play()) == 0
    assert stage.noticed() == []


def test_the_watchdog_is_fed_in_time_and_not_more_often(
    stage: Stage, config: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.listen_for_notices(str(tmp_path / "notify"), 2.0, monkeypatch)

    def play() -> Play:
        stage.noticed()
        yield 10.0
        assert stage.noticed() == ["WATCHDOG"] * 5  # a start is no fault
        ready(*stage.players)
        yield
        stage.noticed()
        yield 1.75
        for _ in range(100):
            stage.players[0].says("beat")
            yield
        assert stage.noticed() == []
        yield 0.25
        assert stage.noticed() == ["WATCHDOG"]
        yield 20.0
        assert stage.noticed() == ["WATCHDOG"] * 10
        stage.players[0].ends(7)
        yield 20.0
        assert stage.noticed() == []  # nobody serves
        ready(stage.players[1])
        yield 2.0
        assert stage.noticed() == ["WATCHDOG"]
        yield from end(stage)

    assert stage.run(Master(config()), play()) == 0


# --- in the child ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("new", [False, True], ids=["", "new"])
def test_a_worker_keeps_nothing_of_the_master_s(
    stage: Stage, config: Callable[..., Config], path: str, monkeypatch: pytest.MonkeyPatch, new: bool
) -> None:
    """And takes nothing from it: what it closes is its own copy, and a file that it removed would be everybody's."""
    served: list[tuple[object, ...]] = []
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    before = descriptors()
    if new:
        read, sockets = handed(monkeypatch, path)
        sockets[0].close()
        before |= {f"{read} {os.readlink(f'/proc/self/fd/{read}')}"}

    def serve(
        config: Config,
        app: object,
        listeners: Sequence[Listener],
        channel: Channel,
        places: object,
        counts: object,
        hooks: object,
        context: object,
    ) -> int:
        assert counts is None
        assert hooks is None
        assert context is None
        left = {int(name.partition(" ")[0]) for name in descriptors() - before}
        sockets = {sock.fileno() for listener in listeners for sock in listener.sockets}
        assert left == sockets | {channel.fileno()}
        served.append((config.target, app, places))
        channel.close()
        for listener in listeners:
            listener.close(remove=False)
        return 6

    monkeypatch.setattr(master_module, "run_worker", serve)
    app = object()
    master = Master(config(), app)
    stage.in_child = True
    monkeypatch.setattr(os, "getpid", lambda: 4711)
    try:
        with a_child_that_ends_by_system_exit(), pytest.raises(SystemExit) as ended:
            stage.run(master, nothing())
    finally:
        for number, handler in handlers.items():
            if handler is not None and signal.getsignal(number) is not handler:
                signal.signal(number, handler)
    assert ended.value.code == 6
    assert served == [("shop:app", app, None)]
    assert os.path.exists(path)
    assert signal.set_wakeup_fd(-1) == -1
    if new:
        assert os.read(read, 100) == b""  # the old master learns it when the new one is gone
        os.close(read)


def nothing() -> Play:
    yield from ()


# --- the new master --------------------------------------------------------------------------------------------------


def handed(monkeypatch: pytest.MonkeyPatch, path: str, *more: tuple[str, str]) -> tuple[int, list[socket.socket]]:
    """Be the old master: hand over sockets; return its end of the line, and the sockets."""
    ours, theirs = socket.socketpair()
    read, write = ours.detach(), theirs.detach()
    sockets = []
    for name in (path, *(name for _, name in more)):
        sockets.append(socket.socket(socket.AF_UNIX))
        sockets[-1].bind(name)
        sockets[-1].listen()
    names = [f"unix:{path}", *(f"{role}unix:{name}" for role, name in more)]
    numbers = {name: [os.dup(sock.fileno())] for name, sock in zip(names, sockets, strict=True)}
    monkeypatch.setenv("BRIDGE_HANDOVER", json.dumps({"listeners": numbers, "ready": write}))
    return read, sockets


def test_a_new_master_takes_what_it_uses_and_says_so_once(
    stage: Stage, config: Callable[..., Config], path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unused = str(tmp_path / "unused.sock")
    read, sockets = handed(monkeypatch, path, ("", unused))
    os.set_blocking(read, False)
    master = Master(config())
    assert master.takes_over
    assert "BRIDGE_HANDOVER" not in os.environ  # not for the application's own children

    def play() -> Play:
        for sock in sockets:
            sock.close()  # the old master has gone
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
        with socket.socket(socket.AF_UNIX) as client, pytest.raises(ConnectionRefusedError):
            client.connect(unused)
        with pytest.raises(BlockingIOError):
            os.read(read, 100)
        ready(*stage.players)
        yield
        assert os.read(read, 100) == b"ready"
        assert os.read(read, 100) == b""
        yield from later(stage)
        yield from end(stage)

    assert stage.run(master, play()) == 0
    assert not os.path.exists(path)
    os.close(read)


def test_a_new_master_answers_probes_when_the_old_one_does_not_any_more(
    stage: Stage, config: Callable[..., Config], path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probes = str(tmp_path / "probes.sock")
    line, sockets = handed(monkeypatch, path, ("admin ", probes))

    def play() -> Play:
        ready(*stage.players)
        yield
        assert os.read(line, 100) == b"ready"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(probes)
            client.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
            client.setblocking(False)
            yield from later(stage)  # the old master may take its time
            with pytest.raises(BlockingIOError):
                client.recv(100)
            os.close(line)
            yield
            yield
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        yield from end(stage)

    assert stage.run(Master(config(admin_bind=(f"unix:{probes}",))), play()) == 0
    for sock in sockets:
        sock.close()


def test_a_new_master_that_cannot_start_says_nothing_and_leaves_the_file(
    stage: Stage, config: Callable[..., Config], path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, sockets = handed(monkeypatch, path)

    def play() -> Play:
        stage.players[0].ends(7)
        yield

    master = Master(config())
    assert stage.run(master, play()) == 3
    assert os.path.exists(path)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)  # the old one still listens
    assert os.read(read, 100) == b""
    os.close(read)
    sockets[0].close()
