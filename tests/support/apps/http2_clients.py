"""An ASGI application for HTTP/2 clients: downloads, uploads, waits, a page for browsers, echoes, calls of gRPC."""

from __future__ import annotations

import sys
from typing import Any

PAGE = b"""<!doctype html><body><script>
window.onload = async () => {
  const found = {};
  found.images = [...document.images].filter(image => image.complete && image.naturalWidth > 0).length;
  found.protocols = [...new Set(performance.getEntriesByType('resource').map(entry => entry.nextHopProtocol))].join();
  found.upload = await (await fetch('/upload', {method: 'POST', body: new Uint8Array(20000000)})).text();
  found.download = (await (await fetch('/bytes/10000000')).arrayBuffer()).byteLength;
  const control = new AbortController();
  const answer = await fetch('/bytes/1000000000', {signal: control.signal});
  control.abort();
  found.abort = await answer.arrayBuffer().then(() => '', error => error.name);
  found.socket = await new Promise(resolve => {
    const socket = new WebSocket('wss://' + location.host + '/socket');
    let count = 0;
    socket.onopen = () => socket.send('0');
    socket.onerror = () => resolve(-1);
    socket.onmessage = () => { if (++count < 500) socket.send('' + count); else { socket.close(); resolve(count); } };
  });
  await fetch('/report', {method: 'POST', body: JSON.stringify(found)});
};
</script>""" + b"".join(b'<img src="/image/%d">' % number for number in range(100))
IMAGE = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="5" height="5"/></svg>'


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "websocket":
        await socket(receive, send)
    elif scope["type"] == "http":
        if scope["path"].startswith("/test.Echo/"):
            await grpc(scope["path"].rpartition("/")[2], receive, send)
        else:
            await http(scope, receive, send)
    else:
        raise NotImplementedError


async def http(scope: dict[str, Any], receive: Any, send: Any) -> None:
    kind, _, rest = scope["path"][1:].partition("/")
    received = 0
    first = b""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        received += len(message["body"])
        first = first or message["body"]
        more = message["more_body"]
    if kind == "wait":
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    if kind == "report":
        print("report", first.decode(), file=sys.stderr, flush=True)
    size = int(rest) if kind == "bytes" else 0
    content = {"page": PAGE, "image": IMAGE, "upload": b"%d" % received}.get(kind, b"")
    media = {"page": b"text/html", "image": b"image/svg+xml"}.get(kind, b"text/plain")
    length = b"%d" % (size + len(content))
    fields = [(b"content-type", media), (b"content-length", length), (b"x-version", scope["http_version"].encode())]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    for start in range(0, size, 65536):
        await send({"type": "http.response.body", "body": bytes(min(size - start, 65536)), "more_body": True})
    await send({"type": "http.response.body", "body": content})


async def socket(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] != "websocket.disconnect":
        await send({"type": "websocket.send", "text": message.get("text"), "bytes": message.get("bytes")})


async def grpc(method: str, receive: Any, send: Any) -> None:
    """Answer the four kinds of calls of gRPC; messages are bytes (length-prefixed, not compressed)."""
    waiting = b""
    ended = False

    async def next_message() -> bytes | None:
        nonlocal waiting, ended
        while len(waiting) < 5 or len(waiting) < 5 + int.from_bytes(waiting[1:5], "big"):
            if ended:
                return None
            event = await receive()
            if event["type"] == "http.disconnect":
                ended = True
                return None
            waiting += event["body"]
            ended = not event["more_body"]
        end = 5 + int.from_bytes(waiting[1:5], "big")
        message, waiting = waiting[5:end], waiting[end:]
        return message

    async def answer(message: bytes) -> None:
        framed = b"\0" + len(message).to_bytes(4, "big") + message
        await send({"type": "http.response.body", "body": framed, "more_body": True})

    fields = [(b"content-type", b"application/grpc")]
    await send({"type": "http.response.start", "status": 200, "headers": fields, "trailers": True})
    status = b"0"
    if method == "Unary":
        message = await next_message()
        if message == b"fail":
            status = b"3"  # INVALID_ARGUMENT
        elif message is not None:
            await answer(message)
    elif method == "ClientStream":
        count = 0
        while await next_message() is not None:
            count += 1
        await answer(b"%d" % count)
    elif method == "ServerStream":
        for number in range(int(await next_message() or b"0")):
            await answer(b"%d" % number)
    else:
        while (message := await next_message()) is not None:
            await answer(message)
    await send({"type": "http.response.body", "body": b""})
    await send({"type": "http.response.trailers", "headers": [(b"grpc-status", status)], "more_trailers": False})
