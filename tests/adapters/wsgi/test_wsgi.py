"""PEP 3333, its corners included, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import gc
import logging
import os
import socket
import struct
import subprocess
import sys
import threading
import weakref
from types import SimpleNamespace
from wsgiref.validate import validator

import pytest

from bridge.adapters.wsgi import WSGIDelegate
from bridge.adapters.wsgi.exchange import WSGIExchange
from bridge.core.connection.interfaces import Observer
from bridge.core.connection.parameters import ConnectionParameters
from bridge.core.connection.times import note_times
from bridge.errors import ConnectionGone, LocalProtocolError
from tests.support import ROOT
from tests.support.protocols import BOTH_PROTOCOLS
from tests.support.wsgi import serving

pytestmark = BOTH_PROTOCOLS

PLAIN = [("Content-Type", "text/plain")]


def errors(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def reset(writer: asyncio.StreamWriter) -> None:
    """Leave without a goodbye: the server cannot take it for a client that still reads."""
    sock = writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


class Closing:
    """An iterable that notes where and when it is closed."""

    def __init__(self, chunks, fail_at: int | None = None) -> None:
        self.chunks = iter(chunks)
        self.fail_at = fail_at
        self.taken = 0
        self.closed: list[str] = []
        self.threads = {threading.get_ident()}

    def __iter__(self):
        return self

    def __next__(self) -> bytes:
        self.threads.add(threading.get_ident())
        if self.taken == self.fail_at:
            raise ValueError("in the middle")
        self.taken += 1
        return next(self.chunks)

    def close(self) -> None:
        self.threads.add(threading.get_ident())
        self.closed.append("closed")


def respond(result, status: str = "200 OK", headers=PLAIN):
    def app(environ, start_response):
        start_response(status, list(headers))
        return result() if callable(result) else result

    return app


# ---------------------------------------------------------------------------------------------------- what is sent


@pytest.mark.parametrize(
    ("result", "content", "length"),
    [
        ([b"hello"], b"hello", "5"),
        ((b"hello",), b"hello", "5"),
        ([b"he", b"", b"llo"], b"hello", "5"),
        ([], b"", "0"),
        ((), b"", "0"),
        ([b""], b"", "0"),
        ([b"", b""], b"", "0"),
        (lambda: iter([]), b"", "0"),
        (lambda: iter([b"", b""]), b"", "0"),
        ([b"x" * 70000], b"x" * 70000, "70000"),
        ([b"x" * 40000, b"y" * 40000], b"x" * 40000 + b"y" * 40000, "80000"),
        (lambda: iter([b"a", b"", b"b"]), b"ab", None),
        (lambda: iter([b"x" * 200_000]), b"x" * 200_000, None),
        (lambda: (b"%d" % number for number in range(1000)), b"".join(b"%d" % n for n in range(1000)), None),
    ],
)
async def test_content(result, content: bytes, length: str | None) -> None:
    async with serving(respond(result)) as served:
        answer = await served.get()
    assert answer.status_line == "HTTP/1.1 200 OK"
    assert answer.content == content
    if length is not None:
        assert answer.headers["content-length"] == length
        assert "transfer-encoding" not in answer.headers


async def test_a_declared_length_frames_what_an_iterator_yields() -> None:
    app = respond(lambda: iter([b"hel", b"lo"]), headers=[*PLAIN, ("Content-Length", "5")])
    async with serving(app) as served:
        answer = await served.get()
    assert "transfer-encoding" not in answer.headers
    assert answer.body == b"hello"


async def test_until_the_close_in_http_1_0() -> None:
    async with serving(respond(lambda: iter([b"a", b"b"]))) as served:
        answer = await served.ask(b"GET / HTTP/1.0\r\n\r\n")
    assert answer.endswith(b"\r\n\r\nab")
    assert b"transfer-encoding" not in answer


async def test_pipelined_requests_are_answered_in_order() -> None:
    def app(environ, start_response):
        start_response("200 OK", PLAIN)
        return [environ["PATH_INFO"].encode()]

    async with serving(app) as served:
        answer = await served.ask(
            b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nPOST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
            b"GET /3 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        )
    assert [part[-2:] for part in answer.split(b"HTTP/1.1 ")[1:]] == [b"/1", b"/2", b"/3"]


async def test_the_head_waits_for_the_first_content_that_is_not_empty() -> None:
    def app(environ, start_response):
        start_response("200 OK", PLAIN)

        def content():
            yield b""
            try:
                raise KeyError
            except KeyError:
                start_response("404 Not Found", [("X", "y")], sys.exc_info())
            yield b""
            yield b"gone"

        return content()

    async with serving(app) as served:
        answer = await served.get()
    assert answer.status == 404
    assert answer.headers["x"] == "y"
    assert "content-type" not in answer.headers
    assert answer.content == b"gone"


async def test_start_response_may_come_with_the_first_content() -> None:
    def app(environ, start_response):
        start_response("200 OK", PLAIN)
        yield b"lazy"

    async with serving(app) as served:
        assert (await served.get()).content == b"lazy"


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_statuses_without_content(status: str) -> None:
    result = Closing([b"content", b"more"])
    async with serving(respond(result, status, [])) as served:
        answer = await served.get()
    assert answer.status_line == f"HTTP/1.1 {status}"
    assert answer.body == b""
    assert "content-length" not in answer.headers
    assert "transfer-encoding" not in answer.headers
    assert result.closed == ["closed"]


@pytest.mark.parametrize("result", [[b"hello"], [], lambda: iter([b"hel", b"lo"]), lambda: Closing([b"hello"])])
async def test_head(result) -> None:
    async with serving(respond(result, headers=[("Content-Length", "5")])) as served:
        answer = await served.get(method="HEAD")
        again = await served.get(method="HEAD")
    assert answer.headers["content-length"] == "5"
    assert answer.body == again.body == b""


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", "200 OK"), ("GET", "204 No Content"), ("GET", "304 Not Modified")]
)
@pytest.mark.parametrize("result", [[b"hello"], [b"he", b"llo"], [], lambda: iter([b"hel", b"lo"])])
async def test_content_that_is_dropped_behind_a_head_that_was_sent_ends_the_response(result, method, status) -> None:
    def app(environ, start_response):
        write = start_response(status, PLAIN)
        write(b"")
        write(b"more")
        return result() if callable(result) else result

    request = f"{method} / HTTP/1.1\r\nHost: a\r\n\r\n"
    last = request.replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n")
    async with serving(app) as served:
        answers = await served.ask((request + last).encode())
    assert answers.count(b"HTTP/1.1 " + status.encode()) == 2
    assert answers.endswith(b"\r\n\r\n")


@pytest.mark.http1("names are in lower case, and there is no HTTP/1.0")
async def test_early_hints() -> None:
    def app(environ, start_response):
        environ["wsgi.early_hints"]([("Link", "</a.css>; rel=preload")])
        start_response("200 OK", PLAIN)
        return [b"ok"]

    async with serving(app) as served:
        answer = await served.ask(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\n")
        assert b"103" not in await served.ask(b"GET / HTTP/1.0\r\n\r\n")


async def test_early_hints_that_are_illegal(caplog) -> None:
    def app(environ, start_response):
        environ["wsgi.early_hints"]([("Link", "a\r\nb")])

    async with serving(app, raises=LocalProtocolError) as served:
        assert (await served.get()).status == 500
    assert "cannot stand in a field line" in errors(caplog)[0]


# ---------------------------------------------------------------------------------------------------------- write()


async def test_write() -> None:
    def app(environ, start_response):
        write = start_response("200 OK", PLAIN)
        write(b"a")
        write(b"")
        write(b"b" * 40000)
        return [b"c", b"d"]

    async with serving(app) as served:
        assert (await served.get()).content == b"a" + b"b" * 40000 + b"cd"


async def test_the_first_write_sends_the_head_even_if_it_is_empty(caplog) -> None:
    def app(environ, start_response):
        start_response("200 OK", PLAIN)(b"")
        try:
            raise KeyError("late")
        except KeyError:
            start_response("500 Oh", PLAIN, sys.exc_info())
        return []

    async with serving(app, raises=KeyError) as served:
        raw = await served.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 200 OK\r\n")
    assert not raw.endswith(b"0\r\n\r\n")
    assert len(errors(caplog)) == 1


async def test_write_with_a_length() -> None:
    def app(environ, start_response):
        write = start_response("200 OK", [("Content-Length", "4")])
        write(b"ab")
        write(b"cd")
        return []

    async with serving(app) as served:
        answer = await served.get()
    assert answer.body == b"abcd"
    assert answer.headers["content-length"] == "4"


# ---------------------------------------------------------------------------------------------------------- faults


def raising(environ, start_response):
    raise ValueError("oops")


def raising_after_start(environ, start_response):
    start_response("200 OK", PLAIN)
    raise ValueError("oops")


def raising_in_first_next(environ, start_response):
    start_response("200 OK", PLAIN)
    raise ValueError("oops")
    yield b""


def exiting(environ, start_response):
    sys.exit("oops")


def twice(environ, start_response):
    start_response("200 OK", PLAIN)
    start_response("201 Created", PLAIN)
    return [b""]


def never(environ, start_response):
    return []


def never_but_content(environ, start_response):
    return [b"x"]


def never_but_iterator(environ, start_response):
    yield b"x"


def nothing(environ, start_response):
    start_response("200 OK", PLAIN)


def too_few_arguments():
    return []


BROKEN = [
    (raising, "ValueError: oops"),
    (raising_after_start, "ValueError: oops"),
    (raising_in_first_next, "ValueError: oops"),
    (exiting, "SystemExit: oops"),
    (too_few_arguments, "TypeError"),
    (twice, "start_response was called a second time"),
    (never, "start_response was not called"),
    (never_but_content, "content came before start_response"),
    (never_but_iterator, "content came before start_response"),
    (nothing, "the application returned None"),
    (respond("text"), "the application returned 'text'"),
    (respond(b"bytes"), "the application returned b'bytes'"),
    (respond(5), "the application returned 5"),
    (respond(["text"]), "the iterable yields bytes, not 'text'"),
    (respond([b"a", None]), "the iterable yields bytes, not None"),
    (respond(lambda: iter(["text"])), "the iterable yields bytes, not 'text'"),
    (respond([bytearray(b"x")]), "the iterable yields bytes, not bytearray"),
    (respond([b"x"], 200), "the status is a str, not 200"),
    (respond([b"x"], "200 OK\r\nX: y"), "the status has the form"),
    (respond([b"x"], "101 Switching Protocols"), "the status has the form"),
    (respond([b"x"], headers=[("X", "a\r\nb")]), "the header 'X': 'a\\r\\nb'"),
    (respond([b"x"], headers=[("X", 5)]), "a header is a tuple of two str, not ('X', 5)"),
    (respond([b"x"], headers=[("Transfer-Encoding", "chunked")]), "the hop-by-hop header 'Transfer-Encoding'"),
    (respond([b"x"], headers=[("Content-Length", "x")]), "Content-Length b'x' is not a number"),
    (respond([], headers=[("Content-Length", "5")]), "the content is 5 bytes shorter"),
]


@pytest.mark.parametrize(("app", "rule"), BROKEN, ids=[rule for _, rule in BROKEN])
async def test_a_fault_before_the_first_byte(app, rule: str, caplog) -> None:
    kind = {"ValueError: oops": ValueError, "SystemExit: oops": SystemExit, "TypeError": TypeError}.get(
        rule, LocalProtocolError
    )
    async with serving(app, raises=kind) as served:
        answer = await served.get("/where")
    assert answer.status == 500
    assert rule.encode() not in answer.raw
    assert len(errors(caplog)) == 1
    assert rule in caplog.text
    message = errors(caplog)[0]
    assert "GET /where" in message
    assert f"{app.__module__}.{app.__qualname__}" in message


async def test_a_broken_rule_is_raised_where_it_is_broken() -> None:
    raised = []

    def app(environ, start_response):
        try:
            start_response("200", PLAIN)
        except LocalProtocolError as exc:
            raised.append(exc)
        start_response("200 OK", PLAIN)
        return [b"mended"]

    async with serving(app) as served:
        assert (await served.get()).content == b"mended"
    assert len(raised) == 1


async def test_write_refuses_text(caplog) -> None:
    def app(environ, start_response):
        start_response("200 OK", PLAIN)("text")
        return []

    async with serving(app, raises=LocalProtocolError) as served:
        assert (await served.get()).status == 500
    assert "write() takes bytes, not 'text'" in caplog.text


@pytest.mark.http1("HTTP/2 has no reason phrases")
async def test_exc_info_before_the_first_byte_replaces_the_head() -> None:
    def app(environ, start_response):
        start_response("200 OK", [("X-Old", "1")])
        try:
            raise ValueError
        except ValueError:
            start_response("500 Sorry", PLAIN, sys.exc_info())
        return [b"sorry"]

    async with serving(app) as served:
        answer = await served.get()
    assert answer.status_line == "HTTP/1.1 500 Sorry"
    assert "x-old" not in answer.headers
    assert answer.content == b"sorry"


async def test_exc_info_that_is_empty_is_none() -> None:
    def app(environ, start_response):
        start_response("200 OK", PLAIN, (None, None, None))
        return [b"ok"]

    async with serving(app) as served:
        assert (await served.get()).status == 200


async def test_exc_info_after_the_first_byte_is_raised_again(caplog) -> None:
    def app(environ, start_response):
        start_response("200 OK", PLAIN)
        yield b"begun"
        try:
            raise ValueError("too late")
        except ValueError:
            start_response("500 Sorry", PLAIN, sys.exc_info())

    async with serving(app, raises=ValueError) as served:
        raw = await served.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert raw.startswith(b"HTTP/1.1 200 OK")
    assert raw.endswith(b"\r\n5\r\nbegun\r\n")  # and no last chunk
    assert "ValueError: too late" in caplog.text
    assert len(errors(caplog)) == 1


async def test_exc_info_that_is_raised_again_is_not_kept() -> None:
    class LateError(Exception):
        pass

    kept = []

    def app(environ, start_response):
        write = start_response("200 OK", PLAIN)
        write(b"begun")
        try:
            raise LateError
        except LateError as exc:
            kept.append(weakref.ref(exc))
            with contextlib.suppress(LateError):
                start_response("500 Sorry", PLAIN, sys.exc_info())
        return [b" and ended"]

    gc.collect()
    gc.disable()  # what leads back to itself would stay until it is collected
    try:
        async with serving(app) as served:
            assert (await served.get()).content == b"begun and ended"
        assert [error() for error in kept] == [None]
    finally:
        gc.enable()


async def test_a_fault_behind_the_whole_content_takes_nothing_from_it(caplog) -> None:
    total = 20_000_000

    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", str(total))])
        for _ in range(10):
            yield bytes(total // 10)
        raise ValueError("behind it")

    async with serving(app, raises=ValueError) as served:
        reader, writer = await served.connect()
        writer.transport.pause_reading()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(10):
            while not errors(caplog):  # it has failed, and the client has read nothing
                await asyncio.sleep(0.005)
        writer.transport.resume_reading()
        answers = await asyncio.wait_for(reader.read(), 20)
        writer.close()
    assert len(errors(caplog)) == 2
    first, second = answers.split(b"HTTP/1.1 200 OK\r\n")[1:]
    assert len(first.partition(b"\r\n\r\n")[2]) == len(second.partition(b"\r\n\r\n")[2]) == total


async def test_a_fault_in_the_middle_ends_the_connection(caplog) -> None:
    result = Closing([b"a", b"b"], fail_at=1)
    async with serving(respond(result), raises=ValueError) as served:
        raw = await served.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert raw.endswith(b"\r\n1\r\na\r\n")
    assert result.closed == ["closed"]
    assert len(errors(caplog)) == 1


async def test_content_shorter_than_its_length_ends_the_connection(caplog) -> None:
    app = respond(lambda: iter([b"123"]), headers=[("Content-Length", "5")])
    async with serving(app, raises=LocalProtocolError) as served:
        raw = await served.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n")
    assert raw.endswith(b"\r\n\r\n123")
    assert raw.count(b"HTTP/1.1") == 1
    assert "the content is 2 bytes shorter than its Content-Length" in errors(caplog)[0]


@pytest.mark.parametrize(
    "result", [[b"1234567"], [b"123", b"4567"], lambda: iter([b"12345", b"67"]), lambda: iter([b"123", b"4567"])]
)
async def test_content_longer_than_its_length_is_cut(result, caplog) -> None:
    async with serving(respond(result, headers=[("Content-Length", "5")]), raises=LocalProtocolError) as served:
        answer = await served.get()
    assert answer.body == b"12345"
    assert len(errors(caplog)) == 1
    assert "longer than its Content-Length" in errors(caplog)[0]


async def test_a_fault_in_close_is_logged_and_the_response_is_whole(caplog) -> None:
    class Broken(Closing):
        def close(self) -> None:
            raise ValueError("in close")

    async with serving(respond(lambda: Broken([b"fine"])), raises=ValueError) as served:
        assert (await served.get()).content == b"fine"
    assert "ValueError: in close" in caplog.text


async def test_a_close_that_cannot_be_had_costs_no_thread(caplog) -> None:
    class Result:
        def __iter__(self):
            return iter([b"x"])

        @property
        def close(self):
            raise RuntimeError("no close")

    def app(environ, start_response):
        start_response("200 OK", PLAIN)
        return Result()

    async with serving(app, threads=1, raises=RuntimeError) as served:
        for _ in range(2):
            assert (await served.get()).content == b"x"
        assert served.delegate.pool.count == 1
    assert len(errors(caplog)) == 2


async def test_write_after_the_end_is_no_silent_loss(caplog) -> None:
    raised = []

    class Result:
        def __init__(self, write):
            self.write = write

        def __iter__(self):
            return iter([b"x"])

        def close(self):
            try:
                self.write(b"late")
            except LocalProtocolError as exc:
                raised.append(str(exc))

    async with serving(lambda environ, start_response: Result(start_response("200 OK", PLAIN))) as served:
        assert (await served.get()).content == b"x"
    assert raised == ["write() was called when the response had ended"]


async def test_close_is_called_after_a_fault_before_the_first_byte() -> None:
    result = Closing(["text"])
    async with serving(respond(result), raises=LocalProtocolError) as served:
        assert (await served.get()).status == 500
    assert result.closed == ["closed"]


# --------------------------------------------------------------------------------------------------------- threads


async def test_one_thread_does_a_whole_request() -> None:
    seen = []

    def app(environ, start_response):
        start_response("200 OK", PLAIN)
        seen.append(Closing([b"x"] * 50))
        return seen[-1]

    async with serving(app) as served:
        await asyncio.gather(*(served.get() for _ in range(20)))
    assert len(seen) == 20
    for result in seen:
        assert len(result.threads) == 1
        assert result.closed == ["closed"]
        assert threading.get_ident() not in result.threads


async def test_context_variables_belong_to_one_request() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    variable.set("from the start")

    def app(environ, start_response):
        start_response("200 OK", PLAIN)
        before = variable.get()
        variable.set(environ["PATH_INFO"])
        yield f"{before}, {variable.get()}".encode()

    async with serving(app, threads=1) as served:
        assert (await served.get("/1")).content == b"from the start, /1"
        assert (await served.get("/2")).content == b"from the start, /2"
    assert variable.get() == "from the start"


async def test_names_of_threads() -> None:
    def app(environ, start_response):
        start_response("200 OK", PLAIN)
        return [threading.current_thread().name.encode()]

    async with serving(app) as served:
        assert (await served.get("/x?y")).content == b"bridge-wsgi-1: GET /x?y"


class Gate:
    """An application that waits, in its thread, until it is let go."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.entered = asyncio.Event()
        self.calls = 0
        self.open = threading.Event()
        self.environ: dict = {}

    def __call__(self, environ, start_response):
        self.calls += 1
        self.environ = environ
        self.loop.call_soon_threadsafe(self.entered.set)
        assert self.open.wait(10)
        start_response("200 OK", PLAIN)
        return [b"done"]


