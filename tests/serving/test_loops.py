"""Signals for which the application has a handler, too."""

from __future__ import annotations

import asyncio
import signal

import pytest

from bridge.serving import loops
from tests.support.serving import TIMEOUT

NUMBERS = [signal.SIGTERM, signal.SIGQUIT]


async def test_a_signal_interrupts_the_handler_that_the_application_has_for_another(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(loops, "_LOOK", 0.01)
    limited: list[int] = []
    within: list[list[int]] = []
    delivered: asyncio.Queue[int] = asyncio.Queue()
    before = {number: signal.getsignal(number) for number in NUMBERS}
    signals = loops.Signals(NUMBERS, NUMBERS)

    def handle(number: int, frame: object) -> None:
        servers(number, frame)  # as a handler does that keeps the one from before
        signal.raise_signal(signal.SIGQUIT)
        within.append(limited.copy())

    try:
        with signals:
            signals.deliver(delivered.put_nowait, limited.append)
            servers = signal.getsignal(signal.SIGTERM)
            assert callable(servers)
            signal.signal(signal.SIGTERM, handle)
            async with asyncio.timeout(TIMEOUT):
                while signal.getsignal(signal.SIGTERM) != servers:  # no event tells of it
                    await asyncio.sleep(0.01)
                signal.raise_signal(signal.SIGTERM)
                assert [await delivered.get(), await delivered.get()] == NUMBERS
            assert within == [NUMBERS], "the limit of the second signal waits for the handler of the first"
    finally:
        signals.restore()
        for number, handler in before.items():
            signal.signal(number, handler)
