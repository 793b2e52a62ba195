"""Paths among the settings become absolute, and words stay words."""

from __future__ import annotations

import pytest

from bridge.config import SETTINGS, Config
from bridge.config.paths import located
from bridge.config.sources import load


def test_no_default_is_changed() -> None:
    config = load(["app:app"], {})
    assert located(config, "/srv/x") == config
    assert config.control_socket == "auto"


@pytest.mark.parametrize(
    ("words", "name", "expected"),
    [
        (["--control-socket", "a.ctl"], "control_socket", "/srv/x/a.ctl"),
        (["--control-socket", "./a.ctl"], "control_socket", "/srv/x/a.ctl"),
        (["--control-socket", "/run/a.ctl"], "control_socket", "/run/a.ctl"),
        (["--control-socket", "auto"], "control_socket", "auto"),
        (["--control-socket", "off"], "control_socket", None),
        (["--statsd", "unix:s.sock"], "statsd", "unix:/srv/x/s.sock"),
        (["--statsd", "localhost:8125"], "statsd", "localhost:8125"),
        (["--error-logfile", "-"], "error_logfile", "-"),
        (["--error-logfile", "e.log"], "error_logfile", "/srv/x/e.log"),
    ],
)
def test_paths(words: list[str], name: str, expected: str | None) -> None:
    assert getattr(located(load(["app:app", *words], {}), "/srv/x"), name) == expected


def test_nothing_is_a_relative_path_by_default() -> None:
    relative = [row.name for row in SETTINGS if row.kind.metavar in {"FILE", "DIR"} and row.default not in {None, "-"}]
    assert relative == ["control_socket"]
    assert Config().control_socket == "auto"
