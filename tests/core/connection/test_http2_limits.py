"""Limits of HTTP/2 that take many streams, many bytes or much time to reach."""

from __future__ import annotations

import struct
from typing import Any, ClassVar

import pytest

from bridge.core.connection.interfaces import Observer
from bridge.core.connection.parameters import HTTP2Parameters
from bridge.core.http2.codes import (
    ENHANCE_YOUR_CALM,
    REFUSED_STREAM,
    SETTINGS_HEADER_TABLE_SIZE,
    SETTINGS_INITIAL_WINDOW_SIZE,
)
from tests.support.http2 import (
    CONTINUATION,
    DATA,
    HEADERS,
    PING,
    SETTINGS,
    WINDOW_UPDATE,
    HTTP2Link,
    frame,
    head,
    linked2,
)
from tests.support.link import Recorder, Told, ok


def test_no_stream_begins_while_128_that_were_reset_run_on() -> None:
    with linked2(Recorder()) as link:
        for _ in range(128):
            link.cancel(link.request())
        assert link.stream(link.request()).reset == REFUSED_STREAM
        link.told.clear()  # nobody has their exchanges any more
        number = link.request()
        link.loop.call(ok, link.told[0])
        assert link.stream(number).status == 200


def test_a_peer_that_does_not_answer_the_ping_of_a_stop_is_told_the_last_stream_after_a_second() -> None:
    with linked2(Recorder()) as link:
        link.request()
        link.loop.call(link.connection.close_when_idle)
        assert link.goaway is not None
        assert link.goaway.payload[:4] == struct.pack(">I", 2**31 - 1)
        link.loop.advance(2.5)
        assert link.goaway.payload[:4] == struct.pack(">I", 1)


def test_a_peer_that_goes_on_sending_after_its_fault_is_cut_off_after_a_mebibyte() -> None:
    with linked2(Recorder()) as link:
        link.send(frame(DATA, 0, 0, b"x"))  # content without a stream
        assert link.goaway is not None
        for _ in range(16):
            link.send(bytes(65536))
        assert not link.transport.is_closing()
        link.send(b"x")
        assert link.transport.is_closing()


def test_a_connection_that_is_cut_off_is_reset_after_a_moment_if_its_peer_reads_nothing() -> None:
    with linked2(Recorder()) as link:
        link.request()
        link.transport.window = 0
        link.loop.call(link.connection.abort)
        assert not link.transport.aborted
        link.loop.advance(2.0)
        assert link.transport.aborted


def window(link: HTTP2Link) -> int:
    """Return how much content the server has allowed in all on the connection."""
    updates = [item.payload for item in link.frames if item.kind == WINDOW_UPDATE and not item.stream]
    return 65535 + sum(int.from_bytes(payload) for payload in updates)


def test_content_that_no_delegate_takes_is_not_credited_beyond_a_mebibyte() -> None:
    with linked2(Recorder(on_start=lambda told: told.exchange.pause_reading())) as link:
        sent = 0
        while sent + 49152 <= window(link) and sent < 1 << 23:
            number = link.request(method="POST", ended=False)
            for _ in range(3):
                link.data(number, bytes(16384))
            sent += 49152
        assert 1 << 20 < sent <= 2 << 20
        for told in link.told:
            link.loop.call(told.exchange.resume_reading)
        assert window(link) > sent + (1 << 19)


def test_a_peer_that_takes_no_answers_is_not_read() -> None:
    def answer(told: Told) -> None:
        told.exchange.respond(200, [(b"x", b"v" * 4000)])
        told.exchange.send(b"", True)

    with linked2(Recorder(on_start=answer)) as link:
        link.transport.window = 0
        for _ in range(100):
            link.request()
            if not link.transport.is_reading():
                break
        assert not link.transport.is_reading()
        assert 131072 < link.transport.get_write_buffer_size() < 131072 + 8192
        link.loop.call(link.transport.peer_reads)
        assert link.transport.is_reading()


def test_window_updates_for_small_responses_that_are_complete_are_no_flood() -> None:
    """HAProxy sends both, however small the response is."""
    with linked2(Recorder(on_start=ok)) as link:
        for number in range(1, 6001, 2):
            link.request()
            link.open_window(number, 2)
            link.open_window(0, 2)
        assert link.goaway is None
        for _ in range(2100):
            link.open_window(0, 2)
        assert link.goaway is not None
        assert link.goaway.code == ENHANCE_YOUR_CALM


