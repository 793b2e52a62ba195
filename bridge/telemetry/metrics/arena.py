"""Shared memory for counts: a block of cells for each process that serves, and one for what has ended.

A block has rows. A row has a name, labels, and cells: whole numbers of 64 bits. Only the process that owns a block
writes to it, and a write is one aligned store. So nobody waits for anybody, and a process that is killed in the middle
of an update leaves numbers that are true. A reader sums the blocks.

The master owns the first block. When a process has ended, the master adds its rows to that block and clears the
process's own, so a sum never falls. Meanwhile a number in the first block is odd, and readers in other processes look
again.

The memory is a file without a name. A new master for the same sockets inherits it, and goes on to count what the
processes of the old one count until they end.
"""

from __future__ import annotations

import contextlib
import errno
import mmap
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from bridge.errors import ConfigError

__all__ = ["BUCKET_CELLS", "FREE", "LEAVING", "MASTER", "READY", "STARTING", "Arena", "Block", "Reading", "Row", "read"]

#: The state of a block.
FREE, STARTING, READY, LEAVING, MASTER = range(5)

#: Cells of a row: enough for the buckets of a histogram, the bucket of what is above, and the sum.
BUCKET_CELLS = 16

_ROWS = 1024
_KEY = 240  # bytes
_MASK = (1 << 64) - 1
_HEADER = 64  # cells, so that rows begin on a cache line
_ROW = 1 + _KEY // 8 + BUCKET_CELLS + 1  # cells: the length of the key, the key, the values, one spare
_CELLS = _HEADER + _ROWS * _ROW
_PAGE = mmap.ALLOCATIONGRANULARITY
_SIZE = -(-_CELLS * 8 // _PAGE) * _PAGE  # bytes of a block

# The cells of a header.
_STATE, _SLOT, _PID, _SINCE, _USED, _MERGES, _NUMBER = range(7)

# How often a reader looks again while the master adds up, and for how long it waits in between (seconds).
_LOOKS = 100
_PAUSE = 0.001

# Separates name and labels in a key. No label can contain it: they are printable.
_SEPARATOR = "\x1f"


class Row(NamedTuple):
    """One row as it was read.

    Attributes:
        name: The metric's name.
        labels: Its labels, as (name, value).
        cells: The numbers.
    """

    name: str
    labels: tuple[tuple[str, str], ...]
    cells: list[int]


class Block:
    """The cells of one process.

    Args:
        view: The memory of the block.

    Attributes:
        cells: The memory as whole numbers of 64 bits; :meth:`row` says which of them are a row's.
    """

    def __init__(self, view: memoryview) -> None:
        self._bytes = view
        self.cells = view.cast("Q")
        self._rows: dict[tuple[str, tuple[tuple[str, str], ...]], int] = {}

    @property
    def state(self) -> int:
        """FREE, STARTING, READY, LEAVING or MASTER."""
        return self.cells[_STATE]

    @state.setter
    def state(self, state: int) -> None:
        self.cells[_STATE] = state

    @property
    def slot(self) -> int:
        """The number of the worker's place; 0 without workers."""
        return self.cells[_SLOT]

    @property
    def pid(self) -> int:
        """The process."""
        return self.cells[_PID]

    @pid.setter
    def pid(self, pid: int) -> None:
        self.cells[_PID] = pid

    @property
    def since(self) -> float:
        """When the process began, in seconds of the monotonic clock."""
        return self.cells[_SINCE] / 1e9

    @property
    def number(self) -> int:
        """A number that the owner of the block may use; 0 at first. The master's says what it is about to do."""
        return self.cells[_NUMBER]

    @number.setter
    def number(self, number: int) -> None:
        self.cells[_NUMBER] = number

    def begin(self, state: int, slot: int) -> None:
        """Take an empty block into use."""
        self._rows.clear()
        self.cells[_SLOT] = slot
        self.cells[_SINCE] = time.monotonic_ns()
        self.cells[_STATE] = state

    def release(self) -> None:
        """Give up the memory."""
        self.cells.release()
        self._bytes.release()

    def clear(self) -> None:
        """Make the block an empty one, that is free."""
        self._rows.clear()
        end = _HEADER + min(self.cells[_USED], _ROWS) * _ROW
        self.cells[_STATE] = FREE
        self.cells[_USED] = 0
        self._bytes[_HEADER * 8 : end * 8] = bytes((end - _HEADER) * 8)
        for cell in (_SLOT, _PID, _SINCE, _NUMBER):
            self.cells[cell] = 0

    # ------------------------------------------------------------------ written by the owner

    def row(self, name: str, labels: Mapping[str, str] | tuple[tuple[str, str], ...] = ()) -> int:
        """Return the index in ``cells`` of the first cell of a row. It is made if it does not exist.

        Args:
            name: The metric's name.
            labels: Its labels. They are cut if they are too long for a row.

        Raises:
            LookupError: There is no room for another row.
        """
        pairs = tuple(labels.items()) if isinstance(labels, Mapping) else labels
        found = self._rows.get((name, pairs))
        if found is not None:
            return found
        used = self.cells[_USED]
        if used >= _ROWS:
            raise LookupError("no room for another row")
        text = _SEPARATOR.join([name, *(part for pair in pairs for part in pair)])
        key = text.encode("utf-8", "replace")[:_KEY]
        start = _HEADER + used * _ROW
        self._bytes[(start + 1) * 8 : (start + 1) * 8 + len(key)] = key
        self.cells[start] = len(key)
        self.cells[_USED] = used + 1  # last: from now on readers see the row
        index = self._rows[name, pairs] = start + 1 + _KEY // 8
        return index

    @property
    def room(self) -> int:
        """How many more rows there is room for."""
        return _ROWS - self.cells[_USED]

    def add(self, name: str, labels: Mapping[str, str] | tuple[tuple[str, str], ...] = (), value: int = 1) -> None:
        """Add to the first cell of a row. Without room for the row, do nothing."""
        with contextlib.suppress(LookupError):
            self.cells[self.row(name, labels)] += value

    def set(self, name: str, labels: Mapping[str, str] | tuple[tuple[str, str], ...] = (), value: int = 0) -> None:
        """Set the first cell of a row. Without room for the row, do nothing."""
        with contextlib.suppress(LookupError):
            self.cells[self.row(name, labels)] = max(value, 0)

    # ------------------------------------------------------------------ read by anybody

    def rows(self) -> Iterator[Row]:
        """Return all rows. The memory may belong to another process, so nothing in it is trusted."""
        cells = self.cells
        for number in range(min(cells[_USED], _ROWS)):
            start = _HEADER + number * _ROW
            length = min(cells[start], _KEY)
            key = bytes(self._bytes[(start + 1) * 8 : (start + 1) * 8 + length])
            name, *parts = key.decode("utf-8", "replace").split(_SEPARATOR)
            index = start + 1 + _KEY // 8
            labels = tuple(zip(parts[::2], parts[1::2], strict=False))
            yield Row(name, labels, cells[index : index + BUCKET_CELLS].tolist())


class Arena:
    """The blocks of one master and its workers, or of one process without a master.

    Args:
        number: How many blocks there are, the master's included.
        descriptor: The memory of another master; None for new memory.

    Attributes:
        descriptor: The memory, for a successor.
        own: The master's block.
    """

    def __init__(self, number: int = 1, descriptor: int | None = None) -> None:
        fresh = descriptor is None
        if descriptor is None:
            descriptor = _memory(number * _SIZE)
        self.descriptor = descriptor
        size = os.fstat(descriptor).st_size // _SIZE * _SIZE
        if not size:
            raise ValueError("this is no memory for counts")
        self._map = mmap.mmap(descriptor, size)
        self._view = view = memoryview(self._map)
        self._blocks = [Block(view[start : start + _SIZE]) for start in range(0, size, _SIZE)]
        self.own = self._blocks[0]
        if fresh:
            self.own.begin(MASTER, 0)
            self.own.pid = os.getpid()

    def keep_alone(self) -> None:
        """Close the descriptor: no other process will need it. The memory goes with this object."""
        os.close(self.descriptor)
        self.descriptor = -1

    def close(self) -> None:
        """Give up the memory. Nothing may be read or written after that."""
        if self.descriptor < 0:
            return
        for block in self._blocks:
            block.release()
        self._view.release()
        self._map.close()
        os.close(self.descriptor)
        self.descriptor = -1

    def allocate(self, slot: int) -> Block | None:
        """Return a block for a process that starts; None if all are in use."""
        for block in self._blocks[1:]:
            if block.state == FREE:
                block.begin(STARTING, slot)
                return block
        return None

    def retire(self, block: Block, counted: frozenset[str], kept: frozenset[str] = frozenset()) -> None:
        """Add the rows of a process that has ended to the master's block, and free its own.

        Args:
            block: The block of that process; or another master's own, of whose processes none is left.
            counted: The names of the metrics that are summed. The others end with the process.
            kept: The names of those others whose rows stay, at 0.
        """
        own = self.own
        own.cells[_MERGES] += 1
        for row in block.rows():
            if row.name not in counted and row.name not in kept:
                continue
            try:
                index = own.row(row.name, row.labels)
            except LookupError:
                continue
            for offset, value in enumerate(row.cells if row.name in counted else ()):
                if value:  # the process may have written anything: no sum is too large for a cell
                    own.cells[index + offset] = (own.cells[index + offset] + value) & _MASK
        block.clear()
        own.cells[_MERGES] += 1

    @property
    def blocks(self) -> list[Block]:
        """The blocks in use, without the master's."""
        return [block for block in self._blocks[1:] if block.state != FREE]


class Reading(NamedTuple):
    """One block as it was read.

    Attributes:
        state: STARTING, READY, LEAVING or MASTER.
        slot: The number of the worker's place.
        pid: The process.
        since: When it began (seconds of the monotonic clock).
        rows: Its rows.
    """

    state: int
    slot: int
    pid: int
    since: float
    rows: list[Row]


def read(arenas: Iterable[Arena]) -> list[Reading]:
    """Return all blocks in use, as they were at one time: no number is in two of them, or in none."""
    arenas = tuple(arenas)
    for _ in range(_LOOKS):
        before = [arena.own.cells[_MERGES] for arena in arenas]
        found = [
            Reading(block.state, block.slot, block.pid, block.since, list(block.rows()))
            for arena in arenas
            for block in (arena.own, *arena.blocks)
            if block.state != FREE
        ]
        if not any(number % 2 for number in before) and before == [arena.own.cells[_MERGES] for arena in arenas]:
            break
        time.sleep(_PAUSE)
    return found


def _sized(descriptor: int, size: int) -> int:
    """Give a new file its size, and return its descriptor; close it if that is not possible."""
    try:
        os.ftruncate(descriptor, size)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _memory(size: int) -> int:
    """Return the descriptor of a new file without a name, of *size* bytes.

    Raises:
        ConfigError: There is no room.
    """
    if hasattr(os, "memfd_create"):
        with contextlib.suppress(OSError):  # a sandbox may refuse it
            return _sized(os.memfd_create("bridge-metrics"), size)
    import tempfile

    try:
        # Written, not only made longer: a full disk would otherwise end the process at the first count there.
        with tempfile.TemporaryFile() as file:
            file.write(bytes(size))
            file.flush()
            return os.dup(file.fileno())
    except OSError as exc:
        if exc.errno == errno.EFBIG:
            why = "this process may not have files of that size (ulimit -f)"
            raise ConfigError(f"metrics: no room for {size >> 10} KiB: {why}") from exc
        where = tempfile.gettempdir() if tempfile.tempdir else "the directory for temporary files"
        raise ConfigError(
            f"metrics: no room for {size >> 10} KiB in {where}: {exc.strerror}; TMPDIR names another directory"
        ) from exc
