"""The one place that looks for compiled functions which may stand in for Python functions.

It imports nothing of bridge, so that every protocol and adapter may ask it. Each function here returns a compiled
function, or None where it is not installed: the caller then takes its own Python function, whose results are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["find_apply_mask", "find_decode_fields"]

Field = tuple[bytes, bytes]


def find_apply_mask() -> Callable[[bytes | bytearray | memoryview, bytes], bytes] | None:
    """Return the function of the ``websockets`` distribution that XORs data with a repeated key of four bytes.

    Importing it takes 24 ms: call this when the first masked frame has come.
    """
    try:
        from websockets.speedups import apply_mask
    except ImportError:
        return None
    return apply_mask


def find_decode_fields() -> (
    Callable[[bytes, list[Field], int, int, int], tuple[list[Field], list[Field], int, int, bool, int] | None] | None
):
    """Return a function that decodes a field block of HTTP/2 (RFC 7541), or None.

    Its arguments: the block; the decoder's table, static and dynamic entries in one list from index 1 on, which it
    changes; the bytes and the most bytes of the dynamic table; the most bytes of the list of fields.

    It returns the fields; those of them that came as literals; how many entries were inserted; the bytes of the dynamic
    table; whether a field must never be indexed; the octets of the largest name and value that were inserted. It
    returns None, and has changed nothing, for every block that has an error, a size update, or a list that is too
    large: the caller's own function then decides.
    """
    return None
