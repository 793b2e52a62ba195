"""A transport without a socket: what it does to a protocol is what asyncio's and uvloop's transports do.

``test_faketransport`` compares the three.
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any

__all__ = ["FakeSocket", "FakeTransport"]


class FakeSocket:
    """Remembers the options that were set; counts what the system holds, which is nothing here."""

    family = socket.AF_INET

    def __init__(self) -> None:
        self.options: list[tuple[Any, ...]] = []

    def setsockopt(self, *option: Any) -> None:
        self.options.append(option)

    def fileno(self) -> int:
        return -1


class FakeTransport(asyncio.Transport):
    """The server's end of a connection; the methods that begin with ``peer_`` are the other end.

    Attributes:
        received: What has arrived at the peer.
        eof: The peer has seen the end of what we send.
        lost: connection_lost() was called.
        aborted: abort() was called.
        faults: Uses that a real transport forbids, or would silently ignore; a test that leaves some has failed.
        window: Bytes that the peer, and what is between, take before it reads again; None for any number.
        peak: The most bytes that were ever waiting to be sent.
        shutdown_error: What write_eof() fails with, as asyncio's does when the peer has just reset the connection.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, protocol: asyncio.Protocol, *, tls: bool = False) -> None:
        self.socket = FakeSocket()
        super().__init__({"socket": self.socket, "peername": ("192.0.2.1", 4000), "sockname": ("192.0.2.2", 80)})
        self._loop = loop
        self._protocol: asyncio.BaseProtocol = protocol
        self._tls = tls
        self._out = bytearray()
        self._in: list[bytes | None] = []  # what the system holds for us; None is the end
        self._high, self._low = 65536, 16384
        self._writing_paused = False
        self._reading_paused = False
        self._closing = False
        self._eof_written = False
        self._ended = False  # connection_lost() is on its way
        self._gone = False  # the peer has reset the connection
        self.received = bytearray()
        self.eof = False
        self.lost = False
        self.aborted = False
        self.faults: list[str] = []
        self.window: int | None = None
        self.shutdown_error: OSError | None = None
        self.peak = 0
        loop.call_soon(protocol.connection_made, self)

    # ------------------------------------------------------------------ asyncio.Transport

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def is_closing(self) -> bool:
        return self._closing

    def is_reading(self) -> bool:
        return not self._closing and not self._reading_paused

    def pause_reading(self) -> None:
        self._reading_paused = True

    def resume_reading(self) -> None:
        if self._reading_paused:
            self._reading_paused = False
            self._loop.call_soon(self._deliver)

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        if high is None:
            high = 65536 if low is None else 4 * low
        self._high, self._low = high, high // 4 if low is None else low
        self._maybe_pause()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self._low, self._high

    def get_write_buffer_size(self) -> int:
        return len(self._out)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if not isinstance(data, (bytes, bytearray, memoryview)):
            self._fault(f"write() of {type(data)}")
            raise TypeError(type(data))
        if self._eof_written:
            self._fault("write() after write_eof()")
            raise RuntimeError("Cannot call write() after write_eof()")
        if self._closing and not self._gone:
            self._fault("write() after close()")
        if self._closing or self._gone or not data:
            return
        self._out += data
        self.peak = max(self.peak, len(self._out))
        self._flush()
        self._maybe_pause()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def write_eof(self) -> None:
        if self._closing or self._eof_written:
            return
        if self.shutdown_error is not None:
            raise self.shutdown_error
        self._eof_written = True
        self._flush()

    def can_write_eof(self) -> bool:
        return not self._tls

    def close(self) -> None:
        if self._closing:
            return
        self._closing = True
        if not self._out:
            self._end(None)

    def abort(self) -> None:
        self.aborted = True
        self._closing = True
        self._out.clear()
        self._end(None)

    # ------------------------------------------------------------------ the peer

    def peer_sends(self, data: bytes) -> None:
        self._in.append(data)
        self._deliver()

    def peer_sends_eof(self) -> None:
        self._in.append(None)
        self._deliver()

    def peer_reads(self, size: int | None = None) -> None:
        """Make room for *size* bytes more; None for all there will ever be."""
        self.window = None if size is None else (self.window or 0) + size
        self._flush()

    def peer_resets(self) -> None:
        self._gone = True
        self._closing = True
        self._out.clear()
        self._end(ConnectionResetError(104, "Connection reset by peer"))

    # ------------------------------------------------------------------ inside

    def _fault(self, text: str) -> None:
        self.faults.append(text)

    def _maybe_pause(self) -> None:
        if len(self._out) > self._high and not self._writing_paused:
            self._writing_paused = True
            self._protocol.pause_writing()

    def _deliver(self) -> None:
        while self._in and not self._closing and not self._reading_paused:
            data = self._in.pop(0)
            protocol = self._protocol
            assert isinstance(protocol, asyncio.Protocol)
            if data is None:
                keep_open = protocol.eof_received()
                if self._tls and keep_open:
                    self._fault("eof_received() returned True under TLS, which has no effect")
                if not keep_open or self._tls:
                    self.close()
            else:
                protocol.data_received(data)

    def _flush(self) -> None:
        size = len(self._out) if self.window is None else min(self.window, len(self._out))
        self.received += self._out[:size]
        del self._out[:size]
        if self.window is not None:
            self.window -= size
        if self._writing_paused and len(self._out) <= self._low:
            self._writing_paused = False
            self._protocol.resume_writing()
        if not self._out:
            if self._eof_written:
                self.eof = True
            if self._closing:
                self._end(None)

    def _end(self, exc: Exception | None) -> None:
        if not self._ended:
            self._ended = True
            self._loop.call_soon(self._lose, exc)

    def _lose(self, exc: Exception | None) -> None:
        self.lost = True
        self.eof = True
        self._protocol.connection_lost(exc)
