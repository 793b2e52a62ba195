"""Tornado's interfaces between server, application and connection.

They promise an order of calls. This module has no implementation.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from bridge.core.tornado.startline import RequestStartLine, ResponseStartLine

if TYPE_CHECKING:
    from bridge.core.tornado.headers import HTTPHeaders

__all__ = ["HTTPConnection", "HTTPMessageDelegate", "HTTPServerConnectionDelegate"]


class HTTPServerConnectionDelegate:
    """Takes the requests of a server. An application implements it, or is wrapped in an object that does.

    The server recognises it by its method ``start_request``. It does not have to derive from this class.
    """

    def start_request(self, server_conn: object, request_conn: HTTPConnection) -> HTTPMessageDelegate:
        """Return the delegate that receives one request.

        Called once for each exchange when its header section is complete, before all other calls.

        Args:
            server_conn: The TCP connection; the same object for all its exchanges.
            request_conn: The exchange's connection, to which the response is written.
        """
        raise NotImplementedError

    def on_close(self, server_conn: object) -> None:
        """Take note that a TCP connection has ended.

        Args:
            server_conn: The argument of :meth:`start_request`. There are no more calls for it.
        """


class HTTPMessageDelegate:
    """Receives one message, in this order of calls, all on the event loop's thread.

    1. :meth:`headers_received`;
    2. :meth:`data_received`, any number of times;
    3. exactly one of :meth:`finish` and :meth:`on_connection_close`.

    Calls 1 and 2 may return an awaitable; then no more content is read until it is done. An ``HTTPInputError`` from
    any call, or from its awaitable, refuses the message with 400 (Bad Request).
    """

    def headers_received(
        self, start_line: RequestStartLine | ResponseStartLine, headers: HTTPHeaders
    ) -> Awaitable[None] | None:
        """Take the start line and the header section.

        The connection's ``set_max_body_size``, ``set_body_timeout`` and ``detach`` may be called here.

        Args:
            start_line: A RequestStartLine in a server, a ResponseStartLine in a client.
            headers: All fields of the header section.
        """
        return None

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        """Take content.

        Args:
            chunk: At least one byte and at most the server's ``chunk_size``. Transfer codings are undone.
        """
        return None

    def finish(self) -> None:
        """Take note that the whole message was received."""

    def on_connection_close(self) -> None:
        """Take note that the message cannot be received in full, or that its response was complete before it."""


class HTTPConnection:
    """Writes the response to one request.

    The *callback* arguments are older than futures. A callback is called when the written bytes are flushed.
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
            headers: The header section. The connection may change it.
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
        """End the message: everything was written."""
        raise NotImplementedError
