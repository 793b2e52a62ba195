"""Write the outcome of runs as Markdown. Pure: values in, text out.

A record is what one scenario left: ``{"machine", "run", "versions", "scenario"}``. Records of several runs may stand in
one report; what most of them share is said once, and a scenario that differs says in what.
"""

import math
from collections import Counter
from typing import Any

from benchmarks.figures import ratio
from benchmarks.verdicts import (
    COLUMNS,
    FLOOR,
    NOISE,
    SPREAD,
    best,
    disturbed,
    is_disturbed,
    is_peer,
    judge,
    mains,
    outcomes,
    sentence,
    serves,
    summaries,
    targets_table,
)

Record = dict[str, Any]
REFERENCES = ("bridge", FLOOR)
MARK = (
    f"¹ Other work took more than {NOISE:.0%} of a core in at least one round, or the rounds lie more than "
    f"±{SPREAD:.0%} apart."
)


def cell(value: float, form: str) -> str:
    return form.format(value) if math.isfinite(value) else "never"


def row(name: str, scenario: dict[str, Any], references: dict[str, float]) -> str:
    """Return the row of one server; the best of a column is bold."""
    rounds, kind = scenario["rounds"][name], scenario["kind"]
    figures = summaries(rounds, kind)
    columns = COLUMNS[kind]
    if figures is None:
        failures = [one["failure"] for one in rounds if "failure" in one]
        reason = failures[0].replace("|", "\\|") if failures else "not run"
        empty = " | " * (len(references) + len(columns) - 1)
        return f"| {name} | failed in {len(failures)} of {len(rounds)} rounds: {reason}{empty} |"

    def shown(key: str, form: str) -> str:
        text = cell(figures[key].median, form)
        return f"**{text}**" if len(scenario["rounds"]) > 1 and name in best(scenario, key) else text

    main = figures[columns[0][0]]
    cells = [
        f"{name}{' ¹' if disturbed(rounds, kind) else ''}",
        f"{shown(columns[0][0], columns[0][2])} ±{main.spread * 100:.0f} %",
    ]
    for reference in references.values():
        times = ratio(main.median, reference)
        cells.append("-" if times is None else f"{times:.2f}")
    cells += [shown(key, form) for key, _, form in columns[1:]]
    return "| " + " | ".join(cells) + " |"


def scenario_section(scenario: dict[str, Any], apart: str = "") -> list[str]:
    """Return one scenario: title, verdict, table, notes, commands; *apart* tells what was otherwise than elsewhere."""
    columns = COLUMNS[scenario["kind"]]
    medians = {name: figure.median for name, figure in mains(scenario).items()}
    references = {name: medians[name] for name in REFERENCES if name in medians}
    headings = [
        "server",
        columns[0][1],
        *(f"to {name}" for name in references),
        *(title for _, title, _ in columns[1:]),
    ]
    lines = [f"## {scenario['name']}: {scenario['title']}", ""]
    verdict = sentence(scenario)
    if verdict:
        lines += [f"**{verdict}**", ""]
    lines += ["| " + " | ".join(headings) + " |", "|---|" + "---:|" * (len(headings) - 1)]
    lines += [row(name, scenario, references) for name in scenario["rounds"]]
    lines.append("")
    if is_disturbed(scenario):
        lines += [MARK, ""]
    for note in scenario["notes"]:
        lines += [note, ""]
    if apart:
        lines += [f"Measured under other conditions than the rest: {apart}.", ""]
    lines += ["<details><summary>Commands</summary>", "", "```text"]
    lines += [f"{name}: {command}" for name, command in scenario["commands"].items()]
    if scenario["load"]:
        lines.append(f"load: {scenario['load']}")
    return [*lines, "```", "", "</details>", ""]


def conditions(record: Record) -> dict[str, str]:
    """Return under what a scenario was measured, in words."""
    machine, run = record["machine"], record["run"]
    return {
        "machine": f"{machine['processor']}, {machine['cores']} cores, {machine['kernel']}",
        "Python": f"{machine['python']}, {machine['build']}",
        "date": run["date"],
        "rounds": str(run["rounds"]),
        "seconds of load": f"{run['seconds']:g}",
        "seconds of warm-up": f"{run['warm_up']:g}",
        "cores": run["pinned"],
        "load generator": run["generator"],
        **record["versions"],
    }


