"""One HTTP request and its response as ASGI messages (ASGI HTTP sub-specification 2.5)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from enum import Enum
from typing import TYPE_CHECKING, Self

from bridge.adapters.asgi.files import FileRange, opened_path, range_of
from bridge.adapters.asgi.messages import MESSAGE_ERRORS, as_bytes, explain
from bridge.adapters.asgi.types import SENDS_IN_A_ROW
from bridge.core.connection.states import CLOSED, CONTENT, DONE, HEAD
from bridge.core.connection.streams import may_be_endless
from bridge.core.connection.waiter import Waiters
from bridge.core.http.fields import list_members
from bridge.core.log import app_log
from bridge.errors import ConnectionGone, LocalProtocolError, caused_by_disconnect, traceback_of
from bridge.forks import end_if_forked

if TYPE_CHECKING:
    from bridge.adapters.asgi.types import Application, Message, Owner, Scope
    from bridge.core.connection.interfaces import Exchange

__all__ = [
    "HTTPExchange",
    "TimedHTTPExchange",
    "cancelled_itself",
    "client_left",
    "closed_from_outside",
    "describe",
]

# Bytes of request content that wait for the application; beyond them the client is slowed down.
_WINDOW = 65536
# The same while there are many connections.
_WINDOW_IN_CROWD = 16384


class _Phase(Enum):
    """What the application may send next. The members are bound to module names, which cost less to look up."""

    START_DUE = "start due"
    """``http.response.start``."""
    CONTENT_DUE = "content due"
    """Content."""
    PROMISED = "trailers promised"
    """Content, which trailers follow."""
    TRAILERS_DUE = "trailers due"
    """``http.response.trailers``: the content is complete."""
    FILE = "file"
    """Nothing until the file is sent."""
    STOPPED = "stopped"
    """The last content: the server is stopping."""


_START_DUE = _Phase.START_DUE
_CONTENT_DUE = _Phase.CONTENT_DUE
_PROMISED = _Phase.PROMISED
_TRAILERS_DUE = _Phase.TRAILERS_DUE
_FILE = _Phase.FILE
_STOPPED = _Phase.STOPPED


class HTTPExchange:
    """One request and its response as ASGI messages; made by :meth:`open`.

    An ``__init__`` in the place of ``open`` adds about 1 % to a plain request: 720 of 60,500 instructions with CPython
    3.13, 350 of 58,600 with 3.11 (``python -m benchmarks.instructions plaintext``, without garbage collection).

    It is the exchange's delegate, and so takes the content and learns that the client has left. ``receive`` and
    ``send`` are for the application.

    Attributes:
        task: Runs the application; None if the application has ended without waiting.
    """

    __slots__ = (
        "_chunks",
        "_complete",
        "_disconnected",
        "_exchange",
        "_finished",
        "_grace_begun",
        "_owner",
        "_phase",
        "_sends",
        "_size",
        "_trailers",
        "_waiters",
        "task",
    )

    _exchange: Exchange
    _owner: Owner
    _chunks: list[bytes] | None  # content that the application has not received
    _size: int  # of the chunks, in bytes; set with them
    _complete: bool  # all content was received from the client
    _finished: bool  # the application has received all of it, too
    _disconnected: bool
    _grace_begun: bool  # the task is cancelled after the grace time; set when it first gives the loop a turn
    _phase: _Phase
    _sends: int  # messages, either way, until the loop gets a turn
    _trailers: list[tuple[bytes, bytes]]  # set when they are promised
    _waiters: Waiters | None  # of receive() calls; most requests have none that waits
    task: asyncio.Task[None] | None

    @classmethod
    def open(cls, exchange: Exchange, owner: Owner) -> Self:
        """Return the HTTPExchange that serves an exchange.

        Args:
            exchange: The exchange.
            owner: The delegate that starts it.
        """
        self = cls()
        self._exchange = exchange
        self._owner = owner
        self._chunks = None
        self._complete = exchange.head.content_length == 0
        self._finished = False
        self._disconnected = False
        self._phase = _START_DUE
        self._sends = SENDS_IN_A_ROW
        self._grace_begun = False
        self._waiters = None
        self.task = None
        return self

    @property
    def exchange(self) -> Exchange:
        """The exchange."""
        return self._exchange

    # ------------------------------------------------------------------ the exchange's delegate

    def data_received(self, chunk: bytes) -> None:
        """Keep content until the application asks for it."""
        if self._chunks is None:
            self._chunks = []
            self._size = 0
        self._chunks.append(chunk)
        self._size += len(chunk)
        if self._size >= _WINDOW_IN_CROWD and (self._size >= _WINDOW or self._exchange.clock.is_crowd):
            self._exchange.pause_reading()
        self._wake()

    def finish(self) -> None:
        """The content is complete."""
        self._complete = True
        if self._waiters is not None:  # not by _wake(): a call in vain is 0.5 % of a plain request
            self._waiters.wake()

    def on_connection_close(self) -> None:
        """The client has left, or the exchange has ended early."""
        self._disconnected = True
        self._wake()
        if self.task is not None and self._exchange.writing is CLOSED:
            self._owner.cancel_after_grace(self.task)

    def on_peer_eof(self) -> None:
        """The client sends nothing more.

        A client that has left and one that has only closed its sending side look the same. An application that asks is
        told that the client has disconnected. What the application sends is still delivered.
        """
        self._disconnected = True
        self._wake()
        if self.task is not None:
            self._owner.cancel_if_idle(self.task, self._exchange)

    def end_stream(self) -> None:
        """End a response that has begun, as the server is stopping: tell the application that its client has left.

        The application may still send the end of the response. Without it, the client sees that the response was cut.
        """
        if self._phase is not _START_DUE and not self._exchange.finished:
            self._disconnected = True
            if self._phase is _CONTENT_DUE:
                self._phase = _STOPPED  # an application that does not call receive() is told by its next send()
            self._wake()
            if self.task is not None:
                self._owner.cancel_after_grace(self.task)

    def _wake(self) -> None:
        if self._waiters is not None:
            self._waiters.wake()

    # ------------------------------------------------------------------ the application's side

    async def run(self, app: Application, scope: Scope) -> None:
        """Run the application, and end the exchange if the application does not."""
        exchange = self._exchange
        try:
            await app(scope, self.receive, self.send)
        except asyncio.CancelledError as exc:
            if not exchange.finished and cancelled_itself(exc):
                app_log.error(
                    "ASGI application was cancelled by itself, %s", describe(exchange), exc_info=traceback_of(exc)
                )
            self._cut()
            raise
        except BaseException as exc:  # SystemExit and KeyboardInterrupt end the application, not the server
            if closed_from_outside(exc, self.task):
                self._cut()
                raise
            end_if_forked(exc)
            if self._phase is _STOPPED and caused_by_disconnect(exc):
                self._end_incomplete()
                return
            if self._ends_by_stop():
                app_log.debug("Exception at the end of a stream, %s", describe(exchange), exc_info=traceback_of(exc))
                self._cut()
                return
            if not (client_left(exchange) and caused_by_disconnect(exc)):
                app_log.error("Exception in ASGI application, %s", describe(exchange), exc_info=traceback_of(exc))
            exchange.fail()
        else:
            if exchange.writing is not DONE and exchange.writing is not CLOSED:
                self._end_incomplete()

    def _ends_by_stop(self) -> bool:
        """Tell whether this is an endless response whose application has taken notice that the server stops.

        No way in which the application ends it is an error: libraries for server-sent events just return. But the
        server does not send an end that the application has not sent, since the client would take the response for
        complete.
        """
        exchange = self._exchange
        return (
            self._owner.stopping.is_set()
            and exchange.response_started
            and exchange.writing is not DONE
            and exchange.writing is not CLOSED
            and self._phase is not _START_DUE
            and may_be_endless(exchange)
        )

    def _end_incomplete(self) -> None:
        """End the exchange of an application that has returned before the end of its response."""
        exchange = self._exchange
        if self._disconnected:  # the application was told that its client has left, and may stop
            self._cut()
            return
        if self._ends_by_stop():
            self._cut()
            return
        rule = "without a complete response" if exchange.response_started else "without a response"
        app_log.error("ASGI application returned %s, %s", rule, describe(exchange))
        exchange.fail()

    def _cut(self) -> None:
        """End the exchange without the end of its response; log that if the server has asked for it."""
        exchange = self._exchange
        if (self._phase is _STOPPED or self._owner.stopping.is_set()) and exchange.writing is CONTENT:
            app_log.info("Stopping: the response to %s is cut off", describe(exchange))
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
                await self._take_turn()
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
                    body = as_bytes(kind, body)
                more = message.get("more_body", False)
                if self._phase is not _CONTENT_DUE:
                    self._send_unusual_body(body, message)
                elif exchange.writing is HEAD and exchange.response is not None:  # as send() does it, by a call less
                    exchange.send_first(exchange.response, body, not more)
                else:
                    exchange.send(body, not more)
                if exchange.writer.paused:
                    message, body = {}, b""  # not kept twice while the client does not read
                    await exchange.writer.writable()  # not drained(), which would make one more coroutine
                elif more:
                    self._sends -= 1
                    if not self._sends:
                        message, body = {}, b""  # likewise: a thousand wait for their turn
                        await self._let_others_run()
                if self._waiters is not None and exchange.finished:
                    self._waiters.wake()
            elif kind == "http.response.start":
                if self._phase is not _START_DUE:
                    raise LocalProtocolError("http.response.start a second time")
                fields = message.get("headers", ())
                exchange.respond(message["status"], fields, b"")  # a call with a default left out costs more
                self._phase = _CONTENT_DUE
                if (len(message) > 3 or not fields) and message.get("trailers", False):
                    self._phase = _PROMISED
                    self._trailers = []
            else:
                await self._send_extension(kind, message)
                await self._take_turn()
        except (LocalProtocolError, ConnectionGone, *MESSAGE_ERRORS) as exc:
            await self._take_turn()
            if exc.__class__ is not ConnectionGone:
                explain(message, exc)
            raise

    async def _take_turn(self) -> None:
        """Count a message, and give the loop a turn after some."""
        self._sends -= 1
        if not self._sends:
            await self._let_others_run()

    async def _let_others_run(self) -> None:
        """Give the loop a turn: an application that is never made to wait would have all turns for itself.

        With a client that reads fast, it never has to wait. Nor has it to wait if it ignores the client's end:
        receive() says again and again that the client has left, and send() fails.

        In that turn the application also learns that its client has left. An application that goes on after its
        complete response is treated as one whose client has left.
        """
        self._sends = SENDS_IN_A_ROW
        if self._exchange.finished and self.task is not None and not self._grace_begun:
            self._grace_begun = True
            self._owner.cancel_after_grace(self.task)
        await asyncio.sleep(0)

    # ------------------------------------------------------------------ extensions

    def _send_unusual_body(self, body: bytes, message: Message) -> None:
        """Take http.response.body in every phase but the one for plain content."""
        if self._phase is _START_DUE:
            raise LocalProtocolError("http.response.body before http.response.start")
        if self._phase is _FILE:
            raise LocalProtocolError("http.response.body while a file is being sent")
        if self._phase is _TRAILERS_DUE:
            raise LocalProtocolError("http.response.body after the last one; http.response.trailers is due")
        if self._phase is _STOPPED:
            if message.get("more_body", False):
                raise ConnectionGone("the server is stopping")
            self._exchange.send(body, True)
            return
        self._exchange.send(body)
        if not message.get("more_body", False):
            self._phase = _TRAILERS_DUE

    async def _send_extension(self, kind: str, message: Message) -> None:
        exchange = self._exchange
        if exchange.writing is CLOSED:
            raise ConnectionGone("the client has disconnected")
        if kind == "http.response.trailers":
            self._take_trailers(message)
        elif kind == "http.response.early_hint":
            # HTTP/1.1 has no room for a hint after the head. The extension allows to ignore it.
            if exchange.writing is HEAD:
                exchange.inform(103, [(b"link", link) for link in message["links"]])
        elif kind == "http.response.pathsend":
            if exchange.content_sent:
                raise LocalProtocolError("http.response.pathsend after other content")
            with opened_path(message) as found:
                await self._send_file(kind, found, last=True)
        elif kind == "http.response.zerocopysend":
            await self._send_file(kind, range_of(message), last=not message.get("more_body", False))
        elif kind == "http.response.debug" and self._owner.debug:
            if self._phase is not _START_DUE:
                raise LocalProtocolError("http.response.debug after http.response.start")
            app_log.debug("%s: %r", describe(exchange), message.get("info"))
        else:
            raise LocalProtocolError(f"unexpected ASGI message {kind!r}")

    async def _send_file(self, kind: str, found: FileRange, last: bool) -> None:
        """Send a part of a file as content; the application can send nothing else until that is done."""
        phase = self._phase
        if phase is not _CONTENT_DUE and phase is not _PROMISED:
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
            self._phase = _TRAILERS_DUE
        else:
            exchange.send(b"", True)
            self._wake()

    def _take_trailers(self, message: Message) -> None:
        if self._phase is not _TRAILERS_DUE:
            raise LocalProtocolError("http.response.trailers before the end of the content, or not promised")
        exchange = self._exchange
        trailers = self._trailers
        trailers.extend((bytes(name), bytes(value)) for name, value in message.get("headers", ()))
        if not message.get("more_trailers", False):
            self._phase = _CONTENT_DUE
            exchange.end(trailers if _wants_trailers(exchange.head.fields) else ())
            self._wake()


class TimedHTTPExchange(HTTPExchange):
    """An exchange whose response must be complete within the owner's time (``--timeout-request``).

    The clock watches it while the application runs.

    Attributes:
        deadline: Loop time in seconds.
    """

    __slots__ = ("deadline",)

    deadline: float

    @classmethod
    def open(cls, exchange: Exchange, owner: Owner) -> Self:
        """Return the TimedHTTPExchange that serves an exchange. Its time begins now."""
        self = super().open(exchange, owner)
        clock = exchange.clock
        self.deadline = clock.after(owner.timeout)
        return self

    async def run(self, app: Application, scope: Scope) -> None:
        """Run the application while the clock watches."""
        clock = self._exchange.clock
        clock.watch(self)
        try:
            await super().run(app, scope)
        finally:
            clock.forget(self)

    def on_idle(self) -> None:
        """Keep everything: the application is running."""

    def deadline_passed(self, now: float) -> None:
        """Answer 504 if nothing was sent, else reset the connection; cancel the application in either case."""
        exchange = self._exchange
        exchange.clock.forget(self)
        if exchange.finished:  # the application may go on after its response
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
    line = exchange.head.line
    return f"{line.method_text} {line.target[:80].decode('latin-1')}"


def client_left(exchange: Exchange) -> bool:
    """Tell whether the client left before it had the whole response. The end may still have waited to be sent."""
    return exchange.writing is CLOSED or (exchange.writing is DONE and exchange.peer_gone)


def cancelled_itself(exc: BaseException) -> bool:
    """Tell whether *exc*, raised by an application, is a CancelledError although its task was not cancelled."""
    task = asyncio.current_task()
    return isinstance(exc, asyncio.CancelledError) and task is not None and not task.cancelling()


def closed_from_outside(exc: BaseException, task: asyncio.Task[None] | None) -> bool:
    """Tell whether *exc* closes the coroutine that *task* runs, as the collection of garbage does after the loop's end.

    A GeneratorExit that the application raises itself is an exception like any other.
    """
    if not isinstance(exc, GeneratorExit):
        return False
    try:
        current = asyncio.current_task()
    except RuntimeError:  # no loop runs
        return True
    return current is None or (task is not None and current is not task)  # no task yet: the application never waited


def _wants_trailers(fields: Iterable[tuple[bytes, bytes]]) -> bool:
    """Tell whether the client accepts trailer fields (RFC 9110 section 10.1.4)."""
    return b"trailers" in list_members([value for name, value in fields if name == b"te"])
