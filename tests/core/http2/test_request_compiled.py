"""The compiled function for the heads of requests: it says what the Python functions say, or leaves it to them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bridge import speedups
from bridge.core.http.limits import Limits
from bridge.core.http2 import huffman
from bridge.core.http2.codes import ConnectionFault
from bridge.core.http2.hpack import STATIC_TABLE
from bridge.core.http2.request import HeadReader
from tests.core.http2.test_request_memo import PureDecoder, outcome

if not speedups.COMPILED:
    pytest.skip("bridge._speedups is not built, or BRIDGE_SPEEDUPS=0", allow_module_level=True)

from bridge import _speedups

# Of a list of fields, a request line, a field line; the number of fields.
SIZES = (2000, 60, 80, 12)
LIMITS = Limits(request_line=60, field_line=80, fields=12)


def readers(limits: Limits = LIMITS, list_size: int = 2000) -> tuple[HeadReader, HeadReader]:
    """Return two readers: one that takes the compiled functions, one that does not."""
    mine, pure = HeadReader(limits, list_size), HeadReader(limits, list_size)
    pure._decoder = PureDecoder(list_size)
    return mine, pure


def table_of(reader: HeadReader) -> object:
    decoder = reader._decoder
    return decoder._table, decoder._size, decoder._capacity, decoder.generation, decoder.largest


def read_by_both(mine: HeadReader, pure: HeadReader, block: bytes, ended: bool) -> object:
    """Return what both say of a block; they leave the same table."""
    said = outcome(mine, block, ended)
    assert said == outcome(pure, block, ended)
    assert table_of(mine) == table_of(pure)
    return said


def string(text: bytes, coded: bool = False) -> bytes:
    octets = huffman.encode(text) if coded else text
    first = 0x80 if coded else 0
    if len(octets) < 127:
        return bytes([first | len(octets)]) + octets
    rest = len(octets) - 127
    return bytes([first | 127, rest & 127 | 128, rest >> 7]) + octets


def literal(name: bytes, value: bytes, first: int = 0, coded: bool = False) -> bytes:
    return bytes([first]) + string(name, coded) + string(value, coded)


def request(*fields: bytes, path: bytes = b"/a?b", method: bytes = b"GET", host: bytes = b"a.test") -> bytes:
    return b"\x86" + literal(b":method", method) + literal(b":path", path) + b"\x01" + string(host) + b"".join(fields)


START = b"\x82\x86\x84\x01\x01a"  # GET, http, /, :authority a
USUAL = [
    (START, True),
    (START, False),
    (request(), True),
    (request(path=b"/"), True),
    (request(path=b"/%41%c3%a4%zz%ff%"), True),
    (request(path=b"/a?b?c/%41"), True),
    (request(path=b"/?"), True),
    (request(method=b"QUERY"), True),
    (request(method=b"get"), True),
    (request(method=b"HEAD"), True),
    (request(host=b"a-b.test:8080"), True),
    (request(literal(b"x-y", b"z")), True),
    (request(literal(b"x-y", b"a \xe4\tb"), literal(b"x-y", b"")), True),
    (request(literal(b"x-y", b"text of some length", coded=True)), True),
    (request(literal(b"user-agent", b"a", 0x40), b"\xbe"), True),
    (request(literal(b"x", b"y" * 60, 0x40) * 8), True),
    (request(literal(b"authorization", b"a", 0x10)), True),
    (request(literal(b"cookie", b"a=b")), True),
    (request(literal(b"cookie", b"a=b"), literal(b"x", b"y"), literal(b"cookie", b""), literal(b"cookie", b"c")), True),
    (request(literal(b"te", b"Trailers")), True),
    (request(literal(b"priority", b"u=1, i")), True),
    (request(literal(b"priority", b"u=9;x, , i=?0")), True),
    (request(literal(b"content-length", b"0")), True),
    (request(literal(b"content-length", b"017")), False),
    (request(literal(b"expect", b"100-Continue")), False),
    (request(literal(b"expect", b"100-continue")), True),
    (request(literal(b"expect", b"100-continue"), literal(b"content-length", b"0")), False),
    (request(path=b"/" + b"a" * 46), True),
    (request(literal(b"x", b"y" * 77)), True),
    (request(*[literal(b"x", b"y")] * 11), True),
]
FOR_PYTHON = [
    (b"", True),
    (START[:-1], True),
    (b"\x82\x86\x84", True),
    (b"\x82\x86\x01\x01a", True),
    (b"\x82\x84\x01\x01a", True),
    (b"\x86\x84\x01\x01a", True),
    (b"\x82\x86\x84\x84\x01\x01a", True),
    (START + b"\x88", True),
    (b"\x20" + START, True),
    (START + b"\xff\x80\x80\x80\x80\x80\x00", True),
    (START + literal(b"x", b"y") + b"\x82", True),
    (START + literal(b":path", b"/"), True),
    (START + literal(b":protocol", b"websocket"), True),
    (START + literal(b":", b""), True),
    (START + literal(b"", b"x"), True),
    (START + literal(b"X", b"y"), True),
    (START + literal(b"x y", b"y"), True),
    (START + literal(b"Host", b"a"), True),
    *((START + literal(b"x", value), True) for value in (b" y", b"y ", b"\ty", b"y\t", b"a\nb", b"\0", b"a\x7f")),
    *(
        (START + literal(name, b"a"), True)
        for name in (b"host", b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade")
    ),
    (START + literal(b"te", b"gzip"), True),
    (START + literal(b"priority", b"i") * 2, True),
    (START + literal(b"expect", b"100-continue") * 2, True),
    (START + literal(b"expect", b"other"), False),
    (START + literal(b"content-length", b"1"), True),
    (START + literal(b"content-length", b"1") * 2, False),
    *((START + literal(b"content-length", value), False) for value in (b"", b"+1", b"1" * 19, b"1,1")),
    (request(method=b"CONNECT"), True),
    (request(method=b""), True),
    (request(method=b"G T"), True),
    (request(path=b""), True),
    (request(path=b"*"), True),
    (request(path=b"a"), True),
    (request(path=b"/#"), True),
    (request(path=b"/\xe4"), True),
    (request(path=b"/?\xe4"), True),
    (request(path=b"/" + b"a" * 47), True),
    (request(host=b""), True),
    (request(host=b"a%41"), True),
    (request(host=b"[::1]"), True),
    (request(host=b"a/b"), True),
    (request(host=b"a" * 75), True),
    (b"\x82\x84\x06\x05HTTP/" + b"\x01\x01a", True),
    (b"\x82\x84\x06\x04http" + b"\x06\x04http" + b"\x01\x01a", True),
    (b"\x82\x84\x06\x03ftp" + b"\x01\x01a", True),
    (START + literal(b"x", b"y" * 78), True),
    (START + literal(b"cookie", b"y" * 40) * 2, True),
    (START + literal(b"x", b"y") * 12, True),
    (START + literal(b"x" * 78, b"y" * 70) * 20, True),
    (START + literal(b"x", b"y", 0x40) + b"\x80", True),
]


@pytest.mark.parametrize(("block", "ended"), USUAL)
def test_a_usual_request_is_read_here(block: bytes, ended: bool) -> None:
    assert _speedups.read_request(block, ended, [(b"", b""), *STATIC_TABLE], 0, 4096, SIZES) is not None
    mine, pure = readers()
    for again in (ended, ended, not ended):
        read_by_both(mine, pure, block, again)


@pytest.mark.parametrize(("block", "ended"), FOR_PYTHON)
def test_what_is_not_usual_is_left_to_python_and_changes_nothing(block: bytes, ended: bool) -> None:
    table = [(b"", b""), *STATIC_TABLE, (b"x", b"y")]
    before = [*table]
    assert _speedups.read_request(block, ended, table, 34, 4096, SIZES) is None
    assert table == before
    mine, pure = readers()
    read_by_both(mine, pure, block, ended)
    for ended in (True, False):  # what it has left in the table
        read_by_both(mine, pure, START + b"\xbe", ended)


@pytest.mark.parametrize(("block", "ended"), USUAL)
def test_a_block_that_is_cut_off_is_left_to_python(block: bytes, ended: bool) -> None:
    for end in range(len(block)):
        mine, pure = readers()
        read_by_both(mine, pure, block[:end], ended)


def test_a_path_that_is_long_and_has_percent_signs_is_left_to_python() -> None:
    mine, pure = readers(Limits(), 32768)
    for path in (b"/%41" + b"a" * 1020, b"/%41" + b"a" * 1021, b"/" + b"a" * 8000):
        read_by_both(mine, pure, request(path=path), True)


PARTS = st.sampled_from(
    [block.removeprefix(START) for block, _ in USUAL + FOR_PYTHON]
    + [b"\xbe", b"\xbf", b"\xc0", b"\x41\x01b", b"\x60\x01c", b"\x20", b"\x3f\xe1\x1f"]
    + [literal(b"x", b"y" * size, 0x40) for size in (1, 50, 70)]
    + [literal(b"authorization", b"a", first) for first in (0, 0x10, 0x40)]
)
HEADS = st.sampled_from([START, b"", b"\x82\x86\x84\xbe", b"\x82\x86\x04\x02/a\xbf"])


@given(st.lists(st.tuples(st.tuples(HEADS, PARTS, PARTS).map(b"".join), st.booleans()), max_size=6))
@settings(max_examples=300, deadline=None)
def test_requests_one_after_the_other(blocks: list[tuple[bytes, bool]]) -> None:
    mine, pure = readers()
    for block, ended in blocks:
        said = read_by_both(mine, pure, block, ended)
        if isinstance(said, tuple) and isinstance(said[0], type) and issubclass(said[0], ConnectionFault):
            return


def test_the_end_of_a_block_that_python_has_read_is_not_taken_for_that_of_a_later_one() -> None:
    # More coded octets than the compiled function decodes, then an index: of another field once something was inserted.
    long = literal(b"x", b"a" * 8000, coded=True)
    mine, pure = readers(Limits(), 32768)
    read_by_both(mine, pure, START + literal(b"cookie", b"anna", 0x40), True)
    read_by_both(mine, pure, START + long + b"\xbe", True)
    read_by_both(mine, pure, START + literal(b"cookie", b"bert", 0x40), True)
    head = mine.read(START + long + b"\xbe", True)
    assert head.fields[-1] == (b"cookie", b"bert")


def test_known_names_are_shared_and_others_are_not() -> None:
    block = request(literal(b"x-mine", b"a"), literal(b"user-agent", b"b", coded=True))

    def names() -> list[bytes]:
        values = _speedups.read_request(block, True, [(b"", b""), *STATIC_TABLE], 0, 4096, (2000, 99, 99, 9))
        assert values is not None
        return [name for name, _ in values[6]]

    (_, mine, agent), (_, other, other_agent) = names(), names()
    assert (mine, agent) == (b"x-mine", b"user-agent")
    assert mine is not other
    assert agent is other_agent


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (START, 1, [], 0, 0, SIZES),
        (START, True, (), 0, 0, SIZES),
        (START, True, [], 0, 0, [*SIZES]),
        (START, True, [], 0, 0, SIZES[:3]),
        (START, True, [], "0", 0, SIZES),
        (START, True, [], 0, 0, (1, 2, 3, "4")),
        ("text", True, [], 0, 0, SIZES),
    ],
)
def test_wrong_arguments_are_an_error_of_the_caller(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        _speedups.read_request(*arguments)


def test_sizes_are_not_negative_and_may_be_any_number() -> None:
    table = [(b"", b""), *STATIC_TABLE]
    for place in range(4):
        sizes = [1 << 60] * 4
        for size, error in ((-1, ValueError), (1 << 64, OverflowError)):
            sizes[place] = size
            with pytest.raises(error):
                _speedups.read_request(START, True, table, 0, 4096, tuple(sizes))
        sizes[place] = 0
        assert _speedups.read_request(START, True, table, 0, 4096, tuple(sizes)) is None


@pytest.mark.parametrize("table", [[], [(b"", b"")], [None] * 70, [(b"", b"")] * 62 + [("a", "b")]])
def test_a_table_that_is_none_is_left_to_python(table: list[Any]) -> None:
    assert _speedups.read_request(START + b"\xbe", True, table, 100, 4096, SIZES) is None
