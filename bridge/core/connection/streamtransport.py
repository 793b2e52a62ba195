"""An asyncio transport on one stream of HTTP/2, for a protocol that an extended CONNECT has opened (RFC 8441).

The end of the stream stands for TCP's FIN, RST_STREAM with CANCEL for its RST (section 5). Other streams of the
connection go on.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from bridge.core.connection.interfaces import NULL_DELEGATE
from bridge.errors import LocalProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from bridge.core.connection.http2exchange import HTTP2Exchange

__all__ = ["StreamTransport"]


class StreamTransport(asyncio.Transport):
    """Reads and writes one stream. It is the exchange's delegate: it gets the content, and passes it to the protocol.

    Made by :meth:`take`.
    """

    def __init__(self, exchange: HTTP2Exchange, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._exchange = exchange
        self._protocol = protocol
        self._closing = False
        self._lost = False
        self._write_ended = False
        self._write_paused = False
        self._reading = True

    @classmethod
    def take(
        cls, exchange: HTTP2Exchange, protocol: asyncio.Protocol
    ) -> tuple[StreamTransport, bytes, Callable[[], None]]:
        """Let *protocol* read and write the stream of *exchange* from now on.

        Returns:
            Its transport; the bytes that have come; a function to call when the transport is gone, which does nothing.

        Raises:
            LocalProtocolError: The stream was not opened by an extended CONNECT, or that was not accepted.
        """
        content = exchange.content
        if content is None or not exchange.head.upgrade or not 200 <= exchange.status < 300:
            raise LocalProtocolError("only a stream that an accepted CONNECT has opened belongs to another protocol")
        transport = cls(exchange, protocol)
        exchange.delegate = transport
        rest = content.open_tunnel()
        return transport, rest, _nothing

    # ------------------------------------------------------------------ the exchange's delegate

    def data_received(self, chunk: bytes) -> None:
        """Pass on what the peer sent."""
        if not self._closing:
            self._protocol.data_received(chunk)

    def finish(self) -> None:
        """Pass on the end of what the peer sends."""
        if not self._closing and not self._protocol.eof_received():
            self.close()

    def on_connection_close(self) -> None:
        """Pass on that the stream has ended."""
        self._lose()

    def on_peer_eof(self) -> None:
        """Pass on that the peer sends nothing more."""
        self.finish()

    def _lose(self) -> None:
        self._closing = True
        if not self._lost:
            self._lost = True
            self._exchange.loop.call_soon(self._protocol.connection_lost, None)

    # ------------------------------------------------------------------ reading

    def is_reading(self) -> bool:
        """Return whether the protocol gets what comes."""
        return self._reading and not self._closing

    def pause_reading(self) -> None:
        """Pass nothing on; the peer is slowed down by the stream's window."""
        self._reading = False
        self._exchange.pause_reading()

    def resume_reading(self) -> None:
        """Pass on what has come and what comes."""
        if not self._reading:
            self._reading = True
            # In the next turn of the loop: a protocol does not expect data before this call returns.
            self._exchange.loop.call_soon(self._resume)

    def _resume(self) -> None:
        if self._reading:
            self._exchange.resume_reading()

    # ------------------------------------------------------------------ writing

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send bytes, or keep them until the peer opens its window."""
        if self._closing or self._write_ended or not data:
            return
        exchange = self._exchange
        exchange.send_through(bytes(data), False)
        if not self._write_paused and exchange.write_paused:
            self._write_paused = True
            self._protocol.pause_writing()
            exchange.writable().add_done_callback(self._resume_writing)

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview]) -> None:
        """Send several pieces in a row."""
        self.write(b"".join(list_of_data))

    def _resume_writing(self, done: asyncio.Future[None]) -> None:
        self._write_paused = False
        if not done.cancelled() and done.exception() is None and not self._lost:
            self._protocol.resume_writing()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Do nothing: the limits are those of all streams of the connection."""

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait for the peer's window, or for their turn."""
        outbox = self._exchange.outbox
        return 0 if outbox is None else outbox.unsent

    def can_write_eof(self) -> bool:
        """Return True: the stream can end in one direction."""
        return True

    def write_eof(self) -> None:
        """End the stream behind what was written; the peer may send on."""
        if not self._write_ended and not self._closing:
            self._write_ended = True
            self._exchange.send_through(b"", True)

    # ------------------------------------------------------------------ the end

    def is_closing(self) -> bool:
        """Return whether the transport is closed or is closing."""
        return self._closing or self._exchange.peer_gone

    def close(self) -> None:
        """End the stream behind what was written, and take nothing more."""
        if self._closing:
            return
        exchange = self._exchange
        exchange.delegate = NULL_DELEGATE
        if not self._write_ended:
            self._write_ended = True
            exchange.send_through(b"", True)
        elif exchange.over:
            exchange.sent()
        self._lose()

    def abort(self) -> None:
        """Reset the stream."""
        self._closing = True
        self._exchange.abort()
        self._lose()

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Pass everything to another protocol from now on."""
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol."""
        return self._protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what is known of the connection, except its socket: that is not the stream's alone."""
        if name == "socket":
            return default
        transport = self._exchange.connection.transport
        return default if transport is None else transport.get_extra_info(name, default)


def _nothing() -> None:
    """Do nothing: the connection goes on when the transport of a stream is gone."""
