"""The fake transport does to a protocol what asyncio's and uvloop's transports do: one script each, three loops."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from tests.support.faketransport import FakeTransport

BIG = 8 << 20


class Log(asyncio.Protocol):
    """Writes down what it is called with."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.data = b""
        self.keep_open = True
        self.changed = asyncio.Event()
        self.transport: asyncio.Transport

    def note(self, event: str) -> None:
        self.events.append(event)
        self.changed.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]
        self.note("made")

    def data_received(self, data: bytes) -> None:
        self.data += data
        if not self.events[-1].startswith("data"):
            self.note("data")
        self.changed.set()

    def eof_received(self) -> bool:
        self.note("eof")
        return self.keep_open

    def pause_writing(self) -> None:
        self.note("pause")

    def resume_writing(self) -> None:
        self.note("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.note("lost" if exc is None else "lost: reset")

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    async def seen(self, event: str) -> None:
        await self.until(lambda: event in self.events)


class FakePeer:
    """The other end of a FakeTransport, with the methods that the scripts need."""

    def __init__(self, transport: FakeTransport) -> None:
        self._transport = transport

    async def send(self, data: bytes) -> None:
        self._transport.peer_sends(data)

    async def send_eof(self) -> None:
        self._transport.peer_sends_eof()

    async def stop_reading(self) -> None:
        self._transport.window = 0

    async def read_all(self, size: int) -> bytes:
        self._transport.peer_reads()
        async with asyncio.timeout(10):
            while len(self._transport.received) < size:
                await asyncio.sleep(0)
        return bytes(self._transport.received)

    async def read_to_the_end(self) -> bytes:
        self._transport.peer_reads()
        async with asyncio.timeout(10):
            while not self._transport.eof:
                await asyncio.sleep(0)
        return bytes(self._transport.received)

    async def reset(self) -> None:
        self._transport.peer_resets()


class SocketPeer:
    """The other end of a real connection."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._loop = asyncio.get_running_loop()

    async def send(self, data: bytes) -> None:
        await self._loop.sock_sendall(self._sock, data)

    async def send_eof(self) -> None:
        self._sock.shutdown(socket.SHUT_WR)

    async def stop_reading(self) -> None:
        pass

    async def read_all(self, size: int) -> bytes:
        data = b""
        async with asyncio.timeout(10):
            while len(data) < size:
                data += await self._loop.sock_recv(self._sock, 1 << 20)
        return data

    async def read_to_the_end(self) -> bytes:
        data = b""
        async with asyncio.timeout(10):
            while part := await self._loop.sock_recv(self._sock, 1 << 20):
                data += part
        return data

    async def reset(self) -> None:
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()


Peer = FakePeer | SocketPeer
Script = Callable[[Log, Peer], Awaitable[object]]


async def echo(log: Log, peer: Peer) -> object:
    await peer.send(b"hello")
    await log.until(lambda: log.data == b"hello")
    log.transport.write(b"wor")
    log.transport.writelines([b"l", b"d"])
    return await peer.read_all(5)


async def half_close(log: Log, peer: Peer) -> object:
    await peer.send_eof()
    await log.seen("eof")
    log.transport.write(b"still here")
    answer = await peer.read_all(10)
    log.transport.close()
    await log.seen("lost")
    return answer


async def end_at_eof(log: Log, peer: Peer) -> object:
    log.keep_open = False
    await peer.send_eof()
    await log.seen("lost")
    return await peer.read_to_the_end()


async def pause_reading(log: Log, peer: Peer) -> object:
    log.transport.pause_reading()
    assert not log.transport.is_reading()
    await peer.send(b"later")
    for _ in range(20):
        await asyncio.sleep(0)
    before = list(log.events)
    log.transport.resume_reading()
    assert log.transport.is_reading()
    await log.seen("data")
    return before, log.data


async def backpressure(log: Log, peer: Peer) -> object:
    await peer.stop_reading()
    log.transport.set_write_buffer_limits(high=1000)
    assert log.transport.get_write_buffer_limits() == (250, 1000)
    log.transport.write(b"x" * BIG)
    within = list(log.events)  # pause_writing() was called within write()
    assert log.transport.get_write_buffer_size() > 1000
    log.transport.write(b"y")
    read = await peer.read_all(BIG + 1)
    await log.seen("resume")
    return within, len(read), log.transport.get_write_buffer_size()


async def lower_mark(log: Log, peer: Peer) -> object:
    await peer.stop_reading()
    log.transport.set_write_buffer_limits(high=2 * BIG)
    log.transport.write(b"x" * BIG)
    before = list(log.events)
    log.transport.set_write_buffer_limits(high=0)  # pauses at once what is above the new mark
    within = list(log.events)
    read = await peer.read_all(BIG)
    await log.seen("resume")
    return before, within, len(read)


async def close_flushes(log: Log, peer: Peer) -> object:
    await peer.stop_reading()
    log.transport.write(b"x" * BIG)
    log.transport.close()
    assert log.transport.is_closing()
    for _ in range(20):
        await asyncio.sleep(0)
    before = list(log.events)
    read = await peer.read_to_the_end()
    await log.seen("lost")
    return before, len(read)


async def abort_drops(log: Log, peer: Peer) -> object:
    await peer.stop_reading()
    log.transport.write(b"x" * BIG)
    log.transport.abort()
    assert log.transport.is_closing()
    before = list(log.events)
    await log.seen("lost")
    return before


async def write_eof(log: Log, peer: Peer) -> object:
    assert log.transport.can_write_eof()
    await peer.stop_reading()
    log.transport.write(b"x" * BIG)
    log.transport.write_eof()
    with pytest.raises(RuntimeError):
        log.transport.write(b"more")
    read = await peer.read_to_the_end()
    await peer.send(b"and I?")
    await log.until(lambda: log.data == b"and I?")
    log.transport.close()
    await log.seen("lost")
    return len(read)


async def reset(log: Log, peer: Peer) -> object:
    await peer.reset()
    await log.until(lambda: any(event.startswith("lost") for event in log.events))
    assert log.transport.is_closing()
    return log.events.pop()[:4]  # uvloop tells no error for a reset while it is reading


async def close_twice(log: Log, peer: Peer) -> object:
    log.transport.close()
    log.transport.close()
    log.transport.abort()
    await log.seen("lost")
    return await peer.read_to_the_end()


async def other_protocol(log: Log, peer: Peer) -> object:
    second = Log()
    second.events.append("taken over")
    log.transport.set_protocol(second)
    assert log.transport.get_protocol() is second
    await peer.send(b"to you")
    await second.until(lambda: second.data == b"to you")
    log.transport.close()
    await second.seen("lost")
    return second.events


SCRIPTS = [
    echo,
    half_close,
    end_at_eof,
    pause_reading,
    backpressure,
    lower_mark,
    close_flushes,
    abort_drops,
    write_eof,
    reset,
    close_twice,
    other_protocol,
]


async def on_fake(script: Script) -> object:
    log = Log()
    transport = FakeTransport(asyncio.get_running_loop(), log)
    await log.seen("made")
    result = await script(log, FakePeer(transport))
    return result, log.events


async def on_socket(script: Script) -> object:
    # A TCP connection, not a pair of unix sockets: only TCP knows resets.
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        log = Log()
        await asyncio.get_running_loop().connect_accepted_socket(lambda: log, theirs)
        await log.seen("made")
        result = await script(log, SocketPeer(ours))
        events = list(log.events)
        if not log.transport.is_closing():
            log.transport.abort()
            await log.seen("lost")
        return result, events


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.__name__)
def test_the_fake_is_like_the_real_ones(script: Script) -> None:
    fake = asyncio.run(on_fake(script))
    assert fake == asyncio.run(on_socket(script))
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert fake == runner.run(on_socket(script))


def test_the_fake_notes_what_must_not_be_done() -> None:
    async def run() -> None:
        log = Log()
        transport = FakeTransport(asyncio.get_running_loop(), log, tls=True)
        await log.seen("made")
        transport.peer_sends_eof()
        assert len(transport.faults) == 1
        transport.write(b"x")
        assert len(transport.faults) == 2
        with pytest.raises(TypeError):
            transport.write("x")  # type: ignore[arg-type]
        await log.seen("lost")
        assert transport.received == b""

    asyncio.run(run())
