"""FastAPI: JSON, an upload, server-sent events, a WebSocket, a lifespan with state, work after the response."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from fastapi import BackgroundTasks, FastAPI, Request, UploadFile, WebSocket, WebSocketDisconnect
from sse_starlette.sse import EventSourceResponse

done: list[str] = []


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
    yield {"started": "yes"}


app = FastAPI(lifespan=lifespan)


@app.get("/where")
async def where(request: Request) -> dict[str, str]:
    return {
        "root_path": request.scope["root_path"],
        "path": request.scope["path"],
        "url": str(request.url_for("where")),
        "started": request.state.started,
    }


@app.post("/upload")
async def upload(file: UploadFile) -> dict[str, int]:
    return {"size": len(await file.read())}


@app.get("/events")
async def events() -> EventSourceResponse:
    async def ticks() -> AsyncIterator[str]:
        number = 0
        while True:
            yield str(number)
            number += 1
            await asyncio.sleep(0.01)

    return EventSourceResponse(ticks())


@app.get("/background")
async def background(tasks: BackgroundTasks) -> list[str]:
    async def later() -> None:
        await asyncio.sleep(0.05)
        done.append("task")

    tasks.add_task(later)
    return done


@app.websocket("/ws")
async def ws(websocket: WebSocket) -> None:
    await websocket.accept(subprotocol="echo")
    with contextlib.suppress(WebSocketDisconnect):
        while True:
            await websocket.send_json({"got": await websocket.receive_text()})


@app.websocket("/denied")
async def denied(websocket: WebSocket) -> None:
    await websocket.close(code=4001, reason="no")
