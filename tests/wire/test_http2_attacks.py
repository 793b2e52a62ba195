"""Attacks on HTTP/2, each on one connection of a real server, beside a client that only wants its answers.

A flood of frames that cost the peer nothing ends with ENHANCE_YOUR_CALM. What is legal but dear is only slowed down. In
both cases the server's memory stays as it is, and everybody else is served.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from bridge.core.http2.codes import ENHANCE_YOUR_CALM
from tests.support.http2 import DATA, GOAWAY, HEADERS, RST_STREAM, WINDOW_UPDATE, frame
from tests.support.http2_attacks import DEAR, ENDED_WITH, FLOODS, GET, START, Frames
from tests.support.running import Running

pytestmark = [pytest.mark.slow, pytest.mark.long]

# Seconds after which an attack that was not ended is given up.
PATIENCE = 5.0
# Bytes that the server may have taken, with what the sockets hold, when it ends a flood.
TAKEN_MAX = 24 << 20
# Bytes that its memory may grow by.
GROWTH_MAX = 16 << 20


@dataclass
class End:
    """How an attack ended.

    Attributes:
        code: The error code of the server's GOAWAY frame; None if there was none.
        closed: The server has closed the connection.
        taken: Bytes that were sent.
    """

    code: int | None = None
    closed: bool = False
    taken: int = 0


class Reader:
    """Reads the server's frames of one connection."""

    def __init__(self, stream: asyncio.StreamReader) -> None:
        self._stream = stream

    async def next(self) -> tuple[int, int, int, bytes]:
        """Return kind, flags, stream and payload of the next frame."""
        start = await self._stream.readexactly(9)
        payload = await self._stream.readexactly(int.from_bytes(start[:3], "big"))
        return start[3], start[4], int.from_bytes(start[5:9], "big"), payload


async def attack(address: tuple[str, int], frames: Frames, ahead: int, patience: float = PATIENCE) -> End:
    """Send frames until the server ends the connection, or for a while.

    Args:
        address: The server's.
        frames: What to send.
        ahead: How many requests may wait for their answers.
        patience: Seconds.
    """
    end = End()
    reader, writer = await asyncio.open_connection(*address)
    waiting = asyncio.Semaphore(ahead)

    async def read() -> None:
        wire = Reader(reader)
        try:
            while True:
                kind, flags, _, payload = await wire.next()
                if kind == GOAWAY:
                    end.code = int.from_bytes(payload[4:8], "big")
                elif kind == RST_STREAM or (kind in {HEADERS, DATA} and flags & 1):
                    waiting.release()
        except (asyncio.IncompleteReadError, ConnectionError):
            end.closed = True

    async def send() -> None:
        writer.write(START)
        batch: list[bytes] = []
        for number, item in enumerate(frames):
            if item[3] == HEADERS and item[4] & 1 and waiting.locked():
                writer.write(b"".join(batch))
                batch.clear()
                await waiting.acquire()
            elif item[3] == HEADERS and item[4] & 1:
                await waiting.acquire()
            batch.append(item)
            end.taken += len(item)
            if number % 64 == 63:
                writer.write(b"".join(batch))
                batch.clear()
                await writer.drain()
                await asyncio.sleep(0)  # drain() alone may not let anybody else run
                if end.closed or writer.transport.is_closing():
                    return
        writer.write(b"".join(batch))

    reading = asyncio.ensure_future(read())
    sending = asyncio.ensure_future(send())
    await asyncio.wait([reading], timeout=patience)
    sending.cancel()
    reading.cancel()
    await asyncio.gather(reading, sending, return_exceptions=True)
    writer.transport.abort()
    return end


async def usual_client(address: tuple[str, int], stop: asyncio.Event) -> int:
    """Make one request after the other; return how many were answered."""
    reader, writer = await asyncio.open_connection(*address)
    wire = Reader(reader)
    writer.write(START + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 30)))
    answered = 0
    try:
        while not stop.is_set():
            stream = 2 * answered + 1
            writer.write(frame(HEADERS, 5, stream, GET))
            async with asyncio.timeout(20):
                while True:
                    kind, flags, number, payload = await wire.next()
                    assert kind not in {RST_STREAM, GOAWAY}
                    if kind == HEADERS:
                        assert payload[0] == 0x88, "the status is 200"
                    if number == stream and flags & 1 and kind in {HEADERS, DATA}:
                        break
            answered += 1
            await asyncio.sleep(0.005)
    finally:
        writer.transport.abort()
    return answered


def memory(pid: int) -> int:
    """Return the bytes that a process has in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def attack_beside_a_client(server: Running, frames: Frames, ahead: int) -> End:
    """Run an attack; check that the memory stays and that a usual client is served."""
    address = server.address()
    stop = asyncio.Event()
    usual = asyncio.ensure_future(usual_client(address, stop))
    before = memory(server.pid)
    most = [before]

    async def watch() -> None:
        while True:
            most.append(memory(server.pid))
            await asyncio.sleep(0.02)

    watching = asyncio.ensure_future(watch())
    try:
        end = await attack(address, frames, ahead)
        watching.cancel()
        # It is still served: this request begins after the attack, at the latest.
        await asyncio.sleep(0.02)
        stop.set()
        answered = await usual
    finally:
        usual.cancel()
        watching.cancel()
    assert answered > 0
    assert max(most) - before <= GROWTH_MAX, f"{(max(most) - before) >> 20} MiB more"
    return end


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with Running("http2_attacked:app", "--http2-cleartext", "on", "--no-access-log") as running:
        running.address()
        asyncio.run(warm_up(running))
        yield running


async def warm_up(server: Running) -> None:
    """Let the server use the memory that it needs in any case."""
    for frames in (FLOODS["rapid reset"], DEAR["Huffman code"]):
        await attack(server.address(), itertools.islice(frames(), 400), 100, 1.0)


@pytest.mark.parametrize("name", FLOODS)
async def test_a_flood_ends_with_enhance_your_calm(server: Running, name: str) -> None:
    begun = time.monotonic()
    end = await attack_beside_a_client(server, FLOODS[name](), ahead=1 << 30)
    assert end.closed, f"not ended after {time.monotonic() - begun:.1f} s and {end.taken} bytes"
    assert end.code in {ENDED_WITH.get(name, ENHANCE_YOUR_CALM), None}  # None: a reset of the connection was faster
    assert end.taken <= TAKEN_MAX


@pytest.mark.parametrize("name", DEAR)
async def test_what_is_legal_and_dear_harms_nobody_else(server: Running, name: str) -> None:
    await attack_beside_a_client(server, DEAR[name](), ahead=100)