async def test_a_full_queue_is_answered_503() -> None:
    app = Gate()
    async with serving(app, threads=1, queue=1) as served:
        first = asyncio.create_task(served.get())
        await asyncio.wait_for(app.entered.wait(), 5)
        second = asyncio.create_task(served.get())
        while not served.delegate.pool.queue:
            await asyncio.sleep(0.001)
        refused = await served.get()
        assert refused.status == 503
        assert refused.headers["retry-after"] == "1"
        app.open.set()
        assert (await first).content == (await second).content == b"done"
    assert app.calls == 2


async def test_waiting_too_long_for_a_thread_is_answered_503() -> None:
    app = Gate()
    async with serving(app, threads=1, queue_timeout=0.05) as served:
        first = asyncio.create_task(served.get())
        await asyncio.wait_for(app.entered.wait(), 5)
        second = asyncio.create_task(served.get())
        await asyncio.sleep(0.1)
        app.open.set()
        assert (await first).status == 200
        assert (await second).status == 503
    assert app.calls == 1


async def test_waiting_too_long_behind_a_thread_that_does_not_end() -> None:
    """The answer does not wait for a thread: there may never be one."""
    app = Gate()
    async with serving(app, threads=1, queue_timeout=0.05, buffer_requests=10) as served:
        first = asyncio.create_task(served.get())
        await asyncio.wait_for(app.entered.wait(), 5)
        answers = await asyncio.gather(*(served.get(method="POST", content=bytes(1000)) for _ in range(3)))
        assert [answer.status for answer in answers] == [503] * 3
        assert answers[0].headers["retry-after"] == "1"
        assert not served.delegate.pool.queue
        app.open.set()
        assert (await first).status == 200
    assert app.calls == 1


