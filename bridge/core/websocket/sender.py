"""The sending half of a connection with permessage-deflate (RFC 7692 section 7.2.1)."""

from __future__ import annotations

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

    __slots__ = ("_deflater", "_threshold")

    def __init__(self, parameters: DeflateParameters, options: DeflateOptions) -> None:
        self._deflater = Deflater(parameters, options)
        self._threshold = max(1, options.threshold)

    def encode_text(self, text: str) -> bytes:
        """Return *text* as one text frame, compressed if it has at least as many characters as the threshold.

        Raises:
            LocalProtocolError: The text has lone surrogates.
        """
        # Characters are counted, not bytes, so that a text is encoded only once. It has at least as many bytes.
        if len(text) < self._threshold:
            return encode_text(text)
        return encode_frame(TEXT, self._deflater.deflate(utf8(text)), rsv1=True)

    def encode_binary(self, data: bytes) -> bytes:
        """Return *data* as one binary frame, compressed if it has at least as many bytes as the threshold."""
        if len(data) < self._threshold:
            return encode_binary(data)
        return encode_frame(BINARY, self._deflater.deflate(data), rsv1=True)
