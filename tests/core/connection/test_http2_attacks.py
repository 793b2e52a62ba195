"""What an attack on one connection costs the clients of others, counted in turns of the loop and in work.

``tests/wire/test_http2_attacks.py`` has the same attacks on a real server, with its memory.
"""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import pytest

from bridge.adapters.asgi import ASGIDelegate
from bridge.core.connection.turns import UNITS_PER_TURN, Turns
from bridge.core.http2.codes import CANCEL, ENHANCE_YOUR_CALM
from tests.support.apps.http2_attacked import LARGE, app
from tests.support.http2 import DATA, HEADERS, RST_STREAM, SETTINGS, WINDOW_UPDATE, HTTP2Link, frame
from tests.support.http2_attacks import DEAR, ENDED_WITH, FLOODS, START, Frames, path

# Bytes that uvloop reads at once.
READ = 262144
# Turns of the loop in which a flood is ended, and of an attack that goes on.
FLOOD_TURNS, DEAR_TURNS = 400, 100
# Bytes that the server may have read when it ends a flood.
TAKEN_MAX = 12 << 20
# Turns of the loop from a request to its answer: its frame is read, its application runs, the answer goes out. Another
# one if it has to wait for its turn.
ANSWERED_IN = 4
# Seconds of the processor for a unit of a turn, which is meant to be a microsecond, and for a turn itself. On a machine
# that does nothing else they take far less.
UNIT_TIME, TURN_TIME = 20e-6, 2e-3
# Units of a field block that is as long as it may be. It is read as a whole, so that of this attack's, which are few,
# each turn has one.
BLOCK_UNITS = 65536 >> 3
LONG_BLOCKS = "Huffman code of lists that are too large"


class CountedTurns(Turns):
    """Counts the units that connections take."""

    spent = 0
    _left = 0

    @property  # type: ignore[override]  # it is an attribute there
    def left(self) -> int:
        return self._left

    @left.setter
    def left(self, left: int) -> None:
        if left < self._left:
            self.spent += self._left - left
        self._left = left


class Attacked:
    """A server with two connections: that of an attacker, and that of a client that asks again and again.

    Attributes:
        usual: The client's connection.
        attacker: The other one.
        turns: The units of the loop's turns.
        waits: Of each answer of the client's: turns of the loop, and units of work, since it has asked.
        taken: Bytes that the attacker was allowed to send.
    """

    def __init__(self) -> None:
        delegate = ASGIDelegate(app)
        self.usual = HTTP2Link(delegate)
        self.loop = self.usual.loop
        self.turns = self.usual.clock.turns = CountedTurns(self.loop)
        self.usual.transport.abort()  # its connection does not know these turns
        self.usual = HTTP2Link(delegate, beside=self.usual)
        self.attacker = HTTP2Link(delegate, beside=self.usual)
        self.usual.send(START + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 30)))
        self.waits: list[tuple[int, int]] = []
        self.taken = 0
        self._stream = -1
        self._answered = True
        self._asked = (0, 0)
        self._turn = 0
        self._requests = 0  # of the attacker

    def close(self) -> None:
        for link in (self.attacker, self.usual):
            link.transport.abort()
            link.loop.settle()
            assert not link.transport.faults
        self.usual.clock.stop()
        self.loop.close()

    @property
    def ended(self) -> bool:
        """The server has ended the attacker's connection."""
        return self.attacker.transport.eof or self.attacker.transport.is_closing()

    def attack(self, frames: Frames, most: int, ahead: int = READ) -> None:
        """Let the attacker send all that the server reads, until it ends the connection, or for some turns.

        Args:
            frames: What to send.
            most: How many turns.
            ahead: How many requests may wait for their answers.
        """
        self.attacker.send(START)
        transport = self.attacker.transport
        rest = 0
        while self._turn < most and rest < 10:
            if transport.is_reading() and not transport.eof:
                data = self._next(frames, ahead)
                self.taken += len(data)
                self.loop.call_soon(transport.peer_sends, data)
            self.turn()
            rest += self.ended

    def _next(self, frames: Frames, ahead: int) -> bytes:
        answered = (
            sum(
                item.kind == RST_STREAM or (item.kind in {HEADERS, DATA} and bool(item.flags & 1))
                for item in self.attacker.frames
            )
            if ahead < READ
            else 0
        )
        data = bytearray()
        while len(data) < READ and (item := next(frames, None)) is not None:
            data += item
            if item[3] == HEADERS and item[4] & 1:
                self._requests += 1
                if self._requests - answered >= ahead:
                    break
        return bytes(data)

    def turn(self) -> None:
        """Let the client ask, if it has its last answer, and run one turn of the loop."""
        if self._answered:
            self._stream += 2
            self._answered = False
            self._asked = self._turn, self.turns.spent
            request = frame(HEADERS, 5, self._stream, path(b"/"))
            self.loop.call_soon(self.usual.transport.peer_sends, request)
        self.loop.turn()
        self._turn += 1
        if self.usual.stream(self._stream).ended:
            self._answered = True
            assert self.usual.stream(self._stream).status == 200
            self.waits.append((self._turn - self._asked[0], self.turns.spent - self._asked[1]))


