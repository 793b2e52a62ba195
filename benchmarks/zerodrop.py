"""Count the requests that fail while a server is reloaded, replaced and resized under load, and when a worker dies.

``python -m benchmarks.zerodrop [SERVER ...]`` starts each server with two workers, keeps 16 keep-alive clients asking
that check every answer, and wrk beside them, sends the signals that the server knows, and prints a Markdown table.
Then, under the same load, it kills workers with ``SIGKILL``: each is stopped for a moment before, so that the
connections that it holds can be listed, and every request that fails is looked up in that list.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.process import ROOT

APP = "benchmarks.apps.asgi:plaintext"
RELOADS = 20
KILLS = 5
# Seconds from the end of a worker to the next.
DEATH = 2.5

SERVERS = {
    "bridge": ["-m", "bridge", "run", APP, "--workers", "2", "--no-access-log", "--port"],
    "uvicorn": ["-m", "uvicorn", APP, "--workers", "2", "--no-access-log", "--port"],
    "gunicorn": [
        str(Path(sys.executable).with_name("gunicorn")),
        APP,
        "--worker-class",
        "asgi",
        "--workers",
        "2",
        "--bind",
    ],
    "granian": ["-m", "granian", "--interface", "asgi", APP, "--workers", "2", "--port"],
}
#: Signals beside HUP that the server knows.
MORE = {"bridge": ("TTIN", "TTOU", "USR2"), "uvicorn": ("TTIN", "TTOU"), "gunicorn": ("TTIN", "TTOU", "USR2")}


@dataclass
class Count:
    """What the clients saw."""

    good: int = 0
    announced: int = 0
    faults: dict[str, int] = field(default_factory=dict)
    asking: set[int] = field(default_factory=set)  # the local ports with a request in flight
    failed: list[int] = field(default_factory=list)  # the local ports of failed requests; 0 without a connection

    def fault(self, name: str, port: int = 0) -> None:
        """Count a failed request."""
        self.faults[name] = self.faults.get(name, 0) + 1
        self.failed.append(port)


async def client(port: int, count: Count, stop: asyncio.Event) -> None:
    """Ask one request after the other on a connection for as long as the server keeps it open."""
    request = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
    while not stop.is_set():
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            count.fault("refused")
            await asyncio.sleep(0.01)
            continue
        own = writer.get_extra_info("sockname")[1]
        try:
            while not stop.is_set():
                if reader.at_eof():
                    break  # closed while nothing was asked
                count.asking.add(own)
                writer.write(request)
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
                length = re.search(rb"(?i)content-length: ([0-9]+)", head)
                content = await asyncio.wait_for(reader.readexactly(int(length[1]) if length else 0), 20)
                if not head.startswith(b"HTTP/1.1 200 ") or content != b"Hello, World!":
                    count.fault(f"wrong answer {head[:20]!r}", own)
                    break
                count.asking.discard(own)
                count.good += 1
                if re.search(rb"(?i)\r\nconnection: *close", head):
                    count.announced += 1
                    break
                await asyncio.sleep(0.001)
        except asyncio.IncompleteReadError as exc:
            count.fault("closed in an answer" if exc.partial else "closed under a request", own)
        except TimeoutError:
            count.fault("no answer", own)
        except OSError:
            count.fault("reset", own)
        finally:
            count.asking.discard(own)
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


@dataclass
class Deaths:
    """What the ends of workers by SIGKILL have cost."""

    killed: int = 0
    held: int = 0  # connections that the killed workers had
    asking: int = 0  # requests of the clients in flight there
    failed: int = 0  # requests in all
    later: int = 0  # of these: sent to the killed worker before the system had closed its connections
    elsewhere: int = 0  # of these: not on a connection of the killed worker


@dataclass
class Result:
    """What was measured of one server."""

    count: Count
    errors: str
    sent: list[str]
    deaths: Deaths
    errors_at_deaths: str


async def measure(name: str, reloads: int, pause: float, kills: int) -> Result:
    """Serve, load, signal; then, under load again, kill workers."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    place = f"127.0.0.1:{port}" if name == "gunicorn" else str(port)
    environ = {**os.environ, "PYTHONPATH": str(ROOT)}
    log = open(os.environ.get("ZERODROP_LOG", os.devnull), "wb")  # noqa: SIM115
    server = subprocess.Popen(
        [sys.executable, *SERVERS[name], place], cwd=ROOT, env=environ, stdout=log, stderr=log, start_new_session=True
    )
    try:
        await _answers(port)
        await asyncio.sleep(1.0)
        sent: list[str] = []
        async with _load(port, int(reloads * pause + 12)) as load:
            await _signal(server.pid, name, reloads, pause, sent)
            errors = await load.errors()
        deaths = Deaths()
        async with _load(port, int(kills * DEATH + 6)) as late:
            await asyncio.sleep(1.0)
            for _ in range(kills):
                await _kill_one(server.pid, port, late.count, deaths)
            errors_at_deaths = await late.errors()
    finally:
        for pid in _session(server.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        server.wait()
        log.close()
    return Result(load.count, errors, sent, deaths, errors_at_deaths)


class _Load:
    """16 clients that check every answer, and wrk."""

    def __init__(self, wrk: asyncio.subprocess.Process | None) -> None:
        self.count = Count()
        self.wrk = wrk

    async def errors(self) -> str:
        """Wait for wrk's end; return what it says of errors."""
        if self.wrk is None:
            return "-"
        out = (await self.wrk.communicate())[0].decode()
        found = re.search(r"Socket errors: (.*)", out)
        bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
        return (found[1] if found else "none") + (f", {bad[1]} not 200" if bad else "")


@contextlib.asynccontextmanager
async def _load(port: int, seconds: int) -> AsyncIterator[_Load]:
    wrk = None
    if shutil.which("wrk"):
        wrk = await asyncio.create_subprocess_exec(
            "wrk", "-t1", "-c16", f"-d{seconds}s", f"http://127.0.0.1:{port}/", stdout=subprocess.PIPE
        )
    load, stop = _Load(wrk), asyncio.Event()
    tasks = [asyncio.create_task(client(port, load.count, stop)) for _ in range(16)]
    try:
        yield load
    finally:
        stop.set()
        await asyncio.gather(*tasks)
        if wrk is not None and wrk.returncode is None:
            wrk.kill()
            await wrk.wait()


async def _signal(master: int, name: str, reloads: int, pause: float, sent: list[str]) -> None:
    """Send all signals that the server knows."""
    for _ in range(reloads):
        os.kill(master, signal.SIGHUP)
        sent.append("HUP")
        await asyncio.sleep(pause)
    for word in MORE.get(name, ()):
        os.kill(master, getattr(signal, f"SIG{word}"))
        sent.append(word)
        await asyncio.sleep(3.0 if word == "USR2" else 1.0)
        if word == "USR2" and name == "gunicorn":  # its users end the old master themselves
            os.kill(master, signal.SIGTERM)
            await asyncio.sleep(2.0)
    await asyncio.sleep(2.0)


async def _kill_one(leader: int, port: int, count: Count, deaths: Deaths) -> None:
    """Kill the process with the most connections, and see which requests fail."""
    holders = {pid: _held(pid, port) for pid in _session(leader)}
    victim = max(holders, key=lambda pid: len(holders[pid]), default=None)
    if victim is None or not holders[victim]:
        return  # nobody serves any more
    os.kill(victim, signal.SIGSTOP)
    while _stat(victim)[0] not in {"T", "Z", ""}:
        await asyncio.sleep(0)
    held = _held(victim, port)
    before = len(count.failed)
    asking = held & count.asking
    os.kill(victim, signal.SIGKILL)
    await asyncio.sleep(DEATH)
    failed = count.failed[before:]
    deaths.killed += 1
    deaths.held += len(held)
    deaths.asking += len(asking)
    deaths.failed += len(failed)
    deaths.later += len([own for own in failed if own in held - asking])
    deaths.elsewhere += len([own for own in failed if own not in held])


def _held(pid: int, port: int) -> set[int]:
    """Return the clients' ports of the connections to *port* that a process holds."""
    inodes = set()
    with contextlib.suppress(OSError):
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                inodes.add(os.readlink(entry.path))
    held = set()
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        ours, theirs = (int(place.partition(":")[2], 16) for place in fields[1:3])
        if ours == port and theirs and f"socket:[{fields[9]}]" in inodes:
            held.add(theirs)
    return held


async def _answers(port: int) -> None:
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            await asyncio.sleep(0.05)
        else:
            writer.close()
            return
    raise SystemExit("the server does not listen")


def _stat(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError:
        return ["", "0", "0", "0"]


def _session(leader: int) -> list[int]:
    """Return the processes of *leader*'s session."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]
    return [pid for pid in pids if _stat(pid)[3] == str(leader)]


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("servers", nargs="*", default=list(SERVERS), metavar="SERVER")
    parser.add_argument("--reloads", type=int, default=RELOADS)
    parser.add_argument("--pause", type=float, default=1.5, help="seconds between two reloads")
    parser.add_argument("--kills", type=int, default=KILLS, help="workers to end with SIGKILL")
    args = parser.parse_args()
    print("| server | signals | checked requests | failed | of these | ends announced | wrk's errors |")
    print("|---|---|---|---|---|---|---|")
    results = {}
    for name in args.servers or SERVERS:
        results[name] = result = asyncio.run(measure(name, args.reloads, args.pause, args.kills))
        count = result.count
        words = ", ".join(f"{number} {kind}" for kind, number in sorted(count.faults.items())) or "-"
        rest = [word for word in result.sent if word != "HUP"]
        signals = f"{result.sent.count('HUP')} HUP{''.join(', ' + word for word in rest)}"
        total = sum(count.faults.values())
        row = [name, signals, count.good, total, words, count.announced, result.errors]
        print(f"| {' | '.join(map(str, row))} |", flush=True)
    print()
    print(
        "| server | workers killed | connections they held | requests in flight there | requests failed |"
        " of these sent before the connection closed | failed elsewhere | wrk's errors |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, result in results.items():
        deaths = result.deaths
        row = [name, deaths.killed, deaths.held, deaths.asking, deaths.failed, deaths.later, deaths.elsewhere]
        print(f"| {' | '.join(map(str, row))} | {result.errors_at_deaths} |")


if __name__ == "__main__":
    main()
