"""What observers are told of requests that the connection itself refuses."""

from __future__ import annotations

__all__ = ["refusal_reason"]


def refusal_reason(status: int, *, in_head: bool) -> str:
    """Return the word for observers, see ``Observer.request_refused``.

    Args:
        status: What the peer is answered.
        in_head: The head was not complete.
    """
    if status == 408:
        return "head_timeout" if in_head else "body_timeout"
    return "too_large" if status in {413, 414, 431} else "malformed"
