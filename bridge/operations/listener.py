"""A small HTTP/1.1 server beside the application's: for probes, metrics and commands.

It runs on a selector, since a master has no event loop, or on an event loop. It serves few clients and trusts none:
their number, what they send, what is kept for them and the time that they take are bounded, and nothing waits for a
client. Each connection has one request.

A kubelet waits one second for a probe, and kills a server that does not answer in time. So no client keeps a probe
waiting: with too many connections, a new one ends the oldest one, whatever that client was doing.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import selectors
import socket
import struct
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

from bridge.core.http.limits import Limits
from bridge.core.http.message import RequestHead, ResponseHead
from bridge.core.http1.encoder import encode_last, encode_refusal
from bridge.core.http1.reader import RequestReader
from bridge.core.log import app_log, gen_log
from bridge.errors import RemoteProtocolError
from bridge.operations.messages import FAULT, Answer, Request, Respond, refusal

__all__ = ["Listener", "LoopWatch", "SelectorWatch", "Watch"]

_LIMITS = Limits(request_line=4096, field_line=4096, fields=64, head=16384)
# Bytes of content that are read and dropped. No request needs any.
_CONTENT_MAX = 65536
# The most connections at once, counted apart for admin addresses and control sockets, so that neither takes the other's
# places. A further one ends the oldest, but never one whose command is being carried out. If all are of that kind, new
# ones wait in the queue.
_MOST = 256
# Connections that are accepted in one turn: so many that a probe waits for few turns of those before it in the queue,
# and so few that it has sent its request before it is the oldest.
_AT_ONCE = 64
# Bytes that are kept in all for clients that do not read. Beyond that the oldest of them end.
_UNREAD_MAX = 16 << 20
# Seconds: for a request, and for the client to read some of the answer; for the client to read all of the answer.
_PATIENCE = 5.0
_LONGEST = 60.0
# Seconds until another connection is accepted, when there was no descriptor for one.
_PAUSE = 0.2
_NEVER = float("inf")
# Bytes that are read, and sent, at once.
_PIECE = 65536
# Errors of accept(2) that go away when a connection ends.
_SHORT = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})


class Watch(ABC):
    """Calls functions when files are ready, and other functions soon."""

    def __init__(self) -> None:
        self._due: list[Callable[[], None]] = []

    @abstractmethod
    def watch(self, file: Any, function: Callable[[], None], *, write: bool = False) -> None:
        """Call *function* whenever *file* can be read, or written. It takes the place of what was to be called."""

    @abstractmethod
    def forget(self, file: Any) -> None:
        """Call nothing any more for *file*."""

    def soon(self, function: Callable[[], None]) -> None:
        """Call *function* once, after those for all files that are ready now."""
        self._due.append(function)

    @property
    def is_due(self) -> bool:
        """Whether :meth:`run_due` has something to do."""
        return bool(self._due)

    def run_due(self) -> None:
        """Call what was to be called soon."""
        due, self._due = self._due, []
        for function in due:
            function()


class SelectorWatch(Watch):
    """Watches with a selector. Its user calls the data of each event's key, and then :meth:`run_due`.

    Args:
        selector: The selector.
    """

    def __init__(self, selector: selectors.BaseSelector) -> None:
        super().__init__()
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


class LoopWatch(Watch):
    """Watches on an event loop.

    Args:
        loop: The loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
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

    def soon(self, function: Callable[[], None]) -> None:
        """Call *function* once, in the loop's next turn."""
        if not self._due:
            self._loop.call_soon(self.run_due)
        super().soon(function)


