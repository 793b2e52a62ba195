"""HAProxy and nginx from the system's packages, in front of servers; HAProxy is steered by its runtime socket."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

WHERE = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
START = 20.0  # seconds


class Missing(Exception):
    """A program of the system is not installed; the text is its name."""


def program(name: str) -> str:
    """Return the path of a program.

    Raises:
        Missing: it is not installed.
    """
    found = shutil.which(name, path=WHERE)
    if found is None:
        raise Missing(f"{name} is not installed")
    return found


@contextlib.contextmanager
def running(command: Sequence[str], log: Path, ready: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the end of the block; begin it when the socket *ready* takes connections.

    Raises:
        RuntimeError: it has ended, or does not listen.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL)
    try:
        end = time.monotonic() + START
        while ready is not None and not _listens(ready):
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{command[0]} does not serve:\n{log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.02)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


class Runtime:
    """HAProxy's runtime socket."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def ask(self, command: str) -> str:
        """Send one command; return what HAProxy says."""
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(str(self.path))
            sock.sendall(command.encode() + b"\n")
            said = b""
            while data := sock.recv(65536):
                said += data
        return said.decode().strip()

    def order(self, command: str) -> None:
        """Send a command that changes something.

        Raises:
            RuntimeError: HAProxy has refused it.
        """
        said = self.ask(command)
        if said and "no need to change" not in said and "changed from" not in said:
            raise RuntimeError(f"{command}: {said}")

    def states(self) -> dict[str, str]:
        """Return the state of each server, by name, such as UP, DOWN, DRAIN, MAINT."""
        names, *rows = self.ask("show stat -1 4 -1").lstrip("# ").splitlines()
        columns = names.split(",")
        return {
            (values := dict(zip(columns, row.split(","), strict=False)))["svname"]: values["status"].split()[0]
            for row in rows
            if row
        }


@contextlib.contextmanager
def haproxy(directory: Path, text: str, wrap: Sequence[str] = ()) -> Iterator[Runtime]:
    """Run HAProxy with the configuration *text*; it has to listen on *directory*/front.sock."""
    socket_line = f"global\n    stats socket {directory}/runtime.sock level admin\n"
    config = directory / "haproxy.cfg"
    config.write_text(socket_line + text)
    with running(
        [*wrap, program("haproxy"), "-db", "-f", str(config)], directory / "haproxy.log", directory / "front.sock"
    ):
        yield Runtime(directory / "runtime.sock")


@contextlib.contextmanager
def nginx(directory: Path, http: str) -> Iterator[None]:
    """Run nginx with *http* in its block of that name; it has to listen on *directory*/front.sock."""
    places = "\n".join(
        f"  {word}_temp_path {directory}/{word};" for word in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = directory / "nginx.conf"
    config.write_text(
        f"daemon off; pid {directory}/nginx.pid; error_log {directory}/error.log warn;\n"
        f"worker_processes 1; user {getpass.getuser()}; worker_rlimit_nofile 20000;\n"
        f"events {{ worker_connections 8192; }}\nhttp {{\n  access_log off;\n{places}\n{http}\n}}\n"
    )
    command = [program("nginx"), "-c", str(config), "-p", str(directory), "-e", str(directory / "start.log")]
    with running(command, directory / "nginx.log", directory / "front.sock"):
        yield
