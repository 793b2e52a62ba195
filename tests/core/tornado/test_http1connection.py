"""The server's connection under Tornado's names: what delegates are told, what they write, how it ends."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from bridge.core.connection.parameters import ConnectionParameters
from bridge.core.http1connection import HTTP1Connection, HTTP1ConnectionParameters, HTTP1ServerConnection
from bridge.core.httpserver import HTTPServer
from bridge.core.httputil import HTTPHeaders, HTTPInputError, HTTPOutputError, HTTPServerRequest, ResponseStartLine
from bridge.core.iostream import IOStream, StreamClosedError
from bridge.core.netutil import bind_sockets
from tests.support.asgi import LIMIT, connect
from tests.support.tornadostyle import OK, Application, Message, answer, echo, serving

GET = b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n"


def post(content: bytes, *fields: str) -> bytes:
    head = ["POST /a HTTP/1.1", "Host: a", f"Content-Length: {len(content)}", *fields, "", ""]
    return "\r\n".join(head).encode() + content


async def until(event: asyncio.Event) -> None:
    async with asyncio.timeout(LIMIT):
        await event.wait()


# ---------------------------------------------------------------------- the seven faults that are easily planted


async def test_writers_wait_for_a_peer_that_does_not_read() -> None:
    produced = 0
    stuck = asyncio.Event()

    async def flood(request: HTTPServerRequest) -> None:
        nonlocal produced
        chunk = b"x" * 65536
        await request.connection.write_headers(OK, HTTPHeaders({"Content-Length": str(500 * 65536)}))
        for _ in range(500):
            waiting = request.connection.write(chunk)
            produced += 1
            if not waiting.done():
                stuck.set()
            await waiting
        request.connection.finish()

    async with serving(flood) as port, connect(port) as client:
        client.send(GET)
        await until(stuck)
        await asyncio.sleep(0)
        held = produced
        # Some of it is with the system, and some with the client; the rest was never made.
        assert held < 400
        status, _, content = await client.response()
        assert (status, len(content)) == (200, 500 * 65536)
        assert produced == 500


async def test_content_waits_for_the_delegate() -> None:
    gates: list[asyncio.Future[None]] = []
    arrived = asyncio.Event()

    def hold(message: Message) -> asyncio.Future[None]:
        gates.append(asyncio.get_running_loop().create_future())
        arrived.set()
        return gates[-1]

    app = Application(on_data=hold)
    async with serving(app, max_body_size=1 << 30) as port, connect(port) as client:
        size = 64 << 20
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        client.writer.transport.set_write_buffer_limits(high=0)
        sent = 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                while sent < size:
                    client.send(b"x" * 262144)
                    sent += 262144
                    await client.writer.drain()
        assert sent < size / 2  # the peer was stopped by what the system could hold
        message = app.messages[0]
        assert message.calls == ["headers", "data"]
        assert len(message.body) <= 65536
        arrived.clear()
        gates[0].set_result(None)
        await until(arrived)
        assert message.calls == ["headers", "data", "data"]
        client.reset()


async def test_the_header_section_may_be_waited_for() -> None:
    gate = asyncio.get_running_loop().create_future()
    app = Application(on_headers=lambda message: gate)
    async with serving(app) as port, connect(port) as client:
        client.send(post(b"hello", "Expect: 100-continue"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.reader.read(1)
        assert app.messages[0].calls == ["headers"]
        gate.set_result(None)
        assert await client.head() == (100, {})
        assert (await client.response())[2] == b"hello"
        client.send(GET)  # the same for a request without content
        assert (await client.response())[0] == 200
        assert app.messages[1].calls == ["headers", "finish"]


async def test_finish_waits_for_the_header_section_without_content() -> None:
    gate = asyncio.get_running_loop().create_future()
    app = Application(on_headers=lambda message: gate)
    async with serving(app) as port, connect(port) as client:
        client.send(GET + GET)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.reader.read(1)
        assert [message.calls for message in app.messages] == [["headers"]]
        gate.set_result(None)
        assert (await client.response())[0] == 200
        assert (await client.response())[0] == 200
        assert [message.calls for message in app.messages] == [["headers", "finish"]] * 2


async def test_forwarded_values_are_of_one_request() -> None:
    seen = []

    def note(request: HTTPServerRequest) -> None:
        seen.append((request.remote_ip, request.protocol))
        echo(request)

    async with serving(note, xheaders=True) as port, connect(port) as client:
        for fields in (("X-Real-Ip: 192.0.2.7", "X-Scheme: https"), (), ("X-Forwarded-For: 192.0.2.8, 192.0.2.9",)):
            client.get("/", *fields)
            assert (await client.response())[0] == 200
    assert seen == [("192.0.2.7", "https"), ("127.0.0.1", "http"), ("192.0.2.9", "http")]


@pytest.mark.parametrize("pieces", [1, 2])
async def test_bytes_behind_the_request_are_the_detached_streams(pieces: int) -> None:
    async def talk(stream: IOStream) -> None:
        word = await stream.read_bytes(5)
        await stream.write(b"got " + word)
        assert await stream.read_until(b"\n") == b" and more\n"
        stream.close()

    tasks = []

    def take(message: Message) -> None:
        stream = message.connection.detach()
        assert message.connection.stream is None
        tasks.append(asyncio.create_task(talk(stream)))

    app = Application(on_headers=take)
    async with serving(app) as port, connect(port) as client:
        if pieces == 1:
            client.send(GET + b"hello and more\n")
        else:
            client.send(GET + b"hel")
            await asyncio.sleep(0)
            client.send(b"lo and more\n")
        assert await client.rest() == b"got hello"
        await tasks[0]
    assert app.messages[0].calls == ["headers"]
    assert len(app.ended) == 1


@pytest.mark.parametrize("end", ["close", "reset", "half"])
async def test_the_close_callback_runs_when_the_peer_leaves(end: str) -> None:
    ready, left = asyncio.Event(), asyncio.Event()
    calls = []

    def wait(message: Message) -> None:
        def note() -> None:
            calls.append(1)
            left.set()

        message.connection.set_close_callback(note)
        ready.set()

    app = Application(on_finish=wait)
    async with serving(app) as port, connect(port) as client:
        client.send(GET)
        await until(ready)
        if end == "half":
            client.writer.write_eof()
        elif end == "reset":
            client.reset()
        else:
            await client.close()
        await until(left)
        if end != "reset":  # it may still wait for the answer
            answer(app.messages[0].connection, b"late")
        if end == "half":
            assert (await client.response())[2] == b"late"
            await client.close()
        await until(app.one_ended)
    assert calls == [1]
    assert app.messages[0].calls == ["headers", "finish"]  # told by the callback, not by the delegate


async def test_a_peer_that_sends_no_more_is_not_waited_for_for_ever() -> None:
    app = Application(on_finish=lambda message: None)
    params = ConnectionParameters(write_timeout=0.05, limit_after_start=True)
    async with serving(app, params=params) as port, connect(port) as client:
        client.send(GET)
        client.writer.write_eof()
        assert await client.rest() == b""
        await until(app.one_ended)


async def test_no_close_callback_after_the_answer_or_without_one() -> None:
    calls = []

    def note(message: Message) -> None:
        message.connection.set_close_callback(lambda: calls.append("late"))
        if len(app.messages) == 2:
            message.connection.set_close_callback(None)
        else:
            answer(message.connection, b"")

    app = Application(on_finish=note)
    async with serving(app) as port:
        for _ in range(2):
            async with connect(port) as client:
                client.send(GET)
                if len(app.messages) == 0:
                    await client.response()
                else:
                    client.writer.write_eof()
                    await asyncio.sleep(0.01)
    assert calls == []


@pytest.mark.parametrize(
    ("version", "options", "fields", "connection"),
    [
        ("1.1", {}, [], None),
        ("1.1", {"no_keep_alive": True}, [], "close"),
        ("1.1", {}, ["Connection: close"], "close"),
        ("1.0", {}, [], None),
        ("1.0", {}, ["Connection: keep-alive"], "Keep-Alive"),
        ("1.0", {"no_keep_alive": True}, ["Connection: keep-alive"], None),
    ],
)
async def test_the_response_says_whether_the_connection_goes_on(
    version: str, options: dict[str, Any], fields: list[str], connection: str | None
) -> None:
    async with serving(echo, **options) as port, connect(port) as client:
        client.send("\r\n".join([f"GET /a HTTP/{version}", "Host: a", *fields, "", ""]).encode())
        _, found, _ = await client.response()
        assert found.get("connection") == connection
        closes = connection == "close" or (version == "1.0" and connection is None)
        if closes:
            assert await client.rest() == b""
        else:
            client.send(GET)
            assert (await client.response())[0] == 200


async def test_the_next_request_waits_for_the_response() -> None:
    app = Application(on_finish=lambda message: None)
    async with serving(app) as port, connect(port) as client:
        client.send(GET + GET)
        async with asyncio.timeout(LIMIT):
            while not app.messages or "finish" not in app.messages[0].calls:
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.02)
        assert len(app.messages) == 1
        first = app.messages[0].connection
        first.write_headers(OK, HTTPHeaders({"Content-Length": "2"}), b"a")
        await asyncio.sleep(0.02)
        assert len(app.messages) == 1
        first.write(b"b")
        first.finish()
        assert (await client.response())[2] == b"ab"
        async with asyncio.timeout(LIMIT):
            while len(app.messages) == 1:
                await asyncio.sleep(0.001)
        assert app.messages[1].connection is not first
        assert app.messages[1].server_conn is app.messages[0].server_conn


# ---------------------------------------------------------------------- how exchanges end


async def test_early_answer_to_a_request_with_content() -> None:
    app = Application(on_headers=lambda message: answer(message.connection, b"no") and None)
    async with serving(app) as port, connect(port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000\r\n\r\nxxx")
        status, _, content = await client.response()
        assert (status, content) == (200, b"no")
        await client.close()
        await until(app.one_ended)
    assert app.messages[0].calls == ["headers", "close"]


async def test_early_answer_without_content_is_followed_by_finish() -> None:
    app = Application(
        on_headers=lambda message: answer(message.connection, b"no") and None, on_finish=lambda message: None
    )
    async with serving(app) as port, connect(port) as client:
        client.send(GET)
        assert (await client.response())[2] == b"no"
    assert app.messages[0].calls == ["headers", "finish"]


async def test_finish_is_the_end_of_a_request_that_switches_protocols() -> None:
    """Also where nobody detaches the connection afterwards."""

    def switch(message: Message) -> None:
        message.connection.write_headers(ResponseStartLine("HTTP/1.1", 101, ""), HTTPHeaders({"Upgrade": "x"}))
        message.connection.finish()

    for hook in ("on_headers", "on_finish"):
        app = Application(**{"on_finish": lambda message: None, hook: switch})
        async with serving(app) as port, connect(port) as client:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
            assert (await client.head())[0] == 101
        await until(app.one_ended)
        assert app.messages[0].calls == ["headers", "finish"]


async def test_peer_lost_in_the_content() -> None:
    app = Application()
    async with serving(app) as port, connect(port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nxxx")
        await client.writer.drain()
        await client.close()
        await until(app.closed)
        await until(app.one_ended)
    assert app.messages[0].calls == ["headers", "data", "close"]
    assert app.ended == [app.messages[0].server_conn]


@pytest.mark.parametrize("where", ["on_headers", "on_data", "on_finish", "await headers", "await data"])
@pytest.mark.parametrize("kind", ["failure", "input", "foreign"])
async def test_delegates_that_fail(where: str, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    tornado = pytest.importorskip("tornado.httputil")
    error = {"failure": ValueError("x"), "input": HTTPInputError("x"), "foreign": tornado.HTTPInputError("x")}[kind]

    def fail(message: Message) -> Any:
        async def later() -> None:
            await asyncio.sleep(0)
            raise error

        if where.startswith("await"):
            return later()
        raise error

    name = {"await headers": "on_headers", "await data": "on_data"}.get(where, where)
    app = Application(**{name: fail})
    async with serving(app, raises=ValueError if kind == "failure" else ()) as port, connect(port) as client:
        client.send(post(b"hello"))
        status, fields, _ = await client.response()
        assert status == (500 if kind == "failure" else 400)
        assert fields["connection"] == "close"
        await client.close()
        await until(app.one_ended)
    calls = app.messages[0].calls
    assert calls[-1] == ("finish" if where == "on_finish" else "close")
    logged = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert len(logged) == (1 if kind == "failure" else 0)
    if logged:
        assert logged[0].getMessage().startswith("Uncaught exception")


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_callables_that_fail(asynchronous: bool, caplog: pytest.LogCaptureFixture) -> None:
    def plain(request: HTTPServerRequest) -> None:
        raise ValueError("x")

    async def later(request: HTTPServerRequest) -> None:
        await asyncio.sleep(0)
        raise ValueError("x")

    async with serving(later if asynchronous else plain, raises=ValueError) as port, connect(port) as client:
        client.send(GET)
        assert (await client.response())[0] == 500
    assert [record.getMessage()[:18] for record in caplog.records] == ["Uncaught exception"]


async def test_asynchronous_callables_are_awaited() -> None:
    async def slowly(request: HTTPServerRequest) -> None:
        await asyncio.sleep(0)
        await answer(request.connection, request.body)

    async with serving(slowly) as port, connect(port) as client:
        client.send(post(b"hello") + post(b"again"))
        assert (await client.response())[2] == b"hello"
        assert (await client.response())[2] == b"again"


async def test_clients_that_have_closed_their_side_get_the_answer() -> None:
    async def slowly(request: HTTPServerRequest) -> None:
        await asyncio.sleep(0.01)
        await answer(request.connection, b"hello")

    for callback in (echo, slowly):
        async with serving(callback) as port, connect(port) as client:
            client.send(GET)
            client.writer.write_eof()
            assert (await client.response())[0] == 200


async def test_close_all_connections_ends_requests_and_leaves_detached_streams() -> None:
    streams: list[IOStream] = []

    def take(message: Message) -> None:
        if message.start_line.path == "/detach":
            streams.append(message.connection.detach())

    app = Application(on_headers=take, on_finish=lambda message: None)
    server = HTTPServer(app)
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    port = sockets[0].getsockname()[1]
    async with connect(port) as waiting, connect(port) as idle, connect(port) as detached:
        waiting.get("/wait")
        detached.get("/detach")
        async with asyncio.timeout(LIMIT):
            while len(app.messages) < 2:
                await asyncio.sleep(0.001)
        server.stop()
        async with asyncio.timeout(LIMIT):
            await server.close_all_connections()
        assert await waiting.rest() == await idle.rest() == b""
        await streams[0].write(b"still here")
        streams[0].close()
        assert await detached.rest() == b"still here"


# ---------------------------------------------------------------------- writing


async def test_framing_is_chosen_by_the_server() -> None:
    def pieces(request: HTTPServerRequest) -> None:
        connection = request.connection
        connection.write_headers(OK, HTTPHeaders({"Transfer-Encoding": "gzip", "X-A": "b"}), b"a")
        connection.write(b"")
        connection.write(b"bc")
        connection.finish()

    async with serving(pieces) as port:
        async with connect(port) as client:
            client.get("/", "Connection: close")
            assert (await client.rest()).partition(b"\r\n\r\n")[2] == b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n"
        async with connect(port) as client:
            client.send(b"GET / HTTP/1.0\r\n\r\n")
            head, _, content = (await client.rest()).partition(b"\r\n\r\n")
            assert content == b"abc"
            assert b"ransfer-" not in head
        async with connect(port) as client:
            client.send(b"HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert (await client.rest()).partition(b"\r\n\r\n")[2] == b""


@pytest.mark.parametrize(
    ("content", "length", "message"),
    [
        ([b"abc"], 2, "Tried to write more data than Content-Length"),
        ([b"a", b"bc"], 2, "Tried to write more data than Content-Length"),
        ([b"a", b"b"], 5, "Tried to write 3 bytes less than Content-Length"),
        ([b""], 1, "Tried to write 1 bytes less than Content-Length"),
    ],
)
async def test_content_that_is_not_what_was_announced(content: list[bytes], length: int, message: str) -> None:
    errors = []

    def wrong(request: HTTPServerRequest) -> None:
        connection = request.connection
        try:
            connection.write_headers(OK, HTTPHeaders({"Content-Length": str(length)}), content[0])
            for piece in content[1:]:
                connection.write(piece)
            connection.finish()
        except HTTPOutputError as exc:
            errors.append(str(exc))

    async with serving(wrong) as port, connect(port) as client:
        client.send(GET)
        answered = (await client.rest()).partition(b"\r\n\r\n")[2]
        assert len(answered) <= length
    assert errors == [message]


@pytest.mark.parametrize(
    ("start_line", "fields"),
    [
        (OK, {"X-A": "b\r\nX-B: c"}),
        (OK, {"X-A": "b\nc"}),
        (OK, {"X A": "b"}),
        (OK, {"X-A": "\u20ac"}),
        (OK, {"Content-Length": "+1"}),
        (ResponseStartLine("HTTP/1.1", 200, "O\r\nK"), {}),
        (ResponseStartLine("HTTP/1.1", 200, "\u20ac"), {}),
        (ResponseStartLine("HTTP/1.1", 1000, "x"), {}),
    ],
)
async def test_illegal_heads_are_value_errors_and_nothing_is_sent(start_line: Any, fields: dict[str, str]) -> None:
    errors = []

    def illegal(request: HTTPServerRequest) -> None:
        headers = HTTPHeaders()
        for name, value in fields.items():
            headers[name] = value
        try:
            request.connection.write_headers(start_line, headers)
        except ValueError as exc:
            errors.append(exc)
            request.connection.close()

    async with serving(illegal) as port, connect(port) as client:
        client.send(GET)
        assert await client.rest() == b""
    assert len(errors) == 1


async def test_interim_responses() -> None:
    refused: list[str] = []

    def hint(message: Message) -> None:
        connection = message.connection
        for status in (100, 103):
            flushed = connection.write_headers(ResponseStartLine("", status, ""), HTTPHeaders({"Link": "</a>"}))
            assert flushed.done()
        for start_line, fields in (((103, ""), {"X": "a\nb"}), ((103, ""), {"X": "\u20ac"}), ((99, ""), {})):
            with pytest.raises(ValueError, match=r"field|latin-1|99"):
                connection.write_headers(("", *start_line), fields)
        answer(connection, b"ok")
        with pytest.raises(HTTPOutputError, match="already"):
            connection.write_headers(ResponseStartLine("", 103, ""), {})
        refused.append(message.start_line.version)

    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    for fields, version, interim in (
        ("", "1.1", hints),
        ("Expect: 100-continue\r\nContent-Length: 1\r\n", "1.1", b"HTTP/1.1 100 Continue\r\n\r\n" + hints),
        ("", "1.0", b""),  # whose clients know nothing of them
    ):
        async with serving(Application(on_headers=hint, on_finish=lambda _: None)) as port, connect(port) as client:
            client.send(f"GET / HTTP/{version}\r\nHost: a\r\nConnection: close\r\n{fields}\r\n".encode())
            answered = await client.rest()
        assert answered.startswith(interim + b"HTTP/1.1 200 OK\r\n")
        assert answered.endswith(b"ok")
    assert refused == ["HTTP/1.1", "HTTP/1.1", "HTTP/1.0"]


@pytest.mark.parametrize(("length", "expected"), [(4, b"100 Continue"), (5, b"100 Continue"), (6, b"413 ")])
async def test_content_of_the_greatest_size_is_asked_for(length: int, expected: bytes) -> None:
    def raise_limit(message: Message) -> None:
        if message.start_line.path == "/own":
            message.connection.set_max_body_size(5)

    for own, target in ((None, "/own"), (5, "/server")):
        options = {} if own is None else {"max_body_size": own}
        async with serving(Application(on_headers=raise_limit), **options) as port, connect(port) as client:
            client.send(
                f"POST {target} HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
                f"Content-Length: {length}\r\n\r\n".encode()
            )
            async with asyncio.timeout(LIMIT):
                first = await client.reader.readuntil(b"\r\n\r\n")
            assert first.startswith(b"HTTP/1.1 " + expected)
            if length <= 5:
                client.send(b"x" * length)
                assert (await client.response())[2] == b"x" * length


async def test_a_switch_of_protocols_that_cannot_be(caplog: pytest.LogCaptureFixture) -> None:
    errors: list[str] = []

    def switch(message: Message) -> None:
        try:
            message.connection.write_headers(ResponseStartLine("", 101, ""), {"Upgrade": "x"})
        except HTTPOutputError as exc:
            errors.append(str(exc))
            raise

    upgrade = ("Connection: upgrade", "Upgrade: x")
    for wire in (GET, post(b"x" * 10, *upgrade)[:-1]):
        async with serving(Application(on_headers=switch), raises=HTTPOutputError) as port, connect(port) as client:
            client.send(wire)
            assert (await client.response())[0] == 500
    assert ["did not ask" in errors[0], "before the request's content" in errors[1]] == [True, True]
    assert caplog.text.count("Uncaught exception") == 2


async def test_writing_to_a_peer_that_left_fails_the_future() -> None:
    results: list[BaseException | None] = []
    ready, left = asyncio.Event(), asyncio.Event()

    async def late(request: HTTPServerRequest) -> None:
        request.connection.set_close_callback(left.set)
        ready.set()
        await left.wait()
        async with asyncio.timeout(LIMIT):
            while request.connection.server_connection.transport is not None:
                await asyncio.sleep(0.001)
        for waiting in (request.connection.write_headers(OK, HTTPHeaders(), b"x"), request.connection.write(b"x")):
            results.append(waiting.exception())
        request.connection.finish()

    async with serving(late) as port, connect(port) as client:
        client.send(GET)
        await until(ready)
        client.reset()
        async with asyncio.timeout(LIMIT):
            while len(results) < 2:
                await asyncio.sleep(0.001)
    assert all(isinstance(error, StreamClosedError) for error in results)


async def test_writes_that_wait_fail_when_the_peer_leaves() -> None:
    failed: list[BaseException] = []
    stuck = asyncio.Event()

    async def flood(request: HTTPServerRequest) -> None:
        request.connection.write_headers(OK, HTTPHeaders({"Content-Length": str(1 << 30)}))
        try:
            while True:
                waiting = request.connection.write(b"x" * 65536)
                if not waiting.done():
                    stuck.set()
                await waiting
        except StreamClosedError as exc:
            failed.append(exc)
            raise

    async with serving(flood) as port, connect(port) as client:
        client.send(GET)
        await until(stuck)
        client.reset()
        async with asyncio.timeout(LIMIT):
            while not failed:
                await asyncio.sleep(0.001)


async def test_errors_are_tornados_too_when_tornado_is_in_use() -> None:
    tornado = pytest.importorskip("tornado.iostream")
    from bridge.core.stream.errors import closed_error

    error = closed_error(OSError("x"))
    assert isinstance(error, tornado.StreamClosedError)
    assert isinstance(error, StreamClosedError)
    assert isinstance(error.real_error, OSError)


# ---------------------------------------------------------------------- the way of Tornado 3


async def test_raw_responses_of_the_third_version() -> None:
    """The application frames the response itself; the example of the documentation, text and bytes."""

    def handle(request: HTTPServerRequest) -> None:
        message = f"You requested {request.uri}\n"
        request.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(message)}\r\n\r\n{message}")
        if request.uri == "/more":
            request.write(b"")
        request.finish()
        assert request.request_time() >= 0

    async with serving(handle) as port, connect(port) as client:
        client.get("/a")
        client.get("/more")
        assert (await client.response())[2] == b"You requested /a\n"
        assert (await client.response())[2] == b"You requested /more\n"


@pytest.mark.parametrize(
    ("head", "closes"),
    [
        ("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", True),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nconnection: x, Close\r\n\r\nok", True),
        ("HTTP/1.1 200 OK\r\nX-Connection: close\r\nContent-Length: 2\r\n\r\nok", False),
        ("HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n\r\nConnection: close\r\n", False),
        ("HTTP/1.1 200 OK\r\nConnection: closed\r\nContent-Length: 2\r\n\r\nok", False),
    ],
)
async def test_raw_responses_say_whether_the_connection_goes_on(head: str, closes: bool) -> None:
    def handle(request: HTTPServerRequest) -> None:
        request.write(head)
        request.finish()

    async with serving(handle) as port, connect(port) as client:
        client.send(GET)
        await client.response()
        client.send(GET)
        if closes:
            assert await client.rest() == b""
        else:
            assert (await client.response())[0] == 200


async def test_finish_without_a_response(caplog: pytest.LogCaptureFixture) -> None:
    async with serving(lambda request: request.finish(), raises=HTTPOutputError) as port, connect(port) as client:
        client.send(GET)
        assert (await client.response())[0] == 500
    assert "finish() before anything was written" in caplog.text


async def test_callbacks_of_the_fourth_version() -> None:
    called = []

    def handle(request: HTTPServerRequest) -> None:
        connection = request.connection
        connection.write_headers(
            OK, HTTPHeaders({"Content-Length": "4"}), b"ab", callback=lambda: called.append("head")
        )
        connection.write(b"cd", callback=lambda: called.append("more"))
        connection.finish()

    async with serving(handle) as port, connect(port) as client:
        client.send(GET)
        assert (await client.response())[2] == b"abcd"
    assert called == ["head", "more"]


# ---------------------------------------------------------------------- limits of one request


async def test_limits_are_of_one_request() -> None:
    def raise_limits(message: Message) -> None:
        if message.start_line.path == "/large":
            message.connection.set_max_body_size(1000)
            message.connection.set_body_timeout(5)

    app = Application(on_headers=raise_limits)
    async with serving(app, max_body_size=10) as port, connect(port) as client:
        client.send(b"POST /large HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n" + b"x" * 100)
        assert len((await client.response())[2]) == 100
        client.send(post(b"x" * 11))
        assert (await client.response())[0] == 413
        await client.close()
        await until(app.one_ended)
    assert app.messages[1].calls == ["headers", "close"]


@pytest.mark.parametrize(("size", "status"), [(None, 431), (65536, 431), (30_000, 200), (19_000, 431)])
async def test_a_size_that_was_asked_for_holds_for_one_line(size: int | None, status: int) -> None:
    async with serving(echo, max_header_size=size) as port, connect(port) as client:
        client.get("/", "Cookie: a=" + "x" * 20_000)
        assert (await client.response())[0] == status
    async with serving(echo, max_header_size=size) as port, connect(port) as client:
        client.get("/" + "x" * 20_000)
        assert (await client.response())[0] == (200 if status == 200 else 414)


async def test_content_that_is_not_there_in_time(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    app = Application(on_headers=lambda message: message.connection.set_body_timeout(0.05))
    async with serving(app) as port, connect(port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n")
        assert await client.rest() == b""
        await until(app.closed)
    assert any(record.getMessage().startswith("Timeout reading body") for record in caplog.records)


# ---------------------------------------------------------------------- names


async def test_attributes() -> None:
    seen: dict[str, Any] = {}

    def note(request: HTTPServerRequest) -> None:
        connection: Any = request.connection
        assert isinstance(connection, HTTP1Connection)
        assert isinstance(request.server_connection, HTTP1ServerConnection)
        seen.update(
            is_client=connection.is_client,
            no_keep_alive=connection.no_keep_alive,
            chunk_size=connection.params.chunk_size,
            max_header_size=connection.params.max_header_size,
            body_timeout=connection.params.body_timeout,
            stream=connection.stream.closed(),
            sizes=(connection.stream.max_buffer_size, connection.stream.read_chunk_size),
            same=connection.stream is request.server_connection.stream,
        )
        connection.stream.set_nodelay(True)
        with pytest.raises(AssertionError):
            connection.stream.read_bytes(1)
        with pytest.raises(AssertionError):
            connection.read_response(None)
        echo(request)

    limits = {"chunk_size": 1000, "max_header_size": 2000, "body_timeout": 7, "max_buffer_size": 5000}
    async with serving(note, **limits) as port, connect(port) as client:
        client.send(GET)
        assert (await client.response())[0] == 200
    assert seen == {
        "is_client": False,
        "no_keep_alive": False,
        "chunk_size": 1000,
        "max_header_size": 2000,
        "body_timeout": 7,
        "stream": False,
        "sizes": (5000, 1000),
        "same": True,
    }


async def test_writing_to_the_stream_of_a_connection_waits_for_the_peer() -> None:
    waiting: list[asyncio.Future[None]] = []

    def handle(request: HTTPServerRequest) -> None:
        stream: Any = request.connection.stream
        waiting.extend(stream.write(b"x" * (1 << 20)) for _ in range(20))

    async with serving(handle) as port, connect(port) as client:
        client.send(GET)
        await client.reader.readexactly(1)
        assert not waiting[-1].done()
        async with asyncio.timeout(LIMIT):
            await client.reader.readexactly((20 << 20) - 1)
            await asyncio.gather(*waiting)


async def test_the_stream_of_a_connection_writes_and_closes() -> None:
    def handle(request: HTTPServerRequest) -> None:
        stream: Any = request.connection.stream
        waiting = stream.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert waiting.done()
        stream.close()
        assert stream.closed()
        with pytest.raises(StreamClosedError):
            stream.write(b"x")

    async with serving(handle) as port, connect(port) as client:
        client.send(GET)
        assert await client.rest() == b"HTTP/1.1 204 No Content\r\n\r\n"


def test_parameters() -> None:
    params = HTTP1ConnectionParameters(True, 0, None, 1.5, 20, 3.5, True)
    assert vars(params) == {
        "no_keep_alive": True,
        "chunk_size": 65536,
        "max_header_size": 65536,
        "header_timeout": 1.5,
        "max_body_size": 20,
        "body_timeout": 3.5,
        "decompress": True,
    }
    with pytest.raises(ValueError, match="is_client"):
        HTTP1Connection(None, False)  # type: ignore[arg-type]


async def test_a_connection_on_a_stream_of_ones_own() -> None:
    """HTTP1ServerConnection for whoever accepts connections himself."""
    app = Application()
    served: list[HTTP1ServerConnection] = []
    sock = bind_sockets(0, "127.0.0.1")[0]
    context = object()
    loop = asyncio.get_running_loop()
    async with connect(sock.getsockname()[1]) as client:
        accepted, _ = sock.accept()
        stream = IOStream(accepted, max_buffer_size=1000)
        connection = HTTP1ServerConnection(stream, HTTP1ConnectionParameters(decompress=True), context)
        assert connection.context is context
        with pytest.raises(TypeError, match="start_request"):
            connection.start_serving(object())
        connection.start_serving(app)
        served.append(connection)
        client.send(post(b"hello"))
        assert (await client.response())[2] == b"hello"
        assert app.messages[0].connection.context is context
        assert app.messages[0].server_conn is connection
        client.send(post(b"x" * 1001))  # the stream's size is the limit where there is no other
        assert (await client.response())[0] == 413
        closing = [loop.create_task(connection.close()) for _ in range(3)]
        await asyncio.sleep(0)
        closing.pop().cancel()
        assert await client.rest() == b""
        async with asyncio.timeout(LIMIT):
            await asyncio.gather(*closing)
            await connection.close()
    assert app.ended == served
    sock.close()


async def test_a_connection_that_is_closed_before_it_begins() -> None:
    app = Application()
    sock = bind_sockets(0, "127.0.0.1")[0]
    for close_stream in (False, True):
        async with connect(sock.getsockname()[1]) as client:
            stream = IOStream(sock.accept()[0])
            connection = HTTP1ServerConnection(stream)
            connection.start_serving(app)
            if close_stream:
                stream.close()
            async with asyncio.timeout(LIMIT):
                await connection.close()
            assert await client.rest() == b""
    assert app.ended == app.messages == []
    sock.close()


# ---------------------------------------------------------------------- heads that are refused

NEXT = b"GET /next HTTP/1.1\r\nHost: a\r\n\r\n"
FORGED = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged"


class Pairs(dict[str, str]):
    """Fields that are not checked before they are written."""

    def get_all(self) -> list[tuple[str, str]]:
        return list(self.items())


@pytest.mark.parametrize(
    ("status", "fields"),
    [
        (200, {"a\r\nb": "c"}),
        (200, {"x a": "v"}),
        (200, {"x-\xe9": "v"}),
        (200, {"": "v"}),
        (200, {"a": "b\r\nc: d"}),
        (200, {"Set-Cookie": "a=\u4e2d"}),
        (200, {"Content-Length": "x"}),
        (99, {}),
        (1000, {}),
        ("200", {}),
        (103, {"x a": "v"}),
    ],
)
async def test_behind_a_head_that_is_refused_nothing_is_sent_as_a_response(status: Any, fields: dict[str, str]) -> None:
    """The application catches the error and goes on: the connection is never kept, and its bytes forge nothing."""
    caught: list[Exception] = []

    def answer(message: Message) -> None:
        connection = message.connection
        for step in (
            lambda: connection.write_headers(ResponseStartLine("", status, "OK"), Pairs(fields)),
            lambda: connection.write(FORGED),
            connection.finish,
        ):
            try:
                step()
            except Exception as exc:
                caught.append(exc)

    app = Application(on_finish=answer)
    async with serving(app) as port, connect(port) as client:
        client.send(GET + NEXT)
        received = await client.rest()
    assert isinstance(caught[0], ValueError)
    assert b"forged" not in received
    assert len(app.messages) == 1
    assert received == b"" or (received.startswith(b"HTTP/1.1 500 ") and b"\r\nconnection: close\r\n" in received)


async def test_a_head_that_is_refused_makes_room_for_another_one() -> None:
    def answer(message: Message) -> None:
        with pytest.raises(ValueError, match="illegal field line"):
            message.connection.write_headers(ResponseStartLine("", 200, "OK"), Pairs({"x a": "v"}))
        message.connection.write_headers(ResponseStartLine("", 500, "Oh"), Pairs({"Content-Length": "2"}), b"no")
        message.connection.finish()

    async with serving(Application(on_finish=answer)) as port, connect(port) as client:
        client.send(GET)
        status, _, content = await client.response()
        assert (status, content) == (500, b"no")
        client.send(GET)
        assert (await client.response())[0] == 500  # the connection is kept


@pytest.mark.parametrize("asynchronous", [False, True])
async def test_an_illegal_field_of_a_callable_is_the_applications_fault(
    asynchronous: bool, caplog: pytest.LogCaptureFixture
) -> None:
    def plain(request: HTTPServerRequest) -> None:
        HTTPHeaders().add("x a", "v")

    async def later(request: HTTPServerRequest) -> None:
        await asyncio.sleep(0)
        plain(request)

    async with serving(later if asynchronous else plain, raises=Exception) as port, connect(port) as client:
        client.send(GET)
        assert (await client.response())[0] == 500
    assert [record.exc_info is not None for record in caplog.records if record.levelno >= logging.ERROR] == [True]
