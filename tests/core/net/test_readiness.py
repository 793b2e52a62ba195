"""Many sockets behind one descriptor of the loop."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Iterator

import pytest

from bridge.core.net.readiness import READABLE, WRITABLE, Readiness
from tests.support.loops import both_loops
from tests.support.serving import until


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    first, second = socket.socketpair()
    first.setblocking(False)
    with first, second:
        yield first, second


def readiness() -> Readiness:
    found = Readiness.of(asyncio.get_running_loop())
    assert found is not None
    return found


@both_loops
async def test_a_socket_is_reported_while_it_is_ready(pair: tuple[socket.socket, socket.socket]) -> None:
    got: list[tuple[int, bytes]] = []
    watched = readiness()
    assert watched is Readiness.of(asyncio.get_running_loop())
    watched.add(pair[0].fileno(), READABLE, lambda events: got.append((events, pair[0].recv(1))))
    pair[1].send(b"abc")
    await until(lambda: len(got) == 3)
    assert got == [(READABLE, b"a"), (READABLE, b"b"), (READABLE, b"c")]
    watched.remove(pair[0].fileno())


@both_loops
async def test_other_events(pair: tuple[socket.socket, socket.socket]) -> None:
    got: list[int] = []
    watched = readiness()
    watched.add(pair[0].fileno(), READABLE, got.append)
    await asyncio.sleep(0)
    assert got == []
    watched.change(pair[0].fileno(), READABLE | WRITABLE)
    await until(lambda: WRITABLE in got)
    watched.remove(pair[0].fileno())


@both_loops
async def test_nothing_is_left_without_sockets(pair: tuple[socket.socket, socket.socket]) -> None:
    loop = asyncio.get_running_loop()
    watched = readiness()
    assert Readiness.descriptors(loop) == ()
    for _ in range(2):
        watched.add(pair[0].fileno(), READABLE, lambda events: None)
        (number,) = Readiness.descriptors(loop)
        os.fstat(number)
        watched.remove(pair[0].fileno())
        watched.remove(pair[0].fileno())
        assert Readiness.descriptors(loop) == ()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(number)


@both_loops
async def test_what_cannot_be_watched_leaves_nothing() -> None:
    with open(__file__, "rb") as file, pytest.raises(PermissionError):
        readiness().add(file.fileno(), READABLE, lambda events: None)
    assert Readiness.descriptors(asyncio.get_running_loop()) == ()


@both_loops
async def test_all_are_told_before_the_first_is_served(
    pair: tuple[socket.socket, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    watched = readiness()
    calls: list[str] = []

    def told(sock: socket.socket, name: str, serve: Callable[[], None]) -> Callable[[int], Callable[[], None]]:
        def tell(events: int) -> Callable[[], None]:
            calls.append(f"told {name} {sock.recv(9).decode()}")
            return serve

        return tell

    def fails() -> None:
        calls.append("served first")
        raise ValueError("mine")

    watched.add(pair[0].fileno(), READABLE, told(pair[0], "first", fails))
    watched.add(pair[1].fileno(), READABLE, told(pair[1], "second", lambda: calls.append("served second")))
    pair[1].send(b"a")  # both are there before the loop looks
    pair[0].send(b"b")
    await until(lambda: "served second" in calls)
    assert calls == ["told first a", "told second b", "served first", "served second"]
    assert caplog.text.count("ValueError: mine") == 1
    for sock in pair:
        watched.remove(sock.fileno())


@both_loops
async def test_what_was_read_is_served_although_a_turn_ends_by_system_exit(
    pair: tuple[socket.socket, socket.socket],
) -> None:
    """As when a handler of a signal raises it, after which the server goes on."""
    watched = readiness()
    served: list[str] = []

    def leave() -> None:
        raise SystemExit(3)

    for sock, serve in ((pair[0], leave), (pair[1], lambda: served.append("second"))):
        watched.add(sock.fileno(), READABLE, lambda events, sock=sock, serve=serve: sock.recv(9) and serve)  # type: ignore[misc]  # a lambda's default has no type
    pair[1].send(b"a")
    pair[0].send(b"b")
    with pytest.raises(SystemExit):
        watched._turn()
    await until(lambda: served == ["second"])
    for sock in pair:
        watched.remove(sock.fileno())


@both_loops
async def test_a_function_that_fails_holds_up_no_other(
    pair: tuple[socket.socket, socket.socket], caplog: pytest.LogCaptureFixture
) -> None:
    watched = readiness()
    calls: list[str] = []
    first, second = pair[0].fileno(), pair[1].fileno()

    def fails(events: int) -> None:
        watched.remove(first)
        raise ValueError("mine")

    def goes_on(events: int) -> None:
        watched.remove(second)
        calls.append("second")

    watched.add(first, WRITABLE, fails)
    watched.add(second, WRITABLE, goes_on)
    await until(lambda: calls == ["second"])
    assert caplog.text.count("ValueError: mine") == 1


@both_loops
async def test_a_socket_that_another_function_removes(pair: tuple[socket.socket, socket.socket]) -> None:
    watched = readiness()
    calls: list[int] = []

    def remove_both(events: int) -> None:
        calls.append(events)
        for sock in pair:
            watched.remove(sock.fileno())

    for sock in pair:
        watched.add(sock.fileno(), WRITABLE, remove_both)
    await until(lambda: bool(calls))
    await asyncio.sleep(0)
    assert len(calls) == 1


def test_a_loop_that_has_ended(pair: tuple[socket.socket, socket.socket]) -> None:
    loop = asyncio.new_event_loop()
    watched = Readiness.of(loop)
    assert watched is not None
    watched.add(pair[0].fileno(), READABLE, lambda events: None)
    loop.close()
    watched.remove(pair[0].fileno())
    assert Readiness.descriptors(loop) == ()


def test_a_system_without_epoll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("select.epoll")
    loop = asyncio.new_event_loop()
    assert Readiness.of(loop) is None
    loop.close()
