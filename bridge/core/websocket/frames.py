"""Encodes the server's frames, and has the constants of both directions (RFC 6455 sections 5 and 7.4).

The functions are pure. A server's frames are never masked (section 5.1), and every message is sent as one frame.
"""

from __future__ import annotations

from struct import Struct

from bridge.errors import BridgeError, LocalProtocolError

__all__ = [
    "BAD_DATA",
    "BINARY",
    "CLOSE",
    "CONTINUATION",
    "PING",
    "POLICY_VIOLATION",
    "PONG",
    "PROTOCOL_ERROR",
    "TEXT",
    "TOO_BIG",
    "TRY_AGAIN_LATER",
    "WebSocketError",
    "encode_binary",
    "encode_close",
    "encode_frame",
    "encode_ping",
    "encode_pong",
    "encode_text",
    "is_close_code",
]

# Opcodes (section 5.2).
CONTINUATION = 0x0
TEXT = 0x1
BINARY = 0x2
CLOSE = 0x8
PING = 0x9
PONG = 0xA

# The close codes that answer a peer's faults (section 7.4.1).
PROTOCOL_ERROR = 1002
BAD_DATA = 1007
POLICY_VIOLATION = 1008
TOO_BIG = 1009
TRY_AGAIN_LATER = 1013  # registered by IANA, after RFC 6455

FIN = 0x80
RSV1 = 0x40
CONTROL_LIMIT = 125  # bytes in a control frame, section 5.5

_head_16 = Struct(">BBH").pack
_head_64 = Struct(">BBQ").pack

# The first two bytes of a whole text or binary frame of up to 125 bytes, by length: ready-made for short messages.
_SHORT_TEXT = [bytes((FIN | TEXT, length)) for length in range(126)]
_SHORT_BINARY = [bytes((FIN | BINARY, length)) for length in range(126)]


class WebSocketError(BridgeError):
    """The peer broke a rule of RFC 6455 or RFC 7692, or exceeded a limit. The server closes with ``code``.

    Attributes:
        code: The close code for the fault: 1002, 1007 or 1009.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def is_close_code(code: int) -> bool:
    """Tell whether *code* may be sent in a close frame (section 7.4 and the IANA registry of close codes).

    1004 is reserved. 1005, 1006 and 1015 tell a program how the connection ended, and are never sent.
    """
    return 1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999


def encode_frame(opcode: int, payload: bytes, fin: bool = True, rsv1: bool = False) -> bytes:
    """Return one unmasked frame (section 5.2). Its length has the shortest form.

    Args:
        opcode: TEXT, BINARY, CONTINUATION, CLOSE, PING or PONG.
        payload: The frame's payload; for a control frame at most 125 bytes, which is not checked.
        fin: False if more frames of the same message follow.
        rsv1: True for the first frame of a compressed message (RFC 7692 section 6).
    """
    first = opcode | (FIN if fin else 0) | (RSV1 if rsv1 else 0)
    length = len(payload)
    if length < 126:
        return bytes((first, length)) + payload
    if length < 0x10000:
        return _head_16(first, 126, length) + payload
    return _head_64(first, 127, length) + payload


def encode_text(text: str) -> bytes:
    """Return *text* as one uncompressed text frame.

    Raises:
        LocalProtocolError: The text has lone surrogates, so it cannot be encoded in UTF-8 (section 8.1).
    """
    payload = utf8(text)
    if len(payload) < 126:
        return _SHORT_TEXT[len(payload)] + payload
    return encode_frame(TEXT, payload)


def encode_binary(data: bytes) -> bytes:
    """Return *data* as one uncompressed binary frame."""
    if len(data) < 126:
        return _SHORT_BINARY[len(data)] + data
    return encode_frame(BINARY, data)


def encode_ping(payload: bytes = b"") -> bytes:
    """Return a ping frame (section 5.5.2).

    Raises:
        LocalProtocolError: The payload is longer than 125 bytes.
    """
    return _encode_control(PING, payload)


def encode_pong(payload: bytes = b"") -> bytes:
    """Return a pong frame. The answer to a ping has the ping's payload (section 5.5.3).

    Raises:
        LocalProtocolError: The payload is longer than 125 bytes.
    """
    return _encode_control(PONG, payload)


def encode_close(code: int | None = None, reason: str = "") -> bytes:
    """Return a close frame (section 5.5.1).

    Args:
        code: A code that may be sent, see :func:`is_close_code`; None for a frame without code and reason.
        reason: At most 123 bytes of UTF-8.

    Raises:
        LocalProtocolError: The code may not be sent, the reason is too long, or there is a reason without a code.
    """
    if code is None:
        if reason:
            raise LocalProtocolError("a close reason needs a close code")
        return _encode_control(CLOSE, b"")
    if not is_close_code(code):
        raise LocalProtocolError(f"close code {code} may not be sent")
    return _encode_control(CLOSE, code.to_bytes(2, "big") + utf8(reason))


def utf8(text: str) -> bytes:
    """Return *text* in UTF-8.

    Raises:
        LocalProtocolError: The text has lone surrogates.
    """
    try:
        return text.encode()
    except UnicodeEncodeError as exc:
        raise LocalProtocolError(f"text has no UTF-8 form: {exc.reason}") from None


def _encode_control(opcode: int, payload: bytes) -> bytes:
    if len(payload) > CONTROL_LIMIT:
        raise LocalProtocolError(f"control frame of {len(payload)} bytes, limit {CONTROL_LIMIT}")
    return bytes((FIN | opcode, len(payload))) + payload
