"""Checks of the settings that need the system: files, users, formats. They run before any socket is opened."""

from __future__ import annotations

import os
import socket

from bridge.config import Config
from bridge.errors import ConfigError

__all__ = ["check", "check_system"]


#: What a system has to have for a setting: (setting, owner, name).
_NEEDS = (
    ("reload", os, "fork"),
    ("preload", os, "fork"),
    ("user", os, "setuid"),
    ("group", os, "setgid"),
    ("pid", os, "O_NOFOLLOW"),
    ("reuse_port", socket, "SO_REUSEPORT"),
)


def check_system(config: Config) -> None:
    """Check that the system has what the settings need.

    Raises:
        ConfigError: It has not. The message names the setting.
    """
    for setting, owner, name in _NEEDS:
        if getattr(config, setting) and not hasattr(owner, name):
            option = f"--{setting.replace('_', '-')}"
            raise ConfigError(f"{option}: this system has no {owner.__name__}.{name}; leave {option} out")


def check(config: Config) -> None:
    """Check that the files, users and formats that *config* names can be used.

    Raises:
        ConfigError: One cannot be used. The message names setting, value and reason.
    """
    if config.ssl_certfile is not None:  # not --ssl-context-factory, which imports the application's code
        from bridge.serving.certificates import tls_context

        tls_context(config)
    if config.access_log:
        from bridge.telemetry.accesslog import format_of

        format_of(config)
    if config.user is not None or config.group is not None or config.uds_owner is not None:
        from bridge.serving.privileges import owner_ids

        owner_ids("--user", config.user or "")
        owner_ids("--group", f":{config.group}" if config.group else "")
        owner_ids("--uds-owner", config.uds_owner or "")
    if config.pid is not None:
        directory = os.path.dirname(os.path.abspath(config.pid))
        if not os.access(directory, os.W_OK):
            raise ConfigError(f"--pid {config.pid}: {directory} is not a directory that can be written to")
    if config.pushes:
        from bridge.telemetry.metrics.push import check as check_push

        check_push(config)
