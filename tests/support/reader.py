"""Reads messages with the pure layer alone, from pieces: by its functions, and by the RequestReader."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.core.http.limits import Limits
from bridge.core.http.message import RequestHead
from bridge.core.http1.decoder import ChunkedDecoder, FixedDecoder
from bridge.core.http1.reader import RequestReader
from bridge.core.http1.request import parse_head
from bridge.errors import RemoteProtocolError

__all__ = [
    "Content",
    "Message",
    "Refused",
    "Request",
    "Stream",
    "head_values",
    "read_content",
    "read_head",
    "read_message",
    "read_stream",
]


@dataclass(frozen=True)
class Refused:
    """The wire was refused."""

    error: type[RemoteProtocolError]
    status: int


@dataclass(frozen=True)
class Content:
    """Content that was read to its end."""

    data: bytes
    trailers: tuple[tuple[bytes, bytes], ...]
    rest: bytes


@dataclass(frozen=True)
class Message:
    """A whole request."""

    head: tuple[object, ...]
    content: bytes
    trailers: tuple[tuple[bytes, bytes], ...]
    rest: bytes


@dataclass(frozen=True)
class Request:
    """One of several requests; *end* is how many bytes of the connection were read with it."""

    head: RequestHead
    content: bytes
    trailers: tuple[tuple[bytes, bytes], ...]
    end: int

    @property
    def values(self) -> tuple[object, ...]:
        """All of it but where it ends, to be compared."""
        return (*head_values(self.head), self.content, self.trailers)


@dataclass(frozen=True)
class Stream:
    """What a RequestReader has made of the bytes of a connection.

    Attributes:
        requests: Those that are complete.
        begun: The head and the content so far of one that is not.
        refused: Why it has ended; None if it could go on.
        rest: What it has not read.
    """

    requests: list[Request]
    begun: tuple[RequestHead, bytes] | None
    refused: Refused | None
    rest: bytes

    @property
    def values(self) -> tuple[object, ...]:
        """All of it, to be compared; which of two faults is seen first may depend on the cut."""
        begun = None if self.begun is None or self.refused else (head_values(self.begun[0]), self.begun[1])
        rest = None if self.refused else self.rest
        ends = [request.end for request in self.requests]
        return [request.values for request in self.requests], ends, begun, self.refused is not None, rest


def head_values(head: RequestHead) -> tuple[object, ...]:
    """Everything that a head says."""
    return (
        head.method,
        head.target,
        head.version,
        head.path,
        head.query,
        head.line.authority,
        head.line.method_text,
        head.line.path_text,
        head.line.version_text,
        tuple(head.fields),
        head.host,
        head.content_length,
        head.keep_alive,
        head.expect_continue,
        head.upgrade,
        head.size,
        head.line.protocol_text,
        head.line.plain,
    )


def read_head(
    pieces: list[bytes], limits: Limits | None = None, offset: int = 0
) -> tuple[RequestHead, bytes] | Refused | None:
    """Return a head and what follows it; None if it is incomplete.

    *offset* bytes of something else stand in front of it in the buffer.
    """
    buffer = bytearray(b"\r" * offset)
    scanned = 0
    for index, piece in enumerate(pieces):
        buffer += piece
        before = bytes(buffer)
        try:
            head = parse_head(buffer, offset, limits or Limits(), scanned)
        except RemoteProtocolError as exc:
            return Refused(type(exc), exc.status)
        finally:
            assert buffer == before
        if head is not None:
            return head, bytes(buffer[offset + head.size :]) + b"".join(pieces[index + 1 :])
        scanned = len(buffer) - offset
    return None


def read_content(
    reader: FixedDecoder | ChunkedDecoder, pieces: list[bytes], most: int = 65536
) -> Content | Refused | None:
    """Return content and what follows it; None if it is incomplete."""
    buffer = bytearray()
    position = 0
    found: list[bytes] = []
    for index, piece in enumerate(pieces):
        buffer += piece
        while not reader.done:
            try:
                data, moved = reader.take(buffer, position, most)
            except RemoteProtocolError as exc:
                return Refused(type(exc), exc.status)
            assert len(data) <= most
            assert position <= moved <= len(buffer)
            assert data == b"" or moved > position
            found.append(data)
            if moved == position:
                break
            position = moved
        if reader.done:
            rest = bytes(buffer[position:]) + b"".join(pieces[index + 1 :])
            return Content(b"".join(found), tuple(reader.trailers), rest)
    return None


def read_message(pieces: list[bytes], limits: Limits | None = None, most: int = 65536) -> Message | Refused | None:
    """Return a whole request and what follows it, as a RequestReader gives them; None if it is incomplete."""
    reader = RequestReader(limits or Limits())
    head: RequestHead | None = None
    found: list[bytes] = []
    trailers: tuple[tuple[bytes, bytes], ...] = ()
    for index, piece in enumerate(pieces):
        reader.feed(piece)
        try:
            if head is None:
                head = reader.next_head()
                if head is None:
                    continue
                if head.content_length != 0:
                    reader.expect_content(head.content_length)
            decoder = reader.decoder
            while decoder is not None and not decoder.done and (data := reader.next_content(most)) is not None:
                assert len(data) <= most
                found.append(data)
        except RemoteProtocolError as exc:
            return Refused(type(exc), exc.status)
        if decoder is None or decoder.done:
            if decoder is not None:
                trailers = tuple(decoder.trailers)
            rest = reader.take_rest() + b"".join(pieces[index + 1 :])
            return Message(head_values(head), b"".join(found), trailers, rest)
    return None


def read_stream(
    pieces: list[bytes],
    limits: Limits | None = None,
    most: int = 65536,
    *,
    content_limit: int | None = None,
    assign: bool = False,
) -> Stream:
    """Return all requests that a RequestReader finds, asked for everything that it has after each piece.

    Args:
        pieces: What arrives.
        limits: The reader's.
        most: The most bytes of content to ask for at once.
        content_limit: The most bytes of chunked content.
        assign: Set the buffer where it is empty, as a connection does, in place of feeding it.
    """
    reader = RequestReader(limits or Limits())
    requests: list[Request] = []
    head: RequestHead | None = None
    found: list[bytes] = []
    given = 0
    refused: Refused | None = None
    for piece in pieces:
        given += len(piece)
        if assign and not reader.buffer:
            reader.buffer = piece
        else:
            reader.feed(piece)
        try:
            while True:
                if head is None:
                    before = reader.unread
                    head = reader.next_head()
                    assert bool(reader.buffer) == bool(reader.unread)
                    if head is None:
                        assert reader.scanned == reader.unread or reader.buffer[-1:] == b"\r"
                        break
                    assert reader.scanned == 0
                    assert (before - reader.unread - head.size) in range(0, 10, 2)  # with blank lines
                    assert reader.heads == len(requests) + 1
                    if head.content_length != 0:
                        assert reader.expect_content(head.content_length, content_limit) is reader.decoder
                decoder = reader.decoder
                while decoder is not None and not decoder.done:
                    before = reader.unread
                    data = reader.next_content(most)
                    assert bool(reader.buffer) == bool(reader.unread)
                    if data is None:
                        assert reader.unread == before
                        break
                    assert type(data) is bytes
                    assert len(data) <= min(most, before - reader.unread)
                    found.append(data)
                if decoder is not None and not decoder.done:
                    break
                trailers = () if decoder is None else tuple(decoder.trailers)
                requests.append(Request(head, b"".join(found), trailers, given - reader.unread))
                reader.decoder = None
                head = None
                found = []
        except RemoteProtocolError as exc:
            refused = Refused(type(exc), exc.status)
            break
    begun = None if head is None else (head, b"".join(found))
    return Stream(requests, begun, refused, reader.take_rest())
