"""A WebSocket connection over a transport without a socket, in time that is set by hand."""

from __future__ import annotations

import socket
import zlib
from collections.abc import Iterator
from typing import Any

import pytest

from bridge.core.connection.clock import Clock
from bridge.core.connection.context import ConnectionContext
from bridge.core.connection.http1 import ServerConnection
from bridge.core.connection.interfaces import NULL_DELEGATE
from bridge.core.connection.parameters import ConnectionParameters
from bridge.core.connection.websocket import WebSocketConnection, WebSocketOptions
from bridge.core.websocket.handshake import Handshake, check_handshake
from bridge.errors import ConnectionGone, LocalProtocolError
from tests.support.faketransport import FakeTransport
from tests.support.manualloop import ManualLoop

HEAD = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def frame(first: int, payload: bytes = b"") -> bytes:
    length = len(payload)
    size = bytes([0x80 | length]) if length < 126 else b"\xfe" + length.to_bytes(2, "big")
    return bytes([first]) + size + bytes(4) + payload


class Accepting:
    """Accepts every WebSocket; what is written before goes out as earlier responses would."""

    def __init__(self, options: WebSocketOptions) -> None:
        self.options = options
        self.connection: WebSocketConnection
        self.ended = 0
        self.lost: list[WebSocketConnection] = []

    def start_exchange(self, exchange: Any) -> Any:
        handshake = check_handshake(exchange.head, self.options.deflate)
        assert isinstance(handshake, Handshake)
        self.connection = WebSocketConnection.accept(exchange, handshake, self.options)
        self.connection.on_end = self._end
        self.connection.on_lost = self.lost.append
        return NULL_DELEGATE

    def _end(self) -> None:
        self.ended += 1

    def on_close(self, connection: Any) -> None:
        """Nothing is kept."""


class Peer:
    """A connection with its other end."""

    def __init__(self, loop: ManualLoop, *, tls: bool = False, options: WebSocketOptions | None = None) -> None:
        self.loop = loop
        self.clock = Clock(loop)
        self.delegate = Accepting(options or WebSocketOptions())
        context = ConnectionContext(("192.0.2.1", 1), socket.AF_INET, "http")
        self.gone: list[bool] = []  # that the server was told of the end, and whether it was one
        http = ServerConnection(
            self.delegate,
            ConnectionParameters(),
            context,
            self.clock,
            loop,
            lambda connection, taken: lambda: self.gone.append(self.transport.lost),
        )
        self.transport = FakeTransport(loop, http, tls=tls)
        loop.settle()

    def open(self, behind: bytes = b"") -> WebSocketConnection:
        self.send(HEAD + behind)
        connection = self.delegate.connection
        assert self.transport.received.startswith(b"HTTP/1.1 101 ") or self.transport.window is not None
        del self.transport.received[: self.transport.received.find(b"\r\n\r\n") + 4]
        return connection

    def send(self, data: bytes) -> None:
        self.loop.call(self.transport.peer_sends, data)

    def got(self) -> bytes:
        data = bytes(self.transport.received)
        self.transport.received.clear()
        return data


@pytest.fixture
def peer(loop: ManualLoop) -> Iterator[Peer]:
    peer = Peer(loop)
    yield peer
    loop.settle()
    assert peer.transport.faults == []
    assert peer.gone == [True] * peer.transport.lost
    if peer.transport.lost:
        assert peer.clock.budgets.unfinished.total == peer.clock.budgets.unsent.total == 0


def test_messages_both_ways(peer: Peer) -> None:
    connection = peer.open(frame(0x81, b"early"))
    assert connection.take() == "early"
    assert connection.take() is None
    peer.send(frame(0x82, b"\x00"))
    assert connection.take() == b"\x00"
    connection.send_text("hi")
    connection.send_binary(b"\x01")
    assert peer.got() == b"\x81\x02hi\x82\x01\x01"


def test_nothing_is_sent_after_the_end(peer: Peer) -> None:
    connection = peer.open()
    connection.close(4000, "bye")
    assert peer.got() == b"\x88\x05\x0f\xa0bye"
    connection.close(4001)
    for send, data in ((connection.send_text, "x"), (connection.send_binary, b"x")):
        with pytest.raises(ConnectionGone):
            send(data)  # type: ignore[operator]
    peer.send(frame(0x89) + frame(0x81, b"dropped") + frame(0x88, b"\x0f\xa0"))
    assert peer.got() == b""
    assert peer.transport.lost
    assert (connection.take(), connection.close_code, connection.close_reason) == (None, 4000, "bye")
    assert (peer.delegate.ended, peer.delegate.lost) == (0, [connection])
    connection.abort()  # there is nothing to end any more


def test_a_close_frame_that_cannot_be_made_changes_nothing(peer: Peer) -> None:
    connection = peer.open()
    with pytest.raises(LocalProtocolError):
        connection.close(1006)
    assert connection.open


