"""The places of a master's workers, and the delay before a place whose worker has failed gets the next one."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from bridge.core.log import gen_log
from bridge.supervisor.workers import READY, STARTING, Worker

__all__ = ["Slots"]

# A worker that has served for so many seconds was able to serve: its end does not delay the next start.
_LONG_LIFE = 0.5
# The delay (seconds) after the second failure in a row: of a worker that never became ready, and of one that did. The
# second is short, because clients repeat a request that crashes its worker. With one second, one such request a second
# and two workers, one worker was always waiting, and the next crash left none. Now the longest gap between two answers
# is 0.6 s.
_FIRST_DELAY, _FIRST_DELAY_ABLE = 1.0, 0.125
_LONGEST_DELAY = 30.0
# The longest delay while no worker serves: then there is nothing to protect.
_DELAY_ALONE, _DELAY_ALONE_ABLE = 0.5, 0.05
_NEVER = float("inf")


@dataclass(slots=True)
class _Slot:
    """The place of one worker.

    Attributes:
        able: The last worker here had become ready.
        failures: How many workers in a row have failed here.
        failed: When the last one has failed (seconds of the monotonic clock).
        delay: The seconds for which the next start waits.
    """

    able: bool = False
    failures: int = 0
    failed: float = 0.0
    delay: float = 0.0

    def postpone(self) -> None:
        """Count a failure and delay the next start, each time for longer."""
        self.failures += 1
        self.failed = time.monotonic()
        first = _FIRST_DELAY_ABLE if self.able else _FIRST_DELAY
        self.delay = min(first * 2.0 ** (self.failures - 2), _LONGEST_DELAY)

    def shortened(self) -> float:
        """Return the delay for when no worker serves."""
        return min(self.delay, _DELAY_ALONE_ABLE if self.able else _DELAY_ALONE)


class Slots:
    """All places, by their numbers.

    A delay protects the workers that serve from the cost of starts that fail. While none serves, it would only make an
    outage longer.

    Args:
        serves: Tells whether a worker serves.
    """

    def __init__(self, serves: Callable[[], bool]) -> None:
        self._serves = serves
        self._slots: dict[int, _Slot] = {}

    def next_start(self, number: int) -> float:
        """Return when the next worker may start in a place (seconds of the monotonic clock)."""
        slot = self._slots.setdefault(number, _Slot())
        return slot.failed + self._delay(slot)

    def next_starts(self, now: float) -> list[float]:
        """Return when places that wait may get a worker."""
        return [start for number in self._slots if now < (start := self.next_start(number)) < _NEVER]

    def postpone(self, number: int) -> float:
        """Note that no worker could be forked, and return the seconds for which the next start waits."""
        slot = self._slots.setdefault(number, _Slot())
        slot.able = False
        slot.postpone()
        return self._delay(slot)

    def _delay(self, slot: _Slot) -> float:
        return slot.delay if slot.delay in {0.0, _NEVER} or self._serves() else slot.shortened()

    def failed(self, worker: Worker, *, waits_for_fix: bool) -> None:
        """Take notice that a worker has failed.

        Args:
            worker: The worker.
            waits_for_fix: The next one may start when a file has changed.
        """
        slot = self._slots.setdefault(worker.slot, _Slot())
        slot.able = worker.state == READY
        if slot.able and time.monotonic() - worker.ready >= _LONG_LIFE:
            slot.failures, slot.delay = 0, 0.0
        if waits_for_fix and worker.state == STARTING:
            slot.delay = _NEVER
        elif slot.failures or worker.state == STARTING:
            slot.postpone()
            gen_log.warning("Worker %d starts again in %g s", worker.slot, self._delay(slot))
        else:
            slot.failures = 1  # the first failure does not delay the next start

    def forget(self) -> None:
        """Forget all failures: the application is another one now."""
        self._slots.clear()
