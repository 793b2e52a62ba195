"""A connection under any sequence of what a peer, a delegate, a server and time can do to it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bridge.core.connection.interfaces import NULL_DELEGATE
from bridge.core.connection.states import CLOSED, DONE
from bridge.errors import ConnectionGone, FramingError, LocalProtocolError
from tests.support.link import Link, Recorder, Told, linked
from tests.support.responses import read_responses

HOST = b" HTTP/1.1\r\nHost: a\r\n"
REQUESTS = [
    b"GET /%d" + HOST + b"\r\n",
    b"HEAD /%d" + HOST + b"\r\n",
    b"POST /%d" + HOST + b"Content-Length: 5\r\n\r\nhello",
    b"POST /%d" + HOST + b"Content-Length: 70000\r\n\r\n" + b"x" * 70000,
    b"POST /%d" + HOST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;x\r\nabc\r\n0\r\nX: y\r\n\r\n",
    b"POST /%d" + HOST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\nhello",
    b"\r\nGET /%d" + HOST + b"Connection: close\r\n\r\n",
    b"GET /%d HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"GET /%d HTTP/1.0\r\n\r\n",
]
BAD = [
    b"BAD\r\n\r\n",
    b"\x16\x03\x01",
    b"POST /bad" + HOST + b"Transfer-Encoding: chunked\r\n\r\nx\r\n",
    b"GET /bad" + HOST + b"X : y\r\n\r\n",
]

PEER = st.one_of(
    st.tuples(st.just("request"), st.sampled_from(REQUESTS)),
    st.tuples(st.just("half"), st.sampled_from(REQUESTS)),
    st.tuples(st.just("rest"), st.none()),
    st.tuples(st.just("stall"), st.none()),
    st.tuples(st.just("read"), st.sampled_from([1, 100, 20000, None])),
)
RUDE_PEER = st.one_of(
    st.tuples(st.just("bad"), st.sampled_from(BAD)),
    st.tuples(st.sampled_from(["eof", "reset"]), st.none()),
    st.tuples(st.just("time"), st.sampled_from([0.3, 3.0, 6.0, 31.0, 65.0])),
)
DELEGATE = st.one_of(
    st.tuples(st.just("answer"), st.sampled_from([0, 5, 40000, 100000])),
    st.tuples(st.just("part"), st.sampled_from([0, 5, 40000, 100000])),
    st.tuples(
        st.sampled_from(
            ["end", "trailers", "inform", "continue", "pause", "resume", "release", "sync", "later", "drained"]
        ),
        st.none(),
    ),
)
RUDE_DELEGATE = st.tuples(
    st.sampled_from(
        ["fail", "abort", "raise", "release badly", "release cancelled", "release refused", "short", "long"]
    ),
    st.none(),
)
SERVER = st.tuples(st.sampled_from(["close_when_idle", "grace", "abort_connection"]), st.none())


class World:
    """One connection and who is at it; every operation may come at any time."""

    def __init__(self, link: Link, recorder: Recorder) -> None:
        self.link = link
        self.recorder = recorder
        self.number = 0
        self.rest = b""
        self.sent: list[str] = []
        self.sync = False
        self.waits = False
        self.fails = False
        self.futures: list[asyncio.Future[None]] = []
        self.tasks: list[asyncio.Task[None]] = []
        recorder.on_start = self.on_start
        recorder.on_data = self.on_data
        recorder.on_finish = self.on_finish

    # ------------------------------------------------------------------ the delegate

    def on_start(self, told: Told) -> None:
        told.exchange.delegate = NULL_DELEGATE  # as ServerConnection's users may: it is set when start_exchange returns
        if self.sync and told.exchange.head.content_length == 0:
            self.answer(told, 5)

    def on_data(self, told: Told, chunk: bytes) -> Any:
        if self.fails:
            self.fails = False
            raise ValueError("x")
        if self.waits:
            self.futures.append(self.link.loop.create_future())
            return self.futures[-1]
        return None

    def on_finish(self, told: Told) -> None:
        if self.fails:
            self.fails = False
            raise ValueError("x")
        if self.sync and told.exchange.writing.name == "HEAD":
            self.answer(told, 5)

    def answer(self, told: Told, size: int) -> None:
        told.exchange.respond(200, [])
        told.exchange.send(told.exchange.head.path.ljust(size, b"."), True)

    @property
    def current(self) -> Told | None:
        exchange = self.link.connection.exchange
        return next((told for told in self.recorder.told if told.exchange is exchange), None)

    # ------------------------------------------------------------------ operations

    def do(self, name: str, argument: Any) -> None:
        method = getattr(self, "peer_" + name, None) or getattr(self, "server_" + name, None)
        if method is not None:
            method(argument)
            return
        if name == "sync":
            self.sync = not self.sync
        elif name == "later":
            self.waits = not self.waits
        elif name == "raise":
            self.fails = True
        elif name.startswith("release"):
            self.release(name)
        elif (told := self.current) is not None:
            with contextlib.suppress(LocalProtocolError, ConnectionGone):
                self.link.loop.call(getattr(self, "on_" + name), told, argument)

    def peer_request(self, request: bytes) -> None:
        self.number += 1
        self.sent.append(f"/{self.number}")
        self.link.send(self.rest + request % self.number)
        self.rest = b""

    def peer_half(self, request: bytes) -> None:
        self.number += 1
        self.sent.append(f"/{self.number}")
        wire = self.rest + request % self.number
        self.rest = wire[len(wire) // 2 :]
        self.link.send(wire[: len(wire) // 2])

    def peer_rest(self, _: None) -> None:
        self.link.send(self.rest)
        self.rest = b""

    def peer_bad(self, wire: bytes) -> None:
        self.link.send(self.rest + wire)
        self.rest = b""

    def peer_stall(self, _: None) -> None:
        self.link.stop_reading()

    def peer_read(self, size: int | None) -> None:
        self.link.read(size)

    def peer_eof(self, _: None) -> None:
        self.link.send_eof()

    def peer_reset(self, _: None) -> None:
        self.link.reset()

    def peer_time(self, seconds: float) -> None:
        self.link.loop.advance(seconds, 0.5)

    def server_close_when_idle(self, _: None) -> None:
        self.link.loop.call(self.link.connection.close_when_idle)

    def server_grace(self, _: None) -> None:
        self.link.loop.call(self.link.connection.close_when_idle, 1.0)

    def server_abort_connection(self, _: None) -> None:
        self.link.loop.call(self.link.connection.abort)

    def release(self, how: str) -> None:
        futures = [future for future in self.futures if not future.done()]
        if not futures:
            return
        if how == "release badly":
            futures[0].set_exception(ValueError("x"))
        elif how == "release refused":
            futures[0].set_exception(FramingError("x"))
        elif how == "release cancelled":
            futures[0].cancel()
        else:
            futures[0].set_result(None)
        self.link.loop.settle()

    def on_answer(self, told: Told, size: int) -> None:
        self.answer(told, size)

    def on_part(self, told: Told, size: int) -> None:
        if told.exchange.writing.name == "HEAD":
            told.exchange.respond(200, [])
            told.exchange.send(told.exchange.head.path)
        told.exchange.send(b"." * size)

    def on_end(self, told: Told, _: None) -> None:
        told.exchange.send(b"", True)

    def on_trailers(self, told: Told, _: None) -> None:
        told.exchange.end([(b"x-end", b"1")])

    def on_inform(self, told: Told, _: None) -> None:
        told.exchange.inform(103, [])

    def on_continue(self, told: Told, _: None) -> None:
        told.exchange.send_continue()

    def on_pause(self, told: Told, _: None) -> None:
        told.exchange.pause_reading()

    def on_resume(self, told: Told, _: None) -> None:
        told.exchange.resume_reading()

    def on_drained(self, told: Told, _: None) -> None:
        async def wait() -> None:
            with contextlib.suppress(ConnectionGone):
                await told.exchange.drained()

        self.tasks.append(self.link.loop.create_task(wait()))

    def on_fail(self, told: Told, _: None) -> None:
        told.exchange.fail()

    def on_abort(self, told: Told, _: None) -> None:
        told.exchange.abort()

    def on_short(self, told: Told, _: None) -> None:
        told.exchange.respond(200, [(b"content-length", b"50")])
        told.exchange.send(told.exchange.head.path, True)

    def on_long(self, told: Told, _: None) -> None:
        path = told.exchange.head.path
        told.exchange.respond(200, [(b"content-length", b"%d" % len(path))])
        told.exchange.send(path + b"too much", True)

    # ------------------------------------------------------------------ what must hold

    def finish(self) -> None:
        """Let the peer read and go, and check what it got."""
        link = self.link
        link.loop.settle()
        buffered = len(link.connection.reader.buffer)
        assert buffered < 400000
        if not link.closed:
            link.read()
            link.reset()
        assert link.closed
        link.loop.settle()
        assert all(task.done() for task in self.tasks), "somebody still waits for a connection that has ended"
        for future in self.futures:
            if not future.done():
                future.cancel()
        methods = [told.exchange.head.method.decode() for told in self.recorder.told]
        responses = read_responses(link.received, methods, ended=True, cut=True)
        # Requests were started in the order in which they were sent, and each once.
        started = [
            told.exchange.head.path.decode() for told in self.recorder.told if told.exchange.head.path != b"/bad"
        ]
        assert started == self.sent[: len(started)]
        # Every response answers its own request; only the last may be a refusal, or cut short.
        for told, response in zip(self.recorder.told, responses, strict=False):
            if response.status == 200 and response.content:
                path = told.exchange.head.path
                assert response.content.startswith(path[: len(response.content)])
                assert response.content[len(path) :].strip(b".") == b""
        for response in responses[:-1]:
            assert response.status == 200
            assert response.complete
            assert not response.closes
        assert len(responses) <= len(self.recorder.told) + 1
        for told in self.recorder.told:
            assert told.exchange.writing in {DONE, CLOSED}
            # The content is what was sent, as far as it came.
            assert (b"x" * 70000).startswith(told.data) or b"helloabc".startswith(told.data)


def run(operations: list[tuple[str, Any]], **params: Any) -> World:
    recorder = Recorder()
    with linked(recorder, **params) as link:
        world = World(link, recorder)
        for name, argument in operations:
            world.do(name, argument)
        world.finish()
    return world


@pytest.fixture(autouse=True)
def quiet() -> Any:
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


SETTINGS = settings(max_examples=250, suppress_health_check=[HealthCheck.function_scoped_fixture])


@SETTINGS
@given(st.lists(st.one_of(PEER, DELEGATE), max_size=25))
def test_when_everybody_behaves(operations: list[tuple[str, Any]]) -> None:
    run(operations)


@SETTINGS
@given(
    st.lists(st.one_of(PEER, DELEGATE, RUDE_PEER, RUDE_DELEGATE, SERVER), max_size=25),
    st.sampled_from([1, 3, 65536]),
    st.booleans(),
)
def test_when_nobody_does(operations: list[tuple[str, Any]], chunk_size: int, tls: bool) -> None:
    if chunk_size < 65536:
        operations = [(name, REQUESTS[2] if argument == REQUESTS[3] else argument) for name, argument in operations]
    run(operations, tls=tls, chunk_size=chunk_size, max_requests=6)


@SETTINGS
@given(st.lists(st.sampled_from(REQUESTS[:6]), max_size=8), st.lists(st.one_of(PEER, DELEGATE), max_size=10))
def test_every_good_request_is_answered_in_the_end(requests: list[bytes], before: list[tuple[str, Any]]) -> None:
    before = [operation for operation in before if operation[1] not in REQUESTS[6:]]
    recorder = Recorder()
    with linked(recorder) as link:
        world = World(link, recorder)
        for name, argument in before:
            world.do(name, argument)
        world.sync, world.waits = True, False
        for request in requests:
            world.do("request", request)
        world.do("rest", None)
        # Now everybody does what he should, for as long as it takes.
        for _ in range(60):
            world.do("read", None)
            world.do("release", None)
            world.do("resume", None)
            told = world.current
            if told is not None and "finish" in told.calls:
                world.do("end" if told.exchange.response_started else "answer", 5)
            link.loop.settle()
        early = any(told.calls[-1] == "closed" for told in recorder.told)
        if not early and not link.transport.eof:
            assert len(recorder.told) == world.number
            assert all(told.exchange.writing is DONE for told in recorder.told)
        world.finish()
