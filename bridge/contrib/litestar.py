"""``litestar run`` with bridge: a plugin for applications.

::

    app = Litestar(route_handlers=[...], plugins=[BridgePlugin()])
"""

from __future__ import annotations

import contextlib
import copy
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from litestar.plugins import CLIPlugin

if TYPE_CHECKING:
    from click import Context, Group
    from litestar import Litestar

__all__ = ["BridgePlugin"]

# The options of `litestar run` that bridge has under the same name, and those that have another name in bridge.
_OPTIONS = {
    "host": "--host",
    "port": "--port",
    "fd": "--fd",
    "uds": "--uds",
    "wc": "--workers",
    "reload_dir": "--reload-dir",
    "reload_include": "--reload-include",
    "reload_exclude": "--reload-exclude",
    "ssl_certfile": "--ssl-certfile",
    "ssl_keyfile": "--ssl-keyfile",
}


class BridgePlugin(CLIPlugin):
    """Lets ``litestar run`` start bridge, with Litestar's options and those of ``bridge run`` behind them."""

    def on_cli_init(self, cli: Group) -> None:
        """Put bridge into the place of uvicorn in the command ``run``.

        Args:
            cli: Litestar's commands.
        """
        import click

        command = copy.copy(cli.commands["run"])
        command.help = "Run a Litestar app with bridge; takes the options of `bridge run`, too."
        command.context_settings = {
            **command.context_settings,
            "ignore_unknown_options": True,
            "allow_extra_args": True,
        }
        command.callback = click.pass_context(_run)
        cli.add_command(command, "run")


def _run(ctx: Context, /, **options: Any) -> None:
    from litestar.cli._utils import LitestarEnv  # what the command finds in its context

    if callable(ctx.obj):
        ctx.obj = ctx.obj()
    env = ctx.obj
    assert isinstance(env, LitestarEnv)
    if options.get("create_self_signed_cert"):
        raise SystemExit("bridge: --create-self-signed-cert: use `bridge dev --https`, or name a certificate's file")
    for name in ("debug", "pdb"):
        if options.get(name):
            os.environ[f"LITESTAR_{name.upper()}"] = "1"
    words = _words(env.app_path, env.is_app_factory, ctx.find_root().params, options)
    _serve([*words, *ctx.args], env.app)


def _words(path: str, is_factory: bool, common: Mapping[str, Any], options: Mapping[str, Any]) -> list[str]:
    """Return the arguments of ``bridge run``."""
    words = [path, "--factory"] if is_factory else [path]
    words += ["--app-dir", str(common.get("app_dir") or os.getcwd())]
    for name, spelling in _OPTIONS.items():
        value = options.get(name)
        if value is None or value == () or (name == "wc" and value == 1):
            continue
        for item in value if isinstance(value, tuple) else [value]:
            words += [spelling, str(item)]
    if any(options.get(name) for name in ("reload", "reload_dir", "reload_include", "reload_exclude")):
        words.append("--reload")
    return words


def _serve(words: Sequence[str], app: Litestar) -> None:
    """Start the server as a new program: this one has imported the application, and a reload must import it anew.

    It takes the place of this process, unless plugins have something to do around it.
    """
    command = [sys.executable, "-m", "bridge", "run", *words]
    plugins = [
        plugin
        for plugin in app.plugins.cli
        if isinstance(plugin, CLIPlugin) and type(plugin).server_lifespan is not CLIPlugin.server_lifespan
    ]
    if not plugins and hasattr(
        os, "fork"
    ):  # on Windows exec starts a second process, and the shell would go on at once
        os.execv(command[0], command)  # noqa: S606 - no shell is wanted
    with contextlib.ExitStack() as stack:
        for plugin in plugins:
            stack.enter_context(plugin.server_lifespan(app))
        # In a session of its own, or Ctrl-C would reach it twice, and cut requests off.
        with subprocess.Popen(command, start_new_session=True) as process:  # noqa: S603 - the user's own arguments
            for number in (signal.SIGINT, signal.SIGTERM):
                signal.signal(number, lambda number, _: process.send_signal(number))
            status = process.wait()
    raise SystemExit(128 - status if status < 0 else status)
