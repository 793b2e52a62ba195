"""What all clients of a process may make it hold together.

Each connection has its own limits, but a thousand connections hold a thousand times as much. So the process has
budgets, too. An object that holds more than a little notes it here. When all of them together hold too much, those that
have held the most for the longest are ended, since an object that is nearly done has held its bytes only for a moment.
An object that is alone may hold all that its own limits allow.

Nothing here knows a protocol.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Protocol

from bridge.core.connection.heap import trim
from bridge.core.connection.holdback import HoldBack
from bridge.core.log import gen_log

if TYPE_CHECKING:
    import asyncio

__all__ = ["SMALL", "Budget", "Budgets", "Holder"]

SMALL = 4096
"""Bytes; fewer need not be noted."""

_MIB = 1 << 20
# Seconds between two lines of the log about one budget.
_SILENCE = 10.0
# Seconds: how soon a client that has to read is checked, and how often after that.
_PATIENCE = 5.0
_LOOK = 1.0
# The same for one that has read nothing at all lately, when a quarter more is held than the limit allows.
_HURRY = 1.0
_HURRIED_LOOK = 0.25
# Seconds for which what a client has read counts in its favour. Without an end, a client that has read much and then
# stops would pass for hours as one that reads.
_MEMORY = 30.0

# Seconds between two times at which free memory is given back.
_TRIM = 2.0

# Loops that have ended take their entries with them.
_of_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Budgets] = weakref.WeakKeyDictionary()


class Holder(Protocol):
    """Something that holds bytes for a client."""

    def give_up(self, budget: Budget) -> str:
        """End what the client has not completed, and note, now or soon, that nothing is held any more.

        Returns:
            What was ended, in words for the log; empty if nothing was ended because the bytes were moved elsewhere.
        """
        ...


class Reader(Holder, Protocol):
    """A holder that waits for its client to read."""

    @property
    def bytes_read(self) -> int:
        """How many bytes the client has read since it was noted."""
        ...


class _Entry:
    """What one holder has."""

    __slots__ = ("asked", "moved", "read", "seen", "since", "size")

    def __init__(self, since: float) -> None:
        self.size = 0
        self.since = since
        self.read = 0  # bytes that the client had read then
        self.seen = 0  # bytes that it had read when it was looked at last
        self.moved = since  # when it was seen to have read something
        self.asked = False  # it was told to give up


class Budget:
    """Bytes that the clients of a process may make it hold, of one kind.

    All methods are for the thread of the event loop, except :meth:`take` and :meth:`give_back`.

    Args:
        loop: The event loop.
        option: The name of the setting, for the log.
        what: What is held, in words for the log.
        limit: Most bytes; None for no limit.
        unit: The size of a block in bytes, a power of two: what is held takes whole blocks, as on nearly all file
            systems.
        late: What is given up is freed a moment later, as a file is that is being written. So holders have to give up
            before the last 32nd of the limit is used.

    Attributes:
        short_above: With a larger ``total`` the budget is short, see :attr:`is_short`.
        total: Bytes that are held.
        over: More than the limit was held when something was noted last.
    """

    __slots__ = (
        *(
            "_enforcing",
            "_entries",
            "_late",
            "_limit",
            "_lock",
            "_most",
            "_look_at",
            "_loop",
            "_option",
            "_rest",
            "_said",
            "_taken",
            "_unsaid",
            "_what",
        ),
        *("over", "short_above", "total"),
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        option: str,
        what: str,
        limit: int | None,
        *,
        unit: int = 1,
        late: bool = False,
    ) -> None:
        self._loop: asyncio.AbstractEventLoop = weakref.proxy(loop)  # otherwise the entry would keep its loop
        self._option = option
        self._what = what
        self._late = late
        self.limit = limit
        self._rest = unit - 1
        self.total = 0
        self.over = False
        self._taken = 0  # by take()
        self._entries: dict[Holder, _Entry] = {}
        self._lock = threading.Lock()
        self._enforcing = False
        self._look_at: float | None = None  # when the readers are looked at next
        self._said = float("-inf")
        self._unsaid = 0

    @property
    def limit(self) -> int | None:
        """The argument; may be changed."""
        return self._limit

    @limit.setter
    def limit(self, limit: int | None) -> None:
        self._limit = limit
        self._most = float("inf") if limit is None else limit - (limit >> 5 if self._late else 0)
        self.short_above = float("inf") if limit is None else limit >> 1

    @property
    def is_short(self) -> bool:
        """More than half of the limit is held: a holder that can do with less should."""
        return self.total > self.short_above

    def note(self, holder: Holder, size: int, *, enforce: bool = True) -> None:
        """Note that *holder* holds *size* bytes now.

        A holder that grows piece by piece may note the next power of two, and note nothing more until it holds more
        than that. Then the budget counts at most twice what is held, and never less.

        Args:
            holder: Who holds it.
            size: Bytes; 0 for nothing.
            enforce: Others may have to give up theirs.
        """
        if not size:
            self.forget(holder)
            return
        size = size + self._rest & ~self._rest
        entry = self._entries.get(holder)
        if entry is None:
            entry = self._entries[holder] = _Entry(self._loop.time())
        with self._lock:
            self.total += size - entry.size
            self.over = self.total > self._most
        if size < entry.size:
            entry.asked = False
        entry.size = size
        if enforce and self.over and not self._enforcing:
            self._enforce(holder)

    def forget(self, holder: Holder) -> None:
        """Note that *holder* holds nothing."""
        entry = self._entries.pop(holder, None)
        if entry is not None:
            with self._lock:
                self.total -= entry.size
                self.over = self.total > self._most

    def _enforce(self, current: Holder | None = None) -> None:
        """Let holders give up until no more is held than the limit allows, or only one holder is left.

        Args:
            current: The holder that is noting something. It is called in the next turn of the loop, and not now.
        """
        limit = self._limit
        if limit is None:
            return
        self._enforcing = True
        now = self._loop.time()
        try:
            left = self.total
            holders: list[tuple[float, int, Holder]] = []
            for holder, entry in self._entries.items():
                if entry.asked:
                    left -= entry.size  # on its way out
                else:
                    holders.append((entry.size * (now - entry.since + 1.0), -len(holders), holder))
            if left <= self._most:
                return
            goal = limit - (limit >> 4)  # a little below the limit, so that not every call looks at all
            holders.sort(reverse=True)
            for _, _, holder in holders:
                worst = self._entries.get(holder)
                if worst is None or worst.asked:
                    continue
                if left <= goal or len(self._entries) < 2:
                    return
                if holder is current:
                    self._loop.call_soon(self._enforce)
                    return
                left -= worst.size
                self._end(holder, now)
        finally:
            self._enforcing = False

    def _end(self, holder: Holder, now: float) -> None:
        entry = self._entries[holder]
        entry.asked = True
        size, age = entry.size, now - entry.since
        what = holder.give_up(self)
        if not what:
            return
        self._unsaid += 1
        if now - self._said >= _SILENCE:
            others = f", after {self._unsaid - 1} others" if self._unsaid > 1 else ""
            gen_log.warning(
                "%s is used up: clients make the server hold more than %d bytes of %s; ended %s, %d bytes in %.1f s%s",
                *(self._option, self._limit, self._what, what, size, age, others),
            )
            self._said, self._unsaid = now, 0

    # ------------------------------------------------------------------ readers

    def note_reader(self, reader: Reader, size: int, *, anew: bool) -> None:
        """Note that *size* bytes wait for a client.

        Beyond the limit, clients are ended that have had five seconds and have read next to nothing in them; a quarter
        beyond it, also those that have read nothing for a second. A client that reads is never ended: it gets nothing
        new until it has read. Time in which the loop was blocked does not count.

        Args:
            reader: Who waits for the client.
            size: Bytes; not 0.
            anew: The client has read all that waited before, so its time starts again.
        """
        self.note(reader, size, enforce=False)
        if anew:
            entry = self._entries[reader]
            entry.since = entry.moved = self._loop.time()
            entry.read = entry.seen = 0
        if self.over and self._look_at is None:
            self._look_later()

    @property
    def _is_far_over(self) -> bool:
        return self._limit is not None and self.total > self._limit + (self._limit >> 2)

    def _look_later(self) -> None:
        delay = _HURRIED_LOOK if self._is_far_over else _LOOK
        self._look_at = self._loop.time() + delay
        self._loop.call_later(delay, self._look)

    def _look(self) -> None:
        """End clients that do not read, the largest first, while too much waits for all clients together."""
        now = self._loop.time()
        late = 0.0 if self._look_at is None else now - self._look_at
        self._look_at = None
        for entry in self._entries.values():
            entry.since += late
            entry.moved += late
        slow = sorted(self._entries.items(), key=lambda item: -item[1].size)
        for holder, entry in slow:
            if not self.over:
                return
            if entry.asked:
                continue
            reader: Reader = holder  # type: ignore[assignment]  # a budget of readers has only readers
            all_read = reader.bytes_read
            if all_read != entry.seen:
                entry.seen, entry.moved = all_read, now
            age, read = now - entry.since, all_read - entry.read
            if age >= _PATIENCE:
                if read < age * MIN_RATE:
                    self._end(holder, now)
                elif age >= _MEMORY:
                    entry.since = now
                    entry.read += read
            if not entry.asked and self._is_far_over and now - entry.moved >= _HURRY:
                self._end(holder, now)
        self._look_later()

    # ------------------------------------------------------------------ from any thread

    def take(self, size: int) -> bool:
        """Take *size* bytes, if there is room: at most half of the budget is taken in this way; tell whether there was.

        No holder has to give up for it, since the caller can wait.
        """
        with self._lock:
            limit = self._limit
            if limit is not None and (self._taken + size > limit >> 1 or self.total + size > limit):
                return False
            self._taken += size
            self.total += size
            return True

    def give_back(self, size: int) -> None:
        """Give back what was taken."""
        with self._lock:
            self._taken -= size
            self.total -= size

    def keep(self, size: int) -> None:
        """Count *size* bytes that no holder has to give up: the client has sent all of it."""
        with self._lock:
            self.total += size + self._rest & ~self._rest

    def release(self, size: int) -> None:
        """Stop counting *size* bytes that were kept."""
        with self._lock:
            self.total -= size + self._rest & ~self._rest


MIN_RATE = 240
"""A client that reads fewer bytes a second than this counts as one that does not read."""


class Budgets:
    """The budgets of one process.

    Attributes:
        unfinished: Memory for what clients have begun and not finished: heads, content, messages of WebSockets.
        unsent: Memory for responses that clients do not read.
        hold_back: Responses that wait until there is room in ``unsent``.
        spool: Content that waits in temporary files, or in memory in their place.
    """

    __slots__ = ("__weakref__", "_trim_at", "_used", "hold_back", "spool", "unfinished", "unsent")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.unfinished = Budget(loop, "--limit-unfinished", "unfinished messages", 32 * _MIB)
        self.unsent = Budget(loop, "--limit-unsent", "responses that are not read", 24 * _MIB)
        self.hold_back = HoldBack(loop, self.unsent)
        self.spool = Budget(loop, "--limit-spool", "stored content", 256 * _MIB, unit=4096, late=True)
        self._used = False  # much memory is held, or was when it was given back last
        self._trim_at = 0.0

    def tick(self, now: float) -> None:
        """Give free memory back to the system: now and then while clients hold much, and once after that.

        Args:
            now: The loop's time in seconds.
        """
        short = self.unfinished.is_short or self.unsent.is_short
        if (short or self._used) and now >= self._trim_at:
            self._used = short
            self._trim_at = now + _TRIM
            trim()

    @staticmethod
    def of(loop: asyncio.AbstractEventLoop) -> Budgets:
        """Return the object that all connections on *loop* share."""
        budgets = _of_loop.get(loop)
        if budgets is None:
            budgets = _of_loop[loop] = Budgets(loop)
        return budgets
