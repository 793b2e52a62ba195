"""The thread that writes lines."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from pathlib import Path

import pytest

from bridge.telemetry.linewriter import LineWriter, to_descriptor, without_waiting
from tests.support.running import PATIENCE


def test_a_writer_that_hangs_delays_nobody() -> None:
    gate = threading.Event()
    written: list[bytes] = []

    def write(block: bytes) -> None:
        gate.wait()
        written.append(block)

    writer = LineWriter(write, most=2)
    for number in range(10):
        writer.write(b"%d\n" % number)
    assert writer.dropped >= 7
    assert not writer.call(lambda: None)  # it does not wait either
    gate.set()
    writer.close()
    assert written[0] == b"0\n"


def test_a_call_comes_after_what_was_written_before_it() -> None:
    happened: list[bytes] = []
    writer = LineWriter(happened.append)
    writer.write(b"a\n")
    assert writer.call(lambda: happened.append(b"renamed"))
    writer.write(b"b\n")
    writer.close()
    assert happened == [b"a\n", b"renamed", b"b\n"]


def test_a_disk_that_is_full_loses_lines_and_nothing_else() -> None:
    def write(block: bytes) -> None:
        raise OSError(28, "No space left on device")

    writer = LineWriter(write)
    writer.write(b"a\nb\n")
    writer.close()
    assert writer.dropped == 2


LINES = b"".join(b"%d %s\n" % (number, b"x" * (number % 97)) for number in range(2000)) + b"y" * 9000 + b"\n" + b"z\n"


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_lines_go_into_a_pipe_in_pieces_that_stay_whole(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    pieces: list[bytes] = []
    reading, writing = os.pipe() if kind == "pipe" else (end.detach() for end in socket.socketpair())
    try:
        write = to_descriptor(writing)
        monkeypatch.setattr(os, "write", lambda _, data: pieces.append(data) or len(data))
        write(LINES)
    finally:
        os.close(reading)
        os.close(writing)
    assert b"".join(pieces) == LINES
    assert all(piece.endswith(b"\n") for piece in pieces)
    assert [piece for piece in pieces if len(piece) > select.PIPE_BUF] == [b"y" * 9000 + b"\n"]
    assert len(pieces) < len(LINES) / select.PIPE_BUF * 1.1 + 3


def test_a_block_goes_into_a_file_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sizes: list[int] = []
    real = os.write

    def write(descriptor: int, data: bytes) -> int:
        sizes.append(len(data))
        return real(descriptor, data[:70_000])  # as a disk that is nearly full may

    monkeypatch.setattr(os, "write", write)
    descriptor = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    to_descriptor(descriptor)(LINES)
    os.close(descriptor)
    assert (tmp_path / "log").read_bytes() == LINES
    assert sizes == [len(LINES), len(LINES) - 70_000]


def test_the_thread_starts_with_the_first_line_and_again_after_it_has_ended() -> None:
    written: list[bytes] = []
    writer = LineWriter(written.append, name="the-writer", idle=0.01)

    def running() -> bool:
        return any(thread.name == "the-writer" for thread in threading.enumerate())

    assert not running()
    for number in range(3):
        writer.write(b"%d\n" % number)
        assert writer.flush(PATIENCE)
        end = time.monotonic() + PATIENCE
        while running():
            assert time.monotonic() < end
    writer.write(b"3\n")
    writer.close(PATIENCE)
    assert not running()
    assert written == [b"0\n", b"1\n", b"2\n", b"3\n"]


def test_lines_of_many_threads_are_all_written() -> None:
    written: list[bytes] = []
    writer = LineWriter(written.append, most=100_000, idle=0.0)

    def write(name: int) -> None:
        for number in range(1000):
            writer.write(b"%d %d\n" % (name, number))

    threads = [threading.Thread(target=write, args=(name,)) for name in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert writer.flush(PATIENCE)
    writer.close(PATIENCE)
    for name in range(4):
        lines = [line for line in written if line.startswith(b"%d " % name)]
        assert lines == [b"%d %d\n" % (name, number) for number in range(1000)]


def test_what_was_lost_is_said_once_between_the_lines() -> None:
    gate = threading.Event()
    written: list[bytes] = []

    def write(block: bytes) -> None:
        gate.wait(PATIENCE)
        written.append(block)

    writer = LineWriter(write, most=2, lost=lambda number: b"%d lost\n" % number)
    for number in range(6):
        writer.write(b"%d\n" % number)
    gate.set()
    assert writer.flush(PATIENCE)
    end = time.monotonic() + PATIENCE
    while not written[-1].endswith(b"lost\n"):
        assert time.monotonic() < end
    writer.write(b"new\n")
    writer.close(PATIENCE)
    *old, lost, new = written
    assert old == [b"%d\n" % number for number in range(len(old))]
    assert (lost, new) == (b"%d lost\n" % (6 - len(old)), b"new\n")


def test_a_write_that_hangs_costs_a_flush_its_limit_once() -> None:
    gate = threading.Event()
    writer = LineWriter(lambda _: bool(gate.wait(PATIENCE)))
    writer.write(b"a\n")
    assert not writer.flush(0.2)
    begin = time.monotonic()
    assert not writer.flush(2.0)
    writer.close(2.0)
    assert time.monotonic() - begin < 2.0
    gate.set()
    assert writer.flush(PATIENCE)
    writer.close()


def test_a_pipe_that_somebody_has_set_not_to_block_loses_nothing() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    writer = LineWriter(to_descriptor(writing))
    writer.write(LINES * 3)
    received = b""
    while len(received) < len(LINES * 3):
        received += os.read(reading, 65536)
    writer.close()
    os.close(reading)
    os.close(writing)
    assert (received, writer.dropped) == (LINES * 3, 0)


def test_a_descriptor_for_those_who_cannot_wait(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    other = without_waiting(writing)
    assert other != writing
    with pytest.raises(BlockingIOError):
        while True:
            os.write(other, bytes(65536))
    assert os.get_blocking(writing)
    with open(tmp_path / "file", "w") as file:
        assert without_waiting(file.fileno()) == file.fileno()
    for descriptor in (reading, writing, other):
        os.close(descriptor)
    assert without_waiting(other) == other
