"""One HTTP request and its response as ASGI messages (ASGI HTTP sub-specification 2.5)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import TYPE_CHECKING, Self

from bridge.adapters.asgi.files import FileRange, opened_path, range_of
from bridge.adapters.asgi.messages import STUMBLES, judge, octets
from bridge.core.connection.states import CLOSED, DONE, HEAD
from bridge.core.connection.waiter import Waiters
from bridge.core.http.fields import list_members
from bridge.core.log import app_log
from bridge.errors import ConnectionGone, LocalProtocolError

if TYPE_CHECKING:
    from bridge.adapters.asgi.types import Application, Message, Owner, Scope
    from bridge.core.connection.interfaces import Exchange

__all__ = ["HTTPExchange", "TimedHTTPExchange", "caused_by_disconnect", "client_left", "describe"]

# Request content that is kept for the application before the peer is slowed down, in bytes.
_WINDOW = 65536

# How far the application's response has come: nothing, its start, its start with trailers promised, its content with
# the trailers still to come; and while a file is sent.
_NOTHING, _STARTED, _PROMISED, _TRAILERS, _FILE, _STOPPED = range(6)

# Responses of these types end only when somebody leaves, so they are told when the server stops.
_ENDLESS = (b"text/event-stream", b"multipart/x-mixed-replace")


class HTTPExchange:
    """One request and response as ASGI messages.

    As the exchange's delegate it takes content and the news of a disconnect; ``receive`` and ``send`` are the
    application's ends.

    Attributes:
        task: Runs the application; None if it ended without waiting.
    """

    __slots__ = (
        "_chunks",
        "_complete",
        "_disconnected",
        "_exchange",
        "_fields",
        "_finished",
        "_owner",
        "_phase",
        "_size",
        "_trailers",
        "_waiters",
        "task",
    )

    _exchange: Exchange
    _owner: Owner
    _chunks: list[bytes] | None  # content that the application has not received
    _size: int  # of the chunks, in bytes
    _complete: bool  # all content was received from the client
    _finished: bool  # ... and by the application
    _disconnected: bool
    _phase: int
    _fields: Iterable[tuple[bytes, bytes]]  # of http.response.start
    _trailers: list[tuple[bytes, bytes]] | None  # once they are promised
    _waiters: Waiters | None  # of receive(), once there was one
    task: asyncio.Task[None] | None

    @classmethod
    def open(cls, exchange: Exchange, owner: Owner) -> Self:
        """Return what serves an exchange whose head is complete; every attribute has a value then.

        Args:
            exchange: The exchange.
            owner: The delegate that starts it.
        """
        self = cls()
        self._exchange = exchange
        self._owner = owner
        self._chunks = None
        self._size = 0
        self._complete = exchange.head.content_length == 0
        self._finished = False
        self._disconnected = False
        self._phase = _NOTHING
        self._fields = ()
        self._trailers = None
        self._waiters = None
        self.task = None
        return self

    # ------------------------------------------------------------------ the exchange's delegate

    def data_received(self, chunk: bytes) -> None:
        """Keep content until the application asks for it."""
        if self._chunks is None:
            self._chunks = []
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size >= _WINDOW:
            self._exchange.pause_reading()
        self._wake()

    def finish(self) -> None:
        """The content is complete."""
        self._complete = True
        self._wake()

    def on_connection_close(self) -> None:
        """The peer is gone, or the exchange ended early."""
        self._disconnected = True
        self._wake()
        if self.task is not None and self._exchange.writing is CLOSED:
            self._owner.expect_end(self.task)

    def on_peer_eof(self) -> None:
        """The peer sends no more.

        A client that has left looks the same as one that only closed its sending side. The application is told that
        it disconnected, if it asks; what it sends all the same is still sent.
        """
        self._disconnected = True
        self._wake()
        if self.task is not None:
            self._owner.expect_progress(self.task, self._exchange)

    def stop(self) -> None:
        """Tell the application of an endless response that its client has gone, as the server is stopping."""
        if self._phase is not _NOTHING and _is_endless(self._fields) and not self._exchange.finished:
            self._disconnected = True
            if self._phase is _STARTED:
                self._phase = _STOPPED  # who does not listen is told by the next send()
            self._wake()

    def _wake(self) -> None:
        if self._waiters is not None:
            self._waiters.wake()

    # ------------------------------------------------------------------ the application's side

    async def run(self, app: Application, scope: Scope) -> None:
        """Run the application; see to it that the exchange ends, whatever it does."""
        exchange = self._exchange
        try:
            await app(scope, self.receive, self.send)
        except (Exception, SystemExit) as exc:  # an application that exits must not take the server with it
            if self._phase is _STOPPED and caused_by_disconnect(exc):
                self._end_incomplete()
                return
            if not (client_left(exchange) and caused_by_disconnect(exc)):
                app_log.error("Exception in ASGI application, %s", describe(exchange), exc_info=exc)
            exchange.fail()
        except BaseException as exc:
            if not exchange.finished and was_not_asked_for(exc):
                app_log.error("ASGI application was cancelled by itself, %s", describe(exchange), exc_info=exc)
            exchange.fail()
            raise
        else:
            if exchange.writing is not DONE and exchange.writing is not CLOSED:
                self._end_incomplete()

    def _end_incomplete(self) -> None:
        """End the exchange of an application that returned too early."""
        exchange = self._exchange
        if self._disconnected:  # it was told that nobody listens
            if exchange.response_started and self._phase is not _NOTHING and _is_endless(self._fields):
                exchange.send(b"", True)
            else:
                exchange.fail()
            return
        rule = "without a complete response" if exchange.response_started else "without a response"
        app_log.error("ASGI application returned %s, %s", rule, describe(exchange))
        exchange.fail()

    async def receive(self) -> Message:
        """Return the next message (ASGI HTTP, "Request - receive event" and "Disconnect")."""
        exchange = self._exchange
        while True:
            if self._chunks:
                chunks = self._chunks
                data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
                chunks.clear()
                self._size = 0
                more = not self._complete
                if more:
                    exchange.resume_reading()
                    more = not self._complete or bool(chunks)
                self._finished = not more
                return {"type": "http.request", "body": data, "more_body": more}
            if self._complete and not self._finished:
                self._finished = True
                return {"type": "http.request", "body": b"", "more_body": False}
            if self._disconnected or exchange.finished:
                return {"type": "http.disconnect"}
            if not self._complete:
                exchange.send_continue()
            if self._waiters is None:
                self._waiters = Waiters(exchange.loop)
            await self._waiters.next_event()

    async def send(self, message: Message) -> None:
        """Take a message of the response (ASGI HTTP, "Response Start", "Response Body", and the extensions).

        Raises:
            ConnectionGone: An OSError; the client has disconnected.
            LocalProtocolError: The message is out of order, or has illegal values.
        """
        exchange = self._exchange
        try:
            kind = message["type"]
            if kind == "http.response.body":
                body = message.get("body", b"")
                if body.__class__ is not bytes:
                    body = octets(kind, body)
                if self._phase is not _STARTED:
                    self._send_before_trailers(body, message)
                else:
                    exchange.send(body, not message.get("more_body", False))
                if exchange.write_paused:
                    await exchange.writable()  # drained() would be one more coroutine for its while
                if self._waiters is not None and exchange.finished:
                    self._waiters.wake()
            elif kind == "http.response.start":
                if self._phase is not _NOTHING:
                    raise LocalProtocolError("http.response.start a second time")
                fields = message.get("headers", ())
                exchange.respond(message["status"], fields)
                self._fields = fields
                self._phase = _STARTED
                if (len(message) > 3 or not fields) and message.get("trailers", False):
                    self._phase = _PROMISED
                    self._trailers = []
            else:
                await self._send_extension(kind, message)
        except (LocalProtocolError, *STUMBLES) as exc:
            judge(message, exc)
            raise

    # ------------------------------------------------------------------ extensions

    def _send_before_trailers(self, body: bytes, message: Message) -> None:
        """Take a body message of a response that is not a plain one."""
        if self._phase is _NOTHING:
            raise LocalProtocolError("http.response.body before http.response.start")
        if self._phase is _FILE:
            raise LocalProtocolError("http.response.body while a file is being sent")
        if self._phase is _TRAILERS:
            raise LocalProtocolError("http.response.body after the last one; http.response.trailers is due")
        if self._phase is _STOPPED:
            if message.get("more_body", False):
                raise ConnectionGone("the server is stopping")
            self._exchange.send(body, True)
            return
        self._exchange.send(body)
        if not message.get("more_body", False):
            self._phase = _TRAILERS

    async def _send_extension(self, kind: str, message: Message) -> None:
        exchange = self._exchange
        if exchange.writing is CLOSED:
            raise ConnectionGone("the client has disconnected")
        if kind == "http.response.trailers":
            self._take_trailers(message)
        elif kind == "http.response.early_hint":
            # After the head it is too late for a hint on HTTP/1.1; the extension lets a server ignore it.
            if exchange.writing is HEAD:
                exchange.inform(103, [(b"link", link) for link in message["links"]])
        elif kind == "http.response.pathsend":
            if exchange.response_started:
                raise LocalProtocolError("http.response.pathsend after other content")
            with opened_path(message) as found:
                await self._send_file(kind, found, last=True)
        elif kind == "http.response.zerocopysend":
            await self._send_file(kind, range_of(message), last=not message.get("more_body", False))
        elif kind == "http.response.debug" and self._owner.debug:
            if self._phase is not _NOTHING:
                raise LocalProtocolError("http.response.debug after http.response.start")
            app_log.debug("%s: %r", describe(exchange), message.get("info"))
        else:
            raise LocalProtocolError(f"unexpected ASGI message {kind!r}")

    async def _send_file(self, kind: str, found: FileRange, last: bool) -> None:
        """Send a part of a file as content; nothing else can be sent meanwhile."""
        phase = self._phase
        if phase is not _STARTED and phase is not _PROMISED:
            raise LocalProtocolError(f"{kind} before http.response.start, after the content, or during another file")
        exchange = self._exchange
        self._phase = _FILE
        try:
            await exchange.send_file(*found)
        finally:
            self._phase = phase
        if not last:
            return
        if phase is _PROMISED:
            self._phase = _TRAILERS
        else:
            exchange.send(b"", True)
            self._wake()

    def _take_trailers(self, message: Message) -> None:
        if self._phase is not _TRAILERS:
            raise LocalProtocolError("http.response.trailers before the end of the content, or not promised")
        exchange = self._exchange
        trailers = self._trailers
        assert trailers is not None, "promised trailers have a list"
        trailers.extend((bytes(name), bytes(value)) for name, value in message.get("headers", ()))
        if not message.get("more_trailers", False):
            self._phase = _STARTED
            exchange.end(trailers if _wants_trailers(exchange.head.fields) else ())
            self._wake()


class TimedHTTPExchange(HTTPExchange):
    """An exchange whose response must be complete within a time (``--timeout-request``).

    Attributes:
        deadline: Loop time in seconds.
        write_deadline: Loop time in seconds; never, the connection has its own.
    """

    __slots__ = ("deadline", "write_deadline")

    deadline: float
    write_deadline: float

    @classmethod
    def open(cls, exchange: Exchange, owner: Owner) -> Self:
        """Return what serves an exchange, whose time runs from now on."""
        self = super().open(exchange, owner)
        clock = exchange.clock
        self.deadline = clock.after(owner.timeout)
        self.write_deadline = clock.after(None)
        return self

    async def run(self, app: Application, scope: Scope) -> None:
        """Run the application under the clock."""
        clock = self._exchange.clock
        clock.watch(self)
        try:
            await super().run(app, scope)
        finally:
            clock.forget(self)

    def on_idle(self) -> None:
        """Keep everything: the application is at work."""

    def deadline_passed(self, now: float) -> None:
        """Answer 504 if nothing was sent, else reset the connection; cancel the application in either case."""
        exchange = self._exchange
        exchange.clock.forget(self)
        if exchange.finished:  # what the application still does is nobody's response
            return
        app_log.warning("No complete response within %g s, %s", self._owner.timeout, describe(exchange))
        if exchange.writing is HEAD:
            exchange.fail(504)
        else:
            exchange.abort()
        if self.task is not None:
            self.task.cancel()


def describe(exchange: Exchange) -> str:
    """Return method and target for a log line."""
    return f"{exchange.head.line.method_text} {exchange.head.target[:80]!r}"


def client_left(exchange: Exchange) -> bool:
    """Tell whether the client left before it could have the response, which may be complete and wait to be sent."""
    return exchange.writing is CLOSED or (exchange.writing is DONE and exchange.peer_gone)


def was_not_asked_for(exc: BaseException) -> bool:
    """Tell whether an application ends as if it were cancelled, though nobody has cancelled it: its own mistake."""
    task = asyncio.current_task()
    return isinstance(exc, asyncio.CancelledError) and task is not None and not task.cancelling()


def caused_by_disconnect(exc: BaseException | None) -> bool:
    """Tell whether an exception is what frameworks make of the one that send() raised for a client that left."""
    while exc is not None:
        if isinstance(exc, ConnectionGone):
            return True
        if isinstance(exc, BaseExceptionGroup):
            return all(map(caused_by_disconnect, exc.exceptions))
        exc = exc.__cause__ or exc.__context__
    return False


def _wants_trailers(fields: Iterable[tuple[bytes, bytes]]) -> bool:
    """Tell whether the client takes trailer fields (RFC 9110 section 10.1.4)."""
    return b"trailers" in list_members([value for name, value in fields if name == b"te"])


def _is_endless(fields: Iterable[tuple[bytes, bytes]]) -> bool:
    return any(
        bytes(name).lower() == b"content-type" and bytes(value).lower().startswith(_ENDLESS) for name, value in fields
    )
