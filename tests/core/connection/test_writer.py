from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import socket
import sys
from typing import Any

import pytest

from bridge.core.connection.clock import NEVER, Clock
from bridge.core.connection.context import ConnectionContext
from bridge.core.connection.parameters import ConnectionParameters
from bridge.core.connection.writer import Writer
from bridge.errors import ConnectionGone
from tests.support.faketransport import FakeTransport
from tests.support.link import GET, Recorder, Told, linked, ok
from tests.support.loops import both_loops
from tests.support.manualloop import ManualLoop
from tests.support.serving import until


class Side(asyncio.Protocol):
    """A connection that only writes."""

    def __init__(self, parameters: ConnectionParameters, context: ConnectionContext, clock: Clock, loop: Any) -> None:
        self.writer = Writer(self, parameters, context, clock, loop)
        self.clock = clock
        self.stalled = 0

    def connection_made(self, transport: Any) -> None:
        self.writer.open(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.writer.close()

    def pause_writing(self) -> None:
        self.writer.pause()

    def resume_writing(self) -> None:
        self.writer.resume()

    def write_stalled(self) -> None:
        self.stalled += 1


@pytest.fixture
def side(loop: ManualLoop) -> Side:
    context = ConnectionContext(("192.0.2.1", 1), socket.AF_INET, "http")
    side = Side(ConnectionParameters(high_water=1000, write_timeout=10.0), context, Clock(loop), loop)
    transport = FakeTransport(loop, side)
    transport.window = 0
    loop.settle()
    return side


def fake(side: Side) -> FakeTransport:
    assert isinstance(side.writer.transport, FakeTransport)
    return side.writer.transport


def reads(side: Side) -> bool:
    """Let the write deadline pass; tell whether the peer is taken for one that reads."""
    before = side.stalled
    side.writer.deadline_passed(side.clock.now)
    return side.stalled == before


def test_before_and_after_the_connection_nothing_is_written(loop: ManualLoop) -> None:
    context = ConnectionContext(None, None, "http")
    side = Side(ConnectionParameters(), context, Clock(loop), loop)
    side.writer.write(b"x")
    side.writer.write_parts([b"x", b"y"])
    side.writer.watch()
    assert side.writer.deadline == NEVER
    assert not side.writer.paused


def test_parts_are_handed_over_in_order(side: Side) -> None:
    transport = fake(side)
    transport.peer_reads()
    side.writer.write(b"a")
    side.writer.write_parts([b"b", bytearray(b"c"), memoryview(b"d")])  # type: ignore[list-item]
    assert transport.received == b"abcd"


def test_what_waits_for_the_end_of_the_turn_goes_out_in_one_write_and_in_order(side: Side, loop: ManualLoop) -> None:
    transport = fake(side)
    transport.peer_reads()
    writer = side.writer
    other = Side(ConnectionParameters(), ConnectionContext(None, None, "http"), side.clock, loop)
    FakeTransport(loop, other)
    loop.settle()
    other.writer.write_at_turn_end(b"other")
    writer.write_at_turn_end(b"a")
    writer.write_at_turn_end(b"b")
    assert side.clock.unsent == [other.writer, writer]
    assert transport.received == b""
    loop.settle()
    assert (transport.received, fake(other).received) == (b"ab", b"other")
    writer.flush()  # nothing is left
    assert (transport.received, side.clock.unsent) == (b"ab", [])


@pytest.mark.parametrize(
    ("write", "data"),
    [
        (lambda writer, data: writer.write(data), b"c"),
        (lambda writer, data: writer.write(data), b"c" * 20000),
        (lambda writer, data: writer.write_parts([data[:1], data[1:]]), b"cd"),
    ],
    ids=["little", "much", "parts"],
)
def test_whatever_is_written_next_comes_behind_what_waits(
    side: Side, loop: ManualLoop, write: Any, data: bytes
) -> None:
    transport = fake(side)
    transport.peer_reads()
    side.writer.write_at_turn_end(b"ab")
    write(side.writer, data)
    assert transport.received == b"ab" + data
    loop.settle()
    assert transport.received == b"ab" + data


def test_what_waits_is_bounded(side: Side) -> None:
    transport = fake(side)
    transport.peer_reads()
    side.writer.write_at_turn_end(b"a" * 16000)
    assert transport.received == b""
    side.writer.write_at_turn_end(b"b" * 400)
    assert len(transport.received) == 16400


def test_to_a_transport_that_closes_nothing_is_handed_over(side: Side, loop: ManualLoop) -> None:
    transport = fake(side)
    transport.peer_reads()
    side.writer.write_at_turn_end(b"lost")
    transport.close()
    side.writer.flush()
    side.writer.write_at_turn_end(b"forgotten")
    side.writer.close()
    loop.settle()
    assert transport.received == b""
    assert transport.faults == []


def test_uvloop_s_transports_get_the_parts_as_they_are(side: Side) -> None:
    class Foreign:
        """As uvloop's: a transport that is nothing of asyncio's."""

        def __init__(self) -> None:
            self.parts: list[Any] = []

        def writelines(self, parts: list[bytes]) -> None:
            self.parts.append(parts)

    foreign = Foreign()
    side.writer.transport = foreign  # type: ignore[assignment]
    parts = [b"x" * 100000, b"y"]
    side.writer.write_parts(parts)
    assert foreign.parts == [parts]
    assert foreign.parts[0][0] is parts[0]


def test_the_high_water_mark_pauses_and_the_low_one_resumes(side: Side) -> None:
    transport = fake(side)
    side.writer.write(b"x" * 1000)
    assert not side.writer.paused
    assert side.writer.deadline == NEVER
    side.writer.write(b"x")
    assert side.writer.paused
    assert side.writer.deadline < NEVER
    transport.peer_reads(700)
    assert side.writer.paused
    transport.peer_reads(100)
    assert not side.writer.paused
    assert side.writer.deadline == NEVER


def test_all_who_wait_go_on_or_fail(side: Side, loop: ManualLoop) -> None:
    transport = fake(side)
    side.writer.write(b"x" * 2000)
    waiting = [side.writer.writable() for _ in range(3)]
    waiting[1].cancel()
    transport.peer_reads()
    loop.settle()
    assert [future.cancelled() for future in waiting] == [False, True, False]
    assert waiting[0].result() is None
    side.writer.wake(None)  # nobody waits any more
    transport.window = 0
    side.writer.write(b"x" * 2000)
    waiting = [side.writer.writable() for _ in range(3)]
    waiting[1].cancel()
    transport.peer_resets()
    loop.settle()
    for future in (waiting[0], waiting[2]):
        with pytest.raises(ConnectionGone):
            future.result()


def test_whoever_waits_after_the_end_is_told_at_once(side: Side, loop: ManualLoop) -> None:
    fake(side).peer_resets()
    loop.settle()
    future = side.writer.writable()
    assert future.done()
    with pytest.raises(ConnectionGone):
        future.result()
    side.writer.deadline_passed(side.clock.now)  # it may have been on its way
    assert side.stalled == 0


def test_when_idle_nothing_is_forgotten(side: Side, loop: ManualLoop) -> None:
    side.writer.write_at_turn_end(b"x" * 10)
    side.writer.on_idle()
    fake(side).peer_reads()
    loop.settle()
    assert fake(side).received == b"x" * 10


def test_of_a_transport_without_a_socket_only_its_own_buffer_is_counted(side: Side) -> None:
    transport = fake(side)
    side.writer.write(b"x" * 100)
    assert side.writer._outgoing(transport) == 100
    transport._extra.clear()  # type: ignore[attr-defined]
    side.writer.file_left = 7
    assert side.writer._outgoing(transport) == 107


def test_without_a_write_timeout_a_peer_need_not_read(loop: ManualLoop) -> None:
    context = ConnectionContext(None, None, "http")
    side = Side(ConnectionParameters(write_timeout=None), context, Clock(loop), loop)
    FakeTransport(loop, side)
    loop.settle()
    side.writer.watch()
    assert side.writer.deadline == NEVER
    assert not side.clock.watched


def test_a_mark_can_be_set_for_one_connection(side: Side, loop: ManualLoop) -> None:
    unconnected = Side(ConnectionParameters(), ConnectionContext(None, None, "http"), Clock(loop), loop)
    unconnected.writer.set_high_water(10)
    side.writer.set_high_water(10)
    side.writer.write(b"x" * 11)
    assert side.writer.paused
    assert fake(side).get_write_buffer_limits() == (2, 10)


def test_emptied_waits_until_nothing_is_left_to_be_sent(side: Side, loop: ManualLoop) -> None:
    transport = fake(side)
    loop.run_until_complete(side.writer.emptied())
    side.writer.write(b"x" * 500)
    task = loop.create_task(side.writer.emptied())
    loop.settle()
    transport.peer_reads(499)
    loop.settle()
    assert not task.done()
    transport.peer_reads(1)
    loop.settle()
    assert task.done()
    # ... and the marks are what they were
    assert transport.get_write_buffer_limits() == (250, 1000)
    side.writer.write(b"x" * 500)
    assert not side.writer.paused


def test_emptied_fails_when_the_peer_leaves(side: Side, loop: ManualLoop) -> None:
    side.writer.write(b"x" * 500)
    task = loop.create_task(side.writer.emptied())
    loop.settle()
    fake(side).peer_resets()
    loop.settle()
    with pytest.raises(ConnectionGone):
        task.result()
    with pytest.raises(ConnectionGone):
        loop.run_until_complete(side.writer.emptied())


def test_progress_is_what_left_for_the_peer_not_how_much_is_waiting(
    side: Side, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    transport = fake(side)
    side.writer.write(b"x" * 2000)
    # Nothing was read.
    assert not reads(side)
    assert side.writer.deadline == NEVER
    assert len(caplog.records) == 1
    assert "2000 bytes unsent" in caplog.text
    # Nothing was read, and more was written.
    side.writer.watch()
    side.writer.write(b"y" * 100)
    side.writer.write_parts([b"z" * 50, b"z" * 50])
    side.writer.write_at_turn_end(b"z" * 50)
    side.writer.flush()
    assert not reads(side)
    # A byte was read, and more was written than that.
    side.writer.watch()
    transport.peer_reads(1)
    side.writer.write(b"y" * 100)
    assert reads(side)
    assert side.writer.deadline < NEVER
    transport.peer_reads(1)
    side.writer.write_parts([b"y" * 100])
    assert reads(side)
    # All was read.
    transport.peer_reads()
    side.writer.watch()
    assert reads(side)


def test_a_client_that_asks_and_never_reads_costs_one_response() -> None:
    def large(told: Told) -> None:
        ok(told, b"x" * 70000)

    with linked(Recorder(on_finish=large)) as link:
        link.stop_reading()
        for _ in range(100):
            link.send(GET * 50)
        assert len(link.told) == 1
        assert link.transport.peak < 71000
        assert len(link.connection.reader.buffer) <= 65536 + len(GET) * 50
        assert not link.transport.is_reading()
        link.read(10 * 71000)
        assert 10 <= len(link.told) <= 13
        assert link.transport.peak < 2 * 71000


def test_small_responses_that_nobody_reads_are_bounded_too() -> None:
    with linked(Recorder(on_finish=ok)) as link:
        link.stop_reading()
        for _ in range(100):
            link.send(GET * 100)
        assert link.transport.peak < 65536 + 16384 + 500
        count = len(link.told)
        assert count < 1000
        link.read()
        assert len(link.told) == 10000


@pytest.mark.parametrize(
    ("left", "tls", "ended", "watched"),
    [
        pytest.param(b"", False, True, False, id="nothing left"),
        pytest.param(b"x", False, True, True, id="something left"),
        pytest.param(b"", False, False, True, id="the peer may still send"),
        pytest.param(b"", True, True, True, id="TLS ends first"),
    ],
)
def test_the_end_is_watched_only_where_there_is_something_to_wait_for(
    loop: ManualLoop, left: bytes, tls: bool, ended: bool, watched: bool
) -> None:
    side = Side(ConnectionParameters(), ConnectionContext(None, None, "http"), Clock(loop), loop)
    side.writer.watch_end(ended=True)  # there is no transport
    transport = FakeTransport(loop, side, tls=tls)
    if tls:
        transport._extra["sslcontext"] = "a context"
    transport.window = 0
    loop.settle()
    side.writer.write(left)
    side.writer.watch_end(ended=ended)
    assert (side.writer.deadline != NEVER) is watched
    deadline = side.writer.deadline
    loop.advance(1.0)
    side.writer.watch_end(ended=ended)
    assert side.writer.deadline == deadline  # it is not renewed


class Link:
    """A connection of this machine: a Side, and the other end as a socket."""

    def __init__(self, side: Side, peer: socket.socket) -> None:
        self.side = side
        self.writer = side.writer
        self.peer = peer
        self.received = bytearray()

    @classmethod
    async def made(cls) -> Link:
        loop = asyncio.get_running_loop()
        with socket.create_server(("127.0.0.1", 0)) as listener:
            peer = socket.create_connection(listener.getsockname())
            ours, _ = listener.accept()
        ours.setblocking(False)
        peer.setblocking(False)
        side = Side(ConnectionParameters(), ConnectionContext(None, None, "http"), Clock(loop), loop)
        await loop.connect_accepted_socket(lambda: side, ours)
        return cls(side, peer)

    def arrived(self) -> int:
        """Return how many bytes have arrived: what is sent on this machine has arrived when the write returns."""
        with contextlib.suppress(BlockingIOError):
            while data := self.peer.recv(1 << 20):
                self.received += data
        return len(self.received)

    async def end(self) -> None:
        assert self.writer.transport is not None
        self.writer.transport.abort()
        await until(lambda: self.writer.transport is None)
        self.peer.close()


counts_unsent = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how much room a socket has")


@counts_unsent
@both_loops
async def test_pieces_of_one_turn_are_sent_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.core.connection.writer.monotonic", lambda: 5.0)
    link = await Link.made()
    piece = b"x" * 65536
    seen = []
    for number in range(10):
        link.writer.write_content([b"%d" % number, piece])
        seen.append(link.arrived() // len(piece))
    assert seen == [1, 1, 1, 1, 5, 5, 5, 5, 9, 9]  # the first at once, and four at once after it
    await until(lambda: link.arrived() == 10 * (len(piece) + 1))
    assert link.received == b"".join(b"%d" % number + piece for number in range(10))
    assert not link.writer.paused
    await link.end()


@counts_unsent
@both_loops
async def test_pieces_that_are_made_slowly_are_sent_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    times = itertools.count(5.0, 0.002)
    monkeypatch.setattr("bridge.core.connection.writer.monotonic", lambda: next(times))
    link = await Link.made()
    for number in range(1, 10):
        link.writer.write_content([b"event"])
        assert link.arrived() == 5 * number
    await link.end()


@counts_unsent
@both_loops
@pytest.mark.parametrize("kind", ["write", "write_parts", "write_at_turn_end", "flush", "write_content"])
async def test_what_follows_pieces_comes_behind_them(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.core.connection.writer.monotonic", lambda: 5.0)
    link = await Link.made()
    writer = link.writer
    for piece in (b"a", b"b", b"c" * 20000):
        writer.write_content([piece])
    assert link.arrived() == 1
    assert writer.pending  # who comes next asks for it
    if kind == "flush":
        writer.flush()
        assert link.arrived() == 20002
    elif kind == "write_parts":
        writer.write_parts([b"d", b"e"])
    elif kind == "write_content":
        writer.write_content([b"d", b"e"])
    else:
        getattr(writer, kind)(b"de")
    await until(lambda: link.arrived() == 20002 + 2 * (kind != "flush"))
    assert link.received == b"ab" + b"c" * 20000 + b"de" * (kind != "flush")
    await link.end()


@counts_unsent
@both_loops
async def test_a_piece_may_be_changed_after_it_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.core.connection.writer.monotonic", lambda: 5.0)
    link = await Link.made()
    piece = bytearray(b"a")
    for _ in range(3):
        link.writer.write_content([piece])  # type: ignore[list-item]  # as Tornado's applications may
        piece[0] += 1
    await until(lambda: link.arrived() == 3)
    assert link.received == b"abc"
    await link.end()


@counts_unsent
@both_loops
async def test_what_a_peer_does_not_read_is_not_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.core.connection.writer.monotonic", lambda: 5.0)
    link = await Link.made()
    sent = 0
    while not link.writer.paused:
        link.writer.write_content([b"x" * 65536])
        sent += 65536
    transport = link.writer.transport
    assert transport is not None
    # The last pieces before the system's buffer was full were written one by one. One of them is left, and a part of
    # the one before that did not reach the high-water mark.
    assert transport.get_write_buffer_size() <= 65536 + ConnectionParameters().high_water
    assert not link.writer.pending
    await until(lambda: link.arrived() == sent)
    await link.end()


@counts_unsent
@both_loops
async def test_parts_that_fit_in_part_are_sent_whole() -> None:
    link = await Link.made()
    parts = [bytes([number]) * 400000 for number in range(20)]
    link.writer.write_parts(parts)
    assert link.writer.paused
    await until(lambda: link.arrived() == 8000000)
    assert link.received == b"".join(parts)
    await link.end()


@counts_unsent
@both_loops
async def test_pieces_that_wait_are_dropped_when_the_connection_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.core.connection.writer.monotonic", lambda: 5.0)
    link = await Link.made()
    for _ in range(3):
        link.writer.write_content([b"x" * 1000])
    assert link.writer.transport is not None
    link.writer.transport.abort()
    link.writer.flush()
    assert not link.writer.pending
    link.writer.write_content([b"x"])  # the application does not know yet
    await link.end()
    link.writer.write_content([b"x"])
    assert not link.writer.pending


@both_loops
async def test_what_the_system_holds_is_counted_too() -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.socket()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.connect(listener.getsockname())
        ours, _ = listener.accept()
    ours.setblocking(False)
    side = Side(ConnectionParameters(), ConnectionContext(None, None, "http"), Clock(loop), loop)
    await loop.connect_accepted_socket(lambda: side, ours)
    transport = side.writer.transport
    assert transport is not None
    side.writer.write(b"x" * 200000)
    side.writer.watch()
    assert transport.get_write_buffer_size() < 200000  # the system took some, or all
    assert not reads(side)
    side.writer.watch()
    await asyncio.to_thread(peer.recv, 100000, socket.MSG_WAITALL)
    assert reads(side)
    assert side.writer._outgoing(transport) <= 100000
    transport.abort()
    await until(lambda: side.writer.transport is None)
    assert side.writer._outgoing(transport) == 0  # which nobody asks any more
    peer.close()


async def test_waiting_on_a_real_loop_can_be_cancelled() -> None:
    loop = asyncio.get_running_loop()
    side = Side(ConnectionParameters(), ConnectionContext(None, None, "http"), Clock(loop), loop)
    task = asyncio.ensure_future(side.writer.writable())
    await asyncio.sleep(0)
    task.cancel()
    side.writer.wake(ConnectionGone("x"))
    with pytest.raises(asyncio.CancelledError):
        await task


# ------------------------------------------------------------------ while memory is short for all


class Silent:
    """A reader that reads nothing, and makes memory short."""

    bytes_read = 0

    def give_up(self, budget: Any) -> str:
        budget.forget(self)
        return ""


def shorten(side: Side) -> Silent:
    budget = side.clock.budgets.unsent
    budget.limit = 200_000
    silent = Silent()
    budget.note_reader(silent, 200_001, anew=True)
    assert budget.over
    return silent


@pytest.mark.parametrize("parts", [False, True], ids=["whole", "parts"])
def test_writers_wait_until_the_client_has_taken_all(side: Side, loop: ManualLoop, *, parts: bool) -> None:
    transport, writer = fake(side), side.writer
    shorten(side)
    transport.window = 4900
    if parts:
        writer.write_parts([b"x" * 4000, b"y" * 1000])
    else:
        writer.write(b"x" * 5000)
    assert transport.get_write_buffer_size() == 100  # less than the high-water mark
    assert writer.paused and writer.is_held_back and writer.deadline < NEVER
    waiting = writer.writable()
    loop.advance(0.5)
    assert not waiting.done()
    transport.peer_reads(100)
    assert not waiting.done()
    loop.advance(0.1)
    assert waiting.done()
    assert not writer.paused
    assert side.clock.budgets.unsent.total == 200_001


def test_writers_go_on_when_there_is_room_again(side: Side, loop: ManualLoop) -> None:
    transport, writer = fake(side), side.writer
    silent = shorten(side)
    transport.window = 4900
    writer.write(b"x" * 5000)
    side.clock.budgets.unsent.note(silent, 190_000)
    loop.advance(0.1)
    assert writer.is_held_back  # a little room is none
    side.clock.budgets.unsent.forget(silent)
    loop.advance(0.1)
    assert not writer.paused
    writer.write(b"x" * 5000)  # now it is the transport that pauses
    assert writer.paused
    assert not writer.is_held_back


def test_a_transport_that_pauses_what_is_held_back_lets_it_go_on(side: Side, loop: ManualLoop) -> None:
    transport, writer = fake(side), side.writer
    silent = shorten(side)
    transport.window = 4900
    writer.write(b"x" * 5000)
    writer.write(b"x" * 3000)
    assert writer.paused
    assert not writer.is_held_back
    assert side.clock.budgets.unsent.total == 200_001 + 3100
    side.clock.budgets.unsent.forget(silent)
    loop.advance(1)
    assert writer.paused
    transport.peer_reads()
    assert not writer.paused


@pytest.mark.parametrize("fast", [True, False])
def test_who_is_held_back_and_leaves(side: Side, loop: ManualLoop, *, fast: bool) -> None:
    transport, writer = fake(side), side.writer
    shorten(side)
    transport.window = 4900
    writer.write(b"x" * 5000)
    waiting = writer.writable()
    transport.peer_resets()
    if not fast:
        loop.advance(1)
    loop.settle()
    with pytest.raises(ConnectionGone):
        waiting.result()
    assert writer.is_taken
    writer.go_on()  # has no effect
    loop.advance(1)
    assert not writer.is_held_back


def test_small_writes_and_clients_that_read_wait_for_nobody(side: Side) -> None:
    transport, writer = fake(side), side.writer
    shorten(side)
    writer.write(b"x" * 900)
    assert not writer.paused
    transport.window = None
    transport.peer_reads()
    writer.write(b"x" * 100_000)
    assert not writer.paused
