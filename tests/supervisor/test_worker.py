"""A worker in this process: the master is played at the other end of the line."""

from __future__ import annotations

import asyncio
import faulthandler
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bridge.config import Config
from bridge.config.kinds import UnixAddress
from bridge.errors import ConfigError, LifespanFailed
from bridge.serving.sockets import BindError, bind
from bridge.supervisor import worker as worker_module
from bridge.supervisor.channel import Channel
from bridge.supervisor.worker import failure, run_worker
from bridge.telemetry import logs
from tests.supervisor.stage import Notes, noted


class Line(Channel):
    """The worker's end; it does not end this process, but notes when it would.

    Attributes:
        guards: How often the process would have ended with the line, from when to when.
        received: How often the worker has looked for words.
    """

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock, takes_descriptors=True)
        self.guards: list[str] = []
        self.received = 0

    def end_process_when_closed(self) -> None:
        self.guards.append("on")

    def end_nothing(self) -> None:
        self.guards.append("off")

    def receive(self) -> list[Any]:
        self.received += 1
        return super().receive()


class Watched(asyncio.SelectorEventLoop):
    """A loop that notes what it still listens to when it is closed, and what nobody has caught."""

    left: list[set[int]]
    errors: list[dict[str, Any]]

    def __init__(self) -> None:
        super().__init__()
        self.set_exception_handler(lambda _, context: self.errors.append(context))

    def close(self) -> None:
        if not self.is_closed():
            own = {self._ssock.fileno()}  # type: ignore[attr-defined]  # how other threads wake it
            self.left.append({key.fd for key in self._selector.get_map().values()} - own)  # type: ignore[attr-defined]
        super().close()


class Work:
    """A worker's process: what it is given, and the master's end of its line.

    Attributes:
        duty: What the application does in its lifespan, between its start and its end.
        shutdown: What it does at its end.
    """

    def __init__(self, path: Path, notes: Notes, monkeypatch: pytest.MonkeyPatch) -> None:
        self.path = str(path)
        self.notes = notes
        ours, theirs = socket.socketpair()
        self.master = Channel(ours)
        self.line = Line(theirs)
        self.left: list[set[int]] = []
        self.errors: list[dict[str, Any]] = []
        self.settings: dict[str, Any] = {"loop": "asyncio", "access_log": False, "timeout_worker": None}
        self.duty: Callable[[], Awaitable[None]] = self.nothing
        self.shutdown: Callable[[], Awaitable[None]] = self.nothing
        kept = {"left": self.left, "errors": self.errors}
        monkeypatch.setattr(asyncio, "new_event_loop", type("Kept", (Watched,), kept))

    async def nothing(self) -> None:
        pass

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "lifespan"
        await receive()
        await send({"type": "lifespan.startup.complete"})
        duty = asyncio.create_task(self.after_the_start())
        await receive()
        await self.shutdown()
        await duty
        await send({"type": "lifespan.shutdown.complete"})

    async def after_the_start(self) -> None:
        await self.until(lambda: "ready" in self.words)
        await self.duty()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():
                self.hear()
                await asyncio.sleep(0)

    async def turns(self, count: int = 30) -> None:
        for _ in range(count):
            await asyncio.sleep(0)
        self.hear()

    _heard: list[Any] | None = None

    def hear(self) -> None:
        self._heard = [*(self._heard or []), *(self.master.receive() if self.master.open else [])]

    @property
    def words(self) -> list[str]:
        """What the master was told, without values."""
        return [message[0] for message in self._heard or []]

    @property
    def messages(self) -> list[list[Any]]:
        return self._heard or []

    def run(self) -> int:
        config = Config(uds=self.path, **self.settings)
        listener = bind(UnixAddress(self.path), config)
        try:
            status = run_worker(config, self.app, [listener], self.line)
        finally:
            assert all(sock.fileno() == -1 for sock in listener.sockets)
            assert os.path.exists(self.path)  # the others serve on
            listener.close()
        self.hear()
        assert self.errors == []
        return status


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Work]:
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    with noted() as notes:
        found = Work(tmp_path / "a.sock", notes, monkeypatch)
        try:
            yield found
        finally:
            shows_its_stacks = faulthandler.unregister(signal.SIGUSR2)
            for number, handler in handlers.items():
                if handler is not None and signal.getsignal(number) is not handler:
                    signal.signal(number, handler)
            found.master.close()
            found.line.close()
        assert shows_its_stacks


