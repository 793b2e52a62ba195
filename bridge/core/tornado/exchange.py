"""One exchange of a server under Tornado's documented names: a wrapper of HTTP1Exchange.

Delegates and requests get it as their connection. A MessageAdapter passes content, the end and a lost connection on to
a delegate.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Protocol

from bridge.core.connection.states import CLOSED, CONTENT, HEAD
from bridge.core.http.message import KnownHeads, ResponseHead
from bridge.core.http.status import is_bodiless
from bridge.core.stream.errors import closed_error, stream_future
from bridge.core.tornado.connection import TornadoConnection
from bridge.core.tornado.fields import IllegalFieldError, text_fields
from bridge.core.tornado.headers import HTTPHeaders
from bridge.core.tornado.interfaces import HTTPConnection
from bridge.core.tornado.parameters import HTTP1ConnectionParameters
from bridge.core.tornado.startline import HTTPOutputError, raise_by_fault
from bridge.core.tornado.tasks import call_watched
from bridge.errors import ConnectionGone, LocalProtocolError

if TYPE_CHECKING:
    from contextvars import Context

    from bridge.core.connection.context import ConnectionContext
    from bridge.core.connection.http1exchange import HTTP1Exchange
    from bridge.core.stream.stream import IOStream

__all__ = ["CompleteRequest", "MessageAdapter", "TornadoExchange", "begun"]

_DIGITS = r"[0-9]+"

# Writes after which an application that awaits each of them gives the loop a turn, however fast its client reads.
_WRITES_IN_A_ROW = 16

_known_heads = KnownHeads(text=True)
_known_head = _known_heads.get


class TornadoExchange(HTTPConnection):
    """Writes one response, and tells of the peer's end. For ``isinstance`` it is an HTTP1Connection, too.

    Made by :meth:`open`, for the reason that HTTP1Exchange gives.

    Attributes:
        exchange: The exchange that it wraps.
        detached: :meth:`detach` was called.
        taken: The stream that :meth:`detach` has returned, None before.
        is_client: False.
    """

    __slots__ = (
        "_close_callback",
        "_entered",
        "_head_tried",
        "_ready",
        "_variables",
        "_writes",
        "detached",
        "exchange",
        "taken",
    )

    is_client = False
    _close_callback: Callable[[], object] | None
    _entered: bool
    _head_tried: bool
    _ready: asyncio.Future[None]
    _variables: Context
    _writes: int
    detached: bool
    exchange: HTTP1Exchange
    taken: IOStream | None

    @staticmethod
    def open(exchange: HTTP1Exchange, ready: asyncio.Future[None], variables: Context) -> TornadoExchange:
        """Return a new wrapper of *exchange*.

        Args:
            exchange: The exchange.
            ready: A completed future, the result of every write that need not wait.
            variables: The context of the request, in which the application is called (``contextvars``).
        """
        self = TornadoExchange()
        self.exchange = exchange
        self._ready = ready
        self._variables = variables
        self._entered = False
        self._close_callback = None
        self._head_tried = False
        self._writes = 0
        self.detached = False
        self.taken = None
        return self

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function of the application's in the context of the request: the next request sees no variables of it.

        The function may lead to another one, such as the one that is told of a connection that it has closed.
        """
        if self._entered:
            return function(*args)
        self._entered = True
        try:
            return self._variables.run(function, *args)
        finally:
            self._entered = False

    # ------------------------------------------------------------------ what it is

    @property
    def server_connection(self) -> TornadoConnection:
        """The TCP connection; the same object for all its exchanges."""
        return TornadoConnection.of(self.exchange.connection)  # type: ignore[arg-type]  # a server's is HTTP/1's

    @property
    def context(self) -> ConnectionContext:
        """The two ends."""
        return self.exchange.context

    @property
    def stream(self) -> IOStream | None:
        """A stream over the TCP connection, to write to or to close; None after :meth:`detach`.

        In HTTP/2 it stands for the request's own stream: it can be closed, and is not written to.
        """
        if self.exchange.head.line.version == b"2":
            from bridge.core.tornado.multiplexed import MultiplexedStream

            stream: Any = MultiplexedStream(self.exchange)
            return stream  # type: ignore[no-any-return]  # it has the part of the interface that makes sense
        return self.server_connection.stream

    @property
    def params(self) -> HTTP1ConnectionParameters:
        """The limits and times of the connection."""
        return HTTP1ConnectionParameters.of(self.server_connection.params)

    @property
    def no_keep_alive(self) -> bool:
        """Whether the connection is closed after every response."""
        return self.server_connection.params.no_keep_alive

    def read_response(self, delegate: Any) -> Awaitable[bool]:
        """Raise: a server's connection reads no response.

        Raises:
            AssertionError: Always.
        """
        raise AssertionError("a server's connection reads no response")

    # ------------------------------------------------------------------ the response

    def write_headers(
        self,
        start_line: Any,
        headers: Any,
        chunk: bytes | None = None,
        callback: Callable[[], object] | None = None,
    ) -> Awaitable[None]:
        """Write the head of the response, and with it the first content.

        Args:
            start_line: A ResponseStartLine or another sequence of version, status code and reason; the version is
                ignored, the reason may be None.
            headers: HTTPHeaders, bridge's or Tornado's, or another mapping.
            chunk: The first content.
            callback: Called when everything is flushed.

        Returns:
            An awaitable that is done when more may be written; it fails with StreamClosedError if the peer left.

        Raises:
            HTTPOutputError: The head was sent before, or the content is longer than Content-Length.
            ValueError: The status, the reason or a field is illegal. Another head may be written.
        """
        _, status, reason = start_line
        self._head_tried = True
        exchange = self.exchange
        if exchange.writing is not HEAD:
            if exchange.writing is CLOSED:
                return self._closed()
            raise HTTPOutputError("the response head was sent already")
        if isinstance(status, int) and status < 200 and status != 101:
            return self._write_interim(status, headers, callback)
        fields = headers.pairs() if headers.__class__ is HTTPHeaders else text_fields(headers)
        key = (status, reason, tuple(fields))
        try:
            response = _known_head(key)
        except TypeError:  # the key has no hash: a value is a list
            response = None
        if response is None:
            response = self._check_head(key, headers)
        if chunk is None:
            chunk = b""
        elif 0 <= response.length < len(chunk) and not is_bodiless(exchange.head.line.method, response.status):
            self.close()
            raise HTTPOutputError("Tried to write more data than Content-Length")
        try:
            exchange.send_first(response, chunk, False)
        except LocalProtocolError as exc:  # a 101 that cannot be sent
            raise HTTPOutputError(str(exc)) from exc
        return self._flushed(callback) if exchange.writer.paused or callback is not None else self._ready

    def write(self, chunk: bytes | str, callback: Callable[[], object] | None = None) -> Awaitable[None]:
        """Write content. Without :meth:`write_headers` before, the bytes are sent as they are.

        Args:
            chunk: Content; text is sent in UTF-8.
            callback: Called when everything is flushed.

        Returns:
            As :meth:`write_headers`.

        Raises:
            HTTPOutputError: The content is longer than Content-Length, the response has ended, or its head was refused.
                In the last case the client gets a 500, and the connection ends.
        """
        data = chunk.encode() if isinstance(chunk, str) else chunk
        exchange = self.exchange
        response = exchange.response
        try:
            if response is not None:
                exchange.send(data)
            elif self._head_tried and exchange.writing is not CLOSED:
                # The head was refused, or was an interim one. As they are, these bytes would be sent as a response of
                # their own, which an attacker could forge. Tornado's handlers take no further step after this error, so
                # the client would wait for ever.
                exchange.fail()
                raise HTTPOutputError("content without a response head")
            else:
                exchange.send_raw(data)
        except ConnectionGone:
            return self._closed()
        except LocalProtocolError as exc:
            if "Content-Length" in str(exc):
                raise HTTPOutputError("Tried to write more data than Content-Length") from exc
            raise HTTPOutputError(str(exc)) from exc
        if exchange.writer.paused or callback is not None:
            return self._flushed(callback)
        self._writes += 1
        return self._ready if self._writes % _WRITES_IN_A_ROW else self._next_turn()

    def _next_turn(self) -> Awaitable[None]:
        """Return a future that is done in the loop's next turn: an application that only writes lets others run."""
        loop = self.exchange.loop
        future = loop.create_future()
        loop.call_soon(_set_done, future)
        return future

    def finish(self) -> None:
        """End the response.

        Raises:
            HTTPOutputError: Nothing was written, or the content is shorter than Content-Length.
        """
        self._close_callback = None
        exchange = self.exchange
        if exchange.writing is CONTENT:
            if exchange.response is None:
                exchange.end_raw()
                return
            try:
                exchange.send(b"", True)
            except LocalProtocolError as exc:
                missing = exchange.response.length - exchange.content_sent
                raise HTTPOutputError(f"Tried to write {missing} bytes less than Content-Length") from exc
        elif exchange.writing is HEAD:
            exchange.fail()
            raise HTTPOutputError("finish() before anything was written")

    def close(self) -> None:
        """Close the TCP connection; what was written is still sent."""
        self.exchange.close_connection()

    def _check_head(self, key: tuple[Any, ...], headers: Any) -> ResponseHead:
        """Return a checked head of status, reason and fields, the parts of *key*.

        Raises:
            IllegalFieldError: One of them is illegal.
        """
        try:
            return _known_heads.add(*key)
        except (TypeError, ValueError, LocalProtocolError) as exc:
            if "Content-Length" in headers and not re.fullmatch(_DIGITS, str(headers["Content-Length"])):
                self.close()  # without a valid length the content has no end that the client could see
            raise IllegalFieldError(str(exc)) from exc

    def _write_interim(self, status: int, headers: Any, callback: Callable[[], object] | None) -> Awaitable[None]:
        if status == 100:
            self.exchange.send_continue()
        else:
            fields = text_fields(headers)
            try:
                pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields]
                self.exchange.inform(status, pairs)
            except (LocalProtocolError, UnicodeEncodeError) as exc:
                raise IllegalFieldError(str(exc)) from exc
        return self._flushed(callback)

    def _flushed(self, callback: Callable[[], object] | None) -> Awaitable[None]:
        exchange = self.exchange
        future = stream_future(exchange.writable()) if exchange.write_paused else self._ready
        if callback is not None:
            future.add_done_callback(lambda done: callback() if done.exception() is None else None)
        return future

    def _closed(self) -> Awaitable[None]:
        future: asyncio.Future[None] = self.exchange.loop.create_future()
        self._writes += 1
        if self._writes % _WRITES_IN_A_ROW:
            _fail(future)
        else:  # give the loop a turn, as after successful writes: some applications ignore the failure and write on
            self.exchange.loop.call_soon(_fail, future)
        return future

    # ------------------------------------------------------------------ the request

    def set_body_timeout(self, timeout: float | None) -> None:
        """Allow *timeout* seconds for this request's whole content; None for no limit."""
        self.exchange.set_body_timeout(timeout)

    def set_max_body_size(self, max_body_size: int | None) -> None:
        """Accept at most *max_body_size* bytes of content in this request; None for the server's limit."""
        self.exchange.max_body_size = max_body_size

    # ------------------------------------------------------------------ the peer

    def set_close_callback(self, callback: Callable[[], object] | None) -> None:
        """Call *callback* once if the peer leaves after the request was read and before :meth:`finish`.

        Args:
            callback: Takes no arguments; None for no callback.
        """
        self._close_callback = callback

    def run_close_callback(self) -> None:
        """Call the callback of :meth:`set_close_callback`, once."""
        callback = self._close_callback
        if callback is not None:
            self._close_callback = None
            self.run(callback)

    def peer_sends_no_more(self) -> None:
        """Call the close callback: a peer that sends nothing more has usually left. The response is still sent.

        The response has to be complete within the write timeout, since an application that was told may never answer.
        """
        self.exchange.finish_within(self.exchange.parameters.write_timeout)
        self.run_close_callback()

    def detach(self) -> IOStream:
        """Take the connection and the unread bytes from HTTP, and return them as a stream.

        The delegates are told nothing more.

        Raises:
            HTTPOutputError: The connection was detached before, or has ended; or other requests share it, as in HTTP/2.
        """
        if self.exchange.head.line.version == b"2":
            self.exchange.fail()  # Tornado's handlers send no response after this
            raise HTTPOutputError("detach(): in HTTP/2 the connection belongs to all of its requests")
        self._close_callback = None
        self.detached = True
        self.taken = self.server_connection.detach()
        return self.taken


