"""``bridge dev``: finds the application in the current directory, and serves it during development."""

from __future__ import annotations

import ast
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from bridge.apps.loading import TargetError
from bridge.errors import ConfigError

if TYPE_CHECKING:
    from bridge.authority import LocalCertificate

__all__ = ["Development", "Found", "development_words", "find"]

_MODULES = ("main", "app", "api", "wsgi", "asgi", "application", "server")
_CLASSES = frozenset(
    {"Flask", "FastAPI", "Starlette", "Quart", "Litestar", "Sanic", "Bottle", "Falcon", "Application",
     "ProtocolTypeRouter",      "Dash", "APIFlask"}
)  # fmt: skip
_MAKERS = frozenset({"get_wsgi_application", "get_asgi_application", "create_app", "make_app", "make_wsgi_app"})
_NAMES = ("application", "app", "api", "asgi", "wsgi")
_FACTORIES = ("create_app", "make_app")
_MOST_FILES = 100  # that are read if no module has a usual name; each takes about a millisecond


class Found(NamedTuple):
    """An application, and where it was found.

    Attributes:
        target: As for ``bridge run``.
        how: Where it was found, in words.
    """

    target: str
    how: str


class Development(NamedTuple):
    """What the arguments of ``bridge dev`` mean.

    Attributes:
        words: The arguments of ``bridge run``.
        found: The application that was found; None if it was named.
        authority: The file with the certificate of the local authority; empty without TLS.
    """

    words: list[str]
    found: Found | None
    authority: str = ""


def find(environ: Mapping[str, str]) -> Found:
    """Return the application of the project in the current directory. Nothing is imported.

    Raises:
        TargetError: There is none, or there are several.
    """
    for look in (_configured, _of_fastapi, _of_flask, _of_django):
        found = look(environ)
        if found is not None:
            return found
    candidates = _in_modules()
    if candidates:  # a module of the most usual name is meant
        place = candidates[0].how.partition(":")[0]
        candidates = [found for found in candidates if found.how.partition(":")[0] == place]
    else:
        candidates = _in_other_files()
    if not candidates:
        raise TargetError(
            "TARGET: no application was found in this directory: not in pyproject.toml, FLASK_APP, manage.py, nor in"
            f" {', '.join(name + '.py' for name in _MODULES)} or another *.py; name it, as in `bridge dev module:app`"
        )
    if len(candidates) > 1:
        names = " and ".join(found.target for found in candidates)
        raise TargetError(
            f"TARGET: there is more than one application: {names}; name one, as in `bridge dev {candidates[0].target}`"
        )
    return candidates[0]


def _configured(environ: Mapping[str, str]) -> Found | None:
    if environ.get("BRIDGE_TARGET"):
        return Found(environ["BRIDGE_TARGET"], "BRIDGE_TARGET")
    for path, keys in (("bridge.toml", ()), ("pyproject.toml", ("tool", "bridge"))):
        table = _table(path, *keys)
        if isinstance(table.get("target"), str):
            return Found(table["target"], path)
    return None


def _of_fastapi(environ: Mapping[str, str]) -> Found | None:
    entry = _table("pyproject.toml", "tool", "fastapi").get("entrypoint")
    return Found(entry, "[tool.fastapi] entrypoint") if isinstance(entry, str) else None


def _table(path: str, *keys: str) -> dict[str, str]:
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except (OSError, ValueError, RecursionError):  # no TOML, no UTF-8, nested too deeply
        return {}
    for key in keys:
        inner = table.get(key)
        table = inner if isinstance(inner, dict) else {}
    return table


def _of_flask(environ: Mapping[str, str]) -> Found | None:
    text = environ.get("FLASK_APP", "")
    if not text:
        return None
    module, colon, name = text.partition(":")
    if not colon:
        path = module if module.endswith(".py") else module.replace(".", os.sep) + ".py"
        if not os.path.isfile(path):
            path = os.path.join(module.replace(".", os.sep), "__init__.py")
        try:
            names = _applications(path)
        except SyntaxError as exc:
            raise _unreadable(path, exc) from exc
        name = names[0] if names else "app"
    return Found(f"{module}:{name}", "FLASK_APP")


def _of_django(environ: Mapping[str, str]) -> Found | None:
    try:
        with open("manage.py", encoding="utf-8") as file:
            text = file.read()
    except (OSError, UnicodeDecodeError):
        return None
    match = re.search(r"DJANGO_SETTINGS_MODULE['\"]\s*,\s*['\"]([\w.]+)['\"]", text)
    if match is None:
        return None
    package = match[1].rpartition(".")[0]
    while package:
        folder = package.replace(".", os.sep)
        has_asgi = os.path.isfile(os.path.join(folder, "asgi.py"))
        has_wsgi = os.path.isfile(os.path.join(folder, "wsgi.py"))
        if has_asgi and (_uses_asgi(folder) or not has_wsgi):
            return Found(f"{package}.asgi:application", "manage.py")
        if has_wsgi:
            return Found(f"{package}.wsgi:application", "manage.py")
        package = package.rpartition(".")[0]
    return None


