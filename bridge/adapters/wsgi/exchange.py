"""One request and its response between the loop and a thread.

The methods of the first part are called on the loop, those of the second by the thread that runs the application;
:class:`Mailbox` and :class:`Outbox` lead from the second to the first.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from bridge.adapters.wsgi.filewrapper import FileRange, FileWrapper, file_range
from bridge.adapters.wsgi.request_content import ContentError, ReceivedContent, StreamedContent
from bridge.adapters.wsgi.response_buffer import MEMORY, PIECE, Outbox, SpoolError
from bridge.adapters.wsgi.start_response import check_headers, response_head
from bridge.adapters.wsgi.werkzeug_socket import LazySocket, detach
from bridge.core.connection.states import CLOSED
from bridge.core.http.fields import NO_LENGTH
from bridge.core.log import app_log
from bridge.errors import ConnectionGone, LocalProtocolError

if TYPE_CHECKING:
    import socket
    from types import TracebackType

    from bridge.adapters.wsgi.application import Application
    from bridge.adapters.wsgi.environ import Peer
    from bridge.adapters.wsgi.threadpool import Worker
    from bridge.core.connection.interfaces import Exchange
    from bridge.core.http.message import ResponseHead

    ExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]

__all__ = ["WSGIExchange"]

_NO_CONTENT = frozenset({204, 304})
_NO_HEAD = 1 << 62  # what remains before there is a head: no content has this size


class WSGIExchange:
    """A request that a WSGI application answers; the exchange's delegate, and a job of the thread pool.

    Attributes:
        exchange: The exchange.
        content: Its content; None if it has none.
        gone: Nobody waits for the response any more.
        detached: The application has taken the connection.
        queued: ``time.monotonic()`` when the request was ready for a thread; 0 before.
    """

    __slots__ = (
        "_application",
        "_complete",
        "_head",
        "_outbox",
        "_peer",
        "_remaining",
        "_socket",
        "_started",
        "_worker",
        "content",
        "detached",
        "exchange",
        "gone",
        "queued",
    )

    def begin(self, application: Application, exchange: Exchange, peer: Peer) -> None:
        """Begin: the first call of all, in place of an ``__init__``, for the reason that the exchange has."""
        self._application = application
        self._peer = peer
        self.exchange = exchange
        self.gone = False
        self.detached = False
        self.queued = 0.0
        self.content: ReceivedContent | StreamedContent | None = None
        self._head: ResponseHead | None = None
        self._remaining = _NO_HEAD  # bytes that the response still has to have, or NO_LENGTH (-1)
        self._started = False  # the head counts as sent
        self._complete = False  # the thread has handed over the whole response, or given it up
        self._outbox: Outbox | None = None
        self._socket: LazySocket | None = None

    # ------------------------------------------------------------------ on the loop: the exchange's delegate

    def data_received(self, chunk: bytes) -> None:
        """Do nothing: a request with content has a receiver for it."""

    def finish(self) -> None:
        """The request is complete, or its content is streamed: let a thread answer it."""
        application = self._application
        if not application.pool.add(self, application.loop):
            self.refuse()

    def on_connection_close(self) -> None:
        """Nobody waits for the response any more."""
        self.gone = True
        if self.exchange.writing is CLOSED:
            self._peer.client.left = True
        if self.queued and self._application.pool.withdraw(self):
            self.discard_content()  # else the thread does
        if self._outbox is not None:
            self._outbox.close()

    def discard_content(self) -> None:
        """Give back what received content takes, without waiting for the disk: no thread has read it, or will."""
        content = self.content
        if content is not None and content.__class__ is ReceivedContent:
            content.rest = []
            if content.has_file:
                self._application.file_threads.submit(content.close)

    def on_peer_eof(self) -> None:
        """The client sends nothing more; what is sent to it may still be read."""
        self._peer.client.left = True

    # ------------------------------------------------------------------ on the loop: called through the mailbox

    def refuse(self, _: None = None) -> None:
        """Answer 503: there are too many requests."""
        self.discard_content()
        if not self.gone and not self.exchange.response_started:
            self.exchange.answer(503, fields=[(b"retry-after", b"1")])

    def _inform(self, fields: list[tuple[bytes, bytes]]) -> None:
        """Send early hints, unless it is too late for them."""
        if not self.exchange.response_started:
            self.exchange.inform(103, fields)

    def _respond(self, _: None = None) -> None:
        if not self.gone and self._head is not None:
            self.exchange.respond_with(self._head)

    def _send_head(self, _: None) -> None:
        if not self.gone:
            self.exchange.send()

    def _respond_whole(self, data: bytes) -> None:
        """Send the whole response."""
        if not self.gone and self._head is not None:
            self.exchange.respond_whole(self._head, data)

    def _send_file(self, part: FileRange) -> None:
        if self.gone:
            os.close(part.descriptor)
        else:
            self._application.start_task(self._copy(part))

    async def _copy(self, part: FileRange) -> None:
        """Send the whole response from a file; no thread takes part in it."""
        exchange = self.exchange
        try:
            self._respond()
            await exchange.send_file(part.descriptor, part.offset, part.count)
            exchange.send(b"", True)
        except ConnectionGone:
            pass  # the client's right
        except (LocalProtocolError, OSError) as exc:
            app_log.error("The file that answers %s cannot be sent: %s", self.describe(), exc)
            exchange.fail()
        finally:
            os.close(part.descriptor)

    def _detach(self, answer: Callable[[socket.socket | Exception], None]) -> None:
        """Let the application have the connection; HTTP is over."""
        try:
            if self.gone or self.exchange.response_started:
                raise ConnectionGone("the connection is closed, or a response was sent")
            sock = detach(self.exchange)
        except Exception as exc:  # the thread waits for an answer
            answer(exc)
            return
        self.gone = self.detached = self._peer.client.left = True
        self._application.detached.add(sock)
        answer(sock)

    def expire(self, worker: Worker | None, seconds: float) -> None:
        """Answer 504: the application takes too long.

        Args:
            worker: Whose thread is given up; None if none has begun.
            seconds: What it had.
        """
        if self.detached or self._complete:
            return
        if worker is None:
            if not self._application.pool.withdraw(self):
                return
            self.discard_content()
            app_log.error("No thread was free for %s within %g seconds", self.describe(), seconds)
        else:
            if not self._application.pool.lose(worker, self):
                return
            app_log.error(
                "WSGI application %s did not answer %s within %g seconds; the thread is given up, it is here:\n%s",
                self._application.name,
                self.describe(),
                seconds,
                worker.stack(),
            )
        self.exchange.fail(504)
        self.gone = True

    def _fail(self, _: None) -> None:
        if self._outbox is not None:
            self._outbox.close()
        self.exchange.fail()

    # ------------------------------------------------------------------ in the thread

    def describe(self) -> str:
        """Return the request line without its version, cut."""
        line = self.exchange.head.line
        return f"{line.method_text} {line.target[:80].decode('latin-1')}"

    def run(self, worker: Worker, now: float) -> None:
        """Answer the request: the whole of the application's work is done here, in one thread."""
        application = self._application
        self._worker = worker
        waited = now - self.queued
        if waited < 0.0:  # noqa: PLR1730 -- a call for each request; it came after the thread had looked at the clock
            waited = 0.0
        if self.exchange.times is not None:
            self.exchange.times.queued = waited
        if waited > application.queue_timeout:
            application.post(WSGIExchange.refuse, self)
        elif not self.gone:
            application.context.copy().run(WSGIExchange._run, self)
        if self.content is not None and self.content.__class__ is ReceivedContent:
            self.content.close()
        if self._outbox is not None and self._outbox.lost:
            self._outbox.close()
        if self._socket is not None:
            self._socket._finish()

    def _run(self) -> None:
        result: Iterable[bytes] | None = None
        try:
            result = self._application.app(self._environ(), self.start_response)
            self._send(result)
        except BaseException as exc:
            self._failed(exc)
        if result.__class__ is not list:
            try:
                close = getattr(result, "close", None)
                if close is not None:
                    close()
            except BaseException as exc:
                self._failed(exc)

    def _environ(self) -> dict[str, Any]:
        exchange = self.exchange
        application = self._application
        environ = self._peer.environ(exchange)
        content = self.content
        if content is None:
            environ["wsgi.input"] = io.BytesIO()
        elif isinstance(content, ReceivedContent):
            environ["wsgi.input"] = content.open()
            if exchange.head.content_length is None:  # it was chunked, and is not any more
                environ["CONTENT_LENGTH"] = str(content.size)
                environ.pop("HTTP_TRANSFER_ENCODING", None)
        else:
            content.attach(self._worker)
            environ["wsgi.input"] = io.BufferedReader(content, 65536)
        if exchange.head.upgrade:
            self._socket = environ["werkzeug.socket"] = LazySocket(self._request_socket)
        if application.timeout is not None:
            environ["bridge.deadline"] = self.queued + application.timeout
        environ["wsgi.early_hints"] = self.early_hints
        return environ

    def _request_socket(self, answer: Callable[[socket.socket | Exception], None]) -> None:
        self._application.post(WSGIExchange._detach, self, answer)

    def early_hints(self, headers: list[tuple[str, str]]) -> None:
        """Send 103 (Early Hints), RFC 8297.

        Raises:
            LocalProtocolError: The headers are illegal.
        """
        self._application.post(WSGIExchange._inform, self, check_headers(headers))

    def start_response(
        self, status: str, headers: list[tuple[str, str]], exc_info: ExcInfo | None = None
    ) -> Callable[[bytes], None]:
        """Set the response's head (PEP 3333).

        Raises:
            LocalProtocolError: The arguments are illegal, or it was called before and there is no *exc_info*.
            BaseException: The one in *exc_info*, if the head was sent.
        """
        if exc_info and exc_info[1] is not None:
            try:
                if self._started:
                    raise exc_info[1].with_traceback(exc_info[2])
            finally:
                exc_info = None  # it leads back to this frame
        elif self._head is not None:
            raise LocalProtocolError("start_response was called a second time, without exc_info")
        self._head = head = response_head(status, headers)
        self._remaining = head.length
        return self

    def __call__(self, data: bytes) -> None:
        """Be the callable that :meth:`start_response` returns: few applications want it, so none is made for them."""
        self.write(data)

    def write(self, data: bytes) -> None:
        """Send content (PEP 3333).

        Raises:
            ConnectionGone: The client left.
            LocalProtocolError: *data* is not bytes, or more than the Content-Length.
        """
        if not isinstance(data, bytes):
            raise LocalProtocolError(f"write() takes bytes, not {data!r:.80}")
        if data:
            self._put(data)
        elif not self._started and not self.gone:  # the first call sends the head in any case
            self._begin()
            self._application.post(WSGIExchange._send_head, self)

    @property
    def _bodiless(self) -> bool:
        """The response, of which there is a head, has no content by definition."""
        head = self._head
        return head is not None and (head.status in _NO_CONTENT or self.exchange.head.line.method == b"HEAD")

    def _send(self, result: Iterable[bytes]) -> None:
        """Send what the application returned."""
        if result.__class__ is list or isinstance(result, (list, tuple)):
            if len(result) == 1 and (data := result[0]).__class__ is bytes:
                size = len(data)
                length = self._remaining
                if (length < 0 or length == size) and 0 < size <= MEMORY and not self._started:
                    # As the rest would, in a third of the steps: most responses are like this.
                    self._started = self._complete = True
                    self._application.post(WSGIExchange._respond_whole, self, data)
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
                    if self._complete and self._bodiless:
                        return
                elif self.gone:
                    return
        self._finish()

    def _send_sequence(self, result: list[bytes] | tuple[bytes, ...]) -> None:
        """Send what has been made already; its length is known if nothing was written before."""
        total = 0
        for data in result:
            if not isinstance(data, bytes):
                raise LocalProtocolError(f"the iterable yields bytes, not {data!r:.80}")
            total += len(data)
        if not total:
            return
        if self._started:
            for data in result:
                self._put(data)
        elif total <= MEMORY:
            self._put(result[0] if len(result) == 1 else b"".join(result), True)
        else:
            if self._head is not None and self._remaining == NO_LENGTH:
                self._remaining = total
                self._head = self._head.with_length(total)
            for data in result:
                self._put(data)

    def _put_file(self, wrapper: FileWrapper) -> bool:
        """Let the loop send the file that an application returned; False if it has to be read."""
        head = self._head
        if head is None or self._started or self._bodiless or self.gone:
            return False
        part = file_range(wrapper.filelike)
        if part is None:
            return False
        if self._remaining != NO_LENGTH:
            if part.count < self._remaining:
                return False  # _finish() says what is wrong
            part.count = self._remaining
        else:
            self._head = head.with_length(part.count)
        if part.count <= PIECE:
            self._respond_at_once(os.pread(part.descriptor, part.count, part.offset))
        else:
            part.descriptor = os.dup(part.descriptor)  # the application closes its own now
            self._started = self._complete = True
            self._application.post(WSGIExchange._send_file, self, part)
        return True

    def _put(self, data: bytes, last: bool = False) -> None:
        """Send content that is not empty; *last* says that it is all there is."""
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
        if not self._complete:
            if last and not self._started and len(data) <= MEMORY:
                self._respond_at_once(data)
            else:
                outbox = self._outbox or self._begin()
                outbox.put(data)
                if last:
                    self._complete = True
                    outbox.finish()
        elif excess <= 0:
            raise LocalProtocolError("write() was called when the response had ended")
        if excess > 0:
            raise LocalProtocolError(f"the content is {excess} bytes or more longer than its Content-Length")

    def _finish(self) -> None:
        """End the response."""
        if self._complete:
            return
        if self._head is None:
            raise LocalProtocolError("start_response was not called")
        if self._remaining > 0 and not self._bodiless:
            raise LocalProtocolError(f"the content is {self._remaining} bytes shorter than its Content-Length")
        if self._outbox is None:
            self._respond_at_once(b"")
        else:
            self._complete = True
            self._outbox.finish()

    def _respond_at_once(self, data: bytes) -> None:
        self._started = self._complete = True
        self._application.post(WSGIExchange._respond_whole, self, data)

    def _begin(self) -> Outbox:
        """Let the head go out, and content follow piece by piece."""
        application = self._application
        self._started = True
        application.post(WSGIExchange._respond, self)
        self._outbox = outbox = Outbox(self.exchange, self._worker, application.post, application.response_file)
        if self.gone:  # on_connection_close has not seen the outbox
            outbox.lost = True
        return outbox

    def _failed(self, exc: BaseException) -> None:
        """Log what went wrong, once, and let the client know."""
        if isinstance(exc, ConnectionGone) and self.gone:
            return  # raised by us to end the application's work
        app = self._application.name
        if isinstance(exc, LocalProtocolError):
            app_log.error("WSGI application %s breaks PEP 3333: %s (%s)", app, exc, self.describe(), exc_info=exc)
        elif isinstance(exc, SpoolError):
            app_log.error("The response to %s cannot be kept: %s", self.describe(), exc)
        elif isinstance(exc, ContentError):
            app_log.error("The content of %s cannot be kept: %s", self.describe(), exc)
        else:
            app_log.error("Exception in WSGI application %s, %s", app, self.describe(), exc_info=exc)
        if not self._complete:
            self._complete = True
            self._application.post(WSGIExchange._fail, self)
