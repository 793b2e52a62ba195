"""Whether a server lives, has started and is ready: conditions, and the answers to probes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bridge.operations.messages import Answer

__all__ = ["Condition", "probe"]


class Condition(NamedTuple):
    """One condition.

    Attributes:
        name: A word.
        holds: Whether it holds.
        detail: The reason, in a few words.
    """

    name: str
    holds: bool
    detail: str


def probe(conditions: Sequence[Condition], otherwise: str, *, verbose: bool = False) -> Answer:
    """Return 200 if all conditions hold, and 503 otherwise.

    Args:
        conditions: The conditions, the most important first.
        otherwise: What the server is if they do not hold, such as ``not ready``.
        verbose: List all conditions.
    """
    failed = [condition for condition in conditions if not condition.holds]
    text = f"{otherwise}: {', '.join(condition.detail for condition in failed)}\n" if failed else "ok\n"
    if verbose:
        lines = [f"[{'+' if c.holds else '-'}] {c.name}: {c.detail}\n" for c in conditions]
        text = "".join(lines) + text
    return Answer(503 if failed else 200, text.encode(), fields=((b"cache-control", b"no-store"),))
