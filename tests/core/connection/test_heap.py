"""Free memory goes back to the system."""

from __future__ import annotations

import ctypes
import sys

import pytest

from bridge.core.connection import budgets, heap
from bridge.core.connection.budgets import Budgets
from tests.support.manualloop import ManualLoop


def resident() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4096


@pytest.mark.skipif(sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="needs glibc")
def test_what_is_free_between_what_is_in_use_goes_back() -> None:
    blocks = [bytes([1]) * 30_000 for _ in range(4000)]
    del blocks[::2]
    held = resident()
    heap.trim()
    assert held - resident() > 30 << 20
    del blocks


def test_a_system_that_cannot_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def no_library(name: None) -> None:
        asked.append(name)
        raise OSError("no such library")

    monkeypatch.setattr(ctypes, "CDLL", no_library)
    monkeypatch.setattr(heap, "_malloc_trim", None)
    monkeypatch.setattr(heap, "_looked_for", False)
    heap.trim()
    heap.trim()
    assert asked == [None]


def test_it_is_done_now_and_then_while_clients_hold_much_and_once_after_that(monkeypatch: pytest.MonkeyPatch) -> None:
    times = []
    loop = ManualLoop()
    all_budgets = Budgets(loop)
    monkeypatch.setattr(budgets, "trim", lambda: times.append(now))
    for now in range(20):
        if now == 3:
            all_budgets.unfinished.keep(20 << 20)
        if now == 8:
            all_budgets.unfinished.release(20 << 20)
        all_budgets.tick(float(now))
    loop.close()
    assert times == [3, 5, 7, 9]
