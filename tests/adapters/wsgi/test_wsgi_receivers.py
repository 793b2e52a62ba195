"""Content between the loop and the disk: complete, in order, in little memory, whatever the disk and the client do."""

from __future__ import annotations

import asyncio
import errno
import functools
import io
import logging
import random
import tempfile
import threading
from types import SimpleNamespace
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given

from bridge.adapters.wsgi import receivers
from bridge.adapters.wsgi.receivers import ContentReceiver
from bridge.adapters.wsgi.request_content import ReceivedContent
from bridge.core.connection.budgets import Budgets
from tests.support.loops import both_loops
from tests.support.protocols import BOTH_PROTOCOLS
from tests.support.wsgi import messages, serving

pytestmark = BOTH_PROTOCOLS

WINDOW = 1000  # bytes, in place of the real one
WORTH_WRITING = 50
PIECE = 300


class Disk(io.BytesIO):
    """A temporary file on a disk with little room."""

    def __init__(self, room: int = 1 << 60) -> None:
        super().__init__()
        self.room = room

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


class Upload:
    """A receiver with everything around it: the test does what connection, file threads and loop would do."""

    def __init__(self, memory: int, *, limit: int | None = None, budgets: Budgets | None = None) -> None:
        self.jobs: list[Any] = []
        self.calls: list[Any] = []  # that a thread wants made on the loop
        self.content = ReceivedContent()
        self.paused = False
        self.failed: list[int] = []
        self.ended = 0
        self.finished = 0
        self.queued = 0.0
        self.exchange = SimpleNamespace(
            fail=self.fail,
            pause_reading=functools.partial(self.pause, True),
            resume_reading=functools.partial(self.pause, False),
            clock=SimpleNamespace(budgets=budgets or Budgets(self)),
            times=None,
            response_started=False,
            answer=lambda status, fields: self.fail(status),
        )
        self.budgets = self.exchange.clock.budgets
        self.alone = budgets is None
        self.told = 0  # bytes of the last job, until the loop has heard of its end
        self.most_told = 0
        self.receiver = ContentReceiver(self, self.content, memory, limit, self, self)
        self.most = 0

    # What the receiver and the budgets use of file threads, loop, exchange and request.

    def time(self) -> float:
        return 0.0

    def call_soon(self, function: Any, *arguments: Any) -> None:
        self.calls.append(functools.partial(function, *arguments))

    def submit(self, function: Any, *arguments: Any) -> None:
        self.jobs.append(functools.partial(function, *arguments))
        self.told = sum(map(len, arguments[0])) if arguments else 0
        assert len(self.jobs) <= 1

    def call_soon_threadsafe(self, function: Any, *arguments: Any) -> None:
        self.calls.append(functools.partial(function, *arguments))

    def pause(self, paused: bool) -> None:
        assert paused is not self.paused
        self.paused = paused

    def fail(self, status: int = 500) -> None:
        if not self.ended:
            self.failed.append(status)
            self.receiver.on_connection_close()

    def on_connection_close(self) -> None:
        self.ended += 1

    def finish(self) -> None:
        assert not self.jobs
        self.queued = 1.0
        self.finished += 1

    def discard_content(self) -> None:
        self.content.rest = []
        if self.content.has_file:
            self.submit(self.content.close)

    def describe(self) -> str:
        return "POST /"

    # What the test does.

    def work(self) -> None:
        """Do a file thread's job."""
        self.jobs.pop()()

    def turn(self) -> None:
        """Turn the loop."""
        calls, self.calls = self.calls, []
        for call in calls:
            call()

    def settle(self) -> None:
        while self.jobs or self.calls:
            if self.jobs:
                self.work()
            self.turn()

    def receive(self, data: bytes) -> None:
        assert not self.paused
        self.receiver.data_received(data)
        waiting = sum(map(len, self.content.rest))
        writing = sum(map(len, self.jobs[0].args[0])) if self.jobs and self.jobs[0].args else 0
        self.most = max(self.most, waiting + writing)
        self.most_told = max(self.most_told, waiting + self.told)
        noted = self.budgets.unfinished.total
        if self.alone and not self.ended:
            assert noted >= waiting + writing or waiting + writing <= receivers.SMALL
            assert noted <= 2 * self.most_told

    def finish_request(self) -> None:
        assert not self.paused
        self.receiver.finish()


@pytest.fixture(autouse=True)
def small_window(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receivers, "_WINDOW", WINDOW)
    monkeypatch.setattr(receivers, "_WORTH_WRITING", WORTH_WRITING)


STEPS = st.lists(st.one_of(st.integers(1, PIECE), st.sampled_from(["work", "turn", "turn", "work"])), max_size=60)
ENDS = st.sampled_from(["finish", "abort"])


