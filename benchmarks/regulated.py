"""Show how a master regulates its workers: ``python -m benchmarks.regulated [leak|load] [--publish]``.

``leak``: an application that keeps 1 MiB of each request, under ``--workers-max-rss``. Each worker that has grown too
large is replaced; nobody's memory grows beyond what comes in between two looks, and no request fails.

``load``: ``--workers 1..4`` and an application whose requests wait for 50 ms, as for a database: in threads (WSGI with
four of them), or on the event loop itself, which they block (ASGI). Clients come and go. The number of workers has to
follow, up and down once for each rise and fall of the load: no flapping, no request fails.

It ends with status 1 if something of this does not hold. With ``--publish`` a plot goes into ``docs/benchmarks``.
``--also="--preload"`` gives the server more options.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.process import free_port
from benchmarks.scrape import plot
from tests.support import ROOT
from tests.support.running import APPS, Running

APPLICATION = """
import time
kept = []

def wsgi(environ, start_response):
    if environ["PATH_INFO"] == "/leak":
        kept.append(b"x" * (1 << 20))
    else:
        time.sleep(0.05)
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]

async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        raise NotImplementedError
    time.sleep(0.05)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""
LIMIT = 120  # MiB
IDLE = 6  # seconds for which fewer workers must have been enough
# Seconds and clients. Fractions of a client ask that often only: 0.2 asks for a fifth of the time.
PHASES = ((10.0, 1), (25.0, 12), (25.0, 40), (25.0, 12), (45.0, 0))
# How many workers the load of a phase needs, where a request occupies one of four threads: the next one comes at once.
MOST = 4


@dataclass
class Story:
    """What was seen of one server."""

    name: str
    began: float = 0.0
    answered: int = 0
    failed: list[str] = field(default_factory=list)
    workers: list[tuple[float, float]] = field(default_factory=list)  # when, how many serve
    clients: list[tuple[float, float]] = field(default_factory=list)
    sizes: dict[str, list[tuple[float, float]]] = field(default_factory=dict)  # by worker: when, MiB
    busy: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    replaced: int = 0

    def turns(self) -> list[int]:
        """Return the numbers of workers, one after the other."""
        found: list[int] = []
        for _, number in self.workers:
            if not found or found[-1] != int(number):
                found.append(int(number))
        return found

    def last(self) -> float:
        return self.workers[-1][0]


class Clients:
    """Clients that ask one request after the other, on connections that are kept; their number may be changed."""

    def __init__(self, address: tuple[str, int], path: str, story: Story) -> None:
        self._address = address
        self._path = path
        self._story = story
        self._threads: list[tuple[threading.Thread, threading.Event]] = []
        self._lock = threading.Lock()

    def set(self, number: int) -> None:
        while len(self._threads) < number:
            ended = threading.Event()
            thread = threading.Thread(target=self._ask, args=(ended,), daemon=True)
            thread.start()
            self._threads.append((thread, ended))
        gone = [self._threads.pop() for _ in range(len(self._threads) - number)]
        for _, ended in gone:
            ended.set()
        for thread, _ in gone:
            thread.join(60)

    def _ask(self, ended: threading.Event) -> None:
        connection = http.client.HTTPConnection(*self._address, timeout=60)
        while not ended.is_set():
            try:
                connection.request("GET", self._path)
                answer = connection.getresponse()
                answer.read()
                with self._lock:
                    if answer.status == 200:
                        self._story.answered += 1
                    else:
                        self._story.failed.append(f"status {answer.status}")
            except (OSError, http.client.HTTPException) as exc:
                # Between two requests a server may close a connection: who asks again loses nothing.
                fresh = connection.sock is None
                connection.close()
                if not fresh and not isinstance(exc, http.client.RemoteDisconnected | ConnectionResetError):
                    with self._lock:
                        self._story.failed.append(repr(exc))
            if self._path == "/leak":
                ended.wait(0.05)
        connection.close()


#: More options of the server.
ALSO: list[str] = []


@contextmanager
def served(story: Story, *options: str) -> Iterator[tuple[Running, tuple[str, int]]]:
    """Serve, and look at the workers twice a second meanwhile."""
    admin = f"127.0.0.1:{free_port()}"
    with tempfile.TemporaryDirectory(prefix="bridge-regulated-") as directory:
        Path(directory, "regulated_app.py").write_text(APPLICATION, encoding="utf-8")
        environ = {"PYTHONPATH": f"{directory}:{APPS}:{ROOT}"}
        with Running(*options, *ALSO, "--admin-bind", admin, environ=environ) as server:
            address = server.address()
            story.began = time.time()
            ended = threading.Event()
            watch = threading.Thread(target=look, args=(admin, story, ended), daemon=True)
            watch.start()
            try:
                yield server, address
            finally:
                ended.set()
                watch.join(10)
            story.replaced = sum("is replaced: it uses" in line for line in server.messages.lines)
            if server.end() != 0:
                story.failed.append("the server did not end well")


