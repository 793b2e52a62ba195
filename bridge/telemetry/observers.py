"""Several observers as one, since a connection calls one."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bridge.core.connection.interfaces import Observer
from bridge.core.connection.parameters import method_for

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bridge.core.connection.interfaces import Connection, Exchange

__all__ = ["Observers"]

_EVENTS = (
    "connection_opened",
    "connection_closed",
    "request_refused",
    "exchange_started",
    "exchange_ended",
)


class Observers(Observer):
    """Passes every call on to several observers, in their order.

    Each call goes to those observers only that do something with it. If there is one, its own method is called.

    Args:
        observers: The observers.
    """

    connection_opened: Callable[[Connection], None]  # type: ignore[assignment]  # functions of instances save a call
    connection_closed: Callable[[Connection], None]  # type: ignore[assignment]  # see above
    request_refused: Callable[[Connection, str], None]  # type: ignore[assignment]  # see above
    exchange_started: Callable[[Exchange], None]  # type: ignore[assignment]  # see above
    exchange_ended: Callable[[Exchange], None]  # type: ignore[assignment]  # see above

    def __init__(self, observers: Sequence[Observer]) -> None:
        for event in _EVENTS:
            functions = [method for each in observers if (method := method_for(each, event)) is not None]
            if functions:
                setattr(self, event, _joined(functions))

    @staticmethod
    def of(observers: Sequence[Observer]) -> Observer | None:
        """Return the only observer itself, several as one, and None for none."""
        if not observers:
            return None
        return observers[0] if len(observers) == 1 else Observers(observers)


def _joined(functions: list[Callable[..., None]]) -> Callable[..., None]:
    """Return a function that calls all *functions*, of which there is at least one, with its arguments."""
    if len(functions) == 1:
        return functions[0]
    if len(functions) == 2:
        first, second = functions

        def both(*arguments: Any) -> None:
            first(*arguments)
            second(*arguments)

        return both

    def every(*arguments: Any) -> None:
        for function in functions:
            function(*arguments)

    return every
