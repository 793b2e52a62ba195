"""Decoders of message content, by length or by chunks (RFC 9112 sections 6 and 7).

A decoder keeps no bytes. The reader passes its buffer and a position, and gets content and a new position back. The
reader pauses by not asking.
"""

from __future__ import annotations

from bridge.core.http.fields import NOT_IN_TRAILERS
from bridge.core.http.limits import Limits
from bridge.core.http1.grammar import BAD_LINE_END, CHUNK_LINE, CHUNK_LINE_START
from bridge.core.http1.request import parse_fields
from bridge.errors import FramingError, LimitExceeded

__all__ = ["ChunkedDecoder", "FixedDecoder"]

# Bytes of a chunk line: sixteen digits, white space and extensions. A longer one is refused before its end has come.
_CHUNK_LINE_MAX = 4096
# Chunks decoded in one call. A buffer full of one-octet chunks would otherwise block the event loop.
_CHUNKS_PER_CALL = 16


class FixedDecoder:
    """Decodes content of a known length.

    Args:
        length: Bytes of content.

    Attributes:
        remaining: Bytes still expected.
        done: All content was taken.
        steps: Always 0: there is no framing to read.
        trailers: Always empty: only chunked content can have a trailer section.
    """

    __slots__ = ("done", "remaining")

    steps = 0
    trailers: tuple[tuple[bytes, bytes], ...] = ()

    def __init__(self, length: int) -> None:
        self.remaining = length
        self.done = not length

    def take(self, buffer: bytes | bytearray, start: int, most: int) -> tuple[bytes, int]:
        """Return up to *most* bytes of content from *start* on, and the position behind them.

        ``b""`` means that more bytes are needed.
        """
        size = min(self.remaining, most, len(buffer) - start)
        self.remaining -= size
        self.done = not self.remaining
        if size == len(buffer) and buffer.__class__ is bytes:
            return buffer, size  # all of the buffer is content: no copy
        return bytes(buffer[start : start + size]), start + size


class ChunkedDecoder:
    """Decodes content in chunks.

    Args:
        limits: The limits of the chunk extensions and of the trailer section.
        limit: Most bytes of content.

    Attributes:
        remaining: None: the length is not known before the last chunk.
        done: The last chunk and the trailer section were taken.
        steps: How many chunks the last call of :meth:`take` has read, for a count of the work.
        trailers: (name, value) of the trailer section's fields, names in lower case. They are kept apart from the
            header section (RFC 9110 section 6.5). Fields that a trailer section must not have are left out.
        limit: The argument; may be changed. A chunk that exceeds it is refused as soon as its size is read.
    """

    __slots__ = (
        "_chunk",
        "_extensions",
        "_limits",
        "_searched",
        "_state",
        "_total",
        "done",
        "limit",
        "steps",
        "trailers",
    )

    remaining = None

    def __init__(self, limits: Limits, limit: int) -> None:
        self.limit = limit
        self.trailers: tuple[tuple[bytes, bytes], ...] | list[tuple[bytes, bytes]] = ()
        self._limits = limits
        self._chunk = 0  # bytes of the current chunk still expected
        self._total = 0
        self._extensions = 0
        self._searched = 0  # bytes of an incomplete trailer section in which its end was not found
        self._state = _SIZE
        self.done = False
        self.steps = 0

    def take(self, buffer: bytes | bytearray, start: int, most: int) -> tuple[bytes, int]:
        """Return up to *most* bytes of content from *start* on, and the position behind what was read.

        Small chunks are joined. ``b""`` with a new position means that only framing was read, ``b""`` with the same
        position that more bytes are needed.

        Raises:
            FramingError: 400, RFC 9112 section 7.1.
            LimitExceeded: 413 for the content or the extensions, 431 for the trailer section.
        """
        parts: list[bytes] = []
        room = most
        position = start
        for self.steps in range(_CHUNKS_PER_CALL):
            if self._state is _DATA:
                size = min(self._chunk, room, len(buffer) - position)
                if not size:
                    break
                parts.append(bytes(buffer[position : position + size]))
                position += size
                room -= size
                self._chunk -= size
                if self._chunk:
                    break
                self._state = _DATA_END
            moved = self._step(buffer, position)
            if moved == position:
                break
            position = moved
            if self.done:
                break
        return (parts[0] if len(parts) == 1 else b"".join(parts)), position

    def _step(self, buffer: bytes | bytearray, position: int) -> int:
        """Read one piece of the framing; return the position behind it, or *position* if it is incomplete."""
        if self._state is _DATA_END:
            end = bytes(buffer[position : position + 2])
            if end == b"\r\n":
                self._state = _SIZE
                return position + 2
            # Only CRLF ends a chunk. With another end, two readers of this message could disagree where it ends.
            if end not in {b"", b"\r"}:
                raise FramingError(f"improperly terminated chunk: {end!r}")
            return position
        if self._state is _SIZE:
            return self._read_size(buffer, position)
        return self._read_trailers(buffer, position)

    def _read_size(self, buffer: bytes | bytearray, position: int) -> int:
        match = CHUNK_LINE.match(buffer, position, position + _CHUNK_LINE_MAX)
        if match is None:
            if len(buffer) - position >= _CHUNK_LINE_MAX or CHUNK_LINE_START.fullmatch(buffer, position) is None:
                raise FramingError(f"invalid chunk size: {bytes(buffer[position : position + 40])!r}")
            return position
        size = int(match[1], 16)
        self._extensions += len(match[2])
        if self._extensions > self._limits.chunk_extensions:
            raise LimitExceeded(413, f"chunk extensions longer than {self._limits.chunk_extensions} bytes")
        self._total += size
        if self._total > self.limit:
            raise LimitExceeded(413, f"chunked body too large: {self._total} bytes, limit {self.limit}")
        self._chunk = size
        self._state = _DATA if size else _TRAILERS
        return match.end()

    def _read_trailers(self, buffer: bytes | bytearray, position: int) -> int:
        if buffer[position : position + 2] == b"\r\n":
            self.done = True
            return position + 2
        # The search goes on where the last one ended. From the start each time, a section in small pieces would cost
        # quadratic time: half a minute for 64 KiB in single bytes.
        searched = self._searched
        most = self._limits.head
        end = buffer.find(b"\r\n\r\n", position + searched - 3 if searched > 3 else position)
        size = (len(buffer) - 3 if end < 0 else end) - position  # the last three bytes may begin the CRLFCRLF
        if size > most:
            raise LimitExceeded(431, f"trailer section longer than {most} bytes")
        if end < 0:
            if BAD_LINE_END.search(buffer, position + searched - 1 if searched else position) is not None:
                raise FramingError("line not ended by CRLF, or NUL, in the trailer section")
            self._searched = len(buffer) - position
            return position
        fields = parse_fields(bytes(buffer[position:end]), self._limits)
        self.trailers = [field for field in fields if field[0] not in NOT_IN_TRAILERS]
        self.done = True
        return end + 4


_SIZE, _DATA, _DATA_END, _TRAILERS = (object() for _ in range(4))
