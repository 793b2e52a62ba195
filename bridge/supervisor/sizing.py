"""Decides from measurements how many workers a master runs, and which of them has grown too large.

The number follows the load between two limits, slowly in both directions. It goes up when all workers have been busy
for two seconds, and down by one when fewer would have been enough for a whole idle time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

__all__ = ["Load", "Memory", "Size", "Target"]

# A worker is busy when its loop, its threads or its process work for this part of the time. Waiting inside a call (a
# slow database) counts as work: meanwhile the loop or the thread serves no other request.
_BUSY = 0.8
# Fewer workers are enough if each would work for less than this part of the time.
_ENOUGH = 0.6
# Seconds for which all workers must be busy before one is added.
_RISE = 2.0
# Seconds that a request may wait for a thread, on average.
_WAIT = 0.1
# A worker has grown when it is larger by this than when it was first seen.
_GROWN = 1.1
# Seconds between two replacements that do not help. The pause doubles: from the first value on, the log says so; the
# second is the longest.
_VAIN_PAUSE = 16.0
_LONGEST_PAUSE = 600.0
_NEVER = float("inf")


class Load(NamedTuple):
    """Measurements of all workers that serve.

    Attributes:
        busy: The part of the time for which each was busy: the largest of loop, threads and CPU.
        waited: Seconds that requests have waited for a thread, on average.
        queued: Connections that wait to be accepted.
    """

    busy: tuple[float, ...]
    waited: float = 0.0
    queued: int = 0


class Size:
    """Chooses the number of workers.

    Args:
        least: The lowest number; it may be changed.
        most: The highest.
        idle: Seconds for which fewer workers must have been enough before one ends.
    """

    def __init__(self, least: int, most: int, idle: float) -> None:
        self.least = least
        self.most = most
        self._idle = idle
        self._busy_since = _NEVER
        self._idle_since = _NEVER

    def choose(self, now: float, count: int, load: Load) -> int:
        """Return how many workers there should be.

        Args:
            now: Seconds of a clock.
            count: How many there are.
            load: What was measured.
        """
        if count < self.least:
            return self.least
        rises = bool(load.busy) and (min(load.busy) > _BUSY or load.waited > _WAIT or load.queued > len(load.busy))
        self._busy_since = min(self._busy_since, now) if rises else _NEVER
        falls = not rises and count > self.least and sum(load.busy) < _ENOUGH * (count - 1)
        self._idle_since = min(self._idle_since, now) if falls else _NEVER
        if now - self._busy_since >= _RISE and count < self.most and len(load.busy) >= count:
            self._busy_since = _NEVER
            return min(count + max(count // 2, 1), self.most)
        if now - self._idle_since >= self._idle:
            self._idle_since = _NEVER
            return max(count - 1, self.least)
        return count

    def hold(self) -> None:
        """Start measuring again: earlier measurements no longer apply."""
        self._busy_since = self._idle_since = _NEVER


class Memory:
    """Chooses the workers that have grown too large.

    Args:
        limit: Bytes that each may use.
        samples: How often in a row one must have been larger.

    Attributes:
        ignored: The limit is too low for a worker that has done nothing, and is not applied.
    """

    def __init__(self, limit: int, samples: int) -> None:
        self._limit = limit
        self._samples = samples
        self._above: dict[int, int] = {}
        self.ignored = False

    def began(self, size: int) -> None:
        """Note the size of a worker that is ready and has served nothing yet."""
        self.ignored = self.ignored or size > self._limit

    def choose(self, sizes: Mapping[int, int]) -> list[int]:
        """Return the processes that are to be replaced.

        Args:
            sizes: The bytes that each process uses.
        """
        if self.ignored:
            return []
        self._above = {pid: self._above.get(pid, 0) + 1 for pid, size in sizes.items() if size > self._limit}
        return [pid for pid, number in self._above.items() if number >= self._samples]


class Target:
    """Chooses the worker to replace when all processes together use too much.

    Replacing a worker does not help if its successor uses as much. So only a worker that has grown is chosen, and less
    and less often while the total stays above the target.

    Args:
        limit: Bytes that all may use.

    Attributes:
        limit: The argument.
        in_vain: The total is above the limit although workers were replaced.
    """

    def __init__(self, limit: float) -> None:
        self.limit = limit
        self.in_vain = False
        self._first: dict[int, int] = {}
        self._pause = 0.0  # seconds from one choice to the next, while the total stays above the limit
        self._next = 0.0

    def choose(self, now: float, used: int, sizes: Mapping[int, int]) -> int | None:
        """Return the process that is to be replaced; None for none.

        Args:
            now: Seconds of a clock.
            used: The bytes that all use.
            sizes: The bytes that each worker uses.
        """
        self._first = {pid: self._first.get(pid, size) for pid, size in sizes.items()}
        if used <= self.limit:
            self._pause = self._next = 0.0
            self.in_vain = False
            return None
        grown = [pid for pid, size in sizes.items() if size > self._first[pid] * _GROWN]
        self.in_vain = not grown or self._pause >= _VAIN_PAUSE
        if not grown or now < self._next:
            return None
        self._pause = min(self._pause * 2 or 1.0, _LONGEST_PAUSE)
        self._next = now + self._pause
        return max(grown, key=sizes.__getitem__)
