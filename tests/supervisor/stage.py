"""A stage for a master and its crew: processes are played, the clock is set by hand, lines and signals are real.

Nothing is forked and nobody waits, so that a life of hours takes milliseconds. A play is a generator that runs whenever
the master would wait::

    def play() -> Play:
        (worker,) = stage.players
        worker.says("ready", "ASGI")
        yield  # until the master waits again
        stage.signal("SIGTERM")
        yield 10.0  # until it waits, with ten seconds gone
        worker.ends(0)

    assert stage.run(Master(config), play()) == 0
"""

from __future__ import annotations

import errno
import logging
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import pytest

from bridge import forks
from bridge.core.log import gen_log
from bridge.serving.ending import ending
from bridge.supervisor.channel import Channel
from bridge.telemetry import logs

Play = Generator[float | None, None, None]
# More turns than this, one after the other, in which nothing happens and no time passes, are turns without end.
TURNS = 50


class Player:
    """A process that was started: says what a worker would say, and hears what it is told."""

    def __init__(self, stage: Stage, pid: int, line: Channel) -> None:
        self._stage = stage
        self.pid = pid
        self.line = line
        self.status: int | None = None  # as waitpid has it
        self.alive = True  # until it is reaped

    def says(self, word: str, *values: object) -> None:
        self.line.send(word, *values)

    @property
    def heard(self) -> list[Any]:
        """What it has been told since this was asked last: words, and lists where a word has values."""
        return [message[0] if len(message) == 1 else message for message in self.line.receive()]

    def ends(self, code: int) -> None:
        """End with this status, or, below 0, by this signal."""
        if self.status is None:
            self.status = code << 8 if code >= 0 else -code
            self.line.close()
            signal.raise_signal(signal.SIGCHLD)


