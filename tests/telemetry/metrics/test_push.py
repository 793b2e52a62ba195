"""Metrics that are sent: what statsd and OTLP servers get, and what happens while they are down."""

from __future__ import annotations

import http.server
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import Any

import pytest

from bridge.config import Config
from bridge.errors import ConfigError
from bridge.telemetry.metrics import push
from bridge.telemetry.metrics.catalog import CATALOG
from bridge.telemetry.metrics.collect import Family, Labels
from bridge.telemetry.metrics.otlp import Destination, payload
from bridge.telemetry.metrics.push import Pusher, check
from bridge.telemetry.metrics.statsd import Statsd, packets

DURATION = CATALOG["http_server_request_duration_seconds"]
OK: Labels = (("http_request_method", "GET"), ("http_response_status_code", "200"))
MS = 1_000_000


def families(number: int, total: int) -> list[Family]:
    return [
        Family(DURATION, {OK: [number, *[0] * 14, total]}),
        Family(CATALOG["bridge_workers"], {(("state", "ready"),): [3], (("state", "leaving"),): [1]}),
        Family(CATALOG["http_server_active_requests"], {(): [2]}),
        Family(CATALOG["bridge_requests_refused"], {(("reason", "malformed"),): [4]}),
        Family(CATALOG["bridge_loop_lag_seconds"], {(("worker", "0"),): [5 * MS]}),
    ]


def test_statsd_gets_differences_by_gunicorns_names() -> None:
    statsd = Statsd()
    assert statsd.lines(families(5, 50 * MS)) == ["gunicorn.workers:3|g", "gunicorn.requests.active:2|g"]
    assert statsd.lines(families(9, 130 * MS)) == [
        "gunicorn.requests:4|c",
        "gunicorn.request.status.200:4|c",
        "gunicorn.request.duration:20.000|ms|@0.250000000",
        "gunicorn.workers:3|g",
        "gunicorn.requests.active:2|g",
    ]
    assert len(statsd.lines(families(9, 130 * MS))) == 2


def test_prefix_and_tags() -> None:
    statsd = Statsd("a.b.", ("env:prod", "x:1"))
    assert statsd.lines(families(0, 0))[0] == "a.b.workers:3|g|#env:prod,x:1"
    assert Statsd("").lines(families(0, 0))[0] == "workers:3|g"


def test_packets_are_small() -> None:
    lines = [f"{'x' * 90}.{number}:1|c" for number in range(100)]
    found = packets(lines)
    assert max(map(len, found)) <= 1432
    assert b"\n".join(found).decode().split("\n") == lines
    assert packets([]) == []


def test_otlp_has_every_number() -> None:
    message = payload(families(5, 50 * MS), {"service.name": "shop"}, 1, 2)
    (resource,) = message["resourceMetrics"]
    assert resource["resource"]["attributes"] == [{"key": "service.name", "value": {"stringValue": "shop"}}]
    metrics = {metric["name"]: metric for metric in resource["scopeMetrics"][0]["metrics"]}
    (point,) = metrics["http.server.request.duration"]["histogram"]["dataPoints"]
    assert point["count"] == "5"
    assert point["sum"] == 0.05
    assert len(point["bucketCounts"]) == len(point["explicitBounds"]) + 1 == 15
    assert point["attributes"] == [
        {"key": "http.request.method", "value": {"stringValue": "GET"}},
        {"key": "http.response.status_code", "value": {"intValue": "200"}},
    ]
    sums = [metric[kind] for metric in metrics.values() for kind in ("sum", "histogram") if kind in metric]
    assert {each["aggregationTemporality"] for each in sums} == {2}  # AGGREGATION_TEMPORALITY_CUMULATIVE
    assert metrics["bridge.requests.refused"]["sum"]["isMonotonic"] is True
    assert metrics["http.server.active_requests"]["sum"]["isMonotonic"] is False
    assert metrics["bridge.loop.lag"]["gauge"]["dataPoints"][0]["asDouble"] == 0.005


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, "http://localhost:4318/v1/metrics"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "https://a.example/x/"}, "https://a.example/x/v1/metrics"),
        ({"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://b:1/y"}, "http://b:1/y"),
    ],
)
def test_where_to(environ: dict[str, str], url: str) -> None:
    assert Destination.of(environ).url == url


def test_what_else_the_variables_say() -> None:
    found = Destination.of(
        {
            "OTEL_EXPORTER_OTLP_HEADERS": "a=1, b=x%20y",
            "OTEL_EXPORTER_OTLP_METRICS_HEADERS": "a=2",
            "OTEL_METRIC_EXPORT_INTERVAL": "250",
            "OTEL_SERVICE_NAME": "shop",
            "OTEL_RESOURCE_ATTRIBUTES": "service.name=other,deployment.environment=prod",
        }
    )
    assert found.headers == {"a": "2", "b": "x y"}
    assert found.interval == 0.25
    assert found.resource["service.name"] == "shop"
    assert found.resource["deployment.environment"] == "prod"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4317"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "grpc://x"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "nonsense"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=b%0Ac"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a b=c"),
        ("OTEL_EXPORTER_OTLP_METRICS_HEADERS", "a=%E2%82%AC"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "soon"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "-1"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "1000000000"),
        ("OTEL_METRIC_EXPORT_TIMEOUT", "0"),
    ],
)
def test_variables_that_cannot_be_used(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=name):
        check(Config(otlp=True))


