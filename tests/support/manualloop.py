"""An event loop whose time is set by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

__all__ = ["ManualLoop"]

T = TypeVar("T")


class ManualLoop(asyncio.SelectorEventLoop):
    """Runs what is ready, and never waits: time passes only in :meth:`advance`.

    Attributes:
        errors: What reached the loop's exception handler; a test that leaves something here has failed.
    """

    def __init__(self) -> None:
        super().__init__()
        self._now = 1000.0
        self.errors: list[dict[str, Any]] = []
        self.set_exception_handler(lambda _, context: self.errors.append(context))

    def time(self) -> float:
        return self._now

    def turn(self) -> None:
        """Run what is ready now, but not what that makes ready."""
        self.call_soon(self.stop)
        self.run_forever()

    def settle(self) -> None:
        """Run until nothing is ready."""
        for _ in range(100_000):
            self.turn()
            if not self._ready:  # type: ignore[attr-defined]  # asyncio's own list; there is no public way to ask
                return
        raise AssertionError("something is ready for ever")

    def advance(self, seconds: float, step: float = 0.25) -> None:
        """Let time pass in steps that are short enough for every timer to be seen."""
        end = self._now + seconds
        while self._now < end:
            self._now = min(end, self._now + step)
            self.settle()

    def jump(self, seconds: float) -> None:
        """Let time pass while nothing runs, as a blocked loop does."""
        self._now += seconds
        self.settle()

    def call(self, function: Callable[..., T], *args: Any) -> T:
        """Call *function* in the loop, run until nothing is ready, and return or raise what it did."""
        future: asyncio.Future[T] = self.create_future()

        def run() -> None:
            try:
                future.set_result(function(*args))
            except BaseException as exc:
                future.set_exception(exc)

        self.call_soon(run)
        self.settle()
        return future.result()
