"""How an HTTPServer keeps its connections: from accepting to the last of them."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import ssl
import time
from typing import Any

import pytest

from bridge.core import httpserver
from bridge.core.connection.http1 import ServerConnection
from bridge.core.connection.interfaces import NULL_DELEGATE, Exchange
from bridge.core.connection.parameters import ConnectionParameters
from bridge.core.httpserver import HTTPServer
from bridge.core.net.tlstransport import TLSTransport
from bridge.core.stream.errors import StreamClosedError
from bridge.core.tornado.connection import TornadoConnection
from tests.support.certificates import tls_contexts as new_contexts
from tests.support.echo import Echo
from tests.support.loops import both_loops
from tests.support.responses import read_responses
from tests.support.serving import TIMEOUT, Client, TLSClient, address_of, serving, until

_HANDSHAKE = (ssl.SSLSocket, ServerConnection)
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


class Slow(Echo):
    """Answers when it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[Exchange] = []

    def start_exchange(self, exchange: Exchange) -> Any:
        self.started += 1
        self.waiting.append(exchange)
        return NULL_DELEGATE

    def answer_all(self) -> None:
        for exchange in self.waiting:
            exchange.respond(200, [])
            exchange.send(b"late", True)


def test_arguments_become_limits_and_times() -> None:
    delegate = Echo()
    params = HTTPServer(delegate).params
    assert (params.limits.head, params.chunk_size, params.max_body_size) == (65536, 65536, None)
    assert (params.head_timeout, params.keep_alive_timeout, params.body_total_timeout) == (10.0, 5.0, None)
    assert not params.limit_after_start
    params = HTTPServer(
        delegate,
        no_keep_alive=True,
        chunk_size=10,
        max_header_size=2000,
        idle_connection_timeout=3.0,
        body_timeout=4.0,
        max_body_size=0,
    ).params
    assert params.no_keep_alive
    assert (params.chunk_size, params.limits.head, params.max_body_size) == (10, 2000, 0)
    assert (params.head_timeout, params.keep_alive_timeout, params.body_total_timeout) == (3.0, 3.0, 4.0)
    own = ConnectionParameters(high_water=7)
    assert HTTPServer(delegate, params=own).params is own


def test_others_than_native_delegates_have_tornado_s_limit() -> None:
    params = HTTPServer(lambda request: None, max_buffer_size=1000).params
    assert params.max_body_size == 1000
    assert params.limit_after_start


def test_unknown_arguments() -> None:
    with pytest.raises(TypeError):
        HTTPServer(Echo(), colour="red")


@both_loops
async def test_connections_know_their_two_ends() -> None:
    contexts: list[Any] = []

    class Noting(Echo):
        def start_exchange(self, exchange: Any) -> Any:
            contexts.append(exchange.context)
            return super().start_exchange(exchange)

    async with serving(Noting()) as server, await Client.connect(server) as client:
        await client.send(GET)
        await client.read(b"GET /|")
        (context,) = contexts
        assert context.remote_ip == "127.0.0.1"
        assert context.remote_port == client._sock.getsockname()[1]
        assert context.local_address == address_of(server)
        assert context.protocol == "http"
        assert context.address_family == socket.AF_INET
        assert {connection.context for connection in server.connections} == {context}


async def test_a_protocol_that_only_the_proxy_knows() -> None:
    server = HTTPServer(Echo(), protocol="https")
    server.listen(0, "127.0.0.1")
    async with await Client.connect(server) as client:
        await client.send(GET)
        await client.read(b"GET /|")
        assert [connection.context.protocol for connection in server.connections] == ["https"]
    server.stop()
    await server.close_all_connections()


@both_loops
async def test_a_client_on_a_unix_socket(tmp_path: Any) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    server = HTTPServer(Echo())
    server.add_socket(listener)
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, str(tmp_path / "s"))
    async with Client(sock) as client:
        await client.send(GET)
        await client.read(b"GET /|")
        (connection,) = server.connections
        assert (connection.context.remote_ip, connection.context.remote_port) == ("0.0.0.0", 0)
        # A reset is a thing of TCP's; here the connection just ends.
        connection.abort()
        await client.read_to_the_end()
    server.stop()
    await server.close_all_connections()


