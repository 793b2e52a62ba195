"""What observers and the log are told of requests that the connection itself refuses."""

from __future__ import annotations

__all__ = ["refusal_message", "refusal_reason"]

_TOO_LARGE = frozenset({413, 414, 431})


def refusal_message(status: int, sender: str, fault: object) -> str:
    """Return the line for the log.

    Args:
        status: What the peer is answered.
        sender: The peer, in words.
        fault: What is wrong, in words.
    """
    if status == 408:
        return f"{fault} from {sender}"
    if status == 431:  # programs for Tornado, and its own tests, expect its words in front
        return f"Unsatisfiable read, HTTP message beyond a limit from {sender}: {fault}"
    if status in _TOO_LARGE:
        return f"HTTP message beyond a limit from {sender}: {fault}"
    if status in {417, 501, 505}:
        return f"Unsupported HTTP message from {sender}: {fault}"
    return f"Malformed HTTP message from {sender}: {fault}"


def refusal_reason(status: int, *, in_head: bool) -> str:
    """Return the word for observers, see ``Observer.request_refused``.

    Args:
        status: What the peer is answered.
        in_head: The head was not complete.
    """
    if status == 408:
        return "head_timeout" if in_head else "body_timeout"
    return "too_large" if status in _TOO_LARGE else "malformed"
