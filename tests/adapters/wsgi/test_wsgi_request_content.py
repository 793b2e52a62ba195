"""``wsgi.input``: received before the application is called, or streamed to it."""

from __future__ import annotations

import asyncio
import hashlib
import io
import logging
import os
import tempfile
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.adapters.wsgi.request_content import StreamedContent
from bridge.adapters.wsgi.threadpool import ThreadPool, Worker
from bridge.errors import ConnectionGone
from tests.support.protocols import BOTH_PROTOCOLS
from tests.support.serving import until
from tests.support.wsgi import serving

pytestmark = BOTH_PROTOCOLS

PLAIN = [("Content-Type", "text/plain")]
MODES = pytest.mark.parametrize("buffer", [16, 65536, None], ids=["file", "memory", "streamed"])
BODY = b"ab\ncd\r\n\nef"
CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"


def reading(read):
    """An application that answers with the repr of what *read* makes of its input."""

    def app(environ, start_response):
        start_response("200 OK", PLAIN)
        return [repr(read(environ["wsgi.input"])).encode()]

    return app


def numbers(stream):
    return [stream.read(1), stream.read(3), stream.read(0), stream.read(100), stream.read(1), stream.read()]


READS = [
    (lambda stream: stream.read(), BODY),
    (lambda stream: stream.read(-1), BODY),
    (lambda stream: stream.read(None), BODY),
    (lambda stream: stream.read(10**9), BODY),
    (numbers, [BODY[:1], BODY[1:4], b"", BODY[4:], b"", b""]),
    (lambda stream: [stream.readline() for _ in range(5)], [b"ab\n", b"cd\r\n", b"\n", b"ef", b""]),
    (lambda stream: [stream.readline(1), stream.readline(9), stream.readline(-1)], [b"a", b"b\n", b"cd\r\n"]),
    (lambda stream: stream.readlines(), [b"ab\n", b"cd\r\n", b"\n", b"ef"]),
    (lambda stream: stream.readlines(4), [b"ab\n", b"cd\r\n"]),
    (list, [b"ab\n", b"cd\r\n", b"\n", b"ef"]),
    (lambda stream: [next(iter(stream)), stream.read()], [b"ab\n", BODY[3:]]),
    (lambda stream: b"".join(iter(lambda: stream.read1(4), b"")), BODY),
]


@MODES
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize(("read", "expected"), READS)
async def test_reading(buffer, chunked: bool, read, expected) -> None:
    async with serving(reading(read), buffer_requests=buffer) as served:
        if chunked:
            wire = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in (BODY[:4], BODY[4:5], BODY[5:]))
            answer = await served.ask(CHUNKED + wire + b"0\r\n\r\n")
            assert answer.partition(b"\r\n\r\n")[2] == repr(expected).encode()
        else:
            answer = await served.get(method="POST", content=BODY)
            assert answer.content == repr(expected).encode()


@MODES
async def test_no_content(buffer) -> None:
    async with serving(
        reading(lambda stream: (stream.read(), stream.readline(), list(stream))), buffer_requests=buffer
    ) as served:
        assert (await served.get()).content == b"(b'', b'', [])"
        assert (await served.get("/", "Content-Length: 0", method="POST")).content == b"(b'', b'', [])"


@pytest.mark.http1("HTTP/2 has no chunks")
@pytest.mark.parametrize(
    ("buffer", "expected"),
    [(65536, b"('3', None, True)"), (1, b"('3', None, True)"), (None, b"(None, 'chunked', True)")],
)
async def test_what_the_environ_says_of_chunked_content(buffer, expected: bytes) -> None:
    def app(environ, start_response):
        start_response("200 OK", PLAIN)
        keys = ("CONTENT_LENGTH", "HTTP_TRANSFER_ENCODING", "wsgi.input_terminated")
        said = repr(tuple(environ.get(key) for key in keys)).encode()
        assert environ["wsgi.input"].read() == b"abc"
        return [said]

    async with serving(app, buffer_requests=buffer) as served:
        answer = await served.ask(CHUNKED + b"3\r\nabc\r\n0\r\n\r\n")
    assert answer.endswith(expected)


