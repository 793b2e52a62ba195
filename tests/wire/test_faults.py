"""What goes wrong outside of HTTP: clients that leave or stall, floods, descriptors that run out, TLS that is none."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import socket
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from bridge.core.connection.interfaces import NULL_DELEGATE, Exchange
from bridge.core.httpserver import HTTPServer
from bridge.core.net import accept
from tests.support.echo import Echo
from tests.support.loops import both_loops
from tests.support.responses import Response, read_responses
from tests.support.serving import Client, TLSClient, address_of, serving, until

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
CLIENT_AUTHORITY = trustme.CA()
CERTIFICATE = CLIENT_AUTHORITY.issue_cert("localhost")


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    CERTIFICATE.configure_cert(context)
    return context


def client_context() -> ssl.SSLContext:
    context = ssl.create_default_context()
    CLIENT_AUTHORITY.configure_trust(context)
    return context


def one(received: bytes) -> Response:
    (response,) = read_responses(received, ended=True)
    return response


async def works(server: HTTPServer) -> None:
    """Check that a fresh connection is served."""
    async with await Client.connect(server) as client:
        await client.send(LAST)
        assert one(await client.read_to_the_end()).content == b"GET /last|"


# ---------------------------------------------------------------------- clients that leave

STAGES = {
    "connected": b"",
    "in the head": b"GET / HT",
    "before the content": POST + b"Content-Length: 5\r\n\r\n",
    "in the content": POST + b"Content-Length: 5\r\n\r\nhel",
    "in a chunk": CHUNKED + b"5\r\nhe",
    "asked": GET,
    "asked often": GET * 200,
    "asked for much": b"GET /large?3000000 HTTP/1.1\r\nHost: a\r\n\r\n",
    "asked for much in a row": b"GET /large?300000 HTTP/1.1\r\nHost: a\r\n\r\n" * 10,
    "refused": b"BAD\r\n\r\n" + b"x" * 10000,
    "much unread": POST.replace(b"/", b"/early", 1) + b"Content-Length: 1000000\r\n\r\n" + b"x" * 100000,
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("way", ["close", "reset", "half_close"])
@both_loops
async def test_clients_that_leave_cost_nothing(stage: str, way: str, caplog: pytest.LogCaptureFixture) -> None:
    delegate = Echo()
    async with serving(delegate) as server:
        await works(server)
        before = 0
        for number in range(20):
            client = await Client.connect(server)
            await client.send(STAGES[stage])
            getattr(client, way)()
            if way == "half_close":
                await client.read_to_the_end()
                client.close()
            if not number:
                await until(lambda: delegate.ended == 2)
                before = descriptors()
        await until(lambda: delegate.ended == 21)
        await until(lambda: descriptors() <= before)
        assert not delegate.exchanges
        assert server.connection_count() == 0
        await works(server)
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


@both_loops
async def test_a_storm_of_resets() -> None:
    delegate = Echo()
    async with serving(delegate) as server:
        await works(server)
        before = descriptors()
        for _ in range(5):
            clients = [await Client.connect(server) for _ in range(40)]
            for client in clients:
                await client.send(GET)
                client.reset()
        await until(lambda: server.connection_count() == 0 and descriptors() <= before)
        await works(server)


# ---------------------------------------------------------------------- clients that wait


@both_loops
async def test_a_client_that_waits_for_100_gets_it_and_sends() -> None:
    async with serving(Echo()) as server, await Client.connect(server) as client:
        await client.send(POST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n")
        assert await client.read(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"hello")
        await client.read(b"POST /|hello")
        await client.send(LAST)
        assert len(read_responses(await client.read_to_the_end(), ended=True)) == 2


# ---------------------------------------------------------------------- clients that stall

STALLS = {
    # name: what is sent, the timeout, what is received
    "silent": (b"", "head_timeout", None),
    "slow head": (b"GET / HTTP/1.1\r\nX: ", "head_timeout", 408),
    "idle": (GET, "keep_alive_timeout", 200),
    "slow content": (POST + b"Content-Length: 5\r\n\r\nhel", "body_timeout", 408),
    "slow chunk": (CHUNKED + b"5\r\nhel", "body_timeout", 408),
}


@pytest.mark.parametrize("name", STALLS)
@both_loops
async def test_who_stalls_is_cut_off_at_the_deadline(name: str) -> None:
    wire, timeout, status = STALLS[name]
    delegate = Echo()
    async with serving(delegate, **{timeout: 0.2}) as server, await Client.connect(server) as client:
        begin = time.monotonic()
        await client.send(wire)
        received = await client.read_to_the_end()
        took = time.monotonic() - begin
        # Never early; late by how busy the machine is.
        assert 0.19 <= took < 5
        if status is None:
            assert received == b""
        else:
            assert one(received).status == status
        await until(lambda: not delegate.exchanges)
        await works(server)


@both_loops
async def test_a_head_that_trickles_in_is_cut_off_all_the_same() -> None:
    async with serving(Echo(), head_timeout=0.3) as server, await Client.connect(server) as client:
        await client.send(b"GET / HTTP/1.1\r\nX: ")
        reading = asyncio.ensure_future(client.read_to_the_end())
        while not reading.done():
            await client.send(b"a")
            await asyncio.wait([reading], timeout=0.02)
        assert one(reading.result()).status == 408


class Endless:
    """Streams for as long as the client takes it.

    Attributes:
        peak: The most bytes that were waiting to be sent.
        lost: Set when the client is gone.
    """

    def __init__(self, piece: int) -> None:
        self.piece = piece
        self.sent = 0
        self.peak = 0
        self.lost = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    def start_exchange(self, exchange: Exchange) -> Any:
        self.task = asyncio.ensure_future(self.stream(exchange))
        return NULL_DELEGATE

    async def stream(self, exchange: Exchange) -> None:
        data = b"x" * self.piece
        exchange.respond(200, [])
        transport = exchange.connection.transport
        assert transport is not None
        with contextlib.suppress(OSError):
            while True:
                exchange.send(data)
                self.sent += len(data)
                self.peak = max(self.peak, transport.get_write_buffer_size())
                if exchange.write_paused:
                    await exchange.drained()
                else:
                    await asyncio.sleep(0)
        self.lost.set()

    def on_close(self, connection: object) -> None:
        pass


@pytest.mark.parametrize("piece", [1000, 65536, 1 << 20])
@both_loops
async def test_who_does_not_read_holds_one_buffer_and_is_cut_off(piece: int) -> None:
    delegate = Endless(piece)
    async with serving(delegate, write_timeout=0.3) as server:
        async with await Client.connect(server, receive_buffer=4096) as client:
            await client.send(GET)
            async with asyncio.timeout(10):
                await delegate.lost.wait()
            assert delegate.peak < 65536 + piece + 100
            assert delegate.sent < 16 << 20  # what the system's own buffers hold
            with pytest.raises(ConnectionResetError):
                await client.read_to_the_end()


@both_loops
async def test_who_reads_slowly_is_kept() -> None:
    delegate = Endless(65536)
    async with (
        serving(delegate, write_timeout=0.4) as server,
        await Client.connect(server, receive_buffer=4096) as client,
    ):
        await client.send(GET)
        loop = asyncio.get_running_loop()
        for _ in range(8):
            for _ in range(8):
                await loop.sock_recv(client._sock, 65536)
            await asyncio.sleep(0.1)  # the time that passes is what is tested
        assert not delegate.lost.is_set()


@both_loops
async def test_a_client_that_asks_and_never_reads_is_not_read_either() -> None:
    delegate = Echo()
    async with serving(delegate, write_timeout=0.5) as server:
        async with await Client.connect(server, receive_buffer=4096) as client:
            client._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            ask = b"GET /large?60000 HTTP/1.1\r\nHost: a\r\n\r\n" * 100
            try:
                async with asyncio.timeout(5):
                    while True:
                        await asyncio.get_running_loop().sock_sendall(client._sock, ask)
            except (TimeoutError, ConnectionResetError, BrokenPipeError):
                pass
            assert delegate.started < 500
        await until(lambda: delegate.ended == 1)


# ---------------------------------------------------------------------- descriptors that run out


@contextlib.contextmanager
def no_descriptors() -> Iterator[None]:
    """Let the process open no file more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, hard))
    fill = []
    try:
        with contextlib.suppress(OSError):
            while True:
                fill.append(os.dup(0))
        yield
    finally:
        for number in fill:
            os.close(number)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@both_loops