@both_loops
async def test_the_server_names_itself_and_the_date_if_it_is_to() -> None:
    for options, fields in (
        ({"server_name": b"me"}, {b"server", b"date"}),
        ({"date_header": False}, set()),
        ({}, {b"date"}),
    ):
        server = HTTPServer(Echo(), **options)
        server.listen(0, "127.0.0.1")
        async with await Client.connect(server) as client:
            await client.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            (response,) = read_responses(await client.read_to_the_end(), ended=True)
            assert {name for name, _ in response.fields} & {b"server", b"date"} == fields
        server.stop()
        await server.close_all_connections()


# ---------------------------------------------------------------------- how many


@both_loops
async def test_max_connections_counts_every_connection_once() -> None:
    delegate = Echo()
    async with serving(delegate) as server:
        server.max_connections = 4
        clients = [await Client.connect(server) for _ in range(9)]
        for client in clients[:4]:
            await client.send(GET)
            await client.read(b"GET /|")
        assert server.connection_count() == 4
        for client in clients[4:]:
            await client.send(GET)
        await asyncio.sleep(0.05)  # that nothing happens can only be waited for
        assert delegate.started == 4
        for number in range(5):
            clients[number].close()
            await clients[number + 4].read(b"GET /|")
            assert server.connection_count() <= 4
        for client in clients[5:]:
            client.close()


class Detaching(Echo):
    """Gives the connection to a stream, or answers if the target says so."""

    def __init__(self) -> None:
        super().__init__()
        self.streams: list[Any] = []

    def start_exchange(self, exchange: Any) -> Any:
        if exchange.head.target == b"/":
            return super().start_exchange(exchange)
        self.started += 1
        self.streams.append(TornadoConnection.of(exchange.connection).detach())
        return NULL_DELEGATE


@both_loops
async def test_connections_that_were_detached_count_until_they_end() -> None:
    delegate = Detaching()
    detach = GET.replace(b"/ ", b"/stream ", 1)
    async with serving(delegate) as server:
        server.max_connections = 2
        async with await Client.connect(server) as one, await Client.connect(server) as two:
            for client in (one, two):
                await client.send(detach)
            await until(lambda: len(delegate.streams) == 2)
            assert (len(server.connections), server.connection_count()) == (0, 2)
            async with await Client.connect(server) as third:
                await third.send(GET)
                await asyncio.sleep(0.05)  # that nothing happens can only be waited for
                assert delegate.started == 2
                delegate.streams[0].close()
                await third.read(b"GET /|")
                assert server.connection_count() == 2
            await until(lambda: server.connection_count() == 1)
        await until(lambda: server.connection_count() == 0)


@pytest.fixture(scope="module")
def tls_contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    return new_contexts()


