"""WebSockets from the handshake to the end, with clients by others and with frames made by hand."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import os
import random
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
import websockets
import wsproto
import wsproto.events
from websockets.asyncio.client import ClientConnection
from websockets.asyncio.client import connect as ws_connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from bridge.core.connection.budgets import Budgets
from bridge.core.connection.parameters import ConnectionParameters
from bridge.core.connection.websocket import WebSocketOptions
from bridge.errors import ConnectionGone, LocalProtocolError
from tests.support import protocols
from tests.support.asgi import Client, connect, served
from tests.support.protocols import BOTH_PROTOCOLS
from tests.support.serving import until

pytestmark = BOTH_PROTOCOLS

ACCEPT = {"type": "websocket.accept"}
KEY = "dGhlIHNhbXBsZSBub25jZQ=="


async def echo(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "websocket"
    assert await receive() == {"type": "websocket.connect"}
    await send(ACCEPT)
    while (message := await receive())["type"] == "websocket.receive":
        del message["type"]
        await send({"type": "websocket.send", **message})


@contextlib.asynccontextmanager
async def dialled(port: int, path: str = "/", **options: Any) -> AsyncIterator[ClientConnection]:
    options.setdefault("compression", None)
    options.setdefault("max_size", None)
    async with ws_connect(f"ws://127.0.0.1:{port}{path}", proxy=None, **options) as client:
        yield client


def frame(opcode: int, payload: bytes = b"", fin: bool = True, rsv: int = 0) -> bytes:
    """A client's frame; its mask changes nothing."""
    length = len(payload)
    if length < 126:
        size = bytes([0x80 | length])
    elif length < 65536:
        size = b"\xfe" + length.to_bytes(2, "big")
    else:
        size = b"\xff" + length.to_bytes(8, "big")
    return bytes([(0x80 if fin else 0) | rsv << 4 | opcode]) + size + bytes(4) + payload


async def shake(client: Client, *fields: str) -> dict[str, str]:
    client.get(
        "/ws",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {KEY}",
        *fields,
    )
    status, found = await client.head()
    assert status == 101
    return found


async def read_frame(client: Client) -> tuple[int, bytes]:
    async with asyncio.timeout(5):
        first, length = await client.reader.readexactly(2)
        if length >= 126:
            length = int.from_bytes(await client.reader.readexactly(2 if length == 126 else 8), "big")
        return first, await client.reader.readexactly(length)


# ------------------------------------------------------------------ the handshake


async def test_scope_and_handshake() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "b", "headers": [(b"x-own", b"1")]})
        seen.append(await receive())

    async with served(app, root_path="/r", state={"a": 1}) as server:
        async with dialled(
            server.port, "/x%20y?q=1", subprotocols=["a", "b"], origin="http://there.example", compression="deflate"
        ) as client:
            assert client.subprotocol == "b"
            assert client.response is not None
            assert client.response.headers["x-own"] == "1"
            assert "permessage-deflate" in client.response.headers["sec-websocket-extensions"]
    scope, last = seen
    assert scope["type"] == "websocket"
    assert (scope["scheme"], scope["http_version"]) == ("ws", protocols.value("1.1", "2"))
    assert (scope["path"], scope["raw_path"], scope["query_string"]) == ("/r/x y", b"/x%20y", b"q=1")
    assert scope["subprotocols"] == ["a", "b"]
    assert (b"origin", b"http://there.example") in scope["headers"]
    assert scope["extensions"].keys() == {"websocket.http.response", "bridge.shutdown.notice"}
    assert scope["state"] == {"a": 1}
    assert "method" not in scope
    assert last == {"type": "websocket.disconnect", "code": 1000, "reason": ""}


@pytest.mark.http1("HTTP/2 has neither 426 nor a key; see test_websocket_handshake")
@pytest.mark.parametrize(
    ("fields", "status"),
    [
        (["Sec-WebSocket-Version: 8", f"Sec-WebSocket-Key: {KEY}"], 426),
        (["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: short"], 400),
        (["Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY}", "Content-Length: 1"], 400),
    ],
)
async def test_a_bad_handshake_never_reaches_the_application(fields: list[str], status: int) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError("called")

    async with served(app) as server, connect(server.port) as client:
        client.get("/", "Upgrade: websocket", "Connection: Upgrade", *fields)
        found, headers, _ = await client.response()
        assert found == status
        assert status != 426 or headers["sec-websocket-version"] == "13"
        assert await client.rest() == b""


