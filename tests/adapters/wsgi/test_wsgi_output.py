"""Responses to clients that read slowly, or not at all, and files."""

# ruff: noqa: SIM115 -- what the applications open is closed by the server, which is what is tested

from __future__ import annotations

import asyncio
import gzip
import io
import logging
import os
import socket
import tempfile
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.adapters.wsgi import delegate, response_buffer
from bridge.adapters.wsgi.filewrapper import FileWrapper, file_range
from bridge.core.connection.budgets import Budgets
from bridge.core.connection.parameters import ConnectionParameters
from bridge.errors import LocalProtocolError
from tests.support.certificates import tls_contexts
from tests.support.protocols import BOTH_PROTOCOLS
from tests.support.wsgi import Answer, serving

pytestmark = [BOTH_PROTOCOLS, pytest.mark.wide_over_http2]

PLAIN = [("Content-Type", "text/plain")]
# Much more than the kernel's buffers hold.
BIG = 24_000_000
PIECE = b"0123456789abcdef" * 4096


def big(environ, start_response):
    """Answer BIG bytes, and note when the iterable was exhausted."""
    length = [("Content-Length", str(BIG))] if "length" in environ["QUERY_STRING"] else []
    start_response("200 OK", PLAIN + length)
    left = BIG
    while left:
        piece = PIECE[:left]
        left -= len(piece)
        yield piece


async def slow(served, path: str = "/") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Ask and do not read; the buffers on our side are small."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    sock.connect(served.address)
    reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    return reader, writer


