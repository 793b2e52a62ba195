"""Counts over all connections of a server."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bridge.telemetry.counts import RequestCount

EXCHANGE: Any = SimpleNamespace(head=SimpleNamespace(line=SimpleNamespace(path=b"/counted")))


def started_until_reached(count: RequestCount, calls: list[str]) -> int:
    for number in range(1, 100):
        count.exchange_started(EXCHANGE)
        count.exchange_ended(EXCHANGE)
        if calls:
            return number
    raise AssertionError("it was never reached")


def test_the_function_is_called_once_when_the_number_has_started() -> None:
    calls: list[str] = []
    count = RequestCount(3, 0, lambda: calls.append("reached"))
    assert started_until_reached(count, calls) == 3
    for _ in range(10):
        count.exchange_started(EXCHANGE)
    assert calls == ["reached"]


@pytest.mark.parametrize("extra", [0, 7])
def test_the_jitter_is_added(monkeypatch: pytest.MonkeyPatch, extra: int) -> None:
    asked: list[tuple[int, int]] = []

    def randint(low: int, high: int) -> int:
        asked.append((low, high))
        return extra

    monkeypatch.setattr("random.randint", randint)
    calls: list[str] = []
    count = RequestCount(3, 7, lambda: calls.append("reached"))
    assert asked == [(0, 7)]
    assert started_until_reached(count, calls) == 3 + extra


@pytest.mark.parametrize(
    ("path", "counts"), [(b"/health", False), (b"/healthy", True), (b"/static/a", False), (b"/static", True)]
)
def test_some_paths_do_not_count(path: bytes, counts: bool) -> None:
    calls: list[str] = []
    count = RequestCount(1, 0, lambda: calls.append("reached"), ("/health", "/static/*"))
    exchange: Any = SimpleNamespace(head=SimpleNamespace(line=SimpleNamespace(path=path)))
    count.exchange_started(exchange)
    assert calls == (["reached"] if counts else [])
