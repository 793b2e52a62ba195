"""Metrics as text: Prometheus's format and OpenMetrics."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from bridge.telemetry.metrics.catalog import COUNTER, HISTOGRAM

if TYPE_CHECKING:
    from bridge.telemetry.metrics.collect import Family, Labels

__all__ = ["OPENMETRICS", "PROMETHEUS", "expose", "negotiate"]

PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


def negotiate(accept: str) -> str:
    """Return the media type to answer with: PROMETHEUS, or OPENMETRICS if the client prefers it.

    Args:
        accept: The value of the request's Accept field (RFC 9110 section 12.5.1); empty for none.
    """
    quality = {"open": 0.0, "plain": 0.0}
    for part in accept.lower().split(","):
        media, *parameters = (word.strip() for word in part.split(";"))
        weight = 1.0
        for parameter in parameters:
            name, _, value = parameter.partition("=")
            if name.strip() == "q":
                try:
                    weight = float(value)
                except ValueError:
                    weight = 0.0
        if media == "application/openmetrics-text":
            quality["open"] = max(quality["open"], weight)
        elif media in {"text/plain", "text/*", "*/*"}:
            quality["plain"] = max(quality["plain"], weight)
    return OPENMETRICS if quality["open"] > 0 and quality["open"] >= quality["plain"] else PROMETHEUS


def expose(families: Iterable[Family], media_type: str = PROMETHEUS, more: bytes = b"") -> bytes:
    """Return *families* as text.

    Args:
        families: The metrics.
        media_type: PROMETHEUS or OPENMETRICS.
        more: Lines of other metrics, in the same format.
    """
    openmetrics = media_type == OPENMETRICS
    lines: list[str] = []
    for family in families:
        metric = family.metric
        total = metric.name + "_total" if metric.kind == COUNTER else metric.name
        name = metric.name if openmetrics else total
        lines.append(f"# HELP {name} {_escaped(metric.help)}")
        lines.append(f"# TYPE {name} {metric.kind}")
        if openmetrics and metric.unit in {"s", "By"}:
            lines.append(f"# UNIT {name} {'seconds' if metric.unit == 's' else 'bytes'}")
        for labels, cells in family.samples.items():
            if metric.kind == HISTOGRAM:
                lines += _histogram(metric.name, labels, cells, metric.bounds, metric.scale)
            else:
                lines.append(f"{total}{_braces(labels)} {_number(cells[0], metric.scale)}")
    text = ("\n".join([*lines, ""])).encode() + more
    return text + b"# EOF\n" if openmetrics else text


def _histogram(name: str, labels: Labels, cells: list[int], bounds: tuple[float, ...], scale: int) -> Iterator[str]:
    count = 0
    inner = _inner(labels)
    comma = "," if inner else ""
    for bound, number in zip(bounds, cells, strict=False):
        count += number
        yield f'{name}_bucket{{{inner}{comma}le="{_bound(bound)}"}} {count}'
    count += cells[len(bounds)]
    yield f'{name}_bucket{{{inner}{comma}le="+Inf"}} {count}'
    yield f"{name}_sum{_braces(labels)} {_number(cells[len(bounds) + 1], scale)}"
    yield f"{name}_count{_braces(labels)} {count}"


def _bound(bound: float) -> str:
    """Return a bound as OpenMetrics wants it: always with a point, and without an exponent."""
    return f"{bound:.1f}" if bound == int(bound) else repr(bound)


def _number(value: int, scale: int) -> str:
    return str(value) if scale == 1 else repr(value / scale)


def _braces(labels: Labels) -> str:
    return f"{{{_inner(labels)}}}" if labels else ""


def _inner(labels: Labels) -> str:
    return ",".join(f'{name}="{_quoted(value)}"' for name, value in labels)


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")