async def free(served, seconds: float = 5.0) -> None:
    """Wait until no thread works."""
    pool = served.delegate.pool
    async with asyncio.timeout(seconds):
        while not pool.count or pool.idle < pool.count:
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("path", ["/", "/?length"])
async def test_a_client_that_does_not_read_holds_no_thread(path: str) -> None:
    async with serving(big, threads=1) as served:
        reader, writer = await slow(served, path)
        await free(served)
        other = await served.get("/?length")  # the only thread is free for others
        assert len(other.body) == BIG
        answer = Answer(await asyncio.wait_for(reader.read(), 20))
        assert answer.content == (PIECE * (BIG // len(PIECE) + 1))[:BIG]
        writer.close()


async def test_a_whole_large_response_holds_no_thread_either() -> None:
    content = os.urandom(BIG)

    def app(environ, start_response):
        start_response("200 OK", PLAIN)
        return [content]

    async with serving(app, threads=1) as served:
        reader, writer = await slow(served)
        await free(served)
        answer = Answer(await asyncio.wait_for(reader.read(), 20))
        assert answer.headers["content-length"] == str(BIG)
        assert answer.body == content
        writer.close()


@pytest.mark.parametrize("length", [True, False])
async def test_a_tuple_with_an_empty_end_is_no_fault(length: bool, caplog: pytest.LogCaptureFixture) -> None:
    def app(environ, start_response):
        start_response("200 OK", PLAIN + [("Content-Length", "70000")] * length)
        return b"x" * 70_000, b""

    async with serving(app, threads=1) as served:
        for _ in range(3):
            assert (await served.get("/")).content == b"x" * 70_000
    assert caplog.records == []


async def test_past_the_cap_the_thread_waits_for_the_client() -> None:
    taken = []

    def app(environ, start_response):
        start_response("200 OK", PLAIN)
        for number in range(BIG // len(PIECE)):
            taken.append(number)
            yield PIECE

    async with serving(app, buffer_responses=1_000_000) as served:
        reader, writer = await slow(served)
        before = -1
        async with asyncio.timeout(5):
            while len(taken) != before:
                before = len(taken)
                await asyncio.sleep(0.1)
        assert served.delegate.pool.idle == 0
        assert len(taken) < BIG // len(PIECE)
        answer = Answer(await asyncio.wait_for(reader.read(), 20))
        assert answer.content == PIECE * (BIG // len(PIECE))
        writer.close()


@pytest.mark.http1("the client of HTTP/2 reads")
async def test_slow_clients_are_cut_off_when_requests_wait_for_their_threads(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(delegate, "_SLOW_CLIENT", 0.2)

    def app(environ, start_response):
        start_response("200 OK", PLAIN)
        return [b"quick"] if environ["PATH_INFO"] == "/quick" else (PIECE for _ in range(BIG // len(PIECE)))

    async with serving(app, threads=2, buffer_responses=1_000_000, queue_timeout=20) as served:
        clients = [await slow(served), await slow(served)]
        async with asyncio.timeout(10):
            while sum(worker.waited > 0.3 for worker in served.delegate.pool.workers()) < 2:
                await asyncio.sleep(0.01)  # nobody needs the threads yet
        assert (await asyncio.wait_for(served.get("/quick"), 15)).content == b"quick"
        ends = await asyncio.wait_for(asyncio.gather(*(end(reader) for reader, _ in clients)), 30)
        assert sorted(ends) == [False, True]  # one of two may wait
        for _, writer in clients:
            writer.close()
    assert "(--threads-slow): ended GET /" in caplog.text


async def end(reader: asyncio.StreamReader) -> bool:
    """Read a response, and tell whether it is complete."""
    try:
        return (await reader.read()).endswith(b"\r\n0\r\n\r\n")
    except ConnectionResetError:
        return False


async def test_without_room_on_the_disk_the_thread_waits_for_the_client() -> None:
    loop = asyncio.get_running_loop()
    budget = Budgets.of(loop).spool
    budget.limit = 2_000_000
    async with serving(big, threads=2) as served:
        clients = [await slow(served), await slow(served)]
        async with asyncio.timeout(10):
            while budget.total < 800_000:
                await asyncio.sleep(0.01)
        assert budget.total <= 1_000_000
        assert served.delegate.pool.idle == 0
        answers = await asyncio.wait_for(asyncio.gather(*(reader.read() for reader, _ in clients)), 30)
        for answer in answers:
            assert len(Answer(answer).content) == BIG
        for _, writer in clients:
            writer.close()
        await free(served)
    assert budget.total == 0


@pytest.mark.http1("a client of HTTP/2 that opens no window reads nothing of any stream")
async def test_who_reads_nothing_of_a_stored_response_makes_room_for_others(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(delegate, "_UNREAD", 0.2)
    budget = Budgets.of(asyncio.get_running_loop()).spool
    budget.limit = 2 * BIG + 1_000_000  # room for one response: half of it is for uploads
    async with serving(big, threads=2, threads_slow=1, queue_timeout=20) as served:
        stored = await slow(served)
        await free(served)  # the response is in a file, and the thread is free
        held = [await slow(served), await slow(served)]
        assert len((await asyncio.wait_for(served.get("/"), 30)).content) == BIG
        assert not await end(stored[0])
        await asyncio.wait_for(asyncio.gather(*(end(reader) for reader, _ in held)), 30)
        for _, writer in (stored, *held):
            writer.close()
        await free(served)
    assert "whose clients have read nothing of a stored response" in caplog.text
    assert budget.total == 0


@pytest.mark.http1("no protocol is spoken")
def test_who_has_read_all_that_was_sent_reads_nothing_for_good_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    times = iter((0.0, 2.0, 4.0))
    monkeypatch.setattr(delegate, "time", SimpleNamespace(monotonic=times.__next__))

    class Exchange:
        content_sent = 24576
        times = None

        def __init__(self, unread: int) -> None:
            self.writer = SimpleNamespace(unread=unread)
            self.failed: list[int] = []
            self.fail = self.failed.append

    served = delegate.WSGIDelegate(big)
    behind, silent = Exchange(0), Exchange(1000)
    stored = {_Stored(one) for one in (behind, silent)}
    served._application = SimpleNamespace(stored=stored)  # type: ignore[assignment]
    for _ in range(3):
        served._end_unread([])
    assert behind.failed == []
    assert set(silent.failed) == {408}


class _Stored:
    """A stored response, as far as it is looked at."""

    def __init__(self, exchange: Any) -> None:
        self.exchange = exchange


async def test_a_thread_that_waits_for_a_client_that_leaves_is_free_again() -> None:
    closed = threading.Event()

    def app(environ, start_response):
        start_response("200 OK", PLAIN)
        try:
            while True:
                yield PIECE
        finally:
            closed.set()

    async with serving(app, buffer_responses=1_000_000) as served:
        _, writer = await slow(served)
        await asyncio.sleep(0.3)
        assert not closed.is_set()
        writer.transport.abort()
        await free(served)
        assert closed.is_set()


@pytest.mark.http1("the proxy reads; see test_http2 for windows that stay shut")
async def test_a_client_that_never_reads_is_cut_off_and_leaves_nothing() -> None:
    before = open_files()
    async with serving(big, params=ConnectionParameters(write_timeout=0.3)) as served:
        _, writer = await slow(served, "/?length")
        await free(served)
        async with asyncio.timeout(5):
            while served.server.connection_count():
                await asyncio.sleep(0.01)
        assert open_files() == before
        writer.close()


def open_files() -> list[str]:
    """Return the temporary files of bridge that this process has open."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            name = os.readlink(f"/proc/self/fd/{number}")
        except OSError:
            continue
        if "deleted" in name and tempfile.gettempdir() in name:
            found.append(name)
    return found


@pytest.mark.parametrize("what", ["write_at", "_temporary_file"])
async def test_a_full_disk_ends_the_response(monkeypatch, caplog, what: str) -> None:
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(response_buffer, what, full)
    closed = threading.Event()

    def app(environ, start_response):
        try:
            yield from big(environ, start_response)
        finally:
            closed.set()

    async with serving(app) as served:
        reader, writer = await slow(served, "/?length")
        await free(served)
        assert closed.is_set()
        answer = Answer(await asyncio.wait_for(reader.read(), 20))
        assert len(answer.body) < BIG
        writer.close()
    assert Budgets.of(asyncio.get_running_loop()).spool.total == 0
    errors = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert "cannot be kept: [Errno 28] No space left on device" in errors[0]


async def test_a_reader_in_fits_and_starts() -> None:
    async with serving(big, buffer_responses=2_000_000) as served:
        reader, writer = await slow(served, "/?length")
        await reader.readuntil(b"\r\n\r\n")
        expected = (PIECE * (BIG // len(PIECE) + 1))[:BIG]
        received = bytearray()
        while len(received) < BIG:
            received += await asyncio.wait_for(reader.read(1_000_000), 5)
            if len(received) % 7 == 0:
                await asyncio.sleep(0.01)
        assert received == expected
        writer.close()


async def test_a_trickle_reaches_the_client_at_once() -> None:
    go_on = threading.Semaphore(0)

    def app(environ, start_response):
        start_response("200 OK", PLAIN)
        for number in range(3):
            yield b"%d" % number
            assert go_on.acquire(timeout=5)

    async with serving(app) as served:
        reader, writer = await served.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        for number in range(3):
            await asyncio.wait_for(
                reader.readuntil(b"\r\n1\r\n%d\r\n" % number if not number else b"1\r\n%d\r\n" % number), 5
            )
            go_on.release()
        assert await asyncio.wait_for(reader.readexactly(5), 5) == b"0\r\n\r\n"
        writer.close()


# ---------------------------------------------------------------------------------------------------------- files


@pytest.fixture
def path(tmp_path):
    file = tmp_path / "file"
    file.write_bytes(os.urandom(1_000_000))
    return file


def wrapping(opener, headers=(), block=8192, seek=0):
    def app(environ, start_response):
        file = opener()
        file.seek(seek)
        start_response("200 OK", [*PLAIN, *headers])
        return environ["wsgi.file_wrapper"](file, block)

    return app


class Spy(io.BufferedReader):
    """A file that notes its end, and is no plain BufferedReader."""


@pytest.mark.parametrize("seek", [0, 1, 990_000, 1_000_000, 2_000_000])
@pytest.mark.parametrize("kind", ["buffered", "raw", "both", "memory", "subclass", "temporary"])
async def test_file_wrapper(path, kind: str, seek: int) -> None:
    opened = []

    def opener():
        if kind == "memory":
            file = io.BytesIO(path.read_bytes())
        elif kind == "subclass":
            file = Spy(io.FileIO(path))
        elif kind == "temporary":
            file = tempfile.NamedTemporaryFile()
            file.write(path.read_bytes())
        else:
            file = {
                "buffered": lambda: open(path, "rb"),
                "raw": lambda: open(path, "rb", buffering=0),
                "both": lambda: open(path, "r+b"),
            }[kind]()
        opened.append(file)
        return file

    async with serving(wrapping(opener, seek=seek)) as served:
        answer = await served.get()
        assert answer.content == path.read_bytes()[seek:]
        if kind not in {"memory", "subclass"}:
            assert answer.headers["content-length"] == str(max(0, 1_000_000 - seek))
        await free(served)
        assert opened[0].closed


async def test_a_part_of_a_file_that_was_begun(path) -> None:
    def opener():
        file = open(path, "rb")
        file.read(10)
        return file

    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "500000")])
        return environ["wsgi.file_wrapper"](opener())

    async with serving(app) as served:
        answer = await served.get()
    assert answer.body == path.read_bytes()[10:500_010]


async def test_a_file_shorter_than_the_length(path, caplog) -> None:
    async with serving(
        wrapping(lambda: open(path, "rb"), [("Content-Length", "1000001")]), raises=LocalProtocolError
    ) as served:
        raw = await served.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert len(raw.partition(b"\r\n\r\n")[2]) <= 1_000_000
    assert "shorter than its Content-Length" in caplog.text


async def test_a_file_behind_other_content(path) -> None:
    def app(environ, start_response):
        write = start_response("200 OK", PLAIN)
        write(b"first ")
        return environ["wsgi.file_wrapper"](open(path, "rb"))

    async with serving(app) as served:
        answer = await served.get()
        assert answer.content == b"first " + path.read_bytes()


async def test_a_file_without_a_head(path, caplog) -> None:
    opened = []

    def app(environ, start_response):
        opened.append(open(path, "rb"))
        return environ["wsgi.file_wrapper"](opened[-1])

    async with serving(app, raises=LocalProtocolError) as served:
        assert (await served.get()).status == 500
        await free(served)
    assert "content came before start_response was called" in caplog.text
    assert opened[0].closed


async def test_a_file_without_content_behind_a_head_that_was_sent(path) -> None:
    def app(environ, start_response):
        write = start_response("200 OK", [("Content-Length", "1000000")])
        write(b"")
        return environ["wsgi.file_wrapper"](open(path, "rb"))

    async with serving(app) as served:
        answer = await served.get(method="HEAD")
        assert (answer.status, answer.body) == (200, b"")
        assert (await served.get()).body == path.read_bytes()


async def test_head_and_304_of_a_file(path) -> None:
    opened = []

    def app(environ, start_response):
        status = "304 Not Modified" if environ["QUERY_STRING"] else "200 OK"
        start_response(status, [("Content-Length", "1000000")] if status[0] == "2" else [])
        opened.append(open(path, "rb"))
        return environ["wsgi.file_wrapper"](opened[-1])

    async with serving(app) as served:
        head = await served.get(method="HEAD")
        assert (head.headers["content-length"], head.body) == ("1000000", b"")
        assert (await served.get("/?304")).body == b""
        await free(served)
    assert all(file.closed for file in opened)


async def test_a_file_to_a_client_that_does_not_read_holds_no_thread(tmp_path) -> None:
    large = tmp_path / "large"
    large.write_bytes(PIECE * (BIG // len(PIECE)))
    async with serving(wrapping(lambda: open(large, "rb")), threads=1) as served:
        reader, writer = await slow(served)
        await free(served)
        answer = Answer(await asyncio.wait_for(reader.read(), 20))
        assert answer.body == large.read_bytes()
        writer.close()


async def test_a_file_to_a_client_that_leaves(tmp_path, caplog) -> None:
    large = tmp_path / "large"
    large.write_bytes(PIECE * (BIG // len(PIECE)))
    async with serving(wrapping(lambda: open(large, "rb"))) as served:
        _, writer = await slow(served)
        await free(served)
        writer.transport.abort()
        async with asyncio.timeout(5):
            while served.delegate._application._tasks:
                await asyncio.sleep(0.005)
    assert caplog.records == []


async def test_a_file_that_is_cut_while_it_is_sent(tmp_path, caplog) -> None:
    large = tmp_path / "large"
    large.write_bytes(PIECE * (BIG // len(PIECE)))
    async with serving(wrapping(lambda: open(large, "rb"))) as served:
        reader, writer = await slow(served)
        await free(served)
        os.truncate(large, 0)
        answer = Answer(await asyncio.wait_for(reader.read(), 20))
        assert len(answer.body) < BIG
        writer.close()
    assert "cannot be sent: the file ends" in caplog.text


@pytest.mark.http1("the proxy speaks no TLS")
async def test_a_file_under_tls(path) -> None:
    context, client = tls_contexts()
    async with serving(wrapping(lambda: open(path, "rb")), tls=context) as served:
        served.tls = client
        answer = await served.get()
    assert answer.body == path.read_bytes()


def test_only_files_that_read_what_they_hold_are_taken(path) -> None:
    with open(path, "rb") as file:
        file.read(5)
        part = file_range(file)
        assert part is not None
        assert (part.offset, part.count) == (5, 999_995)
    assert file_range(file) is None  # closed
    if os.path.exists("/proc/self/status"):
        with open("/proc/self/status", "rb") as file:
            assert file_range(file) is None  # it has content, and says that its size is 0
    page = "/sys/kernel/mm/transparent_hugepage/enabled"
    if os.path.exists(page):
        with open(page, "rb") as file:
            assert file_range(file) is None  # it has less content than its size
    with gzip.open(path.with_suffix(".gz"), "wb") as packed:
        packed.write(b"x")
    with gzip.open(path.with_suffix(".gz")) as packed:
        assert packed.fileno() >= 0
        assert file_range(packed) is None
    assert file_range(io.BytesIO(b"x")) is None
    assert file_range(object()) is None
    reading, writing = os.pipe()
    with open(reading, "rb") as pipe, open(writing, "wb"):
        assert file_range(pipe) is None
    with socket.socket() as sock, sock.makefile("rb") as file:
        assert file_range(file) is None


def test_a_wrapper_is_an_iterable_with_the_files_close() -> None:
    wrapper = FileWrapper(io.BytesIO(b"x" * 100_000), 50_000)
    assert [len(block) for block in wrapper] == [50_000, 50_000]
    wrapper.close()
    assert wrapper.filelike.closed

    class Readable:
        def read(self, size: int) -> bytes:
            return b""

    assert not hasattr(FileWrapper(Readable()), "close")
    assert list(FileWrapper(Readable())) == []


async def test_slow_and_fast_at_once_in_bounded_time() -> None:
    """Many that do not read, and one that asks again and again, share two threads."""
    async with serving(big, threads=2, buffer_responses=BIG * 2) as served:
        lazy = [await slow(served, "/?length") for _ in range(4)]
        start = time.monotonic()
        await free(served, 20)
        assert (await served.get("/?length")).status == 200
        assert time.monotonic() - start < 20
        for reader, writer in lazy:
            assert len((await asyncio.wait_for(reader.read(), 20)).partition(b"\r\n\r\n")[2]) == BIG
            writer.close()
