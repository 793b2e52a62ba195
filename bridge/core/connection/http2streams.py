"""What an HTTP/2 connection knows of streams that are not open: field blocks that were begun, ended streams."""

from __future__ import annotations

from bridge.core.http2.codes import ENHANCE_YOUR_CALM, ConnectionFault

__all__ = ["EndedStreams", "FieldBlock"]

# The most bytes of a field block, and the most frames that continue it (RFC 9113 section 10.5.1).
_BLOCK_MAX = 65536
_CONTINUATIONS_MAX = 8
# How many streams are remembered that were reset here: frames of them may still be on their way.
_RESETS_MAX = 512
# How many ranges of streams are remembered that the peer has skipped.
_SKIPPED_MAX = 16


class FieldBlock:
    """A field block of which more frames are to come (RFC 9113 section 4.3).

    Args:
        stream: Its stream.
        ended: The stream ends with it.
        depends_on_itself: The HEADERS frame names its own stream as its dependency.
        fragment: The first part.
    """

    __slots__ = ("_frames", "_parts", "_size", "depends_on_itself", "ended", "stream")

    def __init__(self, stream: int, ended: bool, depends_on_itself: bool, fragment: bytes) -> None:
        self.stream = stream
        self.ended = ended
        self.depends_on_itself = depends_on_itself
        self._parts = [fragment]
        self._size = len(fragment)
        self._frames = 0

    def add(self, fragment: bytes) -> None:
        """Add the payload of a CONTINUATION frame.

        Raises:
            ConnectionFault: ENHANCE_YOUR_CALM; the frames are too many, or empty, or the block is too long.
        """
        self._frames += 1
        self._size += len(fragment)
        if self._frames > _CONTINUATIONS_MAX or not fragment:
            raise ConnectionFault(
                ENHANCE_YOUR_CALM, f"more than {_CONTINUATIONS_MAX} CONTINUATION frames, or an empty one"
            )
        if self._size > _BLOCK_MAX:
            raise ConnectionFault(ENHANCE_YOUR_CALM, f"field block of more than {_BLOCK_MAX} bytes")
        self._parts.append(fragment)

    def whole(self) -> bytes:
        """Return the whole block."""
        return b"".join(self._parts)


class EndedStreams:
    """Why a stream of which a frame comes is not open: it was reset here, was never opened, or has ended."""

    __slots__ = ("_resets", "_skipped")

    def __init__(self) -> None:
        self._resets: dict[int, int] = {}  # what was left of the stream's window; the oldest first
        self._skipped: list[range] = []

    def add_reset(self, stream: int, window: int) -> None:
        """Note that *stream* was reset here: frames of it may be on their way, with at most *window* bytes."""
        resets = self._resets
        resets[stream] = window
        if len(resets) > _RESETS_MAX:
            del resets[next(iter(resets))]

    def add_skipped(self, last: int, stream: int) -> None:
        """Note that *stream* was opened behind *last*: those between them are closed now (section 5.1.1)."""
        self._skipped.append(range(last + 2, stream, 2))
        del self._skipped[:-_SKIPPED_MAX]

    def is_on_its_way(self, stream: int, size: int) -> bool:
        """Tell whether content of *size* bytes may have been sent before the peer knew that *stream* was reset.

        When the answer is early, a client may have a window full of small messages on their way. That is no fault of
        the client.
        """
        left = self._resets[stream]
        if not 0 < size <= left:
            return False
        self._resets[stream] = left - size
        return True

    def was_reset(self, stream: int) -> bool:
        """Tell whether *stream* was reset here."""
        return stream in self._resets

    def was_skipped(self, stream: int) -> bool:
        """Tell whether *stream* has never been opened."""
        return any(stream in streams for streams in self._skipped)
