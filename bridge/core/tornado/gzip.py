"""Decodes message content in the gzip coding on its way to a delegate (RFC 9110 section 8.4.1.3).

Decoded content is handed over in pieces of at most ``chunk_size`` bytes, one at a time, so a small message cannot
become a large one in memory. The sum of all pieces has a limit.
"""

from __future__ import annotations

import asyncio
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
# Pieces passed on before the loop serves others: 1 MiB of content with the usual size of pieces. As little as 1 KiB of
# gzip decodes to that much; 64 KiB of gzip took 160 ms without a pause.
_PIECES_PER_TURN = 16


def is_gzip(headers: Any) -> bool:
    """Tell whether the only content coding that the header section names is gzip."""
    return str(headers.get("Content-Encoding", "")).lower() == "gzip"


def decoded_headers(headers: HTTPHeaders) -> HTTPHeaders:
    """Return a copy in which Content-Encoding is renamed to X-Consumed-Content-Encoding, as in Tornado."""
    changed = headers.copy()
    changed["X-Consumed-Content-Encoding"] = changed.pop("Content-Encoding")
    return changed


class GzipDecoder:
    """Decodes gzip content piece by piece. Content may have several members in a row (RFC 1952 section 2.2).

    Args:
        chunk_size: Most bytes of a piece.
        limit: Most bytes of all pieces together; None for no limit.

    Attributes:
        limit: The argument; may be changed.
    """

    __slots__ = ("_chunk_size", "_decoder", "_total", "limit")

    def __init__(self, chunk_size: int, limit: int | None) -> None:
        self._chunk_size = chunk_size
        self.limit = limit
        self._total = 0
        self._decoder = zlib.decompressobj(_GZIP_ONLY)

    def pieces(self, data: bytes) -> Iterator[bytes]:
        """Yield the pieces to which *data* decodes, and an empty one for each member that has no content.

        Raises:
            HTTPInputError: 400; *data* is not gzip.
            LimitExceeded: 413; all pieces together exceed the limit.
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
            # After a full piece the decoder may still have output, although it has taken all input.
            more = bool(data) or (len(piece) == self._chunk_size and not decoder.eof)
            self._total += len(piece)
            if self.limit is not None and self._total > self.limit:
                raise LimitExceeded(
                    413, f"decompressed body too large: more than {self._total - 1} bytes, limit {self.limit}"
                )
            yield piece

    def finish(self) -> None:
        """Check that the content is complete.

        Raises:
            HTTPInputError: 400; the last member is incomplete.
        """
        if not self._decoder.eof:
            raise HTTPInputError("invalid gzip data: it is not complete")


class GzipDelegate:
    """A message delegate that decodes content and passes it to another one.

    Args:
        message: The other delegate.
        decoder: Decodes the content.
        exchange: The exchange, whose ``max_body_size`` may set the limit; None in a client.
    """

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
        """Decode content and pass it on, one piece after the other, as the delegate is ready for them."""
        exchange = self._exchange
        if exchange is not None and exchange.max_body_size is not None:
            self._decoder.limit = exchange.max_body_size
        self._started = True
        return self._give(self._decoder.pieces(chunk))

    def _give(self, pieces: Iterator[bytes]) -> Awaitable[None] | None:
        for number, piece in enumerate(pieces, 1):
            waiting = self._message.data_received(piece) if piece else None
            if waiting is not None or number == _PIECES_PER_TURN:
                return self._give_after(waiting, pieces)
        return None

    async def _give_after(self, waiting: Awaitable[None] | None, pieces: Iterator[bytes]) -> None:
        if waiting is not None:
            await waiting
        for number, piece in enumerate(pieces):
            if number % _PIECES_PER_TURN == 0:
                await asyncio.sleep(0)
            waiting = self._message.data_received(piece) if piece else None
            if waiting is not None:
                await waiting

    def finish(self) -> None:
        """Pass on the end of the content.

        Raises:
            HTTPInputError: 400; the last member is incomplete.
        """
        if self._started:
            try:
                self._decoder.finish()
            except HTTPInputError:
                self.on_connection_close()  # the server does not call it: it has read the whole request
                raise
        self._message.finish()

    def on_connection_close(self) -> None:
        """Pass on the end, once."""
        if not self._ended:
            self._ended = True
            self._message.on_connection_close()


def for_exchange(message: Any, connection: TornadoExchange) -> GzipDelegate:
    """Return a delegate that decodes the content of *connection*'s request for the delegate *message*."""
    params = connection.server_connection.params
    return GzipDelegate(message, GzipDecoder(params.chunk_size, params.max_body_size), connection.exchange)
