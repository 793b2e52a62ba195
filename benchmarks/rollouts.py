"""Roll a deployment out again and again under load, as Kubernetes does it, and count the requests that fail.

``python -m benchmarks.rollouts [--rollouts 20] [ROW ...]`` plays the parts of a cluster. A pod is a server on an
address of its own in 127.0.0.0/8. The kubelet probes it each second: startup, then readiness and liveness. HAProxy
stands in front, without retries. In a rollout a new pod is started; when it is ready it comes into HAProxy, and the
old one is deleted: it gets SIGTERM at once (or after the ``sleep`` of its preStop hook), and the endpoint controller
takes it out of HAProxy 2 to 5 seconds later, as the news travels. After 45 seconds the kubelet kills. Meanwhile 12
clients ask, on kept connections and on new ones, GET and POST, and check every answer. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.machine import process_tree
from benchmarks.process import environment
from benchmarks.proxies import Runtime, haproxy
from benchmarks.steady import Load, Mix, answer, loaded
from tests.support import ROOT

ROLLOUTS = 20
NEWS = (2.0, 5.0)  # seconds from the deletion of a pod until HAProxy knows
PERIOD = 1.0  # seconds between two probes, and for the answer of one
STARTUP = 60.0  # seconds a pod may take to start
GRACE = 45.0  # terminationGracePeriodSeconds
SLOTS = 8  # servers that HAProxy knows; more than there are pods at once
PORT, ADMIN = 8000, 9000

ASGI, WSGI = "benchmarks.apps.pod:asgi", "benchmarks.apps.pod:wsgi"
BRIDGE = ["-m", "bridge", "run", "--bind", "{host}:8000", "--admin-bind", "{host}:9000", "--no-access-log"]
DRAIN = ["--drain-delay", "10s"]
UVICORN = ["-m", "uvicorn", ASGI, "--host", "{host}", "--port", "8000", "--no-access-log"]
GUNICORN = ["-m", "gunicorn", ASGI, "--bind", "{host}:8000", "--worker-class", "asgi", "--workers", "2",
            "--no-control-socket"]  # fmt: skip
GRANIAN = ["-m", "granian", "--interface", "asgi", ASGI, "--host", "{host}", "--port", "8000", "--workers", "2"]
SLEEP = 10.0  # seconds, the preStop hook that peers need


@dataclass(frozen=True)
class Row:
    """A server with its settings."""

    name: str
    settings: str
    command: list[str]
    pre_stop: float = 0.0
    admin: bool = False  # it has probes on a port of their own


def bridge(settings: str, app: str, *options: str) -> Row:
    return Row("bridge", settings, [*BRIDGE, app, *options], admin=True)


#: What each server's documentation has for a stop: how long requests may take, how long connections may be idle.
ROWS = {
    "bridge": bridge("--drain-delay 10s", ASGI, *DRAIN),
    "bridge-workers": bridge("--drain-delay 10s --workers 2", ASGI, *DRAIN, "--workers", "2"),
    "bridge-preload": bridge("--drain-delay 10s --workers 2 --preload", ASGI, *DRAIN, "--workers", "2", "--preload"),
    "bridge-asyncio": bridge("--drain-delay 10s --loop asyncio", ASGI, *DRAIN, "--loop", "asyncio"),
    "bridge-wsgi": bridge("--drain-delay 10s --workers 2, WSGI", WSGI, *DRAIN, "--workers", "2"),
    "bridge-none": bridge("none", ASGI),
    "uvicorn": Row("uvicorn", "none", UVICORN),
    "uvicorn-options": Row(
        "uvicorn",
        "--timeout-graceful-shutdown 30 --timeout-keep-alive 75",
        [*UVICORN, "--timeout-graceful-shutdown", "30", "--timeout-keep-alive", "75"],
    ),
    "uvicorn-sleep": Row("uvicorn", "preStop: sleep 10", UVICORN, SLEEP),
    "gunicorn": Row("gunicorn (asgi)", "none", GUNICORN),
    "gunicorn-options": Row(
        "gunicorn (asgi)",
        "--graceful-timeout 30 --keep-alive 75",
        [*GUNICORN, "--graceful-timeout", "30", "--keep-alive", "75"],
    ),
    "gunicorn-sleep": Row("gunicorn (asgi)", "preStop: sleep 10", GUNICORN, SLEEP),
    "granian": Row("granian", "none", GRANIAN),
    "granian-options": Row("granian", "--workers-kill-timeout 30", [*GRANIAN, "--workers-kill-timeout", "30"]),
    "granian-sleep": Row("granian", "preStop: sleep 10", GRANIAN, SLEEP),
}

HAPROXY = """\
    maxconn 4000
