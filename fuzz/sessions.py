"""Whole connections: mutated bytes in any cut, a transport that does anything at any time, applications that misbehave.

An input is a line, which decides all that is random, and after it the bytes that the client sends. Each connection ends
at last, and then the following must hold:

* No exception has escaped into the event loop, and the transport was used as asyncio allows.
* The server, its clock and its budgets know nothing of the connection any more; no task of an application is left.
* The observer was told of each exchange's begin and end once.
* What the client has received is a series of responses (HTTP/1) or frames (HTTP/2), of which only the last one may be
  cut. Each answers its own request, and no content of another response is in it.
* The requests that the application saw are those that the bytes say, in their order, with no other content.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import tempfile
import zlib
from collections.abc import Awaitable, Iterator
from typing import Any

from bridge.adapters.asgi import ASGIDelegate
from bridge.core.connection.interfaces import Observer
from bridge.core.connection.parameters import ConnectionParameters, HTTP2Parameters
from bridge.core.connection.states import DONE
from bridge.core.http.limits import Limits
from bridge.core.httputil import HTTPHeaders, ResponseStartLine
from bridge.core.tornado.dispatch import adapt
from tests.core.connection.test_http2_differential import GET_PLAIN, POST, Client
from tests.support.http2 import CONTINUATION, DATA, HEADERS, PREFACE, RST_STREAM, SETTINGS, HTTP2Link, frame, frames_of
from tests.support.link import Link
from tests.support.reader import read_stream
from tests.support.responses import Response, read_responses

__all__ = ["http1_sessions", "http2_sessions", "transcript"]

STATUSES = [200, 200, 200, 200, 201, 204, 205, 206, 304, 400, 404, 500, 103, 101, 100]
SIZES = [0, 1, 5, 300, 4000, 20_000, 40_000, 100_000]
TIMES = [0.0, 0.01, 0.3, 2.0, 6.0, 11.0, 35.0, 70.0]
FIELDS = [
    (b"content-length", b"5"),
    (b"content-length", b"0"),
    (b"content-length", b"300"),
    (b"content-length", b"-1"),
    (b"connection", b"close"),
    (b"connection", b"keep-alive, x"),
    (b"transfer-encoding", b"chunked"),
    (b"upgrade", b"x"),
    (b"x", b"a\r\nb: c"),
    (b"trailer", b"x-end"),
    (b"set-cookie", b"a=b"),
    (b"keep-alive", b"timeout=5"),
    (b"date", b"now"),
    (b"x y", b"z"),
]


class Observed(Observer):
    """Counts what an observer is told."""

    def __init__(self) -> None:
        self.started: list[Any] = []
        self.ended: list[Any] = []
        self.opened = self.closed = 0

    def connection_opened(self, connection: Any) -> None:
        self.opened += 1

    def connection_closed(self, connection: Any) -> None:
        self.closed += 1

    def exchange_started(self, exchange: Any) -> None:
        self.started.append(exchange)

    def exchange_ended(self, exchange: Any) -> None:
        assert exchange.finished
        self.ended.append(exchange)


class Session:
    """One connection, and who is at it.

    Args:
        plan: Decides all that is random.
        http2: The connection speaks HTTP/2.

    Attributes:
        link: The connection.
        seen: The content that the application was given of each request, by the exchange's number.
        complete: The numbers of the requests that the application saw the end of.
    """

    def __init__(self, plan: bytes, *, http2: bool) -> None:
        rng = self.rng = random.Random(zlib.crc32(plan))
        self.observed = Observed()
        self.seen: dict[int, bytes] = {}
        self.complete: set[int] = set()
        self.tls = rng.random() < 0.2
        self.limits = Limits() if rng.random() < 0.9 else Limits(request_line=60, field_line=60, fields=6, head=300)
        self.max_body = rng.choice([None, None, 100, 100_000])
        self.asgi = ASGIDelegate(self.app, timeout=rng.choice([None, None, 5.0]), grace=rng.choice([0.5, 3.0, None]))
        delegate: Any = self.asgi
        self.callback = rng.random() < 0.3
        if self.callback:
            delegate = adapt(self.tornado)
        parameters = ConnectionParameters(
            limits=self.limits,
            max_body_size=self.max_body,
            chunk_size=rng.choice([1, 3, 1000, 65536, 65536]),
            no_keep_alive=rng.random() < 0.1,
            max_requests=rng.choice([0, 0, 0, 2]),
            limit_after_start=self.callback,
            observer=self.observed,
            timed=rng.random() < 0.5,
            http2=HTTP2Parameters(
                cleartext=lambda context: True,
                extended_connect=True,
                max_concurrent_streams=rng.choice([1, 3, 128]),
                ping_interval=rng.choice([None, None, 20.0]),
            )
            if http2
            else None,
        )
        self.link: Link = (HTTP2Link if http2 else Link)(delegate, parameters, tls=self.tls)

    # ------------------------------------------------------------------ the applications

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        number = self.next_number()
        if scope["type"] == "websocket":
            await self.socket(receive, send)
            return
        rng = random.Random(self.rng.random())
        files = contextlib.ExitStack()
        with files:
            for _ in range(rng.choice([0, 0, 0, 1, 2, 8])):
                await self.step(number, rng, receive, send, files)
            if rng.random() < 0.93:
                await self.usual(number, rng, receive, send)

    def next_number(self) -> int:
        """Return the number of a request that the application has just been given."""
        number = len(self.seen)
        self.seen[number] = b""
        return number

    async def usual(self, number: int, rng: random.Random, receive: Any, send: Any) -> None:
        """What most applications do."""
        while rng.random() < 0.9 and not await self.read(number, receive):
            pass
        headers = [(b"x-app", b"%d" % number)]
        trailers = rng.random() < 0.1
        await send({"type": "http.response.start", "status": 200, "headers": headers, "trailers": trailers})
        while rng.random() < 0.3:
            await send({"type": "http.response.body", "body": self.content(number, rng), "more_body": True})
            if rng.random() < 0.3:
                await asyncio.sleep(rng.choice(TIMES))
        await send({"type": "http.response.body", "body": self.content(number, rng)})
        if trailers:
            await send({"type": "http.response.trailers", "headers": [(b"x-end", b"1")]})

    async def read(self, number: int, receive: Any) -> bool:
        """Read a piece; tell whether it was the last."""
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionResetError
        self.seen[number] += message["body"]
        if not message.get("more_body"):
            self.complete.add(number)
        return not message.get("more_body")

    def content(self, number: int, rng: random.Random) -> bytes:
        return bytes([65 + number % 26]) * rng.choice(SIZES)

    async def step(self, number: int, rng: random.Random, receive: Any, send: Any, files: contextlib.ExitStack) -> None:
        kind = rng.randrange(13)
        if kind == 0:
            await self.read(number, receive)
        elif kind == 1:
            await asyncio.sleep(rng.choice(TIMES))
        elif kind == 2:
            fields = rng.sample(FIELDS, rng.choice([0, 0, 1, 2]))
            trailers = rng.random() < 0.3
            message = {"type": "http.response.start", "status": rng.choice(STATUSES), "trailers": trailers}
            await send({**message, "headers": [(b"x-app", b"%d" % number), *fields]})
        elif kind in {3, 4, 5}:
            more = rng.random() < 0.7
            await send({"type": "http.response.body", "body": self.content(number, rng), "more_body": more})
        elif kind == 6:
            await send({"type": "http.response.trailers", "headers": [(b"x-end", b"1")]})
        elif kind == 7:
            await send({"type": "http.response.early_hint", "links": [b"</a>; rel=preload"]})
        elif kind == 8:
            raise rng.choice([ValueError, SystemExit, KeyboardInterrupt, asyncio.CancelledError, OSError])
        elif kind == 9:
            if rng.random() < 0.2:
                await asyncio.Event().wait()
        elif kind == 10:
            with contextlib.suppress(Exception):
                await asyncio.wait_for(self.read(number, receive), 1.0)
        elif kind == 11:
            file = files.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 -- it is one
            file.write(self.content(number, rng))
            message = {"type": "http.response.zerocopysend", "file": file, "offset": 0}
            await send({**message, "more_body": rng.random() < 0.5})
        else:
            with contextlib.suppress(Exception):
                await self.step(number, rng, receive, send, files)

    async def socket(self, receive: Any, send: Any) -> None:
        rng = random.Random(self.rng.random())
        if rng.random() < 0.9:
            await receive()
        if rng.random() < 0.8:
            await send({"type": "websocket.accept"})
        for _ in range(rng.randrange(8)):
            kind = rng.randrange(5)
            if kind == 0:
                await receive()
            elif kind == 1:
                await send({"type": "websocket.send", "text": "x" * rng.choice(SIZES)})
            elif kind == 2:
                await asyncio.sleep(rng.choice(TIMES))
            elif kind == 3 and rng.random() < 0.3:
                await send({"type": "websocket.close", "code": rng.choice([1000, 3000, 1001, 5])})
            elif rng.random() < 0.1:
                raise ValueError

    def tornado(self, request: Any) -> Awaitable[None] | None:
        number = self.next_number()
        self.seen[number] = request.body
        self.complete.add(number)
        rng = random.Random(self.rng.random())
        if rng.random() < 0.5:
            self.respond(number, rng, request.connection)
            return None

        async def later() -> None:
            await asyncio.sleep(rng.choice(TIMES))
            self.respond(number, rng, request.connection)

        return later()

    def respond(self, number: int, rng: random.Random, connection: Any) -> None:
        begun = False  # before the head, write() sends bytes that the application frames itself
        for _ in range(rng.choice([0, 0, 1, 3, 6])):
            kind = rng.randrange(8)
            if kind in {0, 1}:
                begun = True
                headers = HTTPHeaders({"X-App": str(number)})
                for name, value in rng.sample(FIELDS, rng.choice([0, 0, 1, 2])):
                    headers.add(name.decode(), value.decode())
                line = ResponseStartLine("HTTP/1.1", rng.choice(STATUSES), "Fine")
                content = self.content(number, rng)
                connection.write_headers(line, headers, content)
            elif kind in {2, 3} and begun:
                connection.write(self.content(number, rng))
            elif kind == 4:
                connection.finish()
            elif kind == 5 and rng.random() < 0.5:
                raise rng.choice([ValueError, KeyError])
            elif kind == 6 and rng.random() < 0.1:
                connection.set_close_callback(lambda: None)
        if rng.random() < 0.9:
            headers = HTTPHeaders({"X-App": str(number)})
            connection.write_headers(ResponseStartLine("HTTP/1.1", 200, "OK"), headers, self.content(number, rng))
            connection.finish()

    # ------------------------------------------------------------------ the client, the system, the server

    def play(self, wire: bytes) -> None:
        """Let everybody do what the plan says, until the connection ends."""
        rng, link = self.rng, self.link
        pieces = list(self.pieces(wire))
        rude, longest = rng.choice([(0.0, 3), (0.0, 3), (0.2, 5), (0.2, len(TIMES))])  # most let the connection live
        while not link.transport.lost and (pieces or rng.random() < 0.8):
            chance = rng.random()
            if chance < 0.5 and pieces:
                link.loop.call_soon(link.transport.peer_sends, pieces.pop(0))
                self.go_on()
            elif chance < 0.5 + rude / 2:
                self.end_somehow()
            else:
                self.go_on()
                self.pass_time(TIMES[:longest])
        if not link.transport.lost and rng.random() < 0.7:
            link.read()
            link.loop.advance(80.0, 1.0)

    def go_on(self) -> None:
        """Let one turn of the loop pass, or as many as there are."""
        if self.rng.random() < 0.5:
            self.link.loop.turn()
        else:
            self.link.loop.settle()

    def pass_time(self, times: list[float]) -> None:
        """Let the client read or not, or time pass."""
        kind = self.rng.randrange(6)
        if kind == 0:
            self.link.stop_reading()
        elif kind == 1:
            self.link.read(self.rng.choice([1, 100, 20_000]))
        elif kind in {2, 3}:
            self.link.read()
        elif kind == 4:
            self.link.loop.advance(self.rng.choice(times), 0.25)

    def end_somehow(self) -> None:
        """Let one of the two sides, or the system, do what may end the connection."""
        rng, link = self.rng, self.link
        kind = rng.randrange(12)
        if kind in {0, 1, 2}:
            link.send_eof()
        elif kind == 3:
            link.reset()
        elif kind in {4, 5}:
            link.loop.call(link.connection.close_when_idle, rng.choice([0.0, 1.0]))
        elif kind == 6:
            link.loop.call(link.connection.abort)
        elif kind == 7:
            link.loop.jump(rng.choice(TIMES))
        elif kind == 8:
            link.loop.call(self.asgi.stop, 0.1)

    def pieces(self, wire: bytes) -> Iterator[bytes]:
        sizes = self.rng.choice([[1], [1, 2, 5, 20], [10, 100, 1000], [100_000]])
        if sizes == [1] and len(wire) > 300:
            sizes = [7]
        at = 0
        while at < len(wire):
            size = self.rng.choice(sizes)
            yield wire[at : at + size]
            at += size

    def end(self) -> None:
        """End the connection, and check what must hold of every one."""
        link = self.link
        loop = link.loop
        try:
            if not link.transport.lost:
                link.reset()
            loop.settle()
            if (
                self.tls
            ):  # the peer's EOF closes the transport one turn before connection_lost(): it drops what is written
                link.transport.faults = [fault for fault in link.transport.faults if fault != "write() after close()"]
            loop.advance(80.0, 1.0)
            for task, served in tuple(self.asgi.tasks.items()):
                # Who has answered may go on for ever, and so may everybody where nothing ends them.
                assert self.asgi._grace is None or served.exchange.writing is DONE, "a task goes on"
                task.cancel()
            loop.settle()
            assert not self.asgi.tasks, "a task is left"
            assert not self.asgi.websockets, "a WebSocket is left"
            assert not asyncio.all_tasks(loop), "a task of nobody is left"
        finally:
            for task in asyncio.all_tasks(loop):
                task.cancel()
            link.end()
        assert self.observed.opened == self.observed.closed == 1
        assert len(self.observed.started) == len(set(map(id, self.observed.started)))
        assert sorted(map(id, self.observed.ended)) == sorted(map(id, self.observed.started))
        assert len(self.observed.started) == link.connection.requests


def run(plan: bytes, wire: bytes, *, http2: bool) -> Session:
    """Play a session to its end; return it."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    session = Session(plan, http2=http2)
    try:
        try:
            session.play(wire)
        finally:
            session.end()
    finally:
        if not session.link.loop.is_closed():
            session.link.loop.close()
        logging.disable(before)
    return session


