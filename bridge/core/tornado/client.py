"""The client's side of an HTTP/1.x connection: requests are written, responses read from an IOStream (RFC 9112)."""

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

# A response head ends with an empty line; like every careful client this one also takes LF for CRLF there.
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_INTERIM_MAX = 10
_READ_SIZE = 16384
_TARGET = re.compile(rb"[\x21-\x7e]+")


class HTTP1Connection(HTTPConnection, ABC):
    """An HTTP/1.x connection of a client: writes requests to a stream and reads the responses, one after the other.

    What a server's delegates write their responses to, one exchange on a connection, is an instance of it, too, as
    ``isinstance`` sees it; those are made by the server.

    Args:
        stream: An IOStream, connected or connecting.
        is_client: True. HTTP1ServerConnection makes a server's side.
        params: Limits and times; None for the defaults.
        context: Whatever the application wants to find in ``context``; named in log records.

    Raises:
        ValueError: *is_client* is false.

    Attributes:
        is_client: True; False on a server's exchange.
        params: The argument.
        context: The argument; in a server, the two ends (ConnectionContext).
        no_keep_alive: The connection is closed after one message.
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
        self._to_send = NO_LENGTH  # bytes of it that Content-Length still announces
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

        POST, PUT and PATCH without Content-Length go out in chunks.

        Args:
            start_line: A RequestStartLine, or another sequence of method, target and version; the version is ignored.
            headers: HTTPHeaders, or another mapping.
            chunk: Content.
            callback: Called when everything is flushed.

        Raises:
            ValueError: Method, target or a field is illegal; nothing was sent.
            HTTPOutputError: There is more content than Content-Length says.
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
        """Write content; before :meth:`write_headers`, exactly these bytes."""
        return self._write(self._framed(chunk), callback)

    def finish(self) -> None:
        """End the request.

        Raises:
            HTTPOutputError: There was less content than Content-Length says.
        """
        stream = self._stream
        if self._to_send > 0 and stream is not None and not stream.closed():
            stream.close()
            raise HTTPOutputError(f"Tried to write {self._to_send} bytes less than Content-Length")
        if self._chunked:
            self._chunked = False
            self._write(LAST_CHUNK, None)

    def _framed(self, data: bytes) -> bytes:
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
            future.exception()
        else:
            future = stream.write(data)
        if callback is not None:
            future.add_done_callback(lambda done: callback() if done.exception() is None else None)
        return future

    # ------------------------------------------------------------------ the connection

    def set_body_timeout(self, timeout: float | None) -> None:
        """Let the content of the response be due in *timeout* seconds."""
        self._body_timeout = timeout

    def set_max_body_size(self, max_body_size: int | None) -> None:
        """Take at most *max_body_size* bytes of content in the response."""
        self._max_body_size = max_body_size

    def set_close_callback(self, callback: Callable[[], object] | None) -> None:
        """Call *callback* once when the stream is closed; None for nothing."""
        if self._stream is not None:
            self._stream.set_close_callback(callback)

    def detach(self) -> IOStream:
        """Give up the stream for good, and return it.

        Raises:
            StreamClosedError: It was given up before.
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
        """Read one response, and give it to *delegate*.

        Args:
            delegate: An HTTPMessageDelegate. Interim responses (1xx) are headers_received calls of their own.

        Returns:
            A future: True if the stream is open afterwards. False after any error, which was logged and told to the
            delegate by ``on_connection_close``, and after :meth:`detach`.
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
        phase: What is being read, for log records.
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
        """Read the response, interim ones first."""
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
        """Tell the delegate that the response is not complete."""
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
                await asyncio.sleep(0)  # many tiny chunks must not keep the loop
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
    """Return the declared length (RFC 9112 section 6.3)."""
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
