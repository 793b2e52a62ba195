"""A connection of HTTP/2: streams, windows, faults of the peer, the end. With a fake transport and the test's clock."""

from __future__ import annotations

import asyncio
import logging
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hpack import Encoder

from bridge.core.connection.parameters import HTTP2Parameters
from bridge.core.http2.codes import CANCEL
from bridge.errors import ConnectionGone
from tests.support.http2 import (
    CONTINUATION,
    DATA,
    GET,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    HTTP2Link,
    frame,
    head,
    linked2,
)
from tests.support.link import Recorder, Told, ok


def test_answers_a_request() -> None:
    with linked2(Recorder(on_start=ok)) as link:
        stream = link.stream(link.request())
        assert stream.status == 200
        assert (b"content-type", b"text/plain") in stream.fields
        assert (b"content-length", b"2") in stream.fields
        assert dict(stream.fields)[b"server"] == b"bridge"
        assert b"date" in dict(stream.fields)
        assert stream.content == b"ok"
        assert stream.ended
        assert stream.reset is None
        assert link.told[0].calls == ["start", "finish"]
        exchange = link.told[0].exchange
        assert (exchange.head.line.version_text, exchange.head.host) == ("2", b"a")
        assert not link.connection.streams


@pytest.mark.parametrize("cut", [1, 2, 9, 100])
def test_any_cut_gives_the_same_requests(cut: int) -> None:
    with linked2(Recorder(on_finish=lambda told: ok(told, told.data or b"none"))) as link:
        wire = link.headers(1) + link.headers(3, method="POST", ended=False)
        wire += frame(DATA, 0, 3, b"hello ") + frame(DATA, 8, 3, b"\x03world\0\0\0") + frame(DATA, 1, 3)
        link.send(*[wire[at : at + cut] for at in range(0, len(wire), cut)])
        assert (link.stream(1).content, link.stream(3).content) == (b"none", b"hello world")
        assert [told.calls for told in link.told] == [["start", "finish"], ["start", "data", "data", "finish"]]


def test_settings_are_acknowledged_and_announced() -> None:
    http2 = HTTP2Parameters(max_concurrent_streams=7, max_header_list_size=4096)
    with linked2(Recorder(on_start=ok), http2=http2) as link:
        first, update, ack = link.frames
        assert first.kind == SETTINGS
        settings = dict(struct.iter_unpack(">HI", first.payload))
        assert settings == {3: 7, 6: 4096, 9: 1}
        assert (update.kind, update.stream, update.payload) == (WINDOW_UPDATE, 0, struct.pack(">I", (1 << 20) - 65535))
        assert (ack.kind, ack.flags) == (SETTINGS, 1)


def test_requests_run_in_parallel_and_are_answered_in_any_order() -> None:
    with linked2(Recorder()) as link:
        first, second = link.request(), link.request()
        for told in reversed(link.told):
            link.loop.call(ok, told, told.exchange.head.line.target)
        assert link.stream(first).ended and link.stream(second).ended
        assert [item.stream for item in link.frames if item.kind == HEADERS] == [second, first]


# --- windows ----------------------------------------------------------------------------------------------------------


def test_content_waits_for_both_windows() -> None:
    content = bytes(range(256)) * 512
    with linked2(Recorder(on_start=lambda told: ok(told, content))) as link:
        number = link.request()
        stream = link.stream(number)
        assert len(stream.content) == 65535
        link.open_window(0, 1 << 20)
        assert len(link.stream(number).content) == 65535
        link.open_window(number, 10)
        assert len(link.stream(number).content) == 65545
        link.open_window(number, 1 << 20)
        assert link.stream(number).content == content
        assert stream.ended
        assert max(len(item.payload) for item in link.frames) <= 16384


def test_a_smaller_initial_window_may_make_windows_negative() -> None:
    with linked2(Recorder(on_start=lambda told: ok(told, bytes(100_000)))) as link:
        link.open_window(0, 1 << 20)
        number = link.request()
        link.send(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 1000)))
        assert link.connection.streams[number].send_window == 1000 - 65535
        link.open_window(number, 64535)
        assert len(link.stream(number).content) == 65535
        link.send(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 200_000)))
        assert link.stream(number).content == bytes(100_000)


