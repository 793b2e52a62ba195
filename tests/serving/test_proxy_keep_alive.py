"""How long an idle connection stays open: proxies that are known may be idle for longer than clients."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import bridge

TIMES = {"timeout_keep_alive": 0.1, "timeout_keep_alive_proxy": 30.0, "access_log": False}
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
HEADER = b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"


async def app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})


async def stays_open(server: bridge.Server, preface: bytes = b"") -> bool:
    """Tell whether a connection is open after a second without a request; it serves another one then."""
    place = server.sockets[0].getsockname()
    opened = asyncio.open_unix_connection(place) if isinstance(place, str) else asyncio.open_connection(*place[:2])
    reader, writer = await opened
    try:
        writer.write(preface + REQUEST)
        assert (await reader.readuntil(b"\r\n\r\nok")).startswith(b"HTTP/1.1 200")
        try:
            async with asyncio.timeout(1.0):
                return await reader.read(1) != b""
        except TimeoutError:
            writer.write(REQUEST)
            assert (await reader.readuntil(b"\r\n\r\nok")).startswith(b"HTTP/1.1 200")
            return True
    finally:
        writer.close()


@pytest.mark.parametrize(
    ("options", "preface", "expected"),
    [
        pytest.param({}, b"", False, id="a client on this machine"),
        pytest.param({"forwarded_allow_ips": "127.0.0.1"}, b"", True, id="named by address"),
        pytest.param({"forwarded_allow_ips": "127.0.0.0/8"}, b"", True, id="named by network"),
        pytest.param({"forwarded_allow_ips": "10.0.0.1"}, b"", False, id="another one is named"),
        pytest.param({"forwarded_allow_ips": "*"}, b"", False, id="everybody names nobody"),
        pytest.param({"forwarded_allow_ips": "*", "forwarded_hops": 1}, b"", False, id="hops name nobody"),
        pytest.param({"proxy_protocol": "auto"}, HEADER, True, id="a PROXY header"),
        pytest.param({"proxy_protocol": "auto", "proxy_allow_from": "*"}, HEADER, False, id="anybody's PROXY header"),
        pytest.param({"forwarded_allow_ips": "127.0.0.1", "timeout_keep_alive_proxy": None}, b"", False, id="off"),
    ],
)
async def test_who_may_be_idle(options: dict[str, Any], preface: bytes, expected: bool) -> None:
    async with bridge.Server(app, port=0, **{**TIMES, **options}) as server:
        assert await stays_open(server, preface) is expected


async def test_a_unix_socket_has_a_proxy_at_its_other_end(tmp_path: Path) -> None:
    async with bridge.Server(app, bind=f"unix:{tmp_path / 's'}", **TIMES) as server:
        assert await stays_open(server)


async def test_no_keep_alive_at_all_holds_for_proxies_too() -> None:
    async with bridge.Server(
        app, port=0, forwarded_allow_ips="127.0.0.1", timeout_keep_alive=0, access_log=False
    ) as server:
        assert not await stays_open(server)


async def test_proxies_count_for_the_limit_of_connections() -> None:
    async with bridge.Server(app, port=0, forwarded_allow_ips="127.0.0.1", limit_connections=1, **TIMES) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(REQUEST)
        await reader.readuntil(b"\r\n\r\nok")
        other_reader, other = await asyncio.open_connection(*server.sockets[0].getsockname())
        other.write(REQUEST)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await other_reader.read(1)
        writer.close()
        async with asyncio.timeout(5):
            await other_reader.readuntil(b"\r\n\r\nok")
        other.close()
