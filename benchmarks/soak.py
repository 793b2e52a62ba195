"""Keep a server with workers busy for a long time, and show that nothing grows and nothing fails.

``python -m benchmarks.soak --minutes 30 [--publish]`` serves ``benchmarks.apps.soak`` with two workers. Good clients
check every answer: requests with heads of their own, uploads, event streams, large answers, WebSockets. Bad clients
leave at every stage, read slowly, send half heads and malformed requests. SIGHUP replaces the workers each minute.
Every few seconds the memory (PSS), descriptors and threads of all processes are noted.

It prints the samples, and ends with status 1 if a good request failed or if something grew. With ``--publish`` the plot
goes into ``docs/benchmarks/soak.svg``, and the figures into ``soak.md`` beside it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from xml.sax.saxutils import escape

from websockets.asyncio.client import connect

from benchmarks import mixed
from benchmarks.apps.soak import LARGE
from benchmarks.process import ROOT

WORKERS = 2
PATIENCE = 40.0  # seconds for one answer
RELOAD = 60.0  # seconds between two reloads
SAMPLE = 5.0  # seconds
PAUSE = 0.01  # seconds between a client's requests: the machine shall not be at its limit, where all would be slow


@dataclass
class Count:
    """What the clients saw, by kind of load."""

    good: dict[str, int] = field(default_factory=dict)
    bad: dict[str, int] = field(default_factory=dict)
    failed: list[str] = field(default_factory=list)

    def add(self, kind: str) -> None:
        self.good[kind] = self.good.get(kind, 0) + 1

    def misbehave(self, kind: str) -> None:
        self.bad[kind] = self.bad.get(kind, 0) + 1


@dataclass
class Sample:
    """The state of all processes of the server at one time."""

    seconds: float
    memory: float  # MiB
    descriptors: int
    threads: int
    processes: int
    requests: int
    failed: int


class Closed(Exception):
    """The server has closed a connection on which nothing was asked."""


# ---------------------------------------------------------------------- clients


class HTTP:
    """A connection that checks what comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.open = True

    async def ask(self, request: bytes) -> tuple[bytes, bytes]:
        """Return head and content of the answer."""
        if self.reader.at_eof():
            raise Closed
        self.writer.write(request)
        await self.writer.drain()
        head = await self.reader.readuntil(b"\r\n\r\n")
        lower = head.lower()
        self.open = b"\r\nconnection: close" not in lower
        if b"\r\ntransfer-encoding: chunked" in lower:
            return head, b"".join([chunk async for chunk in self._chunks()])
        length = int(lower.partition(b"\r\ncontent-length: ")[2].partition(b"\r")[0])
        return head, await self.reader.readexactly(length)

    async def _chunks(self):
        while size := int(await self.reader.readline(), 16):
            yield await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        await self.reader.readexactly(2)


async def connected(port: int) -> HTTP:
    return HTTP(*await asyncio.open_connection("127.0.0.1", port))


async def keep_asking(port: int, kind: str, count: Count, stop: asyncio.Event, requests: Iterator[tuple]) -> None:
    """Ask one request after the other, each checked, on one connection as long as the server keeps it."""
    while not stop.is_set():
        http = await connected(port)
        try:
            while http.open and not stop.is_set():
                request, content = next(requests)
                head, found = await asyncio.wait_for(http.ask(request), PATIENCE)
                if not head.startswith(b"HTTP/1.1 200 ") or found != content:
                    count.failed.append(f"{kind}: {head[:20]!r} {found[:100]!r}, wanted {content[:100]!r}")
                    break
                count.add(kind)
                await asyncio.sleep(PAUSE)
        except Closed:
            pass
        except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError) as exc:
            count.failed.append(f"{kind}: {type(exc).__name__} {exc}")
        finally:
            http.writer.close()


