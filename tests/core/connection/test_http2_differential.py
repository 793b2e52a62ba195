"""Frames of a client into bridge and into libnghttp2: the same requests begin, the same kinds of errors end them.

The frames come in any order and any cut, with padding, priorities, wrong sizes, wrong streams and wrong values. Nobody
answers, so that streams stay open in both.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, field

import ngh2
import pytest
from hpack.hpack import encode_integer

from bridge.core.http2.codes import error_name
from tests.support.http2 import (
    CONTINUATION,
    DATA,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    HTTP2Link,
    frame,
    frames_of,
)
from tests.support.link import Recorder, Told


@dataclass
class Outcome:
    """What came of a frame, or of all frames.

    Attributes:
        requests: The streams of the requests that began.
        content: Bytes of content that came on each stream.
        resets: The streams that the server has reset, with the error.
        error: The error that ended the connection; empty if it goes on.
    """

    requests: list[int] = field(default_factory=list)
    content: dict[int, int] = field(default_factory=dict)
    resets: dict[int, str] = field(default_factory=dict)
    error: str = ""

    @property
    def kind(self) -> str:
        """The kind of error."""
        return "connection" if self.error else "stream" if self.resets else ""

    def read_frames(self, data: bytes) -> None:
        """Take what the server has sent."""
        for item in frames_of(data):
            if item.kind == RST_STREAM:
                self.resets[item.stream] = error_name(item.code)
            elif item.kind == GOAWAY and item.code:
                self.error = error_name(item.code)


class Bridge:
    """A connection of bridge."""

    def __init__(self) -> None:
        self._link = HTTP2Link(Recorder(on_data=self._note))
        self._read = 0
        self._begun = 0
        self._content: dict[int, int] = {}

    def _note(self, told: Told, chunk: bytes) -> None:
        stream = told.exchange.stream_id
        self._content[stream] = self._content.get(stream, 0) + len(chunk)

    def feed(self, *pieces: bytes) -> Outcome:
        """Receive bytes; return what came of them."""
        outcome = Outcome()
        self._content = outcome.content
        self._link.send(*pieces)
        self._link.loop.settle()
        received = self._link.received
        outcome.read_frames(received[self._read :])
        self._read = len(received)
        told = self._link.delegate.told
        outcome.requests = [one.exchange.stream_id for one in told[self._begun :]]
        self._begun = len(told)
        return outcome

    def close(self) -> None:
        if self._link.connection.transport is not None:
            self._link.connection.connection_lost(None)
        self._link.loop.close()


class Nghttp2:
    """A connection of libnghttp2."""

    def __init__(self) -> None:
        self._server = ngh2.Connection(ngh2.Role.SERVER)
        self._server.initiate_connection(
            {
                ngh2.Setting.MAX_CONCURRENT_STREAMS: 128,
                ngh2.Setting.MAX_HEADER_LIST_SIZE: 32768,
                ngh2.Setting.NO_RFC7540_PRIORITIES: 1,
            }
        )
        self._server.data_to_send()

    def feed(self, data: bytes) -> Outcome:
        """Receive bytes; return what came of them."""
        outcome = Outcome()
        self._server.receive_data(data)
        for event in self._server.events():
            if isinstance(event, ngh2.RequestReceived):
                outcome.requests.append(event.stream_id)
            elif isinstance(event, ngh2.DataReceived) and event.data:
                outcome.content[event.stream_id] = outcome.content.get(event.stream_id, 0) + len(event.data)
        outcome.read_frames(self._server.data_to_send())
        return outcome


def literal(name: bytes, value: bytes) -> bytes:
    return b"\x00" + encode_integer(len(name), 7) + name + encode_integer(len(value), 7) + value


GET = b"\x82\x86\x84\x41\x01a"  # puts :authority into the table
GET_PLAIN = b"\x82\x86\x84\x01\x01a"
GET_AGAIN = b"\x82\x86\x84\xbe"
POST = b"\x83\x86\x84\x01\x01a"


class Client:
    """Makes frames that a client might send, and some that it must not."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.next = 1

    def stream(self) -> int:
        """Return a stream that was used, or nearly one."""
        if self.rng.random() < 0.05:
            return self.rng.choice([0, 2, self.next + 2, 0x7FFFFFFF])
        return self.rng.randrange(1, self.next + 1, 2)

    def block(self) -> bytes:
        rng = self.rng
        start = rng.choice([GET, GET_PLAIN, GET_PLAIN, POST, GET_AGAIN])
        if rng.random() < 0.7:
            return start
        return start + rng.choice(
            [
                *(literal(b"x", b"y"), literal(b"te", b"trailers"), literal(b"te", b"gzip"), literal(b"X", b"y")),
                *(
                    literal(b"connection", b"close"),
                    literal(b"x", b"a\r\n"),
                    literal(b":path", b"/b"),
                    literal(b":x", b"y"),
                ),
                *(literal(b"content-length", b"5"), literal(b"content-length", b"0"), literal(b"cookie", b"a=b")),
                *(
                    b"\x80",
                    b"\xff\xff\xff\xff\xff\x0f",
                    b"\x20",
                    b"\x3f\xe1\x3f",
                    b"\x40",
                    b"\x00\x01x\x84\xff\xff\xff\xff",
                ),
                *(b"\x88", literal(b"x", b" y"), literal(b"transfer-encoding", b"chunked"), literal(b"upgrade", b"a")),
            ]
        )

    def headers(self, stream: int) -> bytes:
        rng = self.rng
        flags = rng.choice([5, 5, 4])
        payload = self.block()
        if rng.random() < 0.2:
            flags |= 0x20
            payload = struct.pack(">IB", rng.choice([0, 1, stream, 0x80000003]), 15) + payload
        if rng.random() < 0.2:
            flags |= 8
            padding = rng.choice([0, 1, 3, 20])
            payload = bytes([padding if rng.random() < 0.8 else 255]) + payload + bytes(padding)
        if rng.random() < 0.1 and len(payload) > 2:
            cut = rng.randrange(1, len(payload))
            between = b"" if rng.random() < 0.8 else frame(PING, 0, 0, bytes(8))
            follow = stream if rng.random() < 0.9 else stream + 2
            return (
                frame(HEADERS, flags & ~4, stream, payload[:cut])
                + between
                + frame(CONTINUATION, 4, follow, payload[cut:])
            )
        return frame(HEADERS, flags, stream, payload)

    def data(self) -> bytes:
        rng = self.rng
        flags = rng.choice([0, 0, 0, 1])
        payload = bytes(rng.choice([0, 1, 5, 300, 16384]))
        if rng.random() < 0.2:
            flags |= 8
            payload = bytes([rng.choice([0, 1, 3])]) + payload + bytes(3)
        return frame(DATA, flags, self.stream(), payload)

    def frame(self) -> bytes:
        rng = self.rng
        kind = rng.choices(
            [
                HEADERS,
                DATA,
                PRIORITY,
                RST_STREAM,
                SETTINGS,
                PING,
                GOAWAY,
                WINDOW_UPDATE,
                CONTINUATION,
                PUSH_PROMISE,
                0x77,
                -1,
            ],
            [30, 30, 6, 6, 8, 6, 0, 12, 0.5, 0.3, 4, 6],
        )[0]
        if kind == HEADERS:
            stream = self.next if rng.random() < 0.8 else self.stream()
            if stream == self.next:
                self.next += 2
            return self.headers(stream)
        if kind == -1:  # the next stream is one that was skipped over
            self.next += 2 * rng.randrange(3)
            return b""
        if kind == DATA:
            return self.data()
        if kind == PRIORITY:
            size = 5 if rng.random() < 0.9 else rng.choice([4, 6])
            return frame(PRIORITY, 0, self.stream(), struct.pack(">IB", self.stream(), 1).ljust(6, b"\0")[:size])
        if kind == RST_STREAM:
            return frame(RST_STREAM, 0, self.stream(), bytes(4 if rng.random() < 0.95 else 5))
        if kind == SETTINGS:
            pair = rng.choice(
                [
                    (1, 0),
                    (1, 4096),
                    (2, 0),
                    (2, 2),
                    (3, 5),
                    (4, 0),
                    (4, 65535),
                    (4, 1 << 31),
                    (5, 16384),
                    (5, 1),
                    (6, 100),
                    (8, 0),
                    (99, 5),
                ]
            )
            payload = struct.pack(">HI", *pair) if rng.random() < 0.95 else b"abc"
            return frame(SETTINGS, 0, 0 if rng.random() < 0.97 else 1, payload)
        if kind == PING:
            return frame(PING, 0, 0 if rng.random() < 0.95 else 1, bytes(8 if rng.random() < 0.95 else 7))
        if kind == GOAWAY:
            return frame(GOAWAY, 0, 0, struct.pack(">II", 0, 0))
        if kind == WINDOW_UPDATE:
            stream = 0 if rng.random() < 0.3 else self.stream()
            size = 4 if rng.random() < 0.97 else 3
            return frame(
                WINDOW_UPDATE, 0, stream, struct.pack(">I", rng.choice([1, 1, 1000, 1 << 20, 0, 0x7FFFFFFF]))[:size]
            )
        return frame(kind, rng.randrange(256), rng.choice([0, 1]), bytes(10))


