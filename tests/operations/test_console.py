"""The command lines of `bridge status` and the like."""

from __future__ import annotations

from bridge.operations.console import _parse


def test_the_socket_is_named_as_the_server_names_it_too() -> None:
    for word in (["--socket", "a"], ["--control-socket", "a"], ["--control-socket=a"]):
        assert _parse("status", word).values == {"--socket": "a"}
