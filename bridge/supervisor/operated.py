"""The administration of a master, if the settings ask for one; without one, every call here does nothing.

The master calls this, and the modules behind it are only imported where they are needed.
"""

from __future__ import annotations

import selectors
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridge.config import Config
    from bridge.serving.sockets import Listener
    from bridge.supervisor.administration import Administration
    from bridge.supervisor.regulation import Regulation
    from bridge.supervisor.steered import Steered
    from bridge.supervisor.successor import Handover
    from bridge.supervisor.workers import Worker
    from bridge.telemetry.metrics.arena import Arena, Block

__all__ = ["Operated"]


class Operated:
    """Stands between a master and its administration.

    Args:
        master: The master.
        selector: Its selector.
        handover: What a master before it hands over; None if there is none.
    """

    def __init__(self, master: Steered, selector: selectors.BaseSelector, handover: Handover | None) -> None:
        self._master = master
        self._selector = selector
        self._handover = handover
        self._awaited: Handover | None = None
        self._administration: Administration | None = None
        self._regulation: Regulation | None = None

    def start(self, config: Config) -> None:
        """Open the addresses that *config* names, and get ready to count.

        Raises:
            BindError: One cannot be listened on.
        """
        handover = self._handover
        inherits = handover is not None and bool(handover.memory)
        self._regulate(config)
        if not config.measures and not inherits and config.control_path is None:
            return
        from bridge.supervisor.administration import Administration

        self._administration = Administration(
            self._master,
            self._selector,
            config,
            handover.memory if handover is not None else (),
            handover.descriptors if handover is not None else None,
        )

    def reload(self, config: Config) -> None:
        """Take new settings; errors are those of :meth:`start`."""
        if self._administration is None:
            self.start(config)
        else:
            self._administration.reload(config)
            self._regulate(config)

    def _regulate(self, config: Config) -> None:
        self._regulation = None
        if config.regulates:
            from bridge.supervisor.regulation import Regulation

            self._regulation = Regulation(self._master, config, lambda: self._arenas)

    @property
    def _arenas(self) -> tuple[Arena, ...]:
        return () if self._administration is None else self._administration.arenas

    def moved(self, step: int) -> None:
        """Take note that a signal or a command asks for more workers, or for fewer."""
        if self._regulation is not None:
            self._regulation.moved(step)

    @property
    def sockets(self) -> list[Listener]:
        """What a successor listens on, too."""
        return [] if self._administration is None else self._administration.sockets

    @property
    def memory(self) -> list[int]:
        """The descriptors of memory with counts, for a successor."""
        return [] if self._administration is None else self._administration.memory

    def allocate(self, slot: int) -> Block | None:
        """Return the cells for a worker that is about to start; None if nothing is counted."""
        return None if self._administration is None else self._administration.allocate(slot)

    def worker_started(self, pid: int, block: Block | None) -> None:
        """Count the start of a worker."""
        if self._administration is not None:
            self._administration.worker_started(pid, block)

    def not_started(self, block: Block | None) -> None:
        """Take the cells of a worker back that could not be started."""
        if self._administration is not None:
            self._administration.not_started(block)

    def worker_ended(self, worker: Worker, reason: str) -> None:
        """Count the end of a worker, and keep what it has counted."""
        if self._administration is not None:
            self._administration.worker_ended(worker, reason)

    def reload_begins(self) -> None:
        """Take note that a reload begins."""
        if self._administration is not None:
            self._administration.reload_begins()

    def reload_ended(self, error: str = "", traceback: str = "") -> None:
        """Count a reload, and tell who waits for it; see :meth:`Commands.reload_ended`."""
        if self._administration is not None:
            self._administration.reload_ended(error, traceback)

    def next_event(self) -> list[float]:
        """Return the times at which :meth:`check` has something to do."""
        times = [] if self._administration is None else self._administration.next_event()
        return times if self._regulation is None else times + self._regulation.next_event()

    def check(self, now: float) -> None:
        """Do what is due."""
        if self._administration is not None:
            self._administration.check(now)
        if self._regulation is not None:
            self._regulation.check(now)

    def take_over(self) -> None:
        """Answer in the place of the master before this one, as soon as that answers nothing any more.

        Its sums do not have what this one and its workers count. So the two may not answer the same client in turns.
        """
        handover, self._handover = self._handover, None
        if handover is None:
            return
        if self._administration is None:
            handover.close()
            return
        self._awaited = handover
        self._selector.register(handover, selectors.EVENT_READ, self._old_master_is_silent)

    def _old_master_is_silent(self) -> None:
        assert self._administration is not None
        self._leave_line()
        self._administration.take_over()

    def _leave_line(self) -> None:
        if self._awaited is not None:
            self._selector.unregister(self._awaited)
            self._awaited.close()
            self._awaited = None

    def hand_over(self) -> None:
        """Answer nothing any more: another master does, on the same sockets."""
        if self._administration is not None:
            self._administration.hand_over()

    def counts_in_child(self, block: Block | None) -> tuple[tuple[Arena, ...], Block] | None:
        """Close what a worker must not have; return the memory to sum and its own cells. This runs in the child."""
        if self._administration is None:
            return None
        self._administration.abandon()
        return None if block is None else (self._administration.arenas, block)

    def close(self, *, keep: frozenset[str], remove: bool) -> None:
        """Close everything; see :meth:`Administration.close`."""
        self._leave_line()
        if self._administration is not None:
            self._administration.close(keep=keep, remove=remove)
