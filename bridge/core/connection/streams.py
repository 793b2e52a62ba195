"""Ends event streams when a server stops: responses that may go on for as long as the client stays.

The type of a response says that it may be endless, not that it is: the answer of a language model is an event stream,
too. So, unless it is told a time, a stop ends only the streams that are quiet. The others have as much time as any
request.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Literal, Protocol

from bridge.core.connection.states import CONTENT
from bridge.core.log import gen_log

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from bridge.core.connection.interfaces import Exchange, ExchangeDelegate

    class Served(Exchange, Protocol):
        """An exchange in progress."""

        delegate: ExchangeDelegate

    class Connection(Protocol):
        """What is asked of a connection."""

        @property
        def exchanges(self) -> Iterable[Served]: ...


__all__ = ["StreamEnd", "log_cut", "may_be_endless"]

# Seconds after which a stream that sends nothing is ended.
_QUIET = 5.0
_ENDLESS = (b"text/event-stream", b"multipart/x-mixed-replace")


class StreamEnd:
    """Ends the event streams of a server that stops.

    An application that can be told, as one of ASGI can, is told and may send the end of its response. The responses of
    the others are cut, so that the client notices, and they are told that their client has left.

    Args:
        connections: Returns the open connections.
        loop: The event loop.
        seconds: The time after which streams are ended; "auto" to end those that send nothing for five seconds; None to
            end none.
    """

    def __init__(
        self,
        connections: Callable[[], Iterable[Connection]],
        loop: asyncio.AbstractEventLoop,
        seconds: float | Literal["auto"] | None,
    ) -> None:
        self._connections = connections
        self._loop = loop
        self._quiet = seconds == "auto"
        self._seconds = _QUIET if seconds == "auto" else seconds
        self._sent: dict[Served, int] = {}  # bytes of content at the last look
        self._timer: asyncio.TimerHandle | None = None
        if self._quiet:
            self._look()
        elif self._seconds is not None:
            self._timer = loop.call_later(self._seconds, self._look)

    def cancel(self) -> None:
        """End no more streams."""
        if self._timer is not None:
            self._timer.cancel()
        self._sent.clear()

    def _look(self) -> None:
        """End the streams whose time is over."""
        before, self._sent = self._sent, {}
        for connection in tuple(self._connections()):
            for exchange in tuple(connection.exchanges):
                if exchange.writing is not CONTENT or not may_be_endless(exchange):
                    continue
                if self._quiet and before.get(exchange) != exchange.content_sent:
                    self._sent[exchange] = exchange.content_sent
                else:
                    _end(exchange)
        self._timer = self._loop.call_later(self._seconds or 1.0, self._look)


def may_be_endless(exchange: Exchange) -> bool:
    """Tell whether a response has a content type whose responses may end only when the client leaves."""
    kind = exchange.response_field(b"content-type")
    return kind is not None and kind.lower().startswith(_ENDLESS)


def log_cut(exchanges: Iterable[Exchange]) -> None:
    """Log that responses which have begun are cut off, as the server stops; the first ten of them."""
    for exchange in islice((each for each in exchanges if each.writing is CONTENT), 10):
        line = exchange.head.line
        target = line.target[:80].decode("latin-1")
        gen_log.info("Stopping: the response to %s %s is cut off", line.method_text, target)


def _end(exchange: Served) -> None:
    tell = getattr(exchange.delegate, "end_stream", None)  # few delegates can be told
    if tell is not None:
        tell()
    else:
        log_cut([exchange])
        exchange.fail()