def test_each_8_kib_of_field_blocks_count_as_a_useless_frame() -> None:
    fields = (b"\0\x01x\x7f\xc1\x3d" + b"v" * 8000) * 3  # literals, which enter no table
    with linked2(Recorder(on_start=ok)) as link:
        count = 0
        while link.goaway is None and count < 1500:
            block = head() + fields
            number = 2 * count + 1
            link.send(frame(HEADERS, 1, number, block[:16384]) + frame(CONTINUATION, 4, number, block[16384:]))
            count += 1
        assert link.goaway is not None
        assert link.goaway.code == ENHANCE_YOUR_CALM
        assert count > 900  # a response pays for one of two


def test_writers_are_paused_when_all_streams_together_have_a_mebibyte_unsent() -> None:
    def begin(told: Told) -> None:
        told.exchange.respond(200, [])
        told.exchange.send(bytes(60000))

    with linked2(Recorder(on_start=begin), high_water=65536) as link:
        link.send(frame(SETTINGS, 0, 0, struct.pack(">HI", SETTINGS_INITIAL_WINDOW_SIZE, 0)))
        for _ in range(18):
            link.request()
        assert [told.exchange.write_paused for told in link.told] == [False] * 17 + [True]


def test_a_field_block_without_end_is_refused_after_64_kib() -> None:
    with linked2(Recorder()) as link:
        link.send(frame(HEADERS, 1, 1, bytes(16384)), *[frame(CONTINUATION, 0, 1, bytes(16384))] * 3)
        assert link.goaway is None
        link.send(frame(CONTINUATION, 0, 1, b"x"))
        assert link.goaway is not None
        assert link.goaway.code == ENHANCE_YOUR_CALM


def test_a_field_block_has_to_be_complete_in_the_time_for_a_head() -> None:
    with linked2(Recorder(), head_timeout=5.0, keep_alive_timeout=60.0) as link:
        link.send(frame(SETTINGS, 1, 0))  # the acknowledgement, which has a time, too
        link.send(frame(HEADERS, 1, 1, head()[:5]))
        link.loop.advance(4)
        assert link.goaway is None
        link.loop.advance(3)
        assert link.goaway is not None


def test_the_header_list_size_of_the_settings_holds() -> None:
    with linked2(Recorder(on_start=ok), http2=HTTP2Parameters(max_header_list_size=1000)) as link:
        assert link.stream(link.request(("x", "v" * 700))).status == 200
        assert link.stream(link.request(("x", "v" * 900))).status == 431


def test_a_stream_s_window_does_not_grow_beyond_the_setting() -> None:
    with linked2(Recorder(), http2=HTTP2Parameters(max_stream_window=65535)) as link:
        number = link.request(method="POST", ended=False)
        left, seen = 65535, 0
        for _ in range(100):
            link.data(number, bytes(16384))
            updates = [item for item in link.frames if item.kind == WINDOW_UPDATE and item.stream == number]
            left += sum(int.from_bytes(item.payload) for item in updates[seen:]) - 16384
            seen = len(updates)
            assert 16384 <= left <= 65535


def test_content_has_to_be_complete_in_its_time() -> None:
    with linked2(Recorder(), body_total_timeout=5.0, body_timeout=3.0) as link:
        number = link.request(method="POST", ended=False)
        for _ in range(4):
            link.loop.advance(1)
            link.data(number, bytes(1024))
        assert link.stream(number).reset is None
        link.loop.advance(2.5)
        assert link.stream(number).reset is not None or link.stream(number).status == 408


@pytest.mark.parametrize("answers", [False, True])
def test_a_silent_peer_is_asked_and_closed_if_it_does_not_answer(answers: bool) -> None:
    with linked2(Recorder(), http2=HTTP2Parameters(ping_interval=5.0)) as link:
        link.request()
        link.loop.advance(7)
        assert PING not in link.kinds()  # the request came meanwhile
        link.loop.advance(5)
        assert link.kinds()[-1] == PING
        if answers:
            link.send(frame(PING, 1, 0, link.frames[-1].payload))
        link.loop.advance(6)
        assert link.transport.is_closing() is not answers


@pytest.mark.parametrize("how", ["reset", "abort"])
def test_content_of_streams_that_were_reset_is_in_no_budget(how: str) -> None:
    def begin(told: Told) -> None:
        told.exchange.respond(200, [])
        told.exchange.send(bytes(60000))

    with linked2(Recorder(on_start=begin)) as link:
        link.send(frame(SETTINGS, 0, 0, struct.pack(">HI", SETTINGS_INITIAL_WINDOW_SIZE, 0)))
        streams = [link.request() for _ in range(3)]
        budget = link.clock.budgets.unsent
        assert budget.total == 180_000
        for stream, told in zip(streams, link.told, strict=True):
            if how == "reset":
                link.cancel(stream)
            else:
                link.loop.call(told.exchange.abort)
        assert budget.total == 0


