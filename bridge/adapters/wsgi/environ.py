"""The environ of a request (PEP 3333 "environ Variables", RFC 3875 section 4.1).

A template has what requests to one address of the server have in common. It is copied for each request. Text is latin-1
throughout, one character for each octet, as PEP 3333 asks.
"""

from __future__ import annotations

import ssl
import sys
from typing import TYPE_CHECKING, Any

from bridge._version import __version__
from bridge.adapters.names import distinguished_name
from bridge.adapters.paths import is_below
from bridge.core import log
from bridge.core.http.cache import remember
from bridge.core.http.uri import percent_decoded
from bridge.speedups import make_environ as _compiled

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bridge.adapters.names import Name
    from bridge.adapters.wsgi.lanes import Lane
    from bridge.core.connection.context import ConnectionContext
    from bridge.core.connection.interfaces import Exchange
    from bridge.core.http.message import RequestHead, RequestLine

__all__ = [
    "EnvironTemplate",
    "environ_key",
    "environ_template",
    "make_environ_pure",
    "ssl_variables",
]

Environ = dict[str, Any]
Field = tuple[bytes, bytes]

_KEYS_MAX = 1024
_KEY_LENGTH_MAX = 64
_FIXED = {
    b"content-type": "CONTENT_TYPE",
    b"content-length": "CONTENT_LENGTH",
    # Left out: CGI programs use the proxy in HTTP_PROXY for requests of their own ("httpoxy").
    b"proxy": "",
}
_keys: dict[bytes, str] = {}


class _Errors:
    """``wsgi.errors``: passes text to ``sys.stderr``, whatever the application has put in its place."""

    __slots__ = ()

    def write(self, text: str) -> int:
        stream = sys.stderr
        if log.error_text is not None and stream is sys.__stderr__:
            log.error_text(text)
        elif stream is not None:
            stream.write(text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        flush = getattr(sys.stderr, "flush", None)
        if flush is not None and (log.error_text is None or sys.stderr is not sys.__stderr__):
            flush()


ERRORS = _Errors()


class Client:
    """``bridge.client_disconnected``: tells the application whether its client has left.

    There is one for each connection, since a client that has left does not come back.

    Attributes:
        left: The client has left or has closed its sending side: the server cannot tell which.
    """

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = False

    def __call__(self) -> bool:
        return self.left


class EnvironTemplate:
    """What the environs of one connection's requests have in common.

    What belongs to one request, such as ``wsgi.input``, is set in the copy that the request gets.

    Args:
        base: What all requests to this address of the server have in common.
        context: The connection's two ends.
        outer_path: The part of the root path that a proxy removes from the paths it passes on.
        lane: How many of the connection's requests have threads at once; None if it has one request at a time.

    Attributes:
        client: Tells whether the client has left; for connections that have one request at a time.
        lane: The argument.
        context: The argument.
    """

    __slots__ = ("_inner_mount", "_last", "_mount", "_template", "client", "context", "lane")

    def __init__(
        self, base: Environ, context: ConnectionContext, outer_path: str = "", lane: Lane | None = None
    ) -> None:
        self.client = Client()
        self.lane = lane
        self.context = context
        # The last request's head, and the environ made of it if the head before was the same.
        self._last: tuple[RequestHead | None, Environ | None] = (None, None)
        self._mount: str = base["SCRIPT_NAME"]
        # What is left of SCRIPT_NAME when a proxy has already removed the outer path.
        self._inner_mount = self._mount[len(_as_latin1(outer_path)) :]
        template = self._template = base.copy()
        if isinstance(context.address, tuple):
            template["REMOTE_ADDR"] = context.remote_ip
            template["REMOTE_PORT"] = str(context.remote_port)
        template["bridge.client_disconnected"] = template["waitress.client_disconnected"] = self.client

    def environ(self, exchange: Exchange) -> Environ:
        """Return a new environ, without what belongs to this request only."""
        head = exchange.head
        known, before = self._last  # at once: HTTP/2 has several threads here
        if known is head and before is not None:
            environ = before.copy()
        else:
            environ = self._make(head)
            # A client that polls sends the same head again and again, and the reader returns the same object for it. Of
            # a head that comes once no copy is kept.
            self._last = head, environ.copy() if known is head else None
        if self._mount:
            # A proxy in front has removed nothing, or the outer path.
            info = environ["PATH_INFO"]
            for root in (self._mount, self._inner_mount):
                if is_below(info, root):
                    environ["PATH_INFO"] = info[len(root) :]
                    break
        if exchange.context is not self.context:
            _set_forwarded(environ, exchange.context)
        return environ

    def _make(self, head: RequestHead) -> Environ:
        """Return what comes from the connection and from the head, by the compiled function if it is there."""
        line = head.line
        environ = _compiled and _compiled(
            self._template, head.fields, line.method_text, line.path, line.query, line.target, line.protocol_text
        )
        return make_environ_pure(self._template, head.fields, line) if environ is None else environ


def environ_template(
    context: ConnectionContext, *, root_path: str, multithread: bool, multiprocess: bool, extra: Environ
) -> Environ:
    """Return what all requests to one address of the server have in common.

    Args:
        context: The two ends of one of the connections.
        root_path: Where the application is mounted; percent-decoded.
        multithread: Whether the application may be called by several threads at once.
        multiprocess: Whether other processes run the same application.
        extra: More entries.
    """
    local = context.local_address
    if isinstance(local, tuple):
        name, port = str(local[0]), str(local[1])
    else:  # a Unix socket has neither, and PEP 3333 asks for both
        name, port = "localhost", "443" if context.protocol == "https" else "80"
    environ: Environ = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": _as_latin1(root_path),
        "PATH_INFO": "/",
        "QUERY_STRING": "",
        "REQUEST_URI": "/",
        "RAW_URI": "/",
        "SERVER_NAME": name,
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": f"bridge/{__version__}",
        "GATEWAY_INTERFACE": "CGI/1.1",
        "REMOTE_ADDR": "",
        "REMOTE_PORT": "",
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": context.protocol,
        "wsgi.input": None,
        "wsgi.input_terminated": True,
        "wsgi.errors": ERRORS,
        "wsgi.multithread": multithread,
        "wsgi.multiprocess": multiprocess,
        "wsgi.run_once": False,
        **extra,
    }
    if context.protocol == "https":
        environ["HTTPS"] = "on"
    return environ


