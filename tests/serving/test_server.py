"""A server's life on a loop whose time is set by hand: its start, both phases of its stop, and what cuts them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.config import Config
from bridge.core.connection.interfaces import NULL_DELEGATE
from bridge.errors import LifespanFailed
from bridge.serving import server as server_module
from bridge.serving.server import Server, Timeout
from bridge.telemetry import streams
from bridge.telemetry.messages import say
from tests.supervisor.stage import Notes, noted
from tests.support.manualloop import ManualLoop


class Silent:
    """Takes requests and never answers."""

    def __init__(self) -> None:
        self.websockets: set[object] = set()
        self.exchanges: list[Any] = []

    def start_exchange(self, exchange: Any) -> Any:
        self.exchanges.append(exchange)
        return NULL_DELEGATE

    def on_close(self, connection: object) -> None:
        pass


class Application:
    """What a server hosts, and what it was asked for.

    Attributes:
        calls: What was called, in this order.
        endless: Its shutdown takes all the time that it gets.
    """

    kind = "ASGI"
    default_body_limit: int | None = None
    limit_after_start = False

    def __init__(self) -> None:
        self.delegate = Silent()
        self.calls: list[object] = []
        self.fault: Exception | None = None
        self.endless = False
        self.cancelled = 0

    async def startup(self) -> None:
        self.calls.append("startup")
        if self.fault is not None:
            raise self.fault

    def stop(self, *, restart: bool) -> None:
        self.calls.append(("stop", restart))

    async def shutdown(self, timeout: float | None) -> None:
        self.calls.append(("shutdown", timeout))
        if self.endless and timeout != 0:
            try:
                await asyncio.wait_for(asyncio.Event().wait(), timeout)
            except TimeoutError:
                pass
            except asyncio.CancelledError:
                self.cancelled += 1
                raise


class Served:
    """A server on its loop."""

    def __init__(self, path: Path, app: Application, notes: Notes, settings: dict[str, Any]) -> None:
        self.path = str(path)
        self.app = app
        self.notes = notes
        self.loop = ManualLoop()
        self.server = Server(Config(uds=self.path, access_log=False, **settings), object(), mount_points=[])
        self.draining: list[str] = []
        self.server.on_draining = lambda: self.draining.append("draining")
        self.clients: list[socket.socket] = []
        self.task: asyncio.Task[None] | None = None

    def start(self) -> Server:
        self.task = self.loop.create_task(self.server.serve())
        self.loop.settle()
        return self.server

    def ask(self) -> socket.socket:
        """Have a request in progress."""
        client = socket.socket(socket.AF_UNIX)
        client.setblocking(False)
        client.connect(self.path)
        client.sendall(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        self.clients.append(client)
        before = len(self.app.delegate.exchanges)
        for _ in range(100):
            self.loop.settle()
            if len(self.app.delegate.exchanges) > before:
                return client
        raise AssertionError("the request has not come")

    def answer(self) -> None:
        """Have no request in progress any more."""
        for exchange in self.app.delegate.exchanges:
            self.do(exchange.respond, 204, [])
            self.do(exchange.send, b"", True)

    def do(self, function: Callable[..., object], *args: Any, **kwargs: Any) -> None:
        self.loop.call(lambda: function(*args, **kwargs))
        self.loop.settle()

    @property
    def done(self) -> bool:
        assert self.task is not None
        return self.task.done()

    def close(self) -> None:
        for client in self.clients:
            client.close()
        if self.task is not None and not self.task.done():
            self.server.force()
            self.loop.advance(5.0)
        self.loop.settle()
        assert self.task is None or self.task.done()
        assert self.loop.errors == []
        self.loop.close()


Start = Callable[..., Served]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Makes a server of an Application; every one ends with the test."""
    made: list[Served] = []
    with noted() as notes:

        def start(**settings: Any) -> Served:
            app = Application()
            monkeypatch.setattr(server_module, "application_for", lambda config, mount_points, certificate: app)
            made.append(Served(tmp_path / f"{len(made)}.sock", app, notes, settings))
            return made[-1]

        yield start
        for served in made:
            served.close()


# --- start and stop --------------------------------------------------------------------------------------------------


def test_a_life_without_requests(serve: Start) -> None:
    served = serve()
    started: list[bool] = []
    served.server.on_started = lambda: started.append(served.server.started)
    server = served.start()
    assert (server.started, started, server.kind, server.should_exit) == (True, [True], "ASGI", False)
    served.loop.advance(1000.0)
    assert not served.done
    assert served.app.calls == ["startup"]
    assert served.draining == []
    before = served.loop.time()
    served.do(server.stop)
    assert served.done
    assert served.loop.time() == before  # at once
    assert served.app.calls == ["startup", ("stop", False), ("shutdown", 30.0)]
    assert served.notes.take() == ["INFO Stopped"]
    assert (served.draining, started, server.started, server.should_exit) == (["draining"], [True], False, True)
    assert not os.path.exists(served.path)
    assert all(sock.fileno() == -1 for sock in server.sockets)


