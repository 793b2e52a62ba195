"""What the tests of the core share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.manualloop import ManualLoop


@pytest.fixture
def loop() -> Iterator[ManualLoop]:
    """A loop whose time the test sets; nothing may fail in it."""
    loop = ManualLoop()
    yield loop
    loop.close()
    assert loop.errors == []
