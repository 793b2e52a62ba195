"""ASGI 3 applications (ASGI specification 3.0, HTTP sub-specification 2.5).

The delegate starts one task per request, on the loop, in a copy of the context that was current when the server had
started. It knows nothing of sockets: what the connection offers as an exchange is all it uses.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections.abc import Awaitable, Callable, MutableMapping
from typing import TYPE_CHECKING, Any

from bridge.core.log import app_log
from bridge.core.states import CLOSED, DONE
from bridge.errors import ConnectionGone, LocalProtocolError

if TYPE_CHECKING:
    from bridge.core.exchange import Exchange
    from bridge.core.serverconnection import ServerConnection

__all__ = ["ASGIDelegate"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Application = Callable[[Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]], Awaitable[None]]

# Request content that is kept for the application before the peer is slowed down, in bytes.
_WINDOW = 65536


class ASGIDelegate:
    """Serves an ASGI 3 application.

    Args:
        app: The application.
        root_path: Where it is mounted; percent-decoded, without a slash at the end.
        state: The lifespan state, of which every request gets a shallow copy; None without a lifespan.
    """

    def __init__(self, app: Application, *, root_path: str = "", state: dict[str, Any] | None = None) -> None:
        self.app = app
        self.root_path = root_path
        self.state = state
        self.context = contextvars.copy_context()
        self.tasks: set[asyncio.Task[None]] = set()

    def start_exchange(self, exchange: Exchange) -> HTTPExchange:
        """Start the application's task for a request."""
        connection = exchange.server_connection
        template = connection.delegate_data
        if template is None:
            template = connection.delegate_data = self._template(exchange)
        scope = template.copy()
        head = exchange.head
        line = head.line
        scope["http_version"] = line.version_text
        scope["method"] = line.method_text
        scope["path"] = self.root_path + line.path_text if self.root_path else line.path_text
        scope["raw_path"] = line.path
        scope["query_string"] = line.query
        scope["headers"] = head.fields
        if exchange.context is not connection.context:
            _set_client(scope, exchange)
        if self.state is not None:
            scope["state"] = self.state.copy()
        cycle = HTTPExchange(exchange)
        coroutine = cycle.run(self.app, scope)
        if sys.version_info >= (3, 12):
            # Runs the application up to its first real wait, here and now: saves a turn of the loop.
            task = asyncio.Task(coroutine, loop=connection.loop, context=self.context.copy(), eager_start=True)
            if task.done():
                return cycle
        else:
            task = connection.loop.create_task(coroutine, context=self.context.copy())
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return cycle

    def on_close(self, connection: ServerConnection) -> None:
        """A connection has ended; its exchanges were told."""

    async def wait(self, timeout: float | None) -> int:
        """Wait for the tasks that go on after their response; cancel what is left.

        Args:
            timeout: Seconds; None to wait as long as it takes.

        Returns:
            How many tasks were cancelled.
        """
        if not self.tasks:
            return 0
        _, left = await asyncio.wait(self.tasks, timeout=timeout)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=1.0)
        return len(left)

    def _template(self, exchange: Exchange) -> dict[str, Any]:
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": "http",
            "path": "/",
            "raw_path": b"/",
            "query_string": b"",
            "root_path": self.root_path,
            "headers": [],
            "client": None,
            "server": None,
            "extensions": {},
        }
        _set_client(scope, exchange)
        local = exchange.context.local_address
        if isinstance(local, tuple):
            scope["server"] = (local[0], local[1])
        elif local:
            scope["server"] = (local if isinstance(local, str) else local.decode("utf-8", "replace"), None)
        return scope


def _set_client(scope: Scope, exchange: Exchange) -> None:
    context = exchange.context
    scope["scheme"] = context.protocol
    if isinstance(context.address, tuple) or exchange.context is not exchange.server_connection.context:
        scope["client"] = (context.remote_ip, context.remote_port)


class HTTPExchange:
    """One request and response as ASGI messages.

    As the exchange's delegate it takes content and the news of a disconnect; ``receive`` and ``send`` are the
    application's ends.
    """

    __slots__ = (
        "_chunks",
        "_complete",
        "_disconnected",
        "_exchange",
        "_finished",
        "_size",
        "_started",
        "_waiter",
    )

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._chunks: list[bytes] | None = None
        self._size = 0
        self._complete = exchange.head.content_length == 0  # the content was received
        self._finished = False  # ... and given to the application
        self._disconnected = False
        self._started = False
        self._waiter: asyncio.Future[None] | None = None

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
        if self._waiter is not None:
            self._wake()

    def on_connection_close(self) -> None:
        """The peer is gone, or the exchange ended early."""
        self._disconnected = True
        self._wake()

    def on_peer_eof(self) -> None:
        """The peer sends no more.

        A client that has left looks the same as one that only closed its sending side. The application is told that
        it disconnected, if it asks; what it sends all the same is still sent.
        """
        self._disconnected = True
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    # ------------------------------------------------------------------ the application's side

    async def run(self, app: Application, scope: Scope) -> None:
        """Run the application; see to it that the exchange ends, whatever it does."""
        exchange = self._exchange
        try:
            await app(scope, self.receive, self.send)
        except ConnectionGone:
            pass  # raised by send(), and not caught by the application: it has stopped, as it should
        except Exception as exc:
            _log_failure(exc, exchange)
            exchange.fail()
        except BaseException:
            exchange.fail()
            raise
        else:
            if exchange.writing is not DONE and exchange.writing is not CLOSED:
                rule = "without a complete response" if exchange.response_started else "without a response"
                app_log.error("ASGI application returned %s to %s", rule, _describe(exchange))
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
            if self._waiter is None:
                self._waiter = asyncio.get_running_loop().create_future()
            await asyncio.shield(self._waiter)

    async def send(self, message: Message) -> None:
        """Take a message of the response (ASGI HTTP, "Response Start" and "Response Body").

        Raises:
            ConnectionGone: An OSError; the client has disconnected.
            LocalProtocolError: The message is out of order, or has illegal values.
        """
        exchange = self._exchange
        kind = message["type"]
        if kind == "http.response.body":
            if not self._started:
                raise LocalProtocolError("http.response.body before http.response.start")
            exchange.send(message.get("body", b""), not message.get("more_body", False))
            if exchange.server_connection.write_paused:
                await exchange.drained()
            if self._waiter is not None and exchange.finished:
                self._wake()
        elif kind == "http.response.start":
            if self._started:
                raise LocalProtocolError("http.response.start a second time")
            exchange.respond(message["status"], message.get("headers", ()))
            self._started = True
        else:
            raise LocalProtocolError(f"unexpected ASGI message {kind!r}")


def _describe(exchange: Exchange) -> str:
    return f"{exchange.head.line.method_text} {exchange.head.target[:80]!r}"


def _log_failure(exc: Exception, exchange: Exchange) -> None:
    app_log.error("Exception in ASGI application, %s", _describe(exchange), exc_info=exc)
