"""Our own load generator: for WebSocket, and for HTTP on a machine without wrk (slower, so less load).

Every connection sends its next request or message when the answer to the last one is whole. Run as
``python -m benchmarks.client``; the result is one line of JSON of the same shape as load.lua's.
"""

import argparse
import asyncio
import base64
import hashlib
import json
import ssl
import sys
import time
from pathlib import Path

from benchmarks import mixed
from benchmarks.answers import UPLOAD_SIZE
from benchmarks.loops import fastest

WEBSOCKET_KEY = base64.b64encode(b"bridge-benchmark")
WEBSOCKET_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455 1.3
WEBSOCKET_REQUEST = (
    b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n" % WEBSOCKET_KEY
)
TEXT, BINARY = b"\x81", b"\x82"  # the first byte of a whole message (RFC 6455 5.2)
MASK = b"\x12\x34\x56\x78"


class Totals:
    """What all connections of a run count together; latencies in seconds."""

    def __init__(self) -> None:
        self.latencies: list[float] = []
        self.errors = {"connect": 0, "read": 0, "write": 0, "timeout": 0, "status": 0}
        self.running = True

    def result(self, seconds: float) -> dict[str, object]:
        ordered = sorted(self.latencies)
        return {
            "requests": len(ordered),
            "seconds": seconds,
            "p50": percentile(ordered, 0.50),
            "p99": percentile(ordered, 0.99),
            "errors": self.errors,
        }


def percentile(ordered: list[float], part: float) -> float:
    """Return the value below which *part* of the ordered values lie; 0.0 when there is none."""
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else 0.0


def accept_value() -> bytes:
    """Return the Sec-WebSocket-Accept value that answers our key (RFC 6455 4.2.2)."""
    return base64.b64encode(hashlib.sha1(WEBSOCKET_KEY + WEBSOCKET_GUID).digest())


