"""A thread that writes lines, so that a full pipe or a slow disk delays neither a request nor a signal."""

from __future__ import annotations

import os
import select
import stat
import threading
import time
import weakref
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import logging

__all__ = ["LineWriter", "to_descriptor", "to_logger", "to_stream", "without_waiting"]

# Bytes that may wait. More are dropped. A call counts as so many: it may hold on to a traceback.
_MOST_BYTES = 8 << 20
_CALL = 8 << 10
# Seconds for which a fork waits until what was queued before it is written.
_BEFORE_FORK = 0.5
# Bytes that a pipe takes as one, which Windows does not tell.
_PIPE_BUF = getattr(select, "PIPE_BUF", 512)


class LineWriter:
    """Writes lines on a thread of its own, which starts with the first of them.

    When the queue is full, new lines are dropped and counted until everything in it is written. Losing lines is
    better than filling the memory. In a process that was forked from this one nothing waits, and *direct* is true.

    Args:
        write: Writes a block of whole lines. It may block, and it may raise.
        most: Most blocks that may wait.
        name: The name of the thread.
        idle: Seconds after which the thread ends if there is nothing to write; None for never.
        lost: Called on the thread with a number of lines that were lost, once lines can be written again. It returns
            what to write about it; empty for nothing.
        failed: Called on the thread with the first of several errors in a row.

    Attributes:
        dropped: How many lines were lost.
        direct: Lines are written at once, by the thread that has them.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        most: int = 1000,
        *,
        name: str = "bridge-access-log",
        idle: float | None = None,
        lost: Callable[[int], bytes] | None = None,
        failed: Callable[[Exception], None] | None = None,
    ) -> None:
        self._write = write
        self._most = most
        self._name = name
        self._idle = idle
        self._lost = lost
        self._failed = failed
        self.direct = False
        self._reset()
        _writers.add(self)

    def _reset(self) -> None:
        self.dropped = 0
        # This queue may be used by a signal handler that interrupts its use.
        self._queue: SimpleQueue[bytes | Callable[[], object] | None] = SimpleQueue()
        self._size = 0  # bytes that were queued, and that were taken: each is changed in one place only
        self._taken = 0
        self._said = 0  # of the lines that were lost
        self._gap = False  # lines are dropped until the queue is empty
        self._failing = False
        self._since = 0.0  # when the write in progress began; 0 for none
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()

    # ------------------------------------------------------------------ for those who have lines

    def write(self, block: bytes) -> None:
        """Queue a block of whole lines. This never waits."""
        if self.direct:
            self._do(block)
        elif self._has_room():
            self._size += len(block)
            self._queue.put(block)
            self._start()
        else:
            self.dropped += block.count(b"\n") or 1

    def call(self, function: Callable[[], object]) -> bool:
        """Queue a call of *function* behind the blocks so far. Return False if the queue is full."""
        if self.direct:
            self._do(function)
        elif self._has_room():
            self._size += _CALL
            self._queue.put(function)
            self._start()
        else:
            return False
        return True

    def flush(self, limit: float) -> bool:
        """Wait until all blocks so far are written. Tell whether they were written in time.

        Args:
            limit: Seconds that this may take; for a write that has hung for longer, it takes none.
        """
        if self._thread is None and self._queue.empty():
            return True
        left = self._patience(limit)
        if left <= 0.0 or self._thread is threading.current_thread():
            return False
        written = threading.Event()
        self._size += _CALL
        self._queue.put(written.set)
        self._start()
        return written.wait(left)

    def close(self, limit: float = 1.0) -> None:
        """Write the queued blocks, for *limit* seconds at most, and end the thread. The next block starts another."""
        thread = self._thread
        if thread is None or thread is threading.current_thread():
            return
        left = self._patience(limit)
        if left > 0.0:
            self._queue.put(None)
            thread.join(left)

    def _has_room(self) -> bool:
        if self._gap:
            return False
        self._gap = self._queue.qsize() >= self._most or self._size - self._taken >= _MOST_BYTES
        return not self._gap

    def _patience(self, limit: float) -> float:
        since = self._since
        return limit - (time.monotonic() - since) if since else limit

    # ------------------------------------------------------------------ the thread

    def _start(self) -> None:
        # Whoever does not get the lock has interrupted, or runs beside, somebody who is about to start the thread.
        if self._thread is None and self._starting.acquire(blocking=False):
            try:
                if self._thread is None:
                    self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                    self._thread.start()
            except RuntimeError:  # the system has no thread left, or the interpreter is about to end
                self._thread = None
                while not self._queue.empty():
                    self._take()
            finally:
                self._starting.release()

    def _run(self) -> None:
        while True:
            if self._take():
                continue
            # A block that is queued from now on starts a thread. What was queued before is seen here.
            self._thread = None
            if self._queue.empty():
                return
            with self._starting:
                if self._thread is not None:
                    return
                self._thread = threading.current_thread()

    def _take(self) -> bool:
        """Take the next item of the queue and carry it out. Return False at the end."""
        try:
            item = self._queue.get(timeout=self._idle)
        except Empty:
            return False
        if item is None:
            return False
        self._since = time.monotonic()
        self._do(item)
        self._taken += len(item) if isinstance(item, bytes) else _CALL
        if self._queue.empty():
            self._gap = False
            self._report()
        self._since = 0.0
        return True

    def _do(self, item: bytes | Callable[[], object]) -> None:
        try:
            if not isinstance(item, bytes):
                item()
                return
            self._write(item)
            self._failing = False
        except Exception as exc:
            # Standard output is closed, the disk is full, or somebody else's handler has a fault.
            self.dropped += item.count(b"\n") or 1 if isinstance(item, bytes) else 1
            if not self._failing and self._failed is not None:
                self._failed(exc)
            self._failing = True

    def _report(self) -> None:
        number = self.dropped - self._said
        if number and not self._failing:
            self._said += number
            text = self._lost(number) if self._lost is not None else b""
            if text:
                self._do(text)


_writers: weakref.WeakSet[LineWriter] = weakref.WeakSet()


def _before_fork() -> None:
    for writer in list(_writers):
        writer.close(_BEFORE_FORK)


def _after_fork_in_child() -> None:
    for writer in list(_writers):
        writer._reset()
        writer.direct = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_child=_after_fork_in_child)


# ---------------------------------------------------------------------- where to


def to_descriptor(descriptor: int) -> Callable[[bytes], None]:
    """Return a function that writes blocks of lines to a file, pipe or socket.

    Several processes may write to the same one. In a file that is opened for appending, blocks never mix. In a pipe,
    only writes of at most PIPE_BUF bytes never mix (POSIX ``write``), so larger blocks are split between lines.
    """

    def write_all(block: bytes) -> None:
        while block:
            try:
                block = block[os.write(descriptor, block) :]
            except BlockingIOError:  # another program has made it so, for all who have it; Windows has no such pipes
                poll = select.poll()
                poll.register(descriptor, select.POLLOUT)
                poll.poll()

    def write_pieces(block: bytes) -> None:
        start = 0
        while len(block) - start > _PIPE_BUF:
            end = block.rfind(b"\n", start, start + _PIPE_BUF) + 1 or block.find(b"\n", start) + 1 or len(block)
            write_all(block[start:end])
            start = end
        write_all(block[start:])

    try:
        regular = stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:  # it is closed; writing will fail too
        regular = True
    return write_all if regular else write_pieces


def to_stream(stream: Any) -> Callable[[bytes], None]:
    """Return a function that writes blocks of lines to a stream for text, or to nothing: the stream may be None.

    It needs no method but ``write``.
    """
    flush = getattr(stream, "flush", None)

    def write(block: bytes) -> None:
        if stream is not None:
            stream.write(block.decode("utf-8", "replace"))
        if flush is not None:
            flush()

    return write


def to_logger(logger: logging.Logger) -> Callable[[bytes], None]:
    """Return a function that passes blocks of lines to *logger*, line by line."""

    def write(block: bytes) -> None:
        for line in block.decode("utf-8", "replace").splitlines():
            logger.info("%s", line)

    return write


def without_waiting(descriptor: int) -> int:
    """Return a descriptor of the same pipe or terminal on which a write never waits; *descriptor* if there is none.

    It is for code that cannot leave its lines to a thread.
    """
    try:
        mode = os.fstat(descriptor).st_mode
        if hasattr(os, "O_NONBLOCK") and (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            return os.open(f"/proc/self/fd/{descriptor}", flags)
    except OSError:  # no /proc, or it belongs to another user
        pass
    return descriptor
