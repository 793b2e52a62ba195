"""What the requests of one WSGI application share."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    import contextvars
    import socket
    from collections.abc import Callable, Coroutine
    from wsgiref.types import WSGIApplication

    from bridge.adapters.wsgi.filethreads import FileThreads
    from bridge.adapters.wsgi.response_buffer import ResponseBuffer
    from bridge.adapters.wsgi.threadpool import ThreadPool

__all__ = ["Application"]


class Application:
    """A WSGI application with the threads that run it and the way back to the event loop.

    Attributes:
        app: The application itself.
        name: Its name, for the log.
        context: Each request runs in a copy of this context (``contextvars``).
        pool: The threads that run it.
        file_threads: The threads that write request content to temporary files.
        loop: The event loop.
        post: :meth:`.loopcalls.LoopCalls.post`: any thread may let the loop call a method.
        queue_timeout: Seconds that a request may wait for a thread; then 503.
        timeout: Seconds for an answer; None for no limit.
        response_file: Most bytes of one response in a temporary file.
        shows_environ: Put the environ into the ``times`` of exchanges, for observers.
        detached: The connections that the application has taken from the loop.
        stored: The response buffers that have a temporary file.
    """

    __slots__ = (
        "_tasks",
        "app",
        "context",
        "detached",
        "file_threads",
        "loop",
        "name",
        "pool",
        "post",
        "queue_timeout",
        "response_file",
        "shows_environ",
        "stored",
        "timeout",
    )

    def __init__(
        self,
        app: WSGIApplication,
        *,
        name: str,
        context: contextvars.Context,
        pool: ThreadPool,
        file_threads: FileThreads,
        loop: asyncio.AbstractEventLoop,
        post: Callable[..., None],
        queue_timeout: float,
        timeout: float | None,
        response_file: int,
        shows_environ: bool = False,
    ) -> None:
        self.app = app
        self.name = name
        self.context = context
        self.pool = pool
        self.file_threads = file_threads
        self.loop = loop
        self.post = post
        self.queue_timeout = queue_timeout
        self.timeout = timeout
        self.response_file = response_file
        self.shows_environ = shows_environ
        self.detached: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self.stored: set[ResponseBuffer] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def start_task(self, coroutine: Coroutine[Any, Any, None]) -> None:
        """Run a coroutine on the loop. Called on the loop."""
        task = self.loop.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
