"""A ``bridge run`` in a process of its own, its messages as they come, and a client that keeps its connection."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.support import ROOT as REPOSITORY

APPS = Path(__file__).resolve().parent / "apps"
# Longer than a graceful stop may take. Nothing takes so long on a machine that does nothing else.
PATIENCE = 60.0

#: `bridge` for servers with --user: that user may be able to read neither this repository nor the library of Python.
IMPORTED = """\
import sys, importlib, pkgutil, bridge
for found in pkgutil.walk_packages(bridge.__path__, "bridge."):
    if not found.name.startswith(("bridge.__main__", "bridge.pytest_plugin", "bridge.contrib.")):
        importlib.import_module(found.name)
import asyncio.sslproto, concurrent.futures.thread, encodings.idna, json, logging.config, logging.handlers, tempfile
import fcntl, tomllib, pwd, grp, random, uvloop, watchfiles, difflib, secrets
import platform, _strptime, encodings.ascii
if any(word.startswith("plain:") for word in sys.argv):
    import plain
sys.exit(bridge.cli.main(sys.argv[1:]))
"""


def surroundings() -> dict[str, str]:
    """Return this process's environment, without what it, or a server that has run in it, has set for a server."""
    return {
        name: value for name, value in os.environ.items() if not name.startswith("BRIDGE_") and name != "NOTIFY_SOCKET"
    }


class Running:
    """A server process; ends with the ``with`` block, and all of its children with it.

    Args:
        *argv: What follows ``bridge run``; the port is 0 unless it says where to listen.
        environ: Variables to add.
        command: What to run instead of ``bridge run``.
    """

    def __init__(
        self,
        *argv: str,
        environ: dict[str, str] | None = None,
        cwd: Path | None = None,
        pass_fds: tuple[int, ...] = (),
        command: list[str] | None = None,
    ) -> None:
        self.argv = command or self.command(*argv)
        self.process = subprocess.Popen(
            self.argv,
            cwd=cwd or APPS,
            env={**surroundings(), "PYTHONPATH": str(REPOSITORY), "PYTHONUNBUFFERED": "1", **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=pass_fds,
            start_new_session=True,
        )
        self.pid = self.process.pid
        self.messages = Lines(self.process.stderr)
        self.output = Lines(self.process.stdout)

    @staticmethod
    def command(*argv: str) -> list[str]:
        """Return the words of the command."""
        where = {"--port", "--bind", "-b", "--uds", "--fd", "--config"}
        port = [] if where & set(argv) else ["--port", "0"]
        return [sys.executable, "-m", "bridge", "run", *argv, *port]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None) -> None:
        for pid in session(self.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.kill()
        self.process.wait()
        self.messages.join()
        self.output.join()
        if exc is not None:
            print("--- messages of the server:", *self.messages.lines, sep="\n")

    def address(self) -> tuple[str, int]:
        """Wait until it serves; return the first address."""
        line = self.messages.wait(r"bridge: serving|served by bridge")
        match = re.search(r"https?://([0-9.]+):([0-9]+)", line)
        assert match is not None, line
        return match[1], int(match[2])

    def signal(self, name: str) -> None:
        """Send a signal to the first process."""
        os.kill(self.pid, getattr(signal, name))

    def end(self, name: str = "SIGTERM") -> int:
        """Send a signal, if any, and return the exit status."""
        if name:
            self.signal(name)
        status = self.process.wait(PATIENCE)
        self.messages.join()
        self.output.join()
        return status

    def end_of_first(self, name: str = "SIGTERM") -> int:
        """As :meth:`end`, where other processes go on and hold the streams."""
        self.signal(name)
        return self.process.wait(PATIENCE)

    def current(self) -> dict[int, int]:
        """Return the processes of the workers that serve now by their places, without those that only finish."""
        return {
            int(match[1]): int(match[2])
            for line in self.messages.lines
            if (match := re.search(r"Worker (\d+) \(pid (\d+)\) is ready", line))
        }

    def workers(self) -> set[int]:
        """Return the processes of the workers that are ready and have not ended."""
        return {pid for pid in session(self.pid) if pid != self.pid}


class Lines:
    """The lines of a stream, as they come."""

    def __init__(self, stream: object) -> None:
        self.lines: list[str] = []
        self._stream = stream
        self._changed = threading.Condition()
        self._ended = False
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._stream as stream:  # type: ignore[attr-defined]
            for line in stream:
                with self._changed:
                    self.lines.append(line.decode("utf-8", "replace").rstrip("\n"))
                    self._changed.notify_all()
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait(self, pattern: str, count: int = 1, timeout: float = PATIENCE) -> str:
        """Wait until *count* lines match; return the last of them."""
        end = time.monotonic() + timeout
        with self._changed:
            while len(found := [line for line in self.lines if re.search(pattern, line)]) < count:
                left = end - time.monotonic()
                if left <= 0 or self._ended:
                    raise AssertionError(f"{pattern!r}: {len(found)} of {count} lines in:\n" + "\n".join(self.lines))
                self._changed.wait(left)
        return found[count - 1]

    def join(self) -> None:
        """Wait for the end of the stream."""
        self._thread.join(PATIENCE)

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


class Client:
    """One connection."""

    def __init__(self, address: tuple[str, int] | str, timeout: float = PATIENCE) -> None:
        if isinstance(address, str):
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(timeout)
            try:
                self.sock.connect(address)
            except OSError:
                self.sock.close()
                raise
        else:
            self.sock = socket.create_connection(address, timeout)
        self._rest = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, path: str = "/", *lines: str) -> None:
        fields = "".join(f"{line}\r\n" for line in lines)
        self.sock.sendall(f"GET {path} HTTP/1.1\r\nHost: test.example\r\n{fields}\r\n".encode())

    def read(self) -> tuple[int, dict[str, str], bytes]:
        """Return status, fields and content of the next response."""
        while b"\r\n\r\n" not in self._rest:
            data = self.sock.recv(65536)
            if not data:
                raise ConnectionError("closed before a response head")
            self._rest += data
        head, _, rest = self._rest.partition(b"\r\n\r\n")
        first, *rows = head.decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (row.partition(":") for row in rows)}
        while len(rest) < int(fields.get("content-length", "0")):
            data = self.sock.recv(65536)
            if not data:
                raise ConnectionError("closed in content")
            rest += data
        length = int(fields.get("content-length", "0"))
        self._rest = rest[length:]
        return int(first.split()[1]), fields, rest[:length]

    def get(self, path: str = "/", *lines: str) -> tuple[int, dict[str, str], bytes]:
        self.send(path, *lines)
        return self.read()

    def closed(self) -> bool:
        """Wait for the peer; tell whether it has closed rather than sent something."""
        try:
            return self.sock.recv(1) == b""
        except ConnectionResetError:
            return True


def get(address: tuple[str, int] | str, path: str = "/", *lines: str) -> tuple[int, dict[str, str], bytes]:
    """Return the response to one request."""
    with Client(address) as client:
        return client.get(path, *lines)


def session(leader: int) -> Iterator[int]:
    """Yield the processes of the session of *leader*, without those that have ended."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                stat = (entry / "stat").read_text(encoding="latin-1").rpartition(")")[2].split()
                if stat[3] == str(leader) and stat[0] != "Z":
                    yield int(entry.name)


def gone(leader: int) -> bool:
    """Wait until no process of the session of *leader* is left: a process's files are closed before it has ended."""
    end = time.monotonic() + PATIENCE
    while left := list(session(leader)):
        if time.monotonic() > end:
            return not left
        time.sleep(0.01)
    return True
