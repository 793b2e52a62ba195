"""One server process: an application and its sockets, from the start to the graceful stop."""

from __future__ import annotations

import asyncio
import contextvars
import enum
import socket
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Literal, Self

from bridge import forks
from bridge.apps.lifecycle import Application, MountPoint, application_for, load_mount_points
from bridge.apps.loading import load_target
from bridge.config import Config
from bridge.core.httpserver import HTTPServer
from bridge.core.log import gen_log
from bridge.core.tcpserver import ACCEPTS_PER_TURN
from bridge.serving.certificates import Certificates, tls_context
from bridge.serving.loops import run_on
from bridge.serving.middleware import known_proxies, trusted_peers, wrap
from bridge.serving.parameters import connection_parameters
from bridge.serving.process import set_budgets
from bridge.serving.sockets import Listener, bind_admin, bind_all, bind_control, url

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

    from bridge.core.connection.interfaces import Exchange
    from bridge.operations.health import Condition
    from bridge.serving.administration import Administration
    from bridge.serving.readiness import ReadinessCheck
    from bridge.telemetry.accesslog import AccessLog
    from bridge.telemetry.metrics.process import ProcessMetrics

__all__ = ["Server", "Timeout", "fast_stop_timeout", "note_times", "run_prepared", "serving_line"]

_FAST_STOP = 5.0
_FAST_STOP_IN_DEVELOPMENT = 0.5
# Seconds that the tasks of requests that were cut off have to notice that.
_LEAST = 0.5


class Timeout(enum.Enum):
    """A timeout that is not a number of seconds."""

    CONFIGURED = enum.auto()
    """As the settings say."""


