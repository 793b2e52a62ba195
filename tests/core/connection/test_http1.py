from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.connection.interfaces import Exchange, Observer
from bridge.core.connection.states import CLOSED, DONE
from bridge.core.http.limits import Limits
from bridge.errors import ConnectionGone, FramingError, LocalProtocolError, RequestTimeout
from tests.support.cuts import CUTS, cut_at, single_cuts
from tests.support.faketransport import FakeTransport
from tests.support.link import GET, POST, Link, Recorder, Told, linked, ok
from tests.support.responses import read_responses

CLOSE = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
FIXED = POST + b"Content-Length: 5\r\n\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"


def path(number: int) -> bytes:
    return b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number


def echo(told: Told) -> None:
    ok(told, told.exchange.head.path + b" " + told.data)


# ---------------------------------------------------------------------- order and pipelining


def test_requests_are_served_one_after_the_other() -> None:
    with linked(Recorder(on_finish=echo)) as link:
        for number in range(3):
            link.send(path(number))
            assert len(link.responses()) == number + 1
        assert [response.content for response in link.responses()] == [b"/0 ", b"/1 ", b"/2 "]
        assert [told.calls for told in link.told] == [["start", "finish"]] * 3
        assert not link.closed


@pytest.mark.parametrize("cut", CUTS)
def test_pipelined_requests_are_answered_in_order(cut: Any) -> None:
    wire = path(1) + FIXED + b"hello" + path(2) + CHUNKED + b"5\r\nworld\r\n0\r\n\r\n" + path(3)
    with linked(Recorder(on_finish=echo)) as link:
        link.send(*cut(wire))
        assert [response.content for response in link.responses()] == [b"/1 ", b"/ hello", b"/2 ", b"/ world", b"/3 "]


def test_a_request_that_comes_once_more_is_served_once_more() -> None:
    with linked(Recorder(on_finish=echo)) as link:
        for _ in range(3):
            link.send(path(1))
        link.send(path(1) + path(1))
        link.send(path(1)[:-1])
        link.send(b"\n")
        assert [response.content for response in link.responses()] == [b"/1 "] * 6


def test_content_that_looks_like_the_request_before_it_is_content() -> None:
    # The second read is the first one over again, but its first bytes are the content that was announced.
    wire = POST + b"Content-Length: 9\r\nX: y\r\n\r\n"
    with linked(Recorder(on_finish=echo)) as link:
        link.send(wire, wire)
        first, *others = link.told
        assert first.data == wire[:9]
        assert [response.status for response in link.responses()] == [200, 400]
        assert not any(told.data for told in others)


def test_a_pipelined_request_waits_until_the_one_before_it_is_answered() -> None:
    with linked(Recorder()) as link:
        link.send(path(0) + path(1) + path(2))
        for number in range(3):
            assert len(link.told) == number + 1
            echo(link.told[number])
            link.loop.settle()
        assert [response.content for response in link.responses()] == [b"/0 ", b"/1 ", b"/2 "]


@pytest.mark.parametrize("when", ["on_start", "on_finish"])
def test_a_thousand_requests_in_one_read(when: str) -> None:
    with linked(Recorder(**{when: echo})) as link:
        link.send(b"".join(path(number) for number in range(1000)))
        assert [response.content for response in link.responses()] == [b"/%d " % number for number in range(1000)]


def test_a_switch_needs_the_name_of_the_protocol() -> None:
    def switch(told: Told) -> None:
        with pytest.raises(LocalProtocolError, match="without an Upgrade field"):
            told.exchange.respond(101, [])
        ok(told)

    with linked(Recorder(on_finish=switch)) as link:
        link.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
        assert link.response().status == 200


def test_a_delegate_that_gives_the_transport_away_as_it_starts_is_told_nothing() -> None:
    def take(told: Told) -> None:
        told.exchange.respond(101, [(b"upgrade", b"x")])
        told.exchange.send(b"", True)
        _, _, gone = told.exchange.take_stream(asyncio.Protocol())
        told.owner.gone = gone  # type: ignore[attr-defined]  # kept for the end

    with linked(Recorder(on_start=take)) as link:
        link.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n")
        assert link.told[0].calls == ["start"]
        link.loop.call(link.transport.abort)
        link.delegate.gone()


def test_many_requests_in_one_read_do_not_keep_the_loop() -> None:
    seen: list[int] = []
    with linked(Recorder(on_finish=echo)) as link:
        count = len(link.delegate.told)

        def watch() -> None:
            nonlocal count
            seen.append(len(link.delegate.told) - count)
            count = len(link.delegate.told)
            if count < 1000:
                link.loop.call_soon(watch)

        link.loop.call_soon(watch)
        link.send(b"".join(path(number) for number in range(1000)))
        assert count == 1000
        # Others had their turn in between.
        assert max(seen) <= 100


def test_small_chunks_in_one_read_do_not_keep_the_loop() -> None:
    seen: list[int] = []
    with linked(Recorder()) as link:
        link.send(CHUNKED)
        told = link.told[0]

        def watch() -> None:
            seen.append(len(told.data))
            if len(told.data) < 40000:
                link.loop.call_soon(watch)

        link.loop.call_soon(watch)
        link.send(b"1\r\na\r\n" * 40000 + b"0\r\n\r\n")
        assert told.calls[-1] == "finish"
        assert len(told.data) == 40000
        assert max(after - before for before, after in itertools.pairwise(seen)) <= 2500


def test_requests_that_come_faster_than_they_are_answered_are_not_read() -> None:
    # Each turn of the loop brings more than can be served in it.
    with linked(Recorder(on_finish=ok)) as link:
        transport = link.transport
        most = 0

        def flood(left: int) -> None:
            nonlocal most
            transport.peer_sends(GET * 2000)
            most = max(most, link.connection.reader.unread)
            if left:
                link.loop.call_soon(flood, left - 1)

        link.loop.call_soon(flood, 9)
        link.loop.settle()
        assert link.received.count(b"HTTP/1.1 200 OK\r\n") == 10 * 2000
        assert most < 65536 + 2 * len(GET) * 2000


def test_a_request_behind_one_that_closes_is_not_served() -> None:
    for first in (CLOSE, b"GET / HTTP/1.0\r\n\r\n"):
        with linked(Recorder(on_finish=ok)) as link:
            link.send(first + GET)
            assert len(link.responses()) == len(link.told) == 1


def test_a_bad_request_behind_a_good_one_is_refused_in_its_turn() -> None:
    with linked(Recorder()) as link:
        link.send(GET + b"BAD\r\n\r\n" + GET)
        assert link.received == b""
        ok(link.told[0])
        link.loop.settle()
        assert [response.status for response in link.responses()] == [200, 400]
        assert len(link.told) == 1
        assert link.transport.eof


# ---------------------------------------------------------------------- re-entrancy


