"""How slowly a request's content may come.

The client has a time to send the next bytes. Every so many bytes that come earn another second, up to the whole time.
If any byte earned the whole time, a byte now and then would keep a request open for ever. HTTP/1 and HTTP/2 share this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.core.connection.clock import NEVER

if TYPE_CHECKING:
    from bridge.core.connection.clock import Clock

__all__ = ["Pace"]


class Pace:
    """The time that one request's content has for its next bytes.

    Args:
        clock: The server's clock.
        timeout: Seconds in which more has to come; None for no limit.
        rate: Bytes that earn a second. None if every byte earns the whole time again.

    Attributes:
        deadline: Clock time without the time in which the loop was blocked (``Clock.lost``); NEVER for none.
    """

    __slots__ = ("_begun", "_clock", "_left", "_rate", "_timeout", "deadline")

    def __init__(self, clock: Clock, timeout: float | None, rate: int | None) -> None:
        self._clock = clock
        self._timeout = timeout
        self._begun = False
        self._rate = rate
        self._left = NEVER  # seconds that are left after a pause; NEVER if there is none
        self.deadline = clock.after(timeout) - clock.lost

    def take(self, size: int, *, free: bool = False) -> None:
        """Take note that *size* bytes have come.

        Args:
            size: How many.
            free: Any number of bytes earns the whole time. So it is once the response has begun: then client and
                application may be in a conversation, in which the client sends only when it has something to say.
        """
        clock = self._clock
        self._begun = True
        deadline = clock.after(self._timeout) - clock.lost
        if self._rate is not None and not free:
            deadline = min(deadline, self.deadline + size / self._rate)
        self.deadline = deadline

    def pause(self) -> None:
        """Stop the time, since the server does not read and the peer cannot send."""
        if self.deadline != NEVER:
            self._left = self.deadline - (self._clock.now - self._clock.lost)
            self.deadline = NEVER

    def resume(self) -> None:
        """Go on with the time that was left."""
        if self._left != NEVER:
            self.deadline = self._clock.now - self._clock.lost + self._left
            self._left = NEVER

    def describe(self) -> str:
        """Return the reason for the log why the time is over."""
        if self._begun and self._rate is not None:
            return f"Timeout reading body: less than {self._rate} bytes a second (--rate-request-body)"
        return "Timeout reading body"
