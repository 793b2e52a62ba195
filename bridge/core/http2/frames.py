"""Frames (RFC 9113 sections 4 and 6): their headers, what their payloads say, and the bytes of those that are sent.

A frame's header is judged by :func:`check_header` before its payload has come. The functions that read a payload rely
on that: they do not look at its size again.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from bridge.core.http2.codes import (
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    PROTOCOL_ERROR,
    SETTINGS_ENABLE_CONNECT_PROTOCOL,
    SETTINGS_ENABLE_PUSH,
    SETTINGS_INITIAL_WINDOW_SIZE,
    SETTINGS_MAX_FRAME_SIZE,
    SETTINGS_NO_RFC7540_PRIORITIES,
    ConnectionFault,
    StreamFault,
)
from bridge.speedups import request_block as _request_block
from bridge.speedups import response_frames as _response_frames

__all__ = [
    "ACK",
    "CONTINUATION",
    "DATA",
    "END_HEADERS",
    "END_STREAM",
    "FRAME_SIZE",
    "GOAWAY",
    "HEADERS",
    "HEADER_SIZE",
    "PADDED",
    "PING",
    "PREFACE",
    "PRIORITY",
    "PRIORITY_FLAG",
    "PRIORITY_UPDATE",
    "PUSH_PROMISE",
    "RST_STREAM",
    "SETTINGS",
    "SETTINGS_ACK",
    "WINDOW_MAX",
    "WINDOW_UPDATE",
    "check_header",
    "data_content",
    "data_header",
    "goaway_frame",
    "header_block",
    "headers_frame",
    "pack_header",
    "parse_goaway",
    "parse_number",
    "parse_priority",
    "parse_priority_update",
    "parse_settings",
    "ping_frame",
    "request_block",
    "request_block_pure",
    "reset_frame",
    "response_frames",
    "response_frames_pure",
    "settings_frame",
    "unpack_header",
    "window_update_frame",
]

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends first (section 3.4)."""

DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9
PRIORITY_UPDATE: Final = 0x10  # RFC 9218

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITY_FLAG: Final = 0x20

HEADER_SIZE: Final = 9
FRAME_SIZE: Final = 16384
"""Bytes of the largest payload that every peer takes (section 4.2)."""
WINDOW_MAX: Final = 0x7FFFFFFF
"""Bytes of the largest window, and the largest stream identifier."""

# Entries of one SETTINGS frame; a client has eight settings to set.
_SETTINGS_MAX = 32

_HEADER = Struct(">HBBBL")
_NUMBER = Struct(">L")
_PAIR = Struct(">HL")

# Size as its upper 16 and lower 8 bits, kind, flags, stream identifier with its reserved bit.
unpack_header = _HEADER.unpack_from
pack_header = _HEADER.pack

_NAMES = {
    DATA: "DATA",
    HEADERS: "HEADERS",
    PRIORITY: "PRIORITY",
    RST_STREAM: "RST_STREAM",
    SETTINGS: "SETTINGS",
    PUSH_PROMISE: "PUSH_PROMISE",
    PING: "PING",
    GOAWAY: "GOAWAY",
    WINDOW_UPDATE: "WINDOW_UPDATE",
    CONTINUATION: "CONTINUATION",
    PRIORITY_UPDATE: "PRIORITY_UPDATE",
}
_ON_STREAM = frozenset({DATA, HEADERS, PRIORITY, RST_STREAM, CONTINUATION})
_ON_CONNECTION = frozenset({SETTINGS, PING, GOAWAY, PRIORITY_UPDATE})
_SIZES = {RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}
_LEAST_SIZES = {GOAWAY: 8, PRIORITY_UPDATE: 4}


# --- received --------------------------------------------------------------------------------------------------------


def check_header(size: int, kind: int, flags: int, stream: int, most: int = FRAME_SIZE) -> None:
    """Check a frame's header, before its payload has come.

    Args:
        size: Bytes of the payload.
        kind: The frame's type. Unknown types are fine (section 5.5).
        flags: The frame's flags.
        stream: The stream identifier without its reserved bit.
        most: Bytes of the largest payload that was announced.

    Raises:
        ConnectionFault: FRAME_SIZE_ERROR for a wrong size (section 4.2); PROTOCOL_ERROR for a frame that belongs to
            streams on stream 0 or the other way round, and for PUSH_PROMISE, which clients do not send (section 8.4).
        StreamFault: FRAME_SIZE_ERROR; a PRIORITY frame has a wrong size (section 6.3). Its payload follows.
    """
    if size > most:
        raise ConnectionFault(FRAME_SIZE_ERROR, f"frame of {size} bytes, limit {most} (RFC 9113 section 4.2)")
    name = _NAMES.get(kind)
    if name is None:
        return
    if stream:
        if kind in _ON_CONNECTION:
            raise ConnectionFault(PROTOCOL_ERROR, f"{name} on stream {stream} (RFC 9113 section 6)")
    elif kind in _ON_STREAM:
        raise ConnectionFault(PROTOCOL_ERROR, f"{name} on stream 0 (RFC 9113 section 6)")
    if kind == PUSH_PROMISE:
        raise ConnectionFault(PROTOCOL_ERROR, "PUSH_PROMISE by a client (RFC 9113 section 8.4)")
    if kind == SETTINGS:
        if size % 6 or (flags & ACK and size):
            raise ConnectionFault(FRAME_SIZE_ERROR, f"SETTINGS of {size} bytes (RFC 9113 section 6.5)")
    elif kind == PRIORITY:
        if size != 5:
            raise StreamFault(FRAME_SIZE_ERROR, f"PRIORITY of {size} bytes (RFC 9113 section 6.3)")
    elif size != _SIZES.get(kind, size) or size < _LEAST_SIZES.get(kind, 0):
        raise ConnectionFault(FRAME_SIZE_ERROR, f"{name} of {size} bytes (RFC 9113 section 6)")


