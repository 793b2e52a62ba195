"""A protocol with a buffer of its own gets all of what is received, and is told all that its transport tells."""

from __future__ import annotations

import asyncio

import pytest

from bridge.core.net.filled import Filled


class Buffered(asyncio.BufferedProtocol):
    """Keeps what comes into its buffer, and what it is told."""

    def __init__(self, size: int) -> None:
        self.buffer = bytearray(size)
        self.received = b""
        self.told: list[object] = []

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.received += self.buffer[:nbytes]

    def eof_received(self) -> bool:
        self.told.append("eof")
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self.told.append(exc)

    def pause_writing(self) -> None:
        self.told.append("pause")

    def resume_writing(self) -> None:
        self.told.append("resume")


@pytest.mark.parametrize("size", [1, 3, 10, 100])
def test_the_buffer_is_filled_until_nothing_is_left(size: int) -> None:
    buffered = Buffered(size)
    filled = Filled(buffered)
    filled.data_received(b"0123456789")
    filled.data_received(b"")
    filled.data_received(b"ab")
    assert buffered.received == b"0123456789ab"


def test_a_buffer_without_room_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="empty buffer"):
        Filled(Buffered(0)).data_received(b"x")


def test_everything_else_is_passed_on() -> None:
    buffered = Buffered(1)
    filled = Filled(buffered)
    filled.pause_writing()
    filled.resume_writing()
    assert filled.eof_received() is True
    error = ConnectionResetError()
    filled.connection_lost(error)
    assert buffered.told == ["pause", "resume", "eof", error]
