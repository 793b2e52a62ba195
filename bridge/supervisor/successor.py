"""A new master for the same sockets: started on SIGUSR2, with the code that is installed by then.

The new master inherits the sockets, and one end of a line to the old one. It writes there when it serves, and the old
master then retires. If the line closes before that, the new master has failed, and the old one goes on. The old master
closes its own end when it answers no probes and commands any more: from then on the new one does.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Iterable, Sequence
from typing import Self

from bridge.core.log import gen_log
from bridge.serving.process import at_origin
from bridge.serving.sockets import Listener

__all__ = ["Handover", "Succession", "Successor"]

_VARIABLE = "BRIDGE_HANDOVER"
_READY = b"ready"
_FOR_WHO_GOES_ON = frozenset({"SIGHUP", "SIGTTIN", "SIGTTOU", "SIGUSR1"})


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


class Succession:
    """What SIGUSR2 begins: it ends when a new master serves, or has failed.

    Signals that come meanwhile are for the master that goes on. Which one that is shows at the end.

    Args:
        selector: Tells when the new master has decided.
        served: Called when it serves.
        obey: Carries out a signal, by its name, in this process.

    Attributes:
        successor: The new master that starts, or serves already; None without any.
    """

    def __init__(
        self, selector: selectors.BaseSelector, served: Callable[[Successor], None], obey: Callable[[str], None]
    ) -> None:
        self.successor: Successor | None = None
        self._selector = selector
        self._served = served
        self._obey = obey
        self._put_off: list[str] = []

    def begin(self, listeners: Iterable[Listener], notify_socket: str, memory: Sequence[int]) -> Successor | None:
        """Start a new master, and return it; None if that is not possible, which the log tells. See Successor."""
        try:
            self.successor = Successor(listeners, notify_socket, memory)
        except OSError as exc:
            gen_log.error("SIGUSR2: no new master could be started: %s", exc)
            return None
        gen_log.info("SIGUSR2: a new master starts (pid %d)", self.successor.pid)
        self._selector.register(self.successor, selectors.EVENT_READ, self._decided)
        return self.successor

    def puts_off(self, name: str) -> bool:
        """Tell whether a signal has to wait until the new master has decided."""
        successor = self.successor
        if successor is None or successor.ready or name not in _FOR_WHO_GOES_ON:
            return False
        self._put_off.append(name)
        if name == "SIGUSR1":  # for both: the new master may have opened files that were renamed since
            return False
        gen_log.info("%s waits: a new master starts (pid %d), or this one goes on", name, successor.pid)
        return True

    def _decided(self) -> None:
        successor, names = self.successor, self._put_off
        assert successor is not None
        self._put_off = []
        self._selector.unregister(successor)
        if successor.read_outcome():
            for name in names:
                with contextlib.suppress(ProcessLookupError):  # it has ended again, and will be reaped
                    os.kill(successor.pid, getattr(signal, name))
            self._served(successor)
        else:
            gen_log.error("The new master (pid %d) has failed; this one goes on", successor.pid)
            successor.close()
            self.successor = None
            for name in names:
                if name != "SIGUSR1":
                    self._obey(name)


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
