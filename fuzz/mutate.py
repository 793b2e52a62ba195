"""Makes inputs from those of a corpus."""

import random

__all__ = ["Mutator"]

# Octets that are special somewhere.
_OCTETS = bytes(range(0x00, 0x21)) + b"\x7f\x80\x85\xa0\xff" + b'":;,=%&/?#[]()<>@\\_-+.09azAZ'
_SIZE_MAX = 20_000


class Mutator:
    """Makes one input after the other.

    Args:
        seeds: The corpus.
        words: What may be inserted as a whole.
        source: The source of randomness.
    """

    def __init__(self, seeds: list[bytes], words: list[bytes], source: random.Random) -> None:
        self._seeds = seeds
        self._words = words
        self._random = source

    def next(self) -> bytes:
        """Return an input: a seed with one to eight changes."""
        source = self._random
        data = bytearray(source.choice(self._seeds))
        for _ in range(1 << source.randrange(4)):
            self._change(data)
        return bytes(data[:_SIZE_MAX])

    def _change(self, data: bytearray) -> None:
        source = self._random
        at = source.randrange(len(data) + 1)
        end = min(len(data), at + (1 << source.randrange(5)))
        kind = source.randrange(8)
        if kind == 0:
            data[at:at] = source.choice(self._words)
        elif kind == 1:
            data[at:end] = source.choice(self._words)
        elif kind == 2:
            data.insert(at, source.choice(_OCTETS))
        elif kind == 3:
            del data[at:end]
        elif kind == 4:
            data[at:at] = data[at:end] * (1 << source.randrange(6))
        elif kind == 5:
            other = source.choice(self._seeds)
            start = source.randrange(len(other) + 1)
            data[at:] = other[start:]
        elif at < len(data):
            data[at] = source.choice(_OCTETS) if kind == 6 else data[at] ^ (1 << source.randrange(8))
