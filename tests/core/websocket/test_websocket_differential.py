"""Any sequence of frames, in any cut, means the same to us as to the protocol layer of the websockets distribution.

Left out are lengths in a longer form than they need, and the compression bit on later fragments of a compressed
message, where that layer is laxer, and a close frame inside a message, where it is stricter than RFC 6455. The tables
of the receiver have all three.
"""

from __future__ import annotations

import codecs
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.extensions.permessage_deflate import PerMessageDeflate
from websockets.frames import Opcode
from websockets.protocol import State
from websockets.server import ServerProtocol

from bridge.core.websocket.extensions import DeflateParameters
from bridge.core.websocket.receiver import Close, Ping, Pong, Receiver
from tests.support.websocket_peer import at_random, frame, read

MAX_SIZE = 2000

TEXT = st.one_of(
    st.text(max_size=30).map(str.encode),
    st.integers(0, MAX_SIZE + 100).map(lambda size: b"x" * size),
    st.sampled_from(
        [b"\xe2", b"\x82\xac", b"\xe2\x82", b"\xac", b"\xff", b"\xed\xa0\x80", b"\xf4\x90\x80\x80", b"\xc0\xaf"]
    ),
)
DATA = TEXT | st.binary(max_size=200)
CLOSING = st.one_of(
    st.just(b""),
    st.binary(min_size=1, max_size=1),
    st.builds(
        lambda code, reason: code.to_bytes(2, "big") + reason,
        st.sampled_from([999, 1000, 1001, 1003, 1004, 1005, 1006, 1007, 1014, 1015, 1016, 2999, 3000, 4999, 5000]),
        st.sampled_from([b"", b"why", "ü".encode()]),
    ),
    st.just(b"\x03\xe8\xff"),  # one fault only, where each would have its own code
)  # fmt: skip
# Mostly what peers do; now and then something that no peer may do. A whole message, a fragment, a later one, control.
FIRST = st.sampled_from([0x81, 0x82, 0x01, 0x02, 0x00, 0x00, 0x80, 0x80])
FRAMES = st.one_of(
    st.tuples(FIRST, DATA),
    st.tuples(FIRST, DATA),
    st.tuples(FIRST, DATA),
    st.tuples(st.sampled_from([0x89, 0x8A]), st.binary(max_size=125)),
    st.tuples(st.just(0x88), CLOSING),
    st.tuples(st.sampled_from([0x09, 0x08, 0x83, 0x8B, 0xC1, 0xA1, 0x91, 0xC9, 0xB0]), st.binary(max_size=20)),
    st.tuples(st.sampled_from([0x88, 0x89, 0x8A]), st.just(bytes(126))),
)
DEFLATE = DeflateParameters(False, False, 15, 15)


class Reference:
    """What a server of the websockets distribution makes of the bytes, its fragments put together and decoded."""

    def __init__(self, deflate: bool, max_size: int | None = MAX_SIZE) -> None:
        self.protocol = ServerProtocol(state=State.OPEN, max_size=max_size)
        if deflate:
            self.protocol.extensions = [PerMessageDeflate(False, False, 15, 15)]

    def read(self, wire: bytes) -> tuple[list[object], int | None]:
        self.protocol.receive_data(wire)
        events: list[object] = []
        parts: list[str | bytes] = []
        decoder = None
        for found in self.protocol.events_received():
            data = bytes(found.data)
            if found.opcode is Opcode.PING:
                events.append(Ping(data))
            elif found.opcode is Opcode.PONG:
                events.append(Pong(data))
            elif found.opcode is Opcode.CLOSE:
                close = self.protocol.close_rcvd
                assert close is not None
                events.append(Close(int(close.code), close.reason))
                return events, None
            else:
                if found.opcode is not Opcode.CONT:
                    parts = []
                    decoder = codecs.getincrementaldecoder("utf-8")() if found.opcode is Opcode.TEXT else None
                try:
                    parts.append(data if decoder is None else decoder.decode(data, found.fin))
                except UnicodeDecodeError:
                    return events, 1007
                if found.fin:
                    events.append(parts[0][:0].join(parts))  # type: ignore[arg-type]
        if self.protocol.parser_exc is None:
            return events, None
        if isinstance(self.protocol.parser_exc.__cause__, zlib.error):
            return events, 1007  # there 1002; RFC 7692 names no code
        assert self.protocol.close_sent is not None
        return events, int(self.protocol.close_sent.code)