def common(records: list[Record]) -> dict[str, str]:
    """Return of each condition what most of the records have."""
    counted: dict[str, Counter[str]] = {}
    for record in records:
        for key, value in conditions(record).items():
            counted.setdefault(key, Counter())[value] += 1
    return {key: values.most_common(1)[0][0] for key, values in counted.items()}


def differences(record: Record, shared: dict[str, str]) -> str:
    """Return the conditions of one scenario that are not the shared ones."""
    own = conditions(record)
    return ", ".join(f"{key} {value}" for key, value in own.items() if shared[key] != value)


def introduction(records: list[Record]) -> list[str]:
    """Return what holds for all scenarios: machine, settings, versions."""
    shared = common(records)
    versions = sorted({name for record in records for name in record["versions"]}, key=str.lower)
    return [
        f"{shared['machine']}. {shared['Python']}. {shared['date']}.",
        f"{shared['rounds']} rounds (three times as many for start-up), in turn with the other servers, each with a "
        "new process; "
        f"{shared['seconds of load']} s of load after {shared['seconds of warm-up']} s of warm-up; one worker process. "
        f"{shared['cores']} "
        f"Load generator: {shared['load generator']}.",
        "",
        "CPU is the user and system time of all processes and threads of the server, divided by the number of "
        "completed requests. Figures are medians over the rounds; ± is half the distance between lowest and highest. "
        "\"to bridge\" is the server's figure divided by bridge's: for CPU, memory and time, above 1 means that bridge "
        "needs less. The best figure of a column is bold; the floor does not count for this. "
        "A server with a failed request in any round has no figure.",
        "",
        "Versions: " + ", ".join(f"{name} {shared[name]}" for name in versions) + ".",
        "",
    ]


def sections(records: list[Record]) -> list[str]:
    shared = common(records)
    return [line for one in records for line in scenario_section(one["scenario"], differences(one, shared))]


def markdown(records: list[Record]) -> str:
    """Return the report of one run as it is printed."""
    return "\n".join(["# Measurements", "", *introduction(records), *sections(records)])


def standing(records: list[Record]) -> list[str]:
    """Return in which scenarios bridge is not the best, and which have to be repeated."""
    losses, unclear, failed = [], [], []
    for scenario in (record["scenario"] for record in records):
        verdict = judge(scenario)
        link = f"[{scenario['name']}](#{anchor(scenario)})"
        if verdict.failed:
            failed.append(link)
        elif verdict.peer is None or (verdict.wins and verdict.clear):
            continue
        elif verdict.clear:
            title = COLUMNS[scenario["kind"]][0][1]
            losses.append(f"{link} ({verdict.peer}, {verdict.ratio:.2f} of bridge's {title})")
        else:
            unclear.append(f"{link} ({verdict.peer}, {verdict.ratio:.2f})")
    lines = []
    if losses:
        lines += [f"**Where bridge is not the best:** {', '.join(losses)}.", ""]
    else:
        lines += [f"In none of these {len(records)} scenarios is another server clearly better than bridge.", ""]
    if unclear:
        lines += [f"**Where bridge's rounds and those of the next server overlap:** {', '.join(unclear)}.", ""]
    if failed:
        lines += [f"**Where bridge failed:** {', '.join(failed)}.", ""]
    names = [record["scenario"]["name"] for record in records if is_disturbed(record["scenario"])]
    if names:
        lines += [
            f"**Disturbed by other work on the machine (¹):** {', '.join(names)}. Of these, trust only the ratios. "
            "`make bench S=--disturbed` repeats them; run it on a quiet machine.",
            "",
        ]
    return lines


def anchor(scenario: dict[str, Any]) -> str:
    """Return the name that GitHub gives a section's heading."""
    heading = f"{scenario['name']}: {scenario['title']}".lower()
    return "".join("-" if char == " " else char for char in heading if char.isalnum() or char in " -_")


