"""Field compression (RFC 7541): fields to field blocks, as responses have them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.core.http.cache import remember
from bridge.core.http.fields import NO_LENGTH, Field, without_length
from bridge.core.http.status import HAS_NO_LENGTH
from bridge.core.http2 import huffman
from bridge.core.http2.hpack import ENTRY_OVERHEAD, NEWEST, STATIC_TABLE, TABLE_SIZE

if TYPE_CHECKING:
    from bridge.core.http.message import ResponseHead

__all__ = ["FieldEncoder"]

_STATIC_NAMES = {name: index for index, (name, _) in reversed([*enumerate(STATIC_TABLE, 1)])}
_STATUS_INDEX = _STATIC_NAMES[b":status"]
_STATUSES = {
    int(value): bytes([0x80 | index]) for index, (name, value) in enumerate(STATIC_TABLE, 1) if name == b":status"
}
# Fields that seldom come twice, so that an entry of the table would be wasted on them.
_NOT_INDEXED = frozenset(
    {
        b"age",
        b"content-length",
        b"content-range",
        b"etag",
        b"last-modified",
        b"location",
    }
)
# Secrets: an intermediary must not index them either (section 7.1.3).
_NEVER_INDEXED = frozenset({b"authorization", b"cookie", b"proxy-authorization", b"set-cookie"})
# Bytes of a table entry; a larger one would push out too many others.
_ENTRY_MAX = 512
# The most fields that are remembered as seen once, the most encoded heads that are kept, and the most bytes of such a
# head.
_ONCE_MAX = 64
_HEADS_MAX = 16
_HEAD_LENGTH_MAX = 1024


def _encode_integer(value: int, prefix: int, first: int) -> bytes:
    """Return an integer; *first* has the bits in front of its prefix (5.1)."""
    if value < prefix:
        return bytes([first | value])
    octets = bytearray([first | prefix])
    value -= prefix
    while value >= 0x80:
        octets.append(value & 0x7F | 0x80)
        value >>= 7
    octets.append(value)
    return bytes(octets)


def _encode_string(text: bytes, shorten: bool) -> bytes:
    """Return a string, Huffman coded if that is asked for and makes it shorter (5.2)."""
    if shorten:
        coded = huffman.encode(text)
        if len(coded) < len(text):
            return _encode_integer(len(coded), 0x7F, 0x80) + coded
    return _encode_integer(len(text), 0x7F, 0) + text


def _split_lines(lines: bytes) -> list[Field]:
    """Return the fields of checked field lines, names in lower case, values without surrounding white space."""
    fields = []
    for line in lines.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        fields.append((name.lower(), value.strip(b" \t")))
    return fields


class FieldEncoder:
    """Encodes the field blocks of one connection. They have to be sent in the order in which they were made.

    A field is put into the dynamic table when it comes for the second time. So a connection with a single request needs
    no table on either side, and values that are new in each response push nothing out.

    Attributes:
        generation: Goes up with every change of the dynamic table.
        settled: Encoding the fields of the last block again would give the same block.
    """

    __slots__ = (
        "_capacity",
        "_common",
        "_entries",
        "_heads",
        "_inserted",
        "_once",
        "_size",
        "_updates",
        "generation",
        "settled",
    )

    def __init__(self) -> None:
        self._capacity = TABLE_SIZE
        self._updates: list[int] = []  # sizes that the next block has to announce
        self._entries: dict[Field, int] = {}  # field -> how many were inserted before it; oldest first
        self._inserted = 0
        self._size = 0
        self._once: dict[Field, None] = {}
        self._common = b""
        self._heads: dict[object, bytes] = {}  # blocks that change nothing, for this generation and these common fields
        self.generation = 0
        self.settled = True

    def head(self, response: ResponseHead, common: bytes, length: int = NO_LENGTH) -> bytes:
        """Return the block of a final response.

        Args:
            response: The checked head. Fields that have no meaning in HTTP/2, such as Connection, are left out.
            common: The field lines that every response starts with, each with its CRLF.
            length: The Content-Length to add, in bytes; NO_LENGTH to add none.
        """
        if common is not self._common:
            self._common = common
            self._heads.clear()
        key = response if length < 0 else (response, length)
        block = self._heads.get(key)
        if block is None:
            block = self._make_head(key, response, common, length)
        return block

    def _make_head(self, key: object, response: ResponseHead, common: bytes, length: int) -> bytes:
        self.settled = True
        lines = response.lines
        status = response.status
        if response.length != NO_LENGTH and status in HAS_NO_LENGTH:
            lines = without_length(lines)
        parts = [self._announce(), self._status(status)]
        fields = _split_lines(common) + _split_lines(b"".join(lines))
        if length >= 0:
            fields.append((b"content-length", b"%d" % length))
        parts += map(self._field, fields)
        secret = not _NEVER_INDEXED.isdisjoint([name for name, _ in fields])
        block = b"".join(parts)
        if self.settled and not secret and len(block) <= _HEAD_LENGTH_MAX:
            remember(self._heads, key, block, _HEADS_MAX)
        return block

    def fields(self, lines: bytes, status: int = 0) -> bytes:
        """Return the block of a trailer section, or of an interim response.

        Args:
            lines: Checked field lines, each with its CRLF, as from ``encode_fields``.
            status: The interim response's status; 0 for trailers.
        """
        parts = [self._announce()]
        if status:
            parts.append(self._status(status))
        parts += map(self._field, _split_lines(lines))
        return b"".join(parts)

    def set_limit(self, size: int) -> None:
        """Apply the peer's SETTINGS_HEADER_TABLE_SIZE (section 4.2): the table gets *size* bytes, 4096 at most."""
        capacity = min(size, TABLE_SIZE)
        if capacity == self._capacity and not self._updates:
            return
        smallest = min([capacity, *self._updates])
        self._updates = [smallest] if smallest == capacity else [smallest, capacity]
        self._capacity = capacity
        self._changed()
        self._evict()

    def on_idle(self) -> None:
        """Drop what only saves work: the connection is idle."""
        self._heads.clear()
        self._once.clear()

    def _announce(self) -> bytes:
        """Return the size updates that stand in front of the next block: the smallest and the last size (4.2)."""
        if not self._updates:
            return b""
        updates = b"".join([_encode_integer(size, 0x1F, 0x20) for size in self._updates])
        self._updates.clear()
        self._changed()  # the same fields without the updates are another block
        return updates

    def _status(self, status: int) -> bytes:
        return _STATUSES.get(status) or b"%c\x03%d" % (_STATUS_INDEX, status)

    def _field(self, field: Field) -> bytes:
        """Return the representation of a field, and put it into the table if it has come before (section 6)."""
        before = self._entries.get(field)
        if before is not None:
            return _encode_integer(NEWEST + self._inserted - 1 - before, 0x7F, 0x80)
        name, value = field
        index = _STATIC_NAMES.get(name, 0)
        indexed = False
        if name in _NEVER_INDEXED:
            start = _encode_integer(index, 0x0F, 0x10)
        else:
            indexed = self._comes_again(field)
            start = _encode_integer(index, 0x3F, 0x40) if indexed else _encode_integer(index, 0x0F, 0)
        # Huffman coding takes time. It pays only where the table keeps the result.
        if not index:
            start += _encode_string(name, indexed)
        start += _encode_string(value, indexed)
        if indexed:
            self._entries[field] = self._inserted
            self._inserted += 1
            self._size += len(name) + len(value) + ENTRY_OVERHEAD
            self._changed()
            self._evict()
        return start

    def _comes_again(self, field: Field) -> bool:
        """Tell whether *field* has come before and has room in the table; remember it."""
        name, value = field
        if name in _NOT_INDEXED or len(name) + len(value) + ENTRY_OVERHEAD > min(_ENTRY_MAX, self._capacity):
            return False
        if field in self._once:
            del self._once[field]
            return True
        remember(self._once, field, None, _ONCE_MAX)
        self.settled = False
        return False

    def _changed(self) -> None:
        self.generation += 1
        self.settled = False
        self._heads.clear()

    def _evict(self) -> None:
        """Remove the oldest entries that have no room (section 4.4)."""
        while self._size > self._capacity:
            name, value = field = next(iter(self._entries))
            del self._entries[field]
            self._size -= len(name) + len(value) + ENTRY_OVERHEAD
