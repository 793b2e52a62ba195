"""Request content on its way to ``wsgi.input``.

There are two ways. Either the request gets a thread once its content is complete, in memory or in a temporary file. Or
the content is streamed: then the thread waits for the client, and the client for the thread.

Threads read from the classes here. :mod:`.receivers` fills them on the event loop.
"""

from __future__ import annotations

import io
from collections import deque
from typing import IO, TYPE_CHECKING

from bridge.errors import ConnectionGone

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.adapters.wsgi.threadpool import Worker
    from bridge.core.connection.budgets import Budget
    from bridge.core.connection.interfaces import Exchange

    Post = Callable[[Callable[[Exchange, None], None], Exchange], None]

__all__ = ["ContentError", "ReceivedContent", "StreamedContent"]

# With this much streamed content in memory (bytes), the client has to wait.
_WINDOW = 65536


class ContentError(OSError):
    """The temporary file for a request's content cannot be written."""


class ReceivedContent:
    """Content that is complete before the application is called.

    The loop fills it. The file is one thread's at a time: that of a write job, and at last that of the thread that
    answers the request. So there is no lock. The methods may wait for the disk, and are for threads only.

    Attributes:
        size: Bytes received so far.
        rest: Content that is not in the file: the end of it, or all of it.
    """

    __slots__ = ("_budget", "_file", "_reader", "rest", "size")

    def __init__(self) -> None:
        self._budget: Budget | None = None
        self.size = 0
        self.rest: list[bytes] = []
        self._file: io.FileIO | None = None
        self._reader: io.BufferedReader | None = None  # what the application reads the file with

    @property
    def has_file(self) -> bool:
        """Some of the content is in a temporary file."""
        return self._file is not None

    def keep(self, budget: Budget) -> None:
        """Count the content, which is complete and in a file, in *budget* until it is closed."""
        self._budget = budget
        budget.keep(self.size)

    def append(self, chunks: list[bytes]) -> None:
        """Write content to the temporary file.

        Raises:
            OSError: It cannot be written.
        """
        if self._file is None:
            import tempfile  # this takes 5 ms, and few requests need it

            # On Linux the file never has a name; elsewhere it is unlinked as soon as it is open.
            # Without a buffer: of a thousand uploads, the buffers would be 8 MiB.
            self._file = tempfile.TemporaryFile(prefix="bridge-", buffering=0)  # noqa: SIM115 -- close() closes it
        left = memoryview(b"".join(chunks))
        while left:
            left = left[self._file.write(left) :]

    def open(self) -> IO[bytes]:
        """Return the content as a file at its beginning.

        Raises:
            ContentError: The temporary file cannot be written.
        """
        if self._file is None:
            return io.BytesIO(self.rest[0] if len(self.rest) == 1 else b"".join(self.rest))
        try:
            self.append(self.rest)
            self._file.seek(0)
        except OSError as exc:
            raise ContentError(exc.errno, exc.strerror) from exc
        self.rest = []
        if self._reader is None:
            self._reader = io.BufferedReader(self._file)
        return self._reader

    def close(self) -> None:
        """Release the memory and the file."""
        self.rest = []
        budget, self._budget = self._budget, None
        if budget is not None:
            budget.release(self.size)
        if self._reader is not None:
            self._reader.close()
        elif self._file is not None:
            self._file.close()


class StreamedContent(io.RawIOBase):
    """Content that is read while it arrives. It is the raw part of a ``BufferedReader``.

    Args:
        exchange: The exchange.
        post: Lets the loop call a function.

    Attributes:
        size: Bytes received so far.
    """

    def __init__(self, exchange: Exchange, post: Post) -> None:
        super().__init__()
        self._exchange = exchange
        self._post = post
        self._chunks: deque[bytes] = deque()
        self.size = 0
        self._taken = 0
        self._paused = False
        self._complete = False
        self._cut_off = False
        self._worker: Worker | None = None

    # ------------------------------------------------------------------ called by the loop

    def add(self, chunk: bytes) -> None:
        """Keep a piece; if much has gathered, the client has to wait."""
        self._chunks.append(chunk)
        self.size += len(chunk)
        if self.size - self._taken >= _WINDOW:
            self._paused = True
            self._exchange.pause_reading()
        self._notify()

    def finish(self) -> None:
        """Note that the content is complete."""
        self._complete = True
        self._notify()

    def cut_off(self) -> None:
        """Note that no more comes although the content is not complete."""
        self._cut_off = True
        self._notify()

    def _notify(self) -> None:
        if self._worker is not None:
            self._worker.notify()

    # ------------------------------------------------------------------ called by the thread

    def attach(self, worker: Worker) -> None:
        """Set the thread that reads."""
        self._worker = worker

    def readable(self) -> bool:
        """Tell that this can be read."""
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]  # the buffer of a BufferedReader
        """Read the content that is here; wait for the first byte.

        Raises:
            ConnectionGone: The client left before the content was complete.
        """
        chunks = self._chunks
        worker = self._worker
        assert worker is not None
        while not chunks:
            if self._cut_off:
                raise ConnectionGone("the client left before its request was complete")
            if self._complete and not chunks:
                return 0
            self._ask_for_more()
            if not (chunks or self._cut_off or self._complete):
                worker.wait(1.0)
        chunk = chunks[0]
        room = len(buffer)
        if len(chunk) <= room:
            chunks.popleft()
        else:
            chunks[0] = chunk[room:]
            chunk = chunk[:room]
        size = len(chunk)
        buffer[:size] = chunk
        self._taken += size
        if self._paused and self.size - self._taken < _WINDOW // 2:
            self._paused = False
            self._ask_for_more()
        return size

    def _ask_for_more(self) -> None:
        self._post(_resume, self._exchange)


def _resume(exchange: Exchange, _: None) -> None:
    """Let the client send more content; it may wait for 100 (Continue). Called on the loop."""
    exchange.send_continue()
    exchange.resume_reading()
