"""The files for Kubernetes, Docker, HAProxy and Grafana, and the page that explains them: what they name exists."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bridge.config import SETTINGS
from bridge.config.sources import load
from bridge.telemetry.metrics.catalog import CATALOG, COUNTER, HISTOGRAM
from tests.support import ROOT

EXAMPLES = ROOT / "examples"
KUBERNETES = EXAMPLES / "kubernetes" / "deployment.yaml"
DOCKERFILE = EXAMPLES / "docker" / "Dockerfile"
NAME = re.compile(r"\b(?:http_server|bridge|process|cpython)_[a-z_]+\b")


def names() -> set[str]:
    """Return the names of all samples."""
    found = set()
    for metric in CATALOG.values():
        if metric.kind == HISTOGRAM:
            found |= {f"{metric.name}{end}" for end in ("", "_bucket", "_sum", "_count")}
        else:
            found.add(f"{metric.name}_total" if metric.kind == COUNTER else metric.name)
    return found


@pytest.mark.parametrize(
    "path",
    [
        ROOT / "docs" / "operations.md",
        EXAMPLES / "grafana" / "dashboard.json",
        EXAMPLES / "kubernetes" / "monitoring.yaml",
    ],
    ids=lambda path: path.name,
)
def test_metrics_that_are_named_exist(path: Path) -> None:
    named = set(NAME.findall(path.read_text(encoding="utf-8")))
    assert named
    assert named <= names()


def test_the_page_names_every_metric() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert {name for name in CATALOG if name not in text} == set()


def test_the_dashboard_is_whole() -> None:
    dashboard = json.loads((EXAMPLES / "grafana" / "dashboard.json").read_text(encoding="utf-8"))
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in dashboard["panels"]}
    assert len(places) == len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert all(target["expr"] for panel in dashboard["panels"] for target in panel["targets"])


def variables(path: Path) -> dict[str, str]:
    """Return the variables of the server that a file sets."""
    text = path.read_text(encoding="utf-8")
    pairs = re.findall(r"name: (BRIDGE_\w+), value: \"?([^\"}]+)", text) + re.findall(r"(BRIDGE_\w+)=(\S+)", text)
    return {name: value.strip() for name, value in pairs}


@pytest.mark.parametrize("path", [KUBERNETES, DOCKERFILE], ids=lambda path: path.name)
def test_variables_are_settings_with_good_values(path: Path) -> None:
    found = variables(path)
    known = {name for row in SETTINGS for name in row.environment}
    assert len(found) >= 3
    assert set(found) <= known
    load(["app:app"], found)


def test_the_page_shows_lines_of_the_deployment() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    block = re.search(r"^```yaml\n(.*?)^```$", text.partition("## Kubernetes")[2], re.DOTALL | re.MULTILINE)
    assert block is not None
    assert set(block[1].splitlines()) <= set(KUBERNETES.read_text(encoding="utf-8").splitlines())


def test_the_pod_waits_for_longer_than_a_stop_takes() -> None:
    config = load(["app:app"], variables(KUBERNETES))
    match = re.search(r"terminationGracePeriodSeconds: (\d+)", KUBERNETES.read_text(encoding="utf-8"))
    assert match is not None
    assert config.timeout_graceful_shutdown is not None
    assert int(match[1]) > config.drain_delay + config.timeout_graceful_shutdown


def test_commands_of_the_page_are_accepted() -> None:
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8").replace("\\\n", " ")
    commands = re.findall(r"^(?:web: )?bridge run (.+)$", text, re.MULTILINE)
    assert len(commands) >= 6
    for command in commands:
        load(command.split(), {})


@pytest.mark.slow
def test_haproxy_takes_its_file() -> None:
    haproxy = shutil.which("haproxy")
    if haproxy is None:
        pytest.skip("haproxy is not installed")
    file = EXAMPLES / "haproxy" / "haproxy.cfg"
    done = subprocess.run([haproxy, "-c", "-f", str(file)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stdout + done.stderr
