"""A stand-in for hypercorn: ``hypercorn.asyncio.serve`` and ``Config``."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from bridge.compat import importable, put_in_place
from bridge.config import Config as Settings
from bridge.dialects.command import config_of, refuse
from bridge.dialects.hypercorn import DIALECT, ROWS, settle_defaults
from bridge.dialects.table import Fate, Option, Takes, Translation
from bridge.serving.embedding import Server
from bridge.telemetry.logs import stand_for

__all__ = ["Config", "install", "serve"]


class Config:
    """hypercorn's settings, as attributes. Used where hypercorn is not installed."""

    bind: Any = ["127.0.0.1:8000"]  # noqa: RUF012 - hypercorn's class has it so
    accesslog: Any = None
    errorlog: Any = "-"
    loglevel = "INFO"

    @classmethod
    def from_mapping(cls, mapping: Any = None, **more: Any) -> Config:
        """Return settings with the values of *mapping*."""
        made = cls()
        for name, value in {**(mapping or {}), **more}.items():
            setattr(made, name, value)
        return made

    @classmethod
    def from_toml(cls, path: Any) -> Config:
        """Return the settings of a file."""
        import tomllib

        with open(path, "rb") as file:
            return cls.from_mapping(tomllib.load(file))


def settings_of(config: Any) -> Settings:
    """Return bridge's settings for a Config of hypercorn's.

    Raises:
        ConfigError: A setting cannot be used.
    """
    translation = Translation()
    usual = type(config)()
    for one in ROWS:
        name = one.name
        if name in {
            "application_path",
            "application",
            "worker_class",
            "workers",
            "use_reloader",
            "config",
            "cert_reqs",
        }:
            continue
        value = getattr(config, name, None)
        if value is None or value == getattr(usual, name, None):
            continue
        if isinstance(value, str) and one.takes is Takes.LIST:
            value = [value]
        translation.take(Option(one, value, name))
        outcome = translation.outcomes[-1]
        if outcome.fate is Fate.NO_EFFECT:
            logging.getLogger("bridge").warning("hypercorn.Config: %s: no effect: %s", name, outcome.remark)
    refuse(DIALECT, translation)
    settle_defaults(translation)
    translation.defaults.pop("workers", None)
    if "timeout_graceful_shutdown" not in translation.layer:
        translation.default("timeout_graceful_shutdown", "3", "hypercorn")
    return config_of(translation, os.environ)


async def serve(
    app: Any,
    config: Any,
    *,
    shutdown_trigger: Callable[..., Awaitable[Any]] | None = None,
    mode: str | None = None,
) -> None:
    """Serve *app* until *shutdown_trigger* returns; without one, until SIGINT or SIGTERM.

    Args:
        app: The application.
        config: A Config of hypercorn's.
        shutdown_trigger: A coroutine function.
        mode: ``asgi`` or ``wsgi``.

    Raises:
        ConfigError: A setting cannot be used.
        BindError: An address cannot be listened on.
        Exception: *shutdown_trigger* has raised it; the server has ended gracefully.
    """
    stand_for("hypercorn")
    settings = settings_of(config)
    server = Server(settings)
    server._app = app
    if mode is not None:
        server.config = Settings(**{**_values(settings), "interface": {"asgi": "asgi3"}.get(mode, mode)})
    loop = asyncio.get_running_loop()
    numbers: list[int] = []
    if shutdown_trigger is None:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                loop.add_signal_handler(number, lambda: setattr(server, "should_exit", True))
                numbers.append(number)
            except (ValueError, RuntimeError, NotImplementedError):
                break  # not the main thread
    try:
        async with server:
            logging.getLogger("hypercorn.error").info("Running on %s (CTRL + C to quit; served by bridge)", server.url)
            stopped = asyncio.ensure_future(server.stopped())
            waits: set[asyncio.Future[Any]] = {stopped}
            if shutdown_trigger is not None:
                waits.add(asyncio.ensure_future(shutdown_trigger()))
            try:
                done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
                for future in done:
                    future.result()
            finally:
                for future in waits:
                    future.cancel()
    finally:
        for handled in numbers:
            loop.remove_signal_handler(handled)


def _values(settings: Settings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.rows}


def install() -> None:
    """Replace hypercorn's names with those of this module."""
    hypercorn: Any = importable("hypercorn")
    places: dict[str, dict[str, Any]] = {"hypercorn": {}, "hypercorn.asyncio": {"serve": serve}}
    if hypercorn is None or getattr(hypercorn, "__stand_in__", False):
        places["hypercorn"] = {"Config": Config}
        places["hypercorn.config"] = {"Config": Config}
    put_in_place(places)
