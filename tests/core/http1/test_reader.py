from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge.core.http.limits import Limits
from bridge.core.http1.decoder import ChunkedDecoder, FixedDecoder
from bridge.core.http1.reader import RequestReader
from bridge.errors import LimitExceeded, RemoteProtocolError, RequestSyntaxError
from tests.core.http1 import test_decoder, test_request
from tests.support.cuts import CUTS, Cut, bytewise, cut_at, single_cuts, whole
from tests.support.hostile import TCHAR
from tests.support.reader import Stream, head_values, read_stream
from tests.support.table import table
from tests.wire import cases
from tests.wire.cases import CASES, Case

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OTHER = b"GET /other HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST /p HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"
CHUNKED = b"POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
LARGE = 12000


def cuts(wire: bytes) -> Iterator[list[bytes]]:
    if len(wire) > LARGE:
        yield from (whole(wire), cut_at(wire, range(0, len(wire), 1459)))
    else:
        yield from (cut(wire) for cut in CUTS)


def read_alike(wire: bytes) -> Stream:
    """Read *wire* in every cut, fed in both ways; return what was found, which must be the same in all."""
    first = read_stream([wire])
    for pieces, assign in itertools.product(cuts(wire), (False, True)):
        assert read_stream(pieces, assign=assign).values == first.values, (pieces, assign)
    return first


# ---------------------------------------------------------------------- the cases of the wire


@table("case", CASES)
def test_the_cases_of_the_wire(case: Case) -> None:
    stream = read_alike(case.wire)
    answers = list(case.answers)
    if case in cases.REFUSED:
        assert stream.refused is not None
        assert stream.refused.status == answers.pop()[0]
        assert len(stream.requests) == len(answers)
    else:
        assert stream.refused is None
        if case.open or case.half_close:
            assert len(stream.requests) == len(answers)
        if case.open:
            assert (stream.begun, stream.rest) == (None, b"")
    for request, (_, answer) in zip(stream.requests, answers, strict=False):
        # The application answers with what it was asked, and with the content unless it is not to.
        if answer is not None and b"|" in answer:
            asked, _, content = answer.partition(b"|")
            assert asked == request.head.method + b" " + request.head.target
            assert content == request.content or request.head.path == b"/early"


def with_content(wire: bytes, length: int | None) -> bytes:
    """Return the head *wire* with content of the given length behind it."""
    return wire + (b"5\r\nhello\r\n0\r\n\r\n" if length is None else b"x" * length)


@pytest.mark.parametrize("cut", CUTS)
def test_the_heads_that_are_accepted(cut: Cut) -> None:
    for wire, expected in (param.values for param in test_request.ACCEPTED):  # type: ignore[attr-defined]
        length = read_stream([wire]).begun
        size = 0 if length is None else length[0].content_length
        if size is not None and size > 1000:
            continue
        wire = with_content(wire, size)
        stream = read_stream(cut(NEXT + wire + NEXT))
        assert stream.refused is None
        assert [request.head.target for request in stream.requests[::2]] == [b"/next", b"/next"]
        head = stream.requests[1].head
        seen = {name: list(head.fields) if name == "fields" else getattr(head, name) for name in expected}
        assert seen == expected
        assert [request.end for request in stream.requests] == [len(NEXT), len(NEXT + wire), len(NEXT + wire + NEXT)]


@pytest.mark.parametrize("cut", CUTS)
def test_the_heads_that_are_refused(cut: Cut) -> None:
    tables = [*(param.values for param in test_request.REFUSED), *test_request.REFUSED_EARLY]  # type: ignore[attr-defined]
    for wire, status in tables:
        if cut is not whole and len(wire) > 3000:
            continue
        # The reader may take a CR for the first half of an empty line, and waits for the other.
        if wire.startswith(b"\r\n") or wire == b"\r":
            continue
        for before in (b"", POST + b"hello"):
            stream = read_stream(cut(before + wire))
            assert stream.refused is not None, wire
            assert stream.refused.status == status, wire
            assert len(stream.requests) == bool(before)


