"""Tornado-style delegates and callables behind the native interface.

A delegate written against another module's interfaces (Tornado's own) gets that module's start line, and that module's
HTTPInputError is understood, without that module being imported here.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

from bridge.core.connection.interfaces import NULL_DELEGATE
from bridge.core.connection.states import DONE
from bridge.core.tornado import gzip as gzipcontent
from bridge.core.tornado.headers import HTTPHeaders
from bridge.core.tornado.interfaces import HTTPMessageDelegate, HTTPServerConnectionDelegate
from bridge.core.tornado.request import HTTPServerRequest
from bridge.core.tornado.startline import RequestStartLine
from bridge.errors import ConnectionGone

if TYPE_CHECKING:
    from bridge.core.connection.interfaces import Connection, ExchangeDelegate
    from bridge.core.tornado.exchange import ServedConnection

__all__ = ["CallableAdapter", "DelegateAdapter", "adapt", "is_foreign_input_error"]

_VERSIONS = {b"1.1": "HTTP/1.1", b"1.0": "HTTP/1.0"}


def adapt(request_callback: Any, *, decompress: bool = False) -> DelegateAdapter | CallableAdapter:
    """Return the native delegate for a Tornado-style delegate or a callable.

    Args:
        request_callback: An object with ``start_request``; or a callable, plain or async, that takes an
            HTTPServerRequest.
        decompress: Decode gzip content.

    Raises:
        TypeError: It is neither.
    """
    # Not by isinstance: Tornado's Application derives from Tornado's class, and can be called as well.
    if hasattr(request_callback, "start_request"):
        return DelegateAdapter(request_callback, decompress)
    if callable(request_callback):
        return CallableAdapter(request_callback, decompress)
    raise TypeError(f"request_callback {request_callback!r:.80} has no start_request and cannot be called")


class DelegateAdapter:
    """Drives an ``HTTPServerConnectionDelegate``, whoever's.

    Args:
        delegate: Has ``start_request``; ``on_close`` is optional.
        decompress: Decode gzip content.
    """

    __slots__ = ("_decompress", "_delegate", "_start_line")

    def __init__(self, delegate: Any, decompress: bool = False) -> None:
        self._delegate = delegate
        self._decompress = decompress
        self._start_line: Callable[[str, str, str], Any] = _start_line_of(delegate)

    def start_request(self, server_conn: object, request_conn: Any) -> Any:
        """Return the message delegate of a request."""
        return self._delegate.start_request(server_conn, request_conn)

    def start_exchange(self, exchange: Any) -> ExchangeDelegate:
        """Start the message delegate and give it the header section."""
        return start_message(
            exchange,
            self._delegate.start_request(exchange.server_connection, exchange),
            self._start_line,
            self._decompress,
        )

    def on_close(self, connection: Connection) -> None:
        """Pass on the end of a connection."""
        on_close = getattr(self._delegate, "on_close", None)
        if on_close is not None:
            on_close(connection)


def start_message(
    exchange: ServedConnection, message: Any, start_line: Callable[[str, str, str], Any], decompress: bool
) -> ExchangeDelegate:
    """Give *message*, the delegate of a new exchange, its header section."""
    head = exchange.head
    line = head.line
    headers = HTTPHeaders.from_raw([*head.fields])
    if decompress and head.content_length != 0 and gzipcontent.is_gzip(headers):
        message = gzipcontent.for_exchange(message, exchange)
        headers = gzipcontent.decoded_headers(headers)
    exchange.speak_for(message)
    waiting = message.headers_received(
        start_line(line.method_text, line.target.decode("latin-1"), _VERSIONS[line.version]), headers
    )
    if waiting is not None:
        if head.expect_continue:
            waiting = _continue_after(waiting, exchange)
        exchange.server_connection.hold_for(waiting)
    elif head.expect_continue:
        _continue(exchange)
    if exchange.delegate is not message and (exchange.writing is not DONE or head.content_length or exchange.detached):
        return NULL_DELEGATE  # the message was told of its end, or is to hear nothing more
    adapted: ExchangeDelegate = message
    return adapted


class CallableAdapter:
    """Drives a callable, plain or async, that takes an HTTPServerRequest with its whole content.

    Args:
        callback: The callable.
        decompress: Decode gzip content.
    """

    __slots__ = ("_callback", "_decompress", "_running")

    def __init__(self, callback: Callable[[HTTPServerRequest], object], decompress: bool = False) -> None:
        self._callback = callback
        self._decompress = decompress
        self._running: set[asyncio.Future[Any]] = set()

    def start_request(self, server_conn: object, request_conn: Any) -> HTTPMessageDelegate:
        """Return a message delegate that collects a request and gives it to the callable."""
        return _Collector(self, request_conn)

    def start_exchange(self, exchange: Any) -> ExchangeDelegate:
        """Call the callable if there is no content to wait for."""
        if exchange.head.content_length == 0:
            exchange.delegate = NULL_DELEGATE
            exchange._tornado = True  # as speak_for() and call() do, which would cost two calls
            result = self._callback(HTTPServerRequest.from_connection(exchange))
            if result is not None and inspect.isawaitable(result):
                self._run(exchange, result)
            return NULL_DELEGATE
        return start_message(exchange, _Collector(self, exchange), RequestStartLine, self._decompress)

    def on_close(self, connection: Connection) -> None:
        """A connection has ended; callables are not told."""

    def call(self, exchange: ServedConnection, request: HTTPServerRequest) -> None:
        """Call the callable, and run what it returns if that is awaitable."""
        result = self._callback(request)
        if result is not None and inspect.isawaitable(result):
            self._run(exchange, result)

    def _run(self, exchange: ServedConnection, result: Awaitable[object]) -> None:
        future = asyncio.ensure_future(result)
        self._running.add(future)

        def ended(done: asyncio.Future[Any]) -> None:
            self._running.discard(done)
            if done.cancelled():
                exchange.fail()
            elif (error := done.exception()) is not None and not isinstance(error, ConnectionGone):
                exchange.server_connection.delegate_failed(exchange, error)

        future.add_done_callback(ended)


class _Collector(HTTPMessageDelegate):
    """Keeps a request's content for a callable."""

    __slots__ = ("_adapter", "_chunks", "_connection", "_headers")

    def __init__(self, adapter: CallableAdapter, connection: ServedConnection) -> None:
        self._adapter = adapter
        self._connection = connection
        self._chunks: list[bytes] = []

    def headers_received(self, start_line: Any, headers: HTTPHeaders) -> None:
        self._headers = headers

    def data_received(self, chunk: bytes) -> None:
        self._chunks.append(chunk)

    def finish(self) -> None:
        request = HTTPServerRequest.from_connection(self._connection)
        request.headers = self._headers
        request.body = b"".join(self._chunks)
        self._chunks.clear()
        request._parse_body()
        self._adapter.call(self._connection, request)

    def on_connection_close(self) -> None:
        self._chunks.clear()


def is_foreign_input_error(error: BaseException) -> bool:
    """Tell whether *error* is an HTTPInputError of a module that has delegate interfaces of its own."""
    for cls in type(error).__mro__:
        if cls.__name__ == "HTTPInputError":
            return hasattr(sys.modules.get(cls.__module__), "HTTPServerConnectionDelegate")
    return False


def _start_line_of(delegate: Any) -> Callable[[str, str, str], Any]:
    """Return the class of start lines that *delegate* expects: that of the module which its interface comes from."""
    for cls in type(delegate).__mro__:
        if cls.__name__ == HTTPServerConnectionDelegate.__name__:
            found = getattr(sys.modules.get(cls.__module__), "RequestStartLine", None)
            if found is not None:
                return cast("Callable[[str, str, str], Any]", found)
    return RequestStartLine


async def _continue_after(waiting: Awaitable[None], exchange: ServedConnection) -> None:
    await waiting
    _continue(exchange)


def _continue(exchange: ServedConnection) -> None:
    """Send 100 (Continue), unless the content will be refused."""
    length = exchange.head.content_length
    limit = exchange.max_body_size
    if limit is None:
        limit = exchange.server_connection.params.max_body_size
    if length is None or limit is None or length <= limit:
        exchange.send_continue()
