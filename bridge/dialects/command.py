"""``bridge gunicorn ARGS...`` and its like: from another server's command line to a running server."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence

from bridge._version import __version__
from bridge.config import Config
from bridge.config.layers import Layer, merge
from bridge.config.sources import from_environment, resolve
from bridge.dialects import dialect
from bridge.dialects.table import Dialect, Fate, Refusal, Translation, Usage
from bridge.telemetry import streams

__all__ = ["config_of", "layer_of", "serve"]


def serve(name: str, words: Sequence[str], environ: Mapping[str, str], *, own_process: bool = False) -> int:
    """Serve as the command *name* would with *words*; return the exit status.

    Args:
        name: The command.
        words: Its arguments.
        environ: The variables of the environment.
        own_process: The process ends with the server.

    Raises:
        ConfigError: A value cannot be used, or an option is refused.
    """
    spoken = dialect(name)
    environ = dict(environ)
    options = list(words)
    first = options[: options.index("--")] if "--" in options else options
    if "--help" in first or ("-h" in first and name != "uvicorn"):
        print(_help(spoken), end="")
        return 0
    if "--version" in first:
        print(f"bridge {__version__}, with the options of {spoken.name} {spoken.version}")
        return 0
    try:
        translation = spoken.translate(options, environ)
    except Usage as exc:
        sys.stderr.write(spoken.complaint(exc))
        return spoken.status
    refuse(spoken, translation)
    config = config_of(translation, environ)
    if translation.print_only:
        return _print(translation, environ)
    _add_paths(config, translation)
    if translation.check_only:
        return _check(config)
    _say_what_differs(spoken, translation)
    if translation.detach:
        _detach(config)

    from bridge.supervisor.run import run
    from bridge.telemetry.logs import stand_for

    stand_for(spoken.name)

    def read_config() -> Config:
        try:
            again = spoken.translate(options, environ)
        except Usage as exc:
            raise Refusal(str(exc)) from exc
        refuse(spoken, again)
        return config_of(again, environ)

    return run(config, translation.objects.get("app"), read_config=read_config, own_process=own_process)


def refuse(spoken: Dialect, translation: Translation) -> None:
    """Raise Refusal if an option cannot be carried over."""
    lines = [
        f"{outcome.option} {outcome.value}: {outcome.remark}"
        for outcome in translation.outcomes
        if outcome.fate is Fate.REFUSED
    ]
    if lines:
        raise Refusal("; ".join(lines) + f" (`bridge explain {spoken.name} ...` explains all options)")


def layer_of(translation: Translation, environ: Mapping[str, str]) -> Layer:
    """Return the settings as text: the other server's defaults, ``BRIDGE_...`` variables, and the given options."""
    own = from_environment(environ)[1]
    own.pop("target", None)
    return merge([translation.defaults, own, translation.layer])


def config_of(translation: Translation, environ: Mapping[str, str]) -> Config:
    """Return the settings.

    Raises:
        ConfigError: A value cannot be used.
    """
    known = {name: value for name, value in translation.objects.items() if name in Config.rows}
    return resolve(layer_of(translation, environ), known)


def _add_paths(config: Config, translation: Translation) -> None:
    for path in reversed(translation.paths):
        sys.path.insert(0, os.path.abspath(os.path.join(config.chdir or "", path)))


def _check(config: Config) -> int:
    from bridge.apps.lifecycle import application_for, load_mount_points
    from bridge.serving.checks import check
    from bridge.serving.process import prepare_process

    config = prepare_process(config)
    check(config)
    application_for(config, load_mount_points(config))
    print("bridge: the configuration is good, and the application can be imported")
    return 0


def _print(translation: Translation, environ: Mapping[str, str]) -> int:
    from bridge.config.reference import resolved

    print(resolved(layer_of(translation, environ)), end="")
    return 0


def _say_what_differs(spoken: Dialect, translation: Translation) -> None:
    for outcome in translation.outcomes:
        if outcome.fate is Fate.NO_EFFECT:
            _say(f"bridge: {spoken.name} {outcome.option}: no effect: {outcome.remark}")


def _say(text: str) -> None:
    if sys.stderr is not None:
        from bridge.telemetry import messages

        messages.tell(text)


def _detach(config: Config) -> None:
    """Become a daemon: fork, let the first process exit, and leave session and terminal."""
    _say(
        "bridge: --daemon: the process leaves the terminal, and nothing restarts it when it ends; a systemd unit would"
    )
    streams.flush()
    for _ in range(2):
        if os.fork():
            os._exit(0)
        if _ == 0:
            os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1, 2):
        os.dup2(null, number)
    if null > 2:
        os.close(null)


def _help(spoken: Dialect) -> str:
    lines = [
        f"usage: bridge {spoken.usage}",
        "",
        f"The options of {spoken.name} {spoken.version}, and what becomes of them:",
        "",
    ]
    for row in spoken.rows:
        if row.spellings or spoken.name == "uwsgi":
            name = ", ".join(row.spellings) or row.name
            lines.append(f"  {name:<42} {row.fate}" + (f": {row.remark}" if row.remark else ""))
    return "\n".join(lines) + "\n"


def explanation(words: Sequence[str], environ: Mapping[str, str]) -> tuple[Dialect, Translation]:
    """Return the dialect that *words* begin with, and the translation of the others.

    Raises:
        Usage: The other server would refuse them too.
        ConfigError: A file or a value cannot be used.
    """
    spoken = dialect(words[0])
    translation = spoken.translate(list(words[1:]), environ)
    if translation.status < 2:
        config_of(translation, environ)
    return spoken, translation
