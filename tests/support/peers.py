"""One message as two other parsers read it, for comparison."""

from __future__ import annotations

from dataclasses import dataclass, field

import h11
import httptools

__all__ = ["PeerMessage", "read_with_h11", "read_with_httptools"]


@dataclass
class PeerMessage:
    """A whole request as a peer saw it."""

    method: bytes = b""
    target: bytes = b""
    version: bytes = b""
    fields: list[tuple[bytes, bytes]] = field(default_factory=list)
    content: bytes = b""
    keep_alive: bool = True
    rest: bytes = b""
    complete: bool = False


def read_with_h11(wire: bytes) -> PeerMessage | str | None:
    """Return the first request; a text if it is refused, None if it is incomplete."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    message = PeerMessage()
    try:
        connection.receive_data(wire)
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                message.method, message.target, message.version = event.method, event.target, event.http_version
                message.fields = list(event.headers)
            elif isinstance(event, h11.Data):
                message.content += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                message.keep_alive = connection.their_state is not h11.MUST_CLOSE
                message.rest = connection.trailing_data[0]
                return message
            else:
                return None
    except h11.RemoteProtocolError as exc:
        return str(exc)


class _Collector:
    def __init__(self) -> None:
        self.message = PeerMessage()

    def on_url(self, url: bytes) -> None:
        self.message.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.message.complete:
            self.message.fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.headers_done = True

    def on_body(self, data: bytes) -> None:
        self.message.content += data

    def on_message_complete(self) -> None:
        self.message.complete = True


def read_with_httptools(wire: bytes) -> PeerMessage | str | None:
    """Return the first request of *wire*, which must have nothing behind it; a text if it is refused."""
    collector = _Collector()
    parser = httptools.HttpRequestParser(collector)
    try:
        parser.feed_data(wire)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as exc:
        return f"{type(exc).__name__}: {exc}"
    message = collector.message
    if not message.complete:
        return None
    message.method = parser.get_method()
    message.version = parser.get_http_version().encode()
    message.keep_alive = parser.should_keep_alive()
    return message
