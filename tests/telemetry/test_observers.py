"""Several observers as one."""

from __future__ import annotations

from typing import Any

from bridge.telemetry.observers import Observers


class Notes:
    def __init__(self, name: str, calls: list[tuple[str, str, object]]) -> None:
        self.name = name
        self.calls = calls

    def exchange_started(self, exchange: Any) -> None:
        self.calls.append((self.name, "started", exchange))

    def exchange_ended(self, exchange: Any) -> None:
        self.calls.append((self.name, "ended", exchange))


def test_each_is_told_in_order() -> None:
    calls: list[tuple[str, str, object]] = []
    one, other = Notes("one", calls), Notes("other", calls)
    all_of_them: Any = Observers.of([one, other])
    all_of_them.exchange_started("exchange")
    all_of_them.exchange_ended("exchange")
    assert calls == [
        ("one", "started", "exchange"),
        ("other", "started", "exchange"),
        ("one", "ended", "exchange"),
        ("other", "ended", "exchange"),
    ]


def test_a_single_one_costs_no_call_more() -> None:
    one = Notes("one", [])
    assert Observers.of([one]) is one
    assert Observers.of([]) is None
