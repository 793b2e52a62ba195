"""``manage.py runserver`` with bridge: Django's command, with another server in it."""

from __future__ import annotations

import asyncio
import os
from typing import Any

from django.apps import apps
from django.conf import settings

from bridge.config.sources import from_environment, resolve
from bridge.serving.embedding import Server
from bridge.serving.loops import loop_factory

if apps.is_installed("django.contrib.staticfiles"):
    from django.contrib.staticfiles.management.commands.runserver import Command as Runserver
else:
    from django.core.management.commands.runserver import Command as Runserver

__all__ = ["Command"]

_FORMAT = '%(t)s "%(r)s" %(s)s %(b)s'


class BridgeServer:
    """What Django's ``run`` makes and starts: the interface of wsgiref's server.

    Raises:
        BindError: The address cannot be used; its ``errno`` says why, as Django's message needs it.
    """

    def __init__(self, address: tuple[str, int], handler: object, ipv6: bool = False, **_: object) -> None:
        host, port = address
        layer = from_environment(os.environ)[1]
        for name in ("host", "port", "bind", "uds", "fd", "target"):
            layer.pop(name, None)
        config = resolve(
            layer,
            {"host": host.strip("[]"), "port": port, "access_logformat": _FORMAT, "forwarded_strip": False},
        )
        self._server = Server(config)
        self._app: Any = None
        self._server._app = _Late(self)
        self._server.prepare()
        [sock, *_rest] = [sock for listener in self._server._listeners or () for sock in listener.sockets]
        self.server_port = sock.getsockname()[1]

    def set_app(self, app: Any) -> None:
        """Take the application."""
        from bridge.apps.detection import interface_of
        from bridge.apps.lifecycle import MountPoint

        self._server._mount_points = [MountPoint("", "", app, interface_of(app, "auto"))]

    def serve_forever(self) -> None:
        """Serve until Ctrl-C; under the autoreloader, until the process ends."""
        with asyncio.Runner(loop_factory=loop_factory(self._server.config.loop)) as runner:
            runner.run(self._server.serve())  # not run(), which would prepare the server a second time


class _Late:
    """Stands in for the application until Django has made it."""

    def __init__(self, owner: BridgeServer) -> None:
        self._owner = owner

    def __call__(self, environ: Any, start_response: Any) -> Any:
        raise RuntimeError("the application has not been set")


class Command(Runserver):
    """Django's runserver; with ASGI_APPLICATION it serves that, WebSockets included."""

    server_cls = BridgeServer

    def add_arguments(self, parser: Any) -> None:
        """Add ``--noasgi`` to Django's options."""
        super().add_arguments(parser)
        parser.add_argument(
            "--noasgi", action="store_false", dest="use_asgi", default=True, help="Serve WSGI_APPLICATION."
        )

    def get_handler(self, *args: Any, **options: Any) -> Any:
        """Return the application, with static files around it where Django's command has them."""
        if not options.get("use_asgi") or not getattr(settings, "ASGI_APPLICATION", None):
            return super().get_handler(*args, **options)
        from django.utils.module_loading import import_string

        application = import_string(settings.ASGI_APPLICATION)
        wanted = options.get("use_static_handler", False) and (settings.DEBUG or options.get("insecure_serving", False))
        if not wanted or not apps.is_installed("django.contrib.staticfiles"):
            return application
        from django.contrib.staticfiles.handlers import ASGIStaticFilesHandler

        return _WithStaticFiles(application, ASGIStaticFilesHandler(application))


class _WithStaticFiles:
    """Static files around an ASGI application; other kinds of connections go to the application itself."""

    def __init__(self, application: Any, handler: Any) -> None:
        self._application = application
        self._handler = handler

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one request (ASGI 3.0)."""
        application = self._handler if scope["type"] == "http" else self._application
        await application(scope, receive, send)
