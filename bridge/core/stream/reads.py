"""The reads that can wait for a stream: each kind finds out where its bytes end in the buffer.

Nothing here does I/O. ``size(buffer)`` returns how many bytes satisfy the read, or -1 if there are too few. It is
called again when more bytes have arrived. ``closing(buffer)`` is called instead when the stream has ended.
"""

from __future__ import annotations

import re
from typing import Any

from bridge.core.stream.errors import UnsatisfiableReadError

__all__ = ["BytesRead", "CloseRead", "IntoRead", "Read", "RegexRead", "UntilRead"]


class Read:
    """A read that waits. The base class takes any bytes, at least one.

    Attributes:
        future: Its result is the bytes.
    """

    __slots__ = ("future",)

    def __init__(self, future: Any) -> None:
        self.future = future

    def size(self, buffer: bytearray) -> int:
        """Return how many bytes at the front of *buffer* satisfy the read; -1: not enough yet.

        Raises:
            UnsatisfiableReadError: No further byte can satisfy it.
        """
        return len(buffer) or -1

    def closing(self, buffer: bytearray) -> int:
        """Return the same as :meth:`size`, when no more bytes will come."""
        return self.size(buffer)

    def result(self, data: bytes) -> Any:
        """Return the future's result for the bytes *data*."""
        return data

    def release(self) -> None:
        """Release what the read holds, since it has ended."""


class BytesRead(Read):
    """A number of bytes; with *partial* any number from one up to it."""

    __slots__ = ("_least", "_most")

    def __init__(self, future: Any, number: int, partial: bool) -> None:
        super().__init__(future)
        self._most = number
        self._least = min(1, number) if partial else number

    def size(self, buffer: bytearray) -> int:
        """Return the number of bytes to take."""
        return min(len(buffer), self._most) if len(buffer) >= self._least else -1


class IntoRead(Read):
    """Bytes that are copied into the reader's own buffer as they come; the result is their number."""

    __slots__ = ("_filled", "_least", "_target")

    def __init__(self, future: Any, target: Any, partial: bool) -> None:
        super().__init__(future)
        self._target = memoryview(target).cast("B")
        self._least = min(1, len(self._target)) if partial else len(self._target)
        self._filled = 0

    def size(self, buffer: bytearray) -> int:
        """Copy what there is; return 0 when that is enough, since nothing is left for :meth:`result`."""
        number = min(len(buffer), len(self._target) - self._filled)
        self._target[self._filled : self._filled + number] = buffer[:number]
        del buffer[:number]
        self._filled += number
        return 0 if self._filled >= self._least else -1

    def result(self, data: bytes) -> int:
        """Return how many bytes were copied."""
        return self._filled

    def release(self) -> None:
        """Release the buffer, which cannot be resized until then."""
        self._target.release()


class UntilRead(Read):
    """Bytes up to a delimiter and including it."""

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
    """Bytes up to the first match of a pattern and including it."""

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
        """Return -1: the read goes on waiting."""
        return -1

    def closing(self, buffer: bytearray) -> int:
        """Return the size of the whole buffer."""
        return len(buffer)


def _within(size: int, max_bytes: int | None, wanted: str) -> int:
    if max_bytes is not None and size > max_bytes:
        raise UnsatisfiableReadError(f"{wanted} not found within {max_bytes} bytes")
    return size