def without_early_close(sequence: list[tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    """Leave out close frames inside of a message."""
    kept = []
    inside = False
    for first, payload in sequence:
        if first == 0x88 and inside:
            continue
        if first & 0x0F in {0, 1, 2}:
            inside = first < 0x80
        kept.append((first, payload))
    return kept


@settings(max_examples=400)
@given(sequence=st.lists(FRAMES, max_size=12), unmasked=st.integers(0, 200), seed=st.integers(0, 1000))
def test_without_compression(sequence: list[tuple[int, bytes]], unmasked: int, seed: int) -> None:
    sequence = without_early_close(sequence)
    wires = [frame(first, payload) for first, payload in sequence]
    if unmasked < len(wires) and len(sequence[unmasked][1]) < 126:
        first, payload = sequence[unmasked]
        wires[unmasked] = bytes((first, len(payload))) + payload
    wire = b"".join(wires)
    # Without a limit, since a frame that breaks it and another rule may be refused for either.
    assert read(Receiver(1 << 30), at_random(seed)(wire)) == Reference(False, None).read(wire)


# A message: its opcode, its pieces, whether it is compressed, and what is done to the compressed bytes.
MESSAGES = st.tuples(
    st.sampled_from([0x01, 0x02]),
    st.lists(DATA, min_size=1, max_size=4),
    st.booleans(),
    st.sampled_from(["", "", "", "", "damage", "cut"]),
)


@settings(max_examples=250)
@given(messages=st.lists(MESSAGES, max_size=6), seed=st.integers(0, 1000))
def test_with_compression(messages: list[tuple[int, list[bytes], bool, str]], seed: int) -> None:
    coder = zlib.compressobj(wbits=-15)
    wires: list[bytes] = []
    for opcode, pieces, compressed, harm in messages:
        if compressed:
            stream = coder.compress(b"".join(pieces)) + coder.flush(zlib.Z_SYNC_FLUSH)
            stream = stream.removesuffix(b"\x00\x00\xff\xff")
            if harm == "damage":
                stream = bytes([stream[0] ^ 0x07]) + stream[1:]
            elif harm == "cut":
                stream = stream[:-1]
            size = max(1, -(-len(stream) // len(pieces)))
            pieces = [stream[start : start + size] for start in range(0, len(stream), size)] or [b""]
        for index, piece in enumerate(pieces):
            first = (0x80 if index == len(pieces) - 1 else 0) | (0 if index else opcode)
            wires.append(frame(first | (0x40 if compressed and not index else 0), piece))
    wire = b"".join(wires)
    assert read(Receiver(MAX_SIZE, deflate=DEFLATE), at_random(seed)(wire)) == Reference(True).read(wire)


@pytest.mark.parametrize("size", [MAX_SIZE - 1, MAX_SIZE, MAX_SIZE + 1])
@pytest.mark.parametrize("pieces", [1, 3])
@pytest.mark.parametrize("compressed", [False, True])
def test_the_limit_is_the_same(size: int, pieces: int, compressed: bool) -> None:
    content = bytes(range(256)) * 8
    content = content[:size]
    stream = content
    if compressed:
        coder = zlib.compressobj(wbits=-15)
        stream = (coder.compress(content) + coder.flush(zlib.Z_SYNC_FLUSH)).removesuffix(b"\x00\x00\xff\xff")
    step = -(-len(stream) // pieces)
    parts = [stream[start : start + step] for start in range(0, len(stream), step)]
    wire = b"".join(
        frame((0x80 if index == len(parts) - 1 else 0) | (0 if index else 0x42 if compressed else 0x02), part)
        for index, part in enumerate(parts)
    )
    found = read(Receiver(MAX_SIZE, deflate=DEFLATE), at_random(1)(wire))
    assert found == Reference(True).read(wire) == (([content], None) if size <= MAX_SIZE else ([], 1009))
