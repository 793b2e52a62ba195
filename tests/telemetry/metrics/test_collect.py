"""What is summed over all processes, and what is told of each."""

from __future__ import annotations

import os

from bridge.telemetry.metrics.arena import READY, Arena
from bridge.telemetry.metrics.collect import workers_of


def test_each_process_that_serves_is_told_of_and_the_master_is_not() -> None:
    arena = Arena(3)
    for slot, requests in ((1, 5), (0, 7)):
        block = arena.allocate(slot)
        assert block is not None
        block.begin(READY, slot)
        index = block.row("http_server_request_duration_seconds", (("method", "GET"),))
        block.cells[index] = requests  # in the bucket of the shortest
        block.cells[index + 2] = 1  # and in another one
        block.set("bridge_loop_utilization", (("worker", str(slot)),), 250_000)
        for state, number in (("busy", 2), ("idle", 1)):
            block.set("bridge_threads", (("state", state),), number)
    arena.own.set("bridge_loop_utilization", (), 1)
    found = workers_of([arena])
    assert [(worker["worker"], worker["requests"]) for worker in found] == [(0, 8), (1, 6)]
    assert {worker["state"] for worker in found} == {"ready"}
    assert found[0]["busy"] == 0.25
    assert found[0]["threads"] == {"busy": 2, "idle": 1, "lost": 0}
    assert os.getpid() not in {worker["pid"] for worker in found}  # no process has taken the blocks
