from __future__ import annotations

import pytest
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.http2 import huffman
from bridge.core.http2.codes import COMPRESSION_ERROR, CompressionError
from tests.support.table import table

OTHER = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH)


@table("octet", range(256))
def test_every_symbol_has_the_code_of_the_appendix(octet: int) -> None:
    text = bytes([octet])
    assert huffman.encode(text) == OTHER.encode(text)
    assert huffman.decode(huffman.encode(text)) == text


@given(st.binary(max_size=300))
def test_any_string_comes_back(text: bytes) -> None:
    assert huffman.encode(text) == OTHER.encode(text)
    assert huffman.decode(huffman.encode(text)) == text


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\x1f\xff", id="eleven ones behind a symbol"),
        pytest.param(b"\xff", id="eight ones and no symbol"),
        pytest.param(b"\x18", id="padding of zeros"),
        pytest.param(b"\x1e", id="padding that ends with a zero"),
        pytest.param(b"\xff\xff\xff\xff", id="end of string"),
        pytest.param(b"\x1f\xff\xff\xff\xff", id="end of string behind a symbol"),
        pytest.param(b"\xff\xff\xff\xfc\x1f", id="end of string, then a symbol"),
    ],
)
def test_what_is_no_string(data: bytes) -> None:
    with pytest.raises(CompressionError) as caught:
        huffman.decode(data)
    assert caught.value.code == COMPRESSION_ERROR


def test_the_table_of_steps_is_bounded_and_still_right_when_it_was_emptied() -> None:
    filled = huffman._filled
    most = 0
    for first in range(256):
        for second in range(0, 256, 5):
            text = bytes([first, second, 255 - first, second ^ 0x55])
            assert huffman.decode(huffman.encode(text)) == text
            most = max(most, len(filled))
    assert most <= huffman._ENTRIES_MAX
    assert huffman.decode(huffman.encode(b"www.example.com")) == b"www.example.com"


def test_emptying_the_table_of_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huffman, "_ENTRIES_MAX", 20)
    text = bytes(range(256))
    assert huffman.decode(huffman.encode(text)) == text
    assert len(huffman._filled) <= 20