def varied(rng: random.Random) -> Iterator[tuple[bytes, bytes]]:
    """GET requests whose heads are never the same; the answer is the path."""
    for request in mixed.requests(rng.randrange(mixed.CHECKED)):
        method, target, _ = request.split(b" ", 2)
        path = target.partition(b"?")[0]
        if method != b"HEAD" and b"%" not in path:
            yield request, path


def uploads(rng: random.Random) -> Iterator[tuple[bytes, bytes]]:
    while True:
        content = rng.randbytes(rng.choice([0, 1, 1000, 70_000, 300_000]))
        digest = hashlib.sha256(content).hexdigest().encode()
        if rng.random() < 0.5:
            framed = b"".join(
                b"%x\r\n%b\r\n" % (len(piece), piece) for piece in cut(content, rng.choice([100, 4000, 50_000]))
            )
            yield (
                b"POST /soak/upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n%b0\r\n\r\n" % framed,
                digest,
            )
        else:
            yield (
                b"POST /soak/upload HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(content), content),
                digest,
            )


def cut(content: bytes, size: int) -> list[bytes]:
    return [content[start : start + size] for start in range(0, len(content), size)]


def streams(rng: random.Random) -> Iterator[tuple[bytes, bytes]]:
    content = b"".join(b"data: %d\n\n" % number for number in range(10))
    while True:
        yield b"GET /soak/events HTTP/1.1\r\nHost: a\r\n\r\n", content


def large(rng: random.Random) -> Iterator[tuple[bytes, bytes]]:
    while True:
        yield b"GET /soak/large HTTP/1.1\r\nHost: a\r\n\r\n", LARGE


async def websockets(port: int, count: Count, stop: asyncio.Event, rng: random.Random) -> None:
    """Echo messages until the server says goodbye, as it does at a reload, and come again."""
    from websockets.exceptions import ConnectionClosed

    while not stop.is_set():
        try:
            async with connect(f"ws://127.0.0.1:{port}/ws", close_timeout=5) as peer:
                while not stop.is_set():
                    text = "x" * rng.choice([0, 10, 2000, 70_000])
                    await peer.send(text)
                    if await asyncio.wait_for(peer.recv(), PATIENCE) != text:
                        count.failed.append("websocket: another message")
                    count.add("websocket")
                    await asyncio.sleep(PAUSE * 5)
        except ConnectionClosed as exc:
            if exc.rcvd is None or exc.rcvd.code != 1012:  # 1012: the service restarts
                count.failed.append(f"websocket: {exc}")
        except (OSError, TimeoutError) as exc:
            count.failed.append(f"websocket: {type(exc).__name__} {exc}")


MALFORMED = (
    b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/9.9\r\nHost: a\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"GET / HTTP/1.1\r\nHost: a\r\nBad Field: x\r\n\r\n",
    b"POST /soak/upload HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20_000 + b"\r\n\r\n",
)


async def malformed(port: int, rng: random.Random) -> None:
    http = await connected(port)
    http.writer.write(rng.choice(MALFORMED))
    await asyncio.wait_for(http.reader.read(4096), PATIENCE)
    http.writer.close()


async def half(port: int, rng: random.Random) -> None:
    """Send a part of a request, and leave."""
    whole = b"POST /soak/upload HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\n\r\n" + bytes(5000)
    http = await connected(port)
    http.writer.write(whole[: rng.randrange(1, len(whole))])
    await asyncio.sleep(rng.random())
    leave(http, rng)