def test_the_second_shutdown_does_nothing(serve: Start) -> None:
    served = serve()
    server = served.start()
    served.do(server.stop)
    calls = served.app.calls[:]
    served.notes.take()
    task = served.loop.create_task(server.shutdown())
    served.loop.settle()
    assert task.done()
    assert (served.app.calls, served.notes.take(), served.draining) == (calls, [], ["draining"])


def test_the_end_of_a_block_is_a_stop_that_others_see(serve: Start) -> None:
    served = serve()

    async def block() -> None:
        async with served.server:
            assert not served.server.should_exit

    served.task = served.loop.create_task(block())
    served.loop.settle()
    assert served.done
    assert served.server.should_exit
    assert served.app.calls == ["startup", ("stop", False), ("shutdown", 30.0)]


def test_to_unset_should_exit_asks_for_nothing(serve: Start) -> None:
    served = serve()
    served.server.should_exit = False
    assert not served.server.should_exit
    server = served.start()
    assert not served.done
    served.do(setattr, server, "should_exit", False)
    assert not server.should_exit
    assert not served.done
    served.do(setattr, server, "should_exit", True)
    assert served.done
    served.server.should_exit = False  # and what was asked for is not taken back
    assert server.should_exit


def test_a_stop_before_the_start_serves_nobody_for_long(serve: Start) -> None:
    served = serve()
    served.server.should_exit = True
    served.start()
    assert served.done
    assert served.app.calls == ["startup", ("stop", False), ("shutdown", 30.0)]


def test_an_application_that_does_not_start_is_shut_down_and_nothing_is_left(serve: Start) -> None:
    served = serve()
    served.app.fault = LifespanFailed("no database")
    served.start()
    assert served.task is not None
    assert served.task.exception() is served.app.fault
    assert served.app.calls == ["startup", ("shutdown", 0)]
    assert not os.path.exists(served.path)
    assert (served.draining, served.notes.take()) == ([], [])


@pytest.mark.parametrize("grace", [0.0, 5.0])
@pytest.mark.parametrize("replaced", [False, True])
def test_whether_somebody_else_serves_is_told_to_the_application(serve: Start, grace: float, replaced: bool) -> None:
    served = serve()
    served.do(served.start().stop, idle_grace=grace, replaced=replaced)
    served.loop.advance(grace)
    assert served.done
    assert served.app.calls[1] == ("stop", replaced)


# --- the time of a stop ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "asked", "timeout"),
    [
        (30.0, Timeout.CONFIGURED, 30.0),
        (30.0, 7.0, 7.0),
        (30.0, 0.0, 0.5),
        (30.0, None, None),
        (None, Timeout.CONFIGURED, None),
        (None, 7.0, 7.0),
    ],
)
def test_the_time_that_an_application_gets(
    serve: Start, setting: float | None, asked: float | None, timeout: float | None
) -> None:
    served = serve(timeout_graceful_shutdown=setting)
    served.do(served.start().stop, asked)
    assert served.done
    assert served.app.calls[-1] == ("shutdown", timeout)


def test_the_second_phase_gets_what_the_first_has_left(serve: Start) -> None:
    served = serve()
    server = served.start()
    served.ask()
    served.do(server.stop)
    served.loop.advance(10.0)
    assert not served.done
    served.answer()
    assert served.done
    assert served.app.calls[-1] == ("shutdown", 20.0)
    assert served.notes.take() == [
        "INFO Stopping: waiting for 1 request (GET /slow), for 30 s at most",
        "INFO Stopped",
    ]


def test_what_is_not_done_in_time_is_cut_then_and_not_before(serve: Start) -> None:
    served = serve(timeout_graceful_shutdown=7.0)
    server = served.start()
    client = served.ask()
    served.do(server.stop)
    served.loop.advance(6.75)
    assert len(served.app.calls) == 2
    with pytest.raises(BlockingIOError):
        client.recv(1)
    served.loop.advance(0.25)
    assert served.done
    assert served.app.calls[-1] == ("shutdown", 0.5)  # a moment in any case
    assert served.notes.take()[1:] == ["WARNING Stopping: 1 connection cut off", "INFO Stopped"]


@pytest.mark.parametrize(
    ("websockets", "forced", "line"),
    [
        (0, False, []),
        (1, False, ["INFO Stopping: waiting for 1 WebSocket"]),
        (2, False, ["INFO Stopping: waiting for 2 WebSockets"]),
        (0, True, []),
        (2, True, []),
    ],
)
def test_websockets_are_named_when_they_are_waited_for(
    serve: Start, websockets: int, forced: bool, line: list[str]
) -> None:
    served = serve()
    server = served.start()
    served.app.delegate.websockets.update(range(websockets))
    served.do(server.force if forced else server.stop)
    assert served.done
    assert served.notes.take() == [*line, "INFO Stopped"]


# --- force -----------------------------------------------------------------------------------------------------------