def look(admin: str, story: Story, ended: threading.Event) -> None:
    while not ended.wait(0.5):
        with suppress(OSError, ValueError), urllib.request.urlopen(f"http://{admin}/status", timeout=5) as answer:
            workers: list[dict[str, Any]] = json.load(answer)["workers"]
            now = time.time()
            serving = [worker for worker in workers if worker["state"] == "ready"]
            story.workers.append((now, len(serving)))
            for worker in workers:
                if worker["rss"]:
                    pid = str(worker["pid"])
                    story.sizes.setdefault(pid, []).append((now, worker["rss"] / (1 << 20)))
            for worker in serving:
                part = max(worker["busy"], worker["threads_busy"])
                story.busy.setdefault(f"worker {worker['worker']}", []).append((now, part))


def leak(seconds: float) -> Story:
    """Let an application leak."""
    story = Story("leak")
    options = ("--workers", "2", "--workers-max-rss", f"{LIMIT}M", "--rss-interval", "1s", "--interface", "wsgi")
    with served(story, "regulated_app:wsgi", *options) as (_, address):
        clients = Clients(address, "/leak", story)
        clients.set(2)
        time.sleep(seconds)
        clients.set(0)
    return story


def load(interface: str, part: float) -> Story:
    """Let clients come and go."""
    story = Story(interface)
    options = ("--workers", f"1..{MOST}", "--workers-idle", f"{IDLE}s", "--interface", interface)
    options += ("--threads", "4") if interface == "wsgi" else ()
    with served(story, f"regulated_app:{interface}", *options) as (_, address):
        clients = Clients(address, "/", story)
        for seconds, number in PHASES:
            now = time.time()
            clients.set(number)
            time.sleep(max(seconds * part, IDLE * MOST * 1.5 if not number else 0))
            story.clients += [(now, number), (time.time(), number)]
    return story


def faults(story: Story) -> list[str]:
    """Name what does not hold."""
    found = [f"{story.name}: {len(story.failed)} failed, such as {story.failed[0]}"] if story.failed else []
    if story.name == "leak":
        most = max(size for sizes in story.sizes.values() for _, size in sizes)
        if story.replaced < 2:
            found.append(f"leak: {story.replaced} workers were replaced")
        if most > 2 * LIMIT:
            found.append(f"leak: a worker had {most:.0f} MiB")
        return found
    turns = story.turns()
    top = turns.index(max(turns))
    if turns[:top] != sorted(turns[:top]) or turns[top:] != sorted(turns[top:], reverse=True):
        found.append(f"{story.name}: the number of workers went {turns}")
    if max(turns) != MOST or turns[0] != 1 or turns[-1] != 1:
        found.append(f"{story.name}: the number of workers went {turns}, not from 1 to {MOST} and back")
    return found


def row(story: Story) -> str:
    """Return a row of the table."""
    most = max(size for sizes in story.sizes.values() for _, size in sizes)
    return (
        f"| {story.name} | {story.last() - story.began:.0f} | {story.answered:,} | {len(story.failed)} |"
        f" {', '.join(map(str, story.turns()))} | {story.replaced} | {most:.0f} |"
    )


def drawn(story: Story) -> str:
    """Return the plot of a story."""
    if story.name == "leak":
        # The colours repeat, so the processes need no names: each line is one.
        return plot({"Memory of each worker, MiB": story.sizes}, [], story.began, story.last())
    panels = {
        "Clients": {"": story.clients},
        "Workers that serve": {"": story.workers},
        "Busy part of loop or threads": story.busy,
    }
    return plot(panels, [], story.began, story.last())


def main() -> None:
    """Parse the command line, run, report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.regulated", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("what", nargs="*", help="leak, wsgi or asgi; all of them without", default=[])
    parser.add_argument("--part", type=float, default=1.0, help="this part of the time (default: 1)")
    parser.add_argument("--publish", action="store_true", help="write the plots into docs/benchmarks")
    parser.add_argument("--also", default="", metavar="OPTIONS", help="more options of the server, as one word")
    options = parser.parse_args()
    ALSO.extend(options.also.split())
    print("| what | seconds | requests | failed | workers | replaced | most MiB of a worker |")
    print("|---|---|---|---|---|---|---|", flush=True)
    found: list[str] = []
    for name in options.what or ("leak", "wsgi", "asgi"):
        story = leak(60 * options.part) if name == "leak" else load(name, options.part)
        print(row(story), flush=True)
        found += faults(story)
        if options.publish:
            file = ROOT / "docs" / "benchmarks" / f"regulated-{name}.svg"
            file.write_text(drawn(story), encoding="utf-8")
    for fault in found:
        print(fault, file=sys.stderr)
    raise SystemExit(1 if found else 0)


if __name__ == "__main__":
    main()
