"""A proxy in front of a server: HTTP/1.1 to the test's client, HTTP/2 to the server.

So a test that is written in bytes of HTTP/1.1 shows what an application sees and does over HTTP/2, too. The proxy makes
a connection to the server for each of its client's, sends its requests as streams, and turns resets into resets. A
WebSocket's upgrade becomes an extended CONNECT (RFC 8441). The client's side of HTTP/2 is the package h2 with its
checks.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h11

__all__ = ["gateway"]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_DROPPED = {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade", b"host", b"te"}


@asynccontextmanager
async def gateway(port: int, host: str = "127.0.0.1") -> AsyncIterator[int]:
    """Run the proxy in front of *port*; the value is its own port."""
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await _Connection(reader, writer, host, port).run()
        except (ConnectionError, asyncio.CancelledError, EOFError, h11.RemoteProtocolError):
            pass
        finally:
            tasks.discard(task)
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1 << 20)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in [*tasks]:
            task.cancel()
        if tasks:
            await asyncio.wait([*tasks], timeout=5)


class _Connection:
    """One client, and its connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int) -> None:
        self._reader = reader
        self._writer = writer
        self._address = host, port
        self._h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding=None, normalize_outbound_headers=False)
        )
        self._events: asyncio.Queue[h2.events.Event | None] = asyncio.Queue()
        self._windows = asyncio.Event()
        self._rest = b""
        self._ended = False  # the server takes no more streams

    async def run(self) -> None:
        up_reader, self._up = await asyncio.open_connection(*self._address)
        self._h2.initiate_connection()
        self._flush()
        pump = asyncio.ensure_future(self._pump(up_reader))
        try:
            while not self._ended and await self._serve_request():
                pass
        finally:
            pump.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError):
                await pump
            self._up.close()
            with contextlib.suppress(ConnectionError):
                await self._up.wait_closed()

    def _flush(self) -> None:
        data = self._h2.data_to_send()
        if data and not self._up.is_closing():
            self._up.write(data)

    async def _pump(self, reader: asyncio.StreamReader) -> None:
        """Read what the server sends."""
        try:
            while data := await reader.read(65536):
                for event in self._h2.receive_data(data):
                    self._windows.set()
                    if isinstance(event, h2.events.ConnectionTerminated):
                        self._ended = True
                    self._events.put_nowait(event)
                self._flush()
        except (ConnectionError, h2.exceptions.ProtocolError):
            pass
        self._events.put_nowait(None)

    async def _serve_request(self) -> bool:
        """Pass on one request and its response; tell whether the client may send another one."""
        client = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        if self._rest:  # h11 takes no bytes for the end
            client.receive_data(self._rest)
            self._rest = b""
        while (event := client.next_event()) is h11.NEED_DATA:
            data = await self._reader.read(65536)
            if not data:
                return False
            client.receive_data(data)
        assert isinstance(event, h11.Request), event
        fields = [(bytes(name).lower(), bytes(value)) for name, value in event.headers]
        asked = dict(fields)
        stream = self._h2.get_next_available_stream_id()
        websocket = asked.get(b"upgrade", b"").lower() == b"websocket" and event.method == b"GET"
        pseudo = [(b":method", b"CONNECT"), (b":protocol", b"websocket")] if websocket else [(b":method", event.method)]
        pseudo += [(b":scheme", b"http"), (b":path", event.target), (b":authority", asked.get(b"host", b"a"))]
        if b"trailers" in asked.get(b"te", b"").lower():
            pseudo.append((b"te", b"trailers"))
        empty = not websocket and b"transfer-encoding" not in asked and asked.get(b"content-length", b"0") == b"0"
        dropped = _DROPPED | {b"sec-websocket-key"} if websocket else _DROPPED
        self._h2.send_headers(stream, pseudo + [item for item in fields if item[0] not in dropped], end_stream=empty)
        self._flush()
        if websocket:
            sending = asyncio.ensure_future(self._tunnel(stream, client.trailing_data[0]))
        else:
            sending = asyncio.ensure_future(self._send_content(client, stream, empty))
        try:
            key = asked.get(b"sec-websocket-key") if websocket else None
            await self._answer(stream, event.method, event.http_version == b"1.1", key)
        except ConnectionError:
            self._leave(stream)
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError, ConnectionError, h11.RemoteProtocolError):
                await sending
        ends = event.http_version == b"1.0" or asked.get(b"connection", b"").lower() == b"close"
        return not websocket and not ends and sending.done()

    async def _send_content(self, client: h11.Connection, stream: int, empty: bool) -> None:
        """Send the request's content; then watch whether the client leaves."""
        while True:
            event = client.next_event()
            if event is h11.NEED_DATA:
                data = await self._read()
                if not data:
                    self._leave(stream)
                    return
                client.receive_data(data)
            elif isinstance(event, h11.Data):
                await self._send(stream, bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                trailers = [(bytes(name), bytes(value)) for name, value in event.headers]
                if not empty:
                    with contextlib.suppress(h2.exceptions.ProtocolError):  # the server has reset the stream
                        if trailers:
                            self._h2.send_headers(stream, trailers, end_stream=True)
                        else:
                            self._h2.end_stream(stream)
                        self._flush()
                break
            else:
                break
        self._rest = client.trailing_data[0]
        while not self._rest:
            data = await self._read()
            if not data:
                self._leave(stream)
                return
            self._rest += data

    async def _tunnel(self, stream: int, data: bytes) -> None:
        while True:
            if data:
                await self._send(stream, data)
            data = await self._read()
            if not data:
                self._leave(stream)
                return

    async def _read(self) -> bytes:
        """Return what the client sends; nothing if it has left."""
        try:
            return await self._reader.read(65536)
        except ConnectionError:
            return b""

    async def _send(self, stream: int, data: bytes) -> None:
        try:
            while data:
                size = min(len(data), self._h2.local_flow_control_window(stream), self._h2.max_outbound_frame_size)
                if size <= 0:
                    self._windows.clear()
                    await self._windows.wait()
                    continue
                self._h2.send_data(stream, data[:size])
                data = data[size:]
                self._flush()
        except (h2.exceptions.StreamClosedError, h2.exceptions.ProtocolError):
            pass  # the server has reset the stream: the response says why

    def _leave(self, stream: int) -> None:
        """Reset the stream: the client has left."""
        with contextlib.suppress(h2.exceptions.ProtocolError):
            self._h2.reset_stream(stream, 8)
            self._flush()
        self._ended = True
        self._events.put_nowait(None)

    async def _answer(self, stream: int, method: bytes, persistent: bool, key: bytes | None) -> None:
        """Pass on the response."""
        chunked = False
        writer = self._writer
        while (event := await self._events.get()) is not None:
            if getattr(event, "stream_id", stream) != stream:
                continue
            if isinstance(event, h2.events.InformationalResponseReceived | h2.events.ResponseReceived):
                status = int(dict(event.headers)[b":status"])
                fields = [(name, value) for name, value in event.headers if name != b":status"]
                names = {name for name, _ in fields}
                final = isinstance(event, h2.events.ResponseReceived)
                if final and key is not None and status == 200:
                    status = 101
                    token = base64.b64encode(hashlib.sha1(key + _GUID).digest())
                    fields = [(b"upgrade", b"websocket"), (b"connection", b"Upgrade"), *fields]
                    fields.append((b"sec-websocket-accept", token))
                elif (
                    final
                    and persistent
                    and method != b"HEAD"
                    and status not in {204, 304}
                    and b"content-length" not in names
                ):
                    chunked = True
                    fields.append((b"transfer-encoding", b"chunked"))
                try:
                    phrase = HTTPStatus(status).phrase.encode()
                except ValueError:
                    phrase = b""
                lines = b"".join(b"%b: %b\r\n" % pair for pair in fields)
                writer.write(b"HTTP/1.1 %d %b\r\n%b\r\n" % (status, phrase, lines))
            elif isinstance(event, h2.events.DataReceived):
                if event.data:
                    writer.write(b"%x\r\n%b\r\n" % (len(event.data), event.data) if chunked else event.data)
                    await writer.drain()
                if event.flow_controlled_length:
                    self._h2.acknowledge_received_data(event.flow_controlled_length, stream)
                    self._flush()
            elif isinstance(event, h2.events.TrailersReceived):
                lines = b"".join(b"%b: %b\r\n" % pair for pair in event.headers)
                writer.write(b"0\r\n%b\r\n" % lines)
                chunked = False
            elif isinstance(event, h2.events.StreamEnded):
                if chunked:
                    writer.write(b"0\r\n\r\n")
                if key is not None:
                    writer.close()
                await writer.drain()
                return
            elif isinstance(event, h2.events.StreamReset):
                writer.transport.abort()
                self._ended = True
                return
        writer.transport.abort()