async def test_a_client_that_leaves_while_its_request_waits_is_forgotten() -> None:
    app = Gate()
    async with serving(app, threads=1) as served:
        first = asyncio.create_task(served.get())
        await asyncio.wait_for(app.entered.wait(), 5)
        _, writer = await served.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        while not served.delegate.pool.queue:
            await asyncio.sleep(0.001)
        reset(writer)
        while served.delegate.pool.queue:
            await asyncio.sleep(0.001)
        app.open.set()
        assert (await first).status == 200
    assert app.calls == 1


async def test_queue_time_is_known() -> None:
    app = Gate()
    async with serving(app, threads=1, params=ConnectionParameters(timed=True, observer=Observer())) as served:
        requests = []
        start = served.delegate.start_exchange

        def spy(exchange):
            requests.append(start(exchange))
            return requests[-1]

        served.delegate.start_exchange = spy
        first = asyncio.create_task(served.get())
        await asyncio.wait_for(app.entered.wait(), 5)
        second = asyncio.create_task(served.get())
        while not served.delegate.pool.queue:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        assert served.delegate.pool.queue_time >= 0.04
        app.open.set()
        await asyncio.gather(first, second)
    assert served.delegate.pool.queue_time == 0.0
    assert requests[1].exchange.times.queued >= 0.04


