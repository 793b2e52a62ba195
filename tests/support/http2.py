"""The peer of an HTTP/2 connection: on a fake transport with the test's clock, byte by byte or with the package h2."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from hpack import Decoder, Encoder

from bridge.core.connection.clock import Clock
from bridge.core.connection.context import ConnectionContext
from bridge.core.connection.http2 import HTTP2Connection
from bridge.core.connection.parameters import ConnectionParameters, HTTP2Parameters
from tests.support.faketransport import FakeTransport
from tests.support.faults import Raises, application_errors
from tests.support.link import Link
from tests.support.manualloop import ManualLoop

__all__ = [
    "PREFACE",
    "SETTINGS",
    "Frame",
    "H2Client",
    "HTTP2Link",
    "Stream",
    "frame",
    "frames_of",
    "head",
    "linked2",
]

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
GET = [(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "a")]
POST = [(":method", "POST"), *GET[1:]]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return a frame."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def head(*fields: tuple[str, str], path: str = "/", method: str = "GET") -> bytes:
    """Return the field block of a request, in which nothing is indexed."""
    pseudo = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "a")]
    return Encoder().encode([*pseudo, *fields], huffman=False)


@dataclass
class Frame:
    """A frame that was received."""

    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def code(self) -> int:
        """The error code of RST_STREAM and GOAWAY."""
        return int.from_bytes(self.payload[:4] if self.kind == RST_STREAM else self.payload[4:8], "big")


def frames_of(data: bytes) -> list[Frame]:
    """Return the frames of *data*, all of which must be complete."""
    found = []
    at = 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 3], "big")
        kind, flags = data[at + 3], data[at + 4]
        stream = int.from_bytes(data[at + 5 : at + 9], "big")
        payload = data[at + 9 : at + 9 + size]
        assert len(payload) == size, "a frame is cut off"
        found.append(Frame(kind, flags, stream, payload))
        at += 9 + size
    return found


@dataclass
class Stream:
    """What the server has sent on one stream."""

    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    interim: list[list[tuple[bytes, bytes]]] = field(default_factory=list)
    trailers: list[tuple[bytes, bytes]] = field(default_factory=list)
    content: bytes = b""
    ended: bool = False
    reset: int | None = None

    @property
    def status(self) -> int:
        return int(dict(self.fields)[b":status"])


class HTTP2Link(Link):
    """One connection of HTTP/2 between a peer, played by the test, and the engine.

    Args:
        delegate: The server's.
        params: Limits and times.
        tls: The connection has TLS.
        beside: Another connection of the same server.
    """

    def __init__(
        self,
        delegate: Any,
        params: ConnectionParameters | None = None,
        *,
        tls: bool = False,
        beside: HTTP2Link | None = None,
    ) -> None:
        self.loop = beside.loop if beside else ManualLoop()
        self.delegate = delegate
        params = params or ConnectionParameters()
        if params.http2 is None:
            params.http2 = HTTP2Parameters()
        self.clock = (
            beside.clock
            if beside
            else Clock(
                self.loop, shortest=params.shortest(), server_name=b"bridge", keep_alive=params.keep_alive_timeout
            )
        )
        context = ConnectionContext(("192.0.2.1", 4000), socket.AF_INET, "https" if tls else "http", ("192.0.2.2", 80))
        self.ended: list[Any] = []
        self.taken = False
        self.gone = 0
        self.connection: Any = HTTP2Connection(delegate, params, context, self.clock, self.loop, self.note_end)
        self.transport = FakeTransport(self.loop, self.connection, tls=tls)
        self.loop.settle()
        self._decoder = Decoder()
        self._encoder = Encoder()
        self._read = 0
        self._streams: dict[int, Stream] = {}
        self._frames: list[Frame] = []
        self._last = -1

    # ------------------------------------------------------------------ the peer

    def begin(self, *settings: tuple[int, int]) -> None:
        """Send the preface and the settings."""
        self.send(PREFACE + frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", *pair) for pair in settings)))

    def request(
        self, *fields: tuple[str, str], path: str = "/", method: str = "GET", ended: bool = True, **pseudo: str
    ) -> int:
        """Send a request head; return its stream."""
        self._last += 2
        self.send(self.headers(self._last, *fields, path=path, method=method, ended=ended))
        return self._last

    def headers(
        self, stream: int, *fields: tuple[str, str], path: str = "/", method: str = "GET", ended: bool = True
    ) -> bytes:
        """Return a HEADERS frame."""
        pseudo = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "a")]
        return frame(HEADERS, 4 | ended, stream, self._encoder.encode([*pseudo, *fields]))

    def trailers(self, stream: int, *fields: tuple[str, str]) -> None:
        """Send a trailer section."""
        self.send(frame(HEADERS, 5, stream, self._encoder.encode(fields)))

    def data(self, stream: int, data: bytes, ended: bool = False) -> None:
        """Send content."""
        self.send(frame(DATA, int(ended), stream, data))

    def cancel(self, stream: int, code: int = 8) -> None:
        """Reset a stream."""
        self.send(frame(RST_STREAM, 0, stream, struct.pack(">I", code)))

    def open_window(self, stream: int, increment: int) -> None:
        """Send WINDOW_UPDATE."""
        self.send(frame(WINDOW_UPDATE, 0, stream, struct.pack(">I", increment)))

    # ------------------------------------------------------------------ what came of it

    @property
    def frames(self) -> list[Frame]:
        """The frames that the server has sent; what they say is in ``streams``."""
        new = frames_of(self.received[self._read :])
        self._read = len(self.received)
        for item in new:
            self._take(item)
        self._frames += new
        return self._frames

    def _take(self, item: Frame) -> None:
        if not item.stream:
            return
        stream = self._streams.setdefault(item.stream, Stream())
        if item.kind == HEADERS:
            assert item.flags & 4, "this peer takes no CONTINUATION"
            fields = [(bytes(n), bytes(v)) for n, v in self._decoder.decode(item.payload, raw=True)]
            if fields and fields[0][0] == b":status":
                if fields[0][1] < b"200":
                    stream.interim.append(fields)
                else:
                    assert not stream.fields
                    stream.fields = fields
            else:
                stream.trailers = fields
        elif item.kind == DATA:
            assert not stream.ended
            stream.content += item.payload
        elif item.kind == RST_STREAM:
            stream.reset = item.code
        if item.kind in {HEADERS, DATA} and item.flags & 1:
            assert not stream.ended
            stream.ended = True

    def stream(self, number: int) -> Stream:
        """Return what the server has sent on a stream."""
        assert self.frames is not None
        return self._streams.setdefault(number, Stream())

    def kinds(self) -> list[int]:
        """Return the kinds of the frames that the server has sent."""
        return [item.kind for item in self.frames]

    @property
    def goaway(self) -> Frame | None:
        """The last GOAWAY frame."""
        found = [item for item in self.frames if item.kind == GOAWAY]
        return found[-1] if found else None


@contextmanager
def linked2(delegate: Any, *, tls: bool = False, raises: Raises = (), **params: Any) -> Iterator[HTTP2Link]:
    """Make a link with these ConnectionParameters whose preface was sent, and check it at the end.

    What the delegate has raised is raised in the test, unless the test says that it *raises*.
    """
    with application_errors(raises):
        link = HTTP2Link(delegate, ConnectionParameters(**params), tls=tls)
        try:
            link.begin()
            yield link
        except BaseException:
            link.loop.close()
            raise
        link.end()


class H2Client:
    """A client of the package h2 on a real socket, for a server in this process.

    Args:
        address: Host and port.
        tls: The client's context; its ALPN protocols are set.
    """

    def __init__(self, address: tuple[str, int], tls: Any = None) -> None:
        self._address = address
        self._tls = tls
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
        self.events: dict[int, list[h2.events.Event]] = {}
        self._changed = asyncio.Event()
        self.ended = False

    async def __aenter__(self) -> H2Client:
        options: dict[str, Any] = {}
        if self._tls is not None:
            self._tls.set_alpn_protocols(["h2"])
            options = {"ssl": self._tls, "server_hostname": "localhost"}
        self._reader, self.writer = await asyncio.open_connection(*self._address, **options)
        self.h2.initiate_connection()
        self.flush()
        self._pump = asyncio.ensure_future(self._read())
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._pump.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._pump
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    async def _read(self) -> None:
        with contextlib.suppress(ConnectionError, h2.exceptions.ProtocolError):
            while data := await self._reader.read(65536):
                for event in self.h2.receive_data(data):
                    self.events.setdefault(getattr(event, "stream_id", 0) or 0, []).append(event)
                    if isinstance(event, h2.events.DataReceived) and event.flow_controlled_length:
                        self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                self.flush()
                self._changed.set()
        self.ended = True
        self._changed.set()

    def request(self, path: str = "/", *fields: tuple[str, str], method: str = "GET", ended: bool = True) -> int:
        stream = self.h2.get_next_available_stream_id()
        pseudo = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "a")]
        self.h2.send_headers(stream, [*pseudo, *fields], end_stream=ended)
        self.flush()
        return stream

    def reset(self, stream: int) -> None:
        self.h2.reset_stream(stream, 8)
        self.flush()

    async def response(self, stream: int) -> tuple[int, dict[bytes, bytes], bytes]:
        """Return status, fields and content of the response on a stream."""
        async with asyncio.timeout(10):
            while not self._over(stream):
                assert not self.ended, "the connection has ended"
                self._changed.clear()
                await self._changed.wait()
        events = self.events[stream]
        assert not any(isinstance(event, h2.events.StreamReset) and event.error_code for event in events), events
        (found,) = [event for event in events if isinstance(event, h2.events.ResponseReceived)]
        fields = {bytes(name): bytes(value) for name, value in found.headers}
        content = b"".join(event.data for event in events if isinstance(event, h2.events.DataReceived))
        return int(fields[b":status"]), fields, content

    def _over(self, stream: int) -> bool:
        over = h2.events.StreamEnded | h2.events.StreamReset
        return any(isinstance(event, over) for event in self.events.get(stream, ()))
