"""The sending half of a connection: writes, what waits for room, and the peer that does not read."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bridge.core.clock import NEVER, Clock
from bridge.core.log import gen_log

if TYPE_CHECKING:
    from bridge.core.context import ConnectionContext
    from bridge.core.parameters import ConnectionParameters

__all__ = ["WriteSide"]


class WriteSide(asyncio.Protocol):
    """Writes to the transport and knows whether the peer reads.

    Attributes:
        params: Limits and times.
        context: The two ends.
        clock: The server's clock.
        loop: The event loop.
        transport: The transport; None before and after the connection.
        write_paused: More is waiting to be sent than the high-water mark.
        write_deadline: Loop time in seconds at which the peer must have read something.
    """

    __slots__ = (
        "_unsent",
        "_waiters",
        "clock",
        "context",
        "loop",
        "params",
        "transport",
        "write_deadline",
        "write_paused",
    )

    def __init__(
        self,
        params: ConnectionParameters,
        context: ConnectionContext,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.params = params
        self.context = context
        self.clock = clock
        self.loop = loop
        self.transport: asyncio.Transport | None = None
        self.write_paused = False
        self.write_deadline = NEVER
        self._unsent = 0
        self._waiters: list[asyncio.Future[None]] | None = None

    def write(self, data: bytes) -> None:
        """Hand bytes to the transport."""
        if self.transport is not None:
            self.transport.write(data)

    def write_parts(self, parts: list[bytes]) -> None:
        """Hand bytes to the transport without joining them here."""
        if self.transport is not None:
            self.transport.writelines(parts)

    def pause_writing(self) -> None:
        """Let writers wait: the transport's buffer is above its high-water mark."""
        self.write_paused = True
        self.watch_writing()

    def resume_writing(self) -> None:
        """Let writers go on."""
        self.write_paused = False
        self.write_deadline = NEVER
        self.wake_writers(None)

    def writable(self) -> asyncio.Future[None]:
        """Return a future that is done when the transport's buffer is below its low-water mark again.

        It fails with ConnectionGone when the connection ends first.
        """
        future = self.loop.create_future()
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(future)
        return future

    def wake_writers(self, error: Exception | None) -> None:
        """Let what waits in :meth:`writable` go on, or fail with *error*."""
        waiters = self._waiters
        if waiters is not None:
            self._waiters = None
            for future in waiters:
                if not future.done():
                    if error is None:
                        future.set_result(None)
                    else:
                        future.set_exception(error)

    def watch_writing(self) -> None:
        """From now on the peer has to read something within every write timeout."""
        if self.transport is not None:
            self._unsent = self.transport.get_write_buffer_size()
            self.write_deadline = self.clock.after(self.params.write_timeout)

    def peer_reads(self, transport: asyncio.Transport) -> bool:
        """Tell, when the write deadline has passed, whether the peer has read something; if so, watch on."""
        unsent = transport.get_write_buffer_size()
        if unsent and unsent >= self._unsent:
            gen_log.info("Timeout writing to %s: %d bytes unsent", self.context, unsent)
            self.write_deadline = NEVER
            return False
        self.watch_writing()
        return True
