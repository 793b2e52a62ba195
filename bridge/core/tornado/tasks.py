"""The tasks that a delegate starts while it is called.

Handlers of ``tornado.web`` run in a task of which the server is not told. An exception that their own code does not
catch, such as SystemExit, would leave the client waiting.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from bridge.core.connection.http1exchange import HTTP1Exchange
    from bridge.core.stream.stream import IOStream

    class Watched(Protocol):
        """The part of TornadoExchange that is asked here."""

        exchange: HTTP1Exchange
        taken: IOStream | None


__all__ = ["call_watched"]


def call_watched(connection: Watched, function: Callable[..., Any], *args: object) -> Any:
    """Call *function*, a method of a delegate, and end the exchange if a task that it starts ends it.

    A task ends the exchange by an exception that is no Exception, as SystemExit is none: 500 if nothing was sent, else
    a close. A task that is cancelled does not, as others may be about to answer.

    Args:
        connection: The exchange.
        function: The method.
        args: Its arguments.

    Returns:
        What *function* returns.
    """
    loop: Any = connection.exchange.loop  # what typeshed says of factories has no options
    before: Any = loop.get_task_factory()
    ended = functools.partial(_ended, connection)
    called = False

    def create(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **options: Any) -> Any:
        task = asyncio.Task(coroutine, loop=loop, **options) if before is None else before(loop, coroutine, **options)
        if not called:  # a factory of the application may go on calling this one
            task.add_done_callback(ended)
        return task

    # Only for the time of this call: no other code runs meanwhile.
    loop.set_task_factory(create)
    try:
        return function(*args)
    finally:
        if loop.get_task_factory() is create:  # otherwise the application has set its own one, which stays
            loop.set_task_factory(before)
        called = True


def _ended(connection: Watched, task: asyncio.Future[Any]) -> None:
    if task.cancelled():
        return
    error = task.exception()
    if error is None or isinstance(error, Exception):
        return
    if connection.taken is not None:
        connection.taken.close()
    elif isinstance(error, SystemExit | KeyboardInterrupt):
        connection.exchange.fail()  # these leave the loop as well, and are logged there
    else:
        connection.exchange.report_failure(error)
