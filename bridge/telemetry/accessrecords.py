"""Records for the formatters of other servers' access logs, which read a record's arguments and not its text.

The lines of one block come as atoms with a separator between them, and each becomes a record for the logger.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable

from bridge.telemetry.logformat import Format, compile_format

__all__ = ["records_for"]

# It stands in no atom: all but printable ASCII is escaped there.
_SEPARATOR = "\x1f"
_ATOMS = ("h", "l", "u", "t", "r", "s", "m", "U", "q", "H", "b", "B", "f", "a", "T", "D", "M", "L", "p")
_WHOLE = frozenset("BTDM")
_FIELD = re.compile(r"%\((\{[^{}]+\}[ioe])\)")
_UVICORN = '%s - "%s %s HTTP/%s" %d'
_UVICORN_ATOMS = "%({REMOTE_ADDR}e)s:%({REMOTE_PORT}e)s", "%(m)s", "%(Uq)s", "%(V)s", "%(s)s"


def records_for(logger: logging.Logger, form: str) -> tuple[Format, Callable[[bytes], None]] | None:
    """Return the format and the writer that make the records which *logger* is configured for; None for lines of text.

    Args:
        logger: The logger of requests; its name says which server's it is.
        form: The format of a line as the settings have it.
    """
    if logger.name == "uvicorn.access":
        return compile_format(_SEPARATOR.join(_UVICORN_ATOMS)), _to_uvicorn(logger)
    if logger.name in {"gunicorn.access", "hypercorn.access", "granian.access"}:
        names = [*_ATOMS, *dict.fromkeys(_FIELD.findall(form))]
        return compile_format(_SEPARATOR.join(f"%({name})s" for name in names)), _to_mapping(logger, form, names)
    return None


def _to_uvicorn(logger: logging.Logger) -> Callable[[bytes], None]:
    def write(block: bytes) -> None:
        for line in block.decode("utf-8", "replace").split("\n")[:-1]:
            *texts, status = line.split(_SEPARATOR)
            logger.info(_UVICORN, *texts, int(status) if status.isdecimal() else 0)

    return write


class _Atoms(dict[str, str | int]):
    def __missing__(self, name: str) -> str:
        return str(self.get(name.lower(), "-"))


def _to_mapping(logger: logging.Logger, form: str, names: list[str]) -> Callable[[bytes], None]:
    def write(block: bytes) -> None:
        for line in block.decode("utf-8", "replace").split("\n")[:-1]:
            pairs = zip(names, line.split(_SEPARATOR), strict=False)
            atoms = _Atoms((name, int(text) if name in _WHOLE else text) for name, text in pairs)
            atoms.update({name.lower(): text for name, text in atoms.items() if name.startswith("{")})
            logger.info(form, atoms)

    return write
