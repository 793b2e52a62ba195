"""The fields that proxies report with, as lists."""

from __future__ import annotations

import pytest

from bridge.core.middleware.reports import members, reports_in

NAMES = frozenset({b"x-forwarded-for", b"forwarded"})


def test_only_the_fields_that_are_asked_for() -> None:
    fields = [(b"host", b"a"), (b"x-forwarded-for", b"1.2.3.4"), (b"x-forwarded-proto", b"http")]
    assert reports_in(fields, NAMES) == {b"x-forwarded-for": "1.2.3.4"}
    assert reports_in(fields[:1], NAMES) == {}
    assert reports_in([], NAMES) == {}


def test_lines_of_one_name_are_one_list_in_their_order() -> None:
    fields = [(b"x-forwarded-for", b"a, b"), (b"forwarded", b"for=\xe9"), (b"x-forwarded-for", b""),
              (b"x-forwarded-for", b"c")]  # fmt: skip
    assert reports_in(fields, NAMES) == {b"x-forwarded-for": "a, b,,c", b"forwarded": "for=\xe9"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [""]),
        ("a", ["a"]),
        (" a\t,b ,\tc", ["a", "b", "c"]),
        ("a,,b,", ["a", "", "b", ""]),
        ("\xa0a", ["\xa0a"]),  # white space to Python, but not to HTTP
    ],
)
def test_members(text: str, expected: list[str]) -> None:
    assert members(text) == expected