class Server:
    """Serves one application in this process.

    It is an async context manager: it serves inside the ``async with`` block, beside other tasks of the loop.

    Args:
        config: The settings.
        app: The application; without it, the server imports what ``config.target`` names.
        listeners: Shared listening sockets; without them, the server binds the addresses of *config* and serves them
            alone. The server closes them at its end.
        mount_points: The applications, if they have been loaded already.
        metrics: Counts what this process serves; without it, a server that is alone makes its own if the settings ask
            for metrics.
        empty_context: See ``tls_context``.

    Attributes:
        started: The server accepts connections.
        has_started: It has accepted connections, and may have stopped since.
        sockets: The listening sockets, once started.
        kind: The application's interface in words, once started.
        on_limit: Called when ``limit_max_requests`` or ``workers_lifetime`` is reached. Unless it is replaced, it stops
            the server.
        limit: The limit that was reached: ``requests`` or ``lifetime``; empty before.
        on_started: Called when the server has begun to accept connections.
        ask_stop: Called when somebody asks for a stop over the control socket.
        on_readiness: Called with the result of ``--readiness-check``, and a few words, when they change.
        on_draining: Called when a stop has begun and the server accepts no more connections.
        around: Returns the loaded applications with others around them; None for no others.
    """

    def __init__(
        self,
        config: Config,
        app: Any = None,
        listeners: Sequence[Listener] | None = None,
        mount_points: list[MountPoint] | None = None,
        metrics: ProcessMetrics | None = None,
        empty_context: ssl.SSLContext | None = None,
    ) -> None:
        self.config = config
        self.started = self.has_started = False
        self.sockets: list[socket.socket] = []
        self.kind = ""
        self.on_limit: Callable[[], None] = self.stop
        self.limit = ""
        self.on_draining: Callable[[], None] = _noop
        self.on_started: Callable[[], None] = _noop
        self.around: Callable[[list[MountPoint]], list[MountPoint]] | None = None
        self._app = app
        self._listeners = listeners
        self._mount_points = mount_points
        self._prepared = False
        self._alone = listeners is None
        self._metrics = metrics
        self._admin_listeners: list[Listener] = []
        self._control: Listener | None = None
        self.ask_stop: Callable[[], None] = self.stop
        self._administration: Administration | None = None
        self._names: list[Any] = []
        self._application: Application | None = None
        self._http: HTTPServer | None = None
        self._certificates: Certificates | None = None
        self._empty_context = empty_context
        self._access_log: AccessLog | None = None
        self._lifetime: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping: asyncio.Event | None = None
        self._stop_early = False
        self._timeout: float | None = config.timeout_graceful_shutdown
        self._idle_grace = 0.0
        self._replaced = False
        self._drained: HTTPServer | None = None
        self._forced = False
        self._draining: asyncio.Task[Any] | None = None
        self._drains = False
        self._readiness: ReadinessCheck | None = None
        self.on_readiness: Callable[[bool, str], None] = _noop

    # ------------------------------------------------------------------ in a program

    @property
    def should_exit(self) -> bool:
        """A stop has been asked for. Setting it to true asks for one, from any thread."""
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
            ConfigError: TLS files cannot be used; or, as TargetError, the target cannot.
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
    def mount_points(self) -> list[MountPoint] | None:
        """The applications, once they are loaded."""
        return self._mount_points

    @property
    def url(self) -> str:
        """The URL of the first socket, for instance ``http://127.0.0.1:8000``."""
        return url(self.sockets[0], self.scheme)

    @property
    def graceful(self) -> float | None:
        """The seconds that requests in progress have in the stop that was asked for; None for any time."""
        return self._timeout

    @property
    def scheme(self) -> str:
        """``https`` or ``http``."""
        return "https" if self._certificates is not None else "http"

    @property
    def state(self) -> str:
        """``starting``, ``serving``, ``draining`` or ``stopping``."""
        if self.should_exit:
            return "stopping"
        if self._drains:
            return "draining"
        return "serving" if self.started else "starting"

    def prepare(self) -> None:
        """Listen, give up privileges, and load the application, before the event loop runs.

        :meth:`startup` calls it unless the program has. Then the application is imported while the loop runs, and an
        import that starts a loop of its own fails. The exceptions are those of :meth:`serve`.
        """
        config = self.config
        self._prepared = True
        usual = None
        if config.ssl_context_factory is None:
            self._certificates = Certificates.of(config, empty=self._empty_context)
        else:
            # root may read the key; the factory is the application's code
            usual = tls_context(config, self._empty_context)
        if self._listeners is None:
            self._listeners = bind_all(config)
        self._names = [sock.getsockname() for listener in self._listeners for sock in listener.sockets]
        forks.add(self._in_child)
        try:
            if self._alone:
                self._admin_listeners = bind_admin(config)
                if config.control_socket not in {None, "auto"}:
                    self._control = bind_control(str(config.control_socket), config)
                from bridge.serving.privileges import drop_privileges

                drop_privileges(config)
            if config.ssl_context_factory is not None:
                self._certificates = Certificates.of(config, usual)
            if self._mount_points is None:
                self._mount_points = load_mount_points(config, self._app)
            if config.readiness_check is not None:
                from bridge.serving.readiness import ReadinessCheck

                check: Any = load_target(config.readiness_check, factory=False, app_dir=config.app_dir)
                self._readiness = ReadinessCheck(check, self.on_readiness)
        except BaseException:
            self.close_listeners()
            self._close_admin_listeners()
            raise

    def _in_child(self) -> None:
        """In a child that the application has forked, close all connections and listening sockets."""
        administration = [sock.getsockname() for listener in self._admin_listeners for sock in listener.sockets]
        forks.drop_connections([*self._names, *administration])

    async def startup(self) -> None:
        """Prepare if :meth:`prepare` has not been called, start the application, and accept connections.

        The exceptions are those of :meth:`serve`.
        """
        config = self.config
        self._loop = asyncio.get_running_loop()
        set_budgets(config, self._loop)
        self._stopping = asyncio.Event()
        if self._stop_early:
            self._stopping.set()
        if not self._prepared:
            self.prepare()
        try:
            self._start_administration(self._loop)
            application = await self._start_application()
        except BaseException:
            self.close_listeners()
            if self._administration is not None:
                self._administration.close()
            raise
        self._http = self._make_http(application)
        if self._certificates is not None:
            self._certificates.watch(self._loop)
        self.sockets = [sock for listener in self._listeners or () for sock in listener.sockets]
        self._http.add_sockets(self.sockets)
        if config.workers_lifetime is not None:
            from random import uniform

            jitter = uniform(0, config.workers_lifetime_jitter)  # noqa: S311 - it only spreads the load
            self._lifetime = self._loop.call_later(config.workers_lifetime + jitter, self._reached_limit, "lifetime")
        self.started = self.has_started = True
        self._start_metrics(self._loop, application)
        if self._readiness is not None:
            self._readiness.start(self._loop)
        self.on_started()

    def _start_administration(self, loop: asyncio.AbstractEventLoop) -> None:
        config = self.config
        if self._alone and self._metrics is None and config.measures:
            from bridge.telemetry.metrics.process import ProcessMetrics

            self._metrics = ProcessMetrics.alone(config, trusted_peers(config))
        if self._admin_listeners or self._control is not None or (self._alone and config.pushes):
            from bridge.serving.administration import Administration

            assert self._metrics is not None
            self._administration = Administration(self, self._metrics, loop, self._admin_listeners, self._control)

    def _start_metrics(self, loop: asyncio.AbstractEventLoop, application: Application) -> None:
        if self._metrics is None:
            return
        from bridge.telemetry.metrics.sampler import Sources

        certificates = self._certificates
        sources = Sources(
            active=self._exchanges,
            websockets=lambda: len(getattr(application.delegate, "websockets", ())),
            threads=_thread_states,
            occupied=_occupied,
            expiries=dict if certificates is None else lambda: certificates.expiries,
        )
        self._metrics.start(loop, sources)

    async def _start_application(self) -> Application:
        mount_points = self._mount_points
        assert mount_points is not None
        if self.config.debug:
            from bridge.serving.debugging import debugged

            mount_points = [debugged(mount_point) for mount_point in mount_points]
        if self.around is not None:
            mount_points = self.around(mount_points)
        certificates = self._certificates
        application = self._application = application_for(
            self.config, mount_points, None if certificates is None else lambda: certificates.server_certificate
        )
        self.kind = application.kind
        try:
            await application.startup()
        except BaseException:
            await application.shutdown(0)
            raise
        return application

    def _reached_limit(self, limit: str = "requests") -> None:
        self.limit = limit
        self.on_limit()

    def _make_http(self, application: Application) -> HTTPServer:
        config = self.config
        metrics = self._metrics
        delegate, observers = wrap(config, application.delegate)
        if metrics is not None:
            observers.append(metrics.observer)
            observe = getattr(application.delegate, "observe", None)
            if observe is not None:
                observe(metrics.count_messages)
        delegate = self._with_own_pages(delegate)
        if config.access_log:
            from bridge.telemetry.accesslog import AccessLog

            assert self._loop is not None
            self._access_log = AccessLog(config, self._loop)
            observers.append(self._access_log)
        if config.limit_max_requests is not None:
            from bridge.telemetry.counts import RequestCount

            limit = config.limit_max_requests
            excluded = (*config.limit_max_requests_exclude, *config.own_paths)
            observers.append(RequestCount(limit, config.limit_max_requests_jitter, self._reached_limit, excluded))
        answers = self._access_log is not None and self._access_log.timed
        preface = None
        if config.proxy_protocol != "off":
            from bridge.serving.proxyprotocol import HeaderReader

            preface = HeaderReader(config.proxy_protocol, config.proxy_allow_from, config.timeout_request_head)
        certificates = self._certificates
        http = HTTPServer(
            delegate,
            params=connection_parameters(
                config, application, observers, timed=answers or metrics is not None, answers=answers
            ),
            server_name=b"bridge" if config.server_header and not _names(config, b"server") else b"",
            date_header=config.date_header,
            tls=None if certificates is None else lambda: certificates.context,
            preface=preface,
            tls_handshake_timeout=config.timeout_tls_handshake,
            max_connections=config.limit_connections,
            proxy_keep_alive=config.timeout_keep_alive_proxy if config.timeout_keep_alive else None,
            is_proxy=known_proxies(config),
            # Workers take one at a time: otherwise the worker that wakes first takes a whole burst.
            accepts_per_turn=ACCEPTS_PER_TURN if self._alone else 1,
        )
        if metrics is not None:
            http.on_refused = metrics.observer.connection_refused
        return http

    def _with_own_pages(self, delegate: Any) -> Any:
        """Return *delegate* inside what answers ``--metrics-path`` and ``--health-path``."""
        config, metrics = self.config, self._metrics
        if not config.own_paths:
            return delegate
        from bridge.core.middleware.proxy import ProxyPolicy
        from bridge.serving.pages import OwnPages, Page, application_metrics, for_peers, health_page, metrics_page

        pages: dict[bytes, Page] = {}
        if config.metrics_path is not None and metrics is not None:
            page = metrics_page(metrics.arenas, lambda: self.sockets, application_metrics(config))
            pages[config.metrics_path.encode()] = for_peers(page, ProxyPolicy(config.metrics_allow_from).trusts)
        if config.health_path is not None:
            pages[config.health_path.encode()] = health_page(self.conditions)
        return OwnPages(delegate, pages, _noop if metrics is None else metrics.observer.forget)

    def conditions(self) -> list[Condition]:
        """Return what has to hold for this process to be ready."""
        from bridge.operations.health import Condition

        found = [Condition("serving", self.state == "serving", self.state)]
        if self._readiness is not None:
            found.append(Condition("check", self._readiness.holds, self._readiness.detail))
        return found

    # ------------------------------------------------------------------ stopping

    async def stopped(self) -> None:
        """Wait until a stop is asked for."""
        assert self._stopping is not None
        await self._stopping.wait()

    def stop(
        self,
        timeout: float | Literal[Timeout.CONFIGURED] | None = Timeout.CONFIGURED,
        idle_grace: float = 0.0,
        *,
        replaced: bool = False,
    ) -> None:
        """Ask for a stop; call it on the loop. A stop in progress only becomes quicker.

        Args:
            timeout: Seconds that requests in progress have; None for as long as they take.
            idle_grace: Seconds for which idle connections stay open, so that their last response can say
                ``Connection: close``.
            replaced: Another process serves the same sockets.
        """
        if self._draining is not None:
            self._hasten(self.config.timeout_graceful_shutdown if timeout is Timeout.CONFIGURED else timeout)
            return
        if timeout is not Timeout.CONFIGURED:
            self._timeout = timeout
        self._idle_grace = idle_grace
        self._replaced = replaced
        self.should_exit = True

    def _hasten(self, timeout: float | None) -> None:
        if self._drained is not None:
            self._drained.announce_end(0.0)
        if timeout is not None and self._loop is not None:
            self._loop.call_later(timeout, self.force)

    def force(self) -> None:
        """Stop at once and cut off requests in progress; call it on the loop."""
        self._forced = True
        self._timeout = 0.0
        if self._draining is not None and not self._draining.done():
            self._draining.cancel()
        self.should_exit = True

    def drain(self, grace: float, *, notify: bool = True) -> None:
        """Go on serving, but announce the end: responses close their connection, and probes fail.

        Args:
            grace: Seconds for which idle connections stay open, so that their next response can say so.
            notify: Give applications notice that the server is about to stop.
        """
        if self._http is None or self._application is None or self.should_exit:
            return
        self._drains = True
        self._http.announce_end(grace)
        if notify:
            self._application.notify()

    def undrain(self) -> None:
        """Serve as before :meth:`drain`. Connections that were told of their end do end."""
        self._drains = False
        if self._http is not None:
            self._http.withdraw_end()

    async def shutdown(self) -> None:
        """Stop accepting, let requests in progress finish, then stop the application.

        The end of ``timeout_graceful_shutdown``, or a call of :meth:`force`, cuts off what is left.
        """
        http, application, loop = self._http, self._application, self._loop
        if http is None or application is None or loop is None:
            self.close_listeners()  # it was prepared, and not started
            return
        self._http, self._drained = None, http
        self.started = False
        self.should_exit = True
        if self._lifetime is not None:
            self._lifetime.cancel()
        application.stop(restart=self._replaced)
        if not self._replaced and not self._forced:  # no other process will take these connections
            http.accept_waiting()
        http.stop()
        if self._metrics is not None:
            self._metrics.leave()
        self.close_listeners()
        self.on_draining()
        websockets = len(getattr(application.delegate, "websockets", ()))
        if websockets and not self._forced:
            gen_log.info("Stopping: waiting for %d WebSocket%s", websockets, "" if websockets == 1 else "s")
        end = None if self._timeout is None else loop.time() + self._timeout
        self._draining = draining = loop.create_task(self._drain(http))
        streams = http.end_streams(None if self._forced else self.config.timeout_drain_streams)
        try:
            aborted = await draining
        except asyncio.CancelledError:
            if not self._forced:
                raise
            aborted = await http.drain(0)
        finally:
            streams.cancel()
        if aborted:
            gen_log.warning("Stopping: %d connection%s cut off", aborted, "" if aborted == 1 else "s")
        left = None if end is None else max(end - loop.time(), _LEAST)
        self._draining = ending = loop.create_task(application.shutdown(_LEAST if self._forced else left))
        try:
            await ending  # WebSockets, and tasks that outlive their responses
        except asyncio.CancelledError:
            if not self._forced:
                raise
            await application.shutdown(0)
        self._close_rest()
        gen_log.info("Stopped")

    def _close_rest(self) -> None:
        """Close what has served the server, at its end."""
        if self._readiness is not None:
            self._readiness.stop()
        if self._certificates is not None:
            self._certificates.close()
        if self._access_log is not None:
            self._access_log.close()
        if self._metrics is not None:
            self._metrics.stop()
        if self._administration is not None:
            self._administration.close()
        forks.remove(self._in_child)

    async def _drain(self, http: HTTPServer) -> int:
        """Wait for the requests in progress, and then for the WebSockets; return how many connections were cut off."""
        aborted = await http.drain(self._timeout, lambda _: self._report_waiting(http), idle_grace=self._idle_grace)
        await http.taken_ended(self.config.timeout_drain_websockets, self._timeout)
        return aborted

    def _report_waiting(self, http: HTTPServer) -> None:
        """Log what a stop waits for."""
        requests = []
        idle = 0
        for connection in http.connections:
            exchanges = connection.exchanges
            for exchange in exchanges:
                line = exchange.head.line
                requests.append(f"{line.method_text} {line.target[:60].decode('latin-1')}")
            if not exchanges and connection.transport is not None and not connection.transport.is_closing():
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

    def close_listeners(self) -> None:
        """Close the listening sockets, and remove the files of Unix sockets that are this process's own."""
        if self._http is None:
            forks.remove(self._in_child)
        for listener in self._listeners or ():
            listener.close(remove=self._alone)

    def _close_admin_listeners(self) -> None:
        for listener in (*self._admin_listeners, *([] if self._control is None else [self._control])):
            listener.close()

    def remove_files(self) -> None:
        """Close all sockets that listen, and remove their files: the process ends now."""
        self.close_listeners()
        self._close_admin_listeners()

    # ------------------------------------------------------------------ while it runs

    def dump(self) -> dict[str, Any]:
        """Return what this process does right now, as json can write it; call it on the loop."""
        from bridge.serving.dump import dump

        delegate = None if self._application is None else self._application.delegate
        return dump(delegate, self._exchanges())

    def _exchanges(self) -> list[Exchange]:
        """Return the exchanges in progress, without those of probes and the server's own pages."""
        http = self._http or self._drained
        return [
            exchange
            for connection in (() if http is None else http.connections)
            for exchange in connection.exchanges
            if exchange.times is not None and not exchange.finished
        ]

    def reload_certificates(self) -> None:
        """Read the TLS files again. If they cannot be used, log that and keep the old ones."""
        if self._certificates is not None:
            self._certificates.reload()

    def reopen_logs(self) -> None:
        """Open the log files again, after they have been renamed."""
        from bridge.telemetry.logs import reopen

        reopen(None if self._access_log is None else self._access_log.file)
        if self._access_log is not None:
            self._access_log.reopen()


