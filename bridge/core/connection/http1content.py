"""The content of an HTTP/1 request on its way to the delegate: its limit, and the time that it may take."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.core.connection.pace import Pace
from bridge.core.connection.reads import read_little, read_much
from bridge.core.http1.decoder import ChunkedDecoder
from bridge.errors import LimitExceeded

if TYPE_CHECKING:
    import asyncio

    from bridge.core.connection.clock import Clock
    from bridge.core.connection.parameters import ConnectionParameters
    from bridge.core.http1.decoder import FixedDecoder

__all__ = ["RequestContent"]

# Bytes. If more content than this comes between two ticks of the clock, it is read in large pieces.
_FAST = 1 << 18


class RequestContent:
    """The limit and the deadlines of content that is still to come.

    Args:
        length: Bytes that the head declares; None for chunks.
        parameters: The limits and times of the connection.
        clock: The server's clock.

    Raises:
        LimitExceeded: 413; the declared length exceeds the limit, and the delegate cannot change that.

    Attributes:
        limit_pending: The limit, which the delegate may have set, is still to be applied.
        noted_at: The clock's time when content was noted last: :meth:`note` is due once for each tick of the clock.
        pace: The time for the next bytes.
        unnoted: Bytes that have come since ``noted_at``.
        whole_deadline: Loop time in seconds until which all content has to come.
    """

    __slots__ = ("_clock", "_parameters", "limit_pending", "noted_at", "pace", "unnoted", "whole_deadline")

    def __init__(self, length: int | None, parameters: ConnectionParameters, clock: Clock) -> None:
        limit = parameters.max_body_size
        if length is not None and limit is not None and length > limit and not parameters.limit_after_start:
            raise _too_long(length, limit)
        self._clock = clock
        self._parameters = parameters
        self.pace = Pace(clock, parameters.body_timeout, parameters.min_body_rate)
        self.unnoted = 0
        self.noted_at = clock.now
        self.limit_pending = parameters.limit_after_start
        self.whole_deadline = clock.after(parameters.body_total_timeout)

    @property
    def deadline(self) -> float:
        """Loop time in seconds: the earlier of the deadlines of the next bytes and of the whole content."""
        return min(self.pace.deadline + self._clock.lost, self.whole_deadline)

    def apply_limit(self, own: int | None, decoder: FixedDecoder | ChunkedDecoder) -> None:
        """Apply the limit, now that the delegate has had the chance to change it.

        Args:
            own: The delegate's limit; None for the connection's.
            decoder: The decoder of the content.

        Raises:
            LimitExceeded: 413.
        """
        self.limit_pending = False
        limit = self._parameters.max_body_size if own is None else own
        if limit is None:
            return
        if isinstance(decoder, ChunkedDecoder):
            decoder.limit = limit
        elif decoder.remaining > limit:
            raise _too_long(decoder.remaining, limit)

    def note(self, transport: asyncio.Transport | None, *, free: bool) -> None:
        """Give the peer the time that it has earned since the last call. Read large pieces if it sends fast.

        Args:
            transport: The connection's.
            free: As for :meth:`Pace.take`.
        """
        self.noted_at = self._clock.now
        size, self.unnoted = self.unnoted, 0
        self.pace.take(size, free=free)
        if transport is not None:
            clock = self._clock
            calm = not (clock.turns.crowded or clock.budgets.unfinished.is_short)
            (read_much if calm and size > _FAST else read_little)(transport)

    def set_timeout(self, seconds: float | None) -> None:
        """Set the deadline of the whole content to *seconds* from now; None for no limit."""
        self._clock.shorten(seconds)
        self.whole_deadline = self._clock.after(seconds)


def _too_long(length: int, limit: int) -> LimitExceeded:
    return LimitExceeded(413, f"Content-Length too long: {length} bytes, limit {limit}")
