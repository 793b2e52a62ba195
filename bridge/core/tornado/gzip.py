"""Message content in the gzip coding, decoded on its way to a delegate (RFC 9110 section 8.4.1.3).

The input is taken in slices and the output given out in pieces of at most ``chunk_size`` bytes, one at a time, so that
a small message cannot become a large one in memory; all pieces together are held against a limit.
"""

from __future__ import annotations

import zlib
from collections.abc import Awaitable, Iterator
from typing import TYPE_CHECKING, Any

from bridge.core.tornado.headers import HTTPHeaders
from bridge.core.tornado.startline import HTTPInputError
from bridge.errors import LimitExceeded

if TYPE_CHECKING:
    from bridge.core.connection.http1exchange import HTTP1Exchange
    from bridge.core.tornado.exchange import TornadoExchange

__all__ = ["GzipDecoder", "GzipDelegate", "decoded_headers", "for_exchange", "is_gzip"]

_GZIP_ONLY = 16 + zlib.MAX_WBITS


def is_gzip(headers: Any) -> bool:
    """Tell whether the header section says that the content is in the gzip coding, and in no other."""
    return str(headers.get("Content-Encoding", "")).lower() == "gzip"


def decoded_headers(headers: HTTPHeaders) -> HTTPHeaders:
    """Return a copy in which Content-Encoding has become X-Consumed-Content-Encoding."""
    changed = headers.copy()
    changed["X-Consumed-Content-Encoding"] = changed.pop("Content-Encoding")
    return changed


class GzipDecoder:
    """Decodes gzip content piece by piece; several members in a row are one content (RFC 1952 section 2.2).

    Args:
        chunk_size: Most bytes in a piece.
        limit: Most bytes in all pieces; None for no limit.
    """

    __slots__ = ("_chunk_size", "_decoder", "_total", "limit")

    def __init__(self, chunk_size: int, limit: int | None) -> None:
        self._chunk_size = chunk_size
        self.limit = limit
        self._total = 0
        self._decoder = zlib.decompressobj(_GZIP_ONLY)

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Yield what *data* decodes to.

        Raises:
            HTTPInputError: 400; it is not gzip.
            LimitExceeded: 413; all pieces are more than the limit.
        """
        more = bool(data)
        while more:
            if self._decoder.eof:
                self._decoder = zlib.decompressobj(_GZIP_ONLY)  # the next member
            try:
                piece = self._decoder.decompress(data, self._chunk_size)
            except zlib.error as exc:
                raise HTTPInputError(f"invalid gzip data: {exc}") from None
            decoder = self._decoder
            data = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
            # A full piece may have left output in the decoder although all input was taken.
            more = bool(data) or (len(piece) == self._chunk_size and not decoder.eof)
            if piece:
                self._total += len(piece)
                if self.limit is not None and self._total > self.limit:
                    raise LimitExceeded(
                        413, f"decompressed body too large: more than {self._total - 1} bytes, limit {self.limit}"
                    )
                yield piece

    def finish(self) -> None:
        """Check that the content is complete.

        Raises:
            HTTPInputError: 400; the last member is not.
        """
        if not self._decoder.eof:
            raise HTTPInputError("invalid gzip data: it is not complete")


class GzipDelegate:
    """Stands between a message's content and the delegate that gets it decoded."""

    __slots__ = ("_decoder", "_ended", "_exchange", "_message", "_started")

    def __init__(self, message: Any, decoder: GzipDecoder, exchange: HTTP1Exchange | None = None) -> None:
        self._message = message
        self._decoder = decoder
        self._exchange = exchange
        self._started = False
        self._ended = False

    def headers_received(self, start_line: Any, headers: Any) -> Awaitable[None] | None:
        """Pass on the header section."""
        waiting: Awaitable[None] | None = self._message.headers_received(start_line, headers)
        return waiting

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """Decode content, and give it to the delegate as fast as that takes it."""
        exchange = self._exchange
        if exchange is not None and exchange.max_body_size is not None:
            self._decoder.limit = exchange.max_body_size
        self._started = True
        return self._give(self._decoder.pieces(chunk))

    def _give(self, pieces: Iterator[bytes]) -> Awaitable[None] | None:
        for piece in pieces:
            waiting = self._message.data_received(piece)
            if waiting is not None:
                return self._give_after(waiting, pieces)
        return None

    async def _give_after(self, waiting: Awaitable[None], pieces: Iterator[bytes]) -> None:
        await waiting
        for piece in pieces:
            waiting = self._message.data_received(piece)
            if waiting is not None:
                await waiting

    def finish(self) -> None:
        """The content is complete, unless the last member is not."""
        if self._started:
            try:
                self._decoder.finish()
            except HTTPInputError:
                self.on_connection_close()  # which a server will not call: to it the request is complete
                raise
        self._message.finish()

    def on_connection_close(self) -> None:
        """Pass on the end, once."""
        if not self._ended:
            self._ended = True
            self._message.on_connection_close()


def for_exchange(message: Any, connection: TornadoExchange) -> GzipDelegate:
    """Return what decodes the content of *connection*'s request for *message*."""
    params = connection.server_connection.params
    return GzipDelegate(message, GzipDecoder(params.chunk_size, params.max_body_size), connection.exchange)
