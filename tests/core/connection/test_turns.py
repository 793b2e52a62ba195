"""What many clients send in one turn of the loop is shared between them, whatever it is."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from itertools import pairwise

import pytest

from bridge.core.connection.turns import UNITS_PER_TURN, Turns
from bridge.core.connection.websocket import WebSocketConnection, WebSocketOptions
from tests.core.connection.test_websocket_connection import HEAD, Peer, frame
from tests.support.faults import application_errors
from tests.support.link import GET, Link, Recorder, ok
from tests.support.manualloop import ManualLoop

CHUNKED = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def each_turn(loop: ManualLoop, count: Callable[[], int], end: int) -> list[int]:
    """Return what *count* has grown by in each turn, until it is *end*."""
    seen = [count()]
    for _ in range(10_000):
        loop.turn()
        seen.append(count())
        if seen[-1] == end:
            return [after - before for before, after in pairwise(seen)]
    raise AssertionError(f"only {seen[-1]} of {end}")


def end(loop: ManualLoop, clients: Sequence[Link | Peer]) -> None:
    """End the connections; they have broken no rule of a transport."""
    for client in clients:
        loop.call(client.transport.abort)
        assert client.transport.faults == []
        client.clock.stop()


# --- the units --------------------------------------------------------------------------------------------------------


class Client:
    """Has *work* units to do."""

    def __init__(self, turns: Turns, work: int, done: list[tuple[str, int]], name: str) -> None:
        self.turns = turns
        self.work = work
        self.done = done
        self.name = name

    def go_on(self) -> None:
        if self.turns.left <= 0:
            self.turns.later(self.go_on, begun=False)
            return
        floor = self.turns.left - self.turns.slice if self.turns.crowded else 0
        units = 0
        while self.work:
            self.work -= 1
            units += 1
            self.turns.left -= 1
            if self.turns.left <= floor:
                break
        self.done.append((self.name, units))
        if self.work:
            self.turns.later(self.go_on, begun=True)


def test_a_loop_has_one_count(loop: ManualLoop) -> None:
    assert Turns.of(loop) is Turns.of(loop)
    other = ManualLoop()
    assert Turns.of(other) is not Turns.of(loop)
    other.close()


def test_who_is_alone_may_use_a_whole_turn(loop: ManualLoop) -> None:
    done: list[tuple[str, int]] = []
    turns = Turns(loop, 1000)
    Client(turns, 3000, done, "a").go_on()
    assert done == [("a", 1000)]
    grown = each_turn(loop, lambda: sum(units for _, units in done), 3000)
    assert max(grown) <= 875 + 64  # the rest is for who comes in this turn
    loop.settle()
    assert not turns.crowded
    left = turns.left
    loop.settle()
    assert turns.left == left  # nobody has asked for more


def test_a_turn_never_has_more_than_its_units(loop: ManualLoop) -> None:
    done: list[tuple[str, int]] = []
    turns = Turns(loop, 1000)
    for number in range(50):
        loop.call_soon(Client(turns, 300, done, str(number)).go_on)
    grown = each_turn(loop, lambda: sum(units for _, units in done), 50 * 300)
    assert max(grown) <= 1000 + 64
    assert max(grown[2:]) <= 875 + 64  # of those who have begun
    assert len(grown) <= 50 * 300 / 800  # and nearly all of these are used


def test_who_has_little_to_do_waits_for_nobody_with_much(loop: ManualLoop) -> None:
    done: list[tuple[str, int]] = []
    turns = Turns(loop, 1000)
    for number in range(50):
        Client(turns, 10_000, done, str(number)).go_on()
    for _ in range(20):
        loop.turn()
    small = Client(turns, 1, done, "small")
    loop.call_soon(small.go_on)
    for _ in range(3):
        loop.turn()
    assert ("small", 1) in done


def test_who_has_little_to_do_goes_before_all_who_have_done_nothing(loop: ManualLoop) -> None:
    turns = Turns(loop, 1000)
    done: list[str] = []

    def work(name: str, units: int) -> Callable[[], None]:
        def go_on() -> None:
            done.append(name)
            turns.left -= units

        return go_on

    for _ in range(50):
        turns.later(work("much", 100), begun=False)
    turns.later(work("little", 1), begun=False, little=True)
    loop.turn()
    assert done[0] == "little"
    assert done.count("much") < 10
    for _ in range(60):
        turns.later(work("little", 100), begun=False, little=True)
    turns.later(work("begun", 1), begun=True)
    loop.turn()
    assert "begun" in done  # those that have begun keep a part of each turn
    loop.settle()
    assert len(done) == 112


def test_one_that_fails_does_not_keep_the_others(loop: ManualLoop) -> None:
    done: list[int] = []
    turns = Turns(loop)
    turns.later(lambda: 1 // 0, begun=False)  # type: ignore[arg-type,return-value]  # what it returns is not used
    turns.later(lambda: done.append(1), begun=False)
    turns.later(lambda: done.append(2), begun=True)
    with application_errors(ZeroDivisionError):
        loop.settle()
    assert done == [1, 2]


# --- what clients send ------------------------------------------------------------------------------------------------


def test_who_waits_for_its_turn_is_not_read(loop: ManualLoop) -> None:
    links = [Link(Recorder(on_finish=ok), loop=loop) for _ in range(3)]
    content = b"1\r\na\r\n" * 2000
    for link in links:
        link.transport.peer_sends(CHUNKED + content)
    loop.turn()
    loop.turn()
    assert [link.transport.is_reading() for link in links].count(False) >= 1
    for link in links:
        link.transport.peer_sends(b"0\r\n\r\n")
    loop.settle()
    assert all(link.transport.is_reading() for link in links)
    assert [link.response().status for link in links] == [200] * 3
    end(loop, links)


def test_small_chunks_of_many_connections(loop: ManualLoop) -> None:
    links = [Link(Recorder(), loop=loop) for _ in range(40)]
    for link in links:
        link.send(CHUNKED)
    for link in links:
        loop.call_soon(link.transport.peer_sends, b"1\r\na\r\n" * 2000 + b"0\r\n\r\n")
    grown = each_turn(loop, lambda: sum(len(link.told[0].data) for link in links), 40 * 2000)
    assert max(grown) <= UNITS_PER_TURN
    loop.settle()
    for link in links:
        assert link.told[0].calls[-1] == "finish"
    end(loop, links)


def test_a_plain_request_beside_small_chunks(loop: ManualLoop) -> None:
    links = [Link(Recorder(), loop=loop) for _ in range(40)]
    good = Link(Recorder(on_finish=ok), loop=loop)
    for link in links:
        loop.call_soon(link.transport.peer_sends, CHUNKED + b"1\r\na\r\n" * 6_000)
    for _ in range(10):
        loop.turn()
    loop.call_soon(good.transport.peer_sends, GET)
    for _ in range(6):
        loop.turn()
    assert good.response().status == 200
    end(loop, [*links, good])


def test_pipelined_requests_of_many_connections(loop: ManualLoop) -> None:
    links = [Link(Recorder(on_finish=ok), loop=loop) for _ in range(20)]
    for link in links:
        loop.call_soon(link.transport.peer_sends, GET * 200)
    grown = each_turn(loop, lambda: sum(len(link.told) for link in links), 20 * 200)
    assert max(grown) <= 20 + UNITS_PER_TURN / 50 + 20
    end(loop, links)


def test_the_rest_of_a_head_and_an_end_that_wait_for_their_turn(loop: ManualLoop) -> None:
    link = Link(Recorder(on_finish=ok), loop=loop)
    link.send(GET[:10])
    turns = Turns.of(loop)
    turns.left = 0  # others have used it up
    turns.crowded = True
    link.transport.peer_sends(GET[10:])
    link.transport.peer_sends_eof()
    turns.crowded = False
    turns.later(lambda: None, begun=True)
    loop.settle()
    assert link.response().status == 200
    end(loop, [link])


def bomb(size: int) -> bytes:
    coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    return (coder.compress(bytes(size)) + coder.flush(zlib.Z_SYNC_FLUSH))[:-4]


FLOODS = {
    "pings": frame(0x89) * 5000,
    "pongs": frame(0x8A) * 5000,
    "fragments": frame(0x02) + frame(0x00) * 5000,
    "pings in a message": frame(0x01) + frame(0x89, b"x") * 5000,
    "inflated": frame(0xC2, bomb(10 << 20)) * 2,
}


@pytest.mark.parametrize("closed", [False, True], ids=["open", "after our close"])
@pytest.mark.parametrize("flood", FLOODS)
def test_a_plain_request_beside_websockets(flood: str, closed: bool, loop: ManualLoop) -> None:
    peers = [Peer(loop, options=WebSocketOptions(max_control_frames=None)) for _ in range(20)]
    good = Link(Recorder(on_finish=ok), loop=loop)
    for peer in peers:
        if b"deflate" in HEAD or flood != "inflated":
            connection = peer.open()
        else:
            peer.send(HEAD[:-2] + b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
            connection = peer.delegate.connection
        if closed:
            connection.close()
        peer.got()
    for peer in peers:
        loop.call_soon(peer.transport.peer_sends, FLOODS[flood])
    turns = Turns.of(loop)
    lowest = []
    for _ in range(10):
        loop.turn()
        lowest.append(turns.left)
    assert turns.crowded  # it takes longer than that
    assert min(lowest) >= -10_000  # the message that is complete counts at its end
    loop.call_soon(good.transport.peer_sends, GET)
    for _ in range(6 if flood != "inflated" else 20):
        loop.turn()
    assert good.response().status == 200
    end(loop, [*peers, good])


def test_pings_of_one_piece_have_one_write(loop: ManualLoop) -> None:
    peer = Peer(loop)
    peer.open()
    written: list[bytes] = []
    connection = peer.delegate.connection
    connection.write_frame = written.append
    peer.send(b"".join(frame(0x89, b"%d" % number) for number in range(10)))
    assert written == [b"".join(b"\x8a\x01%d" % number for number in range(10))]  # each, as long as they are few
    written.clear()
    peer.send(frame(0x89, b"a") * 100 + frame(0x89, b"z"))
    assert len(written) == 1 or len(written) == 2  # a slice of a turn has a write
    assert written[-1].endswith(b"\x8a\x01z")
    assert sum(map(len, written)) <= 3 * 16 * 2


@pytest.mark.parametrize("first", [0x89, 0x8A])
def test_control_frames_have_a_budget(loop: ManualLoop, first: int) -> None:
    peer = Peer(loop, options=WebSocketOptions(max_control_frames=20))
    connection = peer.open()
    peer.send(frame(first) * 20)
    assert connection.open
    loop.advance(1.5)
    peer.send(frame(first) * 20)
    assert connection.open
    peer.got()
    peer.send(frame(first))
    assert (connection.open, connection.close_code) == (False, 1008)
    assert b"more than 20 control frames in a second" in peer.got()


def test_what_has_come_before_the_loss_is_read_in_its_turn(loop: ManualLoop) -> None:
    peer = Peer(loop)
    connection: WebSocketConnection = peer.open()
    turns = Turns.of(loop)
    turns.left = 0

    def lose() -> None:
        peer.transport.peer_sends(frame(0x81, b"last") + frame(0x88, b"\x03\xe8"))
        connection.connection_lost(None)

    loop.call(lose)
    assert connection.take() == "last"
    assert connection.close_code == 1000
