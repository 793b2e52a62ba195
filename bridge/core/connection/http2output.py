"""What a connection of HTTP/2 sends: frames in a row, and content as the windows and the transport have room for it.

Heads and control frames go out in the order in which they come, at the end of the loop's turn, in one write. Content
that fits into the windows goes with them. Content that does not waits in an Outbox of its stream. The scheduler says
which stream's turn it is (RFC 9218), and only a little waits in the transport: so a reset, a small response or a more
urgent stream overtakes megabytes.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from bridge.core.connection.clock import NEVER
from bridge.core.connection.states import HEAD
from bridge.core.http.message import ResponseHead
from bridge.core.http.status import status_text
from bridge.core.http2.encoder import FieldEncoder
from bridge.core.http2.frames import FRAME_SIZE, data_header, headers_frame
from bridge.core.http2.scheduler import Scheduler
from bridge.errors import ConnectionGone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Protocol

    from bridge.core.connection.budgets import Budget
    from bridge.core.connection.clock import Clock
    from bridge.core.connection.parameters import ConnectionParameters
    from bridge.core.connection.states import Writing
    from bridge.core.connection.writer import Writer
    from bridge.core.http.fields import Fields

    class LateHead(Protocol):
        """An exchange whose response has a head."""

        writing: Writing
        continue_pending: bool

        def send(self, data: bytes = b"", last: bool = False) -> None:
            """Send content; the first one is sent behind the head."""

    class Stream(Protocol):
        """What an outbox needs of its exchange."""

        send_window: int
        stream_id: int

        @property
        def priority(self) -> tuple[int, bool]: ...
        def sent(self) -> None: ...


__all__ = ["NEVER_PAUSED", "Outbox", "Output"]

# When this many bytes wait in the transport, content waits in its stream. At most as many are handed over in one turn.
_ROOM = 65536
# When more bytes than this wait in all streams together, a stream's writer is paused while any of its own bytes wait.
_QUEUED_MAX = 1 << 20
# Fewer waiting bytes than this are not noted in the budget of the process.
_LITTLE = 16384
# Bytes that a peer has to take within the write timeout. A peer that takes an octet now and then counts as one that
# does not read.
_PROGRESS = 1024


class _NeverPaused:
    """The WriteState of a stream of which nothing waits."""

    __slots__ = ()

    paused = False
    unread = 0

    def writable(self) -> asyncio.Future[None]:
        """Return a future that is done."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        future.set_result(None)
        return future


NEVER_PAUSED = _NeverPaused()
"""The only _NeverPaused: it has no state."""


