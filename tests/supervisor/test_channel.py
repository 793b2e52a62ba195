"""Descriptors that go with messages, from the master to its child and not back."""

from __future__ import annotations

import os

from bridge.supervisor.channel import Channel
from bridge.supervisor.messages import FromWorker, ToWorker


def test_descriptors_come_with_their_messages() -> None:
    master, worker = Channel.pair()
    pipes = [os.pipe() for _ in range(3)]
    master.send(ToWorker.REOPEN, "a", descriptors=[pipes[0][1]])
    master.send(ToWorker.FORCE)
    master.send(ToWorker.REOPEN, "b", "c", descriptors=[pipes[1][1], pipes[2][1]])
    assert worker.receive() == [["reopen", "a"], ["force"], ["reopen", "b", "c"]]
    assert not any(os.get_inheritable(number) for number in worker.descriptors)
    for number, (reading, writing) in zip(worker.descriptors, pipes, strict=True):
        os.write(number, b"x")
        assert os.read(reading, 1) == b"x"
        for one in (number, reading, writing):
            os.close(one)
    master.close()
    worker.close()


def test_a_child_cannot_fill_the_master_with_descriptors() -> None:
    master, worker = Channel.pair()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(10):
        worker.send(FromWorker.BEAT, descriptors=[0, 1, 2])
    assert master.receive() == [["beat"]] * 10
    assert master.descriptors == []
    assert len(os.listdir("/proc/self/fd")) == before
    master.close()
    worker.close()