@pytest.mark.parametrize("size", [0, 1000, 30_000])
def test_an_initial_window_that_shrinks_while_content_waits_for_the_transport(size: int) -> None:
    with linked2(Recorder(on_start=lambda told: ok(told, bytes(150_000)))) as link:
        link.send(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 100_000)))
        link.open_window(0, 1 << 20)
        link.stop_reading()
        number, other = link.request(), link.request()
        link.send(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, size)))
        link.read()
        sent = len(link.stream(number).content)
        assert link.connection.streams[number].send_window == size - sent
        link.open_window(other, 1 << 20)
        assert link.stream(other).content == bytes(150_000)
        link.loop.advance(59)
        link.open_window(number, 1 << 20)
        assert link.stream(number).content == bytes(150_000)


@pytest.mark.parametrize("shut", ["stream", "connection", "later"])
def test_content_does_not_wait_for_windows_of_a_peer_that_sends_nothing_more(shut: str) -> None:
    with linked2(Recorder(on_start=lambda told: ok(told, bytes(100_000)))) as link:
        if shut != "connection":
            link.open_window(0, 1 << 20)
        if shut == "later":
            link.stop_reading()
        streams = [link.request(), link.request()]
        link.open_window(streams[0], 1 << 20)
        link.send_eof()
        link.read()
        assert link.stream(streams[0]).ended == (shut != "connection")
        link.loop.advance(3)
        assert link.stream(streams[1]).reset == CANCEL
        assert link.closed


def test_a_delegate_that_pauses_holds_its_stream_and_no_other() -> None:
    def on_start(told: Told) -> None:
        if told.exchange.head.target == b"/slow":
            told.exchange.pause_reading()

    with linked2(Recorder(on_start=on_start, on_finish=ok)) as link:
        slow = link.request(path="/slow", method="POST", ended=False)
        for _ in range(3):
            link.data(slow, bytes(16384))
        quick = link.request(method="POST", ended=False)
        for _ in range(12):
            link.data(quick, bytes(16384))
            link.frames  # noqa: B018 -- takes note
        link.data(quick, b"", ended=True)
        assert link.stream(quick).status == 200
        assert link.told[0].data == b""
        assert not [item for item in link.frames if item.kind == WINDOW_UPDATE and item.stream == slow]
        link.loop.call(link.told[0].exchange.resume_reading)
        assert len(link.told[0].data) == 49152
        assert [item for item in link.frames if item.kind == WINDOW_UPDATE and item.stream == slow]
        link.data(slow, b"x", ended=True)
        assert link.told[0].calls[-1] == "finish"


def test_content_beyond_the_window_resets_the_stream() -> None:
    def pause(told: Told) -> None:
        told.exchange.pause_reading()

    with linked2(Recorder(on_start=pause)) as link:
        number = link.request(method="POST", ended=False)
        for _ in range(5):
            link.data(number, bytes(16384))
        assert link.stream(number).reset == 3
        assert link.told[0].calls == ["start", "closed"]


# --- writers ----------------------------------------------------------------------------------------------------------


def test_writers_wait_for_the_peer() -> None:
    def begin(told: Told) -> None:
        told.exchange.respond(200, [])
        told.exchange.send(bytes(200_000))

    with linked2(Recorder(on_start=begin)) as link:
        number = link.request()
        exchange = link.told[0].exchange
        assert exchange.write_paused
        waiting = exchange.writable()
        link.open_window(0, 1 << 20)
        link.open_window(number, 100_000)
        assert not waiting.done()
        link.open_window(number, 1 << 20)
        assert waiting.done() and not exchange.write_paused
        link.loop.call(exchange.send, b"end", True)
        assert link.stream(number).content == bytes(200_000) + b"end"
        assert link.stream(number).ended


def test_a_reset_tells_waiting_writers() -> None:
    def begin(told: Told) -> None:
        told.exchange.respond(200, [])
        told.exchange.send(bytes(200_000))

    with linked2(Recorder(on_start=begin)) as link:
        number = link.request()
        exchange = link.told[0].exchange
        waiting = exchange.writable()
        link.cancel(number)
        assert isinstance(waiting.exception(), ConnectionGone)
        with pytest.raises(ConnectionGone):
            exchange.send(b"more")
        assert exchange.peer_gone
        assert link.told[0].calls == ["start", "finish", "closed"]


