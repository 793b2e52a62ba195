"""For programs: serve an application until a signal, or beside whatever else an event loop does."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from bridge.config import Config
from bridge.serving import server
from bridge.serving.loops import loop_factory
from bridge.serving.server import run_prepared

__all__ = ["Server", "run"]


def run(app: Any, **options: Any) -> int:
    """Serve *app* until a signal says stop; return the exit status: 0 after a stop, 1 or 4 when it could not start.

    With ``workers`` or ``reload``, this process becomes the master of workers. Outside the main thread there are no
    signals; then, and in a program with an event loop of its own, :class:`Server` is what is wanted.

    Args:
        app: An application, or its name as ``module:attribute``.
        **options: Settings by name, as values or as text: ``port=8080``, ``bind="unix:/run/a.sock"``.

    Raises:
        ConfigError: A setting that does not exist, or a value that cannot be used.
        TargetError: A name leads nowhere.
        RuntimeError: An event loop is running in this thread, or there are to be workers and it is not the main thread.
        SystemExit: In workers, when they end.
    """
    from bridge.supervisor.run import run as start

    config, app = _settings(app, options)
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("bridge.run() waits until the server ends; beside a running loop use bridge.Server")
    alone = config.workers is None and not config.reload
    if not alone and threading.current_thread() is not threading.main_thread():
        raise RuntimeError("workers need the main thread, which gets the signals; elsewhere use bridge.Server")
    return start(config, app)


class Server(server.Server):
    """Serves one application in this process, on the running event loop or on one of its own.

    ::

        async with Server(app, port=0) as server:
            print(server.url)

    Signals are left alone; :attr:`should_exit` ends it, from any thread.

    Args:
        app: An application, its name as ``module:attribute``, or a :class:`~bridge.config.Config` that has the name.
        **options: Settings by name; not with a Config.

    Raises:
        ConfigError: A setting that does not exist, or a value that cannot be used.
    """

    def __init__(self, app: Any, **options: Any) -> None:
        if isinstance(app, Config):
            if options:
                raise TypeError("options beside a Config: put them into it")
            super().__init__(app)
            return
        config, app = _settings(app, options)
        super().__init__(config, app)

    def prepare(self) -> None:
        """Check the settings and load the application; see the base class."""
        from bridge.serving.checks import check
        from bridge.telemetry.logs import configure

        configure(self.config, embedded=True)
        check(self.config)
        super().prepare()

    def run(self) -> None:
        """Serve, on an event loop of its own, until :attr:`should_exit`; for threads."""
        with asyncio.Runner(loop_factory=loop_factory(self.config.loop)) as runner:
            run_prepared(runner, self, self.serve)


def _settings(app: Any, options: dict[str, Any]) -> tuple[Config, Any]:
    from bridge.config.files import from_options

    values = from_options(options)
    if "forwarded_allow_ips" in values:
        values.setdefault("proxy_headers", True)
    if isinstance(app, str):
        return Config(target=app, **values), None
    return Config(**values), app