@pytest.mark.http1("HTTP/2 has no upgrade")
@pytest.mark.parametrize("head", ["POST / HTTP/1.1", "GET / HTTP/1.0"])
async def test_an_upgrade_that_does_not_count_is_an_ordinary_request(head: str) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    async with served(app) as server, connect(server.port) as client:
        client.send(f"{head}\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n\r\n".encode())
        assert (await client.head())[0] == 204


@pytest.mark.http1("over HTTP/2 a client that is not told of CONNECT sends none")
async def test_without_websockets_the_request_is_an_ordinary_one() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 404})
        await send({"type": "http.response.body"})

    async with served(app, websocket=None) as server:
        with pytest.raises(InvalidStatus, match="404"):
            async with dialled(server.port):
                pass


async def test_connect_is_received_after_accept_too() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        seen.append(await receive())
        seen.append(await receive())

    async with served(app) as server:
        async with dialled(server.port) as client:
            await client.send("a")
            with contextlib.suppress(ConnectionClosed):
                await client.recv()
    assert seen == [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "a"}]


async def test_close_before_accept_is_403() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.close", "code": 4000})
        assert await receive() == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
        with pytest.raises(LocalProtocolError):
            await send(ACCEPT)

    async with served(app) as server:
        with pytest.raises(InvalidStatus, match="403"):
            async with dialled(server.port):
                pass


async def test_denial_response() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        with pytest.raises(LocalProtocolError, match=r"before websocket\.http\.response\.start"):
            await send({"type": "websocket.http.response.body"})
        await send({"type": "websocket.http.response.start", "status": 401, "headers": [(b"x-why", b"token")]})
        with pytest.raises(LocalProtocolError, match="denied"):
            await send(ACCEPT)
        await send({"type": "websocket.http.response.body", "body": b"no ", "more_body": True})
        await send({"type": "websocket.http.response.body", "body": b"token"})
        assert (await receive())["type"] == "websocket.disconnect"

    async with served(app) as server:
        with pytest.raises(InvalidStatus) as caught:
            async with dialled(server.port):
                pass
    response = caught.value.response
    assert (response.status_code, response.headers["x-why"], response.body) == (401, "token", b"no token")


