from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.core import netutil
from bridge.core.netutil import add_accept_handler, bind_sockets, bind_unix_socket, is_valid_ip

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


# --- add_accept_handler -----------------------------------------------------------------------------------------------


class Clients:
    """Connects to a listening socket and notes what is accepted."""

    def __init__(self, opened: list[socket.socket]) -> None:
        self.opened = opened
        self.accepted: list[tuple[socket.socket, Any]] = []
        self.arrived = asyncio.Event()

    def take(self, connection: socket.socket, address: Any) -> None:
        self.opened.append(connection)
        self.accepted.append((connection, address))
        self.arrived.set()

    def connect(self, sock: socket.socket) -> socket.socket:
        self.opened.append(socket.create_connection(sock.getsockname(), timeout=10))
        return self.opened[-1]

    async def until(self, count: int) -> None:
        async with asyncio.timeout(20):
            while len(self.accepted) < count:
                self.arrived.clear()
                await self.arrived.wait()


def watched(sock: socket.socket) -> bool:
    """Tell whether the loop calls somebody when *sock* is readable; afterwards it does not."""
    return asyncio.get_running_loop().remove_reader(sock)


async def turns(number: int = 5) -> None:
    for _ in range(number):
        await asyncio.sleep(0)


async def test_connections_are_accepted(opened: list[socket.socket]) -> None:
    opened += bind_sockets(0, LOOPBACK)
    clients = Clients(opened)
    remove = add_accept_handler(opened[0], clients.take)
    client = clients.connect(opened[0])
    await clients.until(1)
    connection, address = clients.accepted[0]
    assert address == client.getsockname()
    assert not connection.getblocking()
    remove()


async def test_after_removal_nothing_is_accepted(opened: list[socket.socket]) -> None:
    opened += bind_sockets(0, LOOPBACK)
    clients = Clients(opened)
    remove = add_accept_handler(opened[0], clients.take)
    clients.connect(opened[0])
    remove()
    assert not watched(opened[0])
    add_accept_handler(opened[0], clients.take)
    remove()  # its own watching is over: not that of the other
    assert watched(opened[0])
    await turns()
    assert clients.accepted == []
    assert opened[0].fileno() != -1
    add_accept_handler(opened[0], clients.take)
    await clients.until(1)


async def test_the_callback_may_stop_the_server(opened: list[socket.socket]) -> None:
    opened += bind_sockets(0, LOOPBACK)
    listening = opened[0]
    clients = Clients(opened)

    def stop(connection: socket.socket, address: Any) -> None:
        clients.take(connection, address)
        remove()
        listening.close()

    remove = add_accept_handler(listening, stop)
    clients.connect(listening)
    clients.connect(listening)
    await clients.until(1)
    await turns()
    assert len(clients.accepted) == 1


def test_removal_after_the_loop_was_closed(opened: list[socket.socket]) -> None:
    opened += bind_sockets(0, LOOPBACK)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        remove = add_accept_handler(opened[0], lambda connection, address: None)
    finally:
        loop.close()
        asyncio.set_event_loop(None)
    remove()


class Faulty(socket.socket):
    """A listening socket whose accept does what *script* says, and then what it always does."""

    script: list[int]
    calls: int

    def accept(self) -> tuple[socket.socket, Any]:
        self.calls += 1
        if self.script:
            number = self.script.pop(0)
            raise OSError(number, os.strerror(number))
        return super().accept()


def faulty(opened: list[socket.socket], *script: int) -> Faulty:
    sock = Faulty(socket.AF_INET)
    opened.append(sock)
    sock.setblocking(False)
    sock.bind((LOOPBACK, 0))
    sock.listen(128)
    sock.script = list(script)
    sock.calls = 0
    return sock