def test_it_says_that_it_is_ready_beats_and_ends_when_it_is_told(work: Work) -> None:
    async def duty() -> None:
        assert work.line.guards == ["on", "off"]
        await work.turns()
        assert work.words == ["ready", "beat"]
        work.master.send("stop", 7.0)

    work.duty = duty
    assert work.run() == 0
    assert work.messages == [["ready", "ASGI"], ["beat"], ["draining"]]
    assert work.notes.take() == ["INFO Stopped"]
    assert work.left == [set()]  # the line is listened to no more


def test_it_beats_as_often_as_the_settings_want_it(work: Work) -> None:
    work.settings["timeout_worker"] = 0.02

    async def duty() -> None:
        await work.until(lambda: work.words.count("beat") >= 4)
        work.master.send("stop", None)

    work.duty = duty
    assert work.run() == 0
    assert [word for word in work.words if word != "beat"] == ["ready", "draining"]  # beats go on until the end


@pytest.mark.parametrize("word", ["retire", "stop", "force"])
def test_it_does_what_the_master_says(work: Work, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[object, ...]] = []

    class Told(worker_module.Server):
        def stop(self, timeout: float | None = -1.0, idle_grace: float = 0.0, *, replaced: bool = False) -> None:
            calls.append(("stop", timeout, idle_grace, replaced))
            super().stop(0.0)

        def force(self) -> None:
            calls.append(("force",))
            super().force()

    monkeypatch.setattr(worker_module, "Server", Told)

    async def duty() -> None:
        work.master.send(word, *([7.0] if word == "stop" else []))

    work.duty = duty
    assert work.run() == 0
    assert (
        calls
        == {"retire": [("stop", -1.0, 5.0, True)], "stop": [("stop", 7.0, 0.0, False)], "force": [("force",)]}[word]
    )


