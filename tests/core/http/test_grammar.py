from __future__ import annotations

import re

import pytest

from bridge.core.http import fields, status, uri
from bridge.core.http.uri import HOST, TARGET
from bridge.core.http1 import grammar
from tests.support.hostile import (
    CONTROLS,
    HOSTS,
    NO_CHUNK_SIZE,
    NO_HOST,
    NO_VERSION,
    TCHAR,
    TEXT,
    VCHAR,
    WIDER_THAN_DIGITS,
)
from tests.support.table import table

DIGIT = b"0123456789"

#: Every pattern of the grammar, whatever module it stands in.
PATTERNS = {
    name: value
    for module in (fields, status, uri, grammar)
    for name, value in vars(module).items()
    if isinstance(value, re.Pattern | type(HOST)) and name[0] != "_"
}

# name -> (accepted, refused); all with fullmatch. BAD_LINE_END is searched for and stands below.
TABLES: dict[str, tuple[list[bytes], list[bytes]]] = {
    "TOKEN": (
        [b"a", b"GET", b"x-y", b"0", TCHAR, b"X!#$%&'*+-.^_`|~9"],
        [
            *(b"", b" ", b"a b", b" a", b"a ", b"a\t", b"a\n", b"a\r", b"a\r\n", b"a:", b"a\x00", b"a\x7f", b"\x80"),
            *(b"a" + bytes([octet]) for octet in b'"(),/:;<=>?@[\\]{}'),
            *("\u212a".encode(), "\u017f".encode(), "\xe9".encode("latin-1")),
        ],
    ),
    "FIELD_VALUE": (
        [b"", b"a", b"a b", b"a\tb", b" a ", b"\x80\xff", b'"quoted"', VCHAR, TEXT],
        [
            *(bytes([octet]) for octet in CONTROLS),
            *(b"a" + bytes([octet]) + b"b" for octet in CONTROLS),
            *(b"a\r\nb: c", b"a\r\n b", b"a\n", b"a\r", b"\na", b"a\r\n"),
        ],
    ),
    "REASON": (
        [b"", b"OK", b"Not Found", b"I'm a teapot", b"\xc3\xa9", b"a\tb"],
        [
            *(b"OK" + bytes([octet]) for octet in CONTROLS),
            *(b"OK\r\nInjected: yes", b"OK\nInjected: yes", b"OK\r", b"OK\n", b"\x00"),
        ],
    ),
    "TARGET": (
        [b"/", b"*", b"/a?b", b"/a[b]{c}|d^e`f", b'/"<>\\', b"http://a/", b"//a", b"/%zz", b"a:1", b"/~!$&'()*+,;=:@"],
        [
            *(b"", b"/a b", b" /", b"/ ", b"/#", b"#", b"/a#b", b"/\xe9", b"/\xc3\xa9", b"/\x80", b"/\xff", b"/\xa0"),
            *(b"/" + bytes([octet]) for octet in CONTROLS),
            *(b"/\t", b"/\n", b"/a\r", b"/a\r\n"),
        ],
    ),
    "ORIGIN_FORM": (
        [b"/", b"//", b"/a?b", b"/a?", b"/?", b"/a?b?c", b"/a[b]{c}|d^e`f", b'/"<>\\', b"/%zz", b"/~!$&'()*+,;=:@"],
        [
            *(b"", b"*", b"a", b"?a"),
            *(b"http://a/", b"/a b", b" /", b"/ ", b"/#", b"/a#b", b"/a?#", b"/\xe9", b"/?\xff"),
            *(b"/" + bytes([octet]) for octet in CONTROLS),
            *(b"/\t", b"/\n", b"/a?\r", b"/a\r\n"),
        ],
    ),
    "DIGITS": ([b"0", b"5", b"0005", b"1234567890", b"9" * 100], [b"", b"a", b"5a", b"f", *WIDER_THAN_DIGITS]),
    "HOST": (
        HOSTS,
        [*NO_HOST, *(host + end for host in (b"a", b"a:1", b"[::1]") for end in (b" ", b"\t", b"\r", b"\n", b"\r\n"))],
    ),
    "VERSION": (
        [b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/9.9"],
        [*NO_VERSION, b"HTTP/1.1\r", b"HTTP/1.1\n", b"HTTP/1.1 ", b" HTTP/1.1"],
    ),
    "REQUEST_LINE": (
        [
            *(b"GET / HTTP/1.1", b"GET /a?b HTTP/1.0", b"get /?? HTTP/1.1", b"X-Y! //a/../%zz;{}|?a=b&c HTTP/1.1"),
            TCHAR + b" / HTTP/1.1",
        ],
        [
            *(b"GET /# HTTP/1.1", b"GET / HTTP/1.2", b"GET / HTTP/2.0", b"GET * HTTP/1.1", b"GET a HTTP/1.1"),
            *(b"GET  / HTTP/1.1", b"GET /  HTTP/1.1", b" GET / HTTP/1.1", b"GET / HTTP/1.1 ", b"GET /", b"/ HTTP/1.1"),
            *(b"GET / HTTP/1.1\r", b"GET / HTTP/1.1\n", b"GET /\x00 HTTP/1.1", b"GET /\xff HTTP/1.1"),
            *(b"GET /?\x7f HTTP/1.1", b"GET /?a b HTTP/1.1", b"GET\t/ HTTP/1.1", b"GET / http/1.1", b""),
            b"G:T / HTTP/1.1",
        ],
    ),
    "CHUNK_LINE": (
        [
            *(b"0\r\n", b"5\r\n", b"a\r\n", b"F\r\n", b"000\r\n", b"0123456789abcdeF\r\n", b"5;a\r\n"),
            *(b"5;a=b\r\n", b'5;a="b c"\r\n', b"5 ;a\r\n", b"5\t;a\r\n", b"5;a=b;c=d\r\n"),
        ],
        [
            *(b"5", b"5\r", b"5\n", b"5\rX", b"5\r\r\n", b"5;a\n", b"5a;\n", b"5;a\r\n\r\n", b"5\r\nhello", b""),
            *(b"5;\r\n", b"5;;a\r\n", b"5; \xe9\r\n", b"5;a=\r\n", b"5;bad[=x\r\n", b'5;a="b\r\n'),
            *(size + b"\r\n" for size in NO_CHUNK_SIZE if len(size) < 1000),
        ],
    ),
    # What may still become a CHUNK_LINE.
    "CHUNK_LINE_START": (
        [b"", b"5", b"5\r", b"5 ", b"5 \t", b"5;", b"5;a", b"5 ;a\r", b"0123456789abcdef", b"5;\xff", b"5 \r"],
        [
            *(b" ", b"\r", b"\n", b"g", b"5g", b"5\n", b"5\rX", b"5\r\n", b";", b"+", b"-", b"0x", b"5_", b"5."),
            b"12345678901234567",
            *(b"5;\n", b"5;\x00", b"5;\x7f", b"5;a\rb", b"5 a", b"5\x0b", b"5\xa0", b"5 \n", b"\xb2", b'"', b"5,"),
        ],
    ),
}  # fmt: skip

SEARCHED = {
    "BAD_LINE_END": (
        [b"\n", b"a\nb", b"\n\r\n", b"\r\n\n", b"\ra", b"\r\r\n", b"\r ", b"a\rb\r\n", b"\x00", b"a\x00", b"\r\x00"],
        [b"", b"a", b"\r\n", b"a\r\nb", b"\r", b"a\r", b"\r\n\r", b"\r\n\r\n", b"\x01\x0b\x85\x1c"],
    )
}


def cases(index: int) -> list[object]:
    return [
        pytest.param(PATTERNS[name], text, id=f"{name}-{text!r:.60}")
        for name, table in TABLES.items()
        for text in dict.fromkeys(table[index])
    ]


@table("pattern, text", cases(0))
def test_accepts(pattern: re.Pattern[bytes], text: bytes) -> None:
    assert pattern.fullmatch(text) is not None


@table("pattern, text", cases(1))
def test_refuses(pattern: re.Pattern[bytes], text: bytes) -> None:
    assert pattern.fullmatch(text) is None


@pytest.mark.parametrize("text", SEARCHED["BAD_LINE_END"][0])
def test_finds_bad_line_ends(text: bytes) -> None:
    assert grammar.BAD_LINE_END.search(text) is not None


@pytest.mark.parametrize("text", SEARCHED["BAD_LINE_END"][1])
def test_leaves_good_line_ends(text: bytes) -> None:
    assert grammar.BAD_LINE_END.search(text) is None


def test_a_line_feed_at_the_place_where_the_search_begins_sees_the_octet_before_it() -> None:
    assert grammar.BAD_LINE_END.search(b"a\r\n", 2) is None
    assert grammar.BAD_LINE_END.search(b"ab\n", 2) is not None


def test_every_pattern_has_a_table_of_what_it_refuses() -> None:
    assert set(PATTERNS) == set(TABLES) | set(SEARCHED)
    assert all(refused for _, refused in TABLES.values())


@pytest.mark.parametrize(
    ("name", "octets"), [("TOKEN", TCHAR), ("FIELD_VALUE", TEXT), ("REASON", TEXT), ("DIGITS", DIGIT)]
)
def test_the_octets_of_a_pattern_are_exactly_those_of_the_grammar(name: str, octets: bytes) -> None:
    pattern = PATTERNS[name]
    assert {octet for octet in range(256) if pattern.fullmatch(bytes([octet]))} == set(octets)
    assert {octet for octet in range(256) if pattern.fullmatch(b"0" + bytes([octet]) + b"0")} == set(octets)


def test_the_octets_of_a_target_are_visible_ascii_without_the_number_sign() -> None:
    found = {octet for octet in range(256) if TARGET.fullmatch(b"/" + bytes([octet]))}
    assert found == set(VCHAR) - {ord("#")}


def test_the_octets_of_a_reg_name_are_unreserved_and_sub_delims_without_the_comma() -> None:
    found = {octet for octet in range(256) if HOST.fullmatch(b"a" + bytes([octet]) + b"a")}
    assert found == set(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-._~!$&'()*+;=")


@pytest.mark.parametrize("name", sorted(TABLES))
def test_no_pattern_takes_long_to_refuse(name: str) -> None:
    # Nested repetition would need exponential time here; the suite would hang.
    pattern = PATTERNS[name]
    for piece in (b"a", b"0", b" ", b"\t", b";", b":", b"%41", b".", b"[", b"5;a", b"0:"):
        for end in (b"\x00", b"\r", b" \n", b"]"):
            pattern.fullmatch(piece * 20000 + end)
