"""What several clients of the control socket ask for at once, with workers that are played."""

from __future__ import annotations

import json
import os
from types import SimpleNamespace
from typing import Any

import pytest

from bridge.operations.messages import Answer
from bridge.supervisor.commands import Commands
from bridge.supervisor.messages import ToWorker


class PlayedChannel:
    """The line to a worker: keeps what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, int]] = []

    def send(self, word: ToWorker, number: int, *, descriptors: list[int]) -> None:
        assert word == ToWorker.DUMP
        self.asked.append((number, os.dup(descriptors[0])))

    def write(self, index: int) -> int:
        """Write a dump, and return its number."""
        number, descriptor = self.asked[index]
        with open(descriptor, "wb") as file:
            file.write(json.dumps({"tasks": [number]}).encode())
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