def _uses_asgi(folder: str) -> bool:
    """Tell whether a project's asgi.py does more than Django's own: Channels' router, for one."""
    try:
        with open(os.path.join(folder, "asgi.py"), encoding="utf-8") as file:
            return "ProtocolTypeRouter" in file.read()
    except (OSError, UnicodeDecodeError):
        return False


def _in_modules() -> list[Found]:
    """Return the applications in the usual modules, those of the most usual module first."""
    found: list[Found] = []
    for folder in ("", "app", "src", "backend", "api"):
        for module in _MODULES:
            for path in (os.path.join(folder, module + ".py"), os.path.join(folder, module, "__init__.py")):
                if not os.path.isfile(path):
                    continue
                target = path
                if os.path.isfile(os.path.join(folder, "__init__.py")) or not folder:
                    target = path.removesuffix(".py").removesuffix(os.sep + "__init__").replace(os.sep, ".")
                try:
                    names = _applications(path)
                except SyntaxError as exc:
                    if found:
                        continue
                    raise _unreadable(path, exc) from exc  # no more usual module has an application: this one is meant
                found += [Found(f"{target}:{name}", f"{path}: {name}") for name in names]
    return found


def _unreadable(path: str, exc: SyntaxError) -> TargetError:
    where = f" in line {exc.lineno}" if exc.lineno else ""
    return TargetError(f"TARGET: {path}{where}: SyntaxError: {exc.msg}; mend it, or name the application")


def _in_other_files() -> list[Found]:
    """Return the applications in files of any name. None of the files takes precedence."""
    with os.scandir() as entries:
        names = sorted(
            entry.name for entry in entries if re.fullmatch(r"(?!test_|conftest|setup\.)[^\W\d]\w*\.py", entry.name)
        )
    found = []
    broken: TargetError | None = None
    for path in names[:_MOST_FILES]:
        try:
            found += [Found(f"{path.removesuffix('.py')}:{name}", f"{path}: {name}") for name in _applications(path)]
        except SyntaxError as exc:
            broken = broken or _unreadable(path, exc)
    if broken is not None and not found:
        raise broken
    return found


def _applications(path: str) -> list[str]:
    """Return the names of the applications that a file makes at its top level, or of its factory.

    Raises:
        SyntaxError: It is no Python.
    """
    try:
        with open(path, "rb") as file:
            tree = ast.parse(file.read())
    except (OSError, ValueError, RecursionError, MemoryError):  # the last two: nested too deeply
        return []
    names: list[str] = []
    functions: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(node.value, ast.Call):
            made = ast.unparse(node.value.func).rpartition(".")[2]
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            if made in _CLASSES | _MAKERS:
                names += [target.id for target in targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            functions.append(node.name)
    usual = [name for name in _NAMES if name in names]
    if usual:
        return (
            usual[:1]
            if len(names) == 1 or usual[0] == "application"
            else [*usual[:1], *sorted(set(names) - set(usual))]
        )
    if names:
        return names
    called = [name for name in _NAMES if name in functions]
    return called[:1] or [f"{name}()" for name in _FACTORIES if name in functions][:1]


def development_words(words: Sequence[str], environ: Mapping[str, str]) -> Development:
    """Return what the arguments of ``bridge dev`` mean.

    Raises:
        TargetError: No application is named, and none was found.
        ConfigError: An option is unknown, or --https is not possible.
    """
    from bridge.config.sources import from_command_line, split_config

    at = words.index("--") if "--" in words else len(words)
    options, rest = [word for word in words[:at] if word != "--https"], words[at:]
    layer = from_command_line(split_config([*options, *rest])[0])
    found = None if "target" in layer or "mount" in layer else find(environ)
    more = [] if found is None else [found.target]
    for name, option in (("reload", "--reload"), ("debug", "--debug")):
        if name not in layer:
            more.append(option)
    if "reload_include" not in layer:
        more += ["--reload-include", "*.html,*.jinja,*.jinja2,*.css,*.js,.env"]
    if "env_file" not in layer and os.path.isfile(".env"):
        from importlib.util import find_spec

        if find_spec("dotenv") is not None:
            more += ["--env-file", ".env"]
    authority = ""
    if len(options) < at:
        given = [layer[name].origin for name in _OTHER_CERTIFICATES if name in layer]
        if given:
            raise ConfigError(f"--https and {given[0]}: --https makes a certificate; leave one of them out")
        file, authority = _certificate([*options, *more, *rest], environ)
        more += ["--ssl-certfile", file, "--ssl-keyfile", file]
    return Development([*options, *more, *rest], found, authority)


_OTHER_CERTIFICATES = ("ssl_certfile", "ssl_keyfile", "ssl_context_factory", "ssl_sni")


def _certificate(words: Sequence[str], environ: Mapping[str, str]) -> LocalCertificate:
    """Return a certificate for the hosts that the server will listen on."""
    from bridge.authority import certificate_for
    from bridge.config.kinds import TCPAddress
    from bridge.config.sources import load

    addresses = load(words, environ).addresses
    return certificate_for([one.host for one in addresses if isinstance(one, TCPAddress)], environ)