@pytest.mark.parametrize("cut", CUTS)
def test_the_heads_that_are_incomplete(cut: Cut) -> None:
    for wire in test_request.INCOMPLETE:
        stream = read_stream(cut(GET + wire))
        assert (len(stream.requests), stream.begun, stream.refused, stream.rest) == (1, None, None, wire)


@pytest.mark.parametrize("most", [1, 7, 65536])
@pytest.mark.parametrize("cut", CUTS)
def test_the_chunks_that_are_accepted(cut: Cut, most: int) -> None:
    for wire, content, trailers in test_decoder.ACCEPTED:
        for assign in (False, True):
            stream = read_stream(cut(CHUNKED + wire + NEXT), most=most, assign=assign)
            assert stream.refused is None
            first, second = stream.requests
            assert (first.content, first.trailers, first.end) == (content, trailers, len(CHUNKED + wire)), wire
            assert (second.head.target, second.end, stream.rest) == (b"/next", len(CHUNKED + wire + NEXT), b"")


@pytest.mark.parametrize("cut", CUTS)
def test_the_chunks_that_are_refused(cut: Cut) -> None:
    for wire in dict.fromkeys(test_decoder.REFUSED):
        stream = read_stream(cut(CHUNKED + wire))
        assert stream.refused is not None, wire
        assert stream.refused.status == 400, wire
        assert stream.requests == []
        assert stream.begun is not None


# ---------------------------------------------------------------------- one behind the other


def test_several_requests_with_content_between_them() -> None:
    wire = (
        GET
        + POST
        + b"hello"
        + CHUNKED
        + b"2\r\nhe\r\n3;x\r\nllo\r\n0\r\nX: y\r\n\r\n"
        + b"\r\n"
        + GET
        + POST
        + b"GET /"
    )
    stream = read_alike(wire)
    assert stream.refused is None
    assert [(request.head.target, request.content, request.trailers) for request in stream.requests] == [
        (b"/", b"", ()),
        (b"/p", b"hello", ()),
        (b"/c", b"hello", ((b"x", b"y"),)),
        (b"/", b"", ()),
        (b"/p", b"GET /", ()),
    ]
    assert stream.rest == b""


def test_content_is_given_as_it_comes() -> None:
    reader = RequestReader(Limits())
    reader.feed(POST + b"he")
    head = reader.next_head()
    assert head is not None
    decoder = reader.expect_content(head.content_length)
    assert reader.decoder is decoder
    assert isinstance(decoder, FixedDecoder)
    assert reader.next_content(65536) == b"he"
    assert reader.next_content(65536) is None
    reader.feed(b"llo" + GET)
    assert reader.next_content(2) == b"ll"
    assert reader.next_content(2) == b"o"
    assert decoder.done
    assert reader.next_content(2) is None  # what follows is no content
    assert reader.unread == len(GET)
    reader.decoder = None
    assert reader.next_head() is not None
    assert (reader.heads, reader.unread, reader.buffer) == (2, 0, b"")


def test_to_pause_is_not_to_ask() -> None:
    reader = RequestReader(Limits())
    wire = CHUNKED + b"".join(b"1\r\n%c\r\n" % octet for octet in b"abcdef") + b"0\r\n\r\n" + GET
    head = None
    for piece in bytewise(wire):
        reader.feed(piece)
        head = head or reader.next_head()
    assert head is not None
    decoder = reader.expect_content(None)
    assert isinstance(decoder, ChunkedDecoder)
    assert reader.unread == len(wire) - head.size
    assert reader.next_content(65536) == b"abcdef"
    assert decoder.done
    assert reader.unread == len(GET)


