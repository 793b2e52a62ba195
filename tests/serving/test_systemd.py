"""A unit with socket activation and watchdog; this test plays systemd's side."""

from __future__ import annotations

import os
import socket
import sys
import time
from pathlib import Path

import pytest

from tests.support.running import PATIENCE, Client, Running, get

pytestmark = pytest.mark.slow


class Systemd:
    """Listens for notifications, and starts services as sd_listen_fds(3) says."""

    def __init__(self, directory: Path) -> None:
        self.path = str(directory / "notify")
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(self.path)
        self.sock.settimeout(15)

    def wait(self, name: str) -> dict[str, str]:
        """Return the next notification with *name* in it."""
        while True:
            values = dict(line.split("=", 1) for line in self.sock.recv(4096).decode().splitlines())
            if name in values:
                return values

    def service(self, *argv: str, sockets: tuple[socket.socket, ...] = (), **environ: str) -> Running:
        """Start a service; its sockets are 3, 4 ... in it, and it knows that they are meant for it."""
        script = (
            "import fcntl, os, sys\n"
            "numbers = [int(word) for word in sys.argv[1].split(',') if word]\n"
            "kept = [fcntl.fcntl(number, fcntl.F_DUPFD, 20) for number in numbers]\n"
            "for index, number in enumerate(kept): os.dup2(number, 3 + index), os.set_inheritable(3 + index, True)\n"
            "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(kept)))\n"
            "if 'WATCHDOG_USEC' in os.environ: os.environ['WATCHDOG_PID'] = str(os.getpid())\n"
            "os.execv(sys.executable, [sys.executable, '-m', 'bridge', 'run', *sys.argv[2:]])\n"
        )
        numbers = [sock.fileno() for sock in sockets]
        command = [sys.executable, "-c", script, ",".join(map(str, numbers)), *argv]
        return Running(command=command, pass_fds=tuple(numbers), environ={"NOTIFY_SOCKET": self.path, **environ})


@pytest.fixture
def systemd(tmp_path: Path) -> Systemd:
    found = Systemd(tmp_path)
    yield found  # type: ignore[misc]
    found.sock.close()


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]], ids=["alone", "workers"])
def test_socket_activation_and_notifications(systemd: Systemd, workers: list[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address = sock.getsockname()
        with Client(address) as early:  # before there is a service
            early.send()
            argv = ["plain:asgi", "--bind", "systemd", *workers]
            with systemd.service(*argv, sockets=(sock,), WATCHDOG_USEC="400000") as server:
                assert early.read()[0] == 200
                assert systemd.wait("READY")["MAINPID"] == str(server.pid)
                beats = [systemd.wait("WATCHDOG") for _ in range(3)]
                assert len(beats) == 3
                if workers:
                    server.signal("SIGHUP")
                    assert int(systemd.wait("RELOADING")["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
                    systemd.wait("READY")
                    server.messages.wait("Reloaded")
                server.signal("SIGTERM")
                systemd.wait("STOPPING")
                assert server.end("") == 0
            with Client(address) as waiting:  # the socket is still there: nobody is refused between two services
                waiting.send()
                with systemd.service(*argv, sockets=(sock,)) as server:
                    assert waiting.read()[0] == 200


def test_named_sockets(systemd: Systemd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        argv = ["plain:asgi", "--bind", "systemd:web"]
        with systemd.service(*argv, sockets=(one, two), LISTEN_FDNAMES="admin:web") as server:
            systemd.wait("READY")
            assert server.address() == two.getsockname()
        with systemd.service("plain:asgi", "--bind", "systemd:none", sockets=(one,), LISTEN_FDNAMES="web") as server:
            assert server.end("") == 1
            assert server.messages.lines == [
                "bridge: cannot listen on systemd:none: systemd has not passed a socket named 'none'"
            ]


@pytest.mark.parametrize("workers", [[], ["--workers", "1"]], ids=["alone", "workers"])
def test_the_watchdog_is_not_fed_by_a_loop_that_stands_still(systemd: Systemd, workers: list[str]) -> None:
    argv = ["plain:asgi", "--port", "0", "--timeout-worker", "0.6", *workers]
    with systemd.service(*argv, WATCHDOG_USEC="400000") as server:
        systemd.wait("READY")
        with Client(server.address()) as client:
            systemd.wait("WATCHDOG")
            client.send("/block/2")
            if workers:
                server.messages.wait("has stood still")  # the master replaces it, and goes on
                server.messages.wait("is ready", 2)
                systemd.wait("WATCHDOG")
            else:
                server.messages.wait("stand_still")
                systemd.sock.settimeout(0.9)  # of the second that is left; a beat may have been sent before
                with pytest.raises(TimeoutError):
                    for _ in range(4):
                        systemd.wait("WATCHDOG")


def test_the_new_master_is_announced(systemd: Systemd) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        with systemd.service("plain:asgi", "--bind", "systemd", "--workers", "1", sockets=(sock,)) as server:
            systemd.wait("READY")
            server.signal("SIGUSR2")
            new = int(systemd.wait("READY")["MAINPID"])
            assert new != server.pid
            assert server.process.wait(PATIENCE) == 0
            assert get(sock.getsockname())[0] == 200
            os.kill(new, 15)
            systemd.wait("STOPPING")
