"""Speaks to a server's control socket, and finds it."""

from __future__ import annotations

import contextlib
import errno
import glob
import http.client
import json
import os
import re
import select
import socket
import struct
import sys
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from bridge.files import Place
from bridge.telemetry.processes import runs

__all__ = ["Client", "NotReached", "find"]


# Seconds after which a user hears that there is no answer yet: more than a dump may take.
_SLOW = 5.0


class NotReached(Exception):
    """No server could be asked.

    Args:
        text: Why, in one line.
        running: A server may be running nevertheless.
    """

    def __init__(self, text: str, *, running: bool = True) -> None:
        super().__init__(text)
        self.running = running


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost")
        self._path = path
        self._limit = timeout

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self._limit)
        try:
            self.sock.connect(self._path)
        except BaseException:
            self.sock.close()
            raise


class Client:
    """Asks one server.

    Args:
        path: Its control socket.
    """

    def __init__(self, path: str) -> None:
        self.path = path

    def ask(
        self, method: str, path: str, query: Mapping[str, str] | None = None, *, timeout: float | None = 30.0
    ) -> tuple[int, Any]:
        """Return the status, and the content as json.

        Args:
            method: GET or POST.
            path: What is asked for.
            query: The parameters.
            timeout: Seconds until the answer must begin; None for as long as it takes.

        Raises:
            NotReached: Nobody answers.
        """
        connection = _Connection(self.path, timeout)
        try:
            connection.request(method, f"{path}?{urlencode(query)}" if query else path)
            if timeout is not None and timeout > _SLOW and "wait" not in (query or {}):
                self._note_silence(connection.sock)
            response = connection.getresponse()
            content = response.read()
        except (OSError, http.client.HTTPException) as exc:
            raise self._reason(exc) from exc
        finally:
            connection.close()
        try:
            return response.status, json.loads(content)
        except ValueError:
            raise NotReached(f"{self.path}: a program that is not bridge answers") from None

    def _note_silence(self, sock: socket.socket) -> None:
        """Say that there is no answer so far, and what the server does as far as the system knows."""
        if not select.select([sock], [], [], _SLOW)[0]:
            print(f"{self.path}: no answer for {_SLOW:g} s: {_activity(sock)}", file=sys.stderr, flush=True)

    def _reason(self, exc: Exception) -> NotReached:
        number = getattr(exc, "errno", None)
        if number in {errno.ENOENT, errno.ECONNREFUSED}:
            if number == errno.ECONNREFUSED:
                _remove_left(self.path)
            return NotReached(f"{self.path}: the server is not running", running=False)
        if number in {errno.EACCES, errno.EPERM}:
            owner = _owner(self.path)
            return NotReached(f"{self.path}: owned by {owner}; ask as that user: sudo -u {owner} bridge ...")
        if isinstance(exc, TimeoutError):
            return NotReached(f"{self.path}: no answer in time")
        return NotReached(f"{self.path}: {getattr(exc, 'strerror', None) or exc or type(exc).__name__}")


def _activity(sock: socket.socket) -> str:
    """Return what the process at the other end of a Unix socket does."""
    process, state = "the server", ""
    if hasattr(socket, "SO_PEERCRED"):
        pid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            state = file.read().rpartition(")")[2].split()[0]
            process = f"process {pid}"
    if state in {"T", "t"}:
        return f"{process} is stopped; kill -CONT continues it"
    return f"{process} is busy, or its event loop is blocked; its log says where, see --timeout-worker"


def _remove_left(path: str) -> None:
    """Remove the socket of a server that is gone, if its name has that server's number.

    A socket of another name may be that of a server that starts just now: it is bound, and nobody listens so far. The
    next server replaces such a one.
    """
    number = _NUMBERED.fullmatch(os.path.basename(path))
    if number is not None and not runs(int(number[1])):
        with contextlib.suppress(OSError), Place.of(path) as place:
            place.unlink()


_NUMBERED = re.compile(r"bridge-([0-9]+)\.ctl")


def _owner(path: str) -> str:
    import pwd

    try:
        user = os.stat(path).st_uid
    except OSError:
        try:
            user = os.stat(os.path.dirname(path) or ".").st_uid
        except OSError:
            return "another user"
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"#{user}"


def find(socket_path: str | None, pid_file: str | None, environ: Mapping[str, str]) -> str:
    """Return the control socket of the server that the user means.

    Args:
        socket_path: The control socket, if the user has named it.
        pid_file: The server's pid file, if the user has named that.
        environ: The environment: BRIDGE_CONTROL_SOCKET names a socket, too.

    Raises:
        NotReached: There is none, or there are several and none was named.
    """
    named = socket_path or environ.get("BRIDGE_CONTROL_SOCKET", "")
    if named and named != "auto":
        return named
    found = _candidates(environ)
    if pid_file is not None:
        try:
            with open(pid_file, encoding="ascii", errors="replace") as file:
                number = file.read().strip()
        except OSError as exc:
            raise NotReached(f"--pid {pid_file}: {exc.strerror}", running=False) from exc
        for path in found:
            if path.endswith(f"bridge-{number}.ctl"):
                return path
        for path in found:
            with contextlib.suppress(NotReached):
                if str(Client(path).ask("GET", "/status", timeout=3.0)[1].get("pid")) == number:
                    return path
        raise NotReached(f"--pid {pid_file}: process {number} has no control socket that can be found; name --socket")
    if not found:
        raise NotReached(
            "no server with a control socket was found; name it with --socket PATH, or start the server with "
            "--control-socket PATH",
            running=False,
        )
    if len(found) > 1:
        raise NotReached(f"there are several servers, name one with --socket: {' '.join(found)}")
    return found[0]


def _candidates(environ: Mapping[str, str]) -> list[str]:
    """Return the control sockets in the usual places, without those that nobody listens on any more."""
    patterns = []
    if environ.get("RUNTIME_DIRECTORY"):
        patterns.append(os.path.join(environ["RUNTIME_DIRECTORY"].partition(":")[0], "bridge.ctl"))
    if environ.get("XDG_RUNTIME_DIR"):
        patterns.append(os.path.join(glob.escape(environ["XDG_RUNTIME_DIR"]), "bridge-*.ctl"))
    patterns.append("/run/*/bridge.ctl")
    found = []
    for path in dict.fromkeys(path for pattern in patterns for path in sorted(glob.glob(pattern))):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(3.0)
            try:
                probe.connect(path)
            except ConnectionRefusedError:
                _remove_left(path)
                continue
            except OSError:
                pass  # another user's: the error names it when it is asked
        found.append(path)
    return found
