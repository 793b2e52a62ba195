"""HTTPServerRequest: one request, as applications of Tornado's kind see it."""

from __future__ import annotations

import re
import ssl
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, Self

from bridge.core.tornado import forms
from bridge.core.tornado.cookies import parse_cookie
from bridge.core.tornado.headers import HTTPHeaders
from bridge.core.tornado.startline import HTTPInputError, RequestStartLine

if TYPE_CHECKING:
    from http.cookies import SimpleCookie

    from bridge.core.connection.context import ConnectionContext
    from bridge.core.http.message import RequestHead
    from bridge.core.tornado.forms import HTTPFile
    from bridge.core.tornado.interfaces import HTTPConnection

__all__ = ["HTTPServerRequest", "split_host_and_port"]

# uri-host [ ":" port ] (RFC 9110 section 7.2), or nothing. The grammar allows a comma, this pattern does not: several
# Host fields that a proxy has joined look like that, and RFC 9112 section 3.2 asks for 400.
_HOST = re.compile(
    r"(?:\[[0-9A-Za-z\-._~!$&'()*+;=:]+\]|(?:[0-9A-Za-z\-._~!$&'()*+;=]|%[0-9A-Fa-f]{2})*)(?::[0-9]{0,5})?"
)
_HOST_AND_PORT = re.compile(r"(.+):([0-9]{1,5})")


class Exchange(Protocol):
    """The parts of its exchange that a request uses."""

    @property
    def head(self) -> RequestHead:
        """The head of the request."""
        ...

    @property
    def context(self) -> ConnectionContext:
        """The two ends of the connection."""
        ...

    @property
    def server_connection(self) -> object:
        """The connection, with Tornado's interface."""
        ...


def split_host_and_port(netloc: str) -> tuple[str, int | None]:
    """Return the host and the port of ``host`` or ``host:port``; the port is None if there is none."""
    match = _HOST_AND_PORT.fullmatch(netloc)
    if match is None:
        return netloc, None
    return match[1], int(match[2])


