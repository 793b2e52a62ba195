"""Calls pre_request and post_request around an application, in the thread or the task that runs the request."""

from __future__ import annotations

import datetime
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, MutableMapping
from typing import Any

from bridge.hooks.functions import Functions
from bridge.hooks.objects import WorkerView

__all__ = ["ASGIHooks", "RequestView", "ResponseView", "WSGIHooks"]


class RequestView:
    """``req``: what the request line and the header section say. The field names are upper-case, as in gunicorn.

    What a hook appends to ``headers``, and another ``scheme``, reaches the application.
    """

    def __init__(
        self, method: str, path: str, query: str, uri: str, version: tuple[int, int], headers: list[tuple[str, str]]
    ) -> None:
        self.method = method
        self.path = path
        self.query = query
        self.uri = uri
        self.fragment = ""
        self.version = version
        self.headers = headers
        self.scheme = "http"
        self.remote_addr: Any = None
        self.peer_addr: Any = None
        self.trailers: list[tuple[str, str]] = []
        self.body: Any = None


class ResponseView:
    """``resp``: the response that was sent."""

    def __init__(self, req: RequestView) -> None:
        self.req = req
        self.status = ""
        self.status_code = 0
        self.headers: list[tuple[str, str]] = []
        self.sent = 0
        self.response_length: int | None = None
        self.headers_sent = False

    def default_headers(self) -> list[str]:
        """Return the fields that gunicorn adds to a response; bridge adds its own, so none."""
        return []

    def take(self, status: str, headers: Iterable[tuple[str, str]]) -> None:
        """Note the head of the response."""
        self.status = status
        self.status_code = int(status[:3]) if status[:3].isdecimal() else 0
        self.headers = list(headers)
        self.headers_sent = True
        length = next((value for name, value in self.headers if name.lower() == "content-length"), "")
        self.response_length = int(length) if length.isdecimal() else None


class WSGIHooks:
    """A WSGI application that calls the hooks around another one.

    Args:
        app: The application.
        functions: The functions.
        worker: What they get.
        logs: The worker's logger has an ``access`` of its own, which is called too.
    """

    def __init__(self, app: Any, functions: Functions, worker: WorkerView, *, logs: bool) -> None:
        self._app = app
        self._functions = functions
        self._worker = worker
        self._logs = logs

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        """Serve one request (PEP 3333)."""
        worker = self._worker
        began = time.monotonic()
        req = _of_environ(environ)
        before, scheme = len(req.headers), req.scheme
        self._functions.call("pre_request", worker, req)
        for name, value in req.headers[before:]:
            environ[f"HTTP_{name.upper().replace('-', '_')}"] = value
        if req.scheme != scheme:
            environ["wsgi.url_scheme"] = req.scheme
        resp = ResponseView(req)

        def noting(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            resp.take(status, headers)
            return start_response(status, headers, *more)

        def ended() -> None:
            worker.nr += 1
            self._functions.call("post_request", worker, req, environ, resp)
            if self._logs:
                try:
                    worker.log.access(resp, req, environ, datetime.timedelta(seconds=time.monotonic() - began))
                except Exception:
                    worker.log.exception("The logger's access() raised")

        try:
            result = self._app(environ, noting)
        except BaseException:
            ended()
            raise
        return _watched(result, resp, ended)


def _watched(result: Any, resp: ResponseView, ended: Callable[[], None]) -> Any:
    """Return *result* with a ``close`` that calls *ended* after its own."""
    if isinstance(result, list | tuple):
        return _List(result, resp, ended)
    if hasattr(result, "filelike"):  # wsgi.file_wrapper: sendfile is used only for the original object
        own = getattr(result, "close", None)

        def close() -> None:
            try:
                if own is not None:
                    own()
            finally:
                resp.sent = resp.response_length or 0
                ended()

        try:
            result.close = close
        except AttributeError:
            ended()
        return result
    return _Watched(result, resp, ended)


class _List(list[bytes]):
    """A result whose length is known, so that it goes out with a Content-Length."""

    def __init__(self, result: Any, resp: ResponseView, ended: Callable[[], None]) -> None:
        super().__init__(result)
        self._resp = resp
        self._ended = ended

    def close(self) -> None:
        self._resp.sent = sum(map(len, self))
        self._ended()


class _Watched:
    def __init__(self, result: Any, resp: ResponseView, ended: Callable[[], None]) -> None:
        self._result = result
        self._resp = resp
        self._ended = ended

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._result:
            self._resp.sent += len(piece)
            yield piece

    def close(self) -> None:
        try:
            close = getattr(self._result, "close", None)
            if close is not None:
                close()
        finally:
            self._ended()


def _of_environ(environ: dict[str, Any]) -> RequestView:
    fields = [(key[5:].replace("_", "-"), value) for key, value in environ.items() if key.startswith("HTTP_")]
    content = ("CONTENT_TYPE", "CONTENT_LENGTH")
    fields += [(key.replace("_", "-"), environ[key]) for key in content if environ.get(key)]
    path, query = environ.get("PATH_INFO", ""), environ.get("QUERY_STRING", "")
    version = (1, 0) if environ.get("SERVER_PROTOCOL") == "HTTP/1.0" else (1, 1)
    uri = environ.get("RAW_URI") or environ.get("REQUEST_URI") or path + ("?" + query if query else "")
    req = RequestView(environ["REQUEST_METHOD"], path, query, uri, version, fields)
    req.scheme = environ.get("wsgi.url_scheme", "http")
    port = environ.get("REMOTE_PORT", "0")
    req.remote_addr = req.peer_addr = (environ.get("REMOTE_ADDR", ""), int(port) if str(port).isdecimal() else 0)
    req.body = environ.get("wsgi.input")
    return req


Message = MutableMapping[str, Any]


class ASGIHooks:
    """An ASGI application that calls the hooks around another one; ``environ`` is the scope.

    Args:
        app: The application.
        functions: The functions.
        worker: What they get.
    """

    def __init__(self, app: Any, functions: Functions, worker: WorkerView) -> None:
        self._app = app
        self._functions = functions
        self._worker = worker

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
        worker = self._worker
        req = _of_scope(scope)
        before, scheme = len(req.headers), req.scheme
        self._functions.call("pre_request", worker, req)
        if len(req.headers) > before:
            more = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in req.headers[before:]]
            scope["headers"] = [*scope["headers"], *more]
        if req.scheme != scheme:
            scope["scheme"] = req.scheme
        resp = ResponseView(req)

        async def noting(message: Message) -> None:
            if message["type"] == "http.response.start":
                fields = ((n.decode("latin-1"), v.decode("latin-1")) for n, v in message.get("headers", ()))
                resp.take(str(message["status"]), fields)
            elif message["type"] == "http.response.body":
                resp.sent += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            worker.nr += 1
            self._functions.call("post_request", worker, req, scope, resp)


def _of_scope(scope: MutableMapping[str, Any]) -> RequestView:
    fields = [(name.decode("latin-1").upper(), value.decode("latin-1")) for name, value in scope["headers"]]
    query = scope.get("query_string", b"").decode("latin-1")
    raw = scope.get("raw_path") or scope["path"].encode()
    major, _, minor = scope.get("http_version", "1.1").partition(".")
    uri = raw.decode("latin-1") + ("?" + query if query else "")
    req = RequestView(scope["method"], scope["path"], query, uri, (int(major), int(minor or 0)), fields)
    req.scheme = scope.get("scheme", "http")
    req.remote_addr = req.peer_addr = tuple(scope["client"]) if scope.get("client") else None
    return req