def data_content(payload: bytes, flags: int) -> bytes:
    """Return the content of a DATA frame, without its padding (section 6.1).

    Raises:
        ConnectionFault: PROTOCOL_ERROR; the padding is as long as the payload, or longer. FRAME_SIZE_ERROR; there is no
            room for the length of the padding.
    """
    if not flags & PADDED:
        return payload
    start, end = _unpadded(payload)
    return payload[start:end]


def header_block(payload: bytes, flags: int) -> tuple[bytes, int]:
    """Return the field block fragment of a HEADERS frame and the stream that it depends on (section 6.2).

    Dependencies are obsolete. They are only looked at because a stream that depends on itself has always been an error
    (RFC 7540 section 5.3.1).

    Returns:
        The fragment without padding and priority; the dependency, 0 for none.

    Raises:
        ConnectionFault: As :func:`data_content`.
    """
    start, end = _unpadded(payload) if flags & PADDED else (0, len(payload))
    dependency = 0
    if flags & PRIORITY_FLAG:
        if end - start < 5:
            raise ConnectionFault(FRAME_SIZE_ERROR, "HEADERS without room for its priority (RFC 9113 section 6.2)")
        dependency = _NUMBER.unpack_from(payload, start)[0] & WINDOW_MAX
        start += 5
    return payload[start:end], dependency


def _unpadded(payload: bytes) -> tuple[int, int]:
    """Return where the payload of a frame with the flag PADDED begins and ends without its padding."""
    if not payload:
        raise ConnectionFault(FRAME_SIZE_ERROR, "no room for the length of the padding (RFC 9113 section 6.1)")
    end = len(payload) - payload[0]
    if end < 1:
        raise ConnectionFault(PROTOCOL_ERROR, f"padding of {payload[0]} bytes in {len(payload)} (RFC 9113 section 6.1)")
    return 1, end


def parse_settings(payload: bytes) -> list[tuple[int, int]]:
    """Return (identifier, value) of each setting in order. The last value of a repeated setting counts.

    Unknown settings are among them, since they are to be ignored (section 6.5.2).

    Raises:
        ConnectionFault: PROTOCOL_ERROR or FLOW_CONTROL_ERROR; a value is out of range. ENHANCE_YOUR_CALM; there are
            more settings than 32.
    """
    if len(payload) > 6 * _SETTINGS_MAX:
        raise ConnectionFault(ENHANCE_YOUR_CALM, f"{len(payload) // 6} settings in a frame, limit {_SETTINGS_MAX}")
    settings = [*_PAIR.iter_unpack(payload)]
    for identifier, value in settings:
        if identifier == SETTINGS_INITIAL_WINDOW_SIZE:
            if value > WINDOW_MAX:
                raise ConnectionFault(FLOW_CONTROL_ERROR, f"SETTINGS_INITIAL_WINDOW_SIZE of {value} (section 6.5.2)")
        elif identifier == SETTINGS_MAX_FRAME_SIZE:
            if not FRAME_SIZE <= value <= 0xFFFFFF:
                raise ConnectionFault(PROTOCOL_ERROR, f"SETTINGS_MAX_FRAME_SIZE of {value} (section 6.5.2)")
        elif value > 1 and identifier in {
            SETTINGS_ENABLE_PUSH,
            SETTINGS_ENABLE_CONNECT_PROTOCOL,
            SETTINGS_NO_RFC7540_PRIORITIES,
        }:
            raise ConnectionFault(PROTOCOL_ERROR, f"setting {identifier} is {value}, not 0 or 1 (section 6.5.2)")
    return settings


def parse_number(payload: bytes) -> int:
    """Return the 31 bits of a WINDOW_UPDATE's increment (section 6.9). An increment of 0 is the caller's to refuse."""
    return int(_NUMBER.unpack(payload)[0]) & WINDOW_MAX


def parse_priority(payload: bytes) -> int:
    """Return the stream that a PRIORITY frame names as its dependency; its other parts are obsolete (section 6.3)."""
    return int(_NUMBER.unpack_from(payload)[0]) & WINDOW_MAX