def make_environ_pure(template: Environ, fields: tuple[Field, ...], line: RequestLine) -> Environ:
    """Return a copy of an environ with what comes from a request's head.

    The compiled function gives the same result, or leaves it to this one.

    Values of one name are joined by commas (RFC 9110 section 5.3), those of Cookie by semicolons (RFC 9113
    section 8.2.3).
    """
    environ = template.copy()
    for name, value in fields:
        key = _keys.get(name)
        if key is None:
            key = environ_key(name)
        if key:
            text = value.decode("latin-1")
            if key in environ:
                text = environ[key] + ("; " if key == "HTTP_COOKIE" else ", ") + text
            environ[key] = text
    path = line.path
    if b"%" in path:
        path = percent_decoded(path)
    environ["REQUEST_METHOD"] = line.method_text
    environ["PATH_INFO"] = path.decode("latin-1")
    environ["QUERY_STRING"] = line.query.decode("latin-1")
    environ["REQUEST_URI"] = environ["RAW_URI"] = line.target.decode("latin-1")
    environ["SERVER_PROTOCOL"] = line.protocol_text
    return environ


def environ_key(name: bytes) -> str:
    """Return the environ key of a field; empty if the application must not see the field.

    ``X_Foo`` and ``X-Foo`` would have the same key. A client could send the first, which no proxy removes, and the
    application would take it for the second. So names with an underscore are left out.

    Args:
        name: The field's name in lower case.
    """
    key = _FIXED.get(name)
    if key is None:
        key = "" if b"_" in name else "HTTP_" + name.decode("latin-1").upper().replace("-", "_")
    if len(name) <= _KEY_LENGTH_MAX:
        remember(_keys, name, key, _KEYS_MAX)  # names come from clients
    return key


def _set_forwarded(environ: Environ, context: ConnectionContext) -> None:
    """Set what differs from the connection itself: the request's id, and what a trusted proxy has reported.

    A proxy reports the client's address, the scheme, the server's name and the path prefix that it has removed.
    """
    if context.request_id:
        environ["bridge.request_id"] = context.request_id
    environ["REMOTE_ADDR"] = context.remote_ip if context.has_remote else ""
    environ["REMOTE_PORT"] = str(context.remote_port or "")
    if context.forwarded_server:
        name, port = context.local_address
        environ["SERVER_NAME"] = name
        environ["SERVER_PORT"] = str(port)
    if context.prefix:
        environ["SCRIPT_NAME"] = (
            percent_decoded(context.prefix.encode("latin-1")).decode("latin-1") + environ["SCRIPT_NAME"]
        )
    environ["wsgi.url_scheme"] = context.protocol
    if context.protocol == "https":
        environ["HTTPS"] = "on"
    else:
        environ.pop("HTTPS", None)


def _as_latin1(text: str) -> str:
    """Return the UTF-8 octets of *text* as characters."""
    return text.encode("utf-8").decode("latin-1")


# How mod_ssl abbreviates the parts of a distinguished name in the names of variables.
_DN = {
    "commonName": "CN",
    "countryName": "C",
    "emailAddress": "Email",
    "givenName": "G",
    "localityName": "L",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "stateOrProvinceName": "ST",
    "surname": "S",
    "title": "T",
}


def ssl_variables(tls: ssl.SSLObject) -> Environ:
    """Return what is known about a TLS connection, under the names of Apache's mod_ssl."""
    environ: Environ = {"SSL_PROTOCOL": tls.version() or ""}
    cipher = tls.cipher()
    if cipher is not None:
        environ["SSL_CIPHER"] = cipher[0]
        environ["SSL_CIPHER_USEKEYSIZE"] = str(cipher[2])
    certificate: dict[str, Any] | None = tls.getpeercert()
    encoded = tls.getpeercert(binary_form=True)
    if not encoded:
        environ["SSL_CLIENT_VERIFY"] = "NONE"
        return environ
    # An empty dictionary stands for a certificate that was not verified.
    environ["SSL_CLIENT_VERIFY"] = "SUCCESS" if certificate else "GENEROUS"
    environ["SSL_CLIENT_CERT"] = ssl.DER_cert_to_PEM_cert(encoded)
    if certificate:
        environ["SSL_CLIENT_M_SERIAL"] = certificate.get("serialNumber", "")
        environ["SSL_CLIENT_M_VERSION"] = str(certificate.get("version", ""))
        environ["SSL_CLIENT_V_START"] = certificate.get("notBefore", "")
        environ["SSL_CLIENT_V_END"] = certificate.get("notAfter", "")
        _add_name(environ, "SSL_CLIENT_S_DN", certificate.get("subject", ()))
        _add_name(environ, "SSL_CLIENT_I_DN", certificate.get("issuer", ()))
    return environ


def _add_name(environ: Environ, key: str, name: Name) -> None:
    environ[key] = _as_latin1(distinguished_name(name))
    for kind, value in (pair for group in name for pair in group):
        environ.setdefault(f"{key}_{_DN.get(kind, kind)}", _as_latin1(value))
