"""The control socket: what its owner may do, that it does it, and that nothing sent to it harms the server."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.supervisor.test_administration import FORMS, until
from tests.support.running import APPS, REPOSITORY, Client, Running, get, surroundings

pytestmark = pytest.mark.slow

APP = "import plain\nasgi = plain.asgi\nVERSION = 1\n"


def steer(path: Path, *words: str) -> tuple[int, str, str]:
    """Run a command; return its status and what it has said."""
    done = subprocess.run(
        [sys.executable, "-m", "bridge", *words, "--socket", str(path)],
        env={**surroundings(), "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


def ask(path: Path, target: str, method: str = "GET") -> tuple[int, Any]:
    with Client(str(path)) as client:
        client.sock.sendall(f"{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        status, _, content = client.read()
        return status, json.loads(content)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP)
    return tmp_path


@contextlib.contextmanager
def running(place: Path, *options: str) -> Iterator[tuple[Running, Path]]:
    path = place / "control.sock"
    environ = {"PYTHONPATH": f"{place}:{APPS}:{REPOSITORY}"}
    with Running("app:asgi", "--control-socket", str(path), *options, environ=environ) as server:
        server.address()
        yield server, path


@pytest.mark.parametrize("form", FORMS)
def test_a_server_is_watched_and_stopped(form: str, place: Path) -> None:
    with running(place, *FORMS[form]) as (server, path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        status, out, _ = steer(path, "status")
        assert status == 0
        assert "serving" in out
        found = ask(path, "/status")[1]
        assert found["pid"] == server.pid
        assert len(found["workers"]) == (1 if form == "alone" else 2)
        assert ask(path, "/config")[1]["control_socket"] == str(path)
        status, out, _ = steer(path, "stop", "--wait")
        assert (status, out) == (0, "stopped\n")
        assert server.end("") == 0
    assert not path.exists()
    status, _, err = steer(path, "status")
    assert status == 1
    assert "not running" in err


def test_a_dump_shows_the_request_of_a_task(place: Path) -> None:
    for form in FORMS.values():
        with running(place, *form) as (server, path), Client(server.address()) as client:
            client.send("/sleep/30")
            until(lambda: "GET /sleep/30" in steer(path, "dump")[1])
            parts = ask(path, "/dump")[1]["workers"]
            tasks = [task for part in parts for task in part["tasks"] if task["request"] == "GET /sleep/30"]
            assert len(tasks) == 1
            assert tasks[0]["age"] > 0
            assert any("plain.py" in line and "in asgi" in line for line in tasks[0]["stack"])
            server.signal("SIGQUIT")


def test_a_blocked_loop_is_said_to_be_blocked(place: Path) -> None:
    with running(place, "--workers", "1") as (server, path), Client(server.address()) as client:
        client.send("/block/8")
        time.sleep(0.3)
        (part,) = ask(path, "/dump")[1]["workers"]
        assert "the loop is blocked" in part["error"]
        server.messages.wait("in stand_still")
        assert client.read()[0] == 200


def test_a_reload_is_waited_for(place: Path) -> None:
    with running(place, "--workers", "2") as (server, path):
        before = server.current()
        assert steer(path, "reload", "--wait") == (0, "reloaded: 2 workers serve\n", "")
        server.messages.wait("is ready", 4)
        assert not set(before.values()) & set(server.current().values())
        (place / "app.py").write_text("import plain\nasgi = plain.asgi\n1 / 0\n")
        status, _, err = steer(path, "reload", "--wait")
        assert status == 1
        assert "ZeroDivisionError: division by zero" in err
        assert 'app.py", line 3' in err  # the traceback
        assert get(server.address())[0] == 200
        (place / "app.py").write_text("async def asgi(scope, receive, send):\n    await receive()\n    raise OSError\n")
        status, _, err = steer(path, "reload", "--wait")
        (place / "app.py").write_text(APP)
        assert steer(path, "reload", "--wait")[0] == 0
        assert steer(path, "reload")[0] == 0
        server.messages.wait("Reloaded", 3)


def test_a_reload_that_brings_no_new_code_says_so(place: Path) -> None:
    with running(place, "--workers", "1", "--preload") as (server, path):
        (place / "app.py").write_text("1 / 0\n")
        status, out, err = steer(path, "reload", "--wait")
        assert (status, out) == (0, "reloaded: 1 workers serve\n")
        assert err == "--preload: the application stays as it was imported; SIGUSR2 brings new code\n"
        assert get(server.address())[0] == 200


def test_the_number_of_workers_and_other_commands(place: Path) -> None:
    with running(place, "--workers", "1") as (server, path):
        assert steer(path, "scale", "3") == (0, "3 workers\n", "")
        server.messages.wait(r"Worker 2 .* is ready")
        assert steer(path, "scale", "1")[0] == 0
        first = server.current()[0]
        status, out, _ = steer(path, "recycle", "0")
        assert (status, out) == (0, f"replaced: {first}\n")
        until(lambda: server.current()[0] != first)
        assert steer(path, "drain")[0] == 0
        assert ask(path, "/status")[1]["state"] == "draining"
        assert get(server.address())[1]["connection"] == "close"
        assert steer(path, "reload")[0] == 1
        assert steer(path, "undrain")[0] == 0
        assert "connection" not in get(server.address())[1]
        assert steer(path, "log-level", "debug", "--for", "300ms")[0] == 0
        server.messages.wait("Messages of level info and above")
        assert steer(path, "reopen")[0] == 0


def test_a_master_that_hands_over_takes_no_order_that_would_be_lost(place: Path) -> None:
    """`bridge scale 3` said "3 workers" while a new master started, which then ran two."""
    hold = place / "hold"
    with running(place, "--workers", "1") as (server, path):
        hold.touch()
        (place / "app.py").write_text(
            f"import os, time\nwhile os.path.exists({str(hold)!r}):\n    time.sleep(0.01)\n{APP}"
        )
        server.signal("SIGUSR2")
        server.messages.wait("a new master starts")
        for target in ("/scale?workers=3", "/drain", "/reload", "/log-level?level=debug"):
            status, content = ask(path, target, "POST")
            assert (status, "a new master is starting" in content["error"]) == (409, True)
        server.signal("SIGTTIN")  # it is for the new master
        server.messages.wait("SIGTTIN waits")
        hold.unlink()
        master = int(re.search(r"pid (\d+)", server.messages.wait("this one retires"))[1])  # type: ignore[index]
        until(lambda: server.process.poll() is not None)
        server.messages.wait("2 workers from now on")
        assert ask(path, "/scale?workers=1", "POST") == (200, {"workers": 1})
        os.kill(master, signal.SIGTERM)


@pytest.mark.parametrize("form", ["alone", "workers"])
def test_wrong_commands(form: str, place: Path) -> None:
    with running(place, *FORMS[form]) as (_, path):
        expected = 409 if form == "alone" else 400
        for target, status in [
            ("/scale", expected),
            ("/scale?workers=0", expected),
            ("/scale?workers=1001", expected),
            ("/scale?workers=-1", expected),
            ("/scale?workers=2&more=1", expected),
            ("/recycle?worker=77", expected),
            ("/reload?wait=never", 409 if form == "alone" else 400),
            ("/log-level?level=loud", 400),
            ("/log-level?level=info&for=never", 400),
            ("/stop?now=1", 400),
            ("/undrain", 409),
            ("/explode", 404),
        ]:
            found, content = ask(path, target, "POST")
            assert (target, found) == (target, status)
            assert content["error"]
            if status in {400, 404}:
                assert "allowed" in content
        assert ask(path, "/stop", "GET")[0] == 405
        assert ask(path, "/dump?worker=x")[0] in {400, 409}
        assert steer(path, "scale")[0] == 2
        assert steer(path, "status", "--colour")[0] == 2


@pytest.mark.parametrize("number", [500, pytest.param(10_000, marks=pytest.mark.long)])
@pytest.mark.parametrize("form", ["alone", "workers"])
def test_random_requests(form: str, number: int, place: Path) -> None:
    rng = random.Random(16)
    words = ["/status", "/config", "/workers", "/dump", "/scale", "/recycle", "/drain", "/undrain", "/log-level",
             "/reopen", "/metrics", "/livez", "/readyz", "/x", "/", "*", "//", "/status/../stop"]  # fmt: skip
    parameters = ["", "?workers=2", "?workers=x", "?worker=0", "?worker=99999999999", "?level=info", "?for=1", "?%00",
                  "?level=debug&for=1ms", "?=&=&", "?wait", "?workers=2&workers=1"]  # fmt: skip
    methods = ["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "X" * 50, "get"]
    with running(place, *FORMS[form]) as (server, path):
        address = server.address()
        for index in range(number):
            data = f"{rng.choice(methods)} {rng.choice(words)}{rng.choice(parameters)} HTTP/1.1\r\nHost: a\r\n\r\n"
            raw = data.encode()
            kind = rng.random()
            if kind < 0.1:
                raw = rng.randbytes(rng.randrange(200))
            elif kind < 0.2:
                raw = raw[: rng.randrange(len(raw))]
            with socket.socket(socket.AF_UNIX) as sock:
                sock.settimeout(10)
                sock.connect(str(path))
                with contextlib.suppress(ConnectionError):
                    sock.sendall(raw)
                    sock.shutdown(socket.SHUT_WR)
                    if kind > 0.3:
                        sock.recv(65536)
            if index % 500 == 0:
                assert get(address)[0] == 200
        ask(path, "/undrain", "POST")
        until(lambda: get(str(path), "/readyz")[0] == 200)
        assert get(address)[0] == 200
        assert "Traceback" not in server.messages.text
        assert server.end() == 0


def test_a_hundred_clients_at_once(place: Path) -> None:
    with running(place, "--workers", "2") as (server, path), contextlib.ExitStack() as stack:
        clients = []
        for index in range(100):  # each asks at once: connections on which nothing comes are closed after a while
            clients.append(stack.enter_context(Client(str(path))))
            clients[-1].send(["/status", "/dump", "/metrics", "/workers"][index % 4])
        assert {client.read()[0] for client in clients} == {200}
        assert get(server.address())[0] == 200


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_another_user_is_refused(place: Path) -> None:
    with running(place, "--workers", "1") as (server, path):
        os.chmod(path, 0o666)  # as if the mode did not protect it
        for parent in (place, *place.parents[:3]):
            with contextlib.suppress(PermissionError):
                os.chmod(parent, 0o755)
        script = (
            "import os, socket, sys\nos.setuid(65534)\ns = socket.socket(socket.AF_UNIX)\ns.connect(sys.argv[1])\n"
            "s.sendall(b'POST /stop HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n')\nprint(s.recv(65536).decode())\n"
        )
        done = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, timeout=30)
        assert done.stdout.startswith("HTTP/1.1 403"), done.stderr
        assert "belongs to user 0" in done.stdout
        assert get(server.address())[0] == 200


def test_the_usual_place_is_found(place: Path) -> None:
    runtime = place / "runtime"
    runtime.mkdir()
    environ = {"PYTHONPATH": f"{place}:{APPS}:{REPOSITORY}", "XDG_RUNTIME_DIR": str(runtime)}
    base = {name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_")}

    def status() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "bridge", "status"],
            env={**base, **environ},
            capture_output=True,
            text=True,
            timeout=60,
        )

    with Running("app:asgi", "--workers", "1", environ=environ) as server:
        server.address()
        assert [path.name for path in runtime.iterdir()] == [f"bridge-{server.pid}.ctl"]
        done = status()
        assert done.returncode == 0, done.stderr
        assert "requests are counted with" in done.stdout
        with Running("app:asgi", "--workers", "1", environ=environ) as other:
            other.address()
            done = status()
            assert done.returncode == 2
            assert "several servers" in done.stderr
            other.end("SIGKILL")
        assert status().returncode == 0
        assert server.end() == 0
    assert list(runtime.iterdir()) == []
    assert status().returncode == 1


@pytest.mark.parametrize("form", FORMS)
def test_a_socket_that_cannot_be_made(form: str, place: Path) -> None:
    with Running("plain:asgi", "--control-socket", str(place / "missing" / "c.sock"), *FORMS[form]) as server:
        assert server.end("") == 1
    assert "--control-socket: cannot listen on" in server.messages.lines[-1]
