"""A task of a handler that ends by an exception that is no Exception."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("tornado")

import tornado.web

from bridge.core.httpserver import HTTPServer
from bridge.core.tornado.tasks import call_watched
from tests.support.asgi import LIMIT
from tests.support.tornadostyle import port_of

#: SystemExit and KeyboardInterrupt end pytest's loop; ``tests/serving/test_ending.py`` has them.
KINDS = {
    "generator": GeneratorExit(),
    "base": BaseException("on purpose"),
    "group": BaseExceptionGroup("on purpose", [GeneratorExit()]),
}


@tornado.web.stream_request_body
class Failing(tornado.web.RequestHandler):
    """Raises the kind of exception that the path names, at the place that it names."""

    async def prepare(self) -> None:
        self._fail_at("prepare")

    def data_received(self, chunk: bytes) -> None:
        self._fail_at("data_received")

    async def post(self, place: str, kind: str) -> None:
        self._fail_at("sync")
        await asyncio.sleep(0)
        self._fail_at("async")
        if place == "write_error":
            raise ValueError
        if place == "begun":
            self.write("x")
            await self.flush()
            self._fail_at("begun")
        self.write("fine")

    def write_error(self, status_code: int, **more: object) -> None:
        self._fail_at("write_error")

    def on_finish(self) -> None:
        self._fail_at("on_finish")

    def _fail_at(self, place: str) -> None:
        if self.path_args[0] == place:
            raise KINDS[self.path_args[1]]


async def ask(port: int, path: str, *, to_end: bool) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx".encode())
        async with asyncio.timeout(LIMIT):
            return await (reader.read() if to_end else reader.readuntil(b"fine"))
    finally:
        writer.close()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("place", ["prepare", "data_received", "sync", "async", "write_error", "begun", "on_finish"])
async def test_a_handler_that_ends_by_any_exception_leaves_no_client_waiting(
    place: str, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda loop, context: None)  # Tornado asks the task for its result, which raises again
    server = HTTPServer(tornado.web.Application([("/(.*)/(.*)", Failing)]))
    server.listen(0, "127.0.0.1")
    try:
        answer = await ask(port_of(server), f"/{place}/{kind}", to_end=place != "on_finish")
        if place == "begun":
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert not answer.endswith(b"0\r\n\r\n"), "it looks complete"
        elif place != "on_finish":
            assert answer.startswith(b"HTTP/1.1 500 ")
            assert b"connection: close" in answer.lower()
        assert (await ask(port_of(server), "/none/none", to_end=False)).startswith(b"HTTP/1.1 200 ")
        if place != "on_finish":
            assert "Uncaught exception while serving" in caplog.text
    finally:
        loop.set_exception_handler(None)
        server.stop()
        await server.close_all_connections()


class Stub:
    """Stands for a connection whose exchange is told of failures."""

    taken = None

    def __init__(self) -> None:
        self.exchange = self
        self.loop = asyncio.get_running_loop()
        self.failures: list[BaseException] = []

    def report_failure(self, error: BaseException) -> None:
        """Keep *error*."""
        self.failures.append(error)


async def test_the_factory_of_tasks_is_asked_and_put_back() -> None:
    made = []

    def factory(loop: asyncio.AbstractEventLoop, coroutine: object, **options: object) -> object:
        made.append(coroutine)
        return asyncio.Task(coroutine, loop=loop, **options)  # type: ignore[arg-type,call-overload]  # as loops call it

    async def fail() -> None:
        raise GeneratorExit

    connection = Stub()
    connection.loop.set_task_factory(factory)  # type: ignore[arg-type]  # its type names no options
    task = call_watched(connection, lambda: asyncio.ensure_future(fail()))  # type: ignore[arg-type]  # a stub
    assert connection.loop.get_task_factory() is factory
    connection.loop.set_task_factory(None)
    with pytest.raises(GeneratorExit):
        await task
    assert len(made) == 1
    assert [type(error) for error in connection.failures] == [GeneratorExit]


async def test_a_task_factory_that_the_application_sets_in_a_call_stays() -> None:
    class Watched:
        exchange = SimpleNamespace(loop=asyncio.get_running_loop(), report_failure=lambda error: failures.append(error))
        taken = None

    failures: list[BaseException] = []
    loop: Any = asyncio.get_running_loop()
    before = loop.get_task_factory()

    def set_own() -> None:
        inner = loop.get_task_factory()
        loop.set_task_factory(own := lambda loop, coroutine, **options: inner(loop, coroutine, **options))
        set_ones.append(own)

    async def fail() -> None:
        raise KINDS["base"]

    set_ones: list[Any] = []
    watched: Any = Watched()
    try:
        call_watched(watched, set_own)
        assert [loop.get_task_factory()] == set_ones
        done, _ = await asyncio.wait([loop.create_task(fail())])
        assert [task.exception() for task in done] == [KINDS["base"]]
        assert not failures, "a task that was started after the call has ended the exchange"
    finally:
        loop.set_task_factory(before)
