"""Listening sockets for the addresses that the settings name."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat

from bridge.core.netutil import bind_sockets, bind_unix_socket
from bridge.errors import BridgeError
from bridge.settings import Address, FileDescriptor, TCPAddress, UnixAddress

__all__ = ["BindError", "bind", "url"]


class BindError(BridgeError, OSError):
    """An address cannot be listened on; the message names it and the reason."""


def bind(address: Address, *, backlog: int, uds_permissions: int) -> list[socket.socket]:
    """Return listening sockets for *address*: several when a host name has several addresses.

    Raises:
        BindError: The address is in use, not ours, not allowed, or the descriptor is no listening stream socket.
    """
    try:
        if isinstance(address, TCPAddress):
            return bind_sockets(address.port, address.host or None, backlog=backlog)
        if isinstance(address, UnixAddress):
            return [_bind_unix(address.path, backlog, uds_permissions)]
        return [_inherited(address)]
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) and exc.strerror else str(exc)
        hint = ""
        if isinstance(exc, OSError):
            if exc.errno == errno.EADDRINUSE:
                hint = "; stop what listens there, or choose another address"
            elif exc.errno == errno.EACCES and isinstance(address, TCPAddress) and address.port < 1024:
                hint = "; ports below 1024 need a privilege"
        raise BindError(f"cannot listen on {address}: {reason}{hint}") from exc


def _bind_unix(path: str, backlog: int, mode: int) -> socket.socket:
    """Bind a unix socket; a file that somebody still listens on is left alone."""
    if not path.startswith("\0"):
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(os.stat(path).st_mode):
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.settimeout(1.0)
                    if probe.connect_ex(path) == 0:
                        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    return bind_unix_socket(path, mode, backlog)


def _inherited(address: FileDescriptor) -> socket.socket:
    sock = socket.socket(fileno=address.number)
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.detach()
        raise ValueError("it is not a listening stream socket")
    sock.setblocking(False)
    return sock


def url(sock: socket.socket, scheme: str) -> str:
    """Return where *sock* can be reached, for people to read and to click."""
    if sock.family == socket.AF_UNIX:
        name = sock.getsockname()
        return f"unix:{name if isinstance(name, str) else name.decode('utf-8', 'replace')}"
    host, port = sock.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
