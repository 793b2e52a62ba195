from __future__ import annotations

from array import array
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.http import fields as fields_module
from bridge.core.http.fields import NO_LENGTH as UNDECLARED
from bridge.core.http.fields import check_fields, encode_fields, list_members, without_length
from bridge.core.http.limits import Limits
from bridge.core.http1.request import parse_fields
from bridge.errors import LocalProtocolError
from tests.support.hostile import CONTROLS, NO_LENGTH, NOT_TCHAR, TCHAR, TEXT
from tests.support.table import table

# ---------------------------------------------------------------------- field lines

Pairs = list[tuple[bytes, bytes]]


@pytest.mark.parametrize(
    ("fields", "lines"),
    [
        ([], []),
        ([(b"content-type", b"text/plain")], [b"content-type: text/plain\r\n"]),
        # order, spelling and repetition are the application's
        (
            [(b"X-B", b"1"), (b"x-a", b"2"), (b"X-B", b"1"), (b"Set-Cookie", b"a=b"), (b"Set-Cookie", b"c=d")],
            [b"X-B: 1\r\n", b"x-a: 2\r\n", b"X-B: 1\r\n", b"Set-Cookie: a=b\r\n", b"Set-Cookie: c=d\r\n"],
        ),
        ([(b"x", b"")], [b"x: \r\n"]),
        ([(b"x", b" y\t")], [b"x:  y\t\r\n"]),
        ([(TCHAR, TEXT)], [TCHAR + b": " + TEXT + b"\r\n"]),
        # hop-by-hop fields are the server's (RFC 9110 section 7.6.1)
        (
            [(b"Transfer-Encoding", b"chunked"), (b"Keep-Alive", b"timeout=999"), (b"TE", b"x"), (b"Proxy-Connection",
                b"x")],
            [],
        ),
        ([(b"TRANSFER-ENCODING", b"chunked"), (b"x", b"y")], [b"x: y\r\n"]),
        ([(b"Connection", b"keep-alive"), (b"Upgrade", b"x")], []),
        # others that only look so are not
        ([(b"Transfer_Encoding", b"x"), (b"X-Connection", b"y")], [b"Transfer_Encoding: x\r\n",
            b"X-Connection: y\r\n"]),
    ],
    ids=lambda value: f"{value!r:.60}",
)  # fmt: skip
def test_field_lines(fields: Pairs, lines: list[bytes]) -> None:
    for _ in range(2):  # encoded, and known from before
        assert check_fields(fields)[0] == lines
        assert check_fields(iter(fields))[0] == lines
        assert encode_fields(fields) == b"".join(lines)


NAMES = [
    b"",
    *(b"X" + bytes([octet]) for octet in NOT_TCHAR),
    *(bytes([octet]) + b"X" for octet in NOT_TCHAR),
    *(b"X\r\nInjected: yes\r\nX-Y", b"X: y\r\nInjected", b"X\nInjected", b"X ", b" X", b":", b"X:"),
]
VALUES = [
    *(b"a" + bytes([octet]) + b"b" for octet in CONTROLS),
    *(bytes([octet]) for octet in CONTROLS),
    *(b"ok\r\nInjected: yes", b"ok\nInjected: yes", b"ok\rInjected: yes", b"ok\r\n\r\n<b>", b"ok\r\n", b"ok\r\n x"),
    *(b"/a\r\nset-cookie: s=1", b"a\x00b"),
]


@table("field", [*((name, b"v") for name in NAMES), *((b"x", value) for value in VALUES)])
def test_fields_that_would_split_the_response(field: tuple[bytes, bytes]) -> None:
    for fields in ([field], [(b"a", b"b"), field, (b"c", b"d")]):
        for _ in range(2):  # what was refused is not known the next time
            with pytest.raises(LocalProtocolError):
                check_fields(fields)
            with pytest.raises(LocalProtocolError):
                encode_fields(fields)


