"""A new master for the same sockets: started on SIGUSR2, with the code that is installed by then.

The new master inherits the sockets, and one end of a line to the old one. It writes there when it serves, and the old
master then retires. If the line closes before that, the new master has failed, and the old one goes on. The old master
closes its own end when it answers no probes and commands any more: from then on the new one does.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
from collections.abc import Iterable, Sequence
from typing import Self

from bridge.serving.process import at_origin
from bridge.serving.sockets import Listener

__all__ = ["Handover", "Successor"]

_VARIABLE = "BRIDGE_HANDOVER"
_READY = b"ready"


class Successor:
    """The new master, as the old one sees it.

    Args:
        listeners: The listening sockets to hand over.
        notify_socket: The address of systemd's socket for notifications; empty without systemd.
        memory: Descriptors of memory with counts.

    Attributes:
        pid: The new process.
        ready: The new master serves.

    Raises:
        OSError: The process cannot be started.
    """

    def __init__(self, listeners: Iterable[Listener], notify_socket: str = "", memory: Sequence[int] = ()) -> None:
        self.ready = False
        ours, other = socket.socketpair()
        self._line, theirs = ours.detach(), other.detach()
        passed = {listener.name: [sock.fileno() for sock in listener.sockets] for listener in listeners}
        environ = {name: value for name, value in os.environ.items() if name not in {"LISTEN_PID", "WATCHDOG_PID"}}
        environ[_VARIABLE] = json.dumps({"listeners": passed, "ready": theirs, "memory": list(memory)})
        if notify_socket:
            environ["NOTIFY_SOCKET"] = notify_socket
        numbers = [number for numbers in passed.values() for number in numbers] + [*memory, theirs]
        try:
            for number in numbers:
                os.set_inheritable(number, True)
            words = [sys.executable, *sys.orig_argv[1:]]
            self.pid = at_origin(lambda: os.posix_spawn(sys.executable, words, environ))
        except BaseException:
            self.close()
            raise
        finally:
            os.close(theirs)
            for number in numbers[:-1]:
                os.set_inheritable(number, False)

    def fileno(self) -> int:
        """Return the descriptor, readable when the new master serves or has failed; -1 after :meth:`close`."""
        return self._line

    def read_outcome(self) -> bool:
        """Read from the line. Return True if the new master serves, False if it has failed."""
        self.ready = os.read(self._line, 100) == _READY
        return self.ready

    def close(self) -> None:
        """Close this end of the line. May be called again."""
        if self._line >= 0:
            os.close(self._line)
            self._line = -1


class Handover:
    """The old master, as the new one sees it.

    Attributes:
        descriptors: Listening sockets by the name of their listener.
        memory: Descriptors of the memory with the counts of this and earlier masters.
    """

    def __init__(self, descriptors: dict[str, list[int]], line: int, memory: Sequence[int] = ()) -> None:
        self.descriptors = descriptors
        self.memory = memory
        self._line = line

    @classmethod
    def received(cls) -> Self | None:
        """Return what an old master has handed over to this process, or None if there is no old master."""
        text = os.environ.pop(_VARIABLE, "")
        if not text:
            return None
        handed = json.loads(text)
        os.set_inheritable(handed["ready"], False)
        memory = handed.get("memory", [])  # an older version has none
        for number in memory:
            os.set_inheritable(number, False)
        return cls(handed["listeners"], handed["ready"], memory)

    def fileno(self) -> int:
        """Return the descriptor, readable when the old master has closed its end; -1 after :meth:`close`."""
        return self._line

    def close_unused(self, listeners: Iterable[Listener]) -> None:
        """Close the inherited sockets that are not in *listeners*, since the settings no longer name them."""
        taken = {sock.fileno() for listener in listeners for sock in listener.sockets}
        for numbers in self.descriptors.values():
            for number in numbers:
                if number not in taken:
                    os.close(number)

    def ready(self) -> None:
        """Tell the old master to retire."""
        with contextlib.suppress(BrokenPipeError):  # the old master has ended meanwhile
            os.write(self._line, _READY)

    def close(self) -> None:
        """Close this end of the line. Without :meth:`ready`, this tells the old master that this one has failed."""
        if self._line >= 0:
            os.close(self._line)
            self._line = -1
