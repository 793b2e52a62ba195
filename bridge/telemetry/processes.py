"""What the system says of a process."""

from __future__ import annotations

import contextlib
import os

__all__ = ["cpu_times", "measured", "resident", "runs"]

_PAGE = os.sysconf("SC_PAGE_SIZE") if hasattr(os, "sysconf") else 4096


def cpu_times() -> tuple[float, float]:
    """Return the seconds of CPU that this process has used itself, and that the system has used for it."""
    try:
        import resource
    except ImportError:  # Windows; os.times() counts in hundredths elsewhere
        return os.times()[:2]
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime, usage.ru_stime


def runs(pid: int) -> bool:
    """Tell whether a process is there. One that only waits for its parent has ended."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        return True  # it belongs to another user
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b")")[2].split()[0] not in {b"Z", b"X"}
    except ProcessLookupError:
        return False
    except OSError:  # a system without /proc; or it has ended just now
        return not os.path.isdir("/proc/self")


def resident(pid: int) -> int | None:
    """Return the resident memory of a process in bytes; None if the system does not say."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, ValueError, IndexError):
        return None


def measured(pid: int) -> dict[str, int]:
    """Return what is known of a process, by the names of metrics; nothing where the system says nothing."""
    found: dict[str, int] = {}
    memory = resident(pid)
    if memory is not None:
        found["process_memory_usage_bytes"] = memory
    with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{pid}/stat", "rb") as file:
        found["process_threads"] = int(file.read().rpartition(b")")[2].split()[17])
    with contextlib.suppress(OSError):  # a process of another user, or a system without /proc
        found["process_open_fds"] = len(os.listdir(f"/proc/{pid}/fd"))
    return found
