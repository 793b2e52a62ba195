from __future__ import annotations

import asyncio
import socket
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge.adapters.asgi import ASGIDelegate
from bridge.core.connection.context import ConnectionContext
from bridge.core.httpserver import HTTPServer
from bridge.core.middleware.xheaders import ForwardedDelegate, forwarded_context
from bridge.core.netutil import bind_unix_socket
from tests.support.link import GET, Recorder, Told, linked, ok

PROXY = "127.0.0.1"


def context(protocol: str = "http") -> ConnectionContext:
    return ConnectionContext((PROXY, 5000), socket.AF_INET, protocol, ("127.0.0.1", 80))


def seen(
    *fields: tuple[bytes, bytes], trusted: frozenset[str] = frozenset(), protocol: str = "http"
) -> tuple[str, int, str]:
    result = forwarded_context(context(protocol), fields, trusted)
    return result.remote_ip, result.remote_port, result.protocol


FOR = b"x-forwarded-for"
REAL = b"x-real-ip"
PROTO = b"x-forwarded-proto"
SCHEME = b"x-scheme"


@pytest.mark.parametrize(
    ("fields", "trusted", "ip"),
    [
        ([], (), PROXY),
        ([(FOR, b"1.2.3.4")], (), "1.2.3.4"),
        ([(FOR, b"2001:db8::1")], (), "2001:db8::1"),
        ([(REAL, b"1.2.3.4")], (), "1.2.3.4"),
        # the rightmost: what is further left, anybody may have written
        ([(FOR, b"6.6.6.6, 1.2.3.4")], (), "1.2.3.4"),
        ([(FOR, b"6.6.6.6,\t1.2.3.4 ")], (), "1.2.3.4"),
        ([(FOR, b"6.6.6.6"), (FOR, b"1.2.3.4")], (), "1.2.3.4"),
        # ... of those that are no proxies of ours
        ([(FOR, b"6.6.6.6, 1.2.3.4, 10.0.0.1, 10.0.0.2")], ("10.0.0.1", "10.0.0.2"), "1.2.3.4"),
        ([(FOR, b"1.2.3.4, 10.0.0.1")], ("1.2.3.4", "10.0.0.1"), "1.2.3.4"),
        ([(FOR, b"10.0.0.1")], ("10.0.0.1",), "10.0.0.1"),
        # X-Real-Ip wins
        ([(FOR, b"6.6.6.6"), (REAL, b"1.2.3.4")], (), "1.2.3.4"),
        ([(REAL, b"1.2.3.4"), (FOR, b"6.6.6.6")], (), "1.2.3.4"),
        # what is no address is ignored
        *(([(FOR, value)], (), PROXY) for value in (b"", b"x", b"unknown", b"1.2.3", b"1.2.3.4:80", b"[::1]",
            b"1.2.3.4.5", b"256.1.1.1")),
        *(([(FOR, value)], (), PROXY) for value in (b"6.6.6.6, x", b"6.6.6.6,", b"\xa06.6.6.6", b"6.6.6.6\xa0",
            b"\xff", b"6.6.6.6;x")),
        *(([(REAL, value)], (), PROXY) for value in (b"", b"x", b"1.2.3.4, 6.6.6.6", b"[::1]:80", b"\xa01.2.3.4",
            b"localhost")),
        ([(REAL, b"1.2.3.4"), (REAL, b"6.6.6.6")], (), PROXY),
        ([(FOR, b"1.2.3.4"), (REAL, b"x")], (), PROXY),
        # names of other fields
        ([(b"x-forwarded-fo", b"1.2.3.4"), (b"forwarded", b"for=1.2.3.4"), (b"x_forwarded_for", b"1.2.3.4")], (),
            PROXY),
    ],
)  # fmt: skip
def test_addresses(fields: list[tuple[bytes, bytes]], trusted: tuple[str, ...], ip: str) -> None:
    found, port, protocol = seen(*fields, trusted=frozenset(trusted))
    assert found == ip
    # A port that belongs to another address would be a lie.
    assert port == (5000 if ip == PROXY else 0)
    assert protocol == "http"


