"""Threads that write and close temporary files: a disk may be slow, and the loop must not wait for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import ThreadPoolExecutor
    from typing import Any

__all__ = ["FileThreads"]

# A disk is not faster when more threads wait for it.
_MOST = 4


class FileThreads:
    """At most four threads. They start when there is something to do.

    The application's threads cannot do this: all of them may be busy with the application.
    """

    __slots__ = ("_executor",)

    def __init__(self) -> None:
        self._executor: ThreadPoolExecutor | None = None

    def submit(self, function: Callable[..., None], *arguments: Any) -> None:
        """Call a function in one of the threads. Its exceptions are dropped."""
        if self._executor is None:
            from concurrent.futures import ThreadPoolExecutor  # many servers never need it

            self._executor = ThreadPoolExecutor(_MOST, thread_name_prefix="bridge-wsgi-files")
        self._executor.submit(function, *arguments)

    def stop(self) -> None:
        """Let the threads end once they have done what was submitted. A later call starts new ones."""
        if self._executor is not None:
            self._executor.shutdown(wait=False)
            self._executor = None
