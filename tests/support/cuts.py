"""Ways to cut what a peer sends into the pieces in which it may arrive."""

from __future__ import annotations

import itertools
import random
import zlib
from collections.abc import Callable, Iterator

__all__ = ["CUTS", "Cut", "around_each_crlf", "at_random", "bytewise", "cut_at", "single_cuts", "whole"]

Cut = Callable[[bytes], list[bytes]]


def whole(wire: bytes) -> list[bytes]:
    return [wire]


def bytewise(wire: bytes) -> list[bytes]:
    return [wire[index : index + 1] for index in range(len(wire))]


def around_each_crlf(wire: bytes) -> list[bytes]:
    """Cut in front of, behind and within every line end, complete or not."""
    places = {place for index, octet in enumerate(wire) if octet in b"\r\n" for place in (index, index + 1)}
    return cut_at(wire, places)


def at_random(wire: bytes) -> list[bytes]:
    """Cut at places that look random and are the same in every run."""
    source = random.Random(zlib.crc32(wire))
    places = {source.randrange(len(wire) + 1) for _ in range(source.randrange(1, 12))}
    return cut_at(wire, places)


def cut_at(wire: bytes, places: set[int] | list[int]) -> list[bytes]:
    """Cut at the given offsets; there are no empty pieces."""
    ends = [0, *sorted(place for place in set(places) if 0 < place < len(wire)), len(wire)]
    return [wire[start:end] for start, end in itertools.pairwise(ends) if start < end]


def single_cuts(wire: bytes) -> Iterator[list[bytes]]:
    """Every way to cut into two pieces."""
    for place in range(1, len(wire)):
        yield [wire[:place], wire[place:]]


CUTS: list[Cut] = [whole, bytewise, around_each_crlf, at_random]
