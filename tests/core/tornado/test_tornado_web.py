"""A tornado.web.Application answers on bridge with the same bytes as on Tornado's own server."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import logging
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("tornado")

import tornado.httpserver
import tornado.iostream
import tornado.web
import tornado.websocket

from bridge.core.httpserver import HTTPServer
from tests.support.asgi import LIMIT, connect
from tests.support.tornadostyle import port_of

SERVERS = {"tornado": tornado.httpserver.HTTPServer, "bridge": HTTPServer}
TEXT = bytes(range(256)) * 40


class Plain(tornado.web.RequestHandler):
    """Says what it was asked; HEAD is answered like GET."""

    SUPPORTED_METHODS = (*tornado.web.RequestHandler.SUPPORTED_METHODS, "MKCOL")

    def get(self) -> None:
        request = self.request
        self.set_header("X-Seen", f"{request.method} {request.uri} {request.remote_ip} {request.protocol}")
        self.set_cookie("a", "b")
        self.add_header("X-Twice", "1")
        self.add_header("X-Twice", "2")
        self.write({"arguments": sorted(self.request.arguments), "host": request.host, "version": request.version})

    head = get
    mkcol = get

    def post(self) -> None:
        files = [
            f"{name}:{file.filename}:{len(file.body)}" for name, found in self.request.files.items() for file in found
        ]
        names = {name: self.get_body_arguments(name) for name in self.request.body_arguments}
        self.write({"body": len(self.request.body), "arguments": names, "files": files})

    put = post


class Status(tornado.web.RequestHandler):
    """Answers with the status that the path says."""

    def get(self, status: str) -> None:
        if status == "500":
            raise RuntimeError("on purpose")
        if status == "403":
            raise tornado.web.HTTPError(403, "log", reason="Not For You")
        if status == "302":
            self.redirect("/elsewhere")
            return
        self.set_status(int(status))
        if int(status) not in {204, 304}:
            self.write("text")

    delete = get


class Flushing(tornado.web.RequestHandler):
    """Sends content in pieces."""

    async def get(self, how: str) -> None:
        if "declared" in how:
            self.set_header("Content-Length", "300")
        for number in range(3):
            self.write(bytes([65 + number]) * 100)
            await self.flush()
            if "broken" in how:
                raise RuntimeError("on purpose")

    head = get


@tornado.web.stream_request_body
class Upload(tornado.web.RequestHandler):
    """Takes content as it comes, and lets it wait."""

    def prepare(self) -> None:
        self.total = 0
        self.request.connection.set_max_body_size(1 << 20)
        if self.get_query_argument("no", None):
            self.set_status(409)
            self.finish("no")

    async def data_received(self, chunk: bytes) -> None:
        await asyncio.sleep(0)
        self.total += len(chunk)

    def put(self) -> None:
        self.write(f"{self.total} bytes")

    post = put


class Echo(tornado.websocket.WebSocketHandler):
    """Sends back what it gets."""

    def get_compression_options(self) -> dict[str, Any] | None:
        return {} if self.get_query_argument("compress", None) else None

    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        return "chat" if "chat" in subprotocols else None

    def on_message(self, message: str | bytes) -> None:
        self.write_message(message, binary=isinstance(message, bytes))


class Endless(tornado.web.RequestHandler):
    """Sends until nobody is there any more, or far too much for everything between here and there."""

    async def get(self) -> None:
        gone = self.application.settings["gone"]
        try:
            for _ in range(2000):
                self.write(b"x" * 65536)
                await self.flush()
        except tornado.iostream.StreamClosedError as exc:
            gone.put_nowait(exc)

    def on_connection_close(self) -> None:
        self.application.settings["gone"].put_nowait("closed")


def application(path: Path, **settings: Any) -> tornado.web.Application:
    (path / "text.bin").write_bytes(TEXT)
    return tornado.web.Application(
        [
            ("/status/([0-9]+)", Status),
            ("/flush/(.*)", Flushing),
            ("/upload", Upload),
            ("/ws", Echo),
            ("/endless", Endless),
            ("/static/(.*)", tornado.web.StaticFileHandler, {"path": str(path)}),
            ("/plain.*", Plain),
        ],
        compress_response=True,
        gone=asyncio.Queue(),
        **settings,
    )


@asynccontextmanager
async def running(kind: str, app: Any, **options: Any) -> AsyncIterator[int]:
    server = SERVERS[kind](app, **options)
    server.listen(0, "127.0.0.1")
    try:
        yield port_of(server)
    finally:
        server.stop()
        async with asyncio.timeout(LIMIT):
            await server.close_all_connections()


_HEAD = re.compile(rb"HTTP/1\.1 \d{3}.*?\r\n\r\n", re.DOTALL)


def normal(data: bytes) -> bytes:
    """Return responses without Date and Server, their fields in lower case and in the order of their names."""

    def head(match: re.Match[bytes]) -> bytes:
        status, *lines = match[0].split(b"\r\n")[:-2]
        fields = [(name.lower(), value) for name, _, value in [line.partition(b":") for line in lines]]
        # Connection's options are in lower case or not (RFC 9110 section 7.6.1).
        fields = [(name, value.lower() if name == b"connection" else value) for name, value in fields]
        fields.sort(key=lambda field: field[0])  # a stable sort: the order of one name's lines counts
        # What Expires says is counted from now, and the two servers are not asked in the same second.
        timeless = [(name, b" then" if name == b"expires" else value) for name, value in fields]
        kept = [b"%b:%b" % field for field in timeless if field[0] not in {b"date", b"server"}]
        return b"\r\n".join([status, *kept, b"", b""])

    return _HEAD.sub(head, data)


def ask(target: str, *fields: str, method: str = "GET", version: str = "1.1", content: bytes = b"") -> bytes:
    length = [f"Content-Length: {len(content)}"] if content else []
    lines = [f"{method} {target} HTTP/{version}", "Host: example.com:80", *length, *fields, "", ""]
    return "\r\n".join(lines).encode() + content


def chunked(target: str, *chunks: bytes, fields: tuple[str, ...] = (), method: str = "POST") -> bytes:
    head = ask(target, "Transfer-Encoding: chunked", *fields, method=method)
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in (*chunks, b""))


ETAG = f'"{hashlib.sha512(TEXT).hexdigest()}"'
PLAIN = json.dumps({"arguments": [], "host": "example.com:80", "version": "HTTP/1.1"}).encode()
PLAIN_TAG = hashlib.sha1(PLAIN, usedforsecurity=False).hexdigest()
FORM = "Content-Type: application/x-www-form-urlencoded"
MULTIPART = "Content-Type: multipart/form-data; boundary=b"
PARTS = (
    b'--b\r\nContent-Disposition: form-data; name="f"; filename="n"\r\n\r\n' + TEXT + b"\r\n"
    b'--b\r\nContent-Disposition: form-data; name="v"\r\n\r\nvalue\r\n--b--\r\n'
)
HANDSHAKE = ("Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==")
V13 = "Sec-WebSocket-Version: 13"
KEEP = "Connection: keep-alive"
END = ask("/plain/end", "Connection: close")

#: What is sent; behind it comes END, which is answered if the connection has been kept.
SAME = {
    "get": ask("/plain?b=1&a=%C3%A9"),
    "pipelined": ask("/plain/1") + ask("/plain", method="POST", content=b"x") + ask("/plain/2", method="HEAD"),
    "cookies": ask("/plain", 'Cookie: a=b; c="d"'),
    "head": ask("/plain", method="HEAD"),
    "another method": ask("/plain", method="MKCOL"),
    "unknown method": ask("/plain", method="BREW"),
    "method not allowed": ask("/plain", method="DELETE"),
    "options not allowed": ask("/plain", method="OPTIONS"),
    "not found": ask("/nowhere"),
    "not found, with content": ask("/nowhere", method="POST", content=b"x" * 100),
    "not modified by tag": ask("/plain", f'If-None-Match: "0", W/"{PLAIN_TAG}"'),
    "not modified by any tag": ask("/plain", "If-None-Match: *"),
    "close": ask("/plain", "Connection: close"),
    "close in capitals": ask("/plain", "Connection: Close"),
    "error": ask("/status/500"),
    "error with a reason": ask("/status/403"),
    "redirect": ask("/status/302"),
    "created": ask("/status/201"),
    "status without a name": ask("/status/299"),
    "no content": ask("/status/204"),
    "no content after delete": ask("/status/204", method="DELETE"),
    "not modified": ask("/status/304"),
    "streamed": ask("/flush/"),
    "streamed with a length": ask("/flush/declared"),
    "streamed to HEAD": ask("/flush/", method="HEAD"),
    "streamed with a length to HEAD": ask("/flush/declared", method="HEAD"),
    "streamed, then closed": ask("/flush/", "Connection: close"),
    "streamed and broken": ask("/flush/broken"),
    "streamed with a length and broken": ask("/flush/declared-broken"),
    "form": ask("/plain", FORM, method="POST", content=b"a=1&b=%C3%A9&a=2&c="),
    "form by PUT": ask("/plain", FORM, method="PUT", content=b"a=1"),
    "form in chunks": chunked("/plain", b"a=1&", b"b", b"=2", fields=(FORM,)),
    "multipart": ask("/plain", MULTIPART, method="POST", content=PARTS),
    "multipart in chunks": chunked("/plain", PARTS[:5], PARTS[5:9000], PARTS[9000:], fields=(MULTIPART,)),
    "malformed multipart": ask("/plain", MULTIPART, method="POST", content=PARTS[:-9]),
    "large content": ask("/plain", method="POST", content=b"x" * 300_000),
    "empty content": ask("/plain", "Content-Length: 0", method="POST"),
    "no content at all": ask("/plain", method="POST"),
    "gzip": ask("/plain", FORM, "Content-Encoding: gzip", method="POST", content=gzip.compress(b"a=1&b=2")),
    "gzip in chunks": chunked("/plain", gzip.compress(b"a=1&b=2"), fields=(FORM, "Content-Encoding: gzip")),
    "other coding": ask("/plain", FORM, "Content-Encoding: br", method="POST", content=b"x"),
    "streamed upload": ask("/upload", method="PUT", content=b"x" * 200_000),
    "streamed upload in chunks": chunked("/upload", *[b"x" * 5000] * 40, method="PUT"),
    "streamed upload of gzip": ask("/upload", "Content-Encoding: gzip", method="PUT", content=gzip.compress(TEXT)),
    "streamed upload of nothing": ask("/upload", "Content-Length: 0", method="PUT"),
    "forwarded": ask("/plain", "X-Forwarded-For: 192.0.2.1, 192.0.2.2", "X-Forwarded-Proto: https"),
    "forwarded, not an address": ask("/plain", "X-Real-Ip: nobody", "X-Scheme: gopher"),
    "HTTP/1.0": ask("/plain", version="1.0"),
    "HTTP/1.0 kept": ask("/plain", KEEP, version="1.0") + ask("/plain", "Connection: Keep-Alive", version="1.0"),
    "HTTP/1.0 HEAD kept": ask("/plain", KEEP, version="1.0", method="HEAD"),
    "HTTP/1.0 form kept": ask("/plain", KEEP, FORM, version="1.0", method="POST", content=b"a=1"),
    "HTTP/1.0 streamed": ask("/flush/", version="1.0"),
    "HTTP/1.0 streamed with a length, kept": ask("/flush/declared", KEEP, version="1.0"),
    "HTTP/1.0 no content kept": ask("/status/304", KEEP, version="1.0"),
    "HTTP/1.0 error kept": ask("/status/500", KEEP, version="1.0"),
    "file": ask("/static/text.bin"),
    "file, HEAD": ask("/static/text.bin", method="HEAD"),
    "file not found": ask("/static/other"),
    "file outside": ask("/static/../text.bin"),
    "file of a version": ask("/static/text.bin?v=1"),
    "range": ask("/static/text.bin", "Range: bytes=3-9"),
    "range, HEAD": ask("/static/text.bin", "Range: bytes=3-9", method="HEAD"),
    "open range": ask("/static/text.bin", "Range: bytes=10000-"),
    "suffix range": ask("/static/text.bin", "Range: bytes=-7"),
    "long suffix range": ask("/static/text.bin", "Range: bytes=-70000"),
    "range past the end": ask("/static/text.bin", "Range: bytes=10000-20000"),
    "range behind the end": ask("/static/text.bin", "Range: bytes=20000-"),
    "several ranges": ask("/static/text.bin", "Range: bytes=1-2,4-5"),
    "malformed range": ask("/static/text.bin", "Range: lines=1-2"),
    "file by tag": ask("/static/text.bin", f"If-None-Match: {ETAG}"),
    "file by another tag": ask("/static/text.bin", 'If-None-Match: "x"'),
    "file by date": ask("/static/text.bin", "If-Modified-Since: Fri, 31 Dec 2100 23:59:59 GMT"),
    "file by an old date": ask("/static/text.bin", "If-Modified-Since: Mon, 01 Jan 1990 00:00:00 GMT"),
    "file by tag and range": ask("/static/text.bin", f"If-None-Match: {ETAG}", "Range: bytes=1-2"),
    "WebSocket without Upgrade": ask("/ws"),
    "WebSocket of another origin": ask("/ws", *HANDSHAKE, V13, "Origin: http://other.example"),
    "WebSocket without a key": ask("/ws", *HANDSHAKE[:2], V13),
}


#: What is sent, the status lines of Tornado's answers and of ours, and why they differ. END is answered where
#: the connection has been kept.
DIFFERENT = {
    "too large": (
        ask("/plain", "Content-Length: 2000000000", method="POST"),
        ["400 Bad Request"],
        [f"413 {HTTPStatus(413).phrase}"],
        "RFC 9110 15.5.14",
    ),
    "bad gzip": (
        ask("/plain", FORM, "Content-Encoding: gzip", method="POST", content=b"a=1"),
        ["400 Bad Request"],
        ["400 Bad Request"],
        "RFC 9112 6.3: the refusal is framed",
    ),
    "malformed": (b"GET  /plain HTTP/1.1\r\n\r\n", ["400 Bad Request"], ["400 Bad Request"], "RFC 9112 6.3: likewise"),
    "expected": (
        ask("/plain", "Expect: 100-continue", method="POST", content=b"x"),
        ["100 (Continue)", "200 OK", "200 OK"],
        ["100 Continue", "200 OK", "200 OK"],
        "RFC 9110 15.2.1: the name of 100",
    ),
    "HTTP/1.0 streamed, kept": (
        ask("/flush/", KEEP, version="1.0"),
        ["200 OK", "200 OK"],
        ["200 OK"],
        "RFC 9112 6.3: nothing but the close ends such content",
    ),
    "HTTP/1.0 form without a length, kept": (
        ask("/plain", KEEP, version="1.0", method="POST"),
        ["200 OK"],
        ["200 OK", "200 OK"],
        "RFC 9112 6.3: no length means no content",
    ),
    "answered early": (
        ask("/upload?no=1", method="PUT", content=b"x" * 1000),
        ["409 Conflict"],
        ["409 Conflict", "200 OK"],
        "RFC 9112 9.3: what is left of the content is read",
    ),
    "close among others": (
        ask("/plain", "Connection: foo, close"),
        ["200 OK", "200 OK"],
        ["200 OK"],
        "RFC 9110 7.6.1: Connection is a list",
    ),
}


async def talk(port: int, wire: bytes) -> bytes:
    async with connect(port) as client:
        client.send(wire + END)
        return normal(await client.rest())


OPTIONS = {"xheaders": True, "decompress_request": True}


@pytest.mark.parametrize("name", SAME)
async def test_the_same_bytes(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    app = application(tmp_path)
    answers = []
    for kind in SERVERS:
        async with running(kind, app, **OPTIONS) as port:
            answers.append(await talk(port, SAME[name]))
    theirs, ours = answers
    assert ours == theirs
    assert ours.startswith(b"HTTP/1.1 ")


@pytest.mark.parametrize("name", DIFFERENT)
async def test_other_bytes_for_a_reason(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    app = application(tmp_path)
    wire, theirs, ours, reason = DIFFERENT[name]
    assert reason.startswith("RFC 91")
    for kind, expected in zip(SERVERS, (theirs, ours), strict=True):
        async with running(kind, app, **OPTIONS) as port:
            answer = await talk(port, wire)
        lines = re.findall(rb"HTTP/1\.1 ([1-5][0-9]{2} [^\r]*)\r\n", answer)
        assert [line.decode() for line in lines] == expected
        if kind == "bridge" and len(ours) == 1:
            assert b"\r\nconnection: close\r\n" in answer or "1.0" in name


class Refused(tornado.web.RequestHandler):
    """Sets what no response may have, and does with the error what the path says."""

    async def get(self, what: str, then: str) -> None:
        if what.isdigit():
            self.set_status(int(what), "x")
        else:
            self.set_header(what, "v")
        self.write("text")
        if then == "finish":
            return
        try:
            await self.flush()
        except Exception:
            if then == "again":
                self.clear()
                self.finish("again")
            elif then == "forge":
                self.request.connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged")
                self.finish()
            elif then == "raise":
                raise


@pytest.mark.parametrize("then", ["finish", "raise", "again", "forge", "swallow"])
async def test_a_refused_head_never_leaves_the_client_waiting(then: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    refused = ["X%20A", "X%0D%0AB", "X%C3%A9", "99", "1000"]
    if then != "finish":  # for these Tornado's finish() answers 500 itself
        refused += ["100", "101", "103"]

    async def ask(port: int, what: str) -> bytes:
        wire = f"GET /{what}/{then} HTTP/1.1\r\nHost: a\r\n\r\nGET /99/next HTTP/1.1\r\nHost: a\r\n\r\n"
        async with connect(port) as client:
            client.send(wire.encode())
            return await client.rest()

    async with running("bridge", tornado.web.Application([("/(.*)/(.*)", Refused)])) as port:
        for answer in await asyncio.gather(*(ask(port, what) for what in refused)):
            final = re.sub(rb"^HTTP/1\.1 1.*?\r\n\r\n", b"", answer, flags=re.DOTALL)
            assert final.startswith(b"HTTP/1.1 500 ")
            assert b"\r\nconnection: close\r\n" in final
            assert b"forged" not in final
            assert final.count(b"HTTP/1.1 ") == 1


# ---------------------------------------------------------------------- WebSockets


def frame(code: int, content: bytes) -> bytes:
    """Return a client's frame, whose mask is all zeros."""
    size = len(content)
    length = bytes([128 + size]) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
    return bytes([code]) + length + bytes(4) + content


