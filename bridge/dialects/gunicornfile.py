"""Where gunicorn's settings come from: variables, a configuration file in Python, and the command line.

``gunicorn.py`` has the table of what each setting becomes.
"""

from __future__ import annotations

import importlib
import inspect
import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from bridge.config.hooks import POINTS
from bridge.dialects.files import in_words, names_of_module, names_of_program, shown
from bridge.dialects.parsing import last_of_each, parse
from bridge.dialects.table import Fate, Grammar, Option, Row, Takes, Translation, Usage, row

__all__ = ["SCRIPT_NAME", "checked", "file_settings", "options", "require_target"]

#: The numbers of arguments that a function in a file may have, where gunicorn allows more than one.
_ARITIES = {"post_request": {2, 3, 4}, "ssl_context": {2}}
_FREE = frozenset(
    {"worker_class", "logger_class", "logconfig_dict", "secure_scheme_headers", "proxy_protocol", "ssl_version",
     "cert_reqs", "umask"}
)  # fmt: skip
#: A variable that says where a WSGI application is mounted.
SCRIPT_NAME = row("SCRIPT_NAME", Fate.SAME, "root_path", takes=Takes.FILE_ONLY, convert=lambda value, t: None)
_ADDRESS_LISTS = frozenset({"forwarded_allow_ips", "proxy_allow_ips", "uwsgi_allow_ips"})


def options(rows: Sequence[Row], words: Sequence[str], environ: Mapping[str, str]) -> list[Option]:
    """Return what was given, in gunicorn's order of precedence: variables, the file, GUNICORN_CMD_ARGS, *words*.

    Raises:
        Usage: gunicorn itself would refuse it.
        ConfigError: The file cannot be read, or raises.
    """
    by_name = {row.name: row for row in rows}
    found = _variables(by_name, environ)
    if "--version" in words or "-v" in words:
        raise Usage("--version: run `bridge --version`")
    given, arguments = parse(rows, words, Grammar.ARGPARSE)
    extra, more = parse(rows, shlex.split(environ.get("GUNICORN_CMD_ARGS", "")), Grammar.ARGPARSE)
    extra = [option._replace(origin=f"GUNICORN_CMD_ARGS {option.origin}") for option in extra]
    arguments = arguments or more
    path = next((str(option.value) for option in [*given[::-1], *extra[::-1]] if option.row.name == "config"), None)
    from_file = file_settings(rows, path, _directory([*extra, *given]))
    found += from_file
    found += extra
    found += given
    if arguments:  # gunicorn ignores further words
        found.append(Option(by_name["wsgi_app"], arguments[0], "APP_MODULE"))
    return [checked(option) for option in last_of_each(found)]


def _directory(given: Sequence[Option]) -> str | None:
    return next((str(option.value) for option in reversed(given) if option.row.name == "chdir"), None)


def _variables(by_name: Mapping[str, Row], environ: Mapping[str, str]) -> list[Option]:
    found = []
    for variable, name in (("WEB_CONCURRENCY", "workers"), ("FORWARDED_ALLOW_IPS", "forwarded_allow_ips")):
        if environ.get(variable):
            found.append(Option(by_name[name], environ[variable], variable))
    if environ.get("SCRIPT_NAME"):
        found.append(Option(SCRIPT_NAME, environ["SCRIPT_NAME"], "SCRIPT_NAME"))
    if environ.get("PORT"):
        found.append(Option(by_name["bind"], [f"0.0.0.0:{environ['PORT']}"], "PORT"))
    return found


def file_settings(rows: Sequence[Row], path: str | None, chdir: str | None = None) -> list[Option]:
    """Return the settings in a configuration file. Names that are not settings are ignored.

    Args:
        rows: The settings.
        path: The file, ``file:PATH`` or ``python:MODULE``; None for ``gunicorn.conf.py`` if it is there.
        chdir: The directory that the server changes to; its modules can be imported.

    Raises:
        ConfigError: It cannot be read, or raises.
    """
    here = os.path.abspath(chdir or os.curdir)
    if here not in sys.path:
        sys.path.insert(0, here)
    if path is None:
        path = "./gunicorn.conf.py"
        if not os.path.isfile(path):
            return []
    named = path
    if path.startswith("python:"):
        values = names_of_module(path.removeprefix("python:"))
    else:
        values = names_of_program(path.removeprefix("file:"), "__config__")
    known = [row for row in rows if row.name in values and row.name != "config"]
    return [Option(row, values[row.name], f"{named}: {row.name}") for row in known]


# --- values ----------------------------------------------------------------------------------------------------------


def checked(option: Option) -> Option:
    """Return *option* with its value in the type that the setting has.

    Raises:
        Usage: gunicorn would refuse it.
    """
    row, value = option.row, option.value
    try:
        return option._replace(value=_converted(row, value))
    except Exception as exc:  # from the value itself, too: its class may be the file's own
        raise Usage(f"Invalid value for {row.name}: {shown(value)} ({option.origin}): {in_words(exc)}") from None


def _converted(row: Row, value: Any) -> Any:
    if row.becomes in {"hooks", "ssl_context_factory"} or row.name.endswith(
        ("dirty_starting", "post_fork", "worker_init")
    ):
        return _function(row.name, value)
    if row.name in _FREE:
        return value
    if row.takes is Takes.INT:
        return _positive(value)
    if row.takes is Takes.FLAG:
        return _boolean(value)
    if row.takes is Takes.LIST:
        if value is None:
            return []
        items = value if isinstance(value, list | tuple) else [value]
        if not all(isinstance(item, str) for item in items):
            raise TypeError("not a list of strings")
        return [item.strip() for item in items]
    if row.name in _ADDRESS_LISTS or row.name in {"user", "group"}:
        if isinstance(value, list | tuple):
            raise TypeError("a string of addresses, not a list")
        return value if value is None or isinstance(value, int) else str(value).strip()
    if value is None:
        return None
    if not isinstance(value, str):
        if row.takes is Takes.FILE_ONLY:
            return value
        if not hasattr(value, "__fspath__"):
            raise TypeError("not a string")
        return os.fspath(value)
    return value.strip()


def _positive(value: Any) -> int:
    if isinstance(value, bool | int):
        number = int(value)
    elif isinstance(value, str):
        number = int(value, 0)
    else:
        raise TypeError("not an integer")
    if number < 0:
        raise ValueError("must be positive")
    return number


def _boolean(value: Any) -> bool:
    if value is None:
        return False
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.strip().lower() in {"true", "false"}:
        return value.strip().lower() == "true"
    raise TypeError("not a boolean")


def _function(name: str, value: Any) -> Any:
    if isinstance(value, str):
        module, _, attribute = value.rpartition(".")
        try:
            value = getattr(importlib.import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as exc:
            raise TypeError(f"not a function: {exc}") from None
    if not callable(value):
        raise TypeError("not a function")
    allowed = _ARITIES.get(name) or {POINTS.get(name, 0)}
    try:
        parameters = list(inspect.signature(value).parameters.values())
    except (TypeError, ValueError):
        return value
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return value
    plain = [p for p in parameters if p.kind in {p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD}]
    required = sum(parameter.default is parameter.empty for parameter in plain)
    if name in POINTS | _ARITIES and not any(required <= number <= len(plain) for number in allowed):
        raise TypeError(f"must have an arity of: {min(allowed)}")
    return value


def require_target(t: Translation) -> None:
    """Raise Usage if no application is named, unless only the settings are wanted."""
    if not (t.check_only or t.print_only):
        raise Usage("No application module specified.")
