"""``bridge.Server``: serve an application inside a program, beside the other tasks of its event loop."""

from __future__ import annotations

from typing import Any

from bridge.config import Config
from bridge.config.paths import located
from bridge.errors import ConfigError
from bridge.files import home
from bridge.serving import server
from bridge.serving.loops import process_loop
from bridge.serving.server import run_prepared

__all__ = ["Server", "settings_of"]


class Server(server.Server):
    """Serves one application in this process, on the running event loop or on one of its own.

    ::

        async with Server(app, port=0) as server:
            print(server.url)

    It handles no signals. Setting :attr:`should_exit` ends it, from any thread.

    Args:
        app: An application, its name as ``module:attribute``, or a :class:`~bridge.config.Config` that names it.
        **options: Settings by name; not with a Config.

    Raises:
        ConfigError: A setting does not exist, or its value cannot be used.
        TypeError: There are options beside a Config.
    """

    def __init__(self, app: Any, **options: Any) -> None:
        if isinstance(app, Config):
            if options:
                raise TypeError("options beside a Config: put them into it")
            super().__init__(app)
            return
        config, app = settings_of(app, options)
        if config.chdir is not None or config.env or config.env_file or config.process_name is not None:
            raise ConfigError(
                "chdir, env, env_file, process_name: they change the whole process, which is not the server's"
            )
        super().__init__(config, app)

    def prepare(self) -> None:
        """Check the settings and load the application; see the base class."""
        from bridge.serving.checks import check
        from bridge.serving.privileges import future_identity
        from bridge.telemetry.logs import configure

        self.config = located(self.config, home())  # the program may change its directory
        configure(self.config, embedded=True, later=future_identity(self.config))
        check(self.config)
        super().prepare()

    def run(self) -> None:
        """Serve on a new event loop until :attr:`should_exit`. This is for threads."""
        with process_loop(self.config.loop, own_process=False) as loop:
            run_prepared(loop, self, self.serve)


def settings_of(app: Any, options: dict[str, Any]) -> tuple[Config, Any]:
    """Return the settings for *app* and *options*, and the application, which is None if *app* is a name.

    Raises:
        ConfigError: A setting does not exist, or its value cannot be used.
    """
    from bridge.config.files import from_options

    values = from_options(options)
    if "forwarded_allow_ips" in values:
        values.setdefault("proxy_headers", True)
    if isinstance(app, str):
        return Config(target=app, **values), None
    return Config(**values), app
