"""One server process: an application, its sockets, from start to graceful stop."""

from __future__ import annotations

import asyncio
import contextvars
import os
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Self

from bridge.apps.lifecycle import Hosted, Place, host, load_places
from bridge.config import Config
from bridge.core.connection.parameters import ConnectionParameters
from bridge.core.http1.request import Limits
from bridge.core.httpserver import HTTPServer
from bridge.core.log import gen_log
from bridge.core.middleware.concurrency import Observers, RequestCount
from bridge.core.tcpserver import ACCEPTS_PER_TURN
from bridge.serving.certificates import Certificates
from bridge.serving.middleware import front, request_ids
from bridge.serving.sockets import Listener, bind_all, url

if TYPE_CHECKING:
    from types import TracebackType

    from bridge.core.connection.interfaces import Observer
    from bridge.telemetry.accesslog import AccessLog

__all__ = ["Server", "announce", "run_prepared", "serving_line"]

#: Seconds that requests in progress have at a fast stop (SIGINT).
FAST = 5.0


class Server:
    """Serves one application in this process.

    An async context manager: it serves inside the ``async with`` block, beside whatever else the loop does.

    Args:
        config: The settings.
        app: The application; without it, what ``config.target`` names is imported.
        listeners: What to listen on; without them the addresses of *config* are bound. They are closed with the server.
        places: The applications, if they were loaded before.

    Attributes:
        started: Connections are accepted.
        sockets: What is listened on, once started.
        kind: The application's interface in words, once started.
        on_limit: Called when ``limit_max_requests`` or ``workers_lifetime`` is reached; unless replaced, it stops the
            server.
        on_started: Called when connections are accepted.
        on_deaf: Called when a stop has begun and no more connections are accepted.
    """

    def __init__(
        self,
        config: Config,
        app: Any = None,
        listeners: Sequence[Listener] | None = None,
        places: list[Place] | None = None,
    ) -> None:
        self.config = config
        self.started = False
        self.sockets: list[socket.socket] = []
        self.kind = ""
        self.on_limit: Callable[[], None] = self.stop
        self.on_deaf: Callable[[], None] = _nothing
        self.on_started: Callable[[], None] = _nothing
        self._app = app
        self._listeners = listeners
        self._places = places
        self._prepared = False
        self._alone = listeners is None
        self._hosted: Hosted | None = None
        self._http: HTTPServer | None = None
        self._certificates: Certificates | None = None
        self._access_log: AccessLog | None = None
        self._lifetime: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._stop_early = False
        self._timeout: float | None = config.timeout_graceful_shutdown
        self._idle_grace = 0.0
        self._forced = False
        self._draining: asyncio.Task[Any] | None = None

    # ------------------------------------------------------------------ in a program

    @property
    def should_exit(self) -> bool:
        """A stop was asked for; setting it, from any thread, asks for one."""
        return self._stop_early or (self._stopping is not None and self._stopping.is_set())

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        if not value:
            return
        self._stop_early = True
        if self._stopping is not None and self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._stopping.set)

    async def serve(self) -> None:
        """Start, serve until :attr:`should_exit`, and stop gracefully. Signals are left alone.

        Raises:
            BindError: An address cannot be listened on.
            LifespanFailed: The application cannot start.
            ConfigError: TLS files that cannot be used; TargetError, which is one, for the target.
        """
        async with self:
            await self.stopped()

    async def __aenter__(self) -> Self:
        await self.startup()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.shutdown()

    @property
    def url(self) -> str:
        """Where the first socket can be reached, for instance ``http://127.0.0.1:8000``."""
        return url(self.sockets[0], self._scheme)

    @property
    def _scheme(self) -> str:
        return "https" if self._certificates is not None else "http"

    def prepare(self) -> None:
        """Listen, give up privileges, and load the application: what comes before the event loop runs.

        :meth:`startup` does it if nobody has; then the application is imported while the loop runs, and what it does
        that refuses to run beside a loop fails. The exceptions are those of :meth:`serve`.
        """
        config = self.config
        self._prepared = True
        self._certificates = Certificates.of(config)
        if self._listeners is None:
            self._listeners = bind_all(config)
        try:
            if self._alone:
                from bridge.serving.privileges import drop_privileges

                drop_privileges(config)
            if self._places is None:
                self._places = load_places(config, self._app)
        except BaseException:
            self._close_listeners()
            raise

    async def startup(self) -> None:
        """Do what :meth:`prepare` does unless it is done, start the application, and accept connections.

        The exceptions are those of :meth:`serve`.
        """
        config = self.config
        self._loop = asyncio.get_running_loop()
        self._stopping = asyncio.Event()
        if self._stop_early:
            self._stopping.set()
        if not self._prepared:
            self.prepare()
        try:
            hosted = await self._start_application()
        except BaseException:
            self._close_listeners()
            raise
        self._http = self._make_http(hosted)
        if self._certificates is not None:
            self._certificates.watch(self._loop)
        self.sockets = [sock for listener in self._listeners or () for sock in listener.sockets]
        self._http.add_sockets(self.sockets)
        if config.workers_lifetime is not None:
            from random import uniform

            jitter = uniform(0, config.workers_lifetime_jitter)  # noqa: S311 - it only spreads the load
            self._lifetime = self._loop.call_later(config.workers_lifetime + jitter, self._reached_limit)
        self.started = True
        self.on_started()

    async def _start_application(self) -> Hosted:
        places = self._places
        assert places is not None
        if self.config.debug:
            from bridge.serving.debugging import debugged

            places = [debugged(place) for place in places]
        hosted = self._hosted = host(self.config, places)
        self.kind = hosted.kind
        try:
            await hosted.startup()
        except BaseException:
            await hosted.shutdown(0)
            raise
        return hosted

    def _reached_limit(self) -> None:
        self.on_limit()

    def _make_http(self, hosted: Hosted) -> HTTPServer:
        config = self.config
        observers: list[Observer] = []
        delegate = front(config, hosted.delegate, observers)
        if config.access_log:
            from bridge.telemetry.accesslog import AccessLog

            assert self._loop is not None
            self._access_log = AccessLog(config, self._loop)
            observers.append(self._access_log)
        if config.limit_max_requests is not None:
            limit = config.limit_max_requests
            observers.append(RequestCount(limit, config.limit_max_requests_jitter, self._reached_limit))
        params = _parameters(config, observers, wsgi=hosted.kind.startswith("WSGI"), late=hosted.late_limit)
        params.timed = self._access_log is not None and self._access_log.timed
        params.request_ids = request_ids(config)
        preface = None
        if config.proxy_protocol != "off":
            from bridge.serving.proxyprotocol import HeaderReader

            preface = HeaderReader(config.proxy_protocol, config.proxy_allow_from, config.timeout_request_head)
        certificates = self._certificates
        return HTTPServer(
            delegate,
            params=params,
            server_name=b"bridge" if config.server_header else b"",
            date_header=config.date_header,
            tls=None if certificates is None else lambda: certificates.context,
            preface=preface,
            tls_handshake_timeout=config.timeout_tls_handshake,
            max_connections=config.limit_connections,
            # Among workers one at a time: otherwise the worker that wakes first takes a whole burst.
            accepts_per_turn=ACCEPTS_PER_TURN if self._alone else 1,
        )

    # ------------------------------------------------------------------ stopping

    async def stopped(self) -> None:
        """Wait until a stop is asked for."""
        assert self._stopping is not None
        await self._stopping.wait()

    def stop(self, timeout: float | None = -1.0, idle_grace: float = 0.0) -> None:
        """Ask for a stop; call it on the loop.

        Args:
            timeout: Seconds that requests in progress have; None for as long as it takes. Without it, what the settings
                say.
            idle_grace: Seconds for which idle connections are kept, so that their last response can say
                ``Connection: close``.
        """
        if timeout is None or timeout >= 0:
            self._timeout = timeout
        self._idle_grace = idle_grace
        self.should_exit = True

    def force(self) -> None:
        """Stop at once: what is in progress is cut. On the loop."""
        self._forced = True
        self._timeout = 0.0
        if self._draining is not None and not self._draining.done():
            self._draining.cancel()
        self.should_exit = True

    async def shutdown(self) -> None:
        """Stop accepting, let requests in progress finish, then stop the application.

        What takes longer than ``timeout_graceful_shutdown``, or than a call of :meth:`force`, is cut off.
        """
        http, hosted, loop = self._http, self._hosted, self._loop
        if http is None or hosted is None or loop is None:
            return
        self._http = None
        self.started = False
        self.should_exit = True
        if self._lifetime is not None:
            self._lifetime.cancel()
        hosted.stop(restart=self._idle_grace > 0)
        if not self._idle_grace and not self._forced:  # nobody else serves these addresses from now on
            http.accept_waiting()
        http.stop()
        self._close_listeners()
        self.on_deaf()
        websockets = len(getattr(hosted.delegate, "websockets", ()))
        if websockets and not self._forced:
            gen_log.info("Stopping: waiting for %d WebSocket%s", websockets, "" if websockets == 1 else "s")
        end = None if self._timeout is None else loop.time() + self._timeout
        self._draining = draining = loop.create_task(
            http.drain(self._timeout, self._waiting, idle_grace=self._idle_grace)
        )
        self._waited_for = http
        try:
            aborted = await draining
        except asyncio.CancelledError:
            if not self._forced:
                raise
            aborted = await http.drain(0)
        if aborted:
            gen_log.warning("Stopping: %d connection%s cut off", aborted, "" if aborted == 1 else "s")
        left = None if end is None else max(end - loop.time(), 1.0)
        self._draining = ending = loop.create_task(hosted.shutdown(1.0 if self._forced else left))
        try:
            await ending  # WebSockets, and what goes on after a response
        except asyncio.CancelledError:
            if not self._forced:
                raise
            await hosted.shutdown(0)
        if self._certificates is not None:
            self._certificates.close()
        if self._access_log is not None:
            self._access_log.close()
        gen_log.info("Stopped")

    _waited_for: HTTPServer | None = None

    def _waiting(self, _: int) -> None:
        """Say what a stop waits for."""
        http = self._waited_for
        requests = []
        idle = 0
        for connection in http.connections if http is not None else ():
            exchange = connection.exchange
            if exchange is not None:
                line = exchange.head.line
                requests.append(f"{line.method_text} {line.target[:60].decode('latin-1')}")
            elif connection.transport is not None and not connection.transport.is_closing():
                idle += 1
        words = []
        if requests:
            more = f" and {len(requests) - 10} more" if len(requests) > 10 else ""
            words.append(f"{len(requests)} request{'s' * (len(requests) != 1)} ({', '.join(requests[:10])}{more})")
        if idle:
            words.append(f"{idle} connection{'s' * (idle != 1)} without a request")
        if not words:
            return
        limit = "" if self._timeout is None else f", for {self._timeout:g} s at most"
        gen_log.info("Stopping: waiting for %s%s", " and ".join(words), limit)

    def _close_listeners(self) -> None:
        for listener in self._listeners or ():
            listener.close(remove=self._alone)

    # ------------------------------------------------------------------ while it runs

    def reload_certificates(self) -> None:
        """Use the TLS files as they are now; ones that cannot be used are reported, and the old ones stay."""
        if self._certificates is not None:
            self._certificates.reload()

    def reopen_logs(self) -> None:
        """Open log files anew, after they were renamed."""
        from bridge.telemetry.logs import reopen

        reopen(None if self._access_log is None else self._access_log.file)
        if self._access_log is not None:
            self._access_log.reopen()


