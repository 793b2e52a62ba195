"""The line between the master and a child process: short messages, each a line of JSON, over a pair of sockets.

Descriptors can go with a message to the child. Each end notices when the other process has ended, in whatever way.
"""

from __future__ import annotations

import enum
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


class Channel:
    """One end of the line.

    Args:
        sock: One of a pair.
        takes_descriptors: Keep the descriptors that come; otherwise they are dropped.

    Attributes:
        open: The other end has not been seen to close.
        descriptors: What has come with the messages, in their order. Whoever knows what they are takes them out.
    """

    def __init__(self, sock: socket.socket, *, takes_descriptors: bool = False) -> None:
        sock.setblocking(False)
        self._takes_descriptors = takes_descriptors
        self._sock = sock
        self._received = b""
        self.descriptors: list[int] = []
        self.open = True

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
            pass  # a process that has not read for so long is about to be replaced
        except OSError:
            self.open = False

    def receive(self) -> list[Message]:
        """Return the messages that have arrived. Afterwards :attr:`open` tells whether more can arrive."""
        while self.open:
            try:
                if self._takes_descriptors:
                    data, descriptors, _, _ = socket.recv_fds(self._sock, 65536, _MOST_DESCRIPTORS)
                    for descriptor in descriptors:
                        os.set_inheritable(descriptor, False)
                    self.descriptors += descriptors
                else:
                    data = self._sock.recv(65536)
            except BlockingIOError:
                break
            except OSError:
                data = b""
            if not data:
                self.open = False
            self._received += data
        *lines, self._received = self._received.split(b"\n")
        return [json.loads(line) for line in lines]

    def end_process_when_closed(self) -> None:
        """Let the kernel end this process when the other end closes or sends, until :meth:`end_nothing`.

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
