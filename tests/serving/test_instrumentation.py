"""OpenTelemetry's automatic instrumentation: who is instrumented, and that everything arrives."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

from bridge.config import Config
from bridge.errors import ConfigError
from bridge.serving import instrumentation
from tests.support.running import APPS, PATIENCE, REPOSITORY, surroundings

NEEDED = ["opentelemetry.instrumentation.auto_instrumentation", "opentelemetry.instrumentation.fastapi"]
NEEDED += ["opentelemetry.exporter.otlp.proto.http", "opentelemetry.proto", "fastapi"]


def missing() -> list[str]:
    found = []
    for name in NEEDED:
        try:
            absent = find_spec(name) is None
        except ImportError:
            absent = True
        if absent:
            found.append(name)
    return found


def test_a_wrapped_process_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sitecustomize", SimpleNamespace(__file__="/usr/lib/python3/sitecustomize.py"))
    assert not instrumentation.wrapped()
    path = "/x/site-packages/opentelemetry/instrumentation/auto_instrumentation/sitecustomize.py"
    monkeypatch.setitem(sys.modules, "sitecustomize", SimpleNamespace(__file__=path))
    assert instrumentation.wrapped()


def test_it_is_wanted_by_the_setting_or_the_wrapper(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BRIDGE_OTEL", raising=False)
    assert not instrumentation.wanted(Config())
    assert instrumentation.wanted(Config(otel=True))
    monkeypatch.setenv("BRIDGE_OTEL", "on")
    assert instrumentation.wanted(Config())
    with pytest.raises(ConfigError, match=r"^--preload: the application would be imported before"):
        instrumentation.wanted(Config(workers=2, preload=True))


@pytest.fixture
def initialized(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Have OpenTelemetry installed; return the attributes of the resource with which it was set up."""
    found: list[str] = []

    def initialize(*, swallow_exceptions: bool) -> None:
        assert not swallow_exceptions
        found.append(os.environ["OTEL_RESOURCE_ATTRIBUTES"])
        if "fails=1" in found[-1]:
            raise ValueError("no exporter of this name")

    name = ""
    for part in ("opentelemetry", "instrumentation", "auto_instrumentation"):
        name = f"{name}.{part}".lstrip(".")
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(initialize=initialize, __path__=[]))
    monkeypatch.setenv("BRIDGE_WORKER", "3")
    monkeypatch.delenv("OTEL_RESOURCE_ATTRIBUTES", raising=False)
    return found


def test_each_process_has_a_name_of_its_own(initialized: list[str]) -> None:
    for _ in range(2):
        instrumentation.instrument()
    first, second = (dict(pair.split("=") for pair in text.split(",")) for text in initialized)
    assert first["service.instance.id"] != second["service.instance.id"]
    assert (first["process.pid"], first["bridge.worker"]) == (str(os.getpid()), "3")
    assert "OTEL_RESOURCE_ATTRIBUTES" not in os.environ


def test_names_of_the_user_s_stay(initialized: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "service.instance.id=mine,team=shop")
    instrumentation.instrument()
    assert initialized[0].startswith("service.instance.id=mine,team=shop,process.pid=")
    assert os.environ["OTEL_RESOURCE_ATTRIBUTES"] == "service.instance.id=mine,team=shop"


def test_what_cannot_be_set_up_is_said(initialized: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "fails=1")
    with pytest.raises(ConfigError, match=r"^--otel: OpenTelemetry cannot be set up: ValueError: no exporter"):
        instrumentation.instrument()


@pytest.mark.slow
@pytest.mark.skipif(not missing(), reason="OpenTelemetry is installed")
@pytest.mark.parametrize("way", [[], ["--workers", "2"]], ids=["alone", "workers"])
def test_without_the_package_the_start_ends(way: list[str]) -> None:
    words = [sys.executable, "-m", "bridge", "run", "plain:asgi", "--port", "0", "--otel", *way]
    environ = {**surroundings(), "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(words, cwd=APPS, env=environ, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2
    assert "--otel: OpenTelemetry's instrumentation is not installed; `pip install" in done.stderr


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.skipif(bool(missing()), reason=f"not installed: {', '.join(missing())}")
@pytest.mark.parametrize("way", ["wrapper", "option"])
def test_everything_arrives_from_every_worker(way: str) -> None:
    from benchmarks import otel

    environ = {"PYTHONPATH": str(REPOSITORY)}
    found = otel.measure(sys.executable, otel.SERVERS["bridge"], 200, environ, wrapped=way == "wrapper")
    counts = {found[name] for name in ("requests", "spans", "logs", "requests by metrics")}
    assert counts == {201}
    assert found["processes"] == 4
    assert found["instances"] >= 4
