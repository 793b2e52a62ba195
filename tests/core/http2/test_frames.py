from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.http2 import frames
from bridge.core.http2.codes import (
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    NO_ERROR,
    PROTOCOL_ERROR,
    ConnectionFault,
    StreamFault,
    error_name,
)
from bridge.core.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PADDED,
    PING,
    PRIORITY,
    PRIORITY_FLAG,
    PRIORITY_UPDATE,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
)


@pytest.mark.parametrize(
    ("size", "kind", "flags", "stream"),
    [
        *((0, DATA, 0, 1), (16384, DATA, 0, 1), (0, HEADERS, 0, 1), (5, PRIORITY, 0, 1), (4, RST_STREAM, 0, 1)),
        *((0, SETTINGS, 0, 0), (6, SETTINGS, 0, 0), (0, SETTINGS, ACK, 0), (8, PING, 0, 0), (8, GOAWAY, 0, 0)),
        *((100, GOAWAY, 0, 0), (4, WINDOW_UPDATE, 0, 0), (4, WINDOW_UPDATE, 0, 7), (0, CONTINUATION, 0, 1)),
        *((4, PRIORITY_UPDATE, 0, 0), (3, 0x77, 0xFF, 0), (16384, 0xFF, 0xFF, 5)),
    ],
)
def test_headers_that_are_fine(size: int, kind: int, flags: int, stream: int) -> None:
    frames.check_header(size, kind, flags, stream)


@pytest.mark.parametrize(
    ("size", "kind", "flags", "stream", "code"),
    [
        *((16385, kind, 0, 1, FRAME_SIZE_ERROR) for kind in (DATA, HEADERS, PRIORITY, 0x77)),
        *((5, kind, 0, 0, PROTOCOL_ERROR) for kind in (DATA, HEADERS, PRIORITY, CONTINUATION, PUSH_PROMISE)),
        *((8, kind, 0, 1, PROTOCOL_ERROR) for kind in (PING, GOAWAY, PUSH_PROMISE, PRIORITY_UPDATE)),
        *((4, RST_STREAM, 0, 0, PROTOCOL_ERROR), (0, SETTINGS, 0, 1, PROTOCOL_ERROR)),
        *((size, RST_STREAM, 0, 1, FRAME_SIZE_ERROR) for size in (0, 3, 5)),
        *((size, WINDOW_UPDATE, 0, stream, FRAME_SIZE_ERROR) for size in (0, 3, 5) for stream in (0, 1)),
        *((size, PING, 0, 0, FRAME_SIZE_ERROR) for size in (0, 7, 9)),
        *((size, SETTINGS, 0, 0, FRAME_SIZE_ERROR) for size in (1, 5, 7)),
        *((6, SETTINGS, ACK, 0, FRAME_SIZE_ERROR), (7, GOAWAY, 0, 0, FRAME_SIZE_ERROR)),
        (3, PRIORITY_UPDATE, 0, 0, FRAME_SIZE_ERROR),
    ],
)
def test_headers_that_end_the_connection(size: int, kind: int, flags: int, stream: int, code: int) -> None:
    with pytest.raises(ConnectionFault) as caught:
        frames.check_header(size, kind, flags, stream)
    assert error_name(caught.value.code) == error_name(code)


@pytest.mark.parametrize("size", [0, 4, 6])
def test_a_priority_of_a_wrong_size_is_an_error_of_its_stream(size: int) -> None:
    with pytest.raises(StreamFault) as caught:
        frames.check_header(size, PRIORITY, 0, 1)
    assert caught.value.code == FRAME_SIZE_ERROR


def test_data_without_its_padding() -> None:
    assert frames.data_content(b"abc", 0) == b"abc"
    assert frames.data_content(b"\x00abc", PADDED) == b"abc"
    assert frames.data_content(b"\x02abc\x00\x00", PADDED) == b"abc"
    assert frames.data_content(b"\x03\x00\x00\x00", PADDED) == b""


def test_a_field_block_without_padding_and_priority() -> None:
    priority = struct.pack(">LB", 0x80000007, 9)
    assert frames.header_block(b"abc", END_HEADERS) == (b"abc", 0)
    assert frames.header_block(b"\x01abc\x00", PADDED) == (b"abc", 0)
    assert frames.header_block(priority + b"abc", PRIORITY_FLAG) == (b"abc", 7)
    assert frames.header_block(b"\x01" + priority + b"abc\x00", PADDED | PRIORITY_FLAG) == (b"abc", 7)
    assert frames.header_block(b"\x00" + priority, PADDED | PRIORITY_FLAG) == (b"", 7)


