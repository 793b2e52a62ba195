"""The transport for TLS, record by record: what comes in any cut, what is sent, and each way to end."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import struct
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from bridge.core.net.readiness import Readiness
from bridge.core.net.tlstransport import TLSTransport
from tests.support.certificates import tls_contexts
from tests.support.loops import both_loops
from tests.support.serving import until

LIMIT = 20.0  # seconds for whatever is waited for
LARGE = b"0123456789abcdef" * 400_000  # bytes; more than the buffers of both systems hold
PER_TURN = 262144

Contexts = tuple[ssl.SSLContext, ssl.SSLContext]


@pytest.fixture(scope="module", params=["TLSv1.2", "TLSv1.3"])
def contexts(request: pytest.FixtureRequest) -> Contexts:
    server, client = tls_contexts()
    server.set_alpn_protocols(["h2", "http/1.1"])
    client.set_alpn_protocols(["http/1.1"])
    client.maximum_version = {"TLSv1.2": ssl.TLSVersion.TLSv1_2, "TLSv1.3": ssl.TLSVersion.TLSv1_3}[request.param]
    return server, client


class Recorder(asyncio.Protocol):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.pieces: list[bytes] = []
        self.error: Exception | None = None
        self.on_data: Callable[[], None] = lambda: None
        self.transport: TLSTransport

    @property
    def received(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def lost(self) -> bool:
        return "lost" in self.calls

    def connection_made(self, transport: Any) -> None:
        self.calls.append("made")
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.pieces.append(data)
        self.on_data()

    def eof_received(self) -> bool:
        self.calls.append("eof")
        return True

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append("lost")
        self.error = exc


class Peer:
    """The client's end, whose records a test can cut."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.sock = sock
        self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = context.wrap_bio(self.incoming, self.outgoing, server_hostname="localhost")
        self.loop = asyncio.get_running_loop()

    async def shake_hands(self, cut: int | None = None) -> None:
        while True:
            try:
                self.tls.do_handshake()
            except ssl.SSLWantReadError:
                await self.send_raw(self.outgoing.read(), cut)
                await self.receive()
            else:
                await self.send_raw(self.outgoing.read(), cut)
                return

    def records(self, *contents: bytes) -> bytes:
        """Return the records for *contents*, at least one for each."""
        for content in contents:
            self.tls.write(content)
        return self.outgoing.read()

    async def send_raw(self, data: bytes, cut: int | None = None) -> None:
        for start in range(0, len(data), cut or len(data) or 1):
            await self.loop.sock_sendall(self.sock, data[start : start + (cut or len(data))])
            if cut is not None:
                for _ in range(3):
                    await asyncio.sleep(0)

    async def send(self, data: bytes) -> None:
        await self.send_raw(self.records(data))

    async def receive(self) -> bool:
        """Take what has come; tell whether anything has."""
        async with asyncio.timeout(LIMIT):
            data = await self.loop.sock_recv(self.sock, 65536)
        self.incoming.write(data)
        return bool(data)

    async def read(self, size: int) -> bytes:
        """Return *size* bytes of content, or fewer at the end, whether TLS or TCP ends."""
        content = bytearray()
        while len(content) < size:
            try:
                part = self.tls.read(65536)
            except ssl.SSLWantReadError:
                if not await self.receive():
                    break
            except ssl.SSLZeroReturnError:
                break
            else:
                if not part:
                    break
                content += part
        return bytes(content)

    async def end_tls(self) -> None:
        """Send close_notify."""
        with suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        await self.send_raw(self.outgoing.read())

    def reset(self) -> None:
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()


async def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return the server's and the client's end of a connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    for sock in (server, client):
        sock.setblocking(False)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return server, client


def accept(sock: socket.socket, context: ssl.SSLContext, make: Callable[[], asyncio.Protocol], **times: float) -> Any:
    loop = asyncio.get_running_loop()
    readiness = Readiness.of(loop)
    assert readiness is not None
    times = {"handshake_timeout": LIMIT, "shutdown_timeout": LIMIT} | times
    return loop.create_task(TLSTransport.accept(loop, readiness, sock, "the peer", context, make, **times))


