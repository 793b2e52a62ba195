"""Asks a function of the user's, every few seconds, whether this process is ready."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from bridge.core.log import app_log
from bridge.errors import traceback_of

__all__ = ["ReadinessCheck"]

# Seconds between the end of a call and the next one, and seconds that a call may take.
_INTERVAL = 5.0
_TIMEOUT = 2.0


class ReadinessCheck:
    """Calls a function while the loop runs. Probes get the last result, and never call it.

    The function is plain, and is called in a thread, or a coroutine function. The process is ready if it returns
    anything but False.

    Args:
        function: The function, without arguments.
        changed: Called on the loop with the result, and with a few words if it failed, whenever they change.

    Attributes:
        holds: The last result; False before the first.
        detail: Why it is not ready; ``the check passed`` if it is.
    """

    def __init__(self, function: Callable[[], Any], changed: Callable[[bool, str], None]) -> None:
        self.holds = False
        self.detail = "the check has not ended so far"
        self._function = function
        self._changed = changed
        self._task: asyncio.Task[None] | None = None
        self._logged = ""

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Call the function from now on."""
        self._task = loop.create_task(self._run())

    def stop(self) -> None:
        """Call it no more."""
        if self._task is not None:
            self._task.cancel()

    async def _run(self) -> None:
        while True:
            await self._check()
            await asyncio.sleep(_INTERVAL)

    async def _check(self) -> None:
        call = asyncio.ensure_future(self._call())
        try:
            done, _ = await asyncio.wait({call}, timeout=_TIMEOUT)
            if not done:
                self._note(False, f"the check takes longer than {_TIMEOUT:g} s")
                await asyncio.wait({call})  # a thread cannot be ended; a second call would only be one more
            elif call.cancelled():
                self._note(False, "the check was cancelled")
            elif (error := call.exception()) is not None:
                self._note(False, f"the check raised {type(error).__name__}", error)
            else:
                self._note(call.result() is not False, "the check returned False")
        finally:
            call.cancel()

    async def _call(self) -> Any:
        if inspect.iscoroutinefunction(self._function):
            return await self._function()
        return await asyncio.to_thread(self._function)

    def _note(self, holds: bool, reason: str, error: BaseException | None = None) -> None:
        detail = "the check passed" if holds else reason
        if (holds, detail) != (self.holds, self.detail):
            self.holds, self.detail = holds, detail
            self._changed(holds, detail)
        if not holds and self._logged != reason:
            app_log.error("Not ready: %s", reason, exc_info=traceback_of(error))
        self._logged = "" if holds else reason
