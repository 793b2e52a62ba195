from __future__ import annotations

import pytest

from bridge.core.websocket import frames
from bridge.errors import BridgeError, LocalProtocolError

# The examples of RFC 6455 section 5.7 that a server may send, and the edges of the three length forms.
ENCODED = [
    pytest.param(frames.encode_text("Hello"), b"\x81\x05Hello", id="text"),
    pytest.param(frames.encode_text(""), b"\x81\x00", id="empty text"),
    pytest.param(frames.encode_text("é€\U0001f600"), b"\x81\x09\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", id="text, UTF-8"),
    pytest.param(frames.encode_text("é" * 63), b"\x81\x7e\x00\x7e" + "é".encode() * 63, id="text of 126 bytes"),
    pytest.param(frames.encode_binary(b""), b"\x82\x00", id="empty binary"),
    pytest.param(frames.encode_binary(b"x" * 125), b"\x82\x7d" + b"x" * 125, id="binary of 125 bytes"),
    pytest.param(frames.encode_binary(b"x" * 126), b"\x82\x7e\x00\x7e" + b"x" * 126, id="binary of 126 bytes"),
    pytest.param(frames.encode_binary(b"x" * 256), b"\x82\x7e\x01\x00" + b"x" * 256, id="binary of 256 bytes"),
    pytest.param(frames.encode_binary(b"x" * 65535), b"\x82\x7e\xff\xff" + b"x" * 65535, id="binary of 65535 bytes"),
    pytest.param(
        frames.encode_binary(b"x" * 65536), b"\x82\x7f\0\0\0\0\0\x01\0\0" + b"x" * 65536, id="binary of 65536 bytes"
    ),
    pytest.param(frames.encode_ping(b"Hello"), b"\x89\x05Hello", id="ping"),
    pytest.param(frames.encode_ping(), b"\x89\x00", id="empty ping"),
    pytest.param(frames.encode_pong(b"Hello"), b"\x8a\x05Hello", id="pong"),
    pytest.param(frames.encode_pong(b"x" * 125), b"\x8a\x7d" + b"x" * 125, id="longest pong"),
    pytest.param(frames.encode_close(), b"\x88\x00", id="empty close"),
    pytest.param(frames.encode_close(1000), b"\x88\x02\x03\xe8", id="close without reason"),
    pytest.param(frames.encode_close(4999, "bye é"), b"\x88\x08\x13\x87bye \xc3\xa9", id="close with reason"),
    pytest.param(frames.encode_close(1001, "x" * 123), b"\x88\x7d\x03\xe9" + b"x" * 123, id="longest reason"),
    pytest.param(frames.encode_frame(frames.TEXT, b"Hel", fin=False), b"\x01\x03Hel", id="first fragment"),
    pytest.param(frames.encode_frame(frames.CONTINUATION, b"lo"), b"\x80\x02lo", id="last fragment"),
    pytest.param(frames.encode_frame(frames.BINARY, b"z", rsv1=True), b"\xc2\x01z", id="compressed"),
]

REFUSED = [
    pytest.param(lambda: frames.encode_text("\ud800"), id="lone surrogate"),
    pytest.param(lambda: frames.encode_ping(b"x" * 126), id="long ping"),
    pytest.param(lambda: frames.encode_pong(b"x" * 126), id="long pong"),
    pytest.param(lambda: frames.encode_close(1000, "x" * 124), id="long reason"),
    pytest.param(lambda: frames.encode_close(1000, "é" * 62), id="long reason in bytes"),
    pytest.param(lambda: frames.encode_close(1000, "\udcff"), id="reason with a lone surrogate"),
    pytest.param(lambda: frames.encode_close(None, "bye"), id="reason without code"),
    *(
        pytest.param(lambda code=code: frames.encode_close(code), id=f"close code {code}")
        for code in (-1, 0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 70000)
    ),
]


@pytest.mark.parametrize(("encoded", "wire"), ENCODED)
def test_encodes(encoded, wire):
    assert encoded == wire


@pytest.mark.parametrize("encode", REFUSED)
def test_refuses_to_encode(encode):
    with pytest.raises(LocalProtocolError):
        encode()


def test_close_codes_that_travel():
    travelling = {code for code in range(-1, 70_000) if frames.is_close_code(code)}
    registered = {1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014}
    assert travelling == registered | set(range(3000, 5000))


def test_error_carries_its_code():
    error = frames.WebSocketError(frames.TOO_BIG, "message above its limit")
    assert isinstance(error, BridgeError)
    assert (error.code, str(error)) == (1009, "message above its limit")
