"""Tests that run on both event loops."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import uvloop

__all__ = ["both_loops", "run_on"]

FACTORIES: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def run_on(kind: str, main: Callable[[], Awaitable[None]]) -> None:
    """Run *main* on a loop of this kind; what reaches the loop's exception handler fails the test."""
    errors: list[dict[str, Any]] = []

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        await main()

    with asyncio.Runner(loop_factory=FACTORIES[kind]) as runner:
        runner.run(run())
    assert errors == []


def both_loops(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Make of a coroutine function two tests, one on each loop."""

    @functools.wraps(test)
    def on_loop(loop_kind: str, **fixtures: Any) -> None:
        run_on(loop_kind, functools.partial(test, **fixtures))

    parameters = list(inspect.signature(test).parameters.values())
    first = inspect.Parameter("loop_kind", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    on_loop.__signature__ = inspect.Signature([first, *parameters])  # type: ignore[attr-defined]
    decorated: Callable[..., None] = pytest.mark.parametrize("loop_kind", FACTORIES)(on_loop)
    return decorated