@pytest.mark.parametrize(
    "name", [b"Content-Length", b"Date", b"Server", b"Connection", b"Upgrade", b"Keep-Alive", b"TE"]
)
@pytest.mark.parametrize("value", [b"a\r\nb: c", b"a\x00", b"\n"])
def test_fields_that_steer_are_checked_like_all_others(name: bytes, value: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        check_fields([(name, value)])


@pytest.mark.parametrize(
    "field",
    [
        *(("x", "y"), (b"x", "y"), ("x", b"y"), (b"x", 1), (1, b"y"), (b"x", None), (None, None), (b"x",), (b"x",
            b"y", b"z")),
        *(b"xy", "xy", 5, None, (), [], (b"x", [b"y"]), ([b"x"], b"y"), {b"x": b"y"}, (b"x", True)),
    ],
    ids=repr,
)  # fmt: skip
def test_what_is_no_pair_of_bytes(field: object) -> None:
    with pytest.raises(LocalProtocolError):
        check_fields([field])  # type: ignore[list-item]


def test_pairs_may_be_any_sequence_of_any_bytes() -> None:
    for kind in (bytes, bytearray, memoryview, lambda text: memoryview(bytearray(text)), lambda text: array("B", text)):
        for pair in ((kind(b"X-Kind"), kind(b"y")), [kind(b"X-Kind"), kind(b"y")]):
            for _ in range(2):
                assert check_fields([pair])[0] == [b"X-Kind: y\r\n"]  # type: ignore[list-item]
        assert check_fields([(kind(b"Content-Length"), kind(b" 12 "))])[:2] == ([b"Content-Length: 12\r\n"], 12)
        special = check_fields([(kind(b"Connection"), kind(b"close"))])[2]
        assert special is not None
        assert special.close


def test_a_changed_bytearray_is_encoded_anew() -> None:
    value = bytearray(b"first")
    assert check_fields([(b"x-array", value)])[0] == [b"x-array: first\r\n"]
    value[:] = b"other"
    assert check_fields([(b"x-array", value)])[0] == [b"x-array: other\r\n"]


def test_the_length_can_be_left_out() -> None:
    lines = [b"x: y\r\n", b"Content-Length: 5\r\n", b"content-lengths: 5\r\n", b"content-length: 5\r\n"]
    assert without_length(lines) == [b"x: y\r\n", b"content-lengths: 5\r\n"]
    # Where fields stand alone, in interim responses and trailer sections, a length says nothing.
    assert encode_fields([(b"Content-Length", b"5"), (b"x", b"y"), (b"Connection", b"close")]) == b"x: y\r\n"


# ---------------------------------------------------------------------- what fields say to the connection


@pytest.mark.parametrize(
    ("fields", "length"),
    [
        ([], UNDECLARED),
        ([(b"content-length", b"0")], 0),
        ([(b"Content-Length", b"5")], 5),
        ([(b"CONTENT-LENGTH", b"\t5 ")], 5),
        ([(b"content-length", b"0005")], 5),
        ([(b"content-length", b"5"), (b"Content-Length", b"5")], 5),
        ([(b"content-length", b"9" * 18)], 10**18 - 1),
        ([(b"content_length", b"5")], UNDECLARED),
    ],
)
def test_declared_lengths(fields: Pairs, length: int) -> None:
    for _ in range(2):
        assert check_fields(fields)[1] == length


@table("value", [*NO_LENGTH, b"9" * 19, b"0" * 19, b"1" * 5000])
def test_what_is_no_length(value: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        check_fields([(b"content-length", value)])


def test_two_lengths_that_differ() -> None:
    for first, second in ((b"5", b"6"), (b"0", b"5"), (b"5", b"0")):
        with pytest.raises(LocalProtocolError):
            check_fields([(b"content-length", first), (b"x", b"y"), (b"Content-Length", second)])


@pytest.mark.parametrize(
    ("values", "close"),
    [
        ([b"close"], True),
        ([b"Close"], True),
        ([b"keep-alive, close"], True),
        ([b"x,\tCLOSE ,"], True),
        ([b"keep-alive", b"close"], True),
        ([b"close", b"keep-alive"], True),
        ([b"keep-alive"], False),
        ([b""], False),
        ([b"closed"], False),
        ([b"\xa0close"], False),
    ],
)
def test_connection_is_a_list(values: list[bytes], close: bool) -> None:
    for _ in range(2):
        lines, _, special = check_fields([(b"connection", value) for value in values])
        assert lines == []
        assert special is not None
        assert special.close is close


def test_date_and_server_of_the_application_are_kept_and_told() -> None:
    for name in (b"Date", b"DATE"):
        lines, _, special = check_fields([(name, b"x")])
        assert lines == [name + b": x\r\n"]
        assert special is not None
        assert (special.has_date, special.has_server) == (True, False)
    lines, _, special = check_fields([(b"x", b"y"), (b"server", b"me")])
    assert lines == [b"x: y\r\n", b"server: me\r\n"]
    assert special is not None
    assert (special.has_date, special.has_server, special.close, special.upgrade) == (False, True, False, b"")
    assert check_fields([(b"x", b"y")])[2] is None


def test_upgrade_is_told_and_not_sent_by_itself() -> None:
    lines, _, special = check_fields([(b"Upgrade", b"websocket")])
    assert lines == []
    assert special is not None
    assert special.upgrade == b"websocket"


# ---------------------------------------------------------------------- lists


@pytest.mark.parametrize(
    ("values", "members"),
    [
        ([], []),
        ([b""], []),
        ([b"close"], [b"close"]),
        ([b"Keep-Alive, CLOSE"], [b"keep-alive", b"close"]),
        ([b"a", b"b,c"], [b"a", b"b", b"c"]),
        ([b" \ta\t , ,,\tb "], [b"a", b"b"]),
        ([b"a b"], [b"a b"]),
        # Not white space in HTTP, although it is to str.strip().
        ([b"\xa0a\xa0"], [b"\xa0a\xa0"]),
        ([b"\x0ba,\x1cb,\x85c"], [b"\x0ba", b"\x1cb", b"\x85c"]),
        # Lower case is ASCII's only: neither the Kelvin sign nor a long s becomes a letter.
        (["chun\u212aed".encode()], ["chun\u212aed".encode()]),
        ([b"\xc4\xd6"], [b"\xc4\xd6"]),
    ],
)
def test_list_members(values: list[bytes], members: list[bytes]) -> None:
    assert list_members(values) == members


@given(st.lists(st.binary(max_size=12), max_size=5))
def test_list_members_have_no_comma_and_no_white_space_around_them(values: list[bytes]) -> None:
    for member in list_members(values):
        assert member
        assert b"," not in member
        assert member == member.strip(b" \t").lower()


# ---------------------------------------------------------------------- fields that are text


def test_fields_of_text() -> None:
    fields = [
        ("X-A", "b\xe9"),
        ("Content-Length", " 5 "),
        ("Set-Cookie", "s3cret"),
        ("Connection", "close"),
        ("TE", "x"),
    ]
    for _ in range(2):
        lines, length, special = check_fields(fields, text=True)
        assert lines == [b"X-A: b\xe9\r\n", b"Content-Length: 5\r\n", b"Set-Cookie: s3cret\r\n"]
        assert length == 5
        assert special is not None
        assert special.close
        listed: Any = [[*field] for field in fields]
        assert check_fields(listed, text=True)[:2] == (lines, length)
    assert not any("s3cret" in field for field in fields_module._text_lines)  # type: ignore[operator]


@table(
    "field",
    [
        *((name.decode("latin-1"), "v") for name in NAMES),
        *(("x", value.decode("latin-1")) for value in VALUES),
        *(
            ("x", "\u0120"),
            ("x", "a\u010ab"),
            ("x", "a\u560d\u560ab"),
            ("\u212a", "v"),
            ("x", "\ud800"),
            ("x\u0131", "v"),
        ),
        *((b"x", b"y"), ("x", b"y"), (b"x", "y"), ("x", 1), ("x", None), ("x",), "xy", None),
    ],
)
def test_text_that_would_split_the_response(field: Any) -> None:
    for fields in ([field], [("a", "b"), field, ("c", "d")]):
        for _ in range(2):
            with pytest.raises(LocalProtocolError):
                check_fields(fields, text=True)


def test_the_table_of_known_text_stays_small() -> None:
    for number in range(2 * fields_module._LINES_MAX + 10):
        check_fields([("x-text", f"{number}")], text=True)
        assert len(fields_module._text_lines) <= fields_module._LINES_MAX


def test_the_table_of_known_lines_stays_small_and_has_no_cookies() -> None:
    for number in range(3 * fields_module._LINES_MAX):
        check_fields([(b"x-number", b"%d" % number)])
        assert len(fields_module._lines) <= fields_module._LINES_MAX
    check_fields([(b"Set-Cookie", b"s3cret"), (b"set-cookie", b"s3cret"), (b"x-long", b"l" * 5000)])
    assert not any(
        value == b"s3cret" or len(value) > fields_module._LINE_LENGTH_MAX for _, value in fields_module._lines
    )


# ---------------------------------------------------------------------- round trips


@given(
    st.lists(
        st.tuples(
            st.text(alphabet=TCHAR.decode(), min_size=1, max_size=10).map(str.encode),
            st.lists(st.sampled_from([bytes([octet]) for octet in TEXT]), max_size=20).map(b"".join),
        ).filter(lambda field: field[0].lower() not in fields_module._KINDS and field[0].lower() != b"host"),
        min_size=1,
        max_size=8,
    )
)
def test_what_was_encoded_can_be_parsed(fields: Pairs) -> None:
    block = encode_fields(fields)
    assert parse_fields(block[:-2], Limits()) == [(name.lower(), value.strip(b" \t")) for name, value in fields]


@given(name=st.binary(max_size=6), value=st.binary(max_size=6))
def test_any_field_is_one_line_or_refused(name: bytes, value: bytes) -> None:
    try:
        lines, _, _ = check_fields([(name, value)])
    except LocalProtocolError:
        return
    for line in lines:
        assert line == name + b": " + value + b"\r\n"
        assert line.count(b"\r") == line.count(b"\n") == 1
        assert b"\x00" not in line
