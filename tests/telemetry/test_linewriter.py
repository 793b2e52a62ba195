"""The thread that writes lines."""

from __future__ import annotations

import os
import select
import socket
import threading
from pathlib import Path

import pytest

from bridge.telemetry.linewriter import LineWriter, to_descriptor


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
