"""A connection to bridge without a socket and without the kernel: what happens on it is the same each time.

What the measurements inside one process need of bridge is imported here.
"""

import asyncio
import socket
from typing import Any

from bridge.adapters.asgi import ASGIDelegate
from bridge.adapters.wsgi import WSGIDelegate
from bridge.config import Config
from bridge.core.connection.parameters import ConnectionParameters, HTTP2Parameters
from bridge.core.httpserver import HTTPServer
from bridge.core.httputil import HTTPHeaders, ResponseStartLine

__all__ = [
    "ASGIDelegate",
    "HTTPHeaders",
    "HTTPServer",
    "ResponseStartLine",
    "Transport",
    "WSGIDelegate",
    "connect",
    "parameters",
]

PEER = ("127.0.0.1", 4000)
LOCAL = ("127.0.0.1", 80)


class Transport(asyncio.Transport):
    """Takes everything at once and counts the writes."""

    def __init__(self) -> None:
        super().__init__({"peername": PEER, "sockname": LOCAL})
        self.writes = 0
        self.protocol: asyncio.Protocol

    def write(self, data: Any) -> None:
        self.writes += 1

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def get_protocol(self) -> asyncio.Protocol:
        return self.protocol

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def abort(self) -> None:
        pass

    close = abort


class AcceptedSocket:
    """As much of an accepted socket as a server looks at."""

    family = socket.AF_INET

    def getsockname(self) -> tuple[str, int]:
        return LOCAL


def parameters(
    delegate: ASGIDelegate | WSGIDelegate | None = None, *, metrics: bool = False, http2: bool = False
) -> ConnectionParameters:
    """Return the parameters of a server.

    Args:
        delegate: Its delegate, which shows observers what they look at, as the server of the command asks it to.
        metrics: It counts its exchanges, as with --admin-bind.
        http2: It speaks HTTP/2 only.
    """
    spoken = HTTP2Parameters(alone=True, cleartext=lambda context: True) if http2 else None
    if not metrics:
        return ConnectionParameters(http2=spoken)
    from bridge.telemetry.metrics.process import ProcessMetrics

    # As in a server with the usual settings, whose client is no trusted proxy.
    counts = ProcessMetrics.alone(Config(), lambda context: False)
    if delegate is not None:
        delegate.observe(counts.count_messages)
    return ConnectionParameters(http2=spoken, observer=counts.observer, timed=True, timed_answers=False)


def connect(server: HTTPServer, transport: Transport) -> None:
    """Let *server* have a connection whose transport is *transport*, on the running loop."""
    # What the server itself calls for a socket that it has accepted.
    protocol = server._protocol(asyncio.get_running_loop(), AcceptedSocket(), PEER, None)
    transport.set_protocol(protocol)
    protocol.connection_made(transport)
