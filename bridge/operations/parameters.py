"""The parameters of commands: what is wrong is refused, with what is allowed."""

from __future__ import annotations

import re
from collections.abc import Mapping

from bridge.operations.routes import Refused

__all__ = ["LEVELS", "choice", "duration", "only", "whole"]

#: The levels of messages.
LEVELS = ("debug", "info", "warning", "error", "critical")

_LONGEST = 86400.0


def only(query: Mapping[str, str], *names: str) -> None:
    """Refuse parameters that are not among *names*."""
    unknown = sorted(set(query) - set(names))
    if unknown:
        raise Refused(400, f"{unknown[0][:40]!r} is no parameter of this", allowed=list(names))


def whole(query: Mapping[str, str], name: str, least: int, most: int) -> int:
    """Return a parameter that is a whole number from *least* to *most*."""
    text = query.get(name, "")
    if re.fullmatch(r"[0-9]{1,9}", text) is None or not least <= int(text) <= most:
        allowed = f"a whole number from {least} to {most}"
        raise Refused(400, f"{name}: {text[:40]!r} is not {allowed}", allowed=allowed)
    return int(text)


def choice(query: Mapping[str, str], name: str, words: tuple[str, ...]) -> str:
    """Return a parameter that is one of *words*."""
    text = query.get(name, "").lower()
    if text not in words:
        raise Refused(400, f"{name}: {text[:40]!r} is not one of {', '.join(words)}", allowed=list(words))
    return text


def duration(query: Mapping[str, str], name: str) -> float:
    """Return a parameter that is a time above 0, in seconds: ``30``, ``30s`` or ``5m``; a day at most."""
    text = query.get(name, "")
    match = re.fullmatch(r"([0-9]{1,6}(?:\.[0-9]{1,6})?)(ms|s|m|h)?", text)
    value = float(match[1]) * {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}[match[2] or "s"] if match else 0.0
    if not 0 < value <= _LONGEST:
        allowed = "a time above 0 such as 30, 30s or 5m, a day at most"
        raise Refused(400, f"{name}: {text[:40]!r} is not {allowed}", allowed=allowed)
    return value
