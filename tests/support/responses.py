"""Responses as a strict client reads them."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Response", "read_responses"]

STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-9][0-9]{2}) ([\t\x20-\x7e\x80-\xff]*)")
FIELD_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+): ([\t\x20-\x7e\x80-\xff]*)")


@dataclass(frozen=True)
class Response:
    """One final response.

    Attributes:
        complete: Its end was seen, by length, by the last chunk or by the end of the connection.
        chunks: The sizes of its chunks; None if it is not chunked.
        interim: The interim responses in front of it.
    """

    status: int
    reason: bytes
    fields: tuple[tuple[bytes, bytes], ...]
    content: bytes
    complete: bool
    chunks: tuple[int, ...] | None = None
    trailers: tuple[tuple[bytes, bytes], ...] = ()
    interim: tuple[tuple[int, tuple[tuple[bytes, bytes], ...]], ...] = ()

    def __getitem__(self, name: bytes) -> bytes | None:
        values = [value for key, value in self.fields if key == name]
        assert len(values) <= 1, values
        return values[0] if values else None

    @property
    def closes(self) -> bool:
        return self[b"connection"] == b"close"


def read_responses(data: bytes, methods: list[str] | None = None, *, ended: bool, cut: bool = False) -> list[Response]:
    """Return the responses in *data*; anything that is not exactly a series of responses fails.

    Args:
        data: What was received.
        methods: Of the requests; GET for those that are not named.
        ended: Nothing more will come.
        cut: The last head may be incomplete, since the connection was reset.

    Interim responses that no final one follows, since the connection was cut, are left out.
    """
    responses: list[Response] = []
    interim: list[tuple[int, tuple[tuple[bytes, bytes], ...]]] = []
    while data:
        head, separator, data = data.partition(b"\r\n\r\n")
        if not separator and cut:
            break
        assert separator, f"incomplete head {head!r}"
        first, *lines = head.split(b"\r\n")
        match = STATUS_LINE.fullmatch(first)
        assert match is not None, first
        status = int(match[1])
        fields = _fields(lines)
        if 100 <= status < 200 and status != 101:
            interim.append((status, fields))
            continue
        method = methods[len(responses)] if methods and len(responses) < len(methods) else "GET"
        names = [name for name, _ in fields]
        content, complete, chunks, trailers = b"", True, None, ()
        if status == 101:
            content, data = data, b""
        elif method == "HEAD" or status in {204, 304}:
            assert b"transfer-encoding" not in names
            assert status != 204 or b"content-length" not in names
        elif b"transfer-encoding" in names:
            assert b"content-length" not in names
            assert (b"transfer-encoding", b"chunked") in fields
            content, complete, chunks, trailers, data = _chunked(data)
        elif b"content-length" in names:
            (length,) = (int(value) for name, value in fields if name == b"content-length")
            content, data = data[:length], data[length:]
            complete = len(content) == length
        else:
            content, data, complete = data, b"", ended
        responses.append(Response(status, match[2], fields, content, complete, chunks, trailers, tuple(interim)))
        interim = []
        if not complete:
            assert not data
    return responses


def _fields(lines: list[bytes]) -> tuple[tuple[bytes, bytes], ...]:
    fields = []
    for line in lines:
        match = FIELD_LINE.fullmatch(line)
        assert match is not None, line
        fields.append((match[1].lower(), match[2]))
    return tuple(fields)


def _chunked(data: bytes) -> tuple[bytes, bool, tuple[int, ...], tuple[tuple[bytes, bytes], ...], bytes]:
    content = b""
    sizes = []
    while True:
        line, separator, rest = data.partition(b"\r\n")
        if not separator:
            return content, False, tuple(sizes), (), b""
        size = int(line, 16)
        assert line == b"%x" % size
        if size == 0:
            if rest.startswith(b"\r\n"):
                return content, True, tuple(sizes), (), rest[2:]
            block, separator, rest = rest.partition(b"\r\n\r\n")
            if not separator:
                return content, False, tuple(sizes), (), b""
            return content, True, tuple(sizes), _fields(block.split(b"\r\n")), rest
        content += rest[:size]
        if len(rest) < size + 2:
            return content, False, tuple(sizes), (), b""
        assert rest[size : size + 2] == b"\r\n"
        sizes.append(size)
        data = rest[size + 2 :]
