"""What the tests of the core share."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.support.manualloop import ManualLoop


@pytest.fixture
def loop() -> Iterator[ManualLoop]:
    """A loop whose time the test sets; nothing may fail in it."""
    loop = ManualLoop()
    asyncio.set_event_loop(loop)
    yield loop
    if not loop.is_closed():  # as a test may have done
        loop.settle()
    asyncio.set_event_loop(None)
    loop.close()
    assert loop.errors == []
