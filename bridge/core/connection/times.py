"""What an exchange notes for observers that ask for it: its times, and what only its delegate knows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["Times"]


class Times:
    """Two moments of an exchange, in nanoseconds of ``time.monotonic_ns()``, a duration, and what observers are told.

    The connection sets ``opened``, the exchange ``began``, the WSGI adapter ``queued``, and delegates the others.

    Attributes:
        opened: When the head was complete.
        began: When the first byte of the response was handed over; 0 before, and for responses of the server's own.
        queued: Seconds that the request waited for a thread; 0.0 without such a queue.
        called_with: The ASGI scope or the WSGI environ with which the application was called, where frameworks leave
            the route; None unless the delegate was told that somebody looks, who has to set it to None again.
        refused: Why the server itself has answered: ``overload`` or ``queue_timeout``; empty if it has not.
    """

    __slots__ = ("began", "called_with", "opened", "queued", "refused")

    def __init__(self, opened: int) -> None:
        self.opened = opened
        self.began = 0
        self.queued = 0.0
        self.called_with: Mapping[str, Any] | None = None
        self.refused = ""
