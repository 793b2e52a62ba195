"""The command ``bridge``: turns arguments into a `Config`, runs the server, and turns failures into an exit status.

It imports nothing but `bridge.errors` until it knows that a server has to start.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Mapping, Sequence

from bridge._version import __version__
from bridge.errors import ConfigError

TYPE_CHECKING = False  # typing is heavy, and --version needs none of it
if TYPE_CHECKING:
    from typing import Any

    from bridge.config import Config

__all__ = ["main"]

FAULT = 1
USAGE_ERROR = 2
TARGET_ERROR = 3
INTERRUPTED = 130  # 128 + SIGINT, as shells count

#: The commands of other servers: a copy of `bridge.dialects.NAMES`, which a start need not import.
_DIALECTS = ("gunicorn", "uvicorn", "hypercorn", "granian", "daphne", "waitress-serve", "uwsgi")

# The commands of bridge.operations.console, by name alone: --version must not import it.
_STEERING = frozenset(
    {"status", "top", "reload", "scale", "recycle", "drain", "undrain", "stop", "dump", "log-level", "reopen"}
)

_HELP = """\
usage: bridge run TARGET [options]

One HTTP server for ASGI, WSGI and Tornado-style applications.

  bridge run app:app                      the object `app` in app.py: Flask, FastAPI, Django, a delegate ...
  bridge run project.wsgi                 its `application`
  bridge run "factory:create_app()"       what the function returns
  bridge run app:app --port 0 --threads 8
  bridge run app:app --bind unix:/run/app.sock

  bridge gunicorn -w 4 app:app            the command line of gunicorn; also uvicorn, hypercorn, granian, daphne,
                                          waitress-serve, uwsgi
  bridge explain gunicorn -w 4 app:app    show what each of these options becomes
  bridge exec fastapi run                 run a program that starts uvicorn, hypercorn, waitress or gunicorn itself:
                                          bridge serves instead
  bridge install-shims DIR                write scripts called gunicorn, uvicorn and so on, which start bridge

  bridge dev                              find the application in this directory, and serve it with --reload and --debug

  bridge run --help                       every option
  bridge status --help                    the commands for a running server: status, top, reload, scale, drain, stop ...
  bridge --version
"""


_DEV_HELP = """\
usage: bridge dev [TARGET] [options]

Finds the application in this directory, says where it is, and serves it with --reload and --debug. If the package
python-dotenv is installed, the application gets the variables of .env. All options of `bridge run` work too; with
--no-debug, for example, there is no --debug.

  --https       serve TLS, with a certificate for this machine. The certificate authority for it is made once and kept;
                the first lines of the output say where. Needs the package trustme
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status.

    The status is 0 after a graceful stop, 2 for a wrong option, 3 if the target cannot be loaded.
    `bridge.serving.exits` has the others.

    Args:
        argv: The arguments. None for those of the process; it then ends with this command.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    command = words[0] if words else ""
    if command in {"--version", "-V"}:
        print(_version())
        return 0
    if command in {"--help", "-h", "help"}:
        print(_HELP, end="")
        return 0
    if not words:
        if sys.stderr is not None:
            print(_HELP, end="", file=sys.stderr)
        return USAGE_ERROR
    if command == "dev":
        return _guarded(lambda: _develop(words[1:], own_process=argv is None))
    if command == "install-shims":
        return _guarded(lambda: _install_shims(words[1:]))
    if command == "exec":
        return _guarded(lambda: _execute(words[1:], own_process=argv is None))
    if command in _STEERING:
        from bridge.operations.console import run

        return run(command, words[1:], os.environ)
    if command in _DIALECTS or command == "explain":
        return _guarded(lambda: _other(command, words[1:], own_process=argv is None))
    if command != "run":
        hint = f"bridge run {' '.join(words)}" if not command.startswith("-") else "bridge run TARGET " + command
        return _fail(f"{command}: there is no such command; did you mean `{hint}`?", USAGE_ERROR)
    words = words[1:]
    options = words[: words.index("--")] if "--" in words else words
    if "--help" in options or "-h" in options:
        return _print_run_help()
    for option, action in (("--check-config", _check_config), ("--print-config", _print_config)):
        if option in options:
            words.remove(option)
            return _guarded(lambda: action(words))  # noqa: B023 - called at once
    return _guarded(lambda: _run(words, own_process=argv is None))


def _develop(words: Sequence[str], *, own_process: bool) -> int:
    if "--help" in words or "-h" in words:
        print(_DEV_HELP, end="")
        return 0
    from bridge.dev import development_words

    development = development_words(words, os.environ)
    if sys.stderr is not None:
        from bridge.telemetry import messages

        if development.found is not None:
            messages.tell(f"bridge: {development.found.target}, found in {development.found.how}")
        if development.authority:
            messages.tell(f"bridge: let your browser trust the authority of this machine: {development.authority}")
    return _run(development.words, own_process=own_process)


def _install_shims(words: Sequence[str]) -> int:
    from bridge.compat.shims import install_shims

    return install_shims(words)


def _execute(words: Sequence[str], *, own_process: bool) -> int:
    if words and words[0] in _DIALECTS:
        return _other(words[0], words[1:], own_process=own_process)
    from bridge.compat.execution import execute

    try:
        return execute(words)
    finally:
        if own_process and hasattr(gc, "freeze"):  # PyPy has none
            # The interpreter collects garbage once more at its end: with FastAPI's modules that took 1.7 s of a stop
            # on a busy machine, and without frozen objects 0.06 s (CPython 3.11).
            gc.freeze()


