"""Messages with missing keys and wrong types: the application is told which message and which key, in plain words."""

from __future__ import annotations

import array
import asyncio
from typing import Any

import pytest

from bridge.adapters.asgi.messages import as_bytes, explain
from bridge.errors import LocalProtocolError
from tests.support.asgi import connect, served
from tests.support.faults import Raises

START: dict[str, Any] = {"type": "http.response.start", "status": 200}
TRAILERS: list[Any] = [{**START, "trailers": True}, {"type": "http.response.body"}]
HINT: dict[str, Any] = {"type": "http.response.early_hint"}
LAST: dict[str, Any] = {"type": "http.response.trailers"}
ACCEPT: dict[str, Any] = {"type": "websocket.accept"}
PART: dict[str, Any] = {"type": "http.response.body", "body": b"part", "more_body": True}
HANDSHAKE = (
    "Upgrade: websocket",
    "Connection: Upgrade",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Protocol: a",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


async def outcome(
    messages: list[Any], *fields: str, raises: Raises = LocalProtocolError
) -> tuple[list[Exception], bytes]:
    """Let an application send *messages*; return what send() has raised, and what the client got."""
    errors: list[Exception] = []
    ended = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
        try:
            for message in messages:
                await send(message)
        except Exception as exc:
            errors.append(exc)
            raise
        finally:
            ended.set()

    async with served(app, raises=raises) as server, connect(server.port) as client:
        client.get("/", "TE: trailers", *(fields or ("Connection: close",)))
        async with asyncio.timeout(5):
            await ended.wait()
        if fields:
            client.send(b"\x88\x80" + bytes(4))  # a close frame, for those that come so far
        return errors, await client.rest()


HTTP: list[tuple[list[Any], str]] = [
    ([None], "an ASGI message is a dictionary, not None"),
    (["http.response.start"], "an ASGI message is a dictionary, not str"),
    ([{}], "ASGI message without 'type': {}"),
    ([{"type": ["list"]}], "unexpected ASGI message ['list']"),
    ([{"type": "http.response.start"}], "http.response.start without 'status'"),
    ([{**START, "status": "200"}], "http.response.start: status '200' is not a number from 100 to 999"),
    ([{**START, "status": None}], "http.response.start: status None is not a number from 100 to 999"),
    ([{**START, "status": 99}], "http.response.start: status 99 is not a number from 100 to 999"),
    ([{**START, "headers": None}], "http.response.start: 'headers' is None, not pairs of bytes"),
    ([{**START, "headers": [("a", "b")]}], "http.response.start: a field is a pair of bytes, not ('a', 'b')"),
    ([{**START, "headers": [(b"a",)]}], "http.response.start: a field is a pair of bytes, not (b'a',)"),
    ([START, {"type": "http.response.body", "body": "text"}], "http.response.body: 'body' is str, not bytes"),
    ([START, {"type": "http.response.body", "body": None}], "http.response.body: 'body' is None, not bytes"),
    ([START, {"type": "http.response.body", "body": "x" * 50000}], "http.response.body: 'body' is str, not bytes"),
    ([HINT], "http.response.early_hint without 'links'"),
    ([{**HINT, "links": None}], "http.response.early_hint: 'links' is None, not byte strings"),
    ([START, {"type": "http.response.pathsend"}], "http.response.pathsend without 'path'"),
]  # fmt: skip


@pytest.mark.parametrize(("messages", "text"), HTTP)
async def test_http(messages: list[Any], text: str, caplog: pytest.LogCaptureFixture) -> None:
    (error,), response = await outcome(messages)
    assert (type(error), str(error)) == (LocalProtocolError, text)
    assert response.startswith(b"HTTP/1.1 500 ")
    assert response.endswith(b"500 Internal Server Error\r\n")
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([START, PART, {**PART, "body": "text"}], "http.response.body: 'body' is str, not bytes"),
        ([START, PART, {**PART, "body": 1}], "http.response.body: 'body' is int, not bytes"),
        (
            [*TRAILERS, {"type": "http.response.trailers", "headers": None}],
            "http.response.trailers: 'headers' is None, not pairs of bytes",
        ),
        (
            [*TRAILERS, {"type": "http.response.trailers", "headers": [(b"a",)]}],
            "http.response.trailers: 'headers' is [(b'a',)], not pairs of bytes",
        ),
    ],
)
async def test_in_the_middle_of_a_response(messages: list[Any], text: str) -> None:
    (error,), response = await outcome(messages)
    assert (type(error), str(error)) == (LocalProtocolError, text)
    assert response.startswith(b"HTTP/1.1 200 ")
    assert not response.endswith(b"0\r\n\r\n")  # the client must not take it for a whole one


@pytest.mark.parametrize("value", [bytearray(b"1234"), memoryview(b"1234"), memoryview(array.array("H", b"1234"))])
async def test_other_kinds_of_bytes_are_counted_in_bytes(value: Any) -> None:
    for messages, end in (
        ([START, {**PART, "more_body": False, "body": value}], b"content-length: 4\r\n\r\n1234"),
        ([START, {**PART, "body": value}, {"type": "http.response.body"}], b"\r\n4\r\n1234\r\n0\r\n\r\n"),
        ([*TRAILERS[:1], {**PART, "body": value}, *TRAILERS[1:], LAST], b"1234\r\n0\r\n\r\n"),
    ):  # fmt: skip
        errors, response = await outcome(messages, raises=())
        assert errors == []
        assert response.replace(b"connection: close\r\n", b"").endswith(end)
    errors, response = await outcome([ACCEPT, {"type": "websocket.send", "bytes": value}], *HANDSHAKE, raises=())
    assert errors == []
    assert b"\r\n\r\n\x82\x041234\x88" in response


