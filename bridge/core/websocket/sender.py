"""The sending half of one connection: which messages are compressed (RFC 7692 section 7.2.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.core.websocket.deflate import Deflater
from bridge.core.websocket.frames import BINARY, TEXT, encode_binary, encode_frame, encode_text, utf8

if TYPE_CHECKING:
    from bridge.core.websocket.extensions import DeflateOptions, DeflateParameters

__all__ = ["Sender"]


class Sender:
    """Encodes the messages of a connection that agreed on permessage-deflate.

    A connection without it, and every control frame, needs only the functions of ``frames``.

    Args:
        parameters: What the handshake agreed on.
        options: This server's threshold and levels.
    """

    __slots__ = ("_deflater", "_threshold")

    def __init__(self, parameters: DeflateParameters, options: DeflateOptions) -> None:
        self._deflater = Deflater(parameters, options)
        self._threshold = max(1, options.threshold)

    def encode_text(self, text: str) -> bytes:
        """Return *text* as one text frame, compressed from the threshold on.

        Raises:
            LocalProtocolError: The text has no UTF-8 form.
        """
        # A character is one to four bytes: the text need not be encoded to see that it is long enough.
        if len(text) < self._threshold:
            return encode_text(text)
        return encode_frame(TEXT, self._deflater.deflate(utf8(text)), rsv1=True)

    def encode_binary(self, data: bytes) -> bytes:
        """Return *data* as one binary frame, compressed from the threshold on."""
        if len(data) < self._threshold:
            return encode_binary(data)
        return encode_frame(BINARY, self._deflater.deflate(data), rsv1=True)
