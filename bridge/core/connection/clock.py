"""One coarse clock for a server: deadlines without timers, and the Date field ready as bytes.

Arming and cancelling a timer costs more than parsing a head. Instead every connection carries its deadlines as
numbers, and one timer looks at all of them a few times a second; setting a deadline is an assignment.
"""

from __future__ import annotations

import asyncio
import time
from typing import Protocol

from bridge.core.http.date import http_date
from bridge.core.log import app_log

__all__ = ["NEVER", "Clock", "Watched"]

NEVER = float("inf")


class Watched(Protocol):
    """What has a deadline: a loop time in seconds."""

    deadline: float

    def deadline_passed(self, now: float) -> None:
        """The deadline has passed."""

    def on_idle(self) -> None:
        """Drop what is kept only for speed: called once for what has been idle for one to two intervals."""


class Sender(Protocol):
    """Has something to send."""

    def flush(self) -> None:
        """Send it."""


class Clock:
    """Watches the deadlines of a server's connections.

    A deadline set by :meth:`after` is kept at most two intervals late and never early. Time in which the loop was
    blocked does not count.

    Attributes:
        now: The loop's time in seconds, at most one interval old while anything is watched.
        date_line: ``date: ...`` with its CRLF.
        default_fields: The lines that every response starts with: the date, and the server if it is named.
        server_line: ``server: ...`` with its CRLF, or empty.
        watched: The connections.
        unsent: Those that have something to send when this turn of the loop is over. Who is the first in it schedules
            :meth:`flush_unsent`.
        write_through: Nothing is kept for the end of the turn. Who ends many exchanges in a row sets it meanwhile.
        idle_deadline: :meth:`after` for the keep-alive timeout, ready-made: every exchange ends with it.
    """

    __slots__ = (
        "_idle_before",
        "_interval",
        "_keep_alive",
        "_loop",
        "_second",
        "_timer",
        "date_line",
        "default_fields",
        "idle_deadline",
        "now",
        "server_line",
        "unsent",
        "watched",
        "write_through",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        shortest: float = 5.0,
        server_name: bytes = b"",
        date: bool = True,
        keep_alive: float | None = None,
    ) -> None:
        self._loop = loop
        self._keep_alive = keep_alive
        self.idle_deadline = self._idle_before = NEVER
        self._interval = 0.5
        self._timer: asyncio.TimerHandle | None = None
        self._second = -1 if date else -2
        self.date_line = b""
        self.server_line = b"server: %b\r\n" % server_name if server_name else b""
        self.default_fields = self.server_line
        self.watched: set[Watched] = set()
        self.unsent: list[Sender] = []
        self.write_through = False
        self.now = loop.time()
        self.shorten(shortest)

    def after(self, seconds: float | None) -> float:
        """Return the deadline that lies *seconds* ahead; None is never."""
        if seconds is None:
            return NEVER
        return self.now + seconds + self._interval

    def shorten(self, seconds: float | None) -> None:
        """Look often enough to keep a timeout of *seconds*."""
        if seconds is None or seconds <= 0:
            return
        interval = max(seconds / 10, 0.005)
        if interval < self._interval:
            self._interval = interval
            if self._timer is not None:
                self._timer.cancel()
                self._timer = self._loop.call_later(self._interval, self._tick)

    def flush_unsent(self) -> None:
        """Let all that has something to send flush it: once for each turn of the loop, when that is over.

        A write may wake the peer, and where the peer is on the same machine, to wake it time and again costs as much
        as to serve it.
        """
        unsent, self.unsent = self.unsent, []
        for item in unsent:
            try:
                item.flush()
            except Exception:  # or the others' responses would be lost
                app_log.exception("Uncaught exception while sending to %r", item)

    def watch(self, item: Watched) -> None:
        """Look after *item* until :meth:`forget`."""
        self.watched.add(item)
        if self._timer is None:
            self._tick()

    def forget(self, item: Watched) -> None:
        """Look after *item* no longer; the timer ends by itself when nothing is left."""
        self.watched.discard(item)

    def stop(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        now = self._loop.time()
        if self._timer is not None and now - self.now > 2 * self._interval:
            # Something kept the loop. What the peers sent meanwhile waits to be read, so the time is not theirs.
            lost = now - self.now - self._interval
            for item in self.watched:
                item.deadline += lost
            self.idle_deadline += lost  # to the bit what became of the deadlines that were set to it
            self._idle_before += lost
        self.now = now
        resting, self._idle_before = self._idle_before, self.idle_deadline
        self.idle_deadline = self.after(self._keep_alive)
        if self._second != -2:
            second = int(time.time())
            if second != self._second:
                self._second = second
                self.date_line = b"date: %b\r\n" % http_date(second)
                self.default_fields = self.date_line + self.server_line
        for item in tuple(self.watched):
            deadline = item.deadline
            if deadline < now:
                try:
                    item.deadline_passed(now)
                except Exception:  # or nobody's deadlines would be kept any more
                    app_log.exception("Uncaught exception while ending %r", item)
            elif deadline == resting:
                item.on_idle()
        self._timer = self._loop.call_later(self._interval, self._tick) if self.watched else None
