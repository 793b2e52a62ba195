"""A FastAPI application: state from the start, a JSON POST, a streamed answer, a streamed upload.

Run:  bridge run fastapi_app:app --app-dir examples
Ask:  curl http://127.0.0.1:8000/  and  /stream  and  curl --json '{"name": "tea", "price": 2.5}' http://127.0.0.1:8000/items
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from pydantic import BaseModel


class Item(BaseModel):
    name: str
    price: float


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, list[Item]]]:
    """Run once around the life of the server. Every request has what this yields as ``request.state``."""
    yield {"items": []}
    print("FastAPI example: stopped", flush=True)


app = FastAPI(lifespan=lifespan)


@app.get("/")
async def page() -> dict[str, str]:
    return {"message": "Hello from FastAPI"}


@app.post("/items", status_code=201)
async def add(item: Item, request: Request) -> dict[str, int]:
    request.state.items.append(item)
    return {"items": len(request.state.items)}


@app.get("/stream")
async def stream() -> StreamingResponse:
    async def lines() -> AsyncIterator[str]:
        for number in range(5):
            yield f"line {number}\n"
            await asyncio.sleep(0.1)  # each line reaches the client at once: curl -N shows it

    return StreamingResponse(lines(), media_type="text/plain")


@app.put("/upload")
async def upload(request: Request) -> dict[str, int | str]:
    digest, size = hashlib.sha256(), 0
    async for piece in request.stream():
        digest.update(piece)
        size += len(piece)
    return {"size": size, "sha256": digest.hexdigest()}
