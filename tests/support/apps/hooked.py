"""Functions for all hooks, which write what they get, and applications of two interfaces."""

from __future__ import annotations

import os
import signal
from typing import Any


def say(name: str, owner: Any, *values: object) -> None:
    owner.log.info("HOOK %s of %s in %s: %s", name, owner.pid, os.getpid(), " ".join(map(str, values)))


def nworkers_changed(server: Any, new: Any, old: Any) -> None:
    say("nworkers_changed", server, new, old)


def on_starting(server: Any) -> None:
    server.kept = "kept"
    say("on_starting", server, server.cfg.workers, server.cfg.settings["workers"].value)


def when_ready(server: Any) -> None:
    say("when_ready", server, len(server.address), server.LISTENERS[0].fileno() >= 0)


def pre_fork(server: Any, worker: Any) -> None:
    worker.number = len(server.WORKERS)
    say("pre_fork", server, worker.pid, worker.age)


def post_fork(server: Any, worker: Any) -> None:
    say("post_fork", worker, server.kept, worker.number, worker.app.wsgi())


def post_worker_init(worker: Any) -> None:
    before = signal.getsignal(signal.SIGTERM)

    def wrapped(number: int, frame: Any) -> None:
        say("terminate", worker)
        before(number, frame)  # type: ignore[operator]

    signal.signal(signal.SIGTERM, wrapped)
    say("post_worker_init", worker, worker.app.wsgi().__name__, worker.app.callable is worker.wsgi)


def pre_request(worker: Any, req: Any) -> None:
    req.headers.append(("X-HOOK", "1"))
    req.scheme = "https"
    say("pre_request", worker, req.method, req.path, dict(req.headers)["HOST"])


def post_request(worker: Any, req: Any, environ: Any, resp: Any) -> None:
    say("post_request", worker, resp.status_code, resp.sent, len(resp.headers))
    if req.path == "/raise":
        raise ValueError("of the hook")
    if req.path == "/retire":
        worker.alive = False


def child_exit(server: Any, worker: Any) -> None:
    say("child_exit", server, worker.pid, worker.number)


def worker_exit(server: Any, worker: Any) -> None:
    say("worker_exit", worker)


def worker_int(worker: Any) -> None:
    say("worker_int", worker)


def worker_abort(worker: Any) -> None:
    say("worker_abort", worker)
    for handler in worker.log.error_log.handlers:
        handler.flush()


def pre_exec(server: Any) -> None:
    say("pre_exec", server)


def on_exit(server: Any) -> None:
    say("on_exit", server)


def on_reload(server: Any) -> None:
    say("on_reload", server)


def wsgi(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("X-Seen", f"{environ.get('HTTP_X_HOOK')} {environ['wsgi.url_scheme']}")])
    return [b"hi"]


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        raise NotImplementedError
    seen = dict(scope["headers"]).get(b"x-hook", b"") + b" " + scope["scheme"].encode()
    if scope["path"] == "/stand-still":
        import time

        time.sleep(60)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-seen", seen)]})
    await send({"type": "http.response.body", "body": b"hi"})
