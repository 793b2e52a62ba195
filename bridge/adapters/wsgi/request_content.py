"""Request content on its way to ``wsgi.input``.

Either everything is received before a thread is taken, in memory first and then in a temporary file, or the content is
streamed: then the thread waits for what the client sends, and the client for the thread.
"""

from __future__ import annotations

import io
import threading
from collections import deque
from collections.abc import Callable
from typing import IO, TYPE_CHECKING

from bridge.errors import ConnectionGone

if TYPE_CHECKING:
    from bridge.adapters.wsgi.threadpool import Worker

__all__ = ["ReceivedContent", "StreamedContent"]

# Content beside a temporary file that waits to be written to it, in bytes.
_PENDING = 16384
# Streamed content that is kept before the client has to wait, in bytes.
_WINDOW = 65536


class ReceivedContent:
    """Content that is complete before the application is called.

    A disk can be slow, and the loop must not wait for it: :meth:`add` and :meth:`close` are for the loop, the other two
    for threads.

    Args:
        memory: Bytes up to which it is kept in memory.

    Attributes:
        size: Bytes received so far.
    """

    __slots__ = ("_chunks", "_closed", "_file", "_lock", "_memory", "_pending", "size")

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._chunks: list[bytes] = []
        self._pending = 0  # bytes in them
        self._file: IO[bytes] | None = None
        self._lock: threading.Lock | None = None  # held by the thread that writes; the loop never waits for it
        self._closed = False
        self.size = 0

    def add(self, chunk: bytes) -> bool:
        """Keep a piece; tell whether :meth:`write` is to be called before the next one."""
        self._chunks.append(chunk)
        self.size += len(chunk)
        self._pending += len(chunk)
        if self._pending <= self._memory:
            return False
        if self._lock is None:
            self._lock = threading.Lock()
            self._memory = min(self._memory, _PENDING)
        return True

    def write(self) -> None:
        """Write what is in memory to a temporary file.

        Raises:
            OSError: It cannot be written.
        """
        assert self._lock is not None
        with self._lock:
            if not self._closed:
                self._write()
        if self._closed:  # meanwhile
            self.close()

    def _write(self) -> None:
        if self._file is None:
            # On Linux it never has a name; elsewhere it is unlinked as soon as it is open.
            import tempfile  # 5 ms of every start, and few requests need it

            self._file = tempfile.TemporaryFile(prefix="bridge-")  # noqa: SIM115 -- close() closes it
        for chunk in self._chunks:
            self._file.write(chunk)
        self._chunks.clear()
        self._pending = 0

    def open(self) -> IO[bytes]:
        """Return the content as a file at its beginning.

        Raises:
            OSError: The temporary file cannot be written.
        """
        if self._file is None:
            return io.BytesIO(self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks))
        self._write()
        self._file.seek(0)  # writes what is buffered, and fails here if the disk is full
        return self._file

    def close(self) -> None:
        """Give the memory and the file back; a thread that is writing does it itself."""
        self._closed = True
        if self._lock is None:
            self._chunks.clear()
        elif self._lock.acquire(blocking=False):
            self._chunks.clear()
            try:
                if self._file is not None:
                    self._file.close()
            finally:
                self._lock.release()


class StreamedContent(io.RawIOBase):
    """Content that is read while it arrives; to be wrapped in a BufferedReader.

    Args:
        wanted: Asks the loop, from the thread, for more content: resumes reading, sends 100 (Continue).
        pause: Lets the client wait; called on the loop.

    Attributes:
        size: Bytes received so far.
    """

    def __init__(self, wanted: Callable[[], None], pause: Callable[[], None]) -> None:
        super().__init__()
        self._wanted = wanted
        self._pause = pause
        self._chunks: deque[bytes] = deque()
        self.size = 0
        self._taken = 0
        self._paused = False
        self._complete = False
        self._gone = False
        self._worker: Worker | None = None

    # ------------------------------------------------------------------ called by the loop

    def add(self, chunk: bytes) -> bool:
        """Keep a piece; there is nothing to be written."""
        self._chunks.append(chunk)
        self.size += len(chunk)
        if self.size - self._taken >= _WINDOW:
            self._paused = True
            self._pause()
        self._ring()
        return False

    def finish(self) -> None:
        """The content is complete."""
        self._complete = True
        self._ring()

    def lost(self) -> None:
        """No more will come, and it is not complete."""
        self._gone = True
        self._ring()

    def _ring(self) -> None:
        if self._worker is not None:
            self._worker.ring()

    # ------------------------------------------------------------------ called by the thread

    def attach(self, worker: Worker) -> None:
        """Let *worker* be the one that waits."""
        self._worker = worker

    def readable(self) -> bool:
        """Tell that this can be read."""
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]  # the buffer of a BufferedReader
        """Read what there is, waiting for the first byte.

        Raises:
            ConnectionGone: The client left before the content was complete.
        """
        chunks = self._chunks
        worker = self._worker
        assert worker is not None
        while not chunks:
            if self._gone:
                raise ConnectionGone("the client left before its request was complete")
            if self._complete and not chunks:
                return 0
            self._wanted()
            if not (chunks or self._gone or self._complete):
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
            self._wanted()
        return size
