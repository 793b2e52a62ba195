"""Programs that start another server themselves, as their documentation shows it. The first argument says which."""

from __future__ import annotations

import asyncio
import sys
import threading
from typing import Any


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise NotImplementedError
    if scope["path"] == "/stream":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await send({"type": "http.response.body", "body": b"data: 1\n\n", "more_body": True})
        await scope["extensions"]["bridge.shutdown.notice"]["event"].wait()
        return  # as libraries for server-sent events do: without the end of the response
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"asgi"})


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Length", "4")])
    return [b"wsgi"]


def uvicorn_run() -> None:
    import uvicorn

    uvicorn.run(asgi, port=0, headers=[("X-A", "b")])


def uvicorn_serve() -> None:
    import uvicorn

    asyncio.run(uvicorn.Server(uvicorn.Config(asgi, port=0, log_level="info")).serve())


def uvicorn_thread() -> None:
    import uvicorn

    class Server(uvicorn.Server):
        def install_signal_handlers(self) -> None:
            pass

    server = Server(uvicorn.Config(asgi, port=0))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        thread.join()
    except KeyboardInterrupt:
        server.should_exit = True
        thread.join()


def uvicorn_thread_ends_late() -> None:
    import uvicorn

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await asyncio.sleep(0.2)
            print("shutdown complete", flush=True)
            await send({"type": "lifespan.shutdown.complete"})
        else:
            await asgi(scope, receive, send)

    server = uvicorn.Server(uvicorn.Config(app, port=0))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        thread.join()
    except KeyboardInterrupt:
        server.should_exit = True


def uvicorn_fails() -> None:
    import uvicorn

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.failed", "message": "no database"})

    uvicorn.run(app, port=0)


def hypercorn_serve() -> None:
    from hypercorn.asyncio import serve
    from hypercorn.config import Config

    config = Config()
    config.bind = ["127.0.0.1:0"]
    asyncio.run(serve(asgi, config))  # type: ignore[arg-type]


def waitress_serve() -> None:
    import logging

    import waitress

    logging.basicConfig(level=logging.INFO)
    server = waitress.create_server(wsgi, listen="127.0.0.1:0", threads=2)
    server.print_listen("bridge: serving on http://{}:{}\n")
    sys.stdout.flush()
    server.run()


def gunicorn_application() -> None:
    import gunicorn.app.base

    class StandaloneApplication(gunicorn.app.base.BaseApplication):
        def __init__(self, app: Any, options: Any = None) -> None:
            self.options = options or {}
            self.application = app
            super().__init__()

        def load_config(self) -> None:
            for key, value in self.options.items():
                if key in self.cfg.settings and value is not None:
                    self.cfg.set(key.lower(), value)

        def load(self) -> Any:
            return self.application

    StandaloneApplication(wsgi, {"bind": "127.0.0.1:0", "workers": 2, "unknown": 1}).run()


if __name__ == "__main__":
    globals()[sys.argv[1]]()
