from __future__ import annotations

import hpack
import hpack.table
import pytest

from bridge.core.http.fields import Field
from bridge.core.http2.codes import COMPRESSION_ERROR, ENHANCE_YOUR_CALM, CompressionError, ConnectionFault
from bridge.core.http2.hpack import STATIC_TABLE, TABLE_SIZE, FieldDecoder
from bridge.errors import LimitExceeded

pytestmark = pytest.mark.usefixtures("either_decoder")

# --- the examples of RFC 7541 appendix C ------------------------------------------------------------------------------

Story = list[tuple[str, list[Field]]]

AUTHORITY = (b":authority", b"www.example.com")
GET = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"), AUTHORITY]
REQUESTS = [
    GET,
    [*GET, (b"cache-control", b"no-cache")],
    [
        (b":method", b"GET"),
        (b":scheme", b"https"),
        (b":path", b"/index.html"),
        AUTHORITY,
        (b"custom-key", b"custom-value"),
    ],
]
DATE = (b"date", b"Mon, 21 Oct 2013 20:13:21 GMT")
LOCATION = (b"location", b"https://www.example.com")
PRIVATE = (b"cache-control", b"private")
COOKIE = (b"set-cookie", b"foo=ASDJKHQKBZXOQWEOPIUAXQWEOIU; max-age=3600; version=1")
RESPONSES = [
    [(b":status", b"302"), PRIVATE, DATE, LOCATION],
    [(b":status", b"307"), PRIVATE, DATE, LOCATION],
    [
        *((b":status", b"200"), PRIVATE, (b"date", b"Mon, 21 Oct 2013 20:13:22 GMT"), LOCATION),
        *((b"content-encoding", b"gzip"), COOKIE),
    ],
]

# The table of the responses has 256 bytes: here a size update says so, there it is understood.
STORIES: dict[str, Story] = {
    "C.2.1": [
        ("400a637573746f6d2d6b65790d637573746f6d2d686561646572", [(b"custom-key", b"custom-header")]),
        ("be", [(b"custom-key", b"custom-header")]),
    ],
    "C.2.2": [("040c2f73616d706c652f70617468", [(b":path", b"/sample/path")])],
    "C.2.3": [("100870617373776f726406736563726574", [(b"password", b"secret")])],
    "C.2.4": [("82", [(b":method", b"GET")])],
    "C.3": [
        ("828684410f7777772e6578616d706c652e636f6d", REQUESTS[0]),
        ("828684be58086e6f2d6361636865", REQUESTS[1]),
        ("828785bf400a637573746f6d2d6b65790c637573746f6d2d76616c7565", REQUESTS[2]),
    ],
    "C.4": [
        ("828684418cf1e3c2e5f23a6ba0ab90f4ff", REQUESTS[0]),
        ("828684be5886a8eb10649cbf", REQUESTS[1]),
        ("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf", REQUESTS[2]),
    ],
    "C.5": [
        (
            "3fe101"
            "4803333032580770726976617465611d4d6f6e2c203231204f637420323031332032303a31333a323120474d54"
            "6e1768747470733a2f2f7777772e6578616d706c652e636f6d",
            RESPONSES[0],
        ),
        ("4803333037c1c0bf", RESPONSES[1]),
        (
            "88c1611d4d6f6e2c203231204f637420323031332032303a31333a323220474d54c05a04677a69707738666f6f3d4153"
            "444a4b48514b425a584f5157454f50495541585157454f49553b206d61782d6167653d333630303b2076657273696f6e3d31",
            RESPONSES[2],
        ),
    ],
    "C.6": [
        (
            "3fe101"
            "488264025885aec3771a4b6196d07abe941054d444a8200595040b8166e082a62d1bff6e919d29ad171863c78f0b97c8e9ae82ae43d3",
            RESPONSES[0],
        ),
        ("4883640effc1c0bf", RESPONSES[1]),
        (
            "88c16196d07abe941054d444a8200595040b8166e084a62d1bffc05a839bd9ab77ad94e7821dd7f2e6c7b335dfdfcd5b3960"
            "d5af27087f3672c1ab270fb5291f9587316065c003ed4ee5b1063d5007",
            RESPONSES[2],
        ),
    ],
}


