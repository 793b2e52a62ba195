"""One exchange of a server under Tornado's documented names: the HTTP1Connection that delegates and requests get."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from bridge.core.connection.http1exchange import Exchange
from bridge.core.connection.interfaces import NULL_DELEGATE
from bridge.core.connection.states import CLOSED, CONTENT, DONE, HEAD
from bridge.core.http1.encoder import KnownHeads, ResponseHead
from bridge.core.stream.errors import closed_error
from bridge.core.tornado.headers import HTTPHeaders
from bridge.core.tornado.http1interface import HTTP1Connection
from bridge.core.tornado.parameters import HTTP1ConnectionParameters
from bridge.core.tornado.startline import HTTPOutputError
from bridge.errors import ConnectionGone, LocalProtocolError

if TYPE_CHECKING:
    from bridge.core.connection.interfaces import ExchangeDelegate
    from bridge.core.http1connection import HTTP1ServerConnection
    from bridge.core.iostream import IOStream

__all__ = ["IllegalFieldError", "ServedConnection", "text_fields"]

_UNTIL_CLOSE = -3
_DIGITS = r"[0-9]+"

# What a response that the application frames itself says about its status and about the connection.
_RAW_STATUS = rb"HTTP/1\.[01] ([1-9][0-9]{2})[ \r]"
_RAW_CLOSE = rb"(?i)\r\nconnection:[ \t]*(?:[^\r\n]*,[ \t]*)?close[ \t]*[,\r]"

_known_heads = KnownHeads(text=True)
_known_head = _known_heads.get


class IllegalFieldError(HTTPOutputError, ValueError):
    """A response's status, reason or field cannot be sent; nothing was."""


def text_fields(headers: Any) -> Iterable[tuple[str, str]]:
    """Return the field lines of *headers*, which is an HTTPHeaders of ours, has ``get_all``, or is a mapping."""
    if headers.__class__ is HTTPHeaders:
        return headers.pairs()
    get_all = getattr(headers, "get_all", None)
    fields: Iterable[tuple[str, str]] = headers.items() if get_all is None else get_all()
    return fields


