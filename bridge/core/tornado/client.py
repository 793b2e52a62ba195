"""The client's side of an HTTP/1.x connection: writes requests to an IOStream and reads the responses (RFC 9112)."""

from __future__ import annotations

import asyncio
import inspect
import re
from abc import ABC
from collections.abc import Callable, Iterable
from typing import Any

from bridge.core.http.fields import DIGITS, NO_LENGTH, TOKEN, field_line
from bridge.core.http.limits import Limits
from bridge.core.http1.decoder import ChunkedDecoder
from bridge.core.http1.encoder import LAST_CHUNK, chunk
from bridge.core.log import app_log, gen_log
from bridge.core.stream.errors import StreamClosedError, UnsatisfiableReadError, closed_error
from bridge.core.stream.stream import IOStream
from bridge.core.tornado import gzip as gzipcontent
from bridge.core.tornado.exchange import TornadoExchange
from bridge.core.tornado.fields import IllegalFieldError, text_fields
from bridge.core.tornado.headers import HTTPHeaders
from bridge.core.tornado.interfaces import HTTPConnection
from bridge.core.tornado.parameters import HTTP1ConnectionParameters
from bridge.core.tornado.startline import (
    HTTPInputError,
    HTTPOutputError,
    ResponseStartLine,
    is_foreign_input_error,
    parse_response_start_line,
)
from bridge.errors import LimitExceeded, LocalProtocolError, RemoteProtocolError

__all__ = ["HTTP1Connection"]

# A response head ends with an empty line. LF is accepted in place of CRLF, as RFC 9112 section 2.2 allows.
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_INTERIM_MAX = 10  # interim responses before one final response
_READ_SIZE = 16384  # bytes
_TARGET = re.compile(rb"[\x21-\x7e]+")


