"""The states of reading and of writing; ``docs/architecture.md`` has the same table, and a test compares them.

The members are also bound to module names: a global look-up costs a tenth of an enum attribute, and these are
compared several times a request.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["CLOSED", "CONTENT", "DISCARD", "DONE", "HEAD", "UPGRADED", "State"]


class State(Enum):
    """Where reading a request, or writing its response, has come to."""

    HEAD = "head"
    """Reading: a request head is awaited or incomplete. Writing: no byte of the final response was sent."""
    CONTENT = "content"
    """Reading: content is expected. Writing: the head was sent."""
    DONE = "done"
    """Reading: the request is complete, its response is not. Writing: the response is complete."""
    DISCARD = "discard"
    """Reading: the last response was sent; what still arrives is thrown away for a moment (RFC 9112 section 9.6)."""
    UPGRADED = "upgraded"
    """Reading: the bytes are another protocol's."""
    CLOSED = "closed"
    """Reading: nothing more is read. Writing: nobody waits for the response."""


HEAD = State.HEAD
CONTENT = State.CONTENT
DONE = State.DONE
DISCARD = State.DISCARD
UPGRADED = State.UPGRADED
CLOSED = State.CLOSED
