"""Standard streams that are closed, missing, full or replaced."""

from __future__ import annotations

import io
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bridge.adapters.wsgi.environ import ERRORS
from bridge.telemetry import streams
from bridge.telemetry.linewriter import LineWriter, to_stream
from tests.support.running import APPS, PATIENCE, REPOSITORY, Running, get, surroundings

WAYS = [[], ["--workers", "1"], ["--workers", "1", "--preload"]]

APP = """\
import sys
if REPLACES:
    class Odd:
        def write(self, text):
            return len(text)
    sys.stdout = sys.stderr = Odd() if REPLACES == "odd" else None

def app(environ, start_response):
    errors = environ["wsgi.errors"]
    errors.write("one ")
    errors.writelines(["two", "\\n"])
    errors.flush()
    if environ["PATH_INFO"] == "/error":
        raise LookupError("the needle")
    start_response("200 OK", [("Content-Length", "0")])
    return []
"""


def listens(path: str) -> bool:
    """Tell whether a server takes connections on the Unix socket *path*; the file is there a moment before."""
    with socket.socket(socket.AF_UNIX) as sock:
        return sock.connect_ex(path) == 0


def run(tmp_path: Path, replaces: str, closed: str, *argv: str) -> tuple[int, str]:
    """Serve an error and a request; return the status of the end and what was on standard error."""
    (tmp_path / "odd.py").write_text(f"REPLACES = {replaces!r}\n{APP}")
    path = str(tmp_path / "a.sock")
    environ = {**surroundings(), "PYTHONPATH": str(REPOSITORY)}
    command = Running.command("odd:app", "--uds", path, "--app-dir", str(tmp_path), *argv)
    with open(tmp_path / "err", "w+") as errors:
        process = subprocess.Popen(
            ["sh", "-c", f'exec "$@" {closed}', "sh", *command],
            cwd=APPS, env=environ, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=errors,
        )  # fmt: skip
        try:
            end = time.monotonic() + PATIENCE
            while not listens(path):
                assert time.monotonic() < end
                assert process.poll() is None
                time.sleep(0.02)
            assert get(path, "/error")[0] == 500
            assert get(path)[0] == 200
            process.terminate()
            status = process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait()
        errors.seek(0)
        return status, errors.read()


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS, ids=" ".join)
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_a_server_without_standard_streams(tmp_path: Path, way: list[str], closed: str) -> None:
    status, text = run(tmp_path, "", closed, *way)
    assert status == 0
    assert ("the needle" in text) == ("2>&-" not in closed)
    assert ("one two\n" in text) == ("2>&-" not in closed)


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS, ids=" ".join)
@pytest.mark.parametrize("replaces", ["odd", "nothing"])
def test_an_application_that_replaces_the_streams(tmp_path: Path, way: list[str], replaces: str) -> None:
    status, text = run(tmp_path, replaces, "", *way)
    assert status == 0
    assert text.count("LookupError: the needle") == 1
    assert text.count("Stopped") == 1
    assert "one two" not in text  # wsgi.errors is what the application has put there


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_a_failure_without_a_standard_error_is_a_status(way: list[str]) -> None:
    command = Running.command("plain:refuses", *way)
    found = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", *command],
        cwd=APPS, env={**surroundings(), "PYTHONPATH": str(REPOSITORY)}, stdout=subprocess.PIPE, timeout=PATIENCE,
    )  # fmt: skip
    assert (found.returncode, found.stdout) == (4, b"")


def test_errors_go_to_whatever_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for stream in (io.StringIO(), None):
        monkeypatch.setattr(sys, "stderr", stream)
        assert ERRORS.write("one") == 3
        ERRORS.writelines(["two", "three"])
        ERRORS.flush()
        if stream is not None:
            assert stream.getvalue() == "onetwothree"


def test_a_flush_before_a_fork_takes_any_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.StringIO):
        def flush(self) -> None:
            raise ValueError("closed")

    for out, error in ((None, Broken()), (object(), None)):
        monkeypatch.setattr(sys, "stdout", out)
        monkeypatch.setattr(sys, "stderr", error)
        streams.flush()


def test_lines_for_a_stream_that_can_only_write_or_is_none() -> None:
    class Bare:
        text = ""

        def write(self, text: str) -> None:
            self.text += text

    for stream in (Bare(), None):
        writer = LineWriter(to_stream(stream))
        writer.write(b"a\n")
        assert writer.flush(PATIENCE)
        assert (writer.dropped, getattr(stream, "text", "a\n")) == (0, "a\n")
        writer.close()


def test_a_stream_that_cannot_be_flushed_is_not_there_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python flushes both streams when it ends, and a failure would be the exit status 120."""
    kept = io.StringIO()
    monkeypatch.setattr(sys, "stdout", object())
    monkeypatch.setattr(sys, "stderr", kept)
    monkeypatch.setattr(streams, "_takes_more", lambda number: True)
    streams.abandon()
    assert sys.stdout is sys.__stdout__
    assert sys.stderr is kept
