"""IOStream: a stream of bytes over a socket or a transport, under Tornado's documented names.

A stream is an asyncio protocol. The transport pushes what arrives into the stream's buffer, and readers pull from
there. The stream reads ahead a little and then pauses the transport.

A stream has one of three origins, all with the same class, since programs see all of them as ``IOStream``:

* A program makes it around a socket. The stream makes its transport in a task of its own, at the first use.
* ``TCPServer`` makes it for an accepted socket and sets ``_given``: the server makes the transport.
* A connection that speaks HTTP makes it (:meth:`IOStream.of_connection`) or borrows its transport
  (:meth:`IOStream.lend`). Then ``_lender`` is the connection. It reads; the stream can only write and close. At
  ``detach`` the connection gives the transport back (:meth:`IOStream.take_back`).
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import ssl
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, cast

from bridge.core.connection.closing import close
from bridge.core.ioloop import IOLoop
from bridge.core.log import app_log, gen_log
from bridge.core.net.tls import SSLOptions, ssl_options_to_context
from bridge.core.stream.errors import StreamBufferFullError, UnsatisfiableReadError, closed_error, stream_future
from bridge.core.stream.reads import BytesRead, CloseRead, IntoRead, Read, RegexRead, UntilRead

if TYPE_CHECKING:
    from bridge.core.connection.http1 import ServerConnection
    from bridge.core.stream.tls import SSLIOStream

__all__ = ["IOStream", "client_options"]

_MAX_BUFFER_SIZE = 104857600
_CHUNK_SIZE = 65536
# Seconds in which the peer must read what was written before a close.
_CLOSE_TIME = 30.0


class IOStream(asyncio.Protocol):
    """A non-blocking stream of bytes with one reader at a time.

    All reads return futures. A second read while one waits is an AssertionError. On a closed stream a read raises
    StreamClosedError, unless the bytes received before satisfy it.

    Args:
        socket: A connected socket, or one for :meth:`connect`. Nothing else may use it.
        max_buffer_size: The most bytes kept for a reader; more closes the stream. 104857600 if None.
        read_chunk_size: Bytes that are read ahead while no read waits; 65536 if None.
        max_write_buffer_size: The most bytes that may wait to be sent; None for no limit.

    Attributes:
        socket: The socket; under TLS it also has ``getpeercert``, ``cipher`` and the like.
        error: What ended the connection; None if it was closed properly, or is open.
        max_buffer_size: The argument.
        read_chunk_size: The argument.
        max_write_buffer_size: The argument.
    """

    def __init__(
        self,
        socket: Any,
        max_buffer_size: int | None = None,
        read_chunk_size: int | None = None,
        max_write_buffer_size: int | None = None,
    ) -> None:
        self.socket = socket
        self.max_buffer_size = max_buffer_size or _MAX_BUFFER_SIZE
        self.read_chunk_size = min(read_chunk_size or _CHUNK_SIZE, self.max_buffer_size // 2)
        self.max_write_buffer_size = max_write_buffer_size
        self.error: BaseException | None = None
        self._loop = IOLoop.current().asyncio_loop
        self._transport: asyncio.Transport | None = None
        self._lender: ServerConnection | None = None
        self._starter: asyncio.Task[None] | None = None
        self._buffer = bytearray()
        self._read: Read | None = None
        self._paused = False
        self._closed = False
        self._given = False  # a server makes the transport
        self._connected = False  # the socket was connected when the task that makes the transport began
        self._ready: asyncio.Future[Any] | None = None  # the result of connect(), or of wait_for_handshake()
        self._write_buffer: list[bytes] = []  # what was written before there was a transport
        self._flushed: deque[asyncio.Future[None]] = deque()
        self._close_callback: Callable[[], object] | None = None
        self._gone: Callable[[], None] | None = None  # called when the transport is gone

    @property
    def io_loop(self) -> Any:
        """The stream's loop: Tornado's IOLoop if Tornado is imported, else bridge's."""
        tornado = sys.modules.get("tornado.ioloop")
        return IOLoop.current() if tornado is None else tornado.IOLoop.current()

    # ------------------------------------------------------------------ reading

    def read_bytes(self, num_bytes: int, partial: bool = False) -> asyncio.Future[bytes]:
        """Read *num_bytes* bytes; with *partial* any number from one up to that."""
        assert isinstance(num_bytes, int), "num_bytes is a number"
        return self._start_read(BytesRead(self._loop.create_future(), num_bytes, partial))

    def read_until(self, delimiter: bytes, max_bytes: int | None = None) -> asyncio.Future[bytes]:
        """Read up to *delimiter* and including it; if it does not come within *max_bytes* bytes, close the stream."""
        return self._start_read(UntilRead(self._loop.create_future(), delimiter, max_bytes))

    def read_until_regex(self, regex: bytes | re.Pattern[bytes], max_bytes: int | None = None) -> asyncio.Future[bytes]:
        """Read up to the first match of *regex* and including it; *max_bytes* as for :meth:`read_until`."""
        return self._start_read(RegexRead(self._loop.create_future(), regex, max_bytes))

    def read_into(self, buf: bytearray | memoryview, partial: bool = False) -> asyncio.Future[int]:
        """Fill *buf*; with *partial* at least one byte is enough. The result is the number of bytes."""
        return self._start_read(IntoRead(self._loop.create_future(), buf, partial))

    def read_until_close(self) -> asyncio.Future[bytes]:
        """Read everything until the connection ends."""
        return self._start_read(CloseRead(self._loop.create_future()))

    def reading(self) -> bool:
        """Tell whether a read waits."""
        return self._read is not None

    def buffered(self) -> int:
        """Return how many bytes were received and not yet read."""
        return len(self._buffer)

    def unread(self, data: bytes) -> None:
        """Put *data*, which was read, back to the front: the next read begins with it."""
        if data:
            self._buffer[:0] = data

    def _start_read(self, read: Read) -> asyncio.Future[Any]:
        assert self._read is None, "Already reading"
        assert self._lender is None, "the connection is read by HTTP: detach() first"
        self._read = read
        future: asyncio.Future[Any] = read.future
        if self._closed:
            self._read_last()
            if future.done() and not future.cancelled() and (error := future.exception()) is not None:
                raise error
            return future
        self._start()
        self._serve_read()
        if self._read is not None:
            self._resume()
        return future

    def _serve_read(self) -> None:
        """Satisfy the read that waits, if the buffer has enough."""
        read = self._read
        if read is None:
            return
        if read.future.done():  # cancelled
            self._read = None
            read.release()
            return
        try:
            size = read.size(self._buffer)
        except UnsatisfiableReadError as exc:
            gen_log.info("Unsatisfiable read, closing connection: %s", exc)
            self.close(exc)
            return
        if size >= 0:
            self._satisfy(read, size)
        elif len(self._buffer) > self.max_buffer_size:
            error = StreamBufferFullError(f"Reached maximum read buffer size of {self.max_buffer_size} bytes")
            gen_log.error("%s", error)
            gen_log.warning("error on read: %s", error)  # Tornado's record, which programs look for
            self.close(error)

    def _satisfy(self, read: Read, size: int) -> None:
        self._read = None
        data = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        read.release()
        read.future.set_result(read.result(data))

    def _read_last(self) -> None:
        """End the read that waits on a closed stream."""
        read = self._read
        if read is None:
            return
        self._read = None
        size = -1
        if not read.future.done():
            with contextlib.suppress(UnsatisfiableReadError):
                size = read.closing(self._buffer)
        if isinstance(read, CloseRead) and self.error is not None and not isinstance(self.error, ConnectionResetError):
            size = -1  # a message that was cut off must not look complete
        if size >= 0:
            self._satisfy(read, size)
            return
        read.release()
        if not read.future.done():
            read.future.set_exception(closed_error(self.error))
            read.future.exception()  # retrieves the error, so that asyncio does not log it if the reader has given up

    # ------------------------------------------------------------------ writing

    def write(self, data: bytes | bytearray | memoryview) -> asyncio.Future[None]:
        """Send *data*; the future is done when all bytes have left this process.

        Raises:
            StreamClosedError: At once, if the stream is closed.
            StreamBufferFullError: More than ``max_write_buffer_size`` bytes would wait.
        """
        if self.closed():
            raise closed_error(self.error)
        if data and self.max_write_buffer_size is not None:
            waiting = len(data) + self._waiting_bytes()
            if waiting > self.max_write_buffer_size:
                raise StreamBufferFullError(
                    f"Reached maximum write buffer size: {waiting} bytes, limit {self.max_write_buffer_size}"
                )
        if data.__class__ is not bytes:
            data = bytes(data)  # the caller may change the original, of which asyncio's transports keep a view
        future = self._loop.create_future()
        lender = self._lender
        if lender is not None:
            lender.writer.write(data)
            if lender.writer.paused:
                future = stream_future(lender.writer.writable())
            else:
                future.set_result(None)
            return future
        if self._transport is None:
            if data:
                self._write_buffer.append(data)
            self._start()
        elif data:
            self._transport.write(data)
        if self.writing():
            self._flushed.append(future)
            future.add_done_callback(_forget_error)
        else:
            future.set_result(None)
        return future

    def writing(self) -> bool:
        """Tell whether bytes are waiting to be sent."""
        return self._waiting_bytes() > 0

    def _waiting_bytes(self) -> int:
        if self._transport is None:
            return sum(map(len, self._write_buffer))
        return self._transport.get_write_buffer_size()

    # ------------------------------------------------------------------ closing

    def close(self, exc_info: bool | BaseException | tuple[Any, Any, Any] = False) -> None:
        """Close the stream. What was written is still sent, if the peer reads it.

        Args:
            exc_info: An error to keep in ``error``; True for the one that is handled now.
        """
        if self._closed:
            return
        if isinstance(exc_info, BaseException):
            self.error = exc_info
        elif isinstance(exc_info, tuple):
            self.error = exc_info[1]
        elif exc_info:
            self.error = sys.exc_info()[1]
        lender = self._lender
        if lender is not None:
            lender.cut(reset=False)
            return
        if self._transport is not None:
            self._close_transport(self._transport)
        elif self._given:
            pass  # connection_made closes the transport
        elif self._starter is None:
            self.socket.close()
        elif not (self._connected and self._write_buffer):  # else connection_made sends it and closes the transport
            self._starter.cancel()
            self._starter.add_done_callback(self._close_socket)
        self._end()

    def _close_socket(self, _: object) -> None:
        if self._transport is None:
            self.socket.close()

    def _close_transport(self, transport: asyncio.Transport) -> None:
        if transport.get_write_buffer_size():
            self._loop.call_later(_CLOSE_TIME, transport.abort)
        close(transport, self._loop)

    def closed(self) -> bool:
        """Tell whether the stream was closed, by either end."""
        if self._lender is not None:
            transport = self._lender.transport
            return transport is None or transport.is_closing()
        return self._closed

    def set_close_callback(self, callback: Callable[[], object] | None) -> None:
        """Call *callback* once when the stream is closed, by either end, in a later turn of the loop."""
        self._close_callback = callback
        if callback is not None:
            if self._closed:
                self._end()
            elif self._lender is None and self._is_connected():
                self._start()

    def _end(self) -> None:
        """Mark the stream as closed, and end every wait for it."""
        self._closed = True
        self._read_last()
        error = self.error
        waiting = [*self._flushed, *([] if self._ready is None else [self._ready])]
        self._flushed.clear()
        self._ready = None
        for future in waiting:
            if not future.done():
                future.set_exception(closed_error(error))
                future.exception()
        callback = self._close_callback
        if callback is not None:
            self._close_callback = None
            self._loop.call_soon(_run_callback, callback)

    # ------------------------------------------------------------------ the socket

    def fileno(self) -> int:
        """Return the socket's descriptor; -1 when it is closed."""
        return int(self.socket.fileno())

    def set_nodelay(self, value: bool) -> None:
        """Let the system send small writes at once (True), or wait for more (False)."""
        if not self.closed() and self.socket.family in {socket.AF_INET, socket.AF_INET6}:
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, int(value))

    def connect(self, address: Any, server_hostname: str | None = None) -> asyncio.Future[Any]:
        """Connect the socket; the result of the future is the stream, when it can be used.

        Args:
            address: As for ``socket.connect``.
            server_hostname: The name that a TLS server's certificate must have.
        """
        assert self._starter is None and self._transport is None, "the stream is connected already"
        future = self._ready = self._loop.create_future()
        self._starter = self._loop.create_task(self._open(address, server_hostname))
        return future

    def start_tls(
        self, server_side: bool, ssl_options: SSLOptions | None = None, server_hostname: str | None = None
    ) -> asyncio.Future[SSLIOStream]:
        """Begin TLS on the connection; the result of the future is a new stream, and this one can no longer be used.

        Args:
            server_side: Whether this end is the server.
            ssl_options: A context, or a dictionary; see TCPServer.
            server_hostname: The name that the server's certificate must have.

        Raises:
            ValueError: Bytes are waiting to be read or sent.
        """
        if self._read is not None or self._flushed or self._close_callback is not None or self._buffer:
            raise ValueError("IOStream is not idle; cannot convert to SSL")
        from bridge.core.stream.tls import SSLIOStream

        context = ssl_options_to_context(client_options(ssl_options, server_side), server_side=server_side)
        stream = SSLIOStream(
            self.socket, context, max_buffer_size=self.max_buffer_size, read_chunk_size=self.read_chunk_size
        )
        self._pause()  # what comes now is for the new stream, which begins in the next turn
        future = stream._ready = self._loop.create_future()
        stream._starter = self._loop.create_task(stream._upgrade(self, server_side, server_hostname))
        return future

    def _is_connected(self) -> bool:
        try:
            self.socket.getpeername()
        except OSError:
            return False
        return True

    def _start(self) -> None:
        """Make the transport of a socket that is connected, in a task."""
        if self._transport is None and self._starter is None and not self._given:
            self._connected = True
            self._starter = self._loop.create_task(self._open(None, None))

    async def _open(self, address: Any, server_hostname: str | None) -> None:
        try:
            if address is not None:
                self.socket.setblocking(False)
                await self._loop.sock_connect(self.socket, address)
            await self._make_transport(server_hostname)
        except (OSError, ssl.CertificateError) as exc:
            self._failed(exc)

    async def _make_transport(self, server_hostname: str | None) -> None:
        await self._loop.create_connection(lambda: self, sock=self.socket)

    def _failed(self, exc: BaseException) -> None:
        """End the stream: its transport could not be made."""
        self.error = exc
        self.socket.close()
        if not self._closed:
            self._end()
        self._tell_gone()

    # ------------------------------------------------------------------ called by the transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport, and send what was written before."""
        ready = self._ready
        if ready is not None:
            self._ready = None
            if not ready.done():
                ready.set_result(self)
        self._attach(cast("asyncio.Transport", transport))

    def _attach(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        transport.set_write_buffer_limits(high=0)  # so that resume_writing means that everything was sent
        unsent, self._write_buffer = self._write_buffer, []
        if unsent:
            transport.write(b"".join(unsent))
        if self._closed:
            self._close_transport(transport)
        elif not self.writing():
            self.resume_writing()

    def data_received(self, data: bytes) -> None:
        """Keep *data* for the reader, and satisfy the read that waits."""
        self._buffer += data
        self._serve_read()
        if self._read is None and len(self._buffer) >= self.read_chunk_size:
            self._pause()

    def eof_received(self) -> None:
        """End the stream: the peer sends nothing more."""
        if not self._closed:
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the stream: the connection is gone."""
        if self.error is None:
            self.error = exc
        if not self._closed:
            self._end()
        self._transport = None
        self._tell_gone()

    def _tell_gone(self) -> None:
        gone, self._gone = self._gone, None
        if gone is not None:
            gone()

    def resume_writing(self) -> None:
        """Everything was sent."""
        while self._flushed:
            future = self._flushed.popleft()
            if not future.done():
                future.set_result(None)

    def _pause(self) -> None:
        if not self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = True
            self._transport.pause_reading()

    def _resume(self) -> None:
        if self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    # ------------------------------------------------------------------ lending to HTTP

    @classmethod
    def of_connection(cls, connection: ServerConnection, max_buffer_size: int, chunk_size: int) -> IOStream:
        """Return a stream for the transport of *connection*, which goes on reading it; the sizes are bytes."""
        from bridge.core.stream.tls import SSLIOStream, TLSSocket

        transport = connection.transport
        tls = transport is not None and transport.get_extra_info("ssl_object") is not None
        stream = (SSLIOStream if tls else IOStream).__new__(SSLIOStream if tls else IOStream)
        sock = None if transport is None else transport.get_extra_info("socket")
        IOStream.__init__(stream, sock, max_buffer_size, chunk_size)
        if tls:
            stream.socket = TLSSocket(sock, transport)
        stream._lender = connection
        stream._transport = transport
        stream._closed = transport is None
        return stream

    def lend(self, connection: ServerConnection) -> tuple[asyncio.Transport, bytes]:
        """Lend the transport to *connection*; return it, and what was received and not read."""
        transport = self._transport
        if transport is None or self._closed:
            raise closed_error(self.error)
        self._resume()
        rest = bytes(self._buffer)
        self._buffer.clear()
        self._lender = connection
        transport.set_protocol(connection)
        return transport, rest

    def take_back(self, transport: asyncio.Transport, rest: bytes, gone: Callable[[], None]) -> None:
        """Take the transport back from the connection, with what the connection has received and not read.

        Args:
            transport: The transport.
            rest: What was received.
            gone: Called when the transport is gone.
        """
        self._lender = None
        self._gone = gone
        self._attach(transport)
        if rest:
            self.data_received(rest)

    def lender_lost(self, exc: Exception | None) -> None:
        """End the stream: the connection that reads it has ended."""
        self._lender = None
        self.connection_lost(exc)

    def ready(self) -> Awaitable[None]:
        """Return an awaitable that is done when there is a transport, and after the handshake with TLS.

        Raises:
            StreamClosedError: There will be none.
        """
        return self._wait_ready()

    async def _wait_ready(self) -> None:
        if self._transport is None and not self._closed:
            self._start()
            if self._ready is None:
                self._ready = self._loop.create_future()
            await asyncio.shield(self._ready)
        if self._closed:
            raise closed_error(self.error)


def client_options(options: SSLOptions | None, server_side: bool) -> SSLOptions:
    """Return *options*; without any, a client's defaults, or none for a server."""
    if options is None:
        return {} if server_side else ssl.create_default_context()
    return options


def _forget_error(future: asyncio.Future[None]) -> None:
    """Retrieve the error of a write, so that asyncio does not log it: the stream reports its close in other ways."""
    if not future.cancelled():
        future.exception()


def _run_callback(callback: Callable[[], object]) -> None:
    try:
        callback()
    except Exception:
        app_log.exception("Exception in callback %r", callback)