def test_framing_that_was_read_is_no_content_and_no_reason_to_wait() -> None:
    reader = RequestReader(Limits())
    reader.feed(CHUNKED + b"5\r\n")
    assert reader.next_head() is not None
    reader.expect_content(None)
    assert reader.next_content(10) == b""
    assert reader.next_content(10) is None
    reader.feed(b"hello")
    assert reader.next_content(10) == b"hello"
    reader.feed(b"\r\n")
    assert reader.next_content(10) == b""
    reader.feed(b"0")
    assert reader.next_content(10) is None
    reader.feed(b"\r\n\r\n")
    assert reader.next_content(10) == b""
    assert reader.decoder is not None
    assert reader.decoder.done


def test_content_of_no_length_is_done_at_once() -> None:
    reader = RequestReader(Limits())
    assert reader.expect_content(0).done
    reader.feed(GET)
    assert reader.next_content(10) is None
    assert reader.unread == len(GET)


def test_content_that_fills_the_buffer_is_not_copied() -> None:
    reader = RequestReader(Limits())
    data = b"x" * 1000
    reader.expect_content(2000)
    reader.feed(data)
    assert reader.next_content(65536) is data
    reader.buffer = data
    assert reader.next_content(65536) is data


@pytest.mark.parametrize(("limit", "status"), [(None, 0), (7, 0), (6, 413), (0, 413)])
def test_chunked_content_has_a_limit(limit: int | None, status: int) -> None:
    for pieces in cuts(CHUNKED + b"5\r\nhello\r\n2\r\n!!\r\n0\r\n\r\n" + GET):
        stream = read_stream(pieces, content_limit=limit)
        assert (stream.refused.status if stream.refused else 0) == status
        assert [request.content for request in stream.requests] == ([] if status else [b"hello!!", b""])


def test_without_a_limit_only_absurd_sizes_are_refused() -> None:
    for size, status in ((b"%x" % (1 << 62), 0), (b"%x" % ((1 << 62) + 1), 413)):
        stream = read_stream([CHUNKED + size + b"\r\nhello"])
        assert (stream.refused.status if stream.refused else 0) == status
    # The declared length is the connection's to judge, which may ask the delegate before.
    assert read_stream([POST + b"hello"], content_limit=1).refused is None


def test_limits_are_those_of_the_reader() -> None:
    for limits, wire in (
        (Limits(request_line=10), GET),
        (Limits(field_line=3), GET),
        (Limits(fields=1), POST),
        (Limits(head=20), GET),
        (Limits(chunk_extensions=1), CHUNKED + b"0;ab\r\n\r\n"),
    ):
        reader = RequestReader(limits)
        reader.feed(wire)
        with pytest.raises(LimitExceeded):
            reader.next_head()
            reader.expect_content(None)
            reader.next_content(10)


def test_content_must_be_expected_before_it_is_asked_for() -> None:
    reader = RequestReader(Limits())
    reader.feed(b"hello")
    with pytest.raises(AssertionError):
        reader.next_content(10)


# ---------------------------------------------------------------------- the buffer


def test_to_set_the_buffer_is_to_feed_where_it_is_empty() -> None:
    for data in (GET, POST, b"GET", b"\r\n", b"\r", b""):
        fed, other = RequestReader(Limits()), RequestReader(Limits())
        fed.feed(data)
        other.buffer = data
        heads = [reader.next_head() for reader in (fed, other)]
        states = [(reader.buffer, reader.unread, reader.scanned, reader.heads) for reader in (fed, other)]
        assert states[0] == states[1]
        assert [head is None for head in heads] == [data not in {GET, POST}] * 2