def overview(records: list[Record]) -> list[str]:
    """Return one row per scenario: bridge's figure, and every other server's divided by it."""
    names: list[str] = []
    for record in records:
        names += [name for name in record["scenario"]["rounds"] if name not in names and "+" not in name]
    names = sorted(names, key=lambda name: {"bridge": 0, FLOOR: 1}.get(name, 2))  # stable for the rest
    lines = ["| scenario | " + " | ".join(names) + " |", "|---|" + "---:|" * len(names)]
    for record in records:
        scenario = record["scenario"]
        figures = mains(scenario)
        own = figures.get("bridge")
        _, title, form = COLUMNS[scenario["kind"]][0]
        cells = [f"[{scenario['name']}](#{anchor(scenario)}){' ¹' if is_disturbed(scenario) else ''}"]
        for name in names:
            if name not in scenario["rounds"]:
                cells.append("")
            elif name not in figures:
                cells.append("failed")
            elif name == "bridge":
                unit = "requests/s" if scenario["kind"] == "rate" else title.replace("CPU ", "").partition(" per ")[0]
                cells.append(f"{cell(figures[name].median, form)} {unit}")
            elif not serves(scenario["rounds"][name]):
                cells.append("no answer")
            else:
                times = ratio(figures[name].median, own.median if own else None)
                text = "-" if times is None else f"{times:.2f}"
                beats = times is not None and is_peer(name) and (times > 1 if scenario["kind"] == "rate" else times < 1)
                cells.append(f"**{text}**" if beats else text)
        lines.append("| " + " | ".join(cells) + " |")
    return [*lines, ""]


def targets(records: list[Record]) -> list[str]:
    """Return the targets of the scenarios measured, and which of them are met; nothing where none has a target."""
    found = [one for one in outcomes([record["scenario"] for record in records]) if one.ratio is not None]
    if not found:
        return []
    return [
        "## Targets",
        "",
        "A target is a ratio: the other server's CPU time per request divided by bridge's. \"best rounds\" compares "
        "each server's best round, which other work on the machine changes least. "
        "`python -m benchmarks.verdicts` prints it.",
        "",
        targets_table(found),
        "",
    ]


def published(records: list[Record], plots: list[tuple[str, str]], commands: list[str], see_also: list[str]) -> str:
    """Return the report that is kept in the documentation.

    Args:
        records: What was measured, in the order of the report.
        plots: File name and title of each plot beside the report.
        commands: The commands that measured, as typed.
        see_also: Lines of Markdown under the overview.
    """
    kinds = {record["scenario"]["kind"] for record in records}
    lines = [
        "# Benchmarks",
        "",
        "`make bench` writes this page. bridge runs with its defaults, all limits and timeouts on, and without an "
        "access log. The other servers run with the fastest settings that were found.",
        "",
        *standing(records),
        "The table has bridge's own figure. The columns of the other servers have their figure divided by bridge's: "
        "above 1, bridge needs less"
        + (" (where the figure is requests/s, above 1 the other server answers more)" if "rate" in kinds else "")
        + ". Bold figures are better than bridge's. The floor is a protocol on uvloop that sends a fixed answer and "
        "checks nothing.",
        "",
        "In the rows whose names end in -mixed, no head is ever sent twice, as behind a proxy. In all other rows the "
        "client repeats its request. There a server gains if it remembers the last request, which seldom helps in "
        "practice.",
        "",
        *overview(records),
        *(line for text in see_also for line in (text, "")),
    ]
    for file, title in plots:
        lines += [f"![{title}]({file})", ""]
    lines += targets(records)
    lines += ["## How it was measured", "", *introduction(records)]
    lines += ["```text", *commands, "```", ""]
    lines += [
        "`make bench` repeats everything. `make bench S=asgi` repeats the scenarios whose names begin with asgi, and "
        "keeps the results of the others (`results/`).",
        "",
    ]
    return "\n".join(lines + sections(records)).rstrip("\n") + "\n"