@asynccontextmanager
async def connected(contexts: Contexts, cut: int | None = None, **times: float) -> AsyncIterator[tuple[Recorder, Peer]]:
    """Return both ends of a connection after its handshake. At the end, the server's must have ended."""
    server, client = await tcp_pair()
    recorder, peer = Recorder(), Peer(client, contexts[1])
    task = accept(server, contexts[0], lambda: recorder, **times)
    with client:
        await peer.shake_hands(cut)
        await task
        yield recorder, peer
    await until(lambda: recorder.lost)
    assert recorder.transport.is_closing()
    assert recorder.transport._sock.fileno() == -1
    assert Readiness.descriptors(asyncio.get_running_loop()) == ()


# ---------------------------------------------------------------------- reading


@both_loops
async def test_records_in_pieces_of_one_byte(contexts: Contexts) -> None:
    async with connected(contexts, cut=1) as (recorder, peer):
        await peer.send_raw(peer.records(b"first", b"second"), cut=1)
        await until(lambda: recorder.received == b"firstsecond")
        assert recorder.pieces == [b"first", b"second"]
        await peer.end_tls()


@both_loops
async def test_each_cut_of_a_record(contexts: Contexts) -> None:
    async with connected(contexts) as (recorder, peer):
        for cut in range(1, 40):
            await peer.send_raw(peer.records(b"x" * 9), cut)
            await until(lambda cut=cut: len(recorder.received) == 9 * cut)
        await peer.end_tls()


@both_loops
async def test_many_records_in_one_piece(contexts: Contexts) -> None:
    async with connected(contexts) as (recorder, peer):
        contents = [b"%d," % number for number in range(300)]
        await peer.send_raw(peer.records(*contents))
        await until(lambda: recorder.received == b"".join(contents))
        await peer.end_tls()


@both_loops
async def test_full_records_come_together_but_not_without_bound(contexts: Contexts) -> None:
    async with connected(contexts) as (recorder, peer):
        await peer.send(LARGE[:3_000_000])
        await until(lambda: len(recorder.received) == 3_000_000)
        assert 16384 < max(map(len, recorder.pieces)) <= PER_TURN
        recorder.pieces.clear()
        recorder.transport.max_size = 16384
        await peer.send(LARGE[:1_000_000])
        await until(lambda: recorder.received == LARGE[:1_000_000])
        assert max(map(len, recorder.pieces)) == 16384
        await peer.end_tls()


@both_loops
async def test_records_of_each_size(contexts: Contexts) -> None:
    async with connected(contexts) as (recorder, peer):
        for most in (PER_TURN, 16384):
            recorder.transport.max_size = most
            for size in (1, 2, 4095, 4096, 4097, 8191, 8192, 8193, 16383, 16384):
                recorder.pieces.clear()
                await peer.send(LARGE[:size])
                await until(lambda size=size: len(recorder.received) == size)
                assert recorder.pieces == [LARGE[:size]]
        await peer.end_tls()


@both_loops
async def test_a_record_longer_than_one_read_whose_end_comes_later(contexts: Contexts) -> None:
    async with connected(contexts) as (recorder, peer):
        for size in (4096, 4097, 16384):
            record = peer.records(LARGE[:size])
            for cut in (1, 5, 4101, len(record) - 1):
                await peer.send_raw(record[:cut])
                for _ in range(3):
                    await asyncio.sleep(0)
                assert recorder.received == b""
                await peer.send_raw(record[cut:])
                await until(lambda size=size: len(recorder.received) == size)
                recorder.pieces.clear()
                record = peer.records(LARGE[:size])
            await peer.send_raw(record)
            await until(lambda size=size: len(recorder.received) == size)
            recorder.pieces.clear()
        await peer.end_tls()


