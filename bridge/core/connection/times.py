"""When an exchange began, waited, answered and ended; filled by whoever knows, where an observer asks for it."""

from __future__ import annotations

__all__ = ["Times"]


class Times:
    """Moments of one exchange, from ``time.monotonic_ns()``, and a duration.

    Attributes:
        opened: The head was complete.
        began: The first byte of the response was handed over; 0 before, and for responses that the server makes itself.
        queued: Seconds that the request has waited for a thread; 0.0 where there is no such queue.
    """

    __slots__ = ("began", "opened", "queued")

    def __init__(self, opened: int) -> None:
        self.opened = opened
        self.began = 0
        self.queued = 0.0
