"""Probes and metrics of servers in all forms: they show what happens, and no counter falls, whoever is killed."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.running import PATIENCE, Client, Running, get

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
