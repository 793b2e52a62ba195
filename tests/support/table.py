"""Tables with hundreds of rows that take microseconds each, as one test."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

__all__ = ["table"]


def table(names: str, rows: Iterable[Any]) -> Callable[[Callable[..., None]], Callable[[], None]]:
    """Call a test with each row. It fails as the first row that fails, and its notes name all that do.

    As ``pytest.mark.parametrize``, but for what a test of its own costs: 5 ms of time, of which a row takes little.

    Args:
        names: The names of the arguments, with commas between them.
        rows: A value for one name, a tuple of values for several, or a ``pytest.param``.
    """
    keys = [name.strip() for name in names.split(",")]
    every = [_values(row, len(keys)) for row in rows]
    assert every, "a table without rows tests nothing"

    def decorate(function: Callable[..., None]) -> Callable[[], None]:
        def test() -> None:
            failed: list[tuple[str, BaseException]] = []
            for values in every:
                try:
                    function(**dict(zip(keys, values, strict=True)))
                except KeyboardInterrupt:  # the time limit
                    raise
                except BaseException as exc:  # pytest.raises fails with one that is no Exception
                    failed.append((", ".join(f"{value!r:.120}" for value in values), exc))
            if failed:
                first = failed[0][1]
                first.add_note(f"{len(failed)} of {len(every)} rows fail:")
                for row, exc in failed[:20]:
                    first.add_note(f"  {row}: {type(exc).__name__}")
                raise first

        test.__name__, test.__qualname__ = function.__name__, function.__qualname__
        test.__module__, test.__doc__ = function.__module__, function.__doc__
        return test

    return decorate


def _values(row: Any, count: int) -> tuple[Any, ...]:
    values = getattr(row, "values", None)
    if isinstance(values, tuple):  # pytest.param
        assert not row.marks
        return values
    return (row,) if count == 1 else tuple(row)
