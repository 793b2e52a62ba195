"""Metrics as lines for statsd, by gunicorn's names: what has been counted since the last time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridge.telemetry.metrics.collect import Family, Labels

__all__ = ["Statsd", "packets"]

_DURATION = "http_server_request_duration_seconds"
# Bytes of a packet, which no network cuts.
_PACKET = 1432


class Statsd:
    """Makes lines of the differences between two looks at the metrics.

    Args:
        prefix: What names begin with, ``gunicorn`` by default; with a dot behind it unless it is empty.
        tags: Tags in DogStatsD's form, ``name:value``; for plain statsd none.
    """

    def __init__(self, prefix: str = "gunicorn", tags: tuple[str, ...] = ()) -> None:
        self._prefix = f"{prefix.rstrip('.')}." if prefix else ""
        self._tags = f"|#{','.join(tags)}" if tags else ""
        self._before: dict[tuple[str, Labels], list[int]] | None = None

    def lines(self, families: Iterable[Family]) -> list[str]:
        """Return the lines for what has changed; the first time, only those of gauges."""
        found = {family.metric.name: family for family in families}
        lines: list[str] = []
        now: dict[tuple[str, Labels], list[int]] = {}
        duration = found.get(_DURATION)
        if duration is not None:
            for labels, cells in duration.samples.items():
                now[_DURATION, labels] = cells
                if self._before is not None:
                    before = self._before.get((_DURATION, labels), [0] * len(cells))
                    lines += self._requests(labels, [new - old for new, old in zip(cells, before, strict=True)])
        self._before = now
        workers = found.get("bridge_workers")
        if workers is not None:
            ready = sum(cells[0] for labels, cells in workers.samples.items() if ("state", "ready") in labels)
            lines.append(self._line("workers", f"{ready}|g"))
        active = found.get("http_server_active_requests")
        if active is not None:
            lines.append(self._line("requests.active", f"{sum(cells[0] for cells in active.samples.values())}|g"))
        return lines

    def _requests(self, labels: Labels, fresh: list[int]) -> Iterator[str]:
        *counts, total = fresh
        number = sum(counts)
        if number <= 0:
            return
        status = dict(labels).get("http_response_status_code", "0")
        yield self._line("requests", f"{number}|c")
        yield self._line(f"request.status.{status}", f"{number}|c")
        # One value stands for all: their mean, with the rate by which servers multiply the number of values.
        mean = total / number / 1e6
        yield self._line("request.duration", f"{mean:.3f}|ms" + (f"|@{1 / number:.9f}" if number > 1 else ""))

    def _line(self, name: str, value: str) -> str:
        return f"{self._prefix}{name}:{value}{self._tags}"


def packets(lines: Iterable[str]) -> list[bytes]:
    """Return *lines* in packets that networks carry whole."""
    found: list[bytes] = []
    packet = b""
    for line in lines:
        data = line.encode("utf-8", "replace")
        if packet and len(packet) + 1 + len(data) > _PACKET:
            found.append(packet)
            packet = b""
        packet = packet + b"\n" + data if packet else data
    if packet:
        found.append(packet)
    return found
