"""Applications of every interface under one contract: make it from the settings, start it, stop it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from bridge.apps.detection import Interface, interface_of
from bridge.apps.loading import Deferred, load_target
from bridge.config.settings import TORNADO_BODY_LIMIT, WSGI_BODY_LIMIT, option
from bridge.errors import ConfigError

if TYPE_CHECKING:
    from bridge.config import Config
    from bridge.core.connection.websocket import WebSocketOptions

__all__ = ["Application", "MountPoint", "adapt_application", "application_for", "load_mount_points"]


# Seconds that the lifespan's shutdown always has, even if the tasks before it have used up all of the time.
_LEAST = 1.0


class Application(Protocol):
    """An application that a server can start, serve and stop.

    The calls come in this order: ``startup``, then requests to the delegate, then ``stop`` while requests may still be
    in progress, then ``shutdown`` after the last connection has ended.

    Attributes:
        delegate: The delegate for the HTTPServer: a native one, a Tornado-style one, or a callable.
        kind: The interface in words. It is only displayed.
        default_body_limit: Most bytes of a request's content where the settings name no limit; None for no limit.
        limit_after_start: Compare a request's content with the limit only after the delegate has seen the head: the
            delegate may change the limit.
    """

    delegate: Any
    kind: str
    default_body_limit: int | None
    limit_after_start: bool

    async def startup(self) -> None:
        """Make the application ready. The loop runs, and no connection has been accepted yet.

        Raises:
            LifespanFailed: It cannot start.
        """

    def notify(self) -> None:
        """Tell the application that the server is about to stop, and do nothing else."""

    def stop(self, *, restart: bool) -> None:
        """Tell the application that the server is about to stop. Requests in progress go on.

        Args:
            restart: Another process serves the same addresses from now on.
        """

    async def shutdown(self, timeout: float | None) -> None:
        """Give tasks that still run *timeout* seconds (None: any time), then stop them."""


class DelegateApplication:
    """A delegate, or a callable that takes an HTTPServerRequest. It has nothing to start and nothing to stop."""

    def __init__(self, app: Any, kind: str) -> None:
        self.delegate = app
        self.kind = kind
        native = hasattr(app, "start_exchange")
        self.limit_after_start = not native
        self.default_body_limit = None if native else TORNADO_BODY_LIMIT

    async def startup(self) -> None:
        """Do nothing."""

    def notify(self) -> None:
        """Do nothing."""

    def stop(self, *, restart: bool) -> None:
        """Do nothing."""

    async def shutdown(self, timeout: float | None) -> None:
        """Do nothing."""


class ASGIApplication:
    """An ASGI application: its lifespan around its requests.

    Args:
        app: The application, in the form of ASGI 3.
        config: The settings.
        kind: The interface in words.
        path: The path it is mounted at, below ``config.root_path``.
        certificate: Returns the server's own certificate (PEM), or None if it is not known; None without TLS.
    """

    limit_after_start = False
    default_body_limit: int | None = None

    def __init__(
        self, app: Any, config: Config, kind: str, path: str, certificate: Callable[[], str | None] | None = None
    ) -> None:
        from bridge.adapters.asgi import ASGIDelegate
        from bridge.adapters.asgi.lifespan import Lifespan

        self.kind = kind
        self._config = config
        self._lifespan = Lifespan(app, config.lifespan) if config.lifespan != "off" else None
        self.delegate = ASGIDelegate(
            app,
            root_path=config.root_path + path,
            outer_path=config.root_path,
            websocket=_websocket_options(config),
            timeout=config.timeout_request,
            grace=config.timeout_disconnect_grace,
            certificate=certificate,
            debug=config.log_level == "debug",
            worker=_worker_number(),
            pathsend=config.asgi_pathsend,
        )

    async def startup(self) -> None:
        """Run the lifespan's startup. Requests run in copies of the context that it leaves."""
        if self._lifespan is not None:
            await self._lifespan.startup()
            self.delegate.context = self._lifespan.context.copy()
            if self._lifespan.supported:
                self.delegate.state = self._lifespan.state

    def notify(self) -> None:
        """Notify the lifespan and the requests."""
        self.delegate.stopping.set()
        if self._lifespan is not None:
            self._lifespan.notify()

    def stop(self, *, restart: bool) -> None:
        """Notify the lifespan and the requests, and limit the time of WebSockets."""
        self.delegate.stop(self._config.timeout_drain_websockets, code=1012 if restart else 1001)
        if self._lifespan is not None:
            self._lifespan.notify()

    async def shutdown(self, timeout: float | None) -> None:
        """Wait for the tasks that outlive their responses, then run the lifespan's shutdown."""
        loop = asyncio.get_running_loop()
        end = None if timeout is None else loop.time() + timeout
        await self.delegate.wait(timeout)
        if self._lifespan is not None:
            left = None if end is None else max(end - loop.time(), _LEAST if timeout else 0.0)
            await self._lifespan.shutdown(left)


