"""Attacks on HTTP/2: what one connection sends (RFC 9113 section 10.5)."""

from __future__ import annotations

import itertools
import random
import struct
from collections.abc import Callable, Iterator

from hpack.hpack import encode_integer

from bridge.core.http2 import huffman
from bridge.core.http2.codes import FRAME_SIZE_ERROR
from tests.support.http2 import (
    CONTINUATION,
    DATA,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
)

__all__ = ["DEAR", "ENDED_WITH", "FLOODS", "GET", "START", "Frames", "path"]

START = PREFACE + frame(SETTINGS, 0, 0)
GET = b"\x82\x86\x84\x01\x01a"
POST = b"\x83\x86\x84\x01\x01a"
PRIORITY_UPDATE = 0x10
Frames = Iterator[bytes]


def literal(name: bytes, value: bytes, first: int = 0) -> bytes:
    return bytes([first]) + encode_integer(len(name), 7) + name + encode_integer(len(value), 7) + value


def path(target: bytes) -> bytes:
    """Return the block of a GET request."""
    return b"\x82\x86\x04" + encode_integer(len(target), 7) + target + b"\x01\x01a"


WAIT = path(b"/wait")


def each_stream(*parts: Callable[[int], bytes]) -> Callable[[], Frames]:
    """Return an attack that sends these frames on stream after stream."""

    def attack() -> Frames:
        for stream in itertools.count(1, 2):
            for part in parts:
                yield part(stream)

    return attack


def again(item: bytes, *first: bytes) -> Callable[[], Frames]:
    """Return an attack that sends *first* and then the same frame without end."""
    return lambda: itertools.chain(first, itertools.repeat(item))


def get(block: bytes, flags: int = 5) -> Callable[[int], bytes]:
    return lambda stream: frame(HEADERS, flags, stream, block)


def on_stream(kind: int, payload: bytes, flags: int = 0) -> Callable[[int], bytes]:
    return lambda stream: frame(kind, flags, stream, payload)


def changing_settings() -> Frames:
    for number in itertools.count():
        yield frame(SETTINGS, 0, 0, struct.pack(">HI", 4, number % 2 * 65535))


def bomb(references: int) -> Callable[[], Frames]:
    def attack() -> Frames:
        yield frame(HEADERS, 5, 1, GET + literal(b"x", b"v" * 4000, 0x40))
        for stream in itertools.count(3, 2):
            yield frame(HEADERS, 5, stream, GET + b"\xbe" * references)

    return attack


def coded(value: bytes) -> bytes:
    code = huffman.encode(value)
    return b"\x00\x01x" + bytes([0xFF]) + encode_integer(len(code), 7)[1:] + code


def in_frames(stream: int, block: bytes) -> bytes:
    """Return a long block as HEADERS and CONTINUATION frames."""
    pieces = [block[at : at + 16384] for at in range(0, len(block), 16384)]
    wire = frame(HEADERS, 1, stream, pieces[0])
    for number, piece in enumerate(pieces[1:], 2):
        wire += frame(CONTINUATION, 4 if number == len(pieces) else 0, stream, piece)
    return wire


RANDOM_HEX = random.Random(7).randbytes(2600).hex().encode()
VISIBLE = bytes(range(33, 127)) * 80

OPEN = frame(HEADERS, 4, 1, POST)
DONE = frame(HEADERS, 5, 1, GET)

# A stream beyond the limit of streams is refused, and what is wrong about one that is not open ends the connection.
ENDED_WITH = {"PRIORITY of four octets": FRAME_SIZE_ERROR}

