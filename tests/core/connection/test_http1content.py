"""The limit and the deadlines of one request's content in HTTP/1, without a connection."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from bridge.core.connection.clock import NEVER, Clock
from bridge.core.connection.http1content import RequestContent
from bridge.core.connection.parameters import ConnectionParameters
from bridge.core.http1.decoder import ChunkedDecoder, FixedDecoder
from bridge.core.http1.request import Limits
from bridge.errors import LimitExceeded
from tests.support.manualloop import ManualLoop


@pytest.fixture
def clock() -> Iterator[Clock]:
    loop = ManualLoop()
    yield Clock(loop)
    loop.close()


def content(clock: Clock, length: int | None = 10, **parameters: Any) -> RequestContent:
    return RequestContent(length, ConnectionParameters(**parameters), clock)


def test_a_declared_length_beyond_the_limit_is_refused_unless_the_delegate_may_change_the_limit(clock: Clock) -> None:
    with pytest.raises(LimitExceeded, match="Content-Length too long: 11 bytes, limit 10") as refused:
        content(clock, 11, max_body_size=10)
    assert refused.value.status == 413
    assert not content(clock, 10, max_body_size=10).limit_pending
    assert content(clock, 11, max_body_size=10, limit_after_start=True).limit_pending


@pytest.mark.parametrize(("own", "refused"), [(None, True), (10, True), (11, False)])
def test_the_delegate_s_limit_takes_the_place_of_the_connection_s(clock: Clock, own: int | None, refused: bool) -> None:
    made = content(clock, 11, max_body_size=5, limit_after_start=True)
    if refused:
        with pytest.raises(LimitExceeded):
            made.apply_limit(own, FixedDecoder(11))
    else:
        made.apply_limit(own, FixedDecoder(11))
    assert not made.limit_pending


def test_chunks_get_the_limit_that_the_delegate_has_set(clock: Clock) -> None:
    made = content(clock, None, max_body_size=5, limit_after_start=True)
    decoder = ChunkedDecoder(Limits(), 5)
    made.apply_limit(7, decoder)
    assert decoder.limit == 7


def test_the_deadline_is_the_earlier_one_of_the_next_bytes_and_of_the_whole(clock: Clock) -> None:
    made = content(clock, body_timeout=3.0, body_total_timeout=5.0, min_body_rate=None)
    assert made.deadline == clock.after(3.0)
    made.pace.pause()
    assert made.deadline == made.whole_deadline == clock.after(5.0)
    made.pace.resume()
    assert made.deadline == clock.after(3.0)
    clock.now += 4.0
    assert made.noted_at != clock.now
    made.unnoted += 1
    made.note(None, free=False)
    assert (made.noted_at, made.unnoted) == (clock.now, 0)
    assert made.deadline == made.whole_deadline
    made.set_timeout(None)
    assert made.whole_deadline == NEVER
    assert made.deadline == clock.after(3.0)
