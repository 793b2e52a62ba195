"""Functions of the user's that are called at points of the server's life, with gunicorn's names and objects.

The master has `MasterHooks`, a worker `WorkerHooks`. A function that raises is logged with its name, and nothing else
happens. Without functions all of this is `NO_HOOKS`, whose methods do nothing, and no request is touched.
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
    """Return the hooks from now on: workers are about to be replaced, with other settings.

    Raises:
        ConfigError: There were no hooks, and one cannot be imported.
    """
    if hooks is NO_HOOKS:
        return hooks_of(config)
    hooks.reloading(config, count)
    return hooks
