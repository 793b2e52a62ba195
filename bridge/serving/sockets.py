"""Listening sockets for the addresses that the settings name: bound by this process, or inherited."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import sys
from collections.abc import Mapping, Sequence

from bridge.config import Config
from bridge.config.kinds import Address, SystemdSockets, TCPAddress, UnixAddress
from bridge.core.log import gen_log
from bridge.core.net.bind import bind_sockets, bind_unix
from bridge.errors import BindError
from bridge.files import Place

__all__ = ["Listener", "accept_queues", "bind", "bind_admin", "bind_all", "bind_control", "url"]

# The results of connecting to a unix socket on which a process listens: accepted, the queue is full, or the socket is
# not a stream socket.
_LISTENED_ON = frozenset({0, errno.EAGAIN, errno.EINPROGRESS, errno.EPROTOTYPE})


class Listener:
    """An address and its listening sockets. A host name with several addresses has several sockets.

    Attributes:
        address: The address as the settings name it.
        name: Its text, and what it takes to tell it from others with the same text, such as two with port 0.
        sockets: The listening sockets.
        inode: Device and inode of a unix socket's file; None for other addresses.
    """

    __slots__ = ("_pid", "address", "inode", "name", "sockets")

    def __init__(
        self, address: Address, sockets: list[socket.socket], inode: tuple[int, int] | None = None, name: str = ""
    ) -> None:
        self.address = address
        self.name = name or str(address)
        self.sockets = sockets
        self.inode = inode
        self._pid = os.getpid()

    def close(self, *, remove: bool = True) -> None:
        """Close the sockets.

        Args:
            remove: Delete the file of a unix socket, unless another server has replaced it.
        """
        for sock in self.sockets:
            sock.close()
        ours = self._pid == os.getpid()  # a child that the application has forked removes nothing
        if remove and ours and self.inode is not None and isinstance(self.address, UnixAddress):
            with contextlib.suppress(OSError), Place.of(self.address.path) as place:
                if place.file() == self.inode:
                    place.unlink()


def bind_admin(
    config: Config, inherited: Mapping[str, Sequence[int]] | None = None, keep: Sequence[Listener] = ()
) -> list[Listener]:
    """Return a listener for every ``--admin-bind``, and log where it is; otherwise as :func:`bind_all`."""
    listeners = bind_all(config, inherited, keep, config.admin_bind, "admin ")
    fresh = [sock for listener in listeners if listener not in keep for sock in listener.sockets]
    if fresh:
        gen_log.info("Probes and metrics on %s", ", ".join(url(sock, "http") for sock in fresh))
    for listener in listeners:
        if isinstance(listener.address, TCPAddress) and listener not in keep:
            for sock in listener.sockets:
                host = sock.getsockname()[0]
                if host != "::1" and not host.startswith("127."):
                    gen_log.warning("--admin-bind %s: everyone who reaches this address sees metrics", listener.address)
                    break
    return listeners


def accept_queues(sockets: Sequence[socket.socket]) -> list[tuple[str, int]]:
    """Return how many connections wait in the queue of each listening socket, where the system says so."""
    found = []
    for sock in sockets:
        if hasattr(socket, "TCP_INFO") and sock.fileno() >= 0 and sock.family in {socket.AF_INET, socket.AF_INET6}:
            # tcpi_unacked of struct tcp_info: for a listening socket it is the length of its queue (Linux).
            with contextlib.suppress(OSError):
                info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28)
                found.append((url(sock, "tcp")[6:], int.from_bytes(info[24:28], sys.byteorder)))
    return found


def bind_all(
    config: Config,
    inherited: Mapping[str, Sequence[int]] | None = None,
    keep: Sequence[Listener] = (),
    addresses: Sequence[Address] | None = None,
    prefix: str = "",
) -> list[Listener]:
    """Return a listener for every address of *config*.

    Args:
        config: Names the addresses.
        inherited: Descriptors of sockets that already listen, by the name of their listener.
        keep: Listeners to use again for the addresses that they have.
        addresses: Other addresses in place of those that *config* names.
        prefix: What the names of the listeners begin with.

    Raises:
        BindError: As for :func:`bind`. The sockets that were bound before the failure are closed.
    """
    held = {listener.name: listener for listener in keep}
    used: dict[str, int] = {}
    found: list[Listener] = []
    fresh: list[Listener] = []
    try:
        for address in config.addresses if addresses is None else addresses:
            name = f"{prefix}{address}"
            used[name] = used.get(name, 0) + 1
            if used[name] > 1:
                name += f" ({used[name]})"
            if name in held:
                found.append(held[name])
                continue
            if inherited is not None and name in inherited:
                listener = Listener(
                    address, [_inherited(number, str(address)) for number in inherited[name]], name=name
                )
                if isinstance(address, UnixAddress):
                    listener.inode = _file(address.path)
            else:
                listener = bind(address, config)
                listener.name = name
                fresh.append(listener)
            found.append(listener)
    except BaseException:
        for listener in fresh:
            listener.close()
        raise
    return found


def bind_control(path: str, config: Config, inherited: Mapping[str, Sequence[int]] | None = None) -> Listener:
    """Return the listener for the control socket, which only its owner can reach.

    Args:
        path: The socket.
        config: Names the user whom this process becomes, who owns the file.
        inherited: As for :func:`bind_all`.

    Raises:
        BindError: As for :func:`bind`.
    """
    address = UnixAddress(os.path.abspath(path))
    name = f"control {address}"
    try:
        if inherited is not None and name in inherited:
            sockets = [_inherited(number, str(address)) for number in inherited[name]]
            return Listener(address, sockets, _file(address.path), name)
        owner = None
        if config.user is not None and (config.preload or config.log_config is not None or config.workers is None):
            from bridge.serving.privileges import owner_ids

            owner = owner_ids("--user", config.user)
        sock, inode = _bind_unix_as(address.path, 0o600, 128, owner)
        return Listener(address, [sock], inode, name)
    except (OSError, ValueError) as exc:
        raise BindError(f"--control-socket: cannot listen on {address}: {_reason(exc)}", exc) from exc


def bind(address: Address, config: Config) -> Listener:
    """Return the listener for *address*.

    Raises:
        BindError: The address is in use, belongs to another machine, or is not allowed; or the descriptor is not a
            listening stream socket.
    """
    try:
        if isinstance(address, TCPAddress):
            sockets = bind_sockets(
                address.port, address.host or None, backlog=config.backlog, reuse_port=config.reuse_port
            )
            return Listener(address, sockets)
        if isinstance(address, UnixAddress):
            sock, inode = _bind_unix(address.path, config)
            return Listener(address, [sock], inode)
        if isinstance(address, SystemdSockets):
            from bridge.serving.systemd import passed_sockets

            return Listener(address, [_inherited(number, str(address)) for number in passed_sockets(address.name)])
        return Listener(address, [_inherited(address.number, str(address))])
    except BindError:
        raise
    except (OSError, ValueError) as exc:
        reason = _reason(exc)
        hint = ""
        if isinstance(exc, OSError):
            if exc.errno == errno.EADDRINUSE:
                hint = "; stop what listens there, or choose another address"
            elif exc.errno == errno.EACCES and isinstance(address, TCPAddress) and address.port < 1024:
                hint = "; ports below 1024 need a privilege"
        raise BindError(f"cannot listen on {address}: {reason}{hint}", exc) from exc


def _reason(exc: OSError | ValueError) -> str:
    if isinstance(exc, socket.gaierror):
        return exc.strerror or str(exc)
    if isinstance(exc, OSError) and exc.errno not in {None, errno.EPERM}:
        return os.strerror(exc.errno or 0)  # the exception's own text would name the address a second time
    if isinstance(exc, OSError) and exc.strerror:
        return exc.strerror
    return str(exc)


def _bind_unix(path: str, config: Config) -> tuple[socket.socket, tuple[int, int] | None]:
    """Bind a unix socket as the settings say."""
    owner = None
    if not path.startswith("\0") and config.uds_owner is not None:
        from bridge.serving.privileges import owner_ids

        owner = owner_ids("--uds-owner", config.uds_owner)
    return _bind_unix_as(path, config.uds_permissions, config.backlog, owner)


def _bind_unix_as(
    path: str, mode: int, backlog: int, owner: tuple[int, int] | None
) -> tuple[socket.socket, tuple[int, int] | None]:
    """Bind a unix socket. A file on which a process still listens is not replaced."""
    if not path.startswith("\0"):
        with contextlib.suppress(FileNotFoundError), Place.of(path) as place:
            status = place.status()
            if status is not None and stat.S_ISSOCK(status.st_mode):
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.setblocking(False)
                    code = probe.connect_ex(path)
                if code in _LISTENED_ON:
                    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
                if code not in {errno.ECONNREFUSED, errno.ENOENT}:
                    raise OSError(code, os.strerror(code))  # it is unknown whether a process listens: do not replace it
    return bind_unix(path, mode, backlog, owner)


def _inherited(number: int, name: str) -> socket.socket:
    try:
        sock = socket.socket(fileno=number)
    except OSError as exc:
        raise BindError(f"cannot listen on {name}: descriptor {number}: {_reason(exc)}", exc) from exc
    if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        sock.detach()
        raise BindError(f"cannot listen on {name}: descriptor {number} is not a listening stream socket")
    sock.setblocking(False)
    sock.set_inheritable(False)
    return sock


def _file(path: str) -> tuple[int, int] | None:
    with Place.of(path) as place:
        return place.file()


def url(sock: socket.socket, scheme: str) -> str:
    """Return the URL of *sock*, for people to read and to click."""
    if sock.family == getattr(socket, "AF_UNIX", None):
        name = sock.getsockname()
        return f"unix:{name if isinstance(name, str) else name.decode('utf-8', 'replace')}"
    host, port = sock.getsockname()[:2]
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