@pytest.mark.parametrize("name", STORIES)
def test_the_examples_of_the_rfc(name: str) -> None:
    decoder = FieldDecoder()
    for wire, fields in STORIES[name]:
        assert decoder.decode(bytes.fromhex(wire)) == fields


def test_the_static_table_is_that_of_the_appendix() -> None:
    assert [*STATIC_TABLE] == [*hpack.table.HeaderTable.STATIC_TABLE]
    decoder = FieldDecoder()
    assert decoder.decode(bytes(range(0x81, 0xBE))) == [*STATIC_TABLE]
    assert decoder.generation == 0
    assert decoder.literals == []


# --- what a decoder says of a block -----------------------------------------------------------------------------------


def literal(name: bytes, value: bytes, first: int = 0) -> bytes:
    """Return a literal field; *first* is 0x40 for one that comes into the table, 0x10 for one that never does."""
    return bytes([first, len(name)]) + name + hpack.hpack.encode_integer(len(value), 7) + value


def test_literals_and_secrets_are_named() -> None:
    decoder = FieldDecoder()
    decoder.decode(b"\x82" + literal(b"a", b"b") + literal(b"c", b"d", 0x40) + b"\xbe")
    assert decoder.literals == [(b"a", b"b"), (b"c", b"d")]
    assert not decoder.never_indexed
    decoder.decode(b"\xbe" + literal(b"a", b"b", 0x10))
    assert decoder.never_indexed
    assert decoder.literals == [(b"a", b"b")]
    decoder.decode(b"\xbe")
    assert not decoder.never_indexed
    assert decoder.literals == []


def test_each_change_of_the_table_is_a_generation() -> None:
    decoder = FieldDecoder()
    seen = [decoder.generation]
    for block in (
        b"\x40\x01a\x01b",
        b"\x20",
        b"\x3f\xe1\x1f",
        b"\x40\x01a\x01b",
        b"\x40\x01a\x7f\xfe\x1f" + bytes(4221),
    ):
        decoder.decode(block)
        seen.append(decoder.generation)
    assert seen == sorted(set(seen))
    for block in (b"\x82", literal(b"a", b"b"), literal(b"a", b"b", 0x10), b""):
        decoder.decode(block)
    assert decoder.generation == seen[-1]


def test_an_entry_that_is_larger_than_the_table_empties_it() -> None:
    decoder = FieldDecoder()
    large = b"v" * 4064
    assert decoder.decode(b"\x40\x01a\x01b") == [(b"a", b"b")]
    assert decoder.decode(b"\x40\x01a\x7f\xe1\x1e" + large[:4064]) == [(b"a", large)]  # 4097 with its overhead
    with pytest.raises(CompressionError):
        decoder.decode(b"\xbe")


def test_an_entry_that_just_fits() -> None:
    decoder = FieldDecoder()
    value = b"v" * (TABLE_SIZE - 32 - 1)
    decoder.decode(b"\x40\x01a\x7f\xe0\x1e" + value)
    assert decoder.decode(b"\xbe") == [(b"a", value)]


BROKEN = [
    pytest.param(b"\x80", id="index 0"),
    pytest.param(b"\xbe", id="index beyond the table"),
    pytest.param(b"\xff\x00", id="index 127"),
    pytest.param(b"\xff\xff\xff\xff\xff\x0f", id="index of 35 bits"),
    pytest.param(b"\xff\x80\x80\x80\x80\x80\x00", id="integer with many zeros"),
    pytest.param(b"\x7e\x01a", id="name beyond the table"),
    pytest.param(b"\x0f\x80\x80\x80\x80\x80\x01", id="name of an integer that is too long"),
    pytest.param(b"\xff", id="integer cut off"),
    pytest.param(b"\x40", id="literal cut off before its name"),
    pytest.param(b"\x40\x02a", id="name cut off"),
    pytest.param(b"\x40\x01a", id="value missing"),
    pytest.param(b"\x40\x01a\x02b", id="value cut off"),
    pytest.param(b"\x40\x01a\x7f", id="length of a value cut off"),
    pytest.param(b"\x00\x01a\x82\xf1", id="Huffman string cut off"),
    pytest.param(b"\x00\x01a\x81\xff", id="Huffman string that is only padding"),
    pytest.param(b"\x00\x01a\x84\xff\xff\xff\xff", id="end of string"),
    pytest.param(b"\x82\x20", id="size update behind a field"),
    pytest.param(b"\x00\x01a\x01b\x3f\xe1\x1f", id="size update behind a literal"),
    pytest.param(b"\x3f\xe2\x1f", id="size update over the limit"),
    pytest.param(b"\x3f", id="size update cut off"),
    pytest.param(b"\x20\x20\x20", id="three size updates"),
]


