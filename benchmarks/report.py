"""Write the outcome of a run as Markdown. Pure: a value in, text out."""

import math
from typing import Any

from benchmarks.figures import Summary, ratio, summarise

# kind -> (key, heading, format) of its figures; the first is the one that ratios are made of.
COLUMNS: dict[str, list[tuple[str, str, str]]] = {
    "load": [
        ("cpu_us", "CPU µs per request", "{:.1f}"),
        ("rate", "requests/s", "{:,.0f}"),
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
REFERENCES = ("bridge", "floor")
NOISE = 0.05  # part of the server's core that other work may take before a row is marked


def summaries(rounds: list[dict[str, Any]], kind: str) -> dict[str, Summary] | None:
    """Return each figure over the rounds, None when a round failed or none was run."""
    if not rounds or any("failure" in one for one in rounds):
        return None
    return {key: summarise([one[key] for one in rounds]) for key, _, _ in COLUMNS[kind]}


def cell(value: float, form: str) -> str:
    return form.format(value) if math.isfinite(value) else "never"


def row(name: str, rounds: list[dict[str, Any]], kind: str, references: dict[str, float]) -> str:
    """Return the row of one server."""
    figures = summaries(rounds, kind)
    columns = COLUMNS[kind]
    if figures is None:
        failures = [one["failure"] for one in rounds if "failure" in one]
        reason = failures[0].replace("|", "\\|") if failures else "not run"
        empty = " | " * (len(references) + len(columns) - 1)
        return f"| {name} | failed in {len(failures)} of {len(rounds)} rounds: {reason}{empty} |"
    main = figures[columns[0][0]]
    noisy = max((one.get("others", 0.0) for one in rounds), default=0.0) > NOISE
    cells = [f"{name}{' ¹' if noisy else ''}", f"{cell(main.median, columns[0][2])} ±{main.spread * 100:.0f} %"]
    for reference in references.values():
        times = ratio(main.median, reference)
        cells.append("-" if times is None else f"{times:.2f}")
    cells += [cell(figures[key].median, form) for key, _, form in columns[1:]]
    return "| " + " | ".join(cells) + " |"


def scenario_table(scenario: dict[str, Any]) -> list[str]:
    """Return one scenario: title, table, notes, commands."""
    kind = scenario["kind"]
    columns = COLUMNS[kind]
    references = {}
    for reference in REFERENCES:
        figures = summaries(scenario["rounds"].get(reference, []), kind)
        if figures is not None:
            references[reference] = figures[columns[0][0]].median
    headings = [
        "server",
        columns[0][1],
        *(f"to {name}" for name in references),
        *(title for _, title, _ in columns[1:]),
    ]
    lines = [f"## {scenario['name']}: {scenario['title']}", "", "| " + " | ".join(headings) + " |"]
    lines.append("|---|" + "---:|" * (len(headings) - 1))
    lines += [row(name, rounds, kind, references) for name, rounds in scenario["rounds"].items()]
    lines.append("")
    if any(one.get("others", 0.0) > NOISE for rounds in scenario["rounds"].values() for one in rounds):
        lines += [f"¹ Other work took more than {NOISE:.0%} of the server's core in at least one round.", ""]
    for note in scenario["notes"]:
        lines += [note, ""]
    lines += ["<details><summary>Commands</summary>", "", "```"]
    lines += [f"{name}: {command}" for name, command in scenario["commands"].items()]
    if scenario["load"]:
        lines.append(f"load: {scenario['load']}")
    return [*lines, "```", "", "</details>", ""]


def markdown(outcome: dict[str, Any]) -> str:
    """Return the whole report."""
    machine, run = outcome["machine"], outcome["run"]
    lines = [
        "# Measurements",
        "",
        f"{machine['processor']}, {machine['cores']} cores, {machine['kernel']}. "
        f"{machine['python']}, {machine['build']}. {run['date']}.",
        f"{run['rounds']} rounds, interleaved, each with a fresh process; {run['seconds']:g} s of load after "
        f"{run['warm_up']:g} s of warm-up; one worker process. {run['pinned']} Load generator: {run['generator']}.",
        "",
        "CPU is user and system time of all the server's processes and threads, divided by the requests completed. "
        "Figures are medians over the rounds, ± half the distance between the extremes. "
        "\"to bridge\" is the server's figure divided by bridge's: above 1, bridge needs less. "
        "A server with a failed request in any round has no figure.",
        "",
        "Versions: " + ", ".join(f"{name} {number}" for name, number in outcome["versions"].items()) + ".",
        "",
    ]
    for scenario in outcome["scenarios"]:
        lines += scenario_table(scenario)
    return "\n".join(lines)
