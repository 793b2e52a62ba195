"""Listening sockets: ports, families, options, faults; unix sockets and their files."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.core.net.bind import bind_sockets, bind_unix_socket

LOOPBACK = "127.0.0.1"


@pytest.fixture
def opened() -> Iterator[list[socket.socket]]:
    """Sockets that are closed after the test."""
    sockets: list[socket.socket] = []
    yield sockets
    for sock in sockets:
        sock.close()


def resolved(monkeypatch: pytest.MonkeyPatch, *entries: tuple[int, tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Let every name stand for *entries*, (family, address); return the list of look-ups."""
    asked: list[tuple[Any, ...]] = []

    def getaddrinfo(*arguments: Any) -> list[tuple[Any, ...]]:
        asked.append(arguments)
        return [(family, socket.SOCK_STREAM, 6, "", address) for family, address in entries]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


# --- bind_sockets -----------------------------------------------------------------------------------------------------


def test_a_bound_socket_listens_and_does_not_block(opened: list[socket.socket]) -> None:
    opened += bind_sockets(0, LOOPBACK)
    (sock,) = opened
    host, port = sock.getsockname()
    assert host == LOOPBACK
    assert port > 0
    assert not sock.getblocking()
    assert not sock.get_inheritable()
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)
    with pytest.raises(BlockingIOError):
        sock.accept()
    opened.append(socket.create_connection((host, port), timeout=10))


