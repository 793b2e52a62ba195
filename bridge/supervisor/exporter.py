"""The process of a master that sends metrics to statsd and over OTLP: the master itself waits for no collector."""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import TYPE_CHECKING

from bridge.config import Config
from bridge.serving.privileges import drop_privileges
from bridge.supervisor.channel import Channel
from bridge.supervisor.helper import Helper
from bridge.telemetry import messages
from bridge.telemetry.metrics.push import Pusher

if TYPE_CHECKING:
    from bridge.telemetry.metrics.collect import Family

__all__ = ["Exporter"]

# Seconds that the last metrics may take at the end.
_LAST = 2.0


class Exporter:
    """Sends metrics while this process lives.

    Args:
        config: The settings.
        families: Returns the metrics.
        abandon: Called in the child; closes what belongs to the master.
        sent: The metrics as another process last sent them; None if it has sent everything so far.

    Attributes:
        pid: The process that sends.
    """

    def __init__(
        self,
        config: Config,
        families: Callable[[], list[Family]],
        abandon: Callable[[], None],
        sent: list[Family] | None = None,
    ) -> None:
        def live(channel: Channel) -> int:
            abandon()
            return _export(config, families, sent, channel)

        self._helper = Helper(live, "bridge: metrics are not sent any more")
        self.pid = self._helper.pid

    def abandon(self) -> None:
        """Close this end of the line, in a child."""
        self._helper.channel.close()

    def close(self) -> None:
        """Let the process send a last time, and end."""
        self._helper.close(_LAST)


def _export(config: Config, families: Callable[[], list[Family]], sent: list[Family] | None, channel: Channel) -> int:
    """Send until the master is gone. This runs in the child."""
    messages.begin_process()
    drop_privileges(config)

    def ended(seconds: float) -> bool:
        select.select([channel], [], [], seconds)
        channel.receive()  # the master sends nothing; this notices when it is gone
        return not channel.open

    Pusher(config, families, sent).run(ended)
    messages.flush()
    return 0
