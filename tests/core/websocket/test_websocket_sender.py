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


@pytest.mark.parametrize("takeover", [True, False])
@pytest.mark.parametrize("message", ["x" * 300_000, "é" * 70_000, b"\0y" * 100_000], ids=["text", "é", "bytes"])
def test_a_message_that_is_prepared_in_pieces_is_the_same_to_the_peer(message: str | bytes, takeover: bool) -> None:
    one = Sender(DeflateParameters(server_no_context_takeover=not takeover), DeflateOptions(threshold=10))
    peer = zlib.decompressobj(-15)
    encode = one.encode_text if isinstance(message, str) else one.encode_binary
    content = message.encode() if isinstance(message, str) else message
    for prepared in (False, True, False, True):
        if not takeover:
            peer = zlib.decompressobj(-15)
        sizes = list(one.prepare(message)) if prepared else [len(content)]
        assert sum(sizes) == len(content)
        assert not prepared or max(sizes) <= 65_536
        wire = encode(message)  # type: ignore[arg-type]  # each takes its own
        assert wire[1] == 126
        assert peer.decompress(wire[4:] + b"\0\0\xff\xff") == content


def test_a_message_that_is_not_prepared_to_its_end_leaves_nothing():
    one = sender(10)
    assert unpacked(one.encode_text("before " * 5)) == b"before " * 5
    pieces = one.prepare("x" * 300_000)
    next(pieces)
    assert unpacked(one.encode_text("behind " * 5)) == b"behind " * 5


def test_a_message_below_the_threshold_needs_no_preparation():
    one = sender(1_000_000)
    assert list(one.prepare("x" * 300_000)) == []
    assert one.encode_text("x" * 300_000) == encode_text("x" * 300_000)


def test_text_without_utf8_form_is_refused_at_once():
    with pytest.raises(LocalProtocolError):
        next(iter(sender(10).prepare("\ud800" * 300_000)))
