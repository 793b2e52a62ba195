"""Decodes the peer's frames: bytes in, messages and control frames out (RFC 6455 section 5, RFC 7692 section 6).

The receiver never answers. It returns what has arrived, or raises the peer's fault; the connection acts on it.
"""

from __future__ import annotations

from codecs import utf_8_decode
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from bridge.core.websocket.deflate import PIECE, Inflater
from bridge.core.websocket.frames import (
    BAD_DATA,
    BINARY,
    CLOSE,
    CONTINUATION,
    CONTROL_LIMIT,
    FIN,
    PING,
    PONG,
    PROTOCOL_ERROR,
    RSV1,
    TEXT,
    TOO_BIG,
    WebSocketError,
    encode_close,
    is_close_code,
)
from bridge.core.websocket.masking import apply_mask
from bridge.speedups import read_frame as _read_frame

if TYPE_CHECKING:
    from bridge.core.websocket.extensions import DeflateParameters

__all__ = ["NO_STATUS", "PART", "UNPACKED", "Close", "Event", "Ping", "Pong", "Progress", "Receiver"]

NO_STATUS = 1005  # the code of a close frame without a code; never sent (section 7.1.5)

_WHOLE_TEXT = FIN | TEXT
_WHOLE_BINARY = FIN | BINARY
_WHOLE = frozenset((_WHOLE_TEXT, _WHOLE_BINARY))
_MASKED = 0x80
_CONTROL = 0x08  # the bit of an opcode that is set for control frames
_STARTS = frozenset((TEXT, BINARY))
_OPCODES = _STARTS | {CONTINUATION, CLOSE, PING, PONG}

# The legal first bytes of a frame, as sets, so that one look-up checks opcode, FIN and reserved bits: inside a
# fragmented message, between messages, and between messages of a connection with compression. Control frames may come
# at any time. Only the first frame of a message may have the compression bit (RFC 7692 section 6.1).
_ALWAYS = frozenset((FIN | CLOSE, FIN | PING, FIN | PONG))
_INSIDE = _ALWAYS | {CONTINUATION, FIN | CONTINUATION}
_BETWEEN = _ALWAYS | {TEXT, FIN | TEXT, BINARY, FIN | BINARY}
_BETWEEN_COMPRESSED = _BETWEEN | {first | RSV1 for first in _BETWEEN if not first & _CONTROL}


class _Control:
    """A control frame. It equals another one of its kind with the same payload."""

    __slots__ = ("payload",)

    def __init__(self, payload: bytes) -> None:
        self.payload = payload

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and other.payload == self.payload

    __hash__ = None  # type: ignore[assignment]  # unhashable, since the payload can be set

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.payload!r})"


class Ping(_Control):
    """A ping. The answer is a pong with the same payload (section 5.5.3)."""

    __slots__ = ()


class Pong(_Control):
    """A pong: the answer to a ping, or unsolicited (section 5.5.3)."""

    __slots__ = ()


class Close(NamedTuple):
    """The peer's close frame. Nothing follows it.

    Attributes:
        code: The peer's code; 1005 (NO_STATUS) if the frame was empty.
        reason: The peer's reason, often empty.
    """

    code: int
    reason: str

    def answer(self) -> bytes:
        """Return the close frame that completes the closing handshake: the same code, no reason."""
        return encode_close(None if self.code == NO_STATUS else self.code)


# Bytes of memory that a frame of a message takes besides its payload.
_FRAME_COST = 48
# Bytes that zlib takes for a compressed message: its window, and what it keeps besides.
_INFLATER_COST = 40960


class Progress:
    """Something was read that completes nothing. The connection may let others go on.

    Attributes:
        units: How much work it was, in microseconds.
    """

    __slots__ = ("units",)

    def __init__(self, units: int) -> None:
        self.units = units


PART: Final = Progress(1)
"""A frame of a message."""

UNPACKED: Final = Progress(PIECE >> 10)
"""A piece of a compressed message."""

Event = str | bytes | Ping | Pong | Close | Progress


