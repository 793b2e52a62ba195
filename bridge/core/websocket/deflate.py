"""The coders of permessage-deflate (RFC 7692 section 7.2), bounded in memory both ways."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from bridge.core.websocket.frames import BAD_DATA, TOO_BIG, WebSocketError

if TYPE_CHECKING:
    from bridge.core.websocket.extensions import DeflateOptions, DeflateParameters

__all__ = ["Deflater", "Inflater"]

# What ends every flushed block and is left out on the wire (section 7.2.1).
_TAIL = b"\x00\x00\xff\xff"


class Deflater:
    """Compresses the messages of one connection; its state is made with the first message.

    With 12 window bits and memory level 5 that state takes about 35 KiB.

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
        """Return the compressed form of one whole message, which is not empty.

        An empty message has nothing to flush, and is sent as it is (a message may always go uncompressed).
        """
        coder = self._coder
        if coder is None:
            coder = zlib.compressobj(self._level, zlib.DEFLATED, -self._window_bits, self._mem_level)
            if self._takeover:
                self._coder = coder
        return (coder.compress(payload) + coder.flush(zlib.Z_SYNC_FLUSH))[:-4]


class Inflater:
    """Decompresses the messages of one connection; its state is made with the first compressed message.

    Args:
        parameters: What the handshake agreed on.
    """

    __slots__ = ("_coder", "_takeover", "_window_bits")

    def __init__(self, parameters: DeflateParameters) -> None:
        self._takeover = not parameters.client_no_context_takeover
        self._window_bits = parameters.client_max_window_bits
        self._coder: zlib._Decompress | None = None

    def inflate(self, payload: bytes, limit: int, last: bool) -> bytes:
        """Return the content of one frame of a compressed message.

        Args:
            payload: The frame's payload, unmasked.
            limit: The most bytes to make of it; no more than one above is ever produced.
            last: Whether the frame ends its message.

        Raises:
            WebSocketError: 1009 when the content is larger than *limit*, 1007 when it is not DEFLATE data.
        """
        coder = self._coder
        if coder is None:
            coder = self._new_coder()
        room = limit + 1  # a content of exactly limit bytes leaves one free, so none of it is held back
        try:
            content = coder.decompress(payload + _TAIL if last else payload, room)
            if coder.eof:
                # A block marked as final ends the coder's life, not the message's (section 7.2.3.4). One in a frame
                # is what real senders make; a new coder for each of a million of them would be an attack.
                rest = coder.unused_data
                coder = self._new_coder()
                if len(content) < room:
                    content += coder.decompress(rest, room - len(content))
                if coder.eof:
                    raise WebSocketError(BAD_DATA, "more than one final block in a compressed frame")
                if last:
                    self._coder = None  # the tail may have been cut by the final block: begin afresh
        except zlib.error as exc:
            raise WebSocketError(BAD_DATA, f"compressed content is damaged: {exc}") from None
        if len(content) > limit:
            raise WebSocketError(TOO_BIG, f"message inflates beyond its limit, {limit} bytes left")
        if last and not self._takeover:
            self._coder = None
        return content

    def _new_coder(self) -> zlib._Decompress:
        self._coder = zlib.decompressobj(-self._window_bits)
        return self._coder
