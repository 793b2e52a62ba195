"""Attacks on HTTP/2, each on one connection of a real server, beside a client that only wants its answers.

A flood of frames that cost the peer nothing ends with ENHANCE_YOUR_CALM. What is legal but dear is only slowed down. In
both cases the server's memory stays as it is, and everybody else is served.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import random
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hpack.hpack import encode_integer

from bridge.core.http2 import huffman
from bridge.core.http2.codes import ENHANCE_YOUR_CALM
from tests.support.http2 import (
    CONTINUATION,
    DATA,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
)
from tests.support.running import Running

pytestmark = [pytest.mark.slow, pytest.mark.long]

# Seconds after which an attack that was not ended is given up.
PATIENCE = 5.0
# Bytes that the server may have taken, with what the sockets hold, when it ends a flood.
TAKEN_MAX = 24 << 20
# Bytes that its memory may grow by.
GROWTH_MAX = 16 << 20

START = PREFACE + frame(SETTINGS, 0, 0)
GET = b"\x82\x86\x84\x01\x01a"
POST = b"\x83\x86\x84\x01\x01a"
PRIORITY_UPDATE = 0x10
Frames = Iterator[bytes]


def literal(name: bytes, value: bytes, first: int = 0) -> bytes:
    return bytes([first]) + encode_integer(len(name), 7) + name + encode_integer(len(value), 7) + value


def path(target: bytes) -> bytes:
    """Return the block of a GET request."""
    return b"\x82\x86\x04" + encode_integer(len(target), 7) + target + b"\x01\x01a"


WAIT = path(b"/wait")


def each_stream(*parts: Callable[[int], bytes]) -> Callable[[], Frames]:
    """Return an attack that sends these frames on stream after stream."""

    def attack() -> Frames:
        for stream in itertools.count(1, 2):
            for part in parts:
                yield part(stream)

    return attack


def again(item: bytes, *first: bytes) -> Callable[[], Frames]:
    """Return an attack that sends *first* and then the same frame without end."""
    return lambda: itertools.chain(first, itertools.repeat(item))


def get(block: bytes, flags: int = 5) -> Callable[[int], bytes]:
    return lambda stream: frame(HEADERS, flags, stream, block)


def on_stream(kind: int, payload: bytes, flags: int = 0) -> Callable[[int], bytes]:
    return lambda stream: frame(kind, flags, stream, payload)


def changing_settings() -> Frames:
    for number in itertools.count():
        yield frame(SETTINGS, 0, 0, struct.pack(">HI", 4, number % 2 * 65535))


def bomb(references: int) -> Callable[[], Frames]:
    def attack() -> Frames:
        yield frame(HEADERS, 5, 1, GET + literal(b"x", b"v" * 4000, 0x40))
        for stream in itertools.count(3, 2):
            yield frame(HEADERS, 5, stream, GET + b"\xbe" * references)

    return attack


def coded(value: bytes) -> bytes:
    code = huffman.encode(value)
    return b"\x00\x01x" + bytes([0xFF]) + encode_integer(len(code), 7)[1:] + code


def in_frames(stream: int, block: bytes) -> bytes:
    """Return a long block as HEADERS and CONTINUATION frames."""
    pieces = [block[at : at + 16384] for at in range(0, len(block), 16384)]
    wire = frame(HEADERS, 1, stream, pieces[0])
    for number, piece in enumerate(pieces[1:], 2):
        wire += frame(CONTINUATION, 4 if number == len(pieces) else 0, stream, piece)
    return wire


RANDOM_HEX = random.Random(7).randbytes(2600).hex().encode()
VISIBLE = bytes(range(33, 127)) * 80

OPEN = frame(HEADERS, 4, 1, POST)
DONE = frame(HEADERS, 5, 1, GET)

FLOODS: dict[str, Callable[[], Frames]] = {
    "rapid reset": each_stream(get(GET), on_stream(RST_STREAM, b"\0\0\0\x08")),
    "rapid reset of waiting requests": each_stream(get(WAIT), on_stream(RST_STREAM, b"\0\0\0\x08")),
    # A peer that makes the server reset its own streams: MadeYouReset in six forms.
    "window update of 0": each_stream(get(WAIT), on_stream(WINDOW_UPDATE, bytes(4))),
    "window that overflows": each_stream(get(WAIT), on_stream(WINDOW_UPDATE, b"\x7f\xff\xff\xff")),
    "HEADERS behind the end": each_stream(get(WAIT), get(WAIT)),
    "DATA behind the end": each_stream(get(WAIT), on_stream(DATA, b"x", 1)),
    "PRIORITY of four octets": each_stream(get(WAIT), on_stream(PRIORITY, bytes(4))),
    "wrong content-length": each_stream(get(POST + literal(b"content-length", b"5"), 4), on_stream(DATA, b"x", 1)),
    "CONTINUATION": again(frame(CONTINUATION, 0, 1, literal(b"x", b"v" * 100) * 10), frame(HEADERS, 1, 1, GET)),
    "empty CONTINUATION": again(frame(CONTINUATION, 0, 1), frame(HEADERS, 1, 1, GET)),
    "PING": again(frame(PING, 0, 0, bytes(8))),
    "SETTINGS": again(frame(SETTINGS, 0, 0)),
    "acknowledged SETTINGS": again(frame(SETTINGS, 1, 0)),
    "initial window to and fro": changing_settings,
    "PRIORITY": again(frame(PRIORITY, 0, 1, b"\0\0\0\0\x10")),
    "PRIORITY_UPDATE": again(frame(PRIORITY_UPDATE, 0, 0, b"\0\0\0\x01u=1")),
    "PRIORITY_UPDATE of idle streams": each_stream(
        lambda stream: frame(PRIORITY_UPDATE, 0, 0, struct.pack(">I", stream) + b"u=1")
    ),
    "empty DATA": again(frame(DATA, 0, 1), OPEN),
    "DATA of padding": again(frame(DATA, 8, 1, b"\xff" + bytes(255)), OPEN),
    "window updates of one octet": again(frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\x01"), OPEN),
    "window updates of the connection": again(frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\x01")),
    "window updates of a stream that has ended": again(frame(WINDOW_UPDATE, 0, 1, b"\0\0\x10\0"), DONE),
    "unknown frames": again(frame(0x77, 0, 0, bytes(16))),
    "bomb of references": bomb(8000),
    "small bombs": bomb(20),
    "malformed requests": each_stream(get(GET + literal(b"X", b"y"))),
    "CONNECT": each_stream(get(b"\x00\x07:method\x07CONNECT\x01\x01a")),
    "field lines that are too long": each_stream(get(GET + literal(b"x", b"v" * 9000))),
    "more streams than are allowed": each_stream(get(WAIT)),
    "Huffman code of lists that are too large": each_stream(lambda stream: in_frames(stream, GET + coded(VISIBLE) * 6)),
}

# Legal and dear. The client waits for answers when it has as many streams as it may.
DEAR: dict[str, Callable[[], Frames]] = {
    "Huffman code": each_stream(get(GET + coded(RANDOM_HEX) * 3)),
    "table size to and fro": each_stream(
        get(b"\x20\x3f\xe1\x1f" + GET + b"".join(literal(b"a%d" % number, b"v" * 50, 0x40) for number in range(40)))
    ),
    "ninety new fields": each_stream(
        lambda stream: frame(
            HEADERS, 5, stream, GET + b"".join(literal(b"a%d" % at, b"v%d" % stream, 0x40) for at in range(90))
        )
    ),
    "content in frames of one octet": again(frame(DATA, 0, 1, b"x"), OPEN),
    "nothing read": lambda: iter(
        [frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0)), *(get(path(b"/large"))(2 * at + 1) for at in range(120))]
    ),
    "a window of one octet": lambda: iter(
        [frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 1)), *(get(path(b"/large"))(2 * at + 1) for at in range(120))]
    ),
}


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
    assert end.code in {ENHANCE_YOUR_CALM, None}  # None: a reset of the connection was faster
    assert end.taken <= TAKEN_MAX


@pytest.mark.parametrize("name", DEAR)
async def test_what_is_legal_and_dear_harms_nobody_else(server: Running, name: str) -> None:
    await attack_beside_a_client(server, DEAR[name](), ahead=100)
