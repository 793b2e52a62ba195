"""The hooks: functions of the user's that the server calls at certain points."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from bridge.config.kinds import Kind

__all__ = ["HOOKS", "POINTS", "Hooks"]

#: The points, with the names of gunicorn, and the number of arguments that a function gets there.
POINTS = {
    "on_starting": 1, "on_reload": 1, "when_ready": 1, "pre_fork": 2, "post_fork": 2, "post_worker_init": 1,
    "worker_int": 1, "worker_abort": 1, "pre_exec": 1, "pre_request": 2, "post_request": 4, "child_exit": 2,
    "worker_exit": 2, "nworkers_changed": 3, "on_exit": 1,
}  # fmt: skip


class Hooks(tuple[tuple[str, "str | Callable[..., Any]"], ...]):
    """Functions, or their names as ``module:function``, by points.

    Attributes:
        settings: Settings as gunicorn names them, for ``server.cfg``; those of a configuration file.
        logger_class: The class of ``server.log``; None for bridge's own.
    """

    settings: Mapping[str, Any]
    logger_class: Any

    def __new__(
        cls,
        functions: Iterable[tuple[str, str | Callable[..., Any]]] = (),
        settings: Mapping[str, Any] | None = None,
        logger_class: Any = None,
    ) -> Hooks:
        """Return the hooks; without functions and without a logger they are false."""
        made = super().__new__(cls, tuple(functions))
        made.settings = settings or {}
        made.logger_class = logger_class
        return made

    def __bool__(self) -> bool:
        return len(self) > 0 or self.logger_class is not None


def _hooks(text: str) -> Hooks:
    found: list[tuple[str, str | Callable[..., Any]]] = []
    for part in text.split(","):
        point, _, function = part.strip().partition("=")
        if point.strip() not in POINTS or re.fullmatch(r"[\w.]+:[\w.]+", function.strip()) is None:
            raise ValueError(text)
        found.append((point.strip(), function.strip()))
    return Hooks(found)


HOOKS = Kind(_hooks, f"POINT=module:function, with one of the points {', '.join(POINTS)}", "HOOK", repeats=True)
