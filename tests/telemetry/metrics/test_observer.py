"""What is counted of exchanges and connections: by their labels, in the right bucket, and never too many of them."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.core.connection.states import CLOSED, DONE
from bridge.core.connection.times import note_times
from bridge.core.http.message import RequestHead, request_line
from bridge.telemetry.metrics.arena import Arena, Block
from bridge.telemetry.metrics.observer import RequestMetrics

DURATION = "http_server_request_duration_seconds"
MS = 1_000_000


def block() -> Block:
    found = Arena(2).allocate(0)
    assert found is not None
    return found


def exchange(
    method: str = "GET",
    status: int = 200,
    *,
    ago: int = 0,
    writing: Any = DONE,
    called_with: dict[str, Any] | None = None,
    fields: tuple[tuple[bytes, bytes], ...] = (),
    begun: bool = True,
    gone: bool = True,
) -> Any:
    line = request_line(method.encode(), method, b"/", b"1.1", b"/", b"", b"")
    times = note_times()
    times.opened -= ago
    times.called_with = called_with
    return SimpleNamespace(
        head=RequestHead(line, fields, b"a", 10),
        times=times,
        status=status,
        writing=writing,
        response=object() if begun and status else None,
        peer_gone=gone,
        context=SimpleNamespace(protocol="https"),
        connection_context=object(),
        connection=object(),
        content_sent=300,
    )


def counted(cells: Block, name: str = DURATION) -> dict[tuple[tuple[str, str], ...], list[int]]:
    return {row.labels: row.cells for row in cells.rows() if row.name == name}


def run(metrics: RequestMetrics, item: Any) -> None:
    stand_in: Any = Hashed(item)
    metrics.exchange_ended(stand_in)


class Hashed:
    """A namespace that can be in a set."""

    def __init__(self, inner: Any) -> None:
        vars(self).update(vars(inner))


GET = (("http_request_method", "GET"), ("http_response_status_code", "200"))
END = (("url_scheme", "https"), ("network_protocol_version", "1.1"))


@pytest.mark.parametrize(
    ("item", "labels"),
    [
        pytest.param(exchange(), GET + END, id="plain"),
        pytest.param(
            exchange("BREW", 404),
            (("http_request_method", "_OTHER"), ("http_response_status_code", "404"), *END),
            id="unknown method",
        ),
        pytest.param(
            exchange(status=503),
            (GET[0], ("http_response_status_code", "503"), *END, ("error_type", "503")),
            id="fault of the server",
        ),
        pytest.param(
            exchange(status=0, writing=CLOSED),
            (GET[0], *END, ("error_type", "client_disconnected")),
            id="no response",
        ),
        pytest.param(
            exchange(writing=CLOSED),
            (GET[0], *END, ("error_type", "client_disconnected")),
            id="client left in the middle",
        ),
        pytest.param(
            exchange(writing=CLOSED, gone=False),
            (GET[0], *END, ("error_type", "incomplete")),
            id="response cut by the server",
        ),
        pytest.param(
            exchange(status=413, writing=CLOSED, begun=False, gone=False),
            (GET[0], ("http_response_status_code", "413"), *END),
            id="refused by the connection",
        ),
        pytest.param(
            exchange(called_with={"bridge.route": "/items/{id}"}),
            (*GET, *END, ("http_route", "/items/{id}")),
            id="with a route",
        ),
    ],
)
def test_labels(item: Any, labels: tuple[tuple[str, str], ...]) -> None:
    cells = block()
    metrics = RequestMetrics(cells)
    for _ in range(2):
        item.times.called_with = item.times.called_with or None
        run(metrics, item)
    assert list(counted(cells)) == [labels] if "route" not in str(labels) else labels in counted(cells)


@pytest.mark.parametrize(("ago", "bucket"), [(0, 0), (6, 1), (30, 3), (600, 8), (11_000, 14), (99_000, 14)])
def test_durations_go_to_their_bucket(ago: int, bucket: int) -> None:
    cells = block()
    run(RequestMetrics(cells), exchange(ago=ago * MS))
    ((row),) = counted(cells).values()
    assert [index for index, value in enumerate(row[:15]) if value] == [bucket]
    assert ago * MS <= row[15] < ago * MS + 1_000 * MS


@pytest.mark.parametrize("route", ["/" + "long" * 30, "/" + "\u8def" * 119], ids=["long", "of many octets"])
def test_a_long_route_costs_no_other_label(route: str) -> None:
    cells = block()
    run(RequestMetrics(cells), exchange("OPTIONS", 503, called_with={"bridge.route": route}))
    ((labels),) = counted(cells)
    found = dict(labels)
    assert found["error_type"] == "503"
    assert route.startswith(found["http_route"].rstrip("\ufffd"))
    assert len(found["http_route"]) > 20


def test_a_mapping_is_let_go() -> None:
    item = exchange(called_with={"bridge.route": "/"})
    run(RequestMetrics(block()), item)
    assert item.times.called_with is None


def test_routes_are_bounded() -> None:
    cells = block()
    metrics = RequestMetrics(cells)
    for number in range(300):
        run(metrics, exchange(called_with={"bridge.route": f"/{number}"}))
    routes = {dict(labels)["http_route"]: sum(row[:-1]) for labels, row in counted(cells).items()}
    assert len(routes) == 201
    assert routes["_OTHER"] == 100


def test_combinations_are_bounded_and_none_is_lost() -> None:
    cells = block()
    metrics = RequestMetrics(cells)
    for number in range(6000):
        run(metrics, exchange(status=200 + number % 700, called_with={"bridge.route": f"/{number % 150}"}))
    assert sum(sum(row[:15]) for row in counted(cells).values()) == 6000
    assert cells.room > 100


def test_the_time_in_the_queue_and_a_refusal() -> None:
    cells = block()
    item = exchange(status=503)
    item.times.queued = 0.2
    item.times.refused = "queue_timeout"
    run(RequestMetrics(cells), item)
    ((queue),) = counted(cells, "bridge_request_queue_duration_seconds").values()
    assert queue[6] == 1
    assert queue[15] == 200 * MS
    assert counted(cells, "bridge_requests_refused")[("reason", "queue_timeout"),][0] == 1


def test_connections() -> None:
    cells = block()
    metrics = RequestMetrics(cells)
    connection: Any = SimpleNamespace(context=object())
    metrics.connection_opened(connection)
    metrics.connection_opened(connection)
    metrics.connection_closed(connection)
    metrics.request_refused(connection, "malformed")
    assert metrics.open == 1
    assert counted(cells, "bridge_connections_accepted")[()][0] == 2
    assert counted(cells, "bridge_requests_refused")[("reason", "malformed"),][0] == 1


def test_a_probe_is_not_counted() -> None:
    cells = block()
    metrics = RequestMetrics(cells)
    item: Any = Hashed(exchange())
    metrics.forget(item)
    metrics.exchange_ended(item)
    assert counted(cells) == {}


def test_sizes_on_demand() -> None:
    cells = block()
    run(RequestMetrics(cells, sizes=True), exchange())
    assert counted(cells, "http_server_response_body_size_bytes")[GET + END][3] == 1
    assert counted(cells, "http_server_request_body_size_bytes")[GET + END][0] == 1


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("t={}", True),
        ("{}", True),
        ("{ms}", True),
        ("{us}", True),
        ("-{}", False),
        ("soon", False),
        ("", False),
        ("1", False),
        ("9" * 400, False),
    ],
)
def test_ingress_of_trusted_peers(value: str, expected: bool) -> None:
    start = time.time() - 0.3
    text = value.format(f"{start:.3f}", ms=int(start * 1e3), us=int(start * 1e6))
    for trusted in (True, False):
        cells = block()
        metrics = RequestMetrics(cells, trusts=lambda _: trusted)  # noqa: B023 - called at once
        item = exchange(fields=((b"x-request-start", text.encode()),))
        connection: Any = SimpleNamespace(context=item.connection_context)
        metrics.connection_opened(connection)
        run(metrics, item)
        metrics.connection_closed(connection)
        run(metrics, item)  # nothing is kept of a connection
        found = counted(cells, "bridge_request_ingress_duration_seconds")
        assert bool(found) is (expected and trusted)
        if found:
            ((row),) = found.values()
            assert sum(row[:15]) == 1
            assert 200 * MS < row[15] < 5_000 * MS
