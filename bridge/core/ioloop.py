"""IOLoop: Tornado's documented names over an asyncio event loop.

It has the methods by which programs start a server and pass work to its loop. For all others, use the asyncio loop
itself, which is the attribute ``asyncio_loop``.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import inspect
import sys
import threading
import time
import warnings
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, cast, overload

from bridge.core.log import app_log
from bridge.errors import traceback_of

if TYPE_CHECKING:
    import datetime

__all__ = ["IOLoop", "new_asyncio_loop", "new_event_loop"]

T = TypeVar("T")
AnyFuture = asyncio.Future[T] | concurrent.futures.Future[T]


class Timeout(Protocol):
    """The handle of a callback that is called later."""

    def cancel(self) -> None:
        """Cancel the callback."""


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a new event loop: uvloop's if it is installed, else asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return new_asyncio_loop()
    return cast("asyncio.AbstractEventLoop", uvloop.new_event_loop())


def new_asyncio_loop() -> asyncio.AbstractEventLoop:
    """Return a new event loop of asyncio's that can watch sockets, which the default one of Windows cannot."""
    loop = asyncio.new_event_loop()
    if isinstance(loop, getattr(asyncio, "ProactorEventLoop", ())):
        loop.close()
        return asyncio.SelectorEventLoop()
    return loop