class HTTP1Connection(HTTPConnection, ABC):
    """A client's HTTP/1.x connection: writes requests to a stream and reads the responses, one after the other.

    A server's exchanges (TornadoExchange), to which delegates write their responses, count as instances for
    ``isinstance``. The server makes them.

    Args:
        stream: An IOStream, connected or connecting.
        is_client: True. HTTP1ServerConnection makes a server's side.
        params: Limits and times; None for the defaults.
        context: Any object. The application finds it in ``context``, and log records name it.

    Raises:
        ValueError: *is_client* is false.

    Attributes:
        is_client: True; False on a server's exchange.
        params: The argument, or the defaults.
        context: The argument; in a server, the two ends (ConnectionContext).
        no_keep_alive: The connection is closed after one response.
    """

    is_client = True

    def __init__(
        self,
        stream: IOStream,
        is_client: bool = True,
        params: HTTP1ConnectionParameters | None = None,
        context: object | None = None,
    ) -> None:
        if not is_client:
            raise ValueError("is_client=False: HTTP1ServerConnection(stream, params, context) makes a server's side")
        self.params = params or HTTP1ConnectionParameters()
        self.context = context
        self.no_keep_alive = self.params.no_keep_alive
        self._stream: IOStream | None = stream
        self._method = ""
        self._chunked = False  # the request's content goes out in chunks
        self._to_send = NO_LENGTH  # bytes of the declared Content-Length still to come
        self._body_timeout = self.params.body_timeout
        limit = self.params.max_body_size
        self._max_body_size: int | None = stream.max_buffer_size if limit is None else limit

    @property
    def stream(self) -> IOStream | None:
        """The stream; None after :meth:`detach`."""
        return self._stream

    # ------------------------------------------------------------------ the request

    def write_headers(
        self,
        start_line: Any,
        headers: Any,
        chunk: bytes | None = None,
        callback: Callable[[], object] | None = None,
    ) -> asyncio.Future[None]:
        """Write a request's head, and with it the first content.

        The content of POST, PUT and PATCH without Content-Length is sent in chunks.

        Args:
            start_line: A RequestStartLine, or another sequence of method, target and version; the version is ignored.
            headers: HTTPHeaders, or another mapping; Transfer-Encoding may be added to it.
            chunk: The first content.
            callback: Called when everything is flushed.

        Returns:
            A future that is done when everything is flushed; it fails with StreamClosedError if the stream is closed.

        Raises:
            ValueError: Method, target or a field is illegal; nothing was sent.
            HTTPOutputError: The content is longer than Content-Length.
        """
        method, target, _ = start_line
        request_line = (method.encode(), target.encode())
        if TOKEN.fullmatch(request_line[0]) is None or _TARGET.fullmatch(request_line[1]) is None:
            raise IllegalFieldError(f"illegal request line {method[:80]!r} {target[:80]!r}")
        self._method = method
        self._chunked = method in {"POST", "PUT", "PATCH"} and "Content-Length" not in headers
        if self._chunked:
            headers["Transfer-Encoding"] = "chunked"
        lines, self._to_send = _encode_fields(text_fields(headers))
        head = b"%b %b HTTP/1.1\r\n%b\r\n" % (*request_line, lines)
        return self._write(head + self._framed(chunk or b""), callback)

    def write(self, chunk: bytes, callback: Callable[[], object] | None = None) -> asyncio.Future[None]:
        """Write content. Before :meth:`write_headers`, the bytes are sent as they are.

        Returns:
            As :meth:`write_headers`.

        Raises:
            HTTPOutputError: The content is longer than Content-Length.
        """
        return self._write(self._framed(chunk), callback)

    def finish(self) -> None:
        """End the request.

        Raises:
            HTTPOutputError: The content is shorter than Content-Length; the stream is closed.
        """
        stream = self._stream
        if self._to_send > 0 and stream is not None and not stream.closed():
            stream.close()
            raise HTTPOutputError(f"Tried to write {self._to_send} bytes less than Content-Length")
        if self._chunked:
            self._chunked = False
            self._write(LAST_CHUNK, None)

    def _framed(self, data: bytes) -> bytes:
        """Return *data* as it is sent: in a chunk, or counted against Content-Length."""
        if self._to_send != NO_LENGTH:
            if len(data) > self._to_send:
                if self._stream is not None:
                    self._stream.close()
                raise HTTPOutputError("Tried to write more data than Content-Length")
            self._to_send -= len(data)
        return chunk(data) if self._chunked and data else data

    def _write(self, data: bytes, callback: Callable[[], object] | None) -> asyncio.Future[None]:
        stream = self._stream
        future: asyncio.Future[None]
        if stream is None or stream.closed():
            future = asyncio.get_running_loop().create_future()
            future.set_exception(closed_error())
            future.exception()  # marks it as seen: asyncio would log it if the caller does not look
        else:
            future = stream.write(data)
        if callback is not None:
            future.add_done_callback(lambda done: callback() if done.exception() is None else None)
        return future

    # ------------------------------------------------------------------ the connection

    def set_body_timeout(self, timeout: float | None) -> None:
        """Allow *timeout* seconds for the content of the response; None for no limit."""
        self._body_timeout = timeout

    def set_max_body_size(self, max_body_size: int | None) -> None:
        """Accept at most *max_body_size* bytes of content in the response; None for no limit."""
        self._max_body_size = max_body_size

    def set_close_callback(self, callback: Callable[[], object] | None) -> None:
        """Call *callback* once when the stream is closed; None for no callback."""
        if self._stream is not None:
            self._stream.set_close_callback(callback)

    def detach(self) -> IOStream:
        """Return the stream. The connection does not use it afterwards.

        Raises:
            StreamClosedError: The stream was detached before.
        """
        stream, self._stream = self._stream, None
        if stream is None:
            raise closed_error()
        stream.set_close_callback(None)
        return stream

    def close(self) -> None:
        """Close the stream."""
        if self._stream is not None:
            self._stream.close()

    # ------------------------------------------------------------------ the response

    def read_response(self, delegate: Any) -> asyncio.Future[bool]:
        """Read one response and pass it to *delegate*.

        Args:
            delegate: An HTTPMessageDelegate. For each interim response (1xx), ``headers_received`` is called once more.

        Returns:
            A future. Its result is True if the stream is open afterwards; False after :meth:`detach` and after any
            error. Errors are logged, and the delegate's ``on_connection_close`` is called.
        """
        return asyncio.ensure_future(self._read_response(delegate))

    async def _read_response(self, delegate: Any) -> bool:
        reader = _ResponseReader(self, delegate)
        try:
            await reader.read()
        except StreamClosedError:
            pass  # the peer left, or the application closed
        except (RemoteProtocolError, UnsatisfiableReadError) as exc:
            gen_log.info("Malformed HTTP message from %s: %s", self.context, exc)
        except TimeoutError:
            gen_log.info("Timeout reading %s from %s", reader.phase, self.context)
        except Exception as exc:
            if is_foreign_input_error(exc):
                gen_log.info("Malformed HTTP message from %s: %s", self.context, exc)
            else:
                app_log.exception("Uncaught exception while reading a response from %s", self.context)
        else:
            stream = self._stream
            if stream is not None and reader.close:
                stream.close()
            return stream is not None and not stream.closed()
        self.close()
        reader.tell_closed()
        return False


