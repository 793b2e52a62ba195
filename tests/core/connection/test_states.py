"""The two machines of a connection: their tables are whole, and the code uses all of them."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

import pytest

from bridge.core.connection import states
from bridge.core.connection.http1 import ServerConnection
from bridge.core.connection.states import (
    CLOSED,
    DONE,
    HEAD,
    READ_CLOSED,
    READ_CONTENT,
    READ_DISCARD,
    READ_DONE,
    READ_HEAD,
    READ_SWITCHED,
    READING_TABLE,
    WRITING_TABLE,
    Reading,
    Writing,
)
from tests.support import ROOT
from tests.support import link as link_module
from tests.support.link import GET, POST, Link, Recorder, Told, linked, ok

Table = dict[Any, dict[str, Any]]
MACHINES = {"reading": (READING_TABLE, READ_HEAD, Reading), "writing": (WRITING_TABLE, HEAD, Writing)}
each = pytest.mark.parametrize(("table", "first", "kind"), MACHINES.values(), ids=MACHINES)


def reachable(table: Table, first: object) -> set[object]:
    found = {first}
    while more := {state for known in found for state in table[known].values()} - found:
        found |= more
    return found


def events_of(table: Table) -> set[str]:
    return {event for events in table.values() for event in events}


def events_used(attribute: str, source: str) -> set[str]:
    """Return the events that *source* lets happen: ``x.reading = x.reading.event``."""
    return {
        node.value.attr
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Attribute)
        and isinstance(node.value.value, ast.Attribute)
        and node.value.value.attr == attribute
    }


@each
def test_every_state_can_be_reached(table: Table, first: object, kind: type) -> None:
    assert reachable(table, first) == set(table)
    assert set(table) == {value for value in vars(states).values() if type(value) is kind}


@each
def test_every_event_leads_to_a_state_of_the_same_machine(table: Table, first: object, kind: type) -> None:
    for events in table.values():
        assert {type(state) for state in events.values()} <= {kind}
        assert set(events.values()) <= set(table)


@each
def test_an_event_has_a_slot_and_a_slot_is_an_event(table: Table, first: object, kind: type) -> None:
    assert set(kind.__slots__) == set(kind.__annotations__) == events_of(table)  # type: ignore[attr-defined]


@pytest.mark.parametrize("machine", MACHINES)
def test_the_code_lets_every_event_happen_and_no_other(machine: str) -> None:
    sources = [path.read_text(encoding="utf-8") for path in sorted((ROOT / "bridge").rglob("*.py"))]
    used = set().union(*(events_used(machine, source) for source in sources))
    assert used == events_of(MACHINES[machine][0])


def test_an_event_that_happens_is_found() -> None:
    source = (
        "self.reading = self.reading.close\nif x:\n    other.reading = other.reading.pause\ny = self.reading.name_of"
    )
    assert events_used("reading", source) == {"close", "pause", "name_of"}
    assert events_used("writing", source) == set()
    assert events_used("reading", "self.reading = READ_HEAD\nself.reading.close\nreading = x.close") == set()


@each
def test_what_is_over_stays_so(table: Table, first: object, kind: type) -> None:
    for state in (READ_CLOSED, CLOSED, DONE):
        if state in table:
            assert reachable(table, state) == {state}
            assert first not in reachable(table, state)


def test_nothing_is_read_as_a_request_after_the_end() -> None:
    for state in (READ_DISCARD, READ_SWITCHED):
        assert reachable(READING_TABLE, state) == {state, READ_DISCARD, READ_CLOSED}


def test_a_connection_can_end_in_every_state_but_when_it_has_ended() -> None:
    assert all("close" in events for events in READING_TABLE.values())
    assert [state for state, events in READING_TABLE.items() if "linger" not in events] == [READ_CLOSED]
    assert [state for state, events in WRITING_TABLE.items() if "abandon" not in events] == [DONE]


def test_the_next_head_is_read_when_the_request_and_its_response_are_complete() -> None:
    into = {(state, event) for state, events in READING_TABLE.items() for event in events if events[event] is READ_HEAD}
    assert into == {(READ_DONE, "respond")}
    assert [state for state, events in READING_TABLE.items() if READ_CONTENT in events.values()] == [
        READ_HEAD,
        READ_DONE,
    ]


@each
def test_states_have_names_and_say_what_holds(table: Table, first: object, kind: type) -> None:
    names = [state.name for state in table]
    assert len(set(names)) == len(names)
    assert len({state.meaning for state in table}) == len(names)
    for state in table:
        assert repr(state) == f"<{kind.__name__} {state.name}>"


@each
def test_an_event_that_cannot_happen_is_an_error_that_names_it(table: Table, first: object, kind: type) -> None:
    for state, events in table.items():
        for event in events_of(table):
            if event in events:
                assert getattr(state, event) is events[event]
            else:
                with pytest.raises(AttributeError, match=event):
                    getattr(state, event)
        with pytest.raises(AttributeError, match="no_event"):
            getattr(state, "no_event")  # noqa: B009


# ---------------------------------------------------------------------- what is in the tables happens

SEEN: set[tuple[str, str]] = set()


class Watched(ServerConnection):
    """Notes where reading goes."""

    @property
    def reading(self) -> Reading:
        return self.__dict__.get("reading", READ_HEAD)

    @reading.setter
    def reading(self, state: Reading) -> None:
        if "reading" in self.__dict__:
            SEEN.add((self.reading.name, state.name))
        self.__dict__["reading"] = state


def end_with(told: Told) -> None:
    told.exchange.close_after = True
    ok(told)


def switch(told: Told) -> None:
    told.exchange.respond(101, [(b"upgrade", b"x")])
    told.exchange.send(b"", True)


def then_fail(answer: Callable[[Told], None]) -> Callable[[Told], None]:
    def fail(told: Told) -> None:
        answer(told)
        raise ValueError("after the response")

    return fail


UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
CONTENT_HEAD = POST + b"Content-Length: 5\r\n\r\n"


def play(link: Link, *wire: bytes, seconds: float = 0.0, reset: bool = True) -> None:
    link.send(*wire)
    if seconds:
        link.loop.advance(seconds)
    if reset and not link.closed:
        link.reset()


def test_every_change_of_reading_that_is_in_the_table_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "ServerConnection", Watched)
    SEEN.clear()
    # a request without content, one with it, and ends in between: idle, in the content, before the response
    for wire in (GET + CONTENT_HEAD + b"hello", CONTENT_HEAD):
        with linked(Recorder(on_finish=ok)) as link:
            play(link, wire)
    with linked(Recorder()) as link:
        play(link, GET)
    # faults in a head and in content; what follows is thrown away, for a while
    for wire in (b"BAD\r\n\r\n", CHUNKED + b"x\r\n"):
        with linked(Recorder()) as link:
            play(link, wire, b"more", seconds=20, reset=False)
    # a delegate that wants no news, and one whose response is the last
    with linked(Recorder(on_start=lambda told: told.exchange.pause_reading())) as link:
        play(link, GET)
    with linked(Recorder(on_finish=end_with)) as link:
        play(link, GET + b"more")
    # another protocol; nobody takes the transport
    with linked(Recorder(on_finish=switch)) as link:
        play(link, UPGRADE, seconds=60, reset=False)
    # failures behind the last response
    for answer in (end_with, switch):
        with linked(Recorder(on_finish=then_fail(answer)), raises=ValueError) as link:
            play(link, UPGRADE + b"more")
    table = {(state.name, after.name) for state, events in READING_TABLE.items() for after in events.values()}
    assert table == SEEN
