"""Run one round of one server: a load, idle connections, slow readers, or a start."""

import contextlib
import json
import math
import os
import re
import resource
import select
import shutil
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import http2, mixed
from benchmarks.answers import UPLOAD_SIZE
from benchmarks.client import percentile
from benchmarks.figures import microseconds_per_request
from benchmarks.machine import busy_seconds
from benchmarks.process import CONTENTS, ROOT, BenchmarkError, Files, ServerProcess, run_on_core
from benchmarks.scenarios import Scenario
from benchmarks.servers import HOST

REQUEST = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
WARM_UP_CONNECTIONS = 50
SETTLE = 0.5  # seconds between the last connection and the reading of memory
ANSWER_LIMIT = 5.0  # seconds for one answer while many connections are open
# A slow reader has a small receive buffer and a segment size as on Ethernet: with the loopback's 64 KiB segments the
# kernel gives the server a send buffer of megabytes, takes the whole answer at once, and nothing would be measured.
SLOW_WINDOW = 4096  # bytes
SLOW_SEGMENT = 1460  # bytes


@dataclass(frozen=True, slots=True)
class Settings:
    """What holds for every round of a run."""

    seconds: float
    warm_up: float  # seconds
    connections: int | None  # None: the scenario's own number
    generator: str  # wrk or own
    cores: tuple[int, int] | None  # the server's and the load's; None: not pinned
    files: Files

    @property
    def server_core(self) -> int | None:
        return self.cores[0] if self.cores else None

    @property
    def load_core(self) -> int | None:
        return self.cores[1] if self.cores else None


def choose_generator(wanted: str) -> str:
    """Return "wrk" or "own"; "auto" takes wrk where it is installed."""
    if wanted == "auto":
        return "wrk" if shutil.which("wrk") else "own"
    return wanted


def load_command(scenario: Scenario, settings: Settings, port: str, seconds: float, part: int = 1) -> list[str]:
    """Return the load generator's command for *seconds* of the scenario's load.

    Args:
        part: Of the numbers in mixed requests: each load of one server takes another.
    """
    connections = str(settings.connections or scenario.connections)
    if scenario.target.http2:
        return http2_command(scenario, connections, port, seconds, part)
    if settings.generator == "wrk" and not scenario.websocket:
        scheme = "https" if scenario.target.tls else "http"
        duration = f"{max(1, math.ceil(seconds))}s"  # wrk takes whole seconds only
        script = os.path.relpath(Path(__file__).with_name("load.lua"), ROOT)
        command = ["wrk", "-t1", f"-c{connections}", f"-d{duration}", "--timeout", "10s", "-s", script]
        more = ["{templates}", str(part), str(mixed.SEED)] if scenario.sends == "mixed" else []
        return [*command, f"{scheme}://{HOST}:{port}/", "--", scenario.sends, *more]
    command = ["python", "-m", "benchmarks.client", "--port", port, "--sends", scenario.sends]
    command += ["--connections", connections, "--seconds", f"{seconds:g}"]
    command += ["--part", str(part)] if scenario.sends == "mixed" else []
    return [*command, "--tls"] if scenario.target.tls else command


def browser_lines() -> list[str]:
    """Return the field lines that a browser sends over HTTP/2, behind the pseudo-fields."""
    head = Path(__file__).with_name("browser.http").read_text().replace("{n}", "00000000")
    return [line for line in head.splitlines()[2:] if line and not line.startswith("Connection")]


def http2_command(scenario: Scenario, connections: str, port: str, seconds: float, part: int) -> list[str]:
    """Return the command of a load over HTTP/2: h2load's, or our own client's for requests that differ."""
    streams = str(scenario.streams)
    if scenario.sends == "mixed":
        command = ["python", "-m", "benchmarks.h2client", "--port", port, "--connections", connections]
        return [*command, "--streams", streams, "--seconds", f"{seconds:g}", "--part", str(part)]
    base = f"{'https' if scenario.target.tls else 'http'}://{HOST}:{port}/"
    command = ["h2load", "-t1", f"-c{connections}", f"-m{streams}", f"-D{max(1, math.ceil(seconds))}"]
    command += ["--log-file={h2log}"]
    if scenario.sends == "upload":
        return [*command, "-d", "{upload}", base]
    if scenario.sends == "paths":
        return [*command, *(f"-H{line}" for line in browser_lines()), "-i", "{paths}", "-B", base]
    return [*command, base]


H2LOAD = re.compile(
    r"requests: \d+ total, \d+ started, (\d+) done, \d+ succeeded, (\d+) failed, (\d+) errored, (\d+) timeout"
)


