"""What every server does with listening sockets and accepted connections; streams have tests of their own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest
import trustme

from bridge.core import tcpserver
from bridge.core.tcpserver import TCPServer
from tests.support.loops import both_loops
from tests.support.serving import until


class Protocol(asyncio.Protocol):
    """Greets, and tells its server that it has ended."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.calls: list[str] = []
        self.transport: asyncio.Transport

    def connection_made(self, transport: Any) -> None:
        self.calls.append("made")
        self.transport = transport
        transport.write(b"hello")

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append("lost")
        self.server.open.discard(self)
        self.server._connection_ended()


class Server(TCPServer):
    """Serves a protocol instead of streams."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.open: set[Protocol] = set()
        self.all: list[Protocol] = []
        self.fails = False

    def connection_count(self) -> int:
        return super().connection_count() - self._met + len(self.open)

    def _protocol(
        self, loop: asyncio.AbstractEventLoop, sock: socket.socket, address: Any, preface: Any
    ) -> asyncio.Protocol:
        if self.fails:
            raise ValueError("x")
        protocol = Protocol(self)
        self.open.add(protocol)
        self.all.append(protocol)
        return protocol

    async def end(self) -> None:
        self.stop()
        await until(lambda: not self._starting)
        for protocol in tuple(self.open):
            protocol.transport.abort()
        await until(lambda: not self.open)


def ports(server: TCPServer) -> list[int]:
    return [sock.getsockname()[1] for sock in server._sockets.values()]


async def greeted(port: int, family: int = socket.AF_INET) -> socket.socket:
    """Connect, and return the socket when the server has said something."""
    sock = socket.socket(family)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(10):
            await loop.sock_connect(sock, ("127.0.0.1", port))
            assert await loop.sock_recv(sock, 10) == b"hello"
    except BaseException:
        sock.close()
        raise
    return sock


# ---------------------------------------------------------------------- listening


@both_loops
async def test_listen_serves_at_once_and_on_several_ports() -> None:
    server = Server()
    server.listen(0, "127.0.0.1")
    server.listen(0, "127.0.0.1", backlog=5)
    assert len(set(ports(server))) == 2
    for port in ports(server):
        (await greeted(port)).close()
    await server.end()


@both_loops
async def test_bind_serves_from_start_on() -> None:
    server = Server()
    server.bind(0, "127.0.0.1")
    server.bind(0, "127.0.0.1")
    assert server._sockets == {}
    server.start()
    assert len(ports(server)) == 2
    for port in ports(server):
        (await greeted(port)).close()
    server.bind(0, "127.0.0.1")  # after start: at once
    (await greeted(ports(server)[-1])).close()
    with pytest.raises(AssertionError):
        server.start()
    await server.end()


@both_loops
async def test_sockets_of_ones_own() -> None:
    server = Server()
    first, second = (socket.create_server(("127.0.0.1", 0)) for _ in range(2))
    server.add_socket(first)
    server.add_sockets([second])
    assert not first.getblocking()
    for sock in (first, second):
        (await greeted(sock.getsockname()[1])).close()
    await server.end()
    assert first.fileno() == second.fileno() == -1


def test_listening_before_the_loop_runs() -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        server = Server()
        server.listen(0, "127.0.0.1")

        async def main() -> None:
            (await greeted(ports(server)[0])).close()
            await server.end()

        loop.run_until_complete(main())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


@both_loops
async def test_a_unix_socket(tmp_path: Any) -> None:
    server = Server()
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    server.add_socket(listener)
    sock = socket.socket(socket.AF_UNIX)
    sock.setblocking(False)
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, str(tmp_path / "s"))
    assert await loop.sock_recv(sock, 10) == b"hello"
    sock.close()
    await server.end()


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for way in ("listen", "bind"):
            with pytest.raises(OSError, match=str(taken.getsockname()[1])):
                getattr(Server(), way)(taken.getsockname()[1], "127.0.0.1")


# ---------------------------------------------------------------------- stopping


@both_loops
async def test_stop_closes_the_listening_sockets_and_leaves_the_connections() -> None:
    server = Server()
    server.listen(0, "127.0.0.1")
    (port,) = ports(server)
    sock = await greeted(port)
    server.stop()
    server.stop()
    with pytest.raises(ConnectionRefusedError):
        await greeted(port)
    server.all[0].transport.write(b"still")
    assert await asyncio.get_running_loop().sock_recv(sock, 10) == b"still"
    sock.close()
    await server.end()


@both_loops
async def test_waiting_connections_can_be_taken_before_a_stop() -> None:
    server = Server()
    server.listen(0, "127.0.0.1")
    (port,) = ports(server)
    # Connected without a turn of the loop in between: they are in the listening socket's queue.
    waiting = [socket.create_connection(("127.0.0.1", port)) for _ in range(5)]
    server.accept_waiting()
    server.stop()
    await until(lambda: len(server.all) == 5)
    for sock in waiting:
        sock.settimeout(5)
        assert await asyncio.to_thread(sock.recv, 10) == b"hello"
        sock.close()
    await server.end()


async def test_a_server_that_was_stopped_may_listen_again() -> None:
    server = Server()
    for _ in range(2):
        server.listen(0, "127.0.0.1")
        (await greeted(*ports(server))).close()
        (sock,) = server._sockets.values()
        await server.end()
        server.stop()
        assert sock.fileno() == -1


def test_stop_closes_what_was_bound_and_never_served() -> None:
    server = TCPServer()
    server.bind(0, "127.0.0.1")
    (sock,) = server._pending
    server.stop()
    assert sock.fileno() == -1


def test_stop_of_a_server_that_never_began() -> None:
    server = Server()
    server.stop()
    assert server.connection_count() == 0


# ---------------------------------------------------------------------- how many


@both_loops
async def test_no_more_connections_than_allowed_are_held(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    server.max_connections = 3
    server.listen(0, "127.0.0.1")
    (port,) = ports(server)
    held = [await greeted(port) for _ in range(3)]
    waiting = [socket.create_connection(("127.0.0.1", port)) for _ in range(4)]
    await asyncio.sleep(0.05)  # that nothing happens can only be waited for
    assert len(server.all) == 3
    for number in range(4):
        held.pop(0).close()
        await until(lambda number=number: len(server.all) == 4 + number)  # type: ignore[misc]
        assert server.connection_count() <= 3
        held.append(waiting[number])
    full = [line for line in caplog.messages if line.startswith("3 connections are open, the most allowed")]
    assert len(full) == 1  # in a minute, although it was full again four times
    for sock in held:
        sock.close()
    await until(lambda: not server.open)
    (await greeted(port)).close()
    await server.end()


@both_loops
async def test_a_burst_is_counted_once_each() -> None:
    # What is being started counts, and is not counted again when it has started.
    server = Server()
    server.max_connections = 10
    server.listen(0, "127.0.0.1")
    (port,) = ports(server)
    clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(25)]
    await until(lambda: len(server.all) == 10)
    await asyncio.sleep(0.02)
    assert len(server.all) == 10
    for client in clients:
        client.close()
    await until(lambda: len(server.all) == 25 and not server.open)
    await server.end()


@both_loops
async def test_a_full_server_can_be_stopped() -> None:
    server = Server()
    server.max_connections = 1
    server.listen(0, "127.0.0.1")
    sock = await greeted(ports(server)[0])
    server.stop()
    sock.close()
    await server.end()


# ---------------------------------------------------------------------- what goes wrong


@both_loops
async def test_a_protocol_that_cannot_be_made(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    server.listen(0, "127.0.0.1")
    (port,) = ports(server)
    server.fails = True
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.settimeout(5)
        assert await asyncio.to_thread(sock.recv, 10) == b""
    assert caplog.text.count("Traceback") == 1
    assert server.connection_count() == 0
    server.fails = False
    (await greeted(port)).close()
    await server.end()


@both_loops
async def test_a_transport_that_cannot_be_made(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Server()
    server.listen(0, "127.0.0.1")
    (port,) = ports(server)

    def broken(self: Server) -> Any:
        raise OSError("no context")

    monkeypatch.setattr(Server, "_tls_context", broken)
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.settimeout(5)
        with contextlib.suppress(ConnectionResetError):
            assert await asyncio.to_thread(sock.recv, 10) == b""
    monkeypatch.undo()
    assert server.all == []
    (await greeted(port)).close()
    await server.end()


@both_loops
async def test_the_queue_may_have_less_than_it_said(monkeypatch: pytest.MonkeyPatch) -> None:
    server = Server()
    server.listen(0, "127.0.0.1")
    server.accept_waiting()  # nobody waits
    monkeypatch.setattr(tcpserver, "_MOST_WAITING", 2)
    waiting = [socket.create_connection(("127.0.0.1", ports(server)[0])) for _ in range(4)]
    server.accept_waiting()
    assert len(server._starting) == 2
    await until(lambda: len(server.all) == 4)
    for sock in waiting:
        sock.close()
    await server.end()


async def test_streams_are_a_subclass_s_business() -> None:
    with pytest.raises(NotImplementedError):
        TCPServer().handle_stream(None, None)
    assert tcpserver.is_loop(asyncio.get_running_loop())
    assert not tcpserver.is_loop(None)


# ---------------------------------------------------------------------- what comes before the protocol


class Preface:
    """Reads one byte from each peer; refuses those that say "n"."""

    def __init__(self) -> None:
        self.waiting = asyncio.Event()

    async def read(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, address: Any) -> Any:
        self.waiting.set()
        word = await loop.sock_recv(sock, 1)
        return None if word == b"n" else self

    def apply(self, context: Any) -> None: ...


@both_loops
async def test_a_preface_is_read_first_and_may_refuse_the_connection() -> None:
    server = Server(preface=Preface(), max_connections=1)
    server.listen(0, "127.0.0.1")
    (port,) = ports(server)
    for word, answer in ((b"n", b""), (b"y", b"hello")):
        with socket.create_connection(("127.0.0.1", port)) as sock:
            sock.settimeout(5)
            sock.sendall(word)
            assert await asyncio.to_thread(sock.recv, 10) == answer
    await until(lambda: not server.open)
    assert server.connection_count() == 0
    await server.end()


@both_loops
async def test_a_connection_that_is_given_up_while_its_preface_is_read_is_closed() -> None:
    preface = Preface()
    server = Server(preface=preface)
    server.listen(0, "127.0.0.1")
    with socket.create_connection(("127.0.0.1", ports(server)[0])) as sock:
        sock.settimeout(5)
        await preface.waiting.wait()
        for task in tuple(server._starting):
            task.cancel()
        assert await asyncio.to_thread(sock.recv, 10) == b""
    await server.end()


def test_children_have_one_tls_context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    issued = trustme.CA().issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "both.pem"))
    server = Server(ssl_options={"certfile": str(tmp_path / "both.pem")})
    inherited: list[ssl.SSLContext | None] = []
    monkeypatch.setattr("bridge.core.process.fork_processes", lambda *_: inherited.append(server._context))
    server.start(2)
    assert inherited == [server._tls_context()]
    assert isinstance(inherited[0], ssl.SSLContext)  # with the keys of session tickets, which OpenSSL makes with it


def test_tls_files_without_a_certificate_are_found_before_children_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty.pem").write_bytes(b"")
    server = Server(ssl_options={"certfile": str(tmp_path / "empty.pem")})
    monkeypatch.setattr("bridge.core.process.fork_processes", lambda *_: pytest.fail("forked"))
    with pytest.raises(ssl.SSLError):
        server.start(2)
