"""What the tests of whole deployments ask, ASGI and WSGI: paths, digests of what was sent, and slow answers."""

import asyncio
import hashlib
import time

SLOW = 0.3  # seconds


async def asgi(scope, receive, send):
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
        return
    content = scope["path"].encode()
    if scope["method"] == "POST":
        digest, more = hashlib.sha256(), True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            digest.update(message.get("body", b""))
            more = message.get("more_body", False)
        content = digest.hexdigest().encode()
    elif scope["path"] == "/slow":
        await asyncio.sleep(SLOW)
    fields = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": content})


def wsgi(environ, start_response):
    content = environ["PATH_INFO"].encode("latin-1")
    if environ["REQUEST_METHOD"] == "POST":
        content = hashlib.sha256(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))).hexdigest().encode()
    elif environ["PATH_INFO"] == "/slow":
        time.sleep(SLOW)
    start_response("200 OK", [("content-type", "text/plain"), ("content-length", str(len(content)))])
    return [content]
