"""Writes to a socket past its transport, so that parts are not copied, and what is left keeps nothing else alive.

A transport keeps what a socket does not take. uvloop's transports, and asyncio's from Python 3.12 on, keep the whole
object for that: the last kilobyte of a response keeps all of its megabyte. No budget could count that, since transports
tell only how much they still have to send: with a thousand clients that did not read, the process held 510 MiB, of
which 170 were counted. So the transport gets a copy of what is left.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence

__all__ = ["write_past"]

# Transports with nothing, such as TLS, between them and the socket.
_PLAIN = {
    ("asyncio.selector_events", "_SelectorSocketTransport"),
    ("uvloop.loop", "TCPTransport"),
    ("uvloop.loop", "UnixTransport"),
}
# Parts that are written at once; Linux takes 1024.
_PARTS_MAX = 256


def write_past(transport: asyncio.Transport, parts: Sequence[bytes]) -> bool:
    """Write *parts* to the socket, and what it does not take to the transport.

    Returns:
        Whether the socket took anything. If not, nothing was written, since something such as TLS is in between or the
        socket takes nothing; the caller then writes to the transport, which finds out why.
    """
    kind: Any = type(transport)
    if (
        (kind.__module__, kind.__name__) not in _PLAIN
        or not hasattr(os, "writev")
        or len(parts) > _PARTS_MAX
        or transport.get_write_buffer_size()
        or transport.is_closing()
    ):
        return False
    try:
        sent = os.writev(transport.get_extra_info("socket").fileno(), parts)
    except (OSError, ValueError):
        return False
    for number, part in enumerate(parts):
        if sent < len(part):
            transport.write(b"".join([part[sent:], *parts[number + 1 :]]))
            break
        sent -= len(part)
    return True
