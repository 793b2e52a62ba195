"""Every deadline of a connection, with a clock that is set by hand."""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import Any

import pytest

from tests.support.link import GET, POST, Link, Recorder, Told, linked, ok

FIXED = POST + b"Content-Length: 5\r\n\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
# A deadline is kept at most two intervals late; each is half a second here.
LATE = 1.1


def ends_after(link: Link, seconds: float) -> None:
    """Check that the connection ends after *seconds*, and not before."""
    link.loop.advance(seconds - 0.01)
    assert not link.closed
    assert not link.transport.eof
    link.loop.advance(LATE + 0.01)
    assert link.transport.eof


# ---------------------------------------------------------------------- the head


def test_a_silent_connection_is_closed_without_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with linked(Recorder()) as link:
        ends_after(link, 10)
        assert link.received == b""
        assert link.closed
    assert not caplog.records


def test_a_head_that_is_not_complete_in_time_is_answered_408(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with linked(Recorder()) as link:
        link.send(b"GET / HTTP/1.1\r\nHost: a")
        ends_after(link, 10)
        response = link.response()
        assert (response.status, response.closes) == (408, True)
        assert link.told == []
    assert [record.levelno for record in caplog.records] == [logging.INFO]


def test_a_head_that_trickles_in_is_not_given_more_time() -> None:
    with linked(Recorder()) as link:
        link.send(b"GET / HTTP/1.1\r\nX: ")
        for _ in range(19):
            link.loop.advance(0.5)
            link.send(b"a")
        assert not link.transport.eof
        link.loop.advance(1.6)
        assert link.response().status == 408


def test_the_time_of_a_later_head_begins_with_its_first_byte() -> None:
    with linked(Recorder(on_finish=ok), keep_alive_timeout=8.0) as link:
        link.send(GET)
        link.loop.advance(7)
        link.send(b"G")
        link.loop.advance(9)
        link.send(GET[1:])
        assert len(link.responses()) == 2
        link.loop.advance(7)
        link.send(b"G")
        ends_after(link, 10)
        assert [response.status for response in link.responses()] == [200, 200, 408]


def test_a_later_head_that_trickles_in_is_not_given_more_time_either() -> None:
    with linked(Recorder(on_finish=ok)) as link:
        link.send(GET, b"GET / HTTP/1.1\r\nX: ")
        for _ in range(19):
            link.loop.advance(0.5)
            link.send(b"a")
        assert not link.transport.eof
        link.loop.advance(1.6)
        assert [response.status for response in link.responses()] == [200, 408]


def test_blank_lines_buy_no_time() -> None:
    for wire, end in ((b"", 10.0), (GET, 5.0)):
        with linked(Recorder(on_finish=ok)) as link:
            link.send(wire)
            link.loop.advance(end - 1)
            link.send(b"\r\n")
            link.loop.advance(0.5)
            link.send(b"\r\n")
            link.loop.advance(1.7)
            assert link.closed
            assert all(response.status == 200 for response in link.responses())


def test_the_time_of_a_head_behind_blank_lines_begins_with_its_first_byte() -> None:
    for pieces in ((b"\r\nG",), (b"\r\n", b"G"), (b"\r\n\r", b"\nG")):
        with linked(Recorder(on_finish=ok)) as link:
            link.send(GET)
            link.loop.advance(3)
            link.send(*pieces)
            ends_after(link, 10)
            assert [response.status for response in link.responses()] == [200, 408]


def test_the_time_of_the_first_head_begins_with_the_connection() -> None:
    with linked(Recorder(on_finish=ok)) as link:
        link.loop.advance(9)
        link.send(b"G")
        ends_after(link, 1)
        assert link.response().status == 408


def test_without_limits_nothing_ends() -> None:
    times = ("head_timeout", "keep_alive_timeout", "body_timeout", "write_timeout")
    for wire in (b"", b"GET", GET, FIXED, FIXED + b"he"):
        with linked(Recorder(on_finish=ok), **dict.fromkeys(times)) as link:
            link.send(wire)
            link.loop.advance(3000, 10)
            assert not link.transport.eof


# ---------------------------------------------------------------------- between requests


def test_an_idle_connection_is_closed_without_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for wire in (GET, FIXED + b"hello", CHUNKED + b"0\r\n\r\n"):
        with linked(Recorder(on_finish=ok)) as link:
            link.send(wire)
            ends_after(link, 5)
            assert len(link.responses()) == 1
            assert link.closed
            assert not link.transport.aborted
    assert not caplog.records


@pytest.mark.parametrize("wire", [GET, FIXED], ids=["a request", "content"])
def test_what_waits_for_its_turn_is_not_late(wire: bytes) -> None:
    """What has come is not looked at before the next turn, when the deadline passes."""
    with linked(Recorder(on_finish=ok)) as link:
        link.send(wire if wire is FIXED else GET)

        def arrive_late() -> None:
            link.connection._turns.left = 0
            link.transport.peer_sends(b"hello" if wire is FIXED else GET)
            link.connection.deadline_passed(link.loop.time())

        link.loop.call(arrive_late)
        assert [response.status for response in link.responses()] == [200] * (1 if wire is FIXED else 2)
        ends_after(link, 5)


def test_a_part_of_a_head_that_waits_for_its_turn_buys_no_time() -> None:
    with linked(Recorder(on_finish=ok)) as link:
        link.send(GET, b"G")
        link.loop.advance(9.9)

        def arrive_late() -> None:
            link.connection._turns.left = 0
            link.transport.peer_sends(b"E")
            link.connection.deadline_passed(link.loop.time())

        link.loop.call(arrive_late)
        assert not link.transport.eof
        link.loop.advance(LATE)
        assert [response.status for response in link.responses()] == [200, 408]


@pytest.mark.parametrize("sent", [GET, b""], ids=["a request", "nothing"])
def test_a_request_that_the_system_holds_when_the_time_is_over_is_served(sent: bytes) -> None:
    ours, peers = socket.socketpair()
    with ours, peers, linked(Recorder(on_finish=ok)) as link:
        link.transport._extra["socket"] = ours  # the system's end of this connection
        link.send(GET)
        link.loop.advance(4.9)
        peers.sendall(sent)
        link.loop.call(link.connection.deadline_passed, link.loop.time())
        assert link.closed is not bool(sent)
        if sent:
            link.send(ours.recv(1000))  # the loop reads it in its next turn
            assert [response.status for response in link.responses()] == [200, 200]
            link.loop.advance(LATE)
            assert not link.closed


def test_idle_time_begins_anew_after_every_response() -> None:
    with linked(Recorder(on_finish=ok)) as link:
        for _ in range(5):
            link.send(GET)
            link.loop.advance(4.9)
        assert len(link.responses()) == 5
        assert not link.closed


def test_an_idle_connection_forgets_what_it_can_make_again() -> None:
    with linked(Recorder(on_finish=ok)) as link:
        connection = link.connection
        link.send(GET)
        assert connection.reader._previous is None  # many have no second request
        assert not connection.reader._previous_wire
        heads = []
        for _ in range(3):
            for _ in range(3):
                connection.templates = connection.templates or {"owner": object()}
                link.send(GET)
                heads.append(link.told[-1].exchange.head)
            first, second, third = heads[-3:]
            assert first is second is third is connection.reader._previous
            assert connection.templates
            link.loop.advance(LATE, 0.1)
            assert connection.reader._previous is None
            assert not connection.templates
            assert not link.transport.eof
        assert len({id(head) for head in heads}) == 3
        link.send(GET[:10])  # after which it is not idle ...
        link.loop.advance(LATE, 0.1)
        link.send(GET[10:])
        assert len(link.responses()) == 11


def test_a_connection_in_use_forgets_nothing() -> None:
    # Without a limit of idle time its deadline is the same in use and out of it.
    for seconds in (5.0, None):
        with linked(Recorder(), keep_alive_timeout=seconds) as link:
            link.send(GET)
            ok(link.told[-1])
            link.loop.settle()
            link.send(GET)
            link.connection.templates = kept = {"owner": object()}
            link.loop.advance(3 * LATE, 0.1)
            assert link.connection.templates is kept
            assert link.connection.reader._previous is link.told[-1].exchange.head
            ok(link.told[-1])
            link.loop.settle()
            link.send(GET[:-2])
            link.loop.advance(3 * LATE, 0.1)
            assert link.connection.templates is kept
            assert link.connection.reader._previous is not None


def test_the_application_may_take_its_time() -> None:
    for wire in (GET, FIXED + b"hello"):
        with linked(Recorder()) as link:
            link.send(wire)
            link.loop.advance(600, 1)
            ok(link.told[0])
            link.loop.settle()
            assert link.response().status == 200
            ends_after(link, 5)


def test_a_pipelined_request_waits_as_long_as_the_one_before_it_takes() -> None:
    with linked(Recorder()) as link:
        link.send(GET + GET + b"GET / HT")
        link.loop.advance(100, 1)
        ok(link.told[0])
        link.loop.advance(100, 1)
        ok(link.told[1])
        link.loop.settle()
        # The third head is due a while after it could be read.
        ends_after(link, 10)
        assert [response.status for response in link.responses()] == [200, 200, 408]


# ---------------------------------------------------------------------- content


@pytest.mark.parametrize("start", [FIXED, FIXED + b"he", CHUNKED, CHUNKED + b"5", CHUNKED + b"5\r\nhello\r\n0\r\n"])
def test_content_without_progress_is_answered_408(start: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with linked(Recorder()) as link:
        link.send(start)
        ends_after(link, 30)
        assert (link.response().status, link.response().closes) == (408, True)
        assert link.told[0].calls[-1] == "closed"
        assert "finish" not in link.told[0].calls
    assert [record.levelno for record in caplog.records] == [logging.INFO]


def test_without_a_rate_every_byte_of_content_is_progress() -> None:
    with linked(Recorder(on_finish=ok), min_body_rate=None) as link:
        link.send(FIXED)
        for octet in b"hello":
            link.loop.advance(29, 0.5)
            link.send(bytes([octet]))
        assert link.response().status == 200


LARGE = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"


def status_after_trickle(link: Link) -> int:
    """Send a byte every five seconds, seven times; return the status of the answer that follows then."""
    for _ in range(7):
        assert not link.transport.eof
        link.loop.advance(5, 0.5)
        link.send(b"x")
    link.loop.advance(2)
    return link.response().status


@pytest.mark.parametrize("waits", [False, True], ids=["plain", "the delegate waits for each piece"])
def test_content_that_trickles_is_answered_408(waits: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def soon() -> None:
        await asyncio.sleep(0)

    with linked(Recorder(on_data=lambda told, data: soon() if waits else None)) as link:
        link.send(LARGE)
        assert status_after_trickle(link) == 408
    assert "less than 240 bytes a second (--rate-request-body)" in caplog.text


@pytest.mark.parametrize(("size", "seconds"), [(1300, 5), (9000, 29)], ids=["steady", "in bursts"])
def test_slow_content_that_keeps_the_rate_goes_on(size: int, seconds: float) -> None:
    with linked(Recorder()) as link:
        link.send(LARGE)
        for _ in range(40):
            link.loop.advance(seconds, 0.5)
            link.send(b"x" * size)
        assert not link.transport.eof


def test_a_burst_earns_no_more_than_the_time() -> None:
    with linked(Recorder()) as link:
        link.send(LARGE + b"x" * 500_000)
        assert status_after_trickle(link) == 408


def test_content_beside_a_response_that_has_begun_has_no_rate() -> None:
    with linked(Recorder()) as link:
        link.send(LARGE)
        link.told[0].exchange.respond(200, [])
        link.told[0].exchange.send(b"part")
        for _ in range(10):
            link.loop.advance(29, 0.5)
            link.send(b"x")
        assert not link.transport.eof


def test_content_that_is_dropped_has_the_rate() -> None:
    with linked(Recorder(on_start=ok)) as link:
        link.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n")
        for _ in range(7):
            link.loop.advance(5, 0.5)
            link.send(b"x")
        link.loop.advance(2)
        assert link.transport.eof


def test_content_that_is_late_behind_a_response_that_has_begun_cuts_it() -> None:
    with linked(Recorder()) as link:
        link.send(FIXED)
        link.told[0].exchange.respond(200, [])
        link.told[0].exchange.send(b"part")
        link.loop.advance(32)
        assert link.closed
        assert not link.response().complete


def test_the_clock_rests_while_the_delegate_wants_no_content() -> None:
    with linked(Recorder(on_start=lambda told: told.exchange.pause_reading())) as link:
        link.send(FIXED + b"he")
        link.loop.advance(300, 1)
        assert not link.transport.eof
        link.loop.call(link.told[0].exchange.resume_reading)
        ends_after(link, 30)
        assert link.response().status == 408


def test_the_clock_rests_while_an_awaitable_is_waited_for() -> None:
    made: list[asyncio.Future[None]] = []

    def data(told: Told, chunk: bytes) -> Any:
        made.append(told.exchange.connection.loop.create_future())
        return made[-1]

    with linked(Recorder(on_data=data)) as link:
        link.send(FIXED + b"he")
        link.loop.advance(300, 1)
        made[0].set_result(None)
        link.loop.settle()
        ends_after(link, 30)


def test_one_request_s_content_as_a_whole_can_have_a_limit(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with linked(Recorder(on_finish=ok), body_total_timeout=20.0) as link:
        link.send(FIXED + b"hello", FIXED)
        for _ in range(4):
            link.loop.advance(4.8)
            link.send(b"x")
        link.loop.advance(2)
        # Tornado's way: without an answer.
        assert len(link.responses()) == 1
        assert link.transport.eof
        assert link.told[1].calls[-1] == "closed"
        assert not link.closed  # the peer may go on sending for a moment: a reset could destroy the response before
        link.send(b"x")
        link.send_eof()
        assert link.closed
        assert not link.transport.aborted
    assert [record.levelno for record in caplog.records] == [logging.INFO]
    assert "Timeout reading body" in caplog.text


def test_a_delegate_may_set_the_limit_of_one_request() -> None:
    def start(told: Told) -> None:
        if len(told.owner.told) == 1:
            told.exchange.connection.set_body_timeout(2.0)

    with linked(Recorder(on_start=start, on_finish=ok)) as link:
        link.send(FIXED)
        link.loop.advance(3.5)
        assert link.transport.eof
        assert link.told[0].calls == ["start", "closed"]
    with linked(Recorder(on_start=start, on_finish=ok)) as link:
        link.send(FIXED + b"hello", FIXED)
        link.loop.advance(20)
        assert not link.transport.eof  # the next request has the connection's own


def test_the_limit_of_one_request_may_be_longer_than_the_servers() -> None:
    with linked(
        Recorder(on_start=lambda told: told.exchange.set_body_timeout(9.0), on_finish=ok), body_total_timeout=1.0
    ) as link:
        link.send(FIXED)
        link.loop.advance(5)
        link.send(b"hello")
        assert link.response().status == 200


@pytest.mark.parametrize("wire", [GET, FIXED + b"hello"])
def test_the_limit_of_content_does_not_limit_the_response(wire: bytes) -> None:
    with linked(Recorder(on_finish=lambda told: told.exchange.set_body_timeout(1.0))) as link:
        link.send(wire)
        link.loop.advance(5)
        link.loop.call(ok, link.told[0])
        assert link.response().status == 200


# ---------------------------------------------------------------------- a peer that does not read


def large(told: Told) -> None:
    ok(told, b"x" * 200000)


def test_a_peer_that_reads_nothing_is_reset(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with linked(Recorder(on_finish=large)) as link:
        link.stop_reading()
        link.send(GET)
        link.loop.advance(59, 0.5)
        assert not link.closed
        link.loop.advance(LATE + 1)
        assert link.closed
        assert link.transport.aborted
    assert [record.levelno for record in caplog.records] == [logging.INFO]


def test_a_peer_that_reads_nothing_is_reset_though_there_is_no_socket_to_ask() -> None:
    with linked(Recorder(on_finish=large)) as link:
        known = link.transport.get_extra_info
        link.transport.get_extra_info = (  # type: ignore[method-assign]
            lambda name, default=None: default if name == "socket" else known(name, default)
        )
        link.stop_reading()
        link.send(GET)
        link.loop.advance(59, 0.5)
        link.read(1000)
        link.loop.advance(59, 0.5)
        assert not link.closed
        link.loop.advance(4 * LATE)
        assert link.transport.aborted


def test_a_peer_that_reads_a_little_in_every_period_is_kept() -> None:
    with linked(Recorder(on_finish=large)) as link:
        link.stop_reading()
        link.send(GET)
        for _ in range(10):
            link.loop.advance(55, 0.5)
            link.read(1000)
            assert not link.closed
        link.read()
        assert link.response().complete


def test_a_peer_that_reads_as_fast_as_the_application_writes_is_kept() -> None:
    # More waits to be sent at the end of every period than at its beginning; but the peer reads.
    with linked(Recorder()) as link:
        link.stop_reading()
        link.send(GET)
        exchange = link.told[0].exchange
        exchange.respond(200, [])
        exchange.send(b"x" * 100000)
        for _ in range(10):
            link.loop.advance(30, 0.5)
            link.read(10000)
            exchange.send(b"x" * 11000)
            exchange.send(b"x" * 40000 if link.transport.get_write_buffer_size() < 90000 else b"x")
        assert not link.closed
        # ... until it stops.
        for _ in range(3):
            link.loop.advance(30, 0.5)
            if not link.closed:
                exchange.send(b"x" * 1000)
        assert link.closed


def test_a_response_that_fits_below_the_mark_but_is_never_read() -> None:
    with linked(Recorder(on_finish=lambda told: ok(told, b"x" * 30000))) as link:
        link.stop_reading()
        link.send(GET)
        link.loop.advance(7)
        assert not link.closed  # idle time has passed: it ends as soon as the response is read
        link.loop.advance(62, 0.5)
        assert link.closed
        assert link.transport.aborted
    with linked(Recorder(on_finish=lambda told: ok(told, b"x" * 30000))) as link:
        link.stop_reading()
        link.send(GET)
        link.loop.advance(7)
        link.read()
        assert link.closed
        assert link.response().complete


def test_an_application_that_waits_for_the_peer_is_told() -> None:
    with linked(Recorder()) as link:
        link.stop_reading()
        link.send(GET)
        told = link.told[0]
        told.exchange.respond(200, [])
        told.exchange.send(b"x" * 100000)
        task = link.loop.create_task(told.exchange.drained())
        link.loop.advance(63, 0.5)
        assert told.calls[-1] == "closed"
        assert isinstance(task.exception(), ConnectionError | OSError)


def test_requests_that_wait_for_the_peer_to_read_are_not_late() -> None:
    with linked(Recorder(on_finish=large)) as link:
        link.stop_reading()
        link.send(GET + GET + b"GET / HT")
        link.loop.advance(40, 0.5)
        assert len(link.told) == 1
        link.read(200400)
        link.loop.advance(40, 0.5)
        link.read(200400)
        link.read()
        assert len(link.responses()) == 2
        ends_after(link, 10)
        assert [response.status for response in link.responses()] == [200, 200, 408]


# ---------------------------------------------------------------------- after the last response


def test_who_goes_on_sending_behind_a_refusal_is_cut_off_after_two_seconds() -> None:
    with linked(Recorder()) as link:
        link.send(b"BAD\r\n\r\n")
        for _ in range(6):
            link.loop.advance(0.3)
            link.send(b"x" * 100)
            assert not link.closed
        link.loop.advance(1.5)
        assert link.closed


def test_under_tls_too_the_last_response_is_not_destroyed() -> None:
    with linked(Recorder(on_start=ok), tls=True) as link:
        link.send(POST + b"Content-Length: 1000000\r\n\r\n")
        assert link.response().closes
        assert not link.closed
        link.send(b"x" * 60000)
        link.loop.advance(1)
        assert not link.closed
        link.loop.advance(3)
        assert link.closed


# ---------------------------------------------------------------------- a loop that was blocked


def test_a_peer_is_not_late_because_the_loop_was_blocked() -> None:
    for wire, rest in ((b"GET / HTTP/1.1\r\n", b"Host: a\r\n\r\n"), (FIXED, b"hello")):
        with linked(Recorder(on_finish=ok)) as link:
            link.send(wire)
            link.loop.advance(1)
            # The rest has arrived meanwhile; the loop's timers and sockets come up in one turn.
            link.loop.call_soon(setattr, link.loop, "_now", link.loop.time() + 100)
            link.loop.turn()
            link.loop.settle()
            assert not link.transport.eof
            link.send(rest)
            assert link.response().status == 200


def test_a_new_connection_behind_a_block_has_its_whole_time() -> None:
    with linked(Recorder(on_finish=ok)) as link:
        link.loop.advance(1)
        link.loop.call_soon(setattr, link.loop, "_now", link.loop.time() + 100)
        link.loop.turn()
        second = Link(Recorder(on_finish=ok), loop=link.loop)
        second.loop.advance(9)
        second.send(GET)
        assert second.response().status == 200
        second.transport.abort()
        second.loop.settle()
        second.clock.stop()


def test_a_head_whose_time_passes_while_the_peer_does_not_read_is_due_again_when_it_does() -> None:
    with linked(Recorder(on_finish=lambda told: ok(told, b"x" * 3000)), high_water=1000) as link:
        link.stop_reading()
        link.send(GET + b"GET / HT")
        link.loop.advance(20)
        link.read()
        link.loop.advance(20)
        assert link.transport.eof
        assert [response.status for response in link.responses()] == [200, 408]


EXPECTING = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n"


@pytest.mark.parametrize("pauses", [False, True])
def test_a_peer_that_waits_for_100_has_its_time_from_then_on(pauses: bool) -> None:
    with linked(Recorder(on_finish=ok)) as link:
        link.send(EXPECTING)
        link.loop.advance(100)
        exchange = link.told[0].exchange
        if pauses:
            link.loop.call(exchange.pause_reading)
            link.loop.call(exchange.resume_reading)
            link.loop.advance(100)
        assert link.received == b""
        link.loop.call(exchange.send_continue)
        link.loop.advance(29)
        assert not link.transport.eof
        link.loop.advance(3)
        assert b"HTTP/1.1 408 " in link.received


def test_a_peer_that_does_not_wait_for_100_has_no_more_time_than_others() -> None:
    with linked(Recorder(on_finish=ok)) as link:
        link.send(EXPECTING + b"x")
        link.loop.advance(32)
        assert link.response().status == 408


def test_a_peer_that_waits_for_100_has_the_time_for_the_whole_content() -> None:
    with linked(Recorder(on_finish=ok), body_total_timeout=60) as link:
        link.send(EXPECTING)
        link.loop.advance(66)
        assert link.closed