def read_h2load(output: str, log: Path) -> dict[str, Any]:
    """Return what h2load counted, in load.lua's shape; the latencies are in its log, the last column of each row.

    Raises:
        BenchmarkError: h2load printed no result.
    """
    counts, finished = H2LOAD.search(output), re.search(r"finished in ([\d.]+)(ms|s)", output)
    if counts is None or finished is None:
        raise BenchmarkError(f"h2load: {' '.join(output.split()[-20:])}")
    done, failed, errored, timeout = map(int, counts.groups())
    latencies = sorted(int(row.rpartition(b"\t")[2]) / 1e6 for row in log.read_bytes().splitlines())
    log.unlink()
    return {
        "requests": done - failed,
        "seconds": float(finished[1]) / (1000 if finished[2] == "ms" else 1),
        "p50": percentile(latencies, 0.50),
        "p99": percentile(latencies, 0.99),
        # A request that fails because its connection ended counts for both.
        "errors": {"status": max(0, failed - errored), "read": errored, "timeout": timeout},
    }


def check(server: ServerProcess, scenario: Scenario) -> None:
    """Look at the server's answers before a load.

    Raises:
        BenchmarkError: one is not what the scenario expects.
    """
    if scenario.target.http2:
        server.check_streams(scenario.expect, http2_requests(scenario))
    elif scenario.sends == "mixed":
        server.check_answers(scenario.expect, mixed.checked_requests())
    else:
        server.check_answer(scenario.expect, b"u" * UPLOAD_SIZE if scenario.sends == "upload" else None)


def http2_requests(scenario: Scenario) -> list[bytes]:
    """Return the requests whose answers are looked at before a load, for streams 1, 3, ..."""
    if scenario.sends == "mixed":
        frames = http2.Frames(mixed.CHECKED)
        streams = range(2 * len(frames.first) + 1, 2 * len(frames.first) + 81, 2)
        return [*frames.first, *map(frames.next, streams)]
    if scenario.sends == "upload":
        return [http2.plain_request(1, "POST", b"u" * 16_384 * 3)]
    scheme = "https" if scenario.target.tls else "http"
    return [http2.plain_request(stream, scheme=scheme) for stream in (1, 3)]


def run_load(scenario: Scenario, settings: Settings, port: int, seconds: float, part: int = 0) -> dict[str, Any]:
    """Load the server and return what the generator counted.

    Raises:
        BenchmarkError: the generator failed, or any request did.
    """
    command = load_command(scenario, settings, str(port), seconds, part)
    log = settings.files.path("h2log")
    for name in CONTENTS:
        if f"{{{name}}}" in command:
            command[command.index(f"{{{name}}}")] = settings.files.named(name)
    command = [word.replace("{h2log}", str(log)) for word in command]
    if command[0] == "python":
        command[0] = sys.executable
    output = run_on_core(command, settings.load_core, seconds + 20)
    counted: dict[str, Any]
    counted = read_h2load(output, log) if command[0] == "h2load" else json.loads(output.strip().splitlines()[-1])
    errors = {kind: number for kind, number in counted["errors"].items() if number}
    if errors:
        words = ", ".join(f"{number} {kind}" for kind, number in errors.items())
        raise BenchmarkError(f"errors: {words}, beside {counted['requests']} requests")
    if not counted["requests"]:
        raise BenchmarkError("no request was completed")
    return counted


def load_round(name: str, scenario: Scenario, settings: Settings) -> dict[str, float]:
    """Start the server, check its answer, warm it up, load it."""
    with ServerProcess(name, scenario.target, settings.server_core, settings.files) as server:
        check(server, scenario)
        if settings.warm_up:
            run_load(scenario, settings, server.port, settings.warm_up)
        busy, generator = [busy_seconds(core) for core in settings.cores or ()], children_cpu()
        cpu, began = server.cpu(), time.perf_counter()
        counted = run_load(scenario, settings, server.port, settings.seconds, part=1)
        used, elapsed = server.cpu() - cpu, time.perf_counter() - began
        own = [used, children_cpu() - generator]  # in the order of Settings.cores
        worked = [busy_seconds(core) - before for core, before in zip(settings.cores or (), busy, strict=True)]
        server.check_alive()
        return {
            "cpu_us": microseconds_per_request(used, counted["requests"]),
            "rate": counted["requests"] / counted["seconds"],
            "p50_ms": counted["p50"] * 1e3,
            "p99_ms": counted["p99"] * 1e3,
            "rss_mib": server.memory() / 2**20,
            "others": others(worked, own, elapsed),
            "requests": counted["requests"],
        }


def children_cpu() -> float:
    """Return the user and system seconds of the children that have ended and were waited for: load generators."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def others(worked: list[float], own: list[float], elapsed: float) -> float:
    """Return the largest part of a core that neither the server nor the load took; 0.0 where nothing is pinned."""
    return max((max(0.0, busy - used) / elapsed for busy, used in zip(worked, own, strict=False)), default=0.0)


def receive_answer(connection: socket.socket, size: int) -> None:
    """Read one whole answer with at least *size* bytes of content."""
    received = b""
    while b"\r\n\r\n" not in received:
        data = connection.recv(65536)
        if not data:
            raise BenchmarkError("closed before an answer")
        received += data
    head, _, rest = received.partition(b"\r\n\r\n")
    if not head.startswith((b"HTTP/1.1 200", b"HTTP/1.0 200")):
        raise BenchmarkError(f"answered {head[:40]!r}")
    have = len(rest)
    while have < size:
        data = connection.recv(65536)
        if not data:
            raise BenchmarkError("closed within an answer")
        have += len(data)


def allow_files(number: int) -> None:
    """Raise this process's and its children's limit of open files to *number*, as far as the hard limit lets."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(number, hard), hard))


