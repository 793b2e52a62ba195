"""The interface of a master for the code that steers it: the owner's commands, and the regulation by load."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from bridge.supervisor.plan import Plan
    from bridge.supervisor.workers import Workers

__all__ = ["Steered"]


class Steered(Protocol):
    """A master's state, and the orders that it takes."""

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
        """The new master that is starting, or already serves, in place of this one; None without one."""
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
        """Serve as before :meth:`drain`."""

    def reopen(self) -> None:
        """Open the log files again."""
