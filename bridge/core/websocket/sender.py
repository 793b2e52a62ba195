"""The sending half of a connection with permessage-deflate (RFC 7692 section 7.2.1)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from bridge.core.websocket.deflate import Deflater
from bridge.core.websocket.frames import BINARY, TEXT, encode_binary, encode_frame, encode_text, utf8

if TYPE_CHECKING:
    from bridge.core.websocket.extensions import DeflateOptions, DeflateParameters

__all__ = ["Sender"]


class Sender:
    """Encodes the messages of a connection that uses permessage-deflate.

    Connections without it use the functions of ``frames``, and so do all control frames.

    Args:
        parameters: The parameters that the handshake agreed on.
        options: The threshold and the levels.
    """

    __slots__ = ("_deflater", "_frame", "_prepared", "_threshold")

    def __init__(self, parameters: DeflateParameters, options: DeflateOptions) -> None:
        self._deflater = Deflater(parameters, options)
        self._threshold = max(1, options.threshold)
        self._prepared: str | bytes | None = None  # the message of which _frame is the frame
        self._frame = b""

    def prepare(self, message: str | bytes) -> Iterator[int]:
        """Encode *message* in pieces, and yield the size (bytes) of each, since encoding a large message takes long.

        At the end, :meth:`encode_text` or :meth:`encode_binary` has the frame and has to be called for it next.

        Raises:
            LocalProtocolError: The text has lone surrogates.
        """
        if len(message) >= self._threshold:
            opcode, payload = (TEXT, utf8(message)) if isinstance(message, str) else (BINARY, message)
            compressed = yield from self._deflater.deflate_in_pieces(payload)
            self._frame = encode_frame(opcode, compressed, rsv1=True)
            self._prepared = message

    def _take_prepared(self) -> bytes:
        frame, self._frame, self._prepared = self._frame, b"", None
        return frame

    def encode_text(self, text: str) -> bytes:
        """Return *text* as one text frame, compressed if it has at least as many characters as the threshold.

        Raises:
            LocalProtocolError: The text has lone surrogates.
        """
        # Characters are counted, not bytes, so that a text is encoded only once. It has at least as many bytes.
        if len(text) < self._threshold:
            return encode_text(text)
        if self._prepared is text:
            return self._take_prepared()
        return encode_frame(TEXT, self._deflater.deflate(utf8(text)), rsv1=True)

    def encode_binary(self, data: bytes) -> bytes:
        """Return *data* as one binary frame, compressed if it has at least as many bytes as the threshold."""
        if len(data) < self._threshold:
            return encode_binary(data)
        if self._prepared is data:
            return self._take_prepared()
        return encode_frame(BINARY, self._deflater.deflate(data), rsv1=True)