def _fail(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_exception(closed_error())
        future.exception()  # marks it as seen: an application that does not look at it is told of the close, too


def _set_done(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class CompleteRequest:
    """The native delegate of a request without content. It is only told of the peer.

    Args:
        connection: The exchange to which the response is written.
    """

    __slots__ = ("_connection",)

    def __init__(self, connection: TornadoExchange) -> None:
        self._connection = connection

    def data_received(self, chunk: bytes) -> None:
        """Do nothing: there is no content."""

    def finish(self) -> None:
        """Do nothing: the request was complete from the start."""

    def on_connection_close(self) -> None:
        """Call the close callback."""
        if not self._connection.detached:
            self._connection.run_close_callback()

    def on_peer_eof(self) -> None:
        """Pass on that the peer sends nothing more."""
        self._connection.peer_sends_no_more()


class Message(Protocol):
    """A message delegate, bridge's or Tornado's, whose ``headers_received`` was called."""

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """Take content."""

    def finish(self) -> None:
        """Take note that the request is complete."""

    def on_connection_close(self) -> None:
        """Take note that the request cannot be received in full, or that its response was complete before it."""


class MessageAdapter:
    """The native delegate of an exchange that drives a Tornado-style message delegate.

    Args:
        connection: The exchange to which the message delegate writes its response.
        message: The message delegate; its ``headers_received`` was called.
    """

    __slots__ = ("_complete", "_connection", "_message")

    def __init__(self, connection: TornadoExchange, message: Message) -> None:
        self._connection = connection
        self._message = message
        self._complete = False  # the whole request was read

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """Pass on content."""
        try:
            waiting = self._connection.run(self._message.data_received, chunk)
        except Exception as exc:
            raise_by_fault(exc)
        return None if waiting is None else begun(self._connection, waiting)

    def finish(self) -> None:
        """Pass on the end of the request."""
        self._complete = True
        try:
            self._connection.run(call_watched, self._connection, self._message.finish)
        except Exception as exc:
            raise_by_fault(exc)

    def on_connection_close(self) -> None:
        """Tell the message delegate that the exchange has ended early, or call the close callback after ``finish``."""
        if self._connection.detached:
            return
        if self._complete:
            self._connection.run_close_callback()
        else:
            self._connection.run(self._message.on_connection_close)

    def on_peer_eof(self) -> None:
        """Pass on that the peer sends nothing more."""
        self._connection.peer_sends_no_more()


def begun(connection: TornadoExchange, waiting: Awaitable[None]) -> Awaitable[None] | None:
    """Return an awaitable that fails as :func:`raise_by_fault` would where *waiting* fails.

    It runs in the context of the request.

    Returns:
        None if *waiting* is done without an error.
    """
    if isinstance(waiting, asyncio.Future) and waiting.done() and not waiting.cancelled():
        error = waiting.exception()
        if error is None:
            return None
    future: asyncio.Future[None] = connection.run(asyncio.ensure_future, _translated(waiting))
    return future


async def _translated(waiting: Awaitable[None]) -> None:
    try:
        await waiting
    except Exception as exc:
        raise_by_fault(exc)
