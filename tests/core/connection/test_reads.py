"""How much is read from a socket at once, on both loops."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from bridge.core.connection.reads import read_by_default, read_little, read_much
from tests.support.loops import both_loops

LITTLE = 16384


class Received(asyncio.Protocol):
    """Notes the sizes of what it gets."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.came = asyncio.Event()
        self.events: list[str] = []
        self.over = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.sizes.append(len(data))
        self.came.set()

    def eof_received(self) -> bool:
        self.events.append("eof")
        self.came.set()
        return True

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")
        self.over.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.events.append("lost")
        self.over.set()

    async def take(self, size: int) -> list[int]:
        """Wait until *size* bytes have come; return in which pieces."""
        while sum(self.sizes) < size:
            self.came.clear()
            await self.came.wait()
        sizes, self.sizes = self.sizes, []
        assert sum(sizes) == size
        return sizes


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[Received, socket.socket]]:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        ours = listener.accept()[0]
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
    peer.setblocking(False)
    _, protocol = await loop.connect_accepted_socket(Received, ours)
    with peer:
        yield protocol, peer
        protocol.transport.abort()
        await asyncio.sleep(0)


async def send(received: Received, peer: socket.socket, size: int) -> list[int]:
    received.transport.pause_reading()
    await asyncio.get_running_loop().sock_sendall(peer, bytes(size))
    received.transport.resume_reading()
    return await received.take(size)


@both_loops
async def test_little_and_much() -> None:
    async with connected() as (received, peer):
        transport = received.transport
        for _ in range(2):
            for _ in range(2):  # the second time changes nothing
                read_little(transport)
            assert max(await send(received, peer, 60_000)) <= LITTLE
            read_much(transport)
            assert max(await send(received, peer, 60_000)) > LITTLE
        read_by_default(transport, crowd=True)
        assert max(await send(received, peer, 60_000)) <= LITTLE
        read_by_default(transport, crowd=False)
        asyncios = hasattr(transport, "max_size")
        assert (max(await send(received, peer, 60_000)) <= LITTLE) is asyncios


@both_loops
async def test_it_may_change_while_data_comes() -> None:
    async with connected() as (received, peer):
        transport = received.transport
        read_little(transport)
        plain = received.data_received
        turn = 0

        def change(data: bytes) -> None:
            nonlocal turn
            turn += 1
            plain(data)
            (read_much if turn % 2 else read_little)(transport)

        received.data_received = change  # type: ignore[method-assign]
        for _ in range(4):
            await send(received, peer, 100_000)


@both_loops
async def test_everything_else_arrives_through_little_reads() -> None:
    loop = asyncio.get_running_loop()
    async with connected() as (received, peer):
        transport = received.transport
        read_little(transport)
        transport.set_write_buffer_limits(high=1000)
        transport.write(bytes(20_000_000))
        assert received.events == ["pause"]
        left = 20_000_000
        while left:
            left -= len(await loop.sock_recv(peer, 1 << 20))
        await received.over.wait()
        peer.shutdown(socket.SHUT_WR)
        while "eof" not in received.events:
            received.came.clear()
            await received.came.wait()
        assert received.events == ["pause", "resume", "eof"]
        received.over.clear()
        transport.abort()
        await received.over.wait()
        assert received.events[-1] == "lost"
        read_little(transport)  # of no use any more, and no harm


@both_loops
async def test_another_protocol_may_take_the_transport() -> None:
    async with connected() as (received, peer):
        read_little(received.transport)
        await send(received, peer, 1000)
        read_much(received.transport)
        other = Received()
        other.transport = received.transport
        received.transport.set_protocol(other)
        await send(other, peer, 60_000)
        assert received.sizes == []
