"""Shows exceptions in the browser, for ``--debug``: by werkzeug's debugger for WSGI, on a page for ASGI.

A browser on this machine runs pages of other sites, and a proxy on this machine passes requests on. So an exchange
is marked as it comes from the connection, before any report of a proxy is applied, and only marked ones are shown
anything.
"""

from __future__ import annotations

import html
import os
import re
import secrets
import sys
import traceback
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Any

from bridge.apps.detection import Interface
from bridge.apps.lifecycle import MountPoint
from bridge.core.http.message import with_fields
from bridge.core.middleware.proxy import ALL_FIELDS

if TYPE_CHECKING:
    from bridge.core.connection.interfaces import Connection, ConnectionDelegate, Exchange, ExchangeDelegate

__all__ = ["Marking", "debugged"]

Message = MutableMapping[str, Any]

# The field that marks a request. No client knows its name, and no application sees the field.
_MARK = f"x-debug-{secrets.token_hex(16)}"
# The secret that the console's requests have to know. A master imports this module before it forks, so all workers have
# the same.
_SECRET = secrets.token_urlsafe(20)
_MARK_IN_SCOPE = (_MARK.encode(), b"1")
_MARK_IN_ENVIRON = f"HTTP_{_MARK.upper().replace('-', '_')}"
# Fields that proxies, tunnels and content networks add, and browsers do not.
_PASSED_ON = re.compile(
    rb"via|(?:x-(?:original-)?)?forwarded(?:-.*)?|x-original-host|x-rewrite-url|.*-client-ip|.*-connecting-ip|x-real-ip"
    rb"|(?:cf|cdn|fly|fastly|x-envoy|x-amzn?|x-appengine|x-azure|x-arr|x-vercel|x-ngrok)-.*|"
    + b"|".join(map(re.escape, sorted(ALL_FIELDS)))
)

_LIBRARY = os.path.dirname(os.__file__) + os.sep
_BRIDGE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep

_PAGE = """\
<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark"><title>{title}</title>
<style>:root{{color-scheme:light dark}}
body{{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:70em;padding:0 1em}}
h1{{font-size:1.3em;overflow-wrap:anywhere}}pre{{background:#8882;border-radius:4px;padding:1em;overflow:auto}}
pre .own{{font-weight:600}}pre .lib{{opacity:.65}}
@media(max-width:45em){{body{{margin:1em auto}}
pre{{font-size:12px;padding:.6em;white-space:pre-wrap;overflow-wrap:anywhere}}}}
</style>
<h1>{title}</h1><p>{where}</p><pre>{traceback}</pre>
<p>Shown because the server runs with --debug.</p>
"""


def debugged(mounted: MountPoint) -> MountPoint:
    """Return *mounted* with an application that shows its exceptions. Only ASGI 3 and WSGI are supported."""
    _let_exceptions_pass(mounted.app)
    if mounted.interface is Interface.WSGI:
        return mounted._replace(app=_WSGIDebugger(mounted.app))
    return mounted._replace(app=_ASGIPage(mounted.app)) if mounted.interface is Interface.ASGI3 else mounted


def _let_exceptions_pass(app: Any) -> None:
    """Let a framework that answers exceptions itself raise them: Flask, Quart, Django."""
    config = getattr(app, "config", None)
    if isinstance(config, dict) and "PROPAGATE_EXCEPTIONS" in config:
        config["PROPAGATE_EXCEPTIONS"] = True
    django = sys.modules.get("django.conf")
    if django is not None and django.settings.configured and not django.settings.DEBUG:  # else it has a page itself
        django.settings.DEBUG_PROPAGATE_EXCEPTIONS = True


class Marking:
    """Marks the exchanges whose exceptions may be shown.

    These are the exchanges whose peer and whose host are this machine, and in which no field says that a proxy has
    passed them on.

    Args:
        delegate: Gets the exchanges.
        everybody: Mark all of them.
    """

    def __init__(self, delegate: ConnectionDelegate, *, everybody: bool) -> None:
        self._delegate = delegate
        self._everybody = everybody

    def start_exchange(self, exchange: Exchange) -> ExchangeDelegate:
        """Pass the exchange on."""
        if self._everybody or _is_local(exchange):
            head = exchange.head
            exchange.head = with_fields(head, (*head.fields, _MARK_IN_SCOPE))
        return self._delegate.start_exchange(exchange)

    def on_close(self, connection: Connection) -> None:
        """Pass on the end of a connection."""
        self._delegate.on_close(connection)


