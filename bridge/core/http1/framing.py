"""The length of a request's content, decided from a few field values (RFC 9112 section 6).

The framing of responses is decided in :func:`bridge.core.http1.encoder.encode_head`.
"""

from __future__ import annotations

from bridge.core.http.fields import content_length
from bridge.errors import FramingError

__all__ = ["request_content_length"]


def request_content_length(version: bytes, codings: list[bytes], lengths: list[bytes]) -> int | None:
    """Return a request's content length in bytes, or None if the content is chunked (RFC 9112 section 6.3).

    Args:
        version: ``b"1.0"`` or ``b"1.1"``.
        codings: The values of the Transfer-Encoding field lines.
        lengths: The values of the Content-Length field lines.

    Raises:
        FramingError: 400; two readers of this message could disagree where it ends. Transfer codings other than
            chunked are 400, too, as in Tornado; section 6.1 would also allow 501.
        LimitExceeded: 413; the number has more digits than the length of any content.
    """
    if codings:
        # Section 6.1: request smuggling uses a transfer coding beside a length, or in HTTP/1.0.
        if lengths or version == b"1.0":
            raise FramingError(
                "Message with both Transfer-Encoding and Content-Length, or Transfer-Encoding in HTTP/1.0"
            )
        # The value has to be the single word "chunked". The grammar of lists allows empty members (RFC 9110 section
        # 5.6.1.2), but other programs take "chunked," for another coding, or read only the second of two field lines.
        if len(codings) == 1 and codings[0].strip(b" \t").lower() == b"chunked":
            return None
        raise FramingError(f"Unsupported Transfer-Encoding {codings!r:.80}")
    return content_length(lengths) if lengths else 0
