"""The bounded table: what was worked out for a value that may come again."""

from __future__ import annotations

from typing import TypeVar

__all__ = ["remember"]

K = TypeVar("K")
V = TypeVar("V")


def remember(table: dict[K, V], key: K, value: V, most: int) -> None:
    """Keep *value* in *table* under *key*; a table that has *most* entries is emptied first.

    Emptying is cheaper than finding the entry that was used least: values that come often are soon back, and a peer
    that sends a new value each time can only empty the table, not make it grow. Reading is ``table.get(key)``.
    """
    if len(table) >= most:
        table.clear()
    table[key] = value