async def test_leaving_while_a_denial_waits_to_be_sent(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.http.response.start", "status": 401, "headers": []})
        await send({"type": "websocket.http.response.body", "body": bytes(20_000_000)})

    async with served(app) as server, connect(server.port) as client:
        client.get(
            "/",
            "Connection: Upgrade",
            "Upgrade: websocket",
            "Sec-WebSocket-Version: 13",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        )
        assert (await client.head())[0] == 401
        client.reset()
        await server.delegate.wait(5)
    assert not caplog.records


@pytest.mark.parametrize(
    "message",
    [
        {"type": "websocket.accept", "subprotocol": "never offered"},
        {"type": "websocket.accept", "headers": [(b"Sec-WebSocket-Protocol", b"a")]},
        {"type": "websocket.accept", "headers": [(b"a", b"b\r\nc: d")]},
        {"type": "websocket.send", "text": "too early"},
        {"type": "http.response.start", "status": 200},
        {"type": "nonsense"},
    ],
)
async def test_a_broken_rule_before_accept_is_500(message: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(message)

    async with served(app, raises=LocalProtocolError) as server:
        with pytest.raises(InvalidStatus, match="500"):
            async with dialled(server.port):
                pass
    (record,) = caplog.records
    assert record.getMessage() == f"Exception in ASGI application, WebSocket {protocols.value('GET', 'CONNECT')} /"
    assert isinstance(record.exc_info[1], LocalProtocolError)  # type: ignore[index]


async def test_return_before_accept_is_500(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()

    async with served(app) as server:
        with pytest.raises(InvalidStatus, match="500"):
            async with dialled(server.port):
                pass
    assert [record.getMessage() for record in caplog.records] == [
        f"ASGI application returned without an answer, WebSocket {protocols.value('GET', 'CONNECT')} /"
    ]


@pytest.mark.parametrize("leave", ["close", "reset"])
async def test_leaving_during_the_handshake(leave: str) -> None:
    started, left = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        started.set()
        assert await receive() == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
        left.set()
        with pytest.raises(ConnectionGone):
            await send(ACCEPT)

    async with served(app) as server, connect(server.port) as client:
        client.get(
            "/", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY}"
        )
        await started.wait()
        if leave == "close":
            client.writer.close()
        else:
            client.reset()
        start = time.monotonic()
        await asyncio.wait_for(left.wait(), 5)
        assert time.monotonic() - start < 0.8  # at once, on a machine that does other things, too


async def test_a_client_that_sends_nothing_more_gets_no_500() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        assert (await receive())["type"] == "websocket.disconnect"
        await send(ACCEPT)  # raises ConnectionGone, which many frameworks pass on

    async with served(app) as server, connect(server.port) as client:
        client.get(
            "/", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY}"
        )
        client.writer.write_eof()
        assert await asyncio.wait_for(client.reader.read(), 5) == b""


@pytest.mark.parametrize("answer", [ACCEPT, {"type": "websocket.close", "code": 4000}])
async def test_an_answer_to_a_client_that_has_left_is_no_fault(answer: dict[str, Any]) -> None:
    started, left, seen = asyncio.Event(), asyncio.Event(), []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        started.set()
        await left.wait()
        await send(answer)  # the application cannot know yet
        with pytest.raises(ConnectionGone):
            await send({"type": "websocket.send", "text": "a"})
        seen.append(await receive())
        with pytest.raises(ConnectionGone):
            await send(answer)

    async with served(app) as server, connect(server.port) as client:
        client.get(
            "/", "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY}"
        )
        await started.wait()
        client.writer.write_eof()
        await until(lambda: any(websocket._gone for websocket in server.delegate.tasks.values()))
        left.set()
        await server.delegate.wait(5)
        assert await asyncio.wait_for(client.reader.read(), 5) == b""
    assert seen == [{"type": "websocket.disconnect", "code": 1006, "reason": ""}]


async def test_frames_right_behind_the_handshake() -> None:
    async with served(echo) as server, connect(server.port) as client:
        client.send(
            f"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {KEY}\r\n\r\n".encode()
            + frame(1, b"early")
            + frame(9, b"ping")
        )
        assert (await client.head())[0] == 101
        assert {await read_frame(client), await read_frame(client)} == {(0x81, b"early"), (0x8A, b"ping")}


async def test_a_handshake_that_is_not_answered_in_time(caplog: pytest.LogCaptureFixture) -> None:
    cancelled = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        if scope["path"] == "/slow":
            try:
                await asyncio.sleep(60)
            finally:
                cancelled.set()
        await send(ACCEPT)
        await receive()
        await send({"type": "websocket.send", "text": "late"})

    async with served(app, timeout=0.1) as server:
        with pytest.raises(InvalidStatus, match="504"):
            async with dialled(server.port, "/slow"):
                pass
        await asyncio.wait_for(cancelled.wait(), 1)
        async with dialled(server.port) as client:
            await asyncio.sleep(0.2)
            await client.send("x")
            assert await client.recv() == "late"
    method = protocols.value("GET", "CONNECT")
    assert [record.getMessage() for record in caplog.records] == [f"No answer within 0.1 s, WebSocket {method} /slow"]


# ------------------------------------------------------------------ messages


SIZES = [0, 1, 125, 126, 127, 65535, 65536, 65537, 1 << 20, 16 << 20]


@pytest.mark.wide_over_http2
@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_echo_of_all_sizes(compression: str | None) -> None:
    dice = random.Random(5)
    async with served(echo) as server:
        async with dialled(server.port, compression=compression) as client:
            for size in SIZES:
                data = dice.randbytes(min(size, 1 << 16)) * (size // (1 << 16) or 1)
                data = data.ljust(size, b".")[:size]
                await client.send(data)
                assert await client.recv() == data
                text = "aé☃𝄞"[: size % 5] + "x" * size
                text = text[: size // 4]
                await client.send(text)
                assert await client.recv() == text


@pytest.mark.parametrize("large", ["x" * 300_000, b"y" * 5_000_000], ids=["text", "bytes"])
async def test_a_large_message_is_compressed_while_others_have_their_turns(large: str | bytes) -> None:
    """The messages that other tasks send meanwhile come behind it, and all can be decompressed."""
    turns = [0]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "first " * 50})
        kind = "text" if isinstance(large, str) else "bytes"
        loop = asyncio.get_running_loop()

        def count() -> None:
            if not sent.done():
                turns[0] += 1
                loop.call_soon(count)

        sent = asyncio.ensure_future(send({"type": "websocket.send", kind: large}))
        await asyncio.sleep(0)
        loop.call_soon(count)
        others = [asyncio.ensure_future(send({"type": "websocket.send", "text": f"{n} " * 50})) for n in range(3)]
        await asyncio.gather(sent, *others)
        await send({"type": "websocket.send", "text": "last " * 50})

    async with served(app) as server, dialled(server.port, compression="deflate", max_size=None) as client:
        assert await client.recv() == "first " * 50
        assert await client.recv() == large
        for number in range(3):
            assert await client.recv() == f"{number} " * 50
        assert await client.recv() == "last " * 50
    assert turns[0] >= len(large) >> 20


async def test_a_large_message_that_is_given_up_leaves_the_next_ones_whole() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": "first " * 50})
        given_up = asyncio.ensure_future(send({"type": "websocket.send", "text": "x" * 5_000_000}))
        behind = asyncio.ensure_future(send({"type": "websocket.send", "text": "behind " * 50}))
        for _ in range(3):
            await asyncio.sleep(0)
        given_up.cancel()
        await behind
        with pytest.raises(LocalProtocolError, match="surrogates"):
            await send({"type": "websocket.send", "text": "\udc00" * 200_000})
        await send({"type": "websocket.send", "text": "y" * 200_000})

    async with served(app) as server, dialled(server.port, compression="deflate") as client:
        for text in ("first " * 50, "behind " * 50, "y" * 200_000):
            assert await client.recv() == text


async def test_a_large_message_for_a_client_that_leaves_meanwhile() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "websocket.accept"})
        sending = asyncio.ensure_future(send({"type": "websocket.send", "text": "x" * 5_000_000}))
        await asyncio.sleep(0)
        await send({"type": "websocket.close"})
        with pytest.raises(ConnectionGone):
            await sending

    async with served(app) as server, dialled(server.port, compression="deflate") as client:
        with pytest.raises(ConnectionClosed):
            await client.recv()


