"""What the rounds of a scenario say: medians, ratios, who is best, what was disturbed, which targets are met. Pure.

``python -m benchmarks.verdicts`` prints the targets beside the kept results, or beside those of ``--json FILE``.
"""

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.figures import Summary, ratio, summarise
from benchmarks.servers import base

# kind -> (key, heading, format) of its figures; the first is the one that ratios are made of.
COLUMNS: dict[str, list[tuple[str, str, str]]] = {
    "load": [
        ("cpu_us", "CPU µs per request", "{:.1f}"),
        ("rate", "requests/s", "{:,.0f}"),
        ("p50_ms", "p50 ms", "{:.2f}"),
        ("p99_ms", "p99 ms", "{:.2f}"),
        ("rss_mib", "RSS MiB", "{:.0f}"),
    ],
    "rate": [
        ("rate", "requests/s", "{:,.0f}"),
        ("cpu_us", "CPU µs per request", "{:.1f}"),
        ("p50_ms", "p50 ms", "{:.2f}"),
        ("p99_ms", "p99 ms", "{:.2f}"),
        ("rss_mib", "RSS MiB", "{:.0f}"),
    ],
    "idle": [("kib", "KiB per connection", "{:.1f}"), ("rss_mib", "RSS MiB", "{:.0f}")],
    "slow": [
        ("kib", "KiB per connection", "{:.1f}"),
        ("answer_ms", "a new client waits ms", "{:.0f}"),
        ("rss_mib", "RSS MiB", "{:.0f}"),
    ],
    "start": [("cpu_ms", "CPU ms", "{:.0f}"), ("wall_ms", "time ms", "{:.0f}"), ("rss_mib", "RSS MiB", "{:.0f}")],
}
LOADS = ("load", "rate")  # the kinds that a load generator measures
MORE_IS_BETTER = frozenset({"rate"})  # keys; of every other figure less is better
FLOOR = "floor"
OWN = ("bridge", "bridge-pure", FLOOR)  # no peers
NOISE = 0.05  # part of a core that other work may take before a row is marked
SPREAD = 0.10  # of a load's main figure, before a row is marked

Round = dict[str, Any]


def summaries(rounds: list[Round], kind: str) -> dict[str, Summary] | None:
    """Return each figure over the rounds, None when a round failed or none was run; infinity for what never came."""
    if not rounds or any("failure" in one for one in rounds):
        return None
    values = {key: [math.inf if one[key] is None else one[key] for one in rounds] for key, _, _ in COLUMNS[kind]}
    return {key: summarise(each) for key, each in values.items()}


def serves(rounds: list[Round]) -> bool:
    """Tell whether a new client was answered: memory saved by serving nobody else is no merit."""
    return all(one.get("answer_ms", 0.0) is not None for one in rounds)


def mains(scenario: dict[str, Any]) -> dict[str, Summary]:
    """Return the main figure of each server that has one."""
    kind = scenario["kind"]
    key = COLUMNS[kind][0][0]
    found = {name: summaries(rounds, kind) for name, rounds in scenario["rounds"].items()}
    return {name: figures[key] for name, figures in found.items() if figures is not None}


def is_peer(name: str) -> bool:
    """Tell another server from bridge, bridge with options, and the floor."""
    return base(name) not in OWN


def disturbed(rounds: list[Round], kind: str) -> bool:
    """Tell whether other work took part of a core in any round, or the rounds of a load differ too much."""
    if max((one.get("others", 0.0) for one in rounds), default=0.0) > NOISE:
        return True
    figures = summaries(rounds, kind) if kind in LOADS else None
    return figures is not None and figures[COLUMNS[kind][0][0]].spread > SPREAD


def is_disturbed(scenario: dict[str, Any]) -> bool:
    return any(disturbed(rounds, scenario["kind"]) for rounds in scenario["rounds"].values())


def best(scenario: dict[str, Any], key: str) -> set[str]:
    """Return the servers with the best median of *key*, without the floor and those that leave a new client waiting."""
    kind = scenario["kind"]
    found = {}
    for name, rounds in scenario["rounds"].items():
        figures = summaries(rounds, kind) if name != FLOOR and serves(rounds) else None
        if figures is not None:
            found[name] = figures[key].median
    if not found:
        return set()
    choose = max if key in MORE_IS_BETTER else min
    wanted = choose(found.values())
    return {name for name, value in found.items() if value == wanted}


@dataclass(frozen=True, slots=True)
class Verdict:
    """How bridge stands among its peers in one scenario.

    ``peer`` is the best of the others and ``ratio`` its figure divided by bridge's; both None without one of the two.
    ``clear`` is False while the ranges of the rounds overlap.
    """

    peer: str | None = None
    ratio: float | None = None
    wins: bool = False
    clear: bool = False
    failed: bool = False  # bridge has no figure


def judge(scenario: dict[str, Any]) -> Verdict:
    """Compare bridge with the best of its peers by the scenario's main figure."""
    figures = mains(scenario)
    own = figures.get("bridge")
    if own is None:
        return Verdict(failed=bool(scenario["rounds"].get("bridge")))
    peers = {name: figure for name, figure in figures.items() if is_peer(name) and serves(scenario["rounds"][name])}
    if not peers:
        return Verdict()
    more = COLUMNS[scenario["kind"]][0][0] in MORE_IS_BETTER
    choose = max if more else min
    name = choose(peers, key=lambda one: peers[one].median)
    other = peers[name]
    wins = own.median >= other.median if more else own.median <= other.median
    clear = own.low > other.high or other.low > own.high
    return Verdict(peer=name, ratio=ratio(other.median, own.median), wins=wins, clear=clear)


