"""Sends content from a file, by the kernel's ``sendfile`` where that is possible.

The bytes do not go through the transport: its buffer is sent first, then ``sendfile`` writes to a duplicate of its
socket. The event loop's own ``sendfile`` method is not used, since uvloop has none.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
from typing import TYPE_CHECKING

from bridge.core.connection.clock import NEVER
from bridge.core.util import read_at
from bridge.errors import ConnectionGone, LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.core.connection.writer import Writer

__all__ = ["read_piece", "send_range"]

# Bytes sent in one call, during which the loop does nothing else.
_PIECE = 262144
# The errors of a file or a socket for which sendfile does not work.
_UNFIT = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSOCK, errno.EOPNOTSUPP})


def read_piece(file: int, offset: int, count: int) -> bytes:
    """Return at least one and at most *count* bytes of a file.

    Args:
        file: A file descriptor; its position is neither used nor moved.
        offset: Where to begin, in bytes.
        count: The most bytes; not 0.

    Raises:
        LocalProtocolError: The file ends at *offset* or before.
    """
    data = read_at(file, count, offset)
    if not data:
        raise LocalProtocolError(f"the file ends at {offset}, at least {count} bytes too early")
    return data


async def send_range(writer: Writer, file: int, offset: int, count: int, note_sent: Callable[[int], None]) -> int:
    """Send *count* bytes of a file without encoding them; nothing else may be written meanwhile.

    Args:
        writer: The connection's writer.
        file: A file descriptor; its position is neither used nor moved.
        offset: Where to begin, in bytes.
        count: How many bytes to send.
        note_sent: Called with the number of bytes that were sent now, each time.

    Returns:
        How many bytes were sent: *count*, or 0 if sendfile is not possible.

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
    target = os.dup(sock.fileno())  # the loop refuses add_writer() for a transport's own descriptor
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
                    # The transport has not seen the error, and does not see it if the peer had half-closed before. So
                    # it is aborted, and the caller is told only after the connection's end was noted: otherwise the
                    # failure would be logged as an error of the application.
                    lost = writer.writable()
                    transport.abort()
                    with contextlib.suppress(ConnectionGone):
                        await lost
                raise ConnectionGone(f"the connection was lost: {exc}") from exc
            if not size:
                raise LocalProtocolError(f"the file ends {count - sent} bytes too early")
            sent += size
            note_sent(size)
            if sent < count:
                await asyncio.sleep(0)  # other connections go on
    finally:
        writer.file_left = 0
        if not writer.paused:
            writer.unwatch()
        os.close(target)
    return sent


async def _writable(writer: Writer, target: int) -> None:
    """Wait until the socket *target* takes more bytes, or the connection has ended.

    Raises:
        ConnectionGone: The connection has ended.
    """
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
