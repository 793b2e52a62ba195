"""A bounded cache: the result of work on a value that may come again."""

from __future__ import annotations

from typing import TypeVar

__all__ = ["remember"]

K = TypeVar("K")
V = TypeVar("V")


def remember(table: dict[K, V], key: K, value: V, most: int) -> None:
    """Keep *value* in *table* under *key*. A table that already has *most* entries is emptied first.

    Read with ``table.get(key)``.

    Args:
        table: The cache.
        key: What the result belongs to.
        value: The result.
        most: Most entries that the table may have.
    """
    # Emptying costs less than finding the entry that was used least, and values that come often are soon back. A peer
    # that sends a new value each time can only empty the table. It cannot make it grow.
    if len(table) >= most:
        table.clear()
    table[key] = value
