"""Finds and calls the functions."""

from __future__ import annotations

import importlib
import inspect
import logging
import sys
from collections.abc import Mapping
from typing import Any

from bridge.config.hooks import POINTS, Hooks
from bridge.errors import ConfigError

__all__ = ["Functions"]

# After these the worker ends anyway, so SystemExit is not an error there.
_AT_AN_END = frozenset({"worker_int", "worker_abort"})


class Functions:
    """The user's functions, by the points at which they are called.

    Args:
        hooks: Pairs of a point and a function, from the settings.

    Raises:
        ConfigError: A function cannot be imported.
    """

    def __init__(self, hooks: Hooks) -> None:
        self._functions = {point: _found(point, function) for point, function in hooks}
        self._arities = {point: _arity(point, function) for point, function in self._functions.items()}

    def __contains__(self, point: object) -> bool:
        return point in self._functions

    def call(self, point: str, *arguments: object, may_exit: bool = False) -> bool:
        """Call the function at *point* if there is one. Return False if it has asked for the end (SystemExit).

        Args:
            point: The point.
            *arguments: The function's arguments; only the first ones if it takes fewer.
            may_exit: Let SystemExit pass.
        """
        function = self._functions.get(point)
        if function is None:
            return True
        try:
            result = function(*arguments[: self._arities[point]])
        except SystemExit as exc:
            if may_exit:
                raise
            if point not in _AT_AN_END:
                logging.getLogger("bridge").error(
                    "The hook %s raised SystemExit(%r), which ends nothing there", point, exc.code
                )
            return False
        except Exception:
            logging.getLogger("bridge").exception("The hook %s raised", point)
            return True
        if inspect.iscoroutine(result):
            result.close()
            logging.getLogger("bridge").warning("The hook %s is a coroutine function, which nobody awaits", point)
        return True


def _found(point: str, function: Any) -> Any:
    if not isinstance(function, str):
        return function
    module, _, path = function.partition(":")
    if "" not in sys.path and "." not in sys.path:
        sys.path.insert(0, "")
    try:
        found: Any = importlib.import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
    except Exception as exc:
        raise ConfigError(f"hooks: {point} = {function!r}: {type(exc).__name__}: {exc}") from exc
    if not callable(found):
        raise ConfigError(f"hooks: {point} = {function!r}: this is no function")
    return found


def _arity(point: str, function: Any) -> int:
    """Return how many arguments *function* gets: post_request may take two, three or four."""
    most = POINTS[point]
    try:
        parameters: Mapping[str, inspect.Parameter] = inspect.signature(function).parameters
    except (TypeError, ValueError):
        return most
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters.values()):
        return most
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return min(most, sum(parameter.kind in kinds for parameter in parameters.values()))
