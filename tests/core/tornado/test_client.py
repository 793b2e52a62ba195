"""HTTP1Connection as a client: what it writes, what it reads, how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import logging
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from bridge.core.http1connection import HTTP1Connection, HTTP1ConnectionParameters
from bridge.core.httputil import (
    HTTPHeaders,
    HTTPInputError,
    HTTPMessageDelegate,
    HTTPOutputError,
    RequestStartLine,
    ResponseStartLine,
)
from bridge.core.iostream import IOStream, StreamClosedError
from tests.support.asgi import LIMIT
from tests.support.tornadostyle import echo, serving


class Reader(HTTPMessageDelegate):
    """Writes down one response."""

    def __init__(self, **hooks: Any) -> None:
        self.calls: list[str] = []
        self.codes: list[int] = []
        self.body = b""
        self.chunks: list[int] = []
        self.hooks = hooks

    def headers_received(self, start_line: Any, headers: Any) -> Any:
        assert isinstance(start_line, ResponseStartLine)
        self.codes.append(start_line.code)
        self.headers = headers
        return self._note("headers")

    def data_received(self, chunk: bytes) -> Any:
        self.body += chunk
        self.chunks.append(len(chunk))
        return self._note("data")

    def finish(self) -> None:
        self._note("finish")

    def on_connection_close(self) -> None:
        self._note("close")

    def _note(self, name: str) -> Any:
        if self.calls[-1:] != [name] or name != "data":
            self.calls.append(name)
        hook = self.hooks.get(name)
        return None if hook is None else hook(self)


@contextlib.asynccontextmanager
async def pair(
    params: HTTP1ConnectionParameters | None = None, context: object = "the peer"
) -> AsyncIterator[tuple[HTTP1Connection, IOStream]]:
    """A client, and the stream that is its server."""
    left, right = socket.socketpair()
    stream, peer = IOStream(left), IOStream(right)
    try:
        async with asyncio.timeout(LIMIT):
            yield HTTP1Connection(stream, True, params, context), peer
    finally:
        stream.close()
        peer.close()
        await asyncio.sleep(0)


GET = RequestStartLine("GET", "/a?b", "HTTP/1.1")


async def test_with_a_server_of_ones_own() -> None:
    async with serving(echo) as port:
        stream = IOStream(socket.socket())
        await stream.connect(("127.0.0.1", port))
        client = HTTP1Connection(stream, True)
        assert (client.is_client, client.no_keep_alive, client.stream) == (True, False, stream)
        for size in (0, 10, 100_000):
            await client.write_headers(
                RequestStartLine("POST", "/a", ""), HTTPHeaders({"Host": "a", "Content-Length": str(size)})
            )
            await client.write(b"x" * size)
            client.finish()
            reader = Reader()
            assert await client.read_response(reader)
            assert (reader.codes, len(reader.body)) == ([200], size or 2)
            assert reader.calls == ["headers", "data", "finish"]
        await client.write_headers(RequestStartLine("PUT", "/a", ""), HTTPHeaders({"Host": "a"}), b"in ")
        await client.write(b"")
        await client.write(b"chunks")
        client.finish()
        reader = Reader()
        assert await client.read_response(reader)
        assert reader.body == b"in chunks"
        client.close()
        with pytest.raises(StreamClosedError):
            await client.write(b"x")


async def test_what_a_request_looks_like() -> None:
    async with pair() as (client, peer):
        called = asyncio.Event()
        await client.write_headers(GET, HTTPHeaders({"Host": "a", "X-B": "c"}), callback=called.set)
        client.finish()
        assert await peer.read_until(b"\r\n\r\n") == b"GET /a?b HTTP/1.1\r\nHost: a\r\nX-B: c\r\n\r\n"
        await called.wait()
        await client.write_headers(("POST", "/", "x"), HTTPHeaders(), b"abc")
        client.finish()
        whole = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
        assert await peer.read_bytes(len(whole)) == whole


@pytest.mark.parametrize(
    ("start_line", "fields"),
    [
        (("GET", "/ b", ""), {}),
        (("GET", "/\r\nX: y", ""), {}),
        (("GET", "", ""), {}),
        (("G T", "/", ""), {}),
        (("GET", "/", ""), {"X-A": "b\r\nX-C: d"}),
        (("GET", "/", ""), {"X-A": "\u20ac"}),
        (("GET", "/", ""), {"Content-Length": "1_0"}),
    ],
)
async def test_illegal_requests_are_not_sent(start_line: Any, fields: dict[str, str]) -> None:
    async with pair() as (client, peer):
        headers = HTTPHeaders()
        for name, value in fields.items():
            headers[name] = value
        with pytest.raises(ValueError, match=r"illegal|latin-1|number"):
            client.write_headers(start_line, headers)
        client.close()
        assert await peer.read_until_close() == b""


async def test_content_that_is_not_what_was_announced() -> None:
    for content, message in ((b"abc", "more data than"), (b"a", "1 bytes less than")):
        async with pair() as (client, _):
            with pytest.raises(HTTPOutputError, match=message):
                client.write_headers(("POST", "/", ""), HTTPHeaders({"Content-Length": "2"}), content)
                client.finish()
            assert client.stream is not None
            assert client.stream.closed()


# ---------------------------------------------------------------------- reading

HEAD = b"HTTP/1.1 200 OK\r\n"
READ = [
    pytest.param(HEAD + b"Content-Length: 5\r\n\r\nhello", b"hello", True, id="length"),
    pytest.param(HEAD + b"Content-Length: 5, 5\r\n\r\nhello", b"hello", True, id="length twice"),
    pytest.param(HEAD + b"Content-Length: 0\r\n\r\n", b"", True, id="empty"),
    pytest.param(HEAD + b"Connection: close\r\nContent-Length: 1\r\n\r\na", b"a", False, id="close"),
    pytest.param(
        HEAD + b"Transfer-Encoding: Chunked\r\n\r\n2;x=y\r\nhe\r\n3\r\nllo\r\n0\r\nX: y\r\n\r\n",
        b"hello",
        True,
        id="chunks",
    ),
    pytest.param(HEAD + b"\r\nhello", b"hello", False, id="until close"),
    pytest.param(b"HTTP/1.0 200 OK\r\n\r\nhello", b"hello", False, id="1.0"),
    pytest.param(b"HTTP/1.1 200 OK\nContent-Length: 1\n\na", b"a", True, id="LF"),
    pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", b"", True, id="204"),
    pytest.param(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b"", True, id="304"),
]


@pytest.mark.parametrize("bytewise", [False, True])
@pytest.mark.parametrize(("wire", "content", "open_after"), READ)
async def test_reads(wire: bytes, content: bytes, open_after: bool, bytewise: bool) -> None:
    async with pair() as (client, peer):
        reader = Reader()
        reading = client.read_response(reader)
        for piece in [bytes([byte]) for byte in wire] if bytewise else [wire]:
            await peer.write(piece)
        if not open_after:
            peer.close()
        assert await reading is open_after
        assert reader.body == content
        assert reader.calls == ["headers", *(["data"] if content else []), "finish"]
        assert client.stream is not None
        assert client.stream.closed() is not open_after


async def test_the_response_to_head_has_no_content() -> None:
    async with pair() as (client, peer):
        client.write_headers(("HEAD", "/", ""), HTTPHeaders())
        client.finish()
        reader = Reader()
        await peer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
        assert await client.read_response(reader)
        assert reader.calls == ["headers", "finish"]


async def test_interim_responses_come_first() -> None:
    async with pair() as (client, peer):
        reader = Reader()
        await peer.write(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nX: y\r\n\r\n")
        await peer.write(READ[0].values[0])  # type: ignore[arg-type]
        assert await client.read_response(reader)
        assert (reader.codes, reader.body) == ([100, 103, 200], b"hello")


async def test_responses_one_after_the_other() -> None:
    async with pair() as (client, peer):
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in b"x" * 3000)
        await peer.write((HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n") * 2 + HEAD)
        for _ in range(2):
            reader = Reader()
            assert await client.read_response(reader)
            assert reader.body == b"x" * 3000
            assert len(reader.chunks) < 5  # many tiny chunks are given together
        assert client.stream is not None
        assert await client.stream.read_bytes(len(HEAD)) == HEAD


REFUSED = [
    pytest.param(b"HTTP/2.0 200 OK\r\n\r\n", "version", id="version"),
    pytest.param(b"nonsense\r\n\r\n", "status line", id="status line"),
    pytest.param(HEAD + b"no colon\r\n\r\n", "colon", id="no colon"),
    pytest.param(HEAD + b"Content-Length: 5, 6\r\n\r\nhello", "Multiple unequal", id="lengths"),
    pytest.param(HEAD + b"Content-Length: +5\r\n\r\nhello", "Only integer", id="length"),
    pytest.param(HEAD + b"Content-Length: 1001\r\n\r\n", "limit 1000", id="too long"),
    pytest.param(HEAD + b"Transfer-Encoding: gzip\r\n\r\n", "Unsupported", id="coding"),
    pytest.param(HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", "both", id="both"),
    pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcXX", "improperly", id="chunk end"),
    pytest.param(HEAD + b"Transfer-Encoding: chunked\r\n\r\n3e9\r\n", "limit 1000", id="chunks too long"),
    pytest.param(HEAD + b"\r\n" + b"x" * 1001, "limit 1000", id="too long until close"),
    pytest.param(b"HTTP/1.1 204 No Content\r\nContent-Length: 1\r\n\r\na", "204", id="204 with content"),
    pytest.param(HEAD + b"X: " + b"y" * 500 + b"\r\n\r\n", "500 bytes", id="head too long"),
    pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" * 11, "interim", id="too many interim responses"),
]


@pytest.mark.parametrize(("wire", "message"), REFUSED)
async def test_refuses(wire: bytes, message: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with pair(HTTP1ConnectionParameters(max_body_size=1000, max_header_size=500)) as (client, peer):
        reader = Reader()
        await peer.write(wire)
        assert await client.read_response(reader) is False
        assert "finish" not in reader.calls
        assert reader.calls[-1:] == (["close"] if reader.codes else [])
        assert client.stream is not None
        assert client.stream.closed()
    assert message in caplog.text
    assert [record.levelno for record in caplog.records] == [logging.INFO]


@pytest.mark.parametrize(
    "wire",
    [
        b"",
        b"HTTP/1.1 200",
        HEAD + b"Content-Length: 5\r\n\r\nhel",
        HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
    ],
)
async def test_responses_that_are_cut_off(wire: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with pair() as (client, peer):
        reader = Reader()
        reading = client.read_response(reader)
        if wire:
            await peer.write(wire)
        peer.close()
        assert await reading is False
        assert reader.calls[-1:] == (["close"] if reader.codes else [])
    assert caplog.text == ""


@pytest.mark.parametrize("where", ["headers", "data", "finish", "close"])
@pytest.mark.parametrize("later", [False, True])
async def test_delegates_that_fail(where: str, later: bool, caplog: pytest.LogCaptureFixture) -> None:
    def fail(reader: Reader) -> Any:
        async def wait() -> None:
            await asyncio.sleep(0)
            raise ValueError("x")

        if later and where in {"headers", "data"}:
            return wait()
        raise ValueError("x")

    async with pair() as (client, peer):
        reader = Reader(**{where: fail})
        await peer.write(HEAD + b"Content-Length: 5\r\n\r\nhel")
        reading = client.read_response(reader)
        if where == "close":
            peer.close()
        else:
            await peer.write(b"lo")
        assert await reading is False
        assert reader.calls[-1] == "close"
    assert caplog.text.count("Uncaught exception") == 1


async def test_delegates_that_refuse(caplog: pytest.LogCaptureFixture) -> None:
    tornado = pytest.importorskip("tornado.httputil")
    caplog.set_level(logging.INFO)
    for error in (HTTPInputError("not this"), tornado.HTTPInputError("not this")):

        def refuse(reader: Reader, error: Exception = error) -> None:
            raise error

        async with pair() as (client, peer):
            await peer.write(READ[0].values[0])  # type: ignore[arg-type]
            assert await client.read_response(Reader(headers=refuse)) is False
    assert [record.getMessage() for record in caplog.records] == ["Malformed HTTP message from the peer: not this"] * 2


async def test_awaitables_hold_the_content_back() -> None:
    gate = asyncio.get_running_loop().create_future()
    async with pair(HTTP1ConnectionParameters(chunk_size=2)) as (client, peer):
        reader = Reader(headers=lambda reader: gate)
        await peer.write(READ[0].values[0])  # type: ignore[arg-type]
        reading = client.read_response(reader)
        async with asyncio.timeout(10):
            while not reader.calls:
                await asyncio.sleep(0)
        await asyncio.sleep(0.01)  # content would come now
        assert reader.calls == ["headers"]
        gate.set_result(None)
        assert await reading
        assert reader.chunks == [2, 2, 1]


@pytest.mark.parametrize("what", ["headers", "body"])
async def test_timeouts(what: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    params = HTTP1ConnectionParameters(header_timeout=0.02 if what == "headers" else None)
    async with pair(params) as (client, peer):
        client.set_body_timeout(0.02)
        client.set_max_body_size(100)
        if what == "body":
            await peer.write(HEAD + b"Content-Length: 5\r\n\r\nh")
        assert await client.read_response(Reader()) is False
    assert f"Timeout reading {what}" in caplog.text


async def test_detach_gives_the_stream_and_what_follows() -> None:
    async with pair() as (client, peer):
        streams: list[IOStream] = []
        reader = Reader(headers=lambda reader: streams.append(client.detach()))
        await peer.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\nhello")
        assert await client.read_response(reader) is False
        assert reader.calls == ["headers"]
        assert client.stream is None
        assert await streams[0].read_bytes(5) == b"hello"
        with pytest.raises(StreamClosedError):
            client.detach()
        with pytest.raises(StreamClosedError):
            await client.write(b"x")
        client.close()
        client.set_close_callback(None)


async def test_close_callback() -> None:
    async with pair() as (client, peer):
        closed = asyncio.Event()
        client.set_close_callback(closed.set)
        peer.close()
        await closed.wait()


async def test_gzip_is_decoded_when_asked_for() -> None:
    content = b"hello " * 1000
    wire = gzip.compress(content)
    for decompress, expected in ((True, content), (False, wire)):
        async with pair(HTTP1ConnectionParameters(decompress=decompress)) as (client, peer):
            reader = Reader()
            await peer.write(HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b" % (len(wire), wire))
            assert await client.read_response(reader)
            assert reader.body == expected
            assert ("Content-Encoding" in reader.headers) is not decompress
