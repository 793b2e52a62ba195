"""An application of whatever interface, with what it needs to start and to stop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from bridge.adapters.detection import Interface

if TYPE_CHECKING:
    from bridge.config import Config

__all__ = ["Hosted", "host"]


class Hosted(Protocol):
    """An application that a server can serve.

    Attributes:
        delegate: What the HTTPServer takes.
        kind: The interface in words, for the line that says what is served.
    """

    delegate: Any
    kind: str

    async def startup(self) -> None:
        """Make the application ready; called on the loop before a connection is accepted.

        Raises:
            LifespanFailed: It cannot start.
        """

    async def shutdown(self, timeout: float | None) -> None:
        """Let what still runs finish for *timeout* seconds, then stop it; called after the last connection."""


class HostedDelegate:
    """A delegate or a callable that takes an HTTPServerRequest: nothing to start, nothing to stop."""

    def __init__(self, app: Any, kind: str) -> None:
        self.delegate = app
        self.kind = kind

    async def startup(self) -> None:
        """Do nothing."""

    async def shutdown(self, timeout: float | None) -> None:
        """Do nothing."""


class HostedASGI:
    """An ASGI application: its lifespan around its requests."""

    def __init__(self, app: Any, config: Config, kind: str) -> None:
        from bridge.adapters.asgi import ASGIDelegate
        from bridge.adapters.lifespan import Lifespan

        self.kind = kind
        self._lifespan = Lifespan(app, config.lifespan) if config.lifespan != "off" else None
        self.delegate = ASGIDelegate(app, root_path=config.root_path)

    async def startup(self) -> None:
        """Run the lifespan's startup."""
        if self._lifespan is not None:
            await self._lifespan.startup()
            if self._lifespan.supported:
                self.delegate.state = self._lifespan.state

    async def shutdown(self, timeout: float | None) -> None:
        """Wait for the tasks that outlive their responses, then run the lifespan's shutdown."""
        await self.delegate.wait(timeout)
        if self._lifespan is not None:
            await self._lifespan.shutdown(timeout)


class HostedWSGI:
    """A WSGI application on its threads."""

    def __init__(self, app: Any, config: Config) -> None:
        from bridge.adapters.wsgi import WSGIDelegate

        self.kind = f"WSGI, up to {config.threads} threads"
        self.delegate = WSGIDelegate(
            app,
            root_path=config.root_path,
            threads=config.threads,
            threads_min=config.threads_min,
            threads_idle=config.threads_idle,
            queue=config.wsgi_queue,
            buffer_requests=config.wsgi_buffer_requests,
        )

    async def startup(self) -> None:
        """Do nothing: threads start with the first requests."""

    async def shutdown(self, timeout: float | None) -> None:
        """Let running requests finish, then end the threads."""
        await self.delegate.close(timeout)


def host(app: Any, interface: Interface, config: Config) -> Hosted:
    """Return *app* as something that can be started, served and stopped."""
    if interface is Interface.ASGI3:
        return HostedASGI(app, config, "ASGI")
    if interface is Interface.ASGI2:
        from asgiref.compatibility import guarantee_single_callable

        single = guarantee_single_callable(app)  # type: ignore[no-untyped-call]  # asgiref does not annotate it
        return HostedASGI(single, config, "ASGI 2")
    if interface is Interface.WSGI:
        return HostedWSGI(app, config)
    kinds = {Interface.TORNADO: "Tornado delegate", Interface.DELEGATE: "delegate", Interface.CALLABLE: "callable"}
    return HostedDelegate(app, kinds[interface])
