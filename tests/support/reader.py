"""Reads one message with the pure layer alone, from pieces: by its functions, and by the RequestReader."""

from __future__ import annotations

from dataclasses import dataclass

from bridge.core.http.limits import Limits
from bridge.core.http.message import RequestHead
from bridge.core.http1.decoder import ChunkedDecoder, FixedDecoder
from bridge.core.http1.reader import RequestReader
from bridge.core.http1.request import parse_head
from bridge.errors import RemoteProtocolError

__all__ = ["Content", "Message", "Refused", "head_values", "read_content", "read_head", "read_message"]


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
