"""What a stream's reader waits for: each kind looks at the buffer and says where its bytes end.

Nothing here does I/O. ``size(buffer)`` is the number of bytes that satisfy the read, -1 while there are too few; it is
called again when more have arrived. ``closing(buffer)`` is the same for the last time: nothing more will come.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from bridge.core.stream.errors import UnsatisfiableReadError

__all__ = ["BytesRead", "CloseRead", "IntoRead", "Read", "RegexRead", "UntilRead"]


class Read:
    """A read that waits. The base is the one that takes whatever there is.

    Attributes:
        future: Gets the bytes.
    """

    __slots__ = ("future",)

    def __init__(self, future: Any) -> None:
        self.future = future

    def size(self, buffer: bytearray) -> int:
        """Return how many bytes at the front of *buffer* satisfy the read; -1: not enough yet.

        Raises:
            UnsatisfiableReadError: No further byte can.
        """
        return len(buffer) or -1

    def closing(self, buffer: bytearray) -> int:
        """Return the same, when nothing more will come."""
        return self.size(buffer)

    def result(self, data: bytes) -> Any:
        """Return what the future gets for *data*."""
        return data

    def release(self) -> None:
        """Hold nothing any more: the read has ended."""


class BytesRead(Read):
    """A number of bytes, or with *partial* any number up to it."""

    __slots__ = ("_least", "_most")

    def __init__(self, future: Any, number: int, partial: bool) -> None:
        super().__init__(future)
        self._most = number
        self._least = min(1, number) if partial else number

    def size(self, buffer: bytearray) -> int:
        """Return the number, or less if that is enough."""
        return min(len(buffer), self._most) if len(buffer) >= self._least else -1


class IntoRead(Read):
    """Bytes that are copied into a buffer of the reader's as they come; the future gets their number."""

    __slots__ = ("_filled", "_least", "_target")

    def __init__(self, future: Any, target: Any, partial: bool) -> None:
        super().__init__(future)
        self._target = memoryview(target).cast("B")
        self._least = min(1, len(self._target)) if partial else len(self._target)
        self._filled = 0

    def size(self, buffer: bytearray) -> int:
        """Take what there is, and leave nothing for :meth:`result`."""
        number = min(len(buffer), len(self._target) - self._filled)
        self._target[self._filled : self._filled + number] = buffer[:number]
        del buffer[:number]
        self._filled += number
        return 0 if self._filled >= self._least else -1

    def result(self, data: bytes) -> int:
        """Return how many bytes were copied."""
        return self._filled

    def release(self) -> None:
        """Let the reader resize its buffer."""
        self._target.release()


class UntilRead(Read):
    """Bytes up to and with a delimiter."""

    __slots__ = ("_delimiter", "_max_bytes", "_scanned")

    def __init__(self, future: Any, delimiter: bytes, max_bytes: int | None) -> None:
        super().__init__(future)
        self._delimiter = delimiter
        self._max_bytes = max_bytes
        self._scanned = 0

    def size(self, buffer: bytearray) -> int:
        """Return where the delimiter ends."""
        delimiter = self._delimiter
        at = buffer.find(delimiter, max(0, self._scanned - len(delimiter) + 1))
        if at >= 0:
            return _within(at + len(delimiter), self._max_bytes, repr(delimiter[:40]))
        self._scanned = len(buffer)
        _within(len(buffer), self._max_bytes, repr(delimiter[:40]))
        return -1


class RegexRead(Read):
    """Bytes up to and with the first match of a pattern."""

    __slots__ = ("_max_bytes", "_pattern")

    def __init__(self, future: Any, pattern: bytes | re.Pattern[bytes], max_bytes: int | None) -> None:
        super().__init__(future)
        self._pattern = re.compile(pattern)
        self._max_bytes = max_bytes

    def size(self, buffer: bytearray) -> int:
        """Return where the match ends."""
        match = self._pattern.search(buffer)
        shown = repr(self._pattern.pattern[:40])
        if match is not None:
            return _within(match.end(), self._max_bytes, shown)
        _within(len(buffer), self._max_bytes, shown)
        return -1


class CloseRead(Read):
    """All bytes until the connection ends."""

    __slots__ = ()

    def size(self, buffer: bytearray) -> int:
        """Wait on."""
        return -1

    def closing(self, buffer: bytearray) -> int:
        """Take all."""
        return len(buffer)


def _within(size: int, max_bytes: int | None, wanted: str) -> int:
    if max_bytes is not None and size > max_bytes:
        raise UnsatisfiableReadError(f"{wanted} not found within {max_bytes} bytes")
    return size


ReadFactory = Callable[[Any], Read]
