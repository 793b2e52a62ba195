"""A client's side of HTTP/2 for the loads and the measurements of memory (RFC 9113, RFC 7541).

Blocks are made once and need no state afterwards: with each connection's first requests the most common field lines go
into the server's dynamic table, as a proxy's would, and later requests name them by index. What differs is sent in
literals that are not indexed. They are Huffman coded, but for those with the request's own number, which are sent as
they are, so that numbers can be put in. Tables that change with every request are not in it.
"""

import functools
import itertools
import socket
import struct
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from benchmarks import mixed

DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
TABLE_SIZE = 4096  # octets; what every server has to offer
LINE_COST = 32  # octets that a line costs beside its name and value (RFC 7541 4.1)
MAX_WINDOW = 2**31 - 1
# How a block begins that says status 200: the static table's line, or its name with a literal, perhaps Huffman coded.
STATUS_200 = (
    b"\x88",
    *(first + value for first in (b"\x08", b"\x18", b"\x48") for value in (b"\x03200", b"\x82\x10\x01")),
)
MARK = "\x01number\x01"  # stands for mixed.NUMBER in a block, where that octet alone may be part of a code
CONNECTION_FIELDS = {"connection", "host", "content-length"}  # of a template's, those that are sent otherwise or not

Lines = list[tuple[str, str]]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Return one frame (RFC 9113 4.1)."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def opening(window: int = MAX_WINDOW) -> bytes:
    """Return what a client sends first: windows of *window* bytes for each stream, and of all for the connection."""
    settings = frame(SETTINGS, 0, 0, struct.pack(">HI", 2, 0) + struct.pack(">HI", 4, window))
    return PREFACE + settings + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", MAX_WINDOW - 65_535))


def integer(value: int, bits: int, first: int) -> bytes:
    """Return an integer with a prefix of *bits* bits in an octet that begins as *first* (RFC 7541 5.1)."""
    limit = (1 << bits) - 1
    if value < limit:
        return bytes([first | value])
    octets = [first | limit]
    value -= limit
    while value >= 128:
        octets.append(value & 127 | 128)
        value >>= 7
    return bytes([*octets, value])


@functools.cache
def static_table() -> dict[tuple[str, str], int]:
    """Return the index of each line of the static table, and of each name with an empty value (RFC 7541 appendix A)."""
    from hpack.table import HeaderTable

    table: dict[tuple[str, str], int] = {}
    for index, (name, value) in enumerate(HeaderTable.STATIC_TABLE, 1):
        table.setdefault((name.decode(), value.decode()), index)
        table.setdefault((name.decode(), ""), index)
    return table


@functools.lru_cache(100_000)
def huffman(text: str) -> bytes:
    """Return the Huffman code of *text*, filled up with ones (RFC 7541 5.2)."""
    from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH

    bits = "".join(f"{REQUEST_CODES[octet]:0{REQUEST_CODES_LENGTH[octet]}b}" for octet in text.encode())
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big") if bits else b""


def string(text: str) -> bytes:
    """Return a string: Huffman coded where that is shorter; as it is where it holds a request's number."""
    number = mixed.NUMBER.decode()
    if number in text:
        size = len(text) + (mixed.WIDTH - 1) * text.count(number)
        return integer(size, 7, 0) + text.replace(number, MARK).encode()
    coded = huffman(text)
    return integer(len(coded), 7, 0x80) + coded if len(coded) < len(text) else integer(len(text), 7, 0) + text.encode()


def literal(name: str, value: str, bits: int, first: int) -> bytes:
    """Return a literal line: *bits* and *first* say whether it is indexed (RFC 7541 6.2)."""
    index = static_table().get((name, ""), 0)
    return integer(index, bits, first) + (b"" if index else string(name)) + string(value)


def encode(lines: Lines, indexes: dict[tuple[str, str], int]) -> bytes:
    """Return a block; *indexes* are those of lines in the dynamic table."""
    block = []
    for line in lines:
        index = indexes.get(line) or (static_table().get(line, 0) if line[1] else 0)
        if index:
            block.append(integer(index, 7, 0x80))
        elif line[0] == "authorization":
            block.append(literal(*line, 4, 0x10))  # never to be indexed
        else:
            block.append(literal(*line, 4, 0))
    return b"".join(block)


