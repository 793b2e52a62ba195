"""The delegate that serves an ASGI 3 application: one task per request or WebSocket, on the loop.

Every task runs in a copy of the context that the application's startup has left. The delegate uses only what the
exchange offers of its connection.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
from asyncio import Task
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bridge.adapters.asgi.http import HTTPExchange, TimedHTTPExchange
from bridge.adapters.asgi.scope import ASGI_VERSIONS, ReadOnly, ScopeTemplate, into_websocket_scope, set_forwarded
from bridge.adapters.asgi.tls import tls_extension
from bridge.adapters.asgi.websocket import WebSocketExchange, refuse_handshake
from bridge.core.connection.interfaces import NULL_DELEGATE
from bridge.core.connection.websocket import DEFAULT_OPTIONS, WebSocketConnection, WebSocketOptions
from bridge.core.log import app_log
from bridge.core.websocket.handshake import Refusal, check_handshake

if TYPE_CHECKING:
    from bridge.adapters.asgi.types import Application, Scope
    from bridge.core.connection.interfaces import Connection, Exchange, ExchangeDelegate

__all__ = ["ASGIDelegate"]

# Not in the method: the comparison of versions would be 0.5 % of a plain request.
_EAGER = sys.version_info >= (3, 12)

# Seconds that cancelled tasks, and clients that were sent a close frame, get at the end.
_CANCELLED_TIME = 0.5
_LAST_TIME = 1.0

# What the server offers beyond the core specification. The extensions define their values, which are empty. pathsend
# is not among them: frameworks use it on their own as soon as it is offered, and middleware that compresses or reads
# the content of responses then sees none.
_HTTP_EXTENSIONS = {
    "http.response.trailers": ReadOnly(),
    "http.response.early_hint": ReadOnly(),
    "http.response.zerocopysend": ReadOnly(),
}


class ASGIDelegate:
    """Serves an ASGI 3 application.

    Args:
        app: The application.
        root_path: Where it is mounted; percent-decoded, without a slash at the end.
        outer_path: The part of *root_path* that a proxy removes from the paths that it passes on; None for all of it.
            Paths that begin with *root_path* are left as they are.
        state: The lifespan state, of which every request gets a shallow copy; None without a lifespan.
        websocket: How WebSockets are served; None to serve requests for one as plain HTTP.
        timeout: Seconds in which a response must be complete, then 504; None for no limit.
        grace: Seconds after which an application is cancelled whose client has left; None for never.
        certificate: Returns the server's own certificate (PEM) for the ``tls`` extension; None if it is not known.
        debug: Take ``http.response.debug`` messages and log them at DEBUG.
        worker: The number of this worker process, for the extension ``bridge.worker``; None without workers.
        pathsend: Offer the extension ``http.response.pathsend``, with which frameworks send their files.

    Attributes:
        context: Every task runs in a copy of it.
        tasks: The running tasks, each with the request or WebSocket that it serves.
        websockets: The open WebSocket connections.
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
        worker: int | None = None,
        pathsend: bool = False,
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
        self._no_websockets: asyncio.Event | None = None  # made by wait(); set when the last one ends
        self._certificate = certificate
        self._open_http = (HTTPExchange if timeout is None else TimedHTTPExchange).open
        self._extensions = dict(_HTTP_EXTENSIONS)
        if pathsend:
            self._extensions["http.response.pathsend"] = ReadOnly()
        if debug:
            self._extensions["http.response.debug"] = ReadOnly()
        if worker is not None:
            self._extensions["bridge.worker"] = ReadOnly(number=worker)
        self._extensions["bridge.shutdown.notice"] = ReadOnly(event=self.stopping)
        self._shown = False
        self._on_websocket: Callable[[WebSocketConnection], None] | None = None

    def observe(self, on_websocket: Callable[[WebSocketConnection], None]) -> None:
        """Note the scope of each request in the ``times`` of its exchange, for observers.

        Args:
            on_websocket: Called with each WebSocket that was accepted, before its first message.
        """
        self._shown = True
        self._on_websocket = on_websocket

    def exchanges(self) -> dict[Task[None], Exchange]:
        """Return the running tasks, each with the exchange that it serves."""
        return {task: served.exchange for task, served in self.tasks.items()}

    def start_exchange(self, exchange: Exchange) -> ExchangeDelegate:
        """Start the application's task for a request."""
        template: ScopeTemplate | None = exchange.templates.get(self)
        if template is None:
            template = self._scope_template(exchange)
            exchange.keep_template(self, template)
        head = exchange.head
        scope: Scope | None = template.make_scope(template.scope, head, ASGI_VERSIONS, template.extensions)
        if scope is None:
            scope = template.scope_of(head)
        if exchange.context is not template.context:
            set_forwarded(scope, exchange.context)
        if self.state is not None:
            scope["state"] = self.state.copy()
        served: HTTPExchange | WebSocketExchange
        if (
            head.upgrade
            and self._websocket is not None
            and (handshake := check_handshake(head, self._websocket.deflate)) is not None
        ):
            if isinstance(handshake, Refusal):
                refuse_handshake(exchange, handshake)
                return NULL_DELEGATE
            into_websocket_scope(scope, handshake.subprotocols)
            served = WebSocketExchange(exchange, self, self._websocket, handshake)
        else:
            served = self._open_http(exchange, self)
        if self._shown and exchange.times is not None:
            exchange.times.called_with = scope
        coroutine = served.run(self.app, scope)
        if _EAGER:
            # The application runs here and now, up to its first real wait, which saves a turn of the loop.
            task = Task(  # type: ignore[call-arg]  # what Python 3.12 has
                coroutine, loop=template.loop, context=self.context.copy(), eager_start=True
            )
            if task.done():
                return NULL_DELEGATE  # the exchange has ended: there is nobody to tell of the request's end
        else:
            task = template.loop.create_task(coroutine, context=self.context.copy())
        served.task = task
        self.tasks[task] = served
        # With a context of the delegate's: without one, asyncio would copy the current context for each task.
        task.add_done_callback(self._forget, context=self._own_context)
        return served

    def _scope_template(self, exchange: Exchange) -> ScopeTemplate:
        extensions = self._extensions
        tls = exchange.tls
        if tls is not None:
            certificate = None if self._certificate is None else self._certificate()
            extensions = {**extensions, "tls": ReadOnly(tls_extension(tls, certificate))}
        return ScopeTemplate(exchange, self.root_path, self._outer_path, extensions)

    @property
    def takes_websockets(self) -> bool:
        """WebSockets are served, over HTTP/2 too (RFC 8441)."""
        return self._websocket is not None

    def on_close(self, connection: Connection) -> None:
        """Do nothing when a connection has ended: its exchanges were told."""

    # ------------------------------------------------------------------ what requests and WebSockets ask for (Owner)

    def add_websocket(self, connection: WebSocketConnection) -> None:
        """Keep *connection* in ``websockets`` until its transport is gone."""
        self.websockets.add(connection)
        if self._on_websocket is not None:
            self._on_websocket(connection)
        connection.on_lost = self._websocket_lost

    def _websocket_lost(self, connection: WebSocketConnection) -> None:
        self.websockets.discard(connection)
        if self._no_websockets is not None and not self.websockets:
            self._no_websockets.set()

    def cancel_after_grace(self, task: Task[None]) -> None:
        """Cancel *task*, whose client has left, unless it ends within the grace time."""
        if self._grace is not None and not task.done():
            task.get_loop().call_later(self._grace, _cancel, task)

    def cancel_if_idle(self, task: Task[None], exchange: Exchange) -> None:
        """Cancel *task*, whose client has closed its sending side, when it sends nothing for the grace time.

        Such a client may have left, or may still read. Only sending to it shows which.
        """
        if self._grace is not None and not task.done():
            sent = exchange.content_sent
            task.get_loop().call_later(self._grace, self._check_progress, task, exchange, sent)

    def _check_progress(self, task: Task[None], exchange: Exchange, sent: int) -> None:
        if task.done() or exchange.finished:
            return
        if exchange.content_sent > sent:
            self.cancel_if_idle(task, exchange)
        else:
            _cancel(task)

    # ------------------------------------------------------------------ the end

    def stop(self, websockets: float | None, code: int = 1001) -> None:
        """Give notice that the server is about to stop; requests go on.

        Args:
            websockets: Seconds until WebSockets are closed; None to leave them.
            code: The close code for WebSockets: 1001 (going away) or 1012 (service restart).
        """
        self.stopping.set()
        if websockets is not None:
            asyncio.get_running_loop().call_later(websockets, self._close_websockets, code)

    def _close_websockets(self, code: int) -> None:
        self.closing_code = code
        for served in tuple(self.tasks.values()):
            if isinstance(served, WebSocketExchange):
                served.stop(code)

    async def wait(self, timeout: float | None) -> int:
        """Wait for the tasks that outlive their response; cancel those that remain, and end the WebSockets.

        Args:
            timeout: Seconds to wait for the tasks; None to wait as long as it takes.

        Returns:
            How many tasks were cancelled.
        """
        left: set[Task[None]] = set()
        if self.tasks:
            _, left = await asyncio.wait(tuple(self.tasks), timeout=timeout)
            for task in left:
                task.cancel()
            if left:
                await asyncio.wait(left, timeout=_CANCELLED_TIME)
        if self.websockets:
            await self._end_websockets()
        return len(left)

    async def _end_websockets(self) -> None:
        """Give clients a moment to answer the close frames, then abort the connections that remain."""
        self._no_websockets = asyncio.Event()
        for abort in (False, True):
            for connection in tuple(self.websockets) if abort else ():
                connection.abort()
            try:
                async with asyncio.timeout(_LAST_TIME):
                    await self._no_websockets.wait()
                return
            except TimeoutError:
                pass


def _cancel(task: Task[None]) -> None:
    if task.cancel():
        app_log.info("ASGI application goes on although its client has left: cancelled")
