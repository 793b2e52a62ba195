"""What the peer sends on a connection of HTTP/2: bytes to frames, and what each frame asks for (RFC 9113 section 6).

The budgets are here: what costs the server work and the peer nothing is counted, and ends the connection.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.core.connection.budgets import SMALL
from bridge.core.connection.clock import NEVER
from bridge.core.connection.http2ending import DRAIN_PING
from bridge.core.connection.http2streams import EndedStreams, FieldBlock
from bridge.core.connection.preface import PREFACE_HEAD
from bridge.core.http.fields import NOT_IN_TRAILERS
from bridge.core.http1.encoder import encode_refusal
from bridge.core.http2 import codes, frames
from bridge.core.http2.budget import Budget
from bridge.core.http2.codes import ConnectionFault, StreamFault
from bridge.core.http2.frames import END_HEADERS, END_STREAM, FRAME_SIZE, WINDOW_MAX, request_block, unpack_header
from bridge.core.http2.request import HeadReader
from bridge.core.http2.scheduler import parse_priority
from bridge.core.http2.windows import INITIAL_WINDOW, ReceiveWindow, add_credit, change_initial
from bridge.core.log import gen_log
from bridge.errors import RemoteProtocolError
from bridge.forks import FAULTS

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Protocol

    from bridge.core.connection.clock import Clock
    from bridge.core.connection.context import ConnectionContext
    from bridge.core.connection.http2ending import Ending
    from bridge.core.connection.http2exchange import HTTP2Exchange
    from bridge.core.connection.http2output import Output
    from bridge.core.connection.parameters import ConnectionParameters
    from bridge.core.connection.writer import Writer
    from bridge.core.http2.request import StreamHead

    class Owner(Protocol):
        """What this module needs of its connection."""

        clock: Clock
        closing: bool
        context: ConnectionContext
        ending: Ending
        initial_window: int
        last_stream: int
        loop: asyncio.AbstractEventLoop
        output: Output
        parameters: ConnectionParameters
        streams: dict[int, HTTP2Exchange]
        writer: Writer

        def abandon(self, exchange: HTTP2Exchange, code: int, by_peer: bool = False) -> None: ...
        def close_stream(self, exchange: HTTP2Exchange) -> None: ...
        def fault(self, error: ConnectionFault) -> None: ...
        def peer_ended(self) -> None: ...
        def refused(self, reason: str) -> None: ...
        def start_stream(self, stream: int, head: StreamHead, received: bool) -> None: ...
        def take_fault(self, stream: int, error: BaseException) -> None: ...


__all__ = ["Incoming"]

# Bytes of the connection's window, and of the content that may wait for delegates before the window is no longer
# renewed.
_WINDOW = 1 << 20
_HELD_MAX = 1 << 20
# Units of the loop's turn (see ``turns``) that it costs to start a stream (at least), to take another frame, and to
# begin.
_STREAM_UNITS, _FRAME_UNITS, _TURN_UNITS = 8, 2, 8
# Bytes that wait for the next turn before the transport stops reading.
_AHEAD_MAX = 262144
# If more bytes than this wait in the transport because the peer does not read, its frames are not read either: the
# answers to them would add to these bytes.
_ANSWERS_MAX = 131072
# Bytes that a peer may send without a line end before it is clear that it speaks neither HTTP/2 nor HTTP/1.
_LINE_MAX = 8190
# So many bytes of field blocks count as one glitch, for what it costs to decode them.
_BLOCK_GLITCH = 8192
# A window update of fewer bytes is a glitch. A small DATA frame is none, since messages of gRPC and of WebSockets come
# in such frames; an empty one is.
_TINY_UPDATE = 1024


class Incoming:
    """Reads what the peer sends.

    Args:
        owner: The connection.

    Attributes:
        budget: What the peer may ask for without getting an answer.
        busy: Frames are being read.
        emptied: The last stream has ended while frames were read: the connection may be idle when all are read.
        ended: What is known of streams that are not open.
        eof: The peer sends nothing more. The connection sets it, and is told when all is read.
        reader: Reads field blocks.
        turn_awaited: The rest of what was received is read in a later turn of the loop.
    """

    __slots__ = (
        "_begun",
        "_block",
        "_buffer",
        "_debt",
        "_granted",
        "_held",
        "_http2",
        "_owner",
        "_plain",
        "_preface_due",
        "_reading_paused",
        "_turns",
        "_window",
        "budget",
        "busy",
        "emptied",
        "ended",
        "eof",
        "reader",
        "turn_awaited",
    )

    def __init__(self, owner: Owner) -> None:
        parameters = owner.parameters
        http2 = parameters.http2
        assert http2 is not None
        self._owner = owner
        self._http2 = http2
        self.reader = HeadReader(parameters.limits, http2.max_header_list_size, extended_connect=http2.extended_connect)
        self.budget = Budget(owner.clock.now)
        self.ended = EndedStreams()
        self._window = ReceiveWindow(INITIAL_WINDOW)
        self._granted = INITIAL_WINDOW  # what the peer has been allowed to send in all
        self._buffer: bytes | bytearray = b""  # received and not read
        self._preface_due = True
        self._begun = False  # the settings were sent
        self._plain = False  # the peer's settings have come, and no field block is begun
        self._block: FieldBlock | None = None  # the field block that was begun
        self._debt = 0  # bytes that were received and not credited to the connection's window
        self._held = 0  # bytes of content that wait for delegates
        self._turns = owner.clock.turns
        self.turn_awaited = False
        self.busy = False
        self.emptied = False
        self.eof = False
        self._reading_paused = False  # the transport was told to read nothing

    @property
    def begun(self) -> bool:
        """The peer has sent the preface and its settings."""
        return self._plain or self._block is not None

    def clear(self) -> None:
        """Drop what was received and not read."""
        self._buffer = b""

    # ------------------------------------------------------------------ reading

    def data_received(self, data: bytes) -> None:
        """Take what the peer sent."""
        ending = self._owner.ending
        if ending.closed:
            ending.discard(len(data))
            return
        if self._http2.ping_interval is not None:
            ending.heard()
        buffer = self._buffer
        if buffer:
            if buffer.__class__ is bytes:
                self._buffer = buffer = bytearray(buffer)
            buffer += data
        else:
            self._buffer = buffer = data
        if self.turn_awaited:  # what was received before comes first
            if len(buffer) > _AHEAD_MAX:
                self._pause_reading()
        elif self._turns.left <= 0:
            self._await_turn(begun=False)
        else:
            self._read(buffer)

    def _await_turn(self, *, begun: bool) -> None:
        self.turn_awaited = True
        self._turns.later(self._take_turn, begun=begun, little=len(self._buffer) <= SMALL)
        if len(self._buffer) > SMALL:
            self._pause_reading()  # of a thousand connections, the loop would read megabytes

    def _take_turn(self) -> None:
        self.turn_awaited = False
        self._turns.left -= _TURN_UNITS
        if not self._owner.ending.closed:
            self._read(self._buffer)
            if not self._owner.writer.paused and not self.turn_awaited:
                self.resume_reading()
            if self.eof and not self.turn_awaited and not self._owner.ending.closed:
                self._owner.peer_ended()

    def _read(self, data: bytes | bytearray) -> None:
        """Read frames, until one is incomplete or this turn's share is used up.

        Nearly always, a request without content is a single HEADERS frame, so that is tested first.
        """
        at = 0
        if self._preface_due:
            at = self._take_preface(data)
            if self._preface_due:
                self._keep_unread(data, at)
                return
        end = len(data)
        owner = self._owner
        ending = owner.ending
        turns = self._turns
        floor = turns.left - turns.slice if turns.crowded else 0
        self.busy = True
        while end - at >= 9:
            block = request_block(data, at, owner.last_stream + 2) if self._plain else None
            if block is not None:
                size = len(block)
                after = at + 9 + size
            else:
                high, low, kind, flags, stream = unpack_header(data, at)
                size = high << 8 | low
                after = at + 9 + size
                stream &= WINDOW_MAX
                if not self._may_come(size, kind, flags, stream) or after > end:
                    break
            if turns.left <= floor:
                self._await_turn(begun=True)
                break
            at = after
            try:
                if block is not None:
                    turns.left -= _STREAM_UNITS + (size >> 3)  # a long head takes long to decode
                    owner.last_stream = stream = owner.last_stream + 2
                    owner.start_stream(stream, self.reader.read(block, True), True)
                else:
                    turns.left -= _FRAME_UNITS
                    handler = _HANDLERS.get(kind, Incoming._take_unknown)
                    handler(self, stream, flags, bytes(data[after - size : after]))
            except FAULTS as exc:
                owner.take_fault(stream, exc)
            if ending.closed:
                break
        self.busy = False
        if self.emptied:
            self.emptied = False
            if not owner.streams and not ending.closed:
                ending.idle()
        self._keep_unread(data, at)

    def _keep_unread(self, data: bytes | bytearray, at: int) -> None:
        """Keep what begins at *at* for the next call. Stop reading if the peer does not read the answers."""
        if self._owner.ending.closed:
            self._buffer = b""
            return
        if at == len(data):
            self._buffer = b""
        elif at and data.__class__ is bytearray:
            del data[:at]  # moves nothing
        elif at:
            self._buffer = data[at:] if len(data) - at < FRAME_SIZE else bytearray(memoryview(data)[at:])
        writer = self._owner.writer
        if writer.paused and writer.transport is not None:
            self._owner.output.flush()
            if writer.transport.get_write_buffer_size() > _ANSWERS_MAX:
                self._pause_reading()

    def _pause_reading(self) -> None:
        transport = self._owner.writer.transport
        if not self._reading_paused and transport is not None and not transport.is_closing():
            self._reading_paused = True
            transport.pause_reading()

    def resume_reading(self) -> None:
        """Let the transport read again, unless much waits to be read here."""
        transport = self._owner.writer.transport
        if self._reading_paused and transport is not None and len(self._buffer) <= _AHEAD_MAX:
            self._reading_paused = False
            if not transport.is_closing():
                transport.resume_reading()

    def _take_preface(self, data: bytes | bytearray) -> int:
        """Return where the frames begin; 0 while the preface is incomplete (RFC 9113 section 3.4)."""
        preface = frames.PREFACE
        size = min(len(data), len(preface))
        if data[:size] != preface[:size]:
            self._refuse_preface(data)
            return 0
        if size < len(preface):
            return 0
        self._preface_due = False
        if not self._begun:
            self.begin()
        return size

    def _refuse_preface(self, data: bytes | bytearray) -> None:
        """Answer a peer that does not speak HTTP/2: in text if it speaks HTTP/1, otherwise with GOAWAY."""
        owner = self._owner
        if not self._begun and (b" HTTP/1" in data or data.startswith(PREFACE_HEAD)):
            gen_log.info("Malformed HTTP message from %s: no preface of HTTP/2: %r", owner.context, bytes(data[:40]))
            owner.refused("malformed")
            owner.writer.write(encode_refusal(400, owner.clock.default_fields))
            owner.ending.close()
        elif self._begun or b"\n" in data or len(data) > _LINE_MAX:
            owner.fault(ConnectionFault(codes.PROTOCOL_ERROR, "no preface (RFC 9113 section 3.4)"))

    def begin(self) -> None:
        """Send the settings, and open the window of the connection."""
        self._begun = True
        http2 = self._http2
        settings = [
            (codes.SETTINGS_MAX_CONCURRENT_STREAMS, http2.max_concurrent_streams),
            (codes.SETTINGS_MAX_HEADER_LIST_SIZE, http2.max_header_list_size),
            (codes.SETTINGS_NO_RFC7540_PRIORITIES, 1),
        ]
        if http2.extended_connect:
            settings.append((codes.SETTINGS_ENABLE_CONNECT_PROTOCOL, 1))
        opening = frames.window_update_frame(0, self._window.widen(_WINDOW))
        self._owner.output.send(frames.settings_frame(settings) + opening)

    def _may_come(self, size: int, kind: int, flags: int, stream: int) -> bool:
        """Check a frame's header before the rest has come. End the connection if the header breaks a rule."""
        try:
            if not self._plain:
                block = self._block
                if block is not None:
                    if kind != frames.CONTINUATION or stream != block.stream:
                        raise ConnectionFault(codes.PROTOCOL_ERROR, "a frame inside of a field block (section 4.3)")
                elif kind != frames.SETTINGS or flags & frames.ACK:
                    raise ConnectionFault(codes.PROTOCOL_ERROR, "first frame is not SETTINGS (RFC 9113 section 3.4)")
            frames.check_header(size, kind, flags, stream)
        except ConnectionFault as fault:
            self._owner.fault(fault)
            return False
        except StreamFault:  # a PRIORITY frame, which is checked when all of it has come
            pass
        return True

    # ------------------------------------------------------------------ frames

    def _take_data(self, stream: int, flags: int, payload: bytes) -> None:
        size = len(payload)
        if not self._window.take(size):
            raise ConnectionFault(
                codes.FLOW_CONTROL_ERROR, "more content than the connection's window (RFC 9113 section 6.9.1)"
            )
        self._credit(size)
        exchange = self._owner.streams.get(stream)
        if exchange is None:
            self._take_ended(stream, size)
            return
        if exchange.received:
            raise StreamFault(codes.STREAM_CLOSED, "DATA behind the end of the stream (RFC 9113 section 5.1)")
        data = frames.data_content(payload, flags)
        ended = bool(flags & END_STREAM)
        if not data and not ended:
            self._spend_glitch()
        exchange.received = ended
        exchange.continue_pending = False  # the client did not wait for it
        content = exchange.content
        assert content is not None, "a stream that is not received has content"
        content.take(data, size, ended)
        if ended and exchange.over:
            self._owner.close_stream(exchange)

    def _credit(self, size: int) -> None:
        """Let the peer send *size* more bytes of content on the connection, unless too much waits for delegates.

        Content is credited as it arrives. So a delegate that pauses stops its own stream and no other.
        """
        self._debt += size
        if self._held <= _HELD_MAX:
            increment = self._window.credit(self._debt)
            self._debt = 0
            if increment:
                self._owner.output.send(frames.window_update_frame(0, increment))

    def hold(self, size: int) -> None:
        """Note that *size* more bytes of content, or fewer, wait for delegates."""
        self._held += size
        if size < 0 and self._debt:
            self._credit(0)

    def _take_ended(self, stream: int, size: int = 0) -> None:
        """Check a frame of a stream that is not open: it may be late (section 5.1).

        Args:
            stream: The stream.
            size: Bytes that the frame takes of the window.
        """
        if stream > self._owner.last_stream or not stream & 1:
            raise ConnectionFault(codes.PROTOCOL_ERROR, f"a frame of the idle stream {stream} (RFC 9113 section 5.1)")
        if not self.ended.was_reset(stream):
            raise ConnectionFault(codes.STREAM_CLOSED, f"a frame of the closed stream {stream} (RFC 9113 section 5.1)")
        if not self.ended.is_on_its_way(stream, size):
            self._spend_glitch()

    def _start(self, stream: int, block: bytes, received: bool) -> None:
        """Start a stream. Even the head of a stream that is refused is read, to keep the table of fields right."""
        owner = self._owner
        owner.last_stream = stream
        owner.start_stream(stream, self.reader.read(block, received), received)

    def _take_headers(self, stream: int, flags: int, payload: bytes) -> None:
        fragment, dependency = frames.header_block(payload, flags)
        block = FieldBlock(stream, bool(flags & END_STREAM), dependency == stream, fragment)
        if flags & END_HEADERS:
            self._take_block(block, fragment)
        else:
            self._block = block
            self._plain = False
            self._owner.ending.block_by = self._owner.ending.after(self._owner.parameters.head_timeout)
            self._owner.ending.look_at(self._owner.ending.block_by)

    def _take_continuation(self, stream: int, flags: int, payload: bytes) -> None:
        block = self._block
        if block is None:
            raise ConnectionFault(codes.PROTOCOL_ERROR, "CONTINUATION without HEADERS (RFC 9113 section 6.10)")
        block.add(payload)
        if flags & END_HEADERS:
            self._block = None
            self._plain = True
            self._owner.ending.block_by = NEVER
            self._take_block(block, block.whole())

    def _take_block(self, block: FieldBlock, octets: bytes) -> None:
        """Take a whole field block: of a request's head, or of its trailers."""
        stream = block.stream
        self._turns.left -= len(octets) >> 3
        if len(octets) > _BLOCK_GLITCH:
            self._spend_glitch(len(octets) // _BLOCK_GLITCH)
        exchange = self._owner.streams.get(stream)
        if exchange is not None:
            if exchange.received:
                self._skip(octets)
                raise StreamFault(codes.STREAM_CLOSED, "HEADERS behind the end of the stream (RFC 9113 section 5.1)")
            if not block.ended:
                self._skip(octets)
                raise StreamFault(codes.PROTOCOL_ERROR, "trailers that do not end the stream (RFC 9113 section 8.1)")
            exchange.trailers = [field for field in self.reader.trailers(octets) if field[0] not in NOT_IN_TRAILERS]
            exchange.received = True
            if exchange.content is not None:
                exchange.content.end()
            if exchange.over:
                self._owner.close_stream(exchange)
            return
        if stream > self._owner.last_stream and stream & 1:
            if stream != self._owner.last_stream + 2:
                self.ended.add_skipped(self._owner.last_stream, stream)
            if block.depends_on_itself:
                self._owner.last_stream = stream
                self.reader.read(octets, block.ended)
                raise StreamFault(codes.PROTOCOL_ERROR, "a stream depends on itself (RFC 7540 section 5.3.1)")
            self._start(stream, octets, block.ended)
            return
        if not stream & 1 or self.ended.was_skipped(stream):
            raise ConnectionFault(codes.PROTOCOL_ERROR, f"HEADERS open stream {stream} (RFC 9113 section 5.1.1)")
        self._skip(octets)
        self._take_ended(stream)

    def _skip(self, octets: bytes) -> None:
        """Read a field block that has no effect any more, to keep the table of fields right."""
        try:
            self.reader.trailers(octets)
        except ConnectionFault:
            raise
        except RemoteProtocolError:
            pass

    def _take_priority(self, stream: int, flags: int, payload: bytes) -> None:
        self._spend_glitch()
        try:
            frames.check_header(len(payload), frames.PRIORITY, flags, stream)
            if frames.parse_priority(payload) == stream:
                raise StreamFault(codes.PROTOCOL_ERROR, "a stream depends on itself (RFC 7540 section 5.3.1)")
        except StreamFault as fault:
            if stream in self._owner.streams:
                raise
            # To reset a stream that is not open is forbidden (section 6.4), and the stream may be opened yet.
            raise ConnectionFault(fault.code, str(fault)) from None

    def _take_priority_update(self, stream: int, flags: int, payload: bytes) -> None:
        self._spend_glitch()
        about, value = frames.parse_priority_update(payload)
        exchange = self._owner.streams.get(about)
        if exchange is not None:
            exchange.prioritize(*parse_priority(value))

    def _take_reset(self, stream: int, flags: int, payload: bytes) -> None:
        exchange = self._owner.streams.get(stream)
        if exchange is None:
            if stream > self._owner.last_stream or not stream & 1:
                raise ConnectionFault(codes.PROTOCOL_ERROR, "RST_STREAM of an idle stream (RFC 9113 section 6.4)")
            self._spend_glitch()
            return
        self.budget.spend_reset()
        self._owner.abandon(exchange, frames.parse_number(payload), by_peer=True)

    def _take_settings(self, stream: int, flags: int, payload: bytes) -> None:
        self._spend_frame(frames.SETTINGS)
        if flags & frames.ACK:
            return
        pairs = frames.parse_settings(payload)
        for identifier, size in pairs:
            if identifier == codes.SETTINGS_HEADER_TABLE_SIZE:  # each counts: the smallest empties the peer's table
                self._owner.output.encoder.set_limit(size)
        settings = dict(pairs)  # of other repeated settings the last value counts
        window = settings.get(codes.SETTINGS_INITIAL_WINDOW_SIZE)
        if window is not None:
            for exchange in self._owner.streams.values():
                exchange.send_window = change_initial(exchange.send_window, self._owner.initial_window, window)
                exchange.window_changed()
            self._owner.initial_window = window
        self._owner.output.send(frames.SETTINGS_ACK)
        if not self._plain and self._block is None:
            self._plain = True
            self._owner.ending.settings_by = NEVER
            self._owner.ending.idle()
            if self._owner.closing and not self._owner.parameters.no_keep_alive:
                self._owner.ending.announce()

    def _take_ping(self, stream: int, flags: int, payload: bytes) -> None:
        self._spend_frame(frames.PING)
        if not flags & frames.ACK:
            self._owner.output.send(frames.ping_frame(payload, True))
        elif payload == DRAIN_PING:
            self._owner.ending.finalize()

    def _take_goaway(self, stream: int, flags: int, payload: bytes) -> None:
        self._spend_glitch()
        _, code, text = frames.parse_goaway(payload)
        if code != codes.NO_ERROR:
            gen_log.info("HTTP/2 from %s: GOAWAY %s %r", self._owner.context, codes.error_name(code), text[:80])
        self._owner.closing = self._owner.ending.announced = self._owner.ending.final = (
            True  # a stream that the peer opens from now on breaks a rule
        )
        if not self._owner.streams:
            self._owner.ending.close()

    def _take_window_update(self, stream: int, flags: int, payload: bytes) -> None:
        increment = frames.parse_number(payload)
        exchange = self._owner.streams.get(stream)
        if increment < _TINY_UPDATE or (stream and exchange is None):
            self._count_sent()
            self.budget.spend_update(self._owner.clock.now)
        if not stream:
            self._owner.output.window = add_credit(self._owner.output.window, increment, 0)
            self._granted += increment
            if self._owner.output.queued:
                self._owner.output.schedule()
            return
        if exchange is not None:
            exchange.send_window = add_credit(exchange.send_window, increment, stream)
            exchange.window_changed()
        elif stream > self._owner.last_stream or not stream & 1:
            raise ConnectionFault(codes.PROTOCOL_ERROR, "WINDOW_UPDATE of an idle stream (RFC 9113 section 6.9)")

    def _spend_glitch(self, count: int = 1) -> None:
        """Count something that a client seldom has a reason to send; see ``Budget``."""
        self._count_sent()
        self.budget.spend_glitch(self._owner.clock.now, count)

    def _count_sent(self) -> None:
        output = self._owner.output
        self.budget.sent = self._granted - output.window
        self.budget.pieces = output.pieces

    def _spend_frame(self, kind: int) -> None:
        """Count a frame of a kind whose first frames are free; see ``Budget``."""
        self._count_sent()
        self.budget.spend_frame(kind, self._owner.clock.now)

    def _take_unknown(self, stream: int, flags: int, payload: bytes) -> None:
        self._spend_glitch()


_HANDLERS: dict[int, Callable[[Incoming, int, int, bytes], None]] = {
    frames.DATA: Incoming._take_data,
    frames.HEADERS: Incoming._take_headers,
    frames.PRIORITY: Incoming._take_priority,
    frames.RST_STREAM: Incoming._take_reset,
    frames.SETTINGS: Incoming._take_settings,
    frames.PING: Incoming._take_ping,
    frames.GOAWAY: Incoming._take_goaway,
    frames.WINDOW_UPDATE: Incoming._take_window_update,
    frames.CONTINUATION: Incoming._take_continuation,
    frames.PRIORITY_UPDATE: Incoming._take_priority_update,
}
