"""The Huffman code of field compression (RFC 7541 section 5.2 and appendix B).

The code is canonical: codes of one length are consecutive numbers in the order of their symbols. So the symbols of each
length define the whole code. Tables are made when they are first needed.
"""

from __future__ import annotations

from functools import cache

from bridge.core.http2.codes import CompressionError

__all__ = ["decode", "encode"]

# Bits of a code, and the symbols that have such a code, in hexadecimal where they are no text.
_SYMBOLS = (
    (5, b"012aceiost"),
    (6, b" %-./3456789=A_bdfghlmnpru"),
    (7, b":BCDEFGHIJKLMNOPQRSTUVWYjkqvwxyz"),
    (8, b"&*,;XZ"),
    (10, b'!"()?'),
    (11, b"'+|"),
    (12, b"#>"),
    (13, b"\x00$@[]~"),
    (14, b"^}"),
    (15, b"<`{"),
    (19, b"\\\xc3\xd0"),
    (20, bytes.fromhex("808283a2b8c2e0e2")),
    (21, bytes.fromhex("99a1a7acb0b1b3d1d8d9e3e5e6")),
    (22, bytes.fromhex("8184858688929a9ca0a3a4a9aaadb2b5b9babbbdbec4c6e4e8e9")),
    (23, bytes.fromhex("0187898a8b8c8d8f93959697989b9d9ea5a6a8aeafb4b6b7bcbfc5e7ef")),
    (24, bytes.fromhex("098e9091949fabced7e1eced")),
    (25, bytes.fromhex("c7cfeaeb")),
    (26, bytes.fromhex("c0c1c8c9cacdd2d5dadbeef0f2f3ff")),
    (27, bytes.fromhex("cbccd3d4d6dddedff1f4f5f6f7f8fafbfcfdfe")),
    (28, bytes.fromhex("020304050607080b0c0e0f1011121314151718191a1b1c1d1e1f7fdcf9")),
    (30, bytes.fromhex("0a0d16")),
)


# Entries of all nodes together; then all are dropped. Ordinary text needs about 3,000. All 65,281, which a peer that
# sends random octets could fill, would take 14 MB.
_ENTRIES_MAX = 8192
_filled: list[_Node] = []  # the node of each entry


class _Node:
    """A node of the code's tree.

    Attributes:
        children: For the bits 0 and 1; empty for a leaf.
        entries: Octet -> (the node that its eight bits lead to, the octets that they complete). Empty until the first
            one is needed; None for those that were not needed yet.
        padding: A string may end here: at most seven bits, all ones, follow the last symbol.
        steps: Like the entries, but for four bits, and never dropped. None for the end-of-string symbol.
        symbol: Of a leaf; None for the end-of-string symbol.
    """

    __slots__ = ("children", "entries", "padding", "steps", "symbol")

    def __init__(self) -> None:
        self.children: list[_Node] = []
        self.entries: list[tuple[_Node, bytes] | None] = _NO_ENTRIES
        self.padding = False
        self.steps: list[tuple[_Node, bytes] | None] = []
        self.symbol: bytes | None = None

    def make_entry(self, octet: int) -> tuple[_Node, bytes]:
        """Make the entry of *octet* from two steps.

        Raises:
            CompressionError: The bits have the end-of-string symbol.
        """
        upper = (self.steps or self._make_steps())[octet >> 4]
        if upper is not None:
            node, first = upper
            lower = (node.steps or node._make_steps())[octet & 15]
            if lower is not None:
                entry = lower if not first else (lower[0], first + lower[1])
                if len(_filled) >= _ENTRIES_MAX:
                    for full in _filled:
                        full.entries = _NO_ENTRIES
                    _filled.clear()
                _filled.append(self)
                if self.entries is _NO_ENTRIES:
                    self.entries = [None] * 256
                self.entries[octet] = entry
                return entry
        raise CompressionError("end-of-string symbol in a Huffman string (RFC 7541 section 5.2)")

    def _make_steps(self) -> list[tuple[_Node, bytes] | None]:
        self.steps = [self._step(bits) for bits in range(16)]
        return self.steps

    def _step(self, bits: int) -> tuple[_Node, bytes] | None:
        node = self
        found = b""
        for shift in (3, 2, 1, 0):
            node = node.children[bits >> shift & 1]
            if not node.children:
                if node.symbol is None:
                    return None
                found += node.symbol
                node = _root()
        return node, found


# What every node has at first; shared, so never changed.
_NO_ENTRIES: list[tuple[_Node, bytes] | None] = [None] * 256


@cache
def _codes() -> list[str]:
    """Return the code of each octet as text of 0 and 1."""
    codes = [""] * 256
    code = length = 0
    for bits, symbols in _SYMBOLS:
        code <<= bits - length
        length = bits
        for symbol in symbols:
            codes[symbol] = f"{code:0{bits}b}"
            code += 1
    return codes


@cache
def _root() -> _Node:
    """Return the root of the code's tree."""
    root = _Node()
    for symbol, code in [*enumerate(_codes()), (-1, "1" * 30)]:
        node = root
        for bit in code:
            if not node.children:
                node.children = [_Node(), _Node()]
            node = node.children[int(bit)]
        node.symbol = bytes([symbol]) if symbol >= 0 else None
    node = root
    for _ in range(8):
        node.padding = True
        node = node.children[1]
    return root


def decode(data: bytes) -> bytes:
    """Decode a string.

    Raises:
        CompressionError: The string has the end-of-string symbol, or its padding is not at most seven ones.
    """
    node = _root()
    pieces = []
    for octet in data:
        entry = node.entries[octet]
        if entry is None:
            entry = node.make_entry(octet)
        node, piece = entry
        pieces.append(piece)
    if not node.padding:
        raise CompressionError("padding of a Huffman string (RFC 7541 section 5.2)")
    return b"".join(pieces)


def encode(data: bytes) -> bytes:
    """Encode a string; the result may be longer than *data*."""
    bits = "".join(map(_codes().__getitem__, data))
    bits += "1" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big") if bits else b""
