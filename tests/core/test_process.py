from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from bridge.core import process
from tests.support import ROOT


@pytest.fixture(autouse=True)
def _no_child() -> Iterator[None]:
    yield
    process._task_id = None


class System:
    """Forks and waits as a script says; a status of None is a fork that returns in the child."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *ends: tuple[int, int]) -> None:
        self.ends = list(ends)
        self.forked = 0
        self.child_at: int | None = None
        self.killed: list[tuple[int, int]] = []
        monkeypatch.setattr(os, "fork", self.fork)
        monkeypatch.setattr(os, "wait", self.wait)
        monkeypatch.setattr(os, "kill", lambda pid, number: self.killed.append((pid, number)))

    def fork(self) -> int:
        self.forked += 1
        return 0 if self.forked == self.child_at else 100 + self.forked

    def wait(self) -> tuple[int, int]:
        return self.ends.pop(0)


def exited(code: int) -> int:
    return code << 8


# --- with a system that follows a script ------------------------------------------------------------------------------


def test_the_parent_leaves_when_all_children_have(monkeypatch: pytest.MonkeyPatch) -> None:
    system = System(monkeypatch, (102, 0), (101, 0))
    with pytest.raises(SystemExit) as caught:
        process.fork_processes(2)
    assert caught.value.code == 0
    assert system.forked == 2
    assert process.task_id() is None


@pytest.mark.parametrize(("at", "number"), [(1, 0), (2, 1), (3, 2)])
def test_a_child_gets_its_number(monkeypatch: pytest.MonkeyPatch, at: int, number: int) -> None:
    system = System(monkeypatch)
    system.child_at = at
    assert process.fork_processes(3) == number
    assert process.task_id() == number
    assert system.forked == at


@pytest.mark.parametrize(
    ("status", "message"),
    [
        (exited(3), "child 1 (pid 102) exited with status 3, restarting"),
        (signal.SIGKILL, "child 1 (pid 102) killed by signal 9, restarting"),
        (signal.SIGSEGV | 0x80, "child 1 (pid 102) killed by signal 11, restarting"),
    ],
)
def test_a_child_that_died_is_replaced(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, status: int, message: str
) -> None:
    system = System(monkeypatch, (102, status), (103, 0), (101, 0))
    with pytest.raises(SystemExit):
        process.fork_processes(2)
    assert system.forked == 3
    assert [record.getMessage() for record in caplog.records] == [message]


def test_a_replacement_has_the_number_of_the_child_that_died(monkeypatch: pytest.MonkeyPatch) -> None:
    system = System(monkeypatch, (102, exited(1)))
    system.child_at = 4
    assert process.fork_processes(3) == 1
    assert process.task_id() == 1


def test_children_of_the_programs_own_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    system = System(monkeypatch, (7, exited(1)), (101, 0))
    with pytest.raises(SystemExit):
        process.fork_processes(1)
    assert system.forked == 1


@pytest.mark.parametrize("limit", [0, 1, 3])
def test_replacements_are_limited(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    ends = [(102 + (number and number + 1), exited(1)) for number in range(limit + 1)]
    system = System(monkeypatch, *ends)
    with pytest.raises(RuntimeError, match=rf"exited with status 1; too many restarts, limit {limit}"):
        process.fork_processes(3, max_restarts=limit)
    assert system.forked == 3 + limit
    assert sorted(system.killed) == [(101, signal.SIGTERM), (103, signal.SIGTERM)]


def test_the_limit_is_100_where_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    system = System(monkeypatch, *[(101 + number, exited(1)) for number in range(101)])
    with pytest.raises(RuntimeError, match="limit 100"):
        process.fork_processes(1)
    assert system.forked == 101


@pytest.mark.parametrize("number", [None, 0, -1])
def test_a_child_per_cpu(monkeypatch: pytest.MonkeyPatch, number: int | None) -> None:
    monkeypatch.setattr(process, "cpu_count", lambda: 3)
    system = System(monkeypatch, (101, 0), (102, 0), (103, 0))
    with pytest.raises(SystemExit):
        process.fork_processes(number)
    assert system.forked == 3


def test_children_do_not_fork_again(monkeypatch: pytest.MonkeyPatch) -> None:
    system = System(monkeypatch)
    system.child_at = 1
    process.fork_processes(2)
    with pytest.raises(AssertionError, match="called in child 0"):
        process.fork_processes(2)


def test_a_platform_without_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "fork")
    with pytest.raises(NotImplementedError, match="no fork"):
        process.fork_processes(2)


def test_cpu_count(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= process.cpu_count() <= (os.cpu_count() or 1)
    monkeypatch.setattr(process, "os", SimpleNamespace(sched_getaffinity=lambda pid: {0, 3, 5}, cpu_count=lambda: 8))
    assert process.cpu_count() == 3
    monkeypatch.setattr(process, "os", SimpleNamespace(cpu_count=lambda: 8))
    assert process.cpu_count() == 8
    monkeypatch.setattr(process, "os", SimpleNamespace(cpu_count=lambda: None))
    assert process.cpu_count() == 1


# --- with the real one ------------------------------------------------------------------------------------------------


def run(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", code, *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


# Each child leaves its number and a random number in a file; the first of each number dies, its replacement does not.
CHILDREN = """
import os, random, signal, sys
from pathlib import Path
from bridge.core.netutil import bind_sockets
from bridge.core.process import fork_processes, task_id

folder = Path(sys.argv[1])
random.seed(1)
(sock,) = bind_sockets(0, "127.0.0.1")
try:
    number = fork_processes(2, max_restarts=2)
except SystemExit as exc:
    print(exc.code, task_id())
    sys.exit()
assert task_id() == number
assert sock.getsockname()
life = len(list(folder.glob(f"{number}-*")))
(folder / f"{number}-{life}").write_text(str(random.random()))
if life == 0 and number == 0:
    os._exit(3)
if life == 0:
    os.kill(os.getpid(), signal.SIGKILL)
os._exit(0)
"""


@pytest.mark.slow
def test_processes_that_die_are_replaced(tmp_path: Path) -> None:
    done = run(CHILDREN, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "0 None\n"
    left = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert sorted(left) == ["0-0", "0-1", "1-0", "1-1"]
    assert len({*left.values(), str(random.Random(1).random())}) == 5, "children share their random numbers"
    assert "exited with status 3, restarting" in done.stderr
    assert "killed by signal 9, restarting" in done.stderr


@pytest.mark.slow
def test_too_many_deaths() -> None:
    done = run(
        "import os\n"
        "from bridge.core.process import fork_processes\n"
        "try:\n"
        "    fork_processes(1, max_restarts=2)\n"
        "except RuntimeError as exc:\n"
        "    print(exc)\n"
        "else:\n"
        "    os._exit(4)\n"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("child 0 ")
    assert done.stdout.endswith("exited with status 4; too many restarts, limit 2\n")
    assert done.stderr.count("exited with status 4, restarting") == 2
