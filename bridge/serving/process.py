"""What the settings change for the whole process: its directory, its environment variables, its name."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from bridge.config import Config
from bridge.errors import ConfigError

__all__ = ["at_origin", "prepare_process", "read_variables", "set_title"]

T = TypeVar("T")

#: The directory in which the process was started; empty before the first change.
_origin = ""


def prepare_process(config: Config) -> None:
    """Change to ``--chdir`` and set the variables of ``--env-file`` and ``--env``.

    It may be called again with other settings: a relative directory is relative to where the process was started.

    Raises:
        ConfigError: The directory or a file of variables cannot be used.
    """
    global _origin
    if config.chdir is not None or _origin:
        _origin = _origin or os.getcwd()
        path = os.path.join(_origin, config.chdir or "")
        try:
            os.chdir(path)
        except OSError as exc:
            raise ConfigError(f"--chdir {path}: {exc.strerror}") from exc
    for name in config.env_file:
        read_variables(name)
    os.environ.update(config.env)


def read_variables(path: str) -> None:
    """Set the environment variables of a file; those that exist are kept.

    Raises:
        ConfigError: The file cannot be used, or the package python-dotenv is not installed.
    """
    try:
        from dotenv import load_dotenv
    except ImportError:
        raise ConfigError("--env-file: needs the package python-dotenv; install it, or use --env") from None
    try:
        with open(path, encoding="utf-8") as file:
            load_dotenv(stream=file)
    except OSError as exc:
        raise ConfigError(f"--env-file {path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"--env-file {path}: {exc}") from exc


def at_origin(function: Callable[[], T]) -> T:
    """Call *function* in the directory in which the process was started, and return its result."""
    if not _origin:
        return function()
    here = os.getcwd()
    os.chdir(_origin)
    try:
        return function()
    finally:
        os.chdir(here)


def set_title(config: Config, role: str) -> None:
    """Give this process the title ``NAME: ROLE``, as ps shows it, if ``--process-name`` is given.

    Raises:
        ConfigError: The package setproctitle is not installed.
    """
    if config.process_name is None:
        return
    try:
        from setproctitle import setproctitle
    except ImportError:
        raise ConfigError(
            "--process-name: needs the package setproctitle; install it, or leave the option out"
        ) from None
    setproctitle(f"{config.process_name}: {role}")