# ---------------------------------------------------------------------------------------------- clients that leave


async def test_no_request_waits_less_than_no_time() -> None:
    exchange = SimpleNamespace(times=note_times())
    environs = SimpleNamespace(client=None, lane=None)
    request = WSGIExchange.open(SimpleNamespace(queue_timeout=1.0), exchange, environs)
    request.response.gone = True
    request.queued = 7.0
    for now, waited in ((6.75, 0.0), (7.0, 0.0), (7.25, 0.25)):
        request.run(None, now)
        assert exchange.times.queued == waited


async def test_a_client_whose_content_nobody_wanted_has_not_left() -> None:
    seen = []

    def app(environ, start_response):
        seen.append(environ["bridge.client_disconnected"])
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]

    async with serving(app, buffer_requests=None) as served:
        reader, writer = await served.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n")
        await reader.readuntil(b"\r\n\r\nok")  # which is told to the exchange as the end of its connection
        for request in (b"12345", b"", b""):
            writer.write(request + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await reader.readuntil(b"\r\n\r\nok")
        assert [disconnected() for disconnected in seen] == [False] * 4
        writer.close()


async def test_the_application_can_see_that_the_client_has_left() -> None:
    app = Gate()
    async with serving(app) as served:
        _, writer = await served.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.wait_for(app.entered.wait(), 5)
        assert not app.environ["bridge.client_disconnected"]()
        writer.transport.abort()
        async with asyncio.timeout(5):
            while not app.environ["waitress.client_disconnected"]():
                await asyncio.sleep(0.001)
        app.open.set()


@pytest.mark.http1("a stream has no half-closed client that may still read")
async def test_a_half_closed_client_is_answered() -> None:
    app = Gate()
    async with serving(app) as served:
        reader, writer = await served.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.wait_for(app.entered.wait(), 5)
        writer.write_eof()
        async with asyncio.timeout(5):
            while not app.environ["bridge.client_disconnected"]():
                await asyncio.sleep(0.001)
        app.open.set()
        assert (await reader.read()).endswith(b"done")
        writer.close()


async def test_a_response_that_nobody_wants_is_given_up_and_closed(caplog) -> None:
    result = Closing(b"x" * 1000 for _ in range(10**9))
    async with serving(respond(result)) as served:
        reader, writer = await served.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readexactly(10_000)
        writer.transport.abort()
        async with asyncio.timeout(5):
            while not result.closed:
                await asyncio.sleep(0.001)
    assert result.closed == ["closed"]
    assert errors(caplog) == []


@pytest.mark.parametrize("wrap", [None, "cause", "context", "group"])
async def test_write_raises_when_the_client_has_left(wrap: str | None, caplog) -> None:
    raised = []

    def app(environ, start_response):
        write = start_response("200 OK", PLAIN)
        try:
            while True:
                write(b"x" * 1000)
        except ConnectionGone as exc:
            raised.append(exc)
            if wrap == "cause":
                raise RuntimeError("of a framework") from exc
            if wrap == "context":
                raise RuntimeError("of a framework")  # noqa: B904
            if wrap == "group":
                raise ExceptionGroup("of a framework", [exc]) from None
            raise

    async with serving(app) as served:
        reader, writer = await served.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readexactly(10_000)
        writer.transport.abort()
    assert len(raised) == 1
    assert isinstance(raised[0], OSError)
    assert errors(caplog) == []


# ----------------------------------------------------------------------------------------------------- time and end


async def test_an_application_that_takes_too_long(caplog) -> None:
    app = Gate()
    async with serving(app, threads=1, timeout=0.1) as served:
        answer = await served.get("/slow")
        assert answer.status == 504
        assert app.environ["bridge.deadline"] is not None
        assert app.environ["bridge.client_disconnected"]()  # nobody waits any more
        pool = served.delegate.pool
        assert (pool.abandoned, pool.count) == (1, 1)
        second = asyncio.create_task(served.get("/again"))  # another thread in place of the lost one
        async with asyncio.timeout(5):
            while pool.count < 2:
                await asyncio.sleep(0.001)
        app.open.set()
        assert (await second).content == b"done"
    message = errors(caplog)[0]
    assert "did not answer GET /slow within 0.1 seconds" in message
    assert "self.open.wait" in message  # the stack
    assert (pool.abandoned, pool.count) == (0, 0)


async def test_too_long_after_the_first_byte() -> None:
    go_on = threading.Event()

    def app(environ, start_response):
        start_response("200 OK", PLAIN)
        yield b"begun"
        go_on.wait(5)
        yield b"more"

    async with serving(app, timeout=0.1) as served:
        raw = await served.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert raw.endswith(b"5\r\nbegun\r\n")
        go_on.set()


async def test_too_long_in_the_queue(caplog) -> None:
    app = Gate()
    async with serving(app, threads=1, timeout=0.15) as served:
        served.delegate.pool.abandoned_limit = 0
        answers = await asyncio.gather(served.get("/1"), served.get("/2"))
        app.open.set()
    assert [answer.status for answer in answers] == [504, 504]
    assert app.calls == 1
    assert any("No thread was free" in message for message in errors(caplog))


async def test_quick_requests_are_not_touched_by_the_time_limit() -> None:
    async with serving(respond([b"quick"]), timeout=0.05) as served:
        for _ in range(3):
            assert (await served.get()).content == b"quick"
            await asyncio.sleep(0.05)
        assert served.delegate.pool.on_jobs is not None  # nothing is looked for


@pytest.mark.http1("the package h2 takes nothing more after GOAWAY; see test_http2")
async def test_close_waits_for_what_runs() -> None:
    app = Gate()
    async with serving(app) as served:
        request = asyncio.create_task(served.get())
        await asyncio.wait_for(app.entered.wait(), 5)
        served.server.stop()
        drain = asyncio.create_task(served.server.drain(5))
        await asyncio.sleep(0.05)
        assert not drain.done()
        app.open.set()
        assert (await request).content == b"done"
        assert await drain == 0


async def test_a_thread_that_does_not_end_is_told_of_and_left(caplog) -> None:
    app = Gate()
    delegate = None
    async with serving(app) as served:
        delegate = served.delegate
        _, writer = await served.connect()
        writer.write(b"GET /stuck HTTP/1.1\r\nHost: a\r\n\r\n")
        await asyncio.wait_for(app.entered.wait(), 5)
        writer.close()
        assert await delegate.close(0.05) == 1
        assert "GET /stuck" in caplog.text
        assert "self.open.wait" in caplog.text
        app.open.set()
        assert await delegate.wait(5) == 0


# ------------------------------------------------------------------------------------------------- the validator


def validated(environ, start_response):
    content = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH", 0)))
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(content)))])
    return [content]


