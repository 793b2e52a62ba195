"""How a connection of HTTP/2 ends: deadlines, GOAWAY in two steps, the close that lets the last frames arrive.

To stop, the peer first gets a GOAWAY that refuses nothing, and a PING behind it. All requests that the peer has sent
before it knew arrive before its answer to the PING. Only then the second GOAWAY follows, which names the last stream
(RFC 9113 section 6.8). So no request is lost.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.core.connection.clock import NEVER
from bridge.core.connection.closing import close
from bridge.core.connection.writer import reset_now
from bridge.core.http2.codes import CANCEL, NO_ERROR, SETTINGS_TIMEOUT, ConnectionFault
from bridge.core.http2.frames import WINDOW_MAX, goaway_frame, ping_frame
from bridge.core.log import gen_log

if TYPE_CHECKING:
    import asyncio
    from typing import Protocol

    from bridge.core.connection.clock import Clock
    from bridge.core.connection.context import ConnectionContext
    from bridge.core.connection.http2exchange import HTTP2Exchange
    from bridge.core.connection.http2output import Output
    from bridge.core.connection.parameters import ConnectionParameters
    from bridge.core.connection.writer import Writer

    class Owner(Protocol):
        """What the ending needs of its connection."""

        clock: Clock
        context: ConnectionContext
        deadline: float
        last_stream: int
        loop: asyncio.AbstractEventLoop
        output: Output
        parameters: ConnectionParameters
        streams: dict[int, HTTP2Exchange]
        writer: Writer

        def abandon(self, exchange: HTTP2Exchange, code: int) -> None: ...
        def abandon_all(self, code: int) -> None: ...
        def fault(self, error: ConnectionFault) -> None: ...
        def leave_if_tunnels(self) -> None: ...
        def refused(self, reason: str) -> None: ...
        def resume_reading(self) -> None: ...


__all__ = ["ALIVE_PING", "DRAIN_PING", "Ending"]

DRAIN_PING = b"\0goaway\0"
ALIVE_PING = b"\0alive?\0"
# Seconds in which the peer may answer the ping behind the first GOAWAY.
_GOAWAY_TIME = 1.0
# After the end the peer may still send this many bytes for this many seconds. A close with unread data would reset the
# connection, and could destroy the last frames on their way.
_LINGER_MAX = 1 << 20
_LINGER_TIME = 2.0
# Seconds for which a connection that is cut off may still send what it has.
_CUT_TIME = 0.2


class Ending:
    """The deadlines and the end of one connection.

    Times are the clock's, without the time in which the loop was blocked (``Clock.lost``).

    Args:
        owner: The connection.

    Attributes:
        announced: The peer was told to open no more streams.
        closed: Nothing is read any more.
        final: The last stream was named. Later streams are refused.
        idle_by: While there is no stream, the time until which one has to be opened.
        settings_by: The time until which the preface has to be complete.
        block_by: The time until which a field block that was begun has to be complete.
    """

    __slots__ = (
        "_close_by",
        "_cut",
        "_discarded",
        "_final_by",
        "_heard",
        "_owner",
        "_ping_by",
        "_pinged",
        "announced",
        "block_by",
        "closed",
        "final",
        "idle_by",
        "settings_by",
    )

    def __init__(self, owner: Owner) -> None:
        self._owner = owner
        self._close_by = self._final_by = self._ping_by = NEVER
        self._cut = False
        self._discarded = 0
        self._heard = False  # something came since the last look at the ping
        self._pinged = False  # a ping is to be answered
        self.announced = self.closed = self.final = False
        self.idle_by = self.settings_by = self.block_by = NEVER

    def after(self, seconds: float | None) -> float:
        """Return the time in *seconds*; NEVER for None."""
        clock = self._owner.clock
        return clock.after(seconds) - clock.lost

    def open(self) -> None:
        """Start the deadlines of a connection that has just been made."""
        parameters = self._owner.parameters
        self.settings_by = self.after(parameters.head_timeout)
        assert parameters.http2 is not None
        self._ping_by = self.after(parameters.http2.ping_interval)
        self._owner.deadline = min(self.settings_by, self._ping_by) + self._owner.clock.lost

    def heard(self) -> None:
        """Take note that the peer has sent something; only called where there is an interval of pings."""
        self._heard = True

    def hurry(self, seconds: float) -> None:
        """Let the preface take *seconds* more at most."""
        self.settings_by = min(self.settings_by, self.after(seconds))
        self.look_at(self.settings_by)

    # ------------------------------------------------------------------ the stop

    def announce(self) -> None:
        """Tell the peer that the connection will end, and refuse nothing yet."""
        if not self.announced and not self.closed:
            owner = self._owner
            self.announced = True
            owner.output.send(goaway_frame(WINDOW_MAX, NO_ERROR) + ping_frame(DRAIN_PING, False))
            self._final_by = self.after(_GOAWAY_TIME)
            self.look_at(self._final_by)

    def finalize(self) -> None:
        """Name the last stream that is served; close when all have ended."""
        if self.announced and not self.final and not self.closed:
            owner = self._owner
            self.final = True
            self._final_by = NEVER
            owner.output.send(goaway_frame(max(owner.last_stream, 0), NO_ERROR))
            if owner.streams:
                owner.leave_if_tunnels()
            else:
                self.close()

    def close(self, linger: bool = True) -> None:
        """Close when everything is sent; a peer that reads slowly has the write timeout, as for any response.

        Args:
            linger: For a moment, take and drop what the peer still sends. False if it sends nothing more.
        """
        owner = self._owner
        if self.closed:
            return
        self.closed = True
        owner.output.flush()
        transport = owner.writer.transport
        if transport is None:
            return
        owner.deadline = NEVER
        owner.resume_reading()
        if linger and transport.can_write_eof():
            self._close_by = self.after(_LINGER_TIME)
            self.look_at(self._close_by)
            try:
                transport.write_eof()
            except OSError:  # asyncio's raises if the peer has reset the connection; connection_lost() follows
                transport.abort()
        else:
            close(transport, self._owner.loop)
        if owner.writer.deadline == NEVER:
            owner.writer.watch()

    def discard(self, size: int) -> None:
        """Drop bytes that come after the end; close if they are too many."""
        self._discarded += size
        transport = self._owner.writer.transport
        if self._discarded > _LINGER_MAX and transport is not None:
            close(transport, self._owner.loop)

    def cut(self) -> None:
        """End at once: streams are reset, and the peer has a moment to take what was sent."""
        owner = self._owner
        transport = owner.writer.transport
        if transport is None:
            return
        waiting = transport.get_write_buffer_size()
        if not self.closed:
            owner.abandon_all(CANCEL)
            if not self.final:
                owner.output.send(goaway_frame(max(owner.last_stream, 0), NO_ERROR))
            self.closed = True
            owner.output.flush()
        if waiting:  # the peer does not read
            reset_now(transport)
        else:
            close(transport, self._owner.loop)
            self._cut = True
            self._close_by = self.after(_CUT_TIME)
            owner.deadline = self._close_by + owner.clock.lost

    # ------------------------------------------------------------------ deadlines

    def look_at(self, time: float) -> None:
        """Look at the deadlines again at *time*, at the latest."""
        owner = self._owner
        time += owner.clock.lost
        owner.deadline = min(owner.deadline, time)

    def idle(self) -> None:
        """Start the deadline of a connection without streams."""
        owner = self._owner
        clock = owner.clock
        self.idle_by = clock.idle_deadline - clock.lost
        if self._final_by == NEVER and self._ping_by == NEVER and self.settings_by == NEVER and self.block_by == NEVER:
            owner.deadline = clock.idle_deadline
        else:
            self.look_at(self.idle_by)

    def look(self, now: float) -> None:
        """Act on the deadlines that have passed, and set the next one.

        1. The connection has ended: it is closed; one that was cut off is aborted.
        2. The preface or a field block is not complete: the connection ends.
        3. Content is late: 408 if its next bytes are, otherwise the stream is reset.
        4. A peer keeps a window shut while content waits for it: the stream is reset. If it is the connection's window,
           all waiting streams are.
        5. The ping behind GOAWAY has no answer: the last stream is named without it.
        6. There is no stream: the connection ends with GOAWAY.
        7. The peer is silent: it is asked with a PING, and the connection ends if it does not answer.

        Args:
            now: The loop's time.
        """
        owner = self._owner
        owner.deadline = NEVER
        now -= owner.clock.lost
        transport = owner.writer.transport
        if transport is None:
            return
        if self.closed:
            if self._close_by >= now:
                self.look_at(self._close_by)
            elif self._cut:
                transport.abort()
            else:
                self._close_by = NEVER
                close(transport, owner.loop)
            return
        if self.settings_by < now:
            owner.fault(ConnectionFault(SETTINGS_TIMEOUT, "Timeout reading the preface"))
            return
        if self.block_by < now:
            owner.fault(ConnectionFault(NO_ERROR, "Timeout reading the request head"))
            return
        if owner.streams:
            self._look_at_streams(now)
        elif self.idle_by < now:
            self.announced = self.final = True
            owner.output.send(goaway_frame(max(owner.last_stream, 0), NO_ERROR))
            self.close()
            return
        else:
            self.look_at(self.idle_by)
        if self._final_by < now:
            self.finalize()
        if self._ping_by < now and not self._ask(transport):
            return
        if not self.closed:
            self.look_at(min(self.settings_by, self.block_by, self._final_by, self._ping_by, owner.output.deadline))

    def _look_at_streams(self, now: float) -> None:
        owner = self._owner
        shut = owner.output.stalled(now)
        following = NEVER
        for exchange in [*owner.streams.values()]:
            content, outbox = exchange.content, exchange.outbox
            if content is not None:
                if min(content.whole_deadline, content.bytes_deadline) < now:
                    why = content.describe_timeout()
                    gen_log.info("%s from %s, stream %d", why, owner.context, exchange.stream_id)
                    owner.refused("body_timeout")
                    if content.whole_deadline < now or exchange.response_started:
                        owner.abandon(exchange, NO_ERROR if exchange.over else CANCEL)
                    else:
                        exchange.refuse(408)
                    continue
                following = min(following, content.whole_deadline, content.bytes_deadline)
            if outbox is not None:
                if outbox.stalled(now) or (shut and outbox.unsent):
                    gen_log.info(
                        "Timeout writing to %s, stream %d: %d bytes unsent, and the window is shut",
                        *(owner.context, exchange.stream_id, outbox.unsent),
                    )
                    owner.abandon(exchange, CANCEL)
                    continue
                following = min(following, outbox.deadline)
            if exchange.answer_by is not None:
                if exchange.answer_by < now:
                    owner.abandon(exchange, CANCEL)
                    continue
                following = min(following, exchange.answer_by)
        if following != NEVER:
            self.look_at(following)

    def _ask(self, transport: asyncio.Transport) -> bool:
        """Send the next ping if the peer has been silent; return False if it has not answered the last one."""
        owner = self._owner
        if self._pinged and not self._heard:
            gen_log.info("HTTP/2 from %s: no answer to a ping", owner.context)
            reset_now(transport)
            return False
        self._pinged = not self._heard
        self._heard = False
        if self._pinged:
            owner.output.send(ping_frame(ALIVE_PING, False))
        assert owner.parameters.http2 is not None
        self._ping_by = self.after(owner.parameters.http2.ping_interval)
        return True
