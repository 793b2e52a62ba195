"""HTTP1ConnectionParameters: Tornado's documented names for a connection's limits."""

from __future__ import annotations

from bridge.core.connection.parameters import ConnectionParameters
from bridge.core.http.limits import Limits

__all__ = ["HTTP1ConnectionParameters", "head_limits"]

_HEAD_SIZE = 65536


def head_limits(size: int | None) -> Limits:
    """Return the limits of a head of at most *size* bytes; None or 0 stands for 65536.

    Whoever asks for another size means long lines, such as large cookies: all of it may be one. By default a line has
    8190 bytes.
    """
    if not size or size == _HEAD_SIZE:
        return Limits(head=_HEAD_SIZE)
    return Limits(request_line=size, field_line=size, head=size)


class HTTP1ConnectionParameters:
    """Limits and times of an HTTP1Connection.

    Args:
        no_keep_alive: Close after every response.
        chunk_size: Most content (bytes) handed to a delegate at once; 65536.
        max_header_size: Bytes of a message head; 65536, of which a line may have 8190. Any other size holds for a
            single line, too.
        header_timeout: Seconds in which a head must arrive; None for no limit.
        max_body_size: Bytes of one message's content; None for no limit.
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
        """Return what *params*, a server's, say in these words."""
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
        """Return what a server's connection works with."""
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