async def test_fragments_and_pings_at_random() -> None:
    dice = random.Random(6)
    async with served(echo) as server:
        async with dialled(server.port, compression="deflate") as client:
            for _ in range(100):
                pieces = [dice.randbytes(dice.randrange(2000)) for _ in range(dice.randrange(1, 6))]
                pongs = []

                async def fragments(pieces: list[bytes] = pieces, pongs: list[Any] = pongs) -> AsyncIterator[bytes]:
                    for piece in pieces:
                        if dice.random() < 0.3:
                            pongs.append(await client.ping())
                        yield piece

                await client.send(fragments())
                assert await client.recv() == b"".join(pieces)
                for pong in pongs:
                    await asyncio.wait_for(pong, 5)


async def test_many_messages_in_one_write_and_byte_by_byte() -> None:
    wire = b"".join(frame(1, b"%d" % number) for number in range(100))
    async with served(echo) as server, connect(server.port) as client:
        await shake(client)
        client.send(wire)
        for number in range(100):
            assert await read_frame(client) == (0x81, b"%d" % number)
        for octet in wire[:50]:
            client.send(bytes([octet]))
            await client.writer.drain()
            await asyncio.sleep(0)
        for number in range(6):
            assert await read_frame(client) == (0x81, b"%d" % number)


