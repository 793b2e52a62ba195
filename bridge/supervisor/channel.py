"""The line between the master and a child process: short messages, each a line of JSON, over a pair of sockets.

Descriptors can go with a message to the child. Each end notices when the other process has ended, in whatever way.
"""

from __future__ import annotations

import enum
import errno
import fcntl
import json
import os
import signal
import socket
from collections.abc import Sequence

__all__ = ["Channel", "Message"]

#: A word and its values; see `bridge.supervisor.messages`.
Message = list[object]

_MOST_DESCRIPTORS = 64
# Bytes that are read at once, and how often in a row: a process that sends without end must not block the other end.
_PIECE = 65536
_PIECES = 16
# Bytes of the longest message.
_LONGEST = 1 << 20


class Channel:
    """One end of the line.

    Args:
        sock: One of a pair.
        takes_descriptors: Keep the descriptors that come; otherwise they are dropped.

    Attributes:
        open: The other end has not been seen to close, or to send a message that is too long.
        garbled: How many lines were dropped because they are not messages.
        descriptors: What has come with the messages, in their order. The code that knows what they are takes them out.
    """

    def __init__(self, sock: socket.socket, *, takes_descriptors: bool = False) -> None:
        sock.setblocking(False)
        self._takes_descriptors = takes_descriptors
        self._sock = sock
        self._received = b""
        self.descriptors: list[int] = []
        self.open = True
        self.garbled = 0

    @staticmethod
    def pair() -> tuple[Channel, Channel]:
        """Return the two ends of a new line: the master's, and the child's, which takes descriptors."""
        one, other = socket.socketpair()
        return Channel(one), Channel(other, takes_descriptors=True)

    def fileno(self) -> int:
        """Return the descriptor, for selectors and loops."""
        return self._sock.fileno()

    def send(self, word: enum.StrEnum, *values: object, descriptors: Sequence[int] = ()) -> None:
        """Send a message without waiting. It is lost if the other end does not read and the line is full.

        Args:
            word: The word.
            values: What json can write.
            descriptors: The other end gets duplicates of them.
        """
        data = json.dumps([word, *values]).encode() + b"\n"
        try:
            if descriptors:
                socket.send_fds(self._sock, [data], descriptors)
            else:
                self._sock.send(data)
        except BlockingIOError:
            pass  # the line is full: a process that has not read for so long is about to be replaced
        except OSError as exc:
            # Too many descriptors are on their way to processes that do not read: the message is lost, not the line.
            self.open = self.open and exc.errno == errno.ETOOMANYREFS

    def receive(self) -> list[Message]:
        """Return messages that have arrived. Afterwards :attr:`open` tells whether more can arrive.

        The other process is not trusted: whatever it sends, this method raises nothing, and returns.
        """
        for _ in range(_PIECES):
            if not self.open:
                break
            try:
                if self._takes_descriptors:
                    data, descriptors, _, _ = socket.recv_fds(self._sock, _PIECE, _MOST_DESCRIPTORS)
                    for descriptor in descriptors:
                        os.set_inheritable(descriptor, False)
                    self.descriptors += descriptors
                else:
                    data = self._sock.recv(_PIECE)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self.open = False
            self._received += data
        *lines, self._received = self._received.split(b"\n")
        if len(self._received) > _LONGEST:
            self._received = b""
            self.garbled += 1
            self.open = False
        found = [_message(line) for line in lines]
        self.garbled += found.count(None)
        return [message for message in found if message is not None]

    def end_process_when_closed(self) -> None:
        """Let the kernel kill this process when the other end closes or sends, until :meth:`end_nothing`.

        This is for the time in which no loop reads the line, such as an import that hangs. It relies on the default
        action of SIGIO, so it needs no thread, and no code of the process has to run.
        """
        signal.signal(signal.SIGIO, signal.SIG_DFL)
        fcntl.fcntl(self._sock, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(self._sock, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
        try:
            if self._sock.recv(1, socket.MSG_PEEK) == b"":
                os._exit(1)  # the other end closed before the kernel was told to watch
        except BlockingIOError:
            pass  # it is open

    def end_nothing(self) -> None:
        """Undo :meth:`end_process_when_closed`."""
        fcntl.fcntl(self._sock, fcntl.F_SETFL, os.O_NONBLOCK)

    def close(self) -> None:
        """Close this end."""
        self.open = False
        self._sock.close()


def _message(line: bytes) -> Message | None:
    """Return a line as a message; None if it is not one."""
    try:
        message = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return message if isinstance(message, list) and message and isinstance(message[0], str) else None