def _is_local(exchange: Exchange) -> bool:
    address, head = exchange.context.address, exchange.head
    if not isinstance(address, tuple) or not _is_loopback(str(address[0])):
        return False
    if any(_PASSED_ON.fullmatch(name) for name, _ in head.fields):
        return False
    host = head.host.decode("latin-1").lower()
    if host.startswith("["):
        return _is_loopback(host[1:].partition("]")[0])
    name = host.partition(":")[0]
    return name == "localhost" or name.endswith(".localhost") or _is_loopback(name)


def _is_loopback(text: str) -> bool:
    try:
        ip = ip_address(text)
    except ValueError:
        return False
    return ((isinstance(ip, IPv6Address) and ip.ipv4_mapped) or ip).is_loopback


class _WSGIDebugger:
    """Lets werkzeug's debugger serve marked requests."""

    def __init__(self, app: Any) -> None:
        from werkzeug.debug import DebuggedApplication

        self._app = app
        self._debugged = DebuggedApplication(app, evalex=True)
        self._debugged.secret = _SECRET  # one for all workers: the next request of a page may come to another one

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Serve one request (PEP 3333)."""
        marked = environ.pop(_MARK_IN_ENVIRON, None) is not None
        return (self._debugged if marked else self._app)(environ, start_response)


class _ASGIPage:
    """Answers with the traceback if the application fails before its response has started.

    Starlette, and FastAPI with it, answers 500 and then raises the exception. So a complete response with that status
    is held back until the application has returned.
    """

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(
        self,
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Serve one request (ASGI 3.0)."""
        marked = scope["type"] != "lifespan" and _MARK_IN_SCOPE in scope["headers"]
        if marked:
            scope["headers"] = [field for field in scope["headers"] if tuple(field) != _MARK_IN_SCOPE]
        if scope["type"] != "http" or not marked:
            await self._app(scope, receive, send)
            return
        started = False

        held: list[Message] = []

        async def noting_send(message: Message) -> None:
            nonlocal started
            if not started and message["type"] == "http.response.start" and message["status"] == 500:
                held.append(message)
                return
            if len(held) == 1 and not message.get("more_body", False):
                held.append(message)
                return
            started = True
            await released()
            await send(message)

        async def released() -> None:
            messages = held[:]
            held.clear()
            for message in messages:
                await send(message)

        try:
            await self._app(scope, receive, noting_send)
            await released()
        except Exception as exc:
            if not started and not isinstance(exc, OSError):
                page = _page(exc, f"{scope['method']} {scope['path']}")
                fields = [(b"content-type", b"text/html; charset=utf-8"), (b"content-length", b"%d" % len(page))]
                await send({"type": "http.response.start", "status": 500, "headers": fields})
                await send({"type": "http.response.body", "body": page})
            raise  # so that it is logged too


def _page(exc: BaseException, where: str) -> bytes:
    title = html.escape(traceback.format_exception_only(type(exc), exc)[-1].strip())
    frames = exc.__traceback__.tb_next if exc.__traceback__ is not None else None  # the first one is this module's
    text = "".join(map(_marked, _entries(traceback.format_exception(type(exc), exc, frames))))
    version = ".".join(map(str, sys.version_info[:3]))
    return _PAGE.format(title=title, where=html.escape(f"{where}, Python {version}"), traceback=text).encode()


def _entries(parts: list[str]) -> Iterator[str]:
    """Yield a formatted traceback in pieces: what belongs to one frame, and the lines between frames."""
    piece = ""
    for line in "".join(parts).splitlines(keepends=True):
        if line.startswith('  File "') or not line.startswith("  "):
            yield piece
            piece = ""
        piece += line
    yield piece


def _marked(entry: str) -> str:
    """Return an entry as HTML that tells the program's own frames from those of libraries."""
    text = html.escape(entry)
    if not entry.startswith('  File "'):
        return text
    path = entry[8:].partition('"')[0]
    library = "site-packages" in path or path.startswith((_LIBRARY, _BRIDGE, "<frozen"))
    return f'<span class="{"lib" if library else "own"}">{text}</span>'