def test_the_peer_has_a_time_to_answer(peer: Peer) -> None:
    connection = peer.open()
    connection.close()
    peer.loop.advance(9)
    assert not peer.transport.lost
    peer.loop.advance(3)
    assert peer.transport.aborted


def test_a_peer_that_neither_reads_nor_closes(peer: Peer) -> None:
    connection = peer.open()
    peer.transport.window = 0
    connection.send_binary(bytes(100_000))
    assert connection.write_paused
    peer.send(frame(0x89, b"1") + frame(0x89, b"2") + frame(0x88))
    assert peer.delegate.ended == 1
    assert connection.close_code == 1005
    peer.loop.advance(12)
    assert peer.transport.aborted


@pytest.mark.parametrize(
    ("wire", "code"), [(frame(0x88, b"\x03\xe8"), 1000), (b"\xff\x80", 1002)], ids=["a close frame", "a fault"]
)
def test_who_waits_for_a_peer_that_has_closed_is_told_at_once(peer: Peer, wire: bytes, code: int) -> None:
    connection = peer.open()
    peer.transport.window = 0
    connection.send_binary(bytes(100_000))
    waiting = connection.writable()
    peer.send(wire)
    assert isinstance(waiting.exception(), ConnectionGone)
    assert (connection.open, connection.close_code) == (False, code)
    peer.loop.call(peer.transport.peer_reads)
    assert peer.got().endswith(b"\x88\x02\x03\xe8" if code == 1000 else b"opcode 15")


def test_the_end_of_what_a_peer_sends_is_told_though_it_does_not_read(peer: Peer) -> None:
    connection = peer.open()
    peer.transport.window = 0
    connection.send_binary(bytes(100_000))
    waiting = connection.writable()
    peer.loop.call(peer.transport.peer_sends_eof)
    assert isinstance(waiting.exception(), ConnectionGone)
    assert (connection.open, connection.close_code) == (False, 1006)
    assert peer.transport.aborted


def test_only_the_last_ping_is_answered_to_a_peer_that_does_not_read(peer: Peer) -> None:
    connection = peer.open()
    peer.transport.window = 0
    connection.send_binary(bytes(100_000))
    peer.send(frame(0x89, b"1") + frame(0x89, b"2"))
    peer.loop.call(peer.transport.peer_reads)
    assert peer.got().endswith(bytes(8) + b"\x8a\x012")
    peer.send(frame(0x89, b"3"))
    assert peer.got().endswith(b"\x8a\x013")


def test_a_ping_that_the_peer_has_not_read_is_not_held_against_it(loop: ManualLoop) -> None:
    peer = Peer(loop, options=WebSocketOptions(ping_interval=20, ping_timeout=10))
    connection = peer.open()
    peer.transport.window = 0
    loop.advance(21)
    connection.send_binary(bytes(100_000))
    assert connection.write_paused
    loop.advance(30)
    assert connection.open  # the write timeout watches it
    loop.call(peer.transport.peer_reads)
    assert peer.got().startswith(b"\x89\x00\x82")
    loop.advance(40)
    assert connection.close_reason == "keepalive ping timeout"


def test_a_write_timeout(peer: Peer) -> None:
    connection = peer.open()
    peer.transport.window = 0
    connection.send_binary(bytes(100_000))
    for _ in range(3):  # progress
        peer.loop.advance(50)
        peer.loop.call(peer.transport.peer_reads, 10)
    assert not peer.transport.aborted
    peer.loop.advance(130)
    assert peer.transport.aborted
    assert connection.close_code == 1006


def test_pings_are_sent_and_any_answer_counts(peer: Peer) -> None:
    connection = peer.open()
    for answer in (frame(0x8A), frame(0x81, b"x"), b"\x82"):
        peer.loop.advance(22)
        assert peer.got() == b"\x89\x00"
        peer.send(answer)
    peer.loop.advance(19)
    assert connection.open
    peer.loop.advance(30)
    assert peer.got() == b"\x89\x00\x88\x18\x03\xf3keepalive ping timeout"
    assert (connection.close_code, connection.close_reason) == (1006, "keepalive ping timeout")
    assert peer.transport.lost


def test_pings_without_a_timeout_and_none_at_all(loop: ManualLoop) -> None:
    for options, count in ((WebSocketOptions(ping_timeout=None), 5), (WebSocketOptions(ping_interval=None), 0)):
        peer = Peer(loop, options=options)
        connection = peer.open()
        loop.advance(110)
        assert peer.got() == b"\x89\x00" * count
        assert connection.open
        connection.abort()
        loop.settle()