class Receiver:
    """The receiving half of one connection, on the server's side.

    :meth:`feed` takes received bytes. :meth:`next_event` returns one event after the other, and None when more bytes
    are needed. If the application is slow, the connection stops calling ``next_event`` and stops reading. The fed bytes
    stay as they are: a compressed message is inflated only when its turn comes.

    Args:
        max_size: Most bytes of one message, after decompression.
        max_fragments: Most frames of one message. Each takes some 40 bytes besides its payload. The default lets the
            Autobahn suite pass, which sends 4 MiB in pieces of 64 bytes.
        deflate: The parameters of permessage-deflate; None if it is not used.

    Attributes:
        unread: Fed bytes of which some are unread. While it is empty, ``next_event`` returns None or Progress.
        control_frames: How many pings and pongs have come, for a limit by the connection.
        closed: True after a close frame or an error. Bytes that are fed from then on are dropped (section 1.4).
    """

    __slots__ = (
        "_between",
        "_chunks",
        "_compressed",
        "_first",
        "_fragments",
        "_inflater",
        "_key",
        "_legal",
        "_max_fragments",
        "_max_size",
        "_missing",
        "_packed",
        "_payload",
        "_position",
        "_room",
        "_tail",
        "_texts",
        "closed",
        "control_frames",
        "unread",
    )

    def __init__(
        self,
        max_size: int = 16 * 1024 * 1024,
        max_fragments: int = 131072,
        deflate: DeflateParameters | None = None,
    ) -> None:
        self.closed = False
        self.control_frames = 0
        self._max_size = max_size
        self._max_fragments = max_fragments
        self._inflater = None if deflate is None else Inflater(deflate)
        self.unread = b""
        self._position = 0  # of the first unread byte in unread
        # The legal first bytes of a frame: between messages, and now.
        self._between = _BETWEEN if deflate is None else _BETWEEN_COMPRESSED
        self._legal = self._between
        # A frame whose payload is incomplete.
        self._payload: bytearray | None = None
        self._missing = 0  # bytes of the payload that are still to come
        self._first = 0  # the frame's first byte
        self._key = b""  # the frame's mask
        self._packed = False  # the frame's payload is complete, and not all of it is inflated
        # A fragmented message that is incomplete.
        self._room = max_size  # bytes that it may still have
        self._fragments = 0
        self._compressed = False
        self._texts: list[str] | None = None  # the content of its frames if it is text, else None
        self._chunks: list[bytes] = []  # the content of its frames if it is binary
        self._tail = b""  # of a text, the first bytes of a character that the next frame has to complete

    @property
    def held(self) -> int:
        """The memory of a message that is not complete, in bytes: its content, and what each frame takes besides."""
        size = self._max_size - self._room + self._fragments * _FRAME_COST
        if self._payload is not None:
            size += len(self._payload)
        if self._compressed and self._legal is _INSIDE:
            size += _INFLATER_COST
        return size + len(self.unread)

    def feed(self, data: bytes) -> None:
        """Take received bytes.

        Call :meth:`next_event` until it returns None before the next call, or stop reading. Unread bytes are joined
        with the new ones, which copies them. After None at most a part of a frame's head is unread.
        """
        if self.closed:
            return
        if self.unread:
            data = self.unread[self._position :] + data
        self.unread = data
        self._position = 0

    def next_event(self) -> Event | None:
        """Return the next message (str for text, bytes for binary), Ping, Pong or Close; None if more bytes are needed.

        A frame that completes nothing is a Progress, so that no call reads more than one frame.

        Raises:
            WebSocketError: The peer broke a rule; its ``code`` is the close code to send. No more events follow.
        """
        # Without the compiled function the head of a small frame is read here without calls: each would cost 0.06 us.
        if self._payload is None:
            data = self.unread
            position = self._position
            if len(data) - position < 2:
                self.unread = data[position:]  # as _keep does
                self._position = 0
                return None
            frame = None if _read_frame is None else _read_frame(data, position, self._room)
            if frame is not None:
                return self._take_frame(*frame)
            first = data[position]
            length = data[position + 1] - _MASKED
            if length < 0 or first not in self._legal:
                raise self._frame_fault(first)
            start = position + 6
            if length >= 126:
                start += 2 if length == 126 else 8
                length = self._long_length(first, position + 2, start - 4)
            if start > len(data):
                self._keep()
                return None
            if length > self._room:
                self._check_size(first, length)
            end = start + length
            if end > len(data):
                self._set_aside(first, start, end)
                return None
            payload = apply_mask(data[start:end], data[start - 4 : start])
            if end == len(data):
                self.unread = b""
                self._position = 0
            else:
                self._position = end
        elif self._packed:
            return self._unpack()
        elif self._continue_payload():
            first = self._first
            payload = apply_mask(self._payload, self._key)
            self._payload = None
        else:
            return None
        if first == _WHOLE_TEXT:
            return self._decode(payload)
        if first == _WHOLE_BINARY:
            return payload
        return self._control(first, payload) if first & _CONTROL else self._fragment(first, payload)

    def _take_frame(self, first: int, payload: Any, end: int) -> Event | None:
        """Take a frame that the compiled function has read; its payload is str if it is a whole message of text."""
        if first not in self._legal:
            raise self._frame_fault(first)
        if end == len(self.unread):
            self.unread = b""
            self._position = 0
        else:
            self._position = end
        if first in _WHOLE:
            message: str | bytes = payload
            return message
        return self._control(first, payload) if first & _CONTROL else self._fragment(first, payload)

    def _keep(self) -> None:
        """Drop the bytes that were read, so that an idle connection does not keep its last message."""
        self.unread = self.unread[self._position :]
        self._position = 0

    def _long_length(self, first: int, start: int, end: int) -> int:
        """Return the extended payload length in the bytes from *start* to *end*; 0 while it is incomplete.

        Raises:
            WebSocketError: 1002; the frame is a control frame, or the length does not have the shortest form.
        """
        if first & _CONTROL:
            raise self.fault(PROTOCOL_ERROR, f"control frame above {CONTROL_LIMIT} bytes")
        if end > len(self.unread):
            return 0
        length = int.from_bytes(self.unread[start:end], "big")
        if length < (126 if end - start == 2 else 0x10000) or length >> 63:
            raise self.fault(PROTOCOL_ERROR, f"payload length {length} in a wrong form")
        return length

    def _set_aside(self, first: int, start: int, end: int) -> None:
        """Set aside a frame whose head is complete and whose payload is not."""
        data = self.unread
        self._first = first
        self._key = data[start - 4 : start]
        self._payload = bytearray(memoryview(data)[start:])
        self._missing = end - len(data)
        self.unread = b""
        self._position = 0

    def _continue_payload(self) -> bool:
        """Move bytes to the payload that was set aside; tell whether it is complete."""
        data = self.unread
        missing = self._missing
        assert self._payload is not None
        assert self._position == 0  # the payload was left waiting for this data
        if len(data) <= missing:
            self._payload += data
            self.unread = b""
            self._missing = missing - len(data)
            return self._missing == 0
        self._payload += memoryview(data)[:missing]
        self._position = missing
        self._missing = 0
        return True

    def _frame_fault(self, first: int) -> WebSocketError:
        """Return the error of a frame whose first byte is not legal now, or that is not masked."""
        opcode = first & 0x0F
        if opcode not in _OPCODES:
            return self.fault(PROTOCOL_ERROR, f"reserved opcode {opcode}")
        if first & _CONTROL and not first & FIN:
            return self.fault(PROTOCOL_ERROR, "fragmented control frame")
        if first & 0x30:
            return self.fault(PROTOCOL_ERROR, "reserved bit set")
        if first in self._legal:
            return self.fault(PROTOCOL_ERROR, "frame without mask")
        if first & RSV1 and (self._legal is _BETWEEN or opcode not in _STARTS):
            return self.fault(PROTOCOL_ERROR, "compression bit where it may not be")
        if opcode == CONTINUATION:
            return self.fault(PROTOCOL_ERROR, "continuation of no message")
        return self.fault(PROTOCOL_ERROR, "new message inside a fragmented one")

    def _check_size(self, first: int, length: int) -> None:
        """Refuse a payload that is longer than what the message may still have.

        Raises:
            WebSocketError: 1009.
        """
        if first & _CONTROL:
            return  # a control frame is short, and not a part of the message
        room = self._room
        if first & RSV1 or (self._compressed and not first & 0x0F):
            # Compression makes some content longer: by 1/8 and a few bytes with zlib's smallest memory level.
            room += (room >> 2) + 64
        if length > room:
            raise self.fault(TOO_BIG, f"message above its limit of {self._max_size} bytes")

    def _fragment(self, first: int, payload: bytes) -> str | bytes | Progress:
        """Take a frame of a fragmented or compressed message; return the message if this is its last frame."""
        last = first >= FIN
        opcode = first & 0x0F
        if opcode:
            self._compressed = first & RSV1 != 0
            self._texts = [] if opcode == TEXT else None
            self._legal = _INSIDE
        if not last:
            self._fragments += 1
            if self._fragments >= self._max_fragments:
                raise self.fault(TOO_BIG, f"message of more than {self._max_fragments} fragments")
        if not self._compressed:
            return self._add(payload, last)
        assert self._inflater is not None  # otherwise the compression bit was refused
        self._inflater.feed(payload, last)
        self._first = first
        return self._unpack()

    def _unpack(self) -> str | bytes | Progress:
        """Inflate a piece of a compressed frame; return the message if that is its end."""
        inflater = self._inflater
        assert inflater is not None
        try:
            content = inflater.next_piece(self._room)
        except WebSocketError:
            self._stop()
            raise
        if inflater.pending:
            self._packed = True
            self._payload = bytearray()  # not None: next_event() reads no frame before this one is inflated
            self._add(content, False)
            return UNPACKED
        self._packed = False
        self._payload = None
        return self._add(content, self._first >= FIN)

    def _add(self, content: bytes, last: bool) -> str | bytes | Progress:
        """Add content to the message; return the message if that is the last of it."""
        self._room -= len(content)
        texts = self._texts
        if texts is None:
            self._chunks.append(content)
        else:
            try:
                text, used = utf_8_decode(self._tail + content, "strict", last)
            except UnicodeDecodeError:
                raise self.fault(BAD_DATA, "text is not UTF-8") from None
            self._tail = (self._tail + content)[used:]
            texts.append(text)
        if not last:
            return PART
        chunks = self._chunks
        self._legal = self._between
        self._room = self._max_size
        self._fragments = 0
        self._texts = None
        self._chunks = []
        return b"".join(chunks) if texts is None else "".join(texts)

    def _control(self, first: int, payload: bytes) -> Ping | Pong | Close:
        if first == FIN | PING:
            self.control_frames += 1
            return Ping(payload)
        if first == FIN | PONG:
            self.control_frames += 1
            return Pong(payload)
        if not payload:
            self._stop()
            return Close(NO_STATUS, "")
        if len(payload) == 1:
            raise self.fault(PROTOCOL_ERROR, "close frame of one byte")
        code = payload[0] << 8 | payload[1]
        if not is_close_code(code):
            raise self.fault(PROTOCOL_ERROR, f"close code {code}")
        reason = self._decode(payload[2:])
        self._stop()
        return Close(code, reason)

    def _decode(self, payload: bytes) -> str:
        try:
            return payload.decode()
        except UnicodeDecodeError:
            raise self.fault(BAD_DATA, "text is not UTF-8") from None

    def fault(self, code: int, message: str) -> WebSocketError:
        """Return the error of a peer that has broken a rule, and read nothing more."""
        self._stop()
        return WebSocketError(code, message)

    def _stop(self) -> None:
        """Drop everything that is kept, and read nothing more."""
        self.closed = True
        self.unread = b""
        self._position = 0
        self._payload = None
        self._packed = False
        self._room = self._max_size
        self._fragments = 0
        self._texts = None
        self._chunks = []
        self._tail = b""
        self._inflater = None