async def test_wsproto_as_the_client() -> None:
    async with served(echo) as server, connect(server.port) as client:
        peer = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        from wsproto.extensions import PerMessageDeflate

        client.send(peer.send(wsproto.events.Request(host="a", target="/", extensions=[PerMessageDeflate()])))
        events: list[Any] = []

        async def next_event() -> Any:
            async with asyncio.timeout(5):
                while not events:
                    peer.receive_data(await client.reader.read(65536))
                    events.extend(peer.events())
            return events.pop(0)

        assert isinstance(await next_event(), wsproto.events.AcceptConnection)
        client.send(peer.send(wsproto.events.TextMessage(data="x" * 5000)))
        text = ""
        while True:
            event = await next_event()
            text += event.data
            if event.message_finished:
                break
        assert text == "x" * 5000
        client.send(peer.send(wsproto.events.Ping(payload=b"p")))
        assert await next_event() == wsproto.events.Pong(payload=b"p")
        client.send(peer.send(wsproto.events.CloseConnection(code=4001, reason="done")))
        event = await next_event()
        assert (event.code, event.reason) == (4001, "")
        assert await client.rest() == b""


# ------------------------------------------------------------------ rules that applications break


@pytest.mark.parametrize(
    "message",
    [
        {"type": "websocket.send"},
        {"type": "websocket.send", "text": None, "bytes": None},
        {"type": "websocket.send", "text": "\ud800"},
        {"type": "websocket.close", "code": 1005},
        {"type": "websocket.close", "code": 999},
        {"type": "websocket.close", "code": 1000, "reason": "x" * 124},
        {"type": "websocket.accept"},
        {"type": "http.response.body"},
    ],
)
async def test_a_broken_rule_after_accept_is_1011(message: dict[str, Any], caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await send(message)

    async with served(app, raises=LocalProtocolError) as server:
        async with dialled(server.port) as client:
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert client.close_code == 1011
    (record,) = caplog.records
    assert isinstance(record.exc_info[1], LocalProtocolError)  # type: ignore[index]


async def test_an_exception_is_1011_and_a_return_1000(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        if scope["path"] == "/raise":
            raise RuntimeError("broken")

    async with served(app, raises=RuntimeError) as server:
        for path, code in (("/raise", 1011), ("/", 1000)):
            async with dialled(server.port, path) as client:
                with pytest.raises(ConnectionClosed):
                    await client.recv()
                assert client.close_code == code
    assert len(caplog.records) == 1


# ------------------------------------------------------------------ closing


async def test_the_application_closes() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await receive()
        await send({"type": "websocket.close", "code": 4002, "reason": "naïve"})
        seen.append(await receive())
        with pytest.raises(ConnectionGone):
            await send({"type": "websocket.send", "text": "late"})
        with pytest.raises(ConnectionGone):
            await send({"type": "websocket.close"})

    async with served(app) as server:
        async with dialled(server.port) as client:
            await client.send("go")
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert (client.close_code, client.close_reason) == (4002, "naïve")
    assert seen == [{"type": "websocket.disconnect", "code": 4002, "reason": "naïve"}]


@pytest.mark.parametrize(
    ("payload", "answer", "code", "reason"),
    [
        (b"", b"", 1005, ""),
        (b"\x03\xe8", b"\x03\xe8", 1000, ""),
        (b"\x0f\xa0caf\xc3\xa9", b"\x0f\xa0", 4000, "café"),
        (b"\x03\xe9going away", b"\x03\xe9", 1001, "going away"),
    ],
)
async def test_the_client_closes(payload: bytes, answer: bytes, code: int, reason: str) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        seen.append(await receive())
        seen.append(await receive())
        with pytest.raises(ConnectionGone):
            await send({"type": "websocket.send", "text": "late"})

    async with served(app) as server, connect(server.port) as client:
        await shake(client)
        client.send(frame(1, b"last") + frame(8, payload) + frame(1, b"behind it"))
        assert await read_frame(client) == (0x88, answer)
        assert await client.rest() == b""
        await server.delegate.wait(2)
    assert seen == [
        {"type": "websocket.receive", "text": "last"},
        {"type": "websocket.disconnect", "code": code, "reason": reason},
    ]


@pytest.mark.parametrize("leave", ["close", "reset"])
async def test_the_connection_is_lost(leave: str, caplog: pytest.LogCaptureFixture) -> None:
    ready, left = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        ready.set()
        assert (await receive()) == {"type": "websocket.disconnect", "code": 1006, "reason": ""}
        left.set()
        await send({"type": "websocket.send", "text": "late"})

    async with served(app) as server, connect(server.port) as client:
        await shake(client)
        await ready.wait()
        if leave == "close":
            client.writer.close()
        else:
            client.reset()
        start = time.monotonic()
        await asyncio.wait_for(left.wait(), 5)
        assert time.monotonic() - start < 0.8  # at once, on a machine that does other things, too
        await server.delegate.wait(2)
    assert not caplog.records


@pytest.mark.parametrize(
    ("wire", "code"),
    [
        (b"\x81\x02hi", 1002),
        (frame(1, b"x", rsv=2), 1002),
        (frame(1, b"x", rsv=4), 1002),
        (frame(3), 1002),
        (frame(1, b"a", fin=False) + frame(1, b"b"), 1002),
        (frame(1, b"\xff"), 1007),
        (frame(8, b"\x03\xee"), 1002),
        (frame(2, bytes(2000)), 1009),
        (frame(2, bytes(600), fin=False) + frame(0, bytes(600)), 1009),
    ],
)
async def test_faults_of_the_client(wire: bytes, code: int) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        seen.append(await receive())

    async with served(app, websocket=WebSocketOptions(max_size=1024)) as server, connect(server.port) as client:
        await shake(client)
        client.send(wire)
        first, payload = await read_frame(client)
        assert (first, int.from_bytes(payload[:2], "big")) == (0x88, code)
        client.send(bytes(1 << 20))  # what was on its way does not reset the connection
        assert await client.rest() == b""
        await server.delegate.wait(2)
    assert [message["code"] for message in seen] == [code]


async def test_a_client_that_does_not_answer_the_close_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.core.connection.websocket._CLOSE_TIME", 0.1)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await send({"type": "websocket.close"})

    async with served(app, websocket=WebSocketOptions(ping_interval=0.1)) as server, connect(server.port) as client:
        await shake(client)
        assert await read_frame(client) == (0x88, b"\x03\xe8")
        client.send(frame(1, b"still here"))
        assert await client.rest() == b""


# ------------------------------------------------------------------ pings


async def test_pings_and_a_client_that_answers() -> None:
    async with served(echo, websocket=WebSocketOptions(ping_interval=0.05, ping_timeout=0.05)) as server:
        async with dialled(server.port, ping_interval=None) as client:
            await asyncio.sleep(0.5)
            await client.send("alive")
            assert await client.recv() == "alive"


async def test_a_client_that_answers_no_ping(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        seen.append(await receive())

    options = WebSocketOptions(ping_interval=0.05, ping_timeout=0.1)
    async with served(app, websocket=options) as server, connect(server.port) as client:
        await shake(client)
        assert await read_frame(client) == (0x89, b"")
        assert await read_frame(client) == (0x88, b"\x03\xf3keepalive ping timeout")
        assert await client.rest() == b""
        await server.delegate.wait(2)
    assert seen == [{"type": "websocket.disconnect", "code": 1006, "reason": "keepalive ping timeout"}]
    assert "no answer to a ping" in caplog.text


async def test_no_timeout_while_the_application_is_the_slow_one() -> None:
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await go.wait()
        while (message := await receive())["type"] == "websocket.receive":
            await send({"type": "websocket.send", "bytes": b"%d" % len(message["bytes"])})

    options = WebSocketOptions(ping_interval=0.05, ping_timeout=0.05)
    async with served(app, websocket=options) as server, connect(server.port) as client:
        await shake(client)
        client.send(frame(2, bytes(1 << 16)) * 200)
        await asyncio.sleep(0.5)
        go.set()
        count = 0
        while count < 200:
            first, payload = await read_frame(client)
            if first == 0x82:
                assert payload == b"65536"
                count += 1


# ------------------------------------------------------------------ flow control


async def test_the_queue_is_bounded() -> None:
    go = asyncio.Event()
    sent = 0
    total = 4000

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await go.wait()
        for number in range(total):
            message = await receive()
            assert message["bytes"][:4] == number.to_bytes(4, "big")
        await send({"type": "websocket.send", "text": "all"})

    async with served(app) as server, connect(server.port) as client:
        await shake(client)

        async def flood() -> None:
            nonlocal sent
            while sent < total:
                client.send(frame(2, sent.to_bytes(4, "big") + bytes(9996)))
                sent += 1
                await client.writer.drain()

        task = asyncio.ensure_future(flood())
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.05)
        assert sent < total / 2
        (websocket,) = server.delegate.tasks.values()
        connection = websocket._connection
        assert len(connection.messages) <= 32
        assert len(connection._receiver.unread) <= 512 << 10
        go.set()
        await task
        assert await read_frame(client) == (0x81, b"all")


async def test_messages_and_a_close_frame_behind_a_full_queue() -> None:
    go = asyncio.Event()
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        await go.wait()
        while (message := await receive())["type"] == "websocket.receive":
            seen.append(message["text"])
        seen.append(message["code"])

    for close in (frame(8, b"\x0f\xa0"), b""):
        seen.clear()
        go.clear()
        async with served(app, websocket=WebSocketOptions(max_queue=4)) as server, connect(server.port) as client:
            await shake(client)
            client.send(b"".join(frame(1, b"%d" % number) for number in range(20)) + close)
            await client.writer.drain()
            await asyncio.sleep(0.05)
            client.writer.close()
            await asyncio.sleep(0.05)
            go.set()
            await server.delegate.wait(2)
        assert seen == [*map(str, range(20)), 4000 if close else 1006]


async def test_a_client_that_does_not_read_stops_the_application() -> None:
    sent = 0
    gone = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await receive()
        await send(ACCEPT)
        try:
            while True:
                await send({"type": "websocket.send", "bytes": bytes(65536)})
                sent += 1
        except OSError:
            gone.set()

    params = ConnectionParameters(write_timeout=0.5)
    async with served(app, params=params) as server, connect(server.port) as client:
        await shake(client)
        client.writer.transport.pause_reading()
        before, peak = -1, 0
        while before != sent or not sent:
            before = sent
            await asyncio.sleep(0.05)
            for websocket in server.delegate.tasks.values():
                peak = max(peak, websocket._connection.transport.get_write_buffer_size())
        assert 0 < peak <= 256 << 10
        client.send(frame(9, b"x") * 10000)  # pings do not fill the buffer either
        await asyncio.sleep(0.05)
        for websocket in server.delegate.tasks.values():
            assert websocket._connection.transport.get_write_buffer_size() <= 256 << 10
        await asyncio.wait_for(gone.wait(), 5)


async def test_concurrent_and_cancelled_receives_lose_nothing() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        seen = []
        for _ in range(200):
            waiting = [asyncio.ensure_future(receive()) for _ in range(3)]
            await asyncio.sleep(0.001)
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)
            seen += [task.result()["text"] for task in waiting if not task.cancelled()]
            if len(seen) == 50:
                break
        await send({"type": "websocket.send", "text": " ".join(sorted(seen, key=int))})

    async with served(app) as server:
        async with dialled(server.port) as client:
            for number in range(50):
                await client.send(str(number))
                await asyncio.sleep(0.0007)
            assert await client.recv() == " ".join(map(str, range(50)))


# ------------------------------------------------------------------ applications that do not end, servers that do


async def test_an_application_that_ignores_the_disconnect_is_cancelled() -> None:
    cancelled = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    async with served(app, grace=0.05) as server:
        async with dialled(server.port):
            pass
        await asyncio.wait_for(cancelled.wait(), 2)


@pytest.mark.http1("the package h2 takes nothing more after GOAWAY; see test_http2")
async def test_the_server_stops() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        notice = scope["extensions"]["bridge.shutdown.notice"]["event"]
        await receive()
        await send(ACCEPT)
        await notice.wait()
        seen.append("notice")
        await send({"type": "websocket.send", "text": "soon"})
        seen.append(await receive())

    async with served(app) as server:
        async with dialled(server.port) as client:
            server.delegate.stop(0.1, code=1012)
            await server.http.drain(0)
            assert await client.recv() == "soon"
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert (client.close_code, client.close_reason) == (1012, "server is stopping")
        assert await server.delegate.wait(2) == 0
    assert seen == ["notice", {"type": "websocket.disconnect", "code": 1012, "reason": "server is stopping"}]


async def test_the_end_is_waited_for_no_longer_than_it_takes() -> None:
    async with served(echo) as server, connect(server.port) as first, connect(server.port) as second:
        for client in (first, second):
            await shake(client)
        server.delegate.stop(0.0)
        for client in (first, second):
            assert (await read_frame(client))[0] == 0x88
        start = time.monotonic()
        waiting = asyncio.ensure_future(server.delegate.wait(5))
        first.send(frame(8, b"\x03\xe9"))
        assert await first.rest() == b""
        await asyncio.sleep(0.05)  # that nothing happens can only be waited for
        assert not waiting.done()  # the other one has a moment to answer
        second.send(frame(8, b"\x03\xe9"))
        assert await waiting == 0
        assert time.monotonic() - start < 0.9  # who does not answer is waited for 1 s
        assert await second.rest() == b""


async def test_a_websocket_opened_while_the_server_stops() -> None:
    async with served(echo) as server:
        server.delegate.stop(0.0)
        await asyncio.sleep(0.01)
        async with dialled(server.port) as client:
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert client.close_code == 1001


@pytest.mark.http1("a connection of HTTP/2 goes on when a WebSocket takes a stream")
async def test_websockets_count_among_the_connections() -> None:
    async with served(echo) as server:
        server.http.max_connections = 2
        async with dialled(server.port) as one, dialled(server.port) as two:
            await one.send("1")
            await two.send("2")
            assert (await one.recv(), await two.recv()) == ("1", "2")
            assert (len(server.http.connections), server.http.connection_count()) == (0, 2)
            async with connect(server.port) as third:
                third.send(b"GET / HTTP/1.1\r\nHost:\r\nbad\r\n\r\n")
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.05):  # that nothing happens can only be waited for
                        await third.reader.read(1)
                await one.close()
                assert (await third.head())[0] == 400
        async with asyncio.timeout(5):
            while server.http.connection_count():
                await asyncio.sleep(0.001)


