from __future__ import annotations

import asyncio
import re
import socket
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.http.message import ResponseHead
from bridge.errors import ConnectionGone, LocalProtocolError
from tests.support.link import GET, POST, Link, Recorder, Told, linked, ok

HEAD = b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n"
GET_1_0 = b"GET / HTTP/1.0\r\n\r\n"
GET_1_0_KEEP = b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
RESET = (socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def answering(status: int, fields: list[tuple[bytes, bytes]], *parts: bytes, trailers: Any = None) -> Recorder:
    """Answer every request with these parts of content, the last of them with the end."""

    def answer(told: Told) -> None:
        exchange = told.exchange
        exchange.respond(status, fields)
        for part in parts[:-1]:
            exchange.send(part)
        if trailers is None:
            exchange.send(parts[-1] if parts else b"", True)
        else:
            for part in parts[-1:]:
                exchange.send(part)
            exchange.end(trailers)

    return Recorder(on_finish=answer)


# ---------------------------------------------------------------------- framing


@pytest.mark.parametrize(
    ("wire", "status", "fields", "parts", "framing", "content"),
    [
        # the whole content at once: its length
        (GET, 200, [], (b"hello",), b"content-length: 5", b"hello"),
        (GET, 200, [], (), b"content-length: 0", b""),
        (GET, 404, [], (b"x" * 100000,), b"content-length: 100000", b"x" * 100000),
        (GET_1_0, 200, [], (b"hello",), b"content-length: 5", b"hello"),
        # in parts: chunks, or to the end of the connection for HTTP/1.0
        (GET, 200, [], (b"hel", b"lo"), b"transfer-encoding: chunked", b"hello"),
        (GET, 200, [], (b"", b""), b"transfer-encoding: chunked", b""),
        (GET, 200, [], (b"hel", b"", b"lo", b""), b"transfer-encoding: chunked", b"hello"),
        (
            GET,
            200,
            [],
            (b"x" * 40000, b"y" * 40000, b"z" * 40000),
            b"transfer-encoding: chunked",
            b"x" * 40000 + b"y" * 40000 + b"z" * 40000,
        ),
        (GET_1_0, 200, [], (b"hel", b"lo"), None, b"hello"),
        (GET_1_0_KEEP, 200, [], (b"hel", b"lo"), None, b"hello"),
        # a declared length is kept
        (GET, 200, [(b"Content-Length", b"5")], (b"hello",), b"content-length: 5", b"hello"),
        (GET, 200, [(b"content-length", b"5")], (b"h", b"", b"ell", b"o"), b"content-length: 5", b"hello"),
        (GET, 200, [(b"content-length", b"5")], (b"hello", b""), b"content-length: 5", b"hello"),
        (GET, 200, [(b"content-length", b"0")], (), b"content-length: 0", b""),
        (
            GET,
            200,
            [(b"content-length", b"80000")],
            (b"x" * 40000, b"y" * 40000),
            b"content-length: 80000",
            b"x" * 40000 + b"y" * 40000,
        ),
        (GET_1_0, 200, [(b"content-length", b"5")], (b"hel", b"lo"), b"content-length: 5", b"hello"),
        # the framing is the server's
        (GET, 200, [(b"Transfer-Encoding", b"chunked")], (b"hello",), b"content-length: 5", b"hello"),
        (
            GET,
            200,
            [(b"Transfer-Encoding", b"gzip"), (b"Content-Length", b"5")],
            (b"hello",),
            b"content-length: 5",
            b"hello",
        ),
        (GET_1_0, 200, [(b"Transfer-Encoding", b"chunked")], (b"hel", b"lo"), None, b"hello"),
        # no content by definition
        (HEAD, 200, [], (b"hello",), None, b""),
        (HEAD, 200, [], (b"hel", b"lo"), None, b""),
        (HEAD, 200, [(b"content-length", b"5")], (b"hello",), b"content-length: 5", b""),
        (HEAD, 200, [(b"content-length", b"5")], (), b"content-length: 5", b""),
        (HEAD, 200, [(b"content-length", b"5")], (b"hello", b"world"), b"content-length: 5", b""),
        (GET, 204, [], (b"body",), None, b""),
        (GET, 204, [(b"content-length", b"4")], (b"bo", b"dy"), None, b""),
        (GET, 304, [], (b"body",), None, b""),
        (GET, 304, [(b"content-length", b"4")], (b"bo", b"dy"), b"content-length: 4", b""),
        (HEAD, 304, [], (), None, b""),
        (HEAD, 204, [(b"content-length", b"4")], (), None, b""),
    ],
)
def test_framing(
    wire: bytes,
    status: int,
    fields: list[tuple[bytes, bytes]],
    parts: tuple[bytes, ...],
    framing: bytes | None,
    content: bytes,
) -> None:
    method = wire[:4].decode().strip()
    with linked(answering(status, fields, *parts)) as link:
        link.send(wire)
        response = link.response(method)
        assert (response.status, response.content, response.complete) == (status, content, True)
        found = [
            b"%b: %b" % field for field in response.fields if field[0] in {b"content-length", b"transfer-encoding"}
        ]
        assert found == ([] if framing is None else [framing])
        told = link.told[0]
        assert told.calls == ["start", "finish"]
        assert told.exchange.finished
        assert told.exchange.status == status
        assert told.exchange.content_sent == len(content)
        # Until the end of the connection, or so that the connection can go on.
        assert link.closed is (
            b"HTTP/1.0" in wire and (b"keep-alive" not in wire or (framing is None and status == 200))
        )
        if not link.closed:
            link.send(wire)
            assert len(link.responses(method, method)) == 2


def test_content_of_head_and_204_never_reaches_the_wire_however_it_is_sent() -> None:
    for wire, status in ((HEAD, 200), (GET, 204), (GET, 304)):
        for parts in ((b"leak",), (b"leak", b"leak"), (b"", b"leak"), (b"leak" * 10000, b"leak" * 10000)):
            with linked(answering(status, [], *parts)) as link:
                link.send(wire)
                assert b"leak" not in link.received
                assert link.received.endswith(b"\r\n\r\n")


def test_an_empty_part_sends_the_head_at_once() -> None:
    with linked(Recorder()) as link:
        link.send(GET)
        exchange = link.told[0].exchange
        exchange.respond(200, [])
        assert link.received == b""
        assert not exchange.response_started
        exchange.send(b"")
        assert exchange.response_started
        assert link.received.endswith(b"transfer-encoding: chunked\r\n\r\n")
        exchange.send(b"x")
        assert link.received.endswith(b"\r\n\r\n1\r\nx\r\n")
        assert not exchange.finished
        exchange.send(b"", True)
        assert link.response().chunks == (1,)


def test_every_write_is_one_write() -> None:
    writes: list[bytes] = []
    with linked(answering(200, [(b"x", b"y")], b"hello")) as link:
        real = link.transport.write
        link.transport.write = lambda data: (writes.append(bytes(data)), real(data))[1]  # type: ignore[method-assign]
        link.send(GET)
    assert len(writes) == 1


def test_any_bytes_may_be_sent() -> None:
    for kind in (bytes, bytearray, memoryview):
        for size in (3, 50000):
            data = kind(b"x" * size)
            for declared in (False, True):
                fields = [(b"content-length", b"%d" % (3 * size))] if declared else []
                with linked(answering(200, fields, data, data, data)) as link:
                    link.send(GET)
                    assert link.response().content == b"x" * size * 3


# ---------------------------------------------------------------------- the head


def test_the_head_has_date_and_server_where_the_application_has_none() -> None:
    for fields, date, server in [
        ([], None, b"bridge"),
        ([(b"Date", b"today")], b"today", b"bridge"),
        ([(b"server", b"me")], None, b"me"),
        ([(b"server", b"me"), (b"date", b"today")], b"today", b"me"),
    ]:
        with linked(answering(200, fields, b"x")) as link:
            link.send(GET)
            response = link.response()
            assert response[b"server"] == server
            found = response[b"date"]
            assert found is not None
            if date is None:
                assert re.fullmatch(rb"[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT", found)
            else:
                assert found == date


def test_fields_keep_their_order_and_their_spelling() -> None:
    with linked(answering(200, [(b"X-B", b"1"), (b"x-a", b"2"), (b"X-B", b"3")], b"x")) as link:
        link.send(GET)
        assert b"\r\nX-B: 1\r\nx-a: 2\r\nX-B: 3\r\n" in link.received


def test_reasons() -> None:
    def answer(told: Told) -> None:
        told.exchange.respond(299, [], b"Odd \xe9")
        told.exchange.send(b"", True)

    with linked(Recorder(on_finish=answer)) as link:
        link.send(GET)
        assert link.received.startswith(b"HTTP/1.1 299 Odd \xe9\r\n")


@pytest.mark.parametrize(
    ("wire", "fields", "connection"),
    [
        (GET, [], None),
        (GET, [(b"Connection", b"close")], b"close"),
        (GET, [(b"Connection", b"keep-alive"), (b"Keep-Alive", b"timeout=999")], None),
        (GET, [(b"Connection", b"x, Close")], b"close"),
        (GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), [], b"close"),
        (GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"), [(b"Connection", b"keep-alive")], b"close"),
        # HTTP/1.0 closes unless both say otherwise
        (GET_1_0, [], None),
        (GET_1_0, [(b"Connection", b"keep-alive")], None),
        (GET_1_0_KEEP, [], b"keep-alive"),
        (GET_1_0_KEEP, [(b"Connection", b"close")], None),
    ],
)
def test_persistence_is_announced_and_kept(wire: bytes, fields: Any, connection: bytes | None) -> None:
    with linked(answering(200, fields, b"x")) as link:
        link.send(wire)
        response = link.response()
        found = response[b"connection"]
        assert (found if found is None else found.lower()) == connection
        assert response[b"keep-alive"] is None
        assert link.closed is (connection == b"close" or (connection is None and b"HTTP/1.0" in wire))


def test_a_head_may_be_replaced_until_it_is_sent() -> None:
    def answer(told: Told) -> None:
        told.exchange.respond(200, [(b"x", b"1"), (b"content-length", b"99"), (b"connection", b"close")])
        told.exchange.respond(404, [(b"x", b"2")])
        told.exchange.send(b"gone", True)

    with linked(Recorder(on_finish=answer)) as link:
        link.send(GET)
        response = link.response()
        assert (response.status, response[b"x"], response[b"connection"], response.content) == (
            404,
            b"2",
            None,
            b"gone",
        )


def test_a_ready_made_head_may_be_sent_any_number_of_times() -> None:
    head = ResponseHead(200, [(b"x", b"y")])

    def answer(told: Told) -> None:
        told.exchange.respond_with(head.with_length(3) if len(link.told) == 2 else head)
        told.exchange.send(b"abc", True)

    with linked(Recorder(on_finish=answer)) as link:
        link.send(GET, GET, GET)
        assert [response.content for response in link.responses()] == [b"abc"] * 3
        exchange = link.told[0].exchange
        with pytest.raises(LocalProtocolError):
            exchange.respond_with(head)


def test_a_head_that_is_sent_again_has_the_date_of_the_time_and_the_server_it_is_sent_by() -> None:
    head, sized = ResponseHead(200, [(b"x", b"y")]), ResponseHead(200, [(b"content-length", b"2"), (b"x", b"y")])

    def answer(told: Told) -> None:
        told.exchange.respond_with(sized if told.exchange.head.target == b"/sized" else head)
        told.exchange.send(b"ok", True)

    for common in (b"date: 1\r\n", b"date: 2\r\nserver: a\r\n", b"", b"date: 2\r\n"):
        with linked(Recorder(on_finish=answer)) as link:
            link.connection.clock.default_fields = common
            link.send(GET, GET, GET.replace(b"/", b"/sized", 1), GET)
            whole = b"HTTP/1.1 200 OK\r\n%bx: y\r\ncontent-length: 2\r\n\r\nok" % common
            other = b"HTTP/1.1 200 OK\r\n%bcontent-length: 2\r\nx: y\r\n\r\nok" % common
            assert link.received == whole + whole + other + whole


# ---------------------------------------------------------------------- what the application must not do


def unsent(link: Link) -> Told:
    link.send(GET)
    return link.told[-1]


@pytest.mark.parametrize(
    ("status", "fields", "reason"),
    [
        *((status, [], b"") for status in (0, 99, 100, 102, 103, 199, 1000, -1)),
        (200, [(b"x", b"a\r\nInjected: yes")], b""),
        (200, [(b"x\r\nInjected: yes\r\ny", b"z")], b""),
        (200, [(b"x", b"a\0")], b""),
        (200, [(b"x y", b"a")], b""),
        (200, [("x", "y")], b""),
        (200, [(b"content-length", b"x")], b""),
        (200, [(b"content-length", b"1"), (b"content-length", b"2")], b""),
        (200, [], b"OK\r\nInjected: yes"),
    ],
)
def test_an_illegal_head_is_refused_before_anything_is_sent(status: int, fields: Any, reason: bytes) -> None:
    with linked(Recorder()) as link:
        exchange = unsent(link).exchange
        with pytest.raises(LocalProtocolError):
            exchange.respond(status, fields, reason)
        assert link.received == b""
        exchange.fail()
        link.loop.settle()
        response = link.response()
        assert (response.status, response.closes) == (500, True)
        assert b"Injected" not in link.received


def test_content_before_the_head() -> None:
    with linked(Recorder()) as link:
        exchange = unsent(link).exchange
        for call in (lambda: exchange.send(b"x"), lambda: exchange.send(b"", True), lambda: exchange.end([])):
            with pytest.raises(LocalProtocolError):
                call()
        assert link.received == b""


def test_a_second_head_and_content_after_the_end() -> None:
    with linked(Recorder()) as link:
        exchange = unsent(link).exchange
        exchange.respond(200, [])
        exchange.send(b"x")
        with pytest.raises(LocalProtocolError):
            exchange.respond(200, [])
        with pytest.raises(LocalProtocolError):
            exchange.inform(103, [])
        exchange.send(b"y", True)
        before = link.received
        for call in (
            lambda: exchange.send(b"z"),
            lambda: exchange.send(b"", True),
            lambda: exchange.end([]),
            lambda: exchange.respond(200, []),
            lambda: exchange.inform(103, []),
        ):
            with pytest.raises(LocalProtocolError):
                call()
        exchange.fail()
        link.loop.settle()
        assert link.received == before
        assert link.response().content == b"xy"
        assert not link.closed


@pytest.mark.parametrize("wire", [GET, GET_1_0, GET_1_0_KEEP])
@pytest.mark.parametrize("parts", [(b"1234567890",), (b"123", b"4567890"), (b"12345", b"67890"), (b"12345", b"6")])
def test_never_more_than_the_declared_length_is_sent(wire: bytes, parts: tuple[bytes, ...]) -> None:
    with linked(Recorder()) as link:
        link.send(wire)
        exchange = link.told[0].exchange
        exchange.respond(200, [(b"content-length", b"5")])
        with pytest.raises(LocalProtocolError):
            for part in parts:
                exchange.send(part)
        link.loop.settle()
        response = link.response()
        assert (response.content, response.complete) == (b"12345", True)
        assert link.closed
        assert exchange.finished
        assert exchange.content_sent == 5


def test_content_beside_a_length_of_zero_is_never_sent() -> None:
    for parts in ((b"x",), (b"", b"x"), (b"x" * 50000,)):
        with linked(Recorder()) as link:
            exchange = unsent(link).exchange
            exchange.respond(200, [(b"content-length", b"0")])
            with pytest.raises(LocalProtocolError):
                for part in parts:
                    exchange.send(part)
            link.loop.settle()
            assert link.received.endswith(b"\r\n\r\n")
            assert link.response().complete
            assert link.closed


@pytest.mark.parametrize("parts", [(b"123",), (b"1", b"23"), (b"123", b""), (b"",), (b"x" * 40000,)])
def test_a_response_that_is_too_short_is_seen_to_be(parts: tuple[bytes, ...]) -> None:
    with linked(Recorder()) as link:
        told = unsent(link)
        told.exchange.respond(200, [(b"content-length", b"50000")])
        with pytest.raises(LocalProtocolError):
            for part in parts[:-1]:
                told.exchange.send(part)
            told.exchange.send(parts[-1], True)
        link.loop.settle()
        response = link.response()
        assert (response.content, response.complete) == (b"".join(parts), False)
        assert told.exchange.content_sent == len(response.content)
        assert link.closed
        assert told.calls == ["start", "finish", "closed"]
        with pytest.raises(ConnectionGone):
            told.exchange.send(b"x")


def test_a_wrong_length_does_not_answer_the_next_request() -> None:
    def answer(told: Told) -> None:
        told.exchange.respond(200, [(b"content-length", b"5")])
        told.exchange.send(b"123" if told.exchange.head.path == b"/short" else b"1234567890", True)

    for path in (b"/short", b"/long"):
        with linked(Recorder(on_finish=answer), raises=LocalProtocolError) as link:
            link.send(GET.replace(b" / ", b" %b " % path) + GET)
            assert len(link.told) == 1
            assert len(link.responses()) == 1
            assert link.transport.eof


# ---------------------------------------------------------------------- interim responses and trailers


def test_interim_responses() -> None:
    def answer(told: Told) -> None:
        told.exchange.inform(103, [(b"link", b"</a>"), (b"content-length", b"5"), (b"connection", b"close")])
        told.exchange.inform(102, [])
        ok(told)

    with linked(Recorder(on_finish=answer)) as link:
        link.send(GET)
        response = link.response()
        assert response.interim == ((103, ((b"link", b"</a>"),)), (102, ()))
        assert (response.status, response.content) == (200, b"ok")
    with linked(Recorder(on_finish=answer)) as link:
        link.send(GET_1_0)
        assert link.response().interim == ()


@pytest.mark.parametrize(
    ("status", "fields"), [(100, []), (101, []), (200, []), (99, []), (103, [(b"x", b"a\r\nb: c")])]
)
def test_illegal_interim_responses(status: int, fields: Any) -> None:
    with linked(Recorder()) as link:
        exchange = unsent(link).exchange
        with pytest.raises(LocalProtocolError):
            exchange.inform(status, fields)
        assert link.received == b""


def test_trailers() -> None:
    fields = [(b"X-Sum", b"1"), (b"x-b", b"2"), (b"content-length", b"9"), (b"transfer-encoding", b"x")]
    with linked(answering(200, [], b"hel", b"lo", trailers=fields)) as link:
        link.send(GET, GET)
        for response in link.responses():
            assert (response.content, response.trailers) == (b"hello", ((b"x-sum", b"1"), (b"x-b", b"2")))
    with linked(answering(200, [], trailers=fields)) as link:
        link.send(GET)
        assert (link.response().content, link.response().trailers) == (b"", ((b"x-sum", b"1"), (b"x-b", b"2")))


@pytest.mark.parametrize(
    ("wire", "status", "fields", "content"),
    [
        (GET, 200, [(b"content-length", b"5")], b"hello"),
        (GET_1_0, 200, [], b"hello"),
        (HEAD, 200, [], b""),
        (GET, 204, [], b""),
        (GET, 304, [], b""),
    ],
)
def test_trailers_are_left_out_where_there_is_no_room_for_them(
    wire: bytes, status: int, fields: Any, content: bytes
) -> None:
    with linked(answering(status, fields, b"hel", b"lo", trailers=[(b"x-sum", b"1")])) as link:
        link.send(wire)
        response = link.response(wire[:4].decode().strip())
        assert (response.content, response.complete, response.trailers) == (content, True, ())
        assert b"x-sum" not in link.received


def test_illegal_trailers_and_none() -> None:
    with linked(Recorder()) as link:
        exchange = unsent(link).exchange
        exchange.respond(200, [])
        exchange.send(b"x")
        with pytest.raises(LocalProtocolError):
            exchange.end([(b"x", b"a\r\nb: c")])
        assert not exchange.finished
        exchange.end([])
        assert link.response().complete


# ---------------------------------------------------------------------- 100 (Continue)

EXPECT = POST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n"


def test_continue_is_sent_when_it_is_asked_for_and_once() -> None:
    with linked(Recorder(on_finish=ok)) as link:
        link.send(EXPECT)
        assert link.received == b""
        exchange = link.told[0].exchange
        exchange.send_continue()
        exchange.send_continue()
        assert link.received == b"HTTP/1.1 100 Continue\r\n\r\n"
        link.send(b"hello")
        assert link.response().interim == ((100, ()),)
        assert link.told[0].data == b"hello"
        assert not link.closed


def test_continue_is_not_sent_when_content_came_without_it() -> None:
    with linked(Recorder(on_data=lambda told, chunk: told.exchange.send_continue(), on_finish=ok)) as link:
        link.send(EXPECT + b"h", b"ello")
        assert link.response().interim == ()
        assert link.response().status == 200
        assert not link.closed


@pytest.mark.parametrize(
    "wire",
    [
        EXPECT.replace(b"HTTP/1.1", b"HTTP/1.0"),
        EXPECT.replace(b"100-continue", b"200-ok"),
        EXPECT.replace(b"Content-Length: 5", b"Content-Length: 0"),
    ],
)
def test_continue_is_not_sent_to_who_does_not_wait_for_it(wire: bytes) -> None:
    with linked(Recorder(on_start=lambda told: told.exchange.send_continue(), on_finish=ok)) as link:
        link.send(wire, b"hello"[: 5 if b": 5" in wire else 0])
        assert link.response().interim == ()


def test_continue_is_not_sent_after_the_response_began_or_the_peer_left() -> None:
    with linked(Recorder()) as link:
        link.send(EXPECT)
        exchange = link.told[0].exchange
        exchange.respond(200, [])
        exchange.send(b"x")
        exchange.send_continue()
        exchange.send(b"y", True)
        exchange.send_continue()
        link.loop.settle()
        assert link.response().interim == ()
        # Nobody read the content, and the client may be about to send it: the connection cannot go on.
        assert link.transport.eof
    with linked(Recorder()) as link:
        link.send(EXPECT)
        link.reset()
        link.told[0].exchange.send_continue()
        assert link.received == b""


def test_a_response_without_reading_expected_content_closes_and_says_so() -> None:
    with linked(Recorder(on_start=ok)) as link:
        link.send(EXPECT)
        response = link.response()
        assert (response.status, response.closes, response.interim) == (200, True, ())
        # What comes now is content, however it looks.
        link.send(GET)
        assert len(link.told) == 1
        assert len(link.responses()) == 1


# ---------------------------------------------------------------------- 101 and 426


def test_101_carries_upgrade_and_connection_and_nothing_else_of_its_framing() -> None:
    wire = GET.replace(b"\r\n\r\n", b"\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")

    def answer(told: Told) -> None:
        assert told.exchange.head.upgrade == b"websocket"
        told.exchange.respond(
            101, [(b"Upgrade", b"websocket"), (b"Connection", b"Upgrade"), (b"content-length", b"5"), (b"x", b"y")]
        )
        told.exchange.send(b"dropped", True)

    with linked(Recorder(on_finish=answer)) as link:
        link.send(wire)
        head, _, rest = link.received.partition(b"\r\n\r\n")
        assert rest == b""
        lines = head.lower().split(b"\r\n")
        assert lines[0] == b"http/1.1 101 switching protocols"
        assert lines.count(b"connection: upgrade") == lines.count(b"upgrade: websocket") == 1
        assert not [line for line in lines if line.startswith((b"content-length", b"transfer-encoding"))]


@pytest.mark.parametrize(
    "wire",
    [
        GET,
        GET.replace(b"\r\n\r\n", b"\r\nUpgrade: websocket\r\n\r\n"),
        GET_1_0.replace(b"\r\n\r\n", b"\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"),
    ],
)
def test_101_answers_only_who_asked_for_it(wire: bytes) -> None:
    with linked(Recorder()) as link:
        link.send(wire)
        with pytest.raises(LocalProtocolError):
            link.told[0].exchange.respond(101, [(b"upgrade", b"websocket")])
        with pytest.raises(LocalProtocolError):
            link.told[0].exchange.respond_with(ResponseHead(101, [(b"upgrade", b"websocket")]))


def test_101_does_not_hand_content_to_the_next_protocol() -> None:
    # Whoever takes the transport would read the request's content as its own bytes.
    upgrade = b"Connection: upgrade\r\nUpgrade: websocket\r\n"
    for framing in (b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"):
        with linked(Recorder()) as link:
            link.send(POST + upgrade + framing + b"\r\n")
            with pytest.raises(LocalProtocolError):
                link.told[0].exchange.respond(101, [(b"upgrade", b"websocket")])
    with linked(Recorder()) as link:
        link.send(POST + upgrade + b"Content-Length: 5\r\n\r\nhello")
        assert link.told[0].calls == ["start", "data", "finish"]
        link.told[0].exchange.respond(101, [(b"upgrade", b"websocket")])


def test_upgrade_is_told_with_426_only_and_when_there_is_something_to_tell() -> None:
    for status, fields in ((426, []), (200, [(b"upgrade", b"websocket")])):
        for wire, connection in ((GET, None), (GET_1_0, None), (GET_1_0_KEEP, b"Keep-Alive")):
            with linked(answering(status, fields, b"no")) as link:
                link.send(wire)
                response = link.response()
                assert (response.status, response.content) == (status, b"no")
                assert response[b"upgrade"] is None
                assert response[b"connection"] == connection


def test_a_whole_response_is_the_only_one() -> None:
    head = ResponseHead(200, [])
    for begin in (
        lambda exchange: exchange.send_first(head, b"x"),
        lambda exchange: (exchange.respond_with(head), exchange.send(b"x")),
    ):
        with linked(Recorder()) as link:
            link.send(GET)
            exchange = link.told[0].exchange
            begin(exchange)
            link.loop.settle()
            before = link.received
            with pytest.raises(LocalProtocolError):
                exchange.send_first(ResponseHead(404, []), b"another")
            link.loop.settle()
            assert (link.received, exchange.status) == (before, 200)
    with linked(Recorder()) as link:
        link.send(GET)
        exchange = link.told[0].exchange
        with pytest.raises(LocalProtocolError, match="did not ask"):
            exchange.send_first(ResponseHead(101, [(b"upgrade", b"websocket")]), b"")
        ok(link.told[0])
        link.reset()
    with linked(Recorder()) as link:
        link.send(GET)
        link.reset()
        with pytest.raises(ConnectionGone):
            link.told[0].exchange.send_first(head, b"x")


def test_426_says_what_to_upgrade_to() -> None:
    for wire, connection in ((GET, b"upgrade"), (GET_1_0, b"upgrade, close")):
        with linked(answering(426, [(b"Upgrade", b"websocket")], b"no")) as link:
            link.send(wire)
            response = link.response()
            assert (response[b"upgrade"], response[b"connection"]) == (b"websocket", connection)
            assert link.closed is (wire is GET_1_0)


# ---------------------------------------------------------------------- failing


def test_fail_answers_500_when_nothing_was_sent() -> None:
    for method in ("GET", "HEAD"):
        with linked(Recorder(on_finish=lambda told: told.exchange.fail())) as link:
            link.send(b"%b / HTTP/1.1\r\nHost: a\r\n\r\n" % method.encode() + GET)
            response = link.response(method)
            assert (response.status, response.closes, response.complete) == (500, True, True)
            assert response.content == (b"" if method == "HEAD" else b"500 Internal Server Error\r\n")
            assert link.told[0].calls == ["start", "finish", "closed"]
            assert len(link.told) == 1


def test_fail_with_another_status() -> None:
    with linked(Recorder(on_finish=lambda told: told.exchange.fail(503))) as link:
        link.send(GET)
        assert (link.response().status, link.told[0].exchange.status) == (503, 503)


@pytest.mark.parametrize(
    ("wire", "fields", "reset"),
    [(GET, [], False), (GET, [(b"content-length", b"10")], False), (GET_1_0, [], True)],
)
def test_fail_in_the_middle_is_seen_by_the_client(wire: bytes, fields: Any, reset: bool) -> None:
    with linked(Recorder()) as link:
        link.send(wire)
        told = link.told[0]
        told.exchange.respond(200, fields)
        told.exchange.send(b"part")
        told.exchange.fail()
        link.loop.settle()
        assert link.closed
        assert link.transport.aborted is reset
        assert (RESET in link.transport.socket.options) is reset
        assert told.calls == ["start", "finish", "closed"]
        if not reset:
            assert (link.response().content, link.response().complete) == (b"part", False)


def test_abort_resets_at_every_stage() -> None:
    def part(told: Told) -> None:
        told.exchange.respond(200, [])
        told.exchange.send(b"part")

    for prepare in (lambda told: None, lambda told: told.exchange.respond(200, []), part):
        with linked(Recorder(on_finish=prepare)) as link:
            link.send(GET)
            told = link.told[0]
            told.exchange.abort()
            told.exchange.abort()
            link.loop.settle()
            assert link.transport.aborted
            assert RESET in link.transport.socket.options
            assert told.calls == ["start", "finish", "closed"]
            assert told.exchange.finished


def test_abort_of_a_finished_exchange_leaves_the_next_one_alone() -> None:
    with linked(Recorder()) as link:
        link.send(GET)
        first = link.told[0]
        ok(first)
        link.send(GET)
        first.exchange.abort()
        first.exchange.fail()
        first.exchange.pause_reading()
        first.exchange.resume_reading()
        ok(link.told[1])
        link.loop.settle()
        assert len(link.responses()) == 2
        assert not link.closed


def test_everything_after_the_peer_left() -> None:
    with linked(Recorder()) as link:
        link.send(GET)
        told = link.told[0]
        told.exchange.respond(200, [])
        link.reset()
        assert told.calls == ["start", "finish", "closed"]
        exchange = told.exchange
        for call in (
            lambda: exchange.respond(200, []),
            lambda: exchange.respond_with(ResponseHead(200, [])),
            lambda: exchange.send(b"x"),
            lambda: exchange.send(b"", True),
            lambda: exchange.end([(b"a", b"b")]),
            lambda: exchange.inform(103, []),
        ):
            with pytest.raises(ConnectionGone):
                call()
        assert exchange.finished
        assert not exchange.write_paused
        exchange.fail()
        exchange.abort()
        exchange.pause_reading()
        exchange.resume_reading()
        exchange.send_continue()
        with pytest.raises(ConnectionGone):
            link.loop.run_until_complete(exchange.drained())


def test_drained_waits_for_the_peer_to_read() -> None:
    async def stream(told: Told, done: list[str]) -> None:
        told.exchange.respond(200, [])
        for _ in range(4):
            told.exchange.send(b"x" * 60000)
            if told.exchange.write_paused:
                done.append("paused")
                await told.exchange.drained()
        told.exchange.send(b"", True)
        await told.exchange.drained()
        done.append("done")

    with linked(Recorder(), high_water=65536) as link:
        done: list[str] = []
        link.stop_reading()
        link.send(GET)
        task = link.loop.create_task(stream(link.told[0], done))
        link.loop.settle()
        assert done == ["paused"]
        assert link.transport.peak < 65536 + 60100
        link.read(60000)
        assert done == ["paused"]  # below the high-water mark is not yet below the low one
        link.read()
        assert task.done()
        assert done[-1] == "done"
        assert len(link.response().content) == 240000


def test_drained_fails_when_the_peer_leaves() -> None:
    with linked(Recorder()) as link:
        link.stop_reading()
        link.send(GET)
        exchange = link.told[0].exchange
        exchange.respond(200, [])
        exchange.send(b"x" * 100000)
        assert exchange.write_paused
        tasks = [link.loop.create_task(exchange.drained()) for _ in range(3)]
        link.loop.settle()
        tasks[0].cancel()
        link.loop.settle()
        link.reset()
        assert tasks[0].cancelled()
        for task in tasks[1:]:
            with pytest.raises(ConnectionGone):
                task.result()


# ---------------------------------------------------------------------- any sequence of calls

CALLS = st.one_of(
    st.tuples(st.just("respond"), st.sampled_from([100, 101, 200, 204, 304, 500])),
    st.tuples(st.just("length"), st.integers(0, 6)),
    st.tuples(st.just("send"), st.binary(max_size=4)),
    st.tuples(st.just("last"), st.binary(max_size=4)),
    st.tuples(
        st.sampled_from(["end", "inform", "continue", "fail", "abort", "pause", "resume", "eof", "content"]), st.none()
    ),
)


@given(wire=st.sampled_from([GET, HEAD, GET_1_0, GET_1_0_KEEP, EXPECT]), calls=st.lists(CALLS, max_size=8))
def test_whatever_is_called_the_client_gets_responses_or_an_end(wire: bytes, calls: list[tuple[str, Any]]) -> None:
    with linked(Recorder()) as link:
        link.send(wire)
        told = link.told[0]
        exchange = told.exchange
        for call, argument in calls:
            try:
                match call:
                    case "respond":
                        exchange.respond(argument, [])
                    case "length":
                        exchange.respond(200, [(b"content-length", b"%d" % argument)])
                    case "send":
                        exchange.send(argument)
                    case "last":
                        exchange.send(argument, True)
                    case "end":
                        exchange.end([(b"x", b"y")])
                    case "inform":
                        exchange.inform(103, [])
                    case "continue":
                        exchange.send_continue()
                    case "fail":
                        exchange.fail()
                    case "abort":
                        exchange.abort()
                    case "pause":
                        exchange.pause_reading()
                    case "resume":
                        exchange.resume_reading()
                    case "eof":
                        link.send_eof()
                    case "content":
                        link.send(b"hello")
            except (LocalProtocolError, ConnectionGone):
                pass
            link.loop.settle()
        responses = link.responses(wire[:4].decode().strip())
        # At most one response, and a second only where the content of EXPECT was none: it is refused.
        assert len(responses) <= 1 or (wire is not EXPECT and responses[1].status == 400)
        assert all(response.status not in {100, 103} for response in responses)
        if exchange.finished and not responses:
            assert link.transport.aborted or told.calls[-1] == "closed"


def test_a_cancelled_task_that_waits_leaves_nothing_behind() -> None:
    async def wait(told: Told) -> None:
        told.exchange.respond(200, [])
        told.exchange.send(b"x" * 200000)
        await told.exchange.drained()

    with linked(Recorder()) as link:
        link.stop_reading()
        link.send(GET)
        task = link.loop.create_task(wait(link.told[0]))
        link.loop.settle()
        task.cancel()
        link.loop.settle()
        with pytest.raises(asyncio.CancelledError):
            task.result()
        link.read()
        assert link.connection.writer.paused is False


@pytest.mark.parametrize("kind", [bytearray, lambda octets: memoryview(bytearray(octets))], ids=["bytearray", "view"])
def test_fields_of_what_may_change_are_read_each_time(kind: Any) -> None:
    values = [b"one", b"two", b"two", b"three"]

    def answer(told: Told) -> None:
        told.exchange.respond(200, [(b"x-value", kind(values[len(told.owner.told) - 1]))])
        told.exchange.send(b"", True)

    with linked(Recorder(on_finish=answer)) as link:
        link.send(GET * 4)
        assert [response[b"x-value"] for response in link.responses()] == values