def _nothing() -> None:
    pass


def run_prepared(runner: asyncio.Runner, server: Server, serve: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Prepare a server, and then run *serve* on the runner's loop.

    The loop is the thread's current one while the application is imported, so that ``asyncio.get_event_loop()`` gives
    the one that will run; and what the import sets of context variables holds for *serve*.
    """
    asyncio.set_event_loop(runner.get_loop())
    try:
        server.prepare()
        runner.run(serve(), context=contextvars.copy_context())
    finally:
        asyncio.set_event_loop(None)


def serving_line(config: Config, app: Any, kind: str, sockets: Sequence[socket.socket]) -> str:
    """Return the line that says what is served where."""
    scheme = "https" if config.ssl_certfile or config.ssl_context_factory else "http"
    where = ", ".join(url(sock, scheme) for sock in sockets)
    names = [target for _, _, target in config.mount]
    if config.target or app is not None:
        names.insert(0, config.target or type(app).__name__)
    return f"bridge: serving {', '.join(names)} ({kind}) on {where}"


def announce(line: str) -> None:
    """Write a line to standard error, which may be closed."""
    try:
        os.write(2, line.encode("utf-8", "replace") + b"\n")
    except OSError:
        sys.stderr = None


def _parameters(config: Config, observers: list[Observer], *, wsgi: bool, late: bool) -> ConnectionParameters:
    return ConnectionParameters(
        limits=Limits(
            request_line=config.limit_request_line,
            field_line=config.limit_request_field_size,
            fields=config.limit_request_fields,
            head=config.limit_request_head,
        ),
        no_keep_alive=config.timeout_keep_alive == 0,
        max_body_size=config.body_limit(wsgi=wsgi, whole=late),
        head_timeout=config.timeout_request_head,
        keep_alive_timeout=config.timeout_keep_alive or None,
        body_timeout=config.timeout_request_body,
        write_timeout=config.timeout_write,
        max_requests=config.limit_keep_alive_requests or 0,
        late_limit=late,
        observer=Observers.of(observers),
    )
