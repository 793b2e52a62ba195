"""Mistakes that newcomers make, and how to correct them."""

from __future__ import annotations

import ast
import os
import re

__all__ = ["cure_for", "server_started_by", "taken_name"]

#: Classes whose instances have a method ``run`` that starts a server.
_RUNNERS = frozenset({"Flask", "Quart", "Bottle", "Sanic", "Dash", "FastAPI", "Litestar", "Starlette"})
#: Functions that start a server.
_STARTERS = frozenset(
    {"uvicorn.run", "waitress.serve", "hypercorn.run", "bottle.run", "web.run_app", "run_simple", "socketio.run",
     "bridge.run"}
)  # fmt: skip
_MAY_START = re.compile(rb"\brun\w*\s*\(|\bserve\s*\(")


def server_started_by(path: str) -> str:
    """Return what a file calls at its top level that starts another server, with the line; empty for nothing.

    The file is read, not run: the call would not return.

    Args:
        path: A file with Python source.
    """
    try:
        with open(path, "rb") as file:
            source = file.read()
        if _MAY_START.search(source) is None:
            return ""
        tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):  # the last two: nested too deeply
        return ""
    runners = set()
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Call):
            if ast.unparse(node.value.func).rpartition(".")[2] in _RUNNERS:
                runners |= {target.id for target in node.targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
            called = ast.unparse(node.value.func)
            owner, _, method = called.rpartition(".")
            if called in _STARTERS or (method == "run" and owner in runners):
                return f"line {node.lineno}, {called}()"
    return ""


def taken_name(name: str, directory: str) -> bool:
    """Tell whether the module *name* is one of the user's that this package stands in the way of."""
    first = name.partition(".")[0]
    if first != "bridge":
        return False
    ours = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    here = (os.path.join(directory, "bridge.py"), os.path.join(directory, "bridge", "__init__.py"))
    return any(os.path.isfile(path) and os.path.dirname(path) != ours for path in here)


def cure_for(exc: BaseException, text: str, directory: str) -> str:
    """Return advice for an exception of the application's import; empty if there is none.

    Args:
        exc: The exception.
        text: Its message.
        directory: The directory that modules are imported from.
    """
    if isinstance(exc, RuntimeError) and text == "no running event loop":
        return "applications are imported before the loop runs: move what needs it to the lifespan's startup"
    if isinstance(exc, ImportError) and "attempted relative import" in text:
        return (
            "the module is a part of a package: name it with the package, from the directory above,"
            " as package.module:attribute"
        )
    if isinstance(exc, ImportError) and (exc.name or "").partition(".")[0] == "bridge":
        if taken_name("bridge", directory):
            return "this project has a module of its own that is called bridge, as the server is; rename it"
        return "the name bridge is the server's own package"
    if isinstance(exc, KeyError) and "DJANGO_SETTINGS_MODULE" in text:
        return "name the settings: --env DJANGO_SETTINGS_MODULE=project.settings"
    if type(exc).__name__ == "ImproperlyConfigured" and "DJANGO_SETTINGS_MODULE" in text:
        return "name the settings: --env DJANGO_SETTINGS_MODULE=project.settings"
    return ""