# ---------------------------------------------------------------------- HTTP/1

_LINE = b" /%d HTTP/1.1\r\nHost: a\r\n"
_LEGAL = [
    b"GET" + _LINE + b"\r\n",
    b"HEAD" + _LINE + b"\r\n",
    b"POST" + _LINE + b"Content-Length: 5\r\n\r\nhello",
    b"POST" + _LINE + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    b"PUT" + _LINE + b"Content-Length: 70000\r\n\r\n" + b"x" * 70_000,
    b"PUT" + _LINE + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;x\r\nabc\r\n0\r\nX: y\r\n\r\n",
    b"GET /%d HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
]


def http1_parts(data: bytes) -> tuple[bytes, bytes]:
    """Return the plan and the bytes of an input: the plan makes requests, and the rest of the input follows them."""
    plan, _, rest = data.partition(b"\n")
    rng = random.Random(zlib.crc32(plan))
    legal = [rng.choice(_LEGAL) % number for number in range(rng.choice([0, 1, 3, 8]))]
    return plan, b"".join(legal) + rest


def http1_sessions(data: bytes) -> None:
    """Sessions of HTTP/1."""
    plan, wire = http1_parts(data)
    session = run(plan, wire, http2=False)
    exchanges = session.observed.started
    if session.link.taken:
        return  # another protocol has spoken, and tests/core/websocket looks at that
    # What was read is what the bytes say.
    said = read_stream([wire], session.limits)
    requests = [(one.head.method, one.head.target, one.content) for one in said.requests]
    if said.begun is not None:
        head = said.begun[0]
        # Read at once, content shows nothing of what stands in front of a fault; in pieces it does.
        requests.append((head.method, head.target, wire if said.refused else said.begun[1]))
    assert len(exchanges) <= len(requests) + (said.refused is not None)
    for number, (exchange, (method, target, content)) in enumerate(zip(exchanges, requests, strict=False)):
        assert (exchange.head.method, exchange.head.target) == (method, target)
        seen = session.seen.get(number, b"")
        assert content is wire or content.startswith(seen), "content of something else"
        assert number not in session.complete or seen == content, "a part of the content, taken for all of it"
    check_http1(session, exchanges)


