"""Runs the tests of a module over both versions of HTTP.

A module that says ``pytestmark = BOTH_PROTOCOLS`` has each of its tests twice, once with a proxy in front that speaks
HTTP/2 to the server. Tests of what only HTTP/1.1 has are marked ``@pytest.mark.http1(reason)``. Where much time goes
and HTTP/2 shows nothing first, ``@pytest.mark.wide_over_http2`` leaves it to ``make test-all``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from bridge.core.connection.parameters import HTTP2Parameters

if TYPE_CHECKING:
    from bridge.core.httpserver import HTTPServer

__all__ = ["BOTH_PROTOCOLS", "in_front", "now", "value"]

BOTH_PROTOCOLS = pytest.mark.usefixtures("protocol")

#: The protocol between the test's client and the server, in the test that runs now.
now = "http1"


@asynccontextmanager
async def in_front(server: HTTPServer, port: int) -> AsyncIterator[int]:
    """Put the proxy in front of a server, if the test is to run over HTTP/2; the value is the port to connect to."""
    if now == "http1":
        yield port
        return
    from tests.support.gateway import gateway

    if server.params.http2 is None:
        server.params.http2 = HTTP2Parameters(
            cleartext=lambda context: True,
            extended_connect=getattr(server.request_callback, "takes_websockets", False),
        )
    async with gateway(port) as front:
        yield front


def value(http1: Any, http2: Any) -> Any:
    """Return what is right for the protocol of the test that runs."""
    return http1 if now == "http1" else http2


def pytest_generate_tests(metafunc: Any) -> None:
    """Give each test that uses the fixture ``protocol`` both values, and those of HTTP/1 alone only one."""
    if "protocol" in metafunc.fixturenames:
        alone = metafunc.definition.get_closest_marker("http1") is not None
        wide = metafunc.definition.get_closest_marker("wide_over_http2") is not None
        http2 = pytest.param("http2", marks=[pytest.mark.wide] if wide else [])
        metafunc.parametrize("protocol", ["http1"] if alone else ["http1", http2], indirect=True)
