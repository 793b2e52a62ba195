"""The command line: choose scenarios and servers, run the rounds, write the report."""

import argparse
import compileall
import datetime
import fcntl
import json
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.machine import choose_cores, describe, version
from benchmarks.measure import Settings, choose_generator, load_command, run_round
from benchmarks.process import ROOT, BenchmarkError, Files
from benchmarks.report import Record, markdown
from benchmarks.results import disturbed_names, publish, save, without_paths
from benchmarks.scenarios import SCENARIOS, Scenario, select
from benchmarks.servers import SERVERS, base, command_of, server_of
from benchmarks.verdicts import COLUMNS, LOADS

LOCK_LIMIT = 900.0  # seconds to wait for another run on this machine
START_ROUNDS = 3  # starts for each round of a load: they are short, and differ more
# Seconds that a round of each kind takes beside the load and the warm-up, as measured; only for the estimate.
OVERHEAD = {"load": 1.0, "rate": 1.0, "idle": 5.0, "slow": 8.0, "start": 0.6}


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """Parse and check the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description="Measure bridge and other servers side by side."
    )
    parser.add_argument("scenarios", nargs="*", metavar="SCENARIO", help="a name or its beginning; default: all")
    parser.add_argument("--list", action="store_true", help="list the scenarios with their servers and end")
    parser.add_argument("--publish", action="store_true", help="write results, report and plots to docs/benchmarks")
    parser.add_argument("--disturbed", action="store_true", help="the scenarios whose published results are marked")
    parser.add_argument("--render", action="store_true", help="only make report and plots again from kept results")
    parser.add_argument("--rounds", type=int, help="rounds of each server (default: the scenario's, 3 or 5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a load, at most 60 (default: 3)")
    parser.add_argument("--warm-up", type=float, default=1.0, help="seconds of load before each (default: 1)")
    parser.add_argument(
        "--servers",
        help="comma-separated; NAME+OPTION adds an option to the server's command, "
        "bridge@COMMIT is the bridge of that commit, without its compiled part",
    )
    parser.add_argument("--connections", type=int, help="instead of the scenario's own number")
    parser.add_argument("--generator", choices=["auto", "wrk", "own"], default="auto", help="(default: wrk if there)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all rounds there")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the report there, not to standard output")
    options = parser.parse_args(arguments)
    if options.rounds is not None and not 1 <= options.rounds <= 50:
        parser.error("--rounds: 1 to 50")
    if not 0 < options.seconds <= 60 or not 0 <= options.warm_up <= 60:
        parser.error("--seconds and --warm-up: at most 60")
    if options.connections is not None and not 1 <= options.connections <= 10_000:
        parser.error("--connections: 1 to 10000")
    if options.publish and (options.servers or options.connections):
        parser.error("--publish measures all servers of a scenario as it is: no --servers, no --connections")
    if options.disturbed:
        options.scenarios += disturbed_names()
        if not options.scenarios:
            parser.exit(0, "no published result is marked as disturbed\n")
    try:
        options.scenarios = select(options.scenarios)
    except LookupError as error:
        parser.error(str(error.args[0]))
    options.servers = options.servers.split(",") if options.servers else None
    for name in options.servers or ():
        if base(name) not in SERVERS:
            parser.error(f"no server {name!r}; there are: {', '.join(SERVERS)}")
    options.scenarios = [scenario for scenario in options.scenarios if scenario.choose(options.servers)]
    if not options.scenarios:
        parser.error("none of these servers can serve any of these scenarios")
    return options


@contextmanager
def alone() -> Iterator[None]:
    """Let one run at a time measure on this machine; the next one waits."""
    with Path(tempfile.gettempdir(), "bridge-benchmarks.lock").open("w") as lock:
        deadline = time.monotonic() + LOCK_LIMIT
        told = False
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise SystemExit("another run has not ended in 15 minutes") from None
            if not told:
                say("another run is measuring on this machine; waiting for its end")
                told = True
            time.sleep(0.5)
        yield


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def run_scenario(scenario: Scenario, servers: list[str], rounds: int, settings: Settings) -> dict[str, Any]:
    """Run all rounds of one scenario, interleaved; each begins with another server, so that order favours none."""
    outcomes: dict[str, list[dict[str, Any]]] = {name: [] for name in servers}
    key, title, form = COLUMNS[scenario.kind][0]
    if scenario.kind == "start":  # once unmeasured: the first start compiles modules and fills the page cache
        rounds *= START_ROUNDS
        for name in servers:
            attempt(name, scenario, settings)
    for number in range(rounds):
        first = number % len(servers)
        for name in servers[first:] + servers[:first]:
            outcome = attempt(name, scenario, settings)
            outcomes[name].append(outcome)
            told = outcome.get("failure") or f"{form.format(outcome[key])} {title}"
            say(f"{scenario.name} round {number + 1}/{rounds} {name}: {told}")
    prefix = f"taskset -c {settings.server_core} " if settings.cores else ""
    load_prefix = f"taskset -c {settings.load_core} " if settings.cores else ""
    loaded = scenario.kind in LOADS
    load = shown(load_command(scenario, settings, "PORT", settings.seconds)) if loaded else ""
    return {
        "name": scenario.name,
        "title": scenario.title,
        "kind": scenario.kind,
        "notes": list(scenario.notes),
        "connections": settings.connections or scenario.connections,
        "commands": {name: surroundings(name) + prefix + shown(command_of(name, scenario.target)) for name in servers},
        "load": load and load_prefix + load,
        "rounds": outcomes,
    }


def minutes(options: argparse.Namespace) -> float:
    """Return about how long the run will take."""
    total = 0.0
    for scenario in options.scenarios:
        load = options.seconds + options.warm_up if scenario.kind in LOADS else 0.0
        rounds = (options.rounds or scenario.rounds) * (START_ROUNDS if scenario.kind == "start" else 1)
        total += (load + OVERHEAD[scenario.kind]) * rounds * len(scenario.choose(options.servers))
    return total / 60


def attempt(name: str, scenario: Scenario, settings: Settings) -> dict[str, Any]:
    """Run one round; a failure is an outcome too."""
    try:
        return dict(run_round(name, scenario, settings))
    except BenchmarkError as error:
        return {"failure": without_paths(str(error))}


def shown(command: list[str]) -> str:
    """Return a command as a reader would type it."""
    words = {"{port}": "PORT", "{cert}": "CERT.pem", "{key}": "KEY.pem", "{templates}": "TEMPLATES"}
    words |= {"{paths}": "PATHS", "{upload}": "UPLOAD", "{h2log}": "LOG"}
    text = shlex.join(command)
    for word, name in words.items():
        text = text.replace(f"'{word}'", name).replace(word, name)
    return text


def surroundings(name: str) -> str:
    """Return what a server's command has in its environment, as it is typed before the command."""
    return "".join(f"{key}={value} " for key, value in server_of(name).environment.items())