class HTTPServerRequest:
    """A received request.

    Attributes:
        method: The method, such as ``GET``.
        uri: The request target as it was sent, in absolute-form or ``*``, too.
        path: The part of *uri* before the first ``?``, percent-encoded.
        query: The part of *uri* after the first ``?``.
        version: ``HTTP/1.0``, ``HTTP/1.1`` or ``HTTP/2.0``.
        headers: The header section.
        body: The content; empty bytes until it was received.
        remote_ip: The client's address; ``0.0.0.0`` on a unix socket, None without a connection.
        protocol: ``http`` or ``https``.
        prefix: The path below which the client sees the application, as reported by a trusted proxy that removes it
            from the target (X-Forwarded-Prefix): percent-encoded, without a slash at the end. *uri* and *path* are
            without it. Empty for none. Always empty with ``xheaders``, which believes any peer: few proxies remove
            the field if they do not set it.
        host: The Host field; ``127.0.0.1`` if an HTTP/1.0 client sent none.
        host_name: *host* in lower case and without the port.
        arguments: Name -> list of values, those of the query before those of a form in the content. Names are latin-1
            text, values are bytes.
        query_arguments: The arguments of the query.
        body_arguments: The arguments of the form.
        files: Name -> list of uploaded files of a multipart form.
        cookies: Name -> ``http.cookies.Morsel``, from the Cookie field.
        connection: The connection to which the response is written.
        server_connection: The TCP connection.

    Attributes that take work are computed when they are first read. All can be set.

    Args:
        method: The method. Not used if *start_line* is given.
        uri: The request target. Not used if *start_line* is given.
        version: The HTTP version. Not used if *start_line* is given.
        headers: The header section.
        body: The content.
        host: Used in place of the Host field.
        files: See above.
        connection: See above. Its ``context`` has *remote_ip* and *protocol*.
        start_line: Method, target and version.
        server_connection: See above.
        remote_ip: Used in place of the connection's.
        protocol: Used in place of the connection's.

    Raises:
        HTTPInputError: The Host field is missing in HTTP/1.1, or malformed (RFC 9112 section 3.2), or the query has
            more arguments than ``ParseUrlEncodedConfig.max_arguments``.
    """

    __slots__ = (
        "__dict__",  # applications set attributes of their own on a request
        "__weakref__",
        "_finish_time",
        "_head",
        "_start_time",
        "arguments",
        "body",
        "body_arguments",
        "connection",
        "cookies",
        "files",
        "headers",
        "host",
        "host_name",
        "method",
        "path",
        "prefix",
        "protocol",
        "query",
        "query_arguments",
        "remote_ip",
        "server_connection",
        "uri",
        "version",
    )

    # __getattr__ fills a slot that has no value when it is first read (0.7 us). Reading it again costs no call. Values
    # that are cheaper to copy (0.05 us) are set at once.
    arguments: dict[str, list[bytes]]
    body: bytes
    body_arguments: dict[str, list[bytes]]
    connection: HTTPConnection | None
    cookies: SimpleCookie
    files: dict[str, list[HTTPFile]]
    headers: HTTPHeaders
    host: str
    host_name: str
    method: str
    path: str
    prefix: str
    protocol: str
    query: str
    query_arguments: dict[str, list[bytes]]
    remote_ip: str | None
    server_connection: object
    uri: str
    version: str
    _head: RequestHead  # only of requests that from_connection has made

    def __init__(
        self,
        method: str | None = None,
        uri: str | None = None,
        version: str = "HTTP/1.0",
        headers: HTTPHeaders | None = None,
        body: bytes | None = None,
        host: str | None = None,
        files: dict[str, list[HTTPFile]] | None = None,
        connection: HTTPConnection | None = None,
        start_line: RequestStartLine | None = None,
        server_connection: object | None = None,
        *,
        remote_ip: str | None = None,
        protocol: str | None = None,
    ) -> None:
        self._start_time = time.monotonic()
        self._finish_time: float | None = None
        if start_line is None:
            start_line = RequestStartLine(method or "GET", uri or "/", version)
        self.method, self.uri, self.version = start_line
        self.headers = HTTPHeaders() if headers is None else headers
        self.body = body or b""
        self.files = {} if files is None else files
        self.connection = connection
        self.server_connection = server_connection
        context = getattr(connection, "context", None)
        self.remote_ip = remote_ip if remote_ip is not None else getattr(context, "remote_ip", None)
        self.protocol = protocol if protocol is not None else getattr(context, "protocol", "http")
        self.host = host if host is not None else self._host_of_headers()
        if "," in self.host:
            raise HTTPInputError(f"Invalid Host header: {self.host[:80]!r}: more than one")
        if _HOST.fullmatch(self.host) is None:
            raise HTTPInputError(f"Invalid Host header: {self.host[:80]!r}")
        forms.check_argument_count(self.query)

    @classmethod
    def from_connection(cls, connection: Any) -> Self:
        """Return the request of an exchange.

        Args:
            connection: A TornadoExchange.

        Raises:
            HTTPInputError: The query has too many arguments.
        """
        exchange = connection.exchange
        # Without __init__: the parser has checked the host, and most slots are filled when they are read.
        self = cls.__new__(cls)
        self._start_time = time.monotonic()
        self._finish_time = None
        self._head = head = exchange.head
        line = head.line
        self.method = line.method_text
        self.uri = line.target.decode("latin-1")
        self.version = line.protocol_text
        self.body = b""
        self.connection = connection
        context = exchange.context
        self.remote_ip = context.remote_ip
        self.protocol = context.protocol
        if line.query:
            forms.check_argument_count(line.query)
        return self

    def __getattr__(self, name: str) -> Any:
        """Fill the slot *name*, which has no value yet."""
        fill = _FILL.get(name)
        if fill is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        value = fill(self)
        setattr(self, name, value)
        return value

    def _host_of_headers(self) -> str:
        """Return the Host field, or its default for HTTP/1.0."""
        host = self.headers.get("Host")
        if host is not None:
            return host
        if self.version != "HTTP/1.0":
            raise HTTPInputError("Invalid Host header: missing (RFC 9112 section 3.2)")
        return "127.0.0.1"

    def supports_http_1_1(self) -> bool:
        """Tell whether the client speaks HTTP/1.1 or a later version."""
        return self.version != "HTTP/1.0"

    def write(self, chunk: bytes | str, callback: Callable[[], object] | None = None) -> None:
        """Write to the connection. Without its ``write_headers`` before, the bytes are sent as they are.

        Args:
            chunk: Content, or a part of the response; text is sent in UTF-8.
            callback: Called when everything is flushed.
        """
        assert self.connection is not None
        data = chunk.encode() if isinstance(chunk, str) else chunk
        if callback is None:
            self.connection.write(data)
        else:
            self.connection.write(data, callback=callback)

    def finish(self) -> None:
        """End the response."""
        assert self.connection is not None
        self.connection.finish()
        self._finish_time = time.monotonic()

    def full_url(self) -> str:
        """Return the URL that the client has requested, with the prefix (RFC 9110 section 7.1)."""
        if self.uri.startswith("/"):
            return f"{self.protocol}://{self.host}{self.prefix}{self.uri}"
        return f"{self.protocol}://{self.host}" if self.uri == "*" else self.uri

    def request_time(self) -> float:
        """Return the seconds from the construction of the request to :meth:`finish`, or to now before it."""
        end = time.monotonic() if self._finish_time is None else self._finish_time
        return end - self._start_time

    def get_ssl_certificate(self, binary_form: bool = False) -> dict[str, Any] | bytes | None:
        """Return the client's certificate; None if it sent none, or if the connection has no TLS or is closed.

        The server asks for a certificate if ``ssl_options`` has ``cert_reqs`` and ``ca_certs``, or if the context's
        ``verify_mode`` requires one.

        Args:
            binary_form: Return it in DER form; otherwise as a dictionary, see ``ssl.SSLSocket.getpeercert``.
        """
        if hasattr(self.server_connection, "transport"):
            transport = self.server_connection.transport  # None when closed
            tls = transport.get_extra_info("ssl_object") if transport is not None else None
        else:
            tls = getattr(getattr(self.connection, "stream", None), "socket", None)
        if tls is None or not hasattr(tls, "getpeercert"):
            return None
        try:
            certificate: dict[str, Any] | bytes | None = tls.getpeercert(binary_form=binary_form)
        except (ssl.SSLError, ValueError, OSError):
            return None  # there was no handshake, or the socket is closed
        return certificate

    def _has_form(self) -> bool:
        """Tell whether :meth:`_parse_body` has something to read."""
        return bool(self.body) and forms.is_form(self.headers.get("Content-Type", ""))

    def _parse_body(self) -> None:
        """Read the arguments and files of a form in the content, if it is one.

        Raises:
            HTTPInputError: The form is malformed, has a content coding, or exceeds a limit.
        """
        content_type = self.headers.get("Content-Type") if self.body else None
        if content_type is None:
            return
        parsed: dict[str, list[bytes]] = {}
        arguments = self.arguments
        forms.parse_body_arguments(content_type, self.body, parsed, self.files, self.headers)
        for name, values in parsed.items():
            self.body_arguments.setdefault(name, []).extend(values)
            arguments.setdefault(name, []).extend(values)

    def __repr__(self) -> str:
        names = ("protocol", "host", "method", "uri", "version", "remote_ip")
        return f"{type(self).__name__}({', '.join([f'{name}={getattr(self, name)!r}' for name in names])})"


