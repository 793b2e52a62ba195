"""Responses that are kept for the end of the loop's turn are lost by nothing that happens before it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from tests.support.link import GET, Link, Recorder, Told, linked, ok
from tests.support.responses import read_responses

CLOSE = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
BAD = b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n"


def number(told: Told) -> None:
    ok(told, b"%d" % len(told.owner.told))


class Taker(asyncio.Protocol):
    def __init__(self) -> None:
        self.data = b""

    def data_received(self, data: bytes) -> None:
        self.data += data


def at_once(link: Link, *steps: Callable[[], object]) -> None:
    """Do all in one turn of the loop, before anything that it puts off."""
    for step in steps:
        step()
    link.loop.settle()


def contents(link: Link) -> list[bytes]:
    return [response.content for response in read_responses(link.received, [], ended=link.transport.eof)]


def test_pipelined_responses_go_out_as_one() -> None:
    with linked(Recorder(on_finish=number)) as link:
        writes: list[int] = []
        write = link.transport.write
        link.transport.write = lambda data: (writes.append(len(data)), write(data))[1]  # type: ignore[method-assign]
        link.send(GET * 5)
        assert contents(link) == [b"1", b"2", b"3", b"4", b"5"]
        assert len(writes) == 1


def test_nothing_is_sent_before_the_end_of_the_turn_and_all_after_it() -> None:
    with linked(Recorder(on_finish=number)) as link:
        link.connection.data_received(GET)
        assert link.received == b""
        link.loop.settle()
        assert contents(link) == [b"1"]
        assert link.clock.unsent == []


@pytest.mark.parametrize(
    "end",
    [
        lambda link: link.connection.eof_received() or link.transport.close(),
        lambda link: link.connection.close_when_idle(),
        lambda link: link.connection.cut(reset=False),
        lambda link: link.connection.data_received(BAD),
        lambda link: link.connection.data_received(CLOSE),
    ],
    ids=["eof", "idle", "cut", "refusal", "last"],
)
def test_a_response_is_sent_before_its_connection_is_closed(end: Callable[[Link], object]) -> None:
    with linked(Recorder(on_finish=number)) as link:
        at_once(link, lambda: link.connection.data_received(GET), lambda: end(link))
        assert contents(link)[0] == b"1"
        assert link.transport.is_closing() or link.transport.eof


@pytest.mark.parametrize("pieces", [[b"a", b"b" * 40000], [b"b" * 40000], [b"b" * 40000, b"c"]])
def test_what_is_streamed_behind_a_response_comes_behind_it(pieces: list[bytes]) -> None:
    def answer(told: Told) -> None:
        if len(told.owner.told) == 1:
            number(told)
            return
        told.exchange.respond(200, [])
        for piece in pieces:
            told.exchange.send(piece)
        told.exchange.send(b"", True)

    with linked(Recorder(on_finish=answer)) as link:
        link.send(GET + GET)
        assert contents(link) == [b"1", b"".join(pieces)]


def test_another_protocol_takes_the_transport_after_the_response() -> None:
    with linked(Recorder(on_finish=number)) as link:
        taker = Taker()
        at_once(
            link,
            lambda: link.connection.data_received(GET),
            lambda: link.connection.take_transport(taker),
            lambda: link.transport.write(b"next"),
        )
        assert link.received.endswith(b"1next")
        link.loop.call(link.transport.abort)
        link.note_gone()


def test_a_connection_that_is_lost_has_nothing_left_to_send() -> None:
    with linked(Recorder(on_finish=number)) as link:
        at_once(link, lambda: link.connection.data_received(GET), lambda: link.connection.connection_lost(None))
        assert link.received == b""
        assert link.connection.writer.pending == b""
        link.transport.lost = True


def test_a_transport_that_has_failed_takes_nothing_and_costs_nobody_else_a_response(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def refuse(data: object) -> None:
        raise RuntimeError("the handler is closed")

    with linked(Recorder(on_finish=number), raises=RuntimeError) as link:
        sent: list[str] = []

        class Failing:
            def flush(self) -> None:
                raise RuntimeError("the handler is closed")

        class Other:
            def flush(self) -> None:
                sent.append("other")

        link.connection.data_received(GET)
        link.clock.unsent.append(Failing())
        link.clock.unsent.append(Other())
        link.transport.is_closing = lambda: True  # type: ignore[method-assign]
        link.transport.write = refuse  # type: ignore[method-assign]
        link.loop.settle()
        assert sent == ["other"]
        assert [record.getMessage()[:34] for record in caplog.records] == ["Uncaught exception while sending t"]
        del link.transport.is_closing, link.transport.write


def test_what_is_sent_while_the_peer_reads_slowly_is_no_sign_that_it_does_not_read() -> None:
    with linked(Recorder(on_finish=number)) as link:
        link.connection.data_received(GET)
        link.connection.pause_writing()
        before = link.connection.writer._unsent
        link.connection.writer.flush()
        assert link.connection.writer._unsent == before + len(link.received) > before
        link.connection.resume_writing()


def test_whoever_ends_many_exchanges_has_their_responses_sent_at_once() -> None:
    with linked(Recorder(on_finish=number)) as link:
        link.clock.write_through = True
        link.connection.data_received(GET)
        assert contents(link) == [b"1"]
        assert link.connection.writer.pending == b""
        link.clock.write_through = False
