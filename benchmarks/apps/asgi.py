"""ASGI applications of the scenarios."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.answers import CHUNK, CHUNKS, PLAINTEXT, TEN_KILOBYTES

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

PLAINTEXT_FIELDS = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(PLAINTEXT))]
TEN_KILOBYTES_FIELDS = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(TEN_KILOBYTES))]
STREAM_FIELDS = [(b"content-type", b"application/octet-stream"), (b"content-length", b"%d" % (len(CHUNK) * CHUNKS))]


async def lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def plaintext(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        return await lifespan(receive, send)
    await send({"type": "http.response.start", "status": 200, "headers": PLAINTEXT_FIELDS})
    await send({"type": "http.response.body", "body": PLAINTEXT})


async def ten_kilobytes(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        return await lifespan(receive, send)
    await send({"type": "http.response.start", "status": 200, "headers": TEN_KILOBYTES_FIELDS})
    await send({"type": "http.response.body", "body": TEN_KILOBYTES})


async def stream(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 1 MiB in 64 KiB pieces."""
    if scope["type"] != "http":
        return await lifespan(receive, send)
    await send({"type": "http.response.start", "status": 200, "headers": STREAM_FIELDS})
    for left in range(CHUNKS - 1, -1, -1):
        await send({"type": "http.response.body", "body": CHUNK, "more_body": left > 0})


async def stream_made(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer 1 MiB in 64 KiB pieces, each of which is an object of its own, as templates and files are."""
    if scope["type"] != "http":
        return await lifespan(receive, send)
    await send({"type": "http.response.start", "status": 200, "headers": STREAM_FIELDS})
    for left in range(CHUNKS - 1, -1, -1):
        await send({"type": "http.response.body", "body": bytes(bytearray(CHUNK)), "more_body": left > 0})


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer the request's content."""
    if scope["type"] != "http":
        return await lifespan(receive, send)
    pieces = []
    more = True
    while more:
        message = await receive()
        pieces.append(message.get("body", b""))
        more = message.get("more_body", False)
    content = b"".join(pieces)
    fields = [(b"content-type", b"application/octet-stream"), (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": content})


async def taking(scope: Scope, receive: Receive, send: Send) -> None:
    """Take the content, where there is some, and answer 13 bytes."""
    if scope["type"] != "http":
        return await lifespan(receive, send)
    more = scope["method"] == "POST"
    while more:
        more = (await receive()).get("more_body", False)
    await send({"type": "http.response.start", "status": 200, "headers": PLAINTEXT_FIELDS})
    await send({"type": "http.response.body", "body": PLAINTEXT})


async def wait(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer after 10 ms."""
    if scope["type"] != "http":
        return await lifespan(receive, send)
    await asyncio.sleep(0.01)
    await send({"type": "http.response.start", "status": 200, "headers": PLAINTEXT_FIELDS})
    await send({"type": "http.response.body", "body": PLAINTEXT})


async def websocket_echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Send every binary message back."""
    if scope["type"] == "lifespan":
        return await lifespan(receive, send)
    if scope["type"] != "websocket":
        return await plaintext(scope, receive, send)
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] != "websocket.receive":
            return None
        await send({"type": "websocket.send", "bytes": message["bytes"]})


async def websocket_text_echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Send every text message back."""
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] != "websocket.receive":
            return
        await send({"type": "websocket.send", "text": message["text"]})
