"""Metrics for OpenTelemetry: OTLP over HTTP as JSON (OTLP 1.x, "JSON Protobuf Encoding").

The variables ``OTEL_...`` of the environment say where to.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote, urlsplit

from bridge._version import __version__
from bridge.core.http.fields import field_line
from bridge.errors import ConfigError, LocalProtocolError
from bridge.telemetry.metrics.catalog import COUNTER, HISTOGRAM

if TYPE_CHECKING:
    from bridge.telemetry.metrics.collect import Family, Labels

__all__ = ["Destination", "payload"]

_NAMES = {
    "http_request_method": "http.request.method",
    "http_response_status_code": "http.response.status_code",
    "url_scheme": "url.scheme",
    "network_protocol_version": "network.protocol.version",
    "http_route": "http.route",
    "error_type": "error.type",
    "mode": "cpu.mode",
    "worker": "bridge.worker",
}
_CUMULATIVE = 2


class Destination(NamedTuple):
    """Where metrics go, and what is said of this service.

    Attributes:
        url: Where to.
        headers: Fields of each request.
        interval: Seconds between two requests.
        timeout: Seconds for one.
        resource: What describes this service.
    """

    url: str
    headers: dict[str, str]
    interval: float
    timeout: float
    resource: dict[str, str]

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Destination:
        """Return what the ``OTEL_`` variables of *environ* say.

        Raises:
            ConfigError: One of them cannot be used.
        """
        url = environ.get("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "")
        if not url:
            url = environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318").rstrip("/") + "/v1/metrics"
        try:
            parts = urlsplit(url)
            usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable:
            raise ConfigError(f"--otlp: OTEL_EXPORTER_OTLP_ENDPOINT: {url!r} is not an http or https URL")
        headers = _fields(environ, "OTEL_EXPORTER_OTLP_HEADERS") | _fields(
            environ, "OTEL_EXPORTER_OTLP_METRICS_HEADERS"
        )
        resource = {"service.name": "bridge"} | _pairs(environ, "OTEL_RESOURCE_ATTRIBUTES")
        if environ.get("OTEL_SERVICE_NAME"):
            resource["service.name"] = environ["OTEL_SERVICE_NAME"]
        resource.setdefault("service.instance.id", f"{socket.gethostname()}-{os.getpid()}")
        return cls(
            url,
            headers,
            _milliseconds(environ, "OTEL_METRIC_EXPORT_INTERVAL", 60_000),
            _milliseconds(environ, "OTEL_METRIC_EXPORT_TIMEOUT", 10_000),
            resource,
        )


def _pairs(environ: Mapping[str, str], name: str) -> dict[str, str]:
    found = {}
    for part in environ.get(name, "").split(","):
        if not part.strip():
            continue
        key, equals, value = part.partition("=")
        if not equals or not key.strip():
            raise ConfigError(f"--otlp: {name}: {part!r} is not NAME=VALUE")
        found[key.strip()] = unquote(value.strip())
    return found


def _fields(environ: Mapping[str, str], name: str) -> dict[str, str]:
    found = _pairs(environ, name)
    for field, value in found.items():
        try:
            field_line(field.encode(), value.encode("latin-1"))  # as http.client encodes it
        except (LocalProtocolError, UnicodeEncodeError):
            raise ConfigError(f"--otlp: {name}: {field!r}: its name or its value cannot stand in a field") from None
    return found


def _milliseconds(environ: Mapping[str, str], name: str, default: int) -> float:
    text = environ.get(name, "") or str(default)
    if not text.isdecimal() or not 0 < int(text) < 10**9:
        raise ConfigError(f"--otlp: {name}: {text!r} is not a number of milliseconds")
    return int(text) / 1000


def payload(families: Iterable[Family], resource: Mapping[str, str], start: int, now: int | None = None) -> Any:
    """Return the message ExportMetricsServiceRequest, as json can write it.

    Args:
        families: The metrics.
        resource: What describes this service.
        start: When counting began (nanoseconds since 1970).
        now: When they were read; None for this moment.
    """
    at = str(time.time_ns() if now is None else now)
    return {
        "resourceMetrics": [
            {
                "resource": {"attributes": [_attribute(key, value) for key, value in resource.items()]},
                "scopeMetrics": [
                    {
                        "scope": {"name": "bridge", "version": __version__},
                        "metrics": [_metric(family, str(start), at) for family in families],
                    }
                ],
            }
        ]
    }


def _metric(family: Family, start: str, now: str) -> dict[str, Any]:
    metric = family.metric
    points: list[dict[str, Any]] = []
    for labels, cells in family.samples.items():
        point: dict[str, Any] = {"attributes": _attributes(labels), "timeUnixNano": now}
        if metric.kind == HISTOGRAM:
            counts = cells[: len(metric.bounds) + 1]
            point |= {
                "startTimeUnixNano": start,
                "count": str(sum(counts)),
                "sum": cells[len(metric.bounds) + 1] / metric.scale,
                "bucketCounts": [str(number) for number in counts],
                "explicitBounds": list(metric.bounds),
            }
        else:
            if metric.kind == COUNTER:
                point["startTimeUnixNano"] = start
            point |= {"asInt": str(cells[0])} if metric.scale == 1 else {"asDouble": cells[0] / metric.scale}
        points.append(point)
    found: dict[str, Any] = {"name": metric.otel, "description": metric.help, "unit": metric.unit}
    if metric.kind == HISTOGRAM:
        found["histogram"] = {"dataPoints": points, "aggregationTemporality": _CUMULATIVE}
    elif metric.kind == COUNTER or metric.name == "http_server_active_requests":
        monotonic = metric.kind == COUNTER
        found["sum"] = {"dataPoints": points, "aggregationTemporality": _CUMULATIVE, "isMonotonic": monotonic}
    else:
        found["gauge"] = {"dataPoints": points}
    return found


def _attributes(labels: Labels) -> list[dict[str, Any]]:
    return [_attribute(_NAMES.get(name, name), value) for name, value in labels]


def _attribute(key: str, value: str) -> dict[str, Any]:
    if key == "http.response.status_code" and value.isdecimal():
        return {"key": key, "value": {"intValue": value}}
    return {"key": key, "value": {"stringValue": value}}
