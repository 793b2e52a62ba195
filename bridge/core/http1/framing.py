"""How long a request's content is: a pure decision over a few field values (RFC 9112 section 6)."""

from __future__ import annotations

from bridge.core.http.fields import DIGITS
from bridge.errors import FramingError, LimitExceeded

__all__ = ["CONTENT_LENGTH_DIGITS", "request_content_length"]

# More digits than any content has; converting very long digit strings costs quadratic time.
CONTENT_LENGTH_DIGITS = 18


def request_content_length(version: bytes, codings: list[bytes], lengths: list[bytes]) -> int | None:
    """Return a request's content length in bytes, or None if the content is chunked (RFC 9112 section 6.3).

    Args:
        version: ``b"1.0"`` or ``b"1.1"``.
        codings: The values of the Transfer-Encoding field lines.
        lengths: The values of the Content-Length field lines.

    Raises:
        FramingError: 400; two readers of this message could disagree about its end. This includes transfer codings
            besides chunked, for which 501 would do as well (section 6.1): to Tornado they are malformed, too.
        LimitExceeded: 413; a number with more digits than any content has.
    """
    if codings:
        # Section 6.1: a transfer coding beside a length, or from a peer that speaks 1.0, is how smuggling starts.
        if lengths or version == b"1.0":
            raise FramingError(
                "Message with both Transfer-Encoding and Content-Length, or Transfer-Encoding in HTTP/1.0"
            )
        # Nor is it read as a list, whose empty members mean nothing (RFC 9110 section 5.6.1.2): to other programs
        # "chunked," is another coding, or an empty second line the one that counts.
        if len(codings) == 1 and codings[0].strip(b" \t").lower() == b"chunked":
            return None
        raise FramingError(f"Unsupported Transfer-Encoding {codings!r:.80}")
    if not lengths:
        return 0
    if len(lengths) > 1:
        raise FramingError(f"Multiple unequal Content-Lengths, or one repeated: {lengths!r:.80}")
    if b"," in lengths[0]:
        raise FramingError(f"Multiple unequal Content-Lengths, or one repeated: {lengths!r:.80}")
    if DIGITS.fullmatch(lengths[0]) is None:
        raise FramingError(f"Only integer Content-Length is allowed: {lengths[0]!r:.80}")
    if len(lengths[0]) > CONTENT_LENGTH_DIGITS:
        raise LimitExceeded(413, f"Content-Length too long: {len(lengths[0])} digits, limit {CONTENT_LENGTH_DIGITS}")
    return int(lengths[0])
