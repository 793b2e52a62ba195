"""The sending half of a connection: writes, what waits for room, and the peer that does not read."""

from __future__ import annotations

import asyncio
import contextlib
import struct
import sys
from typing import TYPE_CHECKING

from bridge.core.connection.clock import NEVER, Clock
from bridge.core.log import gen_log
from bridge.errors import ConnectionGone

if sys.platform == "linux":
    import fcntl
    import termios

    _COUNT_UNSENT: int | None = termios.TIOCOUTQ  # tcp(7): unsent, or sent and not acknowledged
else:
    _COUNT_UNSENT = None

if TYPE_CHECKING:
    from bridge.core.connection.context import ConnectionContext
    from bridge.core.connection.interfaces import WriteLimits

__all__ = ["WriteSide"]

_INT = struct.Struct("i")
# What responses to pipelined requests may gather to, in bytes.
_PENDING_MAX = 16384


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
        file_left: Bytes that a file sent past the transport still has; see ``bridge.core.connection.sendfile``.
    """

    __slots__ = (
        "_high_water",
        "_pending",
        "_unsent",
        "_waiters",
        "clock",
        "context",
        "file_left",
        "loop",
        "params",
        "transport",
        "write_deadline",
        "write_paused",
    )

    def __init__(
        self,
        params: WriteLimits,
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
        self.file_left = 0
        self._high_water = params.high_water
        self._pending = b""  # for the end of this turn of the loop
        self._unsent = 0
        self._waiters: list[asyncio.Future[None]] | None = None

    def write_soon(self, data: bytes) -> None:
        """Hand bytes to the transport when this turn of the loop is over, or before anything else is done with it.

        The responses to pipelined requests go out as one so.
        """
        if self._pending:
            self._pending += data
            if len(self._pending) > _PENDING_MAX:
                self.flush()
        else:
            self._pending = data
            self.clock.send_soon(self)

    def flush(self) -> None:
        """Hand over what :meth:`write_soon` has kept."""
        data = self._pending
        if data:
            self._pending = b""
            transport = self.transport
            # One that failed in this turn says so in the next one; uvloop's raises until then.
            if transport is not None and not transport.is_closing():
                if self.write_paused:
                    self._unsent += len(data)
                transport.write(data)

    def write(self, data: bytes) -> None:
        """Hand bytes to the transport."""
        if self._pending:
            self.flush()
        if self.transport is not None:
            if self.write_paused:
                self._unsent += len(data)
            self.transport.write(data)

    def write_parts(self, parts: list[bytes]) -> None:
        """Hand bytes to the transport, without joining them here if it can take them so."""
        if self._pending:
            self.flush()
        transport = self.transport
        if self.write_paused:
            self._unsent += sum(map(len, parts))
        if isinstance(transport, asyncio.WriteTransport):
            # asyncio's writelines() never pauses the writer in 3.12 and 3.13.0 (CVE-2024-12254), and breaks the loop's
            # selector when the connection has just been lost; uvloop's, which is no WriteTransport, does neither.
            transport.write(b"".join(parts))
        elif transport is not None:
            transport.writelines(parts)

    def pause_writing(self) -> None:
        """Let writers wait: the transport's buffer is above its high-water mark."""
        self.write_paused = True
        self.watch_writing()

    def resume_writing(self) -> None:
        """Let writers go on."""
        self.write_paused = False
        self.write_deadline = NEVER
        self.wake_writers(None)

    def set_high_water(self, size: int) -> None:
        """Pause writers when more than *size* bytes wait to be sent."""
        self._high_water = size
        if self.transport is not None:
            self.transport.set_write_buffer_limits(high=size)

    async def emptied(self) -> None:
        """Wait until nothing waits to be sent.

        Raises:
            ConnectionGone: The connection ended first.
        """
        transport = self.transport
        if transport is None:
            raise ConnectionGone("the peer closed the connection")
        self.flush()
        if not transport.get_write_buffer_size():
            return
        transport.set_write_buffer_limits(high=0)
        try:
            while self.write_paused:
                await self.writable()
        finally:
            if self.transport is not None:
                self.transport.set_write_buffer_limits(high=self._high_water)

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
            self._unsent = self._outgoing(self.transport)
            self.write_deadline = self.clock.after(self.params.write_timeout)

    def peer_reads(self, transport: asyncio.Transport) -> bool:
        """Tell, when the write deadline has passed, whether the peer has read something; if so, watch on."""
        unsent = self._outgoing(transport)
        if unsent and unsent >= self._unsent:
            gen_log.info("Timeout writing to %s: %d bytes unsent", self.context, unsent)
            self.write_deadline = NEVER
            return False
        self.watch_writing()
        return True

    def _outgoing(self, transport: asyncio.Transport) -> int:
        """Return how many bytes the peer has still to take: the transport's, a file's and the system's.

        The system's buffer can hold megabytes, and takes more only when much of it is free: a peer that reads slowly
        but steadily would seem to read nothing for minutes.
        """
        size = transport.get_write_buffer_size() + self.file_left
        sock = transport.get_extra_info("socket")
        if sock is not None and _COUNT_UNSENT is not None:
            with contextlib.suppress(OSError, ValueError):  # it was closed meanwhile, or cannot tell
                size += _INT.unpack(fcntl.ioctl(sock.fileno(), _COUNT_UNSENT, bytes(_INT.size)))[0]
        return size
