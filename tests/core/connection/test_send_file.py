"""Content from files: by sendfile, piece by piece under TLS and in chunks; slow, lost and short."""

from __future__ import annotations

import asyncio
import errno
import functools
import inspect
import os
import socket
from pathlib import Path

import pytest

from bridge.core.connection.interfaces import NULL_DELEGATE
from bridge.core.connection.parameters import ConnectionParameters
from bridge.core.connection.states import CLOSED
from bridge.core.httpserver import HTTPServer
from bridge.core.netutil import bind_sockets
from bridge.errors import ConnectionGone, LocalProtocolError
from tests.support.certificates import tls_contexts

SIZE = 5_000_000


LOOPS = {"asyncio": asyncio.new_event_loop}
try:
    import uvloop
except ImportError:  # no wheel for this platform
    pass
else:
    LOOPS["uvloop"] = uvloop.new_event_loop


def on_each_loop(test):
    """Run an async test on asyncio's loop and on uvloop's: what a transport's socket allows differs."""

    @functools.wraps(test)
    def run(*args, loop, **kwargs):
        with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
            runner.run(test(*args, **kwargs))

    signature = inspect.signature(test)
    parameter = inspect.Parameter("loop", inspect.Parameter.KEYWORD_ONLY)
    run.__signature__ = signature.replace(parameters=[*signature.parameters.values(), parameter])
    del run.__wrapped__
    return pytest.mark.parametrize("loop", LOOPS)(run)


@pytest.fixture
def content(tmp_path: Path) -> tuple[Path, bytes]:
    data = os.urandom(1 << 16) * (SIZE // (1 << 16))
    path = tmp_path / "content"
    path.write_bytes(data)
    return path, data


class Delegate:
    """Answers with a part of a file."""

    def __init__(self, path: Path, offset: int, count: int, *, length: bool = True) -> None:
        self.path = path
        self.offset = offset
        self.count = count
        self.length = length
        self.result: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()
        self.tasks: set[asyncio.Task[None]] = set()
        self.exchange = None

    def start_exchange(self, exchange):
        self.exchange = exchange
        self.tasks.add(asyncio.get_running_loop().create_task(self.answer(exchange)))
        return NULL_DELEGATE

    async def answer(self, exchange) -> None:
        file = os.open(self.path, os.O_RDONLY)
        result = None
        try:
            fields = [(b"content-length", b"%d" % self.count)] if self.length else []
            exchange.respond(200, fields)
            await exchange.send_file(file, self.offset, self.count)
            exchange.send(b"", True)
        except (LocalProtocolError, ConnectionGone) as exc:
            result = exc
            exchange.fail()
        finally:
            os.close(file)
            if not self.result.done():
                self.result.set_result(result)

    def on_close(self, connection):
        return None


async def fetch(delegate, method=b"GET", version=b"1.1", tls=None, client=None, pause=0, params=None):
    server = HTTPServer(delegate, ssl_options=tls, params=params)
    (sock,) = bind_sockets(0, "127.0.0.1")
    server.add_socket(sock)
    plain = socket.create_connection(sock.getsockname())
    if pause:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 100_000)
    plain.setblocking(False)
    reader, writer = await asyncio.open_connection(
        sock=plain, ssl=client, server_hostname="localhost" if client else None, limit=4096
    )
    writer.write(method + b" / HTTP/" + version + b"\r\nHost: a\r\nConnection: close\r\n\r\n")
    await asyncio.sleep(pause)
    try:
        answer = await asyncio.wait_for(reader.read(), 10)
    except ConnectionResetError:
        answer = b""
    writer.close()
    server.stop()
    await server.drain(1)
    head, _, body = answer.partition(b"\r\n\r\n")
    return head, body


