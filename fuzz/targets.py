"""What is fuzzed. A target takes bytes; whatever it raises is a finding."""

import asyncio
import contextlib
import os
import socket
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from bridge import speedups
from bridge.adapters.wsgi.environ import make_environ_pure
from bridge.config.files import read_file
from bridge.config.sources import resolve
from bridge.core.connection.context import ConnectionContext
from bridge.core.connection.interfaces import NULL_DELEGATE
from bridge.core.connection.times import note_opening_pure
from bridge.core.http.limits import Limits
from bridge.core.http.message import request_line
from bridge.core.http1.request import parse_head, parse_head_pure
from bridge.core.http2.codes import CompressionError, ConnectionFault
from bridge.core.http2.hpack import FieldDecoder
from bridge.core.http2.request import HeadReader
from bridge.core.httputil import HTTPInputError
from bridge.core.middleware.proxy import ProxyDelegate, ProxyPolicy
from bridge.core.tornado.forms import parse_body_arguments
from bridge.core.websocket import receiver as websocket
from bridge.core.websocket.frames import WebSocketError
from bridge.core.websocket.masking import apply_mask_pure
from bridge.errors import ConfigError, LimitExceeded, RemoteProtocolError, RequestSyntaxError
from bridge.serving import proxyprotocol
from bridge.telemetry.metrics.counting import SUM, PureCounter
from fuzz.sessions import http1_sessions, http2_sessions
from tests.core.connection.test_http2_differential import Bridge, Outcome
from tests.core.http1.test_differential import compare_with_h11, compare_with_httptools
from tests.core.http2 import test_request_memo as memo
from tests.support.http2 import PREFACE, SETTINGS, frame
from tests.support.reader import head_values, read_stream

__all__ = ["TARGETS", "Target"]

SMALL = Limits(request_line=40, field_line=30, fields=4, head=160, chunk_extensions=20)


@dataclass(frozen=True)
class Target:
    """A target.

    Attributes:
        name: Its name, and that of its folder in the corpus.
        run: The function.
        words: What mutations insert.
    """

    name: str
    run: Callable[[bytes], None]
    words: list[bytes] = field(default_factory=list)


def cuts(data: bytes) -> Iterator[list[bytes]]:
    """Yield *data* whole, byte by byte, and cut once, at a place that its content chooses."""
    yield [data]
    at = sum(data) % (len(data) + 1)
    yield [data[:at], data[at:]]
    if len(data) < 300:
        yield [data[i : i + 1] for i in range(len(data))]


# ---------------------------------------------------------------------- HTTP/1


def outcome(function: Callable[..., Any], *arguments: Any) -> object:
    """Return all that a head says, or why it is refused."""
    try:
        head = function(*arguments)
    except RemoteProtocolError as exc:
        return type(exc), str(exc), exc.status
    return None if head is None else head_values(head)


def heads(data: bytes) -> None:
    """The compiled and the Python parser say the same; where the head begins, and what follows it, changes nothing."""
    for limits in (Limits(), SMALL):
        said = outcome(parse_head, data, 0, limits)
        assert said == outcome(parse_head_pure, data, 0, limits)
        assert said == outcome(parse_head, bytearray(data), 0, limits)
        moved = outcome(parse_head, b"GET" + data, 3, limits)
        assert moved == said or isinstance(said, tuple)
    end = data.find(b"\r\n\r\n")
    said = outcome(parse_head, data, 0, Limits())
    if end > 0 and isinstance(said, tuple) and isinstance(said[0], bytes):
        for scanned in (end, end + 1, end + 3):  # all pieces but the last one have come before
            assert outcome(parse_head, data, 0, Limits(), scanned) == said


def requests(data: bytes) -> None:
    """Requests with their content are the same however the bytes are cut."""
    for limits in (Limits(), SMALL):
        first, *others = [read_stream(pieces, limits) for pieces in cuts(data)]
        for other in others:
            if first.refused is None or other.refused is None:
                # Of a message that is incomplete, some cuts show earlier than others that no octet can mend it.
                complete, waiting = (first, other) if other.refused is None else (other, first)
                if complete.refused is not None:
                    assert waiting.rest or waiting.begun
                    assert waiting.values[:2] == complete.values[:2]
                    continue
            assert other.values == first.values


