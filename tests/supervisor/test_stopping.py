"""The end of a server: what is in progress, signals while it starts, and what is left behind."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.supervisor.test_master import path_of
from tests.support.running import Client, Running, get, gone

pytestmark = pytest.mark.slow

both = pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["alone", "master"])
DRAIN = 1.0
EVERYTHING = ["plain:sockets", "--mount", "/w=plain:wsgi", "--timeout-drain-websockets", f"{DRAIN}s"]


@both
def test_a_stop_waits_for_everything_that_is_in_progress(workers: list[str]) -> None:
    client = pytest.importorskip("websockets.sync.client", reason="websockets is not installed")
    with Running(*EVERYTHING, "--timeout-drain-streams", f"{DRAIN}s", *workers) as server:
        host, port = address = server.address()
        size = 20_000_000  # more than the buffers of the system take
        with ExitStack() as stack:
            clients = [stack.enter_context(Client(address)) for _ in range(7)]
            idle, plain, stream, events, sleeping, reader, upload = clients
            ws = stack.enter_context(client.connect(f"ws://{host}:{port}/"))
            idle.get()
            ws.send("one")
            assert ws.recv() == "one"
            plain.send("/sleep/1.5")
            stream.send("/stream/1.5")
            events.send("/events")
            events.sock.recv(1000)
            sleeping.send("/w/sleep/1.5")
            reader.send(f"/w/big/{size}")
            reader.sock.recv(10)
            upload.sock.sendall(b"POST /w/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + b"x" * 50_000)
            for _ in range(8):  # they are in progress when later requests have been answered, in each worker
                get(address)
                get(address, "/w/")
            start = time.monotonic()
            server.signal("SIGTERM")
            assert idle.closed()
            ws.send("two")
            assert ws.recv() == "two"
            with pytest.raises(Exception, match="1001"):
                ws.recv(timeout=10)
            assert time.monotonic() - start >= DRAIN
            content = b""
            while data := events.sock.recv(65536):
                content += data
            assert content.endswith(b"data: x\n\n\r\n")  # without the end that the application has not sent
            assert time.monotonic() - start >= DRAIN
            assert (plain.read()[0], sleeping.read()[0]) == (200, 200)
            content = b""
            while data := stream.sock.recv(65536):
                content += data
            assert content.endswith(b"1\r\n.\r\n0\r\n\r\n")
            assert content.count(b"1\r\nx\r\n") == 30
            upload.sock.sendall(b"x" * 50_000)
            assert upload.read()[2] == b"100000"
            count = 0
            while data := reader.sock.recv(65536):
                count += len(data)
            assert count >= size
        assert server.end("") == 0
        text = server.messages.text
        assert re.findall("Stopping: .*cut off", text) == ["Stopping: the response to GET /events is cut off"]
        assert "ERROR" not in text
        for words in ("1 WebSocket", "GET /sleep/1.5", "GET /stream/1.5", "GET /events", "GET /w/sleep/1.5"):
            assert re.search(f"Stopping: waiting for .*{words}", text)
        for words in (f"GET /w/big/{size}", "POST /w/upload"):
            assert re.search(f"Stopping: waiting for .*{words}", text)


@both
@pytest.mark.parametrize("request_", ["/sleep/60", "/events", "/w/sleep/60"])
def test_nothing_is_cut_before_its_deadline(workers: list[str], request_: str) -> None:
    limits = ["--timeout-graceful-shutdown", "1s", "--timeout-drain-streams", "off"]
    with Running(*EVERYTHING, *limits, *workers) as server:
        address = server.address()
        with Client(address) as client:
            client.send(request_)
            for _ in range(8):
                get(address)
            server.signal("SIGTERM")
            start = time.monotonic()
            with pytest.raises(OSError):
                while True:
                    if client.sock.recv(65536) == b"":
                        raise ConnectionError
            assert 0.9 <= time.monotonic() - start < 4
        assert server.end("") == 0
        assert re.search(rf"waiting for 1 request \(GET {request_}\), for 1 s at most", server.messages.text)
        assert "1 connection cut off" in server.messages.text


HANGING = "import os, time\nos.write(2, b'here\\n')\ntime.sleep(60)\n"
WAITING = (
    "import asyncio, os\n"
    "async def app(scope, receive, send):\n"
    "    await receive()\n"
    "    os.write(2, b'here\\n')\n"
    "    try:\n"
    "        await asyncio.sleep(60)\n"
    "    finally:\n"
    "        os.write(2, b'given up\\n')\n"
)


@both
@pytest.mark.parametrize("code", [HANGING, WAITING], ids=["import", "lifespan"])
@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGQUIT"])
def test_a_signal_ends_a_start_that_is_not_complete(tmp_path: Path, workers: list[str], code: str, name: str) -> None:
    (tmp_path / "hanging.py").write_text(code)
    path, pid = tmp_path / "a.sock", tmp_path / "pid"
    argv = ["hanging:app", "--uds", str(path), "--pid", str(pid), "--app-dir", str(tmp_path)]
    with Running(*argv, *workers) as server:
        server.messages.wait("^here", len(workers) or 1)
        assert path.exists()
        status = server.end(name)
        assert status == (130 if name == "SIGINT" and not workers else 0)
        assert f"Stopping on {name}" in server.messages.text
        assert "Traceback" not in server.messages.text
        assert "ERROR" not in server.messages.text
        assert ("given up" in server.messages.text) == (code is WAITING and not workers)
        assert not path.exists()
        assert not pid.exists()
        assert gone(server.pid)


@both
def test_a_hangup_does_not_disturb_a_start(tmp_path: Path, workers: list[str]) -> None:
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    (tmp_path / "gated.py").write_text(
        f"import os\nos.write(1, b'here\\n')\nopen({str(gate)!r}).close()\nfrom plain import asgi\n"
    )
    with Running("gated:asgi", "--app-dir", str(tmp_path), *workers, environ=path_of(tmp_path)) as server:
        server.output.wait("here", len(workers) or 1)
        server.signal("SIGHUP")
        stop = threading.Event()

        def open_gate() -> None:
            while not stop.is_set():
                with open(gate, "w"):
                    stop.wait(0.05)

        thread = threading.Thread(target=open_gate)
        thread.start()
        try:
            assert get(server.address())[0] == 200
            if workers:
                server.messages.wait("Reloaded: 2 workers")
            assert server.end() == 0
        finally:
            stop.set()
            while thread.is_alive():  # it may wait for a reader
                reader = os.open(gate, os.O_RDONLY | os.O_NONBLOCK)
                thread.join(0.02)
                os.close(reader)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGQUIT"])
def test_a_signal_during_a_reload_ends_all(tmp_path: Path, name: str) -> None:
    module = tmp_path / "changing.py"
    module.write_text("from plain import asgi\n")
    config = tmp_path / "bridge.toml"
    old, new = tmp_path / "old.sock", tmp_path / "new.sock"
    config.write_text(f'bind = "unix:{old}"\nworkers = 2\n')
    with Running("changing:asgi", "--config", str(config), environ=path_of(tmp_path)) as server:
        server.messages.wait("bridge: serving")
        with Client(str(old)) as client:
            client.send("/sleep/0.6")
            get(str(old))
            get(str(old))
            module.write_text(HANGING)
            config.write_text(f'bind = "unix:{new}"\nworkers = 2\n')
            server.signal("SIGHUP")
            server.messages.wait("^here")
            server.signal(name)
            if name != "SIGQUIT":
                assert client.read()[0] == 200
        assert server.end("") == 0
        assert not old.exists()
        assert not new.exists()
        assert gone(server.pid)


def test_a_second_signal_cuts_with_workers() -> None:
    with Running("plain:asgi", "--workers", "2") as server:
        address = server.address()
        with Client(address) as client:
            client.send("/sleep/60")
            get(address)
            get(address)
            server.signal("SIGTERM")
            server.messages.wait("waiting for 1 request")
            start = time.monotonic()
            server.signal("SIGTERM")
            assert client.closed()
            assert server.end("") == 0
            assert time.monotonic() - start < 20


@pytest.mark.parametrize("way", [["--workers", "2"], ["--workers", "2", "--preload"], ["--reload"]], ids=" ".join)
def test_a_signal_to_all_processes_is_a_stop_and_nothing_else(way: list[str]) -> None:
    """Process managers, and `timeout`, signal a whole group: the master, its workers, who watches files."""
    if "--reload" in way:
        pytest.importorskip("watchfiles", reason="the extra `reload` is not installed")
    with Running("plain:asgi", *way) as server:
        address = server.address()
        with Client(address) as client:
            client.send("/sleep/0.3")
            get(address)
            get(address)
            os.killpg(server.pid, signal.SIGTERM)
            assert client.read()[0] == 200
        assert server.end("") == 0
        text = server.messages.text
        assert "Stopping on SIGTERM" in text
        assert text.count(" is ready") == (2 if "2" in way else 1)
        assert not re.search("served its time|ERROR|WARNING|Traceback", text)
        assert gone(server.pid)
