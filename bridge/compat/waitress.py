"""A stand-in for waitress: ``serve`` and ``create_server``."""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Mapping
from typing import Any

from bridge.compat import put_in_place
from bridge.config import Config as Settings
from bridge.dialects.command import config_of, refuse
from bridge.dialects.table import Translation, Usage
from bridge.dialects.waitress import DIALECT, keywords
from bridge.serving.embedding import Server as Embedded
from bridge.telemetry.logs import stand_for

__all__ = ["create_server", "install", "serve"]


def settings_of(given: Mapping[str, Any]) -> Settings:
    """Return bridge's settings for waitress's keywords.

    Raises:
        ValueError: There is no such keyword.
        ConfigError: A value cannot be used.
    """
    translation = Translation()
    try:
        remarks = keywords({name: value for name, value in given.items() if not name.startswith("_")}, translation)
    except Usage as exc:
        raise ValueError(str(exc)) from None
    for remark in remarks:
        logging.getLogger("bridge").warning("waitress: %s", remark)
    refuse(DIALECT, translation)
    return config_of(translation, os.environ)


def serve(app: Any, **keywords: Any) -> None:
    """Serve a WSGI application until a signal asks for a stop.

    Args:
        app: The application.
        **keywords: waitress's.

    Raises:
        ValueError: There is no such keyword.
        BindError: An address cannot be listened on; it is an OSError.
    """
    server = create_server(app, **keywords)
    if not keywords.get("_quiet"):
        logging.getLogger("waitress").info("Serving with bridge in the place of waitress")
    server.run()


def create_server(app: Any, _dispatcher: Any = None, **keywords: Any) -> Server:
    """Return a server that listens already.

    Args:
        app: The application.
        **keywords: waitress's.
    """
    return Server(app, settings_of(keywords))


class Server:
    """What ``waitress.create_server`` returns.

    Attributes:
        effective_listen: The addresses as (host, port).
        effective_host: The first host.
        effective_port: The first port.
    """

    def __init__(self, app: Any, settings: Settings) -> None:
        stand_for("waitress-serve")
        self.application = app
        self._settings = settings
        self._runs = False
        self._server = Embedded(settings)
        self._server._app = app
        self._server.prepare()
        sockets = [sock for listener in self._server._listeners or () for sock in listener.sockets]
        self.effective_listen = [tuple(sock.getsockname()[:2]) for sock in sockets if sock.family.name != "AF_UNIX"]
        if self.effective_listen:
            self.effective_host, self.effective_port = self.effective_listen[0]

    def run(self) -> None:
        """Serve until a signal asks for a stop, or :meth:`close`, which may have been called before."""
        import asyncio
        import signal

        from bridge.serving.loops import loop_factory

        async def serving() -> None:
            async with self._server as server:
                if threading.current_thread() is threading.main_thread():
                    loop = asyncio.get_running_loop()
                    for number in (signal.SIGINT, signal.SIGTERM):
                        loop.add_signal_handler(number, lambda: setattr(server, "should_exit", True))
                await server.stopped()

        self._runs = True
        if self._server.should_exit:
            self._server.remove_files()
            return
        with asyncio.Runner(loop_factory=loop_factory(self._settings.loop)) as runner:
            runner.run(serving())

    def close(self) -> None:
        """End :meth:`run`, from any thread. Without it, close the listening sockets."""
        self._server.should_exit = True
        if not self._runs:
            self._server.remove_files()

    def print_listen(self, format_str: str) -> None:
        """Print the addresses."""
        for host, port in self.effective_listen:
            sys.stdout.write(format_str.format(f"[{host}]" if ":" in host else host, port) + "\n")


def install() -> None:
    """Replace waitress's names with those of this module."""
    places: dict[str, dict[str, Any]] = {"waitress": {"serve": serve, "create_server": create_server}}
    put_in_place(places)