FRAMES = [
    frame(0x81, "h\u00e9llo".encode()),
    frame(0x82, TEXT),
    frame(0x01, b"in ") + frame(0x89, b"ping") + frame(0x80, b"pieces"),
    frame(0x88, (1000).to_bytes(2, "big") + b"bye"),
]


@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("compress", [True, False])
async def test_websockets(compress: bool, together: bool, tmp_path: Path) -> None:
    fields = [*HANDSHAKE, V13, "Sec-WebSocket-Protocol: talk, chat"]
    if compress:
        fields.append("Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")
    handshake = ask("/ws?compress=1" if compress else "/ws", *fields)
    transcripts = []
    for kind in SERVERS:
        async with running(kind, application(tmp_path)) as port, connect(port) as client:
            if together:
                client.send(handshake + b"".join(FRAMES))
            else:
                client.send(handshake)
                for piece in FRAMES:
                    for at in range(0, len(piece), 1000):
                        client.send(piece[at : at + 1000])
                        await asyncio.sleep(0)
            transcripts.append(normal(await client.rest()))
    theirs, ours = transcripts
    assert ours == theirs
    assert ours.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert ours.endswith(b"\x88\x02\x03\xe8")
    assert (b"permessage-deflate" in ours) is compress
    assert (TEXT in ours) is not compress


