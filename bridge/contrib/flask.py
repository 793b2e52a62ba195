"""``flask serve``: serves the application that Flask's command has found, with bridge."""

from __future__ import annotations

import click
from flask.cli import ScriptInfo, pass_script_info

__all__ = ["serve"]


@click.command(
    "serve",
    short_help="Serve with bridge.",
    context_settings={"ignore_unknown_options": True, "help_option_names": []},
)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@pass_script_info
def serve(info: ScriptInfo, options: tuple[str, ...]) -> None:
    """Serve the application with bridge; the options are those of `bridge run`."""
    import os

    from bridge.apps.loading import Deferred
    from bridge.config.reference import run_help
    from bridge.config.sources import load
    from bridge.errors import ConfigError
    from bridge.supervisor.run import run

    if set(options) & {"--help", "-h"}:
        click.echo(run_help(100), nl=False)
        return
    try:
        config = load(options, os.environ)
        if config.target:
            raise ConfigError(f"{config.target}: name the application by FLASK_APP, or by flask --app")
        status = run(config, Deferred(info.load_app))
    except ConfigError as exc:
        click.echo(f"{getattr(exc, 'app_traceback', '')}bridge: {exc}", err=True)
        raise SystemExit(2) from None
    raise SystemExit(status)