class Output:
    """Sends the frames of one connection.

    Args:
        writer: The connection's writer.
        parameters: Limits and times.
        clock: The server's clock.
        loop: The event loop.
        watch: Called with the clock's time, without blocked time, of a deadline that has been set.
        end: Called to end the connection when the peer does not read; returns what was ended, in words.

    Attributes:
        loop: The argument.
        blocked: The transport has enough to send: content has to wait in its stream. The connection sets it.
        encoder: Encodes fields. What it returns has to be sent in the same order.
        heads: Exchanges that have got a response head in this turn of the loop. A head is sent at the end of the turn
            if no content has come with it. Code that adds one calls :meth:`schedule`, unless ``scheduled`` is true.
        high_water: When more bytes than this of one stream wait, its writers are paused.
        pieces: Pieces of streamed content that were sent whole: how many times nothing of a stream was left waiting.
        peer_ended: The peer sends nothing more, so that a window that is shut stays shut; see
            :meth:`shorten_deadlines`.
        parts: The bytes that go out at the end of this turn of the loop. Code that adds some calls :meth:`schedule`,
            unless ``scheduled`` is true; :meth:`send` does both.
        queued: Bytes of content that wait in all streams.
        scheduled: :meth:`flush` is called at the end of this turn of the loop.
        window: Bytes of content that the peer takes on the connection (RFC 9113 section 6.9).
        deadline: Clock time, without blocked time, until which the peer has to open the connection's window; NEVER
            unless content waits for that.
    """

    __slots__ = (
        "_clock",
        "_end",
        "_noted",
        "_progress",
        "_read",
        "_scheduler",
        "_watch",
        "_write_timeout",
        "_writer",
        "blocked",
        "deadline",
        "encoder",
        "heads",
        "high_water",
        "loop",
        "parts",
        "peer_ended",
        "pieces",
        "queued",
        "scheduled",
        "window",
    )

    def __init__(
        self,
        writer: Writer,
        parameters: ConnectionParameters,
        clock: Clock,
        loop: asyncio.AbstractEventLoop,
        watch: Callable[[float], None],
        end: Callable[[], str],
    ) -> None:
        self._writer = writer
        self._end = end
        self._noted = False  # the budget of the process counts what waits
        self._read = 0  # bytes of content that were sent since it was noted
        self._clock = clock
        self.loop = loop
        self._watch = watch
        self._write_timeout = parameters.write_timeout
        self.parts: list[bytes | memoryview] = []  # for the end of this turn of the loop
        self.scheduled = False
        self._scheduler: Scheduler[Outbox] = Scheduler()
        self._progress = 0  # bytes of content that were sent since the deadline was set
        self.blocked = False
        self.peer_ended = False
        self.encoder = FieldEncoder()
        self.heads: list[LateHead] = []
        self.high_water = parameters.high_water
        self.queued = 0
        self.window = 65535
        self.pieces = 0
        self.deadline = NEVER

    def send(self, frames: bytes) -> None:
        """Send frames at the end of this turn of the loop, behind those that were given before."""
        self.parts.append(frames)
        if not self.scheduled:
            self.schedule()

    def refuse(self, stream: int, status: int, common: bytes, fields: Fields, window: int | None) -> int:
        """Send the server's own answer to a fault: its content is the status as text.

        Args:
            stream: The stream, which ends with it.
            status: 400 to 599.
            common: The field lines that every response starts with.
            fields: (name, value) pairs of more fields.
            window: Bytes of content that the peer takes on the stream; None for HEAD, whose answer only declares it.

        Returns:
            Bytes of content. If the window has no room for the content, the answer has none, and declares none.
        """
        text = status_text(status)
        size = len(text)
        response = ResponseHead(status, [(b"content-type", b"text/plain; charset=utf-8"), *fields])
        if window is not None and (size > min(window, self.window) or self.blocked):
            size = 0
        block = self.encoder.head(response, common, size)
        if window is None or not size:
            self.send(headers_frame(stream, block, True))
            return 0
        self.window -= size
        self.send(headers_frame(stream, block, False) + data_header(size, stream, True) + text)
        return size

    def schedule(self) -> None:
        """Call :meth:`flush` at the end of this turn of the loop."""
        if not self.scheduled:
            self.scheduled = True
            clock = self._clock
            if not clock.unsent:
                self.loop.call_soon(clock.flush)
            clock.unsent.append(self)

    def flush(self) -> None:
        """Hand everything to the transport that it takes now."""
        if self.heads:
            heads, self.heads = self.heads, []
            for exchange in heads:
                if exchange.writing is HEAD and not exchange.continue_pending:  # or it would seem to refuse content
                    exchange.send()
        self.scheduled = False
        writer = self._writer
        transport = writer.transport
        if transport is None or transport.is_closing():
            self.parts.clear()
            return
        parts = self.parts
        over: list[Stream] = []
        if self.queued and not writer.paused:
            self._pump(parts, _ROOM - transport.get_write_buffer_size(), over)
        if parts:
            self.parts = []
            writer.write(parts[0] if len(parts) == 1 else b"".join(parts))  # type: ignore[arg-type]  # writes take any buffer
        for stream in over:  # after the write: the last stream's end may close the connection, which flushes again
            stream.sent()
        if self.queued and self.window > 0 and not writer.paused and self._scheduler:
            self.schedule()

    def _pump(self, parts: list[bytes | memoryview], room: int, over: list[Stream]) -> None:
        """Move at most *room* bytes of waiting content to *parts*, a frame of each stream in its turn.

        Streams that end with it are added to *over*.
        """
        scheduler = self._scheduler
        while room > 0 and self.window > 0:
            outbox = scheduler.next()
            if outbox is None:
                break
            size = outbox.give(parts, min(FRAME_SIZE, self.window), over)
            room -= size
            self.window -= size
            self.queued -= size
            self._progress += size
            self._read += size
            if not outbox.unsent:
                self.pieces += 1
            outbox.wake()
        if self._noted:
            self.note_queued()
        if self.window <= 0 and self.deadline == NEVER and scheduler:
            self._progress = 0
            self.deadline = self.start_deadline()

    # ------------------------------------------------------------------ called by outboxes

    def add(self, outbox: Outbox) -> None:
        """Let *outbox* take part: it has content and a window."""
        self._scheduler.add(outbox)
        self.schedule()

    def remove(self, outbox: Outbox) -> None:
        """Let *outbox* take part no more."""
        self._scheduler.remove(outbox)

    def reprioritise(self, outbox: Outbox, urgency: int, incremental: bool) -> None:
        """Change the priority of *outbox*."""
        self._scheduler.reprioritise(outbox, urgency, incremental)

    def take_back(self, size: int) -> None:
        """Take note that *size* bytes that have waited will not be sent."""
        self.queued -= size
        if self._noted:
            self.note_queued()

    def note_queued(self) -> None:
        """Note how much waits in the budget of the process, unless it is little."""
        if self.queued <= _LITTLE:
            self._forget_queued()
            return
        if not self._noted:
            self._noted = True
            self._read = 0
        self._clock.budgets.unsent.note_reader(self, self.queued, anew=False)

    def _forget_queued(self) -> None:
        self._noted = False
        self._clock.budgets.unsent.forget(self)

    @property
    def is_full(self) -> bool:
        """Much waits here, or for clients of all connections: delegates should make no more content."""
        return self.queued > _QUEUED_MAX or self._clock.budgets.unsent.is_short

    @property
    def bytes_read(self) -> int:
        """How many bytes the peer has taken since much began to wait."""
        return self._read

    def give_up(self, budget: Budget) -> str:
        """End the connection: the peer reads next to nothing."""
        self._forget_queued()
        return self._end()

    def start_deadline(self) -> float:
        """Return the deadline of content that waits for a window from now on: now, if no window can open."""
        deadline = self._clock.after(0.0 if self.peer_ended else self._write_timeout) - self._clock.lost
        self._watch(deadline)
        return deadline

    # ------------------------------------------------------------------ called by the connection

    def stalled(self, now: float) -> bool:
        """Tell whether the peer has kept the connection's window shut for the whole write timeout.

        Args:
            now: The clock's time without blocked time.
        """
        if self.deadline >= now:
            return False
        self.deadline = NEVER
        if self.window > 0 or not self._scheduler:
            return False
        if self._progress < _PROGRESS:
            return True
        self._progress = 0
        self.deadline = self.start_deadline()
        return False

    def shorten_deadlines(self, outboxes: Iterable[Outbox]) -> None:
        """The peer has ended: wait no longer for the connection's window, nor for those of *outboxes*."""
        self.peer_ended = True
        parties: list[Output | Outbox] = [self, *outboxes]
        for waiting in parties:
            if waiting.deadline != NEVER:
                waiting.deadline = self.start_deadline()

    def close(self) -> None:
        """Forget what was not sent."""
        self._forget_queued()
        self.parts.clear()
        self.deadline = NEVER