def test_what_was_received_is_kept_as_it_came_and_copied_when_more_comes() -> None:
    reader = RequestReader(Limits())
    assert reader.unread == 0
    data = GET + b"GET /"
    reader.feed(data)
    assert reader.buffer is data
    assert reader.next_head() is not None
    assert reader.buffer is data  # nothing is moved for the sake of what was read
    assert reader.unread == 5
    reader.feed(b"a")
    assert (reader.buffer, reader.unread) == (b"GET /a", 6)
    first = reader.buffer
    reader.feed(b"b")
    assert reader.buffer is first  # the second time it grows in place
    assert (reader.buffer, reader.unread) == (b"GET /ab", 7)
    reader.feed(b" HTTP/1.1\r\nHost: a\r\n\r\n\r")
    head = reader.next_head()
    assert head is not None
    assert (head.target, reader.unread) == (b"/ab", 1)
    reader.feed(b"\n")
    assert (reader.buffer, reader.unread) == (b"\r\n", 2)
    assert reader.next_head() is None
    assert (reader.buffer, reader.unread) == (b"", 0)


def test_values_are_bytes_however_they_came() -> None:
    stream = read_stream(bytewise(GET + POST + b"hello" + CHUNKED + b"5\r\nhello\r\n0\r\nX: y\r\n\r\n"))
    assert len(stream.requests) == 3
    for request in stream.requests:
        values = [*request.values, *(part for field in (*request.head.fields, *request.trailers) for part in field)]
        assert not any(isinstance(value, bytearray | memoryview) for value in values)
    assert type(stream.rest) is bytes


def test_scanned_tells_whether_a_head_has_begun() -> None:
    reader = RequestReader(Limits())
    seen = []
    for piece in (b"\r\n", b"\r", b"\nG", b"E", GET[2:-1], b"\n", b"GET /"):
        reader.feed(piece)
        reader.next_head()
        seen.append((reader.scanned, reader.heads))
    assert seen == [(0, 0), (0, 0), (1, 0), (2, 0), (len(GET) - 1, 0), (0, 1), (5, 1)]


REST = b"5\r\nhello"


@pytest.mark.parametrize("grown", [False, True])
def test_take_rest_gives_what_was_not_read_and_forgets_it(grown: bool) -> None:
    for before, unread in ((GET, b""), (GET, b"\x81\x05"), (b"", b"\x00"), (b"", b""), (CHUNKED + b"2\r\nhe", b"\r")):
        reader = RequestReader(Limits())
        wire = before + unread
        for piece in [wire[:-1], wire[-1:]] if grown else [wire]:
            reader.feed(piece)
        if before:
            head = reader.next_head()
            assert head is not None
            if head.content_length is None:
                reader.expect_content(None)
                assert reader.next_content(10) == b"he"
        rest = reader.take_rest()
        assert rest == unread
        assert type(rest) is bytes
        assert (reader.buffer, reader.unread, reader.decoder, reader.take_rest()) == (b"", 0, None, b"")


@pytest.mark.parametrize(
    "before", [b"", b"\r\n" * 3, b"GET / HTTP/1.1\r\nHost: a", GET + b"GE", POST + b"he", CHUNKED + b"5"]
)
def test_after_clear_it_reads_as_if_nothing_had_come(before: bytes) -> None:
    reader = RequestReader(Limits())
    reader.feed(before)
    while (head := reader.next_head()) is not None:
        if head.content_length != 0:
            reader.expect_content(head.content_length)
            reader.next_content(2)
            break
    reader.clear()
    assert (reader.buffer, reader.unread, reader.decoder, reader.scanned) == (b"", 0, None, 0)
    reader.feed(b"\r\n" * 4 + OTHER + GET)
    head = reader.next_head()
    assert head is not None
    assert head.target == b"/other"
    assert reader.unread == len(GET)


# ---------------------------------------------------------------------- blank lines (RFC 9112 section 2.2)


@pytest.mark.parametrize("count", range(7))
@pytest.mark.parametrize("before", [b"", GET, GET * 3, POST + b"hello", CHUNKED + b"0\r\n\r\n"])
def test_a_few_blank_lines_are_skipped_in_front_of_a_request(before: bytes, count: int) -> None:
    stream = read_alike(before + b"\r\n" * count + GET)
    requests = len(read_stream([before]).requests)
    assert (stream.refused is None) is (count <= 4)
    assert len(stream.requests) == requests + (count <= 4)
    for pieces in single_cuts(before + b"\r\n" * count + GET):
        assert read_stream(pieces).values == stream.values


