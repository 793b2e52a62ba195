from __future__ import annotations

import random
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.websocket.deflate import PIECE, Deflater, Inflater
from bridge.core.websocket.extensions import DeflateOptions, DeflateParameters
from bridge.core.websocket.frames import WebSocketError

PARAMETERS = [
    pytest.param(DeflateParameters(), id="defaults"),
    pytest.param(DeflateParameters(server_max_window_bits=9, client_max_window_bits=9), id="small windows"),
    pytest.param(DeflateParameters(server_max_window_bits=12, client_max_window_bits=12), id="our windows"),
    pytest.param(
        DeflateParameters(server_no_context_takeover=True, client_no_context_takeover=True), id="no context takeover"
    ),
]


def packed(payload: bytes) -> bytes:
    return Deflater(DeflateParameters(), DeflateOptions()).deflate(payload)


def inflate(inflater: Inflater, payload: bytes, limit: int, last: bool) -> bytes:
    """Return the whole content of a frame."""
    pieces = []
    inflater.feed(payload, last)
    while inflater.pending:
        pieces.append(inflater.next_piece(limit - sum(map(len, pieces))))
        assert len(pieces[-1]) <= PIECE
    return b"".join(pieces)


def code_of(inflater: Inflater, payload: bytes, limit: int = 1_000_000, last: bool = True) -> int:
    with pytest.raises(WebSocketError) as caught:
        inflate(inflater, payload, limit, last)
    return caught.value.code


@pytest.mark.parametrize("parameters", PARAMETERS)
@given(messages=st.lists(st.binary(min_size=1, max_size=3000), max_size=5))
def test_round_trip(parameters, messages):
    deflater, inflater = Deflater(parameters, DeflateOptions()), Inflater(parameters)
    for message in messages:
        assert inflate(inflater, deflater.deflate(message), len(message), True) == message


@pytest.mark.parametrize("parameters", PARAMETERS)
def test_round_trip_of_large_messages(parameters):
    source = random.Random(7)
    deflater, inflater = Deflater(parameters, DeflateOptions()), Inflater(parameters)
    for message in (source.randbytes(300_000), b"abc" * 100_000, source.randbytes(10)):
        assert inflate(inflater, deflater.deflate(message), 300_000, True) == message


def test_window_is_kept_between_messages():
    message = random.Random(1).randbytes(2000)
    kept = Deflater(DeflateParameters(), DeflateOptions())
    dropped = Deflater(DeflateParameters(server_no_context_takeover=True), DeflateOptions())
    assert len(kept.deflate(message)) > 2000 > 100 > len(kept.deflate(message))
    assert dropped.deflate(message) == dropped.deflate(message)


def test_sends_no_larger_window_than_agreed():
    message = random.Random(1).randbytes(600)
    deflater = Deflater(DeflateParameters(server_max_window_bits=9), DeflateOptions())
    peer = zlib.decompressobj(-9)
    for _ in range(3):
        assert peer.decompress(deflater.deflate(message) + b"\0\0\xff\xff") == message


@pytest.mark.parametrize("bits", range(8, 16))
def test_keeps_the_window_that_was_agreed(bits):
    # For 8 bits zlib only has 9, of which it uses less than 256 bytes.
    coder = zlib.compressobj(9, zlib.DEFLATED, -max(9, bits))
    distance = (1 << max(9, bits)) - 262  # the farthest that zlib refers back
    message = random.Random(bits).randbytes(100)
    filler = random.Random(0).randbytes(distance - 100)
    inflater = Inflater(DeflateParameters(client_max_window_bits=bits))
    for content in (message, filler, message):
        data = (coder.compress(content) + coder.flush(zlib.Z_SYNC_FLUSH))[:-4]
        assert inflate(inflater, data, 40_000, True) == content
    assert len(data) < 50  # so it did refer back


@pytest.mark.parametrize("level", [0, 1, 9])
def test_any_cut_into_frames_gives_the_same(level):
    source = random.Random(level)
    message = source.randbytes(200) + bytes(500) + source.randbytes(100)
    coder = zlib.compressobj(level, zlib.DEFLATED, -15)
    data = (coder.compress(message) + coder.flush(zlib.Z_SYNC_FLUSH))[:-4]
    for cut in range(len(data) + 1):
        inflater = Inflater(DeflateParameters())
        first = inflate(inflater, data[:cut], 800, False)
        assert first + inflate(inflater, data[cut:], 800 - len(first), True) == message


