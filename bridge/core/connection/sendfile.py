"""Content from a file, by the kernel alone where that is possible.

The bytes go past the transport: what it still holds is sent first, then ``sendfile`` writes to a duplicate of its
socket. The loop's own ``sendfile`` would do, but uvloop has none.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from typing import TYPE_CHECKING

from bridge.core.connection.clock import NEVER
from bridge.errors import ConnectionGone, LocalProtocolError

if TYPE_CHECKING:
    from bridge.core.connection.writer import Writer

__all__ = ["read_piece", "send_range"]

# Sent in one call, in bytes: the loop does nothing else meanwhile.
_PIECE = 262144
# What the system says of a file or a socket that sendfile cannot serve.
_UNFIT = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSOCK, errno.EOPNOTSUPP})


def read_piece(file: int, offset: int, count: int) -> bytes:
    """Return at most *count* bytes of a file.

    Raises:
        LocalProtocolError: The file ends before *offset*.
    """
    data = os.pread(file, count, offset)
    if not data:
        raise LocalProtocolError(f"the file ends at {offset}, at least {count} bytes too early")
    return data


async def send_range(writer: Writer, file: int, offset: int, count: int) -> int:
    """Send *count* bytes of a file as they are; nothing else may be written meanwhile.

    Returns:
        How many bytes were sent: *count*, or 0 where sendfile is not possible.

    Raises:
        ConnectionGone: The connection ended first.
        LocalProtocolError: The file is shorter.
    """
    transport = writer.transport
    if transport is None:
        raise ConnectionGone("the peer closed the connection")
    sock = transport.get_extra_info("socket")
    if sock is None or transport.get_extra_info("sslcontext") is not None or not hasattr(os, "sendfile"):
        return 0
    await writer.emptied()
    target = os.dup(sock.fileno())
    sent = 0
    try:
        while sent < count:
            try:
                size = os.sendfile(target, file, offset + sent, min(count - sent, _PIECE))
            except BlockingIOError:
                writer.file_left = count - sent
                await _writable(writer, target)
                continue
            except OSError as exc:
                if not sent and exc.errno in _UNFIT:
                    return 0
                if writer.transport is not None:
                    # It has not seen the error, and will not if the peer had closed its side before. By the time the
                    # caller is told, everybody is: what comes of a client that left is no error.
                    lost = writer.writable()
                    transport.abort()
                    with contextlib.suppress(ConnectionGone):
                        await lost
                raise ConnectionGone(f"the connection was lost: {exc}") from exc
            if not size:
                raise LocalProtocolError(f"the file ends {count - sent} bytes too early")
            sent += size
            if sent < count:
                await asyncio.sleep(0)
    finally:
        writer.file_left = 0
        if not writer.paused:
            writer.unwatch()
        os.close(target)
    return sent


async def _writable(writer: Writer, target: int) -> None:
    """Wait until the socket takes more."""
    if writer.deadline == NEVER:
        writer.watch()
    future = writer.writable()  # fails when the connection ends

    def ready() -> None:
        if not future.done():
            future.set_result(None)

    writer.loop.add_writer(target, ready)
    try:
        await future
    finally:
        writer.loop.remove_writer(target)
