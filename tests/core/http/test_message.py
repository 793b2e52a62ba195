from __future__ import annotations

import pytest

from bridge.core.http import message
from bridge.core.http.message import KnownHeads, RequestHead, ResponseHead, request_line, with_fields
from bridge.errors import LocalProtocolError

Pairs = list[tuple[bytes, bytes]]

# ---------------------------------------------------------------------- requests


@pytest.mark.parametrize(
    ("method", "version", "plain"),
    [("GET", b"1.1", True), ("POST", b"1.1", True), ("HEAD", b"1.1", False), ("GET", b"1.0", False)],
)
def test_a_plain_request_line_is_one_whose_response_is_framed_in_the_usual_way(
    method: str, version: bytes, plain: bool
) -> None:
    line = request_line(method.encode(), method, b"/a?b", version, b"/a", b"b", b"")
    assert line.plain is plain
    assert (line.method, line.method_text) == (method.encode(), method)
    assert (line.version, line.version_text) == (version, version.decode())
    assert (line.target, line.path, line.query, line.authority) == (b"/a?b", b"/a", b"b", b"")


@pytest.mark.parametrize(
    ("path", "text"), [(b"/a", "/a"), (b"/%C3%A9%2F", "/\xe9/"), (b"/%ff", "/\ufffd"), (b"*", "*"), (b"/%2541", "/%41")]
)
def test_the_path_is_text_decoded_once(path: bytes, text: str) -> None:
    assert request_line(b"GET", "GET", path, b"1.1", path, b"", b"").path_text == text


def test_a_request_s_head_with_other_fields_says_the_same_else() -> None:
    line = request_line(b"POST", "POST", b"/a?b", b"1.1", b"/a", b"b", b"")
    head = RequestHead(line, ((b"host", b"h"),), b"h", 50, None, False, True, b"websocket")
    assert (head.method, head.target, head.version, head.path, head.query) == (b"POST", b"/a?b", b"1.1", b"/a", b"b")
    other = with_fields(head, ((b"x", b"y"),))
    assert other.fields == ((b"x", b"y"),)
    assert other.line is line
    for name in ("host", "size", "content_length", "keep_alive", "expect_continue", "upgrade"):
        assert getattr(other, name) == getattr(head, name)
    assert head.fields == ((b"host", b"h"),)


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


def test_a_head_with_one_field_more_has_it_in_place_of_all_of_that_name() -> None:
    head = ResponseHead(200, [(b"X-A", b"1"), (b"b", b"2"), (b"x-a", b"3"), (b"x-ab", b"4"), (b"connection", b"close")])
    other = head.with_fields([(b"x-a", b"4"), (b"x-a", b"5")])
    assert other.lines == [b"b: 2\r\n", b"x-ab: 4\r\n", b"x-a: 5\r\n"]
    assert (other.status, other.reason, other.length) == (head.status, head.reason, head.length)
    assert other.special is head.special is not None
    assert len(head.lines) == 4


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
        (KnownHeads(), (200, b"", ((b"x", b"y"),))),
        (KnownHeads(), (200, b"Fine", ((b"x", b"y"),))),
        (KnownHeads(text=True), (200, "Fine", (("x", "y"),))),
        (KnownHeads(text=True), (200, None, (("x", "y"),))),
    ):
        first, second = known.add(*key), known.add(*key)
        assert known.get(key) is second is not first
        assert first.block == second.block == b"x: y\r\n"
        assert known.get((200, b"Other", ((b"x", b"y"),))) is None


def test_a_head_that_two_threads_keep_at_once_is_kept() -> None:
    class TakenByAnother(dict[object, None]):
        def __contains__(self, key: object) -> bool:
            return super().__contains__(key) and (super().pop(key), True)[1]

    known = KnownHeads()
    known._once = TakenByAnother()
    for _ in range(2):
        assert known.add(200, b"", ((b"x", b"y"),)).block == b"x: y\r\n"
    assert len(known) == 1


def test_heads_that_are_secret_or_long_or_made_of_lists_are_not_kept() -> None:
    known = KnownHeads()
    for key in (
        (200, b"", ((b"Set-Cookie", b"s3cret"),)),
        (200, b"", ((b"x", b"y" * message._HEAD_LENGTH_MAX),)),
        (200, b"", ([b"x", b"y"],)),
    ):
        for _ in range(3):
            known.add(*key)
    assert not known
    assert not known._once


def test_an_illegal_head_is_refused_however_often_it_comes() -> None:
    known = KnownHeads(text=True)
    for key in ((200, None, (("x", "a\nb"),)), (99, None, ()), (200, "a\nb", ()), (200, "\u20ac", ()), (150, None, ())):
        for _ in range(3):
            with pytest.raises(LocalProtocolError):
                known.add(*key)
    assert not known


def test_the_table_of_known_heads_stays_small() -> None:
    known = KnownHeads()
    for number in range(2 * message._HEADS_MAX + 10):
        for _ in range(2):
            known.add(200, b"", ((b"x-number", b"%d" % number),))
        assert len(known) <= message._HEADS_MAX
    for number in range(2 * message._ONCE_MAX + 10):
        known.add(200, b"", ((b"x-once", b"%d" % number),))
        assert len(known._once) <= message._ONCE_MAX


def test_a_head_of_something_that_may_change_is_made_anew() -> None:
    value = bytearray(b"first")
    view = (b"x-view", memoryview(value))
    known = KnownHeads()
    for content in (b"first", b"first", b"other"):
        value[:] = content
        assert known.add(200, b"", (view,)).block == b"x-view: %b\r\n" % content
    assert not known
