"""Show where the time of one scenario goes: ``python -m benchmarks.profile asgi-plaintext``.

The server runs under the scenario's load while perf looks at it (see perf.py) or, where perf cannot, py-spy or, where
that is not installed, with cProfile inside, which tells how often each function is called but inflates small ones.
Shares of samples are turned into microseconds with the processor time per request of an undisturbed load just before,
so the figures add up to what the scenario's table shows.

py-spy tells lines and callers, which perf does not. But it cannot well tell a thread that works from one that waits, so
for WSGI, which runs on several threads, it samples only the holder of the interpreter's lock. What it finds then is
rough, and of an application in threads nearly nothing: use perf for it.
"""

import argparse
import marshal
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from benchmarks import perf
from benchmarks.counted import CONTROL
from benchmarks.figures import microseconds_per_request
from benchmarks.machine import choose_cores
from benchmarks.measure import Settings, check, choose_generator, run_load
from benchmarks.process import ROOT, BenchmarkError, Files, ServerProcess, child
from benchmarks.scenarios import Scenario, select
from benchmarks.servers import SERVERS, base
from benchmarks.verdicts import LOADS

Stack = tuple[tuple[str, str, int], ...]  # (function, file, line), outermost first

PY_SPY_RATE = 400  # samples per second
WRITE_LIMIT = 20.0  # seconds for the profiler to write what it found


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.profile", description=(__doc__ or "").partition(":")[0] + "."
    )
    parser.add_argument("scenario", metavar="SCENARIO", nargs="?", default="asgi-plaintext")
    parser.add_argument("--server", default="bridge", help="another server written in Python (default: bridge)")
    parser.add_argument("--mode", choices=["auto", "perf", "py-spy", "calls"], default="auto")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of the profiled load, at most 60")
    parser.add_argument("--top", type=int, default=30, help="rows of each table (default: 30)")
    parser.add_argument("--generator", choices=["auto", "wrk", "own"], default="auto")
    options = parser.parse_args(arguments)
    try:
        options.scenario = select([options.scenario])[0]
    except LookupError as error:
        parser.error(str(error.args[0]))
    if options.scenario.kind not in LOADS:
        parser.error(f"{options.scenario.name} is no load")
    if base(options.server) not in SERVERS:
        parser.error(f"no server {options.server!r}; there are: {', '.join(SERVERS)}")
    if not 0 < options.seconds <= 60:
        parser.error("--seconds: at most 60")
    if options.mode == "auto":
        spied = "py-spy" if shutil.which("py-spy", path=search_path()) else "calls"
        options.mode = spied if perf.missing() else "perf"
    if options.mode == "perf" and perf.missing():
        parser.error(f"--mode perf: {perf.missing()}")
    options.threads = options.scenario.target.interface == "wsgi"
    if options.mode == "calls" and options.threads:
        parser.error("WSGI runs on several threads: only --mode perf and py-spy can tell them apart")
    return options


def search_path() -> str:
    """Return PATH with this interpreter's own directory first, where pip puts py-spy."""
    return os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def profile(options: argparse.Namespace, settings: Settings, output: Path) -> tuple[float, float]:
    """Run the profiled load and leave the profiler's file in *output*.

    Returns:
        µs of processor time per request without the profiler, and the number of requests while profiled.
    """
    scenario: Scenario = options.scenario
    wrap = [] if options.mode == "py-spy" else ["-m", "benchmarks.counted", str(output)]
    with ServerProcess(options.server, scenario.target, settings.server_core, settings.files, wrap) as server:
        check(server, scenario)
        run_load(scenario, settings, server.port, 1)
        cpu = server.cpu()
        counted = run_load(scenario, settings, server.port, settings.seconds, part=1)
        undisturbed = microseconds_per_request(server.cpu() - cpu, counted["requests"])
        if options.mode == "py-spy":
            return undisturbed, spied_load(scenario, settings, server, output, options.threads)
        os.kill(server.process.pid, CONTROL)
        counted = run_load(scenario, settings, server.port, settings.seconds, part=2)
        os.kill(server.process.pid, CONTROL)
        wait_for(output, server)
        return undisturbed, counted["requests"]