@pytest.mark.parametrize("wire", [b"\r", b"\r\n", b"\r\n\r", b"\r\n" * 4])
def test_blank_lines_alone_are_no_request(wire: bytes) -> None:
    stream = read_alike(wire)
    assert (stream.requests, stream.refused, stream.rest) == ([], None, b"\r" if len(wire) % 2 else b"")


@pytest.mark.parametrize(
    "wire", [b"\n", b"\r\r", b"\rG", b"\r\n\rG", b"\r\n" * 4 + b"\r", b"\r\n" * 5, b"\r\n \r\n", b" \r\n"]
)
def test_what_is_no_blank_line_is_refused(wire: bytes) -> None:
    for before in (b"", GET * 3):
        stream = read_alike(before + wire)
        assert stream.refused is not None
        assert stream.refused.error is RequestSyntaxError


def test_each_request_may_have_its_own_blank_lines() -> None:
    for wire in (GET, OTHER, POST + b"hello"):
        reader = RequestReader(Limits())
        for number in range(1, 12):
            for piece in (
                b"\r\n",
                b"\r\n\r",
                b"\n",
                wire,
            ):  # the request alone: the same as the last one, and nothing else
                reader.feed(piece)
                head = reader.next_head()
                assert (head is None) is (piece != wire)
            assert head is not None
            if head.content_length:
                reader.expect_content(head.content_length)
                assert reader.next_content(5) == b"hello"
                reader.decoder = None
            assert (reader.heads, reader.unread) == (number, 0)


# ---------------------------------------------------------------------- the same head once more


def heads_of(reader: RequestReader, pieces: Iterable[bytes]) -> list[object]:
    found = []
    for piece in pieces:
        reader.feed(piece)
        while (head := reader.next_head()) is not None:
            found.append(head)
    return found


def test_a_head_that_comes_alone_is_read_once_more_without_parsing() -> None:
    reader = RequestReader(Limits())
    first, second, third = heads_of(reader, [GET, GET, GET])
    # Of the first head nothing is kept: many connections have no second request.
    assert third is second is not first
    assert head_values(first) == head_values(second)  # type: ignore[arg-type]
    assert (reader.heads, reader.scanned, reader.unread, reader.buffer) == (3, 0, 0, b"")


@pytest.mark.parametrize(
    "pieces",
    [
        [GET, GET, GET[:9], GET[9:]],
        [GET * 3],
        [GET, GET + GET],
        [GET, GET, b"\r\n" + GET],
        [GET, GET, b"\r\n", GET],
    ],
)
def test_the_same_head_in_other_company_says_the_same(pieces: list[bytes]) -> None:
    reader = RequestReader(Limits())
    found = heads_of(reader, pieces)
    assert len(found) == 3
    assert {head_values(head) for head in found} == {head_values(found[0])}  # type: ignore[arg-type]
    assert (reader.heads, reader.scanned, reader.unread, reader.buffer) == (3, 0, 0, b"")


def test_a_long_head_is_not_kept() -> None:
    reader = RequestReader(Limits())
    long = GET[:-2] + b"X: " + b"y" * 2100 + b"\r\n\r\n"
    _, second, third = heads_of(reader, [long] * 3)
    assert second is not third


