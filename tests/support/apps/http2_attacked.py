"""An ASGI application with answers that are small, large, or never come."""

from __future__ import annotations

from typing import Any

LARGE = 1_000_000


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise NotImplementedError
    if scope["path"] == "/wait":
        while (await receive())["type"] != "http.disconnect":
            pass
        return
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        more = message.get("more_body", False)
    size = LARGE if scope["path"] == "/large" else 13
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", str(size).encode())]},
    )
    for start in range(0, size, 65536):
        left = size - start
        await send({"type": "http.response.body", "body": bytes(min(left, 65536)), "more_body": left > 65536})
