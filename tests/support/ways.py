"""The ways of running a server: alone on each loop, with workers, with workers that share an import."""

from __future__ import annotations

import pytest

__all__ = ["in_each_way", "ways"]


def ways(workers: int) -> dict[str, list[str]]:
    """Return the options of each way.

    Args:
        workers: How many workers there are, where there are any.
    """
    return {
        "uvloop": ["--loop", "uvloop"],
        "asyncio": ["--loop", "asyncio"],
        "workers": ["--workers", str(workers)],
        "preload": ["--workers", str(workers), "--preload"],
    }


def in_each_way(workers: int) -> pytest.MarkDecorator:
    """Run a test in each way, given to it as ``way``; two of them only with the tests that take long."""
    rows = [
        pytest.param(options, marks=pytest.mark.long) if name in {"asyncio", "preload"} else options
        for name, options in ways(workers).items()
    ]
    return pytest.mark.parametrize("way", rows, ids=ways(workers))