@pytest.mark.parametrize(
    ("payload", "flags", "code"),
    [
        (b"", PADDED, FRAME_SIZE_ERROR),
        (b"\x01", PADDED, PROTOCOL_ERROR),
        (b"\x04abc", PADDED, PROTOCOL_ERROR),
        (b"\xffabc", PADDED, PROTOCOL_ERROR),
    ],
)
def test_padding_that_does_not_fit(payload: bytes, flags: int, code: int) -> None:
    for parse in (frames.data_content, frames.header_block):
        with pytest.raises(ConnectionFault) as caught:
            parse(payload, flags)
        assert error_name(caught.value.code) == error_name(code)


@pytest.mark.parametrize("payload", [b"", b"\x00\x00\x00\x01"])
def test_a_priority_that_does_not_fit(payload: bytes) -> None:
    for data, flags in ((payload, PRIORITY_FLAG), (b"\x02" + payload + b"\x00\x00", PRIORITY_FLAG | PADDED)):
        with pytest.raises(ConnectionFault) as caught:
            frames.header_block(data, flags)
        assert caught.value.code == FRAME_SIZE_ERROR


def settings(*pairs: tuple[int, int]) -> bytes:
    return frames.settings_frame([*pairs])[9:]


@pytest.mark.parametrize(
    "pairs",
    [
        [],
        [(1, 0), (2, 0), (3, 0), (4, 0), (5, 16384), (6, 0)],
        [(1, 0xFFFFFFFF), (2, 1), (3, 0xFFFFFFFF), (4, 0x7FFFFFFF), (5, 0xFFFFFF), (6, 0xFFFFFFFF)],
        [(8, 0), (8, 1), (9, 0), (9, 1), (7, 77), (0xFFFF, 0xFFFFFFFF)],
        [(4, 1), (4, 2)],
        [(0xF000 + number, number) for number in range(32)],
    ],
)
def test_settings(pairs: list[tuple[int, int]]) -> None:
    assert frames.parse_settings(settings(*pairs)) == pairs


@pytest.mark.parametrize(
    ("pairs", "code"),
    [
        ([(2, 2)], PROTOCOL_ERROR),
        ([(8, 2)], PROTOCOL_ERROR),
        ([(9, 0xFFFFFFFF)], PROTOCOL_ERROR),
        ([(4, 0x80000000)], FLOW_CONTROL_ERROR),
        ([(4, 0x80000000), (4, 1)], FLOW_CONTROL_ERROR),
        ([(5, 16383)], PROTOCOL_ERROR),
        ([(5, 0x1000000)], PROTOCOL_ERROR),
        ([(5, 0)], PROTOCOL_ERROR),
        ([(0xF000, 0)] * 33, ENHANCE_YOUR_CALM),
    ],
)
def test_settings_that_end_the_connection(pairs: list[tuple[int, int]], code: int) -> None:
    with pytest.raises(ConnectionFault) as caught:
        frames.parse_settings(settings(*pairs))
    assert error_name(caught.value.code) == error_name(code)


def test_reserved_bits_are_ignored() -> None:
    assert frames.parse_number(b"\x80\x00\x00\x05") == 5
    assert frames.parse_priority(b"\x80\x00\x00\x05\x10") == 5
    assert frames.parse_priority_update(b"\x80\x00\x00\x05u=1") == (5, b"u=1")
    assert frames.parse_goaway(b"\x80\x00\x00\x05\xff\x00\x00\x01why") == (5, 0xFF000001, b"why")


def test_a_priority_update_of_no_stream() -> None:
    with pytest.raises(ConnectionFault) as caught:
        frames.parse_priority_update(bytes(4))
    assert caught.value.code == PROTOCOL_ERROR


