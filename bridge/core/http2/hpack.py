"""Field compression (RFC 7541): the static table, and field blocks to fields, as requests have them.

Nothing here knows what a field means: whether a name or a value is allowed is decided in ``request``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from bridge.core.http.cache import remember
from bridge.core.http.fields import Field
from bridge.core.http2 import huffman
from bridge.core.http2.codes import ENHANCE_YOUR_CALM, CompressionError, ConnectionFault
from bridge.errors import LimitExceeded
from bridge.speedups import decode_fields as _decode_fields
from bridge.speedups import read_request as _read_request

if TYPE_CHECKING:
    # Method, the same as text, target, path, the same as decoded text, query; fields with the host in front, host,
    # content length, expect_continue, the value of the field priority; whether the head may be kept; what was inserted.
    RequestValues = tuple[
        bytes,
        str,
        bytes,
        bytes,
        str,
        bytes,
        tuple[Field, ...],
        bytes,
        int | None,
        bool,
        bytes | None,
        bool,
        tuple[int, int, int] | None,
    ]

__all__ = ["ENTRY_OVERHEAD", "NEWEST", "STATIC_TABLE", "TABLE_SIZE", "FieldDecoder"]

TABLE_SIZE: Final = 4096
"""Bytes of the largest dynamic table, on both sides: what a peer may expect without a setting (section 4.2)."""

_STATIC_TEXT = b"""
:authority
:method: GET
:method: POST
:path: /
:path: /index.html
:scheme: http
:scheme: https
:status: 200
:status: 204
:status: 206
:status: 304
:status: 400
:status: 404
:status: 500
accept-charset
accept-encoding: gzip, deflate
accept-language
accept-ranges
accept
access-control-allow-origin
age
allow
authorization
cache-control
content-disposition
content-encoding
content-language
content-length
content-location
content-range
content-type
cookie
date
etag
expect
expires
from
host
if-match
if-modified-since
if-none-match
if-range
if-unmodified-since
last-modified
link
location
max-forwards
proxy-authenticate
proxy-authorization
range
referer
refresh
retry-after
server
set-cookie
strict-transport-security
transfer-encoding
user-agent
vary
via
www-authenticate
"""


def _static_fields() -> tuple[Field, ...]:
    fields = []
    for line in _STATIC_TEXT.split(b"\n")[1:-1]:
        end = line.find(b":", 1)
        fields.append((line, b"") if end < 0 else (line[:end], line[end + 2 :]))
    return tuple(fields)


STATIC_TABLE: Final = _static_fields()
"""The static table (appendix A); its first entry has the index 1."""

NEWEST: Final = len(STATIC_TABLE) + 1
"""The index of the newest entry of the dynamic table."""
ENTRY_OVERHEAD: Final = 32
"""What an entry takes besides its octets (section 4.1)."""
# A decoder's table begins with an entry that stands for the index 0, which no field has.
_NO_FIELD: Field = (b"", b"")
# Most octets behind the first one of an integer: 5 of them hold 35 bits.
_INTEGER_SHIFT_MAX = 28
# The most octets of a block's end that are kept, to be compared with the end of the next block.
_TAIL_MAX = 256
# Stands for the size of a kept end where none is kept: no comparison with a block's size can match it.
_NO_TAIL = -1 << 40
# The size of the list is checked after so many octets of a block. Each octet stands for one field at most.
_SEGMENT = 512
# A list that is larger than the limit is refused on its stream. A list that is more than so many times larger ends the
# connection: keeping the table right for it would cost too much.
_PATIENCE = 4

# Names and values that came Huffman coded -> decoded. Only values of fields that browsers send and that say nothing
# about their users: values may be secrets. Bounded, since peers choose what is in it.
_STRINGS_MAX = 1024
_STRING_LENGTH_MAX = 256
_strings: dict[bytes, bytes] = {}
_SHARED_VALUES = frozenset(
    {
        b"accept",
        b"accept-encoding",
        b"accept-language",
        b"cache-control",
        b"content-type",
        b"pragma",
        b"priority",
        b"sec-ch-ua",
        b"sec-ch-ua-mobile",
        b"sec-ch-ua-platform",
        b"sec-fetch-dest",
        b"sec-fetch-mode",
        b"sec-fetch-site",
        b"sec-fetch-user",
        b"te",
        b"upgrade-insecure-requests",
        b"user-agent",
    }
)


def _integer(block: bytes, at: int, prefix: int) -> tuple[int, int]:
    """Return the integer whose prefix is full and whose further octets begin at *at*, and where it ends (5.1)."""
    value = prefix
    shift = 0
    while True:
        octet = block[at]
        at += 1
        value += (octet & 0x7F) << shift
        if octet < 0x80:
            return value, at
        shift += 7
        if shift > _INTEGER_SHIFT_MAX:
            raise CompressionError("integer of more than 35 bits (RFC 7541 section 5.1)")


def _text(raw: bytes) -> bytes:
    """Decode a Huffman coded string that is no secret, and keep it for other connections."""
    text = _strings.get(raw)
    if text is None:
        text = huffman.decode(raw)
        if len(raw) <= _STRING_LENGTH_MAX:
            remember(_strings, raw, text, _STRINGS_MAX)
    return text


def _string(block: bytes, at: int) -> tuple[bytes, int]:
    """Return the name that begins at *at*, and where it ends; beyond the block if it is cut off (5.2)."""
    octet = block[at]
    at += 1
    length = octet & 0x7F
    if length == 0x7F:
        length, at = _integer(block, at, 0x7F)
    end = at + length
    raw = block[at:end]
    return (raw if octet < 0x80 else _text(raw)), end


class FieldDecoder:
    """Decodes the field blocks of one connection, in the order in which they came.

    Args:
        list_size: Most bytes of a list of fields, each counted as its octets and 32 (RFC 9113 section 6.5.2).

    Attributes:
        generation: Goes up with every change of the dynamic table. Blocks that are equal decode to equal fields as long
            as it stays the same.
        largest: Octets of the name and value of the largest entry that the table has had.
        literals: The fields of the last block that did not come out of a table, in order.
        never_indexed: The last block has a field that must not be indexed (section 6.2.3): a secret.
    """

    __slots__ = (
        *("_capacity", "_list_size", "_size", "_table", "_tail", "_tail_fields", "_tail_size"),
        *("generation", "largest", "literals", "never_indexed"),
    )

    def __init__(self, list_size: int = 32768) -> None:
        self._list_size = list_size
        # Static and dynamic entries in one list, so that an index is a place in it. A change of the table moves at most
        # 128 pointers.
        self._table: list[Field] = [_NO_FIELD, *STATIC_TABLE]
        self._size = 0
        self._capacity = TABLE_SIZE
        # The end of the last block, of indices only, and what it stands for: clients repeat nearly all fields, behind a
        # new :path. Any change of the table ends it.
        self._tail = b""
        self._tail_size = _NO_TAIL
        self._tail_fields: list[Field] = []
        self.generation = 0
        self.largest = 64  # no entry of the static table is larger
        self.literals: list[Field] = []
        self.never_indexed = False

    def decode(self, block: bytes) -> list[Field]:
        """Return the fields of a block.

        Raises:
            CompressionError: The block is malformed. Nothing more can be decoded.
            ConnectionFault: ENHANCE_YOUR_CALM; the list is more than four times larger than its limit.
            LimitExceeded: 431; the list is larger than its limit. The table is as it has to be for the next block.
        """
        if _decode_fields is not None:
            result = _decode_fields(block, self._table, self._size, self._capacity, self._list_size)
            if result is not None:
                fields, self.literals, inserted, size, self.never_indexed, largest = result
                if inserted:
                    self._note_inserted(inserted, size, largest)
                return fields
        return self._decode(block)

    def read_request(self, block: bytes, ended: bool, limits: tuple[int, int, int, int]) -> RequestValues | None:
        """Return the parts of a usual request, decoded and checked; None if there is no compiled function for it.

        None means that nothing was changed: :meth:`decode` has to read the block.

        Args:
            block: A whole field block.
            ended: The stream ends with it.
            limits: Most bytes of the list of fields, of a request line and of a field line, and most fields.
        """
        if _read_request is None:
            return None
        values = _read_request(block, ended, self._table, self._size, self._capacity, limits)
        if values is not None and values[-1] is not None:
            self._note_inserted(*values[-1])
        return values

    def _note_inserted(self, count: int, size: int, largest: int) -> None:
        """Note that a compiled function has put *count* fields into the table, which has *size* bytes now."""
        self.generation += count
        self.largest = max(self.largest, largest)
        self._size = size
        self._tail_size = _NO_TAIL

    def _decode(self, block: bytes) -> list[Field]:
        table = self._table
        fields: list[Field] = []
        literals: list[Field] = []
        self.literals = literals
        never_indexed = False
        end = len(block)
        at = counted = size = tail_at = tail_count = 0
        try:
            if end and 0x20 <= block[0] < 0x40:
                at = self._take_size_updates(block)
            generation = self.generation
            while at < end:
                stop = min(end, at + _SEGMENT)
                while at < stop:
                    octet = block[at]
                    at += 1
                    if octet > 0x80:
                        if octet == 0xFF:
                            index, at = _integer(block, at, 0x7F)
                            fields.append(table[index])
                        else:
                            fields.append(table[octet - 0x80])
                        continue
                    field, at = self._literal(block, at, octet)
                    fields.append(field)
                    literals.append(field)
                    if octet >= 0x40:
                        self._insert(field)
                    elif octet >= 0x10:
                        never_indexed = True
                    tail_at = at
                    tail_count = len(fields)
                    if end - at == self._tail_size and block[at:] == self._tail:
                        fields += self._tail_fields
                        at = end
                # The most that all of the fields can add up to: nearly always far less than the limit.
                if len(fields) * (self.largest + ENTRY_OVERHEAD) + end * 8 // 5 > self._list_size:
                    size += sum([len(name) + len(value) + ENTRY_OVERHEAD for name, value in fields[counted:]])
                    counted = len(fields)
                    if size > self._list_size:
                        self._keep_table(block, at, size)
        except IndexError:
            raise CompressionError("field block is cut off, or has an index beyond the table (RFC 7541)") from None
        if at > end:
            raise CompressionError("string beyond the end of its field block (RFC 7541 section 5.2)")
        self.never_indexed = never_indexed
        if literals and generation == self.generation and end - tail_at <= _TAIL_MAX:
            self._tail = block[tail_at:]
            self._tail_size = (end - tail_at) or _NO_TAIL
            self._tail_fields = fields[tail_count:]
        return fields

    def _literal(self, block: bytes, at: int, octet: int) -> tuple[Field, int]:
        """Return a field whose value is a literal, and where it ends (section 6.2); *octet* stands in front of *at*."""
        prefix = 0x3F
        if octet < 0x40:
            prefix = 0x0F
            if octet >= 0x20:
                raise CompressionError("size update behind a field (RFC 7541 section 4.2)")
        elif octet == 0x80:
            raise CompressionError("index 0 (RFC 7541 section 6.1)")
        index = octet & prefix
        if index == prefix:
            index, at = _integer(block, at, prefix)
        if index:
            name = self._table[index][0]
        else:
            name, at = _string(block, at)
        # As _string, which would cost a call more.
        octet = block[at]
        at += 1
        length = octet & 0x7F
        if length == 0x7F:
            length, at = _integer(block, at, 0x7F)
        end = at + length
        value = block[at:end]
        if octet >= 0x80:
            value = _text(value) if name in _SHARED_VALUES else huffman.decode(value)
        return (name, value), end

    def _take_size_updates(self, block: bytes) -> int:
        """Obey the size updates at the beginning of a block (sections 4.2 and 6.3); return where its fields begin."""
        at = updates = 0
        while at < len(block) and 0x20 <= block[at] < 0x40:
            size = block[at] & 0x1F
            at += 1
            if size == 0x1F:
                size, at = _integer(block, at, 0x1F)
            updates += 1
            if size > TABLE_SIZE or updates > 2:
                raise CompressionError(f"table size of {size} bytes, or more than two updates (RFC 7541 section 4.2)")
            self._capacity = size
            self.generation += 1
            self._tail_size = _NO_TAIL
            self._evict()
        return at

    def _insert(self, field: Field) -> None:
        """Put a field into the dynamic table (section 4.4)."""
        self.generation += 1
        self._tail_size = _NO_TAIL
        self._table.insert(NEWEST, field)
        size = len(field[0]) + len(field[1])
        self.largest = max(self.largest, size)
        self._size += size + ENTRY_OVERHEAD
        if self._size > self._capacity:
            self._evict()

    def _evict(self) -> None:
        """Remove the oldest entries that have no room. An entry larger than the table empties it and is not kept."""
        size = self._size
        table = self._table
        while size > self._capacity:
            name, value = table.pop()
            size -= len(name) + len(value) + ENTRY_OVERHEAD
        self._size = size

    def _keep_table(self, block: bytes, at: int, size: int) -> None:
        """Read the rest of a block whose list is too large, only to keep the table right; then refuse the list.

        Strings that do not come into the table are not decoded.
        """
        end = len(block)
        limit = _PATIENCE * self._list_size
        table = self._table
        while at < end:
            if size > limit:
                raise ConnectionFault(
                    ENHANCE_YOUR_CALM, f"field section of more than {limit} bytes (RFC 9113 section 10.5.1)"
                )
            octet = block[at]
            at += 1
            literal_start = at
            prefix = 0x7F if octet >= 0x80 else 0x3F if octet >= 0x40 else 0x0F
            index = octet & prefix
            if index == prefix:
                index, at = _integer(block, at, prefix)
            if octet >= 0x80:
                name, value = table[index]
                size += len(name) + len(value) + ENTRY_OVERHEAD
                if not index:
                    raise CompressionError("index 0 (RFC 7541 section 6.1)")
                continue
            if 0x20 <= octet < 0x40:
                raise CompressionError("size update behind a field (RFC 7541 section 4.2)")
            start = at
            name = table[index][0]
            if not index:
                at = _string_end(block, at)
            at = _string_end(block, at)
            size += at - start + len(name) + ENTRY_OVERHEAD
            if octet < 0x40:
                continue
            if (at - start) // 4 > self._capacity:  # no code has more than 30 bits
                self._insert((b"", bytes(self._capacity)))  # has no room, and empties the table
                continue
            field, _ = self._literal(block, literal_start, octet)
            self._insert(field)
        if at > end:
            raise CompressionError("string beyond the end of its field block (RFC 7541 section 5.2)")
        raise LimitExceeded(431, f"field section of at least {size} bytes, limit {self._list_size}")


def _string_end(block: bytes, at: int) -> int:
    """Return where the string that begins at *at* ends."""
    length = block[at] & 0x7F
    at += 1
    if length == 0x7F:
        length, at = _integer(block, at, 0x7F)
    return at + length