def test_a_name_with_several_addresses_gets_one_port(
    opened: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = resolved(
        monkeypatch,
        (socket.AF_INET, ("127.0.0.2", 0)),
        (socket.AF_INET, (LOOPBACK, 0)),
        (socket.AF_INET, ("127.0.0.2", 0)),
    )
    opened += bind_sockets(0, "a.example")
    assert sorted(sock.getsockname()[0] for sock in opened) == [LOOPBACK, "127.0.0.2"]
    assert len({sock.getsockname()[1] for sock in opened}) == 1
    assert asked == [(b"a.example", 0, socket.AF_UNSPEC, socket.SOCK_STREAM, 0, socket.AI_PASSIVE)]


@pytest.mark.parametrize("address", ["", None])
def test_all_interfaces(address: str | None, opened: list[socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = resolved(monkeypatch, (socket.AF_INET, (LOOPBACK, 0)))
    opened += bind_sockets(0, address)
    assert asked[0][0] is None


def test_family_and_flags_are_handed_on(opened: list[socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = resolved(monkeypatch, (socket.AF_INET, (LOOPBACK, 0)))
    opened += bind_sockets(0, LOOPBACK, family=socket.AF_INET, flags=socket.AI_NUMERICHOST)
    monkeypatch.setattr(socket, "has_ipv6", False)
    opened += bind_sockets(0, LOOPBACK)
    assert [entry[2] for entry in asked] == [socket.AF_INET, socket.AF_INET]
    assert [entry[5] for entry in asked] == [socket.AI_NUMERICHOST, socket.AI_PASSIVE]


def has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="this system has no IPv6 loopback address")
def test_ipv6_is_apart_from_ipv4(opened: list[socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    resolved(monkeypatch, (socket.AF_INET6, ("::1", 0, 0, 0)), (socket.AF_INET, (LOOPBACK, 0)))
    opened += bind_sockets(0, "localhost")
    assert [sock.family for sock in opened] == [socket.AF_INET, socket.AF_INET6]
    assert opened[0].getsockname()[1] == opened[1].getsockname()[1]
    assert opened[1].getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1


def test_a_port_that_is_taken(opened: list[socket.socket]) -> None:
    opened += bind_sockets(0, LOOPBACK)
    port = opened[0].getsockname()[1]
    with pytest.raises(OSError, match=rf"cannot bind 127.0.0.1 port {port}") as caught:
        bind_sockets(port, LOOPBACK)
    assert caught.value.errno == errno.EADDRINUSE


def test_nothing_stays_open_when_an_address_cannot_be_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[socket.socket] = []
    plain = socket.socket

    def remembered(*arguments: Any) -> socket.socket:
        made.append(plain(*arguments))
        return made[-1]

    resolved(monkeypatch, (socket.AF_INET, (LOOPBACK, 0)), (socket.AF_INET, ("192.0.2.1", 0)))
    monkeypatch.setattr(socket, "socket", remembered)
    with pytest.raises(OSError, match=r"cannot bind 192.0.2.1 port") as caught:
        bind_sockets(0, "a.example")
    assert caught.value.errno == errno.EADDRNOTAVAIL
    assert made
    assert all(sock.fileno() == -1 for sock in made)


class Unlucky(socket.socket):
    """A socket whose first binds fail."""

    faults: dict[str, list[int]] = {}  # noqa: RUF012

    def bind(self, address: Any) -> None:
        if self.faults.get(address[0]):
            number = self.faults[address[0]].pop()
            raise OSError(number, os.strerror(number))
        super().bind(address)


def unlucky(monkeypatch: pytest.MonkeyPatch, **faults: list[int]) -> None:
    monkeypatch.setattr(Unlucky, "faults", {host.replace("_", "."): list(errors) for host, errors in faults.items()})
    monkeypatch.setattr(socket, "socket", Unlucky)


def test_a_chosen_port_that_is_taken_elsewhere_is_chosen_again(
    opened: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved(monkeypatch, (socket.AF_INET, (LOOPBACK, 0)), (socket.AF_INET, ("127.0.0.2", 0)))
    unlucky(monkeypatch, **{"127_0_0_2": [errno.EADDRINUSE] * 3})
    opened += bind_sockets(0, "a.example")
    assert len(opened) == 2
    unlucky(monkeypatch, **{"127_0_0_2": [errno.EADDRINUSE] * 10})
    with pytest.raises(OSError, match=r"cannot bind 127.0.0.2"):
        bind_sockets(0, "a.example")
    assert Unlucky.faults == {"127.0.0.2": []}


def test_a_name_for_localhost_that_no_interface_has(
    opened: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved(monkeypatch, (socket.AF_INET, (LOOPBACK, 0)), (socket.AF_INET, ("::1", 0)))
    unlucky(monkeypatch, **{"::1": [errno.EADDRNOTAVAIL] * 2})
    opened += bind_sockets(0, "localhost")
    assert [sock.getsockname()[0] for sock in opened] == [LOOPBACK]
    with pytest.raises(OSError, match=r"cannot bind ::1"):
        bind_sockets(0, "a.example")


def test_an_address_family_that_the_system_does_not_know(
    opened: list[socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    class OnlyIPv4(socket.socket):
        def __init__(self, family: int = -1, *others: Any, **more: Any) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, *others, **more)

    monkeypatch.setattr(socket, "socket", OnlyIPv4)
    resolved(monkeypatch, (socket.AF_INET, (LOOPBACK, 0)), (socket.AF_INET6, ("::1", 0, 0, 0)))
    opened += bind_sockets(0, "localhost")
    assert [sock.family for sock in opened] == [socket.AF_INET]
    resolved(monkeypatch, (socket.AF_INET6, ("::1", 0, 0, 0)))
    with pytest.raises(OSError, match=r"'a.example' has no address that this system can bind"):
        bind_sockets(0, "a.example")


def test_a_socket_that_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "socket", full)
    with pytest.raises(OSError, match="Too many open files"):
        bind_sockets(0, LOOPBACK)


def test_an_unknown_name() -> None:
    with pytest.raises(socket.gaierror):
        bind_sockets(0, "256.256.256.256", flags=socket.AI_NUMERICHOST)


@pytest.mark.skipif(not hasattr(socket, "SO_REUSEPORT"), reason="the platform has no SO_REUSEPORT")
def test_a_port_for_several(opened: list[socket.socket]) -> None:
    opened += bind_sockets(0, LOOPBACK, reuse_port=True)
    port = opened[0].getsockname()[1]
    opened += bind_sockets(port, LOOPBACK, reuse_port=True)
    assert [sock.getsockname()[1] for sock in opened] == [port, port]


def test_a_port_for_several_where_there_is_no_such_thing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "SO_REUSEPORT", raising=False)
    with pytest.raises(ValueError, match="SO_REUSEPORT"):
        bind_sockets(0, LOOPBACK, reuse_port=True)


def test_windows_shares_no_address(opened: list[socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:  # there SO_REUSEADDR lets anybody take over a port that is in use
        patched.setattr(os, "name", "nt")
        opened += bind_sockets(0, LOOPBACK)
    assert not opened[0].getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR)


class Recorded:
    """A socket that only notes what is asked of it."""

    made: list[Recorded] = []  # noqa: RUF012

    def __init__(self, family: int, kind: int, protocol: int) -> None:
        self.family = family
        self.options: set[tuple[int, int, int]] = set()
        self.made.append(self)

    def setsockopt(self, level: int, option: int, value: int) -> None:
        self.options.add((level, option, value))

    def setblocking(self, blocking: bool) -> None:
        assert not blocking

    def bind(self, address: tuple[Any, ...]) -> None:
        self.address = address

    def listen(self, backlog: int) -> None:
        assert self.address

    def getsockname(self) -> tuple[Any, ...]:
        return (self.address[0], self.address[1] or 4711, *self.address[2:])


def test_options_and_addresses_of_both_families(monkeypatch: pytest.MonkeyPatch) -> None:
    resolved(monkeypatch, (socket.AF_INET6, ("::1", 0, 1, 2)), (socket.AF_INET, (LOOPBACK, 0)))
    monkeypatch.setattr(socket, "socket", Recorded)
    monkeypatch.setattr(socket, "SO_REUSEPORT", 15, raising=False)
    monkeypatch.setattr(Recorded, "made", [])
    bind_sockets(0, "localhost", reuse_port=True)
    four, six = Recorded.made
    shared = {(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1), (socket.SOL_SOCKET, 15, 1)}
    assert four.options == shared
    assert six.options == shared | {(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)}
    assert (four.address, six.address) == ((LOOPBACK, 0), ("::1", 4711, 1, 2))


def test_backlog(opened: list[socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    backlogs: list[int] = []

    class Listening(socket.socket):
        def listen(self, backlog: int = 0) -> None:  # type: ignore[override]
            backlogs.append(backlog)

    monkeypatch.setattr(socket, "socket", Listening)
    opened += bind_sockets(0, LOOPBACK)
    opened += bind_sockets(0, LOOPBACK, backlog=7)
    assert backlogs == [128, 7]


# --- bind_unix_socket -------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "s"
    if len(os.fsencode(path)) > 100:
        pytest.skip("the temporary folder's name is too long for a unix socket")
    return path


def test_a_unix_socket(path: Path, opened: list[socket.socket]) -> None:
    opened.append(bind_unix_socket(path))
    assert not opened[0].getblocking()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    client = socket.socket(socket.AF_UNIX)
    opened.append(client)
    client.connect(str(path))


def test_mode_and_kinds_of_path(path: Path, opened: list[socket.socket]) -> None:
    opened.append(bind_unix_socket(str(path), mode=0o666, backlog=1))
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    opened.append(bind_unix_socket(os.fsencode(path)))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_socket_that_is_left_over_is_replaced(path: Path, opened: list[socket.socket]) -> None:
    bind_unix_socket(path).close()
    assert path.exists()
    opened.append(bind_unix_socket(path))
    assert path.is_socket()


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_nothing_else_is_replaced(path: Path, kind: str) -> None:
    if kind == "file":
        path.write_text("precious")
    else:
        path.mkdir()
    with pytest.raises(ValueError, match="exists and is not a socket"):
        bind_unix_socket(path)
    assert path.exists()


def test_a_unix_socket_that_cannot_be_bound(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"."):
        bind_unix_socket(tmp_path / "missing" / "s")


@pytest.mark.skipif(not os.path.exists("/proc/net/unix"), reason="abstract unix sockets are Linux's")
@pytest.mark.parametrize("kind", [str, bytes])
def test_an_abstract_socket(kind: type, opened: list[socket.socket], tmp_path: Path) -> None:
    text = f"\0bridge test {tmp_path.name} {os.getpid()}"
    opened.append(bind_unix_socket(text if kind is str else text.encode()))
    client = socket.socket(socket.AF_UNIX)
    opened.append(client)
    client.connect(text)
