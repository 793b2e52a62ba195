"""What can be found wrong with settings before a socket is opened or a worker is started."""

from __future__ import annotations

import os

from bridge.config import Config
from bridge.errors import ConfigError

__all__ = ["check"]


def check(config: Config) -> None:
    """Try what *config* names: files, users, formats.

    Raises:
        ConfigError: Something cannot be used; the message names setting, value and reason.
    """
    if config.ssl_certfile is not None:  # a factory of the user's is the application's code: it comes later
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
            reason = "is not a directory that can be written to"
            raise ConfigError(f"--pid {config.pid}: {directory} {reason}")
