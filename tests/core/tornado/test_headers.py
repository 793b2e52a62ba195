from __future__ import annotations

import copy
import pickle
import sys
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.httputil import HTTPInputError
from bridge.core.tornado.headers import _NAMES_MAX, HTTPHeaders, _names

WIRE = [
    (b"host", b"example.com"),
    (b"x-list", b"a"),
    (b"cookie", b"k=\xe9"),
    (b"x-list", b"b"),
    (b"www-authenticate", b""),
]
PAIRS = [
    ("Host", "example.com"),
    ("X-List", "a"),
    ("X-List", "b"),
    ("Cookie", "k=\xe9"),
    ("Www-Authenticate", ""),
]


def wire() -> HTTPHeaders:
    return HTTPHeaders.from_raw(list(WIRE))


# --- a view of what came over the wire --------------------------------------------------------------------------------


def test_fields_from_the_wire_read_as_text() -> None:
    headers = wire()
    assert headers["HOST"] == "example.com"
    assert headers["x-List"] == "a,b"
    assert headers.get_list("X-LIST") == ["a", "b"]
    assert headers["cookie"] == "k=\xe9"
    assert headers["WWW-authenticate"] == ""
    assert list(headers) == ["Host", "X-List", "Cookie", "Www-Authenticate"]
    assert len(headers) == 4
    assert list(headers.get_all()) == PAIRS


def test_nothing_is_decoded_before_the_first_look_up() -> None:
    decoded: list[bytes] = []

    class Value(bytes):
        def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
            decoded.append(self)
            return super().decode(encoding, errors)

    fields: list[tuple[bytes, bytes]] = [(b"host", Value(b"a")), (b"accept", Value(b"b"))]
    headers = HTTPHeaders.from_raw(fields)
    assert headers.raw is fields
    assert headers.copy().raw is fields
    assert decoded == []
    assert "Host" in headers
    assert "Accept" in headers
    assert decoded == [b"a", b"b"]


def test_raw_is_what_came_until_something_changes() -> None:
    fields = list(WIRE)
    headers = HTTPHeaders.from_raw(fields)
    assert headers["Host"] == "example.com"
    assert headers.raw is fields
    headers["X-List"] = "c"
    assert headers.raw == [
        (b"host", b"example.com"),
        (b"x-list", b"c"),
        (b"cookie", b"k=\xe9"),
        (b"www-authenticate", b""),
    ]
    assert fields == WIRE


CHANGES: list[tuple[Callable[[HTTPHeaders], object], list[tuple[bytes, bytes]]]] = [
    (lambda headers: headers.add("B", "2"), [(b"a", b"1"), (b"b", b"2")]),
    (lambda headers: headers.__setitem__("A", "2"), [(b"a", b"2")]),
    (lambda headers: headers.__delitem__("A"), []),
    (lambda headers: headers.pop("A"), []),
    (lambda headers: headers.clear(), []),
    (lambda headers: headers.update({"B": "2"}), [(b"a", b"1"), (b"b", b"2")]),
    (lambda headers: headers.parse_line("A: 2"), [(b"a", b"1"), (b"a", b"2")]),
]


@pytest.mark.parametrize(("change", "after"), CHANGES)
def test_a_change_shows_in_raw_and_not_in_the_shared_list(
    change: Callable[[HTTPHeaders], object], after: list[tuple[bytes, bytes]]
) -> None:
    fields = [(b"a", b"1")]
    headers = HTTPHeaders.from_raw(fields)
    other = headers.copy()
    change(headers)
    assert headers.raw == after
    assert fields == [(b"a", b"1")]
    assert other.raw == [(b"a", b"1")]
    assert other["A"] == "1"


def test_raw_of_text_outside_latin_1_is_refused() -> None:
    headers = HTTPHeaders()
    headers["X"] = "\u0100"
    with pytest.raises(UnicodeEncodeError):
        _ = headers.raw


def test_the_table_of_names_stays_bounded() -> None:
    _names.clear()
    for number in range(_NAMES_MAX * 3):
        assert HTTPHeaders.from_raw([(b"x-%d" % number, b"")])[f"X-{number}"] == ""
    assert 0 < len(_names) <= _NAMES_MAX
    long = b"x-" + b"a" * 60
    assert HTTPHeaders.from_raw([(long, b"1")])[long.decode()] == "1"
    assert long not in _names


# --- construction -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        HTTPHeaders({"a-b": "1", "c": "2"}),
        HTTPHeaders([("a-b", "1"), ("c", "2")]),
        HTTPHeaders({"A-B": "1"}, c="2"),
        HTTPHeaders(HTTPHeaders({"a-b": "1", "c": "2"})),
        HTTPHeaders(HTTPHeaders({"a-b": "1"}), c="2"),
        HTTPHeaders.parse("A-b: 1\r\nC:2\r\n"),
        HTTPHeaders.from_raw([(b"a-b", b"1"), (b"c", b"2")]),
    ],
)
def test_ways_to_make_the_same_headers(headers: HTTPHeaders) -> None:
    assert list(headers.get_all()) == [("A-B", "1"), ("C", "2")]
    assert headers == HTTPHeaders({"A-B": "1", "C": "2"})
    assert headers != HTTPHeaders({"A-B": "1"})


