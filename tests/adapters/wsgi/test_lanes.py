"""Requests of one HTTP/2 connection in the pool: a share of the threads, in order, and the next one when one ends."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from bridge.adapters.wsgi import WSGIDelegate
from bridge.adapters.wsgi.lanes import Lane
from bridge.core.connection.parameters import ConnectionParameters, HTTP2Parameters
from bridge.core.httpserver import HTTPServer
from tests.support.faults import application_errors
from tests.support.http2 import H2Client
from tests.support.serving import TIMEOUT, address_of, until


class Pool:
    """Threads that never begin."""

    maximum = 5

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
    lane = Lane(pool, None)  # type: ignore[arg-type]  # the pool's matter
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
    lane = Lane(pool, None)  # type: ignore[arg-type]  # the pool's matter
    pool.room = 2
    requests: list[Any] = [Request() for _ in range(3)]
    assert all(lane.add(request) for request in requests)
    lane.ended()
    assert requests[2].refused == ["overload"]
    pool.room = 0
    lane.ended()
    assert not lane.add(requests[0])


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
