"""A steady load of checked requests: on kept connections and on new ones, GET and POST, fast and slow answers.

It is for deployments that change under the load: each request that does not get its right answer is kept with its time.
The clients never try again; a connection that the peer closes while nothing is asked is not a failure.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

PATIENCE = 70.0  # seconds for one answer: more than any proxy here waits
LARGE = 100_000  # bytes, the content of a large POST

Place = str | tuple[str, int]  # the path of a Unix socket, or host and port


@dataclass
class Failure:
    """A request without its right answer."""

    when: float  # time.time()
    method: str
    path: str
    reason: str


@dataclass
class Load:
    """What the clients have seen."""

    good: Counter[str] = field(default_factory=Counter)  # by method
    failures: list[Failure] = field(default_factory=list)
    longest: float = 0.0  # seconds for one right answer
    times: list[tuple[float, int]] = field(default_factory=list)  # time.time() of an answer, its status

    @property
    def total(self) -> int:
        return self.good.total() + len(self.failures)

    def reasons(self) -> str:
        """Return the failures by method and reason, as text."""
        found = Counter(f"{failure.method} {failure.reason}" for failure in self.failures)
        return ", ".join(f"{number} {words}" for words, number in found.most_common()) or "-"


@dataclass(frozen=True)
class Mix:
    """How many clients there are, and what they ask."""

    kept: int = 8  # clients that keep their connection
    fresh: int = 4  # clients that connect for each request
    pause: float = 0.05  # seconds between two requests of a client
    posts: float = 0.3  # the part of requests that are POSTs
    slow: float = 0.1  # the part of requests that take 0.3 s


def request(rng: random.Random, mix: Mix, number: int) -> tuple[str, str, bytes, bytes]:
    """Return method, path, the bytes of a request, and the content of its right answer."""
    kind = rng.random()
    if kind < mix.posts:
        content = rng.randbytes(rng.choice([0, 10, 1000, LARGE]))
        head = b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(content)
        return "POST", "/upload", head + content, hashlib.sha256(content).hexdigest().encode()
    path = "/slow" if kind < mix.posts + mix.slow else f"/articles/{number}"
    return "GET", path, f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode(), path.encode()


async def connect(place: Place) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if isinstance(place, str):
        return await asyncio.open_unix_connection(place)
    return await asyncio.open_connection(*place)


async def answer(reader: asyncio.StreamReader) -> tuple[int, bool, bytes]:
    """Return status, whether the connection stays, and content of an answer that has a length."""
    head = await reader.readuntil(b"\r\n\r\n")
    lower = head.lower()
    length = lower.partition(b"\r\ncontent-length: ")[2].partition(b"\r")[0]
    content = await (reader.readexactly(int(length)) if length else reader.read())
    return int(head[9:12]), bool(length) and b"\r\nconnection: close" not in lower, content


async def client(place: Place, load: Load, mix: Mix, keep: bool, seed: str, stop: asyncio.Event) -> None:
    """Ask until *stop*."""
    rng = random.Random(seed)
    number, open_ = 0, False
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None
    while not stop.is_set():
        number += 1
        method, path, sent, wanted = request(rng, mix, number)
        status, reason, began = 0, "", time.monotonic()
        try:
            async with asyncio.timeout(PATIENCE):
                if not open_ or reader is None or writer is None or reader.at_eof():
                    if writer is not None:
                        writer.close()
                    reader, writer = await connect(place)
                writer.write(sent)
                status, open_, content = await answer(reader)
                if status != 200:
                    reason = str(status)
                elif content != wanted:
                    reason = "wrong content"
        except TimeoutError:
            reason = "no answer"
        except asyncio.IncompleteReadError as exc:
            reason = "cut" if exc.partial else "closed without an answer"
        except ConnectionRefusedError:
            reason = "refused"
        except OSError as exc:
            reason = type(exc).__name__
        now = time.time()
        if status:
            load.times.append((now, status))
        if reason:
            load.failures.append(Failure(now, method, path, reason))
            open_ = False
        else:
            load.good[method] += 1
            load.longest = max(load.longest, time.monotonic() - began)
        open_ = open_ and keep
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), mix.pause * (0.5 + rng.random()))
    if writer is not None:
        writer.close()


@contextlib.asynccontextmanager
async def loaded(place: Place, mix: Mix = Mix()) -> AsyncIterator[Load]:
    """Keep the clients of *mix* asking at *place* for the time of the block, and until their last answers have come."""
    load, stop = Load(), asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        for number in range(mix.kept + mix.fresh):
            tasks.create_task(client(place, load, mix, number < mix.kept, f"client {number}", stop))
        try:
            yield load
        finally:
            stop.set()
