"""The end of a process that exists to serve: it comes in time, whatever the application does.

A stop asks the application in several ways to end: requests have their time, tasks are cancelled, threads are waited
for. Any of these may hang. So a stop also sets a time for the whole process. When that time is over, a thread of its
own logs what the stop was waiting for, removes the process's files, and ends the process.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from _thread import allocate_lock, start_new_thread  # before an application can replace them (gevent)
from collections.abc import Callable, Iterator, Mapping
from time import monotonic, sleep
from typing import TYPE_CHECKING

from bridge import forks
from bridge.core.log import gen_log
from bridge.serving.listener import Listener
from bridge.telemetry import messages

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["OVERTIME", "Ending", "ending"]

#: Seconds that a process has to end after the time of its requests is up.
OVERTIME = 2.0
# Seconds that an application's own threads have at least, after the server has stopped.
_LEAST = 1.0
# Seconds that the last log messages may take.
_LAST_WORDS = 1.0
_TICK = 0.1
# Signals that ask for an end.
_STOPS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGQUIT") if hasattr(signal, name))
_BRIDGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


class Ending:
    """The time at which this process ends, if it has not done so by itself.

    No method takes a lock: a signal handler calls them, and may have interrupted any of them.

    Attributes:
        active: This process exists to serve, or is serving now. Otherwise this object never ends it.
        owned: This process exists to serve, and ends with its server.
        status: The exit status.
        files: Called before the process is ended, to remove its files.
    """

    def __init__(self) -> None:
        self.active = self.owned = False
        self.status = 0
        self.files: list[Callable[[], None]] = []
        self._at: float | None = None
        self._requests: float | None = None
        self._watched_by = 0

    def begin(self, *, owned: bool = True) -> None:
        """Take charge of this process, which was started or forked to serve.

        Args:
            owned: The process ends with its server. Otherwise :meth:`give_back` follows.
        """
        self.active = True
        self.owned = owned
        self.status = 0
        self._at = self._requests = None
        self.files = []
        forks.add(self.give_back)

    def within(self, seconds: float | None, overtime: float = OVERTIME) -> None:
        """End this process in *seconds* and the *overtime*; None sets no time. An earlier time stays."""
        if seconds is None or not self.active:
            return
        now = monotonic()
        self._requests = _sooner(self._requests, now + seconds)
        self._at = _sooner(self._at, now + seconds + overtime)
        if self._watched_by != os.getpid():
            self._watched_by = os.getpid()
            start_new_thread(self._watch, ())

    @contextlib.contextmanager
    def during(self, seconds: float) -> Iterator[None]:
        """End this process if the block takes more than *seconds*."""
        before = self._at, self._requests
        self.within(seconds, 0.0)
        try:
            yield
        finally:
            self._at, self._requests = before

    def give_back(self) -> None:
        """Leave the process alone from now on: it belongs to a program that goes on."""
        forks.remove(self.give_back)
        self.active = self.owned = False
        self._at = self._requests = None
        self.files = []

    def restore_signals(self, before: Mapping[int, object]) -> None:
        """Set the handlers of signals that the server no longer handles.

        A process that ends with its server does not get its old handlers back: most are the system's, with which a
        signal during the last steps of a good stop would look like a crash. There a stop signal leaves at once, with
        the exit status, and the others do nothing.

        Args:
            before: The handlers from before the server, by their signals. None is a handler that is not Python's.
        """
        for number, handler in before.items():
            if self.owned:
                signal.signal(number, self._leave_at_once if number in _STOPS else _ignore)
            elif handler is not None:
                signal.signal(number, handler)  # type: ignore[arg-type]  # what signal.getsignal has returned

    def last(self, status: int) -> int:
        """Give the application's threads the time that is left for requests, now that the server has stopped.

        The interpreter waits for threads that are no daemons, and calls what is registered with ``atexit``. A signal
        ends the process at once.

        Args:
            status: The exit status.

        Returns:
            The same.
        """
        if not self.active:
            return status
        self.status = status
        with contextlib.suppress(ValueError):  # not the main thread
            for number in _STOPS:
                signal.signal(number, self._leave_at_once)
            # The main thread waits for others from now on. It does not hear of a signal that comes just before.
            Listener(self._heard)
        now = monotonic()
        waits = self._at is None and status == 0  # the settings say that a stop takes as long as it takes
        left = _LEAST if self._requests is None else max(self._requests - now, _LEAST)
        names = ", ".join(repr(thread.name) for thread in _waited_for())
        if names:
            limit = "" if waits else f", for {left:.1f} s at most"
            gen_log.info("Waiting for threads of the application: %s%s", names, limit)
        if not waits:
            self._at = None
            self.within(left, 0.0)
        return status

    # ------------------------------------------------------------------ when the time is over

    def _watch(self) -> None:
        while True:
            at = self._at
            if at is not None and at <= monotonic():
                self._leave(speak=True)
            sleep(_TICK if at is None else min(max(at - monotonic(), 0.001), _TICK))

    def _heard(self, number: int) -> None:
        if number in _STOPS:
            self._leave(speak=False)

    def _leave_at_once(self, number: int, frame: object) -> None:
        self._leave(speak=False)

    def _leave(self, *, speak: bool) -> None:
        said = allocate_lock()
        said.acquire()
        start_new_thread(self._last_words, (said, speak))  # a log handler may hang
        said.acquire(timeout=_LAST_WORDS)
        for remove in self.files:
            with contextlib.suppress(Exception):
                remove()
        os._exit(self.status)

    def _last_words(self, said: threading.Lock, speak: bool) -> None:
        try:
            if speak:
                gen_log.warning("Ending now, although the application has not ended:\n%s", _whereabouts())
            messages.flush(_LAST_WORDS / 2)
        finally:
            said.release()


def _ignore(number: int, frame: object) -> None:
    """Do nothing. SIG_IGN would be inherited by the children of what is called at the end."""


def _sooner(time: float | None, other: float) -> float:
    return other if time is None else min(time, other)


def _waited_for() -> list[threading.Thread]:
    """Return the threads for which the interpreter waits at its end."""
    main = threading.main_thread()
    return [thread for thread in threading.enumerate() if thread is not main and not thread.daemon]


def _whereabouts() -> str:
    """Return where the threads are that keep the process from ending, the main thread first."""
    frames = sys._current_frames()
    lines = []
    for thread in (threading.main_thread(), *_waited_for()):
        frame = frames.get(thread.ident or 0)
        while frame is not None and not _is_applications(frame):
            frame = frame.f_back
        if frame is not None:
            code = frame.f_code
            lines.append(f"  {thread.name}: {code.co_filename}:{frame.f_lineno}, in {code.co_qualname}")
        elif thread is not threading.main_thread():
            lines.append(f"  {thread.name}")
    return "\n".join(lines) or "  (no thread of the application's runs; what is registered with atexit does not end)"


def _is_applications(frame: FrameType) -> bool:
    name = frame.f_code.co_filename
    ours = name.startswith(_BRIDGE) or frame.f_globals.get("__name__") == "__main__"
    return not ours and not name.startswith("<frozen") and (not name.startswith(_LIBRARY) or _PACKAGES in name)


_LIBRARY = os.path.dirname(os.path.abspath(threading.__file__)) + os.sep
_PACKAGES = os.sep + "site-packages" + os.sep

#: The end of this process.
ending = Ending()