def test_a_client_is_not_blamed_for_streams_that_are_refused_since_others_do_not_read() -> None:
    class Refusals(Observer):
        reasons: ClassVar[list[str]] = []

        def request_refused(self, connection: Any, reason: str) -> None:
            self.reasons.append(reason)

    with linked2(Recorder(), observer=Refusals()) as link:
        budget = link.clock.budgets.unsent
        budget.limit = 10
        first = link.request()
        budget.keep(11)
        budget.note_reader(link.connection.output, 1, anew=True)
        for _ in range(300):
            assert link.stream(link.request()).reset == REFUSED_STREAM
        assert link.goaway is None
        assert set(Refusals.reasons) == {"budget"}
        link.loop.call(ok, link.told[0])
        assert link.stream(first).status == 200
        assert link.stream(link.request()).reset is None  # one at a time is served
        budget.release(11)


@pytest.mark.parametrize("pauses", [False, True])
def test_a_peer_that_waits_for_100_has_its_time_from_then_on(pauses: bool) -> None:
    with linked2(Recorder()) as link:
        number = link.request(("expect", "100-continue"), ("content-length", "5"), method="POST", ended=False)
        link.loop.advance(100)
        exchange = link.told[0].exchange
        if pauses:
            link.loop.call(exchange.pause_reading)
            link.loop.call(exchange.resume_reading)
            link.loop.advance(100)
        assert link.stream(number).fields == []
        link.loop.call(exchange.send_continue)
        link.loop.advance(29)
        assert link.stream(number).fields == []
        link.loop.advance(3)
        assert link.stream(number).status == 408


def test_a_peer_that_does_not_wait_for_100_has_no_more_time_than_others() -> None:
    with linked2(Recorder()) as link:
        number = link.request(("expect", "100-continue"), ("content-length", "5"), method="POST", ended=False)
        link.data(number, b"x")
        link.loop.advance(32)
        assert link.stream(number).status == 408


@pytest.mark.parametrize("early", ["an answer", "a refusal", "a malformed head"])
def test_small_content_that_was_on_its_way_to_a_stream_that_was_reset_is_no_fault(early: str) -> None:
    recorder = Recorder(on_start=ok) if early == "an answer" else Recorder()
    limit = 70_000 if early == "a refusal" else None
    with linked2(recorder, max_body_size=limit) as link:
        for _ in range(3):
            fields = [] if early == "an answer" else [("content-length", "100000")]
            if early == "a malformed head":
                fields.append(("connection", "close"))
            stream = link.request(*fields, method="POST", ended=False)
            assert link.stream(stream).reset is not None
            link.send(frame(DATA, 0, stream, bytes(50)) * 1300)  # 65,000 bytes
        assert link.goaway is None
        link.send(frame(DATA, 0, stream, bytes(50)) * 1100)
        assert link.goaway is not None
        assert link.goaway.code == ENHANCE_YOUR_CALM


@pytest.mark.parametrize(("method", "window", "length"), [("GET", 0, 0), ("GET", 65535, 27), ("HEAD", 0, 27)])
def test_an_answer_of_the_server_s_own_declares_the_content_that_it_has(method: str, window: int, length: int) -> None:
    with linked2(Recorder(on_finish=lambda told: told.exchange.fail())) as link:
        link.send(frame(SETTINGS, 0, 0, struct.pack(">HI", SETTINGS_INITIAL_WINDOW_SIZE, window)))
        stream = link.stream(link.request(method=method))
        assert (stream.status, stream.ended, stream.reset) == (500, True, None)
        assert dict(stream.fields)[b"content-length"] == str(length).encode()
        assert len(stream.content) == (0 if method == "HEAD" else length)


def test_each_size_of_the_table_in_one_frame_of_settings_counts() -> None:
    with linked2(Recorder(on_finish=ok)) as link:
        sizes = b"".join(struct.pack(">HI", SETTINGS_HEADER_TABLE_SIZE, size) for size in (0, 4096))
        link.send(frame(SETTINGS, 0, 0, sizes))
        link.request()
        (answer,) = [item for item in link.frames if item.kind == HEADERS]
        assert answer.payload.startswith(b"\x20\x3f\xe1\x1f\x88")  # sizes 0 and 4096, then the status
