"""Let Prometheus scrape a server each second while its workers are killed and replaced, and compare what it has seen.

``python -m benchmarks.scrape [--publish]`` serves with two workers, keeps clients asking that count every answer, and
does the following, one after the other: ``kill -9`` of a worker, SIGHUP, ``bridge recycle`` and the recycling of
``--limit-max-requests``, SIGUSR2 (a new master), ``kill -9`` of a worker of the new one. Then it asks Prometheus for
the raw samples, and checks:

* no counter has fallen at any time (those of one process apart, which begin anew with the process);
* the difference of the raw samples is what the clients have counted, less what died with killed workers;
* ``increase()`` agrees with the clients' count of that time within what one scrape interval has.

It ends with status 1 if something of this does not hold. With ``--publish`` a plot of Prometheus's data goes into
``docs/benchmarks/scrape.svg``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.process import environment
from benchmarks.proxies import program
from benchmarks.steady import Load, Mix, loaded
from tests.support import ROOT

INTERVAL = 1.0  # seconds between two scrapes
COUNTED = "http_server_request_duration_seconds_count"
# Counters of a process, which begin anew with the process: Prometheus knows that by the fall.
OF_A_PROCESS = ("process_", "cpython_")
PATIENCE = 60.0

CONFIG = """\
global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}
scrape_configs:
  - job_name: bridge
    static_configs: [{{targets: ["{target}"]}}]
"""


@dataclass
class Outcome:
    """What was seen."""

    load: Load = field(default_factory=Load)
    events: list[tuple[float, str]] = field(default_factory=list)  # time.time(), what
    samples: int = 0
    series: int = 0
    missed: int = 0  # scrapes that failed
    fallen: list[str] = field(default_factory=list)
    restarted: int = 0  # falls of the counters of a process
    counted: Counter[str] = field(default_factory=Counter)  # raw differences by status
    increases: list[tuple[str, float, int, int]] = field(default_factory=list)  # window, increase(), clients', allowed
    promtool: str = ""

    def answered(self) -> Counter[str]:
        return Counter(str(status) for _, status in self.load.times)

    def faults(self) -> list[str]:
        """Name what does not hold."""
        found = list(self.fallen)
        answered, died = self.answered(), len(self.load.failures)
        for status in answered | self.counted:
            if status and not answered[status] - died <= self.counted[status] <= answered[status] + died:
                found.append(f"status {status}: {self.counted[status]:,} counted, {answered[status]:,} answers came")
        kills = [when for when, name in self.events if name == "kill -9"]
        found += [
            f"{failure.method} {failure.path} failed, not at a kill: {failure.reason}"
            for failure in self.load.failures
            if not any(0 <= failure.when - when < 2 for when in kills)
        ]
        found += [
            f"increase() of {window}: {increase:.0f}, the clients have {clients}"
            for window, increase, clients, allowed in self.increases
            if abs(increase - clients) > allowed
        ]
        if self.promtool:
            found.append(f"promtool: {self.promtool}")
        return found


class Prometheus:
    """A running Prometheus."""

    def __init__(self, address: str) -> None:
        self.address = address

    def get(self, path: str, **params: object) -> Any:
        query = urllib.parse.urlencode(params)
        with urllib.request.urlopen(f"http://{self.address}/api/v1/{path}?{query}", timeout=30) as response:
            return json.load(response)["data"]

    def samples(self, selector: str, seconds: int) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
        """Return the raw samples of the last *seconds*, by series."""
        found = self.get("query", query=f"{selector}[{seconds}s]")["result"]
        return [(row["metric"], [(when, float(value)) for when, value in row["values"]]) for row in found]

    def value(self, query: str, when: float) -> float:
        """Return the only value of *query*."""
        found = self.get("query", query=query, time=when)["result"]
        return float(found[0]["value"][1]) if found else 0.0

    def curve(self, query: str, begin: float, end: float) -> dict[str, list[tuple[float, float]]]:
        """Return the curves of *query*, by their labels as text."""
        found = self.get("query_range", query=query, start=begin, end=end, step=1)["result"]
        return {
            " ".join(row["metric"].values()): [(when, float(value)) for when, value in row["values"]] for row in found
        }


def get(address: str, path: str) -> bytes:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as response:
        return bytes(response.read())


async def until(what: str, condition: Any) -> None:
    """Wait until *condition* returns something; errors of connections count as nothing."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            if await asyncio.to_thread(condition):
                return
        except OSError:
            pass
        if time.monotonic() > end:
            raise RuntimeError(f"{what}: not in {PATIENCE:.0f} s")
        await asyncio.sleep(0.1)


