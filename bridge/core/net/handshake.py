"""TLS handshakes of a server, a few in each turn of the loop.

A handshake is the most expensive thing that a client can make the server do with one packet: 0.5 ms for an RSA key of
2048 bits, 4 ms for one of 4096. Without a limit, a thousand clients that begin theirs at once make all open connections
wait for a second. So the handshakes of a loop share some milliseconds of each turn, and the others wait for the next
turn in the order in which they came.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING

from bridge.core.log import app_log
from bridge.core.net.readiness import READABLE, WRITABLE, Readiness

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Handshake", "HandshakeTurns"]

# Seconds of one turn; the last handshake may take longer. Time in which another process had the processor counts, too.
_PER_TURN = 0.005
# Bytes of a failed handshake that are dropped. A close with unread bytes would reset the connection, and could destroy
# the alert that says what is wrong.
_DROPPED = 65536

# Loops that have ended take their entries with them.
_of_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, HandshakeTurns] = weakref.WeakKeyDictionary()


class HandshakeTurns:
    """Shares the turns of a loop among its handshakes.

    New time is given out in the turn after the last is used up, and not in every turn: as long as there are few
    handshakes, nothing has to be scheduled.

    Args:
        loop: The event loop.
        clock: Returns seconds.
    """

    __slots__ = ("__weakref__", "_clock", "_loop", "_used", "_waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Callable[[], float] = time.perf_counter) -> None:
        self._loop: asyncio.AbstractEventLoop = weakref.proxy(loop)  # otherwise the entry would keep its loop
        self._clock = clock
        self._used = 0.0
        self._waiting: deque[Callable[[], None]] = deque()

    @staticmethod
    def of(loop: asyncio.AbstractEventLoop) -> HandshakeTurns:
        """Return the object that all handshakes of *loop* share."""
        turns = _of_loop.get(loop)
        if turns is None:
            turns = _of_loop[loop] = HandshakeTurns(loop)
        return turns

    def do(self, step: Callable[[], None]) -> bool:
        """Call *step*, a part of a handshake, if there is time for it in this turn; tell whether it was called."""
        if self._waiting or self._used >= _PER_TURN:
            return False
        self._timed(step)
        return True

    def later(self, step: Callable[[], None]) -> None:
        """Call *step*, once, in the next turn or in a later one."""
        self._waiting.append(step)
        if len(self._waiting) == 1:
            self._loop.call_soon(self._run)

    def _run(self) -> None:
        self._used = 0.0
        waiting = self._waiting
        try:
            while waiting and self._used < _PER_TURN:
                try:
                    self._timed(waiting[0])
                except Exception:  # otherwise the other handshakes would wait for ever
                    app_log.exception("Uncaught exception in a TLS handshake")
                finally:
                    waiting.popleft()
        finally:  # also when a handler of a signal raises SystemExit, after which the server goes on
            if waiting:
                self._loop.call_soon(self._run)

    def _timed(self, step: Callable[[], None]) -> None:
        begun = self._clock()
        try:
            step()
        finally:
            self._used += self._clock() - begun


class Handshake:
    """The handshake on a socket.

    Args:
        loop: The event loop.
        readiness: Watches the sockets of that loop.
        sock: The socket.
    """

    __slots__ = ("_done", "_readiness", "_sock", "_turns", "_watched")

    def __init__(self, loop: asyncio.AbstractEventLoop, readiness: Readiness, sock: ssl.SSLSocket) -> None:
        self._done: asyncio.Future[OSError | None] = loop.create_future()
        self._readiness = readiness
        self._turns = HandshakeTurns.of(loop)
        self._sock = sock
        self._watched = 0  # the events that are waited for

    async def done(self, timeout: float) -> None:
        """Do it in *timeout* seconds at most; the errors are those of ``TLSTransport.accept``."""
        self._wait_for(READABLE)
        timer = self._done.get_loop().call_later(timeout, self._give_up, timeout)
        try:
            error = await self._done
        finally:
            timer.cancel()
            self._wait_for(0)
        if isinstance(error, ssl.SSLEOFError | ssl.SSLZeroReturnError):
            raise ConnectionResetError("the peer has left in the TLS handshake")
        if isinstance(error, ssl.SSLError):
            with contextlib.suppress(OSError):
                socket.socket.recv(self._sock, _DROPPED)
        if error is not None:
            raise error

    def _ready(self, _: int) -> None:
        if not self._done.done() and not self._turns.do(self._go_on):
            self._wait_for(0)  # the system would report the socket in each turn
            self._turns.later(self._go_on)

    def _go_on(self) -> None:
        if self._done.done():
            return
        try:
            self._sock.do_handshake()
        except ssl.SSLWantReadError:
            self._wait_again_for(READABLE)
        except ssl.SSLWantWriteError:
            self._wait_again_for(WRITABLE)
        except OSError as exc:
            exc.__traceback__ = None  # it would keep this object, which keeps the error
            self._done.set_result(exc)
        else:
            self._done.set_result(None)

    def _wait_again_for(self, events: int) -> None:
        try:
            self._wait_for(events)
        except OSError as exc:  # the system has no room to watch another socket
            exc.__traceback__ = None
            self._done.set_result(exc)

    def _wait_for(self, events: int) -> None:
        watched = self._watched
        if events == watched:
            return
        number = self._sock.fileno()
        if not events:
            self._readiness.remove(number)
        elif watched:
            self._readiness.change(number, events)
        else:
            self._readiness.add(number, events, self._ready)
        self._watched = events

    def _give_up(self, timeout: float) -> None:
        if not self._done.done():
            self._done.set_result(ConnectionAbortedError(f"the TLS handshake takes longer than {timeout:g} seconds"))
