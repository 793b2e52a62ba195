"""The event loop of a process, its end, and the signals before and while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager
from contextvars import Context
from typing import Any, Self

from bridge import forks
from bridge.core.ioloop import new_asyncio_loop
from bridge.core.log import app_log, gen_log
from bridge.core.net.readiness import Readiness
from bridge.errors import ConfigError, traceback_of
from bridge.forks import FAULTS
from bridge.serving.ending import ending
from bridge.serving.listener import Listener

__all__ = ["Interrupted", "Signals", "loop_factory", "process_loop", "run_on"]

# Seconds that closing the loop may take after a graceful stop, and each step of it.
_CLOSING = 5.0
_STEP = 0.5
# Seconds that the application's import, or its startup, has to end after a signal has interrupted it.
_INTERRUPTED = 2.0
# Seconds between two checks whether the application has replaced a handler.
_LOOK = 1.0
_TAKEN_BACK = frozenset(getattr(signal, name) for name in ("SIGTERM", "SIGQUIT") if hasattr(signal, name))
_ASYNCIO = os.path.dirname(asyncio.__file__) + os.sep


def loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    """Return the function that makes the loop *name*, a value of ``--loop``.

    Raises:
        ConfigError: uvloop is asked for and is not installed.
    """
    if name != "asyncio":
        try:
            import uvloop
        except ImportError:
            if name == "uvloop":
                raise ConfigError("--loop uvloop: uvloop is not installed; install it, or use --loop asyncio") from None
        else:
            factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
            return factory
    return new_asyncio_loop


@contextmanager
def process_loop(name: str, *, own_process: bool = True) -> Iterator[asyncio.AbstractEventLoop]:
    """Return a new loop for the block; it is the thread's current one. At the end it is closed, in bounded time.

    Tasks that are left are cancelled. Those that do not end are named in the log and given up.

    uvloop's ``close()`` sometimes waits forever for a handle that no longer exists (seen after connections were taken
    out of the loop). By then the server has stopped and its logs are written, so the process can end.

    Args:
        name: As for :func:`loop_factory`.
        own_process: This process exists to serve, and may be ended.
    """
    loop = loop_factory(name)()
    asyncio.set_event_loop(loop)
    in_child = forks.add(lambda: _drop(loop))
    try:
        yield loop
    finally:
        forks.remove(in_child)
        try:
            with ending.during(_CLOSING) if own_process else contextlib.nullcontext():
                _close(loop)
        finally:
            asyncio.set_event_loop(None)


def _drop(loop: Any) -> None:
    """Keep a child that the application has forked from touching what the loop watches: parent and child share that.

    uvloop aborts a process whose poll fails, and offers nothing else.
    """
    forks.drop(Readiness.descriptors(loop))
    selector = getattr(loop, "_selector", None)
    if selector is not None:
        forks.drop((selector.fileno(), loop._ssock.fileno(), loop._csock.fileno()))


def _close(loop: asyncio.AbstractEventLoop) -> None:
    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    left = _run_for_a_moment(loop, tasks)
    if left:
        gen_log.warning("Stopping without these tasks, which go on although they were cancelled:\n%s", _described(left))
    for task in tasks - left:
        if not task.cancelled() and task.exception() is not None:
            app_log.error("Exception in a task that was cancelled at the end", exc_info=traceback_of(task.exception()))
    closing = [loop.create_task(loop.shutdown_asyncgens()), loop.create_task(loop.shutdown_default_executor())]
    for task in left | _run_for_a_moment(loop, closing):
        task._log_destroy_pending = False  # type: ignore[attr-defined]  # it was logged; what has this is no interface
    loop.close()


def _run_for_a_moment(loop: asyncio.AbstractEventLoop, tasks: Iterable[asyncio.Task[Any]]) -> set[asyncio.Task[Any]]:
    """Run the loop until *tasks* have ended, for half a second at most. Return those that have not."""
    tasks = set(tasks)
    if tasks:
        run_on(loop, asyncio.wait(tasks, timeout=_STEP))
    return {task for task in tasks if not task.done()}


def _described(tasks: Iterable[asyncio.Task[Any]]) -> str:
    return "\n".join(f"  {task.get_name()}, {_where(task.get_coro())}" for task in tasks)


def _where(coroutine: Any) -> str:
    """Return where a coroutine waits: the innermost function that it has called and whose file is known."""
    found = getattr(coroutine, "__qualname__", "?")
    while (frame := getattr(coroutine, "cr_frame", None)) is not None:
        if not frame.f_code.co_filename.startswith(_ASYNCIO):
            found = f"{coroutine.__qualname__}: {frame.f_code.co_filename}:{frame.f_lineno}"
        coroutine = coroutine.cr_await
    return found


def run_on(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], context: Context | None = None) -> Any:
    """Run *coroutine* to its end, and return its result, whatever the application does to the loop.

    Tasks and callbacks of an application's that raise SystemExit or KeyboardInterrupt end the run of a loop, and so
    does ``loop.stop()``. The server goes on: it ends when it is told to.
    """
    task = loop.create_task(coroutine, context=context)
    logged: BaseException | None = None  # whoever asks a task for its result raises its exception again
    while True:
        try:
            with _woken_by_signals(loop):
                return loop.run_until_complete(task)
        except Interrupted:
            raise
        except (SystemExit, KeyboardInterrupt) as exc:
            forks.end_if_forked(exc)
            if task.done():
                raise
            if exc is logged:
                continue
            logged = exc
            name = type(exc).__name__  # not %r: the application's class may have a __repr__ that raises
            app_log.error(
                "%s in a task or callback of the application; the server goes on", name, exc_info=traceback_of(exc)
            )
        except RuntimeError as exc:
            forks.end_if_forked(exc)
            if task.done() or "stopped before" not in str(exc):
                raise
            app_log.error("The application has stopped the event loop; the server goes on")


@contextmanager
def _woken_by_signals(loop: Any) -> Iterator[None]:
    """Let a signal wake the loop even if it comes just before the loop waits for events.

    The interpreter would call the handler after the next event, however late. uvloop does this by itself. asyncio does
    it for its own handlers, which a blocked loop does not call.
    """
    wakes = getattr(loop, "_csock", None)
    if wakes is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
    if before != -1:
        signal.set_wakeup_fd(before)  # the application's, or asyncio's for a handler that the application has set
    try:
        yield
    finally:
        if before == -1:
            signal.set_wakeup_fd(-1)


class Interrupted(KeyboardInterrupt):
    """A signal has asked for the end before the server had started."""


class Signals:
    """Handles signals while a ``with`` block runs, and then restores the old handlers.

    Outside the main thread it does nothing. A server's start has three phases:

    1. At first, the *ending* signals raise :class:`Interrupted` wherever the main thread is, since an import can take
       long and no loop runs. The others are put off until the third phase.
    2. After :meth:`cancel`, the first ending signal cancels the task. The second raises Interrupted.
    3. After :meth:`deliver`, all signals call a function on the loop. If the application then sets a handler of its own
       for SIGTERM or SIGQUIT, a second later both are called: whoever has started the server asks for its end by them.

    If the application catches the exception in the first two phases, :meth:`check` raises it again. In any case the
    process ends soon, wherever the application is by then.

    Args:
        numbers: The signals.
        ending: Those of them that end the start.

    Attributes:
        ended: The signal that has ended the start; None if none has.
        put_off: The other signals that have come before :meth:`deliver`, each once.
    """

    def __init__(self, numbers: Iterable[int], ending: Iterable[int] = ()) -> None:
        self.ended: signal.Signals | None = None
        self.put_off: list[int] = []
        self._numbers = tuple(numbers)
        self._ending = frozenset(ending)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._function: Callable[[int], None] | None = None
        self._limit: Callable[[int], float | None] = _no_limit
        self._task: asyncio.Task[Any] | None = None
        self._before: dict[int, object] = {}
        self._listener: Listener | None = None
        self._replacements: dict[int, object] = {}
        self._calling = 0  # the signal whose replacement is being called
        self._look_again: asyncio.TimerHandle | None = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.getsignal(number) for number in self._numbers}
            for number in self._numbers:
                signal.signal(number, self._handle)
            if self._ending and hasattr(os, "fork"):  # Windows wakes nobody by a pipe
                self._listener = Listener(self._note)
            forks.add(self._in_child)
        return self

    def _in_child(self) -> None:
        """Restore the old handlers in a child that the application has forked."""
        for number, before in self._before.items():
            if signal.getsignal(number) == self._handle and before is not None:
                signal.signal(number, before)  # type: ignore[arg-type]  # signal.getsignal is annotated as returning int
        if self._listener is not None:
            self._listener.drop()

    def _handle(self, number: int, frame: object) -> None:
        if forks.was_for_a_child(number):
            return
        if self._function is not None and self._loop is not None:
            if number == self._calling:
                return  # the application's handler calls the one from before
            ending.within(self._limit(number))
            with contextlib.suppress(RuntimeError):  # the loop is closed: the process is about to end
                self._loop.call_soon_threadsafe(self._function, number)
            self._call_replacement(number, frame)
        elif number in self._ending:
            self._end(number)
        elif self._ending and number not in self.put_off:  # a worker without ending signals hears it from its master
            self.put_off.append(number)

    def _call_replacement(self, number: int, frame: object) -> None:
        """Call the handler that the application has set."""
        replacement: Any = self._replacements.get(number)
        if not callable(replacement):
            return
        before, self._calling = self._calling, number  # another signal may interrupt a handler
        try:
            replacement(number, frame)
        except FAULTS:
            app_log.exception("A handler of the application for %s has failed", signal.Signals(number).name)
        finally:
            self._calling = before

    def _look(self) -> None:
        """Take back the signals by which others ask for the end, if the application has set handlers for them."""
        assert self._loop is not None
        for number in _TAKEN_BACK & self._before.keys():
            handler = signal.getsignal(number)
            if handler != self._handle:
                self._replacements[number] = handler
                signal.signal(number, self._handle)
        self._look_again = self._loop.call_later(_LOOK, self._look)

    def _end(self, number: int) -> None:
        again = self.ended is not None and self._task is not None
        self._note(number)
        if self._task is None or again:  # a second signal comes because the loop is blocked
            raise Interrupted(signal.Signals(number).name)
        self._task.get_loop().call_soon_threadsafe(self._task.cancel)

    def _note(self, number: int) -> None:
        """Note a signal that ends the start. The process ends even if the application catches the exception."""
        if number not in self._ending or self._function is not None:
            return
        self.ended = signal.Signals(number)
        ending.status = 130 if number == signal.SIGINT else 0
        ending.within(_INTERRUPTED, 0.0)

    def check(self) -> None:
        """Raise Interrupted if a signal has ended the start, and the application has caught what that has raised."""
        if self.ended is not None:
            raise Interrupted(self.ended.name)

    def cancel(self, task: asyncio.Task[Any]) -> None:
        """Let the next ending signal cancel *task*."""
        self._task = task
        self.check()

    def deliver(self, function: Callable[[int], None], limit: Callable[[int], float | None] | None = None) -> None:
        """From now on, call *function* with each signal's number, on the running loop.

        Args:
            function: What to call.
            limit: Returns for a signal's number the seconds in which the requests have to end, and then the process,
                although the loop may be blocked; None for no limit.
        """
        self._limit = limit or _no_limit
        self._loop = asyncio.get_running_loop()
        self._function = function
        for number in self._before:
            signal.signal(number, self._handle)  # the application may have replaced it
        if self._before and self._ending:
            self._look()
        for number in self.put_off:
            self._loop.call_soon(function, number)

    def restore(self) -> None:
        """Restore the old handlers, unless the process ends with its server. May be called again."""
        self.stop_listening()
        if self._look_again is not None:
            self._look_again.cancel()
        forks.remove(self._in_child)
        ending.restore_signals(self._before)
        self._before.clear()

    def stop_listening(self) -> None:
        """End the thread that hears of signals while the main thread does not."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    def __exit__(self, *_: object) -> None:
        self.restore()


def _no_limit(number: int) -> None:
    return None