def sampled_by_perf(options: argparse.Namespace, settings: Settings, output: Path) -> tuple[float, perf.Shares]:
    """Run the load twice: undisturbed, and while perf looks at a server that shows it its functions.

    Returns:
        µs of processor time per request without perf, and the samples.
    """
    scenario: Scenario = options.scenario
    microseconds = 0.0
    for wrap in ([], perf.WRAP):
        with ServerProcess(options.server, scenario.target, settings.server_core, settings.files, wrap) as server:
            check(server, scenario)
            run_load(scenario, settings, server.port, 1)
            if not wrap:
                cpu = server.cpu()
                counted = run_load(scenario, settings, server.port, settings.seconds, part=1)
                microseconds = microseconds_per_request(server.cpu() - cpu, counted["requests"])
                continue
            seconds = max(1, round(settings.seconds))
            command = perf.command(server.process.pid, seconds, output)
            with child(command, settings.load_core, subprocess.DEVNULL, subprocess.PIPE) as looking:
                run_load(scenario, settings, server.port, seconds + 1, part=2)
                try:
                    _, errors = looking.communicate(timeout=WRITE_LIMIT)
                except subprocess.TimeoutExpired:
                    raise BenchmarkError(f"perf did not end in {WRITE_LIMIT:.0f} s") from None
            if looking.returncode or not output.exists():
                told = errors.decode(errors="replace").strip()[-200:]
                raise BenchmarkError(f"perf ended with code {looking.returncode}: {told}; try --mode py-spy")
            return microseconds, perf.Shares.of(perf.read(output), server.process.pid)
    raise AssertionError


def spied_load(
    scenario: Scenario, settings: Settings, server: ServerProcess, output: Path, lock_holder_only: bool
) -> float:
    """Load the server while py-spy, on the load's core, looks at it; return the requests while it looked."""
    spy = shutil.which("py-spy", path=search_path())
    if spy is None:
        raise BenchmarkError("py-spy is not installed; --mode calls works without it, but not for WSGI")
    duration = max(1, round(settings.seconds))
    command = [spy, "record", "--pid", str(server.process.pid), "--subprocesses", "--rate", str(PY_SPY_RATE)]
    command += ["--duration", str(duration), "--format", "raw", "--full-filenames", "--output", str(output)]
    if lock_holder_only:
        command.append("--gil")
    with child(command, settings.load_core, subprocess.DEVNULL, subprocess.PIPE) as spying:
        counted = run_load(
            scenario, settings, server.port, duration + 1, part=2
        )  # it starts up during the first second
        try:
            _, errors = spying.communicate(timeout=WRITE_LIMIT)
        except subprocess.TimeoutExpired:
            raise BenchmarkError(f"py-spy did not end in {WRITE_LIMIT:.0f} s") from None
    if spying.returncode or not output.exists():
        told = errors.decode(errors="replace").strip().splitlines()[-1:]
        raise BenchmarkError(f"py-spy: {' '.join(told)}; --mode calls works without it, but not for WSGI")
    return float(counted["requests"] / counted["seconds"] * duration)


def wait_for(output: Path, server: ServerProcess) -> None:
    """Wait until the profiler inside the server has written its file whole."""
    deadline = time.monotonic() + WRITE_LIMIT
    size = -1
    while time.monotonic() < deadline:
        server.check_alive()
        now = output.stat().st_size if output.exists() else -1
        if now > 0 and now == size:
            return
        size = now
        time.sleep(0.2)
    raise BenchmarkError("the profiler wrote nothing")


def read_collapsed(text: str) -> Counter[Stack]:
    """Read py-spy's raw format: ``outer (file:line);inner (file:line) samples``."""
    stacks: Counter[Stack] = Counter()
    for row in text.splitlines():
        names, _, number = row.rpartition(" ")
        frames = []
        for name in names.split(";"):
            function, _, place = name.rpartition(" (")
            file, _, line = place.rstrip(")").rpartition(":")
            if function and line.isdigit():
                frames.append((function, file, int(line)))
        stacks[tuple(frames)] += int(number)
    return stacks


def short(file: str) -> str:
    """Return a file's name as an import would say it: without this machine's folders."""
    path = Path(file)
    parts = path.parts
    if path.is_relative_to(ROOT) and "site-packages" not in parts:  # the virtual environment may lie in the checkout
        return str(path.relative_to(ROOT))
    for folder in ("site-packages", "lib"):
        if folder in parts:
            rest = parts[len(parts) - parts[::-1].index(folder) :]
            return "/".join(rest[1:] if rest and rest[0].startswith("python3") else rest)
    return "/".join(parts[-2:])


