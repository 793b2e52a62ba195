"""PasteDeploy's .ini files: ``pserve development.ini`` starts bridge, and bridge serves what a file describes.

::

    [server:main]
    use = egg:bridge#main
    listen = localhost:6543
    threads = 4
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from bridge.errors import ConfigError

__all__ = ["application", "serve"]


def serve(app: Any, global_conf: Mapping[str, str] | None = None, **settings: str) -> None:
    """Serve *app*: a ``paste.server_runner``.

    Args:
        app: A WSGI application.
        global_conf: The section [DEFAULT]; not used.
        **settings: The section of the server: settings of bridge, also under the names of gunicorn and waitress.

    Raises:
        SystemExit: The server could not start.
    """
    from bridge.config.files import from_options
    from bridge.config.sources import from_environment, resolve
    from bridge.supervisor.run import run

    layer = from_environment(os.environ)[1]
    layer.pop("target", None)
    try:
        objects = from_options({"interface": "wsgi", **settings})
        if {"host", "port", "bind", "uds", "fd"} & objects.keys():
            for name in ("host", "port", "bind", "uds", "fd"):
                layer.pop(name, None)  # the file says where to listen
        status = run(resolve(layer, objects), app)
    except ConfigError as exc:
        sys.stderr.write(f"{getattr(exc, 'app_traceback', '')}bridge: {exc}\n")
        raise SystemExit(2) from None
    if status:
        raise SystemExit(status)


def application(uri: str, global_conf: Mapping[str, str] | None = None) -> Any:
    """Return the application that a file describes, for a target such as ``bridge.contrib.paste:application("a.ini")``.

    Args:
        uri: The file, perhaps with ``#name`` behind it.
        global_conf: What is added to the section [DEFAULT].

    Raises:
        ConfigError: PasteDeploy is not installed, or there is no such file.
    """
    try:
        from paste.deploy import loadapp
    except ImportError:
        raise ConfigError(f"{uri}: needs the package PasteDeploy: pip install PasteDeploy") from None
    path = uri.partition("#")[0]
    if not os.path.isfile(path):
        raise ConfigError(f"{path}: there is no such file")
    return loadapp(f"config:{uri}", relative_to=os.getcwd(), global_conf=dict(global_conf or {}))
