"""HTTP/1.x connections under Tornado's documented names, over the engine.

``served`` has the server's exchange, ``client`` the client, ``translate`` the way from the engine to delegates.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

from bridge.core.connection.clock import NEVER, Clock
from bridge.core.connection.context import ConnectionContext
from bridge.core.connection.http1 import ServerConnection
from bridge.core.connection.states import DONE
from bridge.core.ioloop import IOLoop
from bridge.core.stream.errors import StreamClosedError, closed_error
from bridge.core.tornado.exchange import ServedConnection
from bridge.core.tornado.http1interface import HTTP1Connection
from bridge.core.tornado.parameters import HTTP1ConnectionParameters
from bridge.core.tornado.startline import HTTPInputError, HTTPOutputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.core.connection.interfaces import ConnectionDelegate
    from bridge.core.connection.parameters import ConnectionParameters
    from bridge.core.iostream import IOStream

__all__ = ["HTTP1Connection", "HTTP1ConnectionParameters", "HTTP1ServerConnection", "context_of"]


class HTTP1ServerConnection(ServerConnection):
    """The server's side of one TCP connection.

    Args:
        stream: An IOStream; a TLS handshake may still be going on.
        params: Limits and times; None for the defaults.
        context: What requests find in ``connection.context``; None to make one from the stream.

    Attributes:
        stream: See below.
        params: The engine's own (ConnectionParameters); a request's connection has them in Tornado's words.
        context: The argument.
    """

    __slots__ = ("__weakref__", "_decompress", "_ended", "_serving", "_stream", "flushed_now")

    exchange_type = ServedConnection
    # Without a value until they are needed, so that a connection costs nothing for them.
    _ended: asyncio.Future[None]
    flushed_now: asyncio.Future[None]
    _stream: IOStream | None

    def __init__(self, stream: IOStream, params: HTTP1ConnectionParameters | None = None, context: Any = None) -> None:
        from bridge.core.tornado.dispatch import adapt

        loop = IOLoop.current().asyncio_loop
        params = params or HTTP1ConnectionParameters()
        limits = params.for_server()
        if limits.max_body_size is None:
            limits.max_body_size = stream.max_buffer_size
        clock = Clock(loop, shortest=limits.shortest(), keep_alive=limits.keep_alive_timeout)
        context = context_of(stream) if context is None else context
        super().__init__(adapt(_nobody), limits, context, clock, loop)
        self._stream = stream
        self._decompress = params.decompress

    @classmethod
    def accepted(
        cls,
        delegate: ConnectionDelegate,
        params: ConnectionParameters,
        context: ConnectionContext,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        on_end: Callable[[ServerConnection, bool], Callable[[], None]] | None = None,
    ) -> HTTP1ServerConnection:
        """Return the protocol of a connection that a server has accepted."""
        self = cls.__new__(cls)
        ServerConnection.__init__(self, delegate, params, context, clock, loop, on_end)
        return self

    # ------------------------------------------------------------------ documented

    @property
    def stream(self) -> IOStream | None:
        """A stream that stands for the connection's transport; None when it was detached."""
        try:
            return self._stream
        except AttributeError:
            from bridge.core.iostream import IOStream

            self._stream = IOStream.of_connection(self)
            return self._stream

    def start_serving(self, delegate: Any) -> None:
        """Serve the stream until it ends.

        Args:
            delegate: An HTTPServerConnectionDelegate: has ``start_request``.

        Raises:
            TypeError: It has not.
        """
        from bridge.core.tornado.dispatch import DelegateAdapter

        if not hasattr(delegate, "start_request"):
            raise TypeError(f"delegate {delegate!r:.80} has no start_request")
        assert self._stream is not None, "start_serving() after detach()"
        self.delegate = DelegateAdapter(delegate, self._decompress)
        self.serve(self._stream)

    def serve(self, stream: IOStream) -> None:
        """Serve *stream*, as soon as it is ready, with the delegate that is set."""
        self._stream = stream
        self._serving = self.loop.create_task(self._serve(stream))

    async def _serve(self, stream: IOStream) -> None:
        try:
            await stream.ready()
            transport, rest = stream.lend(self)
        except StreamClosedError:
            self.connection_lost(None)
            return
        self.connection_made(transport)
        if rest:
            self.data_received(rest)

    async def close(self) -> None:
        """Close the connection and wait until it has ended; may be called again meanwhile."""
        ended = getattr(self, "_ended", None)
        if ended is None:
            ended = self._ended = self.loop.create_future()
        if self.transport is not None:
            self.cut(clean=True)
        elif (stream := getattr(self, "_stream", None)) is not None and not stream.closed():
            stream.close()
        else:
            return
        await asyncio.shield(ended)

    # ------------------------------------------------------------------ for the exchanges

    def flushed(self) -> asyncio.Future[None]:
        """Return a future that is done when more may be written: one and the same while nobody has to wait."""
        if self.write_paused:
            future = self.writable()
            future.add_done_callback(_seen)
            return future
        return self.flushed_now

    def __getattr__(self, name: str) -> asyncio.Future[None]:
        """Make ``flushed_now`` when it is first asked for: a done future that all writes share which need not wait."""
        if name != "flushed_now":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        self.flushed_now = self.loop.create_future()
        self.flushed_now.set_result(None)
        return self.flushed_now

    def detach(self) -> IOStream:
        """Give up the transport, with what was received and not read, and return it as a stream."""
        stream = self.stream
        if stream is None:
            raise HTTPOutputError("the connection was detached before")
        if self.transport is not None:
            self._stream = None
            stream.take_back(*self.take_transport(stream))
        return stream

    # ------------------------------------------------------------------ the engine's hooks

    def end_soon(self) -> None:
        """Wait for the response no longer than for a peer that reads nothing.

        The peer sends nothing more. It has probably left, and the application, which is told so, may never answer.
        """
        self.deadline = self.clock.after(self.params.write_timeout)

    def deadline_passed(self, now: float) -> None:
        """Act on a deadline."""
        if self._reading is DONE and self.deadline < now:
            self.deadline = NEVER
            self.cut(clean=False)
        else:
            super().deadline_passed(now)

    def connection_lost(self, exc: Exception | None) -> None:
        """End: nobody is there any more."""
        transport = self.transport
        super().connection_lost(exc)
        stream = getattr(self, "_stream", None)
        if stream is not None:
            stream.lender_lost(exc)
        ended = getattr(self, "_ended", None)
        if ended is not None and not ended.done():
            ended.set_result(None)
        if transport is not None and transport.is_closing() and hasattr(transport, "_read_ready_cb"):
            # asyncio's transport keeps a bound method of its own in 3.11: a cycle (python/cpython#100348)
            transport._read_ready_cb = None

    def wake_writers(self, error: Exception | None) -> None:
        """Let writers go on, or fail in words that Tornado's programs understand."""
        if self._waiters is not None:
            super().wake_writers(None if error is None else closed_error())

    def _delegate_failed(self, error: BaseException) -> None:
        from bridge.core.tornado.dispatch import is_foreign_input_error

        if is_foreign_input_error(error):
            self._refuse(HTTPInputError(str(error)))
        else:
            super()._delegate_failed(error)


def context_of(stream: IOStream, address: Any = None) -> ConnectionContext:
    """Return what is known of a stream's two ends.

    Args:
        stream: The stream.
        address: The peer's; None to ask the socket.
    """
    from bridge.core.iostream import SSLIOStream

    sock = stream.socket
    local = None
    with contextlib.suppress(OSError):  # not connected any more: the first read will tell
        address, local = address or sock.getpeername(), sock.getsockname()
    return ConnectionContext(address, sock.family, "https" if isinstance(stream, SSLIOStream) else "http", local)


def _seen(future: asyncio.Future[None]) -> None:
    """Mark a failed write as seen: the connection's end is told in other ways, too."""
    if not future.cancelled():
        future.exception()


def _nobody(request: object) -> None:
    """Stand in for the delegate until :meth:`HTTP1ServerConnection.start_serving`."""