@pytest.mark.parametrize("kind", SERVERS)
async def test_pings_of_the_application(kind: str, tmp_path: Path) -> None:
    app = application(tmp_path, websocket_ping_interval=0.05, websocket_ping_timeout=0.05)
    async with running(kind, app) as port, connect(port) as client:
        client.send(ask("/ws", *HANDSHAKE, V13))
        assert (await client.head())[0] == 101
        async with asyncio.timeout(LIMIT):
            assert await client.reader.readexactly(2) == b"\x89\x00"
        client.send(frame(0x8A, b""))
        async with asyncio.timeout(LIMIT):
            assert await client.reader.readexactly(2) == b"\x89\x00"
            assert await client.reader.readexactly(1) == b"\x88"  # nobody has answered the second one


# ---------------------------------------------------------------------- clients that leave


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("kind", SERVERS)
async def test_a_client_that_leaves(kind: str, how: str, tmp_path: Path) -> None:
    app = application(tmp_path)
    gone = app.settings["gone"]
    async with running(kind, app) as port, connect(port) as client:
        client.send(ask("/endless"))
        assert (await client.head())[0] == 200
        if how == "close":
            await client.close()
        else:
            client.reset()
        async with asyncio.timeout(LIMIT):
            told = {type(await gone.get()), type(await gone.get())}
    assert str in told
    assert any(issubclass(kind, tornado.iostream.StreamClosedError) for kind in told)