defaults
    mode http
    timeout connect 2s
    timeout client 60s
    timeout server 60s
    timeout http-keep-alive 60s
    retries 0
frontend web
    bind unix@{directory}/front.sock
    default_backend pods
backend pods
    balance roundrobin
    server-template pod 1-{slots} 127.0.0.1:1 disabled
"""


@dataclass
class Seen:
    """What the kubelet has seen."""

    probes: int = 0
    failed: int = 0  # liveness probes without an answer while the pod was there
    killed: int = 0  # pods that were still there at the end of their grace time
    stops: list[float] = field(default_factory=list)  # seconds from SIGTERM to the end
    statuses: set[int] = field(default_factory=set)  # exit statuses


async def probe(host: str, port: int, path: str) -> int:
    """Return the status of a probe; 0 without an answer."""
    with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, ValueError):
        async with asyncio.timeout(PERIOD):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                return (await answer(reader))[0]
            finally:
                writer.close()
    return 0


class Pod:
    """A server, and the kubelet that probes and ends it."""

    def __init__(self, row: Row, host: str, log: Path, seen: Seen) -> None:
        self.row, self.host, self.seen = row, host, seen
        self.ready = asyncio.Event()
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, *(word.replace("{host}", host) for word in row.command)],
                cwd=ROOT,
                env=environment({}),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        self.probes = asyncio.create_task(self._probe())

    async def ask(self, path: str) -> bool:
        """Tell whether a probe succeeds: on the port for probes, or by a path of the application."""
        self.seen.probes += 1
        port, asked = (ADMIN, path) if self.row.admin else (PORT, "/healthz")
        return await probe(self.host, port, asked) == 200

    async def _probe(self) -> None:
        began = time.monotonic()
        while not await self.ask("/startupz"):
            if self.process.poll() is not None or time.monotonic() - began > STARTUP:
                raise RuntimeError(f"{self.row.name} does not start: {self.log.read_text(errors='replace')[-2000:]}")
            await asyncio.sleep(PERIOD)
        while self.process.poll() is None:
            if await self.ask("/readyz"):
                self.ready.set()
            lives = await self.ask("/livez")
            await asyncio.sleep(PERIOD)
            if not lives and self.process.poll() is None:  # without an answer, and not since it has ended
                self.seen.failed += 1

    async def delete(self) -> None:
        """End it: preStop, SIGTERM, and SIGKILL when its grace time is over."""
        await asyncio.sleep(self.row.pre_stop)
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        while self.process.poll() is None:
            if time.monotonic() - began > GRACE - self.row.pre_stop:
                self.seen.killed += 1
                break
            await asyncio.sleep(0.05)
        else:
            self.seen.stops.append(time.monotonic() - began)
            self.seen.statuses.add(self.process.returncode)
        await self.remove()

    async def remove(self) -> None:
        """End all that is left of it."""
        self.probes.cancel()
        with contextlib.suppress(asyncio.CancelledError, RuntimeError):
            await self.probes
        for stat in process_tree(self.process.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(stat.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        await asyncio.to_thread(self.process.wait)


class Cluster:
    """The controllers: they start pods, and tell HAProxy of them."""

    def __init__(self, row: Row, directory: Path, runtime: Runtime) -> None:
        self.row, self.directory, self.runtime = row, directory, runtime
        self.seen = Seen()
        self.pods: list[Pod] = []
        self.started = 0
        self.slots: dict[Pod, int] = {}
        # Addresses that no other run has.
        self.network = f"127.{64 + random.randrange(128)}.{random.randrange(256)}"

    async def start(self) -> Pod:
        """Start a pod; return it when it is ready and HAProxy knows it."""
        self.started += 1
        pod = Pod(self.row, f"{self.network}.{self.started}", self.directory / f"pod{self.started}.log", self.seen)
        self.pods.append(pod)
        ready = asyncio.create_task(pod.ready.wait())
        await asyncio.wait({ready, pod.probes}, return_when=asyncio.FIRST_COMPLETED)
        if pod.probes.done():
            ready.cancel()
            pod.probes.result()
            raise RuntimeError(f"{self.row.name} has ended: {pod.log.read_text(errors='replace')[-2000:]}")
        self.slots[pod] = slot = self.started % SLOTS + 1
        self.runtime.order(f"set server pods/pod{slot} addr {pod.host} port {PORT}")
        self.runtime.order(f"set server pods/pod{slot} state ready")
        return pod

    async def take_out(self, pod: Pod) -> None:
        """Let HAProxy know, late, that a pod is going."""
        await asyncio.sleep(random.uniform(*NEWS))
        self.runtime.order(f"set server pods/pod{self.slots.pop(pod)} state maint")

    async def roll(self, rollouts: int) -> None:
        """Replace the pod, again and again."""
        old = self.pods[-1]
        async with asyncio.TaskGroup() as ends:
            for _ in range(rollouts):
                new = await self.start()
                ends.create_task(old.delete())
                await self.take_out(old)
                old = new

    async def remove(self) -> None:
        for pod in self.pods:
            await pod.remove()


@contextlib.asynccontextmanager
async def cluster(row: Row) -> AsyncIterator[Cluster]:
    """Run HAProxy and one pod; end everything at the end of the block."""
    with tempfile.TemporaryDirectory(prefix="rollouts-") as name:
        directory = Path(name)
        with haproxy(directory, HAPROXY.format(directory=directory, slots=SLOTS)) as runtime:
            found = Cluster(row, directory, runtime)
            try:
                await found.start()
                yield found
            finally:
                await found.remove()


async def measure(row: Row, rollouts: int, mix: Mix) -> tuple[Load, Seen]:
    """Roll out under load; return what clients and kubelet have seen."""
    async with cluster(row) as found, loaded(str(found.directory / "front.sock"), mix) as load:
        await asyncio.sleep(1.0)
        await found.roll(rollouts)
        await asyncio.sleep(1.0)
    return load, found.seen


COLUMNS = (
    "server",
    "settings",
    "rollouts",
    "requests",
    "failed",
    "of these",
    "longest answer",
    "longest stop",
    "killed after 45 s",
    "liveness probes failed",
)


def line(row: Row, rollouts: int, load: Load, seen: Seen) -> str:
    """Return a row of the table."""
    cells = [
        row.name,
        row.settings if row.settings == "none" else f"`{row.settings}`",
        rollouts,
        f"{load.total:,}",
        f"{len(load.failures):,}",
        load.reasons(),
        f"{load.longest:.1f} s",
        f"{max(seen.stops, default=0):.1f} s",
        seen.killed,
        f"{seen.failed} of {seen.probes:,}",
    ]
    return f"| {' | '.join(map(str, cells))} |"


async def run(names: list[str], rollouts: int, parallel: int) -> int:
    """Measure rows, *parallel* at a time; return how many requests of bridge with a drain delay have failed."""
    free = asyncio.Semaphore(parallel)
    faults = 0

    async def one(name: str) -> None:
        nonlocal faults
        async with free:
            load, seen = await measure(ROWS[name], rollouts, Mix())
        print(line(ROWS[name], rollouts, load, seen), flush=True)
        if ROWS[name].admin and name != "bridge-none":
            faults += len(load.failures)

    print(f"| {' | '.join(COLUMNS)} |\n|{'---|' * len(COLUMNS)}", flush=True)
    async with asyncio.TaskGroup() as tasks:
        for name in names:
            tasks.create_task(one(name))
    return faults


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help=f"some of {', '.join(ROWS)}; all without any")
    parser.add_argument("--rollouts", type=int, default=ROLLOUTS)
    parser.add_argument("--parallel", type=int, default=1, help="deployments at once, each behind a HAProxy of its own")
    args = parser.parse_args()
    unknown = set(args.rows) - set(ROWS)
    if unknown:
        parser.error(f"no such row: {', '.join(sorted(unknown))}; there are {', '.join(ROWS)}")
    sys.exit(1 if asyncio.run(run(args.rows or list(ROWS), args.rollouts, args.parallel)) else 0)


if __name__ == "__main__":
    main()
