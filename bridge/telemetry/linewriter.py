"""A thread that writes lines, so that a full pipe or a slow disk does not delay the loop."""

from __future__ import annotations

import os
import queue
import select
import stat
import threading
from collections.abc import Callable

TYPE_CHECKING = False
if TYPE_CHECKING:
    import logging

__all__ = ["LineWriter", "to_descriptor", "to_logger"]


class LineWriter:
    """Writes lines on a thread of its own.

    Args:
        write: Writes a block of whole lines. It may block, and it may raise OSError.
        most: Most blocks that may wait. More are dropped and counted: losing lines is better than filling the memory.

    Attributes:
        dropped: How many lines were lost.
    """

    def __init__(self, write: Callable[[bytes], None], most: int = 1000) -> None:
        self._write = write
        self._queue: queue.Queue[bytes | Callable[[], None] | None] = queue.Queue(most)
        self.dropped = 0
        self._thread = threading.Thread(target=self._run, name="bridge-access-log", daemon=True)
        self._thread.start()

    def write(self, block: bytes) -> None:
        """Queue a block of whole lines. This never waits."""
        try:
            self._queue.put_nowait(block)
        except queue.Full:
            self.dropped += block.count(b"\n")

    def call(self, function: Callable[[], None]) -> bool:
        """Queue a call of *function* behind the blocks so far. Return False if the queue is full."""
        try:
            self._queue.put_nowait(function)
        except queue.Full:
            return False
        return True

    def close(self) -> None:
        """Write the queued blocks, for a second at most, and end the thread."""
        try:
            self._queue.put(None, timeout=1.0)
        except queue.Full:
            return
        self._thread.join(1.0)

    def _run(self) -> None:
        while (block := self._queue.get()) is not None:
            if not isinstance(block, bytes):
                block()
                continue
            try:
                self._write(block)
            except OSError:
                # Standard output is closed, or the disk is full, and an error message could not be written either.
                self.dropped += block.count(b"\n")


def to_descriptor(descriptor: int) -> Callable[[bytes], None]:
    """Return a function that writes blocks of lines to a file, pipe or socket.

    Several processes may write to the same one. In a file that is opened for appending, blocks never mix. In a pipe,
    only writes of at most PIPE_BUF bytes never mix (POSIX ``write``), so larger blocks are split between lines.
    """

    def write_all(block: bytes) -> None:
        while block:
            block = block[os.write(descriptor, block) :]

    def write_pieces(block: bytes) -> None:
        start = 0
        while len(block) - start > select.PIPE_BUF:
            end = block.rfind(b"\n", start, start + select.PIPE_BUF) + 1 or block.index(b"\n", start) + 1
            write_all(block[start:end])
            start = end
        write_all(block[start:])

    try:
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:  # it is closed; writing will fail too
        regular = True
    return write_all if regular else write_pieces


def to_logger(logger: logging.Logger) -> Callable[[bytes], None]:
    """Return a function that passes blocks of lines to *logger*, line by line."""

    def write(block: bytes) -> None:
        for line in block.decode("utf-8", "replace").splitlines():
            logger.info("%s", line)

    return write
