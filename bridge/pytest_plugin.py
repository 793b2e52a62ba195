"""A fixture for pytest: servers on free ports that stop when the test ends.

pytest finds it by itself where bridge is installed. The servers run on threads, so it
needs no pytest plugin for asyncio.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from bridge.serving.embedding import Server

__all__ = ["bridge_server"]


@pytest.fixture
def bridge_server() -> Iterator[Callable[..., Server]]:
    """Return a function that serves an application and returns the running Server; its ``url`` says where.

    The arguments are those of :class:`bridge.Server`. By default the port is a free one and there is no access log. If
    the server cannot start, the call raises the reason.
    """
    from bridge.serving.embedding import Server  # heavy, and every run of pytest imports this module

    started: list[tuple[Server, threading.Thread]] = []

    def serve(app: Any, **options: Any) -> Server:
        options.setdefault("port", 0)
        options.setdefault("access_log", False)
        server = Server(app, **options)
        ready = threading.Event()
        errors: list[BaseException] = []
        server.on_started = ready.set

        def run() -> None:
            try:
                server.run()
            except BaseException as exc:
                errors.append(exc)
            finally:
                ready.set()

        thread = threading.Thread(target=run, name="bridge-server")
        started.append((server, thread))
        thread.start()
        ready.wait()
        if errors:
            raise errors[0]
        return server

    yield serve
    for server, _ in started:
        server.should_exit = True
    for _, thread in started:
        thread.join()