def versions(scenario: Scenario, servers: list[str], bridge: str) -> dict[str, str]:
    """Return the versions of all distributions that take part in a scenario."""
    names = [name for server in servers for name in server_of(server).distributions]
    found = {name: version(name) or "not installed" for name in dict.fromkeys([*names, *scenario.uses])}
    if "bridge" in found:
        found["bridge"] = bridge
    if scenario.target.tls:
        found["OpenSSL"] = ssl.OPENSSL_VERSION.removeprefix("OpenSSL ").partition(" ")[0]
    return found


def commit() -> str:
    """Return the working copy's commit, and whether bridge differs from it."""
    try:
        described, changed = (
            subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, timeout=10, check=True).stdout
            for words in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", "--", "bridge"])
        )
    except (OSError, subprocess.SubprocessError):
        return "of no known commit"
    return f"at commit {described.strip()}{', changed' if changed.strip() else ''}{speedups()}"


def speedups() -> str:
    """Return whether bridge runs with its compiled functions, as the end of a phrase."""
    command = [sys.executable, "-m", "bridge", "--version"]
    try:
        told = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return ""
    _, found, words = told.partition("speedups:")
    return f", speedups: {words.strip()}" if found else ""


def generator_words(generator: str) -> str:
    """Name the generator, and what it means for the figures."""
    if generator == "own":
        return "our own client in Python, which loads less than wrk: only the CPU figures say something"
    told = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False, timeout=10).stdout
    return " ".join(told.split()[:2]) + " (HTTP/2: h2load; WebSocket, h2-mixed: our own client)"


