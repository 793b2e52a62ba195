"""One server process: an application, its sockets, its signals, from start to graceful stop."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bridge.adapters.detection import interface_of
from bridge.adapters.hosting import Hosted, host
from bridge.adapters.lifespan import LifespanFailed
from bridge.adapters.loading import load_target
from bridge.config import Config
from bridge.core.http1.head import Limits
from bridge.core.httpserver import HTTPServer
from bridge.core.log import gen_log
from bridge.core.parameters import ConnectionParameters
from bridge.supervisor.limits import ConcurrencyLimit, Observers
from bridge.supervisor.logs import AccessLog, LineWriter, configure
from bridge.supervisor.sockets import BindError, bind, url
from bridge.supervisor.tlsfiles import tls_context

if TYPE_CHECKING:
    from bridge.core.parameters import Observer

__all__ = ["Server"]

OK = 0
BIND_FAILED = 1
LIFESPAN_FAILED = 4


class Server:
    """Serves one application in this process.

    Args:
        config: The settings.
        app: The application; without it, what ``config.target`` names is imported.

    Attributes:
        started: Connections are accepted.
        should_exit: Set it to stop gracefully.
        sockets: What is listened on, once started.
    """

    def __init__(self, config: Config, app: Any = None) -> None:
        self.config = config
        self.started = False
        self.sockets: list[socket.socket] = []
        self._app = app
        self._hosted: Hosted | None = None
        self._http: HTTPServer | None = None
        self._writer: LineWriter | None = None
        self._access_log: AccessLog | None = None
        self._stop: asyncio.Event | None = None
        self._forced = False
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def should_exit(self) -> bool:
        """A graceful stop was asked for."""
        return self._stop is not None and self._stop.is_set()

    @should_exit.setter
    def should_exit(self, value: bool) -> None:
        if value and self._stop is not None and self._loop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)

    # ------------------------------------------------------------------ as a command

    def run(self) -> int:
        """Serve until a signal says stop; return the process's exit status.

        0 after a graceful stop, 1 when an address cannot be listened on, 4 when the application's lifespan fails.

        Raises:
            ConfigError: TLS files that cannot be used.
            TargetError: The target cannot be imported, or it cannot be told what it is.
        """
        configure(self.config.log_level)
        with asyncio.Runner(loop_factory=_loop_factory(self.config.loop)) as runner:
            try:
                runner.run(self.serve())
            except BindError as exc:
                print(f"bridge: {exc}", file=sys.stderr)
                return BIND_FAILED
            except LifespanFailed as exc:
                print(f"bridge: {self.config.target}: lifespan startup failed: {exc}", file=sys.stderr)
                return LIFESPAN_FAILED
        return OK

    async def serve(self) -> None:
        """Start, serve until :attr:`should_exit` or a signal, and stop gracefully.

        Raises:
            BindError: An address cannot be listened on.
            LifespanFailed: The application cannot start.
            ConfigError: TLS files that cannot be used; TargetError, which is one, for the target.
        """
        await self.startup()
        assert self._stop is not None
        try:
            with _Signals(self._signalled):
                await self._stop.wait()
                await self.shutdown()
        finally:
            self._close_logs()

    # ------------------------------------------------------------------ in a program

    async def startup(self) -> None:
        """Load the application, start it, and listen. The exceptions are those of :meth:`serve`."""
        config = self.config
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        context = tls_context(config)
        if self._app is None:
            self._app = load_target(config.target, factory=config.factory, app_dir=config.app_dir)
        interface = interface_of(self._app, config.interface)
        hosted = self._hosted = host(self._app, interface, config)
        sockets: list[socket.socket] = []
        try:
            for address in config.addresses:
                sockets += bind(address, backlog=config.backlog, uds_permissions=config.uds_permissions)
            await hosted.startup()
        except BaseException:
            for sock in sockets:
                sock.close()
            await hosted.shutdown(0)
            raise
        self._http = HTTPServer(
            self._limited(hosted.delegate),
            ssl_options=context,
            params=self._parameters(
                wsgi=hosted.kind.startswith("WSGI"), late=not hasattr(hosted.delegate, "start_exchange")
            ),
            server_name=b"bridge" if config.server_header else b"",
            date_header=config.date_header,
        )
        self._http.tls_handshake_timeout = config.timeout_tls_handshake
        self._http.max_connections = config.limit_connections
        self._http.add_sockets(sockets)
        self.sockets = sockets
        self.started = True
        where = ", ".join(url(sock, "https" if context else "http") for sock in sockets)
        name = config.target or type(self._app).__name__
        print(f"bridge: serving {name} ({hosted.kind}) on {where}", file=sys.stderr, flush=True)

    async def shutdown(self) -> None:
        """Stop accepting, let requests in progress finish, then stop the application.

        What takes longer than ``timeout_graceful_shutdown``, or than a second signal, is cut off.
        """
        http, hosted = self._http, self._hosted
        if http is None or hosted is None:
            return
        self.started = False
        http.stop()
        timeout = 0.0 if self._forced else self.config.timeout_graceful_shutdown
        assert self._loop is not None
        end = None if timeout is None else self._loop.time() + timeout

        def waiting(count: int) -> None:
            gen_log.info("Stopping: waiting for %d connection%s", count, "" if count == 1 else "s")

        draining = self._loop.create_task(http.drain(timeout, waiting))
        self._draining = draining
        try:
            aborted = await draining
        except asyncio.CancelledError:
            if not self._forced:
                raise
            aborted = await http.drain(0)
        if aborted:
            gen_log.warning("Stopping: %d connection%s cut off", aborted, "" if aborted == 1 else "s")
        left = None if end is None else max(end - self._loop.time(), 0.0)
        await hosted.shutdown(1.0 if self._forced else left)

    # ------------------------------------------------------------------ inside

    _draining: asyncio.Task[int] | None = None

    def _signalled(self, number: int) -> None:
        """Stop gracefully at the first signal, at once at the second."""
        assert self._stop is not None
        if not self._stop.is_set():
            gen_log.info("Stopping on %s", signal.Signals(number).name)
            self._stop.set()
            return
        self._forced = True
        if self._draining is not None and not self._draining.done():
            self._draining.cancel()

    def _limited(self, delegate: Any) -> Any:
        limit = self.config.limit_concurrency
        self._observers: list[Observer] = []
        if self.config.access_log:
            assert self._loop is not None
            self._writer = LineWriter(1)
            self._access_log = AccessLog(self._writer, self._loop)
            self._observers.append(self._access_log)
        if limit is None or not hasattr(delegate, "start_exchange"):
            return delegate
        limited = ConcurrencyLimit(delegate, limit)
        self._observers.append(limited)
        return limited

    def _parameters(self, *, wsgi: bool, late: bool) -> ConnectionParameters:
        config = self.config
        return ConnectionParameters(
            limits=Limits(
                request_line=config.limit_request_line,
                field_line=config.limit_request_field_size,
                fields=config.limit_request_fields,
                head=config.limit_request_head,
            ),
            no_keep_alive=config.timeout_keep_alive == 0,
            max_body_size=config.body_limit(wsgi=wsgi or late),
            head_timeout=config.timeout_request_head,
            keep_alive_timeout=config.timeout_keep_alive or None,
            body_timeout=config.timeout_request_body,
            write_timeout=config.timeout_write,
            max_requests=config.limit_keep_alive_requests or 0,
            late_limit=late,
            observer=Observers.of(self._observers),
        )

    def _close_logs(self) -> None:
        if self._access_log is not None and self._writer is not None:
            self._access_log.flush()
            self._writer.close()


class _Signals:
    """Gives SIGINT and SIGTERM to a function while a ``with`` block runs; outside the main thread it does nothing."""

    def __init__(self, function: Callable[[int], None]) -> None:
        self._function = function
        self._loop = asyncio.get_running_loop()
        self._caught: list[int] = []

    def __enter__(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self._function, number)
            self._caught.append(number)

    def __exit__(self, *_: object) -> None:
        for number in self._caught:
            self._loop.remove_signal_handler(number)


def _loop_factory(name: str) -> Callable[[], asyncio.AbstractEventLoop]:
    if name != "asyncio":
        try:
            import uvloop
        except ImportError:
            if name == "uvloop":
                from bridge.errors import ConfigError

                raise ConfigError(
                    "--loop uvloop: uvloop is not installed; install it, or take --loop asyncio"
                ) from None
        else:
            factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
            return factory
    return asyncio.new_event_loop
