"""Protocols that have a buffer of their own, for transports that give out bytes."""

from __future__ import annotations

import asyncio

__all__ = ["Filled"]


class Filled(asyncio.Protocol):
    """Gives what is received to a protocol that has a buffer of its own.

    ``_LittleReads`` of ``core/connection/reads.py`` passes on the same four calls, in the other direction. A base for
    both would need a part below sockets and connections, for four lines of code.

    Args:
        protocol: The protocol.
    """

    __slots__ = ("protocol",)

    def __init__(self, protocol: asyncio.BufferedProtocol) -> None:
        self.protocol = protocol

    def eof_received(self) -> bool | None:
        """Pass it on."""
        return self.protocol.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        """Pass it on."""
        self.protocol.connection_lost(exc)

    def pause_writing(self) -> None:
        """Pass it on."""
        self.protocol.pause_writing()

    def resume_writing(self) -> None:
        """Pass it on."""
        self.protocol.resume_writing()

    def data_received(self, data: bytes) -> None:
        """Copy *data* into the protocol's buffer, in as many pieces as that needs."""
        left = memoryview(data)
        while left:
            buffer = memoryview(self.protocol.get_buffer(len(left)))
            size = min(len(buffer), len(left))
            if not size:
                raise RuntimeError("get_buffer() returned an empty buffer")
            buffer[:size] = left[:size]
            self.protocol.buffer_updated(size)
            left = left[size:]
