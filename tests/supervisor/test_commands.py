"""What several clients of the control socket ask for at once, with workers that are played."""

from __future__ import annotations

import errno
import json
import os
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.operations.messages import Answer
from bridge.operations.routes import Refused
from bridge.supervisor.commands import Commands
from bridge.supervisor.messages import ToWorker


class PlayedChannel:
    """The line to a worker: keeps what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def send(self, word: ToWorker, number: int, *, descriptors: list[int]) -> None:
        assert word == ToWorker.DUMP
        self.asked.append((number, os.dup(descriptors[0])))

    def write(self, index: int, data: bytes | None = None) -> int:
        """Write a dump, and return its number."""
        number, descriptor = self.asked[index]
        with open(descriptor, "wb") as file:
            file.write(json.dumps({"tasks": [number]}).encode() if data is None else data)
        return number


@pytest.fixture
def worker() -> Any:
    return SimpleNamespace(pid=1, slot=0, state="ready", channel=PlayedChannel())


def test_a_worker_writes_one_of_several_dumps(worker: Any) -> None:
    commands = Commands(SimpleNamespace(workers=[worker]))
    answers: list[Answer] = []
    for _ in range(3):
        commands.reports["/dump"]({}, answers.append)
    commands.dumped(worker, worker.channel.write(0))
    commands.check(0.0)
    assert [json.loads(answer.content)["workers"] for answer in answers] == [[{"worker": 0, "pid": 1, "tasks": [0]}]]
    commands.dumped(worker, worker.channel.write(2))  # the order for the second was lost
    commands.check(0.0)
    assert json.loads(answers[1].content)["workers"][0]["tasks"] == [2]
    commands.close()
    assert "no answer" in json.loads(answers[2].content)["workers"][0]["error"]
    os.close(worker.channel.asked[1][1])


def parts(answers: list[Answer]) -> Any:
    (answer,) = answers
    return json.loads(answer.content)["workers"]


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"", "garbled"),
        (b'{"tasks": [', "garbled"),
        (b"7", "garbled"),
        (b"[1]", "garbled"),
        (b"[" * 100_000, "garbled"),
        (b"\xff", "garbled"),
        (b'{"tasks": "' + b"x" * (16 << 20) + b'"}', "larger than 16 MiB"),
    ],
    ids=["nothing", "half", "a number", "a list", "depth", "bytes", "too much"],
)
def test_what_is_no_dump_is_said_and_harms_nobody(worker: Any, data: bytes, error: str) -> None:
    commands = Commands(SimpleNamespace(workers=[worker]))
    answers: list[Answer] = []
    commands.reports["/dump"]({}, answers.append)
    commands.dumped(worker, worker.channel.write(0, data))
    commands.check(0.0)
    (part,) = parts(answers)
    assert error in part["error"]


def test_a_worker_that_ends_is_not_waited_for(worker: Any) -> None:
    other = SimpleNamespace(pid=2, slot=1, state="ready", channel=PlayedChannel())
    workers = [worker, other]
    commands = Commands(SimpleNamespace(workers=workers))
    answers: list[Answer] = []
    commands.reports["/dump"]({}, answers.append)
    commands.dumped(worker, worker.channel.write(0))
    commands.check(0.0)
    assert answers == []
    workers.remove(other)
    commands.check(0.0)
    assert parts(answers) == [
        {"worker": 0, "pid": 1, "tasks": [0]},
        {"worker": 1, "pid": 2, "error": "the worker has ended before it could answer"},
    ]
    os.close(other.channel.asked[0][1])


def test_without_descriptors_there_is_no_dump_and_none_is_left_open(
    worker: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = SimpleNamespace(pid=2, slot=1, state="ready", channel=PlayedChannel())
    commands = Commands(SimpleNamespace(workers=[worker, other]))
    made = [os.memfd_create("bridge-dump")]

    def create(name: str) -> int:
        if not made:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return made.pop()

    (descriptor,) = made
    monkeypatch.setattr(os, "memfd_create", create)
    with pytest.raises(Refused, match="Too many open files") as refused:
        commands.reports["/dump"]({}, pytest.fail)
    assert refused.value.answer.status == 503
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    assert (worker.channel.asked, commands.next_event()) == ([], [])


NAMES = [*Commands(SimpleNamespace()).reports, *Commands(SimpleNamespace()).commands]  # type: ignore[arg-type]  # unused


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_that_a_command_does_not_know_is_refused_before_anything_is_done(name: str) -> None:
    untouched: Any = SimpleNamespace()  # an attribute that is asked for would be an error
    commands = Commands(untouched)
    answers: list[Answer] = []
    with pytest.raises(Refused) as refused:
        (commands.reports | commands.commands)[name]({"wrokers": "2"}, answers.append)
    assert "wrokers" in str(refused.value)
    assert answers == []