def test_a_head_that_differs_is_another_one() -> None:
    for other in (OTHER, GET.replace(b"a", b"b"), POST + b"hello", GET[:-2] + b"X: y\r\n\r\n"):
        reader = RequestReader(Limits())
        _, second = heads_of(reader, [GET, GET])
        (third,) = heads_of(reader, [other.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"])
        assert head_values(third) == head_values(read_stream([GET, other]).requests[1].head)  # type: ignore[arg-type]
        assert third is not second
        # The last is what the next one is compared with, not the one before.
        (fourth,) = heads_of(reader, [GET])
        assert head_values(fourth) == head_values(second)  # type: ignore[arg-type]


def test_a_repeated_head_is_followed_by_content_of_its_own() -> None:
    stream = read_alike(
        (POST + b"hello") * 2 + POST + b"other" + POST + b"last." + CHUNKED + b"0\r\n\r\n" + CHUNKED + b"0\r\n\r\n"
    )
    assert [request.content for request in stream.requests] == [b"hello", b"hello", b"other", b"last.", b"", b""]
    reader = RequestReader(Limits())
    for content in (b"hello", b"other", b"last."):
        for piece in (POST, content):  # the head alone in the buffer
            reader.feed(piece)
            if piece is POST:
                assert reader.next_head() is not None
                reader.expect_content(5)
        assert reader.next_content(10) == content
        reader.decoder = None


def test_when_idle_the_last_head_is_forgotten() -> None:
    reader = RequestReader(Limits())
    _, second, third = heads_of(reader, [GET, GET, GET])
    reader.on_idle()
    (fourth, fifth) = heads_of(reader, [GET, GET])
    assert third is second
    assert fourth is not third
    assert fifth is fourth
    assert head_values(fourth) == head_values(third)  # type: ignore[arg-type]


def test_a_refused_head_is_not_what_the_next_is_compared_with() -> None:
    reader = RequestReader(Limits())
    heads_of(reader, [GET, GET])
    for _ in range(2):
        with pytest.raises(RemoteProtocolError):
            heads_of(reader, [GET.replace(b"Host", b"Host ")])
        reader.clear()
    assert reader.heads == 2


# ---------------------------------------------------------------------- cost


def linear(cost: Callable[[int], object]) -> bool:
    """Tell whether four times as much takes four times as long; it would be sixteen if all were moved each time."""

    def best(size: int) -> float:
        times = []
        for _ in range(3):
            begin = time.process_time()
            cost(size)
            times.append(time.process_time() - begin)
        return min(times)

    return best(20000) < 8 * best(5000)


def test_a_head_that_arrives_byte_by_byte_costs_linear_time() -> None:
    limits = Limits(request_line=1 << 20, field_line=1 << 20, head=1 << 20)

    def cost(size: int) -> None:
        reader = RequestReader(limits)
        for piece in bytewise(b"GET /" + b"a" * size):
            reader.feed(piece)
            assert reader.next_head() is None

    assert linear(cost)


def test_many_requests_in_one_buffer_cost_linear_time() -> None:
    def cost(size: int) -> None:
        reader = RequestReader(Limits())
        reader.feed(GET * (size // 4))
        while reader.next_head() is not None:
            pass

    assert linear(cost)


@pytest.mark.parametrize("length", [None, 1 << 30])
def test_much_content_that_is_read_in_small_pieces_costs_linear_time(length: int | None) -> None:
    def cost(size: int) -> None:
        reader = RequestReader(Limits())
        reader.feed(b"10\r\n0123456789abcdef\r\n" * size)
        reader.expect_content(length)
        for _ in range(size // 2):
            assert len(reader.next_content(20) or b"") > 0

    assert linear(cost)


# ---------------------------------------------------------------------- any requests, any cut, any bytes

TOKENS = st.text(alphabet=TCHAR.decode(), min_size=1, max_size=5).map(str.encode)
CONTENTS = st.one_of(
    st.binary(max_size=12), st.sampled_from([GET, b"0\r\n\r\n", b"\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n"])
)


@st.composite
def messages(draw: st.DrawFn) -> tuple[bytes, bytes, bytes, tuple[tuple[bytes, bytes], ...]]:
    """A request: its bytes, its target, its content and its trailers."""
    blank = b"\r\n" * draw(st.sampled_from([0, 0, 0, 1, 4]))
    target = b"/" + draw(st.sampled_from([b"", b"", b"a", b"a?b"]))
    start = b"%bPOST %b HTTP/1.1\r\nHost: a\r\n" % (blank, target)
    start += draw(st.sampled_from([b"", b"X: y\r\n", b"Cookie: " + b"c" * 300 + b"\r\n"]))
    kind = draw(st.sampled_from(["none", "fixed", "chunked"]))
    if kind == "none":
        return start + b"\r\n", target, b"", ()
    if kind == "fixed":
        content = draw(CONTENTS)
        return start + b"Content-Length: %d\r\n\r\n%b" % (len(content), content), target, content, ()
    parts = draw(st.lists(CONTENTS.filter(bool), max_size=3))
    names = draw(st.lists(TOKENS, max_size=2))
    trailers = tuple((b"x-" + name.lower(), b"v") for name in names)
    lines = b"".join(b"%b: %b\r\n" % field for field in trailers)
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts)
    wire = start + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n" + lines + b"\r\n"
    if any(name in {b"x-forwarded-for", b"x-real-ip"} for name, _ in trailers):
        trailers = ()
    return wire, target, b"".join(parts), trailers


@settings(max_examples=200)
@given(
    requests=st.lists(messages(), min_size=1, max_size=5),
    rest=st.sampled_from([b"", b"\r", b"GET", b"GET / HTTP/1.1\r\n", b"\x00"]),
    most=st.sampled_from([1, 3, 65536]),
    assign=st.booleans(),
    data=st.data(),
)
def test_any_requests_are_read_back_in_any_cut_and_no_byte_more(
    requests: list[tuple[bytes, bytes, bytes, tuple[tuple[bytes, bytes], ...]]],
    rest: bytes,
    most: int,
    assign: bool,
    data: st.DataObject,
) -> None:
    wire = b"".join(message for message, _, _, _ in requests) + rest
    places = data.draw(st.lists(st.integers(0, len(wire)), max_size=8))
    ends = [*itertools.accumulate(len(message) for message, _, _, _ in requests)]
    for pieces in ([wire], cut_at(wire, places), cut_at(wire, ends), bytewise(wire)):
        stream = read_stream(pieces, most=most, assign=assign)
        found = [(one.head.target, one.content, one.trailers) for one in stream.requests]
        assert found == [(target, content, trailers) for _, target, content, trailers in requests]
        assert [one.end for one in stream.requests] == ends
        assert stream.begun is None
        assert stream.rest == rest
        assert (stream.refused is not None) is (rest == b"\x00")


SOUP = st.one_of(
    st.sampled_from(
        [GET, POST, CHUNKED, OTHER, b"5\r\nhello\r\n", b"0\r\n\r\n", b"hello", b"\r\n", b"\r", b"\n", b"0", b";a"]
    ),
    st.binary(max_size=4),
)


@settings(max_examples=200)
@given(wire=st.lists(SOUP, max_size=8).map(b"".join), data=st.data())
def test_any_cut_gives_the_same_requests(wire: bytes, data: st.DataObject) -> None:
    places = data.draw(st.lists(st.integers(0, len(wire)), max_size=6))
    for limits in (Limits(), Limits(request_line=24, field_line=26, fields=2, head=70, chunk_extensions=3)):
        first = read_stream([wire], limits, content_limit=20)
        for pieces in (cut_at(wire, places), bytewise(wire)):
            stream = read_stream(pieces, limits, content_limit=20, most=3)
            if first.refused is None and stream.refused is not None:
                # Refused at a cut where nothing could mend it any more; whole, it is refused once it is complete.
                for end in (b"\r\n\r\n", b"\n\r\n", b"a\r\n\r\n"):
                    assert read_stream([wire + end], limits, content_limit=20).refused is not None
                assert [one.values for one in stream.requests] == [one.values for one in first.requests]
            else:
                assert stream.values == first.values
