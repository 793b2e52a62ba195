"""Stand-ins for other servers, for programs that start a server themselves.

::

    import bridge.compat
    bridge.compat.install("uvicorn")

    import uvicorn                      # the installed package, or a stand-in if there is none
    uvicorn.run("app:app", port=8080)   # serves with bridge

``bridge exec COMMAND`` does this before it runs a command.
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

__all__ = ["SERVERS", "install", "install_missing"]

#: The servers that have a stand-in.
SERVERS = ("uvicorn", "hypercorn", "waitress", "gunicorn")
#: Those whose stand-in is in place.
installed: list[str] = []


def install(*names: str) -> None:
    """Let programs that import these servers start bridge.

    An installed server keeps its module. Only what starts the server is replaced.

    Args:
        *names: Names in SERVERS; no names for all of them.

    Raises:
        ValueError: There is no stand-in for a name.
    """
    for name in names or SERVERS:
        if name not in SERVERS:
            raise ValueError(f"there is no stand-in for {name!r}; there are {', '.join(SERVERS)}")
        import_module(f"{__name__}.{name}").install()
        if name not in installed:
            installed.append(name)


def install_missing(name: str) -> None:
    """Let programs import the server *name* if it is not installed."""
    if find_spec(name) is None:
        install(name)


def importable(name: str) -> ModuleType | None:
    """Return the module *name*; None if it is not installed."""
    try:
        return import_module(name)
    except ImportError:
        return None


def put_in_place(places: dict[str, dict[str, Any]]) -> None:
    """Set attributes of modules. Make the modules that are not installed.

    Args:
        places: Module name -> its new attributes. A package comes before its modules.
    """
    import sys

    for name, attributes in places.items():
        module = sys.modules.get(name)
        if module is None:
            package = name.partition(".")[0]
            made = getattr(sys.modules.get(package), "__stand_in__", False)
            try:
                module = None if made else import_module(name)
            except ImportError:
                module = None
            if module is None:
                module = ModuleType(name)
                module.__stand_in__ = True  # type: ignore[attr-defined]  # so that its submodules are made, too
                module.__path__ = []
                sys.modules[name] = module
                parent, _, last = name.rpartition(".")
                if parent:
                    setattr(sys.modules[parent], last, module)
        for attribute, value in attributes.items():
            setattr(module, attribute, value)
