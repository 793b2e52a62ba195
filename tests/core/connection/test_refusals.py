"""The words for requests that a connection refuses."""

from __future__ import annotations

import pytest

from bridge.core.connection.refusals import refusal_message, refusal_reason

REFUSALS = [
    (400, "Malformed HTTP message from 192.0.2.1: the fault", "malformed"),
    (408, "the fault from 192.0.2.1", "head_timeout"),
    (413, "HTTP message beyond a limit from 192.0.2.1: the fault", "too_large"),
    (414, "HTTP message beyond a limit from 192.0.2.1: the fault", "too_large"),
    (417, "Unsupported HTTP message from 192.0.2.1: the fault", "malformed"),
    (431, "Unsatisfiable read, HTTP message beyond a limit from 192.0.2.1: the fault", "too_large"),
    (501, "Unsupported HTTP message from 192.0.2.1: the fault", "malformed"),
    (505, "Unsupported HTTP message from 192.0.2.1: the fault", "malformed"),
]


@pytest.mark.parametrize(("status", "message", "reason"), REFUSALS)
def test_words(status: int, message: str, reason: str) -> None:
    assert refusal_message(status, "192.0.2.1", "the fault") == message
    assert refusal_reason(status, in_head=True) == reason
    assert refusal_reason(408, in_head=False) == "body_timeout"