@pytest.fixture
def attacked() -> Iterator[Attacked]:
    attacked = Attacked()
    yield attacked
    attacked.close()


def check_the_others(attacked: Attacked, seconds: float, block: int = 0) -> None:
    """Check that each answer took few turns, with no more work than these may have, and that units are honest."""
    more = ANSWERED_IN * block
    assert len(attacked.waits) >= 3
    assert max(turns for turns, _ in attacked.waits) <= ANSWERED_IN
    assert (
        max(units for _, units in attacked.waits) <= (ANSWERED_IN + 0.25) * UNITS_PER_TURN + more
    )  # a step may be more than one unit
    assert seconds <= attacked.turns.spent * UNIT_TIME + attacked._turn * TURN_TIME


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_is_ended_and_costs_others_little(name: str, attacked: Attacked) -> None:
    begun = time.thread_time()
    attacked.attack(FLOODS[name](), FLOOD_TURNS)
    seconds = time.thread_time() - begun
    assert attacked.ended, f"not ended after {attacked.taken} bytes"
    assert attacked.attacker.goaway is not None
    assert attacked.attacker.goaway.code == ENDED_WITH.get(name, ENHANCE_YOUR_CALM)
    assert attacked.taken <= TAKEN_MAX
    check_the_others(attacked, seconds, BLOCK_UNITS if name == LONG_BLOCKS else 0)


@pytest.mark.parametrize("name", DEAR)
def test_what_is_legal_and_dear_costs_others_little(name: str, attacked: Attacked) -> None:
    begun = time.thread_time()
    attacked.attack(DEAR[name](), DEAR_TURNS, ahead=100)
    check_the_others(attacked, time.thread_time() - begun)


# --- streams that never read ------------------------------------------------------------------------------------------


def calls_of_a_request(attacked: Attacked) -> int:
    """Return how many functions are called for a request of the client's."""
    counted = 0

    def count(_: FrameType, event: str, __: Any) -> None:
        nonlocal counted
        counted += event in {"call", "c_call"}

    sys.setprofile(count)
    try:
        for _ in range(12):
            attacked.loop.turn()
    finally:
        sys.setprofile(None)
    return counted


@pytest.mark.parametrize("window", [0, 1, 65535, 1 << 30])
def test_a_hundred_streams_that_read_nothing_cost_others_nothing(window: int, attacked: Attacked) -> None:
    def ask() -> int:
        attacked._stream += 2
        request = frame(HEADERS, 5, attacked._stream, path(b"/"))
        attacked.loop.call_soon(attacked.usual.transport.peer_sends, request)
        calls = calls_of_a_request(attacked)
        assert attacked.usual.stream(attacked._stream).ended
        return calls

    ask()
    alone = ask()
    link = attacked.attacker
    streams = range(1, 200, 2)
    link.send(START, frame(SETTINGS, 0, 0, struct.pack(">HI", 4, window)))
    link.send(*(frame(HEADERS, 5, stream, path(b"/large")) for stream in streams))
    attacked.loop.settle()
    assert len(link.connection.streams) == 100
    assert 100 * 65536 <= link.connection.output.queued + 65535 <= 10 << 20
    assert ask() <= 1.2 * alone
    attacked.loop.advance(59)
    assert len(link.connection.streams) == 100
    attacked.loop.advance(4)
    assert not link.connection.streams
    assert {link.stream(stream).reset for stream in streams} == {CANCEL}
    assert sum(len(link.stream(stream).content) for stream in streams) < LARGE
    assert link.connection.output.queued == attacked.usual.clock.budgets.unsent.total == 0