@both_loops
async def test_what_was_read_in_the_turn_in_which_another_connection_ends_this_one(contexts: Contexts) -> None:
    async with connected(contexts) as (first, one), connected(contexts) as (second, other):
        records = one.records(b"a"), other.records(b"b")
        first.on_data = second.transport.abort
        one.sock.send(records[0])  # both are there before the loop looks
        other.sock.send(records[1])
        await until(lambda: second.lost)
        assert (first.received, second.received) == (b"a", b"")
        assert second.calls == ["made", "lost"]
        await one.end_tls()
        await until(lambda: first.lost)


@both_loops
async def test_what_was_read_in_the_turn_in_which_another_connection_pauses_this_one(contexts: Contexts) -> None:
    async with connected(contexts) as (first, one), connected(contexts) as (second, other):
        records = one.records(b"a"), other.records(b"b")
        first.on_data = second.transport.pause_reading
        one.sock.send(records[0])
        other.sock.send(records[1])
        await until(lambda: first.received == b"a")
        assert second.received == b"b"
        assert not second.transport.is_reading()
        await other.send(b"c")
        for _ in range(3):
            await asyncio.sleep(0)
        assert second.received == b"b"
        second.transport.resume_reading()
        await until(lambda: second.received == b"bc")
        await one.end_tls()
        await until(lambda: first.lost)
        await other.end_tls()


@both_loops
async def test_full_records_with_the_end_behind_them(contexts: Contexts) -> None:
    async with connected(contexts) as (recorder, peer):
        records = peer.records(LARGE[: 4 * 16384])
        with pytest.raises(ssl.SSLWantReadError):
            peer.tls.unwrap()
        await peer.send_raw(records + peer.outgoing.read())
        await until(lambda: recorder.lost)
        assert recorder.received == LARGE[: 4 * 16384]
        assert recorder.calls == ["made", "eof", "lost"]


@both_loops
async def test_a_pause(contexts: Contexts) -> None:
    async with connected(contexts) as (recorder, peer):
        transport = recorder.transport
        recorder.on_data = transport.pause_reading
        await peer.send(b"a")
        await until(lambda: recorder.received == b"a")
        assert not transport.is_reading()
        await peer.send(b"b")
        for _ in range(5):
            await asyncio.sleep(0.001)
        assert recorder.received == b"a"
        assert transport._watched == 0  # otherwise the loop would turn for nothing
        recorder.on_data = lambda: None
        transport.resume_reading()
        assert transport.is_reading()
        await until(lambda: recorder.received == b"ab")
        await peer.end_tls()


@both_loops
async def test_a_protocol_that_fails(contexts: Contexts, caplog: pytest.LogCaptureFixture) -> None:
    async with connected(contexts) as (recorder, peer):

        def fail() -> None:
            raise ValueError("mine")

        recorder.on_data = fail
        await peer.send(b"a")
        await until(lambda: recorder.lost)
        assert isinstance(recorder.error, ValueError)
        assert caplog.text.count("ValueError: mine") == 1


@both_loops
async def test_a_damaged_record_ends_the_connection(contexts: Contexts) -> None:
    async with connected(contexts) as (recorder, peer):
        record = bytearray(peer.records(b"content"))
        record[-1] ^= 1
        await peer.send_raw(bytes(record))
        await until(lambda: recorder.lost)
        assert isinstance(recorder.error, ssl.SSLError)
        assert recorder.received == b""
        assert "eof" not in recorder.calls


# ---------------------------------------------------------------------- writing