@pytest.mark.parametrize("number", [errno.ECONNABORTED, errno.EINVAL, errno.EPROTO, errno.ECONNRESET])
async def test_a_peer_that_left_before_it_was_accepted(opened: list[socket.socket], number: int) -> None:
    sock = faulty(opened, number)
    clients = Clients(opened)
    remove = add_accept_handler(sock, clients.take)
    clients.connect(sock)
    await clients.until(1)
    remove()
    assert sock.script == []


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.EINTR])
async def test_nothing_to_accept_after_all(opened: list[socket.socket], number: int) -> None:
    sock = faulty(opened, number)
    clients = Clients(opened)
    remove = add_accept_handler(sock, clients.take)
    clients.connect(sock)
    await clients.until(1)
    remove()
    assert sock.script == []


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
async def test_no_room_for_a_connection_makes_a_pause(
    opened: list[socket.socket], number: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(netutil, "_ACCEPT_PAUSE", 0.02)
    sock = faulty(opened, number, number)
    clients = Clients(opened)
    remove = add_accept_handler(sock, clients.take)
    clients.connect(sock)
    await clients.until(1)
    remove()
    assert sock.calls <= 4, "accept was called again and again"
    records = [record for record in caplog.records if record.name == "bridge.general"]
    assert [record.levelno for record in records] == [logging.ERROR]  # once a minute
    assert "cannot accept connections, next try every 0.02 s" in records[0].getMessage()


async def test_no_room_is_logged_again_after_a_while(
    opened: list[socket.socket], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(netutil, "_ACCEPT_PAUSE", 0.02)
    monkeypatch.setattr(netutil, "_QUIET", 0.01)
    sock = faulty(opened, errno.EMFILE, errno.EMFILE)
    clients = Clients(opened)
    remove = add_accept_handler(sock, clients.take)
    clients.connect(sock)
    await clients.until(1)
    remove()
    assert caplog.text.count("cannot accept") == 2


async def test_during_the_pause_nothing_is_asked(opened: list[socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netutil, "_ACCEPT_PAUSE", 3600)
    sock = faulty(opened, errno.EMFILE, errno.EMFILE)
    clients = Clients(opened)
    remove = add_accept_handler(sock, clients.take)
    clients.connect(sock)
    async with asyncio.timeout(20):
        while not sock.calls:
            await asyncio.sleep(0)
    await turns(50)
    assert sock.calls == 1
    assert not watched(sock)
    remove()


async def test_removal_during_the_pause_is_final(opened: list[socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netutil, "_ACCEPT_PAUSE", 0.01)
    sock = faulty(opened, errno.EMFILE)
    clients = Clients(opened)
    remove = add_accept_handler(sock, clients.take)
    clients.connect(sock)
    async with asyncio.timeout(20):
        while not sock.calls:
            await asyncio.sleep(0)
    remove()
    over = asyncio.Event()
    asyncio.get_running_loop().call_later(0.03, over.set)
    await over.wait()
    assert sock.calls == 1
    assert not watched(sock)


async def test_removal_after_a_pause(opened: list[socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(netutil, "_ACCEPT_PAUSE", 0.01)
    sock = faulty(opened, errno.EMFILE)
    clients = Clients(opened)
    remove = add_accept_handler(sock, clients.take)
    clients.connect(sock)
    await clients.until(1)
    remove()
    assert not watched(sock)


async def test_another_fault_is_reported(opened: list[socket.socket]) -> None:
    sock = faulty(opened, errno.EPERM)
    clients = Clients(opened)
    reports: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: reports.append(context))
    remove = add_accept_handler(sock, clients.take)
    clients.connect(sock)
    await clients.until(1)
    remove()
    assert [type(report["exception"]) for report in reports] == [PermissionError]


async def test_a_flood_does_not_keep_the_loop(opened: list[socket.socket]) -> None:
    opened += bind_sockets(0, LOOPBACK)
    listening = opened[0]
    clients = Clients(opened)
    for _ in range(7):
        clients.connect(listening)
    remove = add_accept_handler(listening, clients.take, per_turn=3)
    counts = []
    while len(clients.accepted) < 7:
        before = len(clients.accepted)
        await asyncio.sleep(0)
        counts.append(len(clients.accepted) - before)
        assert len(counts) < 1000
    remove()
    assert [count for count in counts if count] == [3, 3, 1]


# --- is_valid_ip ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "ip",
    [
        "127.0.0.1",
        "0.0.0.0",
        "255.255.255.255",
        "::",
        "::1",
        "2001:db8::7",
        "::ffff:192.0.2.1",
        "ABCD:EF01:2345:6789:ABCD:EF01:2345:6789",
    ],
)
def test_an_address(ip: str) -> None:
    assert is_valid_ip(ip)


@pytest.mark.parametrize(
    "ip",
    [
        *("", " ", "\n", "\x00", "127.0.0.1\x00", " 127.0.0.1", "127.0.0.1 ", "127.0.0.1\n", "localhost", "4.4.4.4<"),
        *(
            "127.0.0",
            "127.1",
            "2130706433",
            "0x7f.0.0.1",
            "127.0.0.01",
            "256.0.0.1",
            "1.2.3.4.5",
            "1.2.3.4/8",
            "127.0.0.1:80",
        ),
        *(
            "[::1]",
            "::1%lo",
            "fe80::1%eth0",
            ":",
            ":::",
            "1::2::3",
            "g::",
            "::1/64",
            "a" * 100,
            "1" * 5000,
            "\u0661.0.0.1",
            "é",
        ),
    ],
)
def test_no_address(ip: str) -> None:
    assert not is_valid_ip(ip)
