"""HTTP messages: their order, what breaks the rules, clients that leave, flow control both ways."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import time
import weakref
from typing import Any

import pytest

from bridge.core.connection.parameters import ConnectionParameters
from bridge.errors import ConnectionGone, LocalProtocolError
from tests.support import protocols
from tests.support.asgi import connect, served
from tests.support.protocols import BOTH_PROTOCOLS

pytestmark = BOTH_PROTOCOLS

START: dict[str, Any] = {"type": "http.response.start", "status": 200, "headers": []}
END: dict[str, Any] = {"type": "http.response.body", "body": b"", "more_body": False}


def body(data: bytes, more: bool = False) -> dict[str, Any]:
    return {"type": "http.response.body", "body": data, "more_body": more}


async def ok(send: Any, data: bytes = b"ok") -> None:
    await send(START)
    await send(body(data))


# ------------------------------------------------------------------ the task


async def test_requests_run_in_copies_of_the_delegates_context() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await ok(send, variable.get("unset").encode())

    async with served(app) as server, connect(server.port) as client:
        server.delegate.context.run(variable.set, "from the start")
        client.get()
        assert (await client.response())[2] == b"from the start"


# ------------------------------------------------------------------ messages out of order, and wrong ones


async def _send_and_note(send: Any, messages: list[dict[str, Any]], errors: list[str]) -> None:
    for message in messages:
        try:
            await send(message)
        except LocalProtocolError as exc:
            errors.append(str(exc))


@pytest.mark.parametrize(
    ("messages", "errors"),
    [
        ([body(b"x"), START, body(b"ok")], ["http.response.body before http.response.start"]),
        ([START, START, body(b"ok")], ["http.response.start a second time"]),
        ([START, body(b"o", True), START, body(b"k")], ["http.response.start a second time"]),
        ([{"type": "nonsense"}, START, body(b"ok")], ["unexpected ASGI message 'nonsense'"]),
        ([{"type": "websocket.send", "text": "x"}, START, body(b"ok")], ["unexpected ASGI message 'websocket.send'"]),
        ([{"type": "http.response.push"}, START, body(b"ok")], ["unexpected ASGI message 'http.response.push'"]),
        ([{"type": "http.response.debug", "info": {}}, START, body(b"ok")], ["unexpected ASGI message"]),
        ([START, body(b"ok"), body(b"more")], ["content after the end of the response"]),
        ([{**START, "trailers": False}, body(b"ok"), {"type": "http.response.trailers"}], ["not promised"]),
        ([{**START, "status": 99}, START, body(b"ok")], ["status 99 is not a number from 100 to 999"]),
        ([{**START, "headers": [(b"a b", b"")]}, START, body(b"ok")], ["illegal field line"]),
        ([{**START, "headers": [(b"a", b"x\r\nb: y")]}, START, body(b"ok")], ["illegal field line"]),
        ([{**START, "headers": [("a", "b")]}, START, body(b"ok")], ["a field is a pair of bytes"]),
        ([{**START, "headers": [(b"content-length", b"-1")]}, START, body(b"ok")], ["is not a number"]),
    ],
)
async def test_messages_that_break_a_rule(messages: list[dict[str, Any]], errors: list[str]) -> None:
    found: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await _send_and_note(send, messages, found)

    async with served(app) as server, connect(server.port) as client:
        client.get()
        status, fields = await client.head()
        if "content-length" in fields:
            assert await client.reader.readexactly(int(fields["content-length"])) == b"ok"
        else:
            assert await client.reader.readuntil(b"0\r\n\r\n") == b"1\r\no\r\n1\r\nk\r\n0\r\n\r\n"
        assert status == 200
        client.get()  # the connection is as good as before
        assert (await client.head())[0] == 200
    assert len(found) == 2 * len(errors)
    for text, part in zip(found, errors * 2, strict=True):
        assert part in text


async def test_content_longer_than_declared() -> None:
    errors: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "headers": [(b"content-length", b"3")]})
        await _send_and_note(send, [body(b"12", True), body(b"345")], errors)

    async with served(app) as server, connect(server.port) as client:
        client.get()
        assert (await client.rest()).endswith(b"\r\n\r\n123")
    assert errors == ["http.response.body: content longer than its Content-Length of 3 bytes"]


async def test_content_shorter_than_declared() -> None:
    errors: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "headers": [(b"content-length", b"9")]})
        await _send_and_note(send, [body(b"12")], errors)

    async with served(app) as server, connect(server.port) as client:
        client.get()
        assert (await client.rest()).endswith(b"content-length: 9\r\n\r\n12")
    assert errors == ["http.response.body: content of 2 bytes, its Content-Length is 9"]


@pytest.mark.parametrize(
    "exc", [RuntimeError("broken"), SystemExit(3), GeneratorExit(), BaseExceptionGroup("", [GeneratorExit()])]
)
async def test_error_before_the_response(exc: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        raise exc

    async with served(app, raises=type(exc)) as server, connect(server.port) as client:
        client.get("/x?y")
        status, fields, _ = await client.response()
    assert status == 500
    assert fields.get("connection") == protocols.value("close", None)
    (record,) = caplog.records
    assert record.getMessage() == "Exception in ASGI application, GET /x?y"
    assert record.exc_info is not None and record.exc_info[1] is exc


async def test_error_during_the_response(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(body(b"part", True))
        raise RuntimeError("broken")

    async with served(app, raises=RuntimeError) as server, connect(server.port) as client:
        client.get()
        wire = await client.rest()
    assert wire.endswith(b"4\r\npart\r\n")  # and no last chunk: the client knows that something is missing
    assert len(caplog.records) == 1


async def test_error_after_the_response(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await ok(send)
        raise RuntimeError("broken")

    async with served(app, raises=RuntimeError) as server, connect(server.port) as client:
        for _ in range(2):
            client.get()
            assert (await client.response())[2] == b"ok"
    assert len(caplog.records) == 2


@pytest.mark.parametrize("sent", [[], [START]])
async def test_return_without_a_response(sent: list[dict[str, Any]], caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in sent:
            await send(message)

    async with served(app) as server, connect(server.port) as client:
        client.get("/none")
        assert (await client.response())[0] == 500
    assert [record.getMessage() for record in caplog.records] == [
        "ASGI application returned without a response, GET /none"
    ]


async def test_return_with_half_a_response(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(body(b"part", True))

    async with served(app) as server, connect(server.port) as client:
        client.get()
        assert (await client.rest()).endswith(b"4\r\npart\r\n")
    assert [record.getMessage() for record in caplog.records] == [
        "ASGI application returned without a complete response, GET /"
    ]


# ------------------------------------------------------------------ receiving


async def test_content_and_what_follows_it() -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        content = b""
        while True:
            message = await receive()
            assert message["type"] == "http.request"
            content += message["body"]
            if not message["more_body"]:
                break
        await ok(send, content)
        seen.append(await receive())
        seen.append(await receive())

    async with served(app) as server, connect(server.port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        client.send(b"3\r\ndef\r\n0\r\n\r\n")
        assert (await client.response())[2] == b"abcdef"
    assert seen == [{"type": "http.disconnect"}] * 2


async def test_continue_is_sent_by_the_first_receive() -> None:
    go = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        message = await receive()
        await ok(send, message["body"])

    async with served(app) as server, connect(server.port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await client.reader.readexactly(1)
        go.set()
        assert (await client.reader.readuntil(b"\r\n\r\n")) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"hi")
        assert (await client.response())[2] == b"hi"


async def test_concurrent_and_cancelled_receives() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert (await receive())["type"] == "http.request"
        waiting = [asyncio.ensure_future(receive()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await receive()
        await ok(send)
        assert [(await task)["type"] for task in waiting[1:]] == ["http.disconnect"] * 2

    async with served(app) as server, connect(server.port) as client:
        client.get()
        assert (await client.response())[0] == 200


async def test_a_receive_that_is_tried_again_and_again_leaves_nothing_behind() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        (request,) = server.delegate.tasks.values()
        listening = asyncio.ensure_future(receive())
        await asyncio.sleep(0)
        for _ in range(100):
            attempt = asyncio.ensure_future(receive())
            await asyncio.sleep(0)
            attempt.cancel()
            await asyncio.wait([attempt])
        waiting = [request._waiters._first, *request._waiters._more]
        assert len(waiting) <= 2  # the listening task's, and the last attempt's
        listening.cancel()
        await ok(send, b"fine")

    async with served(app) as server, connect(server.port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab")
        await asyncio.sleep(0.01)
        assert (await client.response())[2] == b"fine"


@pytest.mark.http1("it looks into HTTP/1's reader")
async def test_content_is_not_read_ahead_beyond_a_window() -> None:
    size = 64 << 20
    go = asyncio.Event()
    sent = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await go.wait()
        total = 0
        while True:
            message = await receive()
            total += len(message["body"])
            largest = max(len(message["body"]), server.peak)
            server.peak = largest
            if not message["more_body"]:
                break
        await ok(send, b"%d" % total)

    async with served(app) as server, connect(server.port) as client:
        server.peak = 0  # type: ignore[attr-defined]
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)

        async def upload() -> None:
            nonlocal sent
            piece = bytes(1 << 16)
            while sent < size:
                client.send(piece)
                sent += len(piece)
                await client.writer.drain()

        task = asyncio.ensure_future(upload())
        before = -1
        while before != sent:  # until nothing moves
            before = sent
            await asyncio.sleep(0.05)
        assert sent < size / 2  # what the sockets hold, and the window
        (connection,) = server.http.connections
        assert len(connection.reader.buffer) <= 256 << 10
        go.set()
        assert (await client.response())[2] == b"%d" % size
        await task
        assert server.peak <= 512 << 10  # type: ignore[attr-defined]


# ------------------------------------------------------------------ clients that leave


async def _at_once(event: asyncio.Event) -> None:
    start = time.monotonic()
    async with asyncio.timeout(5):
        await event.wait()
    assert time.monotonic() - start < 0.8  # on a machine that does other things, too


@pytest.mark.parametrize("leave", ["close", "reset"])
async def test_leaving_during_the_upload(leave: str) -> None:
    started, left = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        while (message := await receive())["type"] == "http.request":
            started.set()
        assert message == {"type": "http.disconnect"}
        left.set()
        with pytest.raises(OSError):
            await send(START)

    async with served(app) as server, connect(server.port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nsome")
        await started.wait()
        if leave == "close":
            client.writer.close()
        else:
            client.reset()
        await _at_once(left)


@pytest.mark.parametrize("leave", ["close", "reset"])
async def test_leaving_while_the_application_works(leave: str, caplog: pytest.LogCaptureFixture) -> None:
    started, left = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        started.set()
        assert (await receive())["type"] == "http.disconnect"
        left.set()

    async with served(app) as server, connect(server.port) as client:
        client.get()
        await started.wait()
        if leave == "close":
            client.writer.close()
        else:
            client.reset()
        await _at_once(left)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


@pytest.mark.parametrize("leave", ["close", "reset"])
async def test_leaving_during_a_stream(leave: str, caplog: pytest.LogCaptureFixture) -> None:
    left, failed = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def listen() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            left.set()

        listener = asyncio.ensure_future(listen())
        await send(START)
        try:
            while True:
                await send(body(b"tick", True))
                await asyncio.sleep(0.01)
        except OSError as exc:
            assert isinstance(exc, ConnectionGone)
            failed.set()
            raise
        finally:
            await listener

    async with served(app) as server, connect(server.port) as client:
        client.get()
        await client.head()
        if leave == "close":
            client.writer.close()
        else:
            client.reset()
        await _at_once(left)
        await _at_once(failed)
        await server.delegate.wait(5)
    assert not caplog.records  # the OSError is ours, not an error of the application's


async def test_leaving_while_the_end_of_the_response_waits_to_be_sent(caplog: pytest.LogCaptureFixture) -> None:
    errors: list[OSError] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        try:
            await send(body(bytes(20_000_000)))
        except OSError as exc:
            errors.append(exc)
            raise

    async with served(app) as server, connect(server.port) as client:
        client.get()
        await client.head()
        client.reset()
        await server.delegate.wait(5)
    assert [isinstance(error, ConnectionGone) for error in errors] == [True]
    assert not caplog.records


async def test_somebody_elses_connection_that_is_gone_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await ok(send)
        raise ConnectionGone("to a database")

    async with served(app, raises=ConnectionGone) as server, connect(server.port) as client:
        client.get()
        await client.response()
        await server.delegate.wait(5)
    assert len(caplog.records) == 1


@pytest.mark.parametrize("wrapped", ["cause", "context", "group", "kept"])
async def test_what_frameworks_make_of_the_oserror_is_no_error(wrapped: str, caplog: pytest.LogCaptureFixture) -> None:
    started = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        started.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        while True:
            try:
                await send(START)
                await send(body(b"x", True))
                await asyncio.sleep(0.01)
            except OSError as exc:
                if wrapped == "cause":
                    raise RuntimeError("gone") from exc
                if wrapped == "kept":
                    kept = exc
                    break
                if wrapped == "group":
                    raise ExceptionGroup("gone", [exc]) from None
                raise RuntimeError("gone")  # noqa: B904
            except LocalProtocolError:
                await asyncio.sleep(0.01)  # it is the second start; the loop has not seen the reset yet
        raise RuntimeError("gone") from kept

    async with served(app, raises=(RuntimeError, ExceptionGroup)) as server, connect(server.port) as client:
        client.get()
        await started.wait()
        client.reset()
        await server.delegate.wait(5)
    assert not caplog.records


async def test_an_application_that_ignores_the_disconnect_is_cancelled(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    for leave in ("close", "reset"):
        async with served(app, grace=0.05) as server, connect(server.port) as client:
            client.get()
            await started.wait()
            if leave == "close":
                client.writer.close()
            else:
                client.reset()
            async with asyncio.timeout(2):
                await cancelled.wait()
        started.clear()
        cancelled.clear()
    assert sum("goes on although its client has left" in record.getMessage() for record in caplog.records) == 2


@pytest.mark.http1("a stream has no half-closed client that may still read")
async def test_a_client_that_only_closed_its_sending_side_gets_its_response() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        for _ in range(10):
            await asyncio.sleep(0.03)
            await send(body(b"x", True))
        await send(END)

    async with served(app, grace=0.1) as server, connect(server.port) as client:
        client.get()
        client.writer.write_eof()
        assert (await client.rest()).endswith(b"1\r\nx\r\n" * 10 + b"0\r\n\r\n")


async def test_work_after_the_response_is_not_cancelled() -> None:
    done = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await ok(send)
        await asyncio.sleep(0.2)
        done.set()

    async with served(app, grace=0.01, timeout=0.05) as server:
        async with connect(server.port) as client:
            client.get()
            await client.response()
        async with asyncio.timeout(2):
            await done.wait()


async def test_a_response_that_ends_before_the_upload_is_no_disconnect_of_the_client() -> None:
    done = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await ok(send)
        await asyncio.sleep(0.1)
        done.set()

    async with served(app, grace=0.01) as server, connect(server.port) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nsome")
        assert (await client.response())[0] == 200
        async with asyncio.timeout(2):
            await done.wait()


# ------------------------------------------------------------------ a client that does not read


@pytest.mark.http1("the window of HTTP/2 shuts before the transport has to wait")
async def test_a_client_that_does_not_read_stops_the_application() -> None:
    sent = 0
    gone = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal sent
        await send({**START, "headers": [(b"content-length", b"%d" % (64 << 20))]})
        try:
            while sent < 64 << 20:
                await send(body(bytes(65536), True))
                sent += 65536
        except OSError:
            gone.set()

    params = ConnectionParameters(write_timeout=0.5)
    async with served(app, params=params) as server, connect(server.port) as client:
        client.writer.transport.pause_reading()
        client.get()
        before = -1
        peak = 0
        async with asyncio.timeout(5):
            while not gone.is_set() and (before != sent or not sent):
                before = sent
                await asyncio.sleep(0.05)
                for connection in server.http.connections:
                    peak = max(peak, connection.transport.get_write_buffer_size())
            assert sent < 32 << 20
            assert 0 < peak <= 256 << 10
            await gone.wait()  # the write timeout


# ------------------------------------------------------------------ --timeout-request


async def test_timeout_before_the_response(caplog: pytest.LogCaptureFixture) -> None:
    cancelled = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    async with served(app, timeout=0.1) as server, connect(server.port) as client:
        server.http.params.keep_alive_timeout = 0.5  # the clock looks often enough
        client.get("/slow")
        status, fields, _ = await client.response()
        assert status == 504
        assert fields.get("connection") == protocols.value("close", None)
        await asyncio.wait_for(cancelled.wait(), 1)
    assert [record.getMessage() for record in caplog.records] == ["No complete response within 0.1 s, GET /slow"]


async def test_timeout_during_the_response() -> None:
    cancelled = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(body(b"part", True))
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    async with served(app, timeout=0.1) as server, connect(server.port) as client:
        client.get()
        assert b"0\r\n\r\n" not in await client.rest()
        await asyncio.wait_for(cancelled.wait(), 1)


async def test_no_timeout_for_a_response_in_time() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await ok(send)

    async with served(app, timeout=0.1) as server, connect(server.port) as client:
        client.get()
        await client.response()
        (connection,) = server.http.connections
        assert connection.clock.watched == {connection}


# ------------------------------------------------------------------ extensions


@pytest.mark.parametrize(
    ("fields", "end"),
    [
        (["TE: trailers", "Connection: TE"], b"0\r\nx-sum: 1\r\nx-more: 2\r\n\r\n"),
        (["TE: gzip;q=0.5, Trailers"], b"0\r\nx-sum: 1\r\nx-more: 2\r\n\r\n"),
        ([], b"0\r\n\r\n"),
    ],
)
async def test_trailers(fields: list[str], end: bytes) -> None:
    errors: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        trailers = {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")], "more_trailers": True}
        await send({**START, "trailers": True})
        await _send_and_note(send, [trailers, body(b"a", True), body(b"b"), body(b"c")], errors)
        await send(trailers)
        await send({"type": "http.response.trailers", "headers": [(b"x-more", b"2")]})

    async with served(app) as server, connect(server.port) as client:
        for _ in range(2):
            client.get("/", *fields)
            await client.head()
            assert await client.reader.readexactly(12 + len(end)) == b"1\r\na\r\n1\r\nb\r\n" + end
    assert len(errors) == 4


async def test_nothing_comes_behind_the_last_trailers() -> None:
    errors: list[str] = []
    last = {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "trailers": True})
        await send(body(b"a"))
        await send(last)
        await _send_and_note(send, [last, body(b"b"), START], errors)

    async with served(app) as server, connect(server.port) as client:
        for _ in range(2):
            client.get("/", "TE: trailers")
            await client.head()
            assert await client.reader.readuntil(b"0\r\nx-sum: 1\r\n\r\n") == b"1\r\na\r\n0\r\nx-sum: 1\r\n\r\n"
    assert errors == 2 * [
        "http.response.trailers before the end of the content, or not promised",
        "http.response.body: content after the end of the response",
        "http.response.start a second time",
    ]


async def test_trailers_that_never_come() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "trailers": True})
        await send(body(b"a"))

    async with served(app) as server, connect(server.port) as client:
        client.get("/", "TE: trailers")
        assert (await client.rest()).endswith(b"1\r\na\r\n")


async def test_early_hints() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        hint = {"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload", b"</b.js>; rel=preload"]}
        await send(hint)
        await send(START)
        await send(hint)
        await send(body(b"o", True))
        await send(hint)  # too late on HTTP/1.1, and ignored
        await send(body(b"k"))

    async with served(app) as server, connect(server.port) as client:
        client.get()
        for _ in range(2):
            hint = await client.reader.readuntil(b"\r\n\r\n")
            assert hint == (
                b"HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nlink: </b.js>; rel=preload\r\n\r\n"
            )
        assert (await client.head())[0] == 200
        assert await client.reader.readexactly(17) == b"1\r\no\r\n1\r\nk\r\n0\r\n\r\n"
        if protocols.now == "http1":
            client.send(b"GET / HTTP/1.0\r\n\r\n")
            assert (await client.rest()).count(b"HTTP/1.1") == 1


async def test_debug(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, "bridge")
    errors: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert "http.response.debug" in scope["extensions"]
        message = {"type": "http.response.debug", "info": {"template": "x.html"}}
        await send(message)
        await send(START)
        await _send_and_note(send, [message, body(b"ok")], errors)

    async with served(app, debug=True) as server, connect(server.port) as client:
        client.get()
        assert (await client.response())[2] == b"ok"
    assert errors == ["http.response.debug after http.response.start"]
    assert "GET /: {'template': 'x.html'}" in [record.getMessage() for record in caplog.records]


# ------------------------------------------------------------------ the server stops


async def test_notice_and_the_end_of_endless_responses(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    noticed = asyncio.Event()
    running = asyncio.Semaphore(0)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        notice = scope["extensions"]["bridge.shutdown.notice"]["event"]
        assert not notice.is_set()
        await receive()
        running.release()
        if scope["path"] == "/plain":
            await notice.wait()
            noticed.set()
            await asyncio.sleep(0.2)
            await ok(send)
            return
        await send({**START, "headers": [(b"Content-Type", b"text/event-stream; charset=utf-8")]})
        await send(body(b"data: x\n\n", True))
        assert (await receive())["type"] == "http.disconnect"
        assert noticed.is_set()

    async with served(app) as server, connect(server.port) as plain, connect(server.port) as stream:
        plain.get("/plain")
        stream.get("/events")
        await running.acquire()
        await running.acquire()
        server.delegate.stop(None)
        end = server.http.end_streams(0.05)
        await stream.head()
        # The application has not sent the end, so the client sees none.
        assert await stream.reader.read() == b"9\r\ndata: x\n\n\r\n"
        assert (await plain.response())[2] == b"ok"
        end.cancel()
    assert "Stopping: the response to GET /events is cut off" in caplog.text


@pytest.mark.parametrize("last_words", [b"", b"bye"])
async def test_an_endless_response_that_listens_to_nobody_ends_with_its_next_piece(
    last_words: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    running = asyncio.Event()
    told: list[BaseException] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "headers": [(b"content-type", b"text/event-stream")]})
        while True:
            running.set()
            try:
                await send(body(b"x", True))
            except OSError as exc:
                told.append(exc)
                if not last_words:
                    raise
                await send(body(last_words))
                return
            await asyncio.sleep(0.001)

    async with served(app) as server, connect(server.port) as stream:
        stream.get("/events")
        await running.wait()
        end = server.http.end_streams(0.05)
        await stream.head()
        content = await (stream.reader.readuntil(b"0\r\n\r\n") if last_words else stream.reader.read())
        assert content.endswith(b"3\r\nbye\r\n0\r\n\r\n" if last_words else b"1\r\nx\r\n")
        end.cancel()
        assert len(told) == 1
    assert "Exception" not in caplog.text


async def test_wait_cancels_what_does_not_end() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(60)

    async with served(app) as server, connect(server.port) as client:
        client.get()
        while not server.delegate.tasks:
            await asyncio.sleep(0.01)
        assert await server.delegate.wait(0.01) == 1
        assert (await client.response())[0] == 500
        assert await server.delegate.wait(0.01) == 0


class _Message(dict[str, Any]):
    """A message whose end can be noticed."""


async def test_a_message_is_not_kept_while_others_have_their_turn() -> None:
    kept: list[bool] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        last: list[weakref.ref[_Message]] = []

        def look() -> None:
            kept.append(last[0]() is not None)

        def message() -> _Message:
            made = _Message(body(b"x", True))
            last[:] = [weakref.ref(made)]
            return made

        await send(START)
        handle = asyncio.get_running_loop().call_soon(look)
        while not handle.cancelled() and not kept:
            await send(message())
        await send(END)

    async with served(app) as server, connect(server.port) as client:
        client.get()
        assert (await client.head())[0] == 200
        await server.delegate.wait(2)
    assert kept == [False]


@pytest.mark.parametrize("left", ["left", "answered"])
@pytest.mark.parametrize("deed", ["receive", "send", "nonsense"])
async def test_an_application_that_takes_no_notice_of_the_end_lets_others_run(deed: str, left: str) -> None:
    other = asyncio.Event()
    turns = 0

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal turns
        if scope["path"] == "/other":
            await ok(send)
            other.set()
            return
        await ok(send) if left == "answered" else await send(START)
        while left == "left" and (await receive())["type"] != "http.disconnect":
            pass
        while not other.is_set() and turns < 100_000:
            turns += 1
            with contextlib.suppress(OSError, LocalProtocolError):
                if deed == "receive":
                    await receive()
                else:
                    await send(body(b"x", True) if deed == "send" else {"type": deed})

    async with served(app) as server, connect(server.port) as client:
        client.get("/")
        await client.head()
        if left == "left":
            client.reset()
        async with connect(server.port) as another:
            another.get("/other")
            assert (await another.head())[0] == 200
        await server.delegate.wait(2)
    assert turns < 100_000


@pytest.mark.http1("HTTP/2 has no room for so many")
async def test_early_hints_without_end_let_others_run() -> None:
    turns = 0
    other = asyncio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        nonlocal turns
        if scope["path"] == "/other":
            await ok(send)
            other.set()
            return
        while not other.is_set() and turns < 20_000:
            turns += 1
            await send({"type": "http.response.early_hint", "links": [b"</a>; rel=preload"]})
        await ok(send)

    async with served(app) as server, connect(server.port) as client, connect(server.port) as another:
        client.get("/")
        another.get("/other")
        assert (await another.head())[0] == 200
        await server.delegate.wait(2)
    assert turns < 20_000