@both_loops
async def test_a_peer_that_reads_late_gets_all(contexts: Contexts) -> None:
    async with connected(contexts) as (recorder, peer):
        transport = recorder.transport
        transport.set_write_buffer_limits(high=100_000)
        assert transport.get_write_buffer_limits() == (25_000, 100_000)
        transport.write(b"small")
        assert transport.get_write_buffer_size() == 0
        transport.write(LARGE)
        # What one turn may send is sent at once.
        assert len(LARGE) - PER_TURN <= transport.get_write_buffer_size() < len(LARGE)
        transport.write(bytearray(b"and"))
        changing = bytearray(b"more")
        transport.writelines([b"then", memoryview(changing)])
        changing[:] = b"lost"
        assert recorder.calls == ["made", "pause"]
        expected = b"small" + LARGE + b"andthenmore"
        assert await peer.read(len(expected)) == expected
        await until(lambda: not transport.get_write_buffer_size())
        assert recorder.calls == ["made", "pause", "resume"]
        await peer.end_tls()


@both_loops
async def test_both_directions_at_once(contexts: Contexts) -> None:
    async with connected(contexts) as (recorder, peer):
        recorder.on_data = lambda: recorder.transport.write(recorder.pieces[-1])
        sending = asyncio.create_task(peer.send(LARGE))
        assert await peer.read(len(LARGE)) == LARGE
        await sending
        await peer.end_tls()


@both_loops
async def test_limits_of_what_waits(contexts: Contexts) -> None:
    async with connected(contexts) as (recorder, peer):
        transport = recorder.transport
        for high, low, expected in ((None, None, (16384, 65536)), (None, 10, (10, 40)), (100, 3, (3, 100))):
            transport.set_write_buffer_limits(high, low)
            assert transport.get_write_buffer_limits() == expected
        for high, low in ((1, 2), (1, -1)):
            with pytest.raises(ValueError, match="must be"):
                transport.set_write_buffer_limits(high, low)
        transport.set_write_buffer_limits(high=len(LARGE))
        transport.write(LARGE)
        assert "pause" not in recorder.calls
        transport.set_write_buffer_limits(high=0)
        assert "pause" in recorder.calls
        await peer.read(len(LARGE))
        await until(lambda: "resume" in recorder.calls)
        await peer.end_tls()


@both_loops
async def test_a_write_that_waits_for_a_read(contexts: Contexts) -> None:
    # As in a renegotiation of TLS 1.2.
    async with connected(contexts) as (recorder, peer):
        transport = recorder.transport
        write, tries = transport._write, []

        def wants_a_read(data: Any) -> int:
            tries.append(bytes(data))
            raise ssl.SSLWantReadError

        transport._write = wants_a_read
        transport.write(b"answer")
        transport.write(b"more")
        for _ in range(5):
            await asyncio.sleep(0)
        assert tries == [b"answer"]
        transport._write = write
        await peer.send(b"go on")
        assert await peer.read(10) == b"answermore"
        await until(lambda: recorder.received == b"go on")
        await peer.end_tls()


@both_loops
async def test_a_write_that_waits_for_a_read_while_reading_is_paused(contexts: Contexts) -> None:
    async with connected(contexts) as (recorder, peer):
        transport = recorder.transport
        write = transport._write
        transport.pause_reading()

        def wants_a_read(data: Any) -> int:
            transport._write = write
            raise ssl.SSLWantReadError

        transport._write = wants_a_read
        transport.write(b"answer")
        await peer.send(b"go on")
        assert await peer.read(6) == b"answer"
        assert recorder.received == b""
        transport.resume_reading()
        await until(lambda: recorder.received == b"go on")
        await peer.end_tls()


@both_loops
async def test_a_read_that_waits_for_a_write(contexts: Contexts) -> None:
    async with connected(contexts) as (recorder, peer):
        transport = recorder.transport
        read = transport._read

        def wants_a_write(size: int) -> bytes:
            transport._read = read
            raise ssl.SSLWantWriteError

        transport._read = wants_a_write
        await peer.send(b"content")
        await until(lambda: recorder.received == b"content")
        await peer.end_tls()


# ---------------------------------------------------------------------- the end


@both_loops
async def test_the_peer_ends_tls(contexts: Contexts) -> None:
    async with connected(contexts) as (recorder, peer):
        await peer.end_tls()
        await until(lambda: recorder.lost)
        assert recorder.calls == ["made", "eof", "lost"]
        assert recorder.error is None
        while await peer.receive():
            pass
        peer.tls.unwrap()  # raises unless the server has ended TLS, too