def masked(kind: bytes, content: bytes) -> bytes:
    """Return a client's message of less than 64 KiB, masked (RFC 6455 5.3)."""
    size = len(content)
    length = bytes([0x80 | size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return kind + length + MASK + bytes(byte ^ MASK[index % 4] for index, byte in enumerate(content))


class Requests:
    """Make requests: the same bytes each time, another number in place of each {n}, or those of mixed.py.

    Args:
        sends: get, browser, mixed or upload.
        part: Of mixed's numbers, see mixed.PART.
    """

    def __init__(self, sends: str, part: int = 0) -> None:
        self.number = 0
        self.parts: list[bytes] = []
        self.mixed = mixed.requests(part) if sends == "mixed" else None
        if sends == "browser":
            text = Path(__file__).with_name("browser.http").read_bytes().replace(b"\n", b"\r\n")
            self.parts = text.split(b"{n}")
        elif sends == "upload":
            self.fixed = (
                b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/octet-stream\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (UPLOAD_SIZE, b"u" * UPLOAD_SIZE)
            )
        else:
            self.fixed = b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

    def next(self) -> bytes:
        if self.mixed is not None:
            return next(self.mixed)
        if not self.parts:
            return self.fixed
        self.number += 1
        return (b"%08d" % (self.number * 7919 % 100_000_000)).join(self.parts)


class HTTPLoad(asyncio.Protocol):
    """One keep-alive connection. It understands content by length and, less exactly, chunked content."""

    def __init__(self, totals: Totals, requests: Requests) -> None:
        self.totals = totals
        self.requests = requests
        self.buffer = bytearray()
        self.missing: int | None = None  # bytes of content still expected; None while the head is, or for chunked
        self.chunked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.send()

    def send(self) -> None:
        self.sent_at = time.perf_counter()
        self.transport.write(self.requests.next())

    def data_received(self, data: bytes) -> None:
        if self.missing is not None:
            self.missing -= len(data)
        else:
            self.buffer += data
            if not self.chunked and not self.read_head():
                return
            if self.chunked:
                if not self.buffer.endswith(b"0\r\n\r\n"):
                    del self.buffer[:-8]
                    return
                self.missing = 0
        if self.missing is not None and self.missing <= 0:
            self.answered()

    def read_head(self) -> bool:
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return False
        head = bytes(self.buffer[:end]).lower()
        if head[9:10] != b"2":
            self.totals.errors["status"] += 1
        length = head.find(b"\r\ncontent-length:")
        if length < 0:
            self.chunked = True
            del self.buffer[: end + 4]
        else:
            value, _, _ = head[length + 17 :].partition(b"\r\n")
            self.missing = int(value) - (len(self.buffer) - end - 4)
        return True

    def answered(self) -> None:
        if not self.totals.running:
            return
        self.totals.latencies.append(time.perf_counter() - self.sent_at)
        self.buffer.clear()
        self.missing = None
        self.chunked = False
        self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.totals.running:
            self.totals.errors["read"] += 1


class WebSocketLoad(asyncio.Protocol):
    """One WebSocket: masked binary messages of one size, each echoed whole and unmasked (RFC 6455 5.2)."""

    def __init__(self, totals: Totals, size: int) -> None:
        self.totals = totals
        content = bytes(range(256)) * (size // 256) + bytes(range(size % 256))
        self.message = masked(BINARY, content)
        self.echo = BINARY + (bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")) + content
        self.buffer = bytearray()
        self.open = False
        self.missing = len(self.echo)
        self.checked = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        transport.write(WEBSOCKET_REQUEST)

    def send(self) -> None:
        self.sent_at = time.perf_counter()
        self.transport.write(self.message)

    def data_received(self, data: bytes) -> None:
        if self.checked:
            self.missing -= len(data)
            if not self.missing:
                self.echoed()
            return
        self.buffer += data
        if not self.open:
            self.read_handshake()
        elif len(self.buffer) >= len(self.echo):
            if self.buffer != self.echo:
                self.refuse()
            else:
                self.checked = True
                self.echoed()

    def read_handshake(self) -> None:
        head, separator, rest = bytes(self.buffer).partition(b"\r\n\r\n")
        if not separator:
            return
        if not head.startswith(b"HTTP/1.1 101") or accept_value() not in head or rest:
            return self.refuse()
        self.open = True
        self.buffer.clear()
        self.send()

    def refuse(self) -> None:
        """Count an answer that is not the one expected; the connection counts no further."""
        self.totals.errors["status"] += 1
        self.transport.abort()

    def echoed(self) -> None:
        if not self.totals.running:
            return
        self.totals.latencies.append(time.perf_counter() - self.sent_at)
        self.missing = len(self.echo)
        self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        if self.totals.running:
            self.totals.errors["read"] += 1


async def load(port: int, sends: str, connections: int, seconds: float, tls: bool, part: int) -> dict[str, object]:
    """Load the server on *port* of the loopback address for *seconds* and return the totals."""
    totals = Totals()
    loop = asyncio.get_running_loop()
    context = None
    if tls:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    requests = Requests(sends, part)

    def protocol() -> asyncio.Protocol:
        if sends.startswith("websocket-"):
            return WebSocketLoad(totals, int(sends.removeprefix("websocket-")))
        return HTTPLoad(totals, requests)

    transports = []
    started = time.perf_counter()
    for _ in range(connections):
        try:
            transport, _protocol = await loop.create_connection(protocol, "127.0.0.1", port, ssl=context)
        except OSError:
            totals.errors["connect"] += 1
        else:
            transports.append(transport)
    await asyncio.sleep(max(0.0, seconds - (time.perf_counter() - started)))
    totals.running = False
    elapsed = time.perf_counter() - started
    if not totals.latencies:
        totals.errors["timeout"] += 1
    for transport in transports:
        transport.abort()
    await asyncio.sleep(0)
    return totals.result(elapsed)


def main() -> None:
    """Parse the command line, load, print the result."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.client", description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--sends", default="get", help="get, browser, mixed, upload or websocket-SIZE")
    parser.add_argument("--part", type=int, default=0, help="of the numbers of mixed requests (default: 0)")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--tls", action="store_true")
    options = parser.parse_args()
    with asyncio.Runner(loop_factory=fastest()) as runner:
        sends, part = options.sends, options.part
        outcome = runner.run(load(options.port, sends, options.connections, options.seconds, options.tls, part))
    json.dump(outcome, sys.stdout)
    print()


if __name__ == "__main__":
    main()
