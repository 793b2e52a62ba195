"""The errors of streams; ``bridge.core.iostream`` has the documented names."""

from __future__ import annotations

import asyncio
import functools
import sys
from typing import Any

from bridge.errors import ConnectionGone

__all__ = ["StreamBufferFullError", "StreamClosedError", "UnsatisfiableReadError", "closed_error", "stream_future"]


class StreamClosedError(ConnectionGone):
    """The stream was closed, by either end.

    Attributes:
        real_error: What ended the connection; None if it was closed properly.
    """

    def __init__(self, real_error: BaseException | None = None) -> None:
        super().__init__("Stream is closed")
        self.real_error = real_error


class UnsatisfiableReadError(Exception):
    """The bytes that the read waits for did not come within ``max_bytes``."""


class StreamBufferFullError(Exception):
    """More bytes wait to be read or to be sent than the stream may keep."""


def closed_error(real_error: BaseException | None = None) -> StreamClosedError:
    """Return a StreamClosedError; if Tornado is imported, one that is also Tornado's, so that its programs catch it."""
    tornado = sys.modules.get("tornado.iostream")
    error = StreamClosedError if tornado is None else _error_of_both(tornado.StreamClosedError)
    return error(real_error)


@functools.cache
def _error_of_both(other: type[Any]) -> type[StreamClosedError]:
    return type("StreamClosedError", (StreamClosedError, other), {"__module__": __name__})


def stream_future(future: asyncio.Future[None]) -> asyncio.Future[None]:
    """Return a future that ends when *future* does; when that fails, it fails with :func:`closed_error`.

    An error that nobody retrieves is not logged: the stream reports its close in other ways, too.
    """
    result: asyncio.Future[None] = future.get_loop().create_future()

    def ended(done: asyncio.Future[None]) -> None:
        failed = done.cancelled() or done.exception() is not None
        if result.done():
            return
        if failed:
            result.set_exception(closed_error())
            result.exception()
        else:
            result.set_result(None)

    future.add_done_callback(ended)
    return result
