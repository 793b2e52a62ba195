"""Responses that wait until their clients have read, or until there is room."""

from __future__ import annotations

from bridge.core.connection.budgets import Budget
from bridge.core.connection.holdback import HoldBack
from tests.support.manualloop import ManualLoop


class Response:
    """Notes that it may go on."""

    def __init__(self) -> None:
        self.is_held_back = True
        self.is_taken = False
        self.went_on = 0

    def go_on(self) -> None:
        self.went_on += 1
        self.is_held_back = False


def test_who_has_read_goes_on_and_the_others_when_there_is_room(loop: ManualLoop) -> None:
    budget = Budget(loop, "--limit-things", "things", 1_000_000)
    hold_back = HoldBack(loop, budget)
    budget.keep(1_000_000)
    responses = [Response() for _ in range(6)]
    for response in responses:
        hold_back.add(response)
    loop.advance(1)
    assert [response.went_on for response in responses] == [0] * 6
    responses[1].is_taken = True
    responses[2].is_held_back = False  # its connection has ended
    loop.advance(0.1)
    assert [response.went_on for response in responses] == [0, 1, 0, 0, 0, 0]
    budget.release(2 * 65536)
    loop.advance(0.025)
    assert [response.went_on for response in responses] == [1, 1, 0, 1, 0, 0]
    budget.limit = None
    loop.advance(0.025)
    assert [response.went_on for response in responses] == [1, 1, 0, 1, 1, 1]
    budget.limit = 1
    hold_back.add(responses[0])  # one that is not held back any more
    loop.advance(1)
    assert responses[0].went_on == 1
