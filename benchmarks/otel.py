"""OpenTelemetry's table: what arrives of traces, metrics and logs: ``python -m benchmarks.otel --python PYTHON``.

Each server runs a FastAPI application with four workers under ``opentelemetry-instrument``, answers requests, and gets
SIGTERM at once. A sink takes what it sends over OTLP, decodes it with opentelemetry-proto, and counts: server spans,
records of logs, and requests by ``http.server.request.duration``. A backend keeps one value for each series; so the
last value counts for those that say that they come from the same process.

PYTHON is an interpreter with opentelemetry-distro, opentelemetry-exporter-otlp-proto-http,
opentelemetry-instrumentation-fastapi, -logging, opentelemetry-proto, fastapi, uvicorn, gunicorn and bridge.
"""

import argparse
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

APP = """
import logging, os
from fastapi import FastAPI

app = FastAPI()
log = logging.getLogger("shop")

@app.get("/items/{number}")
async def item(number: int):
    log.warning("served %d", number)
    return {"pid": os.getpid()}
"""
WORKERS = "4"
SERVERS = {
    "bridge": ["-m", "bridge", "run", "shop:app", "--workers", WORKERS, "--no-access-log"],
    "uvicorn": ["-m", "uvicorn", "shop:app", "--workers", WORKERS, "--timeout-worker-healthcheck", "120"],
    "gunicorn": ["-m", "gunicorn", "shop:app", "-k", "uvicorn_worker.UvicornWorker", "-w", WORKERS],
}
ENVIRONMENT = {
    "OTEL_SERVICE_NAME": "shop",
    "OTEL_TRACES_EXPORTER": "otlp",
    "OTEL_METRICS_EXPORTER": "otlp",
    "OTEL_LOGS_EXPORTER": "otlp",
    "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
    "OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED": "true",
    "OTEL_SEMCONV_STABILITY_OPT_IN": "http",
    "OTEL_METRIC_EXPORT_INTERVAL": "2000",
}


class Sink:
    """Takes OTLP over HTTP and counts.

    Attributes:
        url: Where it listens.
        spans: Server spans, by the process that they name.
        logs: Records of the application's, by the process.
        series: Requests by the last value of each series.
        processes: The ``process.pid`` and ``service.instance.id`` of all resources.
    """

    def __init__(self) -> None:
        from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
        from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        self.spans = self.logs = 0
        self.series: dict[str, int] = {}
        self.instances: set[str] = set()
        self._lock = threading.Lock()
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                data = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    import gzip

                    data = gzip.decompress(data)
                kinds: dict[str, tuple[Any, Any]] = {
                    "/v1/traces": (ExportTraceServiceRequest, sink._take_spans),
                    "/v1/metrics": (ExportMetricsServiceRequest, sink._take_metrics),
                    "/v1/logs": (ExportLogsServiceRequest, sink._take_logs),
                }
                request, take = kinds[self.path]
                with sink._lock:
                    take(request.FromString(data))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _take_spans(self, message: Any) -> None:
        for group in message.resource_spans:
            self._note(group.resource)
            for scope in group.scope_spans:
                self.spans += sum(span.kind == 2 for span in scope.spans)

    def _take_logs(self, message: Any) -> None:
        for group in message.resource_logs:
            self._note(group.resource)
            for scope in group.scope_logs:
                self.logs += sum(record.body.string_value.startswith("served ") for record in scope.log_records)

    def _take_metrics(self, message: Any) -> None:
        for group in message.resource_metrics:
            resource = self._note(group.resource)
            for scope in group.scope_metrics:
                for metric in scope.metrics:
                    if metric.name == "http.server.request.duration":
                        for point in metric.histogram.data_points:
                            labels = sorted((each.key, str(each.value)) for each in point.attributes)
                            self.series[json.dumps([resource, labels])] = point.count

    def _note(self, resource: Any) -> list[tuple[str, str]]:
        found = sorted((each.key, str(each.value)) for each in resource.attributes)
        self.instances.update(value for key, value in found if key == "service.instance.id")
        return found


@contextlib.contextmanager
def served(command: list[str], sink: Sink, directory: str, environ: dict[str, str]) -> Iterator[int]:
    """Run a server and yield its port; SIGTERM ends it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    bind = ["--bind", f"127.0.0.1:{port}"] if "uvicorn" not in command else ["--port", str(port)]
    environment = os.environ | ENVIRONMENT | {"OTEL_EXPORTER_OTLP_ENDPOINT": sink.url} | environ
    with open(f"{directory}/log", "wb") as log:
        process = subprocess.Popen([*command, *bind], cwd=directory, env=environment, stdout=log, stderr=log)
    try:
        end = time.monotonic() + 90
        while True:
            try:
                ask(port, 0, 1)
                break
            except OSError:
                if time.monotonic() > end or process.poll() is not None:
                    raise SystemExit(Path(directory, "log").read_text()[-2000:]) from None
                time.sleep(0.2)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        finally:
            process.kill()


def ask(port: int, first: int, number: int) -> set[int]:
    """Send requests over one connection; return the processes that have answered."""
    pids = set()
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    for count in range(number):
        connection.request("GET", f"/items/{first + count}")
        pids.add(json.load(connection.getresponse())["pid"])
    connection.close()
    return pids


def measure(
    python: str, words: list[str], requests: int, environ: dict[str, str] | None = None, *, wrapped: bool = True
) -> dict[str, Any]:
    """Return what has arrived of *requests* requests, after SIGTERM: by the wrapper, or by bridge's own ``--otel``."""
    wrapper = str(Path(python).parent / "opentelemetry-instrument")
    command = [wrapper, python, *words] if wrapped else [python, *words, "--otel"]
    sink = Sink()
    with tempfile.TemporaryDirectory(prefix="bridge-otel-") as directory:
        Path(directory, "shop.py").write_text(APP)
        with served(command, sink, directory, environ or {}) as port, ThreadPoolExecutor(16) as pool:
            each = 5  # many connections, so that all workers get some
            pids: set[int] = set().union(*pool.map(lambda index: ask(port, index, each), range(requests // each)))
        sink.close()
    return {
        "requests": requests // each * each + 1,
        "processes": len(pids),
        "spans": sink.spans,
        "logs": sink.logs,
        "requests by metrics": sum(sink.series.values()),
        "instances": len(sink.instances),
    }


def main() -> None:
    """Measure all servers and print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.otel", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("servers", nargs="*", default=[*SERVERS])
    options = parser.parse_args()
    rows = {name: measure(options.python, SERVERS[name], options.requests) for name in options.servers}
    columns = [*next(iter(rows.values()))]
    print("| |", " | ".join(columns), "|")
    print("|---|" + "---|" * len(columns))
    for name, row in rows.items():
        print(f"| {name} |", " | ".join(str(row[column]) for column in columns), "|")


if __name__ == "__main__":
    main()
