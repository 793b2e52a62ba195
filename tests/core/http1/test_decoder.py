from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.http.limits import Limits
from bridge.core.http1.decoder import ChunkedDecoder, FixedDecoder
from bridge.errors import FramingError, LimitExceeded, RemoteProtocolError
from tests.support.cuts import CUTS, at_random, bytewise, cut_at, single_cuts, whole
from tests.support.hostile import CONTROLS, NO_CHUNK_SIZE, NOT_TCHAR
from tests.support.reader import Content, Refused, read_content
from tests.support.table import table

MOSTS = [1, 2, 3, 7, 65536]


UNLIMITED = 1 << 62


def chunked(limits: Limits | None = None, limit: int = UNLIMITED) -> ChunkedDecoder:
    return ChunkedDecoder(limits or Limits(), limit)


def cuts(wire: bytes) -> list[list[bytes]]:
    if len(wire) > 12000:
        return [whole(wire), cut_at(wire, range(0, len(wire), 997)), at_random(wire)]
    return [*(cut(wire) for cut in CUTS), *(single_cuts(wire) if len(wire) < 200 else ())]


# ---------------------------------------------------------------------- by length


@pytest.mark.parametrize("rest", [b"", b"GET / HTTP/1.1\r\n"])
@pytest.mark.parametrize("content", [b"a", b"hello", b"\r\n\r\n0\r\n\r\n", bytes(range(256)), b"x" * 5000])
def test_fixed_content(content: bytes, rest: bytes) -> None:
    for most in MOSTS:
        for pieces in cuts(content + rest):
            assert read_content(FixedDecoder(len(content)), pieces, most) == Content(content, (), rest)


def test_fixed_content_is_not_complete_before_its_last_byte() -> None:
    reader = FixedDecoder(5)
    assert not reader.done
    assert reader.take(b"hell", 0, 100) == (b"hell", 4)
    assert (reader.done, reader.remaining) == (False, 1)
    assert reader.take(b"", 0, 100) == (b"", 0)
    assert reader.take(b"xxooo", 2, 100) == (b"o", 3)
    assert (reader.done, reader.remaining, reader.trailers) == (True, 0, ())


def test_fixed_content_that_fills_the_buffer_is_not_copied() -> None:
    data = b"x" * 1000
    assert FixedDecoder(1000).take(data, 0, 65536)[0] is data
    for kind in (bytes, bytearray):
        taken, position = FixedDecoder(1000).take(kind(b"y" + data), 1, 65536)
        assert (taken, position, type(taken)) == (data, 1001, bytes)
        taken, position = FixedDecoder(5).take(kind(data), 0, 65536)
        assert (taken, position, type(taken)) == (b"xxxxx", 5, bytes)


# ---------------------------------------------------------------------- by chunks

