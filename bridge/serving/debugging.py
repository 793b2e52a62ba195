"""Shows exceptions in the browser, for ``--debug``: by werkzeug's debugger for WSGI, on a page for ASGI."""

from __future__ import annotations

import html
import sys
import traceback
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from bridge.apps.detection import Interface
from bridge.apps.lifecycle import MountPoint

__all__ = ["debugged"]

Message = MutableMapping[str, Any]

_PAGE = """\
<!doctype html><meta charset="utf-8"><title>{title}</title>
<style>body{{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em}}
pre{{background:#f4f4f4;padding:1em;overflow:auto}}h1{{font-size:1.3em}}</style>
<h1>{title}</h1><p>{where}</p><pre>{traceback}</pre>
<p>Shown because the server runs with --debug.</p>
"""


def debugged(mounted: MountPoint) -> MountPoint:
    """Return *mounted* with an application that shows its exceptions. Only ASGI 3 and WSGI are supported."""
    if mounted.interface is Interface.WSGI:
        from werkzeug.debug import DebuggedApplication

        return mounted._replace(app=DebuggedApplication(mounted.app, evalex=True))
    return mounted._replace(app=_ASGIPage(mounted.app)) if mounted.interface is Interface.ASGI3 else mounted


class _ASGIPage:
    """Answers with the traceback if the application fails before its response has started."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Serve one request (ASGI 3.0)."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def noting_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, receive, noting_send)
        except Exception as exc:
            if not started and not isinstance(exc, OSError):
                page = _page(exc, f"{scope['method']} {scope['path']}")
                fields = [(b"content-type", b"text/html; charset=utf-8"), (b"content-length", b"%d" % len(page))]
                await send({"type": "http.response.start", "status": 500, "headers": fields})
                await send({"type": "http.response.body", "body": page})
            raise  # so that it is logged too


def _page(exc: BaseException, where: str) -> bytes:
    title = html.escape(traceback.format_exception_only(type(exc), exc)[-1].strip())
    text = html.escape("".join(traceback.format_exception(exc)))
    version = ".".join(map(str, sys.version_info[:3]))
    return _PAGE.format(title=title, where=html.escape(f"{where}, Python {version}"), traceback=text).encode()
