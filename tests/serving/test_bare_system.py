"""bridge serves in one process on a system without fork, root, sendfile, most signals and a loop that watches sockets.

See support/bare.
"""

from __future__ import annotations

import re
import ssl
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.support.running import APPS, REPOSITORY, Running, get
from tests.test_docs_commands import certificate

pytestmark = pytest.mark.slow

BARE = [sys.executable, "-m", "tests.support.bare", "run"]


def running(*argv: str) -> Running:
    environ = {"PYTHONPATH": f"{APPS}:{REPOSITORY}"}
    return Running(command=[*BARE, *argv, "--port", "0"], environ=environ)


@pytest.mark.parametrize("target", ["plain:asgi", "plain:wsgi", "tornado_style:delegate"])
def test_it_serves(target: str, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    with running(target, "--access-logfile", str(log)) as server:
        address = server.address()
        for _ in range(3):
            assert get(address, "/")[0] == 200
        assert server.end() == 0
        assert server.messages.lines[-1].endswith("INFO Stopped")
    assert len(log.read_text().splitlines()) == 3


PARTS = """
async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": (await receive())["text"]})
        await send({"type": "websocket.close"})


def file(environ, start_response):
    start_response("200 OK", [])
    return environ["wsgi.file_wrapper"](open(__file__, "rb"))
"""


def test_metrics_and_a_large_answer() -> None:
    with running("plain:wsgi", "--admin-bind", "127.0.0.1:0") as server:
        assert len(get(server.address(), f"/big/{4 << 20}")[2]) == 4 << 20
        admin = re.search(r"http://([\d.]+):(\d+)", server.messages.wait("(?i)(metrics|admin)"))
        assert admin is not None
        status, _, content = get((admin[1], int(admin[2])), "/metrics")
        assert (status, b"http_server_request_duration_seconds_count" in content) == (200, True)
        assert server.end() == 0


def test_websockets_files_and_tls(tmp_path: Path) -> None:
    (tmp_path / "parts.py").write_text(PARTS)
    certificate(tmp_path)
    files = ["--ssl-certfile", str(tmp_path / "fullchain.pem"), "--ssl-keyfile", str(tmp_path / "privkey.pem")]
    argv = ["parts:app", "--mount", "/file=parts:file", "--app-dir", str(tmp_path), "--lifespan", "off", *files]
    context = ssl.create_default_context(cafile=tmp_path / "authority.pem")
    with running(*argv) as server:
        _, port = server.address()
        with connect(f"wss://localhost:{port}/", ssl=context) as socket:
            socket.send("over TLS")
            assert socket.recv(timeout=60) == "over TLS"
        with urllib.request.urlopen(f"https://localhost:{port}/file", timeout=60, context=context) as answer:
            assert answer.read().decode() == PARTS
        assert server.end() == 0


def test_a_program_with_a_loop_that_cannot_watch_sockets_is_told() -> None:
    program = (
        "import tests.support.bare as bare; bare.hide()\n"
        "import asyncio, bridge\n"
        "async def main():\n"
        "    async with bridge.Server(lambda environ, start_response: [], port=0): pass\n"
        "asyncio.Runner(loop_factory=bare.Proactor).run(main())"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1] == (
        "RuntimeError: Proactor cannot watch sockets, as the default loop of Windows; run the program with "
        "asyncio.Runner(loop_factory=asyncio.SelectorEventLoop)"
    )


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