def test_a_response_may_be_complete_before_start_exchange_returns() -> None:
    for wire, calls in (
        (GET, ["start", "finish"]),
        (FIXED + b"hello", ["start", "closed"]),
        (CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", ["start", "closed"]),
    ):
        with linked(Recorder(on_start=ok)) as link:
            link.send(wire + GET)
            assert link.told[0].calls == calls
            # Content of unknown length that nobody reads ends the connection.
            assert len(link.told) == (1 if wire.startswith(CHUNKED) else 2)
            assert all(response.content == b"ok" for response in link.responses())


def test_a_response_may_be_complete_within_data_received() -> None:
    for rest, wire in ((b"", FIXED + b"hello"), (b"", CHUNKED + b"5\r\nhello\r\n0\r\n\r\n")):
        with linked(Recorder(on_data=lambda told, chunk: ok(told))) as link:
            link.send(wire + GET + rest)
            # The content was there as a whole: the connection goes on.
            assert [told.calls for told in link.told] == [["start", "data", "closed"], ["start", "finish"]]
            assert len(link.responses()) == 1
            assert not link.responses()[0].closes


def test_delegates_may_do_everything_from_everywhere() -> None:
    def busy(told: Told, *_: Any) -> None:
        told.exchange.pause_reading()
        told.exchange.resume_reading()
        told.exchange.resume_reading()
        told.exchange.send_continue()

    with linked(Recorder(on_start=busy, on_data=busy, on_finish=lambda told: (busy(told), ok(told)))) as link:
        link.send(FIXED, b"he", b"llo", GET)
        assert [told.calls for told in link.told] == [["start", "data", "data", "finish"], ["start", "finish"]]
        assert len(link.responses()) == 2


@pytest.mark.parametrize("hook", ["on_start", "on_data", "on_finish"])
@pytest.mark.parametrize("way", ["fail", "abort"])
def test_an_exchange_may_be_ended_from_any_call(hook: str, way: str) -> None:
    def end(told: Told, *_: Any) -> None:
        getattr(told.exchange, way)()

    for wire in (FIXED + b"hello", CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", GET):
        if wire is GET and hook == "on_data":
            continue
        with linked(Recorder(**{hook: end})) as link:
            link.send(wire + GET)
            assert len(link.told) == 1
            assert link.told[0].calls[-1] == "closed"
            if way == "fail":
                assert [response.status for response in link.responses()] == [500]
            else:
                assert link.transport.aborted
                assert link.received == b""


def test_an_abort_with_much_unread_is_quiet(caplog: pytest.LogCaptureFixture) -> None:
    with linked(Recorder(on_data=lambda told, chunk: told.exchange.abort())) as link:
        link.send(POST + b"Content-Length: 1000000\r\n\r\n" + b"x" * 300000)
        assert link.transport.aborted
    assert not caplog.records


# ---------------------------------------------------------------------- empty lines in front of a request


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_empty_lines_in_front_of_a_request_are_skipped(count: int) -> None:
    wire = b"\r\n" * count + GET
    for pieces in ([wire], *(cut(wire) for cut in CUTS), *single_cuts(wire)):
        with linked(Recorder(on_finish=ok)) as link:
            link.send(*pieces)
            assert link.response().status == 200, pieces
            link.send(*pieces)
            assert [response.status for response in link.responses()] == [200, 200], pieces


@pytest.mark.parametrize("start", [b"\r\n" * 5, b"\r", b"\n", b"\r\r\n", b"\r\n\n", b"\r\n ", b"\r\n\r", b"\r\n\r\r\n"])
def test_what_is_no_empty_line_or_one_too_many_is_refused(start: bytes) -> None:
    wire = start + GET
    for pieces in ([wire], *(cut(wire) for cut in CUTS), *single_cuts(wire)):
        with linked(Recorder(on_finish=ok)) as link:
            link.send(*pieces)
            assert link.response().status == 400, pieces
            assert link.told == []
        with linked(Recorder(on_finish=ok)) as link:
            link.send(GET, *pieces)
            assert [response.status for response in link.responses()] == [200, 400], pieces


def test_an_empty_line_behind_a_request_does_not_begin_another_one() -> None:
    # Some clients send CRLF behind the content of a POST; the connection is idle all the same.
    for rest in ([b"\r\n"], [b"\r", b"\n"]):
        with linked(Recorder(on_finish=ok)) as link:
            link.send(FIXED + b"hello", *rest)
            link.loop.advance(8)
            assert link.closed
            assert [response.status for response in link.responses()] == [200]
        with linked(Recorder(on_finish=ok)) as link:
            link.send(FIXED + b"hello", *rest)
            link.loop.call(link.connection.close_when_idle)
            assert link.closed


# ---------------------------------------------------------------------- content


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize(
    ("wire", "data"),
    [
        (FIXED + b"hello", b"hello"),
        (POST + b"Content-Length: 70000\r\n\r\n" + b"x" * 70000, b"x" * 70000),
        (CHUNKED + b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n", b"hello world"),
        (CHUNKED + b"0\r\n\r\n", b""),
        (CHUNKED + b"11170\r\n" + b"x" * 70000 + b"\r\n0\r\n\r\n", b"x" * 70000),
    ],
    ids=["fixed", "large", "chunked", "empty", "large chunk"],
)
def test_content_reaches_the_delegate_however_it_arrives(wire: bytes, data: bytes, cut: Any) -> None:
    pieces = cut(wire) if len(wire) < 1000 else [wire[index : index + 1459] for index in range(0, len(wire), 1459)]
    with linked(Recorder(on_finish=ok)) as link:
        link.send(*pieces)
        assert link.told[0].data == data
        assert link.told[0].calls[-1] == "finish"
        assert link.response().status == 200
        assert not link.closed


def test_chunk_size_is_the_most_that_is_handed_over_at_once() -> None:
    for wire in (
        POST + b"Content-Length: 100\r\n\r\n" + b"x" * 100,
        CHUNKED + b"64\r\n" + b"x" * 100 + b"\r\n0\r\n\r\n",
    ):
        with linked(Recorder(on_finish=ok), chunk_size=7) as link:
            link.send(wire)
            assert [len(chunk) for chunk in link.told[0].chunks] == [7] * 14 + [2]


def test_trailers_of_a_request() -> None:
    seen: list[Any] = []

    def finish(told: Told) -> None:
        seen.append(tuple(told.exchange.trailers))
        assert [*told.exchange.head.fields] == [(b"host", b"a"), (b"transfer-encoding", b"chunked")]
        ok(told)

    with linked(Recorder(on_finish=finish)) as link:
        link.send(
            CHUNKED + b"5\r\nhello\r\n0\r\nX-Sum: 1\r\nContent-Length: 7\r\nHost: b\r\n\r\n" + CHUNKED + b"0\r\n\r\n"
        )
        assert seen == [((b"x-sum", b"1"),), ()]


def test_bad_content_is_refused_and_the_delegate_told() -> None:
    for wire in (b"5\r\nhelloXX0\r\n\r\n", b"5\r\nhello\r\n0\r\nX : y\r\n\r\n", b"x\r\n", b"5;\n"):
        with linked(Recorder()) as link:
            link.send(CHUNKED, wire, GET)
            told = link.told[0]
            assert told.calls[-1] == "closed"
            assert "finish" not in told.calls
            assert [response.status for response in link.responses()] == [400]
            assert link.responses()[0].closes
            assert len(link.told) == 1
            with pytest.raises(ConnectionGone):
                told.exchange.respond(200, [])


def test_bad_content_behind_a_response_that_has_begun_cuts_it() -> None:
    with linked(Recorder()) as link:
        link.send(CHUNKED)
        told = link.told[0]
        told.exchange.respond(200, [])
        told.exchange.send(b"part")
        link.send(b"x\r\n")
        assert told.calls == ["start", "closed"]
        assert link.closed
        assert not link.response().complete


# ---------------------------------------------------------------------- pausing


def test_a_delegate_that_pauses_gets_no_content_and_the_peer_is_slowed_down() -> None:
    with linked(Recorder(on_start=lambda told: told.exchange.pause_reading(), on_finish=ok)) as link:
        link.send(FIXED + b"he")
        told = link.told[0]
        assert told.calls == ["start"]
        assert not link.transport.is_reading()
        link.send(b"llo")
        told.exchange.resume_reading()
        link.loop.settle()
        assert link.transport.is_reading()
        assert told.calls == ["start", "data", "data", "finish"]
        assert told.data == b"hello"


def test_a_delegate_may_pause_after_every_piece() -> None:
    with linked(
        Recorder(on_data=lambda told, chunk: told.exchange.pause_reading(), on_finish=ok), chunk_size=1
    ) as link:
        link.send(FIXED + b"hello" + GET)
        told = link.told[0]
        for number in range(5):
            assert told.data == b"hello"[: number + 1]
            assert "finish" not in told.calls
            link.loop.call(told.exchange.resume_reading)
        assert told.calls == ["start", *["data"] * 5, "finish"]
        assert len(link.told) == 2


def test_finish_waits_while_the_delegate_pauses() -> None:
    for wire in (GET, FIXED + b"hello", CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", CHUNKED + b"0\r\n\r\n"):
        hook = "on_data" if b"hello" in wire else "on_start"
        with linked(Recorder(**{hook: lambda told, *_: told.exchange.pause_reading(), "on_finish": ok})) as link:
            link.send(wire)
            told = link.told[0]
            assert "finish" not in told.calls
            told.exchange.resume_reading()
            link.loop.settle()
            assert told.calls[-1] == "finish"
            link.send(GET.replace(b"GET", b"PUT"))
            assert len(link.told) == 2


@pytest.mark.parametrize("hook", ["on_start", "on_data", "on_finish"])
def test_a_pause_ends_with_its_exchange(hook: str) -> None:
    def pause(told: Told, *_: Any) -> None:
        if len(told.owner.told) == 1:
            told.exchange.pause_reading()
            ok(told)

    for wire in (GET, FIXED + b"hello"):
        with linked(Recorder(**{hook: pause})) as link:
            link.send(wire, FIXED, b"hello")
            if len(link.told) == 1:
                continue  # GET has no content to pause at
            assert link.told[1].data == b"hello"
            assert link.told[1].calls == ["start", "data", "finish"]


def test_pauses_and_resumes_of_a_request_that_was_read_do_nothing() -> None:
    with linked(Recorder()) as link:
        link.send(GET)
        exchange = link.told[0].exchange
        exchange.pause_reading()
        link.send(GET)
        exchange.resume_reading()
        ok(link.told[0])
        link.loop.settle()
        ok(link.told[1])
        link.loop.settle()
        assert len(link.responses()) == 2


def test_the_peer_is_read_again_after_a_pause_without_any_content_in_hand() -> None:
    with linked(Recorder()) as link:
        link.send(FIXED)
        exchange = link.told[0].exchange
        link.loop.call(exchange.pause_reading)
        assert not link.transport.is_reading()
        link.loop.call(exchange.resume_reading)
        assert link.transport.is_reading()


def test_what_was_received_while_paused_is_bounded() -> None:
    with linked(Recorder(on_start=lambda told: told.exchange.pause_reading())) as link:
        link.send(POST + b"Content-Length: 10000000\r\n\r\n")
        for _ in range(50):
            link.send(b"x" * 65536)
        assert len(link.connection.reader.buffer) <= 65536
        assert len(link.transport._in) > 40


# ---------------------------------------------------------------------- awaitables from data_received


def futures(link: Any) -> tuple[list[asyncio.Future[None]], Any]:
    made: list[asyncio.Future[None]] = []

    def data(told: Told, chunk: bytes) -> asyncio.Future[None]:
        made.append(link[0].loop.create_future())
        return made[-1]

    return made, data


def test_nothing_is_read_until_an_awaitable_is_done() -> None:
    box: list[Any] = []
    made, data = futures(box)
    with linked(Recorder(on_data=data, on_finish=ok), chunk_size=2) as link:
        box.append(link)
        link.send(FIXED + b"hello" + GET)
        told = link.told[0]
        for number in range(3):
            assert told.data == b"hello"[: 2 * number + 2]
            assert len(made) == number + 1
            assert not link.transport.is_reading()
            made[number].set_result(None)
            link.loop.settle()
        assert told.calls[-1] == "finish"
        assert link.transport.is_reading()
        assert len(link.told) == 2


@pytest.mark.parametrize("kind", ["later", "at once", "done"])
def test_coroutines_and_done_futures_are_awaitables_too(kind: str) -> None:
    async def coroutine(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)

    def data(told: Told, chunk: bytes) -> Any:
        if kind != "done":
            return coroutine(3 if kind == "later" else 0)
        future = told.exchange.connection.loop.create_future()
        future.set_result(None)
        return future

    with linked(Recorder(on_data=data, on_finish=ok), chunk_size=1) as link:
        link.send(FIXED, b"hello" + GET)
        assert link.told[0].calls == ["start", *["data"] * 5, "finish"]
        assert len(link.told) == 2


@pytest.mark.parametrize("ready", [True, False])
@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("x"), 500), (FramingError("x"), 400), (RequestTimeout("x"), 408), (None, 0)]
)
def test_an_awaitable_that_fails(
    error: Exception | None, status: int, ready: bool, caplog: pytest.LogCaptureFixture
) -> None:
    box: list[Any] = []
    made, data = futures(box)

    def finish(future: asyncio.Future[None]) -> None:
        if error is None:
            future.cancel()
        else:
            future.set_exception(error)

    def fail(told: Told, chunk: bytes) -> asyncio.Future[None]:
        future = data(told, chunk)
        if ready:
            finish(future)
        return future

    with linked(Recorder(on_data=fail), chunk_size=2, raises=ValueError if status == 500 else ()) as link:
        box.append(link)
        link.send(FIXED + b"hello")
        if not ready:
            finish(made[0])
            link.loop.settle()
        told = link.told[0]
        assert told.calls == ["start", "data", "closed"]
        if status:
            assert link.response().status == status
        else:
            assert link.transport.aborted
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == (status == 500)


def test_an_awaitable_that_fails_when_nobody_waits_for_it_any_more(caplog: pytest.LogCaptureFixture) -> None:
    for error, logged in ((ValueError("x"), 1), (ConnectionGone("x"), 0), (None, 0)):
        caplog.clear()
        box: list[Any] = []
        made, data = futures(box)
        with linked(Recorder(on_data=data), raises=ValueError if logged else ()) as link:
            box.append(link)
            link.send(FIXED + b"hel")
            link.reset()
            assert link.told[0].calls == ["start", "data", "closed"]
            if error is None:
                made[0].cancel()
            else:
                made[0].set_exception(error)
            link.loop.settle()
        assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == logged


@pytest.mark.parametrize("first", ["future", "resume"])
def test_a_pause_outlives_an_awaitable_and_the_other_way_round(first: str) -> None:
    box: list[Any] = []
    made, data = futures(box)

    def both(told: Told, chunk: bytes) -> Any:
        if len(told.chunks) > 1:
            return None
        told.exchange.pause_reading()
        return data(told, chunk)

    with linked(Recorder(on_data=both, on_finish=ok), chunk_size=3) as link:
        box.append(link)
        link.send(FIXED + b"hello")
        told = link.told[0]
        steps = [lambda: made[0].set_result(None), told.exchange.resume_reading]
        for step in steps if first == "future" else steps[::-1]:
            assert told.calls == ["start", "data"]
            link.loop.call(step)
        assert told.calls == ["start", "data", "data", "finish"]


# ---------------------------------------------------------------------- a response before the content was read


def test_a_little_unread_content_is_dropped_and_the_connection_goes_on() -> None:
    for size in (5, 65536):
        with linked(Recorder(on_start=ok)) as link:
            link.send(POST + b"Content-Length: %d\r\n\r\n" % size)
            assert not link.response().closes
            link.send(b"x" * size + GET)
            assert [told.calls for told in link.told] == [["start", "closed"], ["start", "finish"]]
            assert [told.data for told in link.told] == [b"", b""]
            assert len(link.responses()) == 2


@pytest.mark.parametrize(
    "wire",
    [POST + b"Content-Length: 65537\r\n\r\n", CHUNKED, FIXED.replace(b"\r\n\r\n", b"\r\nExpect: 100-continue\r\n\r\n")],
)
def test_much_unread_content_or_of_unknown_size_ends_the_connection(wire: bytes) -> None:
    with linked(Recorder(on_start=ok)) as link:
        link.send(wire)
        assert link.response().closes
        assert link.transport.eof
        assert not link.closed  # the peer may be sending: a close now could destroy the response
        for _ in range(5):
            link.send(GET)
        assert len(link.told) == 1
        link.send_eof()
        assert link.closed
        assert not link.transport.aborted


def test_what_is_read_of_much_unread_content_is_bounded_in_size_and_time() -> None:
    for way in ("size", "time"):
        with linked(Recorder(on_start=ok)) as link:
            link.send(POST + b"Content-Length: 100000000\r\n\r\n")
            if way == "size":
                for _ in range(17):
                    assert not link.closed
                    link.send(b"x" * 65536)
            else:
                link.loop.advance(1.5)
                assert not link.closed
                link.loop.advance(2)
            assert link.closed
            assert link.response().complete


def test_a_response_that_ends_while_content_is_paused_or_half_read() -> None:
    with linked(Recorder(on_data=lambda told, chunk: told.exchange.pause_reading())) as link:
        link.send(POST + b"Content-Length: 10\r\n\r\nhello")
        ok(link.told[0])
        link.send(b"world" + GET)
        assert [told.calls for told in link.told] == [["start", "data", "closed"], ["start", "finish"]]


def test_requests_behind_content_that_is_dropped_need_no_other_push() -> None:
    for wire, pause in ((FIXED + b"hello" + GET, True), (FIXED + b"he", False)):
        hook = Recorder(on_start=lambda told, pause=pause: told.exchange.pause_reading() if pause else None)
        with linked(hook) as link:
            link.send(wire)
            ok(link.told[0])
            link.loop.settle()
            assert link.transport.is_reading()
            if not pause:
                link.send(b"llo" + GET)
            assert len(link.told) == 2


def test_content_that_never_comes_ends_the_connection_and_leaves_the_response_whole() -> None:
    with linked(Recorder(on_start=ok)) as link:
        link.send(FIXED)
        link.loop.advance(40)
        assert link.closed
        # A reset could destroy the response if the client has not read it yet.
        assert not link.transport.aborted
        assert link.response().content == b"ok"


def test_bad_content_behind_a_complete_response_leaves_it_whole() -> None:
    with linked(Recorder(on_data=lambda told, chunk: ok(told))) as link:
        link.send(CHUNKED + b"5\r\nhello\r\n")
        link.send(b"XX")
        assert link.told[0].calls == ["start", "data", "closed"]
        assert [response.status for response in link.responses()] == [200]
        # The peer may still be sending: a close now could destroy the response.
        assert link.transport.eof
        assert not link.closed


def test_a_response_may_begin_before_the_content_and_go_on_behind_it() -> None:
    def start(told: Told) -> None:
        told.exchange.respond(200, [])
        told.exchange.send(b"<")

    def finish(told: Told) -> None:
        told.exchange.send(b">", True)

    with linked(
        Recorder(on_start=start, on_data=lambda told, chunk: told.exchange.send(chunk), on_finish=finish)
    ) as link:
        link.send(CHUNKED, b"5\r\nhello\r\n", b"5\r\nworld\r\n", b"0\r\n\r\n", GET)
        assert [response.content for response in link.responses()] == [b"<helloworld>", b"<>"]


# ---------------------------------------------------------------------- limits


def test_a_declared_length_over_the_limit_is_refused_before_anybody_is_asked() -> None:
    with linked(Recorder(on_finish=ok), max_body_size=5) as link:
        link.send(FIXED + b"hello", FIXED.replace(b": 5", b": 6"))
        assert [response.status for response in link.responses()] == [200, 413]
        assert link.responses()[1].closes
        assert len(link.told) == 1


def test_who_expects_to_be_refused_is_not_told_to_go_on() -> None:
    delegate = Recorder(on_start=lambda told: told.exchange.send_continue())
    with linked(delegate, max_body_size=5) as link:
        link.send(POST + b"Content-Length: 6\r\nExpect: 100-continue\r\n\r\n")
        assert (link.response().status, link.response().interim) == (413, ())
        assert link.told == []


def test_chunks_over_the_limit_are_refused_when_they_are_announced() -> None:
    with linked(Recorder(on_finish=ok), max_body_size=5) as link:
        link.send(CHUNKED + b"5\r\nhello\r\n0\r\n\r\n", CHUNKED + b"4\r\nhell\r\n", b"2\r\n")
        assert [response.status for response in link.responses()] == [200, 413]
        assert link.told[1].calls == ["start", "data", "closed"]


def test_a_limit_of_zero_forbids_content() -> None:
    with linked(Recorder(on_finish=ok), max_body_size=0) as link:
        link.send(GET, POST + b"Content-Length: 0\r\n\r\n", FIXED)
        assert [response.status for response in link.responses()] == [200, 200, 413]


def test_a_late_limit_is_the_delegate_s() -> None:
    def raise_it(told: Told) -> None:
        if told.exchange.head.path == b"/large":
            told.exchange.max_body_size = 20

    for framing, content in (
        (b"Content-Length: 10", b"x" * 10),
        (b"Transfer-Encoding: chunked", b"a\r\nxxxxxxxxxx\r\n0\r\n\r\n"),
    ):
        for target, status in ((b"/large", 200), (b"/small", 413)):
            with linked(Recorder(on_start=raise_it, on_finish=ok), max_body_size=5, limit_after_start=True) as link:
                link.send(b"POST %b HTTP/1.1\r\nHost: a\r\n%b\r\n\r\n" % (target, framing) + content)
                assert link.response().status == status
                assert len(link.told) == 1
                assert link.told[0].calls[-1] == ("finish" if status == 200 else "closed")


def test_refusals_by_size() -> None:
    for wire, status in (
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (GET[:-2] + b"X: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (GET[:-2] + b"X: y\r\n" * 200 + b"\r\n", 431),
        (GET[:-2] + b"".join(b"X: %b\r\n" % (b"v" * 1000) for _ in range(80)) + b"\r\n", 431),
        (CHUNKED + b"1;" + b"a" * 3000 + b"\r\nx\r\n1;" + b"a" * 3000 + b"\r\nx\r\n", 413),
        (CHUNKED + b"0\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
    ):
        for pieces in ([wire], [wire[index : index + 700] for index in range(0, len(wire), 700)]):
            with linked(Recorder()) as link:
                link.send(*pieces)
                response = link.response()
                assert (response.status, response.closes, response.complete) == (status, True, True)
                assert response.content.startswith(b"%d " % status)
                assert all("finish" not in told.calls for told in link.told)


def test_heads_larger_than_what_is_read_ahead_are_read() -> None:
    limits = Limits(request_line=1 << 20, field_line=1 << 20, fields=5000, head=1 << 20)
    head = GET[:-2] + b"X: " + b"a" * 300000 + b"\r\n\r\n"
    with linked(Recorder(on_finish=ok), limits=limits, high_water=10) as link:
        link.stop_reading()
        link.send(GET)  # its answer waits for the peer: the next request is read, but not served
        link.send(*(head[index : index + 60000] for index in range(0, len(head), 60000)))
        assert not link.transport.is_reading()
        link.read()
        assert len(link.responses()) == 2


def test_max_requests_ends_the_connection_with_the_last_one() -> None:
    with linked(Recorder(on_finish=ok), max_requests=3) as link:
        link.send(GET * 5)
        assert [response.closes for response in link.responses()] == [False, False, True]
        assert link.transport.eof


def test_without_keep_alive_every_response_closes() -> None:
    with linked(Recorder(on_finish=ok), no_keep_alive=True) as link:
        link.send(GET)
        assert link.response().closes
        assert link.closed


# ---------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("wire", "status"),
    [
        (b"BAD\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\n\r\n", 505),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"\x16\x03\x01\x02\x00\x01", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ],
)
def test_a_refusal_is_framed_and_closes(wire: bytes, status: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with linked(Recorder()) as link:
        link.send(wire)
        response = link.response()
        assert (response.status, response.closes, response.complete) == (status, True, True)
        assert response[b"content-type"] == b"text/plain; charset=utf-8"
        assert response[b"date"] is not None
        assert link.transport.eof
        assert link.told == []
        # What the client goes on to send is not read as requests; nothing more is said about it.
        link.send(b"X" * 1000, GET)
        assert len(link.responses()) == 1
        link.send_eof()
        assert link.closed
    assert [record.levelno for record in caplog.records] == [logging.INFO]
    assert caplog.records[0].getMessage().isprintable()
    assert "Traceback" not in caplog.text


def test_a_refused_request_may_be_large() -> None:
    with linked(Recorder()) as link:
        link.send(b"BAD\r\n\r\n" + b"x" * 300000)
        link.send(*[b"x" * 60000] * 10)
        assert link.response().status == 400
        assert not link.closed
        link.send(*[b"x" * 60000] * 10)
        assert link.closed


# ---------------------------------------------------------------------- delegates that fail


@pytest.mark.parametrize("hook", ["on_start", "on_data", "on_finish"])
@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("x"), 500), (FramingError("x"), 400), (LocalProtocolError("x"), 500)]
)
def test_an_exception_before_the_response(
    hook: str, error: Exception, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any) -> None:
        raise error

    with linked(Recorder(**{hook: fail}), raises=type(error) if status == 500 else ()) as link:
        link.send(FIXED + b"hello" + GET)
        assert [response.status for response in link.responses()] == [status]
        assert link.responses()[0].closes
        told = link.told[0]
        assert len(link.told) == 1
        # start_exchange returned nobody who could be told
        assert told.exchange.writing is CLOSED
        if hook != "on_start":
            assert told.calls[-1] == "closed"
        told.calls.append("closed")
        told.calls = list(dict.fromkeys(told.calls))
        assert b"ValueError" not in link.received
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == (status == 500)


