"""Imports the application that a target names, or explains in one line why that fails.

Two faults look alike: the target names something that does not exist, or it exists and its own code raised. Only the
second has a traceback that helps, and only the application's part of it does.
"""

from __future__ import annotations

import importlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Callable
from types import ModuleType

from bridge.apps.mistakes import cure_for, server_started_by, taken_name
from bridge.config.settings import option
from bridge.errors import ConfigError
from bridge.files import home

__all__ = ["Deferred", "TargetError", "load_target"]

BARE_MODULE_NAMES = ("application", "app", "asgi", "wsgi")
FACTORY_NAMES = ("create_app", "make_app")

_FILE = re.compile(r"(?P<file>.+\.py)(?::(?P<path>.*))?", re.DOTALL)
_CALL = re.compile(r"(?P<path>[^()]+)\((?P<arguments>.*)\)", re.DOTALL)
_Arguments = tuple[list[object], dict[str, object]]
_DOTTED = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")
_BRIDGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep


class TargetError(ConfigError):
    """The target cannot be loaded.

    Attributes:
        app_traceback: If the application's code raised, its part of the traceback, ending in a line feed; else empty.
    """

    def __init__(self, message: str, app_traceback: str = "") -> None:
        super().__init__(message)
        self.app_traceback = app_traceback


class Deferred:
    """An application that is made where it serves: in each worker, after the fork.

    Args:
        load: Returns the application.
    """

    def __init__(self, load: Callable[[], object]) -> None:
        self._load = load

    def load(self) -> object:
        """Return the application.

        Raises:
            TargetError: Its code raised, or it is None.
        """
        try:
            made = self._load()
        except TargetError:
            raise
        except (Exception, SystemExit) as exc:
            raise _raised("the application", "loading it", exc) from exc
        if made is None:
            raise TargetError("the application: loading it returned None")
        return made


def load_target(target: str, *, factory: bool, app_dir: str | None) -> object:
    """Import *target* and return the object it names.

    Args:
        target: ``module:attribute`` with dots on either side, ``module:factory()``, ``path/to/file.py:attribute`` (the
            path relative to the current directory), or a module or file alone, which means the first of its
            attributes application, app, asgi and wsgi.
        factory: Call the object without arguments and return the result, as the parentheses do.
        app_dir: The directory to put first on ``sys.path``; None for the current one.

    Raises:
        TargetError: The target is malformed or does not exist, or its code raised.
        ConfigError: *app_dir* is not a directory.
    """
    directory = os.path.normpath(os.path.join(home(), app_dir or ""))
    if app_dir is not None and not os.path.isdir(directory):  # --user may not be able to read the current one
        raise ConfigError(f"{option('app_dir')}: {app_dir!r} is not a directory")
    _put_first_on_path(directory)

    file = _FILE.fullmatch(target)
    if file is not None:
        name, path = _module_of_file(target, file["file"]), file["path"]
    else:
        name, colon, path = target.partition(":")
        _check_module_name(target, name)
        path = path if colon else None
    call = _CALL.fullmatch(path) if path is not None else None
    arguments: _Arguments = ([], {})
    if call is not None:
        path, arguments = call["path"], _literals(target, call["arguments"])
    if path is not None and _DOTTED.fullmatch(path) is None:
        raise TargetError(f"{target}: {path!r} is not attribute, attribute.attribute or factory()")

    _check_mistakes(target, name, directory)
    module = _import(target, name, directory)
    if file is not None:
        _check_origin(target, module, file["file"])
    found = _default_attribute(target, module, factory) if path is None else _attribute(target, module, path)
    if factory or call is not None:
        found = _call(target, found, arguments)
    if found is None:
        raise TargetError(f"{target}: this is None, not an application")
    _refuse_patches(target)
    return found


def _refuse_patches(target: str) -> None:
    """Refuse an application that has patched what the server runs on: the server would start, and answer nobody."""
    for module, check, modules in (
        ("gevent.monkey", "is_module_patched", ("socket", "select", "thread", "threading")),
        ("eventlet.patcher", "is_monkey_patched", ("socket", "select", "thread")),
    ):
        patched = getattr(sys.modules.get(module), check, None)
        if patched is not None and any(patched(name) for name in modules):
            package = module.partition(".")[0]
            raise TargetError(
                f"{target}: the application has let {package} replace sockets and threads, which the server needs as"
                f" they are; leave the call out (monkey.patch_all, monkey_patch): WSGI runs in real threads here"
            )


# --- the module ------------------------------------------------------------------------------------------------------


