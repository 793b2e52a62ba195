"""Applications for the tests of the supervisor: what they answer says where they run."""

import asyncio
import json
import os
import re
import signal
import threading
import time

LOCK = threading.Lock()
starts = 0


async def _answer(send, content, status=200, fields=()):
    head = [(b"content-length", b"%d" % len(content)), *fields]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": content})


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        return await _lifespan(receive, send)
    kind, _, value = scope["path"].removeprefix(scope["root_path"]).lstrip("/").partition("/")
    if kind == "sleep":
        await asyncio.sleep(float(value))
    elif kind == "block":
        stand_still(float(value))
    elif kind == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif kind == "scope":
        seen = {key: scope[key] for key in ("client", "server", "scheme", "path", "root_path")}
        seen["request_id"] = scope["extensions"].get("bridge.request_id", {}).get("id")
        seen["headers"] = [[name.decode("latin-1"), text.decode("latin-1")] for name, text in scope["headers"]]
        return await _answer(send, json.dumps(seen).encode())
    elif kind == "who":
        return await _answer(send, json.dumps([os.getuid(), os.getgid(), os.getgroups()]).encode())
    elif kind == "error":
        raise LookupError("on purpose")
    elif kind == "stream":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(int(float(value) * 20)):
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
            await asyncio.sleep(0.05)
        return await send({"type": "http.response.body", "body": b"."})
    elif kind == "events":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        while True:
            await send({"type": "http.response.body", "body": b"data: x\n\n", "more_body": True})
            await asyncio.sleep(0.05)
    elif kind == "regex":
        hold_the_lock(int(value))
    await _answer(send, str(os.getpid()).encode())


async def _lifespan(receive, send):
    await receive()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await send({"type": "lifespan.shutdown.complete"})


async def refuses(scope, receive, send):
    assert scope["type"] == "lifespan"
    await receive()
    await send({"type": "lifespan.startup.failed", "message": "no database"})


def stand_still(seconds):
    time.sleep(seconds)


def hold_the_lock(length):
    re.fullmatch("(a|a)*b", "a" * length)  # in C, without giving other threads a turn: twice as long with each letter


def wsgi(environ, start_response):
    kind, _, value = environ["PATH_INFO"].lstrip("/").partition("/")
    if kind == "sleep":
        time.sleep(float(value))
    elif kind == "deadlock":
        never_released()
    elif kind == "error":
        raise LookupError("on purpose")
    elif kind == "regex":
        hold_the_lock(int(value))
    content = str(os.getpid()).encode()
    if kind == "big":
        content = b"x" * int(value)
    elif kind == "upload":
        content = str(len(environ["wsgi.input"].read())).encode()
    elif kind == "environ":
        content = json.dumps({key: text for key, text in environ.items() if isinstance(text, str)}).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(content)))])
    return [content]


def never_released():
    LOCK.acquire()
    LOCK.acquire()


async def sockets(scope, receive, send):
    if scope["type"] != "websocket":
        return await asgi(scope, receive, send)
    await receive()
    await send({"type": "websocket.accept"})
    while True:
        message = await receive()
        if message["type"] == "websocket.disconnect":
            return
        await send({"type": "websocket.send", "text": message["text"]})
