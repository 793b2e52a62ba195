"""A response head that is checked once and sent any number of times."""

from __future__ import annotations

import asyncio

import pytest

from bridge.core.connection.interfaces import NULL_DELEGATE
from bridge.core.http.fields import NO_LENGTH
from bridge.core.http.message import ResponseHead
from bridge.core.httpserver import HTTPServer
from bridge.core.netutil import bind_sockets
from bridge.errors import LocalProtocolError


def test_a_length_can_be_added_to_a_copy() -> None:
    head = ResponseHead(200, [(b"a", b"b")])
    other = head.with_length(3)
    assert (head.lines, head.length, head.special) == ([b"a: b\r\n"], NO_LENGTH, None)
    assert (other.lines, other.length, other.special) == ([b"a: b\r\n", b"content-length: 3\r\n"], 3, None)
    assert (other.status, other.reason) == (200, b"")


@pytest.mark.parametrize(
    ("status", "fields", "reason"),
    [
        (100, [], b""),
        (199, [], b""),
        (1000, [], b""),
        (200, [(b"a", b"b\r\nc: d")], b""),
        (200, [(b"a:", b"b")], b""),
        (200, [], b"O\nK"),
    ],
)
def test_what_is_illegal_is_refused(status: int, fields: list[tuple[bytes, bytes]], reason: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        ResponseHead(status, fields, reason)


class Delegate:
    """Answers every request with the same head."""

    head = ResponseHead(200, [(b"x", b"y")], b"Fine")

    def start_exchange(self, exchange):
        exchange.respond_with(self.head)
        exchange.send(b"hello", True)
        with pytest.raises(LocalProtocolError, match="already"):
            exchange.respond_with(self.head)
        self.exchange = exchange
        return NULL_DELEGATE

    def on_close(self, connection):
        return None


async def test_it_is_sent_again_and_again() -> None:
    server = HTTPServer(Delegate(), date_header=False)
    (sock,) = bind_sockets(0, "127.0.0.1")
    server.add_socket(sock)
    reader, writer = await asyncio.open_connection(*sock.getsockname())
    writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    answer = await asyncio.wait_for(reader.read(), 5)
    writer.close()
    await writer.wait_closed()
    server.stop()
    await server.drain(1)
    assert answer == (
        b"HTTP/1.1 200 Fine\r\nx: y\r\ncontent-length: 5\r\n\r\nhello"
        b"HTTP/1.1 200 Fine\r\nx: y\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello"
    )
