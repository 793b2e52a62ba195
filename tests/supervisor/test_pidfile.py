"""The pid file: whom its number belongs to, and what is not replaced."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.errors import ConfigError
from bridge.supervisor.pidfile import PidFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pid"


HOLDER = """\
import os, sys
from bridge.supervisor.pidfile import PidFile
file = PidFile(sys.argv[1])
if os.fork() == 0:  # a child does not hold the lock
    print("begun", flush=True)
    sys.stdin.read()
    os._exit(0)
sys.stdin.read()
"""


@pytest.fixture
def holder(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_a_server_holds_its_number(path: Path, holder: subprocess.Popen[bytes]) -> None:
    with pytest.raises(ConfigError, match=rf"^--pid {path}: process {holder.pid} is running$"):
        PidFile(str(path))
    successor = PidFile(str(path), takes_over=True)
    assert path.read_text() == f"{holder.pid}\n"
    successor.write()
    assert path.read_text() == f"{os.getpid()}\n"
    successor.remove()


def test_the_number_of_another_program(path: Path, holder: subprocess.Popen[bytes]) -> None:
    """The server has crashed, its child lives on, and its number belongs to another program by now."""
    holder.kill()
    holder.wait()
    with subprocess.Popen(["sleep", "60"]) as other:
        path.write_text(f"{other.pid}\n")
        file = PidFile(str(path))
        other.kill()
    assert path.read_text() == f"{os.getpid()}\n"
    file.remove()
    assert not path.exists()


@pytest.mark.parametrize(
    "text",
    ["", "\n", "0\n", "99999999999999999999\n", f"{os.getpid()}\n", "4194305"],
    ids=["empty", "line", "zero", "long", "own", "free"],
)
def test_no_process(path: Path, text: str) -> None:
    path.write_text(text)
    PidFile(str(path)).remove()


@pytest.mark.parametrize("text", ["root:x:0:0\n", "-1\n", "12 13\n", "\0"])
def test_another_file_is_not_replaced(path: Path, text: str) -> None:
    path.write_text(text)
    with pytest.raises(ConfigError, match="holds something else than a process number, and is not replaced"):
        PidFile(str(path))
    assert path.read_text() == text


@pytest.mark.parametrize("kind", ["pipe", "socket", "directory"])
def test_what_is_no_file_is_not_replaced(path: Path, kind: str) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "socket":
            sock.bind(str(path))
        else:
            path.mkdir()
        before = path.stat().st_ino
        for takes_over in (False, True):
            with pytest.raises(ConfigError, match="is no regular file, and is not replaced"):
                PidFile(str(path), takes_over=takes_over)
        assert path.stat().st_ino == before


def test_a_file_that_somebody_has_replaced_stays(path: Path) -> None:
    file = PidFile(str(path))
    path.unlink()
    path.write_text(f"{os.getpid()}\n")
    file.remove()
    assert path.exists()


def test_removed_once(path: Path) -> None:
    file = PidFile(str(path))
    file.remove()
    file.remove()
    assert list(path.parent.iterdir()) == []


def test_a_relative_path_is_one_of_the_start(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    file = PidFile("pid", takes_over=True)
    monkeypatch.chdir("/")
    file.write()
    assert path.read_text() == f"{os.getpid()}\n"
    file.remove()
    assert not path.exists()


def test_a_directory_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--pid .*/none/pid: No such file or directory$"):
        PidFile(str(tmp_path / "none" / "pid"))
