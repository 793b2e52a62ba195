"""The times of an exchange, for observers that ask for them."""

from __future__ import annotations

__all__ = ["Times"]


class Times:
    """Two moments of an exchange, in nanoseconds of ``time.monotonic_ns()``, and a duration.

    The connection sets ``opened``, the exchange ``began``, and the WSGI adapter ``queued``.

    Attributes:
        opened: When the head was complete.
        began: When the first byte of the response was handed over; 0 before, and for responses of the server's own.
        queued: Seconds that the request waited for a thread; 0.0 without such a queue.
    """

    __slots__ = ("began", "opened", "queued")

    def __init__(self, opened: int) -> None:
        self.opened = opened
        self.began = 0
        self.queued = 0.0
