"""HTTP1ConnectionParameters: Tornado's documented names for a connection's limits."""

from __future__ import annotations

from bridge.core.connection.parameters import ConnectionParameters
from bridge.core.http.limits import Limits

__all__ = ["HTTP1ConnectionParameters", "head_limits"]

_HEAD_SIZE = 65536


def head_limits(size: int | None) -> Limits:
    """Return the limits of a head.

    Args:
        size: Most bytes of the head; None or 0 for 65536, of which a line may have 8190. A program that sets another
            size usually expects long lines, such as large cookies: then a single line may have all of it.
    """
    if not size or size == _HEAD_SIZE:
        return Limits(head=_HEAD_SIZE)
    return Limits(request_line=size, field_line=size, head=size)


class HTTP1ConnectionParameters:
    """Limits and times of an HTTP1Connection.

    Args:
        no_keep_alive: Close after every response.
        chunk_size: Most content (bytes) handed to a delegate at once; 65536.
        max_header_size: Most bytes of a message head; 65536, of which a line may have 8190. Any other size also is the
            limit of a single line.
        header_timeout: Seconds in which a head has to arrive; None for no limit.
        max_body_size: Most bytes of one message's content; None for the stream's ``max_buffer_size``.
        body_timeout: Seconds for one message's whole content; None for no limit.
        decompress: Decode gzip content.
    """

    def __init__(
        self,
        no_keep_alive: bool = False,
        chunk_size: int | None = None,
        max_header_size: int | None = None,
        header_timeout: float | None = None,
        max_body_size: int | None = None,
        body_timeout: float | None = None,
        decompress: bool = False,
    ) -> None:
        self.no_keep_alive = no_keep_alive
        self.chunk_size = chunk_size or 65536
        self.max_header_size = max_header_size or _HEAD_SIZE
        self.header_timeout = header_timeout
        self.max_body_size = max_body_size
        self.body_timeout = body_timeout
        self.decompress = decompress

    @classmethod
    def of(cls, params: ConnectionParameters, *, decompress: bool = False) -> HTTP1ConnectionParameters:
        """Return the parameters *params* of a server under Tornado's names."""
        return cls(
            no_keep_alive=params.no_keep_alive,
            chunk_size=params.chunk_size,
            max_header_size=params.limits.head,
            header_timeout=params.head_timeout,
            max_body_size=params.max_body_size,
            body_timeout=params.body_total_timeout,
            decompress=decompress,
        )

    def for_server(self) -> ConnectionParameters:
        """Return the parameters for a ServerConnection."""
        return ConnectionParameters(
            limits=head_limits(self.max_header_size),
            no_keep_alive=self.no_keep_alive,
            chunk_size=self.chunk_size,
            max_body_size=self.max_body_size,
            head_timeout=self.header_timeout,
            keep_alive_timeout=self.header_timeout,
            body_total_timeout=self.body_timeout,
            limit_after_start=True,
        )
