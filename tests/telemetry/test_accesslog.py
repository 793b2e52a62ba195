"""The access log: what is written when, of real exchanges."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import time
from pathlib import Path
from typing import Any

import pytest

from bridge.config import Config
from bridge.telemetry import accesslog
from bridge.telemetry.accesslog import AccessLog
from tests.support.http2 import linked2
from tests.support.link import Recorder, Told, linked, ok
from tests.support.manualloop import ManualLoop
from tests.support.running import Client as BlockingClient
from tests.support.running import Running, get
from tests.support.serving import Client, serving, until

REQUEST = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"
CLOSING = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


def log(tmp_path: Path, **settings: Any) -> tuple[AccessLog, Path]:
    path = tmp_path / "access.log"
    return AccessLog(Config(access_logfile=str(path), **settings), asyncio.get_running_loop()), path


async def test_a_line_for_each_exchange_and_none_lost_at_the_end(tmp_path: Path) -> None:
    observer, path = log(tmp_path, access_logformat="%(U)s %(s)s %(b)s")
    async with (
        serving(Recorder(on_finish=ok), observer=observer, timed=observer.timed) as server,
        await Client.connect(server) as client,
    ):
        await client.send(REQUEST * 200 + CLOSING)
        await client.read_to_the_end()
        observer.close()
    assert path.read_text() == "/a 200 2\n" * 200 + "/last 200 2\n"


async def test_handlers_that_an_application_gives_another_server_take_no_lines(tmp_path: Path) -> None:
    theirs = logging.getLogger("uvicorn.access")
    handler = logging.NullHandler()
    theirs.addHandler(handler)
    try:
        observer, path = log(tmp_path)
        observer.close()
    finally:
        theirs.removeHandler(handler)
    assert path.exists()


@pytest.mark.parametrize(("method", "size"), [("PUT", "17"), ("HEAD", "-")])
async def test_the_line_of_an_error_page_of_the_servers_own_has_its_size(
    tmp_path: Path, method: str, size: str
) -> None:
    observer, path = log(tmp_path, access_logformat="%(m)s %(s)s %(b)s")
    async with (
        serving(Recorder(on_finish=ok), observer=observer, timed=observer.timed) as server,
        await Client.connect(server) as client,
    ):
        await client.send(f"{method} / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nno\r\n".encode())
        received = await client.read_to_the_end()
        observer.close()
    _, _, content = received.partition(b"\r\n\r\n")
    assert (path.read_text(), str(len(content) or "-")) == (f"{method} 400 {size}\n", size)


async def test_a_renamed_file_has_the_lines_before_and_the_new_one_those_after(tmp_path: Path) -> None:
    observer, path = log(tmp_path, access_logformat="%(U)s")
    async with (
        serving(Recorder(on_finish=ok), observer=observer, timed=observer.timed) as server,
        await Client.connect(server) as client,
    ):
        await client.send(REQUEST * 20)
        await until(lambda: client.received.count(b"200 OK") == 20 or not _receive(client))
        path.rename(tmp_path / "old")
        observer.reopen()
        await client.send(CLOSING)
        await client.read_to_the_end()
    observer.close()
    assert (tmp_path / "old").read_text() == "/a\n" * 20
    assert path.read_text() == "/last\n"


def _receive(client: Client) -> bool:
    with contextlib.suppress(BlockingIOError):
        client.received += client._sock.recv(1 << 16)
    return True


async def test_lines_are_written_without_waiting_for_more(tmp_path: Path) -> None:
    observer, path = log(tmp_path, access_logformat="%(U)s")
    async with (
        serving(Recorder(on_finish=ok), observer=observer, timed=observer.timed) as server,
        await Client.connect(server) as client,
    ):
        await client.send(REQUEST)
        await until(lambda: path.read_text() == "/a\n")
        await client.send(REQUEST)
        await until(lambda: path.read_text() == "/a\n/a\n")
        observer.close()


async def test_the_time_of_day_is_that_of_the_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1769860799_900_000_000

    class Clock:
        strftime, gmtime = staticmethod(time.strftime), staticmethod(time.gmtime)

        @staticmethod
        def time_ns() -> int:
            return now

        @staticmethod
        def monotonic_ns() -> int:
            return now

    monkeypatch.setattr(accesslog, "time", Clock)
    monkeypatch.setattr("bridge.telemetry.logformat.monotonic_ns", Clock.monotonic_ns)
    observer, path = log(tmp_path, access_logformat="%(t)s %(L)s")

    def started(exchange: Any) -> None:
        exchange.times.opened = now  # the engine has set it by the real clock

    monkeypatch.setattr(observer, "exchange_started", started)

    def answer(told: Told) -> None:
        nonlocal now
        now += 50_000_000
        ok(told)

    async with (
        serving(Recorder(on_finish=answer), observer=observer, timed=observer.timed) as server,
        await Client.connect(server) as client,
    ):
        await client.send(REQUEST * 3 + CLOSING)
        await client.read_to_the_end()
        observer.close()
    assert path.read_text() == (
        "[31/Jan/2026:11:59:59 +0000] 0.050000\n" + "[31/Jan/2026:12:00:00 +0000] 0.050000\n" * 3
    )


async def test_a_duration_lasts_until_a_slow_client_has_read(tmp_path: Path) -> None:
    observer, path = log(tmp_path, log_format="json")
    delegate = Recorder(on_finish=lambda told: ok(told, b"x" * 8_000_000))
    async with (
        serving(delegate, observer=observer, timed=observer.timed) as server,
        await Client.connect(server, receive_buffer=4096) as client,
    ):
        await client.send(CLOSING)
        await until(lambda: bool(delegate.told) and delegate.told[0].exchange.finished)
        await asyncio.sleep(0.15)  # what is measured
        observer.flush()
        assert not path.read_text()
        await client.read_to_the_end()
        await until(lambda: bool(path.read_text()))
        observer.close()
    entry = json.loads(path.read_text())
    assert entry["bytes"] == 8_000_000
    assert entry["write"] > 0.14
    assert entry["seconds"] >= entry["write"] + entry["app"] + entry["queue"] - 0.000002


@pytest.mark.parametrize("closed_first", [False, True])
async def test_a_client_that_leaves_while_its_line_waits(tmp_path: Path, closed_first: bool) -> None:
    observer, path = log(tmp_path, access_logformat="%(s)s %(b)s %(L)s")
    delegate = Recorder(on_finish=lambda told: ok(told, b"x" * 8_000_000))
    async with (
        serving(delegate, observer=observer, timed=observer.timed) as server,
        await Client.connect(server, receive_buffer=4096) as client,
    ):
        await client.send(REQUEST)
        await until(lambda: bool(delegate.told) and delegate.told[0].exchange.finished)
        if closed_first:
            observer.close()
        client.reset()
        await until(lambda: not server.connections)
        if not closed_first:
            await until(lambda: bool(path.read_text()))
            observer.close()
    assert re.fullmatch(r"200 8000000 [0-9.]+\n", path.read_text())


@pytest.mark.slow
def test_paths_that_are_left_out() -> None:
    with Running("plain:asgi", "--access-log-exclude", "/health,/static/*", "--log-format", "json") as server:
        for path in ("/health", "/static/a.css", "/healthy", "/static"):
            get(server.address(), path)
        assert server.end() == 0
        assert [json.loads(line)["path"] for line in server.output.lines] == ["/healthy", "/static"]
        assert json.loads(server.messages.lines[-1])["message"] == "Stopped"


@pytest.mark.slow
def test_durations_of_wsgi() -> None:
    with Running("plain:wsgi", "--threads", "1", "--log-format", "json") as server:
        with BlockingClient(server.address()) as first, BlockingClient(server.address()) as second:
            first.send("/sleep/0.3")
            first_is_busy = time.monotonic() + 0.1
            while time.monotonic() < first_is_busy:
                time.sleep(0.01)
            second.send("/sleep/0.05")
            first.read()
            second.read()
        assert server.end() == 0
        one, two = map(json.loads, server.output.lines)
    assert one["queue"] < 0.1 < 0.29 < one["app"]
    assert 0.05 < two["queue"] < 0.3
    assert two["app"] > 0.04
    for entry in (one, two):
        assert entry["seconds"] == pytest.approx(entry["queue"] + entry["app"] + entry["write"], abs=0.00001)


@pytest.mark.slow
@pytest.mark.parametrize("interface", ["asgi", "wsgi"])
def test_ids(interface: str) -> None:
    where = "scope" if interface == "asgi" else "environ"
    form = "%(request_id)s %({x-request-id}i)s %({x-request-id}o)s"
    with Running(f"plain:{interface}", "--request-id", "proxy", "--access-logformat", form) as server:
        _, fields, content = get(server.address(), f"/{where}", "X-Request-Id: from-the-proxy")
        seen = json.loads(content)
        if interface == "asgi":
            assert ["x-request-id", "from-the-proxy"] in seen["headers"]
            assert seen["request_id"] == "from-the-proxy"
        else:
            assert seen["HTTP_X_REQUEST_ID"] == seen["bridge.request_id"] == "from-the-proxy"
        assert fields["x-request-id"] == "from-the-proxy"
        _, fields, _ = get(server.address(), "/error")
        made = fields["x-request-id"]
        assert re.fullmatch("[0-9a-f]{32}", made)
        assert server.end() == 0
        assert server.output.lines == [" ".join(["from-the-proxy"] * 3), f"{made} {made} -"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "believed"),
    [
        (["--request-id", "new"], False),
        (["--request-id", "any", "--forwarded-allow-ips", "192.0.2.1"], True),
        (["--request-id", "proxy", "--forwarded-allow-ips", "192.0.2.1"], False),
        (["--request-id", "on", "--forwarded-allow-ips", "127.0.0.0/8"], True),
    ],
)
def test_whose_ids_are_taken(options: list[str], believed: bool) -> None:
    with Running("plain:asgi", *options, "--request-id-header", "X-Trace", "--log-format", "json") as server:
        _, fields, _ = get(server.address(), "/", "X-Trace: abc")
        assert (fields["x-trace"] == "abc") is believed
        assert server.end() == 0
        assert json.loads(server.output.lines[0])["request_id"] == fields["x-trace"]


def begin(told: Told) -> None:
    told.exchange.respond(200, [(b"content-type", b"text/plain")])
    told.exchange.send(b"half")


@pytest.mark.parametrize(
    ("end", "reset"), [("client", "CANCEL"), ("application", "INTERNAL_ERROR"), ("connection", "-")]
)
def test_a_response_that_was_cut_short_is_marked_over_both_versions(tmp_path: Path, end: str, reset: str) -> None:
    def fail(told: Told) -> None:
        begin(told)
        if end == "application":
            told.exchange.fail()

    path = tmp_path / "access.log"
    loop = ManualLoop()
    form = f"{Config().access_logformat} %(stream)s %(reset)s"
    observer = AccessLog(Config(access_logfile=str(path), access_logformat=form), loop)
    with linked(Recorder(on_finish=fail), observer=observer, timed=observer.timed) as link:
        link.send(REQUEST)
        if end != "application":
            link.reset()
    with linked2(Recorder(on_finish=fail), observer=observer, timed=observer.timed) as link2:
        stream = link2.request()
        if end == "client":
            link2.cancel(stream)
        elif end == "connection":
            link2.reset()
    observer.close()
    loop.close()
    first, second = path.read_text().splitlines()
    assert re.fullmatch(r'192.0.2.1 - - .* "GET /a HTTP/1.1" 200 4 [0-9.]+ cut - -', first)
    assert re.fullmatch(rf'192.0.2.1 - - .* "GET / HTTP/2.0" 200 4 [0-9.]+ cut 1 {reset}', second)
