"""uWSGI's command line and its .ini files."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence

from bridge.dialects.files import read
from bridge.dialects.table import Option, Row, Takes, Usage
from bridge.errors import ConfigError

__all__ = ["options"]

_SHORT = {
    "-p": "processes",
    "-s": "socket",
    "-H": "home",
    "-w": "module",
    "-M": "master",
    "-l": "listen",
    "-L": "disable-logging",
    "-d": "daemonize",
    "-z": "socket-timeout",
    "-b": "buffer-size",
    "-T": "enable-threads",
    "-i": "single-interpreter",
    "-R": "max-requests",
    "-x": "xml",
    "-t": "harakiri",
    "-C": "chmod-socket",
}
_FLAGS = frozenset(
    [
        "master",
        "enable-threads",
        "disable-logging",
        "single-interpreter",
        "vacuum",
        "die-on-term",
        "need-app",
        "lazy-apps",
        "lazy",
        "strict",
        "thunder-lock",
        "manage-script-name",
        "no-orphans",
        "reuse-port",
        "http-keepalive",
        "log-x-",
        "forwarded-for",
        "log-master",
        "harakiri-verbose",
        "http-auto-chunked",
        "wsgi-disable-file-wrapper",
        "auto-",
        "procname",
        "py-call-osafterfork",
        "cheap",
        "ignore-sigpipe",
        "ignore-write-errors",
        "disable-write-exception",
        "memory-report",
        "show-config",
        "vhost",
        "close-on-exec",
        "catch-exceptions",
        "honour-stdin",
        "so-keepalive",
        "tcp-",
        "nodelay",
    ]
)


def options(rows: Mapping[str, Row], words: Sequence[str], environ: Mapping[str, str]) -> list[Option]:
    """Return the options of files and of the command line, which come in the order they are written."""
    found: list[Option] = []
    words = list(words)
    while words:
        word = words.pop(0)
        if not word.startswith("-"):
            found += (
                _file(rows, word, environ)
                if word.endswith(".ini") or (":" in word and ".ini" in word)
                else _bare(rows, word)
            )
            continue
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
        else:
            name, equals, value = _SHORT.get(word[:2], word[1:2]), word[2:], word[2:]
        if not equals:
            follows = words[0] if words else ""
            takes_value = name not in _FLAGS and follows and not follows.startswith("-")
            value = words.pop(0) if takes_value else "true"
        if name == "ini":
            found += _file(rows, value, environ)
        else:
            found.append(_option(rows, name, value, f"--{name}"))
    joined: dict[str, Option] = {}
    for option in found:
        before = joined.get(option.row.name)
        if option.row.takes is Takes.LIST:
            option = option._replace(value=[*(before.value if before else []), option.value])  # noqa: PLW2901 - the same
        joined[option.row.name] = option
    order = ["protocol"]
    return sorted(joined.values(), key=lambda option: option.row.name not in order)


def _bare(rows: Mapping[str, Row], word: str) -> list[Option]:
    if word.startswith((":", "127.", "0.")):
        return [_option(rows, "socket", word, "ADDRESS")]
    if word.endswith((".py", ".wsgi")):
        return [_option(rows, "wsgi-file", word, "FILE")]
    raise Usage(f"{word}: this is neither an .ini file nor a Python file")


def _option(rows: Mapping[str, Row], name: str, value: str, origin: str) -> Option:
    name = name.replace("_", "-") if name.replace("_", "-") in rows else name
    found = rows.get(name)
    if found is None:
        from difflib import get_close_matches

        near = get_close_matches(name, rows, n=1)
        raise Usage(f"unrecognized option '--{name}'" + (f"; did you mean {near[0]}?" if near else "") + f" ({origin})")
    return Option(found, value, origin)


def _file(rows: Mapping[str, Row], path: str, environ: Mapping[str, str], depth: int = 0) -> list[Option]:
    """Return the options in the section ``[uwsgi]`` of an .ini file, or in another one: ``file.ini:section``."""
    name, _, section = path.partition(":") if ".ini:" in path else (path, "", "")
    section = section or "uwsgi"
    try:
        text = read(name).decode()
    except UnicodeDecodeError as exc:
        raise ConfigError(f"{name}: {exc}") from exc
    found: list[Option] = []
    place: dict[str, str] = {}
    inside = skips = False
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line[0] in "#;":
            continue
        if line.startswith("["):
            inside = line == f"[{section}]"
            continue
        if not inside:
            continue
        key, equals, value = line.partition("=")
        key, value = key.strip(), value.strip() if equals else "true"
        value = _expanded(value, os.path.abspath(name), place, environ)
        if key in {"if-env", "if-not-env", "if-exists", "if-file", "if-dir"}:
            here = (
                os.path.exists(value)
                if key.startswith(("if-exists", "if-file", "if-dir"))
                else bool(environ.get(value))
            )
            skips = here if key == "if-not-env" else not here
            place["_"] = environ.get(value, value) if key == "if-env" else value
        elif key == "endif":
            skips = False
        elif skips:
            continue
        elif key == "ini" and depth < 8:
            found += _file(rows, os.path.join(os.path.dirname(name), value), environ, depth + 1)
        elif key in {"set-placeholder", "set", "set-ph"}:
            variable, _, content = value.partition("=")
            place[variable.strip()] = content.strip()
        elif key not in rows and key.replace("_", "-") not in rows and _is_placeholder(key, text):
            place[key] = value
        else:
            place[key] = value
            found.append(_option(rows, key, value, f"{name}:{number} {key}"))
    return found


def _is_placeholder(key: str, text: str) -> bool:
    return f"%({key})" in text


def _expanded(value: str, path: str, place: Mapping[str, str], environ: Mapping[str, str]) -> str:
    """Replace ``%(name)``, ``$(VARIABLE)``, ``@(file)`` and uWSGI's letters such as ``%d`` and ``%k``."""
    from bridge.config.process import usable_cpus

    folder, base = os.path.split(path)
    letters = {"%p": path, "%d": folder + "/", "%s": base, "%n": base.rpartition(".")[0],
               "%c": os.path.basename(folder),
               "%k": str(usable_cpus()), "%v": os.getcwd(), "%h": os.uname().nodename, "%u": str(os.getuid()),
               "%%": "%"}  # fmt: skip
    value = re.sub(r"%\(([^)]+)\)", lambda match: place.get(match[1].strip(), match[0]), value)
    value = re.sub(r"\$\(([^)]+)\)", lambda match: environ.get(match[1], ""), value)
    return re.sub(r"%[pdsnckvhu%]", lambda match: letters[match[0]], value)
