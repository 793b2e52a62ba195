"""One WebSocket as ASGI messages (ASGI WebSocket sub-specification 2.5)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bridge.adapters.asgi.http import cancelled_itself, client_left, closed_from_outside, describe
from bridge.adapters.asgi.messages import MESSAGE_ERRORS, as_bytes, explain
from bridge.adapters.asgi.types import SENDS_IN_A_ROW
from bridge.core.connection.states import CLOSED, DONE
from bridge.core.connection.waiter import Waiters
from bridge.core.connection.websocket import ABNORMAL, INTERNAL_ERROR, WebSocketConnection
from bridge.core.log import app_log, gen_log
from bridge.errors import ConnectionGone, LocalProtocolError, caused_by_disconnect, traceback_of
from bridge.forks import end_if_forked

if TYPE_CHECKING:
    from bridge.adapters.asgi.types import Application, Message, Owner, Scope
    from bridge.core.connection.interfaces import Exchange
    from bridge.core.connection.websocket import WebSocketOptions
    from bridge.core.websocket.handshake import Handshake, Refusal

__all__ = ["WebSocketExchange", "refuse_handshake"]

# Bytes. Larger messages are written to the socket first, so that a transport keeps only what is left of them. If the
# limit is 4 KiB, the echo of 16 KiB takes 16.1 us of CPU instead of 13.7 (python -m benchmarks websocket-16k).
_WHOLE_MAX = 32768
# The messages that answer a handshake, each with one call.
_ANSWERS = ("websocket.accept", "websocket.close")

# Fields of the 101 response that only the server sets. The subprotocol has a key of its own in websocket.accept.
_SERVER_FIELDS = frozenset(
    (b"sec-websocket-accept", b"sec-websocket-extensions", b"sec-websocket-protocol", b"upgrade", b"connection")
)


def refuse_handshake(exchange: Exchange, refusal: Refusal) -> None:
    """Answer an invalid handshake."""
    gen_log.info("WebSocket handshake from %s refused: %s", exchange.context, refusal.message)
    exchange.close_after = True
    exchange.answer(refusal.status, refusal.message.encode("ascii", "backslashreplace") + b"\r\n", refusal.fields)


class WebSocketExchange:
    """A WebSocket, from its handshake to its end, as ASGI messages.

    It is the delegate of the handshake's exchange, and so learns that the client leaves before the answer. ``receive``
    and ``send`` are for the application.

    Args:
        exchange: The handshake's.
        owner: The delegate that starts it.
        options: How the WebSocket is served.
        handshake: The client's valid handshake.

    Attributes:
        task: Runs the application; None if the application has ended without waiting.
    """

    __slots__ = (
        "_connected",
        "_connection",
        "_denied",
        "_exchange",
        "_gone",
        "_handshake",
        "_options",
        "_owner",
        "_sends",
        "_timer",
        "_told",
        "_waiters",
        "task",
    )

    def __init__(self, exchange: Exchange, owner: Owner, options: WebSocketOptions, handshake: Handshake) -> None:
        self._exchange = exchange
        self._owner = owner
        self._options = options
        self._handshake = handshake
        self._connection: WebSocketConnection | None = None  # once the handshake is accepted
        self._connected = False  # the application has received websocket.connect
        self._denied = False  # the application answers with an HTTP response
        self._gone = False  # the client left during the handshake
        self._told = False  # receive() has said so
        self._sends = SENDS_IN_A_ROW  # until the loop gets a turn
        self._timer: asyncio.TimerHandle | None = None  # until the handshake is answered
        self._waiters: Waiters | None = None  # of receive() calls before the answer; made for the first one
        self.task: asyncio.Task[None] | None = None
        if owner.timeout is not None:
            self._timer = exchange.loop.call_later(owner.timeout, self._time_out, owner.timeout)

    def _time_out(self, timeout: float) -> None:
        """Answer 504: the application has not answered the handshake in time (``--timeout-request``)."""
        exchange = self._exchange
        if self._connection is None and not exchange.response_started:
            app_log.warning("No answer within %g s, WebSocket %s", timeout, describe(exchange))
            exchange.fail(504)
            if self.task is not None:
                self.task.cancel()

    @property
    def exchange(self) -> Exchange:
        """The exchange of the handshake."""
        return self._exchange

    # ------------------------------------------------------------------ the exchange's delegate

    def data_received(self, chunk: bytes) -> None:
        """Do nothing: a handshake has no content."""

    def finish(self) -> None:
        """The handshake's request is complete, as it was from the start."""

    def on_connection_close(self) -> None:
        """The client left before the handshake was answered."""
        if self._connection is None:
            self._gone = True
            self._wake()
            self._cancel_after_grace()

    def on_peer_eof(self) -> None:
        """The client sends nothing more, so it has no use for a WebSocket."""
        self.on_connection_close()

    def stop(self, code: int) -> None:
        """Close with *code*: the server is stopping."""
        if self._connection is not None:
            self._connection.close(code, "server is stopping")
            self._cancel_after_grace()

    def _cancel_after_grace(self) -> None:
        if self.task is not None:
            self._owner.cancel_after_grace(self.task)

    # ------------------------------------------------------------------ the application's side

    async def run(self, app: Application, scope: Scope) -> None:
        """Run the application, and end the WebSocket when it ends."""
        exchange = self._exchange
        code = 1000
        try:
            await app(scope, self.receive, self.send)
        except asyncio.CancelledError as exc:
            if not self._is_over() and cancelled_itself(exc):
                app_log.error(
                    "ASGI application was cancelled by itself, WebSocket %s",
                    describe(exchange),
                    exc_info=traceback_of(exc),
                )
            self._end(self._owner.closing_code or INTERNAL_ERROR)
            raise
        except BaseException as exc:  # SystemExit and KeyboardInterrupt end the application, not the server
            if closed_from_outside(exc, self.task):
                self._end(self._owner.closing_code or INTERNAL_ERROR)
                raise
            end_if_forked(exc)
            code = INTERNAL_ERROR
            if not (self._is_over() and caused_by_disconnect(exc)):
                app_log.error(
                    "Exception in ASGI application, WebSocket %s", describe(exchange), exc_info=traceback_of(exc)
                )
        else:
            if self._connection is None and not self._gone and not exchange.finished:
                app_log.error("ASGI application returned without an answer, WebSocket %s", describe(exchange))
        self._end(code)

    def _end(self, code: int) -> None:
        """Close the WebSocket with *code*, or answer the handshake; do nothing if that is done."""
        if self._timer is not None:
            self._timer.cancel()
        connection = self._connection
        if connection is not None:
            connection.close(code)
        elif self._gone:  # nobody waits for a 500, and the access log would call it the server's fault
            self._exchange.close_connection()
        elif not self._exchange.finished:
            self._exchange.fail()

    def _is_over(self) -> bool:
        connection = self._connection
        if connection is None:
            return self._gone or client_left(self._exchange)
        return not connection.open

    async def receive(self) -> Message:
        """Return the next message (ASGI WebSocket, "Connect", "Receive" and "Disconnect")."""
        connection = self._connection
        if not self._connected:  # even if the application has accepted before it called receive()
            self._connected = True
            return {"type": "websocket.connect"}
        if connection is None:
            connection = await self._answered()
            if connection is None:
                self._told = True
                await self._let_others_run()
                return {"type": "websocket.disconnect", "code": ABNORMAL, "reason": ""}
        while not connection.messages:
            if connection.close_code:
                await self._let_others_run()
                return {
                    "type": "websocket.disconnect",
                    "code": connection.close_code,
                    "reason": connection.close_reason,
                }
            await connection.arrival()
        data = connection.take()
        if data.__class__ is str:
            return {"type": "websocket.receive", "text": data}
        return {"type": "websocket.receive", "bytes": data}

    async def _answered(self) -> WebSocketConnection | None:
        """Wait for the answer to the handshake; return the connection if it was accepted."""
        while self._connection is None and not self._gone and not self._exchange.finished:
            if self._waiters is None:
                self._waiters = Waiters(self._exchange.loop)
            await self._waiters.next_event()
        return self._connection

    def _wake(self) -> None:
        """Let the receive() calls that wait for the answer look at it."""
        if self._waiters is not None:
            self._waiters.wake()

    async def send(self, message: Message) -> None:  # noqa: C901 -- calls would cost every message
        """Take a message (ASGI WebSocket, "Accept", "Send" and "Close", and the denial response extension).

        Raises:
            ConnectionGone: An OSError; the client has disconnected.
            LocalProtocolError: The message is out of order, or has illegal values.
        """
        connection = self._connection
        try:
            if connection is None:
                await self._send_before_answer(message)
                await self._let_others_run()
                return
            kind = message["type"]
            if kind == "websocket.send":
                # Not by send_text() and send_binary(): one more call would be 1 % of a short message.
                if not connection.open:
                    raise ConnectionGone("the WebSocket is closed")
                text = message.get("text")
                data = message.get("bytes")
                if data is None:
                    if text is None:
                        raise LocalProtocolError("websocket.send with neither bytes nor text")
                    if len(text) > connection.at_once:
                        await connection.prepare(text)
                    frame = connection.encode_text(text)
                elif text is None:
                    if data.__class__ is not bytes:
                        data = as_bytes(kind, data, "bytes")
                    if len(data) > connection.at_once:
                        await connection.prepare(data)
                    frame = connection.encode_binary(data)
                else:
                    raise LocalProtocolError("websocket.send with both bytes and text")
                if len(frame) <= _WHOLE_MAX:
                    connection.write_frame(frame)
                else:
                    connection.writer.write(frame)
                    # The message is not kept while others have their turn, or while the client does not read.
                    message, data, text, frame = {}, None, None, b""
                if connection.writer.paused:
                    await connection.writer.writable()
                else:
                    self._sends -= 1
                    if not self._sends:
                        self._sends = SENDS_IN_A_ROW
                        await asyncio.sleep(0)
            else:
                self._close(connection, kind, message)
        except (LocalProtocolError, ConnectionGone, *MESSAGE_ERRORS) as exc:
            await self._let_others_run()
            if exc.__class__ is not ConnectionGone:
                explain(message, exc)
            raise

    def _close(self, connection: WebSocketConnection, kind: str, message: Message) -> None:
        """Take websocket.close. Refuse every other message except websocket.send."""
        if kind != "websocket.close":
            raise LocalProtocolError(f"unexpected ASGI message {kind!r} after websocket.accept")
        if not connection.open:
            raise ConnectionGone("the WebSocket is closed")
        connection.close(message.get("code") or 1000, message.get("reason") or "")

    async def _let_others_run(self) -> None:
        """Give the loop a turn now and then, though nothing has to be waited for: see HTTPExchange."""
        self._sends -= 1
        if not self._sends:
            self._sends = SENDS_IN_A_ROW
            await asyncio.sleep(0)

    async def _send_before_answer(self, message: Message) -> None:
        """Take a message while there is no WebSocket: the answer to the handshake, or a part of it."""
        exchange = self._exchange
        kind = message["type"]
        if self._gone and not self._told and kind in _ANSWERS:
            return  # receive() tells the application; some frameworks would log a fault of theirs
        if self._gone or exchange.writing is CLOSED:
            raise ConnectionGone("the client has disconnected")
        if kind == "websocket.http.response.start":
            if self._denied:
                raise LocalProtocolError("websocket.http.response.start a second time")
            status = message["status"]
            if status == 101:  # the client would believe that the WebSocket is open
                raise LocalProtocolError("websocket.http.response.start with status 101")
            exchange.close_after = True
            exchange.respond(status, message.get("headers", ()))
            self._denied = True
        elif kind == "websocket.http.response.body":
            if not self._denied:
                raise LocalProtocolError("websocket.http.response.body before websocket.http.response.start")
            body = message.get("body", b"")
            if body.__class__ is not bytes:
                body = as_bytes(kind, body)
            exchange.send(body, not message.get("more_body", False))
            await exchange.drained()
            self._wake()
        elif self._denied or exchange.writing is DONE:
            raise LocalProtocolError(f"{kind!r} after the handshake was denied")
        elif kind == "websocket.accept":
            self._accept(message)
        elif kind == "websocket.close":
            exchange.close_after = True
            exchange.answer(403)
            self._wake()
        else:
            raise LocalProtocolError(f"unexpected ASGI message {kind!r} before websocket.accept")

    def _accept(self, message: Message) -> None:
        fields = [(bytes(name), bytes(value)) for name, value in message.get("headers") or ()]
        for name, _ in fields:
            if name.lower() in _SERVER_FIELDS:
                raise LocalProtocolError(f"websocket.accept with a field of the server's: {name!r}")
        connection = WebSocketConnection.accept(
            self._exchange, self._handshake, self._options, message.get("subprotocol"), fields
        )
        if self._timer is not None:
            self._timer.cancel()
        connection.on_end = self._cancel_after_grace
        self._owner.add_websocket(connection)
        self._connection = connection
        self._wake()
        if self._owner.closing_code is not None:
            self.stop(self._owner.closing_code)
