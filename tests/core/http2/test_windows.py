from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.core.http2.codes import FLOW_CONTROL_ERROR, PROTOCOL_ERROR, ConnectionFault, StreamFault
from bridge.core.http2.frames import WINDOW_MAX
from bridge.core.http2.windows import INITIAL_WINDOW, ReceiveWindow, add_credit, change_initial


def test_credit_comes_in_halves_of_the_window() -> None:
    window = ReceiveWindow(1000)
    assert window.take(600)
    assert window.credit(499) == 0
    assert window.credit(1) == 500
    assert window.left == 900
    assert window.credit(100) == 0
    assert window.credit(0) == 0


def test_a_peer_that_sends_more_than_it_may() -> None:
    window = ReceiveWindow(1000)
    assert window.take(1000)
    assert window.take(0)
    assert not window.take(1)


@given(st.lists(st.integers(0, 700)), st.integers(1, 1000), st.integers(0, 5000))
def test_what_the_peer_may_send_is_never_more_than_the_window(sizes: list[int], size: int, most: int) -> None:
    window = ReceiveWindow(size, most)
    for piece in sizes:
        piece = min(piece, window.left)
        assert window.take(piece)
        window.credit(piece, now=0.0)
        assert 0 <= window.left <= window.size <= max(size, most)
        assert window.left + window._owed == window.size
        assert window.left > 0  # the peer never waits for credit that nobody owes any more


def upload(window: ReceiveWindow, windows: int, seconds: float, start: float = 0.0) -> int:
    """Let a peer fill the window so many times, *seconds* each; return what was announced."""
    announced = 0
    for number in range(windows):
        size = window.left
        assert window.take(size)
        announced += window.credit(size, start + number * seconds)
    return announced


def test_a_window_grows_for_a_fast_peer_up_to_its_limit() -> None:
    window = ReceiveWindow(INITIAL_WINDOW, 1 << 20)
    upload(window, 40, 0.05)
    assert window.size == window.left == 1 << 20


def test_a_window_does_not_grow_for_a_slow_peer() -> None:
    window = ReceiveWindow(INITIAL_WINDOW, 1 << 20)
    upload(window, 40, 1.5)
    assert window.size == INITIAL_WINDOW
    upload(window, 4, 0.1, start=60.0)
    assert window.size > INITIAL_WINDOW


def test_a_window_without_growth_stays() -> None:
    window = ReceiveWindow(INITIAL_WINDOW)
    assert upload(window, 10, 0.0) == 10 * INITIAL_WINDOW
    assert window.size == INITIAL_WINDOW


def test_a_window_is_made_larger_at_once() -> None:
    window = ReceiveWindow(INITIAL_WINDOW)
    assert window.widen(1 << 20) == (1 << 20) - INITIAL_WINDOW
    assert window.left == window.size == 1 << 20
    assert window.widen(1 << 20) == 0
    assert window.widen(1) == 0
    window.take(100)
    window.credit(100)
    assert window.widen((1 << 20) + 5) == 105


@pytest.mark.parametrize("window", [0, -5, 65535, WINDOW_MAX - 1])
def test_credit_of_the_peer(window: int) -> None:
    assert add_credit(window, 1, 0) == window + 1
    assert add_credit(window, WINDOW_MAX - max(window, 0), 1) == window + WINDOW_MAX - max(window, 0)


@pytest.mark.parametrize(("increment", "code"), [(0, PROTOCOL_ERROR), (WINDOW_MAX, FLOW_CONTROL_ERROR)])
def test_credit_that_is_wrong(increment: int, code: int) -> None:
    with pytest.raises(ConnectionFault) as connection:
        add_credit(1, increment, 0)
    assert connection.value.code == code
    with pytest.raises(StreamFault) as stream:
        add_credit(1, increment, 5)
    assert stream.value.code == code


def test_a_change_of_the_initial_window() -> None:
    assert change_initial(100, 65535, 0) == 100 - 65535
    assert change_initial(100 - 65535, 0, 65535) == 100
    assert change_initial(WINDOW_MAX - 1, 0, 1) == WINDOW_MAX
    with pytest.raises(ConnectionFault) as caught:
        change_initial(WINDOW_MAX, 0, 1)
    assert caught.value.code == FLOW_CONTROL_ERROR
