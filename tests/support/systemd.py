"""Plays systemd's side of a service with a socket, as its unit files say.

``python -m tests.support.systemd examples/systemd/mysite.service --root DIRECTORY`` starts what ``ExecStart`` names,
with every absolute path of the units below the directory, and prints what happens; a line on its input is a command:
``reload``, ``stop``. Known are the settings that the shipped units use, and an unknown one is an error. Read for it:
systemd.service(5), systemd.socket(5), systemd.exec(5), systemd.kill(5), sd_listen_fds(3), sd_notify(3).
"""

from __future__ import annotations

import argparse
import os
import pwd
import re
import shlex
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["Service", "read_unit"]

Unit = dict[str, dict[str, list[str]]]

# What has no effect without systemd itself: the order of units, sandboxes, installation.
_IGNORED = {
    "Unit": {"Description", "Requires", "After", "Wants"},
    "Service": {"NoNewPrivileges", "PrivateTmp", "ProtectSystem"},
    "Socket": set[str](),
    "Install": {"WantedBy"},
}
_KNOWN = {
    "Service": {"Type", "NotifyAccess", "User", "WorkingDirectory", "ExecStart", "ExecReload", "KillMode"}
    | {"TimeoutStopSec", "WatchdogSec", "Restart"},
    "Socket": {"ListenStream", "SocketUser", "SocketMode"},
}
_EXEC = """\
import fcntl, os, sys
count, user, words = int(sys.argv[1]), sys.argv[2], sys.argv[3:]
kept = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 50) for number in words[:count]]
for index, number in enumerate(kept):
    os.dup2(number, 3 + index)
    os.set_inheritable(3 + index, True)
    os.close(number)
if user:
    uid, gid = map(int, user.split(":"))
    os.setgroups([]), os.setgid(gid), os.setuid(uid)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(count))
if "WATCHDOG_USEC" in os.environ:
    os.environ["WATCHDOG_PID"] = str(os.getpid())
os.execv(words[count], words[count:])
"""


def read_unit(path: Path) -> Unit:
    """Return the settings of a unit file by section and name.

    Raises:
        ValueError: A line is none, or a setting is not one that is played here.
    """
    unit: Unit = {}
    section = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line[0] in "#;":
            continue
        if match := re.fullmatch(r"\[(\w+)\]", line):
            section = match[1]
            continue
        name, equals, value = line.partition("=")
        if not equals or not (name in _IGNORED.get(section, ()) or name in _KNOWN.get(section, ())):
            raise ValueError(f"{path}: [{section}] {line!r} is not known here")
        unit.setdefault(section, {}).setdefault(name, []).append(value)
    return unit


