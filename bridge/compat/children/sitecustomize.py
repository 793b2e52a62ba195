"""Puts the stand-ins in place in Python programs that a command under ``bridge exec`` starts.

The interpreter imports this at its start, since the folder is on PYTHONPATH. Nothing else is imported before the
program imports one of the servers.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

_HERE = os.path.dirname(os.path.abspath(__file__))
_SERVERS = {"uvicorn", "hypercorn", "waitress", "gunicorn"}


class _Finder:
    """Finds the servers as usual. When one is imported, it puts the stand-in in place."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        """Return the usual spec, with a loader that adds the stand-in (``importlib.abc.MetaPathFinder``)."""
        if name not in _SERVERS:
            return None
        spec = PathFinder.find_spec(name, path)
        if spec is None or spec.loader is None:
            return None
        loader: Any = spec.loader
        usual = loader.exec_module

        def exec_module(module: ModuleType) -> None:
            _SERVERS.discard(name)
            usual(module)
            try:
                from bridge.compat import install
            except ImportError:
                return  # another environment, without bridge
            install(name)

        loader.exec_module = exec_module
        return spec


def _import_next() -> None:
    """Import the ``sitecustomize`` that this one hides, if there is one."""
    others = [entry for entry in sys.path if os.path.abspath(entry or os.curdir) != _HERE]
    spec = PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        module = ModuleType("sitecustomize")
        module.__spec__ = spec
        module.__file__ = spec.origin
        spec.loader.exec_module(module)


sys.meta_path.insert(0, _Finder)
_import_next()