def sentence(scenario: dict[str, Any]) -> str:
    """Return one sentence for a scenario in which bridge is not clearly the best, else an empty text."""
    verdict = judge(scenario)
    if verdict.failed:
        return "bridge failed here."
    if verdict.peer is None or verdict.ratio is None or (verdict.wins and verdict.clear):
        return ""
    share = f"{verdict.peer} at {verdict.ratio:.2f} of bridge's {COLUMNS[scenario['kind']][0][1]}"
    if not verdict.clear:
        return f"No clear difference: {share}, and the rounds of the two overlap."
    return f"bridge is not the best here: {share}."


@dataclass(frozen=True, slots=True)
class Target:
    """How many times bridge's figure each of *peers* shall need, at least; the smallest of them counts."""

    scenario: str
    peers: tuple[str, ...]
    wanted: float
    stretch: float | None = None


ZTTP = "uvicorn+--http+zttp"
GRANIANS = ("granian", "granian-8")
TARGETS = (
    Target("asgi-mixed", ("uvicorn",), 2.05),
    Target("asgi-mixed", (ZTTP,), 1.85),
    Target("asgi-mixed", ("granian",), 1.55, 1.7),
    Target("asgi-mixed", ("gunicorn",), 2.4),
    Target("wsgi-mixed", ("granian",), 1.05),
    Target("wsgi-mixed", ("granian-8",), 0.95),
    Target("wsgi-mixed", GRANIANS, 0.95, 1.1),
    Target("wsgi-mixed", ("waitress",), 6.5),
    Target("wsgi-mixed", ("gunicorn",), 6.5),
    Target("fastapi-mixed", ("granian",), 1.1, 1.15),
    Target("fastapi-mixed", ("uvicorn",), 1.25, 1.35),
    Target("flask-mixed", GRANIANS, 0.9, 1.0),
    Target("django-mixed", GRANIANS, 0.9, 1.0),
    Target("tls-mixed", ("granian",), 1.4),
    Target("tls-mixed", ("uvicorn",), 1.75),
    Target("h2-mixed", ("granian",), 1.0, 1.25),
    Target("h2-plaintext", ("granian",), 1.67),
    Target("h2-paths", ("granian",), 1.25),
    Target("h2-tls", ("granian",), 1.5),
    Target("websocket-64", ("uvicorn",), 1.6, 1.9),
    Target("websocket-16k", ("uvicorn",), 1.4, 1.6),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """One target beside what was measured.

    ``ratio`` is that of the medians; ``undisturbed`` that of each server's best round, which other work on the machine
    changes least. None where one of the two servers has no figure.
    """

    target: Target
    peer: str | None = None
    ratio: float | None = None
    undisturbed: float | None = None

    @property
    def words(self) -> str:
        """Tell whether the target is met, and by how much it is missed."""
        if self.ratio is None:
            return "not measured"
        if self.ratio < self.target.wanted:
            return f"missed by {1 - self.ratio / self.target.wanted:.0%}"
        if self.target.stretch is None:
            return "met"
        if self.ratio < self.target.stretch:
            return f"met; stretch missed by {1 - self.ratio / self.target.stretch:.0%}"
        return "met, stretch too"


def outcomes(scenarios: list[dict[str, Any]], targets: tuple[Target, ...] = TARGETS) -> list[Outcome]:
    """Return what became of each target."""
    figures = {scenario["name"]: mains(scenario) for scenario in scenarios}
    found = []
    for target in targets:
        measured = figures.get(target.scenario, {})
        own = measured.get("bridge")
        peers = {name: measured[name] for name in target.peers if name in measured}
        if own is None or not peers or not own.low:
            found.append(Outcome(target))
            continue
        name = min(peers, key=lambda one: peers[one].median)
        lowest = min(one.low for one in peers.values())
        found.append(Outcome(target, name, ratio(peers[name].median, own.median), lowest / own.low))
    return found


def targets_table(found: list[Outcome]) -> str:
    """Return outcomes as a table in Markdown."""
    lines = ["| scenario | peer | target | stretch | measured | best rounds | |", "|---|---|---:|---:|---:|---:|---|"]
    for one in found:
        target = one.target
        cells = [target.scenario, one.peer or " or ".join(target.peers), f"{target.wanted:g}"]
        cells += ["" if number is None else f"{number:g}" for number in [target.stretch]]
        cells += ["" if number is None else f"{number:.2f}" for number in (one.ratio, one.undisturbed)]
        lines.append("| " + " | ".join([*cells, one.words]) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the targets and what became of them."""
    from benchmarks.results import load  # it asks this module

    parser = argparse.ArgumentParser(prog="python -m benchmarks.verdicts", description="Print which targets are met.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="what python -m benchmarks --json wrote")
    options = parser.parse_args()
    if options.json:
        scenarios = json.loads(options.json.read_text())["scenarios"]
    else:
        scenarios = [record["scenario"] for record in load()]
    print(targets_table(outcomes(scenarios)))


if __name__ == "__main__":
    main()