class IOLoop:
    """An event loop under Tornado's names.

    ``IOLoop()`` makes a new asyncio loop and sets it as the thread's current one. :meth:`current` wraps the loop that
    is current already.

    Args:
        asyncio_loop: The loop to wrap; None to make a new one.
        make_current: Set a new loop as the thread's current one.

    Raises:
        RuntimeError: *asyncio_loop* has an IOLoop already.

    Attributes:
        asyncio_loop: The asyncio loop that does the work.
    """

    __slots__ = ("__weakref__", "asyncio_loop")

    # Loop -> its only IOLoop. Closed loops are removed when the next IOLoop is made.
    _known: dict[asyncio.AbstractEventLoop, IOLoop] = {}  # noqa: RUF012 -- shared on purpose
    _lock = threading.Lock()
    # The main thread's loop, for other threads that ask for instance().
    _main: IOLoop | None = None

    def __init__(self, asyncio_loop: asyncio.AbstractEventLoop | None = None, make_current: bool = True) -> None:
        self.asyncio_loop = asyncio_loop or new_event_loop()
        with IOLoop._lock:
            for loop in [loop for loop in IOLoop._known if loop.is_closed()]:
                del IOLoop._known[loop]
            if IOLoop._known.setdefault(self.asyncio_loop, self) is not self:
                raise RuntimeError(f"there is an IOLoop for {self.asyncio_loop!r} already: use IOLoop.current()")
        if make_current and asyncio_loop is None:
            asyncio.set_event_loop(self.asyncio_loop)

    @overload
    @classmethod
    def current(cls, instance: Literal[True] = True) -> IOLoop: ...

    @overload
    @classmethod
    def current(cls, instance: bool) -> IOLoop | None: ...

    @classmethod
    def current(cls, instance: bool = True) -> IOLoop | None:
        """Return the IOLoop of the running event loop, else of the thread's current loop, else a new one.

        Args:
            instance: Make a new loop if there is none; False to return None then.
        """
        loop = _current_loop(make=instance)
        if loop is None:
            return None
        ioloop = cls._known.get(loop) or cls(loop)
        if threading.current_thread() is threading.main_thread():
            cls._main = ioloop
        return ioloop

    @classmethod
    def instance(cls) -> IOLoop:
        """Return :meth:`current`; in another thread without a running loop, the main thread's IOLoop if it exists."""
        main = cls._main
        if (
            main is not None
            and not main.asyncio_loop.is_closed()
            and threading.current_thread() is not threading.main_thread()
            and _running_loop() is None
        ):
            return main
        return cls.current()

    def start(self) -> None:
        """Run the loop until :meth:`stop`."""
        self.asyncio_loop.run_forever()

    def stop(self) -> None:
        """Make :meth:`start` return after the next turn of the loop; if called before it, after its first turn.

        Callbacks that this turn schedules still run, such as the one that sends a response that was just finished.
        """
        loop = self.asyncio_loop
        if not loop.is_closed():
            loop.call_soon_threadsafe(loop.stop)  # threadsafe: some programs stop the loop from another thread

    def close(self, all_fds: bool = False) -> None:
        """Close the loop, which must not be running.

        Args:
            all_fds: Ignored; accepted for old programs. asyncio closes the descriptors that it owns.
        """
        self.asyncio_loop.close()

    def time(self) -> float:
        """Return the current time on the clock of :meth:`call_at` and :meth:`add_timeout`: seconds since the epoch."""
        return time.time()

    def add_callback(self, callback: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """Call *callback* in the next turn of the loop. May be called from any thread.

        An exception of the callback is logged. If it returns an awaitable, that is run.

        Raises:
            RuntimeError: The loop is closed.
        """
        call = functools.partial(callback, *args, **kwargs)
        if _running_loop() is self.asyncio_loop:
            self.asyncio_loop.call_soon(self._run_callback, call)
        else:
            self.asyncio_loop.call_soon_threadsafe(self._run_callback, call)

    spawn_callback = add_callback

    def add_callback_from_signal(self, callback: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        """Call *callback* in the next turn of the loop. May also be called from a signal handler."""
        self.asyncio_loop.call_soon_threadsafe(self._run_callback, functools.partial(callback, *args, **kwargs))

    def call_later(self, delay: float, callback: Callable[..., object], *args: Any, **kwargs: Any) -> Timeout:
        """Call *callback* after *delay* seconds; return a handle for :meth:`remove_timeout`."""
        call = functools.partial(callback, *args, **kwargs)
        return self.asyncio_loop.call_later(max(0, delay), self._run_callback, call)

    def call_at(self, when: float, callback: Callable[..., object], *args: Any, **kwargs: Any) -> Timeout:
        """Call *callback* at *when*, in seconds as :meth:`time` returns them; return a handle."""
        return self.call_later(when - self.time(), callback, *args, **kwargs)

    def add_timeout(
        self, deadline: float | datetime.timedelta, callback: Callable[..., object], *args: Any, **kwargs: Any
    ) -> Timeout:
        """Call *callback* at *deadline*; return a handle for :meth:`remove_timeout`.

        Args:
            deadline: Seconds as :meth:`time` returns them, or a timedelta from now.
            callback: The function to call.
            *args: Its arguments.
            **kwargs: Its keyword arguments.

        Raises:
            TypeError: *deadline* is neither a number nor a timedelta.
        """
        if isinstance(deadline, int | float):
            return self.call_at(deadline, callback, *args, **kwargs)
        import datetime  # costs nothing: a program that passes a timedelta has imported it

        if isinstance(deadline, datetime.timedelta):
            return self.call_later(deadline.total_seconds(), callback, *args, **kwargs)
        raise TypeError(f"deadline {deadline!r} is neither a number nor a timedelta")

    def remove_timeout(self, timeout: Timeout) -> None:
        """Cancel the handle of :meth:`call_later`, :meth:`call_at` or :meth:`add_timeout`, also after its time."""
        timeout.cancel()

    def add_future(self, future: AnyFuture[T], callback: Callable[[AnyFuture[T]], object]) -> None:
        """Call ``callback(future)`` on this loop when *future* is done.

        Args:
            future: A future of asyncio; or of concurrent.futures, which any thread may complete.
            callback: Called as by :meth:`add_callback`.
        """
        if isinstance(future, concurrent.futures.Future):
            future.add_done_callback(lambda done: self.add_callback(callback, done))
        else:
            future.add_done_callback(lambda done: self._run_callback(functools.partial(callback, done)))

    def run_sync(self, func: Callable[[], T | Awaitable[T]], timeout: float | None = None) -> T:
        """Run the loop until *func* has returned, and its awaitable is done if it returns one; return the result.

        Args:
            func: A function, or a coroutine function. It is called inside the loop.
            timeout: Seconds; None for no limit.

        Raises:
            TimeoutError: There was no result in time. The coroutine was cancelled.
        """

        async def call() -> T:
            result = func()
            return await result if inspect.isawaitable(result) else result

        return self.asyncio_loop.run_until_complete(asyncio.wait_for(call(), timeout))

    def _run_callback(self, call: functools.partial[object]) -> None:
        try:
            result = call()
        except Exception:
            app_log.exception("Exception in callback %r", call.func)
            return
        if inspect.isawaitable(result):
            future = asyncio.ensure_future(result, loop=self.asyncio_loop)
            future.add_done_callback(functools.partial(_log_failure, call.func))


def _log_failure(func: Callable[..., object], future: asyncio.Future[Any]) -> None:
    if not future.cancelled() and (error := future.exception()) is not None:
        app_log.error("Exception in callback %r", func, exc_info=traceback_of(error))


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _current_loop(*, make: bool) -> asyncio.AbstractEventLoop | None:
    """Return the running loop, else the loop that was set for this thread.

    Args:
        make: Without a loop, make and set a new one; False to return None.
    """
    loop = _running_loop() or _loop_that_was_set()
    if loop is None or loop.is_closed():
        if not make:
            return None
        loop = new_event_loop()
        asyncio.set_event_loop(loop)
    return loop


def _loop_that_was_set() -> asyncio.AbstractEventLoop | None:
    """Return the loop that ``asyncio.set_event_loop`` was given in this thread; None if it was not called."""
    if sys.version_info < (3, 12):
        # Up to 3.11 get_event_loop() below creates a loop without a warning, and no public function tells whether one
        # was set.
        local = getattr(asyncio.get_event_loop_policy(), "_local", None)
        if local is not None and local._loop is None:
            return None
    with warnings.catch_warnings():
        # 3.12 and 3.13 warn before they create a loop. As an error, the warning prevents that.
        warnings.simplefilter("error", DeprecationWarning)
        try:
            return asyncio.get_event_loop()
        except (DeprecationWarning, RuntimeError):
            return None
