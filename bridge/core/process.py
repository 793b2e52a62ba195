"""Forks processes that serve the same listening sockets, and replaces those that die (Tornado's documented functions).

Programs call it themselves, before they use the event loop. ``bridge run`` does not use it: its workers are those of
``bridge.supervisor``.
"""

from __future__ import annotations

import os
import signal
import sys

from bridge.core.log import gen_log

__all__ = ["cpu_count", "fork_processes", "task_id"]

_MAX_RESTARTS = 100  # of all children together

_task_id: int | None = None


def cpu_count() -> int:
    """Return the number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def task_id() -> int | None:
    """Return this child's number, counted from 0; None in a process that is not a child of :func:`fork_processes`."""
    return _task_id


def fork_processes(num_processes: int | None, max_restarts: int | None = None) -> int:
    """Fork children, and return in each of them its number. The parent does not return: it waits for the children.

    A child that a signal has killed, or that has exited with another status than 0, is replaced under the same number.
    When all children have exited with 0, the parent exits with 0. Python seeds its random number generators anew in
    the children.

    Args:
        num_processes: How many children; None, 0 or less for :func:`cpu_count`.
        max_restarts: Most replacements of all children together; None for 100.

    Raises:
        AssertionError: Called in a child.
        RuntimeError: In the parent; one more replacement than allowed is needed. The other children get SIGTERM.
        SystemExit: In the parent; all children have exited.
        NotImplementedError: The platform cannot fork.
    """
    if not hasattr(os, "fork"):
        raise NotImplementedError("fork_processes: this platform has no fork")
    if _task_id is not None:
        raise AssertionError(f"fork_processes: called in child {_task_id}")
    if max_restarts is None:
        max_restarts = _MAX_RESTARTS
    restarts = 0
    if num_processes is None or num_processes <= 0:
        num_processes = cpu_count()
    gen_log.debug("Starting %d processes", num_processes)
    children: dict[int, int] = {}
    for number in range(num_processes):
        if _fork(number, children):
            return number
    while children:
        pid, status = os.wait()
        done = children.pop(pid, None)
        if done is None:
            continue  # a child that the program has forked itself
        code = os.waitstatus_to_exitcode(status)
        if code == 0:
            gen_log.debug("child %d (pid %d) exited normally", done, pid)
            continue
        how = f"killed by signal {-code}" if code < 0 else f"exited with status {code}"
        if restarts >= max_restarts:
            for other in children:
                os.kill(other, signal.SIGTERM)
            raise RuntimeError(f"child {done} (pid {pid}) {how}; too many restarts, limit {max_restarts}")
        restarts += 1
        gen_log.warning("child %d (pid %d) %s, restarting", done, pid, how)
        if _fork(done, children):
            return done
    sys.exit(0)


def _fork(number: int, children: dict[int, int]) -> bool:
    """Fork child *number*; return True in the child."""
    global _task_id
    pid = os.fork()
    if pid == 0:
        _task_id = number
        return True
    children[pid] = number
    return False