def request_lines(template: bytes, number: int) -> tuple[Lines, bytes]:
    """Return a template's lines as a client sends them over HTTP/2, and its content; *number* chooses the habits."""
    head, _, content = template.decode().partition("\r\n\r\n")
    first, *rest = head.split("\r\n")
    method, target, _ = first.split(" ")
    fields = [(name.lower(), value) for name, _, value in (line.partition(": ") for line in rest)]
    host = next(value for name, value in fields if name == "host")
    pseudo = [(":method", method), (":scheme", "http"), (":authority", host), (":path", target)]
    orders = [(0, 2, 1, 3), (0, 3, 2, 1), (3, 1, 2, 0), (0, 1, 3, 2)]  # Chromium, Firefox, h2load, Safari
    lines = [pseudo[at] for at in orders[number % 4]]
    for name, value in fields:
        if name == "cookie" and number % 2:
            lines += [(name, crumb) for crumb in value.split("; ")]  # as browsers do (RFC 9113 8.2.3)
        elif name not in CONNECTION_FIELDS:
            lines.append((name, value))
    if content:
        lines.append(("content-length", str(len(content) + (mixed.WIDTH - 1) * content.count(mixed.NUMBER.decode()))))
    return lines, content.encode()


class Template(NamedTuple):
    """A request: what stands before the stream's number, the block in pieces, and content in pieces (or none)."""

    start: bytes
    block: list[bytes]
    content_start: bytes
    content: list[bytes]

    def frames(self, stream: int, digits: bytes) -> bytes:
        """Return the request's frames, with its own number."""
        number = stream.to_bytes(4, "big")
        head = self.start + number + digits.join(self.block)
        return head + self.content_start + number + digits.join(self.content) if self.content else head


def start_of(kind: int, flags: int, pieces: list[bytes]) -> bytes:
    size = sum(map(len, pieces)) + mixed.WIDTH * (len(pieces) - 1)
    return struct.pack(">I", size)[1:] + bytes([kind, flags])


@functools.cache
def mixed_requests(count: int = mixed.COUNT) -> tuple[tuple[bytes, ...], tuple[Template, ...]]:
    """Return the frames of a connection's first requests, on streams 1, 3, ..., and *count* templates of the others."""
    requests = [request_lines(template, number) for number, template in enumerate(mixed.templates(count=count))]
    number = mixed.NUMBER.decode()
    counts = Counter(line for lines, _ in requests for line in lines if not any(number in text for text in line))
    repeated: Lines = []
    size = 0
    for line, times in counts.most_common():
        size += len(line[0]) + len(line[1]) + LINE_COST
        if size > TABLE_SIZE or times < 2:
            break
        if line[0][0] != ":" and line[0] != "authorization":
            repeated.append(line)
        else:
            size -= len(line[0]) + len(line[1]) + LINE_COST
    # No name comes twice in one of the first requests.
    groups: list[Lines] = []
    for line in repeated:
        group = next((one for one in groups if all(name != line[0] for name, _ in one)), None)
        if group is None:
            groups.append(group := [])
        group.append(line)
    pseudo = [(":method", "GET"), (":scheme", "http"), (":authority", "shop.example"), (":path", "/")]
    first = []
    for number_of_group, group in enumerate(groups):
        block = encode(pseudo, {}) + b"".join(literal(*line, 6, 0x40) for line in group)
        first.append(frame(HEADERS, END_HEADERS | END_STREAM, 1 + 2 * number_of_group, block))
    inserted = [line for group in groups for line in group]
    indexes = {line: 61 + len(inserted) - at for at, line in enumerate(inserted)}
    made = []
    for lines, content in requests:
        parts = encode(lines, indexes).split(MARK.encode())
        pieces = content.split(mixed.NUMBER) if content else []
        start = start_of(HEADERS, END_HEADERS | (0 if content else END_STREAM), parts)
        made.append(Template(start, parts, start_of(DATA, END_STREAM, pieces) if content else b"", pieces))
    return tuple(first), tuple(made)


class Frames:
    """The next requests of all connections of a load: no block twice."""

    def __init__(self, part: int, count: int = mixed.COUNT) -> None:
        self.first, self.templates = mixed_requests(count)
        self.numbers = itertools.count(part * mixed.PART)
        self.state = mixed.SEED + part * 1009 + 1

    def next(self, stream: int) -> bytes:
        self.state = self.state * mixed.MULTIPLIER % mixed.MODULUS
        return self.templates[self.state % len(self.templates)].frames(stream, mixed.digits(next(self.numbers)))


