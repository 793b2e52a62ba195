"""The end of TLS connections: without the peer's consent, and without loss for a peer that reads slowly."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from bridge.core.connection import closing
from bridge.core.connection.interfaces import NULL_DELEGATE, Connection, Exchange, ExchangeDelegate
from bridge.core.connection.websocket import WebSocketConnection, WebSocketOptions
from bridge.core.websocket.handshake import Handshake, check_handshake
from tests.support.certificates import tls_contexts
from tests.support.loops import both_loops
from tests.support.serving import address_of, serving, until

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
SIZE = 3_000_000


class Delegate:
    def on_close(self, connection: Connection) -> None:
        pass


class Large(Delegate):
    """Answers with much content, and closes."""

    def start_exchange(self, exchange: Exchange) -> ExchangeDelegate:
        exchange.respond(200, [(b"content-length", b"%d" % SIZE), (b"connection", b"close")])
        exchange.send(b"x" * SIZE, True)
        return NULL_DELEGATE


class Small(Delegate):
    """Answers with little."""

    def start_exchange(self, exchange: Exchange) -> ExchangeDelegate:
        exchange.respond(200, [(b"content-length", b"2")])
        exchange.send(b"ok", True)
        return NULL_DELEGATE


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    return tls_contexts()


def connect(address: tuple[str, int], context: ssl.SSLContext) -> ssl.SSLSocket:
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    sock.settimeout(30)
    sock.connect(address)
    return context.wrap_socket(sock, server_hostname="localhost")


@both_loops
async def test_a_peer_that_never_agrees_is_not_waited_for(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    async with serving(Small(), tls=contexts[0], keep_alive_timeout=0.2) as server:

        def idle() -> float:
            with connect(address_of(server), contexts[1]) as client:
                client.sendall(GET)
                client.recv(1000)
                began = time.monotonic()
                while server.connections:
                    time.sleep(0.05)
                return time.monotonic() - began

        assert await asyncio.to_thread(idle) < 5


class WebSockets(Delegate):
    """Accepts every WebSocket."""

    def start_exchange(self, exchange: Exchange) -> ExchangeDelegate:
        handshake = check_handshake(exchange.head, None)
        assert isinstance(handshake, Handshake)
        WebSocketConnection.accept(exchange, handshake, WebSocketOptions())
        return NULL_DELEGATE


@both_loops
async def test_a_websocket_that_is_over_does_not_wait_for_tls(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closing, "_LOOK", 0.05)
    async with serving(WebSockets(), tls=contexts[0]) as server:
        ended = threading.Event()

        def closing_handshake() -> bytes:
            with connect(address_of(server), contexts[1]) as client:
                client.sendall(UPGRADE)
                client.recv(1000)
                client.sendall(b"\x88\x82" + bytes(4) + b"\x03\xe8")
                answer = client.recv(1000)
                assert ended.wait(5)  # the socket stays open, and reads no more
                return answer

        client = asyncio.create_task(asyncio.to_thread(closing_handshake))
        await until(lambda: server.connection_count() == 1)
        await until(lambda: server.connection_count() == 0)
        ended.set()
        assert await client == b"\x88\x02\x03\xe8"


@both_loops
async def test_a_slow_reader_gets_all_of_the_tail(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(closing, "_LOOK", 0.05)
    async with serving(Large(), tls=contexts[0]) as server:

        def read() -> int:
            with connect(address_of(server), contexts[1]) as client:
                client.sendall(GET)
                count = 0
                while data := client.recv(65536):
                    if count < 200_000:
                        time.sleep(0.1)  # many looks
                    count += len(data)
                return count

        assert await asyncio.to_thread(read) > SIZE


def test_a_socket_that_is_closed_or_unknown_has_ended(tmp_path: Path) -> None:
    one, other = socket.socketpair()
    unsent: Any = closing._unsent
    assert unsent(one) == 0
    one.close()
    other.close()
    assert unsent(one) is None
    assert unsent(None) is None
    with (tmp_path / "file").open("wb") as file:
        assert unsent(file) is None