class _ResponseReader:
    """Reads one response.

    Attributes:
        phase: What is being read, ``headers`` or ``body``, for log records.
        close: The response is the last one on this connection.
    """

    def __init__(self, connection: HTTP1Connection, delegate: Any) -> None:
        self.phase = "headers"
        self.close = False
        self._connection = connection
        self._delegate = delegate
        self._told = False
        self._total = 0

    async def read(self) -> None:
        """Read the response, and interim responses before it."""
        connection = self._connection
        for _ in range(_INTERIM_MAX + 1):
            async with asyncio.timeout(connection.params.header_timeout):
                start_line, headers = await self._read_head()
            delegate = self._delegate
            if connection.params.decompress and gzipcontent.is_gzip(headers):
                decoder = gzipcontent.GzipDecoder(connection.params.chunk_size, connection._max_body_size)
                delegate = self._delegate = gzipcontent.GzipDelegate(delegate, decoder)
                headers = gzipcontent.decoded_headers(headers)
            self._told = True
            waiting = delegate.headers_received(start_line, headers)
            if waiting is not None:
                await waiting
            if connection.stream is None:
                self._told = False
                return  # detached
            if not 100 <= start_line.code < 200:
                break
        else:
            raise HTTPInputError(f"more than {_INTERIM_MAX} interim responses")
        self.phase = "body"
        self.close = connection.no_keep_alive or not _persists(start_line, headers)
        async with asyncio.timeout(connection._body_timeout):
            await self._read_content(start_line, headers)
        if connection.stream is not None:
            delegate.finish()

    def tell_closed(self) -> None:
        """Tell the delegate that the response is incomplete, if it has seen a part of it."""
        if self._told:
            try:
                self._delegate.on_connection_close()
            except Exception:
                app_log.exception("Uncaught exception in on_connection_close")

    async def _read_head(self) -> tuple[ResponseStartLine, HTTPHeaders]:
        stream = self._stream()
        data = await stream.read_until_regex(_HEAD_END, max_bytes=self._connection.params.max_header_size)
        first, _, rest = data.decode("latin-1").lstrip("\r\n").partition("\n")
        return parse_response_start_line(first.removesuffix("\r")), HTTPHeaders.parse(rest)

    async def _read_content(self, start_line: ResponseStartLine, headers: HTTPHeaders) -> None:
        codings = headers.get("Transfer-Encoding")
        length = _content_length(headers, codings)
        if self._connection._method == "HEAD" or start_line.code == 304:
            return
        if start_line.code == 204:
            if codings is not None or length:
                raise HTTPInputError("Response with code 204 should not have body")
            return
        limit = self._connection._max_body_size
        if codings is not None:
            await self._read_chunked(limit)
        elif length is None:
            self.close = True
            await self._read_until_close(limit)
        elif limit is not None and length > limit:
            raise LimitExceeded(413, f"Content-Length too long: {length} bytes, limit {limit}")
        else:
            await self._read_fixed(length)

    async def _read_fixed(self, length: int) -> None:
        stream = self._stream()
        size = self._connection.params.chunk_size
        while length:
            data = await stream.read_bytes(min(size, length), partial=True)
            length -= len(data)
            await self._give(data)

    async def _read_until_close(self, limit: int | None) -> None:
        stream = self._stream()
        total = 0
        while True:
            try:
                data = await stream.read_bytes(self._connection.params.chunk_size, partial=True)
            except StreamClosedError:
                if stream.error is not None:
                    raise
                return
            total += len(data)
            if limit is not None and total > limit:
                raise LimitExceeded(413, f"body too large: {total} bytes, limit {limit}")
            await self._give(data)

    async def _read_chunked(self, limit: int | None) -> None:
        stream = self._stream()
        size = self._connection.params.chunk_size
        content = ChunkedDecoder(Limits(), 1 << 62 if limit is None else limit)
        wire = b""
        decoded: list[bytes] = []
        room = size
        while not content.done:
            data, position = content.take(wire, 0, room)
            if data:
                decoded.append(data)
                room -= len(data)
            if position:
                wire = wire[position:]
                await asyncio.sleep(0)  # many tiny chunks must not block the loop
            if decoded and (not room or content.done or not (position or stream.buffered())):
                await self._give(b"".join(decoded))
                decoded.clear()
                room = size
            if not position and not content.done:
                wire += await stream.read_bytes(_READ_SIZE, partial=True)
        if decoded:
            await self._give(b"".join(decoded))
        stream.unread(wire)

    async def _give(self, data: bytes) -> None:
        waiting = self._delegate.data_received(data)
        if inspect.isawaitable(waiting):
            await waiting

    def _stream(self) -> IOStream:
        stream = self._connection.stream
        if stream is None:
            raise closed_error()
        return stream


