"""HTTP1ServerConnection: lets a program serve a stream without an HTTPServer."""

from __future__ import annotations

from abc import ABC
from typing import TYPE_CHECKING, Any

from bridge.core.connection.clock import Clock
from bridge.core.connection.http1 import ServerConnection
from bridge.core.ioloop import IOLoop
from bridge.core.tornado.connection import TornadoConnection, context_of
from bridge.core.tornado.dispatch import DelegateAdapter, adapt
from bridge.core.tornado.parameters import HTTP1ConnectionParameters

if TYPE_CHECKING:
    from bridge.core.stream.stream import IOStream

__all__ = ["HTTP1ServerConnection"]


class HTTP1ServerConnection(TornadoConnection, ABC):
    """The server's side of one TCP connection.

    The connections of an HTTPServer count as instances for ``isinstance``.

    Args:
        stream: An IOStream, whose TLS handshake may still take place.
        params: Limits and times; None for the defaults.
        context: The object that requests find in ``connection.context``; None to make one from the stream.

    Attributes:
        stream: The argument; None after a request's ``detach()``.
    """

    __slots__ = ("_decompress",)

    def __init__(self, stream: IOStream, params: HTTP1ConnectionParameters | None = None, context: Any = None) -> None:
        loop = IOLoop.current().asyncio_loop
        params = params or HTTP1ConnectionParameters()
        parameters = params.for_server()
        if parameters.max_body_size is None:
            parameters.max_body_size = stream.max_buffer_size
        clock = Clock(loop, shortest=parameters.shortest(), keep_alive=parameters.keep_alive_timeout)
        context = context_of(stream) if context is None else context
        super().__init__(ServerConnection(adapt(_take_nothing), parameters, context, clock, loop), stream)
        self._decompress = params.decompress

    @classmethod
    def __subclasshook__(cls, other: type) -> bool:
        return cls is HTTP1ServerConnection and issubclass(other, TornadoConnection)

    def start_serving(self, delegate: Any) -> None:
        """Serve the stream until it ends.

        Args:
            delegate: An HTTPServerConnectionDelegate, recognised by its method ``start_request``.

        Raises:
            TypeError: It has no such method.
        """
        if not hasattr(delegate, "start_request"):
            raise TypeError(f"delegate {delegate!r:.80} has no start_request")
        assert self._stream is not None, "start_serving() after detach()"
        self.serve(self._stream, DelegateAdapter(delegate, self._decompress))


def _take_nothing(request: object) -> None:
    """Do nothing: the connection's callable until :meth:`HTTP1ServerConnection.start_serving` sets a delegate."""
