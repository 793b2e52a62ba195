"""Probes and metrics of servers in all forms: they show what happens, and no counter falls, whoever is killed."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.running import PATIENCE, REPOSITORY, Client, Running, get, surroundings

pytestmark = pytest.mark.slow

FORMS = {"alone": [], "workers": ["--workers", "2"], "preload": ["--workers", "2", "--preload"]}


def samples(address: tuple[str, int] | str, path: str = "/metrics") -> dict[str, float]:
    status, _, content = get(address, path)
    assert status == 200
    lines = [line for line in content.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def total(found: dict[str, float], name: str = "http_server_request_duration_seconds_count") -> float:
    return sum(value for key, value in found.items() if key.partition("{")[0] == name)


def until(condition: Callable[[], Any]) -> Any:
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < end
        time.sleep(0.01)
    return found


def counters(found: dict[str, float]) -> dict[str, float]:
    return {key: value for key, value in found.items() if re.search(r"_(?:total|count|sum|bucket)\b", key)}


def probes(server: Running, count: int = 1) -> tuple[str, int]:
    """Return where probes and metrics are answered, as the log says."""
    match = re.search(r"http://([0-9.]+):([0-9]+)", server.messages.wait("Probes and metrics on", count))
    assert match is not None
    return match[1], int(match[2])


@pytest.fixture
def socket_path(tmp_path: Any) -> str:
    return str(tmp_path / "admin.sock")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("app", ["plain:asgi", "plain:wsgi", "tornado_style:callable_app"])
def test_what_is_served_is_counted(form: str, app: str, socket_path: str) -> None:
    options = ["--admin-bind", f"unix:{socket_path}", "--metrics-path", "/metrics"]
    with Running(app, *options, *FORMS[form]) as server:
        address = server.address()
        for _ in range(20):
            get(address)
        with Client(address) as client:
            client.sock.sendall(b"nonsense\r\n\r\n")
            client.read()
        for where, path in ((socket_path, "/metrics"), (address, "/metrics")):
            found = samples(where, path)
            assert total(found) == 20
            assert found['bridge_requests_refused_total{reason="malformed"}'] == 1
        for probe in ("/livez", "/readyz", "/startupz"):
            assert get(socket_path, probe)[::2] == (200, b"ok\n")
        assert get(socket_path, "/status")[0] == 200
        assert get(address, "/metrics", "X-Forwarded-For: 192.0.2.1")[1].get("content-type") != (
            "text/plain; version=0.0.4; charset=utf-8"
        )
        assert server.end() == 0
    assert not os.path.exists(socket_path)


#: What clients send that hold a connection to the admin address as long as they can.
HOLDERS = {
    "nothing": b"",
    "a probe, and no end": b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n",
    "metrics that are not read": b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n",
}


@pytest.mark.parametrize("form", FORMS)
def test_no_client_keeps_a_probe_waiting(form: str) -> None:
    """A kubelet waits for a second. A client that is too slow has five, so the probe must not wait for its end."""
    with Running("plain:asgi", "--admin-bind", "127.0.0.1:0", *FORMS[form]) as server:
        server.address()
        where = probes(server)
        with contextlib.ExitStack() as stack:
            for sent in HOLDERS.values():
                for _ in range(300):
                    client = stack.enter_context(socket.socket())
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
                    client.connect(where)
                    with contextlib.suppress(OSError):  # it was ended meanwhile
                        client.sendall(sent)
                with Client(where, timeout=4.0) as probe:
                    assert probe.get("/livez")[0] == 200
        assert server.end() == 0


@pytest.mark.parametrize("form", ["alone", "workers"])
def test_where_they_are_is_said(form: str, tmp_path: Any) -> None:
    control = str(tmp_path / "c.sock")
    options = ["--admin-bind", "127.0.0.1:0", "--control-socket", control]
    with Running("plain:asgi", *options, *FORMS[form]) as server:
        server.address()
        host, port = where = probes(server)
        assert samples(where)
        words = [sys.executable, "-m", "bridge", "status", "--socket", control]
        environ = {**surroundings(), "PYTHONPATH": str(REPOSITORY)}
        shown = subprocess.run(words, capture_output=True, text=True, timeout=PATIENCE, env=environ, check=True)
        assert f"probes and metrics on http://{host}:{port}\n" in shown.stdout
        assert server.end() == 0


@pytest.mark.long
@pytest.mark.parametrize("part", range(4))
def test_no_counter_falls_at_any_change_of_masters(part: int) -> None:
    """Twenty changes in all, in parts that end in time on a busy machine."""
    with Running("plain:asgi", "--workers", "2", "--admin-bind", "127.0.0.1:0") as server:
        address = server.address()
        where = probes(server)
        falls: list[object] = []
        looks = served = 0
        over = threading.Event()

        def look() -> None:
            nonlocal looks
            last: dict[str, float] = {}
            while not over.is_set():
                now = samples(where)
                before, last = last, counters(now)
                falls.extend((key, value, last.get(key)) for key, value in before.items() if last.get(key, -1) < value)
                looks += 1
                over.wait(0.02)

        def serve() -> None:
            nonlocal served
            while not over.is_set():
                assert get(address)[0] == 200
                served += 1
                over.wait(0.02)

        with ThreadPoolExecutor(2) as pool:
            running = [pool.submit(look), pool.submit(serve)]
            master = server.pid
            try:
                for number in range(1, 6):
                    os.kill(master, signal.SIGUSR2)
                    line = server.messages.wait(r"this one retires", number)
                    master = int(re.search(r"pid (\d+)", line)[1])  # type: ignore[index]  # the pattern has it
                    seen = looks
                    until(lambda seen=seen: looks > seen + 1)  # type: ignore[misc]  # mypy knows no such lambda
            finally:
                over.set()
            for future in running:
                future.result()
        assert falls == []
        assert looks > 10
        until(lambda: total(samples(where)) == served)
        os.kill(master, signal.SIGTERM)


def test_no_counter_falls(socket_path: str) -> None:
    with Running("plain:asgi", "--workers", "2", "--admin-bind", f"unix:{socket_path}") as server:
        address = server.address()
        served = 0
        last: dict[str, float] = {}

        def serve(number: int = 30) -> None:
            nonlocal served, last
            for _ in range(number):
                assert get(address)[0] == 200
            served += number
            now = samples(socket_path)
            assert total(now) == served
            before = counters(last)
            assert {key: (value, now.get(key)) for key, value in before.items() if now.get(key, -1.0) < value} == {}
            last = now

        serve()
        victim = next(iter(server.current().values()))
        os.kill(victim, signal.SIGKILL)
        server.messages.wait(r"was killed by SIGKILL")
        server.messages.wait(r"is ready", 3)
        serve()
        assert last['bridge_worker_exits_total{reason="crashed"}'] == 1
        server.signal("SIGHUP")
        server.messages.wait("Reloaded")
        serve()
        until(lambda: samples(socket_path).get('bridge_worker_exits_total{reason="reload"}') == 2)
        serve()
        assert last['bridge_reloads_total{result="success"}'] == 1
        os.kill(next(iter(server.current().values())), signal.SIGTERM)  # as when it has served its time
        until(lambda: samples(socket_path).get('bridge_worker_exits_total{reason="asked"}') == 1)
        serve()
        server.signal("SIGUSR2")
        server.messages.wait("this one retires")
        serve()  # at once: the new master answers when the old one has said that it does not
        until(lambda: server.process.poll() is not None)
        serve()
        serve()
        new = re.search(r"a new master starts \(pid (\d+)\)", server.messages.text)
        assert new is not None
        os.kill(int(new[1]), signal.SIGTERM)