@pytest.mark.parametrize("buffer", [65536, None])
@pytest.mark.parametrize("size", [0, 10, 100_000])
async def test_the_validator_is_content(size: int, buffer: int | None, caplog) -> None:
    async with serving(validator(validated), buffer_requests=buffer, root_path="/mount") as served:
        for method in ("POST", "GET", "HEAD", "OPTIONS"):
            answer = await served.get("/mount/%C3%A4?x=y", method=method, content=b"x" * size)
            assert answer.status == 200, caplog.text
            assert answer.content == (b"x" * size if method != "HEAD" else b"")
    assert errors(caplog) == []


def test_the_name_of_the_application() -> None:
    class Application:
        def __call__(self, environ, start_response):
            return []

    assert WSGIDelegate(raising).app_name == f"{__name__}.raising"
    assert WSGIDelegate(Application()).app_name.endswith("test_the_name_of_the_application.<locals>.Application")


FORKS = """
import asyncio, os, sys, threading, urllib.request
from bridge.adapters.wsgi import WSGIDelegate
from bridge.core.connection.interfaces import Observer
from bridge.core.connection.parameters import ConnectionParameters
from bridge.core.connection.times import note_times
from bridge.adapters.wsgi.exchange import WSGIExchange
from bridge.core.httpserver import HTTPServer
from bridge.core.netutil import bind_sockets

children = []

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/fork":
        child = os.fork()
        if not child:
            return [b"child"]
        children.append(child)
    return [environ["PATH_INFO"].encode()]

def ask(port):
    for number in range(5):
        for path in ("/fork", "/x", "/y"):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as answer:
                assert answer.read() == path.encode()
    for child in children:
        assert os.waitpid(child, 0)[1] == 0

async def main():
    delegate = WSGIDelegate(app, threads=1)
    server = HTTPServer(delegate)
    (sock,) = bind_sockets(0, "127.0.0.1")
    server.add_socket(sock)
    await asyncio.to_thread(ask, sock.getsockname()[1])
    server.stop()
    await server.drain(1)
    assert await delegate.close(5) == 0
    print("served")

asyncio.run(main())
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork()")
def test_a_child_that_returns_to_the_server_takes_nothing_from_its_parent() -> None:
    """Of a fork in an application only the parent goes on; the child would take jobs and wake-ups from it."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS], capture_output=True, text=True, timeout=30, cwd=ROOT, check=False
    )
    assert (done.returncode, done.stdout) == (0, "served\n"), done.stderr
