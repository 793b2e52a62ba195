"""A test that hangs fails, wherever it hangs, and the next one runs."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SETTINGS = Path(__file__).resolve().parents[1] / "pyproject.toml"
HANGING = """\
import asyncio, signal, threading
from contextlib import suppress
import pytest, uvloop

async def hang():
    await asyncio.Event().wait()

async def turn():
    while True:
        await asyncio.sleep(0)

@pytest.mark.time_limit(0.2)
def test_a_lock():
    threading.Lock().acquire() and threading.Event().wait()

@pytest.mark.time_limit(0.2)
def test_a_thread():
    thread = threading.Thread(target=threading.Event().wait, daemon=True)
    thread.start()
    thread.join()

@pytest.mark.time_limit(0.2)
async def test_a_coroutine():
    await hang()

@pytest.mark.time_limit(0.2)
async def test_a_task_beside_it():
    task = asyncio.create_task(turn())
    with suppress(BaseException):
        await task
    await hang()

@pytest.mark.time_limit(0.2)
def test_the_other_loop():
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(hang())

@pytest.mark.time_limit(0.2)
def test_an_except_that_takes_all():
    with suppress(BaseException):
        threading.Event().wait()
    threading.Event().wait()

@pytest.fixture
def slow_to_end():
    yield
    threading.Event().wait()

@pytest.mark.time_limit(0.2)
def test_a_fixture(slow_to_end):
    pass

def test_the_next_one():
    assert signal.getitimer(signal.ITIMER_REAL)[0] > 60
"""


@pytest.mark.slow
def test_a_test_that_hangs_fails(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    (tmp_path / "test_hanging.py").write_text(HANGING)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", str(SETTINGS), "--rootdir", ".", "-p", "no:cacheprovider", "-rfEp", "."],
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    rows = [line.split(" - ") for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR", "PASSED"))]
    ends = {row[0].replace("test_hanging.py::test_", ""): row[1:] for row in rows}
    too_long = ["Failed: the test has not ended within 0.2 s"]
    names = ("a_lock", "a_thread", "a_coroutine", "a_task_beside_it", "the_other_loop", "an_except_that_takes_all")
    assert ends == {
        **{f"FAILED {name}": too_long for name in names},
        "ERROR a_task_beside_it": too_long,  # it swallows its cancellation as well
        "PASSED a_fixture": [],
        "ERROR a_fixture": too_long,
        "PASSED the_next_one": [],
    }, done.stdout
    assert "in turn" in done.stdout  # where it stands
