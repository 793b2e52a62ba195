"""Adapts Tornado-style delegates and callables to the native interface.

A delegate may be written against another module's interfaces, Tornado's own above all. It then gets that module's class
of start lines, and that module's HTTPInputError refuses a request, too. That module is not imported here.

The MessageAdapter of ``exchange.py`` tells a delegate what comes after the head.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context, copy_context
from io import BytesIO
from typing import TYPE_CHECKING, Any, cast

from bridge.core.connection.budgets import SMALL
from bridge.core.connection.interfaces import NULL_DELEGATE
from bridge.core.connection.states import DONE
from bridge.core.tornado import gzip as gzipcontent
from bridge.core.tornado.connection import TornadoConnection
from bridge.core.tornado.exchange import CompleteRequest, MessageAdapter, TornadoExchange, begun
from bridge.core.tornado.headers import HTTPHeaders
from bridge.core.tornado.interfaces import HTTPMessageDelegate, HTTPServerConnectionDelegate
from bridge.core.tornado.request import HTTPServerRequest
from bridge.core.tornado.startline import RequestStartLine, raise_by_fault
from bridge.core.tornado.tasks import call_watched
from bridge.errors import ConnectionGone

if TYPE_CHECKING:
    from bridge.core.connection.budgets import Budget
    from bridge.core.connection.http1exchange import HTTP1Exchange
    from bridge.core.connection.interfaces import Connection, ExchangeDelegate

__all__ = ["CallableAdapter", "DelegateAdapter", "adapt"]


def adapt(request_callback: Any, *, decompress: bool = False) -> DelegateAdapter | CallableAdapter:
    """Return the native delegate for a Tornado-style delegate or a callable.

    Args:
        request_callback: An object with ``start_request``; or a callable, plain or async, that takes an
            HTTPServerRequest.
        decompress: Decode gzip content.

    Raises:
        TypeError: It is neither.
    """
    # start_request comes before callable(): Tornado's Application has both. No isinstance: it derives from Tornado's
    # class, not from bridge's.
    if hasattr(request_callback, "start_request"):
        return DelegateAdapter(request_callback, decompress)
    if callable(request_callback):
        return CallableAdapter(request_callback, decompress)
    raise TypeError(f"request_callback {request_callback!r:.80} has no start_request and cannot be called")


class _Adapter:
    """What both adapters share: they open exchanges.

    Each has a context of its own for ``contextvars``. It is a copy of that of the first one, into which the application
    was not called: a connection may carry the requests of many people, and one begins where another one ends.
    """

    __slots__ = ("_decompress", "_ready", "_variables")

    _variables: Context

    def __init__(self, decompress: bool) -> None:
        self._decompress = decompress
        self._ready: asyncio.Future[None] | None = None

    def _open(self, exchange: HTTP1Exchange) -> TornadoExchange:
        ready = self._ready
        if ready is None:
            self._variables = copy_context()
            ready = self._ready = exchange.loop.create_future()  # the result of every write that need not wait
            ready.set_result(None)
        return TornadoExchange.open(exchange, ready, self._variables.copy())


class DelegateAdapter(_Adapter):
    """Drives an ``HTTPServerConnectionDelegate``, bridge's or Tornado's.

    Args:
        delegate: An object with ``start_request``; its ``on_close`` is optional.
        decompress: Decode gzip content.
    """

    __slots__ = ("_delegate", "_start_line")

    def __init__(self, delegate: Any, decompress: bool = False) -> None:
        super().__init__(decompress)
        self._delegate = delegate
        self._start_line: Callable[[str, str, str], Any] = _start_line_of(delegate)

    def start_request(self, server_conn: object, request_conn: Any) -> Any:
        """Return the message delegate of a request."""
        return self._delegate.start_request(server_conn, request_conn)

    def start_exchange(self, exchange: Any) -> ExchangeDelegate:
        """Make the message delegate and give it the header section."""
        connection = self._open(exchange)
        try:
            message = connection.run(self._delegate.start_request, connection.server_connection, connection)
            return start_message(connection, message, self._start_line, self._decompress)
        except Exception as exc:
            raise_by_fault(exc)

    def on_close(self, connection: Any) -> None:
        """Pass on the end of a connection."""
        self.end_connection(TornadoConnection.of(connection))

    def end_connection(self, server_conn: object) -> None:
        """Tell the delegate of the end of a connection.

        Args:
            server_conn: The object that ``start_request`` was given.
        """
        on_close = getattr(self._delegate, "on_close", None)
        if on_close is not None:
            on_close(server_conn)


def start_message(
    connection: TornadoExchange, message: Any, start_line: Callable[[str, str, str], Any], decompress: bool
) -> ExchangeDelegate:
    """Give the delegate of a new exchange its header section.

    Args:
        connection: The exchange.
        message: The message delegate.
        start_line: The class of start lines that it expects.
        decompress: Decode gzip content.

    Returns:
        The native delegate.
    """
    exchange = connection.exchange
    head = exchange.head
    line = head.line
    headers = HTTPHeaders.from_raw([*head.fields])
    if decompress and head.content_length != 0 and gzipcontent.is_gzip(headers):
        message = gzipcontent.for_exchange(message, connection)
        headers = gzipcontent.decoded_headers(headers)
    try:
        waiting = connection.run(
            call_watched,
            connection,
            message.headers_received,
            start_line(line.method_text, line.target.decode("latin-1"), line.protocol_text),
            headers,
        )
    except Exception:
        connection.run(message.on_connection_close)
        raise
    if waiting is not None and head.expect_continue:
        waiting = _continue_after(waiting, exchange)
    elif head.expect_continue:
        _continue(exchange)
    if waiting is not None:
        waiting = begun(connection, waiting)
    if waiting is not None:
        exchange.pause_until(waiting)
    return MessageAdapter(connection, message)


class CallableAdapter(_Adapter):
    """Drives a callable, plain or async, that takes an HTTPServerRequest with its whole content.

    Args:
        callback: The callable.
        decompress: Decode gzip content.
    """

    __slots__ = ("_callback", "_running")

    collects = True
    """The callable is called when a request's content is complete."""

    def __init__(self, callback: Callable[[HTTPServerRequest], object], decompress: bool = False) -> None:
        super().__init__(decompress)
        self._callback = callback
        self._running: set[asyncio.Future[Any]] = set()

    def start_request(self, server_conn: object, request_conn: Any) -> HTTPMessageDelegate:
        """Return a message delegate that collects a request and gives it to the callable."""
        return _Collector(self, request_conn)

    def start_exchange(self, exchange: Any) -> ExchangeDelegate:
        """Call the callable if there is no content to wait for."""
        connection = self._open(exchange)
        if exchange.head.content_length == 0:
            try:  # the same as call(), without the cost of a call
                result = connection.run(self._callback, HTTPServerRequest.from_connection(connection))
            except Exception as exc:
                raise_by_fault(exc)
            if result is not None and inspect.isawaitable(result):
                self._run(connection, result)
            return NULL_DELEGATE if exchange.writing is DONE else CompleteRequest(connection)
        return start_message(connection, _Collector(self, connection), RequestStartLine, self._decompress)

    def on_close(self, connection: Connection) -> None:
        """Do nothing: callables are not told of the end of a connection."""

    def end_connection(self, server_conn: object) -> None:
        """Do nothing: callables are not told of the end of a connection."""

    def call(self, connection: TornadoExchange, request: HTTPServerRequest) -> None:
        """Call the callable; if it returns an awaitable, run it."""
        try:
            result = self._callback(request)
        except Exception as exc:
            raise_by_fault(exc)
        if result is not None and inspect.isawaitable(result):
            self._run(connection, result)

    def call_later(self, connection: TornadoExchange, work: Coroutine[Any, Any, None]) -> None:
        """Run *work*, which calls the callable with :meth:`called`."""
        self._run(connection, work)

    async def called(self, request: HTTPServerRequest) -> None:
        """Call the callable; if it returns an awaitable, wait for it."""
        result = self._callback(request)
        if result is not None and inspect.isawaitable(result):
            await result

    def _run(self, connection: TornadoExchange, result: Awaitable[object]) -> None:
        future = connection.run(asyncio.ensure_future, result)
        self._running.add(future)

        def ended(done: asyncio.Future[Any]) -> None:
            self._running.discard(done)
            if done.cancelled():
                connection.exchange.fail()
            elif (error := done.exception()) is not None and not isinstance(error, ConnectionGone):
                try:
                    if isinstance(error, Exception):
                        raise_by_fault(error)
                except Exception as exc:
                    error = exc
                connection.exchange.report_failure(error)

        future.add_done_callback(ended)


