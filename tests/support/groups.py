"""Control groups (cgroups(7)) for a test: a real limit of memory and of CPU time, where this system allows it."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.config.cgroups import _directories

__all__ = ["Group", "limited"]


class Group:
    """A group with a limit.

    Args:
        controller: ``memory`` or ``cpu``.
        limit: Bytes, or CPUs.

    Raises:
        OSError: This process may not make it.
    """

    def __init__(self, controller: str, limit: float) -> None:
        above, version = next(_directories(controller, "/"), ("", 0))
        if not above:
            raise OSError(f"no group of the controller {controller} is mounted")
        self.version = version
        self.path = Path(above) / f"bridge-{os.getpid()}"
        self.path.mkdir()
        try:
            if controller == "memory":
                name = "memory.max" if version == 2 else "memory.limit_in_bytes"
                (self.path / name).write_text(f"{limit:.0f}")
            elif version == 2:
                (self.path / "cpu.max").write_text(f"{limit * 100_000:.0f} 100000")
            else:
                (self.path / "cpu.cfs_quota_us").write_text(f"{limit * 100_000:.0f}")
        except OSError:
            self.path.rmdir()
            raise

    def usage(self) -> int:
        """Return how many bytes of memory the group uses."""
        return int((self.path / ("memory.current" if self.version == 2 else "memory.usage_in_bytes")).read_text())

    def kills(self) -> int:
        """Return how many processes the system has killed for their memory."""
        text = (self.path / ("memory.events" if self.version == 2 else "memory.oom_control")).read_text()
        return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("oom_kill ")), 0)

    def remove(self) -> None:
        """Remove the group, when its last process has ended."""
        for _ in range(500):
            with contextlib.suppress(OSError):
                self.path.rmdir()
                return
            time.sleep(0.01)


@contextlib.contextmanager
def limited(**limits: float) -> Iterator[tuple[dict[str, Group], list[str]]]:
    """Make a group for each of *limits*; yield them, and the words before a command that run it there.

    The test is skipped where that is not allowed.
    """
    groups: dict[str, Group] = {}
    try:
        try:
            for controller, limit in limits.items():
                groups[controller] = Group(controller, limit)
        except OSError as exc:
            pytest.skip(f"no control groups here: {exc}")
        enter = " ".join(f"echo $$ > {group.path}/cgroup.procs;" for group in groups.values())
        yield groups, ["sh", "-c", f'{enter} exec "$@"', "sh"]
    finally:
        for group in groups.values():
            group.remove()
