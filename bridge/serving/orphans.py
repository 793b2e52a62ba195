"""Reaps the processes that the first process of a container inherits.

The parent of a process whose own parent has ended is process 1, or a process that has asked for that
(``PR_SET_CHILD_SUBREAPER``). A process that does not wait for them keeps zombies, until no process id is left. Children
that the application has started are left to it: in a server alone, and in a master that has imported the application.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
import weakref
from typing import Any

from bridge import forks

__all__ = ["INTERVAL", "Orphans", "Zombies"]

#: Seconds between two checks.
INTERVAL = 0.5
_PR_GET_CHILD_SUBREAPER = 37


class Zombies:
    """Reaps the zombies that nobody has waited for since the last check.

    A zombie that an object of ``subprocess`` or ``multiprocessing`` stands for is the application's, and so is one that
    it has forked (:func:`bridge.forks.children`).

    Attributes:
        possible: This process may inherit orphans. Nothing is known until there is a zombie.
    """

    def __init__(self) -> None:
        self.possible = hasattr(os, "waitid") and os.path.isdir("/proc/self")
        self._known = False
        self._seen: set[int] = set()
        self._hidden: list[weakref.ref[Any]] = []

    def before_freeze(self) -> None:
        """Take note of the objects that stand for children: after ``gc.freeze()`` they are not found any more."""
        self._hidden = [weakref.ref(thing) for thing in _standing()]

    def look(self) -> bool:
        """Check for zombies; return whether there is one, so that another check is due."""
        try:
            zombie = self.possible and os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            zombie = None
        self._seen = self._reap() if zombie else set()
        return bool(self._seen)

    def _reap(self) -> set[int]:
        """Reap the zombies that were there at the last look and that no code waits for; return those left."""
        if not self._known:
            self._known, self.possible = True, _inherits()
        if not self.possible:
            return set()
        left = set(_zombies())
        again = left & self._seen
        for pid in again - self._expected() if again else ():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            left.discard(pid)
        return left

    def _expected(self) -> set[int]:
        """Return the processes that were forked, or for which an object stands that will ask for their status."""
        hidden = [thing for reference in self._hidden if (thing := reference()) is not None]
        standing = {thing.pid for thing in [*_standing(), *hidden] if thing.returncode is None}
        return standing | forks.children()


class Orphans:
    """Looks twice a second for zombies, on a loop.

    Args:
        loop: The loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._zombies = Zombies()
        self._timer: asyncio.TimerHandle | None = None
        self._wait()

    def stop(self) -> None:
        """Stop checking."""
        if self._timer is not None:
            self._timer.cancel()

    def _wait(self) -> None:
        if self._zombies.possible:
            self._timer = self._loop.call_later(INTERVAL, self._look)

    def _look(self) -> None:
        self._zombies.look()
        self._wait()


def _inherits() -> bool:
    """Tell whether this process becomes the parent of orphans."""
    if os.getpid() == 1:
        return True
    import ctypes  # takes milliseconds, and few processes come here

    found = ctypes.c_int(0)
    try:
        ctypes.CDLL(None).prctl(_PR_GET_CHILD_SUBREAPER, ctypes.byref(found), 0, 0, 0)
    except (AttributeError, OSError):  # not Linux
        return False
    return bool(found.value)


def _zombies() -> list[int]:
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
            state, parent = file.read().rpartition(b")")[2].split()[:2]
            if state == b"Z" and int(parent) == os.getpid():
                found.append(int(name))
    return found


def _standing() -> list[Any]:
    """Return the objects that stand for children."""
    forking: Any = sys.modules.get("multiprocessing.popen_fork")  # the other kinds of multiprocessing derive from it
    kinds = (subprocess.Popen,) if forking is None else (subprocess.Popen, forking.Popen)
    # Not isinstance: it asks proxies for their class, which fails once what they stand for is gone.
    return [thing for thing in gc.get_objects() if issubclass(type(thing), kinds)]
