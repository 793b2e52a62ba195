"""Requests of one HTTP/2 connection in the pool: a share of the threads, in order, and the next one when one ends."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from bridge.adapters.wsgi import WSGIDelegate
from bridge.adapters.wsgi.lanes import Lane, Lanes
from bridge.core.connection.parameters import ConnectionParameters, HTTP2Parameters
from bridge.core.httpserver import HTTPServer
from tests.support.faults import application_errors
from tests.support.http2 import H2Client
from tests.support.serving import TIMEOUT, address_of, until


class Pool:
    """Threads that never begin."""

    maximum = 5
    queue_limit = 100

    def __init__(self) -> None:
        self.jobs: list[Any] = []
        self.room = 100

    def add(self, job: Any, loop: Any) -> bool:
        if len(self.jobs) >= self.room:
            return False
        self.jobs.append(job)
        return True

    def withdraw(self, job: Any) -> bool:
        if job in self.jobs:
            self.jobs.remove(job)
            return True
        return False


class Request:
    def __init__(self) -> None:
        self.refused: list[str | None] = []

    def refuse(self, reason: str | None = None) -> None:
        self.refused.append(reason)


def test_half_of_the_threads_and_then_in_order() -> None:
    pool: Any = Pool()
    lane = Lane(Lanes(pool, None))  # type: ignore[arg-type]  # the loop is the pool's matter
    requests: list[Any] = [Request() for _ in range(5)]
    assert all(lane.add(request) for request in requests)
    assert pool.jobs == requests[:2]
    lane.ended()
    assert pool.jobs == requests[:3]
    assert lane.withdraw(requests[4])
    assert not lane.withdraw(requests[4])
    assert lane.withdraw(requests[2])
    assert pool.jobs == [*requests[:2], requests[3]]


def test_a_pool_without_room_refuses() -> None:
    pool: Any = Pool()
    lane = Lane(Lanes(pool, None))  # type: ignore[arg-type]  # the loop is the pool's matter
    pool.room = 2
    requests: list[Any] = [Request() for _ in range(3)]
    assert all(lane.add(request) for request in requests)
    lane.ended()
    assert requests[2].refused == ["overload"]
    pool.room = 0
    lane.ended()
    assert not lane.add(requests[0])


def test_no_more_wait_than_the_queue_takes() -> None:
    pool: Any = Pool()
    pool.queue_limit = 4
    lanes = Lanes(pool, None)  # type: ignore[arg-type]  # the loop is the pool's matter
    one, other = Lane(lanes), Lane(lanes)
    requests: list[Any] = [Request() for _ in range(7)]
    assert [one.add(request) for request in requests] == [True] * 6 + [False]  # two in threads, four wait
    assert other.add(Request())  # type: ignore[arg-type]  # the first one of a connection never waits
    assert not other.add(Request())  # type: ignore[arg-type]
    assert one.withdraw(requests[5])
    assert other.add(Request())  # type: ignore[arg-type]
    assert not one.add(requests[6])
    for _ in range(5):
        one.ended()
    assert one.add(requests[6])


def test_all_connections_together_leave_one_share_to_others() -> None:
    pool: Any = Pool()
    pool.maximum = 64
    pool.queue_limit = 1000
    lanes = Lanes(pool, None)  # type: ignore[arg-type]  # the loop is the pool's matter
    greedy = [Lane(lanes) for _ in range(8)]
    for lane in greedy:
        for _ in range(100):
            assert lane.add(Request())  # type: ignore[arg-type]  # as much of one as a lane needs
    assert greedy[0].running == 32
    assert min(lane.running for lane in greedy) == 1
    assert len(pool.jobs) < 64
    for _ in range(60):  # the first one's are served: the others get their shares
        greedy[0].ended()
        del pool.jobs[0]
    running = [lane.running for lane in greedy]
    assert sum(running) == len(pool.jobs) < 64
    assert min(running) >= 4
    modest = Lane(lanes)
    assert modest.add(Request())  # type: ignore[arg-type]  # the same
    assert modest.running == 1
    for lane in [*greedy, modest]:
        while lane.running:
            lane.ended()
    assert all(not lane.running and not lane.waiting for lane in greedy)
    assert (lanes._running, lanes._used, len(lanes._waiting)) == (0, 0, 0)


def test_who_waits_and_leaves_is_forgotten() -> None:
    pool: Any = Pool()
    lanes = Lanes(pool, None)  # type: ignore[arg-type]  # the loop is the pool's matter
    one, two = Lane(lanes), Lane(lanes)
    requests: list[Any] = [Request() for _ in range(6)]
    for request in requests[:3]:
        one.add(request)
    for request in requests[3:]:
        two.add(request)
    assert len(lanes._waiting) == 2
    for request in reversed(requests[3:]):
        assert two.withdraw(request)
    assert [*lanes._waiting] == [one]
    assert pool.jobs == requests[:2]
    assert one.withdraw(requests[2])
    assert [*lanes._waiting] == []


async def test_one_connection_leaves_threads_to_others() -> None:
    gate = threading.Event()
    left: list[bool] = []

    def app(environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/slow":
            gate.wait(TIMEOUT)
            left.append(environ["bridge.client_disconnected"]())
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    with application_errors():
        delegate = WSGIDelegate(app, threads=4)
        http2 = HTTP2Parameters(cleartext=lambda context: True)
        server = HTTPServer(delegate, params=ConnectionParameters(http2=http2))
        server.listen(0, "127.0.0.1")
        async with H2Client(address_of(server)) as greedy, H2Client(address_of(server)) as modest:
            slow = [greedy.request("/slow") for _ in range(6)]
            await until(lambda: delegate.pool.count >= 2)
            async with asyncio.timeout(TIMEOUT):
                assert (await modest.response(modest.request("/")))[0] == 200
            greedy.reset(slow[0])
            await asyncio.sleep(0)
            gate.set()
            for stream in slow[1:]:
                assert (await greedy.response(stream))[2] == b"ok"
        server.stop()
        await server.close_all_connections()
        assert await delegate.close(TIMEOUT) == 0
    assert sorted(left) in ([False] * 5 + [True], [False] * 6)  # the reset may come when the first has looked
    assert not delegate._lanes
