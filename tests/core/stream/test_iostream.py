"""Streams: what readers get, what writers wait for, how they end; with TLS and without."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
import trustme

from bridge.core.iostream import (
    IOStream,
    SSLIOStream,
    StreamBufferFullError,
    StreamClosedError,
    UnsatisfiableReadError,
)
from bridge.core.tcpserver import TCPServer
from tests.support.asgi import LIMIT
from tests.support.tornadostyle import port_of


@contextlib.asynccontextmanager
async def pair(**sizes: int) -> AsyncIterator[tuple[IOStream, IOStream]]:
    """Two ends of a connection; the first has the sizes."""
    left, right = socket.socketpair()
    for sock in (left, right):
        sock.setblocking(False)
    ours, theirs = IOStream(left, **sizes), IOStream(right)
    try:
        async with asyncio.timeout(LIMIT):
            yield ours, theirs
    finally:
        ours.close()
        theirs.close()
        await asyncio.sleep(0)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def client_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


# ---------------------------------------------------------------------- reading


async def test_reads() -> None:
    async with pair() as (stream, peer):
        await peer.write(b"0123456789line one\nline two\r\n\r\nrest")
        assert await stream.read_bytes(4) == b"0123"
        assert await stream.read_bytes(100, partial=True) == b"456789line one\nline two\r\n\r\nrest"
        await peer.write(b"line one\nkey: value\r\n\r\nrest")
        assert await stream.read_until(b"\n") == b"line one\n"
        assert await stream.read_until_regex(rb"\r?\n\r?\n") == b"key: value\r\n\r\n"
        target = bytearray(2)
        assert await stream.read_into(target) == 2
        assert target == b"re"
        target = bytearray(10)
        assert await stream.read_into(target, partial=True) == 2
        assert target == b"st" + bytes(8)
        target.extend(b"free again")
        assert await stream.read_bytes(0) == b""


async def test_reads_that_wait_get_what_arrives_in_pieces() -> None:
    async with pair() as (stream, peer):
        for read, expected in (
            (lambda: stream.read_bytes(6), b"abc\r\n\r"),
            (lambda: stream.read_until(b"\r\n\r\n"), b"abc\r\n\r\n"),
            (lambda: stream.read_until_regex(re.compile(rb"c\r\n\r")), b"abc\r\n\r"),
        ):
            future = read()
            assert stream.reading()
            for byte in b"abc\r\n\r\n":
                await peer.write(bytes([byte]))
            assert await future == expected
            assert not stream.reading()
            if len(expected) < 7:
                await stream.read_bytes(7 - len(expected))


async def test_one_reader_at_a_time() -> None:
    async with pair() as (stream, peer):
        waiting = stream.read_bytes(1)
        with pytest.raises(AssertionError, match="Already reading"):
            stream.read_bytes(1)
        await peer.write(b"ab")
        assert await waiting == b"a"
        given_up = stream.read_bytes(5)
        given_up.cancel()
        await peer.write(b"c")
        await asyncio.sleep(0.01)
        assert await stream.read_bytes(2) == b"bc"


@pytest.mark.parametrize("arrives", ["before", "after"])
@pytest.mark.parametrize("kind", ["delimiter", "pattern"])
async def test_what_does_not_come_within_max_bytes(kind: str, arrives: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with pair() as (stream, peer):

        def read() -> asyncio.Future[bytes]:
            if kind == "delimiter":
                return stream.read_until(b"\n", max_bytes=5)
            return stream.read_until_regex(rb"\n", max_bytes=5)

        await peer.write(b"1234\nxxxxxx")
        assert await read() == b"1234\n"
        if arrives == "after":
            await stream.read_bytes(6)
            future = read()
            await peer.write(b"xxxxx\n")
        else:
            future = read()
        with pytest.raises(StreamClosedError) as caught:
            await future
        assert isinstance(caught.value.real_error, UnsatisfiableReadError)
        assert stream.closed()
    assert "Unsatisfiable read" in caplog.text


async def test_more_than_max_buffer_size(caplog: pytest.LogCaptureFixture) -> None:
    async with pair(max_buffer_size=1000) as (stream, peer):
        future = stream.read_until(b"\n")
        peer.write(b"x" * 3000)
        with pytest.raises(StreamClosedError) as caught:
            await future
        assert isinstance(caught.value.real_error, StreamBufferFullError)
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("ERROR", "Reached maximum read buffer size of 1000 bytes"),
        ("WARNING", "error on read: Reached maximum read buffer size of 1000 bytes"),
    ]


async def test_reading_ahead_is_bounded() -> None:
    async with pair(read_chunk_size=1000) as (stream, peer):
        await stream.read_bytes(0)
        waiting = peer.write(b"x" * 10_000_000)
        await asyncio.sleep(0.05)
        assert not waiting.done()
        assert stream.buffered() < 400_000
        assert len(await stream.read_bytes(10_000_000)) == 10_000_000
        await waiting
        stream.unread(b"ab")
        assert await stream.read_bytes(2) == b"ab"


# ---------------------------------------------------------------------- ends


async def test_the_end_of_the_other_side() -> None:
    async with pair() as (stream, peer):
        closed = asyncio.Event()
        calls: list[int] = []

        def on_close() -> None:
            calls.append(1)
            closed.set()

        stream.set_close_callback(on_close)
        peer.write(b"last words")
        peer.close()
        with pytest.raises(StreamClosedError):
            peer.write(b"x")
        await closed.wait()
        assert stream.closed()
        assert stream.error is None
        assert await stream.read_bytes(5) == b"last "  # what was received can still be read
        assert await stream.read_until_close() == b"words"
        for read in (lambda: stream.read_bytes(1), lambda: stream.read_until(b"x"), lambda: stream.write(b"x")):
            with pytest.raises(StreamClosedError):
                read()
        late = asyncio.Event()
        stream.set_close_callback(late.set)
        assert not late.is_set()
        await late.wait()
        assert calls == [1]


async def test_read_until_close() -> None:
    async with pair() as (stream, peer):
        future = stream.read_until_close()
        await peer.write(b"a" * 100_000)
        await peer.write(b"b")
        peer.close()
        assert await future == b"a" * 100_000 + b"b"


async def test_an_error_ends_what_waits() -> None:
    async with pair() as (stream, peer):
        reading = stream.read_until_close()
        await peer.write(b"not all")
        await asyncio.sleep(0.01)
        writing = stream.write(b"x" * 10_000_000)
        stream.close(ValueError("boom"))
        assert stream.closed()
        for future in (reading, writing):
            with pytest.raises(StreamClosedError) as caught:
                await future
            assert isinstance(caught.value.real_error, ValueError)
        stream.close(ValueError("again"))
        assert str(stream.error) == "boom"


async def test_close_with_exc_info() -> None:
    async with pair() as (stream, peer):
        try:
            raise ValueError("boom")
        except ValueError:
            stream.close(exc_info=True)
        assert isinstance(stream.error, ValueError)
        peer.close(exc_info=(KeyError, KeyError("k"), None))
        assert isinstance(peer.error, KeyError)


async def test_close_callback_that_fails(caplog: pytest.LogCaptureFixture) -> None:
    async with pair() as (stream, _):
        stream.set_close_callback(lambda: 1 / 0)
        stream.close()
        await asyncio.sleep(0.01)
    assert "Exception in callback" in caplog.text


# ---------------------------------------------------------------------- writing


async def test_writes_are_done_in_order_when_everything_has_left() -> None:
    async with pair() as (stream, peer):
        await stream.read_bytes(0)
        done: list[int] = []
        for number in range(3):
            stream.write(b"x" * 1_000_000).add_done_callback(lambda _, number=number: done.append(number))
        assert stream.writing()
        await asyncio.sleep(0.01)
        assert done == []
        assert len(await peer.read_bytes(3_000_000)) == 3_000_000
        await asyncio.sleep(0.01)
        assert done == [0, 1, 2]
        assert not stream.writing()
        mutable = bytearray(b"abc")
        await stream.write(memoryview(mutable))
        assert await peer.read_bytes(3) == b"abc"


async def test_what_was_written_is_no_longer_the_callers() -> None:
    async with pair() as (stream, peer):
        await stream.read_bytes(0)
        data = bytearray(b"x" * 3_000_000)
        stream.write(data)
        assert stream.writing()
        data[:] = b"y" * 3_000_000
        data.clear()  # a BufferError if anybody had a view of it
        assert await peer.read_bytes(3_000_000) == b"x" * 3_000_000


async def test_max_write_buffer_size() -> None:
    left, right = socket.socketpair()
    stream = IOStream(left, max_write_buffer_size=100_000)
    stream.write(b"x" * 60_000)
    with pytest.raises(StreamBufferFullError, match="limit 100000"):
        stream.write(b"x" * 60_000)
    stream.close()
    right.close()
    await asyncio.sleep(0.01)


async def test_what_was_written_before_a_close_is_sent() -> None:
    async with pair() as (stream, peer):
        stream.write(b"at ")
        stream.write(b"once")
        stream.close()
        assert await peer.read_until_close() == b"at once"


# ---------------------------------------------------------------------- connecting


class Echo(TCPServer):
    async def handle_stream(self, stream: Any, address: Any) -> None:
        with contextlib.suppress(StreamClosedError):
            while True:
                await stream.write(await stream.read_bytes(65536, partial=True))


@contextlib.asynccontextmanager
async def serving(server: TCPServer) -> AsyncIterator[int]:
    server.listen(0, "127.0.0.1")
    try:
        async with asyncio.timeout(LIMIT):
            yield port_of(server)
    finally:
        server.stop()


async def test_connect() -> None:
    async with serving(Echo()) as port:
        stream = IOStream(socket.socket())
        early = None
        connecting = stream.connect(("127.0.0.1", port))
        early = stream.write(b"early")
        assert await connecting is stream
        await early
        assert await stream.read_bytes(5) == b"early"
        stream.set_nodelay(True)
        assert stream.fileno() >= 0
        assert stream.socket.getpeername()[1] == port
        stream.close()
        with pytest.raises(AssertionError):
            stream.connect(("127.0.0.1", port))


async def test_connect_in_vain() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        port = sock.getsockname()[1]
    stream = IOStream(socket.socket())
    closed = asyncio.Event()
    stream.set_close_callback(closed.set)
    with pytest.raises(StreamClosedError) as caught:
        await stream.connect(("127.0.0.1", port))
    assert isinstance(caught.value.real_error, ConnectionRefusedError)
    async with asyncio.timeout(LIMIT):
        await closed.wait()
    given_up = IOStream(socket.socket())
    future = given_up.connect(("127.0.0.1", port))
    given_up.close()
    with pytest.raises(StreamClosedError):
        await future
    await asyncio.sleep(0.01)


async def test_tls(server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
    ciphers: list[Any] = []

    class Secure(Echo):
        async def handle_stream(self, stream: Any, address: Any) -> None:
            ciphers.append(stream.socket.cipher())
            waiting = stream.wait_for_handshake()
            with pytest.raises(RuntimeError):
                stream.wait_for_handshake()
            assert await waiting is stream
            assert await stream.wait_for_handshake() is stream
            ciphers.append(stream.socket.cipher())
            assert stream.socket.getpeercert() in (None, {})
            await super().handle_stream(stream, address)

    async with serving(Secure(ssl_options=server_context)) as port:
        stream = SSLIOStream(socket.socket(), ssl_options=client_context)
        assert stream.socket.getpeercert() is None
        await stream.connect(("127.0.0.1", port), server_hostname="localhost")
        assert stream.socket.getpeercert()["subjectAltName"] == (("DNS", "localhost"),)
        await stream.write(b"x" * 300_000)
        assert len(await stream.read_bytes(300_000)) == 300_000
        stream.close()
        await asyncio.sleep(0.05)
    assert ciphers[0] is None
    assert ciphers[1] is not None


async def test_a_handshake_that_fails_ends_the_stream(
    server_context: ssl.SSLContext, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    ended: list[BaseException] = []
    done = asyncio.Event()

    class Secure(TCPServer):
        async def handle_stream(self, stream: Any, address: Any) -> None:
            try:
                await stream.wait_for_handshake()
            except StreamClosedError as exc:
                ended.append(exc)
                done.set()

    async with serving(Secure(ssl_options=server_context)) as port:
        stream = IOStream(socket.socket())
        await stream.connect(("127.0.0.1", port))
        await stream.write(b"GET / HTTP/1.1\r\n\r\n")
        await done.wait()
        stream.close()
    assert len(ended) == 1
    assert caplog.text.count("SSL Error") == 1


async def test_a_certificate_that_is_not_trusted(server_context: ssl.SSLContext) -> None:
    async with serving(Echo(ssl_options=server_context)) as port:
        stream = SSLIOStream(socket.socket())
        with pytest.raises(StreamClosedError) as caught:
            await stream.connect(("127.0.0.1", port), server_hostname="localhost")
        assert isinstance(caught.value.real_error, ssl.SSLCertVerificationError)


async def test_start_tls(server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
    class Upgrading(TCPServer):
        async def handle_stream(self, stream: Any, address: Any) -> None:
            assert await stream.read_until(b"\n") == b"STARTTLS\n"
            await stream.write(b"ready\n")
            secure = await stream.start_tls(True, server_context)
            await secure.write(b"hello " + await secure.read_bytes(3))
            secure.close()

    async with serving(Upgrading()) as port:
        stream = IOStream(socket.socket())
        await stream.connect(("127.0.0.1", port))
        waiting = stream.read_until(b"\n")
        with pytest.raises(ValueError, match="not idle"):
            stream.start_tls(False, client_context)
        await stream.write(b"STARTTLS\n")
        assert await waiting == b"ready\n"
        secure = await stream.start_tls(False, client_context, server_hostname="localhost")
        await secure.write(b"you")
        assert await secure.read_until_close() == b"hello you"


async def test_streams_around_wrapped_sockets(server_context: ssl.SSLContext, client_context: ssl.SSLContext) -> None:
    left, right = socket.socketpair()
    client = SSLIOStream(client_context.wrap_socket(left, server_hostname="localhost", do_handshake_on_connect=False))
    server = SSLIOStream(server_context.wrap_socket(right, server_side=True, do_handshake_on_connect=False))
    async with asyncio.timeout(LIMIT):
        client.write(b"hello")
        assert await server.read_bytes(5) == b"hello"
        client.close()
        assert await server.read_until_close() == b""


# ---------------------------------------------------------------------- TCPServer


async def test_failures_in_handle_stream(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(TCPServer):
        def handle_stream(self, stream: Any, address: Any) -> Any:
            if not caplog.records:
                raise ValueError("plain")
            return self._later(stream)

        async def _later(self, stream: Any) -> None:
            stream.close()
            raise ValueError("later")

    async with serving(Failing()) as port:
        for _ in range(2):
            stream = IOStream(socket.socket())
            await stream.connect(("127.0.0.1", port))
            await stream.read_until_close()
        await asyncio.sleep(0.01)
    first, second = (record.getMessage() for record in caplog.records)
    assert first.startswith("Error in connection callback")
    assert second.startswith("Exception in callback")


def test_the_arguments_of_older_versions(server_context: ssl.SSLContext) -> None:
    class Loop:
        def add_callback(self) -> None: ...

    for server in (
        TCPServer(Loop(), server_context, 1000, 100),  # type: ignore[arg-type]
        TCPServer(None, server_context, 1000, 100),  # type: ignore[arg-type]
        TCPServer(server_context, 1000, 100),
        TCPServer(io_loop=Loop(), ssl_options=server_context, max_buffer_size=1000, read_chunk_size=100),
    ):
        assert server.ssl_options is server_context
        assert (server.max_buffer_size, server.read_chunk_size) == (1000, 100)
    with pytest.raises(NotImplementedError):
        TCPServer().handle_stream(None, None)
