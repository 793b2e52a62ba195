"""A ServerConnection on a fake transport and a manual loop, and delegates that write down what they are told."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

from bridge.core.connection.clock import Clock
from bridge.core.connection.context import ConnectionContext
from bridge.core.connection.http1 import ServerConnection
from bridge.core.connection.interfaces import Exchange
from bridge.core.connection.parameters import ConnectionParameters
from bridge.core.connection.states import DONE
from tests.support.faketransport import FakeTransport
from tests.support.faults import Raises, application_errors
from tests.support.manualloop import ManualLoop
from tests.support.responses import Response, read_responses

__all__ = ["GET", "POST", "Link", "Recorder", "Told", "linked", "ok"]

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"


def ok(told: Told, content: bytes = b"ok") -> None:
    """Answer with a complete response."""
    told.exchange.respond(200, [(b"content-type", b"text/plain")])
    told.exchange.send(content, True)


class Told:
    """The delegate of one exchange: what it was told, in order.

    Attributes:
        calls: ``start``, ``data``, ``finish``, ``closed``, ``eof``.
        data: All content so far.
    """

    def __init__(self, owner: Recorder, exchange: Exchange) -> None:
        self.owner = owner
        self.exchange = exchange
        self.calls: list[str] = []
        self.data = b""
        self.chunks: list[bytes] = []

    def _tell(self, call: str, hook: Callable[..., Any] | None, *args: Any) -> Any:
        if self.calls:
            assert "closed" not in self.calls, f"{call} after the exchange has ended"
        self.calls.append(call)
        return None if hook is None else hook(self, *args)

    def data_received(self, chunk: bytes) -> Awaitable[None] | None:
        assert type(chunk) is bytes
        assert chunk
        assert "finish" not in self.calls
        self.data += chunk
        self.chunks.append(chunk)
        return self._tell("data", self.owner.on_data, chunk)

    def finish(self) -> None:
        assert "finish" not in self.calls
        self._tell("finish", self.owner.on_finish)

    def on_connection_close(self) -> None:
        self._tell("closed", self.owner.on_closed)

    def on_peer_eof(self) -> None:
        self._tell("eof", self.owner.on_eof)


class Recorder:
    """A connection delegate; the hooks say what its exchanges do."""

    def __init__(
        self,
        on_start: Callable[[Told], Any] | None = None,
        on_data: Callable[[Told, bytes], Any] | None = None,
        on_finish: Callable[[Told], Any] | None = None,
        on_closed: Callable[[Told], Any] | None = None,
        on_eof: Callable[[Told], Any] | None = None,
    ) -> None:
        self.on_start = on_start
        self.on_data = on_data
        self.on_finish = on_finish
        self.on_closed = on_closed
        self.on_eof = on_eof
        self.told: list[Told] = []
        self.ended: list[ServerConnection] = []

    def start_exchange(self, exchange: Exchange) -> Told:
        told = Told(self, exchange)
        self.told.append(told)
        told._tell("start", self.on_start)
        return told

    def on_close(self, connection: ServerConnection) -> None:
        self.ended.append(connection)

    @property
    def calls(self) -> list[str]:
        """What the only exchange was told."""
        (told,) = self.told
        return told.calls


class Link:
    """One connection between a peer, played by the test, and the engine."""

    def __init__(
        self,
        delegate: Any,
        params: ConnectionParameters | None = None,
        *,
        tls: bool = False,
        loop: ManualLoop | None = None,
    ) -> None:
        self.loop = loop or ManualLoop()
        self.delegate = delegate
        params = params or ConnectionParameters()
        self.clock = Clock(
            self.loop, shortest=params.shortest(), server_name=b"bridge", keep_alive=params.keep_alive_timeout
        )
        context = ConnectionContext(("192.0.2.1", 4000), socket.AF_INET, "https" if tls else "http", ("192.0.2.2", 80))
        self.ended: list[ServerConnection] = []
        self.taken = False  # another protocol has the transport, or had it
        self.gone = 0  # how often that one has said that the transport is gone
        self.connection = ServerConnection(delegate, params, context, self.clock, self.loop, self.note_end)
        self.transport = FakeTransport(self.loop, self.connection, tls=tls)
        self.loop.settle()

    def note_end(self, connection: ServerConnection, taken: bool) -> Callable[[], None]:
        self.ended.append(connection)
        self.taken = taken
        return self.note_gone

    def note_gone(self) -> None:
        assert self.taken and self.transport.lost
        self.gone += 1

    # ------------------------------------------------------------------ the peer

    def send(self, *pieces: bytes) -> None:
        """Let the peer send; everything that this leads to happens before this returns."""
        for piece in pieces:
            self.loop.call(self.transport.peer_sends, piece)

    def send_eof(self) -> None:
        self.loop.call(self.transport.peer_sends_eof)

    def reset(self) -> None:
        self.loop.call(self.transport.peer_resets)

    def stop_reading(self) -> None:
        self.transport.window = 0

    def read(self, size: int | None = None) -> None:
        self.loop.call(self.transport.peer_reads, size)

    # ------------------------------------------------------------------ what came of it

    @property
    def received(self) -> bytes:
        return bytes(self.transport.received)

    def responses(self, *methods: str) -> list[Response]:
        return read_responses(self.received, list(methods), ended=self.transport.eof)

    def response(self, method: str = "GET") -> Response:
        (response,) = self.responses(method)
        return response

    @property
    def told(self) -> list[Told]:
        told = self.delegate.told
        assert isinstance(told, list)
        return told

    @property
    def closed(self) -> bool:
        return self.transport.lost

    def end(self) -> None:
        """Check what must hold of every connection, whatever was done with it."""
        self.loop.settle()
        if not self.transport.lost:
            self.loop.call(self.transport.abort)
        assert self.transport.lost
        assert self.transport.faults == []
        assert self.ended == [self.connection]
        assert self.connection.closing
        assert not self.clock.watched
        assert self.clock.budgets.unfinished.total == self.clock.budgets.unsent.total == 0
        for told in getattr(self.delegate, "told", ()):
            assert told.calls.count("closed") <= 1
            assert told.calls.count("finish") <= 1
            if told.exchange.writing is not DONE:
                assert told.calls.count("closed") == 1, "nobody told the delegate that the exchange has ended"
        self.clock.stop()
        errors = self.loop.errors
        self.loop.run_until_complete(self.loop.shutdown_asyncgens())
        self.loop.close()
        assert errors == []


@contextmanager
def linked(delegate: Any, *, tls: bool = False, raises: Raises = (), **params: Any) -> Iterator[Link]:
    """Make a link with these ConnectionParameters, and check it at the end.

    What the delegate has raised is raised in the test, unless the test says that it *raises*.
    """
    with application_errors(raises):
        link = Link(delegate, ConnectionParameters(**params), tls=tls)
        try:
            yield link
        except BaseException:
            link.loop.close()
            raise
        link.end()
