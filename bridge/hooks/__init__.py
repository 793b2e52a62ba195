"""Calls the user's functions at points of the server's life, under gunicorn's names and with gunicorn's objects.

The master has `MasterHooks`, a worker `WorkerHooks`. If a function raises, the server logs it with the function's name
and goes on. Without functions there is only `NO_HOOKS`, whose methods do nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.hooks.seam import NO_HOOKS, NoHooks

if TYPE_CHECKING:
    from bridge.config import Config

__all__ = ["NO_HOOKS", "NoHooks", "hooks_of", "reloaded"]


def hooks_of(config: Config) -> NoHooks:
    """Return the hooks for *config*.

    Raises:
        ConfigError: A function cannot be imported.
    """
    if not config.hooks:
        return NO_HOOKS
    from bridge.hooks.master import MasterHooks

    return MasterHooks(config)


def reloaded(hooks: NoHooks, config: Config, count: int) -> NoHooks:
    """Return the hooks for the settings of a reload. Workers are about to be replaced.

    Raises:
        ConfigError: There were no hooks, and one cannot be imported.
    """
    if hooks is NO_HOOKS:
        return hooks_of(config)
    hooks.reloading(config, count)
    return hooks