def _arguments(request: HTTPServerRequest) -> dict[str, list[bytes]]:
    return {name: values.copy() for name, values in request.query_arguments.items()}


def _query_arguments(request: HTTPServerRequest) -> dict[str, list[bytes]]:
    return forms.parse_query(request.query) if request.query else {}


def _cookies(request: HTTPServerRequest) -> SimpleCookie:
    from http.cookies import CookieError, SimpleCookie

    jar = SimpleCookie()
    # Several Cookie fields are joined with a semicolon, not with a comma (RFC 9113 section 8.2.3).
    for name, value in parse_cookie("; ".join(request.headers.get_list("Cookie"))).items():
        try:
            jar[name] = value
        except CookieError:
            continue  # browsers also send names that a Morsel refuses; the other cookies are kept
    return jar


_FILL: dict[str, Callable[[HTTPServerRequest], object]] = {
    "arguments": _arguments,
    "body_arguments": lambda request: {},
    "cookies": _cookies,
    "files": lambda request: {},
    "headers": lambda request: HTTPHeaders.from_raw([*request._head.fields]),
    "host": lambda request: request._head.host.decode("latin-1") or "127.0.0.1",
    "host_name": lambda request: split_host_and_port(request.host.lower())[0],
    "path": lambda request: request.uri.partition("?")[0],
    "server_connection": lambda request: getattr(request.connection, "server_connection", None),
    "prefix": lambda request: getattr(getattr(request.connection, "context", None), "prefix", ""),
    "query": lambda request: request.uri.partition("?")[2],
    "query_arguments": _query_arguments,
}
