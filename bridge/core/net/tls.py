"""TLS contexts from dictionaries of options, as ``ssl.wrap_socket`` once took them.

The time of a handshake is limited where the connection is accepted: ``bridge/core/tcpserver.py``.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Mapping, Sequence
from typing import Any

from bridge.errors import ConfigError

__all__ = ["check_ssl_options", "ssl_options_to_context", "ssl_wrap_socket"]

SSLOptions = Mapping[str, Any] | ssl.SSLContext

_KEYS = ("certfile", "keyfile", "ssl_version", "cert_reqs", "ca_certs", "ciphers")
_FILES = ("certfile", "keyfile", "ca_certs")
# The values that ssl_version may have. RFC 8996 deprecates the protocols older than TLS 1.2.
_ANY_VERSION = frozenset({ssl.PROTOCOL_TLS, ssl.PROTOCOL_TLS_CLIENT, ssl.PROTOCOL_TLS_SERVER})


def check_ssl_options(ssl_options: SSLOptions | None) -> None:
    """Check a server's TLS options as far as possible without reading a key, so that faults show at construction.

    Args:
        ssl_options: None and contexts are fine as they are.

    Raises:
        KeyError: There is no certfile.
        ValueError: A file does not exist; or a key is not known, or ssl_version or cert_reqs cannot be used
            (ConfigError, which is a ValueError).
    """
    if ssl_options is None or isinstance(ssl_options, ssl.SSLContext):
        return
    _check(ssl_options, server_side=True)


def _check(options: Mapping[str, Any], *, server_side: bool) -> None:
    for key in options:
        if key not in _KEYS:
            raise ConfigError(f"ssl_options: unknown key {key!r}; known are {', '.join(_KEYS)}")
    if server_side and not options.get("certfile"):
        raise KeyError('ssl_options: missing key "certfile"')
    for key in _FILES:
        path = options.get(key)
        if path is not None and not os.path.exists(path):
            raise ValueError(f"ssl_options: {key} {os.fspath(path)!r} does not exist")
    version = options.get("ssl_version")
    if version is not None and version not in _ANY_VERSION and version != ssl.PROTOCOL_TLSv1_2:
        raise ConfigError(
            f"ssl_options: ssl_version {version!r} is not supported: TLS 1.2 is the oldest version served"
        )
    try:
        required = ssl.VerifyMode(options.get("cert_reqs") or ssl.CERT_NONE)
    except ValueError:
        raise ConfigError(f"ssl_options: cert_reqs {options['cert_reqs']!r} is not an ssl.CERT_ constant") from None
    if server_side and required != ssl.CERT_NONE and not options.get("ca_certs"):
        raise ConfigError(f"ssl_options: cert_reqs {required.name} needs ca_certs, or no client could ever connect")


def ssl_options_to_context(
    ssl_options: SSLOptions, server_side: bool | None = None, *, alpn: Sequence[str] = ("http/1.1",)
) -> ssl.SSLContext:
    """Return the TLS context that *ssl_options* describes: TLS 1.2 or later, no compression, no renegotiation.

    Args:
        ssl_options: A context, which is returned as it is, or a mapping with the keys ``certfile``, ``keyfile``,
            ``ssl_version``, ``cert_reqs``, ``ca_certs`` and ``ciphers``.
        server_side: Whether the context is for a server; None means yes.
        alpn: The protocols that a server offers, the preferred one first (RFC 7301). A context that is returned as it
            is decides for itself.

    Raises:
        KeyError: A server's certfile is missing.
        ValueError: As for :func:`check_ssl_options`.
        ssl.SSLError: A file has no certificate or key in it, or the two do not fit, or no cipher is left.
    """
    if isinstance(ssl_options, ssl.SSLContext):
        return ssl_options
    server = server_side is not False
    _check(ssl_options, server_side=server)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ssl_options.get("ssl_version") == ssl.PROTOCOL_TLSv1_2:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    if server:
        context.set_alpn_protocols([*alpn])
    if ssl_options.get("certfile"):
        context.load_cert_chain(ssl_options["certfile"], ssl_options.get("keyfile"))
    if ssl_options.get("ca_certs"):
        context.load_verify_locations(ssl_options["ca_certs"])
    elif not server:
        context.load_default_certs()
    if "cert_reqs" in ssl_options:
        required = ssl.VerifyMode(ssl_options["cert_reqs"] or ssl.CERT_NONE)
        if required == ssl.CERT_NONE:
            context.check_hostname = False
        context.verify_mode = required
    if ssl_options.get("ciphers"):
        context.set_ciphers(ssl_options["ciphers"])
    return context


def ssl_wrap_socket(
    socket: socket.socket,
    ssl_options: SSLOptions,
    server_hostname: str | None = None,
    server_side: bool | None = None,
    **kwargs: Any,
) -> ssl.SSLSocket:
    """Return *socket* wrapped in TLS.

    Args:
        socket: A connected, or listening, socket.
        ssl_options: As for :func:`ssl_options_to_context`.
        server_hostname: For a client: the name to ask for, and to verify.
        server_side: Whether this end is the server; None means no, as in ``ssl.SSLContext.wrap_socket``.
        **kwargs: For ``ssl.SSLContext.wrap_socket``.

    Raises:
        ValueError, KeyError, ssl.SSLError: As for :func:`ssl_options_to_context`, or the handshake failed.
    """
    server = bool(server_side)
    context = ssl_options_to_context(ssl_options, server_side=server)
    return context.wrap_socket(socket, server_side=server, server_hostname=server_hostname, **kwargs)