def connect(port: int, slow: bool = False) -> socket.socket:
    connection = socket.socket()
    connection.settimeout(ANSWER_LIMIT)
    if slow:  # before connect: both are agreed on there
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_WINDOW)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SLOW_SEGMENT)
    try:
        connection.connect((HOST, port))
    except BaseException:
        connection.close()
        raise
    return connection


def memory_round(name: str, scenario: Scenario, settings: Settings) -> dict[str, float | None]:
    """Open many connections, idle or with an answer that nobody reads, and weigh the server before and after."""
    number = settings.connections or scenario.connections
    allow_files(number + 200)
    slow = scenario.kind == "slow"
    size = len(scenario.expect)
    ask = ask_http2 if scenario.target.http2 else ask_http1
    with (
        ServerProcess(name, scenario.target, settings.server_core, settings.files) as server,
        contextlib.ExitStack() as opened,
    ):
        check(server, scenario)
        with contextlib.ExitStack() as warm_up:
            for _ in range(WARM_UP_CONNECTIONS):
                ask(warm_up.enter_context(connect(server.port)), size)
        time.sleep(SETTLE)
        before = server.memory()
        try:
            connections = [opened.enter_context(connect(server.port, slow)) for _ in range(number)]
            for connection in connections:
                if slow and scenario.target.http2:  # none of its streams has a window
                    requests = [http2.plain_request(1 + 2 * stream) for stream in range(scenario.streams)]
                    connection.sendall(http2.opening(window=0) + b"".join(requests))
                elif slow:
                    connection.sendall(REQUEST)
                else:
                    ask(connection, size)
            after = settled_memory(server)
        except OSError as error:
            raise BenchmarkError(f"could not hold {number} connections: {error!r}") from error
        readers = number * scenario.streams if slow else number
        outcome: dict[str, float | None] = {"kib": (after - before) / readers / 1024, "rss_mib": after / 2**20}
        if slow:
            outcome["answer_ms"] = time_answer(server.port, size, ask)
        else:
            lost = closed(connections)
            if lost:
                raise BenchmarkError(f"{lost} of {number} idle connections were closed")
        return outcome


def ask_http1(connection: socket.socket, size: int) -> None:
    connection.sendall(REQUEST)
    receive_answer(connection, size)


def ask_http2(connection: socket.socket, size: int) -> None:
    connection.sendall(http2.opening() + http2.plain_request(1))
    block, content = http2.read_answers(connection, [1])[1]
    if not http2.says_200(block) or len(content) < size:
        raise BenchmarkError(f"answered {block[:40]!r}, {len(content)} bytes")


def settled_memory(server: ServerProcess) -> int:
    """Return the server's memory once it has stopped to grow, or after five seconds."""
    last = server.memory()
    for _ in range(10):
        time.sleep(SETTLE)
        now = server.memory()
        if now - last < 65536:
            return now
        last = now
    return last


def closed(connections: list[socket.socket]) -> int:
    """Return how many connections the server has closed."""
    poller = select.poll()
    for connection in connections:
        poller.register(connection, select.POLLIN | select.POLLRDHUP)
    return len(poller.poll(0))


def time_answer(port: int, size: int, ask: Callable[[socket.socket, int], None]) -> float | None:
    """Return how many ms a new client waits for a whole answer; None when it gets none in five seconds."""
    began = time.perf_counter()
    try:
        with connect(port) as connection:
            ask(connection, size)
    except (OSError, BenchmarkError):
        return None
    return (time.perf_counter() - began) * 1e3


def start_round(name: str, scenario: Scenario, settings: Settings) -> dict[str, float]:
    """Start the server and stop the clock at the first byte of its first answer."""
    began = time.perf_counter()
    with ServerProcess(name, scenario.target, settings.server_core, settings.files) as server:
        with server.wait_until_connects(pause=0.005) as connection:
            connection.sendall(REQUEST)
            first = connection.recv(1)
            cpu, wall = server.cpu(), time.perf_counter() - began
            if not first:
                raise BenchmarkError("closed before an answer")
        return {"cpu_ms": cpu * 1e3, "wall_ms": wall * 1e3, "rss_mib": server.memory() / 2**20}


ROUNDS = {"load": load_round, "rate": load_round, "idle": memory_round, "slow": memory_round, "start": start_round}


def run_round(name: str, scenario: Scenario, settings: Settings) -> dict[str, Any]:
    """Run one round of the scenario's kind.

    Raises:
        BenchmarkError: the server or the load failed; the text is for the report.
    """
    return ROUNDS[scenario.kind](name, scenario, settings)
