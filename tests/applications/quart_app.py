"""Quart: a view, an upload that streams, a WebSocket."""

from quart import Quart, request, websocket

app = Quart(__name__)


@app.get("/hello")
async def hello() -> str:
    return f"quart {request.scheme} {request.headers['host']}"


@app.post("/upload")
async def upload() -> dict[str, int]:
    size = 0
    async for chunk in request.body:
        size += len(chunk)
    return {"size": size}


@app.websocket("/ws")
async def ws() -> None:
    while True:
        await websocket.send(await websocket.receive())
