"""The table of promises in docs/reliability.md: every row has a test, and every test that it names exists."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.support import ROOT

_ROW = re.compile(r"^\|(?P<cells>.*)\|$")
_TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows(text: str) -> Iterator[list[str]]:
    """Yield the cells of each row of the tables in *text*, without heads and rules."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        match = _ROW.match(line)
        head = number + 1 < len(lines) and lines[number + 1].startswith("|---")
        if match is not None and not head and not line.startswith("|---"):
            yield [cell.strip() for cell in match["cells"].split(" | ")]


def faults(text: str, root: Path) -> list[str]:
    """Return what is wrong with the tables in *text*."""
    found = []
    for cells in rows(text):
        tests = _TEST.findall(cells[-1])
        if not tests:
            found.append(f"{cells[0]}: names no test")
        if any(not cell for cell in cells):
            found.append(f"{cells[0]}: has an empty cell")
        for path, name in tests:
            if name not in functions(root / path):
                found.append(f"{cells[0]}: there is no test {path}::{name}")
    return found


def functions(path: Path) -> set[str]:
    """Return the names of the tests in a file; of none if there is no such file."""
    if not path.is_file():
        return set()
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return {node.name for node in ast.walk(tree) if isinstance(node, kinds) and node.name.startswith("test_")}


def test_every_promise_has_a_test_that_exists() -> None:
    text = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    assert faults(text, ROOT) == []


def test_the_faults_of_a_table_are_found(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_a.py").write_text("async def test_one():\n    pass\n", encoding="utf-8")
    text = """
| Fault | Outcome | Test |
|---|---|---|
| good | ends | `tests/test_a.py::test_one` |
| no test | ends | none yet |
| an old name | ends | `tests/test_a.py::test_one`, `tests/test_a.py::test_two` |
| no file | ends | `tests/test_b.py::test_one` |
| no outcome |  | `tests/test_a.py::test_one` |
"""
    assert faults(text, tmp_path) == [
        "no test: names no test",
        "an old name: there is no test tests/test_a.py::test_two",
        "no file: there is no test tests/test_b.py::test_one",
        "no outcome: has an empty cell",
    ]
