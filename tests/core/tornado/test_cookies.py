from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.httputil import parse_cookie
from bridge.core.tornado import cookies

CASES = [
    ("", {}),
    ("a=b", {"a": "b"}),
    ("a=b; c=d", {"a": "b", "c": "d"}),
    ("a=b;c=d;", {"a": "b", "c": "d"}),
    ("a=b, c=d", {"a": "b, c=d"}),
    (" a = b ;\tc\t=\td", {"a": "b", "c": "d"}),
    ("a=b; a=c", {"a": "c"}),
    ("a=b=c", {"a": "b=c"}),
    ("a=", {"a": ""}),
    ("=a", {"": "a"}),
    ("a", {"": "a"}),
    ("a; b", {"": "b"}),
    (";;  ;=;", {}),
    ("a b=c d", {"a b": "c d"}),
    ("é=ü", {"é": "ü"}),
    ("a=\xa0b\x85\xa0", {"a": "\xa0b\x85\xa0"}),  # octets of UTF-8, not white space
    ("[a]:(b)=<c>", {"[a]:(b)": "<c>"}),
]

# A cookie whose value a quote opens must not swallow, or hide, the cookies behind it.
QUOTES = [
    ('a="b"', "b"),
    ('a=""', ""),
    ('a="', '"'),
    ('a="b', '"b'),
    ('a=b"', 'b"'),
    (r'a="\""', '"'),
    (r'a="\\"', "\\"),
    (r'a="\\\""', '\\"'),
    (r'a="\141\377\000"', "a\xff\x00"),
    (r'a="\400\08\14"', "400" + "08" + "14"),
    (r'a="\\141"', r"\141"),
    (r'a="b\"', "b\\"),
    ('a="\\\n"', "\n"),
    (r"a=\141", r"\141"),
]


@pytest.mark.parametrize(("text", "expected"), CASES)
def test_cookies(text: str, expected: dict[str, str]) -> None:
    assert parse_cookie(text) == expected


@pytest.mark.parametrize(("text", "value"), QUOTES)
def test_quotes_and_escapes(text: str, value: str) -> None:
    assert parse_cookie(text) == {"a": value}


def test_a_semicolon_inside_quotes_separates() -> None:
    assert parse_cookie('a="b; session=mine; c="') == {"a": '"b', "session": "mine", "c": '"'}


@given(st.text())
def test_any_text_gives_text(text: str) -> None:
    for name, value in parse_cookie(text).items():
        assert isinstance(name, str)
        assert isinstance(value, str)


@given(st.dictionaries(st.text("abc-_", min_size=1), st.text('xyz="\\012 ')))
def test_escaped_values_come_back(jar: dict[str, str]) -> None:
    text = "; ".join(
        f'{name}="' + value.replace("\\", r"\134").replace('"', r"\"") + '"' for name, value in jar.items()
    )
    assert parse_cookie(text) == jar


def test_unquoting_looks_at_every_escape_once(monkeypatch: pytest.MonkeyPatch) -> None:
    scanned: list[int] = []

    class Pattern:
        def sub(self, replace: object, text: str) -> str:
            scanned.append(len(text))
            return text

    monkeypatch.setattr(cookies, "_ESCAPE", Pattern())
    parse_cookie('a="' + r"\\" * 1000 + '"')
    assert scanned == [2000]
