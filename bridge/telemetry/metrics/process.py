"""What one process that serves counts and measures; and which settings ask for it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bridge.telemetry.metrics.arena import LEAVING, READY, STARTING, Arena, Block
from bridge.telemetry.metrics.observer import RequestMetrics
from bridge.telemetry.metrics.sampler import Sampler, Sources, count_messages

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from bridge.config import Config
    from bridge.core.connection.context import ConnectionContext
    from bridge.core.connection.websocket import WebSocketConnection

__all__ = ["ProcessMetrics"]


class ProcessMetrics:
    """The counts of a process.

    Args:
        arenas: The memory of all processes, which this one may read.
        block: The part of it that this process writes.
        config: The settings.
        trusts: As for :class:`RequestMetrics`.

    Attributes:
        arenas: See above.
        observer: Counts exchanges and connections.
    """

    def __init__(
        self,
        arenas: tuple[Arena, ...],
        block: Block,
        config: Config,
        trusts: Callable[[ConnectionContext], bool] | None = None,
    ) -> None:
        self.arenas = arenas
        self._block = block
        block.pid = os.getpid()
        block.state = STARTING
        self.observer = RequestMetrics(block, sizes=config.metrics_body_sizes, trusts=trusts)
        self._sampler: Sampler | None = None

    @classmethod
    def alone(cls, config: Config, trusts: Callable[[ConnectionContext], bool] | None = None) -> ProcessMetrics:
        """Return the counts of a process without a master."""
        arena = Arena(2)
        arena.keep_alone()
        block = arena.allocate(0)
        assert block is not None
        return cls((arena,), block, config, trusts)

    def start(self, loop: asyncio.AbstractEventLoop, sources: Sources) -> None:
        """Measure until :meth:`stop`: the process serves from now on."""
        self._block.state = READY
        self._sampler = Sampler(loop, self._block, self.observer, sources)

    def leave(self) -> None:
        """Note that the process accepts no more connections."""
        self._block.state = LEAVING

    def stop(self) -> None:
        """Measure no more."""
        if self._sampler is not None:
            self._sampler.stop()

    def count_messages(self, connection: WebSocketConnection) -> None:
        """Count the messages of a WebSocket."""
        count_messages(connection, self._block)