HTTP1Connection.register(TornadoExchange)


def _encode_fields(fields: Iterable[tuple[str, str]]) -> tuple[bytes, int]:
    """Return checked field lines, and the declared Content-Length."""
    length = NO_LENGTH
    lines = []
    for field in fields:
        try:
            name, value = field[0].encode("latin-1"), field[1].encode("latin-1")
            lines.append(field_line(name, value))
        except UnicodeEncodeError as exc:
            raise IllegalFieldError(f"field {field[0]!r:.80} is not latin-1") from exc
        except LocalProtocolError as exc:
            raise IllegalFieldError(str(exc)) from exc
        if name.lower() == b"content-length":
            if DIGITS.fullmatch(value) is None:
                raise IllegalFieldError(f"Content-Length {value[:80]!r} is not a number")
            length = int(value)
    return b"".join(lines), length


def _content_length(headers: HTTPHeaders, codings: str | None) -> int | None:
    """Return the declared length in bytes, None if there is none (RFC 9112 section 6.3).

    Raises:
        HTTPInputError: The length is malformed, or contradicts another one or the transfer coding.
    """
    text = headers.get("Content-Length")
    if codings is not None:
        if text is not None:
            raise HTTPInputError("Message with both Transfer-Encoding and Content-Length")
        if codings.lower() != "chunked":
            raise HTTPInputError(f"Unsupported Transfer-Encoding {codings[:80]!r}")
    if text is None:
        return None
    values = {value.strip(" \t") for value in text.split(",")}
    if len(values) > 1:
        raise HTTPInputError(f"Multiple unequal Content-Lengths: {text[:80]!r}")
    (value,) = values
    if not (value.isascii() and value.isdecimal()) or len(value) > 18:
        raise HTTPInputError(f"Only integer Content-Length is allowed: {text[:80]!r}")
    return int(value)


def _persists(start_line: ResponseStartLine, headers: HTTPHeaders) -> bool:
    """Tell whether the server keeps the connection open (RFC 9112 section 9.3)."""
    options = {option.strip().lower() for option in headers.get("Connection", "").split(",")}
    return "close" not in options and (start_line.version != "HTTP/1.0" or "keep-alive" in options)
