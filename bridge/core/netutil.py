"""Listening sockets, addresses and TLS contexts."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from collections.abc import Callable
from typing import Any

from bridge.core.ioloop import IOLoop
from bridge.core.log import gen_log
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

# Connections taken per turn of the loop, so that a flood of them does not starve those that are open.
_ACCEPTS_PER_TURN = 128
# Seconds to wait before accepting again when the process or the system has no room for another descriptor.
_ACCEPT_PAUSE = 1.0
# Seconds until that is logged once more.
_QUIET = 60.0
_NO_ROOM = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# The peer is gone before it was accepted (accept(2) reports pending errors of the new socket).
_PEER_GONE = frozenset({errno.ECONNABORTED, errno.EINVAL, errno.EPROTO, errno.ECONNRESET})
_PORT_TRIES = 10


def bind_sockets(
    port: int,
    address: str | None = None,
    family: socket.AddressFamily = socket.AF_UNSPEC,
    backlog: int = 128,
    flags: int | None = None,
    reuse_port: bool = False,
) -> list[socket.socket]:
    """Return non-blocking listening sockets, one for every address that *address* stands for.

    Args:
        port: The port; 0 lets the system choose one, the same for every address.
        address: An IP address or a host name; ``""`` and None stand for all interfaces.
        family: ``socket.AF_INET`` or ``AF_INET6`` to use only that one.
        backlog: Connections that may wait to be accepted, as in ``socket.listen``.
        flags: Flags for ``getaddrinfo``; ``AI_PASSIVE`` if None.
        reuse_port: Let several processes bind the port; the system spreads connections over them.

    Raises:
        ValueError: *reuse_port* is not supported by the platform.
        OSError: The address cannot be resolved or bound; the message names it.
    """
    if reuse_port and not hasattr(socket, "SO_REUSEPORT"):
        raise ValueError("reuse_port: the platform has no SO_REUSEPORT")
    if address == "":
        address = None
    if family == socket.AF_UNSPEC and not socket.has_ipv6:
        family = socket.AF_INET
    if flags is None:
        flags = socket.AI_PASSIVE
    # As bytes: text would be encoded by a codec that takes 1 ms of CPU to import, whatever is in it.
    host = address.encode() if address and address.isascii() else address
    found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, flags)
    # The same address may come twice; IPv4 goes first.
    addresses = sorted({(entry[0], entry[2], entry[4]) for entry in found}, key=lambda entry: entry[0])
    tries = 1 if port else _PORT_TRIES
    while True:
        tries -= 1
        try:
            return _bind_all(addresses, address, backlog, reuse_port)
        except OSError as exc:
            # The port that the system chose for one address may be taken on another.
            if exc.errno != errno.EADDRINUSE or not tries:
                raise


def _bind_all(
    addresses: list[tuple[Any, ...]], address: str | None, backlog: int, reuse_port: bool
) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    port = None
    try:
        for family, protocol, (host, asked, *rest) in addresses:
            try:
                sock = socket.socket(family, socket.SOCK_STREAM, protocol)
            except OSError as exc:
                if exc.errno == errno.EAFNOSUPPORT:
                    continue
                raise
            sockets.append(sock)
            if os.name != "nt":
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                # IPv4 has a socket of its own.
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setblocking(False)
            bound = port or asked
            try:
                sock.bind((host, bound, *rest))
            except OSError as exc:
                if exc.errno == errno.EADDRNOTAVAIL and address == "localhost" and host == "::1":
                    # Common in containers: the name resolves to an address that no interface has.
                    sockets.pop().close()
                    continue
                raise OSError(exc.errno, f"cannot bind {host} port {bound}: {os.strerror(exc.errno or 0)}") from exc
            sock.listen(backlog)
            port = sock.getsockname()[1]
        if not sockets:
            raise OSError(errno.EADDRNOTAVAIL, f"{address!r} has no address that this system can bind")
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def bind_unix_socket(file: str | bytes | os.PathLike[str], mode: int = 0o600, backlog: int = 128) -> socket.socket:
    """Return a non-blocking listening unix socket.

    Args:
        file: Its path; a socket that is there already is replaced. A name that starts with NUL is in Linux's
            abstract namespace and no file at all.
        mode: Permissions of the file; for who may connect, the directory counts too.
        backlog: Connections that may wait to be accepted.

    Raises:
        ValueError: There is a file of another kind at *file*.
        OSError: It cannot be bound.
    """
    name = os.fspath(file)
    abstract = os.fsencode(name)[:1] == b"\0"
    if not abstract:
        try:
            status = os.stat(name)
        except FileNotFoundError:
            pass
        else:
            if not stat.S_ISSOCK(status.st_mode):
                raise ValueError(f"{name!r} exists and is not a socket")
            os.unlink(name)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.bind(name)
        if not abstract:
            os.chmod(name, mode)  # before listen: until then nobody can connect
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def add_accept_handler(
    sock: socket.socket, callback: Callable[[socket.socket, Any], object], *, per_turn: int = _ACCEPTS_PER_TURN
) -> Callable[[], None]:
    """Call ``callback(connection, address)`` for every connection that *sock* accepts, on the current event loop.

    Args:
        sock: A listening, non-blocking socket.
        callback: Gets the accepted, non-blocking socket and the peer's address.
        per_turn: Most connections that are taken in one turn of the loop.

    Returns:
        A function that stops this; it may be called at any time, and again. It does not close *sock*.
    """
    loop = IOLoop.current().asyncio_loop
    acceptor = _Acceptor(loop, sock, callback, per_turn)
    acceptor.resume()
    return acceptor.remove


class _Acceptor:
    """Accepts the connections of one listening socket."""

    __slots__ = ("_callback", "_loop", "_pause", "_per_turn", "_quiet_until", "_removed", "_sock")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        callback: Callable[[socket.socket, Any], object],
        per_turn: int,
    ) -> None:
        self._per_turn = per_turn
        self._loop = loop
        self._sock = sock
        self._callback = callback
        self._removed = False
        self._quiet_until = float("-inf")
        self._pause: asyncio.TimerHandle | None = None

    def resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._sock, self._accept)

    def remove(self) -> None:
        if self._removed:
            return
        self._removed = True
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        elif not self._loop.is_closed():
            self._loop.remove_reader(self._sock)

    def _accept(self) -> None:
        for _ in range(self._per_turn):
            # The callback may have stopped the server, and closed the socket, in the middle of this.
            if self._removed:
                return
            try:
                connection, address = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as exc:
                if exc.errno in _PEER_GONE:
                    continue
                if exc.errno not in _NO_ROOM:
                    raise
                # The socket stays readable; without a pause this would be a busy loop.
                now = self._loop.time()
                if now >= self._quiet_until:
                    self._quiet_until = now + _QUIET
                    gen_log.error("cannot accept connections, next try every %g s: %s", _ACCEPT_PAUSE, exc)
                self._loop.remove_reader(self._sock)
                self._pause = self._loop.call_later(_ACCEPT_PAUSE, self.resume)
                return
            connection.setblocking(False)
            self._callback(connection, address)


def is_valid_ip(ip: str) -> bool:
    """Tell whether *ip* is an IPv4 or IPv6 address literal; never raises for a str."""
    if not ip or len(ip) > 45:
        return False
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, ip)
        except (OSError, ValueError):
            continue
        return True
    return False
