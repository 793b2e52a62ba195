"""The readiness check: called again and again, in its time, and never by a probe."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from bridge.serving import readiness
from bridge.serving.readiness import ReadinessCheck


@asynccontextmanager
async def checking(
    function: Callable[[], Any],
) -> AsyncIterator[tuple[ReadinessCheck, asyncio.Queue[tuple[bool, str]]]]:
    results: asyncio.Queue[tuple[bool, str]] = asyncio.Queue()
    check = ReadinessCheck(function, lambda *result: results.put_nowait(result))
    assert not check.holds
    check.start(asyncio.get_running_loop())
    try:
        async with asyncio.timeout(10):
            yield check, results
    finally:
        check.stop()
        await asyncio.sleep(0)


async def coroutine() -> None:
    """A check that passes."""


def returns_none() -> None:
    """A check that passes."""


def raises() -> None:
    raise LookupError("no database")


@pytest.mark.parametrize(
    ("function", "result"),
    [
        (returns_none, (True, "the check passed")),
        (coroutine, (True, "the check passed")),
        (lambda: True, (True, "the check passed")),
        (lambda: False, (False, "the check returned False")),
        (raises, (False, "the check raised LookupError")),
    ],
)
async def test_results(function: Callable[[], Any], result: tuple[bool, str], caplog: Any) -> None:
    async with checking(function) as (check, results):
        assert await results.get() == result
        assert (check.holds, check.detail) == result
    assert ("Not ready" in caplog.text) is not result[0]
    assert ("no database" in caplog.text) is (function is raises)  # the traceback


async def test_it_is_called_again_and_changes_are_told_once(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    monkeypatch.setattr(readiness, "_INTERVAL", 0.001)
    answers = [True, True, False, False, False, True]

    def function() -> bool:
        return answers.pop(0) if answers else True

    async with checking(function) as (_, results):
        assert [(await results.get())[0] for _ in range(3)] == [True, False, True]
        assert results.empty()
    assert caplog.text.count("Not ready") == 1


async def test_one_that_takes_too_long_is_not_called_a_second_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(readiness, "_TIMEOUT", 0.01)
    monkeypatch.setattr(readiness, "_INTERVAL", 0.001)
    go_on = threading.Event()
    calls = 0

    def function() -> None:
        nonlocal calls
        calls += 1
        go_on.wait(10)

    async with checking(function) as (_, results):
        assert await results.get() == (False, "the check takes longer than 0.01 s")
        await asyncio.sleep(0.05)
        assert calls == 1
        go_on.set()
        assert await results.get() == (True, "the check passed")