@pytest.mark.parametrize("word", ["reopen"])
def test_what_is_read_anew_ends_nothing(work: Work, word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    class Told(worker_module.Server):
        def reload_certificates(self) -> None:
            calls.append("certificates")

        def reopen_logs(self) -> None:
            calls.append("reopen")

    monkeypatch.setattr(worker_module, "Server", Told)

    async def duty() -> None:
        work.master.send(word)
        await work.turns()
        assert calls == [word]
        work.master.send("stop", 0.0)

    work.duty = duty
    assert work.run() == 0
    assert calls == [word]
    assert work.words == ["ready", "beat", "draining"]


def test_log_files_that_the_master_has_opened(work: Work, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(logs, "_files", {})
    file = logs.log_file("--error-logfile", str(tmp_path / "log"))
    new = os.open(tmp_path / "new", os.O_WRONLY | os.O_CREAT)

    async def duty() -> None:
        for _ in range(2):
            work.master.send("reopen", str(tmp_path / "log"), "/no/such", descriptors=[new, new])  # type: ignore[arg-type]
            await work.turns()
            assert os.path.samestat(os.fstat(file.descriptor), os.fstat(new))
        work.master.send("reopen")  # type: ignore[arg-type]
        await work.turns()
        assert os.path.samestat(os.fstat(file.descriptor), os.stat(tmp_path / "log"))
        work.master.send("stop", 0.0)  # type: ignore[arg-type]

    work.duty = duty
    before = len(os.listdir("/proc/self/fd"))
    assert work.run() == 0
    assert work.line.descriptors == []
    assert len(os.listdir("/proc/self/fd")) == before
    os.close(new)
    os.close(file.descriptor)


def test_without_its_master_it_stops_and_listens_no_more(work: Work) -> None:
    async def duty() -> None:
        work.line.received = 0
        work.master.close()

    work.duty = duty
    work.shutdown = work.turns
    assert work.run() == 0
    assert work.line.received == 1  # a line that is closed is readable for ever
    assert work.notes.take() == ["ERROR The master process is gone: stopping", "INFO Stopped"]
    assert work.left == [set()]


def test_without_its_master_during_a_stop_it_says_nothing(work: Work) -> None:
    async def duty() -> None:
        work.master.send("stop", 5.0)

    async def shutdown() -> None:
        work.line.received = 0
        work.master.close()
        await work.turns()

    work.duty = duty
    work.shutdown = shutdown
    assert work.run() == 0
    assert work.line.received == 1
    assert work.notes.take() == ["INFO Stopped"]


def test_an_order_that_fails_keeps_none_behind_it_from_being_carried_out(work: Work) -> None:
    async def duty() -> None:
        work.master.send("dump", 1)  # its descriptor was lost: this process had no room for it
        work.master.send("stop", None)

    work.duty = duty
    assert work.run() == 0
    assert work.notes.take() == ["ERROR What the master has ordered has failed: dump", "INFO Stopped"]


def test_more_words_come_while_it_stops(work: Work) -> None:
    async def duty() -> None:
        work.master.send("stop", None)

    async def shutdown() -> None:
        work.master.send("force")
        await asyncio.Event().wait()

    work.duty = duty
    work.shutdown = shutdown
    assert work.run() == 0
    assert work.notes.take()[-1] == "INFO Stopped"


def test_it_asks_for_a_successor_when_it_has_served_its_time(work: Work) -> None:
    work.settings["workers_lifetime"] = 0.01

    async def duty() -> None:
        await work.until(lambda: "finished" in work.words)
        await work.turns()
        assert work.words == ["ready", "beat", "finished"]
        work.master.send("retire")

    work.duty = duty
    assert work.run() == 0
    assert work.words == ["ready", "beat", "finished", "draining"]


# --- signals ---------------------------------------------------------------------------------------------------------


def test_somebody_s_sigterm_asks_for_a_successor_and_serves_on(work: Work) -> None:
    async def duty() -> None:
        signal.raise_signal(signal.SIGTERM)
        await work.until(lambda: "finished" in work.words)
        await work.turns()
        assert work.words == ["ready", "beat", "finished"]
        work.master.send("retire")

    work.duty = duty
    assert work.run() == 0
    assert work.words == ["ready", "beat", "finished", "draining"]


def test_sigterm_during_a_stop_asks_for_nobody(work: Work) -> None:
    async def duty() -> None:
        work.master.send("stop", 5.0)

    async def shutdown() -> None:
        signal.raise_signal(signal.SIGTERM)
        await work.turns()

    work.duty = duty
    work.shutdown = shutdown
    assert work.run() == 0
    assert work.words == ["ready", "beat", "draining"]


@pytest.mark.parametrize("name", ["SIGINT", "SIGHUP", "SIGQUIT"])
def test_the_terminal_s_signals_are_the_master_s(work: Work, name: str) -> None:
    async def duty() -> None:
        signal.raise_signal(getattr(signal, name))
        await work.turns()
        assert work.words == ["ready", "beat"]
        work.master.send("stop", 0.0)

    work.duty = duty
    assert work.run() == 0
    assert work.words == ["ready", "beat", "draining"]


def test_sigusr1_opens_the_logs_anew(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    monkeypatch.setattr(worker_module.Server, "reopen_logs", lambda _: calls.append("reopen"))

    async def duty() -> None:
        signal.raise_signal(signal.SIGUSR1)
        await work.until(lambda: bool(calls))
        await work.turns()
        work.master.send("stop", 0.0)

    work.duty = duty
    assert work.run() == 0
    assert calls == ["reopen"]
    assert work.words == ["ready", "beat", "draining"]


# --- a start that fails ----------------------------------------------------------------------------------------------


def test_its_last_words_say_why_it_cannot_start(work: Work) -> None:
    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    work.app = refuse  # type: ignore[method-assign]
    assert work.run() == 4
    assert work.messages == [["failed", 4, "the application: lifespan startup failed: no database", ""]]
    assert work.line.guards == ["on", "off"]  # a word of the master's is no end any more
    assert work.left == [set()]


def test_words_of_the_application_s_that_the_line_has_no_room_for_are_cut(work: Work) -> None:
    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no " * 1_000_000})

    work.app = refuse  # type: ignore[method-assign]
    assert work.run() == 4
    ((word, status, text, _),) = work.messages
    assert (word, status) == ("failed", 4)
    assert text.startswith("the application: lifespan startup failed: no no no")


@pytest.mark.parametrize(
    ("exc", "status", "text"),
    [
        (LifespanFailed("no database"), 4, "shop:app: lifespan startup failed: no database"),
        (ConfigError("--port: no"), 2, "--port: no"),
        (BindError("cannot listen on :80"), 1, "cannot listen on :80"),
        (worker_module.TargetError("no module"), 3, "no module"),
    ],
)
def test_the_status_of_a_start_that_fails(exc: Any, status: int, text: str) -> None:
    assert failure(Config(target="shop:app"), exc) == (status, text)