def _put_first_on_path(directory: str) -> None:
    if sys.path[:1] != [directory]:
        sys.path.insert(0, directory)


def _check_mistakes(target: str, name: str, directory: str) -> None:
    """Refuse a module with a mistake that its import would not report."""
    if taken_name(name, directory):
        raise TargetError(f"{target}: the name 'bridge' is taken by the server; rename the module in {directory}")
    if name in sys.modules:
        return
    path = os.path.join(directory, *name.split(".")) + ".py"
    started = server_started_by(path)
    if started:
        raise TargetError(
            f"{target}: {path}, {started} starts another server when the module is imported;"
            " put it under: if __name__ == '__main__':"
        )


def _check_module_name(target: str, name: str) -> None:
    if _DOTTED.fullmatch(name) is not None:
        return
    if "/" in name or os.sep in name:
        raise TargetError(f"{target}: {name!r} is not a module; write a file as path/to/file.py:attribute")
    raise TargetError(f"{target}: {name!r} is not a module; a target is module:attribute or path/to/file.py:attribute")


def _module_of_file(target: str, file: str) -> str:
    """Return the module name to import *file* by, and make that import possible.

    A file inside packages gets its full dotted name, so that its relative imports work.
    """
    path = os.path.normpath(os.path.join(home(), file))
    directory, base = os.path.split(path)
    if not os.path.isfile(path):
        there = [name for name in _listdir(directory) if name.endswith(".py")]
        raise TargetError(f"{target}: there is no file {path}{_nearest(base, there)}")
    parts = [base.removesuffix(".py")]
    while os.path.isfile(os.path.join(directory, "__init__.py")):
        directory, package = os.path.split(directory)
        parts.insert(0, package)
    if parts[-1] == "__init__" and len(parts) > 1:
        parts.pop()
    if "." in parts[-1]:
        raise TargetError(f"{target}: a file with more than one dot in its name cannot be imported: {base}")
    _put_first_on_path(directory)
    return ".".join(parts)


def _check_origin(target: str, module: ModuleType, file: str) -> None:
    """Refuse a module that came from another file: the standard library, for one, may have the same name."""
    origin = getattr(module, "__file__", None)
    if origin is None or not os.path.samefile(origin, os.path.join(home(), file)):
        raise TargetError(
            f"{target}: the name of this file is taken by module {module.__name__!r}"
            f" from {origin or 'the interpreter'}; rename the file"
        )


