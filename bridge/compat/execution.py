"""``bridge exec COMMAND``: runs a program with the stand-ins in place."""

from __future__ import annotations

import os
import runpy
import shutil
import sys
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points
from types import TracebackType

from bridge.compat import install
from bridge.dialects import NAMES
from bridge.errors import ConfigError

__all__ = ["execute"]

_INTERRUPTED = 130
_USAGE = """\
usage: bridge exec COMMAND [ARGS...]

Runs a program that starts uvicorn, hypercorn, waitress or gunicorn itself. bridge serves instead of that server.

  bridge exec fastapi run                 a console script
  bridge exec -m mlflow server            a module
  bridge exec python app.py               a file; also: bridge exec app.py
"""


def execute(words: Sequence[str]) -> int:
    """Run the command *words* in this process, with the stand-ins in place; return its exit status.

    Raises:
        ConfigError: There is no such command, or it is no Python program.
    """
    words = list(words)
    if not words or words[0] in {"--help", "-h"}:
        print(_USAGE, end="")
        return 0 if words else 2
    if os.path.basename(words[0]).startswith("python") and len(words) > 1:
        words = words[1:]
    install()
    _reach_children()
    try:
        return _run(words)
    except SystemExit as exc:
        if exc.code is None or isinstance(exc.code, int):
            return exc.code or 0
        sys.stderr.write(f"{exc.code}\n")
        return 1
    except KeyboardInterrupt:  # Ctrl-C ends the server gracefully, and servers raise it again at their end
        return _INTERRUPTED
    except ConfigError:
        raise
    except Exception as exc:
        part = _program_part(exc.__traceback__)
        sys.excepthook(type(exc), exc.with_traceback(part), part)
        return 1


def _program_part(found: TracebackType | None) -> TracebackType | None:
    """Return a traceback without its first frames, in which bridge calls the program."""
    ours = {__file__, runpy.__file__, "<frozen runpy>"}
    part = found
    while part is not None and part.tb_frame.f_code.co_filename in ours:
        part = part.tb_next
    return part


def _reach_children() -> None:
    """Give the stand-ins to Python programs that the command starts, too: MLflow starts its server that way."""
    folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "children")
    before = os.environ.get("PYTHONPATH", "")
    if folder not in before.split(os.pathsep):
        os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (folder, before)))


def _run(words: list[str]) -> int:
    name = words[1] if words[0] == "-m" and len(words) > 1 else os.path.basename(words[0])
    if name in NAMES or name == "waitress":
        from bridge.dialects.command import serve

        server = "waitress-serve" if name == "waitress" else name
        return serve(server, words[2 if words[0] == "-m" else 1 :], os.environ, own_process=True)
    command, *rest = words
    if command == "-m":
        if not rest:
            raise ConfigError("exec -m: needs the name of a module")
        sys.path.insert(0, os.getcwd())
        sys.argv[:] = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        return 0
    if command == "-c":
        if not rest:
            raise ConfigError("exec -c: needs a program")
        sys.path.insert(0, os.getcwd())
        sys.argv[:] = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})  # noqa: S102 - as python -c does
        return 0
    sys.argv[:] = words
    if command.endswith(".py") or (os.sep in command and os.path.isfile(command)):
        if not os.path.isfile(command):
            raise ConfigError(f"exec {command}: there is no such file")
        _run_file(command)
        return 0
    script = _script(command)
    if script is not None:
        result = script.load()()
        return result if isinstance(result, int) else 0
    path = shutil.which(command)
    if path is None:
        raise ConfigError(
            f"exec {command}: there is no such command in PATH or in the packages of {sys.prefix}; install it there, or"
            " write a module as -m NAME, a file as NAME.py"
        )
    with open(path, "rb") as file:
        if b"python" not in file.readline(200):
            raise ConfigError(f"exec {command}: {path} is not a Python program, so bridge cannot replace its server")
    _run_file(path)
    return 0


def _run_file(path: str) -> None:
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    runpy.run_path(path, run_name="__main__")


def _script(name: str) -> EntryPoint | None:
    found = entry_points(group="console_scripts", name=name)
    return next(iter(found), None)