def parse_priority_update(payload: bytes) -> tuple[int, bytes]:
    """Return the stream that a PRIORITY_UPDATE frame is about, and its priority field value (RFC 9218 section 7.1).

    Raises:
        ConnectionFault: PROTOCOL_ERROR; it is about stream 0.
    """
    stream = int(_NUMBER.unpack_from(payload)[0]) & WINDOW_MAX
    if not stream:
        raise ConnectionFault(PROTOCOL_ERROR, "PRIORITY_UPDATE of stream 0 (RFC 9218 section 7.1)")
    return stream, payload[4:]


def parse_goaway(payload: bytes) -> tuple[int, int, bytes]:
    """Return the last stream, the error code and the debug data of a GOAWAY frame (section 6.8)."""
    last, code = _NUMBER.unpack_from(payload)[0], _NUMBER.unpack_from(payload, 4)[0]
    return last & WINDOW_MAX, code, payload[8:]


def request_block_pure(data: bytes | bytearray, position: int, stream: int) -> bytes | None:
    """Return the field block of a usual request: of one HEADERS frame that opens a stream and ends it.

    Args:
        data: What was received.
        position: Where the frame begins in it; its whole header has come.
        stream: The stream that it has to open.

    Returns:
        The block; None if the frame is another one, or is not complete.
    """
    high, low, kind, flags, found = _HEADER.unpack_from(data, position)
    end = position + HEADER_SIZE + (high << 8 | low)
    if (
        found != stream
        or kind != HEADERS
        or flags != END_HEADERS | END_STREAM
        or end > len(data)
        or end - position > HEADER_SIZE + FRAME_SIZE
    ):
        return None
    block = data[position + HEADER_SIZE : end]
    return block if block.__class__ is bytes else bytes(block)


request_block = _request_block or request_block_pure


# --- sent ------------------------------------------------------------------------------------------------------------


def data_header(size: int, stream: int, ended: bool) -> bytes:
    """Return the header of a DATA frame with *size* bytes of content."""
    return _HEADER.pack(size >> 8, size & 0xFF, DATA, ended, stream)


def headers_frame(stream: int, block: bytes, ended: bool, most: int = FRAME_SIZE) -> bytes:
    """Return a field block as a HEADERS frame, and CONTINUATION frames if it is long (sections 6.2 and 6.10).

    Args:
        stream: The stream identifier.
        block: The encoded fields.
        ended: The stream ends with this frame.
        most: Bytes of the largest payload that the peer takes.
    """
    size = len(block)
    if size <= most:
        return _HEADER.pack(size >> 8, size & 0xFF, HEADERS, END_HEADERS | ended, stream) + block
    parts = [_HEADER.pack(most >> 8, most & 0xFF, HEADERS, ended, stream), block[:most]]
    for start in range(most, size, most):
        piece = block[start : start + most]
        flags = END_HEADERS if start + most >= size else 0
        parts += [_HEADER.pack(len(piece) >> 8, len(piece) & 0xFF, CONTINUATION, flags, stream), piece]
    return b"".join(parts)


def response_frames_pure(stream: int, block: bytes, content: bytes) -> bytes | None:
    """Return a whole response: a HEADERS frame with the field block *block*, and a DATA frame.

    Returns:
        The frames; None if block or content does not fit into one frame, or if the content is not bytes.
    """
    size, content_size = len(block), len(content)
    if size > FRAME_SIZE or content_size > FRAME_SIZE or content.__class__ is not bytes:
        return None
    head = _HEADER.pack(size >> 8, size & 0xFF, HEADERS, END_HEADERS, stream)
    return b"".join(
        (head, block, _HEADER.pack(content_size >> 8, content_size & 0xFF, DATA, END_STREAM, stream), content)
    )


response_frames = _response_frames or response_frames_pure


def settings_frame(settings: list[tuple[int, int]]) -> bytes:
    """Return a SETTINGS frame with these (identifier, value) pairs."""
    size = 6 * len(settings)
    return _HEADER.pack(size >> 8, size & 0xFF, SETTINGS, 0, 0) + b"".join([_PAIR.pack(*pair) for pair in settings])


SETTINGS_ACK: Final = pack_header(0, 0, SETTINGS, ACK, 0)
"""The frame that acknowledges the peer's settings."""


def ping_frame(data: bytes, ack: bool) -> bytes:
    """Return a PING frame with eight bytes of *data*."""
    return _HEADER.pack(0, 8, PING, ack, 0) + data


def goaway_frame(last: int, code: int, debug: bytes = b"") -> bytes:
    """Return a GOAWAY frame.

    Args:
        last: The last stream that was or may be processed.
        code: The error code.
        debug: Text for the peer's log.
    """
    size = 8 + len(debug)
    return b"".join((_HEADER.pack(size >> 8, size & 0xFF, GOAWAY, 0, 0), _NUMBER.pack(last), _NUMBER.pack(code), debug))


def reset_frame(stream: int, code: int) -> bytes:
    """Return a RST_STREAM frame."""
    return _HEADER.pack(0, 4, RST_STREAM, 0, stream) + _NUMBER.pack(code)


def window_update_frame(stream: int, increment: int) -> bytes:
    """Return a WINDOW_UPDATE frame; *stream* is 0 for the connection, *increment* is in bytes."""
    return _HEADER.pack(0, 4, WINDOW_UPDATE, 0, stream) + _NUMBER.pack(increment)
