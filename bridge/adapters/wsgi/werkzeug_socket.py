"""``werkzeug.socket``: the connection itself, for applications that speak WebSocket in their thread.

Nothing happens until the application uses it. Then the event loop gives up the connection, and the application gets a
blocking socket. That is the connection's own socket, or one end of a pair where the loop has to pass the bytes on, as
under TLS.
"""

from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from bridge.core.connection.closing import close

if TYPE_CHECKING:
    from bridge.core.connection.interfaces import Exchange

__all__ = ["LazySocket", "detach"]

# How long (seconds) the loop may take to give up a connection; it needs that long only if something blocks it.
_TIMEOUT = 30.0


def _do_nothing() -> None:
    """Stand in for a callback that does not exist, or that another object calls."""


class LazySocket:
    """Becomes a blocking socket when one of its attributes is used.

    Args:
        request: Lets the loop call :func:`detach`, and then the function that it is given, with the socket or an
            exception.
    """

    def __init__(self, request: Callable[[Callable[[socket.socket | Exception], None]], None]) -> None:
        self._request = request
        self._socket: socket.socket | None = None

    def __getattr__(self, name: str) -> Any:
        # Copying and pickling look for names that no socket has. That is no reason to leave HTTP.
        if name.startswith("__"):
            raise AttributeError(name)
        return getattr(self._take(), name)

    def _take(self) -> socket.socket:
        if self._socket is None:
            answered = threading.Event()
            answers: list[socket.socket | Exception] = []

            def answer(result: socket.socket | Exception) -> None:
                answers.append(result)
                answered.set()

            self._request(answer)
            if not answered.wait(_TIMEOUT):
                raise TimeoutError("the event loop does not give up the connection")
            if isinstance(answers[0], Exception):
                raise answers[0]
            self._socket = answers[0]
        return self._socket

    # The server's, but named like a private one: a public name could be one of the socket's.
    def _finish(self) -> None:
        """Close the socket, if there is one: the application has returned."""
        if self._socket is not None:
            self._socket.close()


def detach(exchange: Exchange) -> socket.socket:
    """Take an exchange's connection from the loop, and return a blocking socket for it. Called on the loop.

    Raises:
        ConnectionGone: The connection has ended.
        OSError: Too many files are open. The connection is closed then.
    """
    outer = _Relay()
    transport, rest, outer.gone = exchange.take_stream(outer)
    loop = exchange.loop
    busy = transport.get_write_buffer_size() > 0 or transport.get_extra_info("sslcontext") is not None
    # asyncio's own loop stops watching a descriptor before it closes it. libuv may do so later. Then events of the
    # connection, which lives on in a duplicate, would reach the next file that gets the number. So a connection of
    # uvloop's is passed on through a pair.
    busy = busy or not isinstance(loop, asyncio.SelectorEventLoop)
    try:
        if busy or rest:
            near, far = socket.socketpair()
            outer.start(transport, far, rest, loop)
            return near
        own = transport.get_extra_info("socket")
        sock = _OwnSocket(fileno=os.dup(own.fileno()))
    except OSError:  # no descriptor is left
        transport.abort()
        raise
    sock.on_close = partial(_call_soon, loop, outer.gone)
    outer.gone = _do_nothing
    transport.abort()  # closes the loop's descriptor; the connection lives on in the duplicate
    sock.setblocking(True)
    return sock


class _OwnSocket(socket.socket):
    """The connection's own socket, in the application's hands. It reports when it is closed."""

    on_close: Callable[[], None] | None = None

    def close(self) -> None:
        """Close; any thread may."""
        super().close()
        on_close, self.on_close = self.on_close, None
        if on_close is not None:
            on_close()


def _call_soon(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # the loop was closed: the server does not count connections any more
        loop.call_soon_threadsafe(function)


class _Relay(asyncio.Protocol):
    """One of two protocols: each sends on what the other receives."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._other: _Relay | None = None
        self.gone: Callable[[], None] = _do_nothing  # called when the transport is gone
        self._ended = False  # nothing more will be received
        self._task: asyncio.Task[None] | None = None

    def start(
        self, transport: asyncio.Transport, far: socket.socket, rest: bytes, loop: asyncio.AbstractEventLoop
    ) -> None:
        """Connect a transport with a socket; *rest* is the first that is sent to the socket."""
        transport.pause_reading()
        self._transport = transport
        self._task = loop.create_task(self._connect(transport, far, rest, loop))

    async def _connect(
        self, transport: asyncio.Transport, far: socket.socket, rest: bytes, loop: asyncio.AbstractEventLoop
    ) -> None:
        other = _Relay()
        other._other = self  # before the first data: the application may have sent some already
        try:
            made, _ = await loop.create_unix_connection(lambda: other, sock=far)
        except OSError:
            far.close()
            transport.abort()
            return
        self._other = other
        if transport.is_closing():
            made.close()
            return
        if rest:
            made.write(rest)
        if self._ended:
            made.write_eof()
        transport.resume_reading()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport of the application's side. That of the client's side is known from the start."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Send data on."""
        if self._other is not None and self._other._transport is not None:
            self._other._transport.write(data)

    def eof_received(self) -> bool:
        """Send the end on. When both directions have ended, both transports close."""
        self._ended = True
        other = self._other
        if other is None:  # _connect() passes it on; until then the application may have something to send
            return True
        if other._transport is None or other._ended or not other._transport.can_write_eof():
            return False  # the transport closes, and connection_lost() follows
        other._transport.write_eof()
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the other side once everything is sent."""
        self._transport = None
        self.gone()
        if self._other is not None and self._other._transport is not None:
            close(self._other._transport, asyncio.get_running_loop())

    def pause_writing(self) -> None:
        """Let the other side wait."""
        if self._other is not None and self._other._transport is not None:
            self._other._transport.pause_reading()

    def resume_writing(self) -> None:
        """Let the other side go on."""
        if self._other is not None and self._other._transport is not None:
            self._other._transport.resume_reading()
