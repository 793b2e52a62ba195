"""Does at its import what refuses to be done beside a running event loop."""

import asyncio
import contextvars
import warnings

VARIABLE = contextvars.ContextVar("VARIABLE", default="unset")


async def _find() -> str:
    await asyncio.sleep(0)
    return "found"


with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # with --preload there is no loop yet, and one is made ...
    try:
        LOOP = asyncio.get_event_loop()
    except RuntimeError:  # ... up to Python 3.13
        LOOP = asyncio.new_event_loop()
    ON_THAT_LOOP = LOOP.run_until_complete(_find())
FOUND = asyncio.run(_find())
VARIABLE.set("set")


def wsgi(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{FOUND} {ON_THAT_LOOP} {VARIABLE.get()}".encode()]


async def asgi(scope, receive, send):
    same = LOOP is asyncio.get_running_loop()
    text = f"{FOUND} {ON_THAT_LOOP} {VARIABLE.get()} {same}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(text))]})
    await send({"type": "http.response.body", "body": text})


def make():
    asyncio.run(_find())
    return wsgi
