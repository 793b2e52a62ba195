"""What an exception comes from."""

from __future__ import annotations

import logging
from itertools import pairwise

import pytest

from bridge.errors import ConnectionGone, caused_by_disconnect, traceback_of


def caught(raise_it: object) -> BaseException:
    try:
        raise_it()  # type: ignore[operator]  # a function
    except BaseException as exc:
        return exc
    raise AssertionError("nothing was raised")


def circle(first: BaseException) -> BaseException:
    """Return *first* with a cause that was raised while *first* was handled, as when a clean-up fails."""

    def fail() -> None:
        try:
            raise first
        except BaseException as outer:
            try:
                raise KeyError("clean-up")
            except KeyError as inner:
                last = inner
            raise outer from last  # within the inner handler Python would cut the circle

    error = caught(fail)
    assert error.__cause__ is not None
    assert error.__cause__.__context__ is error
    return error


class Empty(Exception):
    """An exception that is false."""

    def __len__(self) -> int:
        return 0


def chain(*errors: BaseException) -> BaseException:
    for error, cause in pairwise(errors):
        error.__cause__ = cause
    return errors[0]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(None, False, id="none"),
        pytest.param(ConnectionGone("left"), True, id="itself"),
        pytest.param(ConnectionResetError("a database"), False, id="another connection"),
        pytest.param(chain(RuntimeError(), ConnectionGone("left")), True, id="cause"),
        pytest.param(
            chain(RuntimeError(), Empty(), ConnectionGone("left")), True, id="behind an exception that is false"
        ),
        pytest.param(circle(ValueError()), False, id="circle"),
        pytest.param(circle(ConnectionGone("left")), True, id="circle with it"),
        pytest.param(ExceptionGroup("", [ConnectionGone("left"), ValueError()]), False, id="group of it and another"),
        pytest.param(ExceptionGroup("", [chain(ValueError(), ConnectionGone("left"))] * 2), True, id="the same twice"),
        pytest.param(ExceptionGroup("", [circle(ValueError())]), False, id="circle in a group"),
    ],
)
def test_caused_by_disconnect(error: BaseException | None, expected: bool) -> None:
    assert caused_by_disconnect(error) is expected


def test_a_group_in_its_own_part() -> None:
    part = ValueError()
    group = ExceptionGroup("", [part])
    part.__cause__ = group
    assert not caused_by_disconnect(group)


class Empty(Exception):
    """Is false, and has no text."""

    def __len__(self) -> int:
        return 0

    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


def test_an_exception_that_is_false_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise Empty

    logging.getLogger("x").error("failed", exc_info=traceback_of(caught(fail)))
    assert "in fail" in caplog.text
    assert "Empty" in caplog.text


def test_without_an_exception_no_traceback_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("x").error("failed", exc_info=traceback_of(None))
    assert "None" not in caplog.text
