"""Answers with the process in which it was imported."""

import os

from plain import _answer, _lifespan

HERE = str(os.getpid()).encode()


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        return await _lifespan(receive, send)
    await _answer(send, HERE)
