"""Workers: readiness, replacement, reload, handover, what stands still, what dies."""

from __future__ import annotations

import json
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support import ROOT
from tests.support.running import APPS, PATIENCE, Client, Running, get

pytestmark = pytest.mark.slow


class Load:
    """Threads that ask one request after the other and check every answer."""

    def __init__(self, address: tuple[str, int], clients: int) -> None:
        self.address = address
        self.pids: set[str] = set()
        self.count = 0
        self.faults: list[str] = []
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while not self._stop.is_set():
            idle = time.monotonic()  # since when the connection is without a request
            sent = 0.0
            try:
                with Client(self.address) as client:
                    while not self._stop.is_set():
                        client.send()
                        sent = time.monotonic()
                        status, fields, content = client.read()
                        with self._lock:
                            self.count += 1
                            self.pids.add(content.decode())
                            if status != 200:
                                self.faults.append(f"status {status}")
                        if fields.get("connection") == "close":
                            break
                        idle = time.monotonic()
            except OSError as exc:
                # A worker that leaves waits a second for the request of a new connection. On a busy machine it may be
                # this client that was late.
                waited = (sent if sent > idle else time.monotonic()) - idle
                if waited < 0.9 or isinstance(exc, ConnectionRefusedError):
                    with self._lock:
                        self.faults.append(repr(exc))

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@contextmanager
def load(address: tuple[str, int], clients: int = 4) -> Iterator[Load]:
    running = Load(address, clients)
    try:
        yield running
    finally:
        running.stop()


@pytest.mark.parametrize("app", ["plain:asgi", "plain:wsgi"])
def test_no_request_fails_while_workers_are_replaced(app: str) -> None:
    with Running(app, "--workers", "2", "--no-access-log") as server:
        address = server.address()
        before = server.workers()
        assert len(before) == 2
        with load(address) as clients:
            for number in range(1, 4):
                server.signal("SIGHUP")
                server.messages.wait("Reloaded: 2 workers", number)
            server.signal("SIGTTIN")
            server.messages.wait(r"Worker 2 .* is ready")
            server.signal("SIGTTOU")
            server.messages.wait(r"Worker 2 .* ended with status 0")
            victim = server.current()[0]  # not one that is leaving already
            os.kill(victim, signal.SIGTERM)  # somebody ends a worker by hand
            server.messages.wait(rf"\(pid {victim}\) ended with status 0")
        assert clients.faults == []
        assert clients.count > 100
        assert not before & server.workers()
        assert server.end() == 0


