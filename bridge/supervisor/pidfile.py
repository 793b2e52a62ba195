"""The file with the number of the process that takes signals."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat

from bridge.errors import ConfigError
from bridge.files import Place, replace
from bridge.telemetry.processes import runs

__all__ = ["PidFile"]


class PidFile:
    """Holds the number of this process while it runs.

    The process locks its file, since a number alone proves little: after a crash, or in a container that was started
    again, it may be that of another program.

    Args:
        path: The file.
        takes_over: The file may name another process, which hands over to this one. The file is then written by
            :meth:`write`, not at once.

    Raises:
        ConfigError: The file cannot be written, it is something else than a pid file, or it names another process that
            is alive and holds it.
    """

    def __init__(self, path: str, *, takes_over: bool = False) -> None:
        self.path = os.path.abspath(path)
        self._option = f"--pid {path}"
        self._descriptor = -1
        other = self._other()
        if other is not None and not takes_over:
            raise ConfigError(f"{self._option}: process {other} is running")
        os.register_at_fork(after_in_child=self._let_go)  # a lock holds as long as any process has the descriptor
        if not takes_over:
            self.write()

    def write(self) -> None:
        """Write the number of this process, atomically.

        Raises:
            ConfigError: The file cannot be written.
        """
        try:
            self._descriptor = replace(self.path, b"%d\n" % os.getpid())
        except OSError as exc:
            raise ConfigError(f"{self._option}: {exc.strerror}") from exc

    def remove(self) -> None:
        """Delete the file, unless another process has taken it over."""
        with contextlib.suppress(OSError), Place.of(self.path) as place:
            if self._is_ours(place):
                place.unlink()
        self._let_go()

    def _let_go(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _is_ours(self, place: Place) -> bool:
        """Tell whether the file is the one that this process has written."""
        if self._descriptor < 0:
            return False
        status = os.fstat(self._descriptor)
        return place.file() == (status.st_dev, status.st_ino)

    def _other(self) -> int | None:
        """Return the number of the process that has the file; None if there is no such process but this one."""
        try:
            with Place.of(self.path) as place:
                number, locked = _read(place)
        except OSError as exc:
            raise ConfigError(f"{self._option}: {exc.strerror}") from exc
        return number if number is not None and locked and number != os.getpid() and runs(number) else None


def _read(place: Place) -> tuple[int | None, bool]:
    """Return the number in a pid file, and whether a process holds the file. A link counts as no file.

    Raises:
        OSError: There is something else than a pid file.
    """
    status = place.status()
    if status is None or stat.S_ISLNK(status.st_mode):
        return None, False
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EEXIST, "it is no regular file, and is not replaced")
    try:
        descriptor = place.open(os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None, False
    try:
        text = os.read(descriptor, 64).strip()
        if text and not text.isdigit():
            raise OSError(errno.EEXIST, "it holds something else than a process number, and is not replaced")
        return int(text or b"0") or None, _locked(descriptor)
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:  # or a file system without locks: then the number alone decides
        return True
    return False