def test_the_deadline_of_pings_waits_for_the_reader(loop: ManualLoop) -> None:
    peer = Peer(loop, options=WebSocketOptions(max_queue=2))
    connection = peer.open()
    peer.send(frame(0x81, b"1") + frame(0x81, b"2") + frame(0x81, b"3"))
    peer.send(frame(0x81, b"4"))
    assert not peer.transport.is_reading()
    loop.advance(100)
    assert connection.open
    assert [connection.take(), connection.take()] == ["1", "2"]
    assert connection.take() is None  # the rest comes in the loop's next turn
    loop.settle()
    assert [connection.take(), connection.take()] == ["3", "4"]
    loop.settle()
    assert peer.transport.is_reading()
    connection.abort()


def test_a_peer_that_was_not_read_has_time_to_answer_the_last_ping(loop: ManualLoop) -> None:
    peer = Peer(loop, options=WebSocketOptions(max_queue=2, ping_interval=20, ping_timeout=10))
    connection = peer.open()
    peer.send(b"".join(frame(0x81, b"%d" % number) for number in range(3)))
    loop.advance(22)
    assert peer.got() == b"\x89\x00"
    peer.send(frame(0x81, b"3"))  # this, but what is behind it would wait in the system
    assert not peer.transport.is_reading()
    loop.advance(6)
    assert [connection.take(), connection.take()] == ["0", "1"]
    loop.settle()
    assert [connection.take(), connection.take()] == ["2", "3"]
    loop.settle()
    assert peer.transport.is_reading()
    loop.advance(6)
    assert connection.open  # its answer may be on its way only now
    loop.advance(30)
    assert not connection.open
    assert peer.got() == b"\x89\x00\x88\x18\x03\xf3keepalive ping timeout"