def test_the_clients_are_others() -> None:
    """The key of the raw client is the RFC's; the library's are made by it."""
    assert base64.b64decode(KEY) == b"the sample nonce"
    assert websockets.__name__ == "websockets"
    assert os.path.basename(wsproto.__file__) == "__init__.py"


async def test_large_messages_draw_on_the_budget_of_what_is_not_read() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(ACCEPT)
        with contextlib.suppress(OSError):
            while True:
                await send({"type": "websocket.send", "bytes": bytes(1 << 20)})

    async with served(app) as server, connect(server.port) as client:
        await shake(client)
        client.writer.transport.pause_reading()
        budget = Budgets.of(asyncio.get_running_loop()).unsent
        async with asyncio.timeout(5):
            while not budget.total:
                await asyncio.sleep(0)
        (websocket,) = server.delegate.tasks.values()
        # HTTP/2 counts what waits for its window besides.
        assert budget.total >= websocket._connection.transport.get_write_buffer_size() > 0
        websocket._connection.abort()
        await server.delegate.wait(2)
        assert budget.total == 0


@pytest.mark.parametrize("deed", ["receive", "send", "close"])
async def test_an_application_that_takes_no_notice_of_the_end_lets_others_run(deed: str) -> None:
    over = False
    turns = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal turns
        await receive()
        await send(ACCEPT)
        while (await receive())["type"] != "websocket.disconnect":
            pass
        asyncio.get_running_loop().call_soon(end)
        while not over and turns < 100_000:
            turns += 1
            with contextlib.suppress(OSError):
                if deed == "receive":
                    await receive()
                else:
                    await send({"type": f"websocket.{deed}", "text": "x"})

    def end() -> None:
        nonlocal over
        over = True

    async with served(app) as server, connect(server.port) as client:
        await shake(client)
        client.reset()
        await server.delegate.wait(2)
    assert 0 < turns < 100