class _Collector(HTTPMessageDelegate):
    """Collects a request's content, and calls the callable when it is complete."""

    __slots__ = ("_adapter", "_chunks", "_connection", "_headers", "_large", "_size", "_spool")

    def __init__(self, adapter: CallableAdapter, connection: TornadoExchange) -> None:
        self._adapter = adapter
        self._connection = connection
        self._chunks: list[bytes] = []
        self._size = 0
        self._spool: Budget | None = None  # set when the content is no longer small
        # Holds the content when it is not small. It grows in place, and its bytes are taken without a copy: a join of
        # 99 MiB takes 40 ms on the loop, and twice the memory.
        self._large: BytesIO | None = None

    def headers_received(self, start_line: Any, headers: HTTPHeaders) -> None:
        self._headers = headers

    def data_received(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size <= SMALL:
            self._chunks.append(chunk)
            return
        if self._large is None:
            self._large = BytesIO()
            self._large.writelines(self._chunks)
            self._chunks.clear()
        self._large.write(chunk)
        if self._spool is None:
            self._spool = self._connection.exchange.clock.budgets.spool
        self._spool.note(self, self._size)

    def give_up(self, budget: Budget) -> str:
        """Answer 503: the incomplete requests of all clients together are too large."""
        budget.forget(self)
        exchange = self._connection.exchange
        if not exchange.response_started:
            exchange.answer(503, fields=[(b"retry-after", b"1")])
        return f"the content of a request from {exchange.context}"

    def finish(self) -> None:
        request = HTTPServerRequest.from_connection(self._connection)
        request.headers = self._headers
        request.body = self._taken()
        if self._size > SMALL and request._has_form():
            self._adapter.call_later(self._connection, self._with_form(request))
            return
        if self._spool is not None:
            self._spool.forget(self)
        request._parse_body()
        self._adapter.call(self._connection, request)

    def _taken(self) -> bytes:
        """Return the content, and hold it no longer."""
        large, self._large = self._large, None
        if large is not None:
            return large.getvalue()
        content = b"".join(self._chunks)
        self._chunks.clear()
        return content

    async def _with_form(self, request: HTTPServerRequest) -> None:
        """Read a large form in a thread, as this may take seconds; then call the callable."""
        try:
            await asyncio.get_running_loop().run_in_executor(None, request._parse_body)
        finally:
            if self._spool is not None:  # not earlier: a form in the queue for a thread is still in memory
                self._spool.forget(self)
        exchange = self._connection.exchange
        if not exchange.response_started and not exchange.peer_gone:
            await self._adapter.called(request)

    def on_connection_close(self) -> None:
        if self._spool is not None:
            self._spool.forget(self)
        self._taken()


def _start_line_of(delegate: Any) -> Callable[[str, str, str], Any]:
    """Return the class of start lines that *delegate* expects: the one in the module of its interface."""
    for cls in type(delegate).__mro__:
        if cls.__name__ == HTTPServerConnectionDelegate.__name__:
            found = getattr(sys.modules.get(cls.__module__), "RequestStartLine", None)
            if found is not None:
                return cast("Callable[[str, str, str], Any]", found)
    return RequestStartLine


async def _continue_after(waiting: Awaitable[None], exchange: HTTP1Exchange) -> None:
    await waiting
    _continue(exchange)


def _continue(exchange: HTTP1Exchange) -> None:
    """Send 100 (Continue), unless the content will be refused."""
    length = exchange.head.content_length
    limit = exchange.max_body_size
    if limit is None:
        limit = exchange.parameters.max_body_size
    if length is None or limit is None or length <= limit:
        exchange.send_continue()
