"""A WebSocket connection (RFC 6455): the asyncio protocol that takes the transport over after the handshake.

It feeds the receiver, answers pings and sends its own, and bounds the messages that wait for the reader. It closes with
a close frame both ways, or after a deadline if the peer sends none. It knows nothing of applications. An adapter takes
messages with ``take`` and ``arrival``, and sends with ``send_text`` and ``send_binary``.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING

from bridge.core.connection.budgets import SMALL
from bridge.core.connection.clock import NEVER
from bridge.core.connection.closing import close
from bridge.core.connection.reads import read_little, read_much
from bridge.core.connection.waiter import Waiters
from bridge.core.connection.writer import Writer
from bridge.core.http.message import ResponseHead
from bridge.core.log import gen_log
from bridge.core.websocket.extensions import DeflateOptions
from bridge.core.websocket.frames import (
    POLICY_VIOLATION,
    TRY_AGAIN_LATER,
    WebSocketError,
    encode_binary,
    encode_close,
    encode_ping,
    encode_pong,
    encode_text,
)
from bridge.core.websocket.handshake import Handshake, accept_fields
from bridge.core.websocket.receiver import Close, Event, Ping, Pong, Progress, Receiver
from bridge.core.websocket.sender import Sender
from bridge.errors import ConnectionGone, LocalProtocolError

if TYPE_CHECKING:
    from bridge.core.connection.budgets import Budget
    from bridge.core.connection.interfaces import Exchange

__all__ = ["ABNORMAL", "DEFAULT_OPTIONS", "WebSocketConnection", "WebSocketOptions"]

ABNORMAL = 1006  # the code of an end without a close frame; never sent (RFC 6455 section 7.1.5)
INTERNAL_ERROR = 1011

# Bytes (of text: characters) of the messages that may wait for the reader before the peer is slowed down. A larger
# message waits alone.
_WINDOW = 65536
# Seconds that the peer has to answer a close frame.
_CLOSE_TIME = 10.0
# After a fault the peer may go on sending for this many seconds, and this many bytes. A close with unread data would
# reset the connection, and could destroy the close frame on its way.
_LINGER_TIME = 2.0
_LINGER_MAX = 64 << 20
# Up to so many pings in one piece of received data are all answered, in one write. Of more pings only the last one is
# answered (RFC 6455 section 5.5.3).
_PONGS_MAX = 16
# The units (see ``turns``) that going on in another turn costs.
_TURN_UNITS = 8
# A larger message (bytes; of text: characters) is compressed in pieces, since 16 MiB take 90 to 260 ms. The second
# number says how many bytes cost a unit, as a power of two.
_LARGE = 131072
_BYTES_PER_UNIT = 7

_DEFLATE = DeflateOptions()


class WebSocketOptions:
    """How WebSockets are served.

    Attributes:
        max_size: Most bytes of one message, after decompression.
        max_queue: Most messages that wait for the reader.
        ping_interval: Seconds between pings; None for no pings.
        ping_timeout: Seconds after a ping in which something has to arrive; None for no limit.
        max_control_frames: Most pings and pongs of the peer within a second; None for no limit.
        deflate: The terms for permessage-deflate; None to refuse it.
        shortest: The shortest of the times in seconds; None if there is none.
    """

    __slots__ = ("deflate", "max_control_frames", "max_queue", "max_size", "ping_interval", "ping_timeout", "shortest")

    def __init__(
        self,
        max_size: int = 16 * 1024 * 1024,
        max_queue: int = 32,
        ping_interval: float | None = 20.0,
        ping_timeout: float | None = 20.0,
        deflate: DeflateOptions | None = _DEFLATE,
        max_control_frames: int | None = 200,
    ) -> None:
        self.max_size = max_size
        self.max_control_frames = max_control_frames
        self.max_queue = max_queue
        self.ping_interval = ping_interval
        self.ping_timeout = ping_timeout
        self.deflate = deflate
        self.shortest = min((time for time in (ping_interval, ping_timeout) if time), default=None)


DEFAULT_OPTIONS = WebSocketOptions()


class WebSocketConnection(asyncio.Protocol):
    """The server's side of one WebSocket. Made by :meth:`accept`.

    Args:
        exchange: The exchange of the handshake.
        handshake: The client's valid handshake.
        options: Limits and times.

    Attributes:
        open: Messages can be sent: neither side has sent a close frame, and the connection is not lost.
        close_code: Why the connection has ended: the code of the peer's close frame (1005 if it had none), the
            server's own if it closed first, 1006 if the connection was lost. 0 while it is open.
        close_reason: The reason beside the code, often empty.
        messages: The messages that have arrived and were not taken. Read it to see whether there are any; to take one,
            call :meth:`take`.
        arrival: Returns a future that is done when :meth:`take` may have a message, or the connection has ended.
        at_once: A longer message (bytes; of text: characters) needs :meth:`prepare` before it is encoded.
        encode_text: Returns the frame of a str.
        encode_binary: Returns the frame of bytes.
        write_frame: Writes a frame; only while ``open``.
        clock: The server's clock.
        context: The two ends.
        loop: The event loop.
        writer: The sending half.
        deadline: Loop time in seconds of the next ping, or until which something has to arrive.
        on_end: Called once when the peer ends the connection, or when it is lost.
        on_lost: Called once with this connection when the transport is gone.
    """

    __slots__ = (
        "_being_prepared",
        "_closed_by_us",
        "_control_frames",
        "_control_since",
        "_discarded",
        "_lost_unread",
        "_max_queue",
        "_next_event",
        "_noted",
        "_on_transport_gone",
        "_options",
        "_ping_pending",
        "_pings",
        "_prepares",
        "_queue_full",
        "_readers",
        "_reading_paused",
        "_received_since_ping",
        "_receiver",
        "_resume_scheduled",
        "_sender",
        "_turn_awaited",
        "_turns",
        "_waiting_size",
        "arrival",
        "at_once",
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
    _on_transport_gone: Callable[[], None]

    def __init__(self, exchange: Exchange, handshake: Handshake, options: WebSocketOptions) -> None:
        self.context = context = exchange.context
        self.clock = clock = exchange.clock
        self.loop = loop = clock.loop
        self.writer = Writer(self, exchange.parameters, context, clock, loop)
        self.open = True
        self.close_code = 0
        self.close_reason = ""
        self.deadline = NEVER
        self.on_end: Callable[[], None] | None = None
        self.on_lost: Callable[[WebSocketConnection], None] | None = None
        self._sender: Sender | None = None
        self._prepares: asyncio.Lock | None = None
        self._being_prepared = 0  # messages of which prepare() has not returned
        self.at_once = sys.maxsize  # an int: to compare it with a float would cost more
        if handshake.deflate is None or options.deflate is None:
            self.encode_text = encode_text
            self.encode_binary = encode_binary
        else:
            self.at_once = _LARGE
            self._sender = sender = Sender(handshake.deflate, options.deflate)
            self.encode_text = sender.encode_text
            self.encode_binary = sender.encode_binary
        self._options = options
        self._receiver = Receiver(options.max_size, deflate=handshake.deflate)
        self._next_event = self._receiver.next_event  # bound once, since it is called for every message
        self.messages: deque[str | bytes] = deque()
        self._max_queue = options.max_queue
        self._waiting_size = 0  # bytes or characters of the messages that wait
        self._queue_full = False  # enough messages wait: fed bytes stay in the receiver
        self._resume_scheduled = False  # reading goes on in the loop's next turn
        self._reading_paused = False  # the transport was told to read nothing
        self._received_since_ping = False
        self._ping_pending = False  # a ping was sent, and its timeout runs
        self._pings: list[bytes] = []  # the payloads of pings to answer
        self._control_since = NEVER  # when the count of control frames began
        self._control_frames = 0  # what the receiver had counted then
        self._turns = clock.turns
        self._turn_awaited = False  # reading goes on when the connection has its turn
        self._closed_by_us = False  # messages that still arrive are dropped, up to the peer's close frame
        self._lost_unread = False  # the transport is gone, but the receiver still has unread bytes
        self._discarded = 0  # bytes that were dropped after the end
        self._noted = False  # the budget of the process counts what has come of an unfinished message
        self._readers = Waiters(loop)
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
        """Answer 101, or 200 over HTTP/2, take the transport over from HTTP, and start.

        Args:
            exchange: The exchange of the handshake; nothing of its response was sent.
            handshake: The client's valid handshake.
            options: Limits and times.
            subprotocol: One of the subprotocols that the client has offered; None for none.
            fields: More fields of the response, (name, value) pairs.

        Raises:
            LocalProtocolError: The subprotocol was not offered, or a field is illegal; nothing was sent.
            ConnectionGone: The peer left.
        """
        # Not by respond(): that keeps heads which may come again, and no other has this Sec-WebSocket-Accept.
        status = 101 if handshake.accept else 200
        exchange.send_first(ResponseHead(status, [*accept_fields(handshake, subprotocol), *fields]), b"")
        self = cls(exchange, handshake, options)
        paused = exchange.writer.paused
        transport, rest, self._on_transport_gone = exchange.take_stream(self)
        self.writer.open(transport)
        self.write_frame = transport.write
        self.clock.shorten(options.shortest)
        self.clock.watch(self)
        self.deadline = self.clock.after(options.ping_interval)
        if self.clock.is_crowd:
            read_little(transport)
        if paused:
            self.writer.pause()
        if rest:
            self.data_received(rest)
        return self

    # ------------------------------------------------------------------ the reader's side

    def take(self) -> str | bytes | None:
        """Return the next message, str for text and bytes for binary; None if none waits.

        Messages that arrived before the connection's end can still be taken after it.
        """
        if not self.messages:
            return None
        message = self.messages.popleft()
        self._waiting_size -= len(message)
        if self._queue_full and not self._resume_scheduled and self._waiting_size < _WINDOW:
            # In the next turn of the loop: a reader that always found another message would block the loop.
            self._resume_scheduled = True
            self.loop.call_soon(self._resume)
        return message

    def _resume(self) -> None:
        self._resume_scheduled = False
        if self._queue_full:
            self._continue_reading()

    # ------------------------------------------------------------------ the writer's side

    @property
    def transport(self) -> asyncio.Transport | None:
        """The transport; None after the connection."""
        return self.writer.transport

    @property
    def write_paused(self) -> bool:
        """Whether more bytes wait to be sent than the high-water mark allows."""
        return self.writer.paused

    def writable(self) -> asyncio.Future[None]:
        """Return a future that is done when enough of the waiting bytes has been sent.

        It fails with ConnectionGone if the connection ends first.
        """
        return self.writer.writable()

    async def prepare(self, message: str | bytes) -> None:
        """Compress a message of more than ``at_once`` while other connections have their turns.

        ``encode_text`` or ``encode_binary`` has to follow without a wait. A message that is sent meanwhile waits here
        for its turn, however short it is: compressed messages build on one another.

        Raises:
            LocalProtocolError: The text has no UTF-8 form.
            ConnectionGone: The connection has been closed meanwhile.
        """
        sender = self._sender
        assert sender is not None
        if self._prepares is None:
            self._prepares = asyncio.Lock()
        self._being_prepared += 1
        self.at_once = -1
        try:
            async with self._prepares:
                if self.open and len(message) > _LARGE:
                    done = self.loop.create_future()
                    self._turns.later(partial(self._prepare_some, sender.prepare(message), done), begun=False)
                    await done
        finally:
            self._being_prepared -= 1
            if not self._being_prepared:
                self.at_once = _LARGE
        if not self.open:
            raise ConnectionGone("the WebSocket is closed")

    def _prepare_some(self, pieces: Iterator[int], done: asyncio.Future[None]) -> None:
        """Compress as much as this turn of the loop allows."""
        turns = self._turns
        if done.done():  # the application waits no longer
            return
        try:
            for size in pieces:
                turns.left -= size >> _BYTES_PER_UNIT
                if turns.left <= 0 or turns.crowded:
                    turns.later(partial(self._prepare_some, pieces, done), begun=True)
                    return
        except LocalProtocolError as exc:
            done.set_exception(exc)
        else:
            done.set_result(None)

    def send_text(self, text: str) -> None:
        """Send a text message. If ``write_paused`` is true afterwards, wait for :meth:`writable` before the next one.

        Raises:
            LocalProtocolError: The text has no UTF-8 form.
            ConnectionGone: The connection is not open any more.
        """
        if not self.open:
            raise ConnectionGone("the WebSocket is closed")
        self.writer.write(self.encode_text(text))

    def send_binary(self, data: bytes) -> None:
        """Send a binary message, as :meth:`send_text` does.

        Raises:
            ConnectionGone: The connection is not open any more.
        """
        if not self.open:
            raise ConnectionGone("the WebSocket is closed")
        self.writer.write(self.encode_binary(data))

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Start the closing handshake (RFC 6455 section 7.1.2). Without effect if the connection is not open.

        Messages that have arrived and were not taken are dropped. The peer has 10 seconds to answer.

        Args:
            code: A close code that may be sent, see ``frames.is_close_code``.
            reason: At most 123 bytes in UTF-8.

        Raises:
            LocalProtocolError: The code may not be sent, or the reason is too long.
        """
        frame = encode_close(code, reason)
        if self.open:
            self._closed_by_us = True
            self.messages.clear()
            self._waiting_size = 0
            self.write_frame(frame)
            self._end(code, reason)
            self.deadline = self.clock.after(_CLOSE_TIME)
            if self._queue_full:
                self._continue_reading()

    def abort(self) -> None:
        """End the connection at once, without a close frame."""
        if self.writer.transport is not None:
            self.writer.transport.abort()

    # ------------------------------------------------------------------ called by the transport

    def data_received(self, data: bytes) -> None:
        """Take what the peer sent."""
        self._received_since_ping = True
        receiver = self._receiver
        if receiver.closed:
            self._discarded += len(data)
            if self._discarded > _LINGER_MAX:
                self.abort()
            return
        receiver.feed(data)
        if self._queue_full or self._turn_awaited:
            self._pause_reading()
        else:
            self._read()

    def eof_received(self) -> bool:
        """Let the transport close: a WebSocket has no half-closed state."""
        # The transport closes only when all is sent, and the peer may never read it. Then connection_lost() would not
        # be called, so the connection is aborted.
        transport = self.writer.transport
        if self.open and transport is not None and transport.get_write_buffer_size():
            transport.abort()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """End the connection: the transport is gone."""
        self.clock.forget(self)
        self.deadline = NEVER
        self.writer.close()
        self._note_unfinished()
        if self.open and (self._queue_full or self._turn_awaited):
            self._lost_unread = True  # the receiver may still have messages and a close frame, which are taken later
            self._notify_end()
        else:
            self._end_by_peer(ABNORMAL, "")
        self._on_transport_gone()
        if self.on_lost is not None:
            self.on_lost(self)
            self.on_lost = None

    def pause_writing(self) -> None:
        """Let writers wait: the transport's buffer is above its high-water mark."""
        self.writer.pause()

    def resume_writing(self) -> None:
        """Let writers go on, and answer the last pings."""
        self.writer.resume()
        self._answer_pings()

    # ------------------------------------------------------------------ reading

    def _read(self) -> None:
        """Read messages and control frames from the receiver, until enough messages wait or the turn is over."""
        turns = self._turns
        floor = turns.left - turns.slice if turns.crowded else 0
        if turns.left <= 0:
            self._await_turn(begun=False)
            return
        messages = self.messages
        receiver = self._receiver
        next_event = self._next_event
        event: Event | None = None
        try:
            while (event := next_event()) is not None:
                if event.__class__ is str or event.__class__ is bytes:
                    if not self._closed_by_us:
                        messages.append(event)
                        self._waiting_size += len(event)
                        if self._waiting_size >= _WINDOW or len(messages) >= self._max_queue:
                            self._queue_full = True
                            turns.left -= self._waiting_size >> 11
                            return
                    if not receiver.unread:  # as after nearly every short message; saves the call of next_event()
                        break
                    turns.left -= 1 + (len(event) >> 12)
                else:
                    turns.left -= self._take_frame(event)
                if turns.left <= floor:
                    self._await_turn(begun=True)
                    return
        except WebSocketError as exc:
            self._fail(exc)
        else:
            if self._lost_unread:
                self._end(self.close_code or ABNORMAL, self.close_reason)
        finally:
            if self._noted or self._waiting_size > _WINDOW or event is None or event.__class__ is Progress:
                self._note_unfinished()
            if self._pings:
                self._answer_pings()
            if messages:
                self._readers.wake()

    def _note_unfinished(self) -> None:
        """Note how much memory an incomplete message takes; none if the connection is gone.

        A large message that waits for the reader counts as well: 16 KiB on the wire may be 16 MiB.
        """
        size = 0 if self.writer.transport is None else self._receiver.held
        if self._waiting_size > _WINDOW and self.writer.transport is not None:
            size += self._waiting_size
        if size > SMALL:
            self._noted = True
            self.clock.budgets.unfinished.note(self, size)
        elif self._noted:
            self._noted = False
            self.clock.budgets.unfinished.forget(self)

    def give_up(self, budget: Budget) -> str:
        """End the connection with 1013: clients have begun too many messages, or the reader does not take them."""
        self._noted = False
        budget.forget(self)
        if self._waiting_size > _WINDOW:
            self.messages.clear()
            self._waiting_size = 0
        self._fail(self._receiver.fault(TRY_AGAIN_LATER, "too many unfinished messages"))
        return f"the WebSocket of {self.context}"

    def _await_turn(self, *, begun: bool) -> None:
        """Let other connections go on, and read when it is this one's turn."""
        self._turn_awaited = True
        self._turns.later(self._take_turn, begun=begun, little=len(self._receiver.unread) <= SMALL)
        self._pause_reading()
        self._note_unfinished()
        if self.writer.transport is not None:
            read_little(self.writer.transport)

    def _take_turn(self) -> None:
        self._turn_awaited = False
        self._turns.left -= _TURN_UNITS
        if not self._queue_full:
            self._continue_reading()

    def _continue_reading(self) -> None:
        """Go on reading: first from the receiver, then from the transport."""
        self._queue_full = False
        if self._turn_awaited:
            return
        self._read()
        if self._reading_paused and not self._queue_full and not self._turn_awaited:
            self._reading_paused = False
            self._received_since_ping = True
            transport = self.writer.transport
            if transport is not None and not transport.is_closing():
                transport.resume_reading()

    def _pause_reading(self) -> None:
        """Stop reading from the transport: enough messages wait. TCP slows the peer down."""
        transport = self.writer.transport
        if not self._reading_paused and transport is not None:
            self._reading_paused = True
            transport.pause_reading()

    def _take_frame(self, event: Event) -> int:
        """Take an event that is no message; return the units of work that it has cost."""
        if event.__class__ is Progress:
            return event.units
        if event.__class__ is Close:
            self._take_close(event)
        elif event.__class__ is Ping or event.__class__ is Pong:
            self._take_control(event)
        return 1

    def _take_control(self, event: Ping | Pong) -> None:
        """Take a ping or a pong. A ping is answered after everything that has come with it.

        Raises:
            WebSocketError: 1008; there are too many of them.
        """
        limit = self._options.max_control_frames
        count = self._receiver.control_frames
        now = self.clock.now
        if not 0 <= now - self._control_since < 1.0:
            self._control_since = now
            self._control_frames = count - 1
        if limit is not None and count - self._control_frames > limit:
            raise self._receiver.fault(POLICY_VIOLATION, f"more than {limit} control frames in a second")
        if self.open and event.__class__ is Ping:
            if len(self._pings) >= _PONGS_MAX:
                self._pings.clear()
            self._pings.append(event.payload)

    def _answer_pings(self) -> None:
        """Send pongs, or keep the last ping while the peer does not read: pongs would fill the buffer."""
        if self.writer.paused:
            del self._pings[:-1]
        elif self._pings:
            pings, self._pings = self._pings, []
            transport = self.writer.transport
            if transport is not None and not transport.is_closing():  # else it was cut off before their turn
                self.write_frame(b"".join(map(encode_pong, pings)))

    def _take_close(self, event: Close) -> None:
        """Complete the closing handshake; the server closes the connection first (RFC 6455 section 7.1.1)."""
        if self._lost_unread:
            self._end(event.code, event.reason)
        elif self.open:
            self.write_frame(event.answer())
            self._end_by_peer(event.code, event.reason)
        self._close_transport()

    def _fail(self, error: WebSocketError) -> None:
        """Answer the peer's fault with a close frame, and end the connection (RFC 6455 section 7.1.7)."""
        gen_log.info("WebSocket from %s: %s", self.context, error)
        transport = self.writer.transport
        if transport is None:
            self._end(error.code, str(error))
            return
        if self.open:
            self.write_frame(encode_close(error.code, str(error)[:123]))
            self._end_by_peer(error.code, str(error))
        if transport.can_write_eof() and not transport.is_closing():
            transport.write_eof()
            self.deadline = self.clock.after(_LINGER_TIME)
        else:
            self._close_transport()

    # ------------------------------------------------------------------ the end

    def _end(self, code: int, reason: str) -> None:
        """Note the connection's end, and wake its reader."""
        self.open = self._lost_unread = False
        if self._noted:
            self._noted = False
            self.clock.budgets.unfinished.forget(self)
        self.close_code = code
        self.close_reason = reason
        self._pings.clear()
        self._readers.wake()

    def _end_by_peer(self, code: int, reason: str) -> None:
        """Note an end by the peer or by the network, and tell ``on_end``."""
        if self.open:
            self._end(code, reason)
            self.writer.wake(ConnectionGone("the WebSocket is closed"))
            self._notify_end()
        self.on_end = None

    def _notify_end(self) -> None:
        self.open = False
        on_end, self.on_end = self.on_end, None
        if on_end is not None:
            on_end()

    def _close_transport(self) -> None:
        """Close when everything is sent, at the latest after the time that the peer has to answer a close frame."""
        transport = self.writer.transport
        if transport is not None:
            self.deadline = self.clock.after(_CLOSE_TIME)
            close(transport, self.loop)

    def on_idle(self) -> None:
        """Do nothing: a WebSocket keeps nothing for speed."""

    def deadline_passed(self, now: float) -> None:
        """Act on the deadline.

        1. The connection has ended, but the peer does not close: it is aborted.
        2. No ping is pending: one is sent.
        3. The next ping follows if something arrived since the last one; or if the server does not read, so that it
           cannot see an answer; or if the peer does not read, so that the ping may not have reached it.
        4. Otherwise the peer is silent: the connection is closed.
        """
        transport = self.writer.transport
        if transport is None:
            return
        if not self.open:
            self.deadline = NEVER
            transport.abort()
        elif not self._ping_pending:
            self._ping()
        elif self._received_since_ping or self._reading_paused or self.writer.paused:
            self._ping_pending = False
            interval, timeout = self._options.ping_interval, self._options.ping_timeout
            self.deadline = self.clock.after(max((interval or 0) - (timeout or 0), 0))
        else:
            gen_log.info("WebSocket from %s: no answer to a ping", self.context)
            self.write_frame(encode_close(INTERNAL_ERROR, "keepalive ping timeout"))
            self._end_by_peer(ABNORMAL, "keepalive ping timeout")
            self._close_transport()
            self.deadline = self.clock.after(_LINGER_TIME)

    def write_stalled(self) -> None:
        """Abort the connection: the peer reads nothing."""
        if self.writer.transport is not None:
            self.writer.transport.abort()

    def turn_ended(self) -> None:
        """Do nothing: frames are written at once."""

    def _ping(self) -> None:
        options = self._options
        if self.writer.paused:  # the peer does not read: the write timeout watches that
            self.deadline = self.clock.after(options.ping_interval)
            return
        if self.writer.transport is not None:
            read_much(self.writer.transport)  # in a crowd, later reads make it small again
        self.write_frame(encode_ping())
        self._received_since_ping = False
        self._ping_pending = options.ping_timeout is not None
        self.deadline = self.clock.after(options.ping_timeout if self._ping_pending else options.ping_interval)