def _thread_states() -> tuple[int, int, int]:
    """Return how many threads for requests are busy, idle and lost."""
    # Looked up, not imported: a server without WSGI applications does not need that module.
    threadpool = sys.modules.get("bridge.adapters.wsgi.threadpool")
    states: tuple[int, int, int] = (0, 0, 0) if threadpool is None else threadpool.states()
    return states


def _occupied() -> float:
    """Return the share of the possible threads that have a request."""
    threadpool = sys.modules.get("bridge.adapters.wsgi.threadpool")
    part: float = 0.0 if threadpool is None else threadpool.occupied()
    return part


def _noop(*_: object) -> None:
    pass


def _names(config: Config, name: bytes) -> bool:
    return any(field == name for field, _ in config.header)


def fast_stop_timeout(config: Config) -> float:
    """Return the seconds that requests in progress have after SIGINT: five, or fewer if the settings say so.

    With ``--reload`` it is half a second: a programmer waits for the prompt, and no client waits for a response.
    """
    graceful = config.timeout_graceful_shutdown
    fast = _FAST_STOP_IN_DEVELOPMENT if config.reload else _FAST_STOP
    return fast if graceful is None else min(fast, graceful)


def note_times(config: Config) -> None:
    """Log how long a stop may take, if that is longer than usual: what has started the server must wait as long."""
    if config.drain_delay:
        graceful = config.timeout_graceful_shutdown
        longest = "any time" if graceful is None else f"up to {config.drain_delay + graceful:g} s"
        gen_log.info(
            "A stop takes %s: --drain-delay %g and --timeout-graceful-shutdown %s",
            longest,
            config.drain_delay,
            "off" if graceful is None else f"{graceful:g}",
        )


def run_prepared(
    loop: asyncio.AbstractEventLoop,
    server: Server,
    serve: Callable[[], Coroutine[Any, Any, None]],
    prepared: Callable[[], None] | None = None,
) -> None:
    """Prepare a server, and then run *serve* on the loop.

    The loop is the thread's current one while the application is imported, so that ``asyncio.get_event_loop()`` returns
    the loop that will run. Context variables that the import sets keep their values in *serve*.

    Args:
        loop: The loop.
        server: The server.
        serve: What to run.
        prepared: Called in between.
    """
    server.prepare()
    if prepared is not None:
        prepared()
    asyncio.set_event_loop(loop)  # the import may have run, and closed, another one
    run_on(loop, serve(), contextvars.copy_context())


def serving_line(config: Config, app: Any, kind: str, sockets: Sequence[socket.socket]) -> str:
    """Return the line that says which application is served, and where."""
    scheme = "https" if config.ssl_certfile or config.ssl_context_factory else "http"
    where = ", ".join(url(sock, scheme) for sock in sockets)
    names = [target for _, _, target in config.mount]
    if config.target or app is not None:
        names.insert(0, config.target or type(app).__name__)
    return f"bridge: serving {', '.join(names)} ({kind}) on {where}"
