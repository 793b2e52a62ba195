"""HTTP1Connection: the documented name that a server's exchange and a client's connection have in common."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, Self, cast

from bridge.core.tornado.interfaces import HTTPConnection

if TYPE_CHECKING:
    from bridge.core.iostream import IOStream
    from bridge.core.tornado.parameters import HTTP1ConnectionParameters

__all__ = ["HTTP1Connection"]


class HTTP1Connection(HTTPConnection):
    """An HTTP/1.x connection: in a server one exchange on it, made by the server; in a client the connection itself.

    Args:
        stream: An IOStream, connected or connecting.
        is_client: True. A server's are made by HTTP1ServerConnection.
        params: Limits and times; None for the defaults.
        context: Whatever the application wants to find in ``context``.

    Raises:
        ValueError: *is_client* is false.

    Attributes:
        is_client: Which of the two this is.
        params: Limits and times.
        context: In a server, the two ends (ConnectionContext).
        no_keep_alive: The connection is closed after one message.
    """

    is_client: bool
    params: Any
    context: Any
    no_keep_alive: Any

    def __new__(  # noqa: D102 -- the class says it
        cls,
        stream: IOStream,
        is_client: bool,
        params: HTTP1ConnectionParameters | None = None,
        context: object | None = None,
    ) -> Self:
        if not is_client:
            raise ValueError("is_client=False: HTTP1ServerConnection(stream, params, context) makes a server's side")
        from bridge.core.tornado.client import ClientConnection

        return cast("Self", object.__new__(ClientConnection if cls is HTTP1Connection else cls))

    @property
    def stream(self) -> IOStream | None:
        """The stream; None after :meth:`detach`."""
        raise NotImplementedError

    def read_response(self, delegate: Any) -> Awaitable[bool]:
        """Read one response; clients only.

        Raises:
            AssertionError: This is a server's.
        """
        raise AssertionError("a server's connection reads no response")

    def set_close_callback(self, callback: Any) -> None:
        """Call *callback* once when the peer leaves before the exchange is finished."""
        raise NotImplementedError

    def detach(self) -> IOStream:
        """Give up the stream for good, and return it."""
        raise NotImplementedError

    def set_body_timeout(self, timeout: float | None) -> None:
        """Let this message's whole content be due in *timeout* seconds."""
        raise NotImplementedError

    def set_max_body_size(self, max_body_size: int | None) -> None:
        """Take at most *max_body_size* bytes of content in this message."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the stream."""
        raise NotImplementedError