def test_a_statsd_server_without_a_name() -> None:
    with pytest.raises(ConfigError, match=r"--statsd no-such-host\.invalid:8125"):
        check(Config(statsd="no-such-host.invalid:8125"))


@pytest.fixture
def collector() -> Iterator[tuple[http.server.HTTPServer, list[Any]]]:
    received: list[Any] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        status = 200

        def do_POST(self) -> None:
            received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(self.status)
            self.send_header("Retry-After", "120")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server, received
        finally:
            server.shutdown()
            thread.join()


def test_the_last_numbers_are_sent_at_the_end(
    collector: tuple[http.server.HTTPServer, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, received = collector
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        sink.settimeout(10)
        config = Config(otlp=True, statsd=f"127.0.0.1:{sink.getsockname()[1]}")
        Pusher(config, lambda: families(5, 50)).run(lambda _: True)
        assert sink.recv(2000).startswith(b"gunicorn.workers:3|g")
    assert len(received) == 1


def test_an_outage_costs_one_warning(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    caplog.set_level(logging.INFO, "bridge.general")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", 0))
        closed = sink.getsockname()[1]
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{closed}")
    pusher = Pusher(Config(otlp=True, statsd=f"127.0.0.1:{closed}"), lambda: families(1, 1))
    for _ in range(3):
        pusher.run(lambda _: True)
    assert caplog.text.count("--statsd") == 1
    assert caplog.text.count("--otlp") == 1
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sink:
        sink.bind(("127.0.0.1", closed))
        pusher.run(lambda _: True)
    assert f"--statsd 127.0.0.1:{closed} is back" in caplog.text


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        ("30", 30, 30),
        (" 7 ", 7, 7),
        pytest.param(
            formatdate(time.time() + 3000, usegmt=True), 1000, 3000, id="a date to come"
        ),  # tests have fixed names
        ("999999999999999999999", 3600, 3600),
        ("Mon, 01 Jan 2001 00:00:00 GMT", 0, 0),
        ("-5", 0, 0),
        ("1.5", 0, 0),
        ("soon", 0, 0),
        ("\xb2", 0, 0),
        ("Mon, 99 Jan 2001 00:00:00 GMT", 0, 0),
        ("", 0, 0),
    ],
)
def test_how_long_a_collector_wants_to_be_left_alone(value: str, least: float, most: float) -> None:
    assert least <= push._seconds(value) <= most


def test_a_collector_is_left_alone_for_as_long_as_it_asks(
    collector: tuple[http.server.HTTPServer, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, received = collector
    monkeypatch.setattr(server.RequestHandlerClass, "status", 429)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "1")
    waits: list[float] = []

    def ended(seconds: float) -> bool:
        waits.append(seconds)
        time.sleep(min(seconds, 0.01))
        return len(waits) == 2

    Pusher(Config(otlp=True), lambda: families(1, 1)).run(ended)
    assert len(received) == 2  # the last numbers go out at the end, whatever it has asked for
    assert 100 < waits[1] <= 120


def test_the_name_of_a_host_that_is_none_ends_nothing(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://{'a' * 70}.example:4318")
    pusher = Pusher(Config(otlp=True), lambda: families(1, 1))
    for _ in range(2):
        pusher.run(lambda _: True)
    assert caplog.text.count("metrics are lost") == 1


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "without response"),
        (b"nonsense\r\n\r\n", "nonsense"),
        (b"HTTP/1.1 503 Service Unavailable\r\n\r\n", "status 503"),
        (b"HTTP/1.1 300 Multiple Choices\r\n\r\n", "status 300"),
        (b"HTTP/1.1 299 OK\r\nContent-Length: 1000000000000\r\n\r\nx", ""),
        (b"HTTP/1.1 " + b"2" * 100_000, "line"),
        (None, "timed out"),
    ],
    ids=["closes", "nonsense", "refuses", "redirects", "no end of the content", "no end of the line", "hangs"],
)
def test_a_collector_that_does_not_answer_well_costs_one_warning_at_most(
    answer: bytes | None, reason: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("OTEL_METRIC_EXPORT_TIMEOUT", "100" if answer is None else "20000")
        pusher = Pusher(Config(otlp=True), lambda: families(1, 1))
        held = []

        def serve() -> None:
            for _ in range(2):
                client, _ = server.accept()
                held.append(client)
                with client.makefile("rb") as file:  # read whole: else a close would be a reset
                    fields = dict(
                        line.rstrip().split(b": ", 1) for line in iter(file.readline, b"\r\n") if b": " in line
                    )
                    file.read(int(fields[b"Content-Length"]))
                if answer is not None:
                    client.sendall(answer)
                    if b"Length" not in answer:
                        client.close()

        thread = threading.Thread(target=serve)
        thread.start()
        for _ in range(2):
            pusher.run(lambda _: True)
        thread.join()
        for client in held:
            client.close()
    warnings = [record.getMessage() for record in caplog.records if "metrics are lost" in record.getMessage()]
    assert len(warnings) == bool(reason)
    assert all(reason in warning for warning in warnings)
