"""Stopping with connections open: what is announced, what is waited for, what is cut."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from bridge.core.connection.http1 import ServerConnection
from bridge.core.connection.interfaces import NULL_DELEGATE, Exchange, ExchangeDelegate
from bridge.core.httpserver import HTTPServer
from tests.support.faults import application_errors
from tests.support.loops import both_loops

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Delegate:
    """Answers at once, or when ``release`` is called, with the head sent before or not."""

    def __init__(self) -> None:
        self.hold = False
        self.head_first = False
        self.held: list[Exchange] = []
        self.arrived = asyncio.Event()

    def start_exchange(self, exchange: Exchange) -> ExchangeDelegate:
        if not self.hold:
            exchange.respond(200, [(b"content-length", b"2")])
            exchange.send(b"ok", True)
            return NULL_DELEGATE
        if self.head_first:
            exchange.respond(200, [(b"content-length", b"2")])
            exchange.send(b"o")
        self.held.append(exchange)
        self.arrived.set()
        return NULL_DELEGATE

    def release(self) -> None:
        for exchange in self.held:
            if exchange.response_started:
                exchange.send(b"k", True)
            else:
                exchange.respond(200, [(b"content-length", b"2")])
                exchange.send(b"ok", True)

    def on_close(self, connection: ServerConnection) -> None:
        pass


@asynccontextmanager
async def serving(delegate: Delegate) -> AsyncIterator[tuple[HTTPServer, int]]:
    server = HTTPServer(delegate)
    sock = socket.create_server(("127.0.0.1", 0))
    server.add_sockets([sock])
    with application_errors():
        try:
            yield server, sock.getsockname()[1]
        finally:
            server.stop()
            await server.close_all_connections()


async def answer(reader: asyncio.StreamReader) -> tuple[bytes, bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    return head, await reader.readexactly(2)


async def test_idle_connections_are_closed_at_once_without_a_grace() -> None:
    async with serving(Delegate()) as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        await answer(reader)
        server.stop()
        async with asyncio.timeout(0.5):
            assert await server.drain(30) == 0
            assert await reader.read() == b""
        writer.close()


@both_loops
async def test_closing_everything_aborts_only_what_is_in_progress() -> None:
    delegate = Delegate()
    loop = asyncio.get_running_loop()
    with socket.socket() as idle, socket.socket() as busy:
        async with serving(delegate) as (server, port):
            for sock in (idle, busy):
                sock.setblocking(False)
                await loop.sock_connect(sock, ("127.0.0.1", port))
                delegate.hold = sock is busy
                await loop.sock_sendall(sock, GET)
                await (delegate.arrived.wait() if sock is busy else loop.sock_recv(sock, 1000))
            server.stop()
            assert await server.drain(0) == 1
        assert await loop.sock_recv(idle, 1) == b""
        with pytest.raises(ConnectionResetError):
            await loop.sock_recv(busy, 1)


async def test_a_connection_without_any_request_is_given_a_moment() -> None:
    async with serving(Delegate()) as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while not server.connections:
            await asyncio.sleep(0)
        server.stop()
        draining = asyncio.create_task(server.drain(30))
        await asyncio.sleep(0)
        writer.write(GET)
        head, content = await answer(reader)
        assert b"connection: close" in head
        assert content == b"ok"
        assert await draining == 0
        writer.close()


async def test_with_a_grace_the_next_answer_announces_the_end() -> None:
    async with serving(Delegate()) as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        head, _ = await answer(reader)
        assert b"connection: close" not in head
        server.stop()
        draining = asyncio.create_task(server.drain(30, idle_grace=20))
        await asyncio.sleep(0)
        assert not draining.done()
        writer.write(GET)
        head, content = await answer(reader)
        assert b"connection: close" in head
        assert content == b"ok"
        assert await reader.read() == b""
        assert await draining == 0
        writer.close()


async def test_with_a_grace_idle_connections_end_when_it_is_over() -> None:
    async with serving(Delegate()) as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        await answer(reader)
        server.stop()
        async with asyncio.timeout(4.0):  # the keep-alive time would be 5 s
            assert await server.drain(30, idle_grace=0.1) == 0
            assert await reader.read() == b""
        writer.close()


async def test_with_a_grace_a_response_that_had_begun_is_followed_by_one_that_announces_the_end() -> None:
    delegate = Delegate()
    async with serving(delegate) as (server, port):
        delegate.hold = delegate.head_first = True
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        await delegate.arrived.wait()
        server.stop()
        draining = asyncio.create_task(server.drain(30, idle_grace=20))
        await asyncio.sleep(0)
        delegate.release()
        head, content = await answer(reader)
        assert b"connection: close" not in head
        assert content == b"ok"
        delegate.hold = False
        writer.write(GET)
        head, _ = await answer(reader)
        assert b"connection: close" in head
        assert await draining == 0
        writer.close()


async def test_a_response_in_progress_is_finished_with_the_announcement() -> None:
    delegate = Delegate()
    async with serving(delegate) as (server, port):
        delegate.hold = True
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        await delegate.arrived.wait()
        server.stop()
        counts: list[int] = []
        draining = asyncio.create_task(server.drain(30, counts.append))
        await asyncio.sleep(0)
        delegate.release()
        head, _ = await answer(reader)
        assert b"connection: close" in head
        assert await draining == 0
        assert counts == [1]
        writer.close()


async def test_what_takes_too_long_is_cut() -> None:
    delegate = Delegate()
    async with serving(delegate) as (server, port):
        delegate.hold = True
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(GET)
        await delegate.arrived.wait()
        server.stop()
        assert await server.drain(0.05) == 1
        with contextlib.suppress(ConnectionResetError):
            assert await reader.read() == b""
        writer.close()


async def test_waiting_connections_are_taken_before_the_stop() -> None:
    async with serving(Delegate()) as (server, port):
        with socket.create_connection(("127.0.0.1", port)) as client:  # nothing was awaited: it is in the queue
            client.sendall(GET)
            assert server.connection_count() == 0
            server.accept_waiting()
            server.stop()
            assert server.connection_count() == 1
            assert await server.drain(30) == 0
            client.settimeout(5)
            assert client.recv(1000).startswith(b"HTTP/1.1 200 OK\r\n")