@pytest.mark.parametrize(
    ("fields", "before", "scheme"),
    [
        ([(PROTO, b"https")], "http", "https"),
        ([(PROTO, b"http")], "https", "http"),
        ([(SCHEME, b"https")], "http", "https"),
        ([(SCHEME, b"https"), (PROTO, b"http")], "http", "https"),
        ([(PROTO, b"http"), (SCHEME, b"https")], "http", "https"),
        # the last: it is what the nearest proxy says
        ([(PROTO, b"https, http")], "https", "http"),
        ([(PROTO, b"https,http")], "https", "http"),
        ([(PROTO, b"http, https ")], "http", "https"),
        ([(PROTO, b"http"), (PROTO, b"https")], "http", "https"),
        *(([(PROTO, value)], "http", "http") for value in (b"", b"ftp", b"HTTPS", b"https;", b"https,", b"x, wss",
            b"\xa0https", b"javascript")),
        *(([(SCHEME, value)], "https", "https") for value in (b"", b"gopher", b"http:", b"http\xa0")),
        ([(b"x-forwarded-protocol", b"https"), (b"x-forwarded-ssl", b"on"), (b"front-end-https", b"on")], "http",
            "http"),
    ],
)  # fmt: skip
def test_schemes(fields: list[tuple[bytes, bytes]], before: str, scheme: str) -> None:
    assert seen(*fields, protocol=before) == (PROXY, 5000, scheme)


def test_the_connection_s_own_context_is_never_changed() -> None:
    before = context()
    result = forwarded_context(before, [(FOR, b"1.2.3.4"), (PROTO, b"https")], frozenset())
    assert result is not before
    assert (before.remote_ip, before.remote_port, before.protocol) == (PROXY, 5000, "http")
    assert (result.address, result.local_address, result.address_family) == (
        before.address,
        before.local_address,
        socket.AF_INET,
    )
    assert forwarded_context(before, [(b"x", b"y")], frozenset()) is before


def test_every_exchange_has_its_own() -> None:
    told: list[tuple[str, str]] = []

    def finish(one: Told) -> None:
        told.append((one.exchange.context.remote_ip, one.exchange.context.protocol))
        ok(one)

    recorder = Recorder(on_finish=finish)
    with linked(ForwardedDelegate(recorder, frozenset())) as link:
        link.send(GET[:-2] + b"X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\n\r\n" + GET)
        assert told == [("1.2.3.4", "https"), ("192.0.2.1", "http")]
        assert link.connection.context.remote_ip == "192.0.2.1"
    assert recorder.ended == [link.connection]


@given(
    st.lists(st.tuples(st.sampled_from([FOR, REAL, PROTO, SCHEME]), st.binary(max_size=20)), max_size=5),
    st.sets(st.sampled_from(["1.2.3.4", "10.0.0.1", ""])),
)
def test_whatever_is_sent_the_result_is_an_address_and_a_scheme(
    fields: list[tuple[bytes, bytes]], trusted: set[str]
) -> None:
    ip, port, protocol = seen(*fields, trusted=frozenset(trusted))
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, ip)
            break
        except OSError:
            continue
    else:
        raise AssertionError(ip)
    assert port in {0, 5000}
    assert protocol in {"http", "https"}


@pytest.mark.parametrize(
    ("fields", "known"),
    [
        ([], False),
        ([(FOR, b"1.2.3.4")], True),
        ([(REAL, b"::1")], True),
        ([(FOR, b"unknown")], False),
        ([(REAL, b"")], False),
        ([(PROTO, b"https")], False),
    ],
)
def test_on_a_unix_socket_the_client_is_known_if_the_proxy_tells(
    fields: list[tuple[bytes, bytes]], known: bool
) -> None:
    local = ConnectionContext("", socket.AF_UNIX, "http", "/run/bridge")
    assert forwarded_context(local, fields, frozenset()).has_remote is known
    assert not local.has_remote
    assert forwarded_context(context(), fields, frozenset()).has_remote


async def test_what_applications_see_of_it(tmp_path: Path) -> None:
    clients: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        clients.append(scope["client"])
        await send({"type": "http.response.start", "status": 204})
        await send({"type": "http.response.body"})

    server = HTTPServer(ASGIDelegate(app), xheaders=True)
    server.add_socket(bind_unix_socket(str(tmp_path / "s")))
    reader, writer = await asyncio.open_unix_connection(str(tmp_path / "s"))
    writer.write(GET + GET.replace(b"\r\n\r\n", b"\r\nX-Forwarded-For: 1.2.3.4\r\nConnection: close\r\n\r\n"))
    async with asyncio.timeout(5):
        await reader.read()
    writer.close()
    assert clients == [None, ("1.2.3.4", 0)]
    server.stop()
    await server.drain(0)
