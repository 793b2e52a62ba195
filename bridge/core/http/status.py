"""Status codes: their phrases, and what follows from them for a response (RFC 9110 sections 6.4.1, 8.6 and 15)."""

from __future__ import annotations

import re
from http import HTTPStatus

from bridge.errors import LocalProtocolError

__all__ = ["HAS_NO_CONTENT", "HAS_NO_LENGTH", "PHRASES", "REASON", "check_status", "is_bodiless"]

PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}
"""The registered reason phrases."""

HAS_NO_CONTENT = frozenset({101, 204, 304})
"""Final statuses whose responses have no content (RFC 9110 section 6.4.1)."""

HAS_NO_LENGTH = frozenset({101, 204})
"""Final statuses whose responses must not declare a length either (RFC 9110 section 8.6)."""

# reason-phrase (RFC 9112 section 4).
REASON = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")


def is_bodiless(method: bytes, status: int) -> bool:
    """Tell whether the response with *status* to a request with *method* has no content by definition."""
    return method == b"HEAD" or status in HAS_NO_CONTENT


def check_status(status: object, reason: bytes = b"") -> int:
    """Return *status* as a plain int.

    Raises:
        LocalProtocolError: It is no three-digit number, or *reason* has control characters.
    """
    if not isinstance(status, int) or not 100 <= status <= 999:
        raise LocalProtocolError(f"status {status!r} is not a number from 100 to 999")
    if REASON.fullmatch(reason) is None:
        raise LocalProtocolError(f"illegal reason phrase {reason[:80]!r}")
    return int(status)
