"""The metrics that exist: their names, kinds and units.

Names are OpenTelemetry's, where its semantic conventions have one, as Prometheus spells them.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["BOUNDS", "CATALOG", "COUNTED", "COUNTER", "GAUGE", "HISTOGRAM", "KEPT", "SECOND", "SIZE_BOUNDS", "Metric"]

COUNTER, GAUGE, HISTOGRAM = "counter", "gauge", "histogram"

#: A cell with a time has nanoseconds.
SECOND = 1_000_000_000

#: OpenTelemetry's bounds for durations (seconds), and bounds for sizes (bytes).
BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
SIZE_BOUNDS = (0.0, *(float(1 << exponent) for exponent in range(6, 31, 2)))


class Metric(NamedTuple):
    """One metric.

    Attributes:
        name: Prometheus's name, without the ``_total`` of counters.
        otel: OpenTelemetry's name.
        kind: COUNTER, GAUGE or HISTOGRAM.
        help: What it is, in a few words.
        unit: OpenTelemetry's unit: ``s``, ``By``, ``1``, or what is counted, in braces.
        scale: What one unit is in a cell.
        merge: How the gauges of one worker's processes become one, while one ends and another begins: ``sum``,
            ``max`` or ``min``.
        bounds: Of the buckets of a histogram.
    """

    name: str
    otel: str
    kind: str
    help: str
    unit: str = "1"
    scale: int = 1
    merge: str = "sum"
    bounds: tuple[float, ...] = BOUNDS


_METRICS = (
    Metric(
        "http_server_request_duration_seconds",
        "http.server.request.duration",
        HISTOGRAM,
        "Duration of requests, from the head to the end of the response.",
        "s",
        SECOND,
    ),
    Metric(
        "http_server_active_requests",
        "http.server.active_requests",
        GAUGE,
        "Requests in progress.",
        "{request}",
    ),
    Metric(
        "http_server_request_body_size_bytes",
        "http.server.request.body.size",
        HISTOGRAM,
        "Declared size of request content.",
        "By",
        bounds=SIZE_BOUNDS,
    ),
    Metric(
        "http_server_response_body_size_bytes",
        "http.server.response.body.size",
        HISTOGRAM,
        "Size of response content.",
        "By",
        bounds=SIZE_BOUNDS,
    ),
    Metric(
        "bridge_request_queue_duration_seconds",
        "bridge.request.queue.duration",
        HISTOGRAM,
        "Time for which WSGI requests waited for a thread.",
        "s",
        SECOND,
    ),
    Metric(
        "bridge_request_ingress_duration_seconds",
        "bridge.request.ingress.duration",
        HISTOGRAM,
        "Time from a trusted proxy's X-Request-Start to the head of the request.",
        "s",
        SECOND,
    ),
    Metric(
        "bridge_requests_refused",
        "bridge.requests.refused",
        COUNTER,
        "Requests that the server itself refused.",
        "{request}",
    ),
    Metric(
        "bridge_connections",
        "bridge.connections",
        GAUGE,
        "Open connections.",
        "{connection}",
    ),
    Metric(
        "bridge_connections_accepted",
        "bridge.connections.accepted",
        COUNTER,
        "Connections that began to speak HTTP.",
        "{connection}",
    ),
    Metric(
        "bridge_connections_refused",
        "bridge.connections.refused",
        COUNTER,
        "Connections that ended before they spoke HTTP.",
        "{connection}",
    ),
    Metric(
        "bridge_accept_queue",
        "bridge.accept_queue",
        GAUGE,
        "Connections that wait in the queue of a listening socket.",
        "{connection}",
        merge="max",
    ),
    Metric("bridge_threads", "bridge.threads", GAUGE, "Threads for WSGI requests.", "{thread}"),
    Metric(
        "bridge_threads_utilization",
        "bridge.threads.utilization",
        GAUGE,
        "The part of the threads for WSGI requests that was in use, of all that there may be, in the last second.",
        "1",
        1_000_000,
        merge="max",
    ),
    Metric("bridge_websockets", "bridge.websockets", GAUGE, "Open WebSockets.", "{connection}"),
    Metric(
        "bridge_websocket_messages",
        "bridge.websocket.messages",
        COUNTER,
        "Messages of WebSockets.",
        "{message}",
    ),
    Metric(
        "bridge_loop_lag_seconds",
        "bridge.loop.lag",
        GAUGE,
        "How late the event loop was at worst in the last second.",
        "s",
        SECOND,
        merge="max",
    ),
    Metric(
        "bridge_loop_utilization",
        "bridge.loop.utilization",
        GAUGE,
        "The part of the last second in which the event loop was busy.",
        "1",
        1_000_000,
        merge="max",
    ),
    Metric("bridge_workers", "bridge.workers", GAUGE, "Worker processes.", "{process}"),
    Metric("bridge_worker_starts", "bridge.worker.starts", COUNTER, "Worker processes that were started.", "{process}"),
    Metric("bridge_worker_exits", "bridge.worker.exits", COUNTER, "Worker processes that have ended.", "{process}"),
    Metric("bridge_reloads", "bridge.reloads", COUNTER, "Reloads, by their result.", "{reload}"),
    Metric(
        "bridge_tls_certificate_expiry_seconds",
        "bridge.tls.certificate.expiry",
        GAUGE,
        "When the certificate that is served ends, in seconds since 1970.",
        "s",
        merge="min",
    ),
    Metric("process_cpu_time_seconds", "process.cpu.time", COUNTER, "CPU time.", "s", SECOND),
    Metric("process_memory_usage_bytes", "process.memory.usage", GAUGE, "Resident memory.", "By"),
    Metric("process_threads", "process.thread.count", GAUGE, "Threads.", "{thread}"),
    Metric("process_open_fds", "process.unix.file_descriptor.count", GAUGE, "Open descriptors.", "{count}"),
    Metric(
        "process_uptime_seconds",
        "process.uptime",
        GAUGE,
        "Time since the process began.",
        "s",
        SECOND,
        merge="min",
    ),
    Metric(
        "cpython_gc_collections",
        "cpython.gc.collections",
        COUNTER,
        "Runs of the garbage collector.",
        "{collection}",
    ),
)

#: All metrics by name.
CATALOG = {metric.name: metric for metric in _METRICS}
#: The names of those that outlive their process.
COUNTED = frozenset(metric.name for metric in _METRICS if metric.kind != GAUGE)
#: The names of the gauges that are summed over all processes, and stay at 0 when the last of them has ended.
KEPT = frozenset(metric.name for metric in _METRICS if metric.kind == GAUGE and metric.merge == "sum")
