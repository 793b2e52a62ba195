"""The client's side by hand: masked frames, ways to cut the bytes, and a reader that collects what comes out."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from bridge.core.websocket.frames import WebSocketError
from bridge.core.websocket.receiver import Event, Progress, Receiver

KEY = b"\x37\xfa\x21\x3d"

Cut = Callable[[bytes], Iterator[bytes]]


def masked(payload: bytes, key: bytes = KEY) -> bytes:
    """XOR octet by octet, as the RFC describes it."""
    return bytes(octet ^ key[index % 4] for index, octet in enumerate(payload))


def frame(first: int, payload: bytes = b"", key: bytes = KEY, form: int | None = None) -> bytes:
    """Return a masked frame with the given first byte; *form* forces 126 or 127 as the short length."""
    length = len(payload)
    if form is None:
        form = length if length < 126 else 126 if length < 0x10000 else 127
    head = bytes((first, 0x80 | form))
    if form == 126:
        head += length.to_bytes(2, "big")
    elif form == 127:
        head += length.to_bytes(8, "big")
    return head + key + masked(payload, key)


def whole(wire: bytes) -> Iterator[bytes]:
    yield wire


def bytewise(wire: bytes) -> Iterator[bytes]:
    for index in range(len(wire)):
        yield wire[index : index + 1]


def at_random(seed: int) -> Cut:
    def cut(wire: bytes) -> Iterator[bytes]:
        source = random.Random(seed)
        position = 0
        while position < len(wire):
            size = source.randint(1, 12)
            yield wire[position : position + size]
            position += size

    return cut


CUTS = {"whole": whole, "bytewise": bytewise, **{f"random {seed}": at_random(seed) for seed in range(5)}}


def read(receiver: Receiver, pieces: Iterator[bytes]) -> tuple[list[Event], int | None]:
    """Feed the pieces; return the events and the close code of the error that ended them, None without."""
    events: list[Event] = []
    for piece in pieces:
        receiver.feed(piece)
        try:
            while (event := receiver.next_event()) is not None:
                if not isinstance(event, Progress):
                    events.append(event)
        except WebSocketError as exc:
            return events, exc.code
    return events, None
