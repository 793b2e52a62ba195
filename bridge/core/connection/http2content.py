"""The content of an HTTP/2 request on its way to the delegate: length, limit, window, pauses, deadlines."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from bridge.core.connection.clock import NEVER
from bridge.core.connection.pace import Pace
from bridge.core.connection.pauses import BY_DELEGATE, pause_until
from bridge.core.connection.states import CONTENT
from bridge.core.http2.codes import FLOW_CONTROL_ERROR, MalformedRequest, StreamFault
from bridge.core.http2.windows import INITIAL_WINDOW, ReceiveWindow
from bridge.errors import LimitExceeded
from bridge.forks import FAULTS

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Awaitable
    from typing import Protocol

    from bridge.core.connection.clock import Clock
    from bridge.core.connection.interfaces import ExchangeDelegate
    from bridge.core.connection.parameters import ConnectionParameters
    from bridge.core.connection.states import Writing

    class Stream(Protocol):
        """What the content needs of its exchange."""

        continue_pending: bool
        delegate: ExchangeDelegate
        max_body_size: int | None
        stream_id: int
        writing: Writing

        @property
        def clock(self) -> Clock: ...
        @property
        def finished(self) -> bool: ...
        @property
        def loop(self) -> asyncio.AbstractEventLoop: ...
        @property
        def parameters(self) -> ConnectionParameters: ...
        @property
        def takes_content(self) -> bool: ...
        def abort(self) -> None: ...
        def announce_window(self, increment: int) -> None: ...
        def complete_request(self) -> None: ...
        def hold(self, size: int) -> None: ...
        def report_failure(self, error: BaseException) -> None: ...
        def watch(self, deadline: float) -> None: ...


__all__ = ["RequestContent"]

# Bytes. Waiting pieces are joined up to this size.
_JOINED_MAX = 4096


class RequestContent:
    """Content that is still to come, or that waits for the delegate.

    Args:
        stream: The exchange.
        length: Bytes that the head declares; None if it does not.
        window: Most bytes that the stream's window grows to.
        tunnel: The stream is for another protocol (RFC 8441): what comes waits until that protocol takes it, see
            :meth:`open_tunnel`.

    Attributes:
        ended: The peer has sent all of it.
        held: Bytes that wait for the delegate, since it has paused.
        tunnel: The argument. Such content has neither a limit nor a deadline.
        whole_deadline: Clock time, without blocked time, until which the whole content has to come.
    """

    __slots__ = (
        "_chunks",
        "_debt",
        "_delivering",
        "_left",
        "_limit_pending",
        "_pace",
        "_paused",
        "_received",
        "_stream",
        "ended",
        "held",
        "tunnel",
        "whole_deadline",
        "window",
    )

    def __init__(self, stream: Stream, length: int | None, window: int, tunnel: bool = False) -> None:
        parameters = stream.parameters
        self._stream = stream
        self._left = length
        self._received = 0
        self._debt = 0  # bytes that were taken and not credited
        self._limit_pending = (parameters.limit_after_start or length is None) and not tunnel
        self._paused = BY_DELEGATE if tunnel else 0
        self._chunks: deque[tuple[bytes, int]] | None = None  # (content, its share of the window); made for the first
        self._delivering = False
        self.held = 0
        self.ended = False
        self.tunnel = tunnel
        self.window = ReceiveWindow(INITIAL_WINDOW, window, stream.clock.now)
        self.whole_deadline = NEVER if tunnel else self._after(parameters.body_total_timeout)
        self._pace = None if tunnel else Pace(stream.clock, parameters.body_timeout, parameters.min_body_rate)
        if stream.continue_pending and self._pace is not None:
            self._pace.pause()  # the client waits for 100 (Continue), which the delegate sends
        self._expect_bytes()

    def describe_timeout(self) -> str:
        """Return for the log why a deadline has passed."""
        return "Timeout reading body" if self._pace is None else self._pace.describe()

    @property
    def bytes_deadline(self) -> float:
        """Clock time, without blocked time, until which more has to come."""
        return NEVER if self._pace is None else self._pace.deadline

    # ------------------------------------------------------------------ from the peer

    def take(self, data: bytes, size: int, ended: bool) -> None:
        """Take the content of a DATA frame.

        Args:
            data: The content without padding; may be empty.
            size: What the frame takes of the window: its whole payload.
            ended: The content ends with it.

        Raises:
            StreamFault: The content is longer or shorter than declared, or exceeds the window.
            LimitExceeded: 413.
        """
        if not self.window.take(size):
            raise StreamFault(FLOW_CONTROL_ERROR, "more content than the stream's window (RFC 9113 section 6.9.1)")
        length = len(data)
        self._received += length
        stream = self._stream
        if self._left is not None:
            self._left -= length
            if self._left < 0 or (ended and self._left):
                over = "longer" if self._left < 0 else "shorter"
                raise MalformedRequest(f"content {over} than its content-length (RFC 9113 section 8.1.1)")
        self.ended = ended
        if ended:
            self._expect_nothing()
        elif not self._paused and self._pace is not None:
            self._pace.take(length, free=stream.writing is CONTENT)
            self._expect_bytes()
        if self._limit_pending:
            self._apply_limit()
        padding = size - length
        if not length:
            self._credit(padding)
        elif self._paused or self._chunks:
            self._keep(data, size)
            self._hold(size)
            return
        else:
            self._hand_over(data, size)
        if ended:
            self.finish()

    def _keep(self, data: bytes, size: int) -> None:
        """Let content wait. Small pieces are joined: each would take memory besides its bytes."""
        chunks = self._chunks
        if chunks is None:
            chunks = self._chunks = deque()
        if chunks and len(chunks[-1][0]) + len(data) <= _JOINED_MAX:
            before, before_size = chunks[-1]
            chunks[-1] = before + data, before_size + size
        else:
            chunks.append((data, size))

    def end(self) -> None:
        """Take note that trailers have ended the content.

        Raises:
            StreamFault: The content is shorter than declared.
        """
        if self._left:
            raise MalformedRequest("content shorter than its content-length (RFC 9113 section 8.1.1)")
        self.ended = True
        self._expect_nothing()
        self.finish()

    def _apply_limit(self) -> None:
        stream = self._stream
        limit = stream.parameters.max_body_size if stream.max_body_size is None else stream.max_body_size
        if limit is None:
            return
        declared = self._received + (self._left or 0)
        if declared > limit:
            raise LimitExceeded(413, f"content of {declared} bytes or more, limit {limit}")

    # ------------------------------------------------------------------ to the delegate

    def _hand_over(self, data: bytes, size: int) -> None:
        self._delivering = True
        try:
            waiting = self._stream.delegate.data_received(data)
        finally:
            self._delivering = False
        if waiting is not None:
            self.pause_until(waiting)
        self._credit(size)

    def _credit(self, size: int) -> None:
        """Let the peer send *size* more bytes, unless the content is complete or the delegate has paused."""
        self._debt += size
        stream = self._stream
        if self._debt and not self.ended and not self._paused and stream.takes_content:
            increment = self.window.credit(self._debt, stream.clock.now)
            self._debt = 0
            if increment:
                stream.announce_window(increment)

    def _hold(self, size: int) -> None:
        """Note that *size* more bytes, or fewer, wait for the delegate."""
        self.held += size
        self._stream.hold(size)

    def finish(self) -> None:
        """Tell the delegate that the request is complete, once it has taken all content and has not paused."""
        stream = self._stream
        if self.ended and not self._chunks and not self._paused and not self._delivering and stream.takes_content:
            stream.complete_request()

    def _deliver(self) -> None:
        """Hand over what has waited, until the delegate pauses again."""
        if self._delivering:  # the delegate has resumed while it takes content: the caller of the delegate goes on
            return
        chunks = self._chunks
        try:
            while chunks and not self._paused:
                data, size = chunks.popleft()
                self._hold(-size)
                self._hand_over(data, size)
            self.finish()
        except FAULTS as exc:  # the delegate's exception, not the caller's
            self._stream.report_failure(exc)

    def drop(self) -> None:
        """Drop what waits: the delegate takes no more."""
        self._expect_nothing()
        self._paused = 0
        if self.held:
            self._hold(-self.held)
            self._chunks = None

    def drain(self, most: int) -> bool:
        """Drop the rest and let the peer send it, if it is known to be at most *most* bytes. Tell whether it is.

        The stream's window is not renewed for the rest, and the usual deadlines of content hold.
        """
        if self._left is None or self._left > min(most, INITIAL_WINDOW):
            return False
        parameters = self._stream.parameters
        self._pace = Pace(self._stream.clock, parameters.body_timeout, parameters.min_body_rate)
        self._expect_bytes()
        return True

    def open_tunnel(self) -> bytes:
        """Return what has waited: another protocol reads the stream from now on."""
        waiting = b"".join([data for data, _ in self._chunks or ()])
        size = self.held
        self.drop()
        self._credit(size)
        return waiting

    # ------------------------------------------------------------------ pauses

    def pause(self, reason: int = BY_DELEGATE) -> None:
        """Hand no content over. The deadline of the next bytes is off meanwhile, that of the whole content stays."""
        self._paused |= reason
        if self._pace is not None:
            self._pace.pause()

    def resume(self, reason: int = BY_DELEGATE) -> None:
        """End the pause for *reason*. Content goes on if it is not paused for another reason, too."""
        if not self._paused & reason:
            return
        self._paused &= ~reason
        if self._paused:
            return
        if not self.ended:
            self.go_on_waiting()
            self._credit(0)
        self._deliver()

    def go_on_waiting(self) -> None:
        """Let the time for the next bytes go on, unless content is paused or the peer waits for 100 (Continue)."""
        if self._pace is not None and not self._paused and not self._stream.continue_pending:
            self._pace.resume()
        self._expect_bytes()

    def pause_until(self, waiting: Awaitable[None]) -> None:
        """Hand no content over until *waiting*, which the delegate has returned, is done."""
        pause_until(waiting, self._stream, self.pause, self.resume)

    # ------------------------------------------------------------------ deadlines

    def set_timeout(self, seconds: float | None) -> None:
        """Set the deadline of the whole content to *seconds* from now; None for no limit."""
        if not self.ended and not self.tunnel:
            self._stream.clock.shorten(seconds)
            self.whole_deadline = self._after(seconds)
            self._expect_bytes()

    def _expect_bytes(self) -> None:
        """Tell the connection when it has to check the deadlines."""
        if not self.tunnel:
            self._stream.watch(min(self.bytes_deadline, self.whole_deadline))

    def _expect_nothing(self) -> None:
        """Drop the deadlines: nothing more has to come."""
        self._pace = None
        self.whole_deadline = NEVER

    def _after(self, seconds: float | None) -> float:
        clock = self._stream.clock
        return clock.after(seconds) - clock.lost
