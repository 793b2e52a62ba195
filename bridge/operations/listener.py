"""A small HTTP/1.1 server beside the application's: for probes, metrics and commands.

It runs on a selector, since a master has no event loop, or on an event loop. It serves few clients and trusts none:
how many there are, what they send and how long they take is bounded, and nobody waits for a client.
Each connection has one request.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any, Protocol

from bridge.core.http.limits import Limits
from bridge.core.http.message import RequestHead, ResponseHead
from bridge.core.http1.encoder import encode_last, encode_refusal
from bridge.core.http1.reader import RequestReader
from bridge.core.log import app_log, gen_log
from bridge.errors import RemoteProtocolError
from bridge.operations.messages import Answer, Request, Respond, refusal

__all__ = ["Listener", "LoopWatch", "SelectorWatch", "Watch"]

_LIMITS = Limits(request_line=4096, field_line=4096, fields=64, head=16384)
# Bytes of content that are read and dropped. No request needs any.
_CONTENT_MAX = 65536
# Most connections at once. For the last one, the client goes that has sent no request for the longest; if all have sent
# one, more wait in the queue of the socket. Otherwise clients that send nothing would keep probes waiting, and whoever
# sends these would take the server for dead.
_MOST = 256
# Seconds for a request, and for the client to read something of the answer.
_PATIENCE = 5.0
_NEVER = float("inf")
# Bytes that are read, and sent, at once.
_PIECE = 65536


class Watch(Protocol):
    """Calls functions when files are ready."""

    def watch(self, file: Any, function: Callable[[], None], *, write: bool = False) -> None:
        """Call *function* whenever *file* can be read, or written. It takes the place of what was to be called."""

    def forget(self, file: Any) -> None:
        """Call nothing any more for *file*."""


class SelectorWatch:
    """Watches with a selector whose user calls the data of each event's key.

    Args:
        selector: The selector.
    """

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector

    def watch(self, file: Any, function: Callable[[], None], *, write: bool = False) -> None:
        """Call *function* whenever *file* is ready."""
        events = selectors.EVENT_WRITE if write else selectors.EVENT_READ
        if file.fileno() in self._selector.get_map():
            self._selector.modify(file, events, function)
        else:
            self._selector.register(file, events, function)

    def forget(self, file: Any) -> None:
        """Call nothing any more for *file*."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(file)


