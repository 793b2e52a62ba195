"""Each example is started as its header says, asked over a real socket, and stopped with SIGTERM."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import ROOT

EXAMPLES = ROOT / "examples"

STARTED = 30.0  # seconds: an import of Django or FastAPI on a busy machine
STOPPED = 15.0  # seconds

pytestmark = pytest.mark.slow


class Running:
    """A started example: where it listens, what it printed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.output: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self.port = 0

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line)
            self._lines.put(line)
        self._lines.put(None)

    def wait_for_port(self) -> None:
        """Wait for the line that says where it listens."""
        while True:
            try:
                line = self._lines.get(timeout=STARTED)
            except queue.Empty:
                raise AssertionError(f"no address within {STARTED} s: {''.join(self.output)}") from None
            if line is None:
                raise AssertionError(f"ended with {self.process.wait(STOPPED)}: {''.join(self.output)}")
            if found := re.search(r"http://127\.0\.0\.1:(\d+)", line):
                self.port = int(found[1])
                return

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Send one request; return status, fields (lower-case names) and content of the answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=STOPPED)
        try:
            connection.request(method, path, body or None, headers or {})
            response = connection.getresponse()
            fields = {name.lower(): value for name, value in response.getheaders()}
            return response.status, fields, response.read()
        finally:
            connection.close()

    def stop(self) -> int:
        """Send SIGTERM, wait for the last line printed; return the exit status."""
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(STOPPED)
        self._reader.join(STOPPED)
        return status

    def end(self) -> None:
        """Leave nothing behind, whatever happened."""
        self.process.kill()
        self.process.wait(STOPPED)
        self._reader.join(STOPPED)
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def started(*command: str) -> Iterator[Running]:
    """Run ``python *command*`` in the project's folder until the block ends; it must then stop on SIGTERM with 0."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")}
    env["PYTHONPATH"] = str(ROOT)  # bridge need not be installed
    process = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    running = Running(process)
    try:
        running.wait_for_port()
        yield running
        assert running.stop() == 0, "".join(running.output)
        assert "Traceback" not in "".join(running.output)
    finally:
        running.end()


def served(target: str, *options: str) -> list[str]:
    """Return the arguments of python that serve an example on a free port."""
    return ["-m", "bridge", "run", target, "--app-dir", "examples", "--port", "0", *options]


CONTENT = bytes(range(256)) * 2000  # 512 000 bytes: more than any buffer on the way
DIGEST = {"size": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest()}
LINES = b"".join(b"line %d\n" % number for number in range(5))


def test_flask() -> None:
    with started(*served("flask_app:app")) as example:
        status, fields, content = example.ask("GET", "/")
        assert (status, fields["content-type"]) == (200, "text/html; charset=utf-8")
        assert b"Hello from Flask" in content
        status, fields, content = example.ask("GET", "/stream")
        assert (status, content, fields.get("transfer-encoding")) == (200, LINES, "chunked")
        status, _, content = example.ask("PUT", "/upload", CONTENT)
        assert (status, json.loads(content)) == (200, DIGEST)
        assert example.ask("GET", "/nothing")[0] == 404


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_django(interface: str) -> None:
    with started(*served(f"django_project.{interface}:application")) as example:
        status, _, content = example.ask("GET", "/")
        assert status == 200
        assert b"Hello from Django" in content
        status, fields, content = example.ask("GET", "/stream")
        assert (status, content, fields.get("transfer-encoding")) == (200, LINES, "chunked")
        form = (
            b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'
            + CONTENT
            + b"\r\n--cut--\r\n"
        )
        status, _, content = example.ask("POST", "/upload", form, {"Content-Type": "multipart/form-data; boundary=cut"})
        assert (status, json.loads(content)) == (200, DIGEST)
        assert example.ask("GET", "/upload")[0] == 405
        assert example.ask("GET", "/nothing")[0] == 404


def test_fastapi() -> None:
    with started(*served("fastapi_app:app")) as example:
        status, _, content = example.ask("GET", "/")
        assert (status, json.loads(content)) == (200, {"message": "Hello from FastAPI"})
        for count in (1, 2):  # the lifespan's state is one for all requests
            item = json.dumps({"name": "tea", "price": 2.5}).encode()
            status, _, content = example.ask("POST", "/items", item, {"Content-Type": "application/json"})
            assert (status, json.loads(content)) == (201, {"items": count})
        assert example.ask("POST", "/items", b"{}", {"Content-Type": "application/json"})[0] == 422
        status, fields, content = example.ask("GET", "/stream")
        assert (status, content, fields.get("transfer-encoding")) == (200, LINES, "chunked")
        status, _, content = example.ask("PUT", "/upload", CONTENT)
        assert (status, json.loads(content)) == (200, DIGEST)
    assert "FastAPI example: stopped" in "".join(example.output)  # two streams may share a line


def test_raw_delegate() -> None:
    with started(*served("raw_delegate:application")) as example:
        assert example.ask("GET", "/a?b=c")[::2] == (200, b"GET /a?b=c with 0 bytes\n")
        assert example.ask("PUT", "/a", CONTENT)[::2] == (200, b"PUT /a with 512000 bytes\n")
        status, fields, content = example.ask("HEAD", "/")
        assert (status, fields["content-length"], content) == (200, "20", b"")


def test_raw_callable() -> None:
    with started(*served("raw_callable:application")) as example:
        assert example.ask("GET", "/a?name=Ada")[::2] == (200, b"Hello Ada, this is /a\n")
        assert example.ask("GET", "/")[::2] == (200, b"Hello world, this is /\n")


def test_embedded() -> None:
    with started("examples/embedded.py", "0") as example:
        status, _, content = example.ask("GET", "/")
        assert status == 200
        assert re.fullmatch(rb"The program has ticked [1-9]\d* times\n", content)


def test_every_example_has_a_test_and_says_how_to_run_it() -> None:
    sources = [*EXAMPLES.glob("*.py"), EXAMPLES / "django_project" / "__init__.py"]
    tests = Path(__file__).read_text(encoding="utf-8")
    for path in sources:
        name = path.parent.name if path.name == "__init__.py" else path.stem
        text = path.read_text(encoding="utf-8")
        assert re.search(rf"^Run: .*{name}", text, re.MULTILINE), path
        assert tests.count(name) >= 1, path