class WSGIApplication:
    """A WSGI application on its threads.

    Args:
        app: The application (PEP 3333).
        config: The settings.
        path: The path it is mounted at, below ``config.root_path``.
    """

    limit_after_start = False
    default_body_limit: int | None = WSGI_BODY_LIMIT

    def __init__(self, app: Any, config: Config, path: str) -> None:
        from bridge.adapters.wsgi import WSGIDelegate

        self.kind = f"WSGI, up to {config.threads} threads"
        self.delegate = WSGIDelegate(
            app,
            root_path=config.root_path + path,
            outer_path=config.root_path,
            threads=config.threads,
            threads_min=config.threads_min,
            threads_idle=config.threads_idle,
            queue=config.wsgi_queue,
            queue_timeout=config.wsgi_queue_timeout,
            threads_slow=config.threads_slow,
            buffer_requests=config.wsgi_buffer_requests,
            buffer_responses=config.wsgi_buffer_responses,
            timeout=config.timeout_request,
            # One worker is not alone either: a replaced worker serves beside its successor, and SIGTTIN adds more.
            multiprocess=config.workers is not None,
        )
        self._websockets = config.timeout_drain_websockets

    async def startup(self) -> None:
        """Do nothing: the first requests start the threads."""

    def notify(self) -> None:
        """Do nothing: requests in progress finish."""

    def stop(self, *, restart: bool) -> None:
        """Let requests in progress finish, except those whose client has left, and limit the time of WebSockets."""
        self.delegate.stop(self._websockets)

    async def shutdown(self, timeout: float | None) -> None:
        """Let requests in progress finish, then end the threads."""
        await self.delegate.close(timeout)


class MountedApplications:
    """Several applications on one port, told apart by host and path.

    Args:
        applications: (host, path, application) of each, as in :class:`MountPoint`.
        config: The settings.

    Raises:
        ConfigError: Two applications are mounted at one place.
    """

    # A Tornado-style application may be among them. Mount gives each of the others a limit of its own.
    limit_after_start = True
    default_body_limit: int | None = TORNADO_BODY_LIMIT

    def __init__(self, applications: list[tuple[str, str, Application]], config: Config) -> None:
        from bridge.adapters.mount import Mount

        self.delegate = Mount(config.root_path)
        self._applications = [application for _, _, application in applications]
        kinds = []
        for host, path, application in applications:
            late = application.limit_after_start
            limit = None if late else config.body_limit(application.default_body_limit)
            try:
                self.delegate.add(path, application.delegate, host=host, limit=limit, limited=not late)
            except ValueError as exc:
                raise ConfigError(f"{option('mount')}: {exc}") from None
            kinds.append(f"{host}{path or '/'} {application.kind}")
        self.kind = "; ".join(kinds)

    async def startup(self) -> None:
        """Start all. If one fails, stop those that have started."""
        started: list[Application] = []
        try:
            for application in self._applications:
                await application.startup()
                started.append(application)
        except BaseException:
            for application in reversed(started):
                await application.shutdown(0)
            self._applications = []
            raise

    def notify(self) -> None:
        """Tell all of them."""
        for application in self._applications:
            application.notify()

    def stop(self, *, restart: bool) -> None:
        """Tell all of them."""
        for application in self._applications:
            application.stop(restart=restart)

    async def shutdown(self, timeout: float | None) -> None:
        """Stop all of them, at the same time."""
        await asyncio.gather(*(application.shutdown(timeout) for application in self._applications))