#: What both refuse, bridge as the RFC says: kind of frame, bridge's error -> why libnghttp2's is another.
MILDER = {
    (HEADERS, "PROTOCOL_ERROR"): "a malformed request is an error of its stream (RFC 9113 section 8.1.1)",
    (HEADERS, "STREAM_CLOSED"): "a frame on a half-closed stream is an error of the stream (section 5.1)",
    (DATA, "STREAM_CLOSED"): "a frame on a half-closed stream is an error of the stream (section 5.1)",
    (PRIORITY, "FRAME_SIZE_ERROR"): "a PRIORITY frame of a wrong size is an error of its stream (section 6.3)",
    (WINDOW_UPDATE, "PROTOCOL_ERROR"): "an increment of 0 is an error of its stream (section 6.9)",
    (WINDOW_UPDATE, "FLOW_CONTROL_ERROR"): "a window that is too large is an error of its stream (section 6.9.1)",
}
#: What bridge refuses and libnghttp2 ignores.
STRICTER = {
    (PRIORITY, "PROTOCOL_ERROR"): "libnghttp2 looks at no PRIORITY frame where the server uses RFC 9218",
    (HEADERS, "PROTOCOL_ERROR"): "a stream that was skipped over cannot be opened (section 5.1.1)",
    (HEADERS, "STREAM_CLOSED"): "the peer has reset the stream before (section 5.1)",
    (DATA, "STREAM_CLOSED"): "a stream that was skipped over is closed (sections 5.1 and 5.1.1)",
}
#: What both end the connection for, with another code: there are two faults, and each has found another one first.
OTHER_CODES = {
    ("COMPRESSION_ERROR", "PROTOCOL_ERROR"): "libnghttp2 looks at the stream before it decodes",
    ("COMPRESSION_ERROR", "STREAM_CLOSED"): "libnghttp2 looks at the stream before it decodes",
    ("PROTOCOL_ERROR", "COMPRESSION_ERROR"): "libnghttp2 decodes a block before its end has come",
    ("PROTOCOL_ERROR", "STREAM_CLOSED"): "bridge looks at the order of frames before the stream",
    ("PROTOCOL_ERROR", "FRAME_SIZE_ERROR"): "bridge looks at the stream before the size",
    ("FRAME_SIZE_ERROR", "PROTOCOL_ERROR"): "no room for the priority of HEADERS (section 6.2)",
}


