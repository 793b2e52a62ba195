"""Conversions that the tables of several dialects share."""

from __future__ import annotations

import re
from typing import Any

from bridge.dialects.table import Convert, Fate, Translation
from bridge.telemetry.logformat import is_known_atom

__all__ = [
    "access_format",
    "cert_reqs",
    "each",
    "fact",
    "factor",
    "file_target",
    "host_and_port",
    "minimum",
    "only",
    "refuse_if",
    "silence_requests",
    "statsd",
    "statsd_prefix",
    "window",
    "with_attribute",
    "zero_is_off",
]

_FIELDS_ONLY = re.compile(r"%\(([^)]*)\)[-+ 0#]*[0-9]*(?:\.[0-9]+)?([a-zA-Z])")


def fact(name: str) -> Convert:
    """Return a conversion that keeps the value in ``Translation.dialect``: several such options decide one setting."""

    def convert(value: Any, t: Translation) -> None:
        t.dialect[name] = value

    return convert


def silence_requests(t: Translation) -> None:
    """Switch the access log off if the level is above INFO: in these servers the level also holds for requests."""
    level = t.layer.get("log_level")
    if level is not None and level.text in {"warning", "error", "critical"}:
        t.origin = level.origin
        t.set("access_log", False)


def zero_is_off(name: str) -> Convert:
    """Return a conversion of a number, where 0 means no limit."""

    def convert(value: Any, t: Translation) -> None:
        t.set(name, "off" if float(value) == 0 else value)

    return convert


def factor(name: str, by: float) -> Convert:
    """Return a conversion of a number in another unit."""

    def convert(value: Any, t: Translation) -> None:
        t.set(name, f"{float(value) * by:g}")

    return convert


def minimum(name: str, least: int, remark: str) -> Convert:
    """Return a conversion of a number, raised to *least* if it is lower."""

    def convert(value: Any, t: Translation) -> tuple[Fate, str] | None:
        t.set(name, max(int(value), least))
        return (Fate.NEAR, remark) if int(value) < least else None

    return convert


def each(name: str, separator: str = ",") -> Convert:
    """Return a conversion of a list."""

    def convert(value: Any, t: Translation) -> None:
        for item in value if isinstance(value, list | tuple) else [value]:
            t.add(name, item, separator)

    return convert


def only(allowed: str, fate: Fate, remark: str, name: str = "") -> Convert:
    """Return a conversion for the words *allowed*. Any other value gets *fate* and *remark*.

    Args:
        allowed: The words that mean the same in bridge, with spaces between them.
        fate: The fate of any other value.
        remark: The reason for it.
        name: The setting that an allowed word becomes; empty for none.
    """
    words = allowed.split()

    def convert(value: Any, t: Translation) -> tuple[Fate, str] | None:
        if str(value).lower() not in words:
            return fate, remark
        if name:
            t.set(name, str(value).lower())
        return None

    return convert


def refuse_if(value_is: object, remark: str) -> Convert:
    """Return a conversion that refuses one value."""

    def convert(value: Any, t: Translation) -> tuple[Fate, str] | None:
        return (Fate.REFUSED, remark) if value == value_is else None

    return convert


def cert_reqs(value: Any, t: Translation) -> tuple[Fate, str] | None:
    """Convert a number or a member of ``ssl.VerifyMode``."""
    words = {"0": "none", "1": "optional", "2": "required"}
    names = {"CERT_NONE": "none", "CERT_OPTIONAL": "optional", "CERT_REQUIRED": "required"}
    text = names.get(str(value).rpartition(".")[2]) or words.get(
        str(int(value) if not isinstance(value, str) else value)
    )
    if text is None:
        return Fate.REFUSED, "this is none of 0, 1 and 2"
    t.set("ssl_cert_reqs", text)
    return None


def statsd(value: Any, t: Translation) -> None:
    """Convert the address of a statsd server; an empty one means no server."""
    if value:
        t.set("statsd", str(value).replace("unix://", "unix:"))


def statsd_prefix(value: Any, t: Translation) -> None:
    """Convert the prefix of gunicorn's metric names."""
    prefix = str(value or "").rstrip(".")
    if prefix:
        t.set("statsd_prefix", f"{prefix}.gunicorn")


def window(value: Any, t: Translation) -> None:
    """Convert the size of an HTTP/2 window, which has a minimum in bridge."""
    t.set("http2_max_stream_window", max(int(value), 65_535))


def host_and_port(host: str, port: int | str) -> str:
    """Return an address as ``--bind`` takes it. An empty host means all."""
    host = host.strip("[]")
    if host in {"", "*"}:
        return f":{port}"
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def access_format(value: Any, t: Translation) -> tuple[Fate, str] | None:
    """Convert a log format in gunicorn's notation. An unknown atom becomes a dash, as in gunicorn."""
    unknown: list[str] = []

    def known(match: re.Match[str]) -> str:
        if is_known_atom(match[1]):
            return f"%({match[1]})s"
        unknown.append(match[0])
        return "-"

    t.set("access_logformat", _FIELDS_ONLY.sub(known, str(value)))
    if unknown:
        return Fate.NEAR, f"{', '.join(unknown)}: no atom of bridge's; a dash stands in its place"
    return None


def file_target(text: str) -> str:
    """Return a target that may be a path without its ending, such as ``src/main:app``, as ``src/main.py:app``."""
    path, colon, name = text.partition(":")
    return f"{path}.py{colon}{name}" if "/" in path and not path.endswith(".py") else text


def with_attribute(target: str, attribute: str) -> str:
    """Return *target* with the attribute that the other server takes when only a module is named."""
    return target if ":" in target or target.endswith(".py") else f"{target}:{attribute}"