def chunked(data: bytes) -> None:
    """Chunked content is the same however it is cut."""
    requests(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + data)


def peers(data: bytes) -> None:
    """What is accepted here is the same message to h11 and httptools."""
    compare_with_h11(data)
    compare_with_httptools(data)


HTTP1_WORDS = [
    *(b"\r\n", b"\r\n\r\n", b"\n", b": ", b":", b" ", b"\t", b" HTTP/1.1\r\n", b" HTTP/1.0\r\n"),
    *(b"GET ", b"POST ", b"CONNECT ", b"%41", b"%", b"http://b/", b"*", b"[::1]"),
    *(b"Host: a\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n"),
    *(b"Connection: keep-alive, Upgrade\r\n", b"Upgrade: websocket\r\n", b"Expect: 100-continue\r\n"),
    *(b"0\r\n\r\n", b"5\r\nhello\r\n", b"5;a=b\r\n", b"chunked"),
]
PROXY_WORDS = [b"PROXY TCP4 ", b"PROXY UNKNOWN", b"\r\n", proxyprotocol._SIGNATURE, b"\x21\x11"]
SESSION2_WORDS = [
    *(frame(1, 5, 203, b"\x82\x86\x84\x01\x01a"), frame(1, 4, 205, b"\x83\x86\x84\x01\x01a"), frame(0, 1, 205, b"abc")),
    *(
        frame(3, 0, 203, bytes(4)),
        frame(8, 0, 0, b"\0\1\0\0"),
        frame(4, 0, 0, b"\0\4\0\0\0\0"),
        frame(6, 0, 0, bytes(8)),
    ),
]
FRAME_WORDS = [b"\x81\x85", b"\x82\xfe", b"\x01\x80", b"\x80\x80", b"\x89\x80", b"\x88\x82", bytes(4)]
BLOCK_WORDS = [b"\n\n", b"\x40", b"\xbe", b"\x82", b"\x3f\xe1\x1f", b"\x7f\x00", b"\xff\x00", b"\x8c"]
FILE_WORDS = [b"=", b"[bridge]", b'"', b"true", b"port", b"bind", b"\n", b"[", b"]"]


# ---------------------------------------------------------------------- counts

CALLED_WITH: tuple[Any, ...] = (
    None,
    {},
    {"type": "http"},
    {"route": None},
    {"bridge.route": "/"},
    "/",
    7,
    {"werkzeug.request": 7},
)