class Notes(logging.Handler):
    """What is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def take(self) -> list[str]:
        """Return the lines since this was asked last."""
        lines = self.lines[:]
        self.lines.clear()
        return lines

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(f"{record.levelname} {record.getMessage()}")


@contextmanager
def noted() -> Iterator[Notes]:
    """Note what the server logs, whatever loggers are set to, and leave these as they were."""
    notes = Notes()
    logger = logging.getLogger("bridge")
    before = (logger.handlers[:], logger.level, logger.propagate, gen_log.level)
    gen_log.addHandler(notes)
    gen_log.setLevel(logging.INFO)
    try:
        yield notes
    finally:
        gen_log.removeHandler(notes)
        logger.handlers[:], level, logger.propagate, own_level = before
        logger.setLevel(level)
        gen_log.setLevel(own_level)


class Stage:
    """What the system does for a master.

    Attributes:
        now: The monotonic clock.
        players: The processes that were started, in their order.
        killed: Process and signal of every kill, in their order.
        forks: How many forks were tried.
        full: So many of the next forks fail.
        in_child: The next fork returns in the child.
    """

    def __init__(self, notes: Notes) -> None:
        self.now = 1000.0
        self.players: list[Player] = []
        self.killed: list[tuple[int, str]] = []
        self.forks = 0
        self.full = 0
        self.in_child = False
        self.notes = notes
        self.notices: socket.socket | None = None
        self._line: Channel | None = None
        self.line = Channel.pair  # a line without a process
        self._play: Play | None = None
        self._until = self.now
        self._turns = 0

    # ------------------------------------------------------------------ the system

    def pair(self) -> tuple[Channel, Channel]:
        ours, theirs = self.line()
        self._line = Channel(socket.socket(fileno=os.dup(theirs.fileno())))
        return ours, theirs

    def fork(self) -> int:
        self.forks += 1
        line, self._line = self._line, None
        assert line is not None
        if self.full:
            self.full -= 1
            line.close()
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        if self.in_child:
            line.close()
            return 0
        self.players.append(Player(self, 101 + len(self.players), line))
        return self.players[-1].pid

    def kill(self, pid: int, number: int) -> None:
        player = self.player(pid)
        if player is None or not player.alive:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH))
        self.killed.append((pid, signal.Signals(number).name))
        if number == signal.SIGKILL:
            player.ends(-number)

    def waitpid(self, pid: int, options: int) -> tuple[int, int]:
        assert options == os.WNOHANG
        player = self.player(pid)
        if player is None or not player.alive:
            raise ChildProcessError(errno.ECHILD, os.strerror(errno.ECHILD))
        if player.status is None:
            return 0, 0
        player.alive = False
        return player.pid, player.status

    def select(self, poll: Callable[[float], list[Any]], timeout: float | None) -> list[Any]:
        """Let time pass, or the play go on, until something happens or the time is up."""
        assert self._play is not None
        while not (found := poll(0)):
            if timeout is not None and self.now + timeout <= self._until:
                self._turns = 0 if timeout else self._turns + 1
                assert self._turns < TURNS, "the master turns without end"
                self.now += timeout
                return []
            if timeout is not None:
                timeout -= self._until - self.now
            self.now = self._until
            now = self.now
            try:
                passing = next(self._play)
            except StopIteration:
                if found := poll(0):
                    return found
                raise AssertionError(f"the play is over, and the master waits for {timeout}") from None
            self._turns = 0
            self._until = self.now + (passing or 0.0)
            if timeout is not None and self.now - now >= timeout:
                return poll(0)  # the play has set the clock: everything stood still for so long
        self._turns += 1
        assert self._turns < TURNS, "the master turns without end"
        return found

    # ------------------------------------------------------------------ for plays

    def run(self, master: Any, play: Play) -> int:
        """Run the master, and return its exit status; the play has to have come to its end."""
        self._play = play
        self._until = self.now
        status: int = master.run()
        assert next(play, "over") == "over", "the master has ended before the play"
        return status

    def player(self, pid: int) -> Player | None:
        return next((player for player in self.players if player.pid == pid), None)

    def stranger(self) -> Player:
        """Return a child that the master has not started."""
        ours, theirs = self.line()
        theirs.close()
        self.players.append(Player(self, 901, ours))
        return self.players[-1]

    def news(self) -> list[str]:
        """What was logged since this was asked last."""
        return self.notes.take()

    @staticmethod
    def signal(name: str) -> None:
        signal.raise_signal(getattr(signal, name))

    def listen_for_notices(self, path: str, watchdog: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
        """Be systemd for the next master, which is to be alive every *watchdog* seconds."""
        self.notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notices.setblocking(False)
        self.notices.bind(path)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        if watchdog is not None:
            monkeypatch.setenv("WATCHDOG_USEC", str(int(watchdog * 2e6)))

    def noticed(self) -> list[str]:
        """The first names of the notices since this was asked last."""
        assert self.notices is not None
        found = []
        while True:
            try:
                found.append(self.notices.recv(4096).decode().partition("=")[0])
            except BlockingIOError:
                return found


def descriptors() -> set[str]:
    """Return what is open in this process."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        try:
            found.add(f"{name} {os.readlink(f'/proc/self/fd/{name}')}")
        except OSError:  # the directory itself
            continue
    return found


@contextmanager
def a_child_that_ends_by_system_exit() -> Iterator[None]:
    """Let the life of a worker end with a SystemExit, and leave this process what a child would have anew."""

    def leave(code: int) -> NoReturn:
        raise SystemExit(code)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(forks, "leave", leave)
        patch.setattr(forks, "begin_afresh", lambda: None)
        patch.setattr(ending, "begin", lambda: None)
        patch.setattr(ending, "last", lambda code: code)
        yield


@contextmanager
def staged() -> Iterator[Stage]:
    """Have the system played; in the end no descriptor is left."""
    before = descriptors()
    with noted() as notes, pytest.MonkeyPatch.context() as patch:
        stage = Stage(notes)

        class Turns(selectors.DefaultSelector):  # type: ignore[misc,valid-type]
            def select(self, timeout: float | None = None) -> list[Any]:
                return stage.select(super().select, timeout)

        for name in ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "BRIDGE_HANDOVER"):
            patch.delenv(name, raising=False)
        patch.setattr(logs, "_files", {})
        patch.setattr(Channel, "pair", staticmethod(stage.pair))
        patch.setattr(os, "fork", stage.fork)
        patch.setattr(os, "kill", stage.kill)
        patch.setattr(os, "waitpid", stage.waitpid)
        patch.setattr(time, "monotonic", lambda: stage.now)
        patch.setattr(selectors, "DefaultSelector", Turns)
        try:
            yield stage
        finally:
            for player in stage.players:
                player.line.close()
            if stage.notices is not None:
                stage.notices.close()
    left = descriptors() - before
    assert left == set(), left