class ServedConnection(Exchange, HTTP1Connection):
    """Writes one response, and tells of its peer.

    Attributes:
        is_client: False.
    """

    __slots__ = ("_close_callback", "_detached", "_tornado")

    __new__ = object.__new__  # type: ignore[assignment]  # HTTP1Connection's is for users, and costs a call
    is_client = False
    server_connection: HTTP1ServerConnection
    _close_callback: Callable[[], object] | None
    _detached: bool

    # ------------------------------------------------------------------ what it is

    @property
    def stream(self) -> IOStream | None:
        """A stream that stands for the TCP connection: write to it, close it; None after :meth:`detach`."""
        return self.server_connection.stream

    @property
    def detached(self) -> bool:
        """The connection was given up by :meth:`detach`."""
        return getattr(self, "_detached", False)

    @property
    def params(self) -> HTTP1ConnectionParameters:
        """The limits and times of the connection."""
        return HTTP1ConnectionParameters.of(self.server_connection.params)

    @property
    def no_keep_alive(self) -> bool:
        """The connection is closed after every response."""
        return self.server_connection.params.no_keep_alive

    # ------------------------------------------------------------------ the response

    def write_headers(
        self,
        start_line: Any,
        headers: Any,
        chunk: bytes | None = None,
        callback: Callable[[], object] | None = None,
    ) -> Awaitable[None]:
        """Write the head of the response, and with it the first content.

        Args:
            start_line: A ResponseStartLine or another sequence of version, status code and reason; the version is
                ignored, the reason may be None.
            headers: HTTPHeaders, Tornado's or ours, or another mapping.
            chunk: Content.
            callback: Called when everything is flushed.

        Returns:
            An awaitable that is done when more may be written; it fails with StreamClosedError if the peer left.

        Raises:
            HTTPOutputError: The head was sent before, or there is more content than Content-Length says.
            ValueError: The status, the reason or a field is illegal.
        """
        _, status, reason = start_line
        if self.writing is not HEAD:
            if self.writing is CLOSED:
                return self._closed()
            raise HTTPOutputError("the response head was sent already")
        if status < 200:
            if status != 101:
                return self._write_interim(status, headers, callback)
            try:
                self._check_upgrade()
            except LocalProtocolError as exc:
                raise HTTPOutputError(str(exc)) from exc
        # From here on as respond() and send(), which would cost three calls more.
        fields = headers.pairs() if headers.__class__ is HTTPHeaders else text_fields(headers)
        key = (status, reason, *fields)
        try:
            response = _known_head(key)
        except TypeError:  # a value is a list
            response = None
        if response is None:
            response = self._check_head(key, headers)
        self.response = response
        self.status = status
        if chunk is None:
            chunk = b""
        elif 0 <= response.length < len(chunk) and self._has_content():
            self.close()
            raise HTTPOutputError("Tried to write more data than Content-Length")
        self._send_first(response, chunk, False)
        connection = self.server_connection
        if callback is None and not connection.write_paused:
            return connection.flushed_now
        return self._flushed(callback)

    def write(self, chunk: bytes | str, callback: Callable[[], object] | None = None) -> Awaitable[None]:
        """Write content; without :meth:`write_headers` before, exactly these bytes.

        Args:
            chunk: Text is sent in UTF-8.
            callback: Called when everything is flushed.

        Returns:
            As :meth:`write_headers`.

        Raises:
            HTTPOutputError: There is more content than Content-Length says, or the response had ended.
        """
        data = chunk.encode() if isinstance(chunk, str) else chunk
        if self.response is None:
            if self.writing is CLOSED:
                return self._closed()
            self._write_raw(data)
            return self._flushed(callback)
        try:
            self.send(data)
        except ConnectionGone:
            return self._closed()
        except LocalProtocolError as exc:
            if self.response.length >= 0:
                raise HTTPOutputError("Tried to write more data than Content-Length") from exc
            raise HTTPOutputError(str(exc)) from exc
        return self._flushed(callback)

    def finish(self) -> None:
        """End the response.

        Raises:
            HTTPOutputError: Nothing was written, or less than Content-Length says.
        """
        self._close_callback = None
        writing = self.writing
        if writing is CONTENT:
            length = self._length
            if self.response is None or length == self.content_sent:
                self.writing = DONE
                self.server_connection.response_done(self)
                return
            try:
                self.send(b"", True)
            except LocalProtocolError as exc:
                raise HTTPOutputError(
                    f"Tried to write {length - self.content_sent} bytes less than Content-Length"
                ) from exc
        elif writing is HEAD:
            self.fail()
            raise HTTPOutputError("finish() before anything was written")

    def close(self) -> None:
        """Close the TCP connection; what was written is still sent."""
        self.server_connection.cut(clean=True)

    def _check_head(self, key: tuple[Any, ...], headers: Any) -> ResponseHead:
        try:
            return _known_heads.add(*key)
        except (TypeError, ValueError, LocalProtocolError) as exc:
            if "Content-Length" in headers and not re.fullmatch(_DIGITS, headers["Content-Length"]):
                self.close()  # as where content and length differ: what follows could not be framed
            raise IllegalFieldError(str(exc)) from exc

    def _has_content(self) -> bool:
        return self.head.method != b"HEAD" and self.status not in {101, 204, 304}

    def _write_interim(self, status: int, headers: Any, callback: Callable[[], object] | None) -> Awaitable[None]:
        if status == 100:
            self.send_continue()
        else:
            fields = text_fields(headers)
            try:
                self.inform(int(status), [(name.encode("latin-1"), value.encode("latin-1")) for name, value in fields])
            except (LocalProtocolError, UnicodeEncodeError) as exc:
                raise IllegalFieldError(str(exc)) from exc
        return self._flushed(callback)

    def _write_raw(self, data: bytes) -> None:
        """Send bytes of a response that the application frames itself."""
        if self.writing is HEAD:
            self.writing = CONTENT
            self._length = _UNTIL_CLOSE
            match = re.match(_RAW_STATUS, data)
            if match is not None:
                self.status = int(match[1])
            if b"lose" in data or b"LOSE" in data:
                head = data[: data.find(b"\r\n\r\n") + 2]
                self.close_after = self.close_after or re.search(_RAW_CLOSE, head) is not None
        elif self.writing is not CONTENT:
            raise HTTPOutputError("content after the end of the response")
        self.server_connection.write(data)
        self.content_sent += len(data)

    def _flushed(self, callback: Callable[[], object] | None) -> Awaitable[None]:
        future: asyncio.Future[None] = self.server_connection.flushed()
        if callback is not None:
            future.add_done_callback(lambda done: callback() if done.exception() is None else None)
        return future

    def _closed(self) -> Awaitable[None]:
        future: asyncio.Future[None] = self.server_connection.loop.create_future()
        future.set_exception(closed_error())
        future.exception()  # whoever does not look at it is told of the close otherwise
        return future

    # ------------------------------------------------------------------ the request

    def set_body_timeout(self, timeout: float | None) -> None:
        """Let this request's whole content be due in *timeout* seconds."""
        if self.server_connection.exchange is self:
            self.server_connection.set_body_timeout(timeout)

    def set_max_body_size(self, max_body_size: int | None) -> None:
        """Take at most *max_body_size* bytes of content in this request."""
        self.max_body_size = max_body_size

    # ------------------------------------------------------------------ the peer

    def set_close_callback(self, callback: Callable[[], object] | None) -> None:
        """Call *callback* once if the peer leaves after the request was read and before :meth:`finish`.

        Args:
            callback: None for nothing.
        """
        self._close_callback = callback

    def detach(self) -> IOStream:
        """Give up the connection for good, with what was received and not read; return its stream.

        No delegate is told of anything that happens afterwards.

        Raises:
            StreamClosedError: The peer left.
        """
        self._close_callback = None
        self.delegate = NULL_DELEGATE
        self._detached = True
        stream: IOStream = self.server_connection.detach()
        return stream

    # ------------------------------------------------------------------ called by the adapter and the connection

    def speak_for(self, delegate: Any) -> None:
        """Let *delegate*, a message delegate of Tornado's kind, take the request."""
        self.delegate = delegate
        self._tornado = True

    def tell_closed(self, delegate: ExchangeDelegate) -> None:
        """Tell the delegate, or who has set a close callback, that the exchange has ended early."""
        early = self.writing is DONE and self.status != 101  # after which the whole request had been read
        if early or self.server_connection.reads_content or not getattr(self, "_tornado", False):
            delegate.on_connection_close()
        else:
            self._run_close_callback()

    def tell_eof(self) -> None:
        """Tell of a peer that sends nothing more: most have left, though the response is still sent."""
        if getattr(self, "_tornado", False):
            self.server_connection.end_soon()
            self._run_close_callback()
        else:
            self.delegate.on_peer_eof()

    def _run_close_callback(self) -> None:
        callback = getattr(self, "_close_callback", None)
        if callback is not None:
            self._close_callback = None
            callback()
