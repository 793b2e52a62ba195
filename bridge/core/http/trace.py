"""The field traceparent (W3C Trace Context, level 2, section 3.2)."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["parse_traceparent"]

_TRACEPARENT = re.compile(rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")


def parse_traceparent(fields: Iterable[tuple[bytes, bytes]]) -> tuple[str, str] | None:
    """Return the trace id and the parent id of a request; None unless it has exactly one valid traceparent field.

    Args:
        fields: (name, value) pairs with names in lower case.
    """
    found = [value for name, value in fields if name == b"traceparent"]
    match = _TRACEPARENT.fullmatch(found[0]) if len(found) == 1 else None
    if match is None or (found[0].startswith(b"00") and len(found[0]) != 55):  # version 00 has four parts
        return None
    return match[1].decode("ascii"), match[2].decode("ascii")