def _import(target: str, name: str, directory: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        missing = exc.name or ""
        if (name == missing or name.startswith(missing + ".")) and not _app_frames(exc):
            raise TargetError(_not_found(target, name, missing, directory)) from None
        raise _raised(target, f"importing module {name!r}", exc) from exc
    except (Exception, SystemExit) as exc:
        raise _raised(target, f"importing module {name!r}", exc) from exc


def _not_found(target: str, name: str, missing: str, directory: str) -> str:
    """Return the message: what is missing, and what exists beside it."""
    parent, _, last = missing.rpartition(".")
    if not parent:
        closed = "" if os.access(directory, os.R_OK | os.X_OK) else ", which is not there or closed to this user,"
        return f"{target}: there is no module {missing!r} in {directory}{closed} or on the import path" + _nearest(
            last, _modules_in([directory])
        )
    package = sys.modules[parent]  # importing its child has imported it
    if hasattr(package, last):
        attribute = name.removeprefix(parent + ".")
        return f"{target}: {parent!r} has no module {last!r} but an attribute; did you mean {parent}:{attribute}?"
    paths = getattr(package, "__path__", None)
    if paths is None:
        return f"{target}: there is no module {missing!r}: {parent!r} is a module, not a package"
    there = [f"{parent}.{found}" for found in _modules_in(list(paths))]
    return f"{target}: there is no module {missing!r} in package {parent!r} ({next(iter(paths))})" + _nearest(
        missing, there
    )


def _modules_in(directories: list[str]) -> list[str]:
    from pkgutil import iter_modules

    return [module.name for module in iter_modules(directories)]


def _listdir(directory: str) -> list[str]:
    return sorted(os.listdir(directory)) if os.path.isdir(directory) else []


# --- the attribute ---------------------------------------------------------------------------------------------------


_MISSING = object()


def _default_attribute(target: str, module: ModuleType, factory: bool) -> object:
    names = BARE_MODULE_NAMES + (FACTORY_NAMES if factory else ())
    for name in names:
        found = _getattr(target, module, name)
        if found is not None and not isinstance(found, ModuleType):
            return found
    wanted = ", ".join(names[:-1]) + " or " + names[-1]
    raise TargetError(
        f"{target}: module {module.__name__!r} has no attribute {wanted}{_nearest('application', _public(module))};"
        f" a target is module:attribute"
    )


def _attribute(target: str, module: ModuleType, path: str) -> object:
    found: object = module
    where = f"module {module.__name__!r} ({getattr(module, '__file__', None) or 'built in'})"
    for name in path.split("."):
        value = _getattr(target, found, name, _MISSING)
        if value is _MISSING:
            raise TargetError(f"{target}: {where} has no attribute {name!r}{_nearest(name, _public(found))}")
        found, where = value, f"{name!r}, which is of type {type(value).__name__!r},"
    return found


def _getattr(target: str, owner: object, name: str, default: object = None) -> object:
    try:
        return getattr(owner, name, default)
    except Exception as exc:  # a property, or a module's __getattr__, is the application's code
        raise _raised(target, f"reading attribute {name!r}", exc) from exc


def _public(owner: object) -> list[str]:
    return [name for name in dir(owner) if not name.startswith("_")]


def _literals(target: str, text: str) -> _Arguments:
    """Return the arguments of ``factory("text", debug=True)``: literals only, for nothing is evaluated."""
    import ast

    try:
        call = ast.parse(f"f({text})", mode="eval").body
        assert isinstance(call, ast.Call)
        values = [ast.literal_eval(node) for node in call.args]
        named = {node.arg: ast.literal_eval(node.value) for node in call.keywords if node.arg is not None}
        if len(named) < len(call.keywords):
            raise ValueError(text)
    except (SyntaxError, ValueError, AssertionError):
        raise TargetError(f"{target}: the arguments of a factory are texts, numbers, True, False and None") from None
    return values, named


def _call(target: str, factory: object, arguments: _Arguments) -> object:
    values, named = arguments
    name = getattr(factory, "__name__", None) or type(factory).__name__
    if not callable(factory):
        raise TargetError(f"{target}: this is no factory: its type is {name!r}, which cannot be called")
    try:
        inspect.signature(factory).bind(*values, **named)
    except TypeError as exc:
        how = "with these arguments" if values or named else "without arguments"
        raise TargetError(f"{target}: factory {name!r} cannot be called {how}: {_one_line(exc)}") from None
    except ValueError:
        pass  # it has no signature that could be checked
    try:
        made: object = factory(*values, **named)
    except (Exception, SystemExit) as exc:
        raise _raised(target, f"calling factory {name!r}", exc) from exc
    if inspect.iscoroutine(made):
        made.close()
        raise TargetError(f"{target}: factory {name!r} is a coroutine function; it must be a plain function")
    return made


# --- messages --------------------------------------------------------------------------------------------------------


def _nearest(name: str, candidates: list[str]) -> str:
    """Return a hint: similar candidates, else the candidates that exist, else nothing."""
    from difflib import get_close_matches

    near = get_close_matches(name, candidates, n=3)
    if near:
        return "; did you mean " + " or ".join(map(repr, near)) + "?"
    if not candidates:
        return ""
    return "; there is " + ", ".join(candidates[:8]) + (" ..." if len(candidates) > 8 else "")


def _one_line(exc: BaseException) -> str:
    lines = str(exc).splitlines() or [""]
    return lines[0] if len(lines[0]) <= 200 else lines[0][:197] + "..."


def _raised(target: str, doing: str, exc: BaseException) -> TargetError:
    text = _one_line(exc)
    what = f"{type(exc).__name__}: {text}" if text else type(exc).__name__
    cure = cure_for(exc, text, sys.path[0])
    if cure:
        what += f"; {cure}"
    return TargetError(f"{target}: {doing} raised {what}", _app_traceback(exc))


def _is_ours(filename: str) -> bool:
    """Tell whether a frame belongs to the import machinery or to bridge, not to the application."""
    return filename.startswith("<frozen importlib") or filename == importlib.__file__ or filename.startswith(_BRIDGE)


def _app_frames(exc: BaseException) -> bool:
    return any(not _is_ours(frame.f_code.co_filename) for frame, _ in traceback.walk_tb(exc.__traceback__))


def _app_traceback(exc: BaseException) -> str:
    """Format *exc* and its causes, with the application's frames only."""
    whole = traceback.TracebackException.from_exception(exc)
    pending: list[traceback.TracebackException] = [whole]
    while pending:
        part = pending.pop()
        part.stack[:] = [frame for frame in part.stack if not _is_ours(frame.filename)]
        related = (part.__cause__, part.__context__, *(part.exceptions or ()))
        pending += [other for other in related if other is not None]
    return "".join(whole.format())