def check_http1(session: Session, exchanges: list[Any]) -> None:
    """Check that each response answers its own request."""
    transport = session.link.transport
    methods = [exchange.head.method.decode("latin-1") for exchange in exchanges]
    responses = read_responses(session.link.received, methods, ended=True, cut=True)
    assert len(responses) <= len(exchanges) + 1
    for response in responses[:-1]:
        assert response.complete
        assert not response.closes
    for number, response in enumerate(responses):
        if number >= len(exchanges):
            assert response.closes
            assert response.status >= 400
            continue
        check_content(response, exchanges[number])
        ended_by_length = response[b"content-length"] is not None
        if response.complete and exchanges[number].writing is not DONE and not ended_by_length:
            assert response[b"x-app"] is None or transport.aborted or transport._gone, "a cut that looks like an end"


def check_content(response: Response, exchange: Any) -> None:
    number = response[b"x-app"]
    if number is None:
        assert response.status >= 400, "a response of nobody's"
        return
    expected = bytes([65 + int(number) % 26])
    assert not response.content.strip(expected), "another response's content"


# ---------------------------------------------------------------------- HTTP/2


def http2_sessions(data: bytes) -> None:
    """Sessions of HTTP/2."""
    session = run(*http2_parts(data), http2=True)
    received = session.link.received
    cut = session.link.transport.aborted or session.link.transport._gone or session.link.transport.window is not None
    check_frames(whole_frames(received) if cut else received)


