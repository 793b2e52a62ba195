"""What a process does right now: the stacks of its threads and tasks, and the requests that they serve."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from bridge.core.connection.interfaces import Exchange

__all__ = ["dump"]

# Tasks that are shown with their stacks; the others are only counted.
_MOST = 500
_LINE = 200


def dump(delegate: Any, active: Iterable[Exchange]) -> dict[str, Any]:
    """Return what this process does, as json can write it. Call it on the loop.

    Args:
        delegate: The application's.
        active: The requests in progress, if they are known.
    """
    requests_of: Mapping[Any, Exchange] = getattr(delegate, "exchanges", dict)()
    now = time.monotonic_ns()
    tasks = asyncio.all_tasks()
    return {
        "threads": [
            {"name": names.get(ident, str(ident)), "stack": _lines(traceback.extract_stack(frame))}
            for names in [{thread.ident: thread.name for thread in threading.enumerate()}]
            for ident, frame in sys._current_frames().items()
        ],
        "tasks": [
            {
                "name": task.get_name(),
                "request": _request(requests_of[task]) if task in requests_of else None,
                "age": _age(requests_of[task], now) if task in requests_of else None,
                "stack": _stack(task),
            }
            for task in sorted(tasks, key=lambda task: task not in requests_of)[:_MOST]
        ],
        "tasks_in_all": len(tasks),
        "requests": [
            {"request": _request(exchange), "age": _age(exchange, now), "client": exchange.context.remote_ip}
            for exchange in active
        ],
    }


def _request(exchange: Exchange) -> str:
    line = exchange.head.line
    return f"{line.method_text} {line.target.decode('latin-1')}"[:_LINE]


def _age(exchange: Exchange, now: int) -> float | None:
    return None if exchange.times is None else round((now - exchange.times.opened) / 1e9, 3)


def _stack(task: asyncio.Task[Any]) -> list[str]:
    """Return where a task is, from the outermost coroutine to what it waits in."""
    lines: list[str] = []
    waiting: Any = task.get_coro()
    while waiting is not None and len(lines) < 50:
        frame = getattr(waiting, "cr_frame", None) or getattr(waiting, "gi_frame", None)
        frame = frame or getattr(waiting, "ag_frame", None)
        if frame is None:
            break
        lines.append(f"{frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_qualname}")
        waiting = getattr(waiting, "cr_await", None) or getattr(waiting, "gi_yieldfrom", None)
        waiting = waiting or None
    return lines


def _lines(stack: traceback.StackSummary) -> list[str]:
    return [f"{entry.filename}:{entry.lineno} in {entry.name}" for entry in stack]
