"""A process of a master's own that serves nothing: it watches files, or sends metrics, so that the master need not."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable

from bridge import forks
from bridge.supervisor.channel import Channel
from bridge.telemetry import messages, streams

__all__ = ["Helper"]

# A terminal, and who stops a server, may signal all processes of a group. This one ends with the line to the master.
_IGNORED = ("SIGINT", "SIGHUP", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2")


class Helper:
    """A child with a line to this process, at whose end it ends.

    Args:
        live: Called in the child with its end of the line; returns the exit status.
        fault: What is logged, with the reason, if that raises.

    Attributes:
        pid: The process.
        channel: This end of the line.
    """

    def __init__(self, live: Callable[[Channel], int], fault: str) -> None:
        self.channel, theirs = Channel.pair()
        streams.flush()
        self.pid = forks.fork()
        if self.pid == 0:
            code = 1
            try:
                forks.begin_afresh()
                self.channel.close()
                for name in _IGNORED:
                    signal.signal(getattr(signal, name), signal.SIG_IGN)
                code = live(theirs)
            except BaseException as exc:
                messages.say(f"{fault}: {exc!r}", logging.ERROR)
            forks.leave(code)
        theirs.close()

    def close(self, patience: float) -> None:
        """Close the line, and kill the process if it has not ended within *patience* (seconds)."""
        self.channel.close()
        end = time.monotonic() + patience
        with contextlib.suppress(ChildProcessError):  # it has been reaped already
            while os.waitpid(self.pid, os.WNOHANG) == (0, 0):
                if time.monotonic() >= end:
                    os.kill(self.pid, signal.SIGKILL)
                    os.waitpid(self.pid, 0)
                    return
                time.sleep(0.01)
