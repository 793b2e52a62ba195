"""Response content between the thread that makes it and the loop that sends it.

The thread puts, the loop takes. A little content is kept in memory. When the client reads more slowly than the
application writes, the rest goes to a temporary file, and the thread is free for the next request. When the file is
full, the thread waits. Nothing here knows WSGI.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from typing import IO, TYPE_CHECKING

from bridge.core.util import read_at, write_at
from bridge.errors import ConnectionGone

if TYPE_CHECKING:
    import asyncio

    from bridge.adapters.wsgi.threadpool import Worker
    from bridge.core.connection.interfaces import Exchange

__all__ = ["MEMORY", "PIECE", "ResponseBuffer", "SpoolError"]

MEMORY = 65536
"""How much content is kept in memory until the loop takes it, in bytes."""

PIECE = 24576
"""How much is given to the transport at once, in bytes. A client that does not read holds this much there."""
# Pieces that are given to the transport in one turn of the loop.
_PIECES_IN_A_ROW = range(16)
# How long (seconds) a thread waits for a client that does not read at the moment, if no other request needs the thread.
_PATIENCE = 0.005


def _temporary_file() -> IO[bytes]:
    import tempfile  # this takes 5 ms, and few responses need it

    # On Linux it never has a name; elsewhere it is unlinked as soon as it is open.
    return tempfile.TemporaryFile(prefix="bridge-", buffering=0)


class SpoolError(OSError):
    """The temporary file for a response cannot be written."""


class ResponseBuffer:
    """The content of one response on its way to the client.

    Args:
        exchange: The exchange. It has the response's head.
        worker: The thread that puts.
        post: Lets the loop call a function.
        file_limit: Most bytes in the temporary file.
        stored: The buffers that have a temporary file. This one is added, and removed when it is closed.

    Attributes:
        complete: The thread has put everything.
        closed: Nothing is sent any more.
    """

    __slots__ = (
        "_awaiting_client",
        "_budget",
        "_bytes_put",
        "_bytes_taken",
        "_client_slow",
        "_disk_full",
        "_exchange",
        "_file",
        "_file_end",
        "_file_limit",
        "_file_start",
        "_lock",
        "_on_disk",
        "_parts",
        "_post",
        "_stored",
        "_take_posted",
        "_thread_waits",
        "_worker",
        "closed",
        "complete",
    )

    def __init__(
        self,
        exchange: Exchange,
        worker: Worker,
        post: Callable[[Callable[[ResponseBuffer, None], None], ResponseBuffer], None],
        file_limit: int,
        stored: set[ResponseBuffer],
    ) -> None:
        self._exchange = exchange
        self._worker = worker
        self._post = post
        self._file_limit = file_limit
        self._stored = stored
        self.complete = False
        self.closed = False
        # Only one side writes each counter, or only under the lock: the thread writes _bytes_put and _file_end, the
        # loop _bytes_taken and _file_start.
        self._parts: deque[bytes] = deque()
        self._bytes_put = 0
        self._bytes_taken = 0
        self._file: IO[bytes] | None = None
        self._budget = exchange.clock.budgets.spool
        self._on_disk = 0  # bytes that were taken of the budget
        self._disk_full = False  # the budget was used up: the thread waits for the client
        self._file_start = 0
        self._file_end = 0
        # The loop holds it to take, the thread to move parts to the file. The loop never waits for it.
        self._lock = threading.Lock()
        self._take_posted = False  # the loop will call take()
        self._awaiting_client = False  # take() goes on when the client has read
        self._client_slow = False  # the client reads more slowly than the application writes
        self._thread_waits = False  # the thread waits for room

    # ------------------------------------------------------------------ called by the thread

    def put(self, data: bytes) -> None:
        """Send *data*, now or later.

        Raises:
            ConnectionGone: The client left.
            SpoolError: The temporary file cannot be written.
        """
        if len(data) <= PIECE:
            self._put_piece(data)
            return
        view = memoryview(data)
        for start in range(0, len(data), PIECE):
            # A copy, since a view would keep all of *data* in memory until the client has read the last piece.
            self._put_piece(bytes(view[start : start + PIECE]))

    def finish(self) -> None:
        """End the response with what was put.

        Raises:
            SpoolError: The temporary file cannot be written.
        """
        if self._client_slow and self._parts and not self.closed:
            self._spill(b"")  # if there is no room on the disk, it stays in memory
        self.complete = True
        self._notify()

    def _put_piece(self, data: bytes) -> None:
        if self.closed:
            raise ConnectionGone("the client left")
        while True:
            if self._file_end > self._file_start:
                if self._spill(data):
                    break
                self._wait_for_client()
            elif self._wait_for_room(len(data)):
                self._parts.append(data)
                self._bytes_put += len(data)
                break
            elif self._spill(data):
                break
        self._notify()

    def _notify(self) -> None:
        if not self._take_posted:
            self._take_posted = True
            self._post(ResponseBuffer.take, self)

    def _has_room(self, size: int) -> bool:
        waiting = self._bytes_put - self._bytes_taken
        return waiting == 0 or waiting + size <= MEMORY

    def _wait_for_room(self, size: int) -> bool:
        """Wait until the loop has taken enough; False if the client is slow and the thread should not wait."""
        patient = True
        while not self._has_room(size):
            slow = self._client_slow and not self._disk_full
            if slow and not (patient and not self._worker.pool.queue):
                return False
            self._thread_waits = True
            if not self._has_room(size) and not self.closed:
                self._worker.wait(_PATIENCE if slow else 1.0)
                patient = not slow
            self._thread_waits = False
            self._disk_full = False  # others may have given room on the disk back
            if self.closed:
                raise ConnectionGone("the client left")
        return True

    def _wait_for_client(self) -> None:
        """Wait until the loop has taken something of the file."""
        self._thread_waits = True
        if self._file_end > self._file_start and not self.closed:
            self._worker.wait(1.0)
        self._thread_waits = False
        if self.closed:
            raise ConnectionGone("the client left")

    def _spill(self, data: bytes) -> bool:
        """Move what is in memory, and *data*, to the temporary file; tell whether there was room for it."""
        size = len(data) + self._bytes_put - self._bytes_taken
        if self._file_end + size > self._file_limit and self._file_end > self._file_start:
            return False
        if not self._budget.take(size):
            self._disk_full = True
            return False
        try:
            with self._lock:
                if self.closed:
                    self._budget.give_back(size)
                    raise ConnectionGone("the client left")
                self._on_disk += size  # first: whatever fails now, close() gives it back
                if self._file is None:
                    self._file = _temporary_file()
                    self._stored.add(self)
                if self._file_end == self._file_start:  # everything was taken: use the file from its start
                    self._file_end = self._file_start = 0
                    os.ftruncate(self._file.fileno(), 0)
                    self._budget.give_back(self._on_disk - size)
                    self._on_disk = size
                parts, self._parts = self._parts, deque()
                self._bytes_taken = self._bytes_put
                for part in (*parts, data):
                    self._append(part)
        except ConnectionGone:
            raise
        except OSError as exc:
            raise SpoolError(exc.errno, exc.strerror) from exc
        return True

    def _append(self, data: bytes) -> None:
        assert self._file is not None
        view = memoryview(data)
        end = self._file_end
        while view:
            written = write_at(self._file.fileno(), view, end)
            view = view[written:]
            end += written
        self._file_end = end

    # ------------------------------------------------------------------ called by the loop

    @property
    def exchange(self) -> Exchange:
        """The exchange."""
        return self._exchange

    def take(self, _: None = None) -> None:
        """Send as much as the client reads."""
        self._take_posted = False
        if self.closed or self._awaiting_client:
            return
        # If the thread holds the lock, it is moving everything to the file. It posts another call after that.
        if not self._lock.acquire(blocking=False):
            return
        try:
            done = self._send()
        except ConnectionGone:
            done = True
        finally:
            self._lock.release()
        if done:
            self.close()
        elif self._thread_waits:
            self._worker.notify()

    def _send(self) -> bool:
        """Send what the transport takes; return whether that was everything."""
        exchange = self._exchange
        for _ in _PIECES_IN_A_ROW:
            if exchange.write_paused:
                break
            if exchange.peer_gone:
                return False  # the connection has failed, and close() will be called in a moment
            complete = self.complete  # read before the parts: then the last part is among them if it is True
            data = self._next()
            last = complete and not self._parts and self._file_end == self._file_start
            if data or last:
                exchange.send(data, last)
            if last or not data:
                return last
        else:  # a client that reads fast: others have their turn
            self._take_posted = True
            exchange.loop.call_soon(self.take)
            return False
        self._client_slow = True
        self._awaiting_client = True
        exchange.writable().add_done_callback(self._resume)
        return False

    def _next(self) -> bytes:
        parts = self._parts
        if parts:
            data = parts.popleft()
            if parts and len(data) + len(parts[0]) <= PIECE:
                joined = [data]
                size = len(data)
                while parts and size + len(parts[0]) <= PIECE:
                    size += len(parts[0])
                    joined.append(parts.popleft())
                data = b"".join(joined)
            self._bytes_taken += len(data)
            return data
        if self._file is not None and self._file_end > self._file_start:
            data = read_at(self._file.fileno(), min(PIECE, self._file_end - self._file_start), self._file_start)
            self._file_start += len(data)
            return data
        return b""

    def _resume(self, future: asyncio.Future[None]) -> None:
        self._awaiting_client = False
        if future.cancelled() or future.exception() is not None:
            return  # the exchange has ended: close() is called
        self._client_slow = False
        self.take()

    def close(self) -> None:
        """Drop what is left. If the thread holds the lock, it has to call this again."""
        self.closed = True
        self._stored.discard(self)
        if self._lock.acquire(blocking=False):
            self._parts.clear()
            if self._file is not None:
                self._file.close()
            self._budget.give_back(self._on_disk)
            self._on_disk = 0
            self._lock.release()
        if self._thread_waits:
            self._worker.notify()