class Service:
    """A service with its socket.

    Args:
        path: The service's file; the socket's is beside it.
        root: The directory that stands for ``/`` in the units.
        note: Called with every event in words.
        environ: Variables for the service beside those of systemd.
        output: Where its messages go. It is kept for the next start, and may be closed by who has given it.

    Attributes:
        pid: The main process; changes with ``MAINPID``.
        status: What ``STATUS`` said last.
        beats: How often the watchdog was fed.
        starts: How often it was started.
    """

    def __init__(
        self,
        path: Path,
        root: Path,
        note: Callable[[str], None],
        environ: dict[str, str] | None = None,
        output: int | None = None,
    ) -> None:
        self._root = root
        self._note = note
        self._environ = environ or {}
        self._output = None if output is None else os.dup(output)
        self._unit = read_unit(path)["Service"]
        assert self._one("Type") == "notify"
        assert self._one("KillMode") == "mixed"
        self.sockets = [self._listen(value, read_unit(path.with_suffix(".socket"))["Socket"])
                        for value in read_unit(path.with_suffix(".socket"))["Socket"]["ListenStream"]]  # fmt: skip
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._notify.bind(str(root / "notify"))
        os.chmod(root / "notify", 0o777)
        self._changed = threading.Condition()
        self.pid = self.beats = self.starts = 0
        self.status = ""
        self.ready = self.reloading = self._stopping = self._stopped = False
        self._fed = 0.0
        self._threads = [
            threading.Thread(target=work, daemon=True) for work in (self._listen_to_it, self._look_after_it)
        ]
        self._start()
        for thread in self._threads:
            thread.start()

    # ------------------------------------------------------------------ the unit

    def _one(self, name: str, default: str = "") -> str:
        return self._unit.get(name, [default])[-1]

    def _place(self, path: str) -> str:
        return f"{self._root}{path}" if path.startswith("/") else path

    def _listen(self, value: str, unit: dict[str, list[str]]) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.bind(self._place(value))
        os.chmod(self._place(value), int(unit.get("SocketMode", ["0666"])[-1], 8))
        if owner := _user(unit.get("SocketUser", [""])[-1]):
            os.chown(self._place(value), owner.pw_uid, -1)
        sock.listen(4096)
        return sock

    # ------------------------------------------------------------------ its life

    def _start(self) -> None:
        words = [self._place(word) for word in shlex.split(self._one("ExecStart"))]
        owner = _user(self._one("User"))
        environ = {**self._environ, "NOTIFY_SOCKET": str(self._root / "notify")}
        if seconds := self._one("WatchdogSec"):
            environ["WATCHDOG_USEC"] = str(int(float(seconds) * 1e6))
        numbers = [str(sock.fileno()) for sock in self.sockets]
        who = f"{owner.pw_uid}:{owner.pw_gid}" if owner is not None else ""
        self._fed = float("inf")  # the watchdog looks from READY on
        self.ready = False
        self.starts += 1
        self.process = subprocess.Popen(
            [sys.executable, "-c", _EXEC, str(len(numbers)), who, *numbers, *words],
            cwd=self._place(self._one("WorkingDirectory")), env=environ, stdin=subprocess.DEVNULL,
            pass_fds=[sock.fileno() for sock in self.sockets], stdout=self._output, stderr=self._output,
            start_new_session=True,
        )  # fmt: skip
        self.pid = self.process.pid
        self._note(f"started {self.pid}")

    def _listen_to_it(self) -> None:
        while True:
            data, extra, _, _ = self._notify.recvmsg(4096, 64)
            if data == b"end":
                return
            sender = struct.unpack("3i", extra[0][2])[0]
            access = self._one("NotifyAccess", "main")
            if access != "all" and not (access == "main" and sender == self.pid):
                self._note(f"not listened to: {sender}")
                continue
            with self._changed:
                for name, value in (line.split("=", 1) for line in data.decode().splitlines()):
                    self._told(name, value)
                self._changed.notify_all()

    def _told(self, name: str, value: str) -> None:
        if name == "WATCHDOG":
            self.beats += 1
            self._fed = time.monotonic()
            return
        self._note(f"{name}={value}")
        if name == "READY":
            self.ready, self.reloading = True, False
            self._fed = time.monotonic()
        elif name == "RELOADING":
            self.reloading = True
        elif name == "MAINPID":
            self.pid = int(value)
        elif name == "STATUS":
            self.status = value

    def _look_after_it(self) -> None:
        limit = float(self._one("WatchdogSec") or "inf")
        while not self._stopping:
            if self.process.poll() is not None and not Path(f"/proc/{self.pid}").exists():
                self._note(f"ended with {self.process.returncode}")
                if self.process.returncode and self._one("Restart") == "on-failure" and not self._stopping:
                    self._kill_all()
                    self._start()
                else:
                    return
            elif time.monotonic() - self._fed > limit:
                self._note("the watchdog was not fed")
                os.kill(self.pid, signal.SIGABRT)
                os.kill(self.pid, signal.SIGCONT)
                self._fed = time.monotonic()  # the next limit is for its end
            time.sleep(0.02)

    def wait(self, condition: Callable[[], bool], timeout: float = 30.0) -> None:
        """Wait for the service to say something that makes *condition* true."""
        with self._changed:
            if not self._changed.wait_for(condition, timeout):
                raise TimeoutError(f"status {self.status!r}, ready {self.ready}")

    def reload(self) -> None:
        """Run ``ExecReload``, and wait until the service says that it is done."""
        self.wait(lambda: self.ready)
        self.ready = False
        words = [word.replace("$MAINPID", str(self.pid)) for word in shlex.split(self._one("ExecReload"))]
        subprocess.run(words, check=True)
        self.wait(lambda: self.ready)

    def stop(self) -> int:
        """End the service as ``KillMode=mixed`` says; return the exit status."""
        self._stopping = True
        self._threads[1].join()
        if self.process.poll() is None:
            os.kill(self.pid, signal.SIGTERM)
        elif self.pid != self.process.pid:
            os.kill(self.pid, signal.SIGTERM)  # one that has taken over, and is somebody else's child
        end = time.monotonic() + float(self._one("TimeoutStopSec", "90"))
        while Path(f"/proc/{self.pid}").exists() and not _is_zombie(self.pid) and time.monotonic() < end:
            time.sleep(0.01)
        self._kill_all()
        status = self.process.wait()
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"end", str(self._root / "notify"))
        self._threads[0].join()
        self._notify.close()
        if self._output is not None:
            os.close(self._output)
        for sock in self.sockets:
            sock.close()
        self._note(f"stopped with {status}")
        return status

    def _kill_all(self) -> None:
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    fields = (entry / "stat").read_text(encoding="latin-1").rpartition(")")[2].split()
                    if fields[3] == str(self.process.pid) and fields[0] != "Z":
                        self._note(f"killed {entry.name}")
                        os.kill(int(entry.name), signal.SIGKILL)
                except OSError:
                    continue
        self.process.wait()


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="latin-1").rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def _user(name: str) -> pwd.struct_passwd | None:
    """Return a user, if there is one of that name and this process may become it."""
    try:
        return pwd.getpwnam(name) if name and os.getuid() == 0 else None
    except KeyError:
        return None


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("unit", type=Path)
    parser.add_argument("--root", type=Path, required=True)
    args = parser.parse_args()
    service = Service(args.unit, args.root, lambda text: print(text, flush=True), dict(os.environ))
    for line in sys.stdin:
        if line.strip() == "reload":
            service.reload()
        elif line.strip() == "stop":
            break
    sys.exit(service.stop())


if __name__ == "__main__":
    main()
