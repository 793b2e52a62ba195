"""Litestar: JSON, a stream and a WebSocket."""

from collections.abc import AsyncIterator

from litestar import Litestar, WebSocket, get, websocket
from litestar.response import Stream


@get("/hello/{name:str}")
async def hello(name: str) -> dict[str, str]:
    return {"hello": name}


@get("/stream")
async def stream() -> Stream:
    async def parts() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b"part "

    return Stream(parts())


@websocket("/ws")
async def ws(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_bytes(await socket.receive_bytes())
    await socket.close(4003)


app = Litestar([hello, stream, ws])
