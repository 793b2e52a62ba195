"""Where log lines go: handlers for the command line, and the access log."""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import sys
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridge.core.exchange import Exchange

__all__ = ["AccessLog", "LineWriter", "configure"]


def configure(level: str) -> None:
    """Send the server's messages to standard error, unless the program has configured the ``bridge`` logger itself."""
    logger = logging.getLogger("bridge")
    logger.setLevel(level.upper())
    if logger.handlers or logging.getLogger().handlers:
        return
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s [%(process)d] %(levelname)s %(message)s", "%Y-%m-%d %H:%M:%S"))
    logger.addHandler(handler)
    logger.propagate = False


class LineWriter:
    """Writes lines to a file descriptor on a thread of its own, so that a full pipe or a slow disk delays nobody.

    Args:
        descriptor: Where to write.
        most: Batches that may wait; more are dropped and counted, since memory is worth more than lines.
    """

    def __init__(self, descriptor: int, most: int = 1000) -> None:
        self._descriptor = descriptor
        self._queue: queue.Queue[bytes | None] = queue.Queue(most)
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="bridge-access-log", daemon=True)
        self._thread.start()

    def write(self, block: bytes) -> None:
        """Take a block of whole lines; never waits."""
        try:
            self._queue.put_nowait(block)
        except queue.Full:
            self.dropped += block.count(b"\n")

    def close(self) -> None:
        """Write what waits, for a second at most, and end the thread."""
        try:
            self._queue.put(None, timeout=1.0)
        except queue.Full:
            return
        self._thread.join(1.0)

    def _run(self) -> None:
        while (block := self._queue.get()) is not None:
            try:
                while block:
                    block = block[os.write(self._descriptor, block) :]
            except OSError:
                # Nowhere to complain: standard output is closed or the disk is full. Requests go on, lines are lost.
                self.dropped += block.count(b"\n")


class AccessLog:
    """Observes exchanges and writes one line for each, in the common log format with the seconds it took.

    Args:
        writer: Takes blocks of lines.
        loop: The event loop; blocks are handed over a few times a second.
    """

    _INTERVAL = 0.1

    def __init__(self, writer: LineWriter, loop: asyncio.AbstractEventLoop) -> None:
        self._writer = writer
        self._loop = loop
        self._lines: list[str] = []
        self._second = 0
        self._stamp = ""
        self._timer: asyncio.TimerHandle | None = None

    def exchange_started(self, exchange: Exchange) -> None:
        """Note the time."""
        exchange.started = self._loop.time()

    def exchange_ended(self, exchange: Exchange) -> None:
        """Write the line."""
        now = time.time()
        second = int(now)
        if second != self._second:
            self._second = second
            self._stamp = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(second))
        line = exchange.head.line
        target = line.target.decode("ascii").replace("\\", "\\\\").replace('"', '\\"')
        # The request line was checked: visible ASCII only, so nothing in it can forge a line or an escape sequence.
        self._lines.append(
            f'{exchange.context.remote_ip} - - [{self._stamp}] "{line.method_text} {target} HTTP/{line.version_text}" '
            f"{exchange.status or '-'} {exchange.content_sent} {self._loop.time() - exchange.started:.4f}\n"
        )
        if self._timer is None:
            self._timer = self._loop.call_later(self._INTERVAL, self.flush)

    def flush(self) -> None:
        """Hand the lines over."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lines:
            lines, self._lines = self._lines, []
            self._writer.write("".join(lines).encode("ascii", "backslashreplace"))
