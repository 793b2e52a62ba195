"""The load of mixed requests over HTTP/2: ``python -m benchmarks.h2client``; the result is as load.lua's.

Every connection keeps a number of streams busy: an answer that is whole is followed by the next request.
"""

import argparse
import asyncio
import json
import sys
import time

from benchmarks.client import Totals
from benchmarks.http2 import (
    ACK,
    DATA,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    Frames,
    frame,
    opening,
    says_200,
)
from benchmarks.loops import fastest


class HTTP2Load(asyncio.Protocol):
    """One connection; when its first requests are answered, *streams* more begin, and never rest."""

    def __init__(self, totals: Totals, frames: Frames, streams: int) -> None:
        self.totals = totals
        self.frames = frames
        self.streams = streams
        self.rest = b""
        self.started = False
        self.sent: dict[int, float] = {}  # stream -> when its request was sent
        self.stream = 2 * len(frames.first) - 1  # the last one used

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.sent = dict.fromkeys(range(1, self.stream + 1, 2), time.perf_counter())
        transport.write(opening() + b"".join(self.frames.first))

    def data_received(self, data: bytes) -> None:
        data = self.rest + data if self.rest else data
        at, size = 0, len(data)
        replies: list[bytes] = []
        ended = 0
        while size - at >= 9:
            end = at + 9 + int.from_bytes(data[at : at + 3], "big")
            if end > size:
                break
            kind, flags = data[at + 3], data[at + 4]
            if kind in (HEADERS, DATA):
                stream = int.from_bytes(data[at + 5 : at + 9], "big")
                if kind == HEADERS and not says_200(data[at + 9 : end]):
                    self.totals.errors["status"] += 1
                if flags & END_STREAM:
                    self.totals.latencies.append(time.perf_counter() - self.sent.pop(stream))
                    ended += 1
            elif kind in (SETTINGS, PING):
                if not flags & ACK:
                    replies.append(frame(kind, ACK, 0, data[at + 9 : end] if kind == PING else b""))
            elif kind in (RST_STREAM, GOAWAY) and self.totals.running:
                self.totals.errors["read"] += 1
            at = end
        self.rest = data[at:]
        if ended and self.totals.running:
            now = time.perf_counter()
            if not self.started:
                self.started = not self.sent
                ended = self.streams if self.started else 0
            for _ in range(ended):
                self.stream += 2
                self.sent[self.stream] = now
                replies.append(self.frames.next(self.stream))
        if replies:
            self.transport.write(b"".join(replies))

    def connection_lost(self, exc: Exception | None) -> None:
        if self.totals.running:
            self.totals.errors["read"] += 1


async def load(port: int, connections: int, streams: int, seconds: float, part: int) -> dict[str, object]:
    """Load the server on *port* of the loopback address for *seconds* and return the totals."""
    totals, frames = Totals(), Frames(part)
    loop = asyncio.get_running_loop()
    transports = []
    started = time.perf_counter()
    for _ in range(connections):
        try:
            transport, _ = await loop.create_connection(lambda: HTTP2Load(totals, frames, streams), "127.0.0.1", port)
        except OSError:
            totals.errors["connect"] += 1
        else:
            transports.append(transport)
    await asyncio.sleep(max(0.0, seconds - (time.perf_counter() - started)))
    totals.running = False
    elapsed = time.perf_counter() - started
    for transport in transports:
        transport.abort()
    await asyncio.sleep(0)
    return totals.result(elapsed)


def main() -> None:
    """Parse the command line, load, print the result."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.h2client", description=(__doc__ or "").partition(":")[0]
    )
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--part", type=int, default=0, help="of the numbers of mixed requests (default: 0)")
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=fastest()) as runner:
        outcome = runner.run(load(options.port, options.connections, options.streams, options.seconds, options.part))
    json.dump(outcome, sys.stdout)
    print()


if __name__ == "__main__":
    main()
