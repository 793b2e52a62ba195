"""Accepting connections: a few in each turn of the loop, and with a pause when the system has no room for one.

TLS begins after that, with the time-out of its handshake: ``bridge/core/tcpserver.py``.
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Callable
from typing import Any

from bridge.core.ioloop import IOLoop
from bridge.core.log import gen_log

__all__ = ["add_accept_handler"]

# Connections accepted per turn of the loop. A flood of new ones must not starve those that are open.
_ACCEPTS_PER_TURN = 128
# Seconds to wait before the next try when the process or the system has no room for another descriptor.
_ACCEPT_PAUSE = 1.0
# Seconds until the lack of room is logged again.
_QUIET = 60.0
_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# The peer left before it was accepted: accept(2) reports the pending error of the new socket.
_PEER_GONE = frozenset({errno.ECONNABORTED, errno.EINVAL, errno.EPROTO, errno.ECONNRESET})


def add_accept_handler(
    sock: socket.socket, callback: Callable[[socket.socket, Any], object], *, per_turn: int = _ACCEPTS_PER_TURN
) -> Callable[[], None]:
    """Call ``callback(connection, address)`` for every connection that *sock* accepts, on the current event loop.

    Args:
        sock: A listening, non-blocking socket.
        callback: Gets the accepted, non-blocking socket and the peer's address.
        per_turn: The most connections that are accepted in one turn of the loop.

    Returns:
        A function that stops accepting. It may be called at any time, and more than once. It does not close *sock*.

    Raises:
        RuntimeError: The loop cannot watch sockets.
    """
    loop = IOLoop.current().asyncio_loop
    acceptor = _Acceptor(loop, sock, callback, per_turn)
    try:
        acceptor.resume()
    except NotImplementedError:
        raise RuntimeError(
            f"{type(loop).__name__} cannot watch sockets, as the default loop of Windows; run the program with "
            "asyncio.Runner(loop_factory=asyncio.SelectorEventLoop)"
        ) from None
    return acceptor.remove


class _Acceptor:
    """Accepts the connections of one listening socket."""

    __slots__ = ("_callback", "_loop", "_pause", "_per_turn", "_quiet_until", "_removed", "_sock")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        callback: Callable[[socket.socket, Any], object],
        per_turn: int,
    ) -> None:
        self._per_turn = per_turn
        self._loop = loop
        self._sock = sock
        self._callback = callback
        self._removed = False
        self._quiet_until = float("-inf")
        self._pause: asyncio.TimerHandle | None = None

    def resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._sock, self._accept)

    def remove(self) -> None:
        if self._removed:
            return
        self._removed = True
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        elif not self._loop.is_closed():
            self._loop.remove_reader(self._sock)

    def _accept(self) -> None:
        for _ in range(self._per_turn):
            # The last callback may have stopped the server and closed the socket.
            if self._removed:
                return
            try:
                connection, address = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as exc:
                if exc.errno in _PEER_GONE:
                    continue
                if exc.errno not in _NO_ROOM:
                    raise
                # The socket stays readable, so without a pause the loop would call this again at once.
                now = self._loop.time()
                if now >= self._quiet_until:
                    self._quiet_until = now + _QUIET
                    gen_log.error("cannot accept connections, next try every %g s: %s", _ACCEPT_PAUSE, exc)
                self._loop.remove_reader(self._sock)
                self._pause = self._loop.call_later(_ACCEPT_PAUSE, self.resume)
                return
            connection.setblocking(False)
            self._callback(connection, address)
