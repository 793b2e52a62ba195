"""Thousands of requests whose clients leave, and whose applications fail, at any stage: nothing is left of them."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import random
import socket
import struct
import tempfile
import threading
from collections import Counter
from pathlib import Path

import pytest

from tests.support.wsgi import Served, serving

REQUESTS = 10_000
AT_ONCE = 40
PIECE = os.urandom(20_000)

pytestmark = [
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in /proc"),
]


class Chaos:
    """An application that does what the query says, and counts what it has opened and closed."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.counts: Counter[str] = Counter()

    def count(self, what: str) -> None:
        with self.lock:
            self.counts[what] += 1

    def __call__(self, environ, start_response):
        self.count("called")
        kind, pieces, fail = environ["QUERY_STRING"].split(",")
        if environ["REQUEST_METHOD"] == "POST":
            environ["wsgi.input"].read(int(pieces) * 1000)
        if fail == "call":
            raise ValueError("in the call")
        headers = [("Content-Type", "text/plain")]
        if kind == "length":
            headers.append(("Content-Length", str(int(pieces) * len(PIECE))))
        write = start_response("200 OK", headers)
        if kind == "write":
            for _ in range(int(pieces)):
                write(PIECE)
        if kind == "file":
            file = tempfile.TemporaryFile()  # noqa: SIM115 -- the server closes it
            for _ in range(int(pieces)):
                file.write(PIECE)
            file.seek(0)
            return environ["wsgi.file_wrapper"](file)
        return Content(self, 0 if kind == "write" else int(pieces), fail)


class Content:
    def __init__(self, chaos: Chaos, pieces: int, fail: str) -> None:
        self.chaos = chaos
        self.left = pieces
        self.fail = fail
        chaos.count("opened")

    def __iter__(self):
        return self

    def __next__(self) -> bytes:
        if not self.left:
            raise StopIteration
        self.left -= 1
        if self.fail == "next" and self.left == 1:
            raise ValueError("in the middle")
        return PIECE

    def close(self) -> None:
        self.chaos.count("closed")
        if self.fail == "close":
            raise ValueError("in close")


async def one(served: Served, dice: random.Random) -> str:
    """Send one request; leave, read slowly or read all of the response. Return how it ended."""
    kind = dice.choice(["chunks", "length", "write", "file"])
    pieces = dice.choice([0, 1, 2, 3, 5, 30])
    fail = dice.choices(["no", "call", "next", "close"], [80, 8, 8, 4])[0]
    body = dice.choice([None, None, 10, 5000, 90_000])
    stage = dice.choices(["stay", "head", "body", "sent", "begun", "slow"], [40, 8, 12, 15, 15, 10])[0]
    head = f"{'POST' if body else 'GET'} /?{kind},{pieces},{fail} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
    head += f"Content-Length: {body}\r\n\r\n" if body else "\r\n"
    reader, writer = await served.connect(limit=8192)
    try:
        if stage == "head":
            writer.write(head.encode()[: dice.randrange(1, len(head))])
            return "left"
        writer.write(head.encode())
        if body:
            writer.write(bytes(dice.randrange(body) if stage == "body" else body))
        if stage == "body":
            return "left"
        if stage == "sent":
            return "left"
        if stage == "begun":
            await reader.read(dice.randrange(1, 5000))
            return "left"
        received = 0
        while data := await asyncio.wait_for(reader.read(30_000), 20):
            received += len(data)
            if stage == "slow":
                await asyncio.sleep(0.002)
        return "read" if received else "nothing"
    except (ConnectionError, asyncio.IncompleteReadError):
        return "reset"
    finally:
        if dice.random() < 0.5:
            sock = writer.get_extra_info("socket")
            if sock is not None and sock.fileno() >= 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()


async def many(served: Served, number: int, seed: int) -> Counter[str]:
    dice = random.Random(seed)
    ends: Counter[str] = Counter()
    left = iter(range(number))

    async def client() -> None:
        for _ in left:
            ends[await one(served, dice)] += 1

    await asyncio.gather(*(client() for _ in range(AT_ONCE)))
    return ends


async def rest(served: Served) -> None:
    """Wait until no thread works and no connection is open."""
    pool = served.delegate.pool
    try:
        async with asyncio.timeout(20):
            while pool.queue or pool.idle < pool.count or served.server.connection_count():
                await asyncio.sleep(0.01)
    except TimeoutError:
        busy = [f"{worker.name}\n{worker.stack()}" for worker in pool.workers() if worker.job is not None]
        raise AssertionError("\n".join([f"{served.server.connection_count()} connections", *busy])) from None


def memory() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("buffer", [20_000, None], ids=["buffered", "streamed"])
async def test_nothing_is_left(buffer, caplog) -> None:
    caplog.set_level(logging.CRITICAL, "bridge")
    chaos = Chaos()
    async with serving(chaos, threads=8, buffer_requests=buffer) as served:
        await many(served, REQUESTS // 4, seed=1)
        await rest(served)
        before, open_before = memory(), files()
        ends = await many(served, REQUESTS, seed=2)
        await rest(served)
        growth = memory() - before
        assert files() <= open_before + served.delegate.pool.maximum  # a thread that is new has one
        assert served.delegate.pool.count <= 8
        assert served.delegate.pool.abandoned == 0
        assert growth < 8_000_000
        assert ends["read"] > REQUESTS // 4
        assert ends["left"] > REQUESTS // 4
        assert chaos.counts["opened"] == chaos.counts["closed"]
        assert chaos.counts["called"] > REQUESTS // 2
    print(f"{dict(ends)}, {dict(chaos.counts)}, memory {growth:+d} bytes")
