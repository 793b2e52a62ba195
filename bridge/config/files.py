"""Settings from a file: ``bridge.toml``, or the table ``[tool.bridge]`` of ``pyproject.toml``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from bridge.config.layers import Given, Layer
from bridge.config.settings import SETTINGS
from bridge.config.table import Setting
from bridge.errors import ConfigError

__all__ = ["from_file", "from_options", "read_file"]

# Every pyproject.toml with a table [tool.bridge] matches, in whatever form it is written. This check is much faster
# than importing tomllib and parsing a file without that table.
_MAY_BE_FOR_US = re.compile(
    rb"""^[^#\n]*\btool\b[^\n]*\bbridge\b|^[ \t]*\[[ \t]*["']?tool["']?[ \t]*\]""", re.MULTILINE
)

_NAMES = {
    name.replace("-", "_"): row for row in SETTINGS for name in (row.name, *row.aliases)
}  # fmt: skip


def from_file(path: str | None) -> Layer:
    """Return the layer that a configuration file gives.

    Args:
        path: The file; None for ``bridge.toml`` in the current directory, or else the table ``[tool.bridge]`` of
            ``pyproject.toml`` there. Without either the layer is empty.

    Raises:
        ConfigError: The file cannot be read, or has a key that is no setting.
    """
    if path is not None:
        return read_file(path)
    if os.path.isfile("bridge.toml"):
        return read_file("bridge.toml")
    if os.path.isfile("pyproject.toml"):
        return read_file("pyproject.toml", quiet=True)
    return {}


def read_file(path: str, *, quiet: bool = False) -> Layer:
    """Return the layer of the file *path*.

    Args:
        path: The file.
        quiet: Return an empty layer for a file that is not valid TOML. It belongs to other tools, which report that.

    Raises:
        ConfigError: As for :func:`from_file`.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as exc:
        raise ConfigError(f"{path}: {exc.strerror}") from exc
    if quiet and _MAY_BE_FOR_US.search(data) is None:
        return {}
    import tomllib  # takes 5 ms, and most servers have no such file

    try:
        table = tomllib.loads(data.decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        if quiet:
            return {}
        raise ConfigError(f"{path}: {exc}") from exc
    if os.path.basename(path) == "pyproject.toml":
        table = table.get("tool", {}).get("bridge", {})
    elif set(table) == {"bridge"} and isinstance(table["bridge"], dict):
        table = table["bridge"]
    layer: Layer = {}
    for key, value in table.items():
        origin = f"{path}: {key}"
        row = _row(key, origin)
        if row.name in layer:
            raise ConfigError(f"{origin}: means the same as {layer[row.name].origin.rpartition(' ')[2]}")
        layer[row.name] = Given(_text(row, value, origin), origin)
    return layer


def from_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings for keyword arguments such as ``bridge.run(app, port=8080, bind="unix:/run/a.sock")``.

    Text is converted as on the command line. Other values are used as they are.

    Raises:
        ConfigError: A name is unknown, or a text is not allowed.
    """
    found = {}
    for key, value in options.items():
        row = _row(key, key)
        if isinstance(value, str):
            try:
                value = row.kind.parse(value)  # noqa: PLW2901 - the same value, converted
            except ValueError:
                raise ConfigError(f"{key}: {value!r} is not {row.kind.allowed}") from None
        elif isinstance(value, list):
            value = tuple(value)  # noqa: PLW2901 - the same value, immutable
            if all(isinstance(item, str) for item in value):
                value = row.kind.parse(row.kind.separator.join(value))  # noqa: PLW2901 - the same
        elif row.kind.unit == "seconds" and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)  # noqa: PLW2901 - the same
        found[row.name] = value
    return found


def _row(key: str, origin: str) -> Setting:
    row = _NAMES.get(key.replace("-", "_"))
    if row is None:
        from difflib import get_close_matches

        near = get_close_matches(key.replace("-", "_"), _NAMES, n=1)
        hint = f"; did you mean {_NAMES[near[0]].name}?" if near else ""
        raise ConfigError(f"{origin}: there is no such setting{hint}")
    return row


def _text(row: Setting, value: object, origin: str) -> str:
    """Return *value*, from a TOML file, as the command line would spell it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int) and row.kind.metavar == "OCTAL":
        return f"{value:o}"  # 0o660 in TOML
    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, list) and row.kind.repeats:
        return row.kind.separator.join(_text(row, item, origin) for item in value)
    if isinstance(value, dict) and row.kind.repeats:
        items = (f"{name}{row.kind.pair}{_text(row, item, origin)}" for name, item in value.items())
        return row.kind.separator.join(items)
    raise ConfigError(f"{origin}: {type(value).__name__} is not {row.kind.allowed}")