def test_a_new_master_takes_over(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with Running("plain:asgi", "--workers", "2", "--no-access-log", "--pid", str(pid_file)) as server:
        address = server.address()
        assert pid_file.read_text() == f"{server.pid}\n"
        with load(address) as clients:
            server.signal("SIGUSR2")
            new = int(re.search(r"a new master starts \(pid (\d+)\)", server.messages.wait("a new master starts"))[1])  # type: ignore[index]
            server.messages.wait("bridge: serving", 2)
            assert server.process.wait(PATIENCE) == 0
        assert clients.faults == []
        assert str(server.pid) not in clients.pids
        assert pid_file.read_text() == f"{new}\n"
        assert get(address)[0] == 200
        os.kill(new, signal.SIGTERM)
        server.messages.wait(rf"\[{new}\] INFO Worker 1 .* ended")


def test_a_new_master_that_fails_is_no_harm(tmp_path: Path) -> None:
    module = tmp_path / "changing.py"
    module.write_text("from plain import asgi as app\n")
    with Running("changing:app", "--workers", "1", environ=path_of(tmp_path)) as server:
        address = server.address()
        module.write_text("raise RuntimeError('new code')\n")
        server.signal("SIGUSR2")
        server.messages.wait("has failed; this one goes on")
        assert get(address)[0] == 200
        assert server.end() == 0


def path_of(directory: Path) -> dict[str, str]:
    """Return an environment in which modules are found there, and never as they were compiled a moment ago."""
    root = ROOT
    return {"PYTHONPATH": f"{root}:{directory}:{APPS}", "PYTHONDONTWRITEBYTECODE": "1"}


def test_reload_brings_new_code_and_keeps_the_old_when_it_is_broken(tmp_path: Path) -> None:
    module = tmp_path / "changing.py"
    template = "async def app(scope, receive, send):\n    from plain import _answer\n    await _answer(send, b'{}')\n"
    module.write_text(template.format("one"))
    with Running("changing:app", "--workers", "2", "--lifespan", "off", environ=path_of(tmp_path)) as server:
        address = server.address()
        assert get(address)[2] == b"one"
        module.write_text("raise RuntimeError('broken')\n")
        server.signal("SIGHUP")
        message = server.messages.wait("Reload failed, the old workers go on")
        assert "importing module 'changing' raised RuntimeError" in message
        assert get(address)[2] == b"one"
        module.write_text(template.format("two"))
        server.signal("SIGHUP")
        server.messages.wait("Reloaded: 2 workers")
        assert get(address)[2] == b"two"
        assert server.end() == 0


def test_reload_takes_new_settings(tmp_path: Path) -> None:
    config = tmp_path / "bridge.toml"
    path = tmp_path / "new.sock"
    config.write_text("workers = 1\nport = 0\n")
    with Running("plain:asgi", "--config", str(config)) as server:
        address = server.address()
        config.write_text(f'workers = 2\nbind = ["127.0.0.1:0", "unix:{path}"]\n')
        server.signal("SIGHUP")
        server.messages.wait("Reloaded: 2 workers")
        assert get(str(path))[0] == 200
        assert get(address)[0] == 200  # the same address is kept
        config.write_text("prot = 1\n")
        server.signal("SIGHUP")
        assert "bridge.toml: prot" in server.messages.wait("Reload failed")
        assert get(str(path))[0] == 200
        assert server.end() == 0
        assert not path.exists()


def test_reload_takes_new_settings_of_the_logs(tmp_path: Path) -> None:
    config = tmp_path / "bridge.toml"
    config.write_text("workers = 1\nport = 0\n")
    with Running("plain:asgi", "--config", str(config)) as server:
        address = server.address()
        unused = tmp_path / "unused.sock"
        config.write_text(f'workers = 1\nlog_config = "missing.json"\nbind = ["127.0.0.1:0", "unix:{unused}"]\n')
        server.signal("SIGHUP")
        assert "missing.json" in server.messages.wait("Reload failed, the old workers go on")
        assert get(address)[0] == 200
        assert not unused.exists()
        config.write_text('workers = 1\nport = 0\nlog_format = "json"\n')
        server.signal("SIGHUP")
        line = json.loads(server.messages.wait('"message": "Reloaded: 1 worker'))
        assert (line["level"], line["logger"]) == ("info", "bridge.general")
        assert get(address)[0] == 200
        assert server.end() == 0


def test_a_killed_worker_costs_its_own_requests_only() -> None:
    with Running("plain:asgi", "--workers", "2") as server:
        address = server.address()
        with pytest.raises(OSError):
            get(address, "/kill")
        server.messages.wait("was killed by SIGKILL")
        assert get(address)[0] == 200
        server.messages.wait("is ready", 3, timeout=5)
        assert server.end() == 0


def test_a_lone_worker_that_keeps_dying_is_started_again_soon() -> None:
    with Running("plain:asgi", "--workers", "1") as server:
        address = server.address()
        for number in (1, 2, 3):
            with pytest.raises(OSError):
                get(address, "/kill")
            server.messages.wait("was killed by SIGKILL", number)
            server.messages.wait("is ready", number + 1)
        # On a busy machine one may have lived for long before its request came: then the next one did not wait.
        assert set(re.findall(r"starts again in (\S+) s", server.messages.text)) <= {"0.05"}
        assert server.end() == 0


def test_a_blocked_loop_is_shown_and_replaced() -> None:
    with Running("plain:asgi", "--workers", "1", "--timeout-worker", "0.8") as server:
        address = server.address()
        with Client(address) as client:
            client.send("/block/30")
            server.messages.wait("has stood still for 0.8 s and is replaced")
            server.messages.wait(r'plain.py", line \d+ in stand_still')
            server.messages.wait("is ready", 2)
            assert client.closed()
        assert get(address)[0] == 200
        assert server.end() == 0


def test_a_deadlocked_thread_is_shown_and_a_full_pool_is_replaced() -> None:
    with Running("plain:wsgi", "--workers", "1", "--threads", "1", "--timeout-worker", "0.8") as server:
        address = server.address()
        with Client(address) as first, Client(address) as second:
            first.send("/deadlock")
            server.messages.wait("has been busy for 0.8 s; it is here")
            server.messages.wait(r'plain.py", line \d+, in never_released')
            second.send("/")  # nobody is left to answer it
            server.messages.wait("has no thread left to serve with, and is replaced")
            server.messages.wait("Stopping: waiting for 2 requests")
        assert get(address)[0] == 200
        assert server.end("SIGQUIT") == 0


def test_a_stopped_process_group_is_not_blamed() -> None:
    """The time is one that a busy machine does not take from a worker by itself."""
    with Running("plain:asgi", "--workers", "1", "--timeout-worker", "2") as server:
        address = server.address()
        worker = get(address)[2]
        os.killpg(server.pid, signal.SIGSTOP)
        threading.Event().wait(3.5)  # more than a second longer than the master wanted to wait
        os.killpg(server.pid, signal.SIGCONT)
        assert get(address)[2] == worker
        for number in (1, 2):  # two turns of the master: whom it blames, it has blamed by then
            server.signal("SIGUSR1")
            server.messages.wait("Log files reopened", number)
        assert "stood still" not in server.messages.text
        assert server.end() == 0


def test_an_application_that_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(60)\n")
    argv = ["slow:app", "--workers", "1", "--timeout-worker-startup", "0.5", "--app-dir", str(tmp_path)]
    with Running(*argv) as server:
        assert server.end("") == 3
        assert "bridge: the application took too long to start" in server.messages.lines
        assert re.search(r'slow.py", line 2 in <module>', server.messages.text)


def test_workers_serve_for_a_time() -> None:
    with Running("plain:asgi", "--workers", "1", "--limit-max-requests", "5", "--no-access-log") as server:
        address = server.address()
        with load(address, 2) as clients:
            server.messages.wait("has served its time", 3)
        assert clients.faults == []
        assert len(clients.pids) >= 3
        assert server.end() == 0


def test_workers_live_for_a_time() -> None:
    with Running("plain:asgi", "--workers", "1", "--workers-lifetime", "300ms") as server:
        server.address()
        server.messages.wait("has served its time", 2)
        assert server.end() == 0


def test_one_process_ends_after_its_requests() -> None:
    with Running("plain:asgi", "--limit-max-requests", "2") as server:
        address = server.address()
        get(address)
        get(address)
        assert server.end("") == 0


def test_workers_stop_when_the_master_is_gone() -> None:
    with Running("plain:asgi", "--workers", "2") as server:
        address = server.address()
        server.signal("SIGKILL")
        server.messages.wait("The master process is gone", 2)
        server.messages.join()  # the workers held the pipe
        with pytest.raises(ConnectionRefusedError):
            get(address)


def test_preload() -> None:
    with Running("once:asgi", "--workers", "2", "--preload") as server:
        address = server.address()
        assert get(address)[2].decode() == str(server.pid)  # where it was imported
        server.signal("SIGHUP")
        server.messages.wait("the application stays as it was imported")
        server.messages.wait("Reloaded: 2 workers")
        assert server.end() == 0


def test_a_graceful_stop_with_workers() -> None:
    with Running("plain:asgi", "--workers", "2") as server:
        address = server.address()
        with Client(address) as plain, Client(address) as stream, Client(address) as idle:
            idle.get()
            plain.send("/sleep/0.7")
            stream.send("/stream/1")
            get(address)
            get(address)
            server.signal("SIGTERM")
            assert plain.read()[0] == 200
            content = b""
            while data := stream.sock.recv(1000):
                content += data
            assert content.endswith(b"1\r\n.\r\n0\r\n\r\n")
            assert idle.closed()
        assert server.end("") == 0
        assert re.search(r"waiting for .*GET /sleep/0.7", server.messages.text)
        assert re.search(r"waiting for .*GET /stream/1", server.messages.text)


@pytest.mark.parametrize("workers", [[], ["--workers", "1"]], ids=["alone", "master"])
def test_a_graceful_stop_with_a_websocket(workers: list[str]) -> None:
    client = pytest.importorskip("websockets.sync.client", reason="websockets is not installed")
    with Running("plain:sockets", "--timeout-drain-websockets", "0.5", *workers) as server:
        address = server.address()
        with client.connect("ws://%s:%d/" % address) as socket, Client(address) as plain:  # noqa: UP031
            socket.send("before")
            assert socket.recv() == "before"
            plain.send("/sleep/0.3")
            get(address)
            server.signal("SIGTERM")
            socket.send("while it drains")
            assert socket.recv() == "while it drains"
            assert plain.read()[0] == 200
            with pytest.raises(Exception, match="1001"):
                socket.recv(timeout=10)
        assert server.end("") == 0
        assert "Stopping: waiting for 1 WebSocket" in server.messages.text


@pytest.mark.parametrize("name", ["SIGINT", "SIGQUIT"])
def test_a_fast_stop_with_workers(name: str) -> None:
    with Running("plain:asgi", "--workers", "2") as server:
        address = server.address()
        with Client(address) as client:
            client.send("/sleep/60")
            get(address)
            get(address)
            server.signal(name)
            if name == "SIGINT":
                server.messages.wait("waiting for 1 request")
                server.signal("SIGINT")
            assert client.closed()
        assert server.end("") == 0


def test_log_files_are_reopened(tmp_path: Path) -> None:
    access, errors = tmp_path / "access.log", tmp_path / "error.log"
    argv = ["plain:asgi", "--workers", "2", "--access-logfile", str(access), "--error-logfile", str(errors)]
    with Running(*argv) as server:
        address = server.address()
        get(address)
        access.rename(tmp_path / "access.1")
        errors.rename(tmp_path / "error.1")
        server.signal("SIGUSR1")
        while not errors.exists() or "Log files reopened" not in errors.read_text():
            threading.Event().wait(0.01)
        while not access.exists():
            threading.Event().wait(0.01)
        threading.Event().wait(0.2)
        for _ in range(8):
            get(address, "/after")
        assert server.end() == 0
        assert "GET / HTTP/1.1" in (tmp_path / "access.1").read_text()
        assert access.read_text().count("/after") == 8
