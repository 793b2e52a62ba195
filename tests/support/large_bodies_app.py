"""The same two behaviours as ASGI and as WSGI: count what is uploaded, send what is asked for."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs

PIECE = b"x" * 65536


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise RuntimeError("HTTP only")
    if scope["method"] == "POST":
        count = 0
        while True:
            message = await receive()
            count += len(message["body"])
            if not message["more_body"]:
                break
        body = str(count).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})
        return
    left = int(parse_qs(scope["query_string"].decode())["bytes"][0])
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while left:
        piece = PIECE[:left]
        left -= len(piece)
        await send({"type": "http.response.body", "body": piece, "more_body": bool(left)})


def wsgi(environ: Any, start_response: Any) -> Any:
    if environ["REQUEST_METHOD"] == "POST":
        count = 0
        while piece := environ["wsgi.input"].read(65536):
            count += len(piece)
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [str(count).encode()]
    left = int(parse_qs(environ["QUERY_STRING"])["bytes"][0])
    start_response("200 OK", [("Content-Type", "application/octet-stream")])
    return pieces(left)


def pieces(left: int) -> Any:
    while left:
        piece = PIECE[:left]
        left -= len(piece)
        yield piece
