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

pytestmark = pytest.mark.time_limit(77)

def hang():
    signal.setitimer(signal.ITIMER_REAL, 0.5, 3.0)  # the 77 seconds are over
    threading.Event().wait()

async def hang_on_the_loop():
    signal.setitimer(signal.ITIMER_REAL, 0.5, 3.0)
    await asyncio.Event().wait()

def test_a_lock():
    hang()

def test_a_thread():
    signal.setitimer(signal.ITIMER_REAL, 0.5, 3.0)
    thread = threading.Thread(target=threading.Event().wait, daemon=True)
    thread.start()
    thread.join()

async def test_a_coroutine():
    await hang_on_the_loop()

def test_the_other_loop():
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(hang_on_the_loop())

def test_an_except_that_takes_all():
    with suppress(BaseException):
        hang()
    threading.Event().wait()

@pytest.fixture
def slow_to_start():
    hang()

def test_a_fixture(slow_to_start):
    pass

@pytest.fixture
def slow_to_end():
    yield
    hang()

def test_a_fixture_at_its_end(slow_to_end):
    pass

def test_with_a_limit_of_its_own():
    assert 60 < signal.getitimer(signal.ITIMER_REAL)[0] <= 77
"""
NEXT = """\
import signal

def test_the_next_one():
    assert 100 < signal.getitimer(signal.ITIMER_REAL)[0] <= 120
"""


@pytest.mark.slow
def test_a_test_that_hangs_fails(tmp_path: Path) -> None:
    shutil.copy(Path(__file__).with_name("conftest.py"), tmp_path)
    (tmp_path / "test_hanging.py").write_text(HANGING)
    (tmp_path / "test_next.py").write_text(NEXT)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", str(SETTINGS), "--rootdir", ".", "-p", "no:cacheprovider", "-rfEp", "."],
        cwd=tmp_path,
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=110,
    )
    rows = [line.split(" - ") for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR", "PASSED"))]
    ends = {row[0].replace("test_hanging.py::test_", ""): row[1:] for row in rows}
    too_long = ["Failed: the test has not ended within 77 s"]
    names = ("a_lock", "a_thread", "a_coroutine", "the_other_loop", "an_except_that_takes_all")
    assert ends == {
        **{f"FAILED {name}": too_long for name in names},
        "ERROR a_fixture": too_long,
        "PASSED a_fixture_at_its_end": [],
        "ERROR a_fixture_at_its_end": too_long,
        "PASSED with_a_limit_of_its_own": [],
        "PASSED test_next.py::test_the_next_one": [],
    }, done.stdout
    assert "in hang\n" in done.stdout  # where it stands
