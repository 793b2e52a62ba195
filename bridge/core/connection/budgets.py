"""What all clients of a process may make it hold together.

Each connection has its limits. A thousand connections have a thousand times as much, so there are budgets of the
process, too. Who holds something that is not small notes it here. When all together hold too much, those go that have
held the most for the longest: who is nearly done has held it for a moment only. One that is alone may have all that its
own limits allow.

Nothing here knows a protocol.
"""

from __future__ import annotations

import threading
import weakref
from typing import TYPE_CHECKING, Protocol

from bridge.core.log import gen_log

if TYPE_CHECKING:
    import asyncio

__all__ = ["SMALL", "Budget", "Budgets", "Holder"]

SMALL = 4096
"""What is smaller (bytes) need not be noted."""

_MIB = 1 << 20
# Seconds between two lines of the log about one budget.
_SILENCE = 10.0
# Seconds after which a client that reads is looked at, and how often.
_PATIENCE = 5.0
# The same for one that has read nothing at all, when twice as much is held as the limit allows.
_HURRY = 2.0
_LOOK = 1.0
# Seconds after which what a client has read speaks for it no more: otherwise one that reads much, and then stops, would
# be taken for one that reads for hours.
_MEMORY = 30.0

# Loops that have ended take their entries with them.
_of_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Budgets] = weakref.WeakKeyDictionary()


