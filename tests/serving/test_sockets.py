"""What is listened on: files of unix sockets, inherited descriptors, too many open files."""

from __future__ import annotations

import errno
import os
import re
import resource
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bridge.config import Config
from bridge.config.kinds import Address, FileDescriptor, TCPAddress, UnixAddress
from bridge.errors import BindError
from bridge.serving import sockets as sockets_module
from bridge.serving.sockets import Listener, bind, bind_admin, bind_all
from tests.support.running import Client, Running, get

slow = pytest.mark.slow


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "a.sock")


@pytest.fixture
def taken(path: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        yield sock


def listen_at(path: str, **settings: object) -> None:
    bind(UnixAddress(path), Config(**settings)).close()  # type: ignore[arg-type]


def test_a_file_that_nobody_listens_on_is_replaced(path: str, taken: socket.socket) -> None:
    before = os.stat(path).st_ino
    listener = bind(UnixAddress(path), Config(uds_permissions=0o620))
    assert os.stat(path).st_ino != before
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o620
    listener.close()
    assert not os.path.exists(path)


def test_a_file_that_somebody_listens_on_is_left_alone(path: str, taken: socket.socket) -> None:
    taken.listen()
    with pytest.raises(BindError, match="Address already in use"):
        listen_at(path)
    assert os.path.exists(path)


def test_somebody_busy_is_still_somebody(path: str, taken: socket.socket) -> None:
    taken.listen(0)
    with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
        for client in (first, second):
            client.setblocking(False)
            client.connect_ex(path)
        with socket.socket(socket.AF_UNIX) as third:
            third.setblocking(False)
            assert third.connect_ex(path) == errno.EAGAIN  # the queue is full
        with pytest.raises(BindError, match="Address already in use"):
            listen_at(path)
    assert os.path.exists(path)


def test_a_datagram_socket_is_somebody_else_s(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(path)
        with pytest.raises(BindError, match="Address already in use"):
            listen_at(path)


def test_a_file_that_is_no_socket_is_left_alone(path: str) -> None:
    Path(path).write_text("precious")
    with pytest.raises(BindError, match="exists and is not a socket"):
        listen_at(path)
    assert Path(path).read_text() == "precious"


def test_a_file_that_was_replaced_by_somebody_is_not_removed(path: str) -> None:
    listener = bind(UnixAddress(path), Config())
    os.unlink(path)
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        listener.close()
        assert os.path.exists(path)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
def test_mode_and_owner(path: str) -> None:
    listener = bind(UnixAddress(path), Config(uds_owner="nobody:daemon", uds_permissions=0o640))
    status = os.stat(path)
    listener.close()
    import grp
    import pwd

    assert (status.st_uid, status.st_gid) == (pwd.getpwnam("nobody").pw_uid, grp.getgrnam("daemon").gr_gid)
    assert stat.S_IMODE(status.st_mode) == 0o640


@pytest.mark.parametrize(
    ("name", "message"),
    [("none/a.sock", "No such file or directory"), ("x" * 120, "AF_UNIX path too long")],
)
def test_a_path_that_cannot_be(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(BindError, match=message):
        listen_at(str(tmp_path / name))


@pytest.mark.parametrize(
    ("address", "code", "hint"),
    [
        (TCPAddress("127.0.0.1", 80), errno.EADDRINUSE, "; stop what listens there, or choose another address"),
        (TCPAddress("127.0.0.1", 8000), errno.EADDRINUSE, "; stop what listens there, or choose another address"),
        (TCPAddress("127.0.0.1", 80), errno.EACCES, "; ports below 1024 need a privilege"),
        (TCPAddress("127.0.0.1", 1023), errno.EACCES, "; ports below 1024 need a privilege"),
        (TCPAddress("127.0.0.1", 1024), errno.EACCES, ""),
        (TCPAddress("192.0.2.1", 80), errno.EADDRNOTAVAIL, ""),
        (UnixAddress("/run/a.sock"), errno.EACCES, ""),
        (UnixAddress("/run/a.sock"), errno.EADDRINUSE, "; stop what listens there, or choose another address"),
    ],
    ids=str,
)
def test_hints_for_those_whom_they_help(
    address: Address, code: int, hint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> list[socket.socket]:
        raise OSError(code, "in the system's words")

    monkeypatch.setattr(sockets_module, "bind_sockets", refuse)
    monkeypatch.setattr(sockets_module, "bind_unix", refuse)
    with pytest.raises(BindError) as caught:
        bind(address, Config())
    assert str(caught.value) == f"cannot listen on {address}: {os.strerror(code)}{hint}"


def test_no_host_is_every_interface() -> None:
    listener = bind(TCPAddress("", 0), Config())
    try:
        ports = {sock.getsockname()[1] for sock in listener.sockets}
        assert len(ports) == 1
        assert {sock.getsockname()[0] for sock in listener.sockets} <= {"0.0.0.0", "::"}
    finally:
        listener.close()


def test_an_inherited_socket_is_not_handed_on() -> None:
    """To what the application starts; and it does not make the loop wait."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        number = os.dup(sock.fileno())
        os.set_inheritable(number, True)
        listener = bind(FileDescriptor(number), Config())
        (inherited,) = listener.sockets
        assert not inherited.get_inheritable()
        assert not inherited.getblocking()
        assert inherited.getsockname() == sock.getsockname()
        listener.close()


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
def test_an_inherited_descriptor_that_does_not_listen_is_left_open(kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_UNIX, kind) as sock:
        with pytest.raises(BindError, match=rf"^cannot listen on fd://{sock.fileno()}: descriptor \d+ is not a listen"):
            bind(FileDescriptor(sock.fileno()), Config())
        os.fstat(sock.fileno())


def test_all_are_bound_or_none(path: str, tmp_path: Path) -> None:
    held = Listener(UnixAddress(str(tmp_path / "held.sock")), [])
    bad = UnixAddress(str(tmp_path / "none" / "b.sock"))
    good = UnixAddress(path)
    with pytest.raises(BindError):
        bind_all(Config(bind=(good, held.address, bad)), keep=[held])
    assert not os.path.exists(path)
    first, second = bind_all(Config(bind=(good, held.address)), keep=[held])
    assert second is held
    first.close()


def test_addresses_with_one_text_are_told_apart() -> None:
    free = TCPAddress("127.0.0.1", 0)
    config = Config(bind=(free, free), admin_bind=(free,))
    listeners = [*bind_all(config), *bind_admin(config)]
    assert [listener.name for listener in listeners] == ["127.0.0.1:0", "127.0.0.1:0 (2)", "admin 127.0.0.1:0"]
    assert bind_all(config, keep=listeners) == listeners[:2]
    assert bind_admin(config, keep=listeners) == listeners[2:]
    handed = {listener.name: [os.dup(sock.fileno()) for sock in listener.sockets] for listener in listeners}
    inherited = [*bind_all(config, handed), *bind_admin(config, handed)]
    for ours, theirs in zip(listeners, inherited, strict=True):
        assert ours.sockets[0].getsockname() == theirs.sockets[0].getsockname()
        ours.close()
        theirs.close()


@slow
@pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["alone", "workers"])
def test_an_inherited_socket_is_shared(workers: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        argv = ["plain:asgi", "--bind", f"fd://{sock.fileno()}", *workers]
        with Running(*argv, pass_fds=(sock.fileno(),)) as server:
            server.address()
            assert get(sock.getsockname())[0] == 200
            assert server.end() == 0
        with Client(sock.getsockname()) as waiting:  # it is still open here: nobody is refused
            waiting.send()
            with Running(*argv, pass_fds=(sock.fileno(),)) as server:
                assert waiting.read()[0] == 200


@slow
def test_ports_for_several() -> None:
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        argv = ["plain:asgi", "--port", str(port), "--reuse-port"]
        with Running(*argv) as first, Running(*argv) as second:
            first.address()
            second.address()
            seen: set[bytes] = set()
            for _ in range(200):
                seen.add(get(("127.0.0.1", port))[2])
                if len(seen) == 2:
                    break
            assert seen == {str(first.pid).encode(), str(second.pid).encode()}


@slow
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_too_many_open_files(loop: str) -> None:
    pytest.importorskip(loop)
    limit = (
        "import resource, sys, runpy\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))\n"
        "sys.argv = ['bridge', *sys.argv[1:]]\n"
        "runpy.run_module('bridge', run_name='__main__')\n"
    )
    words = ["run", "plain:asgi", "--port", "0", "--loop", loop]
    with Running(command=[sys.executable, "-c", limit, *words]) as server:
        address = server.address()
        clients = [Client(address) for _ in range(60)]
        for client in clients[:10]:
            assert client.get()[0] == 200  # those that have been accepted are served
        server.messages.wait("cannot accept connections, next try every 1 s: .*Too many open files")
        for client in clients:
            client.sock.close()
        assert get(address)[0] == 200
        assert server.messages.text.count("cannot accept") == 1
        assert server.end() == 0
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 60


@slow
def test_nothing_is_left_open_for_programs_that_the_application_starts(tmp_path: Path) -> None:
    (tmp_path / "starts.py").write_text(
        "import subprocess\n"
        "def app(environ, start_response):\n"
        "    text = subprocess.run(['ls', '-l', '/proc/self/fd'], capture_output=True, close_fds=False).stdout\n"
        "    start_response('200 OK', [('Content-Length', str(len(text)))])\n"
        "    return [text]\n"
    )
    for workers in ([], ["--workers", "1"]):
        with Running("starts:app", "--app-dir", str(tmp_path), *workers) as server:
            listing = get(server.address())[2].decode()
            assert re.findall(r" (\d+) -> socket", listing) == []
            assert server.end() == 0
    assert subprocess.run(["true"], check=True).returncode == 0
