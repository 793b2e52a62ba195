"""What a process measures of itself: how busy its loop and its threads are, also when they only wait."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.telemetry.metrics import sampler
from bridge.telemetry.metrics.arena import Arena, Block
from bridge.telemetry.metrics.observer import RequestMetrics
from bridge.telemetry.metrics.sampler import Sampler, Sources


class Loop:
    """A loop whose time a test sets."""

    def __init__(self) -> None:
        self.now = 100.0
        self.due: tuple[float, Callable[[], None]] | None = None

    def time(self) -> float:
        return self.now

    def call_at(self, due: float, callback: Callable[[], None]) -> Loop:
        self.due = (due, callback)
        return self

    def cancel(self) -> None:
        self.due = None


def measured(name: str, blocked: Callable[[float], float], occupied: Callable[[float], float], seconds: float) -> float:
    """Return the mean of a gauge in so many seconds, in which a timer that is due fires after *blocked* seconds."""
    block = Arena(2).allocate(0)
    assert block is not None
    loop: Any = Loop()
    sources = Sources(list, lambda: 0, lambda: (0, 0, 0), lambda: occupied(loop.now), dict)
    made = Sampler(loop, block, RequestMetrics(block), sources)
    begin, values = loop.now, []
    while loop.now < begin + seconds:
        due, callback = loop.due
        loop.now = due + blocked(due)
        callback()
        if loop.now > begin + 2.0:  # there is a whole sample
            values.append(gauge(block, name))
    made.stop()
    assert loop.due is None
    return sum(values) / len(values)


def gauge(block: Block, name: str) -> float:
    return next(row.cells[0] for row in block.rows() if row.name == name) / 1_000_000


@pytest.fixture(autouse=True)
def _cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampler.time, "thread_time", lambda: 0.0)
    monkeypatch.setattr(sampler, "random", random.Random(1).random)


@pytest.mark.parametrize(
    ("blocked", "least", "most"),
    [
        pytest.param(lambda due: 0.001, 0.0, 0.002, id="idle"),
        pytest.param(lambda due: 0.02 - due % 0.02, 0.8, 1.0, id="always in calls of 20 ms"),
        pytest.param(lambda due: 0.05 - due % 0.05, 0.8, 1.0, id="always in calls as long as between two looks"),
        pytest.param(lambda due: max(0.06 - due % 0.12, 0.0), 0.3, 0.8, id="half of the time"),
        pytest.param(lambda due: max(0.5 - due % 1.0, 0.0), 0.3, 0.7, id="half of the time in one call"),
    ],
)
def test_a_loop_that_waits_inside_of_calls_is_busy(
    blocked: Callable[[float], float], least: float, most: float
) -> None:
    assert least <= measured("bridge_loop_utilization", blocked, lambda now: 0.0, 60.0) <= most


def test_threads_are_busy_for_a_part_of_the_time() -> None:
    part = measured("bridge_threads_utilization", lambda due: 0.0, lambda now: 0.75 if now % 1.0 < 0.5 else 0.25, 60.0)
    assert 0.35 <= part <= 0.65


def test_requests_in_progress_are_there_from_the_start_and_fall_to_0() -> None:
    block = Arena(2).allocate(0)
    assert block is not None
    loop: Any = Loop()
    line = SimpleNamespace(method=b"GET", method_text="GET")
    exchange = SimpleNamespace(
        head=SimpleNamespace(line=line), context=SimpleNamespace(protocol="http"), connection=object()
    )
    active = [exchange, exchange]
    made = Sampler(loop, block, RequestMetrics(block), Sources(lambda: active, lambda: 0, lambda: (0, 0, 0), int, dict))

    def requests() -> list[tuple[object, int]]:
        return [(row.labels, row.cells[0]) for row in block.rows() if row.name == "http_server_active_requests"]

    labels = (("http_request_method", "GET"), ("url_scheme", "http"))
    assert requests() == [(labels, 2)]
    active.clear()
    made.stop()
    assert requests() == [(labels, 0)]