class Holder(Protocol):
    """Something that holds bytes for a client."""

    def give_up(self, budget: Budget) -> str:
        """End what the client has not ended; note that nothing is held any more, now or soon.

        Returns:
            What was ended, in words for the log; empty if nothing was, since the bytes went elsewhere.
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

    __slots__ = ("asked", "read", "since", "size")

    def __init__(self, since: float) -> None:
        self.size = 0
        self.since = since
        self.read = 0  # bytes that the client had read then
        self.asked = False  # it was told to give up


class Budget:
    """Bytes that the clients of a process may make it hold, of one kind.

    All methods are for the thread of the event loop, except :meth:`take` and :meth:`give_back`.

    Args:
        loop: The event loop.
        option: The name of the setting, for the log.
        what: What is held, in words for the log.
        limit: Most bytes; None for no limit.

    Attributes:
        limit: The argument; may be changed.
        total: Bytes that are held.
        over: They were more than the limit when something was noted last.
    """

    __slots__ = (
        *("_enforcing", "_entries", "_lock", "_look_at", "_loop", "_option", "_said", "_taken", "_unsaid", "_what"),
        *("limit", "over", "total"),
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, option: str, what: str, limit: int | None) -> None:
        self._loop: asyncio.AbstractEventLoop = weakref.proxy(loop)  # otherwise the entry would keep its loop
        self._option = option
        self._what = what
        self.limit = limit
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
    def is_short(self) -> bool:
        """Half of the limit is held: who can do with less should."""
        return self.limit is not None and self.total > self.limit >> 1

    def note(self, holder: Holder, size: int, *, enforce: bool = True) -> None:
        """Note that *holder* holds *size* bytes now.

        Who holds more with each piece that comes may note the next power of two, and has nothing to note until it holds
        more than that: the budget then counts at most twice of what is held, and never less.

        Args:
            holder: Who holds it.
            size: Bytes; 0 for nothing.
            enforce: Others may have to give up theirs.
        """
        entry = self._entries.get(holder)
        if entry is None:
            if not size:
                return
            entry = self._entries[holder] = _Entry(self._loop.time())
        with self._lock:
            self.total += size - entry.size
            self.over = self.limit is not None and self.total > self.limit
        if size < entry.size:
            entry.asked = False
        entry.size = size
        if not size:
            del self._entries[holder]
        if enforce and self.over and not self._enforcing:
            self._enforce(holder)

    def forget(self, holder: Holder) -> None:
        """Note that *holder* holds nothing."""
        if holder in self._entries:
            self.note(holder, 0, enforce=False)

    def _enforce(self, current: Holder | None = None) -> None:
        """Let holders give up until no more is held than the limit allows, or only one holder is left.

        Args:
            current: Who is noting something: it is not called back now, but in the next turn of the loop.
        """
        self._enforcing = True
        now = self._loop.time()
        try:
            while self.over and len(self._entries) > 1:
                worst = None
                most = 0.0
                left = self.total
                for holder, entry in self._entries.items():
                    weight = entry.size * (now - entry.since + 1.0)
                    if entry.asked:
                        left -= entry.size  # on its way out
                    elif weight > most:
                        worst, most = holder, weight
                if worst is None or (self.limit is not None and left <= self.limit):
                    return
                if worst is current:
                    self._loop.call_soon(self._enforce)
                    return
                self._end(worst, now)
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
                *(self._option, self.limit, self._what, what, size, age, others),
            )
            self._said, self._unsaid = now, 0

    # ------------------------------------------------------------------ readers

    def note_reader(self, reader: Reader, size: int, *, anew: bool) -> None:
        """Note that *size* bytes wait for a client.

        Beyond the limit those clients go that have had five seconds and have read next to nothing in them; beyond twice
        the limit, those that have read nothing in two seconds. Who reads is never ended: it gets nothing new until it
        has read. Time in which the loop was blocked does not count.

        Args:
            reader: Who waits for the client.
            size: Bytes; not 0.
            anew: The client has read what waited before: its time begins.
        """
        self.note(reader, size, enforce=False)
        if anew:
            entry = self._entries[reader]
            entry.since = self._loop.time()
            entry.read = 0
        if self.over and self._look_at is None:
            self._look_later()

    def _look_later(self) -> None:
        self._look_at = self._loop.time() + _LOOK
        self._loop.call_later(_LOOK, self._look)

    def _look(self) -> None:
        """Let clients go that do not read, the largest first, while too much waits for all."""
        now = self._loop.time()
        late = 0.0 if self._look_at is None else now - self._look_at
        self._look_at = None
        for entry in self._entries.values():
            entry.since += late
        slow = sorted(self._entries.items(), key=lambda item: -item[1].size)
        for holder, entry in slow:
            if not self.over:
                return
            age = now - entry.since
            if age < _HURRY or entry.asked:
                continue
            reader: Reader = holder  # type: ignore[assignment]  # a budget of readers has only readers
            read = reader.bytes_read - entry.read
            if age >= _PATIENCE:
                if read < age * MIN_RATE:
                    self._end(holder, now)
                elif age >= _MEMORY:
                    entry.since = now
                    entry.read += read
            elif not read and self.limit is not None and self.total > 2 * self.limit:
                self._end(holder, now)
        self._look_later()

    # ------------------------------------------------------------------ from any thread

    def take(self, size: int) -> bool:
        """Take *size* bytes, if there is room: at most half of the budget is taken in this way; tell whether there was.

        Nobody has to give up for it: who asks can wait.
        """
        with self._lock:
            limit = self.limit
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
        """Count *size* bytes that nobody has to give up any more: what the client had to send is complete."""
        with self._lock:
            self.total += size

    def release(self, size: int) -> None:
        """Count *size* bytes no longer that were kept."""
        with self._lock:
            self.total -= size


MIN_RATE = 240
"""Bytes a second that a client has to read, if it wants to be taken for one that reads."""


class Budgets:
    """The budgets of one process.

    Attributes:
        unfinished: Memory for what clients have begun and not finished: heads, content, messages of WebSockets.
        unsent: Memory for responses that clients do not read.
        spool: Content that waits in temporary files, or in memory in their place.
    """

    __slots__ = ("__weakref__", "spool", "unfinished", "unsent")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.unfinished = Budget(loop, "--limit-unfinished", "unfinished messages", 32 * _MIB)
        self.unsent = Budget(loop, "--limit-unsent", "responses that are not read", 32 * _MIB)
        self.spool = Budget(loop, "--limit-spool", "stored content", 256 * _MIB)

    @staticmethod
    def of(loop: asyncio.AbstractEventLoop) -> Budgets:
        """Return the object that all connections on *loop* share."""
        budgets = _of_loop.get(loop)
        if budgets is None:
            budgets = _of_loop[loop] = Budgets(loop)
        return budgets
