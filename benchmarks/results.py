"""Keep the results of each scenario in a file of its own, and make the published report and its plots from all."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

from benchmarks.plot import GROUPS, svg
from benchmarks.process import ROOT
from benchmarks.report import Record, published
from benchmarks.scenarios import SCENARIOS
from benchmarks.verdicts import is_disturbed

DIRECTORY = ROOT / "docs" / "benchmarks"
# Pages that are written by hand, and what they tell.
PAGES = {"time.md": "Where the time goes", "compiling.md": "What compiling the hot modules would bring"}
# An absolute path of at least two parts, but not the rest of an address ("//127.0.0.1:80/").
PATH = re.compile(r"(?<![\w./:])/(?:[\w.+@-]+/)+([\w.+@-]*)")


def without_paths(text: str) -> str:
    """Return *text* with only the last part of every absolute path: a report says nothing of one machine's folders."""
    return PATH.sub(r"\1", text)


def save(record: Record, directory: Path = DIRECTORY) -> None:
    """Keep what one scenario left, in place of what it left before."""
    folder = directory / "results"
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
    (folder / f"{record['scenario']['name']}.json").write_text(text)


def load(directory: Path = DIRECTORY) -> list[Record]:
    """Return all results kept, in the order of the scenarios; those of scenarios that are no more are left out."""
    folder = directory / "results"
    records = []
    for name, scenario in SCENARIOS.items():
        file = folder / f"{name}.json"
        if file.exists():
            record = json.loads(file.read_text())
            record["scenario"]["title"] = scenario.title  # words may have changed since it was measured
            records.append(record)
    return records


def disturbed_names(directory: Path = DIRECTORY) -> list[str]:
    """Return the scenarios whose kept results other work has disturbed."""
    return [record["scenario"]["name"] for record in load(directory) if is_disturbed(record["scenario"])]


def commands(records: list[Record]) -> list[str]:
    """Return the commands that made *records*, each once."""
    return list(dict.fromkeys(shlex.join(["python", "-m", "benchmarks", *one["run"]["arguments"]]) for one in records))


def publish(directory: Path = DIRECTORY) -> list[Path]:
    """Write the report and the plots of all results kept; return the files."""
    records = load(directory)
    if not records:
        return []
    groups: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        scenario = record["scenario"]
        groups.setdefault(SCENARIOS[scenario["name"]].group, []).append(scenario)
    written = []
    plots = []
    for group, title in GROUPS.items():
        file = directory / f"{group}.svg"
        if group in groups:
            file.write_text(svg(title, groups[group]))
            written.append(file)
            plots.append((file.name, title))
        else:
            file.unlink(missing_ok=True)
    see_also = [f"{title}: [{name}]({name})." for name, title in PAGES.items() if (directory / name).exists()]
    report = directory / "README.md"
    report.write_text(published(records, plots, commands(records), see_also))
    return [*written, report]