class _Crowd:
    """The clients of the admin addresses, or those of the control sockets.

    Attributes:
        connections: Their connections, the oldest first.
        sockets: The listening sockets.
        resumes: When more are accepted (seconds of the monotonic clock): 0.0 for now, infinite for when one has ended.
    """

    def __init__(self) -> None:
        self.connections: dict[_Connection, None] = {}
        self.sockets: list[socket.socket] = []
        self.resumes = 0.0

    def make_room(self, new: _Connection | None = None) -> bool:
        """End the oldest connection, but neither the new one nor one whose command is carried out; tell if it did."""
        oldest = next((one for one in self.connections if one is not new and not one.is_carried_out), None)
        if oldest is not None:
            oldest.close()
        return oldest is not None


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
        self._admin, self._control = self._crowds = (_Crowd(), _Crowd())

    def add(self, sockets: Iterable[socket.socket], *, control: bool = False) -> None:
        """Serve *sockets*, until :meth:`remove`.

        Args:
            sockets: Listening, non-blocking ones.
            control: They are control sockets. Only the user of this process and root may connect.
        """
        crowd = self._control if control else self._admin
        for sock in sockets:
            sock.setblocking(False)
            self.sockets.append(sock)
            crowd.sockets.append(sock)
            if not crowd.resumes:
                self._listen(sock, crowd)

    def _listen(self, sock: socket.socket, crowd: _Crowd) -> None:
        self._watch.watch(sock, lambda: self._accept(sock, crowd))

    def remove(self, sockets: Iterable[socket.socket]) -> None:
        """Serve *sockets* no longer; they stay open."""
        self._watch.run_due()
        for sock in sockets:
            if sock in self.sockets:
                self._watch.forget(sock)
                self.sockets.remove(sock)
                for crowd in self._crowds:
                    if sock in crowd.sockets:
                        crowd.sockets.remove(sock)

    def _accept(self, listening: socket.socket, crowd: _Crowd) -> None:
        for _ in range(_AT_ONCE):
            try:
                sock, _ = listening.accept()
            except BlockingIOError:
                return
            except OSError as exc:
                if exc.errno in _SHORT and not crowd.make_room():
                    # The socket stays ready: to look at it again at once would take the whole processor.
                    self._pause(crowd, time.monotonic() + _PAUSE)
                    return
                continue  # the client has left, or there is room now
            sock.setblocking(False)
            control = crowd is self._control
            connection = _Connection(self, sock, self._watch, self._answer, control=control)
            crowd.connections[connection] = None
            if control and not _may_control(sock):
                text = f"the server belongs to user {os.geteuid()}: ask as that user, or as root"
                connection.respond(refusal(403, text))
            if len(crowd.connections) >= _MOST and not crowd.make_room(connection):
                self._pause(crowd, _NEVER)
                return

    def _pause(self, crowd: _Crowd, until: float) -> None:
        crowd.resumes = until
        for sock in crowd.sockets:
            self._watch.forget(sock)

    def _resume(self, crowd: _Crowd) -> None:
        if crowd.resumes:
            crowd.resumes = 0.0
            for sock in crowd.sockets:
                self._listen(sock, crowd)

    def ended(self, connection: _Connection) -> None:
        """Take note of the end of a connection."""
        for crowd in self._crowds:
            if connection in crowd.connections:
                del crowd.connections[connection]
                self._resume(crowd)

    def bound_unread(self, connection: _Connection) -> None:
        """End the oldest clients that do not read if too much is kept for them, but not the one of *connection*."""
        kept = [one for crowd in self._crowds for one in crowd.connections if one.unread]
        size = sum(one.unread for one in kept)
        for one in kept:
            if size <= _UNREAD_MAX:
                break
            if one is not connection:
                size -= one.unread
                one.close()

    def next_event(self) -> float | None:
        """Return the time at which :meth:`check` has something to do (seconds of the monotonic clock), or None."""
        if self._watch.is_due:
            return 0.0
        times = [one.deadline for crowd in self._crowds for one in crowd.connections]
        times += [crowd.resumes for crowd in self._crowds if crowd.resumes]
        nearest = min(times, default=_NEVER)
        return None if nearest == _NEVER else nearest

    def check(self, now: float) -> None:
        """End the connections whose client is too slow, and do what was put off."""
        self._watch.run_due()
        for crowd in self._crowds:
            for connection in [one for one in crowd.connections if one.deadline <= now]:
                connection.close()
            if crowd.resumes <= now:
                self._resume(crowd)

    def close(self) -> None:
        """Serve nothing any more; the listening sockets stay open."""
        self.remove(list(self.sockets))
        for crowd in self._crowds:
            for connection in list(crowd.connections):
                connection.flush()
                connection.close()

    def abandon(self) -> None:
        """Close the descriptors, and leave everything else alone. This is for a forked child."""
        for crowd in self._crowds:
            for connection in crowd.connections:
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
        self._unsent: list[memoryview] = []
        self._asked = False
        self._answered = False
        self._last = _NEVER  # when the client has to have read everything
        self._ending = False  # all is sent; the client may still send
        watch.watch(sock, self._readable)

    @property
    def is_carried_out(self) -> bool:
        """The client has given a command, whose answer it awaits."""
        return self._is_control and self._asked and not self._answered

    @property
    def unread(self) -> int:
        """How many bytes are kept for the client."""
        return sum(map(len, self._unsent))

    def _readable(self) -> None:
        try:
            data = self.socket.recv(_PIECE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.close()  # even while the answer is being made, since nobody waits for it
            return
        if self._asked or self._answered:
            return  # bytes after the request are dropped
        self._reader.feed(data)
        try:
            self._read()
        except RemoteProtocolError as exc:
            self._send([encode_refusal(exc.status, b"")])

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
            self.respond(refusal(500, FAULT))

    def respond(self, answer: Answer) -> None:
        """Send the answer, and end. Without a client any more, do nothing."""
        response = ResponseHead(answer.status, [(b"content-type", answer.media_type.encode()), *answer.fields])
        head_only = self._head is not None and self._head.line.method_text == "HEAD"
        head = encode_last(response, answer.content, head_only=True)
        if head_only:
            self._send([head])
            return
        # Much content is not copied: many clients may get the same.
        self._send([head, answer.content] if len(answer.content) > _PIECE else [head + answer.content])

    def _send(self, data: list[bytes]) -> None:
        if self._answered or self.socket.fileno() < 0:
            return
        self._answered = True
        self._unsent = [memoryview(piece) for piece in data if piece]
        now = time.monotonic()
        self._last = now + _LONGEST
        self.deadline = now + _PATIENCE
        self.flush()
        if self._unsent:
            self._owner.bound_unread(self)

    def flush(self) -> None:
        """Send what the client takes now."""
        if not self._answered or self.socket.fileno() < 0:
            return
        try:
            while self._unsent:
                first = self._unsent[0]
                sent = self.socket.send(first[:_PIECE])
                self._unsent[:1] = [first[sent:]] if sent < len(first) else []
                self.deadline = min(time.monotonic() + _PATIENCE, self._last)
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
        self._unsent = []
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
