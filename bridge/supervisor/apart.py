"""A master in a separate process, for a program that may have imported the application's modules already.

Workers are forked, so they begin with the modules of their master. If the program were the master, a reload would run
the code that the program has imported, not the code in the files.
"""

from __future__ import annotations

import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple

from bridge.apps.loading import Deferred, load_target
from bridge.config import Config
from bridge.errors import ConfigError
from bridge.supervisor.channel import Channel
from bridge.supervisor.messages import FromProgram
from bridge.supervisor.program import Program

__all__ = ["live", "run_apart"]

_START = """\
import pickle, sys
_, given, line = sys.argv
with open(int(given), "rb") as file:
    sys.path[:] = pickle.load(file)
    from bridge.supervisor.apart import live
    task = pickle.load(file)
sys.exit(live(task, int(line)))
"""
_PASSED_ON = ("SIGINT", "SIGTERM", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGTTIN", "SIGTTOU")


class _Task(NamedTuple):
    """What the other process gets.

    Attributes:
        values: The settings by name.
        argv: The words of the program.
        main: The file of the program, or the name of its module, if workers can import it; else empty.
        prepare: Called first; picklable.
    """

    values: dict[str, Any]
    argv: list[str]
    main: str
    prepare: Callable[[], None] | None


def run_apart(config: Config, prepare: Callable[[], None] | None = None) -> int:
    """Serve ``config.target`` under a master of its own, until a signal asks for a stop; return the exit status.

    Signals that this process gets in its main thread are passed on. If it ends, the master stops.

    Args:
        config: The settings.
        prepare: The other process calls it first; picklable.

    Raises:
        ConfigError: A setting cannot be sent to another process.
    """
    values = {name: getattr(config, name) for name in config.rows}
    directory = os.getcwd()
    path = [entry or directory for entry in sys.path]
    try:
        given = pickle.dumps(path) + pickle.dumps(_Task(values, sys.argv, _main(), prepare))
    except (pickle.PicklingError, AttributeError, TypeError) as exc:
        raise ConfigError(f"a setting cannot be sent to another process: {exc}") from exc
    reading, writing = os.pipe()
    ours, theirs = socket.socketpair()
    passed = (reading, theirs.fileno())
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # multiprocessing does it so
    with ours, os.fdopen(writing, "wb") as file, _passing_on(Channel(ours)):
        process = subprocess.Popen(  # noqa: S603 - our own program
            [sys.executable, *flags, "-c", _START, *map(str, passed)], pass_fds=passed
        )
        os.close(reading)
        theirs.close()
        try:
            file.write(given)
            file.close()
        except BrokenPipeError:
            pass  # it has ended, and its status says so
        return process.wait()


@contextmanager
def _passing_on(line: Channel) -> Iterator[None]:
    """Send the signals that come meanwhile over *line*."""

    def pass_on(number: int, frame: FrameType | None) -> None:
        line.send(FromProgram.SIGNAL, signal.Signals(number).name)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in _PASSED_ON:
            number = getattr(signal, name, None)
            if number is not None:
                before[number] = signal.signal(number, pass_on)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _main() -> str:
    """Return what ``multiprocessing`` would import in its children as the program's main module."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return "" if spec.name == "__main__" or spec.name.endswith(".__main__") else str(spec.name)
    file = getattr(main, "__file__", None) or ""
    return os.path.abspath(file) if file.endswith(".py") and os.path.isfile(file) else ""


def live(task: _Task, line: int) -> int:
    """Live as that master; return the exit status.

    Args:
        task: What to do.
        line: The descriptor of the line to the program.
    """
    from bridge.supervisor.run import run
    from bridge.telemetry import messages

    program = Program(Channel(socket.socket(fileno=line)))
    sys.argv[:] = task.argv
    if task.prepare is not None:
        task.prepare()
    config = Config(**task.values)
    try:
        return run(config, Deferred(lambda: _load(config, task)), own_process=True, program=program)
    except ConfigError as exc:
        messages.fail(f"{getattr(exc, 'app_traceback', '')}bridge: {exc}")
        return 1
    except KeyboardInterrupt:
        return 0


def _load(config: Config, task: _Task) -> object:
    """Import the program's main module, as ``__mp_main__``, and the application."""
    if task.main:
        from multiprocessing import spawn

        kind = "init_main_from_path" if os.path.isabs(task.main) else "init_main_from_name"
        spawn.prepare({kind: task.main})
    return load_target(str(config.target), factory=config.factory, app_dir=config.app_dir)