def run(steps: list[Any], memory: int, disk: Disk) -> tuple[Upload, bytes]:
    """Play *steps*; pieces that come while the client waits are left out, as the connection keeps them."""
    upload = Upload(memory)
    sent = b""
    for step in steps:
        if step == "work":
            if upload.jobs:
                upload.work()
        elif step == "turn":
            upload.turn()
        elif not upload.paused and not upload.ended:
            data = bytes((len(sent) + index) % 251 for index in range(step))
            sent += data
            upload.receive(data)
    return upload, sent


@given(
    steps=STEPS, memory=st.sampled_from([0, 1, 10, 400, 5000]), room=st.sampled_from([1 << 60, 0, 500, 2000]), end=ENDS
)
def test_any_order_of_events(steps: list[Any], memory: int, room: int, end: str) -> None:
    disk = Disk(room)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "TemporaryFile", lambda **options: disk)
        patch.setattr(receivers, "_WINDOW", WINDOW)
        patch.setattr(receivers, "_WORTH_WRITING", WORTH_WRITING)
        patch.setattr(receivers, "SMALL", 20)
        patch.setattr(receivers.app_log, "error", lambda *args: None)
        upload, sent = run(steps, memory, disk)
        if end == "abort":
            if not upload.ended:
                upload.receiver.on_connection_close()
        else:
            while upload.paused:
                upload.settle()
            if not upload.ended:
                upload.finish_request()
        upload.settle()
        budgets = upload.budgets
        assert budgets.unfinished.total == 0
        assert budgets.spool.total == (
            -(-len(sent) // 4096) * 4096 if upload.content.has_file and end == "finish" and not upload.failed else 0
        )
        assert upload.most <= max(memory, WINDOW) + WINDOW + 2 * PIECE
        assert not upload.paused or upload.ended
        if upload.failed:
            assert upload.failed == [500]
            assert len(sent) > min(room, memory)
        elif end == "finish":
            assert upload.finished == 1
            assert upload.content.size == len(sent)
            assert isinstance(upload.content.open(), io.BufferedReader) is (len(sent) > memory)
            assert upload.content.open().read() == sent
            upload.content.close()
            assert disk.closed is (len(sent) > memory)
            assert budgets.spool.total == 0
            return
        assert upload.finished == 0
        assert upload.ended == 1
        assert upload.content.rest == []
        assert disk.closed or not upload.content.has_file


def test_content_within_the_memory_is_not_written() -> None:
    upload = Upload(100)
    upload.receive(bytes(60))
    upload.receive(bytes(40))
    upload.finish_request()
    assert (upload.jobs, upload.finished, upload.content.has_file) == ([], 1, False)


def test_one_job_writes_all_that_came_during_the_one_before() -> None:
    upload = Upload(100)
    upload.receive(bytes(101))
    assert len(upload.jobs) == 1
    upload.work()
    for _ in range(3):
        upload.receive(bytes(60))
    assert upload.jobs == []  # not before the loop has heard of the end of the first
    upload.turn()
    assert [sum(map(len, job.args[0])) for job in upload.jobs] == [180]
    upload.settle()
    upload.receive(bytes(50))
    assert upload.jobs == []  # little is kept until there is more
    upload.finish_request()
    assert upload.finished == 1
    assert upload.content.open().read() == bytes(331)
    upload.content.close()


def test_clients_wait_for_the_disk_when_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    upload = Upload(100)
    upload.receive(bytes(101))
    upload.settle()
    monkeypatch.setattr(receivers, "_WINDOW", 100_000)
    upload.receiver._memory = 100_000
    upload.budgets.unfinished.limit = 20_000
    upload.receive(bytes(5000))
    assert (upload.paused, len(upload.jobs)) == (False, 0)
    upload.receive(bytes(5000))
    assert (upload.paused, len(upload.jobs)) == (True, 1)
    upload.settle()
    assert not upload.paused
    assert upload.budgets.unfinished.total == 1  # which stands for none
    upload.finish_request()
    assert upload.budgets.unfinished.total == 0
    upload.content.close()


def test_the_client_waits_only_beyond_the_window() -> None:
    upload = Upload(100)
    upload.receive(bytes(101))
    upload.receive(bytes(WINDOW))
    assert not upload.paused
    upload.receive(b"x")
    assert upload.paused
    upload.work()
    upload.turn()  # what is in the window is now being written
    assert not upload.paused
    upload.receive(bytes(WINDOW))
    assert not upload.paused
    upload.settle()
    upload.finish_request()
    upload.content.close()


def test_the_request_waits_for_the_last_write() -> None:
    upload = Upload(100)
    upload.receive(bytes(101))
    upload.receive(bytes(101))
    upload.finish_request()
    assert upload.finished == 0
    upload.work()
    upload.turn()
    assert upload.finished == 0  # there is another job
    upload.work()
    assert upload.finished == 0
    upload.turn()
    assert upload.finished == 1
    upload.content.close()


def test_memory_that_others_need_goes_to_the_file() -> None:
    one = Upload(100_000)
    two = Upload(100_000, budgets=one.budgets)
    one.budgets.unfinished.limit = 20_000
    one.receive(bytes(12_000))
    two.receive(bytes(9000))
    assert [len(upload.jobs) for upload in (one, two)] == [1, 0]
    one.settle()
    assert (one.budgets.unfinished.total, one.budgets.spool.total) == (16_385, 12_288)  # 9000 and room, 1 for none
    for upload in (one, two):
        upload.finish_request()
        assert upload.finished == 1
        upload.content.close()
    assert (one.budgets.unfinished.total, one.budgets.spool.total) == (0, 0)


def test_the_largest_upload_ends_when_the_disk_is_used_up(caplog: pytest.LogCaptureFixture) -> None:
    uploads = [Upload(100)]
    uploads += [Upload(100, budgets=uploads[0].budgets) for _ in range(2)]
    budget = uploads[0].budgets.spool
    budget.limit = 16_000
    uploads[2].receive(bytes(300))
    uploads[2].settle()
    uploads[2].finish_request()
    for upload, size in zip(uploads[:2], (5000, 11_000), strict=True):
        upload.receive(bytes(size))
    assert [upload.failed for upload in uploads] == [[], [], []]  # it is the one that receives right now
    uploads[0].turn()
    assert [upload.failed for upload in uploads] == [[], [503], []]
    for upload in uploads:
        upload.settle()
    assert budget.total == 4096 + 8192  # whole blocks
    assert "--limit-spool is used up" in caplog.text
    assert "the upload of POST /" in caplog.text
    for upload in uploads:
        upload.content.close()


def test_a_file_counts_until_its_job_has_ended() -> None:
    upload, other = (one := Upload(100)), Upload(100, budgets=one.budgets)
    budget = upload.budgets.spool
    upload.receive(bytes(5000))
    upload.receiver.on_connection_close()
    assert budget.total == 8192
    budget.limit = 8192
    other.receive(bytes(200))
    assert (upload.failed, other.failed) == ([], [])  # the former has ended already
    upload.settle()
    assert budget.total == 4096
    other.receiver.on_connection_close()
    other.settle()
    assert budget.total == 0


def test_too_much_content() -> None:
    upload = Upload(100, limit=150)
    upload.receive(bytes(150))
    upload.receive(b"x")
    assert upload.failed == [413]
    upload.settle()
    assert upload.finished == 0
    with pytest.raises(ValueError, match="closed"):
        upload.content.open()


def test_a_loop_that_has_ended_leaves_no_file() -> None:
    upload = Upload(100)

    def closed(*arguments: Any) -> None:
        raise RuntimeError("Event loop is closed")

    upload.call_soon_threadsafe = closed
    upload.receive(bytes(101))
    upload.work()
    with pytest.raises(ValueError, match="closed"):
        upload.content.open()


# --- over sockets -----------------------------------------------------------------------------------------------------


class DiskOfMoods:
    """Makes temporary files whose writes take their time, or fail."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)
        self.open: list[io.BytesIO] = []
        self.lock = threading.Lock()
        self.threads: set[str] = set()
        self.stop = threading.Event()  # never set: its wait() is a delay

    def __call__(self, **options: Any) -> io.BytesIO:
        moods = self
        full = len(self.open) % 3 == 0
        room = self.dice.choice([0, 20_000, 50_000, 250_000])

        class File(io.BytesIO):
            def write(self, data: Any) -> int:
                moods.threads.add(threading.current_thread().name)
                moods.stop.wait(moods.dice.choice([0, 0, 0.001, 0.01]))
                if full and self.tell() + len(data) > room:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return super().write(data)

        file = File()
        with self.lock:
            self.open.append(file)
        return file


@pytest.mark.http1("windows make clients slow, so that responses use files, too")
@both_loops
async def test_uploads_of_all_kinds(monkeypatch, caplog) -> None:
    """Sizes, pieces, slow writes, full disks and clients that leave: who stays gets its own bytes back, or 500."""
    caplog.set_level(logging.CRITICAL, "bridge")
    disk = DiskOfMoods(seed=5)
    monkeypatch.setattr(tempfile, "TemporaryFile", disk)
    monkeypatch.setattr(receivers, "_WINDOW", 100_000)
    dice = random.Random(7)

    def app(environ, start_response):
        data = environ["wsgi.input"].read()
        start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(data)))])
        return [data[:100_000], data[100_000:]]

    async def one(served, number: int) -> str:
        size = dice.choice([1, 3000, 70_000, 300_000, 1_000_000])
        content = random.Random(number).randbytes(size)
        leaves = dice.random() < 0.25
        reader, writer = await served.connect()
        head = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size
        writer.write(head)
        left = content[: dice.randrange(size) if leaves else size]
        try:
            while left:
                piece = dice.choice([1, 1000, 50_000, 400_000])
                writer.write(left[:piece])
                left = left[piece:]
                await asyncio.wait_for(writer.drain(), 20)
            if leaves:
                return "left"
            answer = await asyncio.wait_for(reader.read(), 20)
        except ConnectionError:
            return "reset"
        finally:
            writer.transport.abort()
        if answer.startswith(b"HTTP/1.1 500"):
            return "failed"
        assert answer.startswith(b"HTTP/1.1 200")
        assert answer.partition(b"\r\n\r\n")[2] == content
        return "answered"

    async with serving(app, buffer_requests=2000) as served:
        ends = []
        for first in range(0, 60, 12):
            ends += await asyncio.gather(*(one(served, number) for number in range(first, first + 12)))
        async with asyncio.timeout(10):
            while not all(file.closed for file in disk.open):
                await asyncio.sleep(0.005)
    assert {"left", "answered", "failed"} <= set(ends) <= {"left", "answered", "failed", "reset"}
    assert {name.rpartition("_")[0] for name in disk.threads} - {"bridge-wsgi-files"} == set()


@both_loops
async def test_a_slow_disk_slows_its_client_down(monkeypatch) -> None:
    release = threading.Event()
    written: list[int] = []

    class Slow(io.BytesIO):
        def write(self, data: Any) -> int:
            assert release.wait(10)
            written.append(len(data))
            return super().write(data)

    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **options: Slow())
    total = 30_000_000

    def app(environ, start_response):
        size = len(environ["wsgi.input"].read())
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(size).encode()]

    async with serving(app) as served:
        reader, writer = await served.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % total)
        writer.write(bytes(total))
        for _ in range(3):  # meanwhile the loop turns
            assert (await served.get("/", method="POST", content=b"abc")).content == b"3"
        await asyncio.sleep(0.2)
        assert writer.transport.get_write_buffer_size() > total // 2  # much of it is still here
        assert written == []
        release.set()
        assert (await asyncio.wait_for(reader.read(), 20)).endswith(str(total).encode())
        writer.close()


async def test_the_file_threads_end_with_the_delegate() -> None:
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [environ["wsgi.input"].read()[:1]]

    def threads() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name.startswith("bridge-wsgi-files")]

    async with serving(app) as served:
        assert (await served.get(method="POST", content=bytes(60_000))).status == 200
        assert threads() == []
        assert (await served.get(method="POST", content=bytes(100_000))).status == 200
        assert 1 <= len(threads()) <= 4
    for thread in threads():
        thread.join(5)
    assert threads() == []


async def test_a_disk_that_is_full_at_the_very_end(monkeypatch, caplog) -> None:
    """The last little piece is written by the thread that would answer the request."""
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **options: Disk(100_000))

    def app(environ, start_response):
        raise AssertionError("it is not called")

    async with serving(app) as served:
        reader, writer = await served.connect()
        writer.write(
            b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 100001\r\n\r\n" + bytes(100_000)
        )
        await asyncio.sleep(0.05)
        writer.write(b"x")
        assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 500")
        writer.close()
    assert [message.partition(":")[0] for message in messages(caplog)] == ["The content of POST / cannot be kept"]


@pytest.mark.http1("a stream has no half-closed client that may still read")
@pytest.mark.parametrize("buffer", [65536, None], ids=["received", "streamed"])
async def test_a_client_that_has_sent_its_content_and_closes_its_side(buffer) -> None:
    loop = asyncio.get_running_loop()
    entered = asyncio.Event()
    go_on = threading.Event()
    seen = []

    def app(environ, start_response):
        seen.append(environ["bridge.client_disconnected"])
        content = environ["wsgi.input"].read()
        loop.call_soon_threadsafe(entered.set)
        assert go_on.wait(10)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [content]

    async with serving(app, buffer_requests=buffer) as served:
        reader, writer = await served.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
        await asyncio.wait_for(entered.wait(), 5)
        assert not seen[0]()
        writer.write_eof()
        async with asyncio.timeout(5):
            while not seen[0]():
                await asyncio.sleep(0.001)
        go_on.set()
        assert (await asyncio.wait_for(reader.read(), 5)).endswith(b"abc")
        writer.close()