async def test_no_descriptor_for_a_connection(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(accept, "_ACCEPT_PAUSE", 0.3)
    async with serving(Echo()) as server, await Client.connect(server) as held:
        await held.send(GET)
        await held.read(b"GET /|")
        socks = [socket.socket() for _ in range(5)]
        for sock in socks:
            sock.setblocking(False)
        loop = asyncio.get_running_loop()
        with no_descriptors():
            for sock in socks:
                await loop.sock_connect(sock, address_of(server))
            begin = time.process_time()
            await until(lambda: "cannot accept" in caplog.text)
            # Who is there is served as always, and the loop does not spin.
            for _ in range(3):
                held.received = b""
                await held.send(GET)
                await held.read(b"GET /|")
                await asyncio.sleep(0.1)
            assert time.process_time() - begin < 0.25
        assert caplog.text.count("cannot accept") == 1
        # Those who waited are served now.
        for sock in socks:
            async with Client(sock) as client:
                await client.send(LAST)
                assert one(await client.read_to_the_end()).content == b"GET /last|"


# ---------------------------------------------------------------------- many


@both_loops
async def test_two_thousand_idle_connections(record_property: Any) -> None:
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    count = min(2000, (soft - descriptors() - 100) // 2)
    delegate = Echo()

    def memory() -> int:
        gc.collect()
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()

    async with serving(delegate, keep_alive_timeout=300.0) as server:
        for _ in range(3):
            await works(server)
        before = memory()
        clients = []
        for _ in range(count):
            client = await Client.connect(server)
            await client.send(GET)
            clients.append(client)
        for client in clients:
            await client.read(b"GET /|")
            client.received = b""
        each = (memory() - before) / count
        record_property("bytes per idle connection", round(each))
        print(f"{each:.0f} bytes per idle connection, the client's end included")
        assert server.connection_count() == count
        assert each < 16384
        for client in clients:
            client.close()
        await until(lambda: server.connection_count() == 0)
        await works(server)


# ---------------------------------------------------------------------- TLS


@both_loops
async def test_requests_over_tls() -> None:
    async with (
        serving(Echo(), tls=server_context()) as server,
        await TLSClient.connect(server, client_context()) as client,
    ):
        await client.send(GET)
        head = await client.read(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\n")
        await client.read(b"GET /|")
        await client.send(POST + b"Content-Length: 300000\r\n\r\n" + b"x" * 300000)
        await client.read(b"POST /|" + b"x" * 10)
        await client.read(b"x" * 299990)
        await client.send(b"GET /parts HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert one(await client.read_to_the_end()).content == b"GET /parts|"


@both_loops
async def test_large_responses_over_tls_wait_for_the_client() -> None:
    delegate = Endless(65536)
    async with serving(delegate, tls=server_context(), write_timeout=0.3) as server:
        async with await TLSClient.connect(server, client_context()) as client:
            client._writer.transport.pause_reading()  # type: ignore[attr-defined]
            await client.send(GET)
            async with asyncio.timeout(10):
                await delegate.lost.wait()
            # asyncio keeps one buffer for the records and one for the plain text
            assert delegate.peak < 4 * 65536 + (256 << 10)


@both_loops
async def test_a_refusal_over_tls_arrives() -> None:
    async with (
        serving(Echo(), tls=server_context()) as server,
        await TLSClient.connect(server, client_context()) as client,
    ):
        await client.send(b"BAD\r\n\r\n" + b"x" * 100000)
        assert (await client.read(b"\r\n\r\n")).startswith(b"HTTP/1.1 400 ")
        assert await client.read(b"\r\n") == b"400 Bad Request\r\n"


@pytest.mark.parametrize("way", ["plain HTTP", "garbage", "close", "reset", "part of a hello"])
@both_loops
async def test_handshakes_that_fail(way: str, caplog: pytest.LogCaptureFixture) -> None:
    delegate = Echo()
    async with serving(delegate, tls=server_context()) as server:
        before = 0
        for number in range(6):
            if number == 1:  # libuv opens something of its own the first time
                await until(lambda: server.connection_count() == 0)
                before = descriptors()
            client = await Client.connect(server)
            if way == "plain HTTP":
                await client.send(GET)
            elif way == "garbage":
                await client.send(b"\x00" * 1000)
            elif way == "part of a hello":
                await client.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")
            if way == "reset":
                client.reset()
            else:
                if way in {"plain HTTP", "garbage"}:
                    with contextlib.suppress(ConnectionResetError):
                        await client.read_to_the_end()
                client.close()
        await until(lambda: server.connection_count() == 0)
        await until(lambda: descriptors() <= before)
        async with await TLSClient.connect(server, client_context()) as tls:
            await tls.send(LAST)
            assert one(await tls.read_to_the_end()).content == b"GET /last|"
    # Nobody is told of a connection that was none.
    assert delegate.ended == 1
    assert "Traceback" not in caplog.text
    assert len([record for record in caplog.records if record.levelno > logging.INFO]) <= 6


@both_loops
async def test_a_handshake_that_never_ends(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(Echo(), tls=server_context()) as server:
        server.tls_handshake_timeout = 0.2
        async with await Client.connect(server) as client:
            await client.send(b"\x16\x03\x01\x02\x00")
            begin = time.monotonic()
            with contextlib.suppress(ConnectionResetError):
                await client.read_to_the_end()
            assert 0.19 < time.monotonic() - begin < 5
        await until(lambda: server.connection_count() == 0)
    assert "Traceback" not in caplog.text


@both_loops
async def test_stopping_does_not_wait_for_handshakes() -> None:
    async with serving(Echo(), tls=server_context()) as server:
        async with await TLSClient.connect(server, client_context()):
            before = descriptors() - 2
        clients = [await Client.connect(server) for _ in range(3)]
        await until(lambda: server.connection_count() == 3)
        server.stop()
        begin = time.monotonic()
        await server.drain(0)
        assert time.monotonic() - begin < 5
        assert server.connection_count() == 0
        for client in clients:
            with contextlib.suppress(ConnectionResetError):
                await client.read_to_the_end()
            client.close()
        await until(lambda: descriptors() <= before)
        # Descriptors that were closed are not in the loop's books: new ones of the same number work.
        async with serving(Echo()) as other:
            for _ in range(5):
                await works(other)
