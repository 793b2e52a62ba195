"""``wsgi.file_wrapper`` (PEP 3333 "Optional Platform-Specific File Handling")."""

from __future__ import annotations

import io
import os
import stat
import sys
from collections.abc import Iterator
from typing import IO, Any

__all__ = ["FileRange", "FileWrapper", "file_range"]

# The least to read at once, in bytes, where a file has to be read here; the application's size is a suggestion.
_BLOCK = 32768
# The largest size of a file of /sys, whatever is in it: a page of memory.
_PAGE = 65536
# Readers that read nothing but the file below them; a subclass of theirs may do anything.
_PLAIN = frozenset({io.FileIO, io.BufferedReader, io.BufferedRandom})


class FileWrapper:
    """An iterable over a file-like object. The server sends a plain file in a better way.

    Args:
        filelike: Has ``read``.
        block_size: Bytes to read at once where the file is read piece by piece.
    """

    def __init__(self, filelike: Any, block_size: int = _BLOCK) -> None:
        self.filelike = filelike
        self.block_size = max(block_size, _BLOCK)
        if hasattr(filelike, "close"):
            self.close = filelike.close

    def __iter__(self) -> Iterator[bytes]:
        while data := self.filelike.read(self.block_size):
            yield data


class FileRange:
    """A part of a file.

    Attributes:
        descriptor: The open file.
        offset: Where the part begins, in bytes.
        count: Its size in bytes.
    """

    __slots__ = ("count", "descriptor", "offset")

    def __init__(self, descriptor: int, offset: int, count: int) -> None:
        self.descriptor = descriptor
        self.offset = offset
        self.count = count


def file_range(filelike: object) -> FileRange | None:
    """Return the part of a regular file that is left to read; None if only reading can tell.

    An object that has a ``fileno`` may read something else than that file: a ``GzipFile`` does. So only types that are
    known to read the file itself are accepted.
    """
    raw: object = filelike
    # Looked up, not imported: an application that has such a file has imported the module.
    tempfile = sys.modules.get("tempfile")
    if tempfile is not None and isinstance(filelike, tempfile._TemporaryFileWrapper):
        raw = filelike.file
    if isinstance(raw, io.BufferedReader | io.BufferedRandom):
        file: IO[bytes] | io.FileIO = raw
        raw = raw.raw
    elif isinstance(raw, io.FileIO):
        file = raw
    else:
        return None
    if type(raw) is not io.FileIO or type(file) not in _PLAIN:
        return None
    try:
        status = os.fstat(raw.fileno())
        offset = file.tell()
    except (OSError, ValueError):  # a pipe, or closed
        return None
    if not stat.S_ISREG(status.st_mode) or not status.st_size:  # files of /proc have content, and no size
        return None
    if status.st_size <= _PAGE and not getattr(status, "st_blocks", 1):  # those of /sys have less content than size
        return None
    return FileRange(raw.fileno(), offset, max(0, status.st_size - offset))