def counts(data: bytes) -> None:
    """The compiled and the Python counter remember the same kinds, and add the same to the same cells."""
    if speedups.make_counter is None or speedups.note_opening is None:
        return
    found, expected = (memoryview(bytearray(8 * 64)).cast("Q") for _ in range(2))
    made, pure = speedups.make_counter(found, 48), PureCounter(expected, 48)
    for at in range(0, len(data) - 3, 4):
        step, number, with_what, opened = data[at : at + 4]
        kind = (200 + number % 5, b"%d" % (number // 5 % 4), None if number > 127 else "", str(step // 128), "http")
        if step % 4 == 0:
            made.learn(16 * (number % 3), *kind)
            pure.learn(16 * (number % 3), *kind)
            continue
        noted: tuple[Any, Any] = (speedups.note_opening(), note_opening_pure())
        for one in noted:  # in the future, or so long ago that the exact time does not matter
            one.opened = (1 << 62) - opened if opened % 2 else -opened
            one.queued = (with_what - 100) / 10
            one.called_with = CALLED_WITH[with_what % len(CALLED_WITH)]
            one.refused = "overload" if with_what > 200 else ""
            if step % 8 > 4:
                one.keep_request()
        if step % 4 == 1:
            made.add(noted[0], 16 * (number % 3))
            pure.add(noted[1], 16 * (number % 3))
        else:
            assert made.count(noted[0], *kind) is pure.count(noted[1], *kind)
        assert noted[0].called_with is noted[1].called_with
    for row in (0, 16, 32, 48):
        assert found[row : row + SUM].tolist() == expected[row : row + SUM].tolist()
    assert found[48 + SUM] == expected[48 + SUM]


# ---------------------------------------------------------------------- environs, forms, reports


LINE = request_line(b"GET", "GET", b"/", b"1.1", b"/", b"", b"")


def environs(data: bytes) -> None:
    """The compiled and the Python function make the same environ."""
    fields = tuple(
        (name.lower().replace(b"\xff", b"x"), value)
        for line in data.split(b"\n")
        for name, _, value in [line.partition(b":")]
    )
    template = {"HTTP_HOST": "t", "REMOTE_ADDR": "1", "CONTENT_TYPE": ""}
    path, _, query = data[:200].partition(b"?")
    line = request_line(b"GET", "GET", b"/" + data[:200], b"1.1", b"/" + path, query, b"") if data.isascii() else LINE
    if speedups.make_environ is None:
        make_environ_pure(template, fields, line)
        return
    parts = line.method_text, line.path, line.query, line.target, line.protocol_text
    found = speedups.make_environ(template, fields, *parts)
    assert found is None or found == make_environ_pure(template, fields, line)  # None: Python decides


def form(kind: str) -> Callable[[bytes], None]:
    """Return the target of one kind of form."""

    def run(data: bytes) -> None:
        arguments: dict[str, list[bytes]] = {}
        files: dict[str, list[Any]] = {}
        try:
            parse_body_arguments(kind, data, arguments, files)
        except HTTPInputError:
            assert not arguments
            assert not files
        assert sum(len(value) for values in arguments.values() for value in values) <= len(data)
        assert sum(len(file["body"]) for parts in files.values() for file in parts) <= len(data)

    return run


def forwarded(data: bytes) -> None:
    """Whatever a proxy reports, an address stays an address, a port a port, and other fields stay what they are."""
    names = [b"x-forwarded-for", b"forwarded", b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port"]
    names += [b"x-forwarded-prefix", b"x-real-ip", b"x-scheme"]
    lines = [b"%b: %b" % (names[line[0] % len(names)], line[1:]) for line in data.split(b"\n") if line]
    wire = b"\r\n".join([b"GET / HTTP/1.1", b"Host: a", b"X: y", *lines, b"", b""])
    try:
        head = parse_head(wire, 0, Limits())
    except RemoteProtocolError:
        return
    for hops in (None, 1, 2):
        context = ConnectionContext(("192.0.2.1", 1), socket.AF_INET, "http", ("192.0.2.2", 80))
        exchange: Any = SimpleNamespace(head=head, context=context, connection_context=context)
        delegate: Any = SimpleNamespace(start_exchange=lambda _: NULL_DELEGATE)
        ProxyDelegate(delegate, ProxyPolicy(["192.0.2.0/24", "::1"], hops)).start_exchange(exchange)
        said = exchange.context
        assert said.protocol in {"http", "https"}
        assert said.remote_ip.isascii()
        assert said.remote_ip.isprintable()
        assert 0 <= (said.remote_port or 0) <= 65535
        assert not said.prefix or said.prefix[0] == "/"
        assert b"\r" not in exchange.head.host + b"\n"[1:]
        assert [one for one in exchange.head.fields if one[0] == b"x"] == [(b"x", b"y")]


def proxy_header(data: bytes) -> None:
    """A header of the PROXY protocol is read, or refused; never is more read than the header."""
    left, right = socket.socketpair()
    with left, right, contextlib.closing(asyncio.new_event_loop()) as loop:
        left.setblocking(False)
        right.sendall(data[:8000])
        right.shutdown(socket.SHUT_WR)
        with contextlib.suppress(RequestSyntaxError):
            header = loop.run_until_complete(proxyprotocol.HeaderReader("auto", ["*"], None)._read(loop, left))
            context = ConnectionContext(("192.0.2.1", 1), socket.AF_INET, "http", ("192.0.2.2", 80))
            rest = left.recv(8000)
            assert data[:8000].endswith(rest)
            assert header.family in {None, socket.AF_INET, socket.AF_INET6}
            assert str(context)


# ---------------------------------------------------------------------- WebSocket


def events(pieces: list[bytes], compiled: bool) -> list[object]:
    """Return what a receiver makes of *pieces*."""
    functions = vars(websocket)
    before = functions["_read_frame"]
    functions["_read_frame"] = before if compiled else None
    receiver = websocket.Receiver(max_size=5000, max_fragments=20)
    found: list[object] = []
    try:
        for piece in pieces:
            receiver.feed(piece)
            while (event := receiver.next_event()) is not None:
                if not isinstance(event, websocket.Progress):
                    found.append(event)
    except WebSocketError as exc:
        found.append((exc.code, str(exc)))
    finally:
        functions["_read_frame"] = before
    return found


def frames(data: bytes) -> None:
    """Frames are the same with and without the compiled function, and however they are cut."""
    first = events([data], True)
    for pieces in cuts(data):
        assert events(pieces, True) == events(pieces, False) == first
    if speedups.apply_mask is not None and len(data) > 4:
        assert speedups.apply_mask(data, data[:4]) == apply_mask_pure(data, data[:4])


# ---------------------------------------------------------------------- HTTP/2


def blocks(data: bytes) -> None:
    """Field blocks say the same to both functions, which leave the same table."""
    mine, pure = FieldDecoder(3000), FieldDecoder(3000)
    for block in data.split(b"\n\n"):
        said: list[object] = []
        for decoder, decode in ((mine, mine.decode), (pure, pure._decode)):
            try:
                result: object = decode(block)
            except (CompressionError, ConnectionFault) as exc:
                said.append((type(exc), str(exc)))
            except LimitExceeded as exc:
                said.append((type(exc), str(exc), decoder._table))
            else:
                kept = (decoder._table, decoder._size, decoder.generation, decoder.largest)
                said.append((result, decoder.literals, decoder.never_indexed, kept))
        assert said[0] == said[1]
        if isinstance(said[0], tuple) and len(said[0]) == 2:
            return


def memos(data: bytes) -> None:
    """What a connection keeps of its heads changes none of them."""
    limits = Limits(field_line=300, fields=20)
    usual, forgetful = HeadReader(limits, 3000), memo.Forgetful(limits, 3000)
    # The first octet of a block says how it is read: once more, before it or after the others, with or without content.
    read = data.split(b"\n\n")
    for block in [*read, *reversed(read), *read]:
        ended = bool(block[:1] < b"\x80")
        said = memo.outcome(usual, block[1:], ended)
        assert said == memo.outcome(forgetful, block[1:], ended)
        if isinstance(said, tuple) and isinstance(said[0], type) and issubclass(said[0], ConnectionFault):
            return


def streams(data: bytes) -> None:
    """The compiled and the Python functions say the same of the heads of one connection, and leave the same table."""
    limits = Limits(request_line=60, field_line=300, fields=20)
    mine, pure = HeadReader(limits, 3000), HeadReader(limits, 3000)
    pure._decoder = memo.PureDecoder(3000)
    for block in data.split(b"\n\n"):
        ended = bool(block[:1] < b"\x80")
        said = memo.outcome(mine, block[1:], ended)
        assert said == memo.outcome(pure, block[1:], ended)
        ours, theirs = mine._decoder, pure._decoder
        assert (ours._table, ours._size, ours.generation) == (theirs._table, theirs._size, theirs.generation)
        if isinstance(said, tuple) and isinstance(said[0], type) and issubclass(said[0], ConnectionFault):
            return


def connection(data: bytes) -> None:
    """A connection of HTTP/2 takes any bytes in any cut; what comes of them is the same."""
    wire = PREFACE + frame(SETTINGS, 0, 0) + data
    said: list[Outcome] = []
    for pieces in cuts(wire):
        server = Bridge()
        try:
            said.append(server.feed(*pieces))
        finally:
            server.close()
    assert all(outcome == said[0] for outcome in said)


# ---------------------------------------------------------------------- configuration


def configuration(data: bytes) -> None:
    """A file gives settings or a ConfigError."""
    with tempfile.TemporaryDirectory(prefix="bridge-fuzz-") as directory:
        path = os.path.join(directory, "bridge.toml")
        with open(path, "wb") as file:
            file.write(data)
        with contextlib.suppress(ConfigError):
            resolve(read_file(path))


TARGETS = {
    target.name: target
    for target in (
        Target("heads", heads, HTTP1_WORDS),
        Target("requests", requests, HTTP1_WORDS),
        Target("chunked", chunked, HTTP1_WORDS),
        Target("peers", peers, HTTP1_WORDS),
        Target("environs", environs, [b"cookie:", b"a:", b"x_y:", b"content-type:", b"proxy:", b"\n", b"host:"]),
        Target(
            "multipart",
            form("multipart/form-data; boundary=b"),
            [b"--b", b"--b--", b"\r\n", b'name="a"', b"; filename*=utf-8''%41", b"Content-Disposition: form-data; "],
        ),
        Target("urlencoded", form("application/x-www-form-urlencoded"), [b"&", b"=", b"%", b"%41", b"+", b";"]),
        Target(
            "forwarded",
            forwarded,
            [b"for=", b"proto=https", b"host=", b'"', b"[::1]", b"192.0.2.1", b",", b";", b"unknown", b":80", b"\n"],
        ),
        Target(
            "proxy", proxy_header, [b"PROXY TCP4 ", b"PROXY UNKNOWN", b"\r\n", proxyprotocol._SIGNATURE, b"\x21\x11"]
        ),
        Target(
            "frames", frames, [b"\x81\x85", b"\x82\xfe", b"\x01\x80", b"\x80\x80", b"\x89\x80", b"\x88\x82", bytes(4)]
        ),
        Target(
            "blocks", blocks, [b"\n\n", b"\x40", b"\xbe", b"\x82", b"\x3f\xe1\x1f", b"\x7f\x00", b"\xff\x00", b"\x8c"]
        ),
        Target(
            "streams",
            streams,
            [
                *(
                    b"\n\n\x00\x82\x86\x84\x01\x01a",
                    b"\n\n\xff\x83\x87\x85\xbe",
                    b"\x04\x05/%41?",
                    b"\x41\x01a",
                    b"\xbe",
                ),
                *(
                    b"\x40\x01x\x01y",
                    b"\x00\x06cookie\x01a",
                    b"\x00\x08priority\x03u=1",
                    b"\x00\x04host\x01a",
                    b"\x60\x01c",
                ),
                *(
                    b"\x00\x0econtent-length\x015",
                    b"\x00\x02te\x08trailers",
                    b"\x00\x06expect\x0c100-continue",
                    b"\x20",
                ),
            ],
        ),
        Target(
            "memos",
            memos,
            [
                b"\n\n\x00",
                b"\n\n\xff",
                b"\x82\x86\x84\x01\x01a",
                b"\x82\x86\x84\xbe",
                b"\x41\x01a",
                b"\x40\x01x\x01y",
                b"\x20",
                b"\x60",
            ],
        ),
        Target("sessions", http1_sessions, HTTP1_WORDS),
        Target("sessions2", http2_sessions, SESSION2_WORDS),
        Target(
            "connection",
            connection,
            [
                *(
                    frame(kind, 4, stream, payload)
                    for kind in (0, 1, 9)
                    for stream in (1, 3)
                    for payload in (b"", b"abc")
                ),
                *(frame(1, 5, 1, b"\x82\x86\x84\x01\x01a"), frame(1, 4, 3, b"\x83\x86\x84\x01\x01a"), frame(4, 0, 0)),
                *(
                    frame(2, 0, 1, bytes(5)),
                    frame(3, 0, 1, bytes(4)),
                    frame(6, 0, 0, bytes(8)),
                    frame(7, 0, 0, bytes(8)),
                ),
                *(frame(8, 0, 0, b"\0\0\1\0"), frame(8, 0, 1, b"\x7f\xff\xff\xff"), frame(16, 0, 0, b"\0\0\0\1u=1")),
            ],
        ),
        Target(
            "counts", counts, [bytes((0, 3, 0, 0)), bytes((2, 3, 1, 1)), bytes((1, 2, 120, 2)), bytes((3, 3, 4, 0))]
        ),
        Target("configuration", configuration, FILE_WORDS),
    )
}
