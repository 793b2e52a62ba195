"""Closes transports; with TLS, without waiting for the peer to agree. Tells whether a close would lose a request."""

from __future__ import annotations

import asyncio
import struct
from contextlib import suppress
from typing import Any

try:
    from fcntl import ioctl
    from termios import FIONREAD, TIOCOUTQ

    _UNREAD, _UNSENT = FIONREAD, TIOCOUTQ
except ImportError:  # Windows
    ioctl = None  # type: ignore[assignment]  # as said
    _UNREAD = _UNSENT = 0

__all__ = ["SHUTDOWN_TIMEOUT", "close", "holds_unread"]

#: Seconds that the loop's own TLS shutdown may take. A short time would cut off a slow reader. close() ends the
#: shutdown earlier.
SHUTDOWN_TIMEOUT = 600.0
# How often (seconds) a closed connection is looked at, and when that is given up.
_LOOK = 0.5
_LOOKS = 1200


def close(transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
    """Close *transport* when everything is sent.

    A TLS transport then sends a close_notify alert, and waits for the peer's. But the peer need not answer (RFC 8446
    section 6.1), and clients that pool connections do not while their application reads nothing. So the connection ends
    as soon as the peer's system has taken everything. A slow reader still gets all of it.
    """
    transport.close()
    if transport.get_extra_info("sslcontext") is not None:
        loop.call_later(_LOOK, _look, transport, loop, _LOOKS)


def _look(transport: asyncio.Transport, loop: asyncio.AbstractEventLoop, looks: int) -> None:
    left = _unsent(transport.get_extra_info("socket"))
    if left is None:
        return
    if left == 0 or not looks:
        transport.abort()  # nothing happens if the connection has ended meanwhile
    else:
        loop.call_later(_LOOK, _look, transport, loop, looks - 1)


def holds_unread(transport: asyncio.Transport) -> bool:
    """Tell whether the system holds bytes of the peer that the loop has not read yet.

    A close would reset the connection then (RFC 9112 section 9.6), under a request that came in time.
    """
    return bool(_queued(transport.get_extra_info("socket"), _UNREAD))


def _unsent(sock: Any) -> int | None:
    """Return how many bytes the peer's system has not taken yet; None if the connection has ended.

    While the transport has bytes left, the system's queue is not empty. So that queue alone tells whether all was
    taken.
    """
    return _queued(sock, _UNSENT)


def _queued(sock: Any, queue: int) -> int | None:
    """Return how many bytes one of the system's queues holds; None if the connection has ended."""
    if sock is None or sock.fileno() < 0:
        return None
    if ioctl is None:
        return 0
    with suppress(OSError):
        (left,) = struct.unpack("i", ioctl(sock.fileno(), queue, bytes(4)))
        return int(left)
    return None