class RepeatedFrames:
    """Requests as h2load makes them: every line but :path is in the dynamic table from the first request on.

    Args:
        paths: Sent in turn, as literals that are not indexed where the static table has none.
        fields: The lines behind the pseudo-fields.
    """

    def __init__(self, paths: list[str], fields: Lines) -> None:
        rest = [(":scheme", "http"), (":authority", "127.0.0.1:8000"), (":method", "GET")]
        rest += [("user-agent", "h2load nghttp2/1.52.0"), *fields]
        indexed = [line for line in rest if line not in static_table()]
        indexes = {line: 61 + len(indexed) - at for at, line in enumerate(indexed)}
        first = encode([(":path", paths[0])], {})
        first += b"".join(literal(*line, 6, 0x40) if line in indexes else encode([line], {}) for line in rest)
        self.first = (frame(HEADERS, END_HEADERS | END_STREAM, 1, first),)
        frames = [
            frame(HEADERS, END_HEADERS | END_STREAM, 0, encode([(":path", path), *rest], indexes)) for path in paths
        ]
        self.frames = itertools.cycle([(whole[:5], whole[9:]) for whole in frames])

    def next(self, stream: int) -> bytes:
        start, block = next(self.frames)
        return start + stream.to_bytes(4, "big") + block


def plain_request(stream: int, method: str = "GET", content: bytes = b"", scheme: str = "http") -> bytes:
    """Return a small request's frames; its content goes in frames of 16 KiB, without a look at windows."""
    lines = [(":method", method), (":scheme", scheme), (":authority", "127.0.0.1"), (":path", "/")]
    lines += [("content-length", str(len(content)))] if content else []
    head = frame(HEADERS, END_HEADERS | (0 if content else END_STREAM), stream, encode(lines, {}))
    pieces = [content[at : at + 16_384] for at in range(0, len(content), 16_384)]
    ends = [0] * (len(pieces) - 1) + [END_STREAM]
    return head + b"".join(frame(DATA, end, stream, piece) for piece, end in zip(pieces, ends, strict=False))


def read_frames(connection: socket.socket) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield kind, flags, stream and payload of each frame, and acknowledge settings and PINGs.

    Raises:
        OSError: the server has closed the connection.
    """
    data = b""
    while True:
        while len(data) < 9 or len(data) < 9 + int.from_bytes(data[:3], "big"):
            piece = connection.recv(262_144)
            if not piece:
                raise ConnectionError("closed by the server")
            data += piece
        size, kind, flags = int.from_bytes(data[:3], "big"), data[3], data[4]
        stream, payload = int.from_bytes(data[5:9], "big"), data[9 : 9 + size]
        data = data[9 + size :]
        if kind in (SETTINGS, PING) and not flags & ACK:
            connection.sendall(frame(kind, ACK, 0, payload if kind == PING else b""))
        yield kind, flags, stream, payload


def read_answers(connection: socket.socket, streams: Iterable[int]) -> dict[int, tuple[bytes, bytes]]:
    """Return (block of the head, content) of each of *streams*, once all have ended.

    Raises:
        OSError: the server reset a stream, or ended the connection.
    """
    waiting = set(streams)
    answers: dict[int, tuple[bytes, bytes]] = {}
    for kind, flags, stream, payload in read_frames(connection):
        if kind in (RST_STREAM, GOAWAY):
            raise ConnectionError(f"frame {kind}: {payload.hex()}")
        if kind not in (HEADERS, DATA):
            continue
        block, content = answers.get(stream, (b"", b""))
        if kind == HEADERS:
            block = block or payload
        else:
            content += payload[1 : len(payload) - payload[0]] if flags & PADDED else payload
        answers[stream] = block, content
        if flags & END_STREAM:
            waiting.discard(stream)
            if not waiting:
                break
    return answers


def says_200(block: bytes) -> bool:
    """Tell whether a response's block begins with status 200; new sizes of the table may stand before it."""
    at = 0
    while at < len(block) and block[at] & 0xE0 == 0x20:  # a new size of the table (RFC 7541 6.3)
        more = block[at] & 0x1F == 0x1F
        at += 1
        while more:
            more = bool(block[at] & 0x80)
            at += 1
    return block.startswith(STATUS_200, at)
