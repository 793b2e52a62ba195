from __future__ import annotations

import re
import socket

import pytest

from bridge.core.connection.context import ConnectionContext
from bridge.core.middleware.requestid import RequestIds

NEAR = ConnectionContext(("127.0.0.1", 1), socket.AF_INET, "http")
FAR = ConnectionContext(("192.0.2.1", 1), socket.AF_INET, "http")
IDS = RequestIds(b"x-request-id", lambda context: context is NEAR)

TAKEN = [
    b"a",
    b"7f3b2c1e-0a5d-4c7e-9b1f-2d3e4f5a6b7c",
    b"Root=1-67891233-abcdef012345678912345678;Self=x",
    b"AAAA+/09==",
    b"x" * 200,
]
REFUSED = [
    b"",
    b"x" * 201,
    b"a b",
    b'a"b',
    b"a\\b",
    b"a,b",
    b"<script>",
    b"%0d%0a",
    b"\xe9",
    b"a\x1b[31m",
    b"a'b",
    b"{a}",
]


@pytest.mark.parametrize("value", TAKEN)
def test_takes_what_a_trusted_peer_says(value: bytes) -> None:
    assert IDS.identity([(b"host", b"a"), (b"x-request-id", value)], NEAR) == value.decode()


@pytest.mark.parametrize("value", REFUSED)
def test_makes_a_new_one_in_place_of_what_is_none(value: bytes) -> None:
    assert re.fullmatch("[0-9a-f]{32}", IDS.identity([(b"x-request-id", value)], NEAR))


@pytest.mark.parametrize(
    ("fields", "context"),
    [
        ([(b"x-request-id", b"a")], FAR),
        ([], NEAR),
        ([(b"x-request-id", b"a"), (b"x-request-id", b"a")], NEAR),
        ([(b"x-request", b"a")], NEAR),
    ],
)
def test_makes_a_new_one(fields: list[tuple[bytes, bytes]], context: ConnectionContext) -> None:
    made = {IDS.identity(fields, context) for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch("[0-9a-f]{32}", text) for text in made)