def _whole(view: memoryview) -> int:
    """Return the size in bytes of the whole object of which *view* shows a part."""
    return memoryview(view.obj).nbytes


class Outbox:
    """The waiting content of one stream, and the end of the stream behind it. It is the stream's WriteState.

    Args:
        stream: The exchange.
        output: The connection's output.

    Attributes:
        paused: Its writers have to wait.
        stream_id: The stream's identifier.
        urgency: From 0, the most urgent, to 7 (RFC 9218 section 4.1).
        incremental: It takes turns with others of its urgency (RFC 9218 section 4.2).
        unsent: Bytes that wait.
        deadline: Clock time, without blocked time, until which the peer has to open the stream's window; NEVER unless
            content waits for that.
    """

    __slots__ = (
        "_active",
        "_ended",
        "_output",
        "_pieces",
        "_progress",
        "_stream",
        "_trailers",
        "_waiters",
        "deadline",
        "incremental",
        "paused",
        "stream_id",
        "unsent",
        "urgency",
    )

    def __init__(self, stream: Stream, output: Output) -> None:
        self._stream: Stream | None = stream
        self._output = output
        self._pieces: deque[bytes | memoryview] = deque()
        self._ended = False
        self._trailers = b""
        self._active = False  # the scheduler has it
        self._progress = 0  # bytes that were sent since the deadline was set
        self._waiters: list[asyncio.Future[None]] = []
        self.stream_id = stream.stream_id
        self.urgency, self.incremental = stream.priority
        self.unsent = 0
        self.paused = False
        self.deadline = NEVER

    def put(self, data: bytes) -> None:
        """Add content, which is not empty."""
        output = self._output
        size = len(data)
        self._pieces.append(data)
        self.unsent += size
        output.queued += size
        if output.queued > _LITTLE:
            output.note_queued()
        self.paused = self.unsent > output.high_water or output.is_full
        self.activate()

    def end(self, trailers: bytes = b"") -> None:
        """End the stream behind the waiting content, of which there is some.

        Args:
            trailers: The checked field lines of a trailer section; empty for none.
        """
        self._ended = True
        self._trailers = trailers

    def activate(self) -> None:
        """Take part in sending if there is content and a window. Otherwise take no part, and start the deadline."""
        stream = self._stream
        if stream is None or not self.unsent:
            return
        if stream.send_window > 0:
            if not self._active:
                self._active = True
                self._output.add(self)
            return
        if self._active:  # new settings have shut the window
            self._active = False
            self._output.remove(self)
        if self.deadline == NEVER:
            self._progress = 0
            self.deadline = self._output.start_deadline()

    def prioritize(self, urgency: int, incremental: bool) -> None:
        """Change the priority (RFC 9218 section 7)."""
        self._output.reprioritise(self, urgency, incremental)

    def give(self, parts: list[bytes | memoryview], most: int, ended: list[Stream]) -> int:
        """Add a frame of at most *most* bytes to *parts*, and the end of the stream behind the last content.

        A stream that ends with it is added to *ended*.

        Returns:
            Bytes of content.
        """
        stream = self._stream
        assert stream is not None, "the outbox is closed"
        most = min(most, stream.send_window, self.unsent)
        at = len(parts)
        parts.append(b"")
        left = most
        pieces = self._pieces
        while left:
            piece = pieces[0]
            size = len(piece)
            if size <= left:
                parts.append(piece)
                pieces.popleft()
                left -= size
            else:
                view = piece if piece.__class__ is memoryview else memoryview(piece)
                parts.append(view[:left])
                rest = view[left:]
                # A view keeps the whole object alive of which it shows a part, and no budget would count that.
                pieces[0] = bytes(rest) if (size - left) * 4 < _whole(rest) else rest
                left = 0
        self.unsent -= most
        stream.send_window -= most
        self._progress += most
        over = not self.unsent and self._ended
        parts[at] = data_header(most, self.stream_id, over and not self._trailers)
        if over and self._trailers:
            parts.append(headers_frame(self.stream_id, self._output.encoder.fields(self._trailers), True))
        if not self.unsent or stream.send_window <= 0:
            self._active = False
            self._output.remove(self)
        if not self.unsent:
            self.deadline = NEVER
        elif stream.send_window <= 0 and self.deadline == NEVER:
            self._progress = 0
            self.deadline = self._output.start_deadline()
        if over:
            ended.append(stream)
        return most

    def stalled(self, now: float) -> bool:
        """Tell whether the peer has kept the stream's window shut for the whole write timeout.

        Args:
            now: The clock's time without blocked time.
        """
        if self.deadline >= now or self._stream is None:
            return False
        self.deadline = NEVER
        if not self.unsent:
            return False
        if self._progress < _PROGRESS:
            return self._stream.send_window <= 0
        self._progress = 0
        if self._stream.send_window <= 0:
            self.deadline = self._output.start_deadline()
        return False

    # ------------------------------------------------------------------ the writers

    def writable(self) -> asyncio.Future[None]:
        """Return a future that is done when enough has been sent; it fails with ConnectionGone if the stream ends."""
        future: asyncio.Future[None] = self._output.loop.create_future()
        if self._stream is None:
            future.set_exception(ConnectionGone("the stream was reset"))
        elif not self.paused:
            future.set_result(None)
        else:
            self._waiters.append(future)
        return future

    @property
    def unread(self) -> int:
        """How many bytes wait for the peer to open a window."""
        return self.unsent

    def wake(self) -> None:
        """Let the writers go on if little enough waits."""
        output = self._output
        if self.paused and self.unsent <= (0 if output.is_full else output.high_water // 4):
            self.paused = False
            waiters, self._waiters = self._waiters, []
            for future in waiters:
                if not future.done():
                    future.set_result(None)

    def close(self) -> None:
        """Drop what waits: the stream was reset, or the connection has ended. Writers get a ConnectionGone."""
        if self._stream is None:
            return
        self._stream = None
        if self._active:
            self._active = False
            self._output.remove(self)
        self._output.take_back(self.unsent)
        self.unsent = 0
        self._pieces.clear()
        self.paused = False
        self.deadline = NEVER
        waiters, self._waiters = self._waiters, []
        for future in waiters:
            if not future.done():
                future.set_exception(ConnectionGone("the stream was reset"))
