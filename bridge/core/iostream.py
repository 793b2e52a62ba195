"""Streams under Tornado's documented names, and the function that makes one for an accepted connection.

``bridge.core.stream`` has the classes.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

from bridge.core.ioloop import IOLoop
from bridge.core.stream.errors import StreamBufferFullError, StreamClosedError, UnsatisfiableReadError
from bridge.core.stream.stream import IOStream
from bridge.core.stream.tls import SSLIOStream

__all__ = [
    "IOStream",
    "SSLIOStream",
    "StreamBufferFullError",
    "StreamClosedError",
    "UnsatisfiableReadError",
    "stream_protocol",
]


def stream_protocol(
    handle_stream: Callable[[IOStream, Any], Any],
    loop: asyncio.AbstractEventLoop,
    sock: socket.socket,
    address: Any,
    *,
    tls: bool,
    max_buffer_size: int,
    read_chunk_size: int,
) -> asyncio.Protocol:
    """Return the stream of an accepted connection, after handing it to *handle_stream*.

    Args:
        handle_stream: Takes the stream and the address; may be a coroutine function.
        loop: The event loop.
        sock: The accepted socket.
        address: The peer's address.
        tls: The connection speaks TLS. The handshake is still to come (``wait_for_handshake``).
        max_buffer_size: Most bytes kept for a reader.
        read_chunk_size: Bytes that are read ahead when nothing reads.
    """
    sizes: dict[str, Any] = {"max_buffer_size": max_buffer_size, "read_chunk_size": read_chunk_size}
    stream = SSLIOStream(sock, server_side=True, **sizes) if tls else IOStream(sock, **sizes)
    stream._given = True
    result = handle_stream(stream, address)
    if result is not None:
        IOLoop.current().add_future(asyncio.ensure_future(result, loop=loop), lambda future: future.result())
    return stream