@pytest.mark.parametrize("block", BROKEN)
def test_what_is_no_block(block: bytes) -> None:
    with pytest.raises(CompressionError) as caught:
        FieldDecoder().decode(block)
    assert caught.value.code == COMPRESSION_ERROR


# --- lists that are too large -----------------------------------------------------------------------------------------


def test_a_list_over_the_limit_leaves_the_table_right() -> None:
    decoder = FieldDecoder(list_size=1000)
    small = literal(b"a", b"b", 0x40)
    block = (
        small
        + literal(b"x", b"v" * 100) * 8
        + literal(b"c", b"d", 0x40)
        + b"\xbf"
        + literal(b"e", b"f", 0x40)
        + b"\x82"
    )
    with pytest.raises(LimitExceeded) as caught:
        decoder.decode(block)
    assert caught.value.status == 431
    assert decoder.decode(b"\xbe\xbf\xc0") == [(b"e", b"f"), (b"c", b"d"), (b"a", b"b")]


@pytest.mark.parametrize("before", range(0, 100, 7))
def test_the_table_is_right_wherever_the_limit_is_passed(before: int) -> None:
    decoder = FieldDecoder(list_size=3400)
    block = b"\x82" * before + b"".join([literal(b"n%02d" % number, b"v" * 20, 0x40) for number in range(70)])
    with pytest.raises(LimitExceeded):
        decoder.decode(block)
    fields = [(b"n%02d" % number, b"v" * 20) for number in reversed(range(10, 70))]  # 55 bytes each
    assert decoder.decode(bytes(range(0xBE, 0xBE + 60))) == fields


def test_the_limit_counts_32_for_each_field() -> None:
    decoder = FieldDecoder(list_size=1024)
    block = literal(b"a", b"b" * 31) * 16  # 64 each
    assert len(decoder.decode(block)) == 16
    with pytest.raises(LimitExceeded):
        decoder.decode(block + b"\x82")


def test_a_bomb_of_references_to_one_large_entry() -> None:
    decoder = FieldDecoder(list_size=32768)
    decoder.decode(b"\x40\x01a\x7f\x81\x1e" + b"v" * 3968)
    with pytest.raises(ConnectionFault) as caught:
        decoder.decode(b"\xbe" * 65536)
    assert caught.value.code == ENHANCE_YOUR_CALM
    with pytest.raises(LimitExceeded):  # 20 * 4001 is less than four times the limit
        decoder.decode(b"\xbe" * 20)


@pytest.mark.parametrize("first", [0, 0x10])
def test_what_comes_behind_the_limit_is_only_decoded_for_the_table(first: int) -> None:
    decoder = FieldDecoder(list_size=500)
    long = literal(b"a", b"v" * 600)  # more than is read between two looks at the size
    with pytest.raises(LimitExceeded):
        decoder.decode(long + bytes([first]) + b"\x01a\x84\xff\xff\xff\xff")
    with pytest.raises(CompressionError):
        decoder.decode(long + b"\x40\x01a\x84\xff\xff\xff\xff")


@pytest.mark.parametrize("block", [block.values[0] for block in BROKEN])
def test_what_is_no_block_behind_the_limit(block: bytes) -> None:
    if block[:1] in {b"\x20", b"\x3f"} or block.startswith(b"\x00"):
        return  # another fault, or none, behind the limit
    long = literal(b"a", b"v" * 600)
    with pytest.raises(CompressionError):
        FieldDecoder(list_size=500).decode(long + block)


def test_an_entry_that_cannot_fit_behind_the_limit_empties_the_table() -> None:
    decoder = FieldDecoder(list_size=20000)
    decoder.decode(b"\x40\x01a\x01b")
    code = b"\xff" * 20000  # would be an error if it was decoded
    with pytest.raises(LimitExceeded):
        decoder.decode(literal(b"a", b"v" * 20000) + b"\x40\x01a\xff" + hpack.hpack.encode_integer(20000, 7)[1:] + code)
    with pytest.raises(CompressionError):
        decoder.decode(b"\xbe")
