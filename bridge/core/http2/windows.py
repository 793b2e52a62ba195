"""Flow control (RFC 9113 section 6.9): how much each side may send. All sizes are bytes."""

from __future__ import annotations

from typing import Final

from bridge.core.http2.codes import FLOW_CONTROL_ERROR, PROTOCOL_ERROR, ConnectionFault, StreamFault
from bridge.core.http2.frames import WINDOW_MAX

__all__ = ["INITIAL_WINDOW", "ReceiveWindow", "add_credit", "change_initial"]

INITIAL_WINDOW: Final = 65535
"""The size of every window before anybody has said otherwise (section 6.9.2)."""

# Seconds. If a peer fills its window twice within this time, the window slows it down, or it is fast enough to use a
# larger one.
_GROWTH_TIME = 1.0


class ReceiveWindow:
    """How much the peer may still send: of one stream, or of the connection.

    Credit is announced in steps of half a window, so a large upload costs one WINDOW_UPDATE for each. The window grows,
    since a small one limits a fast peer that is far away: 64 KiB and a round trip of 100 ms allow 640 KiB a second.

    Args:
        size: The window that the peer knows of.
        most: What the window may grow to.
        now: The time in seconds, from any clock.

    Attributes:
        left: What the peer may send before the next credit.
        size: The window's size.
    """

    __slots__ = ("_most", "_owed", "_since", "_used", "left", "size")

    def __init__(self, size: int, most: int = 0, now: float = 0.0) -> None:
        self.size = size
        self.left = size
        self._most = most
        self._owed = 0  # credit that was not announced
        self._used = 0  # credit since _since
        self._since = now

    def take(self, size: int) -> bool:
        """Take note of a DATA frame of *size*, padding included; return whether the peer was allowed to send it."""
        self.left -= size
        return self.left >= 0

    def credit(self, size: int, now: float = 0.0) -> int:
        """Let the peer send *size* bytes more, since so many were handed over or dropped.

        Args:
            size: What there is room for again; 0 to ask for what is owed.
            now: The time in seconds.

        Returns:
            The increment of a WINDOW_UPDATE that is to be sent now; 0 for none.
        """
        self._owed += size
        self._used += size
        if self._used >= 2 * self.size:
            if now - self._since <= _GROWTH_TIME and self.size < self._most:
                growth = min(self.size, self._most - self.size)
                self.size += growth
                self._owed += growth
            self._used = 0
            self._since = now
        if 2 * self._owed < self.size:
            return 0
        increment = self._owed
        self._owed = 0
        self.left += increment
        return increment

    def widen(self, size: int) -> int:
        """Make the window *size* large, if it is smaller; return the increment to send, 0 for none."""
        growth = size - self.size
        if growth <= 0:
            return 0
        self.size = size
        increment = self._owed + growth
        self._owed = 0
        self.left += increment
        return increment


def add_credit(window: int, increment: int, stream: int) -> int:
    """Return the send window after a WINDOW_UPDATE (sections 6.9 and 6.9.1).

    Args:
        window: The window before it; below 0 after a change of SETTINGS_INITIAL_WINDOW_SIZE.
        increment: The frame's increment.
        stream: The stream; 0 for the connection.

    Raises:
        ConnectionFault: PROTOCOL_ERROR or FLOW_CONTROL_ERROR; the connection's increment is 0, or its window too large.
        StreamFault: The same for a stream.
    """
    window += increment
    if increment and window <= WINDOW_MAX:
        return window
    code = FLOW_CONTROL_ERROR if increment else PROTOCOL_ERROR
    message = f"WINDOW_UPDATE of {increment} to a window of {window} bytes (RFC 9113 section 6.9)"
    raise StreamFault(code, message) if stream else ConnectionFault(code, message)


def change_initial(window: int, before: int, after: int) -> int:
    """Return a stream's send window after a change of SETTINGS_INITIAL_WINDOW_SIZE (section 6.9.2); may be below 0.

    Raises:
        ConnectionFault: FLOW_CONTROL_ERROR; the window is too large.
    """
    window += after - before
    if window > WINDOW_MAX:
        raise ConnectionFault(FLOW_CONTROL_ERROR, f"initial window of {after} bytes (RFC 9113 section 6.9.2)")
    return window