@pytest.mark.parametrize("hook", ["on_start", "on_data", "on_finish"])
def test_an_exception_in_the_middle_of_the_response(hook: str, caplog: pytest.LogCaptureFixture) -> None:
    def fail(told: Told, *_: Any) -> None:
        told.exchange.respond(200, [])
        told.exchange.send(b"part")
        raise ValueError("x")

    with linked(Recorder(**{hook: fail}), raises=ValueError) as link:
        link.send(FIXED + b"hello" + GET)
        assert [(response.content, response.complete) for response in link.responses()] == [(b"part", False)]
        assert link.transport.eof
        link.told[0].calls = [*dict.fromkeys([*link.told[0].calls, "closed"])]
    assert "ValueError" in caplog.text


@pytest.mark.parametrize("hook", ["on_start", "on_data", "on_finish"])
def test_an_exception_behind_a_complete_response_answers_nothing_more(
    hook: str, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(told: Told, *_: Any) -> None:
        ok(told)
        raise ValueError("x")

    for wire in (GET, FIXED + b"hello"):
        if wire is GET and hook == "on_data":
            continue
        caplog.clear()
        with linked(Recorder(**{hook: fail}), raises=ValueError) as link:
            link.send(wire + GET)
            # A 500 would be taken for the answer to the next request.
            assert [response.status for response in link.responses()] == [200]
            assert link.transport.eof
            assert not link.transport.aborted
        assert caplog.text.count("Traceback") == 1


def test_exceptions_from_the_last_calls_are_logged_and_harmless(caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("x")

    with linked(Recorder(on_closed=fail), raises=ValueError) as link:
        link.send(GET)
        link.reset()
        assert link.closed
    assert caplog.text.count("Traceback") == 1
    caplog.clear()

    with linked(Recorder(on_eof=fail), raises=ValueError) as link:
        link.send(GET)
        link.send_eof()
        assert link.response().status == 500
    assert caplog.text.count("Traceback") == 1
    caplog.clear()

    delegate = Recorder(on_finish=ok)
    delegate.on_close = fail  # type: ignore[method-assign]
    with linked(delegate, raises=ValueError) as link:
        link.send(GET)
        link.reset()
        assert link.closed
    assert caplog.text.count("Traceback") == 1


# ---------------------------------------------------------------------- the peer leaves, or half of it


STAGES = {
    "connected": [b""],
    "an empty line": [b"\r\n"],
    "in the head": [b"GET / HT"],
    "between two": [CLOSE[:0] + GET],
    "in the second head": [GET, b"GET"],
    "before the content": [FIXED],
    "in the content": [FIXED + b"he"],
    "in a chunk size": [CHUNKED + b"5"],
    "in a chunk": [CHUNKED + b"5\r\nhe"],
    "behind a chunk": [CHUNKED + b"5\r\nhello"],
    "before the last chunk": [CHUNKED + b"5\r\nhello\r\n"],
    "in the trailers": [CHUNKED + b"5\r\nhello\r\n0\r\nX:"],
    "in the last line": [CHUNKED + b"5\r\nhello\r\n0\r\n\r"],
}


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("end", ["eof", "reset"])
def test_half_a_request_is_never_taken_for_a_whole_one(
    stage: str, end: str, tls: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with linked(Recorder(on_finish=ok), tls=tls) as link:
        link.send(*STAGES[stage])
        count = len(link.responses())
        link.send_eof() if end == "eof" else link.reset()
        assert link.closed
        assert len(link.responses()) == count
        for told in link.told[count:]:
            assert "finish" not in told.calls
            assert told.calls.count("closed") == 1
        assert link.delegate.ended == [link.connection]
    assert not caplog.records


@pytest.mark.parametrize("wire", [GET, FIXED + b"hello", CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"])
def test_a_half_closed_client_is_answered(wire: bytes) -> None:
    with linked(Recorder()) as link:
        link.send(wire)
        link.send_eof()
        told = link.told[0]
        assert told.calls[-2:] == ["finish", "eof"]
        assert not link.closed
        ok(told)
        link.loop.settle()
        assert link.response().content == b"ok"
        assert link.response().closes
        assert link.closed
        assert "closed" not in told.calls


def test_a_half_closed_client_is_answered_in_the_middle_of_a_response() -> None:
    with linked(Recorder()) as link:
        link.send(GET)
        exchange = link.told[0].exchange
        exchange.respond(200, [])
        exchange.send(b"one ")
        link.send_eof()
        exchange.send(b"two")
        exchange.send(b"", True)
        link.loop.settle()
        assert link.response().content == b"one two"
        assert link.closed


def _half_close(link: Link) -> None:
    link.send_eof()


def _wait_for_content(link: Link) -> None:
    link.loop.advance(7.0)


@pytest.mark.parametrize("tls", [False, True])
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
@pytest.mark.parametrize("method", [b"GET", b"POST"])
@pytest.mark.parametrize("pauses", [False, True])
@pytest.mark.parametrize("end", [_half_close, _wait_for_content])
def test_a_part_of_a_response_is_never_taken_for_all_of_it(
    end: Callable[[Link], None], pauses: bool, method: bytes, version: bytes, tls: bool
) -> None:
    """HTTP/1.0 without Content-Length: a plain close would be the end of the content."""

    def start(told: Told) -> None:
        told.exchange.respond(200, [])
        told.exchange.send(b"part")
        if pauses and method == b"POST":
            told.exchange.pause_reading()

    with linked(Recorder(on_start=start), tls=tls, body_total_timeout=5.0) as link:
        content = b"Content-Length: 5\r\n\r\nhell" if method == b"POST" else b"\r\n"
        link.send(method + b" / HTTP/" + version + b"\r\nHost: a\r\n" + content)
        end(link)
        if method == b"GET" and (end is _wait_for_content or not tls):
            assert not link.closed  # the response goes on
            return
        if not link.closed and pauses:
            link.loop.call(link.told[0].exchange.resume_reading)
        assert link.told[0].calls[-1] == "closed"
        assert link.transport.aborted == (version == b"1.0")
        if version == b"1.1":
            assert not link.response(method.decode()).complete


@pytest.mark.parametrize("wire", [FIXED + b"hello", CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"])
def test_a_half_closed_client_is_answered_whose_content_is_not_wanted_yet(wire: bytes) -> None:
    with linked(Recorder(on_data=lambda told, _: told.exchange.pause_reading(), on_finish=echo)) as link:
        link.send(wire)
        link.send_eof()
        assert link.told[0].calls == ["start", "data"]
        assert not link.closed
        link.loop.call(link.told[0].exchange.resume_reading)
        assert link.told[0].calls == ["start", "data", "finish"]
        assert link.response().content == b"/ hello"
        assert link.closed


def test_a_half_closed_client_is_answered_though_the_delegate_wants_no_news_yet() -> None:
    with linked(Recorder(on_start=lambda told: told.exchange.pause_reading(), on_finish=ok)) as link:
        link.send(GET)
        link.send_eof()
        assert link.told[0].calls == ["start"]
        assert not link.closed
        link.loop.call(link.told[0].exchange.resume_reading)
        assert link.told[0].calls == ["start", "finish"]
        assert link.response().content == b"ok"
        assert link.closed


def test_a_half_closed_client_is_not_waited_for_behind_a_failure() -> None:
    for begun in (False, True):
        with linked(Recorder()) as link:
            link.send(GET)
            link.send_eof()
            if begun:
                link.told[0].exchange.respond(200, [])
                link.told[0].exchange.send(b"part")
            link.loop.call(link.told[0].exchange.fail)
            assert link.response().status == (200 if begun else 500)
            assert link.closed  # it sends nothing more: there is nothing to linger for
            assert not link.transport.aborted


def test_a_stop_during_a_response_does_not_wait_for_content_that_nobody_wants() -> None:
    with linked(Recorder()) as link:
        link.send(FIXED + b"he")
        exchange = link.told[0].exchange
        exchange.respond(200, [])
        exchange.send(b"part")
        link.connection.close_when_idle()
        link.loop.settle()
        assert not link.transport.eof
        link.loop.call(exchange.send, b"", True)
        assert link.response().complete
        assert link.transport.eof


def test_requests_that_were_sent_before_the_half_close_are_all_answered() -> None:
    for wire in (GET * 3, GET * 100, GET + FIXED + b"hello" + GET, FIXED + b"hello" + CHUNKED + b"0\r\n\r\n"):
        with linked(Recorder(on_finish=ok)) as link:
            link.loop.call_soon(link.transport.peer_sends, wire)
            link.loop.call_soon(link.transport.peer_sends_eof)
            link.loop.settle()
            assert len(link.responses()) == wire.count(b"HTTP/1.1")
            assert link.closed
        with linked(Recorder()) as link:
            link.send(wire)
            link.send_eof()
            count = wire.count(b"HTTP/1.1")
            for number in range(count):
                assert len(link.told) == number + 1
                ok(link.told[number])
                link.loop.settle()
            assert len(link.responses()) == count
            assert link.closed


def test_requests_before_the_half_close_are_answered_although_the_peer_reads_slowly() -> None:
    def large(told: Told) -> None:
        ok(told, b"x" * 100000)

    with linked(Recorder(on_finish=large)) as link:
        link.stop_reading()
        link.send(GET * 3)
        assert len(link.told) == 1
        link.send_eof()
        assert not link.closed
        for _ in range(4):
            link.read(100300)
        link.read()
        assert len(link.responses()) == 3
        assert link.closed


def test_the_rest_of_paused_content_arrives_before_the_end() -> None:
    with linked(Recorder(on_start=lambda told: told.exchange.pause_reading(), on_finish=ok)) as link:
        link.send(FIXED + b"hello")
        link.send_eof()
        told = link.told[0]
        link.loop.call(told.exchange.resume_reading)
        assert told.calls[:3] == ["start", "data", "finish"]
        assert link.response().content == b"ok"
        assert link.closed


def test_an_end_in_paused_content_is_told_when_it_is_reached() -> None:
    with linked(Recorder(on_start=lambda told: told.exchange.pause_reading())) as link:
        link.send(FIXED + b"hel")
        link.send_eof()
        told = link.told[0]
        assert told.calls == ["start"]
        link.loop.call(told.exchange.resume_reading)
        assert told.calls == ["start", "data", "closed"]
        assert link.closed


def test_requests_behind_dropped_content_are_answered_after_a_half_close() -> None:
    def start(told: Told) -> None:
        if told.exchange.head.content_length:
            told.exchange.pause_reading()

    with linked(Recorder(on_start=start)) as link:
        link.send(FIXED + b"hello" + GET)
        ok(link.told[0])
        # The dropping waits for its turn when the end arrives.
        link.transport._in.append(None)
        link.loop.settle()
        assert len(link.told) == 2
        ok(link.told[1])
        link.loop.settle()
        assert len(link.responses()) == 2


def test_under_tls_the_end_of_one_side_is_the_end() -> None:
    with linked(Recorder(), tls=True) as link:
        link.send(GET)
        link.send_eof()
        assert link.closed
        assert link.told[0].calls == ["start", "finish", "eof", "closed"]


def test_https_behind_a_proxy_is_not_tls() -> None:
    with linked(Recorder()) as link:
        link.connection.context.protocol = "https"
        link.send(GET)
        link.send_eof()
        ok(link.told[0])
        link.loop.settle()
        assert link.response().content == b"ok"


@pytest.mark.parametrize("stage", ["before", "head", "part", "paused"])
def test_the_peer_leaves_during_the_response(stage: str) -> None:
    with linked(Recorder()) as link:
        if stage == "paused":
            link.stop_reading()
        link.send(GET)
        told = link.told[0]
        if stage != "before":
            told.exchange.respond(200, [])
        if stage in {"part", "paused"}:
            told.exchange.send(b"x" * 100000)
        link.reset()
        assert told.calls == ["start", "finish", "closed"]
        assert told.exchange.writing is CLOSED
        with pytest.raises(ConnectionGone):
            told.exchange.send(b"x")


def test_a_peer_that_leaves_behind_a_complete_response_bothers_nobody() -> None:
    with linked(Recorder(on_finish=ok)) as link:
        link.stop_reading()
        link.send(GET)
        link.reset()
        assert link.told[0].calls == ["start", "finish"]
        assert link.told[0].exchange.writing is DONE


def test_pipelined_requests_of_a_peer_that_left_are_not_started() -> None:
    with linked(Recorder()) as link:
        link.send(GET * 3)
        link.reset()
        assert len(link.told) == 1


# ---------------------------------------------------------------------- graceful ends


def test_close_when_idle_between_two_requests() -> None:
    with linked(Recorder(on_finish=ok)) as link:
        link.send(GET)
        link.loop.call(link.connection.close_when_idle)
        assert link.closed
        assert not link.transport.aborted


def test_close_when_idle_in_a_request() -> None:
    for wire in (GET, FIXED + b"he", CHUNKED, GET * 3):
        with linked(Recorder()) as link:
            link.send(wire)
            link.loop.call(link.connection.close_when_idle)
            assert not link.closed
            link.send(*([b"llo"] if wire.startswith(FIXED) else [b"0\r\n\r\n"] if wire is CHUNKED else []))
            ok(link.told[0])
            link.loop.settle()
            assert link.response().closes
            assert link.transport.eof


def test_close_when_idle_in_a_response() -> None:
    with linked(Recorder()) as link:
        link.send(GET)
        link.told[0].exchange.respond(200, [])
        link.told[0].exchange.send(b"one ")
        link.loop.call(link.connection.close_when_idle)
        link.told[0].exchange.send(b"two", True)
        link.loop.settle()
        assert link.response().content == b"one two"
        assert link.closed


def test_close_when_idle_in_a_head_serves_the_request() -> None:
    with linked(Recorder(on_finish=ok)) as link:
        link.send(GET, GET[:10])
        link.loop.call(link.connection.close_when_idle)
        link.send(GET[10:])
        assert [response.closes for response in link.responses()] == [False, True]
        assert link.closed


def test_close_when_idle_with_a_grace() -> None:
    with linked(Recorder(on_finish=ok)) as link:
        link.send(GET)
        link.loop.call(link.connection.close_when_idle, 2.0)
        assert not link.closed
        link.send(GET)
        assert link.responses()[1].closes
        assert link.closed
    with linked(Recorder(on_finish=ok)) as link:
        link.send(GET)
        link.loop.call(link.connection.close_when_idle, 2.0)
        link.loop.advance(4)
        assert link.closed
    with linked(Recorder()) as link:
        link.send(GET)
        link.told[0].exchange.respond(200, [])
        link.told[0].exchange.send(b"x")
        link.loop.call(link.connection.close_when_idle, 2.0)
        link.told[0].exchange.send(b"", True)
        link.loop.settle()
        assert not link.closed  # the response could not say so any more
        link.loop.advance(3.5)
        assert link.closed
    # A connection that is new may have its first request on the way.
    with linked(Recorder(on_finish=ok)) as link:
        link.loop.call(link.connection.close_when_idle)
        assert not link.closed
        link.send(GET)
        assert link.response().closes
    with linked(Recorder(on_finish=ok)) as link:
        link.loop.call(link.connection.close_when_idle)
        link.loop.advance(2.5)
        assert link.closed


def test_abort_at_any_time() -> None:
    for wire in (b"", b"GET", GET, FIXED + b"he", GET + CLOSE):
        with linked(Recorder()) as link:
            link.send(wire)
            link.loop.call(link.connection.abort)
            link.connection.abort()
            assert link.closed
            assert [told.calls[-1] for told in link.told] == ["closed"] * len(link.told)


# ---------------------------------------------------------------------- other protocols

UPGRADE = GET.replace(b"\r\n\r\n", b"\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")


class Other(asyncio.Protocol):
    def __init__(self) -> None:
        self.data = b""
        self.calls: list[str] = []

    def data_received(self, data: bytes) -> None:
        self.data += data

    def eof_received(self) -> bool:
        self.calls.append("eof")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append("lost")


def switch(told: Told) -> None:
    told.exchange.respond(101, [(b"upgrade", b"echo")])
    told.exchange.send(b"", True)


def test_another_protocol_gets_the_transport_and_what_was_received() -> None:
    with linked(Recorder(on_finish=switch)) as link:
        link.send(UPGRADE + b"first ")
        other = Other()
        transport, rest, gone = link.loop.call(link.connection.take_transport, other)
        assert isinstance(transport, FakeTransport)
        assert (gone, link.taken) == (link.note_gone, True)
        assert rest == b"first "
        link.send(b"second")
        assert other.data == b"second"
        transport.write(b"!")
        assert link.received.endswith(b"\r\n\r\n!")
        # HTTP is over, for the server and for the delegate.
        assert link.ended == [link.connection]
        assert link.delegate.ended == [link.connection]
        assert link.told[0].calls == ["start", "finish"]
        assert link.connection not in link.clock.watched
        link.loop.advance(120)
        assert not link.closed
        with pytest.raises(ConnectionGone):
            link.connection.take_transport(Other())


def test_the_transport_may_be_taken_in_the_middle_of_an_exchange() -> None:
    with linked(Recorder()) as link:
        link.send(GET + b"rest")
        other = Other()
        _, rest, _ = link.loop.call(link.connection.take_transport, other)
        assert rest == b"rest"
        with pytest.raises(ConnectionGone):
            link.told[0].exchange.send(b"x")
        link.told[0].calls.append("closed")


def test_much_that_was_received_before_is_handed_over_and_reading_goes_on() -> None:
    with linked(Recorder()) as link:
        link.send(UPGRADE + b"x" * 50000, b"y" * 50000)
        assert not link.transport.is_reading()
        switch(link.told[0])
        other = Other()
        _, rest, _ = link.loop.call(link.connection.take_transport, other)
        assert len(rest) == 100000
        link.send(b"z")
        assert other.data == b"z"


def test_the_end_that_was_seen_before_is_told_to_the_next_protocol() -> None:
    with linked(Recorder()) as link:
        link.send(UPGRADE)
        link.send_eof()
        switch(link.told[0])
        other = Other()
        link.loop.call(link.connection.take_transport, other)
        assert other.calls == ["eof", "lost"]


def test_a_transport_that_nobody_takes_is_closed() -> None:
    with linked(Recorder(on_finish=switch)) as link:
        link.send(UPGRADE, b"x" * 100000)
        link.loop.advance(12)
        assert link.closed
        with pytest.raises(ConnectionGone):
            link.connection.take_transport(Other())


def test_the_transport_may_be_taken_between_two_exchanges_and_may_stay_half_open() -> None:
    class Patient(Other):
        def eof_received(self) -> bool:
            super().eof_received()
            return True

    with linked(Recorder()) as link:
        other = Patient()
        _, rest, _ = link.loop.call(link.connection.take_transport, other)
        assert rest == b""
        link.send(b"x")
        assert other.data == b"x"
    with linked(Recorder()) as link:
        link.send(UPGRADE)
        link.send_eof()
        switch(link.told[0])
        other = Patient()
        link.loop.call(link.connection.take_transport, other)
        assert other.calls == ["eof"]
        assert not link.closed
    with linked(Recorder()) as link:
        link.send(UPGRADE)
        link.send_eof()
        switch(link.told[0])
        other = Patient()
        transport, _, _ = link.connection.take_transport(other)
        transport.abort()
        link.loop.settle()
        assert other.calls == ["lost"]


# ---------------------------------------------------------------------- who watches


class Watcher(Observer):
    def __init__(self) -> None:
        self.open: list[Exchange] = []
        self.ended: list[tuple[bytes, int]] = []

    def exchange_started(self, exchange: Exchange) -> None:
        assert exchange.status == 0
        self.open.append(exchange)

    def exchange_ended(self, exchange: Exchange) -> None:
        assert exchange.finished
        self.open.remove(exchange)
        self.ended.append((exchange.head.path, exchange.status))


@pytest.mark.parametrize(
    ("wire", "end", "seen"),
    [
        (path(1) + path(2), "", [(b"/1", 200), (b"/2", 200)]),
        (FIXED + b"hello", "", [(b"/", 200)]),
        (FIXED + b"he", "eof", [(b"/", 0)]),
        (FIXED + b"he", "reset", [(b"/", 0)]),
        (FIXED + b"he", "time", [(b"/", 408)]),
        (CHUNKED + b"x\r\n", "", [(b"/", 400)]),
        (FIXED.replace(b": 5", b": 50"), "", [(b"/", 413)]),
        (b"BAD\r\n\r\n", "", []),
        (GET.replace(b"/", b"/wait", 1), "reset", [(b"/wait", 0)]),
        (GET.replace(b"/", b"/wait", 1), "take", [(b"/wait", 0)]),
        (GET.replace(b"/", b"/fail", 1), "", [(b"/fail", 500)]),
        (GET.replace(b"/", b"/raise", 1), "", [(b"/raise", 500)]),
        (GET.replace(b"/", b"/short", 1), "", [(b"/short", 200)]),
        (GET.replace(b"/", b"/long", 1), "", [(b"/long", 200)]),
    ],
)
def test_an_observer_is_told_of_every_exchange_once(wire: bytes, end: str, seen: list[tuple[bytes, int]]) -> None:
    def finish(told: Told) -> None:
        exchange = told.exchange
        where = exchange.head.path
        if where == b"/wait":
            return
        if where == b"/fail":
            exchange.fail()
        elif where == b"/raise":
            raise ValueError("x")
        elif where in {b"/short", b"/long"}:
            exchange.respond(200, [(b"content-length", b"9" if where == b"/short" else b"1")])
            with contextlib.suppress(LocalProtocolError):
                exchange.send(b"xyz", True)
        else:
            ok(told)

    watcher = Watcher()
    with linked(
        Recorder(on_finish=finish), observer=watcher, max_body_size=20, raises=ValueError if b"/raise" in wire else ()
    ) as link:
        link.send(wire)
        if end == "eof":
            link.send_eof()
        elif end == "reset":
            link.reset()
        elif end == "time":
            link.loop.advance(32, 0.5)
        elif end == "take":
            link.loop.call(link.connection.take_transport, Other())
            link.told[0].calls.append("closed")
    assert watcher.open == []
    assert watcher.ended == seen


# ---------------------------------------------------------------------- a peer that is gone, as nobody knows yet


def test_a_peer_that_has_reset_the_connection_when_it_is_half_closed() -> None:
    # asyncio's write_eof() fails at once, and connection_lost() comes a turn later.
    with linked(Recorder(on_start=ok)) as link:
        link.transport.shutdown_error = OSError(107, "Transport endpoint is not connected")
        link.send(POST + b"Content-Length: 100000\r\n\r\n")
        assert link.closed
        assert link.told[0].calls == ["start", "closed"]


def test_pipelined_requests_are_not_served_when_an_answer_could_not_be_written() -> None:
    def finish(told: Told) -> None:
        ok(told)
        if len(told.owner.told) == 3:
            link.transport._gone = link.transport._closing = True  # as after a write that failed

    with linked(Recorder(on_finish=finish)) as link:
        link.send(GET * 20)
        assert len(link.told) == 3
        link.transport._end(None)
        link.loop.settle()
        assert link.closed


def test_calls_that_come_too_late_do_nothing() -> None:
    with linked(Recorder(on_finish=ok)) as link:
        link.send(GET)
        link.loop.call(link.connection.close_when_idle)
        connection = link.connection
        assert link.closed
        connection.refuse(500)
        connection.deadline_passed(link.loop.time())
        connection.close_when_idle()
        connection.cut(reset=False)
        connection.abort()
        connection.resume_content()
        assert len(link.responses()) == 1
    # ... and between the close and the end of the connection
    with linked(Recorder(on_finish=lambda told: ok(told, b"x" * 100000))) as link:
        link.stop_reading()
        link.send(CLOSE)
        assert not link.closed
        link.connection.refuse(500)
        link.connection.close_when_idle()
        link.read()
        assert link.closed
        assert len(link.responses()) == 1


def test_an_empty_line_is_all_that_is_left_when_the_peer_has_sent_everything() -> None:
    with linked(Recorder(on_finish=lambda told: ok(told, b"x" * 100000))) as link:
        link.stop_reading()
        link.send(GET, b"\r\n")
        link.send_eof()
        assert not link.closed
        link.read()
        assert link.closed
        assert len(link.responses()) == 1


def test_an_awaitable_that_is_done_when_the_exchange_has_ended() -> None:
    box: list[Any] = []
    made, data = futures(box)
    with linked(Recorder(on_data=data)) as link:
        box.append(link)
        link.send(FIXED + b"hel")
        ok(link.told[0])
        made[0].set_result(None)
        link.loop.settle()
        link.send(b"lo" + GET)
        assert len(link.told) == 2
        assert link.told[0].calls == ["start", "data", "closed"]


def test_a_late_limit_that_nobody_set() -> None:
    for wire in (FIXED + b"hello", CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"):
        with linked(Recorder(on_finish=ok), limit_after_start=True) as link:
            link.send(wire)
            assert link.response().status == 200


# ---------------------------------------------------------------------- any bytes in any pieces

PIECES = st.one_of(
    st.sampled_from(
        [
            GET,
            CLOSE,
            FIXED,
            FIXED + b"hello",
            CHUNKED,
            b"5\r\nhello\r\n",
            b"0\r\n\r\n",
            b"hello",
            b"\r\n",
            b"GET / HTTP/1.0\r\n\r\n",
            b"X",
        ]
    ),
    st.binary(max_size=5),
)


@given(
    pieces=st.lists(PIECES, max_size=8),
    places=st.lists(st.integers(0, 400), max_size=8),
    end=st.sampled_from(["eof", "reset", "time"]),
)
def test_the_same_bytes_get_the_same_answers_however_they_arrive(
    pieces: list[bytes], places: list[int], end: str
) -> None:
    wire = b"".join(pieces)
    outcomes = []
    for cut in ([wire], cut_at(wire, places)):
        with linked(Recorder(on_finish=echo)) as link:
            link.send(*cut)
            if end == "eof":
                link.send_eof()
            elif end == "reset":
                link.reset()
            else:
                link.loop.advance(60, 0.5)
                assert link.closed
            # The dates may differ.
            answers = [(response.status, response.content) for response in read_responses(link.received, ended=True)]
            outcomes.append((answers, [told.data for told in link.told if told.exchange.writing is DONE]))
    assert outcomes[0] == outcomes[1]


def test_a_connection_that_was_never_made_ends_quietly() -> None:
    with linked(Recorder()) as link:
        pass
    with contextlib.suppress(ConnectionGone):
        link.connection.take_transport(Other())


def test_an_early_answer_and_an_end_of_the_content_in_one_turn(caplog: pytest.LogCaptureFixture) -> None:
    with linked(Recorder()) as link:
        link.send(FIXED + b"hel")

        def both() -> None:
            ok(link.told[0])  # after which the rest of the content is to be dropped, in the next turn
            link.transport.peer_sends_eof()

        link.loop.call(both)
        assert link.response().content == b"ok"
        assert link.closed
    assert not caplog.records


def test_an_early_answer_that_is_not_read_and_an_end_of_the_content(caplog: pytest.LogCaptureFixture) -> None:
    with linked(Recorder(), write_timeout=60, body_timeout=30) as link:
        link.stop_reading()
        link.send(FIXED + b"hel")
        link.loop.call(ok, link.told[0], b"x" * 1000)
        link.send_eof()
        link.loop.advance(40)
        link.read(10)
        assert not link.closed
        link.loop.advance(40)
        link.read(10)
        assert not link.closed
        link.loop.advance(122)
        assert link.closed  # it was watched whether the peer reads
    assert link.received.count(b"HTTP/1.1") == 1
    assert [record.levelno for record in caplog.records] == []


# ---------------------------------------------------------------------- the peer's end while another request is served


def test_the_peers_end_is_told_to_each_request_behind_it() -> None:
    with linked(Recorder()) as link:
        link.send(GET + FIXED + b"hel")
        link.send(b"lo" + CHUNKED + b"0\r\n\r\n")
        link.send_eof()
        assert [told.calls for told in link.told] == [["start", "finish", "eof"]]
        for number, calls in enumerate((["start", "data", "finish", "eof"], ["start", "finish", "eof"]), 1):
            link.loop.call(ok, link.told[number - 1])
            assert link.told[number].calls == calls
        link.loop.call(ok, link.told[2])
        assert [response.status for response in link.responses()] == [200] * 3
        assert link.transport.eof


def test_the_peers_end_is_noticed_after_content_that_was_read_ahead() -> None:
    with linked(Recorder()) as link:
        link.send(CHUNKED + b"1\r\nx\r\n" * 40_000 + b"0\r\n\r\n")
        assert link.told[0].calls[-1] == "finish"
        link.send_eof()
        assert link.told[0].calls[-1] == "eof"
        link.loop.call(ok, link.told[0])


@pytest.mark.parametrize("when", ["start", "data"])
def test_a_wait_that_begins_with_the_whole_response_is_none(when: str) -> None:
    waits: list[asyncio.Future[None]] = []

    def answer(told: Told, data: bytes = b"") -> asyncio.Future[None]:
        ok(told)
        waits.append(told.exchange.loop.create_future())
        if when == "start":
            told.exchange.pause_until(waits[-1])
        return waits[-1]

    recorder = Recorder(on_start=answer) if when == "start" else Recorder(on_data=answer)
    with linked(recorder) as link:
        size = 50_000 if when == "start" else 100_000  # so much is read and dropped, so that the connection stays
        link.send(POST + b"Content-Length: %d\r\n\r\n" % size + b"x" * size)
        link.send(FIXED + b"hello")
        assert [response.status for response in link.responses()] == [200, 200]
        assert not link.closed
        for waiting in waits:
            waiting.set_result(None)


# ---------------------------------------------------------------------- responses that the application frames


RAW = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def test_a_raw_response_ends_the_connection_of_a_server_that_stops() -> None:
    def raw(told: Told) -> None:
        told.exchange.send_raw(RAW)
        told.exchange.end_raw()

    with linked(Recorder(on_finish=raw)) as link:
        link.send(GET)
        link.loop.call(link.connection.close_when_idle, 5.0)
        link.send(GET)
        assert link.transport.eof
        assert link.received == RAW * 2


def test_a_raw_head_in_two_pieces_says_close() -> None:
    def raw(told: Told) -> None:
        told.exchange.send_raw(b"HTTP/1.1 200 OK\r\nConnection: close\r\n")
        told.exchange.send_raw(b"\r\nbody")
        told.exchange.end_raw()

    with linked(Recorder(on_finish=raw)) as link:
        link.send(GET)
        assert link.transport.eof


def test_the_first_bytes_of_a_raw_response_are_timed() -> None:
    with linked(Recorder(), observer=Observer(), timed=True) as link:
        link.send(GET)
        exchange: Any = link.told[0].exchange
        assert not exchange.times.began
        exchange.send_raw(RAW)
        assert exchange.times.began
        exchange.end_raw()


@pytest.mark.parametrize("wire", [GET, GET.replace(b"GET", b"HEAD")])
def test_a_length_that_was_not_sent_is_none(wire: bytes) -> None:
    with linked(Recorder()) as link:
        link.send(wire)
        exchange: Any = link.told[0].exchange
        exchange.respond(204 if wire is GET else 200, [(b"x-a", b"1")])
        exchange.send(b"", True)
        assert b"content-length" not in link.received.lower()
        assert exchange.response_field(b"content-length") is None
