"""TLS handshakes: how many of them one turn of the loop has."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import Callable

import pytest

from bridge.core.net import handshake
from bridge.core.net.handshake import HandshakeTurns
from bridge.core.net.readiness import Readiness
from bridge.core.net.tlstransport import TLSTransport
from tests.support.certificates import tls_contexts
from tests.support.loops import both_loops

LIMIT = 20.0  # seconds for whatever is waited for
STEP = 0.002  # seconds that a step takes: three of them use a turn up


class Clock:
    """Goes on when a step is done, and when it is told to go on with each look."""

    def __init__(self, each_look: float = 0.0) -> None:
        self.now = 0.0
        self.each_look = each_look

    def __call__(self) -> float:
        self.now += self.each_look
        return self.now


def count_turns(loop: asyncio.AbstractEventLoop) -> Callable[[], int]:
    turn = 0

    def count() -> None:
        nonlocal turn
        turn += 1
        loop.call_soon(count)

    loop.call_soon(count)
    return lambda: turn


@both_loops
async def test_steps_share_a_turn_and_keep_their_order() -> None:
    loop, clock = asyncio.get_running_loop(), Clock()
    turns, turn = HandshakeTurns(loop, clock), count_turns(loop)
    done: list[tuple[int, int]] = []
    complete = loop.create_future()

    def step(number: int) -> None:
        clock.now += STEP
        done.append((number, turn()))
        if number == 9:
            complete.set_result(None)

    for number in range(10):
        if not turns.do(lambda number=number: step(number)):  # type: ignore[misc]  # a lambda's default has no type
            turns.later(lambda number=number: step(number))  # type: ignore[misc]  # the same
    await asyncio.wait_for(complete, LIMIT)
    assert [number for number, _ in done] == list(range(10))
    in_turns = [at for _, at in done]
    assert [in_turns.count(at) for at in sorted(set(in_turns))] == [3, 3, 3, 1]


@both_loops
async def test_a_step_that_fails_keeps_no_other_waiting(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    turns, done = HandshakeTurns(loop, Clock()), asyncio.Event()

    def fail() -> None:
        raise RuntimeError("a step")

    with caplog.at_level(logging.ERROR):
        turns.later(fail)
        turns.later(done.set)
        await asyncio.wait_for(done.wait(), LIMIT)
    assert "TLS handshake" in caplog.text


@both_loops
async def test_a_step_that_ends_the_turn_keeps_no_other_waiting() -> None:
    """As a handler of a signal does that raises SystemExit, after which the server goes on."""
    turns, done = HandshakeTurns(asyncio.get_running_loop(), Clock()), asyncio.Event()

    def leave() -> None:
        raise SystemExit(3)

    turns._waiting.extend([leave, done.set])
    with pytest.raises(SystemExit):
        turns._run()
    await asyncio.wait_for(done.wait(), LIMIT)


@both_loops
async def test_clients_that_begin_at_once_share_the_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    monkeypatch.setitem(handshake._of_loop, loop, HandshakeTurns(loop, Clock(each_look=STEP)))
    server, client = tls_contexts()
    turn = count_turns(loop)
    steps: list[int] = []
    plain = ssl.SSLSocket.do_handshake

    def noted(self: ssl.SSLSocket, block: bool = False) -> None:
        if self.server_side:
            steps.append(turn())
        plain(self, block)

    monkeypatch.setattr(ssl.SSLSocket, "do_handshake", noted)
    readiness = Readiness.of(loop)
    assert readiness is not None
    transports: list[asyncio.BaseTransport] = []

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            transports.append(transport)

    async def shake_hands(sock: socket.socket) -> None:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = client.wrap_bio(incoming, outgoing, server_hostname="localhost")
        while True:
            with contextlib.suppress(ssl.SSLWantReadError):
                tls.do_handshake()
                await loop.sock_sendall(sock, outgoing.read())
                return
            await loop.sock_sendall(sock, outgoing.read())
            incoming.write(await loop.sock_recv(sock, 65536))

    pairs = [socket.socketpair() for _ in range(20)]
    for pair in pairs:
        for sock in pair:
            sock.setblocking(False)
    accepted = [
        TLSTransport.accept(loop, readiness, theirs, "", server, Protocol, handshake_timeout=LIMIT, shutdown_timeout=0)
        for _, theirs in pairs
    ]
    async with asyncio.timeout(LIMIT):
        await asyncio.gather(*accepted, *(shake_hands(ours) for ours, _ in pairs))
    assert len(transports) == 20
    assert max(map(steps.count, steps)) == 3
    for transport in transports:
        assert isinstance(transport, asyncio.Transport)
        transport.abort()
    for ours, _ in pairs:
        ours.close()
    await asyncio.sleep(0)