def http2_parts(data: bytes) -> tuple[bytes, bytes]:
    """Return the plan and the bytes of an input: the plan makes frames, and the rest of the input stands among them."""
    plan, _, rest = data.partition(b"\n")
    rng = random.Random(zlib.crc32(plan))
    client = Client(rng)
    legal = []
    for stream in range(1, rng.choice([1, 3, 9, 21]), 2):
        client.next = stream + 2
        if rng.random() < 0.6:
            legal.append(frame(HEADERS, 5, stream, GET_PLAIN))
        else:
            content = frame(DATA, int(rng.random() < 0.8), stream, b"x" * rng.choice([0, 5, 16_384]))
            legal += [frame(HEADERS, 4, stream, POST), content]
    frames = [client.frame() for _ in range(rng.choice([0, 0, 5, 20]))]
    frames.insert(rng.randrange(len(frames) + 1), rest)
    frames = legal + frames
    return plan, PREFACE + frame(SETTINGS, 0, 0) + b"".join(frames)


def whole_frames(data: bytes) -> bytes:
    """Return *data* without a frame at its end that is not complete."""
    at = 0
    while at + 9 <= len(data) and (end := at + 9 + int.from_bytes(data[at : at + 3], "big")) <= len(data):
        at = end
    return data[:at]


def check_frames(data: bytes) -> None:
    """Check that no stream says more than a response."""
    ended: set[int] = set()
    begun: set[int] = set()
    for item in frames_of(data):
        assert item.kind != CONTINUATION
        if item.kind in {DATA, HEADERS}:
            assert item.stream not in ended, "a frame after the end of a stream"
            assert item.kind == HEADERS or item.stream in begun, "content without a head"
            begun.add(item.stream)
            if item.flags & 1:
                ended.add(item.stream)
        elif item.kind == RST_STREAM:
            ended.add(item.stream)


def transcript(data: bytes, *, http2: bool) -> bytes:
    """Return what a client has received in a session; to compare the compiled functions with those of Python."""
    plan, wire = (http2_parts if http2 else http1_parts)(data)
    return run(plan, wire, http2=http2).link.received
