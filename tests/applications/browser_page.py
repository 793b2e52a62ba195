"""A page whose script talks to a WebSocket, for a browser."""

import asyncio
from typing import Any

PAGE = b"""<!doctype html><title>waiting</title><script>
const say = text => { document.title = text };
const socket = new WebSocket(`ws://${location.host}/ws`, ["chat"]);
socket.binaryType = "arraybuffer";
const seen = [];
const large = "large ".repeat(50000);
socket.onopen = () => { socket.send("text \\u2603"); socket.send(new Uint8Array([0, 255])); socket.send(large); };
socket.onerror = () => say("error");
socket.onmessage = event => {
  seen.push(event.data instanceof ArrayBuffer ? Array.from(new Uint8Array(event.data)).join()
    : event.data === large ? "large" : event.data);
  if (seen.length === 3) socket.close(4004, "enough");
};
socket.onclose = event => say([...seen, socket.protocol, socket.extensions, event.code, event.wasClean].join("|"));
</script><img src="/picture">"""  # the page counts as loaded when the picture has come
closed = asyncio.Event()


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        if scope["path"] == "/picture":
            await closed.wait()
            await asyncio.sleep(0.3)  # for the browser to see the end of the connection
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
        await send({"type": "http.response.body", "body": PAGE})
    elif scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept", "subprotocol": "chat"})
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})
        closed.set()