class Server:
    """The server under test."""

    def __init__(self, directory: Path, host: str) -> None:
        self.address, self.admin = f"{host}:8000", f"{host}:9000"
        self.pid_file = directory / "bridge.pid"
        self.control = directory / "bridge.ctl"
        self.log = directory / "bridge.log"
        command = [
            sys.executable, "-m", "bridge", "run", "benchmarks.apps.pod:asgi", "--workers", "2", "--no-access-log",
            "--bind", self.address, "--admin-bind", self.admin, "--control-socket", str(self.control),
            "--pid", str(self.pid_file), "--limit-max-requests", "2500", "--limit-max-requests-jitter", "500",
        ]  # fmt: skip
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment({}), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    @property
    def master(self) -> int:
        return int(self.pid_file.read_text())

    def workers(self) -> list[int]:
        """Return the processes of the workers that are ready."""
        rows = json.loads(get(self.admin, "/status"))["workers"]
        return [row["pid"] for row in rows if row["state"] == "ready"]

    def kill_worker(self) -> None:
        os.kill(self.workers()[0], signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.master, number)

    async def recycle(self) -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bridge", "recycle", "0", "--socket", str(self.control), cwd=ROOT, env=environment({})
        )
        if await process.wait():
            raise RuntimeError("bridge recycle has failed")

    def end(self) -> None:
        """End all processes of the server."""
        from benchmarks.zerodrop import _session

        for pid in _session(self.process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()


async def events(server: Server, outcome: Outcome, pause: float) -> None:
    """Do to the server all that is announced, *pause* seconds apart."""

    async def event(name: str) -> None:
        await asyncio.sleep(pause)
        outcome.events.append((time.time(), name))

    async def replaced(before: set[int], number: int) -> None:
        await until("new workers", lambda: len(set(server.workers()) - before) >= number and len(server.workers()) >= 2)

    await event("kill -9")
    before = set(server.workers())
    server.kill_worker()
    await replaced(before, 1)
    await event("HUP")
    before = set(server.workers())
    server.signal(signal.SIGHUP)
    await replaced(before, 2)
    await event("recycle")
    before = set(server.workers())
    await server.recycle()
    await replaced(before, 1)
    await event("USR2")
    before, master = set(server.workers()), server.master
    server.signal(signal.SIGUSR2)
    await until("a new master", lambda: server.master != master)
    await replaced(before, 2)
    await event("kill -9")
    before = set(server.workers())
    server.kill_worker()
    await replaced(before, 1)
    await asyncio.sleep(pause)


async def scrape(pause: float, directory: Path) -> tuple[Outcome, dict[str, dict[str, list[tuple[float, float]]]]]:
    """Run all; return what was seen, and the curves of the plot."""
    network = f"127.{64 + random.randrange(128)}.{random.randrange(256)}"
    outcome = Outcome()
    with ExitStack() as stack:
        server = Server(directory, f"{network}.1")
        stack.callback(server.end)
        await until("the server", lambda: b"ok" in get(server.admin, "/readyz"))
        config = directory / "prometheus.yml"
        config.write_text(CONFIG.format(target=server.admin))
        address = f"{network}.2:9090"
        with (directory / "prometheus.log").open("wb") as log:
            command = [
                program("prometheus"), f"--config.file={config}", f"--web.listen-address={address}",
                f"--storage.tsdb.path={directory}/data", "--log.level=warn",
            ]  # fmt: skip
            process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        stack.callback(process.wait)
        stack.callback(process.terminate)
        prometheus = Prometheus(address)
        await until("Prometheus", lambda: prometheus.samples('up{job="bridge"}', 10))
        host, _, port = server.address.partition(":")
        async with loaded((host, int(port)), Mix(kept=10, fresh=3, pause=0.02, posts=0.2, slow=0.0)) as load:
            outcome.load = load
            began = time.time()
            await events(server, outcome, pause)
        last = time.time()
        await until(
            "the last scrapes",
            lambda: (
                prometheus.get("query", query=f'timestamp({COUNTED}{{job="bridge"}})')["result"]
                and prometheus.value(f'min(timestamp({COUNTED}{{job="bridge"}}))', time.time()) > last + 2 * INTERVAL
            ),
        )
        seconds = int(time.time() - began) + 20
        outcome.promtool = await asyncio.to_thread(check, get(server.admin, "/metrics"))
        judge(outcome, prometheus, seconds, began, last)
        return outcome, curves(prometheus, began, last)


def check(metrics: bytes) -> str:
    """Return what promtool has to say of a page of metrics."""
    done = subprocess.run(
        [program("promtool"), "check", "metrics"], input=metrics, capture_output=True, timeout=30, check=False
    )
    return (done.stdout + done.stderr).decode().strip() or ("" if done.returncode == 0 else f"status {done.returncode}")


def judge(outcome: Outcome, prometheus: Prometheus, seconds: int, began: float, last: float) -> None:
    """Compare what Prometheus has with what the clients have counted."""
    outcome.missed = sum(
        value == 0 for _, values in prometheus.samples('up{job="bridge"}', seconds) for _, value in values
    )
    for labels, values in prometheus.samples('{__name__=~".+_(total|count|sum|bucket)",job="bridge"}', seconds):
        name = labels["__name__"]
        outcome.series += 1
        outcome.samples += len(values)
        for (_, before), (when, after) in pairwise(values):
            if after >= before:
                continue
            if name.startswith(OF_A_PROCESS):
                outcome.restarted += 1
            else:
                outcome.fallen.append(f"{name} fell from {before:g} to {after:g}, {when - began:.0f} s after the start")
        if name == COUNTED:
            outcome.counted[labels.get("http_response_status_code", "")] += int(values[-1][1])
    times = sorted(when for when, _ in outcome.load.times)
    # increase() takes what it has between the first and the last sample of the window, and draws the line on to its
    # ends: so it may be off by what comes in one scrape interval.
    for window in (10, 30, 60):
        for end in range(int(began) + window + 5, int(last), 10):
            clients = sum(end - window < when <= end for when in times)
            increase = prometheus.value(f'sum(increase({COUNTED}{{job="bridge"}}[{window}s]))', end)
            buckets = Counter(int(when) for when in times if end - window - 2 < when <= end + 1)
            outcome.increases.append((f"{window} s", increase, clients, max(buckets.values(), default=0) + 1))


QUERIES = {
    "Requests a second, by status": f"sum by (http_response_status_code) (rate({COUNTED}[3s]))",
    "Latency, ms": "label_replace(1000 * histogram_quantile({q}, sum by (le) (rate("
    'http_server_request_duration_seconds_bucket[5s]))), "q", "p{n}", "", "")',
    "Requests in progress": "sum(http_server_active_requests)",
    "Workers, by state": "sum by (state) (bridge_workers)",
    "Workers that have ended, by reason": "sum by (reason) (bridge_worker_exits_total)",
    "Busy part of the event loops": "bridge_loop_utilization",
}


def curves(prometheus: Prometheus, began: float, last: float) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """Return the curves of each panel."""
    found = {}
    for title, query in QUERIES.items():
        if "{q}" in query:
            found[title] = {
                f"p{n}": next(
                    iter(prometheus.curve(query.replace("{q}", f"0.{n}").replace("{n}", str(n)), began, last).values()),
                    [],
                )
                for n in (50, 95, 99)
            }
        elif title.startswith("Busy"):
            series = prometheus.curve(query, began, last)
            found[title] = {f"worker {name.split()[-1]}": values for name, values in series.items()}
        else:
            found[title] = prometheus.curve(query, began, last)
    return found


COLOURS = ("#0969da", "#bc4c00", "#1a7f37", "#8250df", "#818b98")


def plot(
    panels: dict[str, dict[str, list[tuple[float, float]]]], marks: list[tuple[float, str]], began: float, last: float
) -> str:
    """Return an SVG with a panel for each query, and a line at each event."""
    from xml.sax.saxutils import escape

    from benchmarks.plot import MARGIN, STYLE, WIDTH, text

    height, step, left = 100, 150, 60
    total = MARGIN * 2 + step * len(panels) + 24
    width = WIDTH - left - MARGIN * 2

    def x(when: float) -> float:
        return left + width * (when - began) / (last - began)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {total}" width="{WIDTH}" height="{total}">',
        f"<style>{STYLE}\n.curve {{ fill: none; stroke-width: 1.5 }}</style>",
        f'<rect class="card" x="0.5" y="0.5" width="{WIDTH - 1}" height="{total - 1}" rx="8"/>',
    ]
    for number, (title, series) in enumerate(panels.items()):
        top = MARGIN + number * step + 40
        most = max((value for values in series.values() for _, value in values if value == value), default=0) or 1
        parts.append(text(left, top - 20, title, "title"))
        parts.append(text(left - 8, top + 10, f"{most:,.0f}" if most >= 10 else f"{most:.2g}", "soft", "end"))
        parts.append(text(left - 8, top + height, "0", "soft", "end"))
        parts.append(f'<path d="M{left} {top}V{top + height}H{left + width}" fill="none" stroke="#818b98"/>')
        for when, name in marks:
            parts.append(f'<path d="M{x(when):.1f} {top}V{top + height}" stroke="#818b98" stroke-dasharray="3 3"/>')
            if not number:
                parts.append(text(x(when) + 4, top - 2, name, "soft"))
        place = left + width
        for index, (name, values) in enumerate(series.items()):
            colour = COLOURS[index % len(COLOURS)]
            pieces: list[list[str]] = [[]]
            before = None
            for when, value in values:
                if before is not None and when - before > 1.5:
                    pieces.append([])
                before = when
                if value == value:  # not NaN
                    pieces[-1].append(f"{x(when):.1f},{top + height * (1 - value / most):.1f}")
            parts += [
                f'<polyline class="curve" stroke="{colour}" points="{" ".join(piece)}"/>' for piece in pieces if piece
            ]
            if name:
                label = escape(name)
                parts.append(
                    f'<text x="{place:.0f}" y="{top - 20}" text-anchor="end" style="fill: {colour}">{label}</text>'
                )
                place -= 12 + 8 * len(label)
    parts.append(text(left + width, total - MARGIN, f"{last - began:.0f} seconds", "soft", "end"))
    return "\n".join([*parts, "</svg>", ""])


