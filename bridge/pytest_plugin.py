"""A fixture for pytest: servers on free ports, stopped when the test ends.

Switch it on with ``pytest_plugins = ["bridge.pytest_plugin"]`` in ``conftest.py``. It needs no plugin for asyncio: the
servers run on threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bridge.serving.embedding import Server

__all__ = ["bridge_server"]


@pytest.fixture
def bridge_server() -> Iterator[Callable[..., Server]]:
    """Give a test the means to serve an application; each call returns a running Server, whose ``url`` says where.

    The arguments are those of :class:`bridge.Server`; the port is a free one. What stops the server from starting is
    raised by the call.
    """
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
