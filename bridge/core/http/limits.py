"""What a message's head may measure."""

from __future__ import annotations

__all__ = ["Limits"]


class Limits:
    """Sizes in bytes, and a count, that a message's head and chunk lines may have.

    Attributes:
        request_line: The request line without its CRLF: 414.
        field_line: One field line without its CRLF: 431.
        fields: Number of field lines in a header or trailer section: 431.
        head: The whole head, and likewise a trailer section: 431.
        chunk_extensions: All chunk extensions of one message together: 413.
    """

    __slots__ = ("chunk_extensions", "field_line", "fields", "head", "request_line")

    def __init__(
        self,
        request_line: int = 8190,
        field_line: int = 8190,
        fields: int = 100,
        head: int = 65536,
        chunk_extensions: int = 4096,
    ) -> None:
        self.request_line = request_line
        self.field_line = field_line
        self.fields = fields
        self.head = head
        self.chunk_extensions = chunk_extensions
