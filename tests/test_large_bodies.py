"""Large content passes through both adapters in little memory."""

from __future__ import annotations

import http.client
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.support import ROOT

SIZE = 200 * 1000 * 1000
MOST_GROWTH = 20 * 1000 * 1000

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak memory from /proc"),
]


def peak(pid: int) -> int:
    """Return the most memory (bytes) that a process has held since its peak was reset."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def reset_peak(pid: int) -> None:
    Path(f"/proc/{pid}/clear_refs").write_text("5")


@pytest.fixture(params=["asgi", "wsgi"])
def server(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    """Run the application of one interface; give the process's number and its port."""
    command = [sys.executable, "-m", "bridge", "run", f"large_bodies_app:{request.param}", "--app-dir", "tests/support"]
    process = subprocess.Popen(
        [*command, "--port", "0", "--no-access-log"],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
        assert found is not None, line + process.stderr.read()
        yield process.pid, int(found[1])
    finally:
        process.send_signal(signal.SIGTERM)
        rest = process.communicate(timeout=15)[1]
    assert process.returncode == 0, rest


@contextmanager
def ask(port: int, method: str, path: str, size: int) -> Iterator[http.client.HTTPResponse]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    piece = b"y" * 65536

    def content() -> Iterator[bytes]:
        left = size
        while left:
            part = piece[:left]
            left -= len(part)
            yield part

    with closing(connection):
        if method == "POST":
            connection.request(method, path, content(), {"Content-Length": str(size)})
        else:
            connection.request(method, path)
        yield connection.getresponse()


def test_memory_does_not_grow_with_the_content(server: tuple[int, int]) -> None:
    pid, port = server
    with ask(port, "POST", "/", 1000) as response:  # imports and pools are there after this
        assert response.read() == b"1000"
    with ask(port, "GET", "/?bytes=1000", 0) as response:
        assert len(response.read()) == 1000
    reset_peak(pid)
    before = peak(pid)

    with ask(port, "POST", "/", SIZE) as response:
        assert response.read() == str(SIZE).encode()
    uploaded = peak(pid) - before

    reset_peak(pid)
    received = 0
    with ask(port, "GET", f"/?bytes={SIZE}", 0) as response:
        while data := response.read(1 << 20):
            received += len(data)
    downloaded = peak(pid) - before

    assert received == SIZE
    assert uploaded < MOST_GROWTH, f"{uploaded} bytes after the upload"
    assert downloaded < MOST_GROWTH, f"{downloaded} bytes after the download"
