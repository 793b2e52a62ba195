"""Several processes that serve the same listening sockets: fork, wait, restart.

For programs that call it themselves, before anything touches the event loop. The command line's workers are another
matter.
"""

from __future__ import annotations

import os
import signal
import sys

from bridge.core.log import gen_log

__all__ = ["cpu_count", "fork_processes", "task_id"]

_MAX_RESTARTS = 100

_task_id: int | None = None


def cpu_count() -> int:
    """Return the number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def task_id() -> int | None:
    """Return this child's number, counted from 0; None in a process that :func:`fork_processes` did not make."""
    return _task_id


def fork_processes(num_processes: int | None, max_restarts: int | None = None) -> int:
    """Fork children; return in each of them, with its number. The parent only looks after them.

    A child that was killed by a signal, or left with another status than 0, is replaced under the same number. When
    all children have left with 0, the parent leaves with 0, too. Random number generators are seeded anew in the
    children, by Python.

    Args:
        num_processes: How many; None, 0 or less stands for :func:`cpu_count`.
        max_restarts: How many replacements there may be altogether; None stands for 100.

    Raises:
        AssertionError: Called in a child.
        RuntimeError: In the parent: one replacement too many is due. The other children are told to end (SIGTERM).
        SystemExit: In the parent: all children are done.
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
            continue  # a child of the program's own
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
