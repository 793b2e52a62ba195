from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import pytest

from bridge.core.connection.interfaces import Exchange, Observer
from bridge.core.http.message import ResponseHead
from bridge.core.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine
from bridge.core.middleware.requestid import RequestIdDelegate, RequestIds
from bridge.core.tornado.dispatch import adapt
from tests.support.link import GET, Recorder, Told, ok
from tests.support.serving import Client, serving

IDS = RequestIds(b"x-request-id", lambda _: True)
WITH_ID = b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: abc\r\n\r\n"
CLOSING = WITH_ID.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")


class Times(Observer):
    """An observer that keeps the exchanges."""

    def __init__(self) -> None:
        self.ended: list[Any] = []

    def exchange_started(self, exchange: Any) -> None:
        assert exchange.times.opened <= time.monotonic_ns()

    def exchange_ended(self, exchange: Exchange) -> None:
        self.ended.append(exchange)


async def exchanged(delegate: Any, wire: bytes, *, ids: RequestIds | None = None, **params: Any) -> bytes:
    if ids is not None:
        native = delegate if hasattr(delegate, "start_exchange") else adapt(delegate)
        delegate = RequestIdDelegate(native, ids)
    async with serving(delegate, **params) as server, await Client.connect(server) as client:
        await client.send(wire)
        return await client.read_to_the_end()


@pytest.mark.parametrize("ids", [None, IDS])
async def test_a_response_has_a_beginning(ids: RequestIds | None) -> None:
    observer = Times()

    async def later(told: Told) -> None:
        await asyncio.sleep(0.02)
        told.exchange.respond(200, [])
        told.exchange.send(b"a")
        await asyncio.sleep(0.02)
        told.exchange.send(b"b", True)

    tasks: list[asyncio.Task[None]] = []
    delegate = Recorder(on_finish=lambda told: tasks.append(asyncio.ensure_future(later(told))))
    await exchanged(delegate, CLOSING, observer=observer, timed=True, ids=ids)
    (exchange,) = observer.ended
    assert exchange.times.began - exchange.times.opened >= 15_000_000
    assert time.monotonic_ns() - exchange.times.began >= 15_000_000


async def test_a_refusal_has_none() -> None:
    observer = Times()
    delegate = Recorder(on_finish=lambda told: told.exchange.fail(500))
    assert b"500 Internal" in await exchanged(delegate, CLOSING, observer=observer, timed=True)
    assert observer.ended[0].times.began == 0


async def test_an_id_goes_in_and_out() -> None:
    seen: list[Any] = []

    def answer(told: Told) -> None:
        seen.append((told.exchange.head.fields, told.exchange.context.request_id))
        ok(told)

    received = await exchanged(Recorder(on_finish=answer), WITH_ID + GET + CLOSING, ids=IDS)
    first, second, third = seen
    assert first == (((b"host", b"a"), (b"x-request-id", b"abc")), "abc")
    assert third[1] == "abc"
    made = second[1]
    assert re.fullmatch("[0-9a-f]{32}", made)
    assert second[0] == ((b"host", b"a"), (b"x-request-id", made.encode()))
    assert re.findall(rb"\r\nx-request-id: (.*)\r\n", received) == [b"abc", made.encode(), b"abc"]


async def test_what_is_not_believed_does_not_reach_the_application() -> None:
    ids = RequestIds(b"x-request-id", lambda _: False)
    seen: list[Any] = []

    def answer(told: Told) -> None:
        seen.append(told.exchange.head.fields)
        ok(told)

    received = await exchanged(Recorder(on_finish=answer), CLOSING, ids=ids)
    assert [value for name, value in seen[0] if name == b"x-request-id"] != [b"abc"]
    assert len([name for name, _ in seen[0] if name == b"x-request-id"]) == 1
    assert b"abc" not in received


async def test_the_applications_own_id_makes_room() -> None:
    fields = [(b"X-Request-ID", b"other"), (b"x-request-id-not", b"kept"), (b"a", b"b")]
    head = ResponseHead(200, fields)
    found: list[bytes | None] = []
    for respond in (lambda exchange: exchange.respond(200, fields), lambda exchange: exchange.respond_with(head)):

        def answer(told: Told, respond: Any = respond) -> None:
            respond(told.exchange)
            told.exchange.send(b"", True)
            found.append(told.exchange.response_field(b"x-request-id"))

        received = await exchanged(Recorder(on_finish=answer), CLOSING, ids=IDS)
        assert b"other" not in received
        assert received.count(b"x-request-id: abc\r\n") == 1
        assert b"x-request-id-not: kept\r\na: b\r\n" in received
    assert found == [b"abc", b"abc"]
    assert len(head.lines) == 3  # it is used again


async def test_an_error_page_of_the_servers_has_the_id() -> None:
    received = await exchanged(Recorder(on_finish=lambda told: told.exchange.fail(500)), CLOSING, ids=IDS)
    assert received.startswith(b"HTTP/1.1 500 ")
    assert b"\r\nx-request-id: abc\r\n" in received


async def test_an_id_in_tornados_interface() -> None:
    def callback(request: HTTPServerRequest) -> None:
        connection: Any = request.connection
        text = f"{request.headers['X-Request-Id']} {connection.context.request_id}".encode()
        headers = HTTPHeaders({"Content-Length": str(len(text)), "X-Request-Id": "other"})
        connection.write_headers(ResponseStartLine("", 200, "OK"), headers, text)
        connection.finish()

    received = await exchanged(callback, CLOSING, ids=IDS)
    assert received.endswith(b"\r\n\r\nabc abc")
    assert re.findall(rb"\r\nx-request-id: (.*)\r\n", received) == [b"abc"]


@pytest.mark.parametrize(
    ("fields", "last", "expected"),
    [
        ([(b"X-A", b" b ")], True, {b"x-a": b"b", b"x": None, b"content-length": b"2", b"date": None}),
        ([(b"content-length", b"2")], True, {b"content-length": b"2"}),
        ([], False, {b"content-length": None}),
        ([(b"x-a", b"1"), (b"x-b", b"2")], True, {b"x-b": b"2", b"x-c": None, b"X-A": None}),
    ],
)
async def test_fields_of_a_response(
    fields: list[tuple[bytes, bytes]], last: bool, expected: dict[bytes, bytes | None]
) -> None:
    found: list[dict[bytes, bytes | None]] = []

    def answer(told: Told) -> None:
        exchange = told.exchange
        found.append({name: exchange.response_field(name) for name in expected})
        exchange.respond(200, fields)
        exchange.send(b"12", last)
        found.append({name: exchange.response_field(name) for name in expected})
        if not last:
            exchange.send(b"", True)

    await exchanged(Recorder(on_finish=answer), CLOSING)
    assert found == [dict.fromkeys(expected), expected]