class MountPoint(NamedTuple):
    """An application as it was loaded, and where it is mounted.

    Attributes:
        host: The host's name, lower case; ``*.name`` for the names below it; empty for any host.
        path: Without a slash at the end; empty for the root.
        app: The application.
        interface: The interface it speaks.
    """

    host: str
    path: str
    app: Any
    interface: Interface


def load_mount_points(config: Config, app: Any = None) -> list[MountPoint]:
    """Import the applications that *config* names.

    Call this before the event loop runs. Applications run all kinds of code when they are imported, such as database
    queries or ``asyncio.run``, and much of it refuses to run on a thread whose event loop is running.

    Args:
        config: The settings.
        app: Serve this application instead of importing ``config.target``; None to import that.

    Raises:
        TargetError: A target cannot be imported, or its interface cannot be detected.
    """
    if isinstance(app, Deferred):
        app = app.load()
    if app is None and config.target:
        app = load_target(config.target, factory=config.factory, app_dir=config.app_dir)
    found = []
    if app is not None or not config.mount:
        found.append(MountPoint("", "", app, interface_of(app, config.interface)))
    for host, path, target in config.mount:
        mounted = load_target(target, factory=False, app_dir=config.app_dir)
        found.append(MountPoint(host, path, mounted, interface_of(mounted, "auto")))
    return found


def application_for(
    config: Config, mount_points: list[MountPoint], certificate: Callable[[], str | None] | None = None
) -> Application:
    """Return all loaded applications as one.

    Args:
        config: The settings.
        mount_points: What :func:`load_mount_points` has returned.
        certificate: As for :func:`adapt_application`.

    Raises:
        ConfigError: Two applications are mounted at one place.
    """
    first = mount_points[0]
    if len(mount_points) == 1 and not first.host and not first.path:
        return adapt_application(first.app, first.interface, config, certificate=certificate)
    adapted = [
        (point.host, point.path, adapt_application(point.app, point.interface, config, point.path, certificate))
        for point in mount_points
    ]
    return MountedApplications(adapted, config)


def adapt_application(
    app: Any,
    interface: Interface,
    config: Config,
    path: str = "",
    certificate: Callable[[], str | None] | None = None,
) -> Application:
    """Return *app* with the methods of :class:`Application`.

    Args:
        app: The application as it was loaded.
        interface: The interface it speaks.
        config: The settings.
        path: The path it is mounted at, below ``config.root_path``; without a slash at the end.
        certificate: Returns the server's own certificate (PEM), or None if it is not known; None without TLS.
    """
    if interface is Interface.ASGI3:
        return ASGIApplication(app, config, "ASGI", path, certificate)
    if interface is Interface.ASGI2:
        from asgiref.compatibility import guarantee_single_callable

        single = guarantee_single_callable(app)  # type: ignore[no-untyped-call]  # asgiref does not annotate it
        return ASGIApplication(single, config, "ASGI 2", path, certificate)
    if interface is Interface.WSGI:
        return WSGIApplication(app, config, path)
    kinds = {Interface.TORNADO: "Tornado delegate", Interface.DELEGATE: "delegate", Interface.CALLABLE: "callable"}
    return DelegateApplication(app, kinds[interface])


def _worker_number() -> int | None:
    """Return the number that the server has given to this process; None if it is a part of a program."""
    text = os.environ.get("BRIDGE_WORKER", "")
    return int(text) if text.isdecimal() else None


def _websocket_options(config: Config) -> WebSocketOptions | None:
    if not config.ws:
        return None
    from bridge.core.connection.websocket import WebSocketOptions
    from bridge.core.websocket.extensions import DeflateOptions

    return WebSocketOptions(
        max_size=config.ws_max_size,
        max_queue=config.ws_max_queue,
        ping_interval=config.ws_ping_interval,
        ping_timeout=config.ws_ping_timeout,
        max_control_frames=config.ws_max_control_frames,
        deflate=DeflateOptions() if config.ws_per_message_deflate else None,
    )