async def leaves(port: int, rng: random.Random) -> None:
    """Ask for something that takes long, and leave in the middle."""
    http = await connected(port)
    http.writer.write(rng.choice([b"GET /soak/events", b"GET /soak/large"]) + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    await http.reader.read(rng.choice([1, 1000, 100_000]))
    await asyncio.sleep(rng.random() / 4)
    leave(http, rng)


async def slow(port: int, rng: random.Random) -> None:
    """Read a large answer slowly, to the end."""
    http = await connected(port)
    http.writer.write(b"GET /soak/large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    while await http.reader.read(100_000):
        await asyncio.sleep(0.2)
    http.writer.close()


def leave(http: HTTP, rng: random.Random) -> None:
    if rng.random() < 0.5:
        http.writer.transport.abort()
    else:
        http.writer.close()


async def keep_misbehaving(
    name: str, action: Callable[[int, random.Random], Awaitable[None]], port: int, count: Count, stop: asyncio.Event
) -> None:
    rng = random.Random(name)
    while not stop.is_set():
        with contextlib.suppress(OSError, TimeoutError):
            await action(port, rng)
        count.misbehave(name)
        await asyncio.sleep(0.05)


# ---------------------------------------------------------------------- the server, from outside


def family(master: int) -> list[int]:
    """Return the master's number and those of its children."""
    found = [master]
    with contextlib.suppress(OSError):
        found += map(int, Path(f"/proc/{master}/task/{master}/children").read_text().split())
    return found


def state(master: int, seconds: float, count: Count) -> Sample:
    memory = descriptors = threads = processes = 0
    for pid in family(master):
        with contextlib.suppress(OSError):
            proc = Path(f"/proc/{pid}")
            rollup = (proc / "smaps_rollup").read_text()
            memory += int(rollup.partition("\nPss:")[2].split(None, 1)[0])
            descriptors += len(os.listdir(proc / "fd"))
            threads += len(os.listdir(proc / "task"))
            processes += 1
    good = sum(count.good.values())
    return Sample(seconds, memory / 1024, descriptors, threads, processes, good, len(count.failed))


async def soak(minutes: float) -> tuple[list[Sample], Count, int]:
    """Return samples, what the clients saw, and how many reloads there were."""
    command = [sys.executable, "-m", "bridge", "run", "benchmarks.apps.soak:app", "--workers", str(WORKERS)]
    server = subprocess.Popen(
        [*command, "--port", "0", "--no-access-log", "--log-level", "warning"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    )
    assert server.stderr is not None
    port = int(server.stderr.readline().rpartition(":")[2])
    drained = asyncio.create_task(asyncio.to_thread(server.stderr.read))
    count, stop = Count(), asyncio.Event()
    samples: list[Sample] = []
    reloads = 0
    kinds = (("request", varied, 8), ("upload", uploads, 2), ("event stream", streams, 4), ("large answer", large, 1))
    tasks = [
        asyncio.create_task(keep_asking(port, kind, count, stop, make(random.Random(f"{kind}{number}"))))
        for kind, make, clients in kinds
        for number in range(clients)
    ]
    tasks += [asyncio.create_task(websockets(port, count, stop, random.Random(number))) for number in range(3)]
    for name, action in (("malformed", malformed), ("half", half), ("leaves", leaves), ("slow", slow)):
        tasks.append(asyncio.create_task(keep_misbehaving(name, action, port, count, stop)))
    start = reloaded = time.monotonic()
    try:
        while (seconds := time.monotonic() - start) < minutes * 60:
            samples.append(state(server.pid, seconds, count))
            if server.poll() is not None:
                count.failed.append(f"the server has ended with {server.returncode}")
                break
            if time.monotonic() - reloaded > RELOAD:
                reloaded += RELOAD
                reloads += 1
                server.send_signal(signal.SIGHUP)
            await asyncio.sleep(SAMPLE)
        stop.set()
        await asyncio.wait_for(asyncio.gather(*tasks), PATIENCE * 2)
        server.send_signal(signal.SIGTERM)
        await asyncio.to_thread(server.wait, 60)
    finally:
        server.kill()
        server.wait()
    said = (await drained).splitlines()
    server.stderr.close()
    if server.returncode != 0:
        count.failed.append(f"the server has ended with {server.returncode}: {said[-3:]}")
    return samples, count, reloads


# ---------------------------------------------------------------------- what is shown


def grown(samples: list[Sample]) -> list[str]:
    """Name what is more in the last third than in the second one: medians, so that reloads do not count."""
    third = len(samples) // 3
    found = []
    for name, slack in (("memory", 1.1), ("descriptors", 1.25), ("threads", 1.25)):
        before, after = (
            sorted(getattr(sample, name) for sample in part)[third // 2]
            for part in (samples[third : 2 * third], samples[2 * third :])
        )
        if after > before * slack:
            found.append(f"{name}: {before:.0f} in the second third, {after:.0f} in the last")
    return found


PANELS = (
    ("memory", "Memory of all processes (PSS), MiB"),
    ("descriptors", "Open descriptors"),
    ("threads", "Threads"),
    ("requests", "Good answers so far"),
    ("failed", "Failed good requests"),
)


def plot(samples: list[Sample]) -> str:
    """Return an SVG with a curve for each kind of figure over the minutes."""
    from benchmarks.plot import MARGIN, STYLE, WIDTH, text

    height, panel, left = 110, 150, 80
    total = MARGIN * 2 + panel * len(PANELS) + 20
    width = WIDTH - left - MARGIN * 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {total}" width="{WIDTH}" height="{total}">',
        f"<style>{STYLE}\n.curve {{ fill: none; stroke: #0969da; stroke-width: 1.5 }}</style>",
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{total - 1}" rx="8"/>',
    ]
    last = max(samples[-1].seconds, 1.0)
    for number, (name, title) in enumerate(PANELS):
        top = MARGIN + number * panel + 26
        most = max(max(getattr(sample, name) for sample in samples), 1)
        points = " ".join(
            f"{left + width * sample.seconds / last:.1f},{top + height * (1 - getattr(sample, name) / most):.1f}"
            for sample in samples
        )
        parts += [
            text(left, top - 8, escape(title), "title"),
            text(left - 8, top + 10, f"{most:,.0f}", "soft", "end"),
            text(left - 8, top + height, "0", "soft", "end"),
            f'<path d="M{left} {top}V{top + height}H{left + width}" fill="none" stroke="#818b98"/>',
            f'<polyline class="curve" points="{points}"/>',
        ]
    parts.append(text(left + width, total - MARGIN, f"{last / 60:.0f} minutes", "soft", "end"))
    return "\n".join([*parts, "</svg>", ""])


#: What the bad clients send, in words.
BAD = {
    "half": "requests without an end",
    "leaves": "requests whose client left before the end of the answer",
    "malformed": "malformed requests",
    "slow": "requests whose client read slowly",
}


def table(samples: list[Sample], count: Count, reloads: int) -> str:
    minutes = samples[-1].seconds / 60
    rows = [
        f"| {kind} | {number:,} | {sum(line.startswith(kind) for line in count.failed)} |"
        for kind, number in sorted(count.good.items())
    ]
    bad = ", ".join(f"{number:,} {BAD[kind]}" for kind, number in sorted(count.bad.items()))
    return "\n".join(
        [
            f"{minutes:.0f} minutes, {WORKERS} workers, {reloads} reloads. The bad clients sent: {bad}.",
            "",
            "| Good clients | Answers | Failed |",
            "|---|---:|---:|",
            *rows,
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--publish", action="store_true", help="write the plot and the table into docs/benchmarks")
    options = parser.parse_args()
    samples, count, reloads = asyncio.run(soak(options.minutes))
    shown = table(samples, count, reloads)
    print(shown)
    more = grown(samples)
    for line in [*count.failed[:20], *more]:
        print(line)
    if options.publish:
        place = ROOT / "docs" / "benchmarks"
        (place / "soak.svg").write_text(plot(samples), encoding="utf-8")
        page = (
            "# A long time under mixed load\n\n"
            "`python -m benchmarks.soak --publish` writes this page. Good clients check every answer. At the same\n"
            "time, bad clients leave at every stage, read slowly and send malformed requests. A reload replaces the\n"
            "workers each minute.\n\n"
            f"{shown}\n\n![Memory, descriptors, threads, answers and failures over time](soak.svg)\n"
        )
        (place / "soak.md").write_text(page, encoding="utf-8")
    return 1 if count.failed or more else 0


if __name__ == "__main__":
    sys.exit(main())