DENY = "websocket.http.response.start"
BEFORE: list[tuple[list[Any], str]] = [
    ([None], "an ASGI message is a dictionary, not None"),
    ([{}], "ASGI message without 'type': {}"),
    ([{**ACCEPT, "subprotocol": 5}], "websocket.accept: 'subprotocol' is int, not str"),
    ([{**ACCEPT, "subprotocol": "b"}], "websocket.accept: subprotocol 'b' was not offered"),
    ([{**ACCEPT, "headers": 5}], "websocket.accept: 'headers' is 5, not pairs of bytes"),
    ([{**ACCEPT, "headers": [("a", "b")]}], "websocket.accept: 'headers' is [('a', 'b')], not pairs of bytes"),
    ([{"type": DENY}], f"{DENY} without 'status'"),
    ([{"type": DENY, "status": "401"}], f"{DENY}: status '401' is not a number from 100 to 999"),
    ([{"type": DENY, "status": 101}], f"{DENY} with status 101"),
    (
        [{"type": DENY, "status": 401}, {"type": "websocket.http.response.body", "body": "x"}],
        "websocket.http.response.body: 'body' is str, not bytes",
    ),
]


@pytest.mark.parametrize(("messages", "text"), BEFORE)
async def test_before_a_websocket_is_accepted(messages: list[Any], text: str) -> None:
    (error,), response = await outcome(messages, *HANDSHAKE)
    assert (type(error), str(error)) == (LocalProtocolError, text)
    assert response.startswith(b"HTTP/1.1 500 ")


AFTER: list[tuple[Any, str]] = [
    (None, "an ASGI message is a dictionary, not None"),
    ({}, "ASGI message without 'type': {}"),
    ({"type": "websocket.send"}, "websocket.send with neither bytes nor text"),
    ({"type": "websocket.send", "text": "a", "bytes": b"b"}, "websocket.send with both bytes and text"),
    ({"type": "websocket.send", "text": b"a"}, "websocket.send: 'text' is bytes, not str"),
    ({"type": "websocket.send", "bytes": "a"}, "websocket.send: 'bytes' is str, not bytes"),
    ({"type": "websocket.send", "bytes": 5}, "websocket.send: 'bytes' is int, not bytes"),
    ({"type": "websocket.close", "code": "1000"}, "websocket.close: 'code' is str, not int"),
    ({"type": "websocket.close", "code": 1005}, "websocket.close: close code 1005 may not be sent"),
    ({"type": "websocket.close", "reason": b"why"}, "websocket.close: 'reason' is bytes, not str"),
]


@pytest.mark.parametrize(("message", "text"), AFTER)
async def test_after_a_websocket_was_accepted(message: Any, text: str) -> None:
    (error,), response = await outcome([ACCEPT, message], *HANDSHAKE)
    assert (type(error), str(error)) == (LocalProtocolError, text)
    assert response.endswith(b"\r\n\r\n\x88\x02\x03\xf3")  # 1011


def test_what_is_not_the_messages_fault_is_left_as_it_is() -> None:
    for message in (
        {"type": "http.response.body", "body": b""},
        {"type": "websocket.close", "code": None, "reason": None},
        {"type": "own", "status": "x"},
    ):
        explain(message, TypeError("somewhere else"))


def test_octets() -> None:
    class Bytes(bytes):
        pass

    assert as_bytes("kind", Bytes(b"x")).__class__ is bytes
    original = bytearray(b"x")
    copy = as_bytes("kind", original)
    original[:] = b"y"
    assert copy == b"x"


@pytest.mark.parametrize(("fields", "status"), [((), b"500"), (HANDSHAKE, b"500")], ids=["HTTP", "WebSocket"])
async def test_a_cancellation_that_nobody_has_asked_for_is_an_error(
    fields: tuple[str, ...], status: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        future = asyncio.get_running_loop().create_future()
        future.cancel()
        await future

    async with served(app, raises=asyncio.CancelledError) as server, connect(server.port) as client:
        client.get("/", *fields)
        assert (await client.rest()).startswith(b"HTTP/1.1 " + status)
    (record,) = caplog.records
    assert "cancelled by itself" in record.getMessage()
    assert record.exc_info is not None


@pytest.mark.parametrize("fields", [(), HANDSHAKE], ids=["HTTP", "WebSocket"])
async def test_a_cancellation_that_the_server_has_asked_for_is_none(
    fields: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    running = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        running.set()
        await asyncio.Event().wait()

    async with served(app) as server, connect(server.port) as client:
        client.get("/", *fields)
        await running.wait()
        assert await server.delegate.wait(0.01) == 1
        assert (await client.rest()).startswith(b"HTTP/1.1 500 ")
    assert not caplog.records
