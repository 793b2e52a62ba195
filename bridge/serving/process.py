"""What the settings change for the whole process: its directory, its environment variables, its name, its budgets."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from bridge.config import Config
from bridge.config.paths import located
from bridge.core.connection.budgets import Budgets
from bridge.core.connection.turns import Turns
from bridge.core.log import gen_log
from bridge.errors import ConfigError
from bridge.files import home, logical_directory, set_home

__all__ = [
    "at_origin",
    "forget_directory",
    "leave_forbidden_directory",
    "prepare_process",
    "read_variables",
    "set_budgets",
    "set_title",
]

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")

#: The name of the directory in which the process was started; empty until it is known.
_origin = ""


def prepare_process(config: Config) -> Config:
    """Change to ``--chdir`` and set the variables of ``--env-file`` and ``--env``. Return the settings to go on with.

    In these, paths are absolute: the application may change the directory. The directory is taken by its name, which
    may lead through links; see :func:`bridge.files.logical_directory`. It may be called again with other settings. Then
    it enters the directory by its name again, for that may mean another one by now.

    Raises:
        ConfigError: The directory or a file of variables cannot be used.
    """
    global _origin
    again, _origin = bool(_origin), _origin or logical_directory()
    path = os.path.join(_origin, config.chdir or "")
    if os.pardir not in path.split(os.sep):  # behind a link, the parent is another one than the name says
        path = os.path.normpath(path)
    if config.chdir is not None or again:
        try:
            os.chdir(path)
        except OSError as exc:
            if config.chdir is not None:
                raise ConfigError(f"--chdir {path}: {exc.strerror}") from exc
    set_home(path)
    for name in config.env_file:
        read_variables(os.path.join(path, name))
    os.environ.update(config.env)
    return located(config, path)


def forget_directory() -> None:
    """Take the directory that is current then for the next server: this process is a program's, which may change it."""
    global _origin
    _origin = ""
    set_home("")


def leave_forbidden_directory() -> None:
    """Go to ``/`` if this process, which has become another user, may not enter the directory that it is in.

    Otherwise each program that it starts would fail there, and so would each relative name.
    """
    if not os.access(os.curdir, os.X_OK, effective_ids=os.access in os.supports_effective_ids):
        gen_log.info("This user may not enter %s: the current directory is / from now on", home())
        os.chdir("/")


def read_variables(path: str) -> None:
    """Set the environment variables of a file; those that exist are kept.

    Raises:
        ConfigError: The file cannot be used, or the package python-dotenv is not installed.
    """
    try:
        from dotenv import load_dotenv
    except ImportError:
        raise ConfigError(
            "--env-file: needs the package python-dotenv: pip install python-dotenv, or use --env"
        ) from None
    try:
        with open(path, encoding="utf-8") as file:
            load_dotenv(stream=file)
    except OSError as exc:
        raise ConfigError(f"--env-file {path}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ConfigError(f"--env-file {path}: {exc}") from exc


def at_origin(function: Callable[[], T]) -> T:
    """Call *function* in the directory in which the process was started, by its name, and return the result."""
    if not _origin:
        return function()
    here = os.getcwd()
    with contextlib.suppress(OSError):  # it is gone, or this user may not enter it
        os.chdir(_origin)
    try:
        return function()
    finally:
        with contextlib.suppress(OSError):
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
            "--process-name: needs the package setproctitle: pip install setproctitle, or leave the option out"
        ) from None
    setproctitle(f"{config.process_name}: {role}")


def set_budgets(config: Config, loop: asyncio.AbstractEventLoop) -> None:
    """Set what all connections of *loop* may do in one turn, and make the process hold."""
    Turns.of(loop).units = config.limit_turn
    budgets = Budgets.of(loop)
    budgets.unfinished.limit = config.limit_unfinished
    budgets.unsent.limit = config.limit_unsent
    budgets.spool.limit = config.limit_spool
