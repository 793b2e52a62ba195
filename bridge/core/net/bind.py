"""Listening sockets: for the addresses of a host name, and for a unix socket's file."""

from __future__ import annotations

import errno
import os
import socket
import stat
from typing import Any

from bridge.files import Place, set_socket

__all__ = ["bind_sockets", "bind_unix", "bind_unix_socket"]

# How often the system may choose a port that turns out to be taken on another address.
_PORT_TRIES = 10
# Bytes of a unix socket's path, without the NUL at its end.
_LONGEST_PATH = 107


def bind_sockets(
    port: int,
    address: str | None = None,
    family: socket.AddressFamily = socket.AF_UNSPEC,
    backlog: int = 128,
    flags: int | None = None,
    reuse_port: bool = False,
) -> list[socket.socket]:
    """Return non-blocking listening sockets, one for every address that *address* resolves to.

    Args:
        port: The port; 0 lets the system choose one, the same for every address.
        address: An IP address or a host name; ``""`` and None mean all interfaces.
        family: ``socket.AF_INET`` or ``socket.AF_INET6`` for one family only.
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
    # As bytes: getaddrinfo would encode text by the "idna" codec, whose import takes 1 ms of CPU.
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
            # The system has chosen the port for one address, and it may be taken on another.
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
                # IPv4 has a socket of its own: a system that shares them would find the port taken.
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.setblocking(False)
            bound = port or asked
            try:
                sock.bind((host, bound, *rest))
            except OSError as exc:
                if exc.errno == errno.EADDRNOTAVAIL and address == "localhost" and host == "::1":
                    # Common in containers: "localhost" has an IPv6 address, and no interface has it.
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
        file: Its path; an existing socket is replaced. A name that starts with NUL is in Linux's abstract namespace,
            and no file.
        mode: Permissions of the file. The permissions of its directory limit who may connect, too.
        backlog: Connections that may wait to be accepted.

    Raises:
        ValueError: *file* exists and is not a socket.
        OSError: The socket cannot be bound.
    """
    return bind_unix(os.fspath(file), mode, backlog)[0]


def bind_unix(
    name: str | bytes, mode: int, backlog: int, owner: tuple[int, int] | None = None
) -> tuple[socket.socket, tuple[int, int] | None]:
    """Return a socket as :func:`bind_unix_socket` does, and device and inode of its file (None without a file).

    Args:
        name: As there.
        mode: As there.
        backlog: As there.
        owner: User and group (numbers) that get the file; -1 for one that stays. None if both stay.
    """
    abstract = os.fsencode(name)[:1] == b"\0"
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if abstract:
            sock.bind(name)
            inode = None
        else:
            with Place.of(name) as place:
                status = place.status()
                if status is not None:
                    if not stat.S_ISSOCK(status.st_mode):
                        raise ValueError(f"{name!r} exists and is not a socket")
                    place.unlink()
                sock.bind(_short(name))
                inode = set_socket(place, mode, owner)  # before listen: until then nobody can connect
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock, inode


def _short(name: str | bytes) -> str | bytes:
    """Return a path of a socket in a form that the system takes, at most 107 bytes: a relative path may be short."""
    if len(os.fsencode(name)) <= _LONGEST_PATH:
        return name
    relative = os.path.relpath(os.fsdecode(name))
    return relative if len(os.fsencode(relative)) <= _LONGEST_PATH else name