@both_loops
async def test_the_peer_ends_tcp_only(contexts: Contexts) -> None:
    async with connected(contexts) as (recorder, peer):
        peer.sock.shutdown(socket.SHUT_WR)
        await until(lambda: recorder.lost)
        assert recorder.calls == ["made", "lost"]  # a cut does not look like an end
        assert recorder.error is None


@both_loops
async def test_the_peer_ends_tcp_in_a_record(contexts: Contexts) -> None:
    async with connected(contexts) as (recorder, peer):
        await peer.send_raw(peer.records(b"content")[:-1])
        peer.sock.shutdown(socket.SHUT_WR)
        await until(lambda: recorder.lost)
        assert recorder.calls == ["made", "lost"]
        assert recorder.received == b""


@both_loops
async def test_a_peer_that_ends_tcp_first_gets_what_waits(contexts: Contexts) -> None:
    async with connected(contexts) as (recorder, peer):
        recorder.transport.write(LARGE)
        peer.sock.shutdown(socket.SHUT_WR)
        assert await peer.read(len(LARGE)) == LARGE
        await until(lambda: recorder.lost)
        assert recorder.error is None
        assert "eof" not in recorder.calls


@both_loops
@pytest.mark.parametrize("phase", ["idle", "unread", "writing", "paused", "closing"])
async def test_a_reset(contexts: Contexts, phase: str) -> None:
    async with connected(contexts) as (recorder, peer):
        transport = recorder.transport
        if phase == "unread":
            await peer.send_raw(peer.records(*[b"x" * 100] * 50))
        elif phase == "writing":
            transport.write(LARGE)
        elif phase == "closing":
            transport.write(LARGE)
            transport.close()
        elif phase == "paused":
            transport.pause_reading()
            await peer.send(b"x")
        peer.reset()
        if phase == "paused":
            await asyncio.sleep(0.01)
            transport.resume_reading()
        await until(lambda: recorder.lost)
        assert recorder.calls.count("lost") == 1
        assert "eof" not in recorder.calls
        transport.write(b"nobody")
        transport.close()
        transport.abort()


@both_loops
async def test_a_write_after_a_reset(contexts: Contexts) -> None:
    async with connected(contexts) as (recorder, peer):
        transport = recorder.transport
        transport.pause_reading()
        peer.reset()
        for _ in range(3):
            transport.write(b"x")
        await until(lambda: recorder.lost)
        assert isinstance(recorder.error, ConnectionError)


@both_loops
async def test_a_close_sends_what_waits(contexts: Contexts) -> None:
    async with connected(contexts) as (recorder, peer):
        transport = recorder.transport
        transport.write(LARGE)
        transport.close()
        assert transport.is_closing()
        transport.write(b"too late")
        await peer.send(b"too late, too")
        assert await peer.read(len(LARGE) + 1) == LARGE
        await peer.end_tls()
        await until(lambda: recorder.lost)
        assert recorder.received == b""
        assert recorder.error is None


@both_loops
async def test_a_peer_that_sends_on_after_the_end_of_tls(contexts: Contexts) -> None:
    async with connected(contexts) as (recorder, peer):
        recorder.transport.close()
        await peer.send(LARGE)
        assert await peer.read(1) == b""
        assert not recorder.lost
        await peer.end_tls()
        await until(lambda: recorder.lost)
        assert recorder.received == b""


@both_loops
async def test_a_peer_that_does_not_agree_to_the_end(contexts: Contexts) -> None:
    async with connected(contexts, shutdown_timeout=0.05) as (recorder, _):
        recorder.transport.close()
        await until(lambda: recorder.lost)
        assert recorder.error is None


