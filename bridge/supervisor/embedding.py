"""``bridge.run``: serve an application from a program until a signal asks for a stop."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from bridge.serving.embedding import settings_of

__all__ = ["run"]


def run(app: Any, **options: Any) -> int:
    """Serve *app* until a signal asks for a stop.

    With ``workers``, this process becomes the master of workers. With ``reload``, the master is a process of its own,
    since this one may have imported what is to be reloaded. Outside the main thread the server gets
    no signals. There, and in a program that runs an event loop, use ``bridge.Server``.

    Args:
        app: An application, or its name as ``module:attribute``.
        **options: Settings by name, as values or as text: ``port=8080``, ``bind="unix:/run/a.sock"``.

    Returns:
        The exit status: 0 after a stop, 1 or 4 if the server could not start.

    Raises:
        ConfigError: A setting does not exist, or its value cannot be used.
        TargetError: The name cannot be imported.
        RuntimeError: An event loop runs in this thread; or workers are wanted, and this is not the main thread.
        SystemExit: In workers, when they end.
    """
    from bridge.supervisor.run import run as start

    config, app = settings_of(app, options)
    if asyncio._get_running_loop() is not None:
        raise RuntimeError("bridge.run() waits until the server ends; beside a running loop use bridge.Server")
    alone = config.workers is None and not config.reload
    if not alone and threading.current_thread() is not threading.main_thread():
        raise RuntimeError("workers need the main thread, which gets the signals; elsewhere use bridge.Server")
    if config.reload and app is None:
        from bridge.supervisor.apart import run_apart

        return run_apart(config)
    return start(config, app)