def test_a_peer_that_never_opens_its_window_is_reset() -> None:
    with linked2(Recorder(on_start=lambda told: ok(told, bytes(100_000))), write_timeout=20.0) as link:
        link.open_window(0, 1 << 20)
        number = link.request()
        for _ in range(2):
            link.loop.advance(9)
            link.open_window(number, 1)
        link.loop.advance(5)
        assert link.stream(number).reset == 8
        assert link.goaway is None


def test_a_peer_that_never_opens_the_window_of_the_connection_is_reset() -> None:
    with linked2(Recorder(on_start=lambda told: ok(told, bytes(40_000))), write_timeout=20.0) as link:
        numbers = [link.request() for _ in range(3)]
        link.loop.advance(24)
        assert [link.stream(number).reset for number in numbers] == [None, 8, 8]


def test_a_slow_peer_that_goes_on_reading_is_not_reset() -> None:
    with linked2(Recorder(on_start=lambda told: ok(told, bytes(100_000))), write_timeout=20.0) as link:
        link.open_window(0, 1 << 20)
        number = link.request()
        for _ in range(6):
            link.loop.advance(15)
            link.open_window(number, 2000)
        assert link.stream(number).reset is None
        assert len(link.stream(number).content) == 65535 + 12000


# --- faults of the delegate -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("place", ["start", "data", "data that has waited", "finish", "closed", "eof"])
def test_what_a_delegate_raises_ends_its_stream_and_no_other(place: str, error: type[BaseException]) -> None:
    def fail(told: Told, *args: Any) -> None:
        if told.exchange.head.line.path == b"/bad":
            raise error

    name = "on_" + place.split(maxsplit=1)[0]
    with linked2(Recorder(**{name: fail}), raises=error) as link:
        good = link.request(path="/good")
        bad = link.request(path="/bad", ended=place == "eof")
        if place == "closed":
            link.cancel(bad)
        elif place == "eof":
            link.loop.call(link.transport.peer_sends_eof)
        else:
            told = link.told[1]
            if place == "data that has waited":
                link.loop.call(told.exchange.pause_reading)
            link.data(bad, b"x", ended=True)
            if place == "data that has waited":
                link.loop.call(told.exchange.resume_reading)  # it raises nothing here: the caller may be anybody
        if place != "closed":
            assert link.stream(bad).status == 500
        if place == "start":
            link.told.pop()  # it was never returned
        link.loop.call(ok, link.told[0])
        assert link.stream(good).content == b"ok"


def test_a_delegate_that_pauses_and_resumes_while_it_takes_the_last_content_is_told_of_the_end_once() -> None:
    def pause_and_resume(told: Told, chunk: bytes) -> None:
        told.exchange.pause_reading()
        told.exchange.resume_reading()

    with linked2(Recorder(on_data=pause_and_resume, on_finish=ok)) as link:
        number = link.request(method="POST", ended=False)
        link.data(number, b"x", ended=True)
        assert link.told[0].calls == ["start", "data", "finish"]
        assert link.stream(number).content == b"ok"


# --- faults of the peer -----------------------------------------------------------------------------------------------

PROTOCOL, FLOW, CLOSED, SIZE, REFUSED, COMPRESSION, CALM = 1, 3, 5, 6, 7, 9, 11