def unpacked(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """Return kind, flags, stream and payload of each frame in *data*."""
    found = []
    while data:
        high, low, kind, flags, stream = frames.unpack_header(data)
        size = high << 8 | low
        assert len(data) >= 9 + size
        found.append((kind, flags, stream, data[9 : 9 + size]))
        data = data[9 + size :]
    return found


def test_frames_that_are_sent() -> None:
    assert unpacked(frames.data_header(0x012345, 7, True) + bytes(0x012345)) == [(DATA, END_STREAM, 7, bytes(0x012345))]
    assert unpacked(frames.data_header(0, 7, False)) == [(DATA, 0, 7, b"")]
    assert unpacked(frames.SETTINGS_ACK) == [(SETTINGS, ACK, 0, b"")]
    assert unpacked(frames.settings_frame([(3, 128)])) == [(SETTINGS, 0, 0, b"\x00\x03\x00\x00\x00\x80")]
    assert unpacked(frames.ping_frame(b"12345678", True)) == [(PING, ACK, 0, b"12345678")]
    assert unpacked(frames.ping_frame(b"12345678", False)) == [(PING, 0, 0, b"12345678")]
    assert unpacked(frames.reset_frame(5, 8)) == [(RST_STREAM, 0, 5, b"\x00\x00\x00\x08")]
    assert unpacked(frames.window_update_frame(0, 65536)) == [(WINDOW_UPDATE, 0, 0, b"\x00\x01\x00\x00")]
    ((kind, _, stream, payload),) = unpacked(frames.goaway_frame(0x7FFFFFFF, NO_ERROR, b"bye"))
    assert (kind, stream, frames.parse_goaway(payload)) == (GOAWAY, 0, (0x7FFFFFFF, NO_ERROR, b"bye"))


def test_a_field_block_is_cut_into_frames() -> None:
    assert unpacked(frames.headers_frame(3, b"", True)) == [(HEADERS, END_HEADERS | END_STREAM, 3, b"")]
    assert unpacked(frames.headers_frame(3, b"x" * 16384, False)) == [(HEADERS, END_HEADERS, 3, b"x" * 16384)]
    block = bytes(range(256)) * 160  # 40,960
    parts = unpacked(frames.headers_frame(3, block, True))
    assert [(kind, flags) for kind, flags, _, _ in parts] == [
        (HEADERS, END_STREAM),
        (CONTINUATION, 0),
        (CONTINUATION, END_HEADERS),
    ]
    assert b"".join([payload for *_, payload in parts]) == block
    assert {stream for _, _, stream, _ in parts} == {3}
    assert len(unpacked(frames.headers_frame(3, block, True, 0xFFFFFF))) == 1
    assert [flags for _, flags, _, _ in unpacked(frames.headers_frame(3, bytes(32768), False))] == [0, END_HEADERS]


def test_names_of_errors() -> None:
    assert error_name(0) == "NO_ERROR"
    assert error_name(0xB) == "ENHANCE_YOUR_CALM"
    assert error_name(0xD) == "HTTP_1_1_REQUIRED"
    assert error_name(0xE) == "0xe"
    assert error_name(0xFFFFFFFF) == "0xffffffff"


# --- what has a compiled twin: the requests and responses that come most often ----------------------------------------

EITHER_BLOCK = [frames.request_block, frames.request_block_pure]
EITHER_FRAMES = [frames.response_frames, frames.response_frames_pure]


@pytest.mark.parametrize("function", EITHER_BLOCK)
@pytest.mark.parametrize("size", [0, 1, 300, 16384])
def test_the_block_of_a_usual_request(function: Any, size: int) -> None:
    wire = frames.headers_frame(7, b"b" * size, True)
    for make in (bytes, bytearray):
        for data in (make(wire), make(wire + wire)):
            found = function(data, 0, 7)
            assert found == b"b" * size
            assert type(found) is bytes
        assert function(make(b"rest" + wire), 4, 7) == b"b" * size
        assert not size or function(make(wire[:-1]), 0, 7) is None


@pytest.mark.parametrize("function", EITHER_BLOCK)
@pytest.mark.parametrize(
    "wire",
    [
        frames.headers_frame(9, b"b", True),
        frames.headers_frame(7, b"b", False),
        frames.pack_header(0, 1, frames.DATA, 5, 7) + b"b",
        frames.pack_header(0, 1, frames.HEADERS, 1, 7) + b"b",
        frames.pack_header(0, 1, frames.HEADERS, 0xD, 7) + b"\0",
        frames.pack_header(0, 5, frames.HEADERS, 0x25, 7) + bytes(5),
        frames.pack_header(0, 1, frames.HEADERS, 5, 7 | 1 << 31) + b"b",
        frames.pack_header(64, 1, frames.HEADERS, 5, 7) + b"b" * 16385,
        frames.pack_header(0xFFFF, 0xFF, frames.HEADERS, 5, 7),
    ],
)
def test_another_frame_is_no_usual_request(function: Any, wire: bytes) -> None:
    assert function(wire, 0, 7) is None


@pytest.mark.parametrize("function", EITHER_FRAMES)
def test_a_whole_response(function: Any) -> None:
    for stream, block, content in ((1, b"", b""), (0x7FFFFFFF, b"b" * 16384, b"c" * 16384), (77, b"b" * 300, b"c")):
        header = frames.data_header(len(content), stream, True)
        assert function(stream, block, content) == frames.headers_frame(stream, block, False) + header + content
    assert function(1, b"b" * 16385, b"") is None
    assert function(1, b"", b"c" * 16385) is None
    assert function(1, b"", bytearray(1)) is None


@given(st.binary(max_size=14), st.integers(0, 5), st.sampled_from([1, 3, 0x7FFFFFFF]))
def test_any_octets_are_the_same_to_both(data: bytes, position: int, stream: int) -> None:
    for wire in (data, frames.pack_header(0, len(data), frames.HEADERS, 5, stream) + data):
        if len(wire) - position >= 9:
            found = frames.request_block(wire, position, stream)
            assert found == frames.request_block_pure(wire, position, stream)
