"""Metrics as text, in both formats, and which of them a client gets."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from bridge.telemetry.metrics.catalog import BOUNDS, CATALOG, COUNTER, HISTOGRAM
from bridge.telemetry.metrics.collect import Family
from bridge.telemetry.metrics.exposition import OPENMETRICS, PROMETHEUS, expose, negotiate

SECOND = 1_000_000_000


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("", PROMETHEUS),
        ("*/*", PROMETHEUS),
        ("text/plain", PROMETHEUS),
        ("application/openmetrics-text", OPENMETRICS),
        # What Prometheus itself sends.
        (
            "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,"
            "text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
            OPENMETRICS,
        ),
        ("application/openmetrics-text;q=0.1, text/plain", PROMETHEUS),
        ("application/openmetrics-text;q=0", PROMETHEUS),
        ("application/openmetrics-text;q=x", PROMETHEUS),
        ("APPLICATION/OpenMetrics-Text", OPENMETRICS),
    ],
)
def test_the_client_chooses(accept: str, media_type: str) -> None:
    assert negotiate(accept) == media_type


DURATION = Family(
    CATALOG["http_server_request_duration_seconds"],
    {(("http_route", 'a"b\\c\nd'),): [1, 0, 2, *[0] * 11, 3, 5 * SECOND]},
)
REFUSED = Family(CATALOG["bridge_requests_refused"], {(("reason", "malformed"),): [4]})


def test_a_histogram_is_cumulative_and_its_labels_are_quoted() -> None:
    lines = expose([DURATION]).decode().splitlines()
    assert lines[1] == "# TYPE http_server_request_duration_seconds histogram"
    label = 'http_route="a\\"b\\\\c\\nd"'
    assert lines[2] == f'http_server_request_duration_seconds_bucket{{{label},le="0.005"}} 1'
    assert lines[4] == f'http_server_request_duration_seconds_bucket{{{label},le="0.025"}} 3'
    assert lines[-3] == f'http_server_request_duration_seconds_bucket{{{label},le="+Inf"}} 6'
    assert lines[-2] == f"http_server_request_duration_seconds_sum{{{label}}} 5.0"
    assert lines[-1] == f"http_server_request_duration_seconds_count{{{label}}} 6"
    assert len(lines) == 2 + len(BOUNDS) + 3


def test_a_counter_has_its_suffix_where_each_format_wants_it() -> None:
    assert expose([REFUSED]).decode().splitlines()[1:] == [
        "# TYPE bridge_requests_refused_total counter",
        'bridge_requests_refused_total{reason="malformed"} 4',
    ]
    assert expose([REFUSED], OPENMETRICS).decode().splitlines()[1:] == [
        "# TYPE bridge_requests_refused counter",
        'bridge_requests_refused_total{reason="malformed"} 4',
        "# EOF",
    ]


def everything() -> list[Family]:
    cells = {HISTOGRAM: [0] * 16}
    return [Family(metric, {(("a", "b"),): cells.get(metric.kind, [1])}) for metric in CATALOG.values()]


def test_units_are_the_ends_of_names() -> None:
    units = [line.split()[2:] for line in expose(everything(), OPENMETRICS).decode().splitlines() if "# UNIT" in line]
    assert len(units) > 5
    assert [name for name, unit in units if not name.endswith("_" + unit)] == []


def test_names_follow_the_conventions() -> None:
    assert [name for name, metric in CATALOG.items() if metric.kind == COUNTER and name.endswith("_total")] == []
    assert len({metric.otel for metric in CATALOG.values()}) == len(CATALOG)


@pytest.mark.slow
def test_prometheus_finds_no_fault() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    found = subprocess.run([promtool, "check", "metrics"], input=expose(everything()), capture_output=True, timeout=30)
    assert (found.returncode, found.stdout + found.stderr) == (0, b"")


def test_the_bounds_of_times_are_opentelemetrys() -> None:
    """Dashboards ask for single buckets: see the semantic conventions, http.server.request.duration."""
    assert BOUNDS == (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
