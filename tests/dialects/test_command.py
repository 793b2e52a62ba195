"""``bridge gunicorn ARGS...`` as a command: what it prints, what it starts, and its status."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge import cli
from bridge.dialects import NAMES
from tests.support import ROOT
from tests.support.running import PATIENCE, Running, get, gone

APPLICATION = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"hi"]
"""


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    for name in ("PORT", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS", "GUNICORN_CMD_ARGS"):
        monkeypatch.delenv(name, raising=False)
    path = sys.path[:]
    (tmp_path / "served.py").write_text(APPLICATION)
    yield tmp_path
    sys.path[:] = path
    sys.modules.pop("served", None)


@pytest.mark.parametrize("name", NAMES)
def test_help_and_version(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([name, "--help"]) == 0
    assert f"usage: bridge {name}" in capsys.readouterr().out
    assert cli.main([name, "--version"]) == 0
    assert f"with the options of {name}" in capsys.readouterr().out


def test_what_is_refused_ends_the_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["gunicorn", "-k", "gevent", "served:app"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("bridge: -k gevent: bridge patches no sockets")
    assert "`bridge explain gunicorn ...`" in err


def test_a_wrong_command_line_is_answered_as_the_server_would(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["gunicorn", "--nothing", "served:app"]) == 2
    assert "gunicorn: error: unrecognized arguments: --nothing" in capsys.readouterr().err


def test_the_settings_can_be_checked_and_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["gunicorn", "--check-config", "served:app"]) == 0
    assert "the application can be imported" in capsys.readouterr().out
    assert cli.main(["gunicorn", "--print-config", "-w", "3", "served:app"]) == 0
    assert 'workers = "3"  # -w' in capsys.readouterr().out


@pytest.mark.slow
def test_a_file_is_read_again_at_hup(place: Path) -> None:
    conf = place / "gunicorn.conf.py"
    conf.write_text(
        "workers = 1\nspew = True\ndef when_ready(server): server.log.info('READY %s', server.cfg.workers)\n"
    )
    command = [sys.executable, "-m", "bridge", "gunicorn", "-b", "127.0.0.1:0", "served:app"]
    with Running(command=command, cwd=place) as server:
        assert get(server.address())[2] == b"hi"
        server.messages.wait(r"gunicorn .*spew: no effect")
        server.messages.wait(r"READY 1")
        conf.write_text("workers = 2\n")
        server.signal("SIGHUP")
        server.messages.wait(r"Reloaded: 2 workers")
        conf.write_text("workers = None\n")
        server.signal("SIGHUP")
        server.messages.wait(r"Reload failed, the old workers go on: Invalid value for workers: None")
        assert server.end() == 0


@pytest.mark.slow
def test_a_daemon_leaves_its_terminal(place: Path) -> None:
    words = ["gunicorn", "-D", "-p", "pid", "-b", f"unix:{place}/s", "--log-file", "log", "served:app"]
    done = subprocess.run(
        [sys.executable, "-m", "bridge", *words], cwd=place, env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert done.stderr.count("bridge: --daemon:") == 1
    end = time.monotonic() + PATIENCE
    pid = 0
    while not pid and time.monotonic() < end:
        with contextlib.suppress(OSError, ValueError):
            if "is ready" in (place / "log").read_text():
                pid = int((place / "pid").read_text())
        time.sleep(0.05)  # nobody else tells: its output is gone
    assert pid, (place / "log").read_text()
    try:
        assert get(str(place / "s"))[2] == b"hi"
        assert os.getsid(pid) != os.getsid(0)
    finally:
        session = os.getsid(pid)
        os.kill(pid, signal.SIGTERM)
    assert gone(session)
    assert not (place / "pid").exists()
