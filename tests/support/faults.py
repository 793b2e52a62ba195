"""What applications raise that a test serves: the server survives it, the test must not."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from bridge.errors import ConnectionGone

__all__ = ["TEST_LIMIT", "Errors", "Raises", "application_errors", "listening"]

TEST_LIMIT = 60.0  # seconds after which a test hangs: what it waits for was the application's to do
Raises = type[BaseException] | tuple[type[BaseException], ...]
#: What a test uses to say no; none of them is ever meant by ``raises=Exception``.
NO = (AssertionError, pytest.fail.Exception)
NOTE = "This was raised in the application that the test serves."


class Errors(logging.Handler):
    """Collects what applications have raised.

    Attributes:
        found: All of it, in the order in which it came.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[BaseException] = []

    def add(self, error: BaseException) -> None:
        if not any(error is known for known in self.found):
            self.found.append(error)

    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1] is not None:
            self.add(record.exc_info[1])

    def asgi(self, app: Any) -> Any:
        """Return *app*, so that nothing it raises is lost, whatever the server thinks of it."""

        async def watched(scope: Any, receive: Any, send: Any) -> None:
            try:
                await app(scope, receive, send)
            except (asyncio.CancelledError, ConnectionGone):
                raise  # the server's own way to end the application's work
            except pytest.fail.Exception as exc:  # no Exception, and servers let those pass
                self.add(exc)
                for_the_server = AssertionError(str(exc))
                for_the_server.add_note(NOTE)
                raise for_the_server from exc
            except BaseException as exc:
                self.add(exc)
                raise

        return watched

    def check(self, expected: tuple[type[BaseException], ...] = ()) -> None:
        """Raise the first error that is not *expected*."""
        for error in self.found:
            wanted = [kind for kind in expected if isinstance(error, kind)]
            if not wanted or (isinstance(error, NO) and not any(issubclass(kind, NO) for kind in wanted)):
                error.add_note(NOTE)
                raise error

    def check_assertions(self) -> None:
        """Raise the first assertion that has failed, unless it was raised before."""
        for error in self.found:
            if isinstance(error, NO) and NOTE not in getattr(error, "__notes__", ()):
                error.add_note(NOTE)
                raise error


@contextmanager
def application_errors(raises: Raises = ()) -> Iterator[Errors]:
    """Raise at the end of the block what the server has logged as raised by an application.

    Args:
        raises: What the application is expected to raise; then it must raise something.
    """
    expected = raises if isinstance(raises, tuple) else (raises,)
    with listening() as errors:
        try:
            yield errors
        finally:
            errors.check(expected)
        assert errors.found or not expected, f"the application has raised none of {expected}"


@contextmanager
def listening() -> Iterator[Errors]:
    """Collect, while the block runs, what the server has logged as raised by an application."""
    errors = Errors()
    logger = logging.getLogger("bridge.application")
    logger.addHandler(errors)
    try:
        yield errors
    finally:
        logger.removeHandler(errors)
