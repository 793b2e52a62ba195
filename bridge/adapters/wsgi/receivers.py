"""The event loop's side of request content: it fills what threads read.

A receiver is the exchange's delegate in place of the request, and tells the request what it has to know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from bridge.core.log import app_log

if TYPE_CHECKING:
    import asyncio

    from bridge.adapters.wsgi.filethreads import FileThreads
    from bridge.adapters.wsgi.request_content import ReceivedContent, StreamedContent
    from bridge.core.connection.interfaces import Exchange

__all__ = ["ContentReceiver", "StreamReceiver"]

# How much content may wait for a write that is going on before the client has to wait, in bytes.
_WINDOW = 262144
# Content (bytes) that is worth a write of its own, once some was written.
_WORTH_WRITING = _WINDOW


class Request(Protocol):
    """What a receiver knows of the request whose content it receives.

    Attributes:
        exchange: The exchange.
        queued: The request was given to the threads; 0 before.
    """

    exchange: Exchange
    queued: float

    def finish(self) -> None:
        """Let a thread answer: the request is complete."""

    def discard_content(self) -> None:
        """Give back what received content takes."""

    def on_connection_close(self) -> None:
        """Nobody waits for the response any more."""

    def on_peer_eof(self) -> None:
        """The client sends nothing more."""

    def describe(self) -> str:
        """Return the request line, for the log."""
        ...


class ContentReceiver:
    """Receives the whole content, then lets a thread answer the request.

    Content that is too much for the memory goes to a temporary file. A disk can be slow, and the loop must not wait for
    it, so file threads write. An upload has one write job at a time, which takes all that has come until then;
    meanwhile the loop receives into a window. When the window is full, the client has to wait for the job. So an upload
    takes the memory of two windows at most, whatever the disk does.

    A job costs two switches between threads, so it takes more than one piece. With a job for each piece, for which the
    client had to wait, an upload of 1,000,000 bytes took 15 jobs, now it takes 4; the time of the processor went from
    3.5 to 1.9 ms on asyncio's loop and from 2.2 to 1.5 ms on uvloop (CPython 3.11; ``benchmarks.walk wsgi-upload``
    shows the calls).

    Args:
        request: Whose content it is.
        content: To be filled.
        memory: Bytes up to which it is kept in memory.
        limit: Most bytes of content: 413; None for no limit.
        file_threads: Write what is too much for the memory.
        loop: The event loop.
    """

    __slots__ = (
        "_complete",
        "_content",
        "_ended",
        "_file_threads",
        "_limit",
        "_loop",
        "_memory",
        "_paused",
        "_pending",
        "_request",
        "_writing",
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
        self._pending = 0  # bytes in content.rest
        self._writing = False  # a job has the content's file; from its start until _written()
        self._paused = False  # the client waits for it
        self._complete = False
        self._ended = False  # nobody wants the content any more

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
        if self._pending > self._memory:
            if not self._writing:
                self._write()
            elif self._pending > _WINDOW and not self._paused:
                self._paused = True
                self._request.exchange.pause_reading()

    def finish(self) -> None:
        """The request is complete: let a thread answer it, once the file is written."""
        self._complete = True
        if not self._writing:
            self._request.finish()

    def on_connection_close(self) -> None:
        """Nobody waits for the response any more, or the request will never be complete."""
        self._ended = True
        request = self._request
        if not request.queued and not self._writing:
            request.discard_content()
        request.on_connection_close()

    def on_peer_eof(self) -> None:
        """The client sends nothing more."""
        self._request.on_peer_eof()

    def _write(self) -> None:
        """Start to write what has come."""
        content = self._content
        chunks, content.rest = content.rest, []
        self._pending = 0
        self._memory = _WORTH_WRITING
        self._writing = True
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
        except RuntimeError:  # the loop was closed: nobody else will
            self._content.close()

    def _written(self, error: Exception | None) -> None:
        """Go on after a write."""
        self._writing = False
        request = self._request
        if error is not None:
            app_log.error("The content of %s cannot be kept: %s", request.describe(), error)
        if self._ended:
            request.discard_content()
        elif error is not None:
            request.exchange.fail()  # and on_connection_close() follows
        elif self._pending > self._memory:
            self._write()
        elif self._complete:
            request.finish()
        if self._paused:
            self._paused = False
            request.exchange.resume_reading()  # at last, since content may be received in it


class StreamReceiver:
    """Passes content on to the thread that answers the request.

    Args:
        request: Whose content it is.
        content: What the thread reads.
        limit: Most bytes of content: 413; None for no limit.
    """

    __slots__ = ("_content", "_limit", "_request")

    def __init__(self, request: Request, content: StreamedContent, limit: int | None) -> None:
        self._request = request
        self._content = content
        self._limit = limit

    def data_received(self, chunk: bytes) -> None:
        """Pass content on."""
        if self._limit is not None and self._content.size + len(chunk) > self._limit:
            self._request.exchange.fail(413)
        else:
            self._content.add(chunk)

    def finish(self) -> None:
        """The content is complete."""
        self._content.finish()

    def on_connection_close(self) -> None:
        """Nobody waits for the response any more, or the content will never be complete."""
        self._request.on_connection_close()
        self._content.cut_off()

    def on_peer_eof(self) -> None:
        """The client sends nothing more."""
        self._request.on_peer_eof()
