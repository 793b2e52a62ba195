"""What a container may use: CPUs and memory, by the control groups of this process (cgroups(7), versions 1 and 2)."""

from __future__ import annotations

import os
from collections.abc import Iterator

__all__ = ["cpu_quota", "memory_limit", "memory_usage"]

# Version 1 writes about this many bytes where there is no limit.
_NO_LIMIT = 1 << 60


def cpu_quota(root: str = "/") -> float | None:
    """Return how many CPUs this process may use, perhaps a fraction; None if nothing limits it.

    The limits of all groups above hold, too, up to the one at the root of what this process sees.

    Args:
        root: Where ``proc`` and the mount points are; for tests.
    """
    found = []
    for directory, version in _directories("cpu", root):
        if version == 2:
            words = _read(directory, "cpu.max").split()
        else:
            words = [_read(directory, "cpu.cfs_quota_us"), _read(directory, "cpu.cfs_period_us")]
        try:
            quota, period = (int(word) for word in words)
        except ValueError:  # "max", or no such file: the group at the root has none
            continue
        if quota > 0 and period > 0:
            found.append(quota / period)
    return min(found, default=None)


def memory_limit(root: str = "/") -> int | None:
    """Return how much memory this process and those in its group may use together (bytes); None for no limit."""
    found = []
    for directory, version in _directories("memory", root):
        text = _read(directory, "memory.max" if version == 2 else "memory.limit_in_bytes")
        if text.isdigit() and 0 < int(text) < _NO_LIMIT:
            found.append(int(text))
    return min(found, default=None)


def memory_usage(root: str = "/") -> int | None:
    """Return how much memory the group with the lowest limit uses (bytes), without memory that the system can reclaim.

    None if there is no limit.
    """
    lowest: tuple[int, str, int] | None = None
    for directory, version in _directories("memory", root):
        text = _read(directory, "memory.max" if version == 2 else "memory.limit_in_bytes")
        if text.isdigit() and 0 < int(text) < _NO_LIMIT and (lowest is None or int(text) < lowest[0]):
            lowest = (int(text), directory, version)
    if lowest is None:
        return None
    _, directory, version = lowest
    used = _read(directory, "memory.current" if version == 2 else "memory.usage_in_bytes")
    if not used.isdigit():
        return None
    name = "inactive_file" if version == 2 else "total_inactive_file"
    for line in _read(directory, "memory.stat").splitlines():
        word, _, value = line.partition(" ")
        if word == name and value.isdigit():
            return max(int(used) - int(value), 0)
    return int(used)


def _directories(controller: str, root: str) -> Iterator[tuple[str, int]]:
    """Yield the directories of the groups of this process and of those above, each with its version."""
    mounts = list(_mounts(root))
    for line in _read(root, "proc/self/cgroup").splitlines():
        _, _, rest = line.partition(":")
        names, _, path = rest.partition(":")
        version = 1 if names else 2
        if version == 1 and controller not in names.split(","):
            continue
        shown = [
            (point, _below(path, top))
            for kind, point, top, options in mounts
            if kind == version and (version == 2 or controller in options)
        ]
        if not shown:
            continue
        # A mount may show another part of the hierarchy, such as the host's, which the namespace calls /../..: it is
        # the last resort, as in a container without a namespace of its own.
        point, below = next((one for one in shown if one[1] is not None), shown[0])
        base = os.path.join(root, point.lstrip("/"))
        parts = below or []
        for end in range(len(parts), -1, -1):
            yield os.path.join(base, *parts[:end]), version


def _below(path: str, top: str) -> list[str] | None:
    """Return the parts of a group's path below the one that a mount shows; None if the group is elsewhere."""
    if ".." in path.split("/") or ".." in top.split("/"):  # outside of this process's namespace
        return None
    below = os.path.relpath(path, top)
    parts = [] if below == "." else below.split("/")
    return None if ".." in parts else parts


def _mounts(root: str) -> Iterator[tuple[int, str, str, frozenset[str]]]:
    """Yield version, mount point, root in the hierarchy and controllers of each mounted hierarchy."""
    for line in _read(root, "proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        places, kinds = before.split(), after.split()
        if len(places) < 5 or len(kinds) < 3 or kinds[0] not in {"cgroup", "cgroup2"}:
            continue
        yield (
            2 if kinds[0] == "cgroup2" else 1,
            _unescaped(places[4]),
            _unescaped(places[3]),
            frozenset(kinds[2].split(",")),
        )


def _unescaped(text: str) -> str:
    return text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")


def _read(directory: str, name: str) -> str:
    """Return the text of a file, without white space around it; empty if it cannot be read."""
    try:
        with open(os.path.join(directory, name), encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return ""