def test_headers_made_of_headers_keep_repetitions_and_are_independent() -> None:
    first = wire()
    second = HTTPHeaders(first)
    assert list(second.get_all()) == PAIRS
    second.add("X-List", "c")
    assert first.get_list("X-List") == ["a", "b"]


def test_no_headers() -> None:
    headers = HTTPHeaders()
    assert not headers
    assert list(headers.get_all()) == []
    assert headers.raw == []
    assert str(headers) == ""


# --- the mapping ------------------------------------------------------------------------------------------------------


def test_assignment_replaces_all_values_and_keeps_the_place() -> None:
    headers = wire()
    headers["x-list"] = "c"
    assert list(headers.items()) == [
        ("Host", "example.com"),
        ("X-List", "c"),
        ("Cookie", "k=\xe9"),
        ("Www-Authenticate", ""),
    ]


def test_an_absent_name() -> None:
    headers = wire()
    assert headers.get("X") is None
    assert headers.get("X", "d") == "d"
    assert headers.get_list("X") == []
    assert "X" not in headers
    assert 3 not in headers
    with pytest.raises(KeyError):
        headers["X"]
    with pytest.raises(KeyError):
        del headers["X"]


def test_the_list_of_values_is_the_callers() -> None:
    headers = wire()
    headers.get_list("X-List").append("c")
    assert headers.get_list("X-List") == ["a", "b"]


def test_deletion_of_a_repeated_name() -> None:
    headers = wire()
    del headers["X-LIST"]
    assert "X-List" not in headers
    headers.add("x-list", "z")
    assert list(headers)[-1] == "X-List"


def test_str_has_one_line_per_value_and_can_be_parsed() -> None:
    assert str(wire()) == "Host: example.com\nX-List: a\nX-List: b\nCookie: k=\xe9\nWww-Authenticate: \n"
    assert list(HTTPHeaders.parse(str(wire())).get_all()) == PAIRS


# --- copies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("touched", [False, True], ids=["as it came", "changed"])
@pytest.mark.parametrize(
    "duplicate",
    [
        HTTPHeaders.copy,
        copy.copy,
        copy.deepcopy,
        *(lambda headers, p=protocol: pickle.loads(pickle.dumps(headers, p)) for protocol in range(6)),
    ],
)
def test_copies_are_independent(duplicate: Callable[[HTTPHeaders], HTTPHeaders], touched: bool) -> None:
    original = wire()
    if touched:
        original["Host"] = "example.com"
    other = duplicate(original)
    assert type(other) is HTTPHeaders
    assert list(other.get_all()) == PAIRS
    assert sorted(other.raw) == sorted(WIRE)
    assert list(other.copy().get_all()) == PAIRS
    other.add("X-List", "c")
    other["Host"] = "other"
    del other["Cookie"]
    assert list(original.get_all()) == PAIRS
    original.add("X-List", "d")
    assert other.get_list("X-List") == ["a", "b", "c"]


@pytest.mark.parametrize("form", range(6))
def test_empty_headers_can_be_pickled(form: int) -> None:
    other = pickle.loads(pickle.dumps(HTTPHeaders(), form))
    assert other.raw == []
    other.add("A", "1")
    assert other.raw == [(b"a", b"1")]


# --- checks -----------------------------------------------------------------------------------------------------------

BAD_NAMES = ["", " ", "a b", "a:", "a\t", "a\n", "a\r", "\x00", "a\x7f", "(a)", "a,b", "a/b", 'a"', "é", "[", "@", "{"]
BAD_VALUES = ["\r", "\n", "a\rb", "a\nb", "a\r\nb: c", "\x00", "a\x0bb", "a\x1fb", "\x7f", "\u0100", " a", "a\t", " "]
GOOD_VALUES = ["", "a", "a b\tc", "\x80", "\xff\xa0\x85", '!"#$%&()*+,-./:;<=>?@[\\]^_`{|}~']


@pytest.mark.parametrize("name", BAD_NAMES)
def test_add_refuses_what_is_not_a_token(name: str) -> None:
    headers = HTTPHeaders()
    with pytest.raises(HTTPInputError, match="Invalid header name"):
        headers.add(name, "a")
    assert not headers


@pytest.mark.parametrize("value", BAD_VALUES)
def test_add_refuses_a_value_off_the_grammar(value: str) -> None:
    headers = HTTPHeaders()
    with pytest.raises(HTTPInputError, match="Invalid header value"):
        headers.add("A", value)
    assert not headers


@pytest.mark.parametrize("value", GOOD_VALUES)
def test_add_takes_any_other_value(value: str) -> None:
    headers = HTTPHeaders()
    headers.add("!#$%&'*+-.^_`|~09azAZ", value)
    assert list(headers.values()) == [value]


