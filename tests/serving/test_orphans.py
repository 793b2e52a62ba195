"""What the first process of a container inherits is reaped, and what is the application's is left to it."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import time
import weakref
from pathlib import Path

import pytest

from bridge import forks
from bridge.serving import orphans
from tests.support.manualloop import ManualLoop
from tests.support.running import PATIENCE, Running, get

#: Runs a command as a process that inherits orphans, as process 1 of a container does.
INHERITING = "import ctypes, os, sys; ctypes.CDLL(None).prctl(36, 1); os.execv(sys.argv[1], sys.argv[1:])"
CODE = """
import os, pty, subprocess, threading
mine, forked = [], []
early = subprocess.Popen(["sh", "-c", "sleep 0.1; exit 6"])
def tell(): os.write(1, b"early %d\\n" % early.wait())
threading.Timer(1.5, tell).start()
def app(environ, start_response):
    path = environ["PATH_INFO"]
    if path == "/orphans":
        subprocess.run(["sh", "-c", "sleep 0.1 & sleep 0.1 &"])
    elif path == "/own":
        mine.append(subprocess.Popen(["sh", "-c", "exit 7"]))
        for fork in (os.fork, lambda: pty.fork()[0], lambda: os.spawnlp(os.P_NOWAIT, "sh", "sh", "-c", "exit 8")):
            pid = fork()
            if not pid:
                os._exit(8)
            forked.append(pid)
    def statuses():
        return [child.poll() for child in mine], [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in forked]
    text = str(statuses()).encode() if path == "/ask" else b""
    start_response("200 OK", [("Content-Length", str(len(text)))])
    return [text]
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets other processes than 1 inherit")
@pytest.mark.parametrize(
    "way", [["--loop", "uvloop"], ["--loop", "asyncio"], ["--workers", "1"], ["--workers", "1", "--preload"]]
)
def test_orphans_are_reaped_and_children_are_not(tmp_path: Path, way: list[str]) -> None:
    (tmp_path / "parents.py").write_text(CODE)
    command = Running.command("parents:app", "--app-dir", str(tmp_path), *way)
    with Running(command=[sys.executable, "-c", INHERITING, *command]) as server:
        address = server.address()
        get(address, "/own")
        get(address, "/orphans")
        server.output.wait("early 6")  # the status of a child that was started by the import
        end = time.monotonic() + PATIENCE
        before = None
        while (left := zombies(server.pid)) != before or len(left) > (0 if "--workers" in way else 4):
            assert time.monotonic() < end, left
            before = left
            time.sleep(1.2)  # as often as the server looks, twice
        assert get(address, "/ask")[2] == b"([7], [8, 8, 8])"
        assert server.end() == 0


def zombies(parent: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                state, ppid = (entry / "stat").read_text(encoding="latin-1").rpartition(")")[2].split()[:2]
            except OSError:
                continue
            if (state, ppid) == ("Z", str(parent)):
                found.append(int(entry.name))
    return found


def test_a_process_that_inherits_nothing_looks_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphans, "_inherits", lambda: False)
    loop = ManualLoop()
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    watching = orphans.Orphans(loop)
    loop.advance(0.5)
    loop.advance(60.0)
    assert child.wait() == 0
    watching.stop()
    loop.close()


class Elusive:
    """As a proxy of a request that is over."""

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        raise RuntimeError("there is no request")


def test_an_object_stands_for_a_child_until_it_knows_the_status() -> None:
    elusive = [Elusive(), weakref.proxy(Elusive())]  # the second stands for nothing any more
    child = subprocess.Popen([sys.executable, "-c", ""])
    zombies = orphans.Zombies()
    assert child.pid in zombies._expected()
    child.wait()
    assert child.pid not in zombies._expected()
    del elusive


@pytest.mark.skipif(not os.path.exists("/proc/thread-self/children"), reason="the system does not list children")
def test_a_child_that_was_forked_is_the_applications_until_it_was_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "_MANY", 0)
    in_child = forks.add(lambda: None)
    try:
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        own = forks.fork()
        if own == 0:
            os._exit(0)
    finally:
        forks.remove(in_child)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    zombies = orphans.Zombies()
    assert pid in zombies._expected()
    assert own not in zombies._expected()
    for child in (pid, own):
        os.waitpid(child, 0)
    assert pid not in zombies._expected()


def test_an_object_that_was_frozen_stands_for_its_child() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    zombies = orphans.Zombies()
    zombies.before_freeze()
    gc.freeze()
    try:
        assert child.pid in zombies._expected()
        child.wait()
        assert child.pid not in zombies._expected()
    finally:
        gc.unfreeze()
