"""The delegate that serves an ASGI 3 application: one task per request or WebSocket, on the loop.

Every task runs in a copy of the context that was current when the application had started. The delegate knows nothing
of sockets: what the connection offers as an exchange is all it uses.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from asyncio import Task
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bridge.adapters.asgi.http import HTTPExchange, TimedHTTPExchange
from bridge.adapters.asgi.tls import tls_extension
from bridge.adapters.asgi.websocket import WebSocketExchange, asks_for_websocket
from bridge.adapters.paths import is_below
from bridge.core.connection.websocket import DEFAULT_OPTIONS, WebSocketConnection, WebSocketOptions
from bridge.core.http.uri import percent_decoded
from bridge.core.log import app_log

if TYPE_CHECKING:
    from bridge.adapters.asgi.types import Application, Scope
    from bridge.core.connection.interfaces import Connection, Exchange
    from bridge.core.http.message import RequestLine

__all__ = ["ASGIDelegate"]

# Not in the method: comparing versions costs 0.5 % of a plain request.
_EAGER = sys.version_info >= (3, 12)

# What cancelled tasks, and clients that were sent a close frame, have at the end, in seconds.
_LAST_TIME = 1.0

# What an application can do beyond the core specification; the values are the extensions' own, all empty.
_HTTP_EXTENSIONS: dict[str, dict[str, Any]] = {
    "http.response.trailers": {},
    "http.response.early_hint": {},
    "http.response.pathsend": {},
    "http.response.zerocopysend": {},
}


class _Shared:
    """What the scopes of one connection have in common.

    Attributes:
        scope: A scope to be copied, for requests with the line *line*.
        line: The last request's line; None before there was one.
        extensions: The scope's extensions.
        size: How many there are.
    """

    __slots__ = ("extensions", "line", "scope", "size")

    def __init__(self, scope: dict[str, Any], extensions: dict[str, Any]) -> None:
        self.scope = scope
        self.line: RequestLine | None = None
        self.extensions = extensions
        self.size = len(extensions)


class ASGIDelegate:
    """Serves an ASGI 3 application.

    Args:
        app: The application.
        root_path: Where it is mounted; percent-decoded, without a slash at the end.
        outer_path: The part of *root_path* that a proxy takes off the paths it passes on; None for all of it. Paths
            that begin with *root_path* are left as they are.
        state: The lifespan state, of which every request gets a shallow copy; None without a lifespan.
        websocket: How WebSockets are served; None to serve requests for one as plain HTTP.
        timeout: Seconds in which a response must be complete, then 504; None for no limit.
        grace: Seconds an application may go on after its client has left, then it is cancelled; None for ever.
        certificate: Returns the server's own certificate (PEM) for the ``tls`` extension; None if it is not known.
        debug: Take ``http.response.debug`` messages and log them at DEBUG.

    Attributes:
        context: What every task runs in a copy of.
        tasks: The running ones, with their exchanges.
        websockets: The connections that are WebSockets now.
        stopping: Set when the server is about to stop; applications find it in the extension
            ``bridge.shutdown.notice``.
        closing_code: The close code for WebSockets that are opened from now on; None while the server serves.
    """

    def __init__(
        self,
        app: Application,
        *,
        root_path: str = "",
        outer_path: str | None = None,
        state: dict[str, Any] | None = None,
        websocket: WebSocketOptions | None = DEFAULT_OPTIONS,
        timeout: float | None = None,
        grace: float | None = 3.0,
        certificate: Callable[[], str | None] | None = None,
        debug: bool = False,
    ) -> None:
        self.app = app
        self.root_path = root_path
        self.state = state
        self.timeout = timeout
        self.debug = debug
        self.context = contextvars.copy_context()
        self.tasks: dict[Task[None], HTTPExchange | WebSocketExchange] = {}
        self._forget = self.tasks.pop
        self._own_context = contextvars.Context()
        self.websockets: set[WebSocketConnection] = set()
        self.stopping = asyncio.Event()
        self.closing_code: int | None = None
        self._outer_path = root_path if outer_path is None else outer_path
        self._websocket = websocket
        self._grace = grace
        self._last_websocket: asyncio.Event | None = None
        self._certificate = certificate
        self._open_http = (HTTPExchange if timeout is None else TimedHTTPExchange).open
        self._extensions = dict(_HTTP_EXTENSIONS)
        if debug:
            self._extensions["http.response.debug"] = {}
        self._extensions["bridge.shutdown.notice"] = {"event": self.stopping}

    def start_exchange(self, exchange: Exchange) -> HTTPExchange | WebSocketExchange:
        """Start the application's task for a request."""
        shared: _Shared | None = exchange.templates.get(self)
        if shared is None or len(shared.extensions) != shared.size:
            # Copying the extensions for each request would cost 2 % of a plain one; an application that puts
            # something there, or takes something away, is noticed, and the next request has its own.
            shared = self._shared(exchange)
            exchange.keep_template(self, shared)
        head = exchange.head
        line = head.line
        scope = shared.scope
        if line is not shared.line:
            shared.line = line
            scope["http_version"] = line.version_text
            scope["method"] = line.method_text
            scope["path"] = self._full_path(line.path_text) if self.root_path else line.path_text
            scope["raw_path"] = line.path
            scope["query_string"] = line.query
        scope = scope.copy()
        scope["headers"] = [*head.fields]
        if exchange.context is not exchange.connection_context:
            self._set_forwarded(scope, exchange)
        if self.state is not None:
            scope["state"] = self.state.copy()
        cycle: HTTPExchange | WebSocketExchange
        if head.upgrade and self._websocket is not None and asks_for_websocket(head):
            cycle = WebSocketExchange(exchange, self, self._websocket)
            if not cycle.open(scope):
                return cycle
        else:
            cycle = self._open_http(exchange, self)
        coroutine = cycle.run(self.app, scope)
        if _EAGER:
            # Runs the application up to its first real wait, here and now: saves a turn of the loop.
            task = Task(  # type: ignore[call-arg]  # what Python 3.12 has
                coroutine, loop=exchange.loop, context=self.context.copy(), eager_start=True
            )
            if task.done():
                return cycle
        else:
            task = exchange.loop.create_task(coroutine, context=self.context.copy())
        cycle.task = task
        self.tasks[task] = cycle
        task.add_done_callback(self._forget, context=self._own_context)  # else each has a copy of the current one
        return cycle

    def add_websocket(self, connection: WebSocketConnection) -> None:
        """Keep a WebSocket in mind until its transport is gone."""
        self.websockets.add(connection)
        connection.on_lost = self._websocket_lost

    def _websocket_lost(self, connection: WebSocketConnection) -> None:
        self.websockets.discard(connection)
        if self._last_websocket is not None and not self.websockets:
            self._last_websocket.set()

    def on_close(self, connection: Connection) -> None:
        """A connection has ended; its exchanges were told."""

    # ------------------------------------------------------------------ clients that leave

    def expect_end(self, task: Task[None]) -> None:
        """Cancel a task that goes on for longer than the grace time: its client has left."""
        if self._grace is not None and not task.done():
            task.get_loop().call_later(self._grace, _cancel, task)

    def expect_progress(self, task: Task[None], exchange: Exchange) -> None:
        """Cancel a task whose client has closed its sending side, unless it sends something within the grace time.

        Only what is sent can show whether the client has left, or still reads.
        """
        if self._grace is not None and not task.done():
            sent = exchange.content_sent
            task.get_loop().call_later(self._grace, self._check_progress, task, exchange, sent)

    def _check_progress(self, task: Task[None], exchange: Exchange, sent: int) -> None:
        if task.done() or exchange.finished:
            return
        if exchange.content_sent > sent:
            self.expect_progress(task, exchange)
        else:
            _cancel(task)

    # ------------------------------------------------------------------ the end

    def stop(self, websockets: float | None, streams: float | None, code: int = 1001) -> None:
        """Give notice that the server is about to stop; plain requests go on.

        Args:
            websockets: Seconds until WebSockets are closed; None to leave them.
            streams: Seconds until endless responses, such as server-sent events, are told that their client has gone;
                None to leave them.
            code: The close code for WebSockets: 1001 (going away) or 1012 (service restart).
        """
        loop = asyncio.get_running_loop()
        self.stopping.set()
        if streams is not None:
            loop.call_later(streams, self._stop_streams)
        if websockets is not None:
            loop.call_later(websockets, self._close_websockets, code)

    def _stop_streams(self) -> None:
        for cycle in tuple(self.tasks.values()):
            if isinstance(cycle, HTTPExchange):
                cycle.stop()

    def _close_websockets(self, code: int) -> None:
        self.closing_code = code
        for cycle in tuple(self.tasks.values()):
            if isinstance(cycle, WebSocketExchange):
                cycle.stop(code)

    async def wait(self, timeout: float | None) -> int:
        """Wait for the tasks that go on after their response, and for WebSockets; cancel what is left.

        Args:
            timeout: Seconds; None to wait as long as it takes.

        Returns:
            How many tasks were cancelled.
        """
        left: set[Task[None]] = set()
        if self.tasks:
            _, left = await asyncio.wait(tuple(self.tasks), timeout=timeout)
            for task in left:
                task.cancel()
            if left:
                await asyncio.wait(left, timeout=_LAST_TIME)
        if self.websockets:
            await self._lose_websockets()
        return len(left)

    async def _lose_websockets(self) -> None:
        """Give clients a moment to answer the close frames, then end the connections."""
        self._last_websocket = asyncio.Event()
        for abort in (False, True):
            for connection in tuple(self.websockets) if abort else ():
                connection.abort()
            try:
                async with asyncio.timeout(_LAST_TIME):
                    await self._last_websocket.wait()
                return
            except TimeoutError:
                pass

    # ------------------------------------------------------------------ scopes

    def _full_path(self, path: str) -> str:
        """Return *path* with the part of the root path that a proxy has taken off."""
        return path if is_below(path, self.root_path) else self._outer_path + path

    def _set_forwarded(self, scope: Scope, exchange: Exchange) -> None:
        """Set what is not the connection's: the id, and what a trusted proxy has reported.

        That is client, scheme, server, and the path below which it has put us.
        """
        context = exchange.context
        if context.request_id:
            scope["extensions"] = {**scope["extensions"], "bridge.request_id": {"id": context.request_id}}
        scope["scheme"] = context.protocol
        scope["client"] = (context.remote_ip, context.remote_port) if context.has_remote else None
        if context.forwarded_server:
            scope["server"] = context.local_address
        if context.prefix:
            prefix = percent_decoded(context.prefix.encode("latin-1")).decode("utf-8", "replace")
            scope["root_path"] = prefix + self.root_path
            scope["path"] = prefix + scope["path"]  # whoever sends the field has taken the prefix off

    def _shared(self, exchange: Exchange) -> _Shared:
        """Return what the scopes of one connection have in common."""
        context = exchange.connection_context
        extensions = self._extensions.copy()
        scope: dict[str, Any] = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.5"},
            "http_version": "1.1",
            "method": "GET",
            "scheme": context.protocol,
            "path": "/",
            "raw_path": b"/",
            "query_string": b"",
            "root_path": self.root_path,
            "headers": [],
            "client": None,
            "server": None,
            "extensions": extensions,
        }
        if context.has_remote:
            client = (context.remote_ip, context.remote_port)
            scope["client"] = context.address if context.address == client else client  # one tuple, not two
        local = context.local_address
        if isinstance(local, tuple):
            scope["server"] = local[:2]  # for IPv4 that is the very same, which all connections share
        elif local:
            scope["server"] = (local if isinstance(local, str) else local.decode("utf-8", "replace"), None)
        tls = exchange.tls
        if tls is not None:
            certificate = None if self._certificate is None else self._certificate()
            extensions["tls"] = tls_extension(tls, certificate)
        return _Shared(scope, extensions)


def _cancel(task: Task[None]) -> None:
    if task.cancel():
        app_log.info("ASGI application goes on although its client has left: cancelled")
