"""The one place that looks for compiled functions which may stand in for Python functions.

It imports nothing of bridge, so that every protocol and adapter may ask it. Each function here returns a compiled
function, or None where it is not installed: the caller then takes its own Python function, whose results are the same.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["find_apply_mask"]


def find_apply_mask() -> Callable[[bytes | bytearray | memoryview, bytes], bytes] | None:
    """Return the function of the ``websockets`` distribution that XORs data with a repeated key of four bytes.

    Importing it takes 24 ms: call this when the first masked frame has come.
    """
    try:
        from websockets.speedups import apply_mask
    except ImportError:
        return None
    return apply_mask
