"""Compression and decompression for permessage-deflate (RFC 7692 section 7.2), both bounded in memory."""

from __future__ import annotations

import zlib
from collections.abc import Generator
from typing import TYPE_CHECKING

from bridge.core.websocket.frames import BAD_DATA, TOO_BIG, WebSocketError

if TYPE_CHECKING:
    from bridge.core.websocket.extensions import DeflateOptions, DeflateParameters

__all__ = ["PIECE", "Deflater", "Inflater"]

PIECE = 131072
"""Bytes that are inflated at once, in about 0.2 milliseconds."""

# Bytes that are compressed at once, in 0.4 to 1.1 milliseconds.
_DEFLATED_AT_ONCE = 65536

# The end of every flushed block, which is not sent (section 7.2.1).
_TAIL = b"\x00\x00\xff\xff"


class Deflater:
    """Compresses the messages of one connection.

    Its state is made with the first message. With 12 window bits and memory level 5 it takes about 35 KiB.

    Args:
        parameters: What the handshake agreed on.
        options: Compression level and memory level.
    """

    __slots__ = ("_coder", "_level", "_mem_level", "_takeover", "_window_bits")

    def __init__(self, parameters: DeflateParameters, options: DeflateOptions) -> None:
        self._takeover = not parameters.server_no_context_takeover
        self._window_bits = parameters.server_max_window_bits
        self._level = options.level
        self._mem_level = options.mem_level
        self._coder: zlib._Compress | None = None

    def deflate(self, payload: bytes) -> bytes:
        """Return the compressed form of one whole message.

        Args:
            payload: Not empty: an empty message has nothing to flush. It is sent uncompressed, as any message may be.
        """
        coder = self._coder or self._new_coder()
        if self._takeover:
            self._coder = coder
        return (coder.compress(payload) + coder.flush(zlib.Z_SYNC_FLUSH))[:-4]

    def deflate_in_pieces(self, payload: bytes) -> Generator[int, None, bytes]:
        """Do as :meth:`deflate`, and yield the size (bytes) of each piece that was compressed.

        If the caller stops before the end, nothing of the message is sent, and the next message starts afresh.
        """
        coder, self._coder = self._coder or self._new_coder(), None
        whole = memoryview(payload)
        parts = []
        for start in range(0, len(whole), _DEFLATED_AT_ONCE):
            piece = whole[start : start + _DEFLATED_AT_ONCE]
            parts.append(coder.compress(piece))
            yield len(piece)
        parts.append(coder.flush(zlib.Z_SYNC_FLUSH))
        if self._takeover:
            self._coder = coder
        return b"".join(parts)[:-4]

    def _new_coder(self) -> zlib._Compress:
        return zlib.compressobj(self._level, zlib.DEFLATED, -self._window_bits, self._mem_level)


class Inflater:
    """Decompresses the messages of one connection. Its state is made with the first compressed message.

    :meth:`feed` takes the payload of a frame; :meth:`next_piece` returns its content in pieces, so that a payload of a
    few KiB which inflates to many MiB does not block the event loop.

    Args:
        parameters: What the handshake agreed on.

    Attributes:
        pending: The frame that was fed may have more content.
    """

    __slots__ = ("_coder", "_input", "_last", "_restarted", "_takeover", "_window_bits", "pending")

    def __init__(self, parameters: DeflateParameters) -> None:
        self._takeover = not parameters.client_no_context_takeover
        self._window_bits = parameters.client_max_window_bits
        self._coder: zlib._Decompress | None = None
        self._input = b""  # what is left of the frame's payload
        self._last = False  # the frame is the last one of its message
        self._restarted = False  # a final block has come in this frame
        self.pending = False

    def feed(self, payload: bytes, last: bool) -> None:
        """Take the payload of one frame of a compressed message; the one before has no content left.

        Args:
            payload: Unmasked.
            last: The frame is the last one of its message.
        """
        self._input = payload + _TAIL if last else payload
        self._last = last
        self._restarted = False
        self.pending = True

    def next_piece(self, limit: int) -> bytes:
        """Return up to PIECE bytes of content; ``pending`` tells whether there may be more.

        Args:
            limit: Most bytes that the message may still have. At most one byte more is ever produced.

        Raises:
            WebSocketError: 1009 if the content is larger than *limit*, 1007 if the payload is not DEFLATE data.
        """
        coder = self._coder
        if coder is None:
            coder = self._new_coder()
        room = min(limit + 1, PIECE)
        try:
            content = coder.decompress(self._input, room)
        except zlib.error as exc:
            raise WebSocketError(BAD_DATA, f"compressed content is damaged: {exc}") from None
        if coder.eof:
            # A final block ends the coder's stream, but not the message (section 7.2.3.4). Real senders make at most
            # one in a frame. Frames with many are refused: a new coder for each of them would be costly.
            if self._restarted:
                raise WebSocketError(BAD_DATA, "more than one final block in a compressed frame")
            self._restarted = True
            self._input = coder.unused_data
            self._new_coder()
        else:
            self._input = coder.unconsumed_tail
            if len(content) < room:  # otherwise zlib may hold back more
                self.pending = False
                self._input = b""
                # After a final block, the new coder may have got only a part of the tail.
                if self._last and (self._restarted or not self._takeover):
                    self._coder = None
        if len(content) > limit:
            raise WebSocketError(TOO_BIG, f"message inflates beyond its limit, {limit} bytes left")
        return content

    def _new_coder(self) -> zlib._Decompress:
        self._coder = zlib.decompressobj(-self._window_bits)
        return self._coder
