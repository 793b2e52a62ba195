from __future__ import annotations

from array import array
from http import HTTPStatus
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.http import fields as fields_module
from bridge.core.http import message
from bridge.core.http.fields import NO_LENGTH as UNDECLARED
from bridge.core.http.fields import check_fields, encode_fields
from bridge.core.http.limits import Limits
from bridge.core.http.message import KnownHeads, ResponseHead
from bridge.core.http1.decoder import ChunkedDecoder
from bridge.core.http1.encoder import LAST_CHUNK, chunk, status_line
from bridge.core.http1.request import parse_fields
from bridge.errors import LocalProtocolError
from tests.support.hostile import CONTROLS, NO_LENGTH, NOT_TCHAR, TCHAR, TEXT
from tests.support.reader import Content, read_content

# ---------------------------------------------------------------------- status lines


@pytest.mark.parametrize("status", list(HTTPStatus))
def test_registered_phrases(status: HTTPStatus) -> None:
    line = b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode())
    assert status_line(status.value) == line
    assert status_line(status) == line


@pytest.mark.parametrize(
    ("status", "reason", "line"),
    [
        (200, b"Fine", b"HTTP/1.1 200 Fine\r\n"),
        (200, b"a\tb \xe9", b"HTTP/1.1 200 a\tb \xe9\r\n"),
        (299, b"", b"HTTP/1.1 299 \r\n"),
        (599, b"Odd", b"HTTP/1.1 599 Odd\r\n"),
        (100, b"x", b"HTTP/1.1 100 x\r\n"),
        (999, b"", b"HTTP/1.1 999 \r\n"),
    ],
)
def test_status_lines(status: int, reason: bytes, line: bytes) -> None:
    assert status_line(status, reason) == line


@pytest.mark.parametrize("status", [0, 1, 42, 99, 1000, 2000, -200, 10**9, True, "200", b"200", None, 299.5])
def test_what_is_no_status(status: int) -> None:
    for reason in (b"", b"Odd"):
        with pytest.raises(LocalProtocolError):
            status_line(status, reason)


@pytest.mark.parametrize(
    "reason",
    [
        *(b"OK" + bytes([octet]) for octet in CONTROLS),
        *(bytes([octet]) for octet in CONTROLS),
        *(b"OK\r\nInjected: yes", b"OK\nInjected: yes", b"OK\rInjected: yes", b"OK\r\n\r\n<b>", b"\r\n"),
    ],
)
def test_reasons_that_would_split_the_response(reason: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        status_line(200, reason)


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


@pytest.mark.parametrize(
    "field",
    [*((name, b"v") for name in NAMES), *((b"x", value) for value in VALUES)],
    ids=lambda value: f"{value!r:.60}",
)
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
    view = (b"x-view", memoryview(value))
    known = KnownHeads()
    for content in (b"first", b"first", b"other"):
        value[:] = content
        assert known.add(200, b"", view).block == b"x-view: %b\r\n" % content
    assert not known


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


@pytest.mark.parametrize("value", [*NO_LENGTH, b"9" * 19, b"0" * 19, b"1" * 5000])
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


@pytest.mark.parametrize(
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
    ids=lambda value: f"{value!r:.60}",
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


# ---------------------------------------------------------------------- heads that are made in advance


def test_a_head_with_a_length_says_so_on_the_wire() -> None:
    for fields in ([], [(b"content-length", b"99")], [(b"x", b"y")]):
        head = ResponseHead(200, fields)
        before = (head.lines, head.length, head.special, head.block)
        other = head.with_length(5)
        assert other.length == 5
        assert [line for line in other.lines if line.startswith(b"content-length")] == [b"content-length: 5\r\n"]
        assert other.block == b"".join(other.lines)
        assert other.special is None
        assert before == (head.lines, head.length, head.special, head.block)


def test_a_head_is_checked_when_it_is_made() -> None:
    assert ResponseHead(404, [(b"x", b"y")], b"Odd").reason == b"Odd"
    assert ResponseHead(101, []).status == 101
    for status, fields, reason in (
        *((status, [], b"") for status in (99, 100, 102, 199, 1000, "200")),
        (200, [(b"x", b"a\nb")], b""),
        (200, [], b"OK\r\n"),
    ):
        with pytest.raises(LocalProtocolError):
            ResponseHead(status, fields, reason)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "fields", "plain"),
    [
        (200, [], True),
        (404, [(b"content-length", b"5"), (b"set-cookie", b"a=b")], True),
        (204, [], False),
        (304, [], False),
        (101, [], False),
        (200, [(b"connection", b"keep-alive")], False),
        (200, [(b"date", b"today")], False),
    ],
)
def test_a_plain_head_is_one_that_goes_out_as_it_is(status: int, fields: Pairs, plain: bool) -> None:
    assert ResponseHead(status, fields).plain is plain


# ---------------------------------------------------------------------- what is kept


def test_a_head_is_kept_when_it_comes_the_second_time() -> None:
    for known, key in (
        (KnownHeads(), (200, b"", (b"x", b"y"))),
        (KnownHeads(), (200, b"Fine", (b"x", b"y"))),
        (KnownHeads(text=True), (200, "Fine", ("x", "y"))),
        (KnownHeads(text=True), (200, None, ("x", "y"))),
    ):
        first, second = known.add(*key), known.add(*key)
        assert known.get(key) is second is not first
        assert first.block == second.block == b"x: y\r\n"
        assert known.get((200, b"Other", (b"x", b"y"))) is None


def test_a_head_that_two_threads_keep_at_once_is_kept() -> None:
    class TakenByAnother(dict[object, None]):
        def __contains__(self, key: object) -> bool:
            return super().__contains__(key) and (super().pop(key), True)[1]

    known = KnownHeads()
    known._once = TakenByAnother()
    for _ in range(2):
        assert known.add(200, b"", (b"x", b"y")).block == b"x: y\r\n"
    assert len(known) == 1


def test_heads_that_are_secret_or_long_or_made_of_lists_are_not_kept() -> None:
    known = KnownHeads()
    for key in (
        (200, b"", (b"Set-Cookie", b"s3cret")),
        (200, b"", (b"x", b"y" * message._HEAD_LENGTH_MAX)),
        (200, b"", [b"x", b"y"]),
    ):
        for _ in range(3):
            known.add(*key)
    assert not known
    assert not known._once


def test_an_illegal_head_is_refused_however_often_it_comes() -> None:
    known = KnownHeads(text=True)
    for key in ((200, None, ("x", "a\nb")), (99, None), (200, "a\nb"), (200, "\u20ac"), (150, None)):
        for _ in range(3):
            with pytest.raises(LocalProtocolError):
                known.add(*key)
    assert not known


def test_the_table_of_known_heads_stays_small() -> None:
    known = KnownHeads()
    for number in range(2 * message._HEADS_MAX + 10):
        for _ in range(2):
            known.add(200, b"", (b"x-number", b"%d" % number))
        assert len(known) <= message._HEADS_MAX
    for number in range(2 * message._ONCE_MAX + 10):
        known.add(200, b"", (b"x-once", b"%d" % number))
        assert len(known._once) <= message._ONCE_MAX


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


@given(st.lists(st.binary(min_size=1, max_size=100), max_size=8))
def test_chunks_can_be_read(parts: list[bytes]) -> None:
    wire = b"".join(chunk(part) for part in parts) + LAST_CHUNK
    assert read_content(ChunkedDecoder(Limits(), 1 << 20), [wire]) == Content(b"".join(parts), (), b"")
