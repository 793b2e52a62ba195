"""Status codes: their reason phrases, and which responses have content (RFC 9110 sections 6.4.1, 8.6 and 15)."""

from __future__ import annotations

import re
from http import HTTPStatus

from bridge.errors import LocalProtocolError

__all__ = ["HAS_NO_CONTENT", "HAS_NO_LENGTH", "PHRASES", "REASON", "check_status", "is_bodiless", "status_text"]

PHRASES = {status.value: status.phrase.encode() for status in HTTPStatus}
"""Status code -> registered reason phrase."""

HAS_NO_CONTENT = frozenset({101, 204, 304})
"""Final statuses whose responses have no content (RFC 9110 section 6.4.1)."""

HAS_NO_LENGTH = frozenset({101, 204})
"""Final statuses whose responses must not have a Content-Length (RFC 9110 section 8.6)."""

# reason-phrase (RFC 9112 section 4).
REASON = re.compile(rb"[\t\x20-\x7e\x80-\xff]*")


def status_text(status: int) -> bytes:
    """Return the content of the server's own answers: the status and its phrase, with a line end."""
    return b"%d %b\r\n" % (status, PHRASES.get(status, b""))


def is_bodiless(method: bytes, status: int) -> bool:
    """Tell whether the response to *method* with *status* has no content by definition (RFC 9110 section 6.4.1)."""
    return method == b"HEAD" or status in HAS_NO_CONTENT


def check_status(status: object, reason: bytes = b"") -> int:
    """Return *status* as a plain int.

    Raises:
        LocalProtocolError: *status* is not an int from 100 to 999, or *reason* has control characters.
    """
    if not isinstance(status, int) or not 100 <= status <= 999:
        raise LocalProtocolError(f"status {status!r} is not a number from 100 to 999")
    if REASON.fullmatch(reason) is None:
        raise LocalProtocolError(f"illegal reason phrase {reason[:80]!r}")
    return int(status)
