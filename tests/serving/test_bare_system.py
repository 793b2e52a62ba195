"""bridge serves in one process on a system that has no fork, no root, no sendfile and few signals; see support/bare."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.running import APPS, REPOSITORY, Running, get

pytestmark = pytest.mark.slow

BARE = [sys.executable, "-m", "tests.support.bare", "run"]


def running(*argv: str) -> Running:
    environ = {"PYTHONPATH": f"{APPS}:{REPOSITORY}"}
    return Running(command=[*BARE, *argv, "--port", "0"], environ=environ)


@pytest.mark.parametrize("target", ["plain:asgi", "plain:wsgi"])
def test_it_serves(target: str, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with running(target, "--access-logfile", str(log)) as server:
        address = server.address()
        for _ in range(3):
            assert get(address, "/")[0] == 200
        assert server.end() == 0
        assert server.messages.lines[-1].endswith("INFO Stopped")
    assert len(log.read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--workers", "2"], "--workers: 2 processes need fork(), which this system lacks"),
        (["--reload"], "--reload: this system has no os.fork; leave --reload out"),
        (["--reuse-port"], "--reuse-port: this system has no socket.SO_REUSEPORT; leave --reuse-port out"),
        (["--user", "nobody"], "--user: this system has no os.setuid; leave --user out"),
    ],
)
def test_what_it_cannot_do_is_refused(argv: list[str], said: str) -> None:
    done = subprocess.run(
        [*BARE, "plain:asgi", *argv], cwd=APPS, env={"PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (2, f"bridge: {said}\n")
