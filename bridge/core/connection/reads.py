"""How much transports read from a socket at once.

asyncio's read 256 KiB by default, from every socket that has something, in one turn of the loop: a thousand clients
with small chunks make it 110 to 170 ms, before anything could be put off (see ``turns``). With 16 KiB it is 41 to
56 ms, in six runs of the loop's turns alone. Large content goes faster in large pieces, so connections that receive
some get them. bridge's own transports for TLS have the same number. uvloop's read into one buffer, and have none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

__all__ = ["read_little", "read_much"]

_LITTLE, _MUCH = 16384, 262144


def read_little(transport: asyncio.BaseTransport) -> None:
    """Read at most 16 KiB at once."""
    if hasattr(transport, "max_size"):
        transport.max_size = _LITTLE


def read_much(transport: asyncio.BaseTransport) -> None:
    """Read as much at once as asyncio does by default."""
    if hasattr(transport, "max_size"):
        transport.max_size = _MUCH