@both_loops
async def test_an_abort_drops_what_waits(contexts: Contexts) -> None:
    async with connected(contexts) as (recorder, peer):
        recorder.transport.write(LARGE)
        recorder.transport.abort()
        recorder.transport.abort()
        assert not recorder.lost  # in the next turn
        await until(lambda: recorder.lost)
        assert len(await peer.read(len(LARGE))) < len(LARGE)


@both_loops
async def test_nothing_refers_to_a_transport_that_has_ended(contexts: Contexts) -> None:
    async with connected(contexts) as (recorder, peer):
        await peer.end_tls()
        await until(lambda: recorder.lost)
        gc.disable()
        try:
            gone = weakref.ref(recorder.transport._sock)
            assert gone() is not None
            del recorder.transport
            assert gone() is None
        finally:
            gc.enable()
        recorder.transport = Ended()  # type: ignore[assignment]  # for the checks of connected()


class Ended:
    """Stands for a transport that is gone."""

    class _sock:
        @staticmethod
        def fileno() -> int:
            return -1

    @staticmethod
    def is_closing() -> bool:
        return True


# ---------------------------------------------------------------------- what is known


@both_loops
async def test_what_a_transport_knows(contexts: Contexts) -> None:
    async with connected(contexts) as (recorder, peer):
        transport = recorder.transport
        info = transport.get_extra_info
        assert info("peername") == "the peer"
        assert info("sockname") == peer.sock.getpeername()
        assert info("ssl_object").selected_alpn_protocol() == "http/1.1"
        assert info("sslcontext") is contexts[0]
        assert info("cipher") == info("ssl_object").cipher()
        assert info("peercert") is None
        assert info("compression") is None
        assert info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert info("pipe", 5) == 5
        assert not transport.can_write_eof()
        with pytest.raises(NotImplementedError):
            transport.write_eof()
        other = Recorder()
        other.connection_made(transport)
        transport.set_protocol(other)
        assert transport.get_protocol() is other
        await peer.end_tls()
        await until(lambda: other.lost)
        assert recorder.calls == ["made"]
        assert info("sockname") is None
        recorder.calls.append("lost")


class Buffered(asyncio.BufferedProtocol):
    """Has a buffer of its own, and keeps what comes into it."""

    def __init__(self, size: int) -> None:
        self.buffer = bytearray(size)
        self.received = b""
        self.calls: list[str] = []

    def get_buffer(self, sizehint: int) -> bytearray:
        return self.buffer

    def buffer_updated(self, nbytes: int) -> None:
        self.received += self.buffer[:nbytes]

    def eof_received(self) -> None:
        self.calls.append("eof")

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append("lost")

    def pause_writing(self) -> None:
        self.calls.append("pause")

    def resume_writing(self) -> None:
        self.calls.append("resume")


@both_loops
async def test_a_protocol_with_a_buffer_of_its_own_has_it_filled(contexts: Contexts) -> None:
    async with connected(contexts) as (recorder, peer):
        transport = recorder.transport
        buffered = Buffered(1000)
        transport.set_protocol(buffered)
        assert transport.get_protocol() is buffered
        await peer.send(LARGE[:5500])
        await until(lambda: buffered.received == LARGE[:5500])
        transport.write(LARGE)
        assert await peer.read(len(LARGE)) == LARGE
        await until(lambda: buffered.calls == ["pause", "resume"])
        await peer.end_tls()
        await until(lambda: "lost" in buffered.calls)
        assert buffered.calls == ["pause", "resume", "eof", "lost"]
        recorder.calls.append("lost")


@both_loops
async def test_a_protocol_whose_buffer_has_no_room_ends_the_connection(
    contexts: Contexts, caplog: pytest.LogCaptureFixture
) -> None:
    async with connected(contexts) as (recorder, peer):
        buffered = Buffered(0)
        recorder.transport.set_protocol(buffered)
        await peer.send(b"x")
        await until(lambda: buffered.calls == ["lost"])
        assert "get_buffer() returned an empty buffer" in caplog.text
        recorder.calls.append("lost")


