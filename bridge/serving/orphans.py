"""Reaps the processes that the first process of a container inherits.

The parent of a process whose own parent has ended is process 1, or a process that has asked for that
(``PR_SET_CHILD_SUBREAPER``). Who does not wait for them keeps zombies, until no number for a process is left. A master
waits for all of its children; a server alone must leave those to the application that the application has started.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import subprocess
import sys
from typing import Any

__all__ = ["Orphans"]

_INTERVAL = 0.5
_PR_GET_CHILD_SUBREAPER = 37


class Orphans:
    """Looks twice a second for zombies that nobody has waited for since the last look.

    A zombie that an object of ``subprocess`` or ``multiprocessing`` stands for is the application's.

    Args:
        loop: The loop.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._seen: set[int] = set()
        self._inherits: bool | None = None  # unknown until there is a zombie
        self._timer: asyncio.TimerHandle | None = None
        if hasattr(os, "waitid") and os.path.isdir("/proc/self"):
            self._timer = loop.call_later(_INTERVAL, self._look)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        try:
            zombie = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            zombie = None
        self._seen = self._reap() if zombie is not None else set()
        if self._inherits is not False:
            self._timer = self._loop.call_later(_INTERVAL, self._look)

    def _reap(self) -> set[int]:
        """Reap the zombies that were there before and are nobody's. Return those that are left."""
        if self._inherits is None:
            self._inherits = _inherits()
        if not self._inherits:
            return set()
        left = set(_zombies())
        for pid in (left & self._seen) - _expected():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
            left.discard(pid)
        return left


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


def _expected() -> set[int]:
    """Return the processes for which an object stands that will ask for their status."""
    forking: Any = sys.modules.get("multiprocessing.popen_fork")  # the other kinds of multiprocessing derive from it
    kinds = (subprocess.Popen,) if forking is None else (subprocess.Popen, forking.Popen)
    objects: list[Any] = [thing for thing in gc.get_objects() if isinstance(thing, kinds)]
    return {thing.pid for thing in objects if thing.returncode is None}
