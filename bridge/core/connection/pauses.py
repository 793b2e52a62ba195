"""Pauses of a request's content: the reasons, and the pause until something that the delegate has returned is done.

HTTP/1 and HTTP/2 share this.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Protocol

    class Paused(Protocol):
        """What ``pause_until`` needs of an exchange."""

        @property
        def finished(self) -> bool: ...
        @property
        def loop(self) -> asyncio.AbstractEventLoop: ...
        def abort(self) -> None: ...
        def report_failure(self, error: BaseException) -> None: ...


__all__ = ["BY_AWAITABLE", "BY_DELEGATE", "pause_until"]

BY_DELEGATE, BY_AWAITABLE = 1, 2
"""The reasons for which content is paused, as bits: the delegate has asked for a pause; an awaitable that it has
returned is not done. Both may hold at once. Content goes on when neither holds."""


def pause_until(
    waiting: Awaitable[None], exchange: Paused, pause: Callable[[int], None], resume: Callable[[int], None]
) -> None:
    """Pause the content of *exchange* until *waiting*, which its delegate has returned, is done.

    If *waiting* fails, the delegate has failed. If it is cancelled, the exchange is aborted. When the response is
    complete already, the delegate gets no content, and there is no pause.

    Args:
        waiting: The awaitable.
        exchange: The exchange.
        pause: Pauses its content for a reason.
        resume: Ends the pause for a reason.
    """
    future = asyncio.ensure_future(waiting, loop=exchange.loop)
    if future.done() and not future.cancelled() and future.exception() is None:
        return
    if not exchange.finished:
        pause(BY_AWAITABLE)

    def go_on(done: asyncio.Future[None]) -> None:
        if done.cancelled():
            exchange.abort()
        elif (error := done.exception()) is not None:
            exchange.report_failure(error)
        elif not exchange.finished:
            resume(BY_AWAITABLE)

    future.add_done_callback(go_on)
