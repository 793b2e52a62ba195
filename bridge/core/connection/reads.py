"""How much a transport reads from its socket at once.

By default a transport reads 256 KiB, and one turn of the loop reads all sockets that have something. A thousand clients
that send much would block the loop for 100 ms and more, and make the process hold 200 MiB, before ``turns`` could put
any work off. So connections read 16 KiB at once. They read more where large content comes fast and no other connection
has to wait.

On asyncio's transports and on bridge's own transports for TLS this number can be set. uvloop's transports read into one
buffer of the loop, unless the protocol has a buffer of its own. So in a crowd, a protocol with a buffer stands between
transport and connection. Otherwise nothing stands there, since it costs a call more for each read.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from bridge.core.connection.clock import Clock

__all__ = ["most_ahead", "read_at_start", "read_by_default", "read_little", "read_much"]

_LITTLE, _MUCH = 16384, 262144
# The most bytes of the next requests that are kept while a response is pending. In a crowd the number is smaller than
# one read.
_AHEAD, _AHEAD_IN_CROWD = 65536, 8192

# The buffers of uvloop's loops. A loop reads from one socket after the other, so one is enough for each.
_of_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, memoryview] = weakref.WeakKeyDictionary()


class _LittleReads(asyncio.BufferedProtocol):
    """Stands between a transport of uvloop and its protocol, and reads 16 KiB at once.

    Args:
        protocol: The protocol.
        buffer: The loop's buffer.
    """

    __slots__ = ("_buffer", "protocol")

    def __init__(self, protocol: asyncio.Protocol, buffer: memoryview) -> None:
        self.protocol = protocol
        self._buffer = buffer

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

    def get_buffer(self, sizehint: int) -> memoryview:
        """Return where the transport puts what it reads."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Pass on what was read."""
        self.protocol.data_received(bytes(self._buffer[:nbytes]))


def most_ahead(clock: Clock) -> int:
    """Return how many bytes of the next requests are kept; beyond them, the transport stops reading."""
    return _AHEAD_IN_CROWD if clock.is_crowd else _AHEAD


def read_at_start(transport: asyncio.Transport, *, crowd: bool) -> None:
    """Do as :func:`read_by_default` for a new transport, which reads 256 KiB at once."""
    if crowd or hasattr(transport, "max_size"):
        read_little(transport)


def read_by_default(transport: asyncio.Transport, *, crowd: bool) -> None:
    """Read at most 16 KiB at once; on uvloop's loop, where that costs more, only in a crowd, and otherwise 256 KiB."""
    if crowd or hasattr(transport, "max_size"):
        read_little(transport)
    else:
        read_much(transport)


def read_little(transport: asyncio.Transport) -> None:
    """Read at most 16 KiB at once. Called on the transport's loop."""
    if hasattr(transport, "max_size"):
        transport.max_size = _LITTLE
    elif _is_uvloop(transport):
        protocol = transport.get_protocol()
        if not isinstance(protocol, _LittleReads) and not transport.is_closing():
            loop = asyncio.get_running_loop()
            buffer = _of_loop.get(loop)
            if buffer is None:
                buffer = _of_loop[loop] = memoryview(bytearray(_LITTLE))
            _exchange(transport, _LittleReads(cast("asyncio.Protocol", protocol), buffer))


def read_much(transport: asyncio.Transport) -> None:
    """Read as much at once as the loop does by default."""
    if hasattr(transport, "max_size"):
        transport.max_size = _MUCH
    elif _is_uvloop(transport):
        protocol = transport.get_protocol()
        if isinstance(protocol, _LittleReads):
            _exchange(transport, protocol.protocol)


def _is_uvloop(transport: Any) -> bool:
    """Tell whether it is a transport of uvloop on a socket. uvloop's TLS transports are of another module."""
    return type(transport).__module__ == "uvloop.loop" and type(transport).__name__ in {"TCPTransport", "UnixTransport"}


def _exchange(transport: asyncio.Transport, protocol: asyncio.BaseProtocol) -> None:
    """Set the protocol and restart reading: uvloop looks at a protocol's kind only when reading starts."""
    reading = transport.is_reading()
    if reading:
        transport.pause_reading()
    transport.set_protocol(protocol)
    if reading:
        transport.resume_reading()