# --- limits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 100, 16_383, 16_384, 16_385, 65_536])
@pytest.mark.parametrize("filler", ["zeros", "random"])
def test_limit_is_exact(size, filler):
    message = bytes(size) if filler == "zeros" else random.Random(size).randbytes(size)
    data = packed(message)
    assert inflate(Inflater(DeflateParameters()), data, size, True) == message
    assert code_of(Inflater(DeflateParameters()), data, size - 1) == 1009


def test_limit_of_nothing():
    assert inflate(Inflater(DeflateParameters()), b"\x00", 0, True) == b""
    assert code_of(Inflater(DeflateParameters()), packed(b"x"), 0) == 1009


def bomb(size: int) -> bytes:
    coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = bytes(1_000_000)
    return b"".join([*(coder.compress(block) for _ in range(size // len(block))), coder.flush(zlib.Z_SYNC_FLUSH)])[:-4]


@pytest.mark.parametrize("last", [True, False])
def test_bomb_is_bounded_in_memory(last):
    data = bomb(100_000_000)
    assert len(data) < 100_000
    inflater = Inflater(DeflateParameters())
    tracemalloc.start()
    try:
        assert code_of(inflater, data, 1_000_000, last) == 1009
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()


# --- final blocks -----------------------------------------------------------------------------------------------------


def final(payload: bytes) -> bytes:
    """Compress as senders do that cannot flush: the last block is marked as final, section 7.2.3.4."""
    coder = zlib.compressobj(6, zlib.DEFLATED, -15)
    return coder.compress(payload) + coder.flush(zlib.Z_FINISH)


@pytest.mark.parametrize("tail", [b"\x00", b""], ids=["empty block after it", "nothing after it"])
def test_messages_with_a_final_block(tail):
    inflater = Inflater(DeflateParameters())
    for message in (b"Hello", b"Hello again", bytes(5000), b"x"):
        assert inflate(inflater, final(message) + tail, 5000, True) == message
    assert inflate(inflater, packed(b"flushed"), 100, True) == b"flushed"


def test_final_block_before_the_last_frame():
    inflater = Inflater(DeflateParameters())
    assert inflate(inflater, final(b"Hel"), 100, False) == b"Hel"
    assert inflate(inflater, packed(b"lo"), 100, True) == b"lo"


def test_content_after_a_final_block():
    assert inflate(Inflater(DeflateParameters()), final(b"Hel") + packed(b"lo"), 5, True) == b"Hello"


def test_limit_counts_on_both_sides_of_a_final_block():
    assert code_of(Inflater(DeflateParameters()), final(b"Hel") + packed(b"lo"), 4) == 1009
    assert code_of(Inflater(DeflateParameters()), final(b"Hel") + packed(b"lo"), 3) == 1009
    assert code_of(Inflater(DeflateParameters()), final(b"Hel") + packed(b"lo"), 2) == 1009


@pytest.mark.parametrize("before", [0, 500_000, 1_000_000, 1_000_001])
def test_bomb_after_a_final_block(before):
    data = final(bytes(before)) + bomb(50_000_000)
    inflater = Inflater(DeflateParameters())
    tracemalloc.start()
    try:
        assert code_of(inflater, data, 1_000_000) == 1009
        assert tracemalloc.get_traced_memory()[1] < 2_500_000
    finally:
        tracemalloc.stop()


def test_a_frame_of_many_final_blocks_is_refused():
    # A coder for each of them would be a second of work for a kilobyte.
    assert code_of(Inflater(DeflateParameters()), final(b"") * 500) == 1007


@pytest.mark.parametrize("data", [b"\xff", b"\x07", packed(b"Hello")[:-1] + b"\xff\xff\xff"])
@pytest.mark.parametrize("last", [True, False])
def test_damaged_content(data, last):
    assert code_of(Inflater(DeflateParameters()), data * 3, last=last) == 1007
