"""Counts exchanges and connections in the cells of this process."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable
from time import monotonic_ns, time
from typing import TYPE_CHECKING

from bridge.core.connection.interfaces import Observer
from bridge.core.connection.states import DONE
from bridge.telemetry.metrics.catalog import SECOND, SIZE_BOUNDS
from bridge.telemetry.metrics.counting import BOUNDS_NS, SUM, PureCounter, make_counter
from bridge.telemetry.metrics.routes import route_of

if TYPE_CHECKING:
    from bridge.core.connection.context import ConnectionContext
    from bridge.core.connection.interfaces import Connection, Exchange
    from bridge.core.http.message import RequestHead
    from bridge.telemetry.metrics.arena import Block

__all__ = ["RequestMetrics"]

_KNOWN_METHODS = frozenset(
    {b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH", b"QUERY"}
)
#: Stands for a method or a route that is not one of the known ones.
OTHER = "_OTHER"
_MOST_ROUTES = 200
_LONGEST_ROUTE = 120
# Rows that other metrics of the process may still need when a new combination of labels comes.
_RESERVE = 128
# Combinations that are looked up without making their labels.
_MOST_KNOWN = 4096

_DURATION = "http_server_request_duration_seconds"
_QUEUE = "bridge_request_queue_duration_seconds"
_INGRESS = "bridge_request_ingress_duration_seconds"
_REQUEST_SIZE = "http_server_request_body_size_bytes"
_RESPONSE_SIZE = "http_server_response_body_size_bytes"

Labels = tuple[tuple[str, str], ...]

# The labels of all requests for whose labels there is no room.
_REST: Labels = (("http_request_method", OTHER), ("http_route", OTHER))


class RequestMetrics(Observer):
    """Observes exchanges and connections, and counts them.

    Args:
        block: The cells of this process.
        sizes: Count the sizes of content, too.
        trusts: Called with the two ends of a connection. Tells whether its X-Request-Start is believed; None if none
            is.

    Attributes:
        open: How many connections are open.
    """

    def __init__(
        self, block: Block, *, sizes: bool = False, trusts: Callable[[ConnectionContext], bool] | None = None
    ) -> None:
        self._block = block
        self._cells = block.cells
        self._rows: dict[tuple[object, ...], int] = {}
        self._routes: set[str] = set()
        self._sizes: dict[int, tuple[int, int]] | None = {} if sizes else None
        self._trusts = trusts
        # The two ends of the connections of trusted proxies. To ask for each request would cost a tenth of all that
        # counting costs.
        self._proxied: set[ConnectionContext] = set()
        self._extra = sizes  # there is more to count of some exchanges
        self._queue = block.row(_QUEUE)
        self._counter = make_counter(block.cells, self._queue)
        self._routed: dict[str, PureCounter] = {}  # one for each of the first routes
        self._count_kind = _count_never if sizes else self._counter.count
        self._accepted = block.row("bridge_connections_accepted")
        self.open = 0

    # ------------------------------------------------------------------ connections

    def connection_opened(self, connection: Connection) -> None:
        """Count the connection."""
        self._cells[self._accepted] += 1
        self.open += 1
        if self._trusts is not None and self._trusts(connection.context):
            self._proxied.add(connection.context)
            self._note_more()

    def connection_closed(self, connection: Connection) -> None:
        """Count the connection no longer."""
        self.open -= 1
        if self._proxied:
            self._proxied.discard(connection.context)
            self._note_more()

    def _note_more(self) -> None:
        """Count exchanges the long way only while there is more to count of some."""
        self._extra = self._sizes is not None or bool(self._proxied)
        self._count_kind = _count_never if self._extra else self._counter.count

    def connection_refused(self, reason: str) -> None:
        """Count a connection that has ended before it spoke HTTP."""
        self._block.add("bridge_connections_refused", (("reason", reason),))

    def request_refused(self, connection: Connection, reason: str) -> None:
        """Count a request that the connection has refused."""
        self._block.add("bridge_requests_refused", (("reason", reason),))

    # ------------------------------------------------------------------ exchanges

    def forget(self, exchange: Exchange) -> None:
        """Do not count *exchange*: it is a probe."""
        exchange.times = None

    def exchange_ended(self, exchange: Exchange) -> None:
        """Count the exchange and its duration."""
        line = exchange.head.line
        count = self._count_kind  # called through a name: CPython 3.11 calls a function of an instance the long way
        if not count(
            exchange.times, exchange.status, line.method, exchange.writing, line.version_text, exchange.context.protocol
        ):
            self._count_rare(exchange)

    def _count_rare(self, exchange: Exchange) -> None:
        """Count an exchange that was refused, or has a route, or one whose row is not remembered, or in more ways."""
        times = exchange.times
        if times is None:
            return  # see forget()
        if self._extra:
            self._count_more(exchange, times.opened)
        if times.refused:
            self._block.add("bridge_requests_refused", (("reason", times.refused),))
        called_with, times.called_with = times.called_with, None
        route = None if called_with is None else route_of(called_with)
        line, protocol = exchange.head.line, exchange.context.protocol
        counter = self._counter if route is None else self._routed.get(route)
        if counter is None and len(self._routed) < _MOST_ROUTES:
            counter = self._routed[str(route)] = make_counter(self._cells, self._queue)
        elif (
            counter is not None
            and not times.refused
            and counter.count(times, exchange.status, line.method, exchange.writing, line.version_text, protocol)
        ):
            return
        kind = (exchange.status, line.method, exchange.writing, line.version_text, protocol)
        key = (*kind, route)
        row = self._rows.get(key)
        if row is None:
            row = self._row(exchange, route)
            if exchange.writing is DONE:  # for others, the key does not have all that the labels say
                self._rows[key] = row
        if counter is not None and exchange.writing is DONE:
            counter.learn(row, *kind)
        self._counter.add(times, row)

    def _row(self, exchange: Exchange, route: str | None) -> int:
        """Return the row of a combination that was not seen lately."""
        if len(self._rows) >= _MOST_KNOWN:
            self._rows.clear()
        labels = _labels(exchange, None if route is None else self._bounded(route))
        return self._block.row(_DURATION, labels if self._block.room > _RESERVE else _REST)

    def _bounded(self, route: str) -> str:
        """Return *route*, or another word for it if there are too many."""
        route = "".join(letter if letter.isprintable() else "?" for letter in route[:_LONGEST_ROUTE])
        if route not in self._routes:
            if len(self._routes) >= _MOST_ROUTES:
                return OTHER
            self._routes.add(route)
        return route

    @staticmethod
    def active_labels(exchange: Exchange) -> Labels:
        """Return the labels of an exchange in progress."""
        line = exchange.head.line
        method = line.method_text if line.method in _KNOWN_METHODS else OTHER
        return (("http_request_method", method), ("url_scheme", exchange.context.protocol))

    # ------------------------------------------------------------------ what is counted on demand

    def _count_more(self, exchange: Exchange, opened: int) -> None:
        if self._sizes is not None:
            self._count_sizes(exchange)
        if self._proxied and exchange.connection_context in self._proxied:
            ingress = _request_start(exchange.head)
            if ingress is not None:
                began = time() - (monotonic_ns() - opened) / SECOND
                self._count(_INGRESS, (), int(max(began - ingress, 0.0) * SECOND), BOUNDS_NS)

    def _count_sizes(self, exchange: Exchange) -> None:
        labels = _labels(exchange, None)
        length = exchange.head.content_length
        if length is not None:
            self._count(_REQUEST_SIZE, labels, length, SIZE_BOUNDS)
        self._count(_RESPONSE_SIZE, labels, exchange.content_sent, SIZE_BOUNDS)

    def _count(self, name: str, labels: Labels, value: int, bounds: tuple[float, ...]) -> None:
        if self._block.room <= _RESERVE:
            labels = ()
        row = self._block.row(name, labels)
        self._cells[row + bisect_left(bounds, value)] += 1
        self._cells[row + SUM] += value


def _count_never(*_: object) -> bool:
    """Leave an exchange to :meth:`RequestMetrics._count_rare`."""
    return False


def _labels(exchange: Exchange, route: str | None) -> Labels:
    """Return the labels of an exchange that has ended, by OpenTelemetry's conventions."""
    line = exchange.head.line
    labels = [("http_request_method", line.method_text if line.method in _KNOWN_METHODS else OTHER)]
    status, error = exchange.status, ""
    if exchange.writing is not DONE and exchange.response is not None:
        # The response has begun and will never be complete.
        error, status = ("client_disconnected" if exchange.peer_gone else "incomplete"), 0
    elif not status:
        error = "client_disconnected"
    elif status >= 500:
        error = str(status)
    if status:
        labels.append(("http_response_status_code", str(status)))
    labels += (("url_scheme", exchange.context.protocol), ("network_protocol_version", line.version_text))
    if error:
        labels.append(("error_type", error))
    if route is not None:  # last: of labels that are too long for a row, the end is cut
        labels.append(("http_route", route))
    return tuple(labels)


def _request_start(head: RequestHead) -> float | None:
    """Return the time that X-Request-Start gives, in seconds since 1970; None if there is none.

    It is spelled ``t=1700000000.123``, or as a number of seconds, milliseconds or microseconds.
    """
    found = [value for name, value in head.fields if name == b"x-request-start"]
    if len(found) != 1:
        return None
    text = found[0].removeprefix(b"t=")
    if not text.replace(b".", b"", 1).isdigit() or len(text) > 20:
        return None
    value = float(text)
    for unit in (1.0, 1e3, 1e6):
        if 1e9 <= value / unit < 1e10:
            return value / unit
    return None