def without_h2load(scenarios: list[Scenario]) -> list[Scenario]:
    """Return the scenarios that do not need h2load, and say which are left out."""
    left_out = [scenario.name for scenario in scenarios if scenario.needs_h2load]
    if left_out:
        say(f"h2load is not installed (Debian: nghttp2-client), so these are left out: {', '.join(left_out)}")
    if len(left_out) == len(scenarios):
        raise SystemExit(1)
    return [scenario for scenario in scenarios if not scenario.needs_h2load]


def list_scenarios() -> None:
    for scenario in SCENARIOS.values():
        print(f"{scenario.name:16} {scenario.title}\n{'':16} {', '.join(scenario.servers)}")


def conditions(options: argparse.Namespace, arguments: list[str], settings: Settings) -> dict[str, Any]:
    """Return what a report says about the run as a whole."""
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "seconds": options.seconds,
        "warm_up": options.warm_up,
        "pinned": "The server has one core, the load another." if settings.cores else "Nothing is pinned to a core.",
        "generator": generator_words(settings.generator),
        "arguments": [without_paths(argument) for argument in arguments],
    }


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for; 1 when any round failed."""
    arguments = sys.argv[1:] if arguments is None else arguments
    options = parse(arguments)
    if options.list:
        list_scenarios()
        return 0
    if options.render:
        return tell_published()
    # As Ctrl-C does: unwind, so that every child is ended on the way out.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    generator = choose_generator(options.generator)
    if generator == "wrk" and not shutil.which("wrk"):
        raise SystemExit("wrk is not installed; --generator own works without it")
    if not shutil.which("h2load"):
        options.scenarios = without_h2load(options.scenarios)
    # The others come compiled from their packages; a checkout is compiled only by whoever imports it and may write.
    for folder in ("bridge", "benchmarks"):
        compileall.compile_dir(folder, quiet=2)
    files = Files()
    settings = Settings(options.seconds, options.warm_up, options.connections, generator, choose_cores(), files)
    machine, shared, bridge = describe(), conditions(options, arguments, settings), commit()
    if bridge.endswith("speedups: python"):
        say("bridge runs without its compiled functions here: make setup builds them where there is a C compiler")
    say(f"{len(options.scenarios)} scenarios, about {minutes(options):.0f} minutes")
    records: list[Record] = []
    try:
        with alone():
            for scenario in options.scenarios:
                servers = scenario.choose(options.servers)
                outcome = run_scenario(scenario, servers, options.rounds or scenario.rounds, settings)
                run = shared | {"rounds": options.rounds or scenario.rounds}
                record = {"machine": machine, "run": run, "versions": versions(scenario, servers, bridge)}
                records.append(record | {"scenario": outcome})
                if options.publish:
                    save(records[-1])
    except KeyboardInterrupt:
        say("interrupted; what was measured so far follows")
    finally:
        files.remove()
    write(records, options)
    if options.publish:
        tell_published()
    rounds = [one for record in records for each in record["scenario"]["rounds"].values() for one in each]
    return 1 if any("failure" in one for one in rounds) else 0


def write(records: list[Record], options: argparse.Namespace) -> None:
    """Write the report and, where asked for, the rounds."""
    if options.json:
        outcome = {
            "machine": records[0]["machine"] if records else {},
            "run": records[0]["run"] if records else {},
            "versions": {name: number for record in records for name, number in record["versions"].items()},
            "scenarios": [record["scenario"] for record in records],
        }
        options.json.write_text(json.dumps(outcome, indent=1, ensure_ascii=False) + "\n")
    if not records:
        return
    if options.markdown:
        options.markdown.write_text(markdown(records))
    elif not options.publish:
        print(markdown(records))


def tell_published() -> int:
    """Make report and plots of all kept results, and say which of these ought to be repeated."""
    written = publish()
    for file in written:
        say(f"wrote {file.relative_to(ROOT)}")
    names = disturbed_names()
    if names:
        say(f"disturbed by other work: {', '.join(names)}")
        say("repeat only these on a quiet machine: make bench S=--disturbed")
    return 0 if written else 1


if __name__ == "__main__":
    sys.exit(main())
