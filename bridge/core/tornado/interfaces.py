"""The interfaces between the server, the application and the connection.

They promise an order of calls; nothing here does any work.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from bridge.core.tornado.startline import RequestStartLine, ResponseStartLine

if TYPE_CHECKING:
    from bridge.core.tornado.headers import HTTPHeaders

__all__ = ["HTTPConnection", "HTTPMessageDelegate", "HTTPServerConnectionDelegate"]


class HTTPServerConnectionDelegate:
    """Takes the requests of a server; what an application implements, or is wrapped in.

    The server recognises it by its method ``start_request``; deriving from this class is not required.
    """

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        """Return the delegate that receives one request.

        Called once per exchange, when its header section is complete and before anything else is called.

        Args:
            server_conn: Stands for the TCP connection; the same object for all its exchanges.
            request_conn: Writes this exchange's response.
        """
        raise NotImplementedError

    def on_close(self, server_conn: object) -> None:
        """The TCP connection has ended.

        Args:
            server_conn: As given to :meth:`start_request`; nothing more is called for it.
        """


class HTTPMessageDelegate:
    """Receives one message, in this order of calls, all on the event loop's thread.

    1. :meth:`headers_received`;
    2. :meth:`data_received`, any number of times;
    3. exactly one of :meth:`finish` and :meth:`on_connection_close`.

    The calls of 1 and 2 may return an awaitable; then no further content is read until it is done. An
    ``HTTPInputError`` from any of them, or from its awaitable, refuses the message with 400 (Bad Request).
    """

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        """The header section is complete.

        The connection's ``set_max_body_size``, ``set_body_timeout`` and ``detach`` may be called here.

        Args:
            start_line: A RequestStartLine in a server, a ResponseStartLine in a client.
            headers: All fields of the header section.
        """
        return None

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """Some content has arrived.

        Args:
            chunk: At least one byte and at most the server's ``chunk_size``; any transfer coding is undone.
        """
        return None

    def finish(self) -> None:
        """The whole message was received."""

    def on_connection_close(self) -> None:
        """The message cannot be received in full, or its response was finished before that."""


class HTTPConnection:
    """Writes the response to one request.

    The *callback* arguments come from the time before futures; a callback runs when what was written is flushed.
    """

    def write_headers(
        self,
        start_line: RequestStartLine | ResponseStartLine,
        headers: HTTPHeaders,
        chunk: bytes | None = None,
        callback: Callable[[], object] | None = None,
    ) -> Awaitable[None]:
        """Write a start line and a header section.

        Args:
            start_line: Its ``version`` is ignored.
            headers: The header section; may be changed by the connection.
            chunk: The first content, sent together with the header section.
            callback: Called when everything is flushed.

        Returns:
            An awaitable that is done when more may be written.
        """
        raise NotImplementedError

    def write(self, chunk: bytes, callback: Callable[[], object] | None = None) -> Awaitable[None]:
        """Write content.

        Returns:
            An awaitable that is done when more may be written.
        """
        raise NotImplementedError

    def finish(self) -> None:
        """Everything was written."""
        raise NotImplementedError
