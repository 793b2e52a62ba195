"""The order in which streams send (RFC 9218): urgency, and turns for those that may be sent in parallel."""

from __future__ import annotations

import re
from typing import Final

from bridge.core.http.cache import remember

__all__ = ["DEFAULT_PRIORITY", "parse_priority"]

Priority = tuple[int, bool]

DEFAULT_PRIORITY: Final[Priority] = (3, True)
"""Urgency and whether incremental, of a request that says nothing.

By RFC 9218 section 4.2 it would not be incremental. But behind a reverse proxy all requests of a connection belong to
different people, who should not wait for each other.
"""

_MEMBER = re.compile(rb"[ \t]*(?:u=([0-7])|(i)(?:=\?([01]))?)(?:[ \t]*;[^,]*)?[ \t]*")
# Values seldom differ: a browser sends about eight of them.
_KNOWN_MAX = 64
_KNOWN_LENGTH_MAX = 32
_known: dict[bytes, Priority] = {}


def parse_priority(value: bytes) -> Priority:
    """Return urgency (0 is sent first, 7 last) and whether incremental, of a priority field's value (section 4).

    What is not understood is ignored.
    """
    priority = _known.get(value)
    if priority is None:
        urgency, incremental = 3, False
        for part in value[:256].split(b","):
            match = _MEMBER.fullmatch(part)
            if match is not None:
                if match[1]:
                    urgency = int(match[1])
                else:
                    incremental = match[3] != b"0"
        priority = urgency, incremental
        if len(value) <= _KNOWN_LENGTH_MAX:
            remember(_known, value, priority, _KNOWN_MAX)
    return priority