FLOODS: dict[str, Callable[[], Frames]] = {
    "rapid reset": each_stream(get(GET), on_stream(RST_STREAM, b"\0\0\0\x08")),
    "rapid reset of waiting requests": each_stream(get(WAIT), on_stream(RST_STREAM, b"\0\0\0\x08")),
    # A peer that makes the server reset its own streams: MadeYouReset in six forms.
    "window update of 0": each_stream(get(WAIT), on_stream(WINDOW_UPDATE, bytes(4))),
    "window that overflows": each_stream(get(WAIT), on_stream(WINDOW_UPDATE, b"\x7f\xff\xff\xff")),
    "HEADERS behind the end": each_stream(get(WAIT), get(WAIT)),
    "DATA behind the end": each_stream(get(WAIT), on_stream(DATA, b"x", 1)),
    "PRIORITY of four octets": each_stream(get(WAIT), on_stream(PRIORITY, bytes(4))),
    "wrong content-length": each_stream(get(POST + literal(b"content-length", b"5"), 4), on_stream(DATA, b"x", 1)),
    "CONTINUATION": again(frame(CONTINUATION, 0, 1, literal(b"x", b"v" * 100) * 10), frame(HEADERS, 1, 1, GET)),
    "empty CONTINUATION": again(frame(CONTINUATION, 0, 1), frame(HEADERS, 1, 1, GET)),
    "PING": again(frame(PING, 0, 0, bytes(8))),
    "SETTINGS": again(frame(SETTINGS, 0, 0)),
    "acknowledged SETTINGS": again(frame(SETTINGS, 1, 0)),
    "initial window to and fro": changing_settings,
    "PRIORITY": again(frame(PRIORITY, 0, 1, b"\0\0\0\0\x10")),
    "PRIORITY_UPDATE": again(frame(PRIORITY_UPDATE, 0, 0, b"\0\0\0\x01u=1")),
    "PRIORITY_UPDATE of idle streams": each_stream(
        lambda stream: frame(PRIORITY_UPDATE, 0, 0, struct.pack(">I", stream) + b"u=1")
    ),
    "empty DATA": again(frame(DATA, 0, 1), OPEN),
    "DATA of padding": again(frame(DATA, 8, 1, b"\xff" + bytes(255)), OPEN),
    "window updates of one octet": again(frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\x01"), OPEN),
    "window updates of the connection": again(frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\x01")),
    "window updates of a stream that has ended": again(frame(WINDOW_UPDATE, 0, 1, b"\0\0\x10\0"), DONE),
    "unknown frames": again(frame(0x77, 0, 0, bytes(16))),
    "bomb of references": bomb(8000),
    "small bombs": bomb(20),
    "malformed requests": each_stream(get(GET + literal(b"X", b"y"))),
    "CONNECT": each_stream(get(b"\x00\x07:method\x07CONNECT\x01\x01a")),
    "field lines that are too long": each_stream(get(GET + literal(b"x", b"v" * 9000))),
    "more streams than are allowed": each_stream(get(WAIT)),
    "Huffman code of lists that are too large": each_stream(lambda stream: in_frames(stream, GET + coded(VISIBLE) * 6)),
}

# Legal and dear. The client waits for answers when it has as many streams as it may.
DEAR: dict[str, Callable[[], Frames]] = {
    "Huffman code": each_stream(get(GET + coded(RANDOM_HEX) * 3)),
    "table size to and fro": each_stream(
        get(b"\x20\x3f\xe1\x1f" + GET + b"".join(literal(b"a%d" % number, b"v" * 50, 0x40) for number in range(40)))
    ),
    "ninety new fields": each_stream(
        lambda stream: frame(
            HEADERS, 5, stream, GET + b"".join(literal(b"a%d" % at, b"v%d" % stream, 0x40) for at in range(90))
        )
    ),
    "content in frames of one octet": again(frame(DATA, 0, 1, b"x"), OPEN),
    "nothing read": lambda: iter(
        [frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 0)), *(get(path(b"/large"))(2 * at + 1) for at in range(120))]
    ),
    "a window of one octet": lambda: iter(
        [frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 1)), *(get(path(b"/large"))(2 * at + 1) for at in range(120))]
    ),
}