def test_force_cuts_without_a_stop_before(serve: Start) -> None:
    served = serve()
    server = served.start()
    served.ask()
    before = served.loop.time()
    served.do(server.force)
    assert served.done
    assert served.loop.time() == before
    assert served.app.calls[1:] == [("stop", False), ("shutdown", 0.5)]
    assert served.notes.take() == ["WARNING Stopping: 1 connection cut off", "INFO Stopped"]


def test_force_cuts_the_first_phase_at_once(serve: Start) -> None:
    served = serve()
    server = served.start()
    clients = [served.ask(), served.ask()]
    served.do(server.stop)
    served.loop.advance(1.0)
    assert len(served.app.calls) == 2
    served.notes.take()
    before = served.loop.time()
    served.do(server.force)
    assert served.done
    assert served.task is not None
    assert served.task.exception() is None
    assert served.loop.time() == before
    assert served.app.calls[2:] == [("shutdown", 0.5)]
    assert served.notes.take() == ["WARNING Stopping: 2 connections cut off", "INFO Stopped"]
    for client in clients:
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(1) == b""


def test_force_cuts_the_second_phase_at_once(serve: Start) -> None:
    served = serve()
    served.app.endless = True
    server = served.start()
    served.do(server.stop)
    served.loop.advance(1.0)
    assert served.app.calls[2:] == [("shutdown", 30.0)]
    assert served.notes.take() == []
    before = served.loop.time()
    served.do(server.force)
    assert served.done
    assert served.task is not None
    assert served.task.exception() is None
    assert served.loop.time() == before
    assert served.app.cancelled == 1
    assert served.app.calls[3:] == [("shutdown", 0)]
    assert served.notes.take() == ["INFO Stopped"]


def test_force_in_both_phases(serve: Start) -> None:
    served = serve()
    served.app.endless = True
    server = served.start()
    served.ask()
    served.do(server.stop)
    served.do(server.force)
    assert served.app.calls[2:] == [("shutdown", 0.5)]
    assert not served.done
    served.do(server.force)
    assert served.done
    assert served.app.calls[3:] == [("shutdown", 0)]
    served.do(server.force)  # there is nothing left to be cut
    assert served.app.calls[4:] == []
    assert served.notes.take()[-1] == "INFO Stopped"


@pytest.mark.parametrize("phase", [1, 2])
def test_who_cancels_the_stop_itself_is_obeyed(serve: Start, phase: int) -> None:
    served = serve()
    served.app.endless = True
    server = served.start()
    if phase == 1:
        served.ask()
    served.do(server.stop)
    assert served.task is not None
    served.do(served.task.cancel)
    assert served.task.cancelled()
    assert served.app.calls[2:] == ([("shutdown", 30.0)] if phase == 2 else [])
    assert "INFO Stopped" not in served.notes.take()
    served.answer()


# --- the time of a worker --------------------------------------------------------------------------------------------


def test_a_lifetime_ends_once(serve: Start) -> None:
    served = serve(workers_lifetime=100.0)
    calls: list[float] = []
    served.server.on_limit = lambda: calls.append(served.loop.time())
    before = served.loop.time()
    served.start()
    served.loop.advance(99.75)
    assert calls == []
    served.loop.advance(1000.0)
    assert calls == [before + 100.0]
    assert not served.done  # it is for the master to say


def test_a_lifetime_is_spread(serve: Start) -> None:
    for _ in range(5):
        served = serve(workers_lifetime=100.0, workers_lifetime_jitter=50.0)
        calls: list[float] = []
        served.server.on_limit = lambda calls=calls, served=served: calls.append(served.loop.time())  # type: ignore[misc]
        before = served.loop.time()
        served.start()
        served.loop.advance(150.0)
        assert 100.0 <= calls[0] - before <= 150.25


def test_a_lifetime_without_a_master_is_a_stop_and_one_that_was_stopped_has_none(serve: Start) -> None:
    served = serve(workers_lifetime=100.0)
    served.start()
    served.loop.advance(100.0)
    assert served.done
    other = serve(workers_lifetime=100.0)
    calls: list[str] = []
    other.server.on_limit = lambda: calls.append("limit")
    server = other.start()
    other.ask()
    other.do(server.stop, None)
    other.loop.advance(200.0)
    assert not other.done
    assert calls == []


# --- what it says ----------------------------------------------------------------------------------------------------


def test_a_standard_error_that_nobody_reads_is_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", streams._stream(2))  # as a process has it
    kept = os.dup(2)
    read, write = os.pipe()
    try:
        os.dup2(write, 2)
        say("bridge: one\udcff")
        assert os.read(read, 100) == b"bridge: one\\udcff\n"
        before = sys.stderr
        os.close(read)
        say("bridge: two")
        assert sys.stderr is not before  # what writes there fails no more
        print("nowhere", file=sys.stderr)
        replaced = sys.stderr
        number = len(os.listdir("/proc/self/fd"))
        say("bridge: three")
        say("bridge: four")
        streams.replace_error()
        assert sys.stderr is replaced  # once is enough
        assert len(os.listdir("/proc/self/fd")) == number
        os.close(replaced.fileno())  # it does not close it by itself
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(write)
