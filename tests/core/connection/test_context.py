from __future__ import annotations

import socket
from typing import Any

import pytest

from bridge.core.connection.context import ConnectionContext
from bridge.core.connection.interfaces import NULL_DELEGATE
from bridge.core.connection.parameters import ConnectionParameters


@pytest.mark.parametrize(
    ("address", "family", "ip", "port", "text"),
    [
        (("1.2.3.4", 80), socket.AF_INET, "1.2.3.4", 80, "1.2.3.4"),
        (("::1", 80, 0, 0), socket.AF_INET6, "::1", 80, "::1"),
        ("/run/x.sock", socket.AF_UNIX, "0.0.0.0", 0, "/run/x.sock"),
        ("", socket.AF_UNIX, "0.0.0.0", 0, ""),
        (b"\x00abstract\xff", socket.AF_UNIX, "0.0.0.0", 0, "\x00abstract\ufffd"),
        (None, None, "0.0.0.0", 0, "None"),
        (None, socket.AF_INET, "0.0.0.0", 0, "0.0.0.0"),
    ],
)
def test_the_peer(address: Any, family: int | None, ip: str, port: int, text: str) -> None:
    context = ConnectionContext(address, family, "http")
    assert (context.remote_ip, context.remote_port, str(context)) == (ip, port, text)
    assert context.address == address


def test_a_copy_stands_for_itself() -> None:
    context = ConnectionContext(("1.2.3.4", 80), socket.AF_INET, "http", ("5.6.7.8", 90), frozenset({"x"}))
    other = context.copy()
    for name in ConnectionContext.__slots__:
        assert getattr(other, name, None) == getattr(context, name, None)
    other.remote_ip, other.protocol = "6.6.6.6", "https"
    assert (context.remote_ip, context.protocol) == ("1.2.3.4", "http")


def test_the_shortest_timeout() -> None:
    assert ConnectionParameters().shortest() == 5.0
    assert ConnectionParameters(head_timeout=0.1, write_timeout=7).shortest() == 0.1
    none: dict[str, Any] = dict.fromkeys(("head_timeout", "keep_alive_timeout", "body_timeout", "write_timeout"))
    assert ConnectionParameters(**none).shortest() == 60.0
    assert ConnectionParameters(**none, body_total_timeout=3.0).shortest() == 3.0


def test_nobody_takes_everything() -> None:
    assert NULL_DELEGATE.data_received(b"x") is None
    NULL_DELEGATE.finish()
    NULL_DELEGATE.on_connection_close()
    NULL_DELEGATE.on_peer_eof()