def report(outcome: Outcome) -> str:
    """Return the figures as text."""
    answered, load = outcome.answered(), outcome.load
    rows = [
        f"| {status or 'none: the client had left'} | {answered[status]:,} | {outcome.counted[status]:,} |"
        for status in sorted(answered | outcome.counted)
    ]
    worst = max(outcome.increases, key=lambda row: abs(row[1] - row[2]) / row[3])
    return "\n".join(
        [
            "| status | answers that came | counted |",
            "|---|---:|---:|",
            *rows,
            "",
            f"Failed at `kill -9`: {len(load.failures)} ({load.reasons()}).",
            f"{outcome.samples:,} raw samples of {outcome.series} counters, {outcome.missed} scrapes without an answer;"
            f" {len(outcome.fallen)} fell. Those of a process began anew with the process {outcome.restarted} times.",
            f"`increase()` of {len(outcome.increases)} windows: the worst, of {worst[0]}, says {worst[1]:,.0f}, the"
            f" clients {worst[2]:,}; one scrape interval has up to {worst[3]:,}.",
            f"`promtool check metrics`: {outcome.promtool or 'nothing to say'}.",
        ]
    )


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pause", type=float, default=15.0, help="seconds before each event [15]")
    parser.add_argument("--publish", action="store_true", help="write the plot into docs/benchmarks")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="scrape-") as name:
        outcome, panels = asyncio.run(scrape(args.pause, Path(name)))
    print(report(outcome))
    faults = outcome.faults()
    for fault in faults:
        print(fault)
    if args.publish:
        begin, end = outcome.load.times[0][0], outcome.load.times[-1][0]
        file = ROOT / "docs" / "benchmarks" / "scrape.svg"
        file.write_text(plot(panels, outcome.events, begin, end), encoding="utf-8")
    sys.exit(1 if faults else 0)


if __name__ == "__main__":
    main()
