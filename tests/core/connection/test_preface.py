"""Which connections become HTTP/2: by ALPN, by the preface, and who is refused with which words."""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import Any

import pytest

from bridge.core.connection.budgets import Budgets
from bridge.core.connection.interfaces import Observer
from bridge.core.connection.parameters import HTTP2Parameters
from bridge.core.connection.turns import Turns
from tests.support.certificates import tls_contexts
from tests.support.http2 import PREFACE, SETTINGS, H2Client, frame, head
from tests.support.link import Recorder, linked, ok
from tests.support.loops import both_loops
from tests.support.serving import Client, TLSClient, address_of, serving, until

ANYBODY = HTTP2Parameters(cleartext=lambda context: True)


@pytest.fixture(scope="module")
def contexts() -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the server's context, which offers both versions, and a client's."""
    server, client = tls_contexts()
    server.set_alpn_protocols(["h2", "http/1.1"])
    return server, client


@both_loops
async def test_tls_agrees_on_a_version(contexts: Any) -> None:
    server_context, client_context = contexts
    async with serving(Recorder(on_start=ok), tls=server_context, http2=HTTP2Parameters()) as server:
        async with H2Client(address_of(server), client_context) as client:
            status, fields, content = await client.response(client.request())
            assert (status, content) == (200, b"ok")
            assert b"connection" not in fields
        client_context.set_alpn_protocols(["http/1.1"])
        async with await TLSClient.connect(server, client_context) as old:
            await old.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert (await old.read_to_the_end()).startswith(b"HTTP/1.1 200 ")


@both_loops
async def test_prior_knowledge_and_http1_on_one_port() -> None:
    async with serving(Recorder(on_start=ok), http2=ANYBODY) as server:
        async with H2Client(address_of(server)) as client:
            assert (await client.response(client.request()))[2] == b"ok"
        async with await Client.connect(server) as old:
            await old.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert (await old.read_to_the_end()).startswith(b"HTTP/1.1 200 ")


@both_loops
async def test_an_observer_is_told_of_a_connection_once(contexts: Any) -> None:
    class Counts(Observer):
        opened = closed = 0

        def connection_opened(self, connection: Any) -> None:
            self.opened += 1

        def connection_closed(self, connection: Any) -> None:
            self.closed += 1

    server_context, client_context = contexts
    for tls in (False, True):
        observer = Counts()
        async with (
            serving(
                Recorder(on_start=ok), tls=server_context if tls else None, http2=ANYBODY, observer=observer
            ) as server,
            H2Client(address_of(server), client_context if tls else None) as client,
        ):
            assert (await client.response(client.request()))[2] == b"ok"
            assert (observer.opened, observer.closed) == (1, 0)
        assert (observer.opened, observer.closed) == (1, 1)


@both_loops
async def test_a_preface_that_waits_for_its_turn_is_served_although_the_peer_ends() -> None:
    requests = b"".join(frame(0x1, 5, number, head()) for number in range(1, 200, 2))
    async with (
        serving(Recorder(on_start=ok), http2=ANYBODY, keep_alive_timeout=None) as server,
        await Client.connect(server) as client,
    ):
        turns = Turns.of(asyncio.get_running_loop())
        units, turns.units, turns.left = turns.units, 0, 0  # all work waits
        await client.send(PREFACE + frame(SETTINGS, 0, 0) + requests)
        client.half_close()
        connection = next(iter(server.connections))
        await until(lambda: connection._eof)
        turns.units = units
        data = await client.read_to_the_end()
        assert data.count(b"ok") == 100


@both_loops
async def test_what_waits_behind_a_preface_is_in_no_budget_once_it_is_read() -> None:
    wire = PREFACE + frame(SETTINGS, 0, 0) + frame(0x1, 4, 1, head(method="POST")) + frame(0, 1, 1, bytes(9000))
    async with serving(Recorder(on_finish=ok), http2=ANYBODY) as server, await Client.connect(server) as client:
        loop = asyncio.get_running_loop()
        turns, budget = Turns.of(loop), Budgets.of(loop).unfinished
        units, turns.units, turns.left = turns.units, 0, 0  # all work waits
        await client.send(wire)
        await until(lambda: budget.total == len(wire))
        turns.units = units
        await client.read(b"ok")
        assert budget.total == 0


@both_loops
async def test_the_preface_may_come_in_pieces() -> None:
    async with serving(Recorder(on_start=ok), http2=ANYBODY) as server, await Client.connect(server) as client:
        wire = PREFACE + frame(SETTINGS, 0, 0)
        await client.send(*[wire[at : at + 1] for at in range(len(wire))])
        await client.read(frame(SETTINGS, 1, 0))  # the acknowledgement


@both_loops
async def test_text_on_a_listener_of_http2_alone_is_answered_in_text() -> None:
    http2 = HTTP2Parameters(cleartext=lambda context: True, alone=True)
    async with serving(Recorder(on_start=ok), http2=http2) as server:
        async with await Client.connect(server) as old:
            await old.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await old.read_to_the_end()).startswith(b"HTTP/1.1 400 ")
        async with await Client.connect(server) as stranger:
            await stranger.send(b"INVALID\r\n\r\n")
            assert (await stranger.read_to_the_end())[3] == 7  # GOAWAY
        async with H2Client(address_of(server)) as client:
            assert (await client.response(client.request()))[2] == b"ok"


@pytest.mark.parametrize(
    ("http2", "tls", "words"),
    [
        (None, False, "--http-protocols"),
        (HTTP2Parameters(), False, "--http2-cleartext"),
    ],
)
def test_a_preface_that_is_refused_gets_505_and_one_line_that_names_the_option(
    http2: HTTP2Parameters | None, tls: bool, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with linked(Recorder(), tls=tls, http2=http2) as link:
        link.send(PREFACE)
        assert link.received.startswith(b"HTTP/1.1 505 ")
        assert not link.told
    (record,) = caplog.records
    assert words in record.getMessage()


def test_only_the_first_bytes_are_a_preface(caplog: pytest.LogCaptureFixture) -> None:
    with linked(Recorder(on_start=ok), http2=ANYBODY) as link:
        link.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" + PREFACE)
        assert b"HTTP/1.1 505 " in link.received
        assert len(link.told) == 1