# ---------------------------------------------------------------------- the handshake


def never() -> asyncio.Protocol:
    raise AssertionError("there is no protocol before the end of the handshake")


async def refused(task: asyncio.Task[None]) -> BaseException:
    async with asyncio.timeout(LIMIT):
        (error,) = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(error, BaseException)
    assert Readiness.descriptors(asyncio.get_running_loop()) == ()
    return error


@both_loops
async def test_a_handshake_that_stalls(contexts: Contexts) -> None:
    server, client = await tcp_pair()
    with client:
        task = accept(server, contexts[0], never, handshake_timeout=0.05)
        client.send(b"\x16\x03\x01")
        assert isinstance(await refused(task), ConnectionAbortedError)
        assert await asyncio.get_running_loop().sock_recv(client, 1) == b""


@both_loops
async def test_a_handshake_that_is_cancelled(contexts: Contexts) -> None:
    server, client = await tcp_pair()
    with client:
        task = accept(server, contexts[0], never)
        await asyncio.sleep(0)
        task.cancel()
        assert isinstance(await refused(task), asyncio.CancelledError)
        assert await asyncio.get_running_loop().sock_recv(client, 1) == b""


@both_loops
@pytest.mark.parametrize("how", ["end", "reset", "end in a record"])
async def test_a_peer_that_leaves_in_the_handshake(contexts: Contexts, how: str) -> None:
    server, client = await tcp_pair()
    with client:
        task = accept(server, contexts[0], never)
        if how == "end in a record":
            client.send(b"\x16\x03\x01\x02\x00\x01")
        if how == "reset":
            Peer(client, contexts[1]).reset()
        else:
            client.shutdown(socket.SHUT_WR)
        error = await refused(task)
        assert isinstance(error, OSError)
        assert not isinstance(error, ssl.SSLError)  # which would be logged


@both_loops
async def test_a_peer_that_does_not_speak_tls(contexts: Contexts) -> None:
    server, client = await tcp_pair()
    with client:
        task = accept(server, contexts[0], never)
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 100)
        error = await refused(task)
        assert isinstance(error, ssl.SSLError)
        while await asyncio.get_running_loop().sock_recv(client, 100):
            pass  # no reset


@both_loops
async def test_a_peer_that_wants_another_certificate(contexts: Contexts) -> None:
    server, client = await tcp_pair()
    with client:
        task = accept(server, contexts[0], Recorder)
        peer = Peer(client, ssl.create_default_context())
        with pytest.raises(ssl.SSLCertVerificationError):
            await peer.shake_hands()
        await peer.send_raw(peer.outgoing.read())
        error = await refused(task)
        assert isinstance(error, ssl.SSLError)
        assert "UNKNOWN_CA" in str(error).replace(" ", "_").upper()


@both_loops
async def test_a_protocol_that_cannot_begin(contexts: Contexts) -> None:
    class Fails(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            raise ValueError("mine")

    for make in (Fails, never):
        server, client = await tcp_pair()
        with client:
            task = accept(server, contexts[0], make)
            await Peer(client, contexts[1]).shake_hands()
            assert isinstance(await refused(task), ValueError | AssertionError)


@both_loops
async def test_the_error_of_a_handshake_keeps_nothing(contexts: Contexts, monkeypatch: pytest.MonkeyPatch) -> None:
    made: weakref.WeakSet[ssl.SSLSocket] = weakref.WeakSet()

    class Wrapped(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:
            made.add(self)
            super().do_handshake(block)

    monkeypatch.setattr(contexts[0], "sslsocket_class", Wrapped)
    server, client = await tcp_pair()
    gc.disable()
    try:
        with client:
            task = accept(server, contexts[0], never)
            client.send(b"garbage" * 10)
            error = await refused(task)
            assert len(made) == 1
            error.__traceback__ = None  # as the server does
            del error, task
            await asyncio.sleep(0)
            assert not made
    finally:
        gc.enable()
