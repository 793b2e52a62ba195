"""The field traceparent."""

from __future__ import annotations

import pytest

from bridge.core.http.trace import parse_traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"


@pytest.mark.parametrize("value", [f"00-{TRACE}-{SPAN}-01", f"00-{TRACE}-{SPAN}-00", f"01-{TRACE}-{SPAN}-01-more"])
def test_accepted(value: str) -> None:
    assert parse_traceparent([(b"a", b"b"), (b"traceparent", value.encode())]) == (TRACE, SPAN)


@pytest.mark.parametrize(
    "value",
    [
        "",
        TRACE,
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-01\n",
        f" 00-{TRACE}-{SPAN}-01",
    ],
)
def test_refused(value: str) -> None:
    assert parse_traceparent([(b"traceparent", value.encode())]) is None


def test_two_are_none() -> None:
    field = (b"traceparent", f"00-{TRACE}-{SPAN}-01".encode())
    assert parse_traceparent([field, field]) is None