def explained(item: bytes, ours: Outcome, theirs: Outcome) -> str:
    """Return why the two do different things with a frame; empty if there is no reason."""
    kind = item[3]
    if ours.requests != theirs.requests or ours.content != theirs.content:
        return ""
    if ours.kind == theirs.kind == "connection":
        return OTHER_CODES.get((ours.error, theirs.error), "")
    code = ours.error or ",".join(ours.resets.values())
    if not theirs.kind:
        return STRICTER.get((kind, code), "")
    return MILDER.get((kind, code), "") if theirs.kind == "connection" else ""


def cut(rng: random.Random, data: bytes) -> list[bytes]:
    """Return *data* in pieces."""
    places = sorted(rng.sample(range(1, len(data)), min(len(data) - 1, rng.choice([0, 0, 3, 20]))))
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


def compare(seed: int) -> tuple[bytes, Outcome, Outcome] | None:
    """Feed both with the same frames until one of them finds an error; return the first difference."""
    rng = random.Random(seed)
    client, ours, theirs = Client(rng), Bridge(), Nghttp2()
    wire = PREFACE + frame(SETTINGS, 0, 0)
    try:
        assert ours.feed(wire) == theirs.feed(wire)
        for _ in range(rng.randrange(1, 25)):
            item = client.frame()
            if not item:
                continue
            wire += item
            left, right = ours.feed(item), theirs.feed(item)
            if left != right:
                return item, left, right
            if left.kind:
                break
    finally:
        ours.close()
    in_pieces, whole = Bridge(), Bridge()
    try:
        assert in_pieces.feed(*cut(rng, wire)) == whole.feed(wire)
    finally:
        in_pieces.close()
        whole.close()
    return None


@pytest.mark.parametrize("first", range(0, 1000, 100))
def test_the_same_requests_and_errors(first: int) -> None:
    for seed in range(first, first + 100):
        difference = compare(seed)
        assert difference is None or explained(*difference), f"seed {seed}"
