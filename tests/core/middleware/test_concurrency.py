"""Requests in progress: who has a place, and who gives it up."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from bridge.core.connection.parameters import ConnectionParameters
from bridge.core.middleware.concurrency import ConcurrencyLimit
from tests.support.link import GET, Link, Recorder, Told, ok
from tests.support.manualloop import ManualLoop

POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n"


class Collecting(Recorder):
    collects = True


class Served:
    """Connections to one server."""

    def __init__(self, loop: ManualLoop, limit: int, recorder: Recorder) -> None:
        self.loop = loop
        self.limit = ConcurrencyLimit(recorder, limit)
        self.parameters = ConnectionParameters(observer=self.limit)
        self.recorder = recorder

    def ask(self, wire: bytes) -> Link:
        link = Link(self.limit, self.parameters, loop=self.loop)
        link.send(wire)
        return link


def statuses(*links: Link) -> list[list[int]]:
    return [[response.status for response in link.responses()] for link in links]


def test_requests_beyond_the_limit_are_answered_503(loop: ManualLoop) -> None:
    served = Served(loop, 1, Recorder())
    first, second = served.ask(GET), served.ask(GET)
    assert statuses(first, second) == [[], [503]]
    loop.call(ok, served.recorder.told[0])
    second.send(GET)
    assert statuses(first, second) == [[200], [503]]
    assert served.limit.count == 1


@pytest.mark.parametrize("end", ["reset", "refused", "answered"])
def test_a_delegate_that_collects_content_needs_a_place_when_it_is_complete(loop: ManualLoop, end: str) -> None:
    served = Served(loop, 1, Collecting(on_finish=ok))
    uploads = [served.ask(POST) for _ in range(5)]
    assert served.limit.count == 0
    assert statuses(served.ask(GET)) == [[200]]
    if end == "reset":
        for upload in uploads:
            upload.reset()
    elif end == "refused":
        loop.advance(32)
        assert statuses(*uploads) == [[408]] * 5
    else:
        for upload in uploads:
            upload.send(*[bytes(100_000)] * 10)
        assert statuses(*uploads) == [[200]] * 5
    assert served.limit.count == 0
    assert not served.limit._receiving


def test_a_complete_upload_without_a_place_is_answered_503(loop: ManualLoop) -> None:
    served = Served(loop, 1, Collecting())
    upload, other = served.ask(POST), served.ask(GET)
    upload.send(*[bytes(100_000)] * 10)
    assert statuses(upload, other) == [[503], []]
    (told, _) = served.recorder.told
    assert told.calls[-1] == "closed"
    assert "finish" not in told.calls
    assert served.limit.count == 1


def test_slow_content_gives_its_place_to_who_needs_it(loop: ManualLoop, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    served = Served(loop, 2, Recorder())
    quick, slow = served.ask(POST), served.ask(POST)
    for _ in range(4):
        loop.advance(1)
        quick.send(bytes(8192))
        slow.send(bytes(500))
    assert statuses(served.ask(GET)) == [[503]]  # it may be a moment only
    for _ in range(4):
        loop.advance(1)
        quick.send(bytes(8192))
        slow.send(bytes(500))
    other = served.ask(GET)
    assert statuses(quick, slow, other) == [[], [408], []]
    assert served.limit.count == 2
    assert "gives its place to another (--limit-concurrency)" in caplog.text


def test_a_complete_request_keeps_its_place(loop: ManualLoop) -> None:
    served = Served(loop, 1, Recorder())
    first = served.ask(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello")
    loop.advance(60)
    assert statuses(first, served.ask(GET)) == [[], [503]]


def test_what_a_delegate_has_besides_is_found(loop: ManualLoop) -> None:
    class Ending(Told):
        end_stream = "here"

    class Streams(Recorder):
        def start_exchange(self, exchange: Any) -> Told:
            return Ending(self, exchange)

    served = Served(loop, 1, Streams())
    link = served.ask(POST)
    assert link.connection.exchange is not None
    assert getattr(link.connection.exchange.delegate, "end_stream", None) == "here"
    assert getattr(link.connection.exchange.delegate, "other", None) is None
