"""Translates command lines and configuration files of other servers into bridge's settings.

``bridge gunicorn ARGS...`` reads its arguments as gunicorn does, and ``bridge explain gunicorn ARGS...`` says what
becomes of each option. A dialect is a table with a row for each option. Nothing of the other server is imported.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bridge.dialects.table import Dialect

__all__ = ["NAMES", "dialect"]

_MODULES = {
    "gunicorn": "gunicorn",
    "uvicorn": "uvicorn",
    "hypercorn": "hypercorn",
    "granian": "granian",
    "daphne": "daphne",
    "waitress-serve": "waitress",
    "uwsgi": "uwsgi",
}

#: The commands whose dialects bridge knows.
NAMES = tuple(_MODULES)


def dialect(name: str) -> Dialect:
    """Return the dialect of the command *name*, one of NAMES."""
    found: Dialect = import_module(f"{__name__}.{_MODULES[name]}").DIALECT
    return found
