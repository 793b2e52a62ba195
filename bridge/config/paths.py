"""Makes the paths among the settings absolute: the process, or the application, may change its directory later."""

from __future__ import annotations

import os
from typing import Any

from bridge.config.kinds import UnixAddress
from bridge.config.settings import Config

__all__ = ["located"]


def located(config: Config, directory: str) -> Config:
    """Return the settings with absolute paths.

    Args:
        config: The settings.
        directory: What relative paths are relative to; itself absolute.
    """
    changed = {}
    for name, row in config.rows.items():
        locate = _LOCATE.get(row.kind.metavar)
        value = getattr(config, name)
        if value == row.default:
            continue  # a word such as "auto", or nothing: no default is a relative path
        if locate is not None and value and (found := locate(value, directory)) != value:
            changed[name] = found
    return type(config)(**{**vars(config), **changed}) if changed else config


def _path(path: Any, directory: str) -> Any:
    """Return one path. A stream (``-``), and what is no text, is none."""
    if not isinstance(path, str) or path == "-" or path.startswith("\0"):
        return path
    return os.path.join(directory, path.removeprefix("./"))


def _paths(paths: tuple[str, ...], directory: str) -> tuple[str, ...]:
    return tuple(_path(path, directory) for path in paths)


def _addresses(addresses: tuple[Any, ...], directory: str) -> tuple[Any, ...]:
    return tuple(
        UnixAddress(_path(address.path, directory)) if isinstance(address, UnixAddress) else address
        for address in addresses
    )


def _certificates(found: tuple[tuple[str, str, str], ...], directory: str) -> tuple[tuple[str, str, str], ...]:
    return tuple((host, _path(cert, directory), key and _path(key, directory)) for host, cert, key in found)


def _server(text: str, directory: str) -> str:
    return f"unix:{_path(text[5:], directory)}" if text.startswith("unix:") else text


#: Placeholder of a setting's value -> function that makes it absolute. In the help the placeholder marks it as a path.
_LOCATE: dict[str, Any] = {
    "FILE": _path,
    "DIR": _path,
    "DIRS": _paths,
    "ADDRESS": _addresses,
    "CERTS": _certificates,
    "SERVER": _server,
}
