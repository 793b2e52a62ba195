"""The process of a master that sends metrics to statsd and over OTLP: the master itself waits for nobody."""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from bridge import forks
from bridge.config import Config
from bridge.serving.privileges import drop_privileges
from bridge.supervisor.channel import Channel
from bridge.telemetry import messages, streams
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
        abandon: Closes, in the child, what is the master's.
        sent: What another process has sent of them already; None for everything so far.
    """

    def __init__(
        self,
        config: Config,
        families: Callable[[], list[Family]],
        abandon: Callable[[], None],
        sent: list[Family] | None = None,
    ) -> None:
        self._channel, theirs = Channel.pair()
        streams.flush()
        self._pid = forks.fork()
        if self._pid == 0:
            code = 1
            try:
                forks.begin_afresh()
                self._channel.close()
                abandon()
                code = _export(config, families, sent, theirs)
            except BaseException as exc:
                messages.say(f"bridge: metrics are not sent any more: {exc!r}", logging.ERROR)
            forks.leave(code)
        theirs.close()

    def abandon(self) -> None:
        """Close this end of the line, in a child."""
        self._channel.close()

    def close(self) -> None:
        """Let the process send a last time, and end."""
        self._channel.close()
        end = time.monotonic() + _LAST
        with contextlib.suppress(ChildProcessError):  # the master has reaped it already
            while os.waitpid(self._pid, os.WNOHANG) == (0, 0):
                if time.monotonic() > end:
                    os.kill(self._pid, signal.SIGKILL)
                    os.waitpid(self._pid, 0)
                    return
                time.sleep(0.01)


def _export(config: Config, families: Callable[[], list[Family]], sent: list[Family] | None, channel: Channel) -> int:
    """Send until the master is gone. This runs in the child."""
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    messages.begin_process()
    drop_privileges(config)

    def ended(seconds: float) -> bool:
        select.select([channel], [], [], seconds)
        channel.receive()  # the master sends nothing; this notices when it is gone
        return not channel.open

    Pusher(config, families, sent).run(ended)
    messages.flush()
    return 0
