"""A WebSocket connection on the loop (RFC 6455): the asyncio protocol that takes over after the handshake.

It feeds the receiver, answers pings, sends its own, bounds what waits for the reader, and closes: with a close frame
both ways where the peer plays along, by a deadline where it does not. Applications are not its subject; an adapter
takes messages with `take` and `arrival`, and writes with `send_text` and `send_binary`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from bridge.core.connection.clock import NEVER
from bridge.core.connection.waiter import Waiters
from bridge.core.connection.writer import Writer
from bridge.core.log import gen_log
from bridge.core.websocket.extensions import DeflateOptions
from bridge.core.websocket.frames import (
    WebSocketError,
    encode_binary,
    encode_close,
    encode_ping,
    encode_pong,
    encode_text,
)
from bridge.core.websocket.handshake import Handshake, accept_fields
from bridge.core.websocket.receiver import Close, Ping, Receiver
from bridge.core.websocket.sender import Sender
from bridge.errors import ConnectionGone

if TYPE_CHECKING:
    from bridge.core.connection.interfaces import Exchange

__all__ = ["ABNORMAL", "DEFAULT_OPTIONS", "WebSocketConnection", "WebSocketOptions"]

ABNORMAL = 1006  # stands for an end without a close frame (RFC 6455 section 7.1.5)
INTERNAL_ERROR = 1011

# Content of messages that may wait for the reader before the peer is slowed down, in bytes (text: characters). A
# message that is larger waits alone.
_WINDOW = 65536
# How long the peer has to answer a close frame, in seconds.
_CLOSE_TIME = 10.0
# How long the peer may go on sending after a fault of its own, in seconds, and how much, in bytes: a close with unread
# data would reset the connection and could destroy the close frame on its way.
_LINGER_TIME = 2.0
_LINGER_MAX = 64 << 20


_DEFLATE = DeflateOptions()


class WebSocketOptions:
    """How WebSockets are served.

    Attributes:
        max_size: The most bytes of one message, after decompression.
        max_queue: The most messages that wait for the reader.
        ping_interval: Seconds between pings; None sends none.
        ping_timeout: Seconds in which anything must arrive after a ping; None for no limit.
        deflate: The terms for permessage-deflate; None never agrees to it.
    """

    __slots__ = ("deflate", "max_queue", "max_size", "ping_interval", "ping_timeout")

    def __init__(
        self,
        max_size: int = 16 * 1024 * 1024,
        max_queue: int = 32,
        ping_interval: float | None = 20.0,
        ping_timeout: float | None = 20.0,
        deflate: DeflateOptions | None = _DEFLATE,
    ) -> None:
        self.max_size = max_size
        self.max_queue = max_queue
        self.ping_interval = ping_interval
        self.ping_timeout = ping_timeout
        self.deflate = deflate


DEFAULT_OPTIONS = WebSocketOptions()


class WebSocketConnection(asyncio.Protocol):
    """The server's side of one WebSocket.

    Attributes:
        open: Messages can be sent: neither side has sent a close frame, and the connection stands.
        close_code: Why it ends, once it does: the code of the peer's close frame (1005 if it had none), the code of
            ours if we closed first, 1006 if the connection was lost. 0 while it is open.
        close_reason: The reason that goes with the code, often empty.
        messages: What has arrived and was not taken; for a look whether there is something, `take` takes it.
        arrival: Returns a future that is done when `take` may have a message, or the connection has ended.
        encode_text: Makes a frame of a str.
        encode_binary: Makes a frame of bytes.
        write_frame: Writes a frame; only while ``open``.
        clock: The server's clock.
        context: The two ends.
        loop: The event loop.
        writer: The sending half.
        deadline: Loop time in seconds of the next ping, or by which something must have arrived.
        on_end: Called once, when ``open`` has become False through the peer.
        on_lost: Called once, when the transport is gone.
    """

    __slots__ = (
        "_blocked",
        "_closed",
        "_discarded",
        "_gone",
        "_heard",
        "_held",
        "_lost",
        "_max_queue",
        "_next_event",
        "_options",
        "_pinged",
        "_pong",
        "_readers",
        "_receiver",
        "_resuming",
        "_size",
        "arrival",
        "clock",
        "close_code",
        "close_reason",
        "context",
        "deadline",
        "encode_binary",
        "encode_text",
        "loop",
        "messages",
        "on_end",
        "on_lost",
        "open",
        "write_frame",
        "writer",
    )

    arrival: Callable[[], asyncio.Future[None]]
    encode_text: Callable[[str], bytes]
    encode_binary: Callable[[bytes], bytes]
    write_frame: Callable[[bytes], None]
    _gone: Callable[[], None]

    def __init__(self, exchange: Exchange, handshake: Handshake, options: WebSocketOptions) -> None:
        self.context = exchange.context
        self.clock = exchange.clock
        self.loop = exchange.loop
        self.writer = Writer(self, exchange.parameters, exchange.context, exchange.clock, exchange.loop)
        self.open = True
        self.close_code = 0
        self.close_reason = ""
        self.deadline = NEVER
        self.on_end: Callable[[], None] | None = None
        self.on_lost: Callable[[WebSocketConnection], None] | None = None
        if handshake.deflate is None or options.deflate is None:
            self.encode_text = encode_text
            self.encode_binary = encode_binary
        else:
            sender = Sender(handshake.deflate, options.deflate)
            self.encode_text = sender.encode_text
            self.encode_binary = sender.encode_binary
        self._options = options
        self._receiver = Receiver(options.max_size, deflate=handshake.deflate)
        self._next_event = self._receiver.next_event
        self.messages: deque[str | bytes] = deque()
        self._max_queue = options.max_queue
        self._size = 0  # of what waits in _messages
        self._blocked = False  # enough waits: what was fed stays in the receiver
        self._resuming = False  # reading goes on in the loop's next turn
        self._held = False  # the transport was told to read nothing
        self._heard = False  # something has arrived since the last ping
        self._pinged = False  # a ping was sent, and its time is running
        self._pong: bytes | None = None  # the payload of a ping to answer when the peer reads again
        self._closed = False  # by us: what still arrives is dropped, up to the peer's close frame
        self._lost = False  # the transport is gone, but not everything that was fed was read
        self._discarded = 0
        self._readers = Waiters(exchange.loop)
        self.arrival = self._readers.next_event

    @classmethod
    def accept(
        cls,
        exchange: Exchange,
        handshake: Handshake,
        options: WebSocketOptions,
        subprotocol: str | None = None,
        fields: Iterable[tuple[bytes, bytes]] = (),
    ) -> WebSocketConnection:
        """Answer 101, take the transport over from HTTP, and start.

        Args:
            exchange: The handshake's, of which nothing was answered.
            handshake: The client's valid handshake.
            options: Limits and times.
            subprotocol: The choice among those offered; None for none.
            fields: More fields of the response.

        Raises:
            LocalProtocolError: The subprotocol was not offered, or a field is illegal; nothing was sent.
            ConnectionGone: The peer left.
        """
        exchange.respond(101, [*accept_fields(handshake, subprotocol), *fields])
        exchange.send(b"", True)
        self = cls(exchange, handshake, options)
        paused = exchange.write_paused
        transport, rest, self._gone = exchange.take_stream(self)
        self.writer.open(transport)
        self.write_frame = transport.write
        self.clock.shorten(options.ping_interval)
        self.clock.shorten(options.ping_timeout)
        self.clock.watch(self)
        self.deadline = self.clock.after(options.ping_interval)
        if paused:
            self.writer.pause()
        if rest:
            self.data_received(rest)
        return self

    # ------------------------------------------------------------------ the reader's side

    def take(self) -> str | bytes | None:
        """Return the next message, str for text and bytes for binary; None if there is none now.

        Messages that arrived before the end can still be taken after it.
        """
        if not self.messages:
            return None
        message = self.messages.popleft()
        self._size -= len(message)
        if self._blocked and not self._resuming and self._size < _WINDOW:
            # Not here and now: a reader that finds message after message would never let go of the loop.
            self._resuming = True
            self.loop.call_soon(self._resume)
        return message

    def _resume(self) -> None:
        self._resuming = False
        if self._blocked:
            self._unblock()

    # ------------------------------------------------------------------ the writer's side

    @property
    def transport(self) -> asyncio.Transport | None:
        """The transport; None after the connection."""
        return self.writer.transport

    @property
    def write_paused(self) -> bool:
        """More is waiting to be sent than the high-water mark."""
        return self.writer.paused

    def writable(self) -> asyncio.Future[None]:
        """Return a future that is done when enough of what waits has been sent.

        It fails with ConnectionGone when the connection ends first.
        """
        return self.writer.writable()

    def send_text(self, text: str) -> None:
        """Send a text message; when ``write_paused`` is set then, wait for `writable` before the next one.

        Raises:
            LocalProtocolError: The text has no UTF-8 form.
            ConnectionGone: The connection is not open any more.
        """
        if not self.open:
            raise ConnectionGone("the WebSocket is closed")
        self.write_frame(self.encode_text(text))

    def send_binary(self, data: bytes) -> None:
        """Send a binary message, as `send_text` does.

        Raises:
            ConnectionGone: The connection is not open any more.
        """
        if not self.open:
            raise ConnectionGone("the WebSocket is closed")
        self.write_frame(self.encode_binary(data))

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Start the closing handshake (RFC 6455 section 7.1.2); without effect when the connection is not open.

        What has arrived and was not taken is dropped. The peer has 10 seconds to answer.

        Raises:
            LocalProtocolError: The code may not be sent, or the reason is longer than 123 bytes.
        """
        frame = encode_close(code, reason)
        if self.open:
            self._closed = True
            self.messages.clear()
            self._size = 0
            self.write_frame(frame)
            self._end(code, reason)
            self.deadline = self.clock.after(_CLOSE_TIME)
            if self._blocked:
                self._unblock()

    def abort(self) -> None:
        """End the connection at once, without a close frame."""
        if self.writer.transport is not None:
            self.writer.transport.abort()

    # ------------------------------------------------------------------ called by the transport

    def data_received(self, data: bytes) -> None:
        """Take what the peer sent."""
        self._heard = True
        receiver = self._receiver
        if receiver.closed:
            self._discarded += len(data)
            if self._discarded > _LINGER_MAX:
                self.abort()
            return
        receiver.feed(data)
        if self._blocked:
            self._hold()
        else:
            self._read()

    def eof_received(self) -> bool:
        """The peer sends nothing more, and the transport closes: a WebSocket has no half-closed state.

        The transport would close only when all is sent, which the peer may never read: nobody would be told.
        """
        transport = self.writer.transport
        if self.open and transport is not None and transport.get_write_buffer_size():
            transport.abort()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """End: nobody is there any more."""
        self.clock.forget(self)
        self.deadline = NEVER
        self.writer.close()
        if self.open and self._blocked:
            self._lost = True  # what was fed may hold messages and a close frame: the reader comes to them
            self._tell_end()
        else:
            self._lose(ABNORMAL, "")
        self._gone()
        if self.on_lost is not None:
            self.on_lost(self)
            self.on_lost = None

    def pause_writing(self) -> None:
        """Let writers wait: the transport's buffer is above its high-water mark."""
        self.writer.pause()

    def resume_writing(self) -> None:
        """Let writers go on, and answer the last ping (RFC 6455 section 5.5.3 allows to skip those before)."""
        self.writer.resume()
        if self._pong is not None:
            pong, self._pong = self._pong, None
            self.write_frame(encode_pong(pong))

    # ------------------------------------------------------------------ reading

    def _read(self) -> None:
        """Turn what was fed into messages, as far as there is room for them."""
        messages = self.messages
        receiver = self._receiver
        next_event = self._next_event
        try:
            while (event := next_event()) is not None:
                if event.__class__ is str or event.__class__ is bytes:
                    if not self._closed:
                        messages.append(event)
                        self._size += len(event)
                        if self._size >= _WINDOW or len(messages) >= self._max_queue:
                            self._blocked = True
                            return
                    if not receiver.unread:  # as after nearly every short message: saves a call
                        break
                elif event.__class__ is Ping:
                    self._answer_ping(event.payload)
                elif event.__class__ is Close:
                    self._take_close(event)
        except WebSocketError as exc:
            self._fail(exc)
        else:
            if self._lost:
                self._end(self.close_code or ABNORMAL, self.close_reason)
        finally:
            if messages:
                self._readers.wake()

    def _unblock(self) -> None:
        """Go on reading: first what was fed, then from the transport."""
        self._blocked = False
        self._read()
        if self._held and not self._blocked:
            self._held = False
            self._heard = True
            transport = self.writer.transport
            if transport is not None and not transport.is_closing():
                transport.resume_reading()

    def _hold(self) -> None:
        """Slow the peer down: what waits is enough."""
        transport = self.writer.transport
        if not self._held and transport is not None:
            self._held = True
            transport.pause_reading()

    def _answer_ping(self, payload: bytes) -> None:
        if not self.open:
            return
        if self.writer.paused:
            self._pong = payload
        else:
            self.write_frame(encode_pong(payload))

    def _take_close(self, event: Close) -> None:
        """Complete the closing handshake; the server closes the connection first (RFC 6455 section 7.1.1)."""
        if self._lost:
            self._end(event.code, event.reason)
        elif self.open:
            self.write_frame(event.answer())
            self._lose(event.code, event.reason)
        self._close_transport()

    def _fail(self, error: WebSocketError) -> None:
        """Name the peer's fault in a close frame, and end the connection (RFC 6455 section 7.1.7)."""
        gen_log.info("WebSocket from %s: %s", self.context, error)
        transport = self.writer.transport
        if transport is None:
            self._end(error.code, str(error))
            return
        if self.open:
            self.write_frame(encode_close(error.code, str(error)[:123]))
            self._lose(error.code, str(error))
        if transport.can_write_eof() and not transport.is_closing():
            transport.write_eof()
            self.deadline = self.clock.after(_LINGER_TIME)
        else:
            self._close_transport()

    # ------------------------------------------------------------------ the end

    def _end(self, code: int, reason: str) -> None:
        self.open = self._lost = False
        self.close_code = code
        self.close_reason = reason
        self._pong = None
        self._readers.wake()

    def _lose(self, code: int, reason: str) -> None:
        """Note an end that is not our doing."""
        if self.open:
            self._end(code, reason)
            self.writer.wake(ConnectionGone("the WebSocket is closed"))
            self._tell_end()
        self.on_end = None

    def _tell_end(self) -> None:
        self.open = False
        on_end, self.on_end = self.on_end, None
        if on_end is not None:
            on_end()

    def _close_transport(self) -> None:
        """Close when all is sent, but not later than the peer's time for answers."""
        transport = self.writer.transport
        if transport is not None:
            self.deadline = self.clock.after(_CLOSE_TIME)
            transport.close()

    def on_idle(self) -> None:
        """Keep everything: messages may come at any time."""

    def deadline_passed(self, now: float) -> None:
        """Ping a silent peer, or give it up."""
        transport = self.writer.transport
        if transport is None:
            return
        if not self.open:
            self.deadline = NEVER
            transport.abort()
        elif not self._pinged:
            self._ping()
        elif self._heard or self._held or self.writer.paused:  # held: we do not read; paused: our ping is on its way
            self._pinged = False
            interval, timeout = self._options.ping_interval, self._options.ping_timeout
            self.deadline = self.clock.after(max((interval or 0) - (timeout or 0), 0))
        else:
            gen_log.info("WebSocket from %s: no answer to a ping", self.context)
            self.write_frame(encode_close(INTERNAL_ERROR, "keepalive ping timeout"))
            self._lose(ABNORMAL, "keepalive ping timeout")
            self._close_transport()
            self.deadline = self.clock.after(_LINGER_TIME)

    def write_stalled(self) -> None:
        """Give up a peer that reads nothing."""
        if self.writer.transport is not None:
            self.writer.transport.abort()

    def _ping(self) -> None:
        options = self._options
        if self.writer.paused:  # the write timeout watches the peer
            self.deadline = self.clock.after(options.ping_interval)
            return
        self.write_frame(encode_ping())
        self._heard = False
        self._pinged = options.ping_timeout is not None
        self.deadline = self.clock.after(options.ping_timeout if self._pinged else options.ping_interval)