def test_assignment_does_not_check() -> None:
    headers = HTTPHeaders()
    headers["a b"] = "\n"
    assert headers["A b"] == "\n"


@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_parse_takes_both_line_ends(line_end: str) -> None:
    headers = HTTPHeaders.parse(line_end.join(["A: 1", "B:\t 2 \t", "", "a:3", ""]))
    assert list(headers.get_all()) == [("A", "1"), ("A", "3"), ("B", "2")]


@pytest.mark.parametrize(
    "text",
    [
        *(
            "A: 1\r\n B: 2",
            "A: 1\n\tB",
            " A: 1",
            "A",
            "A: 1\r\nB\r\n",
            ": 1",
            "A : 1",
            "A: 1\rB: 2",
            "A: 1\r",
            "A: 1\r\r\n",
        ),
        *("A: \x00", "A\xa0: 1", "A: b\u2028c", "\rA: 1"),
    ],
)
def test_parse_refuses(text: str) -> None:
    with pytest.raises(HTTPInputError):
        HTTPHeaders.parse(text)


def test_parse_line_takes_a_line_with_or_without_its_end() -> None:
    headers = HTTPHeaders()
    for line in ("A: 1", "B: 2\r\n", "C: 3\n", "", "\r\n"):
        headers.parse_line(line)
    assert list(headers.get_all()) == [("A", "1"), ("B", "2"), ("C", "3")]


@pytest.mark.parametrize("line", ["A: 1\r", "A: 1\nB: 2", "A: 1\r\nB: 2\r\n", " A: 1", "A"])
def test_parse_line_refuses(line: str) -> None:
    headers = HTTPHeaders()
    with pytest.raises(HTTPInputError):
        headers.parse_line(line)
    assert not headers


def test_only_space_and_tab_are_white_space() -> None:
    assert HTTPHeaders.parse("A: \xa01\x85")["A"] == "\xa01\x85"


@given(st.text())
def test_parse_of_any_text_gives_headers_or_an_input_error(text: str) -> None:
    try:
        headers = HTTPHeaders.parse(text)
    except HTTPInputError:
        return
    assert HTTPHeaders.parse(str(headers)) == headers


FIELD_NAMES = st.sampled_from([b"a", b"x-y", b"set-cookie", b"accept"])
FIELD_VALUES = st.text(st.characters(min_codepoint=0x21, max_codepoint=0xFF).filter(lambda c: c != "\x7f"), max_size=4)


@given(st.lists(st.tuples(FIELD_NAMES, FIELD_VALUES.map(lambda text: text.encode("latin-1")))))
def test_raw_after_a_change_has_the_same_fields_grouped_by_name(fields: list[tuple[bytes, bytes]]) -> None:
    headers = HTTPHeaders.from_raw(fields)
    headers["zz"] = ""
    del headers["zz"]
    order = {name: number for number, name in reversed(list(enumerate(name for name, _ in fields)))}
    assert headers.raw == sorted(fields, key=lambda field: order[field[0]])


# --- cost -------------------------------------------------------------------------------------------------------------


def count_calls(function: Callable[[], object]) -> int:
    """Return how many calls, of Python and of C functions, *function* makes."""
    count = 0

    def note(frame: object, event: str, argument: object) -> None:
        nonlocal count
        count += event in {"call", "c_call"}

    sys.setprofile(note)
    try:
        function()
    finally:
        sys.setprofile(None)
    return count


REPEATED: list[tuple[str, Callable[[int], object]]] = [
    ("parse", lambda n: HTTPHeaders.parse("X: a\r\n" * n)),
    ("parse names", lambda n: HTTPHeaders.parse("".join(f"X{number}: a\r\n" for number in range(n)))),
    ("raw", lambda n: HTTPHeaders.from_raw([(b"x", b"a")] * n)["X"]),
    ("raw names", lambda n: HTTPHeaders.from_raw([(b"x%d" % number, b"a") for number in range(n)])["X1"]),
    ("copy", lambda n: HTTPHeaders(HTTPHeaders.parse("X: a\r\n" * n)).copy()),
    ("str", lambda n: str(HTTPHeaders.parse("X: a\r\n" * n))),
]


@pytest.mark.parametrize("work", [pytest.param(work, id=name) for name, work in REPEATED])
def test_cost_grows_with_the_number_of_fields(work: Callable[[int], object]) -> None:
    work(10)
    small, large = count_calls(lambda: work(500)), count_calls(lambda: work(5000))
    assert large < 11 * small


def test_adding_a_repeated_field_does_not_copy_the_values_before_it() -> None:
    value = "a" * 1000
    headers = HTTPHeaders.from_raw([(b"x", b"b")])
    for _ in range(1000):
        headers.add("X", value)
    assert len(headers["X"]) > 1_000_000
    tracemalloc.start()
    try:
        headers.add("X", value)
        assert "X" in headers
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 100_000