async def test_the_application_is_called_when_the_content_is_complete() -> None:
    called = threading.Event()

    def app(environ, start_response):
        called.set()
        start_response("200 OK", PLAIN)
        return [environ["wsgi.input"].read()]

    async with serving(app) as served:
        reader, writer = await served.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na")
        await asyncio.sleep(0.05)
        assert served.delegate.pool.count == 0  # a client that is slow holds no thread
        assert not called.is_set()
        writer.write(b"b")
        assert (await reader.readuntil(b"ab")).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_streamed_content_reaches_the_application_while_it_arrives() -> None:
    loop = asyncio.get_running_loop()
    seen: asyncio.Queue[bytes] = asyncio.Queue()

    def app(environ, start_response):
        stream = environ["wsgi.input"]
        while data := stream.read1(100):
            loop.call_soon_threadsafe(seen.put_nowait, data)
        start_response("200 OK", PLAIN)
        return [b"all"]

    async with serving(app, buffer_requests=None) as served:
        reader, writer = await served.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nab")
        assert await asyncio.wait_for(seen.get(), 5) == b"ab"
        writer.write(b"cd")
        assert await asyncio.wait_for(seen.get(), 5) == b"cd"
        writer.write(b"ef")
        assert await asyncio.wait_for(seen.get(), 5) == b"ef"
        assert (await reader.readuntil(b"all")).startswith(b"HTTP/1.1 200")
        writer.close()


async def test_streamed_content_slows_the_client_down() -> None:
    go_on = threading.Event()
    total = 30_000_000

    def app(environ, start_response):
        assert go_on.wait(10)
        size = 0
        while data := environ["wsgi.input"].read(1 << 20):
            size += len(data)
        start_response("200 OK", PLAIN)
        return [str(size).encode()]

    async with serving(app, buffer_requests=None) as served:
        reader, writer = await served.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % total)
        writer.write(bytes(total))
        await asyncio.sleep(0.2)
        assert writer.transport.get_write_buffer_size() > total // 2  # much of it is still here
        go_on.set()
        assert (await asyncio.wait_for(reader.read(), 10)).endswith(str(total).encode())
        writer.close()


@pytest.mark.parametrize("partial", [b"", b"abc"])
async def test_reading_streamed_content_of_a_client_that_left_raises(partial: bytes, caplog) -> None:
    loop = asyncio.get_running_loop()
    entered = asyncio.Event()
    raised = []

    def app(environ, start_response):
        loop.call_soon_threadsafe(entered.set)
        try:
            environ["wsgi.input"].read()
        except ConnectionGone as exc:
            raised.append(exc)
            raise

    async with serving(app, buffer_requests=None) as served:
        _, writer = await served.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n" + partial)
        await asyncio.wait_for(entered.wait(), 5)
        writer.close()
    assert len(raised) == 1
    assert isinstance(raised[0], OSError)
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