ACCEPTED = [
    (b"0\r\n\r\n", b"", ()),
    (b"000\r\n\r\n", b"", ()),
    (b"0000000000000000\r\n\r\n", b"", ()),
    (b"5\r\nhello\r\n0\r\n\r\n", b"hello", ()),
    (b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", b"hello world", ()),
    (b"a\r\n0123456789\r\nA\r\n0123456789\r\n0a\r\n0123456789\r\n0\r\n\r\n", b"0123456789" * 3, ()),
    (b"0000000000000005\r\nhello\r\n0\r\n\r\n", b"hello", ()),
    (b"2\r\n\r\n\r\n4\r\n0\r\n\r\r\n0\r\n\r\n", b"\r\n0\r\n\r", ()),
    (b"5\r\n0\r\n\r\n\r\n0\r\n\r\n", b"0\r\n\r\n", ()),
    (b"1\r\n\x00\r\n1\r\n\xff\r\n0\r\n\r\n", b"\x00\xff", ()),
    # extensions are ignored (RFC 9112 section 7.1.1), with the white space that the grammar allows
    (b"5;a=b\r\nhello\r\n0;x\r\n\r\n", b"hello", ()),
    (b'5;a="b\\"c; d"\r\nhello\r\n0\r\n\r\n', b"hello", ()),
    (b"5 ; a = b ;c\r\nhello\r\n0\t;x\r\n\r\n", b"hello", ()),
    (b'5 ; a\t=\t"q; \\" \xe9\xff" ;b\r\nhello\r\n0;a;b=c;d=""\r\n\r\n', b"hello", ()),
    (b"5;" + b"a" * 4000 + b"\r\nhello\r\n0\r\n\r\n", b"hello", ()),
    # trailers (section 7.1.2) are kept apart
    (b"0\r\nX-T: v\r\n\r\n", b"", ((b"x-t", b"v"),)),
    (b"5\r\nhello\r\n0\r\nX-T:\t v \r\nx-t:\r\nZ: \xff\r\n\r\n", b"hello", ((b"x-t", b"v"), (b"x-t", b""), (b"z",
        b"\xff"))),
    (b"0\r\nDigest: a\r\nETag: b\r\n\r\n", b"", ((b"digest", b"a"), (b"etag", b"b"))),
    # those that steer, route or claim are dropped (RFC 9110 section 6.5.1)
    (b"5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\nHost: a\r\nX: y\r\n\r\n", b"hello",
        ((b"x", b"y"),)),
    (b"0\r\nCookie: a=b\r\nAuthorization: x\r\nX-Forwarded-For: 1.1.1.1\r\nConnection: close\r\n\r\n", b"", ()),
    (b"0\r\nForwarded: for=x\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: x\r\nUpgrade: x\r\n\r\n", b"", ()),
    (
        b"0\r\nX-Real-IP: x\r\nContent-Type: a\r\nContent-Encoding: gzip\r\n"
        b"Content-Range: x\r\nTE: x\r\nExpect: x\r\n\r\n",
        b"",
        (),
    ),
    (
        b"0\r\nTrailer: x\r\nSet-Cookie: a\r\nRange: x\r\n"
        b"Keep-Alive: x\r\nMax-Forwards: 1\r\nProxy-Authorization: x\r\n\r\n",
        b"",
        (),
    ),
]  # fmt: skip


@pytest.mark.parametrize(("wire", "content", "trailers"), ACCEPTED, ids=lambda value: f"{value!r:.60}")
def test_chunked_content(wire: bytes, content: bytes, trailers: tuple[tuple[bytes, bytes], ...]) -> None:
    for rest in (b"", b"\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n"):
        for most in MOSTS:
            assert read_content(chunked(), [wire + rest], most) == Content(content, trailers, rest)
        for pieces in cuts(wire + rest):
            assert read_content(chunked(), pieces) == Content(content, trailers, rest)
    assert read_content(chunked(), [wire[:-1]]) is None


BAD_ENDS = [
    *(
        b"\n",
        b"\r",
        b"",
        b"\n\n",
        b"\r\r",
        b"\n\r",
        b"\r\r\n",
        b"\n\r\n",
        b" \r\n",
        b"\r \n",
        b"\x00\x00",
        b"XX",
        b"  ",
    ),
    *(b"X\r\n", b"0\r\n", b"\r\x00", b"\x0b\x0c", b"\x85", b"\r\nX"[:1] + b"X", b"!!!!"),
]
TRAILERS = [
    *(b"X: a\r\n b", b"X: a\r\n\tb", b" X: a", b"X", b": v", b"X : v", b"X\t: v", b"GET / HTTP/1.1", b"X Y: v"),
    *(b"X" + bytes([octet]) + b"Y: v" for octet in NOT_TCHAR.replace(b":", b"")),
    *(b"X: a" + bytes([octet]) + b"b" for octet in CONTROLS),
    *(b"X: a\nY: b", b"X: a\rY: b", b"\nX: a", b"\rX: a", b"X: a\r\r\nY: b", b"Host: a b",
        b"GET /smuggled HTTP/1.1\r\nHost: a"),
]  # fmt: skip
REFUSED = [
    # sizes and extensions (RFC 9112 section 7.1)
    *(b"5" + extension + b"\r\nhello\r\n0\r\n\r\n" for extension in (
        b";", b"; ", b";;", b";a;", b";a=", b";=a", b";a=b=c", b";bad[=x", b";a b", b";a=b c",
        b';a="', b';a="x', b';a="\\"',
        b';a="x"y', b';a="x"b', b";\xe9", b";a=\xe9", b";a ", b";a=b\t", b' ;a="\x7f"', b";a=(b)")),
    *(size + b"\r\nhello\r\n0\r\n\r\n" for size in NO_CHUNK_SIZE),
    *(b"5\r\nhello\r\n" + size + b"\r\nhello\r\n0\r\n\r\n" for size in NO_CHUNK_SIZE),
    *(b"5" + end + b"hello\r\n0\r\n\r\n" for end in BAD_ENDS if end not in {b"0\r\n", b"\r\n", b""}),
    *(b"5;a" + end + b"hello\r\n0\r\n\r\n" for end in (b"\n", b"\r", b"\r\r\n", b"\n\r\n", b"\x00\r\n", b"\r\x00\n",
        b"\x0b")),
    *(b"-0\r\n\r\n", b"+0\r\n\r\n", b"0x0\r\n\r\n", b"0 \r\n\r\n", b" 0\r\n\r\n", b"0\n\r\n", b"0\r\r\n",
        b"\x000\r\n\r\n", b"\r\n\r\n"),
    # what ends a chunk is CRLF, whatever two octets stand there
    *(b"5\r\nhello" + end + b"0\r\n\r\n" for end in BAD_ENDS),
    *(b"5\r\nhello" + end + b"5\r\nhello\r\n0\r\n\r\n" for end in BAD_ENDS if end not in {b"", b"0\r\n"}),
    *(b"4\r\nhello\r\n0\r\n\r\n", b"3\r\nhello\r\n0\r\n\r\n", b"5\r\nhello5\r\nworld\r\n0\r\n\r\n"),
    # the end of the last chunk and of the trailer section
    *(b"0\r\n" + end for end in (b"\n", b"\rX", b"\r\r\n", b"\n\r\n", b" \r\n\r\n", b"\x00", b"\t\r\n\r\n", b"X\n",
        b"X: y\n\n")),
    *(b"0" + end for end in (b"\n\n", b"\n\r\n", b"\rX", b"\r\r\n", b"\x00\r\n")),
    *(b"0\r\n" + trailer + b"\r\n\r\n" for trailer in TRAILERS),
    *(b"0\r\nA: b\r\n" + trailer + b"\r\nC: d\r\n\r\n" for trailer in TRAILERS),
]  # fmt: skip


@table("wire", dict.fromkeys(REFUSED))
def test_chunked_content_is_refused(wire: bytes) -> None:
    for pieces in cuts(wire):
        for most in (1, 65536):
            answer = read_content(chunked(), pieces, most)
            assert isinstance(answer, Refused), pieces
            assert answer.status == 400, pieces


# A fault is seen as soon as no further byte can mend it, not when a line or a deadline ends.
@table("wire", [
        *(b"g", b" ", b"\n", b"\r", b"-", b"+", b";", b"x5", b"0x", b"5g", b"5 g", b"5\n", b"5\rX", b"5;\x00",
            b"5;a\n", b"5;a\rb"),
        *(b"12345678901234567", b"5\r\nhelloX", b"5\r\nhello\n", b"5\r\nhello\rX", b"0\r\n\n", b"0\r\n\rX",
            b"0\r\nX: a\nb", b"0\r\nX\x00"),
        *(b"5;" + b"a" * 4094, b"5" + b" " * 4095, b"5;" + b"a" * 100000),
    ])  # fmt: skip
def test_a_fault_is_seen_at_once(wire: bytes) -> None:
    for pieces in cuts(wire):
        answer = read_content(chunked(), pieces)
        assert isinstance(answer, Refused), pieces
        assert answer.error is FramingError


@pytest.mark.parametrize(
    "wire",
    [
        *(b"", b"5", b"5\r", b"5\r\n", b"5\r\nhell", b"5\r\nhello", b"5\r\nhello\r", b"5\r\nhello\r\n", b"5 ", b"5;a",
            b"5;a\r"),
        *(b"0", b"0\r", b"0\r\n", b"0\r\n\r", b"0\r\nX", b"0\r\nX: y", b"0\r\nX: y\r", b"0\r\nX: y\r\n",
            b"0\r\nX: y\r\n\r"),
        *(b"ffffffffffff\r\nabc", b"0\r\nGET / HTTP/1.1\r\n", b"5;" + b"a" * 4093),
    ],
    ids=lambda wire: f"{wire!r:.50}",
)  # fmt: skip
def test_chunked_content_waits_for_more(wire: bytes) -> None:
    for pieces in cuts(wire):
        reader = chunked()
        assert read_content(reader, pieces) is None
        assert not reader.done
        assert reader.remaining is None


# ---------------------------------------------------------------------- limits


def status_of(answer: object) -> int:
    return answer.status if isinstance(answer, Refused) else 0


@pytest.mark.parametrize(
    ("wire", "status"),
    [
        (b"5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n", 0),
        (b"5\r\nhello\r\n6\r\nworld!\r\n0\r\n\r\n", 413),
        (b"b\r\nhello world\r\n0\r\n\r\n", 413),
        (b"100000005\r\nhello\r\n0\r\n\r\n", 413),
        (b"ffffffffffffffff\r\nhello\r\n0\r\n\r\n", 413),
        (b"1\r\na\r\n" * 10 + b"0\r\n\r\n", 0),
        (b"1\r\na\r\n" * 11 + b"0\r\n\r\n", 413),
    ],
)
def test_the_size_of_all_chunks_has_a_limit(wire: bytes, status: int) -> None:
    for pieces in cuts(wire):
        assert status_of(read_content(chunked(limit=10), pieces)) == status


def test_a_chunk_that_is_too_large_is_refused_before_it_is_sent() -> None:
    assert status_of(read_content(chunked(limit=10), [b"b\r\n"])) == 413


def test_no_sum_of_sizes_wraps_around() -> None:
    for size in (b"fffffffffffffffe", b"7fffffffffffffff", b"8000000000000000", b"4000000000000001"):
        assert status_of(read_content(chunked(), [size + b"\r\nhello\r\n0\r\n\r\n"])) == 413
    # Two sizes that would make 5 in 64 bits.
    wire = b"4\r\nhell\r\nffffffffffffffff\r\n" + b"x" * 100
    assert status_of(read_content(chunked(), [wire])) == 413


@pytest.mark.parametrize(
    ("wire", "status"),
    [
        (b"1;" + b"e" * 9 + b"\r\na\r\n1;" + b"e" * 9 + b"\r\na\r\n0\r\n\r\n", 0),
        (b"1;" + b"e" * 9 + b"\r\na\r\n1;" + b"e" * 10 + b"\r\na\r\n0\r\n\r\n", 413),
        (b"1;a\r\na\r\n" * 10 + b"0\r\n\r\n", 0),
        (b"1;a\r\na\r\n" * 10 + b"0;a\r\n\r\n", 413),
        (b"1\r\na\r\n0;" + b"e" * 20 + b"\r\n\r\n", 413),
    ],
)
def test_all_extensions_together_have_a_limit(wire: bytes, status: int) -> None:
    for pieces in cuts(wire):
        assert status_of(read_content(chunked(Limits(chunk_extensions=20)), pieces)) == status


def test_many_small_extensions_are_refused() -> None:
    wire = b"1;" + b"e" * 100 + b"\r\na\r\n"
    assert status_of(read_content(chunked(), [wire * 1000])) == 413
    assert status_of(read_content(chunked(), [wire] * 1000)) == 413


@pytest.mark.parametrize(("size", "status"), [(4096, 0), (4097, 413)])
def test_the_limit_of_extensions_that_is_documented(size: int, status: int) -> None:
    wire = (b"1;" + b"e" * 1023 + b"\r\na\r\n") * 3 + b"1;" + b"e" * (size - 3073) + b"\r\na\r\n0\r\n\r\n"
    assert status_of(read_content(chunked(), [wire])) == status


SMALL = Limits(fields=3, field_line=12, head=40)


@pytest.mark.parametrize(
    ("block", "status"),
    [
        (b"A: aaaaaaaaa\r\nB: bbbbbbbbb\r\nC: c", 0),
        (b"A: aaaaaaaaaa", 431),  # a line of 13
        (b"A: a\r\nA: b\r\nA: c", 0),
        (b"A: a\r\nA: b\r\nA: c\r\nA: d", 431),
        (b"A: aaaaaaaaa\r\nB: bbbbbbbbb\r\nC: ccccccccc", 0),  # a section of 40
    ],
)
def test_the_trailer_section_has_the_limits_of_a_head(block: bytes, status: int) -> None:
    wire = b"0\r\n" + block + b"\r\n\r\n"
    for pieces in cuts(wire):
        assert status_of(read_content(chunked(SMALL), pieces)) == status, pieces


def test_the_size_of_the_trailer_section_is_exact_however_it_arrives() -> None:
    limits = Limits(head=40)
    for size, status in ((40, 0), (41, 431)):
        block = b"A: a\r\nB: " + b"b" * (size - 9)
        for pieces in cuts(b"0\r\n" + block + b"\r\n\r\n"):
            assert status_of(read_content(chunked(limits), pieces)) == status, pieces


@pytest.mark.parametrize("line", [b"X-T: aaaaaaaaaaaaaaaaaaaaaaaa\r\n", b"X: " + b"a" * 8180 + b"\r\n", b"a"])
def test_a_trailer_section_without_end_is_refused(line: bytes) -> None:
    wire = b"0\r\n" + line * (200000 // len(line))
    assert status_of(read_content(chunked(), [wire])) == 431
    assert status_of(read_content(chunked(), cut_at(wire, range(0, len(wire), 1459)))) == 431


# ---------------------------------------------------------------------- cost


def test_one_call_decodes_a_bounded_number_of_chunks() -> None:
    wire = b"1\r\na\r\n" * 20000
    data, position = chunked().take(wire, 0, 1 << 30)
    assert 0 < len(data) < 1000
    assert position == len(data) * 6 or position < len(wire)


def linear(size: int, start: bytes, piece: bytes) -> float:
    best = float("inf")
    for _ in range(3):
        reader = chunked(Limits(head=1 << 20, field_line=1 << 20, fields=1 << 20))
        buffer = bytearray(start)
        _, position = reader.take(buffer, 0, 65536)
        begin = time.process_time()
        for _ in range(size):
            buffer += piece
            _, position = reader.take(buffer, position, 65536)
        best = min(best, time.process_time() - begin)
    return best


@pytest.mark.parametrize("piece", [b"a", b"X: y\r\n", b"\xff"])
def test_a_trailer_section_that_arrives_in_small_pieces_costs_linear_time(piece: bytes) -> None:
    assert linear(8000, b"0\r\nX: ", piece) < 8 * linear(2000, b"0\r\nX: ", piece)


# ---------------------------------------------------------------------- any cut, any bytes

FRAGMENTS = st.one_of(
    st.sampled_from(
        [
            b"5\r\nhello\r\n",
            b"0\r\n\r\n",
            b"1\r\na\r\n",
            b"0\r\n",
            b"X: y\r\n",
            b"\r\n",
            b"5",
            b"\n",
            b"\r",
            b";a",
            b" ",
            b"a",
        ]
    ),
    st.binary(max_size=4),
)


def outcome(pieces: list[bytes], limits: Limits, most: int) -> object:
    answer = read_content(chunked(limits, 12), pieces, most)
    return "refused" if isinstance(answer, Refused) else answer


@given(wire=st.lists(FRAGMENTS, max_size=10).map(b"".join), most=st.sampled_from(MOSTS), data=st.data())
def test_any_cut_gives_the_same_content(wire: bytes, most: int, data: st.DataObject) -> None:
    places = data.draw(st.lists(st.integers(0, len(wire)), max_size=6))
    for limits in (Limits(), Limits(fields=2, field_line=8, head=20, chunk_extensions=6)):
        first = outcome([wire], limits, 65536)
        for pieces in (cut_at(wire, places), bytewise(wire)):
            answer = outcome(pieces, limits, most)
            if first is None and answer is not None:
                # Refused at a cut where nothing could mend it any more; whole, it is refused once its line is complete.
                ends = (b"\r\n\r\n", b"\n\r\n", b"a\r\n\r\n")
                assert {outcome([wire + end], limits, most) for end in ends} == {"refused"}
            else:
                assert answer == first


@given(
    chunks=st.lists(
        st.tuples(st.binary(min_size=1, max_size=30), st.sampled_from([b"", b";a", b" ;b=c", b';d="e"'])), max_size=8
    ),
    rest=st.binary(max_size=10),
    zeros=st.integers(0, 8),
    most=st.integers(1, 40),
    data=st.data(),
)
def test_what_the_grammar_allows_is_read_back(
    chunks: list[tuple[bytes, bytes]], rest: bytes, zeros: int, most: int, data: st.DataObject
) -> None:
    lines = b"".join(b"%b%x%b\r\n%b\r\n" % (b"0" * zeros, len(part), extension, part) for part, extension in chunks)
    wire = lines + b"0\r\n\r\n" + rest
    places = data.draw(st.lists(st.integers(0, len(wire)), max_size=6))
    expected = Content(b"".join(part for part, _ in chunks), (), rest)
    assert read_content(chunked(), cut_at(wire, places), most) == expected


def test_messages_quote_little_of_the_peers_bytes() -> None:
    for wire in (
        b"\x1b" * 5000,
        b"5\r\nhello\x1b\x1b",
        b"0\r\nX\x1b" + b"y" * 5000 + b": z\r\n\r\n",
        b"5;" + b"\xff" * 5000,
    ):
        with pytest.raises(RemoteProtocolError) as caught:
            reader = chunked()
            position = 0
            while True:
                _, position = reader.take(wire, position, 65536)
        assert len(str(caught.value)) < 400
        assert str(caught.value).isprintable()


def test_a_limit_can_be_lowered_while_content_is_read() -> None:
    reader = chunked()
    assert reader.take(b"5\r\nhello\r\n", 0, 65536) == (b"hello", 10)
    reader.limit = 8
    with pytest.raises(LimitExceeded):
        reader.take(b"5\r\nhello\r\n", 0, 65536)
