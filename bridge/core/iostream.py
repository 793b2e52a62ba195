"""Streams under Tornado's documented names, and how a TCPServer comes to them.

``bridge.core.stream`` has the classes.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

from bridge.core.ioloop import IOLoop
from bridge.core.stream.errors import StreamBufferFullError, StreamClosedError, UnsatisfiableReadError
from bridge.core.stream.stream import IOStream
from bridge.core.stream.tls import SSLIOStream

if TYPE_CHECKING:
    from bridge.core.tcpserver import TCPServer

__all__ = [
    "IOStream",
    "SSLIOStream",
    "StreamBufferFullError",
    "StreamClosedError",
    "UnsatisfiableReadError",
    "stream_protocol",
]


def stream_protocol(
    server: TCPServer, loop: asyncio.AbstractEventLoop, sock: socket.socket, address: Any
) -> asyncio.Protocol:
    """Return the stream of a connection that *server* has accepted, which is given to its ``handle_stream`` now.

    With TLS the handshake is still to come (``wait_for_handshake``).
    """
    sizes: dict[str, Any] = {"max_buffer_size": server.max_buffer_size, "read_chunk_size": server.read_chunk_size}
    stream = IOStream(sock, **sizes) if server.ssl_options is None else SSLIOStream(sock, server_side=True, **sizes)
    stream._given = True
    result = server.handle_stream(stream, address)
    if result is not None:
        IOLoop.current().add_future(asyncio.ensure_future(result, loop=loop), lambda future: future.result())
    return stream
