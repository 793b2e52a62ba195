"""What systemd offers a service: sockets, readiness and the watchdog (sd_listen_fds(3), sd_notify(3))."""

from __future__ import annotations

import os
import socket
import time

from bridge.errors import BindError

__all__ = ["Notifier", "passed_sockets"]

_FIRST = 3  # SD_LISTEN_FDS_START


def passed_sockets(name: str = "") -> list[int]:
    """Return the descriptors that systemd has passed to this process.

    Args:
        name: Return only the descriptors with this ``FileDescriptorName``; empty for all.

    Raises:
        BindError: There are no such descriptors.
    """
    environ = os.environ
    count = 0
    if environ.get("LISTEN_PID") == str(os.getpid()) and environ.get("LISTEN_FDS", "").isdecimal():
        count = int(environ["LISTEN_FDS"])
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    found = [_FIRST + index for index in range(count) if not name or names[index : index + 1] == [name]]
    if not found:
        what = f"a socket named {name!r}" if name and count else "sockets (LISTEN_FDS, LISTEN_PID)"
        raise BindError(f"cannot listen on systemd{':' if name else ''}{name}: systemd has not passed {what}")
    return found


class Notifier:
    """Tells systemd the state of the service. Without ``NOTIFY_SOCKET`` in the environment it does nothing.

    Attributes:
        path: The address of systemd's socket; empty without one.
        watchdog: Seconds between signs of life; None if systemd expects none.
    """

    def __init__(self) -> None:
        path = os.environ.pop("NOTIFY_SOCKET", "")  # the application's own children must not get it
        self.path = path
        self._address = "\0" + path[1:] if path.startswith("@") else path
        self.watchdog: float | None = None
        usec, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
        if path and usec.isdecimal() and int(usec) and pid in {"", str(os.getpid())}:
            self.watchdog = int(usec) / 1e6 / 2

    def notify(self, **values: object) -> None:
        """Send ``NAME=value`` lines. If nothing listens, ignore that and send no more."""
        if not self._address:
            return
        text = "\n".join(f"{name}={value}" for name, value in values.items())
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
                sock.connect(self._address)
                sock.send(text.encode())
        except OSError:
            self._address = ""

    def ready(self, status: str) -> None:
        """Report that the service serves."""
        self.notify(READY=1, MAINPID=os.getpid(), STATUS=status)

    def reloading(self, status: str) -> None:
        """Report the start of a reload. :meth:`ready` reports its end."""
        self.notify(RELOADING=1, MONOTONIC_USEC=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000, STATUS=status)

    def stopping(self, status: str) -> None:
        """Report that the service is stopping."""
        self.notify(STOPPING=1, STATUS=status)

    def alive(self) -> None:
        """Send the watchdog a sign of life."""
        self.notify(WATCHDOG=1)