def test_a_fault_of_a_peer_that_goes_on_sending(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.core.connection.websocket._LINGER_MAX", 1000)
    connection = peer.open()
    peer.send(b"\x81\x00")
    assert peer.got() == b"\x88\x14\x03\xeaframe without mask"
    assert (peer.delegate.ended, connection.close_code, peer.transport.eof) == (1, 1002, True)
    peer.send(bytes(1000))
    assert not peer.transport.lost
    peer.send(b"x")
    assert peer.transport.aborted


def test_a_fault_of_a_peer_that_stays(peer: Peer) -> None:
    peer.open()
    peer.send(b"\x81\x00")
    peer.loop.advance(4)
    assert peer.transport.aborted


def test_a_fault_under_tls_closes(loop: ManualLoop) -> None:
    peer = Peer(loop, tls=True)
    peer.open()
    peer.send(b"\x81\x00")
    assert peer.got() == b"\x88\x14\x03\xeaframe without mask"
    assert peer.transport.lost
    assert peer.transport.faults == []


def test_a_fault_in_answer_to_our_close_frame(peer: Peer) -> None:
    connection = peer.open()
    connection.close()
    peer.got()
    peer.send(b"\x81\x00")
    assert (peer.got(), peer.transport.eof, connection.close_code) == (b"", True, 1000)


@pytest.mark.parametrize(
    ("behind", "code"), [(b"", 1006), (frame(0x88, b"\x03\xe9"), 1001), (b"\x81\x00", 1002), (frame(0x89), 1006)]
)
def test_what_had_come_before_the_loss_can_be_taken(loop: ManualLoop, behind: bytes, code: int) -> None:
    peer = Peer(loop, options=WebSocketOptions(max_queue=2))
    connection = peer.open()
    peer.send(b"".join(frame(0x81, b"%d" % number) for number in range(5)) + behind)
    loop.call(peer.transport.peer_resets)
    assert (connection.open, connection.close_code, peer.delegate.ended) == (False, 0, 1)
    assert [connection.take(), connection.take()] == ["0", "1"]
    arrival = connection.arrival()
    loop.settle()
    assert arrival.done()
    assert [connection.take(), connection.take()] == ["2", "3"]
    loop.settle()
    assert [connection.take(), connection.take()] == ["4", None]
    loop.settle()
    assert connection.close_code == code
    assert peer.transport.faults == []


def test_several_wait_for_messages(peer: Peer) -> None:
    connection = peer.open()
    first, second, third = (connection.arrival() for _ in range(3))
    second.cancel()
    peer.send(frame(0x81, b"x"))
    assert first.done()
    assert third.done()
    cancelled = connection.arrival()
    cancelled.cancel()
    again = connection.arrival()
    peer.loop.call(peer.transport.peer_resets)
    assert again.done()
    assert connection.take() == "x"


def test_a_peer_that_has_not_read_earlier_responses(loop: ManualLoop) -> None:
    peer = Peer(loop)
    http: Any = peer.transport.get_protocol()
    peer.transport.window = 0
    original = peer.delegate.start_exchange

    def late(exchange: Any) -> Any:
        http.writer.write(bytes(100_000))
        return original(exchange)

    peer.delegate.start_exchange = late  # type: ignore[method-assign]
    peer.send(HEAD)
    connection = peer.delegate.connection
    assert connection.write_paused
    loop.advance(130)
    assert peer.transport.aborted
    assert connection.close_code == 1006


# ---------------------------------------------------------------------- what all clients together may hold


def bomb(size: int) -> bytes:
    coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (coder.compress(bytes(size)) + coder.flush(zlib.Z_SYNC_FLUSH))[:-4]


UNFINISHED = {
    "fragments": frame(0x02, bytes(30_000)) + frame(0x00, bytes(20_000)),
    "half a frame": frame(0x82, bytes(60_000))[:50_000],
    "small fragments": frame(0x02) + frame(0x00, b"x") * 1100,
    "half a frame behind fragments": frame(0x01, b"x" * 100) + frame(0x80, bytes(60_000))[:50_000],
}


@pytest.mark.parametrize("wire", UNFINISHED.values(), ids=UNFINISHED)
def test_unfinished_messages_have_a_budget(loop: ManualLoop, wire: bytes) -> None:
    peers = [Peer(loop) for _ in range(3)]
    budget = peers[0].clock.budgets.unfinished
    budget.limit = 120_000
    connections = [peer.open() for peer in peers]
    peers[0].send(wire)
    assert budget.total >= 49_000
    budget.limit = budget.total * 5 // 2
    loop.advance(5)
    peers[1].send(wire)
    peers[2].send(frame(0x81, b"whole"))
    assert connections[2].take() == "whole"
    assert all(connection.open for connection in connections)
    peers[2].send(wire)
    assert [connection.open for connection in connections] == [False, True, True]  # the oldest
    assert connections[0].close_code == 1013
    assert peers[0].got()[2:4] == b"\x03\xf5"
    for peer in peers[1:]:
        peer.loop.call(peer.transport.abort)
    assert budget.total == 0


def test_large_messages_that_the_application_does_not_take_have_a_budget(loop: ManualLoop) -> None:
    peers = [Peer(loop) for _ in range(3)]
    budget = peers[0].clock.budgets.unfinished
    budget.limit = 500_000
    connections = []
    for peer in peers:
        peer.send(HEAD[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
        connections.append(peer.delegate.connection)
    for peer in peers[:2]:
        peer.send(frame(0xC2, bomb(200_000)))
        loop.advance(1)
    assert budget.total >= 400_000
    peers[2].send(frame(0xC2, bomb(200_000)))
    loop.advance(1)
    assert [connection.open for connection in connections] == [False, True, True]  # the oldest
    assert connections[0].close_code == 1013
    assert not connections[0].messages
    for connection in connections[1:]:
        assert len(connection.take()) == 200_000
    loop.advance(1)
    assert budget.total == 0


def test_a_message_that_is_complete_is_in_no_budget(peer: Peer) -> None:
    connection = peer.open()
    budget = peer.clock.budgets.unfinished
    peer.send(frame(0x02, bytes(30_000)))
    assert budget.total > 30_000
    peer.send(frame(0x80, bytes(10)))
    assert budget.total == 0
    assert connection.take() == bytes(30_010)


def test_a_compressed_message_counts_by_what_it_has_become(loop: ManualLoop) -> None:
    peer = Peer(loop)
    peer.send(HEAD[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
    peer.send(frame(0x42, bomb(3 << 20)))
    loop.advance(1)
    assert peer.clock.budgets.unfinished.total > 3 << 20
    peer.loop.call(peer.transport.abort)
    assert peer.clock.budgets.unfinished.total == 0


def test_a_message_that_a_fault_has_ended_is_in_no_budget(peer: Peer) -> None:
    connection = peer.open()
    peer.send(frame(0x02, bytes(30_000)) + frame(0x00, bytes(20_000)) + frame(0x81, b"x"))
    assert connection.close_code == 1002
    assert peer.clock.budgets.unfinished.total == 0


@pytest.mark.parametrize("wire", UNFINISHED.values(), ids=UNFINISHED)
def test_a_message_that_goes_on_after_the_servers_close_is_in_the_budget_until_the_end(peer: Peer, wire: bytes) -> None:
    connection = peer.open()
    peer.loop.call(connection.close)
    peer.send(wire)
    assert peer.clock.budgets.unfinished.total > 40_000
    peer.loop.call(peer.transport.peer_resets)  # the fixture looks at what is left


def test_a_message_that_was_begun_before_the_connection_was_lost_is_in_no_budget(peer: Peer) -> None:
    connection = peer.open()
    peer.send(frame(0x81, b"x") * 32 + frame(0x02, bytes(30_000)))
    peer.loop.call(peer.transport.peer_resets)
    while connection.take() is not None:
        peer.loop.settle()
    assert connection.close_code == 1006
