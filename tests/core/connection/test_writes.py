"""What a transport keeps of what its socket does not take, on both loops."""

from __future__ import annotations

import asyncio
import socket
import sys
from typing import Any

import pytest

from bridge.core.connection.budgets import Budgets
from bridge.core.connection.clock import Clock
from bridge.core.connection.context import ConnectionContext
from bridge.core.connection.parameters import ConnectionParameters
from bridge.core.connection.writer import Writer
from bridge.core.connection.writes import write_past
from tests.support.loops import both_loops

MUCH = bytes(range(256)) * 65536


class Sender(asyncio.Protocol):
    """A connection with a writer."""

    def __init__(self) -> None:
        self.lost = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        context = ConnectionContext(None, None, "http")
        loop = asyncio.get_running_loop()
        self.writer = Writer(self, ConnectionParameters(), context, Clock(loop), loop)
        self.writer.open(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.writer.close()
        self.lost.set()

    def pause_writing(self) -> None:
        self.writer.pause()

    def resume_writing(self) -> None:
        self.writer.resume()

    def write_stalled(self) -> None:
        raise AssertionError

    def turn_ended(self) -> None:
        raise AssertionError


async def pair(family: str) -> tuple[Sender, socket.socket]:
    if family == "unix":
        ours, peer = socket.socketpair()
    else:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            peer = socket.create_connection(listener.getsockname())
            ours = listener.accept()[0]
    peer.setblocking(False)
    loop = asyncio.get_running_loop()
    if family == "unix":
        _, sender = await loop.create_unix_connection(Sender, sock=ours)
    else:
        _, sender = await loop.connect_accepted_socket(Sender, ours)
    return sender, peer


async def read(peer: socket.socket, size: int) -> bytes:
    received = bytearray()
    while len(received) < size:
        piece = await asyncio.get_running_loop().sock_recv(peer, 1 << 20)
        assert piece
        received += piece
    return bytes(received)


@pytest.mark.parametrize("family", ["tcp", "unix"])
@pytest.mark.parametrize("parts", [False, True], ids=["whole", "parts"])
@both_loops
async def test_what_is_not_sent_does_not_keep_what_is(family: str, parts: bool) -> None:
    sender, peer = await pair(family)
    with peer:
        data = bytearray(MUCH)
        data[-1] = 7
        much = bytes(data)
        references = sys.getrefcount(much)
        if parts:
            sender.writer.write_parts([b"head", much])
        else:
            sender.writer.write(much)
        assert sender.writer.paused
        waits = sender.writer.transport.get_write_buffer_size()  # type: ignore[union-attr]
        assert 0 < waits < len(much)
        assert sys.getrefcount(much) == references
        assert Budgets.of(asyncio.get_running_loop()).unsent.total == waits
        expected = b"head" + much if parts else much
        assert await read(peer, len(expected)) == expected
        while sender.writer.paused:
            await asyncio.sleep(0)
        assert write_past(sender.writer.transport, [b"x"])  # type: ignore[arg-type]
        sender.writer.transport.abort()  # type: ignore[union-attr]
        assert not write_past(sender.writer.transport, [b"x"])  # type: ignore[arg-type]
        await sender.lost.wait()


@both_loops
async def test_what_the_system_does_not_take_is_left_to_the_transport() -> None:
    sender, peer = await pair("tcp")
    with peer:
        sender.writer.write(MUCH)
        sender.writer.write(b"y" * 5000)
        assert (await read(peer, len(MUCH) + 5000))[-5001:] == MUCH[-1:] + b"y" * 5000
        peer.close()
        sender.writer.write(b"z" * 5000)  # the first one meets a reset
        sender.writer.write(b"z" * 5000)
        await sender.lost.wait()
