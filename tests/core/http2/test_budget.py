from __future__ import annotations

from collections.abc import Callable

import pytest

from bridge.core.http2.budget import FREE_CONTROL_FRAMES, GLITCHES_MAX, GLITCHES_PER_SECOND, RESETS_MAX, Budget
from bridge.core.http2.codes import ENHANCE_YOUR_CALM, ConnectionFault
from bridge.core.http2.frames import PING, PRIORITY, SETTINGS


def spend_all(spend: Callable[[], None], most: int = 100_000) -> int:
    """Return how often *spend* was called before it raised."""
    for number in range(most):
        try:
            spend()
        except ConnectionFault as exc:
            assert exc.code == ENHANCE_YOUR_CALM
            return number
    return most


def test_resets() -> None:
    assert spend_all(Budget().spend_reset) == RESETS_MAX


def test_each_response_pays_for_a_reset() -> None:
    budget = Budget()

    def answer_and_reset() -> None:
        budget.answered += 1
        budget.spend_reset()

    assert spend_all(answer_and_reset, 5000) == 5000
    assert spend_all(budget.spend_reset) in {RESETS_MAX - 1, RESETS_MAX}


def test_many_responses_do_not_pay_for_more_resets_than_the_budget() -> None:
    budget = Budget()
    budget.answered = 100_000
    assert spend_all(budget.spend_reset) == RESETS_MAX


def test_glitches() -> None:
    budget = Budget(7.0)
    assert spend_all(lambda: budget.spend_glitch(7.0)) == GLITCHES_MAX
    with pytest.raises(ConnectionFault):
        Budget().spend_glitch(0.0, GLITCHES_MAX + 1)


def test_time_and_responses_pay_for_glitches() -> None:
    budget = Budget()
    budget.spend_glitch(0.0, GLITCHES_MAX)
    budget.spend_glitch(1.0, int(GLITCHES_PER_SECOND))
    budget.answered += 5
    budget.spend_glitch(1.0, 5)
    with pytest.raises(ConnectionFault):
        budget.spend_glitch(1.0)


def test_a_client_that_pings_for_ever_is_a_client() -> None:
    budget = Budget()
    now = 0.0
    for _ in range(20_000):
        now += 0.06
        budget.spend_frame(PING, now)


@pytest.mark.parametrize(
    ("kind", "free"), [(PING, FREE_CONTROL_FRAMES), (SETTINGS, FREE_CONTROL_FRAMES), (PRIORITY, 0)]
)
def test_the_first_control_frames_are_free(kind: int, free: int) -> None:
    budget = Budget()
    assert spend_all(lambda: budget.spend_frame(kind, 0.0)) == GLITCHES_MAX + free


def test_responses_pay_for_window_updates() -> None:
    budget = Budget()
    for _ in range(10_000):  # as HAProxy: one of the stream that has ended, and one of the connection
        budget.answered += 1
        budget.spend_update(0.0)
        budget.spend_update(0.0)
    assert spend_all(lambda: budget.spend_update(0.0)) == GLITCHES_MAX
    budget = Budget()
    budget.answered = 100_000
    assert spend_all(lambda: budget.spend_update(0.0)) == 2 * GLITCHES_MAX  # nothing more is saved up


def test_content_pays_for_glitches() -> None:
    budget = Budget()
    for _ in range(10_000):  # as HAProxy: two small window updates for each frame that it gets
        budget.sent += 16384
        budget.spend_glitch(0.0)
        budget.spend_glitch(0.0)
    budget = Budget()
    for _ in range(10_000):  # as gRPC: a small message, and a window update for the stream and for the connection
        budget.sent += 8
        budget.pieces += 1
        budget.spend_glitch(0.0)
        budget.spend_glitch(0.0)
    budget = Budget()

    def one_octet() -> None:
        budget.sent += 1
        budget.spend_glitch(0.0)

    assert spend_all(one_octet) == GLITCHES_MAX
