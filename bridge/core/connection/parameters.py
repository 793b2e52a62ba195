"""The limits and times of a server's connections."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from bridge.core.connection.interfaces import Observer
from bridge.core.connection.times import note_opening, note_times
from bridge.core.http.limits import Limits

if TYPE_CHECKING:
    from bridge.core.connection.context import ConnectionContext

__all__ = ["ConnectionParameters", "HTTP2Parameters", "method_for"]


class HTTP2Parameters:
    """How HTTP/2 is served (RFC 9113). Sizes are bytes, times are seconds.

    Attributes:
        cleartext: Called with the two ends of a connection without TLS. Tells whether its peer may speak HTTP/2 by
            prior knowledge (section 3.3).
        alone: HTTP/1 is not served. A peer that does not speak HTTP/2 is answered 400.
        max_concurrent_streams: Most exchanges of one connection at once.
        max_stream_window: The window of a stream's content begins with 65,535 and grows up to this.
        max_header_list_size: Most bytes of the fields of one head, counting 32 more for each field; 431 beyond.
        ping_interval: A PING is sent to a peer that has sent nothing for so long. It has to answer in the same time.
            None for no pings.
        extended_connect: The delegate takes extended CONNECT, which opens WebSockets (RFC 8441).
    """

    __slots__ = (
        "alone",
        "cleartext",
        "extended_connect",
        "max_concurrent_streams",
        "max_header_list_size",
        "max_stream_window",
        "ping_interval",
    )

    def __init__(
        self,
        *,
        cleartext: Callable[[ConnectionContext], bool] | None = None,
        alone: bool = False,
        max_concurrent_streams: int = 128,
        max_stream_window: int = 1 << 20,
        max_header_list_size: int = 32768,
        ping_interval: float | None = None,
        extended_connect: bool = False,
    ) -> None:
        self.cleartext = cleartext or _nobody
        self.alone = alone
        self.max_concurrent_streams = max_concurrent_streams
        self.max_stream_window = max_stream_window
        self.max_header_list_size = max_header_list_size
        self.ping_interval = ping_interval
        self.extended_connect = extended_connect


def _nobody(context: ConnectionContext) -> bool:
    return False


def method_for(observer: Observer | None, event: str) -> Callable[..., None] | None:
    """Return the method of an observer for one of the events of :class:`Observer`; None if it does nothing."""
    method: Callable[..., None] | None = getattr(observer, event, None)
    return None if getattr(method, "__func__", method) is getattr(Observer, event) else method


class ConnectionParameters:
    """Limits and times of a server's connections. Sizes are bytes, times are seconds, None means no limit.

    Attributes:
        limits: Limits of heads and chunk lines.
        no_keep_alive: Close after every response.
        chunk_size: Most content handed to a delegate at once.
        max_body_size: Most content of one request; 413 beyond.
        max_buffer_size: Most bytes that a stream buffers for its reader when it has taken the connection over.
        head_timeout: Time for a whole head, counted from its first byte, for the first one from the connection's start;
            408 after it.
        keep_alive_timeout: Time that a connection may be idle between requests; closed without an answer after it.
        body_timeout: Time within which more content has to come; 408 after it.
        min_body_rate: Bytes of content that earn a second of that time. None if any byte earns all of it.
        body_total_timeout: Time for the whole content of one request; closed without an answer after it (Tornado's
            ``body_timeout``).
        write_timeout: Time within which the peer has to read something; the connection is reset after it.
        max_requests: Most exchanges on one connection; 0 for no limit.
        high_water: When more bytes than this wait to be sent, writers are paused.
        limit_after_start: Apply the content's limit only after the delegate was called, which may change it (Tornado).
        observer: Is told of connections and exchanges; None for no observer.
        exchange_started: The observer's method, kept here so that it is called through a name: CPython 3.11 has no fast
            call for an attribute that is no method of the class. None if the observer does not define it.
        exchange_ended: The same.
        times: Makes the ``times`` of an exchange, for the observer; None for exchanges without.
        http2: How HTTP/2 is served; None if it is not.
    """

    __slots__ = (
        "body_timeout",
        "body_total_timeout",
        "chunk_size",
        "exchange_ended",
        "exchange_started",
        "head_timeout",
        "high_water",
        "http2",
        "keep_alive_timeout",
        "limit_after_start",
        "limits",
        "max_body_size",
        "max_buffer_size",
        "max_requests",
        "min_body_rate",
        "no_keep_alive",
        "observer",
        "times",
        "write_timeout",
    )

    def __init__(
        self,
        *,
        limits: Limits | None = None,
        no_keep_alive: bool = False,
        chunk_size: int = 65536,
        max_body_size: int | None = None,
        max_buffer_size: int = 104857600,
        head_timeout: float | None = 10.0,
        keep_alive_timeout: float | None = 5.0,
        body_timeout: float | None = 30.0,
        body_total_timeout: float | None = None,
        write_timeout: float | None = 60.0,
        max_requests: int = 0,
        min_body_rate: int | None = 240,
        high_water: int = 16384,
        limit_after_start: bool = False,
        observer: Observer | None = None,
        timed: bool = False,
        timed_answers: bool = True,
        http2: HTTP2Parameters | None = None,
    ) -> None:
        self.limits = Limits() if limits is None else limits
        self.no_keep_alive = no_keep_alive
        self.chunk_size = chunk_size
        self.max_body_size = max_body_size
        self.max_buffer_size = max_buffer_size
        self.head_timeout = head_timeout
        self.keep_alive_timeout = keep_alive_timeout
        self.body_timeout = body_timeout
        self.body_total_timeout = body_total_timeout
        self.write_timeout = write_timeout
        self.max_requests = max_requests
        self.min_body_rate = min_body_rate
        self.high_water = high_water
        self.limit_after_start = limit_after_start
        self.observer = observer
        self.exchange_started = method_for(observer, "exchange_started")
        self.exchange_ended = method_for(observer, "exchange_ended")
        self.times = (note_times if timed_answers else note_opening) if timed else None
        self.http2 = http2

    def shortest(self) -> float:
        """Return the shortest timeout in seconds."""
        times = (
            self.head_timeout,
            self.keep_alive_timeout,
            self.body_timeout,
            self.body_total_timeout,
            self.write_timeout,
            self.http2 and self.http2.ping_interval,
        )
        return min((seconds for seconds in times if seconds), default=60.0)