async def test_streamed_content_that_nobody_reads() -> None:
    def app(environ, start_response):
        start_response("200 OK", PLAIN)
        return [b"no"]

    async with serving(app, buffer_requests=None) as served:
        answer = await served.get(method="POST", content=bytes(300_000))
        assert answer.content == b"no"
        both = await served.ask(
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
        assert both.count(b"HTTP/1.1 200 OK") == 2


@pytest.mark.parametrize(
    ("buffer", "reads", "expected"), [(65536, False, True), (None, True, True), (None, False, False)]
)
async def test_100_continue(buffer, reads: bool, expected: bool) -> None:
    """At once if the content is received first; else when the application reads, and never if it does not."""

    def app(environ, start_response):
        data = environ["wsgi.input"].read() if reads or buffer else b"unread"
        start_response("200 OK", PLAIN)
        return [data]

    async with serving(app, buffer_requests=buffer) as served:
        reader, writer = await served.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        line = await asyncio.wait_for(reader.readline(), 5)
        assert line.startswith(b"HTTP/1.1 100" if expected else b"HTTP/1.1 200")
        if expected:
            writer.write(b"abc")
            assert (await asyncio.wait_for(reader.readuntil(b"abc"), 5)).count(b"HTTP/1.1 200") == 1
        writer.close()


@pytest.mark.parametrize("buffer", [65536, None])
async def test_too_much_content(buffer) -> None:
    async with serving(reading(lambda stream: stream.read()), buffer_requests=buffer, max_body=10) as served:
        assert (await served.get(method="POST", content=b"x" * 10)).status == 200
        assert (await served.get(method="POST", content=b"x" * 11)).status == 413
        answer = await served.ask(CHUNKED + b"b\r\n12345678901\r\n0\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 413")


async def test_a_full_disk(monkeypatch, caplog) -> None:
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    async with serving(reading(lambda stream: stream.read())) as served:
        answer = await served.get(method="POST", content=bytes(100_000))
        assert answer.status == 500
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert "The content of POST / cannot be kept" in errors[0]
    assert "No space left on device" in errors[0]


@pytest.mark.skipif(not os.path.exists("/proc/self/fd"), reason="looks for open files in /proc")
async def test_no_file_is_left() -> None:
    def files() -> set[str]:
        return {name for number in os.listdir("/proc/self/fd") if "(deleted)" in (name := link(number))}

    def link(number: str) -> str:
        try:
            return os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            return ""

    before = files()
    async with serving(reading(lambda stream: len(stream.read())), buffer_requests=10) as served:
        await served.get(method="POST", content=bytes(100_000))
        _, writer = await served.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n" + bytes(50))
        await asyncio.sleep(0.05)
        assert files() != before
        writer.close()
        async with asyncio.timeout(5):
            while files() != before:
                await asyncio.sleep(0.005)


async def test_streamed_content_that_is_kept_ends_with_the_request(caplog) -> None:
    kept = []
    raised = threading.Event()

    def app(environ, start_response):
        kept.append(environ["wsgi.input"])
        start_response("200 OK", PLAIN)
        return [b"x"]

    def read() -> None:
        try:
            kept[0].read()
        except ConnectionGone:
            raised.set()

    async with serving(app, buffer_requests=None) as served:
        reader, writer = await served.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"defghij" + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        async with asyncio.timeout(5):
            await asyncio.get_running_loop().run_in_executor(None, read)
        assert raised.is_set()
        writer.close()


def test_a_client_that_was_slowed_down_goes_on_when_half_is_read() -> None:
    told: list[str] = []
    exchange: Any = SimpleNamespace(pause_reading=lambda: told.append("pause"))
    content = StreamedContent(exchange, lambda function, target: told.append("wanted"))
    content.attach(Worker(ThreadPool(1), 1))
    for _ in range(4):
        content.add(bytes(16384))
    assert told == ["pause"]
    piece = bytearray(8192)
    for _ in range(4):
        assert content.readinto(piece) == 8192
    assert told == ["pause"]  # there is enough to read
    assert content.readinto(piece) == 8192
    assert told == ["pause", "wanted"]
    for _ in range(3):
        assert content.readinto(piece) == 8192
    assert told == ["pause", "wanted"]  # once
    for _ in range(3):
        content.add(bytes(16384))
    assert told == ["pause", "wanted"]
    content.add(bytes(16384))
    assert told == ["pause", "wanted", "pause"]


class SlowFile(io.BytesIO):
    """A disk that takes as long as the test likes."""

    def __init__(self) -> None:
        super().__init__()
        self.begun = threading.Event()
        self.release = threading.Event()
        self.sizes: list[int] = []

    def write(self, data: Any) -> int:
        self.begun.set()
        assert self.release.wait(5)
        self.sizes.append(len(data))
        return super().write(data)


async def test_a_slow_disk_holds_up_nobody_else(monkeypatch) -> None:
    disk = SlowFile()
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **options: disk)
    content = bytes(range(256)) * 4096  # a megabyte
    loop = asyncio.get_running_loop()
    async with serving(reading(lambda stream: hashlib.sha256(stream.read()).hexdigest())) as served:
        upload = loop.create_task(served.get(method="POST", content=content))
        await loop.run_in_executor(None, disk.begun.wait, 5)
        for _ in range(3):  # the loop turns, and threads answer
            assert (await served.get()).status == 200
        assert not upload.done()
        assert disk.sizes == []  # the client waits: no second write has begun
        disk.release.set()
        answer = await upload
    assert answer.content.decode() == repr(hashlib.sha256(content).hexdigest())
    await until(lambda: disk.closed)


async def test_a_client_that_leaves_while_its_content_is_written(monkeypatch) -> None:
    disk = SlowFile()
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **options: disk)
    loop = asyncio.get_running_loop()
    async with serving(reading(lambda stream: stream.read())) as served:
        _, writer = await served.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 500000\r\n\r\n" + bytes(400_000))
        await loop.run_in_executor(None, disk.begun.wait, 5)
        writer.transport.abort()
        disk.release.set()
        async with asyncio.timeout(5):
            while not disk.closed:
                await asyncio.sleep(0.005)


async def test_a_disk_that_fills_up_later(monkeypatch, caplog) -> None:
    class Full(io.BytesIO):
        def write(self, data: Any) -> int:
            if self.tell() > 200_000:
                raise OSError(28, "No space left on device")
            return super().write(data)

    disk = Full()
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **options: disk)
    async with serving(reading(lambda stream: len(stream.read()))) as served:
        answer = await served.get(method="POST", content=bytes(1_000_000))
        assert answer.status == 500
        assert (await served.get()).status == 200
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert [error.partition(":")[0] for error in errors] == ["The content of POST / cannot be kept"]
    await until(lambda: disk.closed)  # a thread closes it, behind the response
