"""Reads the files that other servers' command lines name, and runs those that are Python programs."""

from __future__ import annotations

import importlib.util
import os
import sys
from importlib.machinery import SourceFileLoader
from traceback import extract_tb
from typing import Any

from bridge.errors import ConfigError

__all__ = ["in_words", "names_of_module", "names_of_program", "read", "shown"]

_MOST = 16 << 20  # bytes of a file; a device such as /dev/zero never ends
_LONGEST = 300  # characters of a message or a value that are shown


def read(path: str) -> bytes:
    """Return the content of a file.

    Raises:
        ConfigError: It cannot be read, or is larger than 16 MiB.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_MOST + 1)
    except (OSError, ValueError) as exc:  # ValueError: NUL in the name
        raise ConfigError(f"{shown(path)}: {getattr(exc, 'strerror', None) or exc}") from exc
    if len(content) > _MOST:
        raise ConfigError(f"{shown(path)}: more than {_MOST >> 20} MiB: this is no configuration file")
    return content


def names_of_program(path: str, name: str) -> dict[str, Any]:
    """Run the program *path* as the module *name*, and return its names.

    The current directory does not change, so relative paths keep their meaning, also at a reload.

    Raises:
        ConfigError: It cannot be read, or raises; SystemExit counts.
    """
    source = read(path)
    file = os.path.abspath(path)
    spec = importlib.util.spec_from_loader(name, SourceFileLoader(name, file), origin=file)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = file
    sys.modules[name] = module  # classes of the file must be importable where they are pickled or looked up
    before = os.getcwd()
    try:
        exec(compile(source, file, "exec"), vars(module))  # noqa: S102 - its owner asks to run it
    except KeyboardInterrupt:
        raise
    except BaseException as exc:
        lines = [frame.lineno for frame in extract_tb(exc.__traceback__) if frame.filename == file]
        where = f" in line {lines[-1]}" if lines else ""
        raise ConfigError(f"{path}{where}: {in_words(exc)}") from exc
    finally:
        os.chdir(before)
    return dict(vars(module))


def names_of_module(name: str) -> dict[str, Any]:
    """Import the module *name*, or the object ``module.name``, and return its names.

    Raises:
        ConfigError: There is no such module, or it raises; SystemExit counts.
    """
    before = os.getcwd()
    try:
        found: Any
        try:
            found = importlib.import_module(name)
        except ModuleNotFoundError as exc:
            module, _, attribute = name.rpartition(".")
            if not module or exc.name != name:
                raise
            found = getattr(importlib.import_module(module), attribute)
    except KeyboardInterrupt:
        raise
    except BaseException as exc:
        raise ConfigError(f"python:{name}: {in_words(exc)}") from exc
    finally:
        os.chdir(before)
    return {key: getattr(found, key) for key in dir(found) if not key.startswith("__")}


def in_words(exc: BaseException) -> str:
    """Return the type and the message of an exception in one line, and what to do if that is known."""
    try:
        text = _cut(" ".join(str(exc).split()))
    except Exception:  # the exception is the program's own
        text = ""
    cure = ""
    if isinstance(exc, ModuleNotFoundError) and (exc.name or "").partition(".")[0] == "gunicorn":
        cure = "; bridge has a stand-in for the usual parts of gunicorn only: install gunicorn for this one"
    return f"{type(exc).__name__}{': ' if text else ''}{text}{cure}"


def shown(value: object) -> str:
    """Return a value from a file as text for a message: one line, cut to length, even if its ``__repr__`` fails."""
    try:
        return _cut(repr(value))
    except Exception:  # the value is the program's own; a number of 5000 digits raises, too
        return f"<{type(value).__name__}>"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else text[: _LONGEST - 3] + "..."
