"""Listening sockets, accepting and TLS contexts under Tornado's documented names."""

from __future__ import annotations

from bridge.core.net.accept import add_accept_handler
from bridge.core.net.addresses import is_valid_ip
from bridge.core.net.bind import bind_sockets, bind_unix_socket
from bridge.core.net.tls import check_ssl_options, ssl_options_to_context, ssl_wrap_socket

__all__ = [
    "add_accept_handler",
    "bind_sockets",
    "bind_unix_socket",
    "check_ssl_options",
    "is_valid_ip",
    "ssl_options_to_context",
    "ssl_wrap_socket",
]
