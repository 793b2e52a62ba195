"""Applications of whatever interface, with what they need to start and to stop."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from bridge.apps.detection import Interface, interface_of
from bridge.apps.loading import load_target
from bridge.errors import ConfigError

if TYPE_CHECKING:
    from bridge.config import Config
    from bridge.core.connection.websocket import WebSocketOptions

__all__ = ["Hosted", "Place", "host", "host_application", "load_places"]


class Hosted(Protocol):
    """An application that a server can serve.

    Attributes:
        delegate: What the HTTPServer takes.
        kind: The interface in words, for the line that says what is served.
        late_limit: The delegate may change the limit of a request's content when it starts.
    """

    delegate: Any
    kind: str
    late_limit: bool

    async def startup(self) -> None:
        """Make the application ready; called on the loop before a connection is accepted.

        Raises:
            LifespanFailed: It cannot start.
        """

    def stop(self, *, restart: bool) -> None:
        """Tell the application that the server is about to stop; requests in progress go on.

        Args:
            restart: Another process serves the same addresses from now on.
        """

    async def shutdown(self, timeout: float | None) -> None:
        """Let what still runs finish for *timeout* seconds, then stop it; called after the last connection."""


class HostedDelegate:
    """A delegate or a callable that takes an HTTPServerRequest: nothing to start, nothing to stop."""

    def __init__(self, app: Any, kind: str) -> None:
        self.delegate = app
        self.kind = kind
        self.late_limit = not hasattr(app, "start_exchange")

    async def startup(self) -> None:
        """Do nothing."""

    def stop(self, *, restart: bool) -> None:
        """Do nothing."""

    async def shutdown(self, timeout: float | None) -> None:
        """Do nothing."""


class HostedASGI:
    """An ASGI application: its lifespan around its requests."""

    late_limit = False

    def __init__(self, app: Any, config: Config, kind: str, place: str) -> None:
        from bridge.adapters.asgi import ASGIDelegate
        from bridge.adapters.asgi.lifespan import Lifespan

        self.kind = kind
        self._config = config
        self._lifespan = Lifespan(app, config.lifespan) if config.lifespan != "off" else None
        self.delegate = ASGIDelegate(
            app,
            root_path=config.root_path + place,
            outer_path=config.root_path,
            websocket=_websocket_options(config),
            timeout=config.timeout_request,
            grace=config.timeout_disconnect_grace,
            certificate=_Certificate.of(config),
            debug=config.log_level == "debug",
        )

    async def startup(self) -> None:
        """Run the lifespan's startup; requests run in copies of the context that it leaves."""
        if self._lifespan is not None:
            await self._lifespan.startup()
            self.delegate.context = self._lifespan.context.copy()
            if self._lifespan.supported:
                self.delegate.state = self._lifespan.state

    def stop(self, *, restart: bool) -> None:
        """Give the notice, to the lifespan and to requests, and set the times for WebSockets and streams."""
        config = self._config
        self.delegate.stop(
            config.timeout_drain_websockets, config.timeout_drain_streams, code=1012 if restart else 1001
        )
        if self._lifespan is not None:
            self._lifespan.notify()

    async def shutdown(self, timeout: float | None) -> None:
        """Wait for the tasks that outlive their responses, then run the lifespan's shutdown."""
        await self.delegate.wait(timeout)
        if self._lifespan is not None:
            await self._lifespan.shutdown(timeout)


class HostedWSGI:
    """A WSGI application on its threads."""

    late_limit = False

    def __init__(self, app: Any, config: Config, place: str) -> None:
        from bridge.adapters.wsgi import WSGIDelegate

        self.kind = f"WSGI, up to {config.threads} threads"
        self.delegate = WSGIDelegate(
            app,
            root_path=config.root_path + place,
            outer_path=config.root_path,
            threads=config.threads,
            threads_min=config.threads_min,
            threads_idle=config.threads_idle,
            queue=config.wsgi_queue,
            queue_timeout=config.wsgi_queue_timeout,
            buffer_requests=config.wsgi_buffer_requests,
            buffer_responses=config.wsgi_buffer_responses,
            timeout=config.timeout_request,
            # Also with one worker: its successor serves beside it for a while, and SIGTTIN adds others.
            multiprocess=config.workers is not None,
        )

    async def startup(self) -> None:
        """Do nothing: threads start with the first requests."""

    def stop(self, *, restart: bool) -> None:
        """Do nothing: running requests finish."""

    async def shutdown(self, timeout: float | None) -> None:
        """Let running requests finish, then end the threads."""
        await self.delegate.close(timeout)


