from __future__ import annotations

from bridge.core.http.cache import remember


def test_a_table_that_is_full_is_emptied_first() -> None:
    table: dict[int, str] = {}
    sizes = []
    for number in range(7):
        remember(table, number, f"{number}", 3)
        assert table[number] == f"{number}"
        sizes.append(len(table))
    assert sizes == [1, 2, 3, 1, 2, 3, 1]


def test_what_is_known_is_replaced() -> None:
    table = {"a": 1}
    remember(table, "a", 2, 3)
    assert table == {"a": 2}
