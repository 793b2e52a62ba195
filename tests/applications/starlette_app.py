"""Starlette: files, middlewares, early hints, a WebSocket with a denial response."""

from pathlib import Path

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware, RequestResponseEndpoint
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.websockets import WebSocket

left: list[str] = []


class Stamp(BaseHTTPMiddleware):
    async def dispatch(self, request: Request, call_next: RequestResponseEndpoint) -> Response:
        response = await call_next(request)
        response.headers["x-stamp"] = "1"
        if "read" in request.query_params:
            content = b"".join([piece async for piece in response.body_iterator])  # type: ignore[attr-defined]
            return Response(content, response.status_code, dict(response.headers))
        return response


async def echo(request: Request) -> Response:
    return PlainTextResponse(await request.body())


async def file(request: Request) -> Response:
    return FileResponse(__file__)


async def stream(request: Request) -> Response:
    async def parts():
        for number in range(1000):
            yield b"%d\n" % number

    return StreamingResponse(parts())


async def upload(request: Request) -> Response:
    try:
        async for _ in request.stream():
            pass
    except ClientDisconnect:
        left.append("upload")
    return JSONResponse(left)


async def gone(request: Request) -> Response:
    return JSONResponse(left)


async def ws(websocket: WebSocket) -> None:
    if websocket.query_params.get("token") != "yes":
        await websocket.send_denial_response(JSONResponse({"error": "token"}, status_code=401))
        return
    await websocket.accept(headers=[(b"x-own", b"1")])
    async for text in websocket.iter_text():
        await websocket.send_text(text.upper())


app = Starlette(
    routes=[
        Route("/echo", echo, methods=["POST"]),
        Route("/file", file),
        Route("/stream", stream),
        Route("/upload", upload, methods=["POST"]),
        Route("/gone", gone),
        Mount("/static", StaticFiles(directory=Path(__file__).parent)),
        WebSocketRoute("/ws", ws),
    ],
    middleware=[Middleware(Stamp), Middleware(GZipMiddleware)],
)
