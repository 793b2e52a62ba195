"""Accepting: what stops it, what interrupts it, how much of it happens at once."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from bridge.core.net import accept
from bridge.core.net.accept import add_accept_handler
from bridge.core.net.bind import bind_sockets

LOOPBACK = "127.0.0.1"


@pytest.fixture
def opened() -> Iterator[list[socket.socket]]:
    """Sockets that are closed after the test."""
    sockets: list[socket.socket] = []
    yield sockets
    for sock in sockets:
        sock.close()


class Clients:
    """Connects to a listening socket and notes what is accepted."""

    def __init__(self, opened: list[socket.socket]) -> None:
        self.opened = opened
        self.accepted: list[tuple[socket.socket, Any]] = []
        self.arrived = asyncio.Event()

    def take(self, connection: socket.socket, address: Any) -> None:
        self.opened.append(connection)
        self.accepted.append((connection, address))
        self.arrived.set()

    def connect(self, sock: socket.socket) -> socket.socket:
        self.opened.append(socket.create_connection(sock.getsockname(), timeout=10))
        return self.opened[-1]

    async def until(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.accepted) < count:
                self.arrived.clear()
                await self.arrived.wait()


def watched(sock: socket.socket) -> bool:
    """Tell whether the loop calls somebody when *sock* is readable; afterwards it does not."""
    return asyncio.get_running_loop().remove_reader(sock)


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_connections_are_accepted(opened: list[socket.socket]) -> None:
    opened += bind_sockets(0, LOOPBACK)
    clients = Clients(opened)
    remove = add_accept_handler(opened[0], clients.take)
    client = clients.connect(opened[0])
    await clients.until(1)
    connection, address = clients.accepted[0]
    assert address == client.getsockname()
    assert not connection.getblocking()
    remove()


async def test_after_removal_nothing_is_accepted(opened: list[socket.socket]) -> None:
    opened += bind_sockets(0, LOOPBACK)
    clients = Clients(opened)
    remove = add_accept_handler(opened[0], clients.take)
    clients.connect(opened[0])
    remove()
    assert not watched(opened[0])
    add_accept_handler(opened[0], clients.take)
    remove()  # its own watching is over: not that of the other
    assert watched(opened[0])
    await turns()
    assert clients.accepted == []
    assert opened[0].fileno() != -1
    add_accept_handler(opened[0], clients.take)
    await clients.until(1)


async def test_the_callback_may_stop_the_server(opened: list[socket.socket]) -> None:
    opened += bind_sockets(0, LOOPBACK)
    listening = opened[0]
    clients = Clients(opened)

    def stop(connection: socket.socket, address: Any) -> None:
        clients.take(connection, address)
        remove()
        listening.close()

    remove = add_accept_handler(listening, stop)
    clients.connect(listening)
    clients.connect(listening)
    await clients.until(1)
    await turns()
    assert len(clients.accepted) == 1


def test_removal_after_the_loop_was_closed(opened: list[socket.socket]) -> None:
    opened += bind_sockets(0, LOOPBACK)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        remove = add_accept_handler(opened[0], lambda connection, address: None)
    finally:
        loop.close()
        asyncio.set_event_loop(None)
    remove()


class Faulty(socket.socket):
    """A listening socket whose accept does what *script* says, and then what it always does."""

    script: list[int]
    calls: int

    def accept(self) -> tuple[socket.socket, Any]:
        self.calls += 1
        if self.script:
            number = self.script.pop(0)
            raise OSError(number, os.strerror(number))
        return super().accept()


def faulty(opened: list[socket.socket], *script: int) -> Faulty:
    sock = Faulty(socket.AF_INET)
    opened.append(sock)
    sock.setblocking(False)
    sock.bind((LOOPBACK, 0))
    sock.listen(128)
    sock.script = list(script)
    sock.calls = 0
    return sock


PEER_LEFT = [errno.ECONNABORTED, errno.EINVAL, errno.EPROTO, errno.ECONNRESET]
NOTHING_TO_ACCEPT = [errno.EAGAIN, errno.EINTR]


@pytest.mark.parametrize("number", PEER_LEFT + NOTHING_TO_ACCEPT, ids=errno.errorcode.get)
async def test_what_fails_for_one_connection_lets_the_next_one_in(opened: list[socket.socket], number: int) -> None:
    sock = faulty(opened, number)
    clients = Clients(opened)
    remove = add_accept_handler(sock, clients.take)
    clients.connect(sock)
    await clients.until(1)
    remove()
    assert sock.script == []


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_no_room_for_a_connection_makes_a_pause(
    opened: list[socket.socket], number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(accept, "_ACCEPT_PAUSE", 0.02)
    sock = faulty(opened, number, number)
    clients = Clients(opened)
    remove = add_accept_handler(sock, clients.take)
    clients.connect(sock)
    await clients.until(1)
    remove()
    assert sock.calls <= 4, "accept was called again and again"
    records = [record for record in caplog.records if record.name == "bridge.general"]
    assert [record.levelno for record in records] == [logging.ERROR]  # once a minute
    assert "cannot accept connections, next try every 0.02 s" in records[0].getMessage()


async def test_no_room_is_logged_again_after_a_while(
    opened: list[socket.socket], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(accept, "_ACCEPT_PAUSE", 0.02)
    monkeypatch.setattr(accept, "_QUIET", 0.01)
    sock = faulty(opened, errno.EMFILE, errno.EMFILE)
    clients = Clients(opened)
    remove = add_accept_handler(sock, clients.take)
    clients.connect(sock)
    await clients.until(1)
    remove()
    assert caplog.text.count("cannot accept") == 2


async def test_during_the_pause_nothing_is_asked(opened: list[socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "_ACCEPT_PAUSE", 3600)
    sock = faulty(opened, errno.EMFILE, errno.EMFILE)
    clients = Clients(opened)
    remove = add_accept_handler(sock, clients.take)
    clients.connect(sock)
    async with asyncio.timeout(20):
        while not sock.calls:
            await asyncio.sleep(0)
    await turns(50)
    assert sock.calls == 1
    assert not watched(sock)
    remove()


async def test_removal_during_the_pause_is_final(opened: list[socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "_ACCEPT_PAUSE", 0.01)
    sock = faulty(opened, errno.EMFILE)
    clients = Clients(opened)
    remove = add_accept_handler(sock, clients.take)
    clients.connect(sock)
    async with asyncio.timeout(20):
        while not sock.calls:
            await asyncio.sleep(0)
    remove()
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(0.03, over.set)
    await over.wait()
    assert sock.calls == 1
    assert not watched(sock)


async def test_removal_after_a_pause(opened: list[socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accept, "_ACCEPT_PAUSE", 0.01)
    sock = faulty(opened, errno.EMFILE)
    clients = Clients(opened)
    remove = add_accept_handler(sock, clients.take)
    clients.connect(sock)
    await clients.until(1)
    remove()
    assert not watched(sock)


async def test_another_fault_is_reported(opened: list[socket.socket]) -> None:
    sock = faulty(opened, errno.EPERM)
    clients = Clients(opened)
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(context))
    remove = add_accept_handler(sock, clients.take)
    clients.connect(sock)
    await clients.until(1)
    remove()
    assert [type(report["exception"]) for report in reports] == [PermissionError]


async def test_a_flood_does_not_keep_the_loop(opened: list[socket.socket]) -> None:
    opened += bind_sockets(0, LOOPBACK)
    listening = opened[0]
    clients = Clients(opened)
    for _ in range(7):
        clients.connect(listening)
    remove = add_accept_handler(listening, clients.take, per_turn=3)
    counts = []
    while len(clients.accepted) < 7:
        before = len(clients.accepted)
        await asyncio.sleep(0)
        counts.append(len(clients.accepted) - before)
        assert len(counts) < 1000
    remove()
    assert [count for count in counts if count] == [3, 3, 1]
