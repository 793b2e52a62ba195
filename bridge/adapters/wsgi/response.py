"""The response of a WSGI application: the thread makes it, the loop sends it.

:class:`.loopcalls.LoopCalls` and :class:`.response_buffer.ResponseBuffer` lead from the thread to the loop.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from bridge.adapters.wsgi.filewrapper import FileRange, FileWrapper, file_range
from bridge.adapters.wsgi.request_content import ContentError
from bridge.adapters.wsgi.response_buffer import MEMORY, PIECE, ResponseBuffer, SpoolError
from bridge.adapters.wsgi.start_response import check_headers, response_head
from bridge.core.http.fields import NO_LENGTH
from bridge.core.http.status import is_bodiless
from bridge.core.log import app_log
from bridge.core.util import read_at
from bridge.errors import ConnectionGone, LocalProtocolError, caused_by_disconnect, traceback_of
from bridge.forks import end_if_forked

if TYPE_CHECKING:
    from types import TracebackType

    from bridge.adapters.wsgi.application import Application
    from bridge.adapters.wsgi.threadpool import Worker
    from bridge.core.connection.interfaces import Exchange
    from bridge.core.http.message import ResponseHead

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

__all__ = ["Response", "describe"]

# Stands for the length of the content before there is a head. No content is that long, so comparisons with real lengths
# come out right without a test for None.
_NO_HEAD = 1 << 62


class Response:
    """One response, from ``start_response`` to its last byte.

    It is also the callable that ``start_response`` returns. Few applications use that, so it is no object of its own.

    Attributes:
        worker: The thread that runs the application; None before.
        gone: Nobody waits for the response any more. Only the loop sets it.
        complete: The thread has handed over the whole response, or has given it up.
        buffer: Takes the content of a response that is sent in pieces; None before the first piece.
    """

    __slots__ = (
        "_application",
        "_exchange",
        "_head",
        "_remaining",
        "_started",
        "buffer",
        "complete",
        "gone",
        "worker",
    )

    _application: Application
    _exchange: Exchange
    _head: ResponseHead | None
    _remaining: int  # bytes of content that are still to come, or NO_LENGTH (-1)
    _started: bool  # the head was handed over
    worker: Worker | None
    gone: bool
    complete: bool
    buffer: ResponseBuffer | None

    @staticmethod
    def open(application: Application, exchange: Exchange) -> Response:
        """Return a new response; :class:`.exchange.WSGIExchange` says why this is no ``__init__``."""
        self = Response()
        self._application = application
        self._exchange = exchange
        self._head = None
        self._remaining = _NO_HEAD
        self._started = False
        self.worker = None
        self.gone = False
        self.complete = False
        self.buffer = None
        return self

    # ------------------------------------------------------------------ in the thread: what the application calls

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        """Set the response's head (PEP 3333).

        Raises:
            LocalProtocolError: The arguments are illegal, or this is a second call without *exc_info*.
            BaseException: The exception in *exc_info*, if the head was sent.
        """
        if exc_info and exc_info[1] is not None:
            try:
                if self._started:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # its traceback refers to this frame: a cycle
        elif self._head is not None:
            raise LocalProtocolError("start_response was called a second time, without exc_info")
        self._head = head = response_head(status, headers)
        self._remaining = head.length
        if (times := self._exchange.times) is not None:
            times.keep_request()
        return self

    def __call__(self, data: bytes) -> None:
        """Send content (PEP 3333 "The write() Callable").

        Raises:
            ConnectionGone: The client left.
            LocalProtocolError: *data* is not bytes, or more than the Content-Length.
        """
        if not isinstance(data, bytes):
            raise LocalProtocolError(f"write() takes bytes, not {data!r:.80}")
        if data:
            self._put(data)
        elif not self._started and not self.gone:  # PEP 3333: the first call sends the head, even without content
            self._begin()
            self._application.post(Response._send_head, self)

    def early_hints(self, headers: list[tuple[str, str]]) -> None:
        """Send 103 (Early Hints), RFC 8297.

        Raises:
            LocalProtocolError: The headers are illegal.
        """
        self._application.post(Response._inform, self, check_headers(headers))

    # ------------------------------------------------------------------ in the thread: once the application returns

    def send(self, result: Iterable[bytes]) -> None:
        """Send what the application has returned.

        Raises:
            ConnectionGone: The client left.
            LocalProtocolError: It breaks PEP 3333.
            SpoolError: The temporary file cannot be written.
        """
        if result.__class__ is list or isinstance(result, (list, tuple)):
            if len(result) == 1 and (data := result[0]).__class__ is bytes:
                size = len(data)
                length = self._remaining
                if (length < 0 or length == size) and 0 < size <= MEMORY and not self._started:
                    # Most responses are like this one. The code below would do the same with 6,000 instructions more,
                    # a tenth of a small request's (``benchmarks.instructions wsgi``, CPython 3.11).
                    self._started = self.complete = True
                    self._application.post(Response._respond_whole, self, data)
                    return
            self._send_sequence(result)
        elif not (result.__class__ is FileWrapper and self._put_file(result)):
            if isinstance(result, str | bytes) or not hasattr(result, "__iter__"):
                raise LocalProtocolError(f"the application returned {result!r:.80}, not an iterable of bytes")
            for data in result:
                if not isinstance(data, bytes):
                    raise LocalProtocolError(f"the iterable yields bytes, not {data!r:.80}")
                if data:
                    self._put(data)
                    if self.complete and self._bodiless:
                        return
                elif self.gone:
                    return
        self._finish()

    def fail(self, exc: BaseException) -> None:
        """Log an exception that has ended the application's work, and let the client notice."""
        end_if_forked(exc)
        if self.gone and caused_by_disconnect(exc):
            return  # raised here, to end the application's work, or what the application has made of that
        app = self._application.name
        request = describe(self._exchange)
        if isinstance(exc, LocalProtocolError):
            app_log.error("WSGI application %s breaks PEP 3333: %s (%s)", app, exc, request, exc_info=traceback_of(exc))
        elif isinstance(exc, SpoolError):
            app_log.error("The response to %s cannot be kept: %s", request, exc)
        elif isinstance(exc, ContentError):
            app_log.error("The content of %s cannot be kept: %s", request, exc)
        else:
            app_log.error("Exception in WSGI application %s, %s", app, request, exc_info=traceback_of(exc))
        if not self.complete:
            self.complete = True
            self._application.post(Response._fail, self)

    # ------------------------------------------------------------------ in the thread: towards the loop

    @property
    def _bodiless(self) -> bool:
        """The response has a head that allows no content (RFC 9110 section 6.4.1)."""
        head = self._head
        return head is not None and is_bodiless(self._exchange.head.line.method, head.status)

    def _send_sequence(self, result: list[bytes] | tuple[bytes, ...]) -> None:
        """Send a list or tuple. All its content is there, so its length is known if nothing was written before."""
        total = 0
        for data in result:
            if not isinstance(data, bytes):
                raise LocalProtocolError(f"the iterable yields bytes, not {data!r:.80}")
            total += len(data)
        if not total:
            return
        if self._started:
            for data in result:
                if data:
                    self._put(data)
        elif total <= MEMORY:
            self._put(result[0] if len(result) == 1 else b"".join(result), True)
        else:
            if self._head is not None and self._remaining == NO_LENGTH:
                self._remaining = total
                self._head = self._head.with_length(total)
            for data in result:
                if data:
                    self._put(data)

    def _put_file(self, wrapper: FileWrapper) -> bool:
        """Let the loop send the file that the application has returned; False if this thread has to read it."""
        head = self._head
        if head is None or self._started or self._bodiless or self.gone:
            return False
        part = file_range(wrapper.filelike)
        if part is None:
            return False
        if self._remaining != NO_LENGTH:
            if part.count < self._remaining:
                return False  # too short: _finish() raises the error
            part.count = self._remaining
        else:
            self._head = head.with_length(part.count)
        if part.count <= PIECE:
            self._send_whole(read_at(part.descriptor, part.count, part.offset))
        else:
            part.descriptor = os.dup(part.descriptor)  # the application closes its own when this returns
            self._started = self.complete = True
            self._application.post(Response._send_file, self, part)
        return True

    def _put(self, data: bytes, last: bool = False) -> None:
        """Send content that is not empty; *last* says that it is everything."""
        if self._head is None:
            raise LocalProtocolError("content came before start_response was called")
        if self.gone:
            raise ConnectionGone("the client left")
        if self._bodiless:
            self._finish()
            return
        excess = 0
        if self._remaining != NO_LENGTH:
            excess = len(data) - self._remaining
            if excess > 0:
                data = data[:-excess]
            self._remaining -= len(data)
            last = not self._remaining
        if not self.complete:
            if last and not self._started and len(data) <= MEMORY:
                self._send_whole(data)
            else:
                buffer = self.buffer or self._begin()
                buffer.put(data)
                if last:
                    buffer.finish()  # may fail, and then the response is not complete
                    self.complete = True
        elif excess <= 0:
            raise LocalProtocolError("write() was called when the response had ended")
        if excess > 0:
            raise LocalProtocolError(f"the content is {excess} bytes or more longer than its Content-Length")

    def _finish(self) -> None:
        """End the response."""
        if self.complete:
            return
        if self._head is None:
            raise LocalProtocolError("start_response was not called")
        if self._remaining > 0 and not self._bodiless:
            raise LocalProtocolError(f"the content is {self._remaining} bytes shorter than its Content-Length")
        if self.buffer is None:
            self._send_whole(b"")
        else:
            self.buffer.finish()
            self.complete = True

    def _send_whole(self, data: bytes) -> None:
        self._started = self.complete = True
        self._application.post(Response._respond_whole, self, data)

    def _begin(self) -> ResponseBuffer:
        """Send the head, and return the buffer for the content."""
        application = self._application
        assert self.worker is not None
        self._started = True
        application.post(Response._respond, self)
        self.buffer = buffer = ResponseBuffer(
            self._exchange, self.worker, application.post, application.response_file, application.stored
        )
        if self.gone:  # mark_gone() may have been called before there was a buffer
            buffer.closed = True
        return buffer

    # ------------------------------------------------------------------ on the loop

    def mark_gone(self) -> None:
        """Note that nobody waits for the response any more."""
        self.gone = True
        if self.buffer is not None:
            self.buffer.close()

    # The following methods are those that the thread posts.

    def _inform(self, fields: list[tuple[bytes, bytes]]) -> None:
        """Send early hints, unless the response has begun."""
        if not self._exchange.response_started:
            self._exchange.inform(103, fields)

    def _respond(self, _: None = None) -> None:
        if not self.gone and self._head is not None:
            self._exchange.respond_with(self._head)

    def _send_head(self, _: None) -> None:
        if not self.gone:
            self._exchange.send()

    def _respond_whole(self, data: bytes) -> None:
        """Send the whole response."""
        if not self.gone and self._head is not None:
            self._exchange.send_first(self._head, data, True)

    def _send_file(self, part: FileRange) -> None:
        if self.gone:
            os.close(part.descriptor)
        else:
            self._application.start_task(self._copy(part))

    async def _copy(self, part: FileRange) -> None:
        """Send a file as the whole content; no thread is needed."""
        exchange = self._exchange
        try:
            self._respond()
            await exchange.send_file(part.descriptor, part.offset, part.count)
            exchange.send(b"", True)
        except ConnectionGone:
            pass  # clients may leave
        except (LocalProtocolError, OSError) as exc:
            app_log.error("The file that answers %s cannot be sent: %s", describe(exchange), exc)
            exchange.fail()
        finally:
            os.close(part.descriptor)

    def _fail(self, _: Any) -> None:
        if self.buffer is not None:
            self.buffer.close()
        self._exchange.fail()


def describe(exchange: Exchange) -> str:
    """Return the request line for the log: without the version, and cut."""
    line = exchange.head.line
    return f"{line.method_text} {line.target[:80].decode('latin-1')}"
