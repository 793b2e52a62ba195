"""Tornado's own tests pass with bridge in its place, but for the deviations that are named."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest

tornado = pytest.importorskip("tornado")

from tests.tornado_suite.deviations import DEVIATIONS  # noqa: E402  -- nothing here works without Tornado
from tests.tornado_suite.run import ROOT  # noqa: E402

#: How many tests of Tornado 6.6.1 each part runs; other versions may have more or less.
EXPECTED = {"server": 630, "fork": 5, "modules": 118}


def run(part: str) -> dict[str, Any]:
    """Run a part in an interpreter of its own, since names of Tornado's are bound anew there."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.tornado_suite.run", part],
        cwd=ROOT,
        env={**os.environ, "ASYNC_TEST_TIMEOUT": "10"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    results: dict[str, Any] = json.loads(done.stdout)
    return results


@pytest.mark.slow
@pytest.mark.long
@pytest.mark.parametrize("part", sorted(EXPECTED))
def test_tornados_own_tests(part: str) -> None:
    results = run(part)
    assert results["skipped"] <= 0.05 * results["run"]
    if results["tornado"] == "6.6.1":
        assert len(results["ids"]) == EXPECTED[part]
    else:
        assert len(results["ids"]) >= 0.9 * EXPECTED[part]
    unexpected = {name: text for name, text in results["failed"].items() if name not in DEVIATIONS}
    assert not unexpected, "\n\n".join(f"{name}\n{text}" for name, text in unexpected.items())
    passing = set(results["ids"]) & set(DEVIATIONS) - set(results["failed"])
    assert not passing, "no deviations any more"


def test_the_documentation_names_the_deviations() -> None:
    rows = [row for row in (ROOT / "docs" / "tornado.md").read_text(encoding="utf-8").splitlines() if "RFC 91" in row]
    for name, reason in DEVIATIONS.items():
        case, rule = name.split(".")[-2], reason.partition(":")[0]
        assert any(case in row and rule in row for row in rows), name


def test_deviations_are_few_and_have_their_rule() -> None:
    assert len(DEVIATIONS) <= 14
    for name, reason in DEVIATIONS.items():
        assert re.match(r"tornado\.test\.\w+\.\w+\.test_\w+$", name)
        assert re.match(r"RFC 91\d\d \d+(\.\d+)*: ", reason), reason
