"""An application whose state is shared through Redis at CHAT_REDIS: sessions, and rooms of Channels.

POST /session/ID counts one up, GET says the count; other paths are those of ``pod``. WebSockets come into a room.
"""

import os

from redis import asyncio as redis

from benchmarks.apps import pod
from tests.applications import channels_chat

# By default a process whose queue holds 100 messages gets no more: too few where the machine has other work to do.
channels_chat.LAYER["CONFIG"]["capacity"] = 10_000
store = redis.from_url(os.environ["CHAT_REDIS"])


async def app(scope, receive, send):
    if scope["type"] == "websocket":
        await channels_chat.application(scope, receive, send)
    elif scope["type"] == "http" and scope["path"].startswith("/session/"):
        key = scope["path"]
        count = await store.incr(key) if scope["method"] == "POST" else int(await store.get(key) or 0)
        content = b"%d" % count
        await send(
            {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(content))]}
        )
        await send({"type": "http.response.body", "body": content})
    else:
        await pod.asgi(scope, receive, send)
