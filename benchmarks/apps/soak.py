"""What the soak asks: an ASGI application with an answer, an upload, an event stream, large content and a WebSocket."""

import asyncio
import hashlib

LARGE = b"0123456789abcdef" * 4096 * 32  # 2 MiB


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["type"] == "websocket":
        await echo(receive, send)
    else:
        path = scope["path"]
        if path == "/soak/upload":
            await upload(receive, send)
        elif path == "/soak/events":
            await events(send)
        elif path == "/soak/large":
            await answer(send, LARGE)
        else:
            await answer(send, path.encode())


async def answer(send, content):
    fields = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": content})


async def upload(receive, send):
    digest = hashlib.sha256()
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        digest.update(message.get("body", b""))
        more = message.get("more_body", False)
    await answer(send, digest.hexdigest().encode())


async def events(send):
    """Send ten events, and end."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
    for number in range(10):
        await send({"type": "http.response.body", "body": b"data: %d\n\n" % number, "more_body": True})
        await asyncio.sleep(0.05)
    await send({"type": "http.response.body", "body": b""})


async def echo(receive, send):
    while True:
        message = await receive()
        if message["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        elif message["type"] == "websocket.receive":
            await send({"type": "websocket.send", "text": message["text"]})
        else:
            return
