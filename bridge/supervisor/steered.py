"""A master, as those see it that steer it: the commands of its owner, and what its workers' load asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from bridge.supervisor.plan import Plan
    from bridge.supervisor.workers import Workers

__all__ = ["Steered"]


class Steered(Protocol):
    """What can be seen of a master, and what it can be told."""

    @property
    def plan(self) -> Plan:
        """The workers as they should be."""
        ...

    @property
    def workers(self) -> Workers:
        """The worker processes."""
        ...

    @property
    def phase(self) -> str:
        """``starting``, ``serving``, ``reloading``, ``draining`` or ``stopping``."""
        ...

    @property
    def was_ready(self) -> bool:
        """All workers have served at the same time."""
        ...

    @property
    def successor(self) -> object | None:
        """The new master that starts, or serves already, in the place of this one; None without any."""
        ...

    def ask_reload(self) -> None:
        """Reload as on SIGHUP."""

    def ask_stop(self) -> None:
        """Stop as on SIGTERM."""

    def scale(self, number: int) -> None:
        """Run another number of workers."""

    def drain(self, grace: float, *, notify: bool = True) -> None:
        """Announce the end, and serve on."""

    def undrain(self) -> None:
        """Serve as before that."""

    def reopen(self) -> None:
        """Open the log files again."""