CONNECTION_FAULTS = [
    pytest.param(frame(DATA, 0, 0, b"x"), PROTOCOL, id="DATA on stream 0"),
    pytest.param(frame(DATA, 0, 1, b"x"), PROTOCOL, id="DATA on an idle stream"),
    pytest.param(frame(HEADERS, 5, 0, head()), PROTOCOL, id="HEADERS on stream 0"),
    pytest.param(frame(HEADERS, 5, 2, head()), PROTOCOL, id="HEADERS on an even stream"),
    pytest.param(frame(HEADERS, 5, 5, head()) + frame(HEADERS, 5, 3, head()), PROTOCOL, id="a lower stream"),
    pytest.param(frame(HEADERS, 5, 1, head()) * 2, CLOSED, id="a stream twice"),
    pytest.param(frame(HEADERS, 5, 1, b"\x80"), COMPRESSION, id="index 0"),
    pytest.param(frame(HEADERS, 13, 1, b"\xff" + head()), PROTOCOL, id="too much padding"),
    pytest.param(frame(HEADERS, 1, 1, head()) + frame(PING, 0, 0, bytes(8)), PROTOCOL, id="PING in a field block"),
    pytest.param(frame(HEADERS, 1, 1, head()) + frame(CONTINUATION, 4, 3), PROTOCOL, id="CONTINUATION of another"),
    pytest.param(frame(CONTINUATION, 4, 1, head()), PROTOCOL, id="CONTINUATION alone"),
    pytest.param(frame(RST_STREAM, 0, 1, bytes(4)), PROTOCOL, id="RST_STREAM of an idle stream"),
    pytest.param(frame(RST_STREAM, 0, 0, bytes(4)), PROTOCOL, id="RST_STREAM of stream 0"),
    pytest.param(frame(RST_STREAM, 0, 1, bytes(3)), SIZE, id="RST_STREAM of 3 octets"),
    pytest.param(frame(SETTINGS, 0, 1), PROTOCOL, id="SETTINGS on a stream"),
    pytest.param(frame(SETTINGS, 0, 0, bytes(5)), SIZE, id="SETTINGS of 5 octets"),
    pytest.param(frame(SETTINGS, 1, 0, bytes(6)), SIZE, id="SETTINGS ACK with content"),
    pytest.param(frame(SETTINGS, 0, 0, struct.pack(">HI", 2, 2)), PROTOCOL, id="ENABLE_PUSH 2"),
    pytest.param(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 1 << 31)), FLOW, id="INITIAL_WINDOW_SIZE 2^31"),
    pytest.param(frame(SETTINGS, 0, 0, struct.pack(">HI", 5, 100)), PROTOCOL, id="MAX_FRAME_SIZE 100"),
    pytest.param(frame(5, 4, 1, bytes(4) + head()), PROTOCOL, id="PUSH_PROMISE"),
    pytest.param(frame(PING, 0, 1, bytes(8)), PROTOCOL, id="PING on a stream"),
    pytest.param(frame(PING, 0, 0, bytes(7)), SIZE, id="PING of 7 octets"),
    pytest.param(frame(GOAWAY, 0, 1, bytes(8)), PROTOCOL, id="GOAWAY on a stream"),
    pytest.param(frame(WINDOW_UPDATE, 0, 0, bytes(4)), PROTOCOL, id="WINDOW_UPDATE of 0"),
    pytest.param(frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"), FLOW, id="WINDOW_UPDATE beyond 2^31-1"),
    pytest.param(frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\1"), PROTOCOL, id="WINDOW_UPDATE of an idle stream"),
    pytest.param(b"\0\x40\1" + bytes(6), SIZE, id="a frame of 16385 octets, which has not come"),
    pytest.param(
        frame(HEADERS, 1, 1, head()) + frame(CONTINUATION, 0, 1, b"\x88") * 9, CALM, id="nine CONTINUATION frames"
    ),
    pytest.param(frame(HEADERS, 1, 1, head()) + frame(CONTINUATION, 0, 1), CALM, id="an empty CONTINUATION frame"),
    pytest.param(
        frame(HEADERS, 5, 1, head()) + frame(WINDOW_UPDATE, 0, 1, b"\0\0\x10\0") * 1100,
        CALM,
        id="many WINDOW_UPDATE frames of a stream that has ended",
    ),
]


NOT_OPEN = {
    "idle": b"",
    "skipped": frame(HEADERS, 5, 3, head()),
    "closed": frame(HEADERS, 5, 1, head()),
    "reset": frame(HEADERS, 5, 1, head(("Upper", "x"))),
}


@pytest.mark.parametrize(
    ("payload", "code"),
    [pytest.param(bytes(4), SIZE, id="size"), pytest.param(b"\0\0\0\1\0", PROTOCOL, id="depends on itself")],
)
@pytest.mark.parametrize("before", NOT_OPEN.values(), ids=NOT_OPEN)
def test_a_priority_that_is_wrong_resets_no_stream_that_is_not_open(before: bytes, payload: bytes, code: int) -> None:
    """RFC 9113 section 6.4 forbids a reset of an idle stream, and its request may still come."""
    with linked2(Recorder(on_start=ok)) as link:
        link.send(before)
        resets = link.kinds().count(RST_STREAM)
        link.send(frame(PRIORITY, 0, 1, payload))
        assert link.kinds().count(RST_STREAM) == resets
        assert link.goaway is not None
        assert link.goaway.code == code


@pytest.mark.parametrize(("wire", "code"), CONNECTION_FAULTS)
def test_a_fault_of_the_connection_ends_it(wire: bytes, code: int) -> None:
    with linked2(Recorder(on_start=ok)) as link:
        link.send(wire)
        goaway = link.goaway
        assert goaway is not None
        assert goaway.code == code
        assert b"section" in goaway.payload or b"CONTINUATION" in goaway.payload or code == CALM
        assert link.transport.eof


STREAM_FAULTS = [
    pytest.param(frame(HEADERS, 5, 1, head(("Upper", "x"))), PROTOCOL, id="a name in upper case"),
    pytest.param(frame(HEADERS, 5, 1, head(("connection", "close"))), PROTOCOL, id="a field of the connection"),
    pytest.param(frame(HEADERS, 0x25, 1, struct.pack(">IB", 1, 0) + head()), PROTOCOL, id="depends on itself"),
    pytest.param(frame(HEADERS, 4, 1, head()) + frame(PRIORITY, 0, 1, bytes(4)), SIZE, id="PRIORITY of 4 octets"),
    pytest.param(
        frame(HEADERS, 4, 1, head(("content-length", "3"))) + frame(DATA, 1, 1, b"four"),
        PROTOCOL,
        id="content too long",
    ),
    pytest.param(
        frame(HEADERS, 4, 1, head(("content-length", "3"))) + frame(DATA, 1, 1, b"x"), PROTOCOL, id="content too short"
    ),
    pytest.param(frame(HEADERS, 4, 1, head()) + frame(HEADERS, 4, 1, b"\0\1a\1b"), PROTOCOL, id="trailers without end"),
    pytest.param(
        frame(HEADERS, 4, 1, head()) + frame(WINDOW_UPDATE, 0, 1, bytes(4)), PROTOCOL, id="WINDOW_UPDATE of 0"
    ),
    pytest.param(
        frame(HEADERS, 4, 1, head()) + frame(WINDOW_UPDATE, 0, 1, b"\x7f\xff\xff\xff"),
        FLOW,
        id="WINDOW_UPDATE too large",
    ),
    pytest.param(frame(HEADERS, 5, 1, head()) + frame(DATA, 0, 1, b"x"), CLOSED, id="DATA behind the end"),
    pytest.param(frame(HEADERS, 5, 1, head()) + frame(HEADERS, 5, 1, b"\0\1a\1b"), CLOSED, id="HEADERS behind the end"),
    pytest.param(frame(HEADERS, 5, 1, head()) + frame(HEADERS, 5, 1, head()), CLOSED, id="a head behind the end"),
]


@pytest.mark.parametrize(("wire", "code"), STREAM_FAULTS)
def test_a_fault_of_a_stream_resets_it_and_no_other(wire: bytes, code: int) -> None:
    with linked2(Recorder()) as link:
        link.send(wire)
        assert link.stream(1).reset == code
        assert link.goaway is None
        link.send(frame(HEADERS, 5, 3, head(path="/other")))
        link.loop.call(ok, link.told[-1])
        assert link.stream(3).content == b"ok"


def test_a_preface_that_does_not_go_on_is_answered_in_text() -> None:
    link = HTTP2Link(Recorder())
    link.send(PREFACE[:18] + b"XX\r\n\r\n")
    assert link.received.startswith(b"HTTP/1.1 400 ")
    link.end()


def test_a_frame_before_the_settings_ends_the_connection() -> None:
    link = HTTP2Link(Recorder())
    link.send(PREFACE + frame(PING, 0, 0, bytes(8)))
    assert link.goaway is not None and link.goaway.code == PROTOCOL
    link.end()


def test_more_streams_than_announced_are_refused() -> None:
    with linked2(Recorder(), http2=HTTP2Parameters(max_concurrent_streams=2)) as link:
        numbers = [link.request() for _ in range(3)]
        assert [link.stream(number).reset for number in numbers] == [None, None, REFUSED]
        link.loop.call(ok, link.told[0])
        link.request()
        assert len(link.told) == 3


# --- the end ----------------------------------------------------------------------------------------------------------


def test_a_stop_is_announced_twice_and_loses_no_request() -> None:
    with linked2(Recorder()) as link:
        first = link.request()
        link.loop.call(link.connection.close_when_idle)
        assert [item.payload[:4] for item in link.frames if item.kind == GOAWAY] == [b"\x7f\xff\xff\xff"]
        ping = [item for item in link.frames if item.kind == PING][-1]
        late = link.request()
        link.send(frame(PING, 1, 0, ping.payload))
        assert link.goaway is not None and link.goaway.payload == struct.pack(">II", late, 0)
        refused = link.request()
        assert link.stream(refused).reset == REFUSED
        for told in link.told:
            link.loop.call(ok, told)
        assert link.stream(first).ended and link.stream(late).ended
        assert link.transport.eof


def test_an_idle_connection_ends_with_goaway() -> None:
    with linked2(Recorder(on_start=ok), keep_alive_timeout=5.0) as link:
        link.request()
        link.loop.advance(4)
        assert link.goaway is None
        link.loop.advance(3)
        assert link.goaway is not None and link.goaway.payload[:4] == struct.pack(">I", 1)
        assert link.transport.eof


def test_a_peer_that_sends_no_preface_is_dropped() -> None:
    link = HTTP2Link(Recorder())
    link.loop.advance(12)
    assert link.transport.eof
    link.end()


def test_content_that_does_not_come_is_answered_408() -> None:
    with linked2(Recorder(), body_timeout=10.0) as link:
        number = link.request(method="POST", ended=False)
        other = link.request()
        link.loop.advance(8)
        link.data(number, b"x" * 3000)
        link.loop.advance(8)
        assert not link.stream(number).ended
        link.loop.advance(4)
        assert link.stream(number).status == 408
        assert link.stream(number).reset == 0
        assert not link.stream(other).ended


def test_content_that_trickles_is_answered_408(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with linked2(Recorder()) as link:
        number = link.request(method="POST", ended=False)
        talk = link.request(method="POST", ended=False)
        steady = link.request(method="POST", ended=False)
        link.loop.call(link.told[1].exchange.respond, 200, [])
        link.loop.call(link.told[1].exchange.send, b"part")
        for _ in range(7):
            assert not link.stream(number).ended
            link.loop.advance(5, 0.5)
            link.data(number, b"x")
            link.data(talk, b"x")
            link.data(steady, b"x" * 1300)
        link.loop.advance(2)
        assert link.stream(number).status == 408
        assert not link.stream(talk).ended  # its response has begun: the two talk
        assert not link.stream(steady).ended
    assert "less than 240 bytes a second (--rate-request-body)" in caplog.text


def test_small_pieces_of_content_are_joined_while_they_wait() -> None:
    with linked2(Recorder(on_start=lambda told: told.exchange.pause_reading())) as link:
        stream = link.request(method="POST", ended=False)
        for _ in range(5000):
            link.data(stream, b"x")
        (told,) = link.told
        assert len(told.exchange.content._chunks) == 2
        link.loop.call(told.exchange.resume_reading)
        assert [len(chunk) for chunk in told.chunks] == [4096, 904]
        link.cancel(stream)
        assert link.goaway is None


# --- trailers, WebSockets, the budget ---------------------------------------------------------------------------------


def test_trailers_of_a_request_and_of_a_response() -> None:
    def answer(told: Told) -> None:
        told.exchange.respond(200, [(b"content-type", b"application/grpc")])
        told.exchange.send(told.data)
        told.exchange.end([(b"Grpc-Status", b"0"), (b"connection", b"close")])

    with linked2(Recorder(on_finish=answer)) as link:
        number = link.request(("te", "trailers"), method="POST", ended=False)
        link.data(number, b"message")
        link.trailers(number, ("x-sum", "1"), ("host", "b"))
        assert link.told[0].exchange.trailers == [(b"x-sum", b"1")]
        stream = link.stream(number)
        assert (stream.content, stream.trailers, stream.ended) == (b"message", [(b"grpc-status", b"0")], True)


def test_trailers_wait_behind_content() -> None:
    def answer(told: Told) -> None:
        told.exchange.respond(200, [])
        told.exchange.send(bytes(100_000))
        told.exchange.end([(b"x-sum", b"1")])

    with linked2(Recorder(on_start=answer)) as link:
        number = link.request()
        assert link.stream(number).trailers == []
        link.open_window(0, 1 << 20)
        link.open_window(number, 1 << 20)
        stream = link.stream(number)
        assert (len(stream.content), stream.trailers, stream.ended) == (100_000, [(b"x-sum", b"1")], True)


def test_interim_responses() -> None:
    def answer(told: Told) -> None:
        told.exchange.send_continue()
        told.exchange.inform(103, [(b"Link", b"</a.css>")])
        ok(told)

    with linked2(Recorder(on_start=answer)) as link:
        number = link.request(("expect", "100-continue"), method="POST", ended=False)
        stream = link.stream(number)
        assert stream.interim == [[(b":status", b"100")], [(b":status", b"103"), (b"link", b"</a.css>")]]
        assert (stream.content, stream.reset) == (b"ok", 0)


def test_an_early_response_lets_a_short_rest_come() -> None:
    with linked2(Recorder(on_start=ok)) as link:
        number = link.request(("content-length", "1000"), method="POST", ended=False)
        assert link.stream(number).ended and link.stream(number).reset is None
        link.data(number, bytes(1000), ended=True)
        assert link.stream(number).reset is None
        assert not link.connection.streams


@pytest.mark.parametrize(
    ("wire", "most"),
    [
        pytest.param(lambda n: frame(PING, 0, 0, bytes(8)), 1100, id="PING"),
        pytest.param(lambda n: frame(SETTINGS, 0, 0), 1100, id="SETTINGS"),
        pytest.param(lambda n: frame(PRIORITY, 0, n, bytes(5)), 1100, id="PRIORITY"),
        pytest.param(lambda n: frame(16, 0, 0, struct.pack(">I", n) + b"u=1"), 1100, id="PRIORITY_UPDATE"),
        pytest.param(lambda n: frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1"), 1100, id="WINDOW_UPDATE"),
        pytest.param(lambda n: frame(99, 0, 0), 1100, id="unknown frames"),
        pytest.param(
            lambda n: frame(HEADERS, 5, 1, head()) * (n == 1) + frame(GOAWAY, 0, 0, bytes(8)), 1100, id="GOAWAY"
        ),
        pytest.param(lambda n: frame(HEADERS, 5, n, head()) + frame(RST_STREAM, 0, n, bytes(4)), 220, id="rapid reset"),
        pytest.param(
            lambda n: frame(HEADERS, 5, n, head()) + frame(WINDOW_UPDATE, 0, n, bytes(4)), 220, id="made to reset"
        ),
    ],
)
def test_a_flood_ends_the_connection_with_one_line(wire: Any, most: int, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with linked2(Recorder()) as link:
        for number in range(most):
            if link.goaway is not None:
                break
            link.send(wire(2 * number + 1))
        assert link.goaway is not None and link.goaway.code == CALM
        lines = [record.getMessage() for record in caplog.records if "ENHANCE_YOUR_CALM" in record.getMessage()]
        assert len(lines) == 1
        assert "RFC 9113 section 10.5" in lines[0]


def wide(link: HTTP2Link) -> None:
    """Open both windows for a megabyte."""
    link.send(frame(SETTINGS, 0, 0, struct.pack(">HI", 4, 1 << 20)))
    link.open_window(0, 1 << 20)


def stop(link: HTTP2Link) -> None:
    """Let the server stop, and answer the ping behind the first GOAWAY."""
    link.loop.call(link.connection.close_when_idle)
    link.read(100)
    link.send(frame(PING, 1, 0, b"\0goaway\0"))


@pytest.mark.parametrize("end", [stop, HTTP2Link.send_eof])
def test_content_that_waits_when_the_connection_is_to_end_is_sent_once(end: Callable[[HTTP2Link], None]) -> None:
    content = bytes(range(256)) * 800
    with linked2(Recorder(on_start=lambda told: ok(told, content))) as link:
        wide(link)
        link.stop_reading()
        number = link.request()
        end(link)
        link.read()
        assert link.stream(number).content == content
        assert link.stream(number).ended
        assert link.transport.eof


@pytest.mark.parametrize("end", [stop, HTTP2Link.send_eof])
def test_a_slow_reader_gets_the_last_response_whole(end: Callable[[HTTP2Link], None]) -> None:
    with linked2(Recorder(on_start=lambda told: ok(told, bytes(50_000))), write_timeout=10.0) as link:
        wide(link)
        link.stop_reading()
        number = link.request()
        end(link)
        for _ in range(26):
            link.loop.advance(1)
            link.read(2000)
        assert link.stream(number).ended
        assert link.stream(number).content == bytes(50_000)
        link.loop.advance(3)
        assert link.closed


def test_a_reader_that_stops_is_reset_at_the_end() -> None:
    with linked2(Recorder(on_start=lambda told: ok(told, bytes(50_000))), write_timeout=10.0) as link:
        wide(link)
        link.stop_reading()
        link.request()
        stop(link)
        link.loop.advance(24)
        assert link.closed


def test_what_has_come_before_the_peers_end_is_read_first() -> None:
    # More than one turn of the loop has units for: the rest waits while the peer's end is told.
    count = 600
    with linked2(Recorder(on_start=ok), http2=HTTP2Parameters(max_concurrent_streams=count)) as link:
        link.loop.call(ends_at_once, link, b"".join(link.headers(2 * n + 1) for n in range(count)))
        assert all(link.stream(2 * n + 1).ended for n in range(count))
        assert link.closed


def test_a_request_that_waits_for_its_turn_and_never_comes_whole_is_given_up_at_the_peers_end() -> None:
    with linked2(Recorder(), http2=HTTP2Parameters(max_concurrent_streams=1000)) as link:
        heads = [link.headers(2 * n + 1, ended=n < 599) for n in range(600)]
        link.loop.call(ends_at_once, link, b"".join(heads))
        assert len(link.told) == 600
        assert {tuple(told.calls) for told in link.told[:-1]} == {("start", "finish", "eof")}
        assert link.told[-1].calls == ["start", "closed"]
        assert not link.closed
        for told in link.told[:-1]:
            link.loop.call(ok, told)
        assert link.closed


def ends_at_once(link: HTTP2Link, wire: bytes) -> None:
    """Send *wire* and the end in one turn of the loop."""
    link.transport.peer_sends(wire)
    link.transport.peer_sends_eof()


def test_a_websocket_takes_a_stream_and_outlives_a_stop() -> None:
    class Echo(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            self.lost = True

        def data_received(self, data: bytes) -> None:
            self.transport.write(data.upper())

    protocol = Echo()

    def accept(told: Told) -> None:
        told.exchange.respond(200, [])
        told.exchange.send(b"", True)
        protocol.transport, rest, _ = told.exchange.take_stream(protocol)
        assert rest == b""

    http2 = HTTP2Parameters(extended_connect=True)
    with linked2(
        Recorder(on_start=lambda told: ok(told) if told.exchange.head.method == b"GET" else None), http2=http2
    ) as link:
        block = Encoder().encode([(":method", "CONNECT"), (":protocol", "websocket"), *GET[1:]])
        link.send(frame(HEADERS, 4, 1, block))
        link.loop.call(accept, link.told[0])
        assert (link.stream(1).status, link.stream(1).ended) == (200, False)
        link.data(1, b"a")
        assert link.stream(1).content == b"A"
        link.send(frame(HEADERS, 5, 3, head()))
        assert link.stream(3).content == b"ok"
        link.loop.call(link.connection.close_when_idle)
        link.loop.call(link.connection.abort)
        assert (link.ended, link.taken) == ([link.connection], True)
        link.data(1, b"b")
        assert link.stream(1).content == b"AB"
        link.loop.call(protocol.transport.close)
        assert link.stream(1).ended
        link.data(1, b"", ended=True)
        assert protocol.lost and link.transport.eof
