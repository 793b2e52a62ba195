"""The file with the number of the process that takes signals."""

from __future__ import annotations

import contextlib
import os

from bridge.errors import ConfigError

__all__ = ["PidFile"]


class PidFile:
    """Holds the number of this process while it runs.

    Args:
        path: The file.
        takes_over: The file may name another process, which hands over to this one. The file is then written by
            :meth:`write`, not at once.

    Raises:
        ConfigError: The file cannot be written, or it names another process that is alive.
    """

    def __init__(self, path: str, *, takes_over: bool = False) -> None:
        self.path = path
        other = _read(path)
        if other is not None and other != os.getpid() and not takes_over and _alive(other):
            raise ConfigError(f"--pid {path}: process {other} is running")
        try:
            with open(path, "a", encoding="ascii"):
                pass
        except OSError as exc:
            raise ConfigError(f"--pid {path}: {exc.strerror}") from exc
        if not takes_over:
            self.write()

    def write(self) -> None:
        """Write the number of this process, atomically."""
        try:
            new = f"{self.path}.{os.getpid()}"
            with open(new, "w", encoding="ascii") as file:
                file.write(f"{os.getpid()}\n")
            os.replace(new, self.path)
        except OSError as exc:
            raise ConfigError(f"--pid {self.path}: {exc.strerror}") from exc

    def remove(self) -> None:
        """Delete the file, unless another process has taken it over."""
        if _read(self.path) == os.getpid():
            with contextlib.suppress(OSError):
                os.unlink(self.path)


def _read(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read(32))
    except (OSError, ValueError):
        return None


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True  # it belongs to another user
    return True
