"""The files that ``http.response.pathsend`` and ``http.response.zerocopysend`` messages name."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from bridge.errors import LocalProtocolError

if TYPE_CHECKING:
    from bridge.adapters.asgi.types import Message

__all__ = ["FileRange", "opened_path", "range_of"]

# Opening a FIFO must not block. Windows lacks O_CLOEXEC and O_NONBLOCK, and changes line ends without O_BINARY.
_FLAGS = os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)

# The largest size of a file of /sys, whatever is in it: a page of memory.
_PAGE = 65536
# Bytes that are read of a file that does not tell its size.
_MOST = 1 << 20


class FileRange(NamedTuple):
    """A part of an open regular file: descriptor, first byte, number of bytes."""

    descriptor: int
    offset: int
    size: int


@contextlib.contextmanager
def opened_path(message: Message) -> Iterator[FileRange]:
    """Open the file that a ``http.response.pathsend`` message names, and close it after the block.

    Raises:
        LocalProtocolError: The file cannot be opened, or is not a regular file. Not an OSError: that would tell the
            application that its client has disconnected.
    """
    path = message["path"]
    try:
        descriptor = os.open(path, _FLAGS)
    except (OSError, TypeError, ValueError) as exc:
        raise LocalProtocolError(f"http.response.pathsend: {exc}") from None
    try:
        size, content = _size(descriptor, message)
        if content is None:
            yield FileRange(descriptor, 0, size)
        else:
            import tempfile  # this takes 5 ms, and few files need it

            with tempfile.TemporaryFile(buffering=0) as file:
                file.write(content)
                yield FileRange(file.fileno(), 0, len(content))
    finally:
        os.close(descriptor)


def range_of(message: Message) -> FileRange:
    """Return the range that a ``http.response.zerocopysend`` message names.

    Without an offset the range begins at the file's position, and the position moves to its end.

    Raises:
        LocalProtocolError: The message has no regular file, or the range exceeds the file.
    """
    file: Any = message.get("file")
    try:
        descriptor = file if isinstance(file, int) else file.fileno()
        size, content = _size(descriptor, message)
        if content is not None:
            raise LocalProtocolError("http.response.zerocopysend: the file does not tell its size; send its content")
        offset = message.get("offset")
        # A file object that has read ahead has another position than its descriptor.
        start = _tell(file) if offset is None else offset
        count = message.get("count")
        if count is None:
            count = max(size - start, 0)
        if start < 0 or count < 0 or start + count > size:
            raise LocalProtocolError(
                f"http.response.zerocopysend: {count} bytes from {start} of a file of {size} bytes"
            )
        if offset is None:
            _seek(file, start + count)
    except (OSError, TypeError, ValueError, AttributeError) as exc:
        raise LocalProtocolError(f"http.response.zerocopysend: {exc}") from None
    return FileRange(descriptor, start, count)


def _size(descriptor: int, message: Message) -> tuple[int, bytes | None]:
    """Return the size of a file; and its content, if it does not tell its size, as files of /proc and /sys."""
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise LocalProtocolError(f"{message['type']}: not a regular file")
    blocks: int = getattr(status, "st_blocks", 1)  # not on Windows
    if status.st_size > _PAGE or blocks:
        return status.st_size, None
    content = b""
    try:
        while piece := os.pread(descriptor, _PAGE, len(content)):
            content += piece
            if len(content) > _MOST:
                raise LocalProtocolError(f"{message['type']}: the file does not tell its size, and has over a megabyte")
    except OSError as exc:
        raise LocalProtocolError(f"{message['type']}: {exc}") from None
    return status.st_size, content if len(content) != status.st_size else None


def _tell(file: Any) -> int:
    return os.lseek(file, 0, os.SEEK_CUR) if isinstance(file, int) else int(file.tell())


def _seek(file: Any, position: int) -> None:
    if isinstance(file, int):
        os.lseek(file, position, os.SEEK_SET)
    else:
        file.seek(position)