def _other(command: str, words: Sequence[str], *, own_process: bool) -> int:
    if "gunicorn" in (command, *words[:1]):
        from bridge.compat import install_missing

        install_missing("gunicorn")  # configuration files import parts of it
    if command == "explain":
        from bridge.dialects.explain import explain

        return explain(words, os.environ)
    from bridge.dialects.command import serve

    return serve(command, words, os.environ, own_process=own_process)


def _run(words: Sequence[str], *, own_process: bool) -> int:
    # The imported objects stay, so collecting garbage meanwhile is useless; it takes 9 ms of CPU. Frozen
    # objects are skipped by all later collections too.
    collecting = own_process and gc.isenabled()
    if collecting:
        gc.disable()
    try:
        from bridge.config.sources import load

        environ = dict(os.environ)  # --env-file is for the application: a reload reads what the start has read
        try:
            config = load(words, environ)
        except ConfigError as exc:
            raise ConfigError(f"{exc}{_spoken_elsewhere(words)}") from None
        _name_misspelt(environ)
        _require_target(config)

        from bridge.supervisor.run import run
    finally:
        if collecting:
            gc.freeze()
            gc.enable()
    return run(config, read_config=lambda: load(words, environ), own_process=own_process)


def _spoken_elsewhere(words: Sequence[str]) -> str:
    """Return a hint if *words* are a command line of another server's."""
    from bridge.dialects.guess import guess

    names = guess(words)
    if not names:
        return ""
    return f"; this looks like a command line of {' or '.join(names)}: `bridge {names[0]} ...` takes it"


# Variables that are not settings: bridge reads them elsewhere, or sets them for its processes and their children.
_OWN_VARIABLES = frozenset(
    {"BRIDGE_BUILD", "BRIDGE_CONFIG", "BRIDGE_CONTROL_SOCKET", "BRIDGE_HANDOVER", "BRIDGE_SPEEDUPS", "BRIDGE_WORKER"}
)


def _name_misspelt(environ: Mapping[str, str]) -> None:
    """Warn of a variable whose name is close to one of bridge's. Others are ignored: Kubernetes sets some by itself."""
    from bridge.config.settings import SETTINGS

    known = {name for row in SETTINGS for name in row.environment} | _OWN_VARIABLES
    strange = [name for name in environ if name.startswith("BRIDGE_") and name not in known and environ[name]]
    if not strange or sys.stderr is None:
        return
    from difflib import get_close_matches

    from bridge.telemetry import messages

    for name in strange:
        near = get_close_matches(name, known, n=1, cutoff=0.85)
        if near and not name.startswith(("BRIDGE_PORT_", "BRIDGE_SERVICE_")):
            messages.tell(f"bridge: {name}: there is no such variable; did you mean {near[0]}?")


def _require_target(config: Config) -> None:
    if not config.target and not config.mount:
        raise ConfigError("TARGET: nothing to serve; name it as module:attribute, for example `bridge run app:app`")


def _check_config(words: Sequence[str]) -> int:
    from bridge.config.sources import load
    from bridge.serving.checks import check
    from bridge.serving.process import prepare_process

    config = load(words, os.environ)
    _require_target(config)
    config = prepare_process(config)
    check(config)

    from bridge.apps.lifecycle import application_for, load_mount_points
    from bridge.files import is_root
    from bridge.serving.privileges import drop_privileges

    if is_root():  # others may check what only root can run
        drop_privileges(config)
    application_for(config, load_mount_points(config))
    print("bridge: the configuration is good, and the application can be imported")
    return 0


def _print_config(words: Sequence[str]) -> int:
    from bridge.config.reference import resolved
    from bridge.config.sources import load_layer, resolve

    layer = load_layer(words, os.environ)
    resolve(layer)
    print(resolved(layer), end="")
    return 0


def _guarded(function: Callable[[], int]) -> int:
    """Call *function*. Turn its errors into a line on standard error and an exit status."""
    status = _status(function)
    ending = sys.modules.get("bridge.serving.ending")  # not imported: without a server there is nothing to wait for
    return status if ending is None else ending.ending.last(status)


def _status(function: Callable[[], int]) -> int:
    from bridge.apps.loading import TargetError

    try:
        return function()
    except TargetError as exc:
        return _fail(str(exc), TARGET_ERROR, exc.app_traceback)
    except ConfigError as exc:
        return _fail(str(exc), USAGE_ERROR)
    except Exception:
        if _messages() is None:
            raise
        from traceback import format_exc

        return _fail("a fault of the server's own", FAULT, format_exc())
    except KeyboardInterrupt:  # during the import of the application; later the server handles the signal
        return INTERRUPTED


def _print_run_help() -> int:
    import shutil

    from bridge.config.reference import run_help

    print(run_help(shutil.get_terminal_size().columns), end="")
    return 0


def _version() -> str:
    from bridge.speedups import COMPILED

    implementation, (major, minor, micro, *_) = sys.implementation.name, sys.version_info
    speedups = "compiled" if COMPILED else "python"
    return f"bridge {__version__} ({implementation} {major}.{minor}.{micro}, {sys.platform}), speedups: {speedups}"


def _fail(message: str, status: int, traceback: str = "") -> int:
    messages = _messages()
    if messages is not None:
        messages.fail(f"bridge: {message}", traceback)
    elif sys.stderr is not None:
        sys.stderr.write(f"{traceback}bridge: {message}\n")
    return status


def _messages() -> Any:
    """Return the module that writes messages in the configured form; None if the start has not loaded it yet."""
    messages = sys.modules.get("bridge.telemetry.messages")  # not imported: only a server needs it
    return messages if messages is not None and messages.has_form() else None
