"""What an exchange notes for observers that ask for it: its times, and what only its delegate knows.

No deadline is kept here: those of a connection, and the 408, are in ``http1.py``.
The compiled part has an object of its own with the same attributes, where it is (docs/speedups.md).
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic_ns
from typing import Any

from bridge import speedups

__all__ = ["Times", "note_opening", "note_opening_pure", "note_times", "note_times_pure"]


class Times:
    """Two moments of an exchange, in nanoseconds of ``time.monotonic_ns()``, a duration, and what observers are told.

    The connection makes it, the exchange sets ``began``, the WSGI adapter ``queued``, and delegates the others.

    The first values are attributes of the class. With an ``__init__`` that sets them, and slots, making one costs 2,300
    instructions instead of 1,400 (CPython 3.11).

    Attributes:
        answers: Whether ``began`` is set at all. Reading the clock for it is an eighth of what metrics cost.
        opened: When the head was complete.
        began: When the first byte of the response was handed over; 0 before, and for responses of the server's own.
        queued: Seconds that the request waited for a thread; 0.0 without such a queue.
        called_with: The ASGI scope or the WSGI environ with which the application was called, in which frameworks leave
            the route; or werkzeug's request. None unless an observer has asked the delegate for it. The observer sets
            it to None again. See :meth:`keep_request` for WSGI.
        refused: Why the server itself has answered: ``overload`` or ``queue_timeout``; empty if it has not.
    """

    answers = True
    opened = 0
    began = 0
    queued = 0.0
    called_with: Any = None
    refused = ""

    def keep_request(self) -> None:
        """Keep of the environ only what names the route, now that the response begins.

        That is the environ itself if it has ``bridge.route``, or else the request that werkzeug has left in it, since
        Flask takes it out again. Otherwise nothing is kept: an environ that lives until the exchange ends costs 400
        instructions.
        """
        called_with = self.called_with
        if called_with.__class__ is dict and "bridge.route" not in called_with:
            self.called_with = called_with.get("werkzeug.request")


class _Opening(Times):
    """Times without the moment of the answer."""

    answers = False


def note_times_pure() -> Times:
    """Return the times of an exchange whose head is complete now."""
    times = Times()
    times.opened = monotonic_ns()
    return times


def note_opening_pure() -> Times:
    """Do the same, without the moment of the answer."""
    times = _Opening()
    times.opened = monotonic_ns()
    return times


note_times: Callable[[], Times] = note_times_pure if speedups.note_times is None else speedups.note_times
note_opening: Callable[[], Times] = note_opening_pure if speedups.note_opening is None else speedups.note_opening