class LoopWatch:
    """Watches on an event loop.

    Args:
        loop: The loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def watch(self, file: Any, function: Callable[[], None], *, write: bool = False) -> None:
        """Call *function* whenever *file* is ready."""
        if write:
            self._loop.remove_reader(file.fileno())
            self._loop.add_writer(file.fileno(), function)
        else:
            self._loop.remove_writer(file.fileno())
            self._loop.add_reader(file.fileno(), function)

    def forget(self, file: Any) -> None:
        """Call nothing any more for *file*."""
        self._loop.remove_reader(file.fileno())
        self._loop.remove_writer(file.fileno())


class Listener:
    """Serves listening sockets.

    Args:
        watch: Tells when a socket is ready.
        answer: Answers a request, now or later.

    Attributes:
        sockets: The listening sockets.
    """

    def __init__(self, watch: Watch, answer: Callable[[Request, Respond], None]) -> None:
        self.sockets: list[socket.socket] = []
        self._watch = watch
        self._answer = answer
        self._control: set[int] = set()
        self._connections: set[_Connection] = set()
        self._full = False

    def add(self, sockets: Iterable[socket.socket], *, control: bool = False) -> None:
        """Serve *sockets*, until :meth:`remove`.

        Args:
            sockets: Listening, non-blocking ones.
            control: They are control sockets: who connects must be the user of this process, or root.
        """
        for sock in sockets:
            sock.setblocking(False)
            self.sockets.append(sock)
            if control:
                self._control.add(sock.fileno())
            if not self._full:
                self._listen(sock)

    def _listen(self, sock: socket.socket) -> None:
        self._watch.watch(sock, lambda: self._accept(sock))

    def remove(self, sockets: Iterable[socket.socket]) -> None:
        """Serve *sockets* no longer; they stay open."""
        for sock in sockets:
            if sock in self.sockets:
                self._watch.forget(sock)
                self._control.discard(sock.fileno())
                self.sockets.remove(sock)

    def _accept(self, listening: socket.socket) -> None:
        try:
            sock, _ = listening.accept()
        except OSError:  # the client has left, or there are no descriptors
            return
        sock.setblocking(False)
        control = listening.fileno() in self._control
        connection = _Connection(self, sock, self._watch, self._answer, control=control)
        self._connections.add(connection)
        if control and not _may_control(sock):
            connection.respond(refusal(403, f"the server belongs to user {os.geteuid()}: ask as that user, or as root"))
        if len(self._connections) >= _MOST and not self._make_room(connection):
            self._full = True
            for other in self.sockets:
                self._watch.forget(other)

    def _make_room(self, new: _Connection) -> bool:
        """End the connection whose client has sent no request for the longest, but not the new one; tell if it did."""
        silent = [connection for connection in self._connections if connection.silent and connection is not new]
        if silent:
            min(silent, key=attrgetter("deadline")).close()
        return bool(silent)

    def ended(self, connection: _Connection) -> None:
        """Take note of the end of a connection."""
        self._connections.discard(connection)
        if self._full:
            self._full = False
            for sock in self.sockets:
                self._listen(sock)

    def next_event(self) -> float | None:
        """Return the time at which a client will have been too slow (seconds of the monotonic clock), or None."""
        nearest = min((connection.deadline for connection in self._connections), default=_NEVER)
        return None if nearest == _NEVER else nearest

    def check_deadlines(self, now: float) -> None:
        """End the connections whose client is too slow."""
        for connection in [c for c in self._connections if c.deadline <= now]:
            connection.close()

    def close(self) -> None:
        """Serve nothing any more; the listening sockets stay open."""
        self.remove(list(self.sockets))
        self._full = False
        for connection in list(self._connections):
            connection.flush()
            connection.close()

    def abandon(self) -> None:
        """Close the descriptors, and leave everything else alone. This is for a forked child."""
        for connection in self._connections:
            connection.socket.close()
        for sock in self.sockets:
            sock.close()


class _Connection:
    """One client with one request.

    Attributes:
        socket: The connection.
        deadline: When the client has been too slow.
    """

    def __init__(
        self,
        owner: Listener,
        sock: socket.socket,
        watch: Watch,
        answer: Callable[[Request, Respond], None],
        *,
        control: bool,
    ) -> None:
        self.socket = sock
        self.deadline = time.monotonic() + _PATIENCE
        self._owner = owner
        self._watch = watch
        self._answer = answer
        self._is_control = control
        self._reader = RequestReader(_LIMITS)
        self._head: RequestHead | None = None
        self._unsent = memoryview(b"")
        self._asked = False
        self._answered = False
        self._ending = False  # all is sent; the client may still send
        watch.watch(sock, self._readable)

    @property
    def silent(self) -> bool:
        """The client has sent no request, or only a part of it."""
        return not (self._asked or self._answered)

    def _readable(self) -> None:
        try:
            data = self.socket.recv(_PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()  # also while the answer is being made: nobody waits for it
            return
        if self._asked or self._answered:
            return  # what follows the request is dropped
        self._reader.feed(data)
        try:
            self._read()
        except RemoteProtocolError as exc:
            self._send(encode_refusal(exc.status, b""))

    def _read(self) -> None:
        if self._head is None:
            head = self._reader.next_head()
            if head is None:
                return
            self._head = head
            if head.content_length != 0:
                length = head.content_length
                if length is not None and length > _CONTENT_MAX:
                    self.respond(refusal(413, f"the content is larger than {_CONTENT_MAX} bytes; none is needed"))
                    return
                self._reader.expect_content(length, _CONTENT_MAX)
        decoder = self._reader.decoder
        while decoder is not None and not decoder.done:
            if self._reader.next_content(_PIECE) is None:
                return
        self._asked = True
        self.deadline = _NEVER  # commands may take their time
        try:
            self._answer(Request.of(self._head, control=self._is_control), self.respond)
        except Exception:
            app_log.exception("A request to the server itself has failed")
            self.respond(refusal(500, "a fault of the server's own; its log has the traceback"))

    def respond(self, answer: Answer) -> None:
        """Send the answer, and end. Without a client any more, do nothing."""
        response = ResponseHead(answer.status, [(b"content-type", answer.media_type.encode()), *answer.fields])
        head_only = self._head is not None and self._head.line.method_text == "HEAD"
        self._send(encode_last(response, answer.content, head_only=head_only))

    def _send(self, data: bytes) -> None:
        if self._answered or self.socket.fileno() < 0:
            return
        self._answered = True
        self._unsent = memoryview(data)
        self.deadline = time.monotonic() + _PATIENCE
        self.flush()

    def flush(self) -> None:
        """Send what the client takes now."""
        if not self._answered or self.socket.fileno() < 0:
            return
        try:
            while self._unsent:
                sent = self.socket.send(self._unsent[:_PIECE])
                self._unsent = self._unsent[sent:]
                self.deadline = time.monotonic() + _PATIENCE
        except BlockingIOError:
            self._watch.watch(self.socket, self.flush, write=True)
            return
        except OSError:
            self.close()
            return
        if not self._ending:
            # What the client still sends would reset the connection, and could destroy the answer on its way.
            self._ending = True
            with contextlib.suppress(OSError):
                self.socket.shutdown(socket.SHUT_WR)
            self._watch.watch(self.socket, self._readable)

    def close(self) -> None:
        """End the connection."""
        if self.socket.fileno() >= 0:
            self._watch.forget(self.socket)
            self.socket.close()
        self._answered = True
        self._owner.ended(self)


def _may_control(sock: socket.socket) -> bool:
    """Tell whether the process at the other end of a Unix socket belongs to the user of this one, or to root."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True  # the mode of the file has decided
    _, user, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if user in {0, os.geteuid()}:
        return True
    gen_log.warning("A process of user %d has asked for control, and was refused", user)
    return False
