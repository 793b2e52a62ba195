"""Reads requests off the bytes of one connection: heads and content, one request behind the other (RFC 9112).

The reader is fed bytes and asked for what comes next. It knows no transport, no clock and no delegate; it never
answers. To pause is not to ask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.core.http1.decoder import ChunkedDecoder, FixedDecoder
from bridge.core.http1.request import parse_head

if TYPE_CHECKING:
    from bridge.core.http.limits import Limits
    from bridge.core.http.message import RequestHead

__all__ = ["RequestReader"]

# Empty lines in front of one request.
_BLANK_LINES_MAX = 4
# No limit to chunked content.
_NO_LIMIT = 1 << 62


class RequestReader:
    """Owns what was received and not read.

    After ``next_head`` has returned a head whose ``content_length`` is not 0, call :meth:`expect_content`, and then
    ``next_content`` until ``decoder.done``; only then is the next head asked for.

    Args:
        limits: What is refused although it is well-formed.

    Attributes:
        buffer: What was received; empty if all of it was read. Only the reader changes it, but where it is empty, who
            feeds may set it, which saves the call of :meth:`feed`.
        decoder: Reads the current request's content; None while none is expected.
        heads: How many heads were read.
        scanned: Bytes of an incomplete head; 0 if none of it has come.
    """

    __slots__ = ("_blank_lines", "_limits", "_position", "_previous", "buffer", "decoder", "heads", "scanned")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._blank_lines = 0  # that were skipped in front of the next head
        self._position = 0  # where in the buffer it goes on
        self._previous: RequestHead | None = None  # the last head, for the next to be compared with
        self.buffer: bytes | bytearray = b""
        self.decoder: FixedDecoder | ChunkedDecoder | None = None
        self.heads = 0
        self.scanned = 0

    def feed(self, data: bytes) -> None:
        """Take what was received."""
        buffer = self.buffer
        if buffer:
            if buffer.__class__ is bytes or self._position:
                self.buffer = buffer = bytearray(memoryview(buffer)[self._position :])
                self._position = 0
            buffer += data
        else:
            self.buffer = data
            self._position = 0

    @property
    def unread(self) -> int:
        """Bytes that were received and not read."""
        return len(self.buffer) - self._position

    def next_head(self) -> RequestHead | None:
        """Return the next request's head; None while it is incomplete.

        Raises:
            RemoteProtocolError: It is malformed, too large, or asks for what this server does not do.
        """
        buffer = self.buffer
        previous = self._previous
        if previous is not None and buffer == previous.wire and not self._position:
            # The same once more, as of whom polls, and nothing else: it was parsed and checked.
            self.buffer = b""
            self.heads += 1
            self.scanned = self._blank_lines = 0
            return previous
        start = self._position
        if buffer.startswith(b"\r", start):
            start = self._skip_blank_lines()
            if start < 0:
                return None
        head = parse_head(buffer, start, self._limits, self.scanned, previous)
        if head is None:
            self.scanned = len(buffer) - start
            return None
        if self.heads:
            self._previous = head
        else:  # many connections have no second request: nothing is kept for one
            head.wire = head.lines = None
        self.heads += 1
        self.scanned = self._blank_lines = 0
        start += head.size
        if start == len(buffer):
            self.buffer = b""
            start = 0
        self._position = start
        return head

    def _skip_blank_lines(self) -> int:
        """Skip CRLF in front of a request line (RFC 9112 section 2.2), a few of them.

        Returns:
            Where the request line begins; -1 if nothing is there but, perhaps, the CR of one more.
        """
        buffer = self.buffer
        start = self._position
        while buffer.startswith(b"\r\n", start) and self._blank_lines < _BLANK_LINES_MAX:
            start += 2
            self._blank_lines += 1
        left = len(buffer) - start
        if not left:
            self.buffer = b""
            start = 0
        self._position = start
        if left and (left > 1 or buffer[start] != 0x0D or self._blank_lines == _BLANK_LINES_MAX):
            return start
        return -1

    def expect_content(self, length: int | None, limit: int | None = None) -> FixedDecoder | ChunkedDecoder:
        """Expect the content of the request whose head was read.

        Args:
            length: Bytes; None for chunked content.
            limit: The most bytes that chunked content may have; None for no limit.

        Returns:
            The decoder, which is also ``decoder`` from now on.
        """
        if length is None:
            self.decoder = ChunkedDecoder(self._limits, _NO_LIMIT if limit is None else limit)
        else:
            self.decoder = FixedDecoder(length)
        return self.decoder

    def next_content(self, most: int) -> bytes | None:
        """Return up to *most* bytes of content; None if nothing can be read before more is received.

        Empty bytes are no content, but some of the framing was read.

        Raises:
            RemoteProtocolError: The framing is malformed, or a limit is exceeded.
        """
        buffer = self.buffer
        decoder = self.decoder
        assert decoder is not None, "no content is expected"
        if not buffer:
            return None
        start = self._position
        data, position = decoder.take(buffer, start, most)
        if position == start:
            return None
        if position == len(buffer):
            self.buffer = b""
            position = 0
        self._position = position
        return data

    def take_rest(self) -> bytes:
        """Return all that was received and not read, and forget it."""
        rest = bytes(memoryview(self.buffer)[self._position :])
        self.clear()
        return rest

    def clear(self) -> None:
        """Forget what was received and not read, and expect no content."""
        self.buffer = b""
        self._position = self.scanned = self._blank_lines = 0
        self.decoder = None

    def on_idle(self) -> None:
        """Forget the last head, which was kept to read the next one faster."""
        self._previous = None
