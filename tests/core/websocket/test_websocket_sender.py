from __future__ import annotations

import zlib

import pytest

from bridge.core.websocket.extensions import DeflateOptions, DeflateParameters
from bridge.core.websocket.frames import encode_binary, encode_text
from bridge.core.websocket.sender import Sender
from bridge.errors import LocalProtocolError


def sender(threshold: int) -> Sender:
    return Sender(DeflateParameters(), DeflateOptions(threshold=threshold))


def unpacked(wire: bytes) -> bytes:
    """Return the content of a compressed frame of less than 126 bytes."""
    assert wire[1] == len(wire) - 2 < 126
    return zlib.decompressobj(-15).decompress(wire[2:] + b"\0\0\xff\xff")


def test_compresses_from_the_threshold_on():
    assert sender(10).encode_text("x" * 9) == encode_text("x" * 9)
    assert sender(10).encode_binary(b"x" * 9) == encode_binary(b"x" * 9)
    text, binary = sender(10).encode_text("é" * 10), sender(10).encode_binary(b"x" * 10)
    assert (text[0], unpacked(text)) == (0xC1, "é".encode() * 10)
    assert (binary[0], unpacked(binary)) == (0xC2, b"x" * 10)


def test_empty_messages_are_never_compressed():
    # There is nothing to flush: some versions of zlib would return nothing, which is no DEFLATE data.
    assert sender(0).encode_text("") == b"\x81\x00"
    assert sender(0).encode_binary(b"") == b"\x82\x00"
    assert sender(0).encode_text("x")[0] == 0xC1


@pytest.mark.parametrize("threshold", [0, 100])
def test_text_without_utf8_form(threshold):
    with pytest.raises(LocalProtocolError):
        sender(threshold).encode_text("\ud800")


def test_window_is_shared_by_all_messages():
    one = sender(0)
    first, second = one.encode_text("a message that comes again"), one.encode_binary(b"a message that comes again")
    assert len(second) < len(first)
    peer = zlib.decompressobj(-15)
    for wire in (first, second):
        assert peer.decompress(wire[2:] + b"\0\0\xff\xff") == b"a message that comes again"
