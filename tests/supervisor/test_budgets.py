"""The budgets of a process act in each way of running: with workers, each worker has its own."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.running import Running

pytestmark = [pytest.mark.slow, pytest.mark.wide]

APP = """
PIECE = bytes(65536)


async def asgi(scope, receive, send):
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    for _ in range(1000 if scope["path"] == "/big" else 1):
        await send({"type": "http.response.body", "body": PIECE, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def wsgi(environ, start_response):
    environ["wsgi.input"].read()
    start_response("200 OK", [])
    return [PIECE] * (1000 if environ["PATH_INFO"] == "/big" else 1)
"""
WAYS = [
    pytest.param(1, [], id="alone"),
    pytest.param(2, ["--workers", "2"], id="workers"),
    pytest.param(2, ["--workers", "2", "--preload"], id="preload"),
]
HEAD = b"GET / HTTP/1.1\r\nHost: a\r\n" + b"x: %b\r\n" % (b"y" * 8000) * 6
UPLOAD = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n"


def outcomes(address: tuple[str, int], count: int, data: bytes, enough: Callable[[list[bytes]], bool]) -> list[bytes]:
    """Send *data* on each of *count* connections; return what they got when it is enough: b"" for a reset."""
    socks = [socket.create_connection(address) for _ in range(count)]
    got: list[bytes] = []
    end = time.monotonic() + 30
    try:
        for sock in socks:
            sock.settimeout(10)
            with contextlib.suppress(OSError):  # ended already: what is received says how
                sock.sendall(data)
        waiting = set(socks)
        while not enough(got) and waiting and time.monotonic() < end:
            for sock in select.select(list(waiting), [], [], 0.5)[0]:
                waiting.discard(sock)
                try:
                    got.append(sock.recv(100))
                except ConnectionError:
                    got.append(b"")
        assert enough(got), got
        return got
    finally:
        for sock in socks:
            sock.close()


def refused(least: int) -> Callable[[list[bytes]], bool]:
    return lambda got: sum(answer[9:12] in (b"503", b"408", b"") for answer in got) >= least


@pytest.mark.parametrize(("processes", "way"), WAYS)
def test_unfinished_heads(tmp_path: Path, processes: int, way: list[str]) -> None:
    (tmp_path / "budgeted.py").write_text(APP)
    options = ["--app-dir", str(tmp_path), "--no-access-log", "--limit-unfinished", "100000", *way]
    with Running("budgeted:asgi", *options) as server:
        outcomes(server.address(), 24, HEAD, refused(24 - 2 * processes))
        assert server.end() == 0


@pytest.mark.parametrize(("processes", "way"), WAYS)
def test_spooled_uploads(tmp_path: Path, processes: int, way: list[str]) -> None:
    (tmp_path / "budgeted.py").write_text(APP)
    options = ["--app-dir", str(tmp_path), "--no-access-log", "--limit-spool", "600000", *way]
    with Running("budgeted:wsgi", *options) as server:
        outcomes(server.address(), 24, UPLOAD + bytes(300_000), refused(24 - 9 * processes))
        assert server.end() == 0


@pytest.mark.parametrize(("processes", "way"), WAYS)
def test_content_that_comes_slowly(tmp_path: Path, processes: int, way: list[str]) -> None:
    (tmp_path / "budgeted.py").write_text(APP)
    options = ["--app-dir", str(tmp_path), "--no-access-log", "--timeout-request-body", "2", *way]
    with Running("budgeted:asgi", *options, "--rate-request-body", "1000000") as server:
        outcomes(server.address(), 8, UPLOAD + bytes(10_000), refused(8))
        assert server.end() == 0


@pytest.mark.parametrize(("processes", "way"), WAYS)
def test_responses_that_are_not_read(tmp_path: Path, processes: int, way: list[str]) -> None:
    (tmp_path / "budgeted.py").write_text(APP)
    options = ["--app-dir", str(tmp_path), "--no-access-log", "--limit-unsent", "100000", *way]
    with Running("budgeted:asgi", *options) as server:
        address = server.address()
        socks = [socket.create_connection(address) for _ in range(12)]
        try:
            poll = select.poll()
            for sock in socks:
                sock.sendall(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
                poll.register(sock, 0)  # errors only: nothing is read
            assert poll.poll(30_000)  # most wait without holding anything; who holds something beyond the budget ends
            count = 4 * processes
            got = outcomes(address, count, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", lambda got: len(got) == count)
            assert {answer[9:12] for answer in got} == {b"200"}
        finally:
            for sock in socks:
                sock.close()
        assert server.end() == 0


@pytest.mark.long
@pytest.mark.parametrize(("processes", "way"), WAYS)
def test_threads_that_wait_for_clients(tmp_path: Path, processes: int, way: list[str]) -> None:
    (tmp_path / "budgeted.py").write_text(APP)
    options = ["--app-dir", str(tmp_path), "--no-access-log", "--threads", "2", "--wsgi-buffer-responses", "65536"]
    with Running("budgeted:wsgi", *options, "--threads-slow", "1", *way) as server:
        address = server.address()
        slow = [socket.create_connection(address) for _ in range(3 * processes)]
        try:
            for sock in slow:
                sock.sendall(b"GET /big HTTP/1.1\r\nHost: a\r\n\r\n")
            got = outcomes(address, 4, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", lambda got: len(got) == 4)
            assert {answer[9:12] for answer in got} == {b"200"}
        finally:
            for sock in slow:
                sock.close()
        assert server.end() == 0
