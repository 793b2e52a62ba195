"""Encoders of responses, heads and content (RFC 9112 sections 4, 6 and 7): the counterpart of the decoders.

:func:`encode_head` returns a head and the encoder of its content. A whole response of the usual kind needs no encoder:
:func:`encode_whole` returns all of it. Every byte of a response's framing is made in this module.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from bridge.core.http.fields import NO_LENGTH, Fields, encode_fields, without_length
from bridge.core.http.status import HAS_NO_CONTENT, HAS_NO_LENGTH, PHRASES, check_status, status_text
from bridge.errors import LocalProtocolError

if TYPE_CHECKING:
    from bridge.core.http.fields import Special
    from bridge.core.http.message import RequestLine, ResponseHead

__all__ = [
    "BODILESS",
    "CONTINUE",
    "ChunkedEncoder",
    "CloseEncoder",
    "Encoder",
    "FixedEncoder",
    "WrongLength",
    "chunk",
    "encode_head",
    "encode_interim",
    "encode_last",
    "encode_refusal",
    "encode_start",
    "encode_whole",
    "raw_status",
    "says_close",
    "status_line",
]

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
LAST_CHUNK: Final = b"0\r\n\r\n"

_STATUS_LINES = {status: b"HTTP/1.1 %d %s\r\n" % (status, phrase) for status, phrase in PHRASES.items()}

# The status, and the option close, in a response that the application frames itself.
_RAW_STATUS = rb"HTTP/1\.[01] ([1-9][0-9]{2})[ \r]"
_RAW_CLOSE = rb"(?i)\r\nconnection:[ \t]*(?:[^\r\n]*,[ \t]*)?close[ \t]*[,\r]"


# --- heads -----------------------------------------------------------------------------------------------------------


def status_line(status: int, reason: bytes = b"") -> bytes:
    """Return a status line with its CRLF (RFC 9112 section 4).

    Args:
        status: 100 to 999.
        reason: The reason phrase; empty for the registered one.

    Raises:
        LocalProtocolError: The status is out of range, or the reason has control characters.
    """
    if not reason:
        line = _STATUS_LINES.get(status)
        if line is not None:
            return line
    return b"HTTP/1.1 %d %s\r\n" % (check_status(status, reason), reason)


def encode_interim(status: int, fields: Fields) -> bytes:
    """Return an interim response (RFC 9110 section 15.2).

    Args:
        status: 100 to 199.
        fields: (name, value) pairs of bytes.

    Raises:
        LocalProtocolError: The status or a field is illegal.
    """
    return status_line(status) + encode_fields(fields) + b"\r\n"


def encode_refusal(status: int, default_fields: bytes, *, own_fields: Fields = (), head_only: bool = False) -> bytes:
    """Return the server's own answer to a fault: its content is the status as text, and it ends the connection.

    Args:
        status: 400 to 599.
        default_fields: The field lines that every response starts with.
        own_fields: (name, value) pairs of bytes that are sent, too.
        head_only: Declare the content but do not send it, as for HEAD.
    """
    text = status_text(status)
    return b"%b%b%bcontent-type: text/plain; charset=utf-8\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b" % (
        status_line(status),
        default_fields,
        encode_fields(own_fields),
        len(text),
        b"" if head_only else text,
    )


def encode_start(head: ResponseHead, default_fields: bytes) -> bytes:
    """Return the encoded head of a plain response, and keep it in *head* for the next time it is sent.

    Without a declared length, Content-Length and the blank line are missing at its end.
    """
    end = b"\r\n" if head.length >= 0 else b""
    line = _STATUS_LINES.get(head.status)
    if head.reason or line is None:
        line = status_line(head.status, head.reason)
    start = b"".join((line, default_fields, head.block, end))
    head.encoded = default_fields, start  # one assignment of both: servers in several threads share heads
    return start


def encode_whole(head: ResponseHead, default_fields: bytes, data: bytes) -> bytes:
    """Return a whole response.

    Args:
        head: A plain head, which declares the length of *data* or no length.
        default_fields: The field lines that every response starts with.
        data: All of the content.
    """
    known, start = head.encoded
    if known is not default_fields:  # the clock makes new lines when the date changes, once a second
        start = encode_start(head, default_fields)
    if head.length >= 0:
        return start + data
    return b"%bcontent-length: %d\r\n\r\n%b" % (start, len(data), data)


def encode_last(head: ResponseHead, data: bytes, *, head_only: bool = False) -> bytes:
    """Return a whole response that ends its connection, without the fields that every response starts with.

    Args:
        head: A plain head that declares no length.
        data: All of the content.
        head_only: Declare the content but do not send it, as for HEAD.
    """
    start = b"%b%bconnection: close\r\n" % (status_line(head.status, head.reason), head.block)
    return b"%bcontent-length: %d\r\n\r\n%b" % (start, len(data), b"" if head_only else data)


def encode_head(
    head: ResponseHead, line: RequestLine, default_fields: bytes, size: int, *, last: bool, close: bool
) -> tuple[bytes, Encoder, bool]:
    """Return the encoded head, the encoder of its content, and whether HTTP ends with this response, as with a 101.

    The content is framed by the first of these that applies:

    1. A response that has no content by definition: it may only declare a length (RFC 9110 section 6.4.1).
    2. The application has declared a length.
    3. All of the content is known: its length is declared.
    4. The client understands chunks, that is, speaks HTTP/1.1.
    5. The content ends with the connection.

    Args:
        head: The response's head.
        line: The request line that it answers.
        default_fields: The field lines that every response starts with.
        size: Bytes of the first content.
        last: The first content is all of it.
        close: The connection ends with this response, even if the response does not ask for it.
    """
    special = head.special
    length = head.length
    block = head.block
    framing = b""
    encoder: Encoder
    close = close or (special is not None and special.close)
    if line.method == b"HEAD" or head.status in HAS_NO_CONTENT:
        if length != NO_LENGTH and head.status in HAS_NO_LENGTH:
            block = b"".join(without_length(head.lines))
        encoder = BODILESS
    elif length != NO_LENGTH:
        encoder = FixedEncoder()
        encoder.length = length
        encoder.sent = 0
    elif last:
        encoder = FixedEncoder()
        encoder.length = size
        encoder.sent = 0
        framing = b"content-length: %d\r\n" % size
    elif line.version == b"1.1":
        encoder = ChunkedEncoder()
        framing = b"transfer-encoding: chunked\r\n"
    else:
        encoder = CloseEncoder()
        close = True
    end = _connection_lines(special, head.status, line, close)
    start = status_line(head.status, head.reason)
    return b"".join((start, default_fields, block, framing, end)), encoder, close or head.status == 101


def _connection_lines(special: Special | None, status: int, line: RequestLine, close: bool) -> bytes:
    """Return the end of the head: Connection and Upgrade where they are needed, and the blank line."""
    upgrade = b"" if special is None else special.upgrade
    if status == 101:
        return b"connection: upgrade\r\nupgrade: %b\r\n\r\n" % upgrade
    if status == 426 and upgrade:
        return b"connection: upgrade%b\r\nupgrade: %b\r\n\r\n" % (b", close" if close else b"", upgrade)
    if line.version == b"1.0":  # closes by default: to persist, both sides have to say so (RFC 9112 section 9.3)
        return b"\r\n" if close else b"connection: Keep-Alive\r\n\r\n"
    return b"connection: close\r\n\r\n" if close else b"\r\n"


def raw_status(data: bytes) -> int:
    """Return the status of a response that the application frames itself and that begins with *data*; 0 for none."""
    match = re.match(_RAW_STATUS, data)
    return 0 if match is None else int(match[1])


def says_close(data: bytes) -> bool:
    """Tell whether the head in *data*, which the application has framed itself, says ``Connection: close``."""
    if b"lose" not in data and b"LOSE" not in data:  # saves the search in nearly all heads
        return False
    end = data.find(b"\r\n\r\n")
    return re.search(_RAW_CLOSE, data if end < 0 else data[: end + 2]) is not None


# --- content ---------------------------------------------------------------------------------------------------------


class WrongLength(LocalProtocolError):
    """The content is longer or shorter than its Content-Length.

    Attributes:
        fits: What may still be sent.
        complete: ``fits`` reaches the declared length, so the client has a whole message.
    """

    def __init__(self, message: str, fits: bytes, complete: bool) -> None:
        super().__init__(message)
        self.fits = fits
        self.complete = complete


def chunk(data: bytes) -> bytes:
    """Return *data*, which is not empty, as one chunk (RFC 9112 section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


class FixedEncoder:
    """Encodes content of a declared length. The caller sets ``length`` and ``sent`` after construction.

    Attributes:
        length: The declared length in bytes.
        sent: Bytes that were encoded.
        delimits: The framing shows where the content ends, so the client notices when some is missing.
    """

    # It has no __init__, for the reason that message.request_line gives.

    __slots__ = ("length", "sent")

    delimits = True
    length: int
    sent: int

    def encode(self, data: bytes, last: bool) -> bytes:
        """Return *data* as it is sent.

        Args:
            data: Content.
            last: The content ends with *data*.

        Raises:
            WrongLength: The content is longer than declared, or with *last* shorter.
        """
        before = self.sent
        total = before + len(data)
        if total > self.length:
            self.sent = self.length
            room = bytes(data[: self.length - before])
            raise WrongLength(f"content longer than its Content-Length of {self.length} bytes", room, True)
        self.sent = total
        if last and total < self.length:
            message = f"content of {total} bytes, its Content-Length is {self.length}"
            raise WrongLength(message, data, False)
        return data


class ChunkedEncoder:
    """Encodes content in chunks (RFC 9112 section 7.1)."""

    __slots__ = ()

    delimits = True
    length = NO_LENGTH

    def encode(self, data: bytes, last: bool) -> bytes:
        """Return *data* as a chunk; with *last*, the last chunk follows it."""
        if last:
            return b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if data else LAST_CHUNK
        return b"%x\r\n%b\r\n" % (len(data), data) if data else b""

    def parts(self, data: bytes, last: bool) -> list[bytes]:
        """Return the parts that :meth:`encode` would join, so that large *data* is not copied; it is not empty."""
        return [b"%x\r\n" % len(data), data, b"\r\n0\r\n\r\n" if last else b"\r\n"]

    def end(self, trailers: bytes) -> bytes:
        """Return the last chunk with a trailer section (RFC 9112 section 7.1.2)."""
        return b"0\r\n%b\r\n" % trailers


class CloseEncoder:
    """Passes on content that ends with the connection: for HTTP/1.0, and where the application frames the response."""

    __slots__ = ()

    delimits = False
    length = NO_LENGTH

    def encode(self, data: bytes, last: bool) -> bytes:
        """Return *data*."""
        return data


class BodilessEncoder:
    """Drops the content of responses that have none: to HEAD, and 101, 204, 304 (RFC 9110 section 6.4.1)."""

    __slots__ = ()

    delimits = True
    length = NO_LENGTH

    def encode(self, data: bytes, last: bool) -> bytes:
        """Drop *data*."""
        return b""


Encoder = FixedEncoder | ChunkedEncoder | CloseEncoder | BodilessEncoder

BODILESS: Final = BodilessEncoder()
"""The only BodilessEncoder: it has no state."""
