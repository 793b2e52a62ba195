"""Reads the requests of one connection from its bytes: head, content, the next head (RFC 9112).

The connection feeds the reader and asks for the next head or the next content. The reader knows no transport, no clock
and no delegate, and it never answers. The connection pauses by not asking.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.core.http1.decoder import ChunkedDecoder, FixedDecoder
from bridge.core.http1.request import parse_head, parse_usual_head

if TYPE_CHECKING:
    from bridge.core.http.limits import Limits
    from bridge.core.http.message import RequestHead

__all__ = ["RequestReader"]

_CR = 0x0D
# Empty lines that are skipped in front of one request.
_BLANK_LINES_MAX = 4
# Bytes; a longer head is not kept to be compared with the next one.
_WIRE_MAX = 2048
# Bytes; stands for no limit of chunked content.
_NO_LIMIT = 1 << 62


class RequestReader:
    """Keeps the bytes that were received and not read yet, and reads heads and content from them.

    Order of calls: when :meth:`next_head` has returned a head whose ``content_length`` is not 0, call
    :meth:`expect_content`, then :meth:`next_content` until ``decoder.done``. Then set ``decoder`` to None and ask for
    the next head.

    Args:
        limits: The limits of heads and chunk lines.

    Attributes:
        buffer: The received bytes; empty if all of them were read. While it is empty, the connection may set it in
            place of a call of :meth:`feed`; and it may take all of it, if it is content. Otherwise only the reader
            changes it.
        decoder: The decoder of the current request's content; None while no content is expected.
        heads: How many heads were read.
        position: Where the first unread byte is in the buffer.
        scanned: Bytes of an incomplete head; 0 if none of the head has come.
    """

    __slots__ = (
        "_blank_lines",
        "_limits",
        "_previous",
        "_previous_wire",
        "buffer",
        "decoder",
        "heads",
        "position",
        "scanned",
    )

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._blank_lines = 0  # skipped in front of the next head
        self.position = 0
        # The last head that came alone, and its bytes, with which the next one is compared.
        self._previous: RequestHead | None = None
        self._previous_wire: bytes | bytearray = b""
        self.buffer: bytes | bytearray = b""
        self.decoder: FixedDecoder | ChunkedDecoder | None = None
        self.heads = 0
        self.scanned = 0

    def feed(self, data: bytes) -> None:
        """Add received bytes to the buffer."""
        buffer = self.buffer
        if buffer:
            # Nearly always everything was read, and the new bytes become the buffer without a copy. Otherwise the
            # unread bytes go into a bytearray, which grows in place.
            if buffer.__class__ is bytes or self.position:
                self.buffer = buffer = bytearray(memoryview(buffer)[self.position :])
                self.position = 0
            buffer += data
        else:
            self.buffer = data
            self.position = 0

    @property
    def unread(self) -> int:
        """Bytes that were received and not read."""
        return len(self.buffer) - self.position

    def next_head(self) -> RequestHead | None:
        """Return the next request's head; None while it is incomplete.

        Raises:
            RemoteProtocolError: The head is malformed, exceeds a limit, or asks for something that this server does not
                support.
        """
        buffer = self.buffer
        if buffer == self._previous_wire and not self.position and self._previous is not None:
            # The buffer holds the last head again and nothing else, as from a client that polls. It was parsed and
            # checked before.
            self.buffer = b""
            self.heads += 1
            self.scanned = self._blank_lines = 0
            return self._previous
        start = self.position
        # As parse_head() does it, without one more call for each request.
        head = None if self.scanned else parse_usual_head(buffer, start, self._limits.of_head)
        if head is None:
            head = self._next_unusual_head()
            if head is None:
                return None
            start = self.position
        self.heads += 1
        self.scanned = self._blank_lines = 0
        end = start + head.size
        if end < len(buffer):
            self.position = end
            return head
        # Many connections never send a second request, so nothing is kept of the first. Together with on_idle() and
        # other changes this reduces an idle connection (ASGI) from 4.3 KiB to 2.6 (python -m benchmarks idle).
        if start == 0 and end <= _WIRE_MAX and self.heads > 1 and buffer.__class__ is bytes:
            self._previous_wire = buffer
            self._previous = head
        self.buffer = b""
        self.position = 0
        return head

    def _next_unusual_head(self) -> RequestHead | None:
        """Return the next request's head, without the help of the compiled function for whole heads."""
        buffer = self.buffer
        start = self.position
        if buffer and buffer[start] == _CR:
            start = self._skip_blank_lines()
            if start < 0:
                return None
        head = parse_head(buffer, start, self._limits, self.scanned)
        if head is None:
            self.scanned = len(buffer) - start
        return head

    def _skip_blank_lines(self) -> int:
        """Skip a few empty lines in front of a request line (RFC 9112 section 2.2).

        Returns:
            Where the request line begins; -1 if the buffer has nothing of it yet. A CR alone may begin an empty line.
        """
        buffer = self.buffer
        start = self.position
        while buffer.startswith(b"\r\n", start) and self._blank_lines < _BLANK_LINES_MAX:
            start += 2
            self._blank_lines += 1
        left = len(buffer) - start
        if not left:
            self.buffer = b""
            start = 0
        self.position = start
        if left and (left > 1 or buffer[start] != _CR or self._blank_lines == _BLANK_LINES_MAX):
            return start
        return -1

    def expect_content(self, length: int | None, limit: int | None = None) -> FixedDecoder | ChunkedDecoder:
        """Expect the content of the request whose head was read.

        Args:
            length: Bytes of content; None for chunked content.
            limit: Most bytes of chunked content; None for no limit.

        Returns:
            The content's decoder. It is also the attribute ``decoder``.
        """
        if length is None:
            self.decoder = ChunkedDecoder(self._limits, _NO_LIMIT if limit is None else limit)
        else:
            self.decoder = FixedDecoder(length)
        return self.decoder

    def next_content(self, most: int) -> bytes | None:
        """Return up to *most* bytes of content.

        Returns:
            Content; ``b""`` if only framing was read; None if more bytes have to be received first.

        Raises:
            RemoteProtocolError: The framing is malformed, or a limit is exceeded.
        """
        buffer = self.buffer
        decoder = self.decoder
        assert decoder is not None, "no content is expected"
        start = self.position
        data, position = decoder.take(buffer, start, most)
        if position == start:
            return None
        if position == len(buffer):
            self.buffer = b""
            position = 0
        self.position = position
        return data

    def begins_with(self, octets: bytes) -> bool:
        """Tell whether the unread bytes begin with *octets*."""
        return self.buffer.startswith(octets, self.position)

    def take_rest(self) -> bytes:
        """Return the unread bytes, and remove them from the buffer."""
        rest = bytes(memoryview(self.buffer)[self.position :])
        self.clear()
        return rest

    def clear(self) -> None:
        """Drop the unread bytes, and expect no content."""
        self.buffer = b""
        self.position = self.scanned = self._blank_lines = 0
        self.decoder = None

    def on_idle(self) -> None:
        """Drop the last head, which is only kept so that the next one is read faster."""
        self._previous = None
        self._previous_wire = b""
