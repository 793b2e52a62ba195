"""The sending half of a connection: writes, flow control, and the timeout of a peer that does not read."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
from time import monotonic
from typing import TYPE_CHECKING, Any, Protocol

from bridge.core.connection.budgets import SMALL
from bridge.core.connection.clock import NEVER, Clock
from bridge.core.connection.writes import write_past
from bridge.core.log import gen_log
from bridge.errors import ConnectionGone

_COUNT_UNSENT: int | None = None
_COUNT_NOT_SENT = 0x894B  # SIOCOUTQNSD of Linux: bytes that are not sent; Python has no name for it
if sys.platform == "linux":
    with contextlib.suppress(ImportError):
        import fcntl
        import termios

        _COUNT_UNSENT = termios.TIOCOUTQ  # tcp(7): bytes that are not sent, or not acknowledged

if TYPE_CHECKING:
    from bridge.core.connection.budgets import Budget
    from bridge.core.connection.context import ConnectionContext
    from bridge.core.connection.interfaces import WriteLimits

__all__ = ["Writer", "WriterOwner", "reset_now"]

_INT = struct.Struct("i")
# Bytes that are kept for the end of the turn. Pipelined responses beyond them are written earlier.
_PENDING_MAX = 16384
# The same for content in several pieces, if the system surely takes that much: see write_content().
_GATHERED_MAX = 262144
# While memory is short for all, no more than this (bytes) may be kept by the system for one client.
_KEPT_MOST = 65536
# Seconds. A piece of content that comes so soon after the last write waits for more. Pieces that an application makes
# more slowly, without giving the loop a turn, are each sent at once.
_BURST = 0.001
# Bytes of content that fill a record of TLS (RFC 8446 section 5.1): waiting for more saves nothing.
_RECORD = 16384


def reset_now(transport: asyncio.Transport) -> None:
    """Reset a connection at once: its peer notices that what it has read is not all."""
    # With a linger time of 0 the system sends RST instead of FIN. Unix sockets have no such option.
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family in {socket.AF_INET, socket.AF_INET6}:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


class WriterOwner(Protocol):
    """The connection to which a Writer belongs."""

    def write_stalled(self) -> None:
        """End the connection: the peer has read nothing for the whole write timeout."""

    def turn_ended(self) -> None:
        """Send what was kept for content that has not come in this turn of the loop."""

    def resume_writing(self) -> None:
        """Let writers go on, as when the transport asks for it."""


class Writer:
    """Writes to a transport and watches whether the peer reads.

    Args:
        owner: The connection.
        limits: The high-water mark and the write timeout.
        context: The two ends, for logs.
        clock: The server's clock.
        loop: The event loop.

    Attributes:
        deadline: Loop time in seconds until which the peer has to read something; NEVER while nothing waits.
        file_left: Bytes still to come from a file that is sent past the transport; see ``sendfile``.
        is_held_back: Writers are paused since memory is short for all, see ``holdback``.
        loop: The event loop.
        paused: More bytes wait to be sent than the high-water mark allows; or it is held back.
        registered: Something is sent at the end of this turn of the loop.
        transport: The transport; None before and after the connection.
    """

    __slots__ = (
        "_clock",
        "_context",
        "_gathered",
        "_high_water",
        "_limits",
        "_owner",
        "_room",
        "_unsent",
        "_waiters",
        "_written",
        "deadline",
        "file_left",
        "is_held_back",
        "loop",
        "paused",
        "pending",
        "registered",
        "transport",
    )

    def __init__(
        self,
        owner: WriterOwner,
        limits: WriteLimits,
        context: ConnectionContext,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._owner: WriterOwner | None = owner
        self._limits = limits
        self._context = context
        self._clock = clock
        self.loop = loop
        self.transport: asyncio.Transport | None = None
        self.paused = False
        self.is_held_back = False
        self.registered = False
        self.deadline = NEVER
        self.file_left = 0
        self._high_water = limits.high_water
        self.pending = b""  # kept for the end of this turn of the loop
        # What is kept behind it, if that is much; None if there is nothing.
        self._gathered: list[bytes] | None = None
        self._room = 0  # bytes that may still be kept with it
        self._written = 0.0  # when content was handed to the transport last
        self._unsent = 0  # at the deadline, the peer must have fewer bytes to take than this
        self._waiters: list[asyncio.Future[None]] | None = None  # made for the first one

    def open(self, transport: asyncio.Transport) -> None:
        """Write to *transport* from now on."""
        self.transport = transport
        transport.set_write_buffer_limits(high=self._high_water)

    def close(self) -> None:
        """End writing: the transport is gone, or another protocol has it. Waiting coroutines get a ConnectionGone."""
        if self.deadline != NEVER:
            self.unwatch()
        if self.paused:
            self._clock.budgets.unsent.forget(self)
        self.pending = b""
        self._gathered = None
        if self._waiters is not None:
            self.wake(ConnectionGone("the peer closed the connection"))
        self.paused = self.is_held_back = False
        self.transport = None
        self._owner = None  # ends a reference cycle

    # ------------------------------------------------------------------ writes

    def write_at_turn_end(self, data: bytes) -> None:
        """Keep bytes until the end of this turn of the loop, or until the next write or close.

        So responses to pipelined requests become one write, and all responses of a turn are written in a row, see
        ``Clock.flush_unsent``.
        """
        if self._gathered is not None:
            self._gather([data], len(data))
        elif self.pending:
            self.pending += data
            if len(self.pending) > _PENDING_MAX:
                self.flush()
        else:
            self.pending = data
            if not self.registered:
                self.flush_at_turn_end()

    def flush_at_turn_end(self) -> None:
        """Flush at the end of this turn of the loop."""
        self.registered = True
        clock = self._clock
        if not clock.unsent:
            self.loop.call_soon(clock.flush)
        clock.unsent.append(self)

    def flush(self) -> None:
        """Hand the bytes that :meth:`write_at_turn_end` has kept to the transport.

        If there are none at the end of a turn, the owner may have a head to send.
        """
        data = self.pending
        if data:
            self.pending = b""
            self.registered = False
            transport = self.transport
            # A transport that fails in this turn calls connection_lost() in the next one. Until then uvloop's raises.
            if transport is None or transport.is_closing():
                self._gathered = None
                return
            if self._gathered is not None:
                gathered, self._gathered = self._gathered, None
                self._written = monotonic()
                self._hand_over(transport, [data, *gathered])
                return
            # Bytes that are added while the deadline runs do not count as bytes that the peer has not read.
            if self.paused:
                self._unsent += len(data)
            transport.write(data)
        elif self.registered:
            self.registered = False
            if self._owner is not None:
                self._owner.turn_ended()

    def write(self, data: bytes) -> None:
        """Hand bytes to the transport, behind those that :meth:`write_at_turn_end` has kept."""
        if self.pending:
            if len(data) < _PENDING_MAX and self._gathered is None:
                data = self.pending + data
                self.pending = b""
            else:
                self.flush()
        transport = self.transport
        if transport is not None:
            if len(data) > SMALL:
                self._hand_over(transport, [data])
                return
            if self.paused:
                self._unsent += len(data)
            transport.write(data)

    def write_parts(self, parts: list[bytes]) -> None:
        """Hand bytes to the transport, without a copy where that is possible."""
        if self.pending:
            self.flush()
        if self.transport is not None:
            self._hand_over(self.transport, parts)

    def _hand_over(self, transport: asyncio.Transport, parts: list[bytes]) -> None:
        """Hand bytes to the system and the transport; note what waits; hold writers back if memory is short."""
        if self.paused:
            self._unsent += sum(map(len, parts))
        if not write_past(transport, parts):
            if len(parts) == 1:
                transport.write(parts[0])
            elif isinstance(transport, asyncio.WriteTransport):
                # asyncio's writelines() does not pause the writer in 3.12 and 3.13.0 (CVE-2024-12254), and breaks the
                # loop's selector when the connection has just been lost. uvloop's transports, which are no
                # WriteTransports, have neither fault.
                transport.write(b"".join(parts))
            else:
                transport.writelines(parts)
        budgets = self._clock.budgets
        if self.paused:  # it was noted when it was paused
            budgets.unsent.note_reader(self, transport.get_write_buffer_size() or 1, anew=False)
        elif budgets.unsent.over and not self.is_taken:
            self.paused = self.is_held_back = True
            self.watch()
            budgets.hold_back.add(self)

    # ------------------------------------------------------------------ content in pieces

    def write_content(self, parts: list[bytes]) -> None:
        """Hand a piece of content to the transport, or keep it until more has come or this turn of the loop ends.

        A piece is kept if it comes within a millisecond of the last write, and the system has room for it: what a peer
        does not read is not kept here. So a response of many pieces takes few writes, each of which may wake the peer.
        One of 1 MiB in 16 pieces takes 5 writes in place of 16, and on a busy machine, where a wake-up is cheap, 303 us
        of CPU in place of 331 (python -m benchmarks asgi-stream). In a crowd no piece is kept: those of all connections
        in one turn would be hundreds of MiB.

        Args:
            parts: What the piece is made of; not empty, and the first part is not empty.
        """
        size = sum(map(len, parts))
        if self._gathered is not None:
            self._gather(parts, size)
            return
        transport = self.transport
        if transport is None:
            return
        now = monotonic()
        clock = self._clock
        if now - self._written < _BURST and not (self.paused or clock.write_through or clock.is_crowd):
            self._room = self._room_for(transport, size) - len(self.pending)
            if size < self._room:
                parts = [*map(bytes, parts)]  # the application may change an object that is not bytes
                if not self.pending:
                    # The rest of the writer looks at ``pending`` to know whether anything waits.
                    self.pending, *parts = parts
                if not self.registered:
                    self.flush_at_turn_end()
                self._gathered = parts
                self._room -= size
                return
        self._written = now
        if len(parts) == 1:
            self.write(parts[0])
        elif size < _PENDING_MAX:
            self.write(b"".join(parts))
        else:
            self.write_parts(parts)

    def _gather(self, parts: list[bytes], size: int) -> None:
        """Keep *parts* behind what is kept already."""
        assert self._gathered is not None
        self._gathered += map(bytes, parts)
        self._room -= size
        if self._room <= 0 or monotonic() - self._written >= _BURST:
            self.flush()

    def _room_for(self, transport: asyncio.Transport, size: int) -> int:
        """Return how many bytes the system surely takes now, of content that comes in pieces of *size* bytes."""
        sock = transport.get_extra_info("socket")
        if (
            sock is None
            or transport.get_write_buffer_size()
            or (size >= _RECORD and transport.get_extra_info("sslcontext") is not None)
        ):
            return 0
        unsent = _unsent_by_system(sock)
        if unsent is None:
            return 0
        # Half of it: the system also counts its own memory around the bytes.
        room: int = (sock.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) - unsent) >> 1
        return min(room, _GATHERED_MAX)

    # ------------------------------------------------------------------ room

    def pause(self) -> None:
        """Let writers wait: the transport's buffer is above its high-water mark."""
        self.paused = True
        self.is_held_back = False  # the transport says when writers may go on
        self.watch()

    @property
    def is_taken(self) -> bool:
        """Whether next to nothing waits to be sent, here and in the system."""
        transport = self.transport
        if transport is None:
            return True
        if transport.get_write_buffer_size():
            return False
        sock = transport.get_extra_info("socket")
        return sock is None or (_count(sock, _COUNT_NOT_SENT) or 0) <= _KEPT_MOST

    def go_on(self) -> None:
        """Hold writers back no longer."""
        if self._owner is not None:
            self._owner.resume_writing()

    @property
    def unread(self) -> int:
        """How many bytes the peer still has to take, as far as the system knows."""
        return 0 if self.transport is None else self._outgoing(self.transport)

    @property
    def bytes_read(self) -> int:
        """How many bytes the peer has read since the deadline was set."""
        return 0 if self.transport is None else self._unsent - self._outgoing(self.transport)

    def give_up(self, budget: Budget) -> str:
        """Reset the connection: the peer reads next to nothing."""
        context, owner = self._context, self._owner
        self.unwatch()
        if owner is not None:
            owner.write_stalled()
        return f"the connection of {context}, which does not read"

    def resume(self) -> None:
        """Let writers go on."""
        self.paused = self.is_held_back = False
        self.unwatch()
        self._clock.budgets.unsent.forget(self)
        self.wake(None)

    def set_high_water(self, size: int) -> None:
        """Pause writers when more than *size* bytes wait to be sent."""
        self._high_water = size
        if self.transport is not None:
            self.transport.set_write_buffer_limits(high=size)

    async def emptied(self) -> None:
        """Wait until the transport's buffer is empty.

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
            while self.paused:
                await self.writable()
        finally:
            if self.transport is not None:
                self.transport.set_write_buffer_limits(high=self._high_water)

    def writable(self) -> asyncio.Future[None]:
        """Return a future that is done when the transport's buffer is below its low-water mark again.

        It fails with ConnectionGone when the connection ends first.
        """
        future = self.loop.create_future()
        if self._owner is None:
            future.set_exception(ConnectionGone("the peer closed the connection"))
            return future
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(future)
        return future

    def wake(self, error: Exception | None) -> None:
        """Complete the futures of :meth:`writable`, with *error* if it is not None."""
        waiters = self._waiters
        if waiters is not None:
            self._waiters = None
            for future in waiters:
                if not future.done():
                    if error is None:
                        future.set_result(None)
                    else:
                        future.set_exception(error)

    # ------------------------------------------------------------------ the peer that does not read

    def watch(self) -> None:
        """Start the deadline: from now on the peer has to read something within every write timeout."""
        if self.transport is not None and self._owner is not None:
            self._unsent = self._outgoing(self.transport)
            size = self.transport.get_write_buffer_size()
            if self.paused and (size or not self.is_held_back):
                self._clock.budgets.unsent.note_reader(self, size or 1, anew=True)
            self.deadline = self._clock.after(self._limits.write_timeout)
            if self.deadline != NEVER:
                self._clock.watch(self)

    def watch_end(self, *, ended: bool) -> None:
        """Start the deadline for what is left to send, if it does not run already.

        A closed transport with nothing left ends in the next turn of the loop. Watching it all the same costs a
        connection of one request 3 %. With TLS, there is still the end of TLS to send and to wait for.

        Args:
            ended: The transport was closed.
        """
        transport = self.transport
        if transport is None or self.deadline != NEVER:
            return
        if not ended or transport.get_write_buffer_size() or transport.get_extra_info("sslcontext") is not None:
            self.watch()

    def unwatch(self) -> None:
        """Stop the deadline: the peer does not have to read."""
        if self.deadline != NEVER:
            self.deadline = NEVER
            self._clock.forget(self)

    def deadline_passed(self, now: float) -> None:
        """Start the deadline again if the peer has read something; otherwise tell the owner."""
        transport, owner = self.transport, self._owner
        self.unwatch()
        if transport is None or owner is None:
            return
        unsent = self._outgoing(transport)
        if unsent and unsent >= self._unsent:
            gen_log.info("Timeout writing to %s: %d bytes unsent", self._context, unsent)
            owner.write_stalled()
        else:
            self.watch()

    def on_idle(self) -> None:
        """Do nothing: a writer keeps nothing for speed."""

    def _outgoing(self, transport: asyncio.Transport) -> int:
        """Return how many bytes the peer still has to take: of the transport, of a file, and of the system's buffer."""
        # The system's buffer can hold megabytes, and takes more bytes only when much of it is free. Without its count,
        # a peer that reads slowly but steadily would seem to read nothing for minutes.
        size = transport.get_write_buffer_size() + self.file_left
        sock = transport.get_extra_info("socket")
        if sock is not None:
            size += _unsent_by_system(sock) or 0
        return size


def _unsent_by_system(sock: Any) -> int | None:
    """Return how many bytes the system's buffer of *sock* has; None if that is not known."""
    return None if _COUNT_UNSENT is None else _count(sock, _COUNT_UNSENT)


def _count(sock: Any, kind: int) -> int | None:
    """Return how many bytes of a kind the system has for *sock*; None if that is not known."""
    if _COUNT_UNSENT is not None:
        with contextlib.suppress(OSError, ValueError):  # the socket is closed, or has no such count
            count: int = _INT.unpack(fcntl.ioctl(sock.fileno(), kind, bytes(_INT.size)))[0]
            return count
    return None