@both_loops
async def test_a_detached_connection_that_changes_to_tls_counts_once(
    tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    delegate = Detaching()
    async with serving(delegate) as server, await Client.connect(server) as client:
        await client.send(GET.replace(b"/ ", b"/stream ", 1))
        await until(lambda: len(delegate.streams) == 1)
        future = delegate.streams[0].start_tls(True, tls_contexts[0])
        reader, writer = await asyncio.open_connection(
            sock=client._sock, ssl=tls_contexts[1], server_hostname="localhost"
        )
        stream = await future
        assert server.connection_count() == 1
        stream.write(b"secret")
        assert await reader.readexactly(6) == b"secret"
        writer.close()
        await until(lambda: server.connection_count() == 0)


@both_loops
async def test_a_detached_connection_with_tls_begins_tls_within(
    tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    delegate = Detaching()
    large = b"0123456789abcdef" * 40_000
    async with asyncio.timeout(20), serving(delegate, tls=tls_contexts[0]) as server:
        host, port = address_of(server)
        reader, writer = await asyncio.open_connection(host, port, ssl=tls_contexts[1], server_hostname="localhost")
        writer.write(GET.replace(b"/ ", b"/stream ", 1))
        await until(lambda: len(delegate.streams) == 1)
        future = delegate.streams[0].start_tls(True, tls_contexts[0])
        await writer.start_tls(tls_contexts[1], server_hostname="localhost")
        stream = await future
        assert server.connection_count() == 1
        stream.write(large)
        assert await reader.readexactly(len(large)) == large
        writer.write(large)
        assert await stream.read_bytes(len(large)) == large
        assert stream.socket.cipher() is not None
        stream.close()
        assert await reader.read() == b""
        writer.close()
        await until(lambda: server.connection_count() == 0)


@both_loops
async def test_whatever_stops_start_tls_is_told(tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    """Otherwise who waits for the new stream would wait for ever."""
    delegate = Detaching()
    async with (
        serving(delegate, tls=tls_contexts[0]) as server,
        await TLSClient.connect(server, tls_contexts[1]) as client,
    ):
        await client.send(GET.replace(b"/ ", b"/stream ", 1))
        await until(lambda: len(delegate.streams) == 1)
        future = delegate.streams[0].start_tls(True, tls_contexts[0])
        await client.send(b"no TLS" * 10)
        with pytest.raises(StreamClosedError) as told:
            await asyncio.wait_for(future, TIMEOUT)
        assert isinstance(told.value.real_error, ssl.SSLError)
        await until(lambda: server.connection_count() == 0)


async def test_a_detached_connection_that_fails_to_change_to_tls(
    tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    # On asyncio's loop only: uvloop 0.23 never ends a start_tls() whose peer leaves.
    delegate = Detaching()
    async with serving(delegate) as server, await Client.connect(server) as client:
        await client.send(GET.replace(b"/ ", b"/stream ", 1))
        await until(lambda: len(delegate.streams) == 1)
        before = asyncio.all_tasks()
        future = delegate.streams[0].start_tls(True, tls_contexts[0])
        others = asyncio.all_tasks() - before
        client.close()
        with pytest.raises(OSError):
            await future
        await until(lambda: server.connection_count() == 0)
        await asyncio.gather(*others)


@both_loops
@pytest.mark.parametrize("sent", [GET, b""])
async def test_failed_handshakes_leave_nothing_behind(
    tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext], sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """What is freed by the garbage collector only is much, and late."""
    caplog.set_level(logging.INFO)
    async with serving(Echo(), tls=tls_contexts[0]) as server:
        gc.collect()
        gc.disable()
        old = [thing for thing in gc.get_objects() if isinstance(thing, _HANDSHAKE)]
        try:
            for _ in range(5):
                async with await Client.connect(server) as client:
                    await client.send(sent)
                    if sent:
                        with contextlib.suppress(ConnectionResetError):
                            await client.read_to_the_end()
                await until(lambda: server.connection_count() == 0 and len(server._starting) == 0)
            await until(lambda: len([thing for thing in gc.get_objects() if isinstance(thing, _HANDSHAKE)]) <= len(old))
        finally:
            gc.enable()
    assert [record.levelno for record in caplog.records] == [logging.INFO] * (5 if sent else 0)


@both_loops
@pytest.mark.parametrize("own", [True, False])
async def test_tls_with_and_without_a_transport_of_its_own(
    tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext], own: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not own:
        monkeypatch.delattr("select.epoll")  # as on other systems
    async with (
        serving(Echo(), tls=tls_contexts[0]) as server,
        await TLSClient.connect(server, tls_contexts[1]) as client,
    ):
        for _ in range(3):
            content = b"x" * 40_000 + b"end"
            await client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(content) + content)
            assert b"200 OK" in await client.read(b"\r\n\r\n")
            assert (await client.read(b"end")).endswith(content)
        (connection,) = server.connections
        assert isinstance(connection.transport, TLSTransport) == own


@both_loops
async def test_a_handshake_counts_and_ends_with_the_server(
    tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> None:
    async with serving(Echo(), tls=tls_contexts[0]) as server, await Client.connect(server) as client:
        await client.send(b"\x16\x03\x01\x02")
        await until(lambda: server.connection_count() == 1)
        assert not server.connections
        server.stop()
        async with asyncio.timeout(TIMEOUT):
            assert await server.drain(0) == 0
        assert server.connection_count() == 0
        with contextlib.suppress(ConnectionResetError):  # the system has not passed on all that the client has sent
            assert await client.read_to_the_end() == b""


@both_loops
@pytest.mark.parametrize("limit", [None, TIMEOUT])
@pytest.mark.parametrize("sent", [b"", b"\x16", b"\x16\x03\x01\x02"], ids=["nothing", "a byte", "a part"])
async def test_a_handshake_that_does_not_go_on_does_not_hold_a_stop(
    tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext],
    monkeypatch: pytest.MonkeyPatch,
    sent: bytes,
    limit: float | None,
) -> None:
    monkeypatch.setattr(httpserver, "_STARTING", 0.1)
    async with serving(Echo(), tls=tls_contexts[0]) as server:
        server.tls_handshake_timeout = 2 * TIMEOUT
        async with await Client.connect(server) as client:
            await client.send(sent)
            await until(lambda: server.connection_count() == 1)
            server.stop()
            async with asyncio.timeout(TIMEOUT):
                assert await server.drain(limit) == 0
            with contextlib.suppress(ConnectionResetError):
                assert await client.read_to_the_end() == b""


@both_loops
async def test_handshakes_count_for_the_limit(tls_contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async with serving(Echo(), tls=tls_contexts[0]) as server:
        server.max_connections = 1
        async with await Client.connect(server) as stalled:
            await until(lambda: server._full)
            waiting = asyncio.create_task(TLSClient.connect(server, tls_contexts[1]))
            for _ in range(5):
                await asyncio.sleep(0.001)
            assert not waiting.done()
            stalled.reset()
            async with await waiting as client:
                await client.send(GET)
                assert b"200 OK" in await client.read(b"\r\n\r\n")


# ---------------------------------------------------------------------- the end


@both_loops
async def test_draining_waits_for_requests() -> None:
    delegate = Slow()
    async with serving(delegate) as server:
        busy = await Client.connect(server)
        await busy.send(GET)
        await until(lambda: delegate.started == 1)
        told: list[int] = []
        server.stop()
        drain = asyncio.ensure_future(server.drain(TIMEOUT, told.append))
        await until(lambda: bool(told))
        assert len(delegate.waiting) == 1
        delegate.answer_all()
        (response,) = read_responses(await busy.read_to_the_end(), ended=True)
        assert (response.content, response.closes) == (b"late", True)
        assert await drain == 0
        assert told == [1]
        busy.close()


@both_loops
async def test_draining_cuts_what_takes_too_long() -> None:
    delegate = Slow()
    async with serving(delegate) as server:
        clients = [await Client.connect(server) for _ in range(3)]
        for client in clients:
            await client.send(GET)
        await until(lambda: delegate.started == 3)
        server.stop()
        begin = time.monotonic()
        assert await server.drain(0.1) == 3
        assert 0.09 < time.monotonic() - begin < 5
        assert delegate.ended == 3
        for client in clients:
            with pytest.raises(ConnectionResetError):
                await client.read_to_the_end()
            client.close()


@both_loops
async def test_a_second_drain_forces_the_first() -> None:
    delegate = Slow()
    async with serving(delegate) as server, await Client.connect(server) as client:
        await client.send(GET)
        await until(lambda: delegate.started == 1)
        server.stop()
        first = asyncio.ensure_future(server.drain(None))
        await asyncio.sleep(0.01)
        assert await server.drain(0) == 1
        async with asyncio.timeout(2):
            assert await first == 0


@both_loops
async def test_a_server_that_closed_all_connections_serves_on() -> None:
    async with serving(Echo()) as server:
        for _ in range(2):
            async with await Client.connect(server) as client:
                await client.send(GET)
                await client.read(b"GET /|")
                await server.close_all_connections()
                await asyncio.sleep(0)
        async with await Client.connect(server) as client:
            for _ in range(2):
                await client.send(GET)
                await client.read(b"GET /|")
                assert b"connection: close" not in client.received
                client.received = b""


@both_loops
async def test_draining_nothing() -> None:
    async with serving(Echo()) as server:
        assert await server.drain(5) == 0
        assert await server.drain(None) == 0
    server = HTTPServer(Echo())
    assert await server.drain(0) == 0
