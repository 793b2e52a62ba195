"""One request: the loop receives it, a thread answers it.

The first methods are called on the loop, the last ones by the thread that runs the application.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

from bridge.adapters.wsgi.environ import Client
from bridge.adapters.wsgi.lanes import Lane
from bridge.adapters.wsgi.request_content import ReceivedContent, StreamedContent
from bridge.adapters.wsgi.response import Response, describe
from bridge.adapters.wsgi.werkzeug_socket import LazySocket, detach
from bridge.core.connection.states import CLOSED
from bridge.core.log import app_log
from bridge.errors import ConnectionGone

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable

    from bridge.adapters.wsgi.application import Application
    from bridge.adapters.wsgi.environ import EnvironTemplate
    from bridge.adapters.wsgi.threadpool import Worker
    from bridge.core.connection.interfaces import Exchange

__all__ = ["WSGIExchange"]

# Bound once: CPython 3.13 has no fast look-up for a static method of a class.
_open_response = Response.open


class WSGIExchange:
    """A request to a WSGI application: the exchange's delegate, and a job of the thread pool.

    :meth:`open` makes it and its response, and sets every attribute. In a class with slots, an ``__init__`` or a class
    method costs more than a static method: 470 instructions for the two objects, of 63,700 for a small request
    (``benchmarks.instructions wsgi``, CPython 3.11).

    Attributes:
        client: Tells the application whether the client has left.
        exchange: The exchange.
        content: The request's content; None if there is none. Set before the request is queued.
        response: The response.
        detached: The application has taken the connection.
        queued: ``time.monotonic()`` when the request was queued for a thread; 0 before.
    """

    __slots__ = (
        "_application",
        "_environs",
        "_socket",
        "client",
        "content",
        "detached",
        "exchange",
        "queued",
        "response",
    )

    _application: Application
    _environs: EnvironTemplate
    _socket: LazySocket | None
    client: Client
    content: ReceivedContent | StreamedContent | None
    detached: bool
    exchange: Exchange
    queued: float
    response: Response

    @staticmethod
    def open(application: Application, exchange: Exchange, environs: EnvironTemplate) -> WSGIExchange:
        """Return a new request, without content."""
        self = WSGIExchange()
        self._application = application
        self._environs = environs
        self._socket = None
        self.client = environs.client if environs.lane is None else Client()
        self.exchange = exchange
        self.content = None
        self.response = _open_response(application, exchange)
        self.detached = False
        self.queued = 0.0
        return self

    @property
    def client_left(self) -> bool:
        """The client has left, or sends nothing more."""
        return self._environs.client.left

    # ------------------------------------------------------------------ on the loop: the exchange's delegate

    def data_received(self, chunk: bytes) -> None:
        """Do nothing: if there is content, a receiver takes it."""

    def finish(self) -> None:
        """Queue the request for a thread: it is complete, or its content is streamed."""
        application = self._application
        lane = self._environs.lane
        if not (application.pool.add(self, application.loop) if lane is None else lane.add(self)):
            self.refuse("overload")

    def on_connection_close(self) -> None:
        """Note that nobody waits for the response any more."""
        if self.exchange.writing is CLOSED:
            self.client.left = True
        self.response.mark_gone()
        if (self.queued or self._environs.lane is not None) and self.withdraw():
            self.discard_content()  # otherwise the thread closes it

    def on_peer_eof(self) -> None:
        """Note that the client sends nothing more. It may still read the response."""
        self.client.left = True

    def withdraw(self) -> bool:
        """Take the request out of the queue; tell whether it was there."""
        lane = self._environs.lane
        return self._application.pool.withdraw(self) if lane is None else lane.withdraw(self)

    def discard_content(self) -> None:
        """Release the received content, of a request that no thread will answer; do not wait for the disk."""
        content = self.content
        if content is not None and content.__class__ is ReceivedContent:
            content.rest = []
            if content.has_file:
                self._application.file_threads.submit(content.close)

    # ------------------------------------------------------------------ on the loop: when there is no answer in time

    def refuse(self, reason: str | None = None) -> None:
        """Answer 503: there are more requests than the threads can answer.

        Args:
            reason: ``overload``; None if the request has waited too long.
        """
        self.discard_content()
        if self.exchange.times is not None:
            self.exchange.times.refused = reason or "queue_timeout"
        if not self.response.gone and not self.exchange.response_started:
            self.exchange.answer(503, fields=[(b"retry-after", b"1")])

    def expire(self, worker: Worker | None, seconds: float) -> None:
        """Answer 504: the application takes too long.

        Args:
            worker: The thread that runs it, which is abandoned; None if no thread has begun.
            seconds: How long it was allowed to take.
        """
        application = self._application
        if self.detached or self.response.complete:
            return
        if worker is None:
            if not self.withdraw():
                return
            self.discard_content()
            if self.exchange.times is not None:
                self.exchange.times.refused = "queue_timeout"
            app_log.error("No thread was free for %s within %g seconds", self.describe(), seconds)
        else:
            if not application.pool.abandon(worker, self):
                return
            app_log.error(
                "WSGI application %s did not answer %s within %g seconds; the thread is given up, it is here:\n%s",
                application.name,
                self.describe(),
                seconds,
                worker.stack(),
            )
        self.exchange.fail(504)
        self.response.gone = True

    # ------------------------------------------------------------------ on the loop: a thread has asked for it

    def _detach(self, answer: Callable[[socket.socket | Exception], None]) -> None:
        """Give the connection to the application; HTTP is over."""
        response = self.response
        try:
            if response.gone or self.exchange.response_started:
                raise ConnectionGone("the connection is closed, or a response was sent")
            sock = detach(self.exchange)
        except Exception as exc:  # whatever it is: the thread waits for an answer
            answer(exc)
            return
        response.gone = self.detached = self.client.left = True
        self._application.detached.add(sock)
        answer(sock)

    # ------------------------------------------------------------------ in the thread

    def describe(self) -> str:
        """Return the request line for the log."""
        return describe(self.exchange)

    def run(self, worker: Worker, now: float) -> None:
        """Answer the request. All of the application's work is done here, in one thread."""
        application = self._application
        response = self.response
        response.worker = worker
        waited = now - self.queued
        # Below 0 if the request was queued after the thread had read the clock. max() would be a call for each request.
        if waited < 0.0:  # noqa: PLR1730 -- see above
            waited = 0.0
        if (times := self.exchange.times) is not None:
            times.queued = waited
        if waited > application.queue_timeout:
            application.post(WSGIExchange.refuse, self)
        elif not response.gone:
            application.context.copy().run(WSGIExchange._run, self)
        if self.content is not None and self.content.__class__ is ReceivedContent:
            self.content.close()
        if response.buffer is not None and response.buffer.closed:
            response.buffer.close()
        if self._socket is not None:
            self._socket._finish()
        if self._environs.lane is not None:
            application.post(Lane.ended, self._environs.lane)

    def _run(self) -> None:
        response = self.response
        result: Iterable[bytes] | None = None
        try:
            environ = self._environs.environ(self.exchange)
            environ["wsgi.early_hints"] = response.early_hints
            if self._environs.lane is not None:  # the client may give up one request, and go on with others
                environ["bridge.client_disconnected"] = environ["waitress.client_disconnected"] = self.client
            if self.content is None:
                environ["wsgi.input"] = io.BytesIO()
            else:
                self._set_content(environ)
            if self.exchange.head.upgrade:
                self._socket = environ["werkzeug.socket"] = LazySocket(self._request_socket)
            if self._application.shows_environ and (times := self.exchange.times) is not None:
                times.called_with = environ
            if self._application.timeout is not None:
                environ["bridge.deadline"] = self.queued + self._application.timeout
            result = self._application.app(environ, response.start_response)
            response.send(result)
        except BaseException as exc:
            # An application that has taken the connection may end with an exception, to keep the server from sending a
            # response.
            if not (self.detached and isinstance(exc, ConnectionError)):
                response.fail(exc)
        if result.__class__ is not list:
            try:
                close = getattr(result, "close", None)
                if close is not None:
                    close()
            except BaseException as exc:
                response.fail(exc)

    def _set_content(self, environ: dict[str, Any]) -> None:
        """Set ``wsgi.input`` to the request's content."""
        content = self.content
        if isinstance(content, ReceivedContent):
            environ["wsgi.input"] = content.open()
            if self.exchange.head.content_length is None:  # it came in chunks, and they are decoded now
                environ["CONTENT_LENGTH"] = str(content.size)
                environ.pop("HTTP_TRANSFER_ENCODING", None)
        elif content is not None and self.response.worker is not None:
            content.attach(self.response.worker)
            environ["wsgi.input"] = io.BufferedReader(content, 65536)

    def _request_socket(self, answer: Callable[[socket.socket | Exception], None]) -> None:
        self._application.post(WSGIExchange._detach, self, answer)
