"""One coarse clock for a server: deadlines without timers, and the encoded Date field.

A timer for each deadline would cost more to set and cancel than a head costs to parse. Instead every connection has
its deadlines as numbers, and one timer of the server compares all of them a few times a second. To set a deadline is an
assignment. What happens when one has passed is said by `deadline_passed` of the connection (``http1.py``,
``websocket.py``) and by `write_stalled` for its writer.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Protocol

from bridge.core.connection.budgets import Budgets
from bridge.core.connection.turns import Turns
from bridge.core.http.date import http_date
from bridge.core.log import app_log

if TYPE_CHECKING:
    from bridge.core.http.fields import Special

__all__ = ["NEVER", "Clock", "Watched"]

NEVER = float("inf")

# More connections than this are a crowd.
_CROWD = 128


class Watched(Protocol):
    """An object with a deadline that the clock watches."""

    deadline: float
    """Loop time in seconds; NEVER for none."""

    def deadline_passed(self, now: float) -> None:
        """Act on the deadline, which has passed, and set the next one.

        Args:
            now: The loop's time in seconds.
        """

    def on_idle(self) -> None:
        """Drop what is kept only for speed. Called once, when the object has been idle for one to two intervals."""


class Sender(Protocol):
    """An object with something to send."""

    def flush(self) -> None:
        """Send it."""


class Clock:
    """Watches the deadlines of a server's connections.

    The interval is the time between two looks at the deadlines: a tenth of the shortest timeout, between 5 ms and
    0.5 s. A deadline set by :meth:`after` is kept at most two intervals late and never early. Time in which the loop
    was blocked is not counted.

    Args:
        loop: The event loop.
        shortest: The shortest timeout in seconds.
        server_name: The value of the Server field; empty for no such field.
        date: Whether responses have a Date field.
        keep_alive: The keep-alive timeout in seconds; None for no limit.

    Attributes:
        budgets: What all connections of the process may make it hold.
        loop: The argument.
        lost: Seconds in all in which the loop was blocked. An object with many deadlines, of which the clock knows only
            the next, keeps them without this time: ``after(seconds) - lost``.
        now: The loop's time in seconds, at most one interval old while anything is watched.
        date_line: ``date: ...`` with its CRLF, or empty.
        flush: :meth:`flush_unsent`, bound once: binding it for each turn would cost 0.5 % of a plain request.
        default_fields: The lines that every response starts with: date_line and server_line.
        server_line: ``server: ...`` with its CRLF, or empty.
        turns: The units of work of the loop's turns, which all connections of the process share.
        watched: The objects whose deadlines are watched.
        unsent: The objects that have something to send at the end of this turn of the loop. The first one that is
            added schedules :meth:`flush_unsent`.
        write_through: Write responses at once, not at the end of the turn. Set by code that ends many exchanges in
            a row, and only meanwhile.
        idle_deadline: The result of :meth:`after` for the keep-alive timeout. Every exchange ends with it, so it is
            worked out once for each tick.
    """

    __slots__ = (
        "_interval",
        "_keep_alive",
        "_previous_idle_deadline",
        "_second",
        "_timer",
        "budgets",
        "date_line",
        "default_fields",
        "flush",
        "idle_deadline",
        "loop",
        "lost",
        "now",
        "server_line",
        "turns",
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
        self.loop = loop
        self.turns = Turns.of(loop)
        self.budgets = Budgets.of(loop)
        self._keep_alive = keep_alive
        self.idle_deadline = self._previous_idle_deadline = NEVER
        self._interval = 0.5
        self._timer: asyncio.TimerHandle | None = None
        self._second = -1 if date else -2  # the second that date_line shows; -1 before the first, -2 without Date
        self.date_line = b""
        self.server_line = b"server: %b\r\n" % server_name if server_name else b""
        self.default_fields = self.server_line
        self.watched: set[Watched] = set()
        self.unsent: list[Sender] = []
        self.flush = self.flush_unsent
        self.write_through = False
        self.now = loop.time()
        self.lost = 0.0
        self.shorten(shortest)

    @property
    def is_crowd(self) -> bool:
        """There are more than 128 connections: each gets less memory."""
        return len(self.watched) > _CROWD

    def after(self, seconds: float | None) -> float:
        """Return the loop time of a deadline in *seconds*; NEVER for None.

        One interval is added, since ``now`` may be that old: a deadline is never early.
        """
        if seconds is None:
            return NEVER
        return self.now + seconds + self._interval

    def fields_besides(self, special: Special | None) -> bytes:
        """Return the lines that every response starts with, without those that a response has itself.

        Args:
            special: What the fields of the response ask of the server.
        """
        if special is None or (not special.has_date and not special.has_server):
            return self.default_fields
        return (b"" if special.has_date else self.date_line) + (b"" if special.has_server else self.server_line)

    def shorten(self, seconds: float | None) -> None:
        """Shorten the interval, if it is too long for a timeout of *seconds*."""
        if seconds is None or seconds <= 0:
            return
        interval = max(seconds / 10, 0.005)
        if interval < self._interval:
            self._interval = interval
            if self._timer is not None:
                self._timer.cancel()
                self._timer = self.loop.call_later(self._interval, self._tick)

    def flush_unsent(self) -> None:
        """Flush every object in ``unsent``: once for each turn of the loop, at its end."""
        # A write that wakes the peer costs several times one that finds it awake, where the peer is on the same
        # machine. All writes in a row took a plain request from 13.4 to 12.0 us of CPU, and one with a browser's fields
        # from 28.3 to 23.8 us (python -m benchmarks asgi-plaintext and asgi-browser).
        unsent, self.unsent = self.unsent, []
        for item in unsent:
            try:
                item.flush()
            except Exception:  # otherwise the responses of the other connections would be lost
                app_log.exception("Uncaught exception while sending to %r", item)

    def watch(self, item: Watched) -> None:
        """Watch the deadline of *item* until :meth:`forget`."""
        self.watched.add(item)
        if self._timer is None:
            self._tick()

    def forget(self, item: Watched) -> None:
        """Stop watching *item*. The timer is not set again when nothing is watched."""
        self.watched.discard(item)

    def stop(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        """Look at the deadlines.

        1. If the loop was blocked, all deadlines move by that time: what the peers sent meanwhile is still unread.
        2. The time, the idle deadline and, once a second, the Date field are renewed.
        3. Deadlines that have passed are acted on. A deadline that equals the idle deadline of the tick before the
           last one belongs to a connection that has done nothing since.
        """
        now = self.loop.time()
        if self._timer is not None and now - self.now > 2 * self._interval:
            lost = now - self.now - self._interval
            self.lost += lost
            for item in self.watched:
                item.deadline += lost
            # The same addition as for the deadlines that were set to it, so that they stay equal to the last bit.
            self.idle_deadline += lost
            self._previous_idle_deadline += lost
        self.now = now
        self.budgets.tick(now)
        idle_since_then, self._previous_idle_deadline = self._previous_idle_deadline, self.idle_deadline
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
                except Exception:  # otherwise the clock would stop, and no deadline would be kept any more
                    app_log.exception("Uncaught exception while ending %r", item)
            elif deadline == idle_since_then:
                item.on_idle()
        self._timer = self.loop.call_later(self._interval, self._tick) if self.watched else None