def table(title: str, rows: list[tuple[str, ...]], headings: tuple[str, ...]) -> str:
    """Return rows of text in columns, the last one to the left."""
    widths = [max(len(row[column]) for row in [headings, *rows]) for column in range(len(headings) - 1)]
    lines = [title]
    for row in [headings, *rows]:
        lines.append("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=False)) + "  " + row[-1])
    return "\n".join(lines) + "\n"


def sampled_report(stacks: Counter[Stack], microseconds: float, top: int) -> str:
    """Return tables of files, functions and lines, in µs per request; self is the time in none of its callees."""
    total = sum(stacks.values())
    if not total:
        raise BenchmarkError("no sample was taken")
    by_file: Counter[str] = Counter()
    by_function: Counter[tuple[str, str]] = Counter()
    with_callees: Counter[tuple[str, str]] = Counter()
    by_line: Counter[tuple[str, str, int]] = Counter()
    for stack, weight in stacks.items():
        if not stack:
            continue
        function, file, line = stack[-1]
        by_file[short(file)] += weight
        by_function[(function, short(file))] += weight
        by_line[(function, short(file), line)] += weight
        for caller in {(function, short(file)) for function, file, _ in stack}:
            with_callees[caller] += weight

    def per_request(weight: int) -> str:
        return f"{weight / total * microseconds:.2f}"

    files = [(per_request(weight), file) for file, weight in by_file.most_common(top)]
    functions = [
        (per_request(weight), per_request(with_callees[key]), f"{key[0]}  {key[1]}")
        for key, weight in by_function.most_common(top)
    ]
    lines = [(per_request(weight), f"{file}:{line}  {name}") for (name, file, line), weight in by_line.most_common(top)]
    return "\n".join(
        [
            table("Files, µs per request (C code counts for the line that calls it)", files, ("self", "file")),
            table("Functions, µs per request", functions, ("self", "with callees", "function")),
            table("Lines, µs per request", lines, ("self", "line")),
        ]
    )


def part(file: str) -> str:
    """Return the package of a file; of bridge's, the folder."""
    folders = file.split("/")[:-1]
    return "/".join(folders[: 3 if folders[0] == "bridge" else 1]) if folders else "outside packages"


def perf_report(shares: perf.Shares, microseconds: float, top: int) -> str:
    """Return tables of whose code ran, and of functions, in µs per request."""

    def per_request(number: int) -> str:
        return f"{number / shares.total * microseconds:.2f}"

    owners = [(per_request(number), name) for name, number in shares.owners.most_common(8)]
    functions = [
        (per_request(number), per_request(shares.kernel[key]), f"{key[0]}  {short(key[1])}")
        for key, number in shares.functions.most_common(top)
    ]
    own: Counter[str] = Counter()
    for (_, file), number in shares.functions.items():
        own[part(short(file))] += number
    parts = [(per_request(number), name) for name, number in own.most_common(12)]
    threads = f"main thread {per_request(shares.main_thread)}, others {per_request(shares.total - shares.main_thread)}"
    return "\n".join(
        [
            f"{shares.total} samples; {threads}.\n",
            table("Whose code ran, µs per request", owners, ("µs", "")),
            table("For whose Python functions, with the C below them, µs per request", parts, ("µs", "")),
            table("Functions, µs per request", functions, ("self", "of it kernel", "function")),
        ]
    )


def counted_report(content: bytes, requests: int, top: int) -> str:
    """Return cProfile's functions by own time: calls and µs per request, inflated by the counting."""
    stats = marshal.loads(content)
    rows = []
    for (file, line, name), (_, calls, own, whole, _) in sorted(stats.items(), key=lambda item: -item[1][2])[:top]:
        place = f"{short(file)}:{line}" if line else "C"
        cells = (f"{calls / requests:.2f}", f"{own / requests * 1e6:.2f}", f"{whole / requests * 1e6:.2f}")
        rows.append((*cells, f"{name}  {place}"))
    return table("Functions, per request", rows, ("calls", "self µs", "with callees µs", "function"))


def main(arguments: list[str] | None = None) -> int:
    """Profile and print."""
    options = parse(arguments)
    files = Files()
    split = ""
    generator = choose_generator(options.generator)
    settings = Settings(options.seconds, 1.0, None, generator, choose_cores(), files)
    with tempfile.TemporaryDirectory(prefix="bridge-profile-") as directory:
        output = Path(directory, "profile")
        try:
            if options.mode == "perf":
                microseconds, shares = sampled_by_perf(options, settings, output)
                report = perf_report(shares, microseconds, options.top)
            elif options.mode == "calls":
                microseconds, requests = profile(options, settings, output)
                report = counted_report(output.read_bytes(), requests, options.top)
            else:
                microseconds, requests = profile(options, settings, output)
                stacks = read_collapsed(output.read_text())
                sampled = microseconds
                if options.threads:
                    under_lock = sum(stacks.values()) / PY_SPY_RATE / requests * 1e6
                    split = "; the tables hold the time under the interpreter's lock alone, as if it were all"
                    if under_lock < microseconds:  # else py-spy slowed the server too much to tell
                        sampled, rest = under_lock, microseconds - under_lock
                        split = f"; {under_lock:.1f} under the interpreter's lock (the tables), {rest:.1f} outside"
                report = sampled_report(stacks, sampled, options.top)
        except BenchmarkError as error:
            print(f"{options.server}, {options.scenario.name}: {error}", file=sys.stderr)
            return 1
        finally:
            files.remove()
    print(f"{options.server}, {options.scenario.name}, {options.mode}: {microseconds:.1f} µs of CPU per request")
    print(f"without the profiler{split}.\n")
    print(report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
