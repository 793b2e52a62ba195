"""Limits how many requests of a server are in progress at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bridge.core.connection.interfaces import NULL_DELEGATE, Observer
from bridge.core.log import gen_log

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from bridge.core.connection.interfaces import Connection, ConnectionDelegate, Exchange, ExchangeDelegate

__all__ = ["ConcurrencyLimit"]

# A request whose content has come for this many seconds, at fewer than this many bytes a second, gives its place to a
# request that needs it.
_SLOW_RATE = 4096
_PATIENCE = 5.0


class ConcurrencyLimit(Observer):
    """Answers 503 while too many requests are in progress. The application never sees these requests.

    A client that sends its content slowly holds no place for long. If the delegate collects content before it begins, a
    request takes its place when the content is complete. Otherwise it has one from the start. If its content has come
    slowly for five seconds, it gives its place to the next request that finds none.

    It is both a delegate around the application's and an observer: only observers are told of every end of an exchange.

    Args:
        delegate: The application's delegate.
        limit: Most requests in progress.

    Attributes:
        count: Exchanges in progress.
    """

    def __init__(self, delegate: ConnectionDelegate, limit: int) -> None:
        self._delegate = delegate
        self._limit = limit
        self._collects = bool(getattr(delegate, "collects", False))
        self._receiving: dict[Exchange, _Receiving] = {}  # those whose content is not complete, the oldest first
        self.count = 0

    def start_exchange(self, exchange: Exchange) -> ExchangeDelegate:
        """Pass the exchange on, or answer it."""
        length = exchange.head.content_length
        collects = self._collects and length != 0
        if collects:
            self.count -= 1  # exchange_started has counted it: its place comes later
        elif self.count > self._limit:
            self._make_room()
            if self.count > self._limit:
                self._refuse(exchange)
                return NULL_DELEGATE
        if length == 0:
            return self._delegate.start_exchange(exchange)
        receiving = self._receiving[exchange] = _Receiving(self, exchange, waits=collects)
        receiving.delegate = self._delegate.start_exchange(exchange)
        return receiving

    def _make_room(self) -> None:
        """End one request that has a place and whose content comes slowly, if there is one."""
        for exchange, receiving in self._receiving.items():
            age = exchange.clock.now - receiving.since
            if age < _PATIENCE:
                return
            if not receiving.waits and receiving.size < age * _SLOW_RATE:
                gen_log.info(
                    "A request from %s gives its place to another (--limit-concurrency): %d bytes of content in %.0f s",
                    *(exchange.context, receiving.size, age),
                )
                if exchange.times is not None:
                    exchange.times.refused = "overload"
                exchange.fail(408)
                return

    def complete(self, exchange: Exchange, receiving: _Receiving) -> bool:
        """Give a place to a request whose content is complete; False if there is none, and it was answered."""
        self._receiving.pop(exchange, None)
        if not receiving.waits:
            return True
        receiving.waits = False
        self.count += 1
        if self.count <= self._limit or exchange.response_started:
            return True
        self._make_room()
        if self.count <= self._limit:
            return True
        self._refuse(exchange)
        return False

    @staticmethod
    def _refuse(exchange: Exchange) -> None:
        if exchange.times is not None:
            exchange.times.refused = "overload"
        text = b"" if exchange.head.method == b"HEAD" else b"Service Unavailable\r\n"
        exchange.respond(503, [(b"content-type", b"text/plain; charset=utf-8"), (b"retry-after", b"1")])
        exchange.send(text, True)

    def on_close(self, connection: Connection) -> None:
        """Pass the end of a connection on."""
        self._delegate.on_close(connection)

    def exchange_started(self, exchange: Exchange) -> None:
        """Count the exchange."""
        self.count += 1

    def exchange_ended(self, exchange: Exchange) -> None:
        """Count the exchange no longer."""
        receiving = self._receiving.pop(exchange, None)
        if receiving is None or not receiving.waits:
            self.count -= 1


class _Receiving:
    """The delegate of a request with content: looks at how the content comes, and passes everything on.

    Attributes:
        delegate: The application's.
        since: The clock's time when the content began.
        size: Bytes that have come.
        waits: The request has no place before its content is complete.
    """

    __slots__ = ("_exchange", "_limit", "delegate", "since", "size", "waits")

    def __init__(self, limit: ConcurrencyLimit, exchange: Exchange, *, waits: bool) -> None:
        self._limit = limit
        self._exchange = exchange
        self.delegate: ExchangeDelegate = NULL_DELEGATE
        self.since = exchange.clock.now
        self.size = 0
        self.waits = waits

    def __getattr__(self, name: str) -> Any:
        return getattr(self.delegate, name)  # what only some delegates have, such as end_stream

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        self.size += len(chunk)
        return self.delegate.data_received(chunk)

    def finish(self) -> None:
        if self._limit.complete(self._exchange, self):
            self.delegate.finish()
        else:
            self.delegate.on_connection_close()

    def on_connection_close(self) -> None:
        self.delegate.on_connection_close()

    def on_peer_eof(self) -> None:
        self.delegate.on_peer_eof()
