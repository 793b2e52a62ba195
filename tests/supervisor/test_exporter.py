"""Metrics that servers in all forms send: all of them have arrived when the server has ended."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket

import pytest

from tests.supervisor.test_administration import FORMS
from tests.support.running import PATIENCE, Running, get, gone

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("form", FORMS)
def test_statsd_gets_every_request(form: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        options = ["--statsd", f"127.0.0.1:{sink.getsockname()[1]}", "--statsd-prefix", "shop"]
        with Running("plain:asgi", *options, *FORMS[form]) as server:
            address = server.address()
            sink.settimeout(10)
            assert b"shop.workers:" in sink.recv(2000)  # the first look is behind it
            for _ in range(25):
                assert get(address)[0] == 200
            assert server.end() == 0
            assert gone(server.pid)
        lines = received(sink)
        assert requests(lines) == 25
        assert any(line.startswith("shop.request.status.200:") for line in lines)


def received(sink: socket.socket) -> list[str]:
    """Return the lines that wait."""
    sink.setblocking(False)
    lines: list[str] = []
    with contextlib.suppress(BlockingIOError):
        while True:
            lines += sink.recv(2000).decode().split("\n")
    return lines


def requests(lines: list[str]) -> int:
    return sum(int(line.split(":")[1].split("|")[0]) for line in lines if line.startswith("shop.requests:"))


def test_two_masters_tell_statsd_no_request_twice() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        sink.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        options = ["--statsd", f"127.0.0.1:{sink.getsockname()[1]}", "--statsd-prefix", "shop", "--workers", "1"]
        with Running("plain:asgi", *options) as server:
            address = server.address()
            sink.settimeout(10)
            first = [sink.recv(2000).decode()]  # the first look is behind it
            number = 0
            server.signal("SIGUSR2")
            while "this one retires" not in server.messages.text:  # the old master's worker serves
                assert get(address)[0] == 200
                number += 1
            assert server.process.wait(PATIENCE) == 0
            for _ in range(5):  # the new one's
                assert get(address)[0] == 200
                number += 1
            new = re.search(r"a new master starts \(pid (\d+)\)", server.messages.text)
            assert new is not None
            os.kill(int(new[1]), signal.SIGTERM)
            assert gone(server.pid)
        # What ends between the last look of the one and the first look of the other is not sent: a few milliseconds.
        assert 5 <= requests(first + received(sink)) <= number


@pytest.mark.parametrize("form", FORMS)
def test_a_server_that_is_down_costs_no_request(form: str) -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_METRIC_EXPORT_INTERVAL": "100"}
    with Running("plain:asgi", "--otlp", *FORMS[form], environ=environ) as server:
        address = server.address()
        server.messages.wait("--otlp http://127.0.0.1:9/v1/metrics: .*metrics are lost until it is back")
        for _ in range(20):
            assert get(address)[0] == 200
        assert server.end() == 0
    assert server.messages.text.count("metrics are lost") == 1


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--statsd", "nowhere"], "is not HOST:PORT or unix:PATH"),
        (["--statsd", "no-such-host.invalid:8125"], "--statsd no-such-host.invalid:8125: "),
    ],
)
def test_settings_that_cannot_be_used(options: list[str], text: str) -> None:
    with Running("plain:asgi", *options) as server:
        assert server.end("") == 2
    assert text in server.messages.lines[-1]
