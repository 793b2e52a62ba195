"""The line between the master and one worker: short messages, each a line of JSON, over a pair of sockets.

Each end notices when the other process is gone, however it went.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket

__all__ = ["Channel", "Message"]

Message = list[object]


class Channel:
    """One end of the line.

    Attributes:
        open: The other end is there, as far as is known.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._received = b""
        self.open = True

    @staticmethod
    def pair() -> tuple[Channel, Channel]:
        """Return the two ends of a new line."""
        one, other = socket.socketpair()
        return Channel(one), Channel(other)

    def fileno(self) -> int:
        """Return the descriptor, for selectors and loops."""
        return self._sock.fileno()

    def send(self, word: str, *values: object) -> None:
        """Send a message; never waits. What does not fit, because the other end does not listen, is lost."""
        try:
            self._sock.send(json.dumps([word, *values]).encode() + b"\n")
        except BlockingIOError:
            pass  # a beat more or less; who does not read for so long is about to be replaced
        except OSError:
            self.open = False

    def receive(self) -> list[Message]:
        """Return the messages that have come; :attr:`open` is false when there will be no more."""
        while self.open:
            try:
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
        """Have the system end this process when the other end is closed, or says anything; until :meth:`end_nothing`.

        For the time without a loop that could listen. It is the default action of SIGIO, so whatever the process does
        is no obstacle, and no thread is needed.
        """
        signal.signal(signal.SIGIO, signal.SIG_DFL)
        fcntl.fcntl(self._sock, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(self._sock, fcntl.F_SETFL, os.O_NONBLOCK | os.O_ASYNC)
        try:
            if self._sock.recv(1, socket.MSG_PEEK) == b"":
                os._exit(1)  # it was closed before
        except BlockingIOError:
            pass  # it is there

    def end_nothing(self) -> None:
        """Undo :meth:`end_process_when_closed`."""
        fcntl.fcntl(self._sock, fcntl.F_SETFL, os.O_NONBLOCK)

    def close(self) -> None:
        """Close this end."""
        self.open = False
        self._sock.close()