@pytest.mark.parametrize(("offset", "count"), [(0, SIZE // 65536 * 65536), (1000, 2_000_000), (7, 10), (5, 0)])
@on_each_loop
async def test_a_part_of_a_file(content, offset, count) -> None:
    path, data = content
    delegate = Delegate(path, offset, count)
    head, body = await fetch(delegate)
    assert await delegate.result is None
    assert b"content-length: %d" % count in head
    assert body == data[offset : offset + count]
    assert delegate.exchange.content_sent == count


@on_each_loop
async def test_a_reader_that_is_slow_at_first(content) -> None:
    path, data = content
    delegate = Delegate(path, 0, len(data))
    _, body = await fetch(delegate, pause=0.3)
    assert body == data


@on_each_loop
async def test_chunks_where_the_length_is_not_declared(content) -> None:
    path, data = content
    delegate = Delegate(path, 0, 100_000, length=False)
    head, body = await fetch(delegate)
    assert b"transfer-encoding: chunked" in head
    assert body.startswith(b"10000\r\n" + data[:65536] + b"\r\n")
    assert body.endswith(data[65536:100_000] + b"\r\n0\r\n\r\n")


@on_each_loop
async def test_until_the_close_in_http_1_0(content) -> None:
    path, data = content
    delegate = Delegate(path, 0, 100_000, length=False)
    _, body = await fetch(delegate, version=b"1.0")
    assert body == data[:100_000]


@on_each_loop
async def test_nothing_for_head(content) -> None:
    path, _ = content
    delegate = Delegate(path, 0, 100_000)
    head, body = await fetch(delegate, method=b"HEAD")
    assert b"content-length: 100000" in head
    assert body == b""


@on_each_loop
async def test_under_tls(content) -> None:
    path, data = content
    context, client = tls_contexts()
    delegate = Delegate(path, 3, 1_000_000)
    _, body = await fetch(delegate, tls=context, client=client)
    assert body == data[3:1_000_003]


@on_each_loop
async def test_a_file_that_is_too_short_ends_the_connection(content) -> None:
    path, data = content
    delegate = Delegate(path, len(data) - 100_000, 200_000)
    _, body = await fetch(delegate)
    assert isinstance(await delegate.result, LocalProtocolError)
    assert body == data[-100_000:]


@on_each_loop
async def test_more_than_the_declared_length_sends_nothing(content) -> None:
    path, _ = content

    class Short(Delegate):
        async def answer(self, exchange) -> None:
            exchange.respond(200, [(b"content-length", b"10")])
            try:
                with open(path, "rb") as file, pytest.raises(LocalProtocolError, match="Content-Length of 10"):
                    await exchange.send_file(file.fileno(), 0, 50_000)
            finally:
                exchange.fail()
                self.result.set_result(None)

    _, body = await fetch(Short(path, 0, 50_000))
    assert body == b""


@on_each_loop
async def test_a_client_that_leaves(content) -> None:
    path, data = content
    delegate = Delegate(path, 0, len(data))
    server = HTTPServer(delegate)
    (sock,) = bind_sockets(0, "127.0.0.1")
    server.add_socket(sock)
    client = socket.create_connection(sock.getsockname())
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    await asyncio.sleep(0.1)
    assert not delegate.result.done()
    client.close()
    assert isinstance(await asyncio.wait_for(delegate.result, 5), ConnectionGone)
    server.stop()
    await server.drain(1)


@on_each_loop
async def test_a_client_that_closes_its_side_first_and_leaves_then(content) -> None:
    path, data = content
    delegate = Delegate(path, 0, len(data))
    server = HTTPServer(delegate)
    (sock,) = bind_sockets(0, "127.0.0.1")
    server.add_socket(sock)
    client = socket.create_connection(sock.getsockname())
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    client.shutdown(socket.SHUT_WR)
    await asyncio.sleep(0.1)
    assert not delegate.result.done()
    client.close()
    assert isinstance(await asyncio.wait_for(delegate.result, 5), ConnectionGone)
    async with asyncio.timeout(5):
        while server.connection_count():  # the transport had stopped to look
            await asyncio.sleep(0.005)
    server.stop()
    await server.drain(1)


@on_each_loop
async def test_a_loss_that_the_system_tells_first_is_known_to_the_exchange(content, monkeypatch) -> None:
    path, data = content
    writing = []

    class Watched(Delegate):
        async def answer(self, exchange) -> None:
            exchange.respond(200, [])
            with open(path, "rb") as file, pytest.raises(ConnectionGone, match="Broken pipe"):
                try:
                    await exchange.send_file(file.fileno(), 0, len(data))
                finally:
                    writing.append(exchange.writing)
            self.result.set_result(None)

    def broken(*args: object) -> int:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    monkeypatch.setattr(os, "sendfile", broken)
    delegate = Watched(path, 0, len(data))
    server = HTTPServer(delegate)
    (sock,) = bind_sockets(0, "127.0.0.1")
    server.add_socket(sock)
    with socket.create_connection(sock.getsockname()) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        await asyncio.wait_for(delegate.result, 5)
    assert writing == [CLOSED]
    server.stop()
    await server.drain(1)


@on_each_loop
async def test_a_client_that_never_reads_is_cut_off(content) -> None:
    path, data = content
    delegate = Delegate(path, 0, len(data))
    server = HTTPServer(delegate, params=ConnectionParameters(write_timeout=0.2))
    (sock,) = bind_sockets(0, "127.0.0.1")
    server.add_socket(sock)
    client = socket.create_connection(sock.getsockname())
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert isinstance(await asyncio.wait_for(delegate.result, 5), ConnectionGone)
    with pytest.raises(ConnectionResetError):
        while client.recv(65536):
            pass
    client.close()
    server.stop()
    await server.drain(1)
