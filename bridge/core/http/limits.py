"""The limits of a message's head."""

from __future__ import annotations

__all__ = ["Limits"]


class Limits:
    """How large a message's head and its chunk lines may be, each with the status that answers a larger one.

    Attributes:
        request_line: Bytes of the request line without its CRLF; 414.
        field_line: Bytes of one field line without its CRLF; 431.
        fields: Field lines in a header section or a trailer section; 431.
        head: Bytes of the whole head, and of a whole trailer section; 431.
        chunk_extensions: Bytes of all chunk extensions of one message together; 413.
        of_head: The first four, in the order in which the compiled parser takes them.
    """

    __slots__ = ("chunk_extensions", "field_line", "fields", "head", "of_head", "request_line")

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
        self.of_head = (request_line, field_line, fields, head)
