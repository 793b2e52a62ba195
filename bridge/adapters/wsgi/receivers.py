"""The event loop's side of request content: receivers fill what threads read.

A receiver is the exchange's delegate, and tells the request what it has to know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from bridge.core.connection.budgets import SMALL
from bridge.core.log import app_log

if TYPE_CHECKING:
    import asyncio

    from bridge.adapters.wsgi.filethreads import FileThreads
    from bridge.adapters.wsgi.request_content import ReceivedContent, StreamedContent
    from bridge.core.connection.budgets import Budget
    from bridge.core.connection.interfaces import Exchange

__all__ = ["ContentReceiver", "StreamReceiver"]

# The client has to wait when more content than this (bytes) has come during a write job.
_WINDOW = 262144
# Once there is a temporary file, a write job starts when more content than this (bytes) has come.
_WORTH_WRITING = _WINDOW


class Request(Protocol):
    """The request, as a receiver sees it.

    Attributes:
        exchange: The exchange.
        queued: When it was queued for a thread; 0 before.
    """

    exchange: Exchange
    queued: float

    def finish(self) -> None:
        """Let a thread answer the request."""

    def discard_content(self) -> None:
        """Release the received content."""

    def on_connection_close(self) -> None:
        """Note that nobody waits for the response any more."""

    def on_peer_eof(self) -> None:
        """Note that the client sends nothing more."""

    def describe(self) -> str:
        """Return the request line for the log."""
        ...


class ContentReceiver:
    """Receives the whole content, then lets a thread answer the request.

    Large content goes to a temporary file. A disk can be slow, and the loop must not wait for it, so file threads
    write. An upload has one write job at a time. The job writes everything that has come so far; meanwhile the loop
    receives into a window. When the window is full, the client has to wait for the job. So an upload takes no more
    memory than two windows, however slow the disk is.

    A job costs two switches between threads, so it should write more than one piece of content. An upload of 1,000,000
    bytes takes 3 jobs. With a job for each piece, for which the client has to wait, it would take 15. Processor time is
    1.9 ms instead of 3.5 on asyncio's loop, and 1.5 instead of 2.2 on uvloop (CPython 3.11). The calls are counted by
    ``benchmarks.walk``.

    Args:
        request: The request.
        content: What the receiver fills.
        memory: Bytes of content that are kept in memory; more goes to a file.
        limit: Most bytes of content: 413; None for no limit.
        file_threads: The threads that write.
        loop: The event loop.
    """

    __slots__ = (
        "_at_work",
        "_budgets",
        "_complete",
        "_content",
        "_ended",
        "_file_threads",
        "_limit",
        "_loop",
        "_memory",
        "_noted",
        "_paused",
        "_pending",
        "_request",
        "_writing",
        "_written_size",
    )

    def __init__(
        self,
        request: Request,
        content: ReceivedContent,
        memory: int,
        limit: int | None,
        file_threads: FileThreads,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._request = request
        self._content = content
        self._memory = memory
        self._limit = limit
        self._file_threads = file_threads
        self._loop = loop
        self._budgets = request.exchange.clock.budgets
        self._noted = 0  # bytes that the budget of unfinished content counts
        self._pending = 0  # bytes in content.rest
        self._writing = False  # from the start of a job until _written(); the file is the job's
        self._at_work = 0  # bytes that a job is writing
        self._written_size = 0  # bytes that were given to jobs
        self._paused = False  # the client waits for the job
        self._complete = False
        self._ended = False  # the content is not wanted any more

    def data_received(self, chunk: bytes) -> None:
        """Keep content."""
        content = self._content
        size = len(chunk)
        content.size += size
        if self._limit is not None and content.size > self._limit:
            self._request.exchange.fail(413)
            return
        content.rest.append(chunk)
        self._pending += size
        if self._ended:
            return
        held = self._pending + self._at_work
        budget = self._budgets.unfinished
        if held > self._noted and held > SMALL:
            self._noted = 1 << held.bit_length()  # so not every piece is noted, see Budget.note()
            budget.note(self, self._noted)
        short = budget.total > budget.short_above  # is_short would be a call for each piece
        if self._pending > self._memory or (short and self._written_size and self._pending > SMALL):
            if not self._writing:
                self._write()
                if not short:
                    return
            if not self._paused and (short or self._pending > _WINDOW):
                self._paused = True
                self._request.exchange.pause_reading()

    def finish(self) -> None:
        """Let a thread answer the request, once the job is done."""
        self._complete = True
        if not self._writing:
            self._pass_on()

    def _pass_on(self) -> None:
        """Let a thread answer the request: it has all content, and gives up nothing any more."""
        self._forget()
        if self._written_size:
            self._content.keep(self._budgets.spool)
        self._request.finish()

    def give_up(self, budget: Budget) -> str:
        """Move content from memory to the file; or, if files take too much room already, answer 503."""
        if budget is self._budgets.unfinished:
            if not self._writing and self._pending:
                self._write()
            return ""
        if self._ended:
            return ""  # the file is gone when the job is done
        request = self._request
        exchange = request.exchange
        what = f"the upload of {request.describe()}"
        if exchange.times is not None:
            exchange.times.refused = "budget"
        if exchange.response_started:
            exchange.fail()
        else:
            exchange.answer(503, fields=[(b"retry-after", b"1")])
        return what

    def _forget(self) -> None:
        """Take the content out of the budgets of unfinished content, the file only when no job writes it any more."""
        if self._noted:
            self._noted = 0
            self._budgets.unfinished.forget(self)
        if self._written_size and not self._writing:
            self._budgets.spool.forget(self)

    def on_connection_close(self) -> None:
        """Release the content: nobody waits for the response any more, or the request will never be complete."""
        self._ended = True
        self._forget()
        request = self._request
        if not request.queued and not self._writing:
            request.discard_content()
        request.on_connection_close()

    def on_peer_eof(self) -> None:
        """Tell the request that the client sends nothing more."""
        self._request.on_peer_eof()

    def _write(self) -> None:
        """Start a job that writes everything that has come."""
        content = self._content
        chunks, content.rest = content.rest, []
        self._written_size += self._pending
        self._at_work = self._pending
        self._pending = 0
        self._memory = _WORTH_WRITING
        self._writing = True
        self._budgets.spool.note(self, self._written_size)
        self._file_threads.submit(self._write_in_thread, chunks)

    def _write_in_thread(self, chunks: list[bytes]) -> None:
        """Write, and have :meth:`_written` called on the loop."""
        error = None
        try:
            self._content.append(chunks)
        except Exception as exc:
            error = exc
        try:
            self._loop.call_soon_threadsafe(self._written, error)
        except RuntimeError:  # the loop was closed and cannot do this
            self._content.close()

    def _written(self, error: Exception | None) -> None:
        """Go on after a job."""
        self._writing = False
        self._at_work = 0
        request = self._request
        if error is not None:
            app_log.error("The content of %s cannot be kept: %s", request.describe(), error)
        if self._ended:
            request.discard_content()
            self._budgets.spool.forget(self)
        elif error is not None:
            request.exchange.fail()  # this calls on_connection_close()
        elif self._pending > self._memory:
            self._write()
        elif self._complete:
            self._pass_on()
        if self._noted and not self._writing:  # otherwise the next job has begun already with what has waited
            # The size is not rounded up: it is smaller than the last one, so the budget may ask again if it has asked
            # for this job. It is not 0, so the budget does not make another entry for the next piece.
            self._noted = max(self._pending, 1)
            self._budgets.unfinished.note(self, self._noted)
        if self._paused:
            self._paused = False
            request.exchange.resume_reading()  # the last step: it may call data_received() and finish()


class StreamReceiver:
    """Hands content to the thread that answers the request.

    Args:
        request: The request.
        content: What the thread reads.
        limit: Most bytes of content: 413; None for no limit.
    """

    __slots__ = ("_content", "_limit", "_request")

    def __init__(self, request: Request, content: StreamedContent, limit: int | None) -> None:
        self._request = request
        self._content = content
        self._limit = limit

    def data_received(self, chunk: bytes) -> None:
        """Hand content on."""
        if self._limit is not None and self._content.size + len(chunk) > self._limit:
            self._request.exchange.fail(413)
        else:
            self._content.add(chunk)

    def finish(self) -> None:
        """Note that the content is complete."""
        self._content.finish()

    def on_connection_close(self) -> None:
        """Note that nobody waits for the response any more, or that the content will never be complete."""
        self._request.on_connection_close()
        self._content.cut_off()

    def on_peer_eof(self) -> None:
        """Tell the request that the client sends nothing more."""
        self._request.on_peer_eof()