class HostedMount:
    """Several applications, by host and path."""

    late_limit = True

    def __init__(self, places: list[tuple[str, str, Hosted]], config: Config) -> None:
        from bridge.adapters.mount import Mount

        self.delegate = Mount(config.root_path)
        self._all = [hosted for _, _, hosted in places]
        kinds = []
        for name, path, hosted in places:
            wsgi = isinstance(hosted, HostedWSGI)
            limit = None if hosted.late_limit else config.body_limit(wsgi=wsgi)
            try:
                self.delegate.add(path, hosted.delegate, host=name, limit=limit, limited=not hosted.late_limit)
            except ValueError as exc:
                raise ConfigError(f"--mount: {exc}") from None
            kinds.append(f"{name}{path or '/'} {hosted.kind}")
        self.kind = "; ".join(kinds)

    async def startup(self) -> None:
        """Start all; when one fails, stop those that have started."""
        started: list[Hosted] = []
        try:
            for hosted in self._all:
                await hosted.startup()
                started.append(hosted)
        except BaseException:
            for hosted in reversed(started):
                await hosted.shutdown(0)
            self._all = []
            raise

    def stop(self, *, restart: bool) -> None:
        """Tell all."""
        for hosted in self._all:
            hosted.stop(restart=restart)

    async def shutdown(self, timeout: float | None) -> None:
        """Stop all at once."""
        await asyncio.gather(*(hosted.shutdown(timeout) for hosted in self._all))


class Place(NamedTuple):
    """An application and where it is mounted.

    Attributes:
        host: The host's name, lower case; ``*.name`` for the names below; empty for any.
        path: Without a slash at the end; empty for the root.
        app: The application.
        interface: What it is.
    """

    host: str
    path: str
    app: Any
    interface: Interface


def load_places(config: Config, app: Any = None) -> list[Place]:
    """Import what *config* says is to be served.

    Applications run code of all kinds when they are imported: database queries, ``asyncio.run``. Much of that refuses
    to run on a thread whose event loop is running, so this is called before it runs.

    Args:
        config: The settings.
        app: The application in place of ``config.target``; None to import that.

    Raises:
        TargetError: A target cannot be imported, or it cannot be told what it is.
    """
    if app is None and config.target:
        app = load_target(config.target, factory=config.factory, app_dir=config.app_dir)
    places = []
    if app is not None or not config.mount:
        places.append(Place("", "", app, interface_of(app, config.interface)))
    for name, path, target in config.mount:
        mounted = load_target(target, factory=False, app_dir=config.app_dir)
        places.append(Place(name, path, mounted, interface_of(mounted, "auto")))
    return places


def host(config: Config, places: list[Place]) -> Hosted:
    """Return what was loaded as one thing that can be started, served and stopped.

    Raises:
        ConfigError: Two applications are mounted at one place.
    """
    if len(places) == 1 and not places[0].host and not places[0].path:
        return host_application(places[0].app, places[0].interface, config)
    hosted = [
        (place.host, place.path, host_application(place.app, place.interface, config, place.path)) for place in places
    ]
    return HostedMount(hosted, config)


def host_application(app: Any, interface: Interface, config: Config, place: str = "") -> Hosted:
    """Return *app* as something that can be started, served and stopped.

    Args:
        app: The application.
        interface: What it is.
        config: The settings.
        place: The path it is mounted at, below ``config.root_path``; without a slash at the end.
    """
    if interface is Interface.ASGI3:
        return HostedASGI(app, config, "ASGI", place)
    if interface is Interface.ASGI2:
        from asgiref.compatibility import guarantee_single_callable

        single = guarantee_single_callable(app)  # type: ignore[no-untyped-call]  # asgiref does not annotate it
        return HostedASGI(single, config, "ASGI 2", place)
    if interface is Interface.WSGI:
        return HostedWSGI(app, config, place)
    kinds = {Interface.TORNADO: "Tornado delegate", Interface.DELEGATE: "delegate", Interface.CALLABLE: "callable"}
    return HostedDelegate(app, kinds[interface])


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
        deflate=DeflateOptions() if config.ws_per_message_deflate else None,
    )


class _Certificate:
    """The server's own certificate, read again when its file has changed, as the server does."""

    def __init__(self, file: str) -> None:
        self._file = file
        self._stamp: tuple[int, int] | None = None
        self._text: str | None = None

    @classmethod
    def of(cls, config: Config) -> _Certificate | None:
        """Return None where it cannot be told which certificate a client was shown."""
        if config.ssl_certfile is None or config.ssl_sni or config.ssl_context_factory is not None:
            return None
        return cls(config.ssl_certfile)

    def __call__(self) -> str | None:
        """Return the first certificate of the file (PEM)."""
        try:
            status = os.stat(self._file)
            stamp = (status.st_mtime_ns, status.st_ino)
            if stamp != self._stamp:
                with open(self._file, encoding="ascii", errors="replace") as file:
                    self._text = _first_certificate(file.read())
                self._stamp = stamp
        except OSError:
            pass  # it is being replaced: the last one is what clients are still shown
        return self._text


def _first_certificate(text: str) -> str | None:
    end = "-----END CERTIFICATE-----"
    start = text.find("-----BEGIN CERTIFICATE-----")
    if start < 0 or end not in text[start:]:
        return None
    return text[start : text.index(end, start) + len(end)] + "\n"
