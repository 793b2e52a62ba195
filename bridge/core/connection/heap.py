"""Gives memory that is free back to the system.

What many clients have held is freed in an order of their own. So the C library has it in pieces between others that are
in use, and keeps it: after a thousand clients it was 30 to 85 MiB. It gives pages back when it is asked to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["trim"]

_malloc_trim: Callable[[int], int] | None = None
_looked_for = False


def trim() -> None:
    """Give free pages back; without effect where the C library cannot. It takes about a millisecond for 20 MiB."""
    global _malloc_trim, _looked_for
    if not _looked_for:
        _looked_for = True
        try:
            import ctypes  # heavy, and few processes need it

            _malloc_trim = ctypes.CDLL(None).malloc_trim  # glibc's own
        except (ImportError, AttributeError, OSError, TypeError):  # another C library, or another system
            return
    if _malloc_trim is not None:
        _malloc_trim(0)
