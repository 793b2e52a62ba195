"""The PROXY protocol: its two headers, and what comes of them."""

from __future__ import annotations

import json
import socket
import struct

import pytest

from bridge.errors import RequestSyntaxError
from bridge.serving.proxyprotocol import ProxyHeader, parse_v1, parse_v2
from tests.support.running import Client, Running

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"


def seen(header: ProxyHeader) -> tuple[object, ...]:
    return header.family, header.source, header.destination, header.tls


V1 = [
    (
        b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\r\n",
        (socket.AF_INET, ("192.0.2.1", 56324), ("192.0.2.2", 443), False),
    ),
    (b"PROXY TCP6 2001:db8::1 ::1 1 65535\r\n", (socket.AF_INET6, ("2001:db8::1", 1), ("::1", 65535), False)),
    (b"PROXY UNKNOWN\r\n", (None, ("", 0), ("", 0), False)),
    (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", (None, ("", 0), ("", 0), False)),
]


@pytest.mark.parametrize(("line", "expected"), V1)
def test_version_1(line: bytes, expected: tuple[object, ...]) -> None:
    assert seen(parse_v1(line)) == expected


BAD_V1 = [
    b"PROXY TCP4 192.0.2.1 192.0.2.2 56324 443\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 56324\r\n",
    b"PROXY TCP4  192.0.2.1 192.0.2.2 56324 443\r\n",
    b"PROXY TCP4 2001:db8::1 ::1 1 2\r\n",
    b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
    # a zone may be any text, which would stand in the log
    *(b"PROXY TCP6 fe80::1%eth0 ::1 1 2\r\n", b'PROXY TCP6 ::1%\x1b[31m" ::1 1 2\r\n', b"PROXY TCP6 ::1 ::1%1 1 2\r\n"),
    b"PROXY TCP4 192.0.2.1 192.0.2.256 1 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 65536\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 +1 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 01 2\r\n",
    b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2 3\r\n",
    b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY \xff 192.0.2.1 192.0.2.2 1 2\r\n",
    b"PROXY TCP4 \xff 192.0.2.2 1 2\r\n",
]


@pytest.mark.parametrize("line", BAD_V1)
def test_version_1_broken(line: bytes) -> None:
    with pytest.raises(RequestSyntaxError):
        parse_v1(line)


INET = socket.inet_aton("192.0.2.1") + socket.inet_aton("192.0.2.2") + struct.pack("!HH", 5, 443)
INET6 = socket.inet_pton(socket.AF_INET6, "2001:db8::1") * 2 + struct.pack("!HH", 5, 443)
SSL = b"\x20" + struct.pack("!HBI", 5, 1, 0)
NO_SSL = b"\x20" + struct.pack("!HBI", 5, 0, 0)
NOOP = b"\x04" + struct.pack("!H", 3) + b"abc"

V2 = [
    (0x21, 0x11, INET, (socket.AF_INET, ("192.0.2.1", 5), ("192.0.2.2", 443), False)),
    (0x21, 0x21, INET6, (socket.AF_INET6, ("2001:db8::1", 5), ("2001:db8::1", 443), False)),
    (0x21, 0x11, INET + NOOP + SSL, (socket.AF_INET, ("192.0.2.1", 5), ("192.0.2.2", 443), True)),
    (0x21, 0x11, INET + NO_SSL, (socket.AF_INET, ("192.0.2.1", 5), ("192.0.2.2", 443), False)),
    (0x20, 0x00, b"", (None, ("", 0), ("", 0), False)),
    (0x20, 0x11, INET, (None, ("", 0), ("", 0), False)),
    (0x21, 0x00, b"", (None, ("", 0), ("", 0), False)),
    (0x21, 0x31, bytes(216), (None, ("", 0), ("", 0), False)),
    (0x21, 0x12, INET, (None, ("", 0), ("", 0), False)),
]


@pytest.mark.parametrize(("command", "family", "rest", "expected"), V2)
def test_version_2(command: int, family: int, rest: bytes, expected: tuple[object, ...]) -> None:
    assert seen(parse_v2(command, family, rest)) == expected


BAD_V2 = [
    (0x11, 0x11, INET),
    (0x22, 0x11, INET),
    (0x21, 0x41, INET),
    (0x21, 0x13, INET),
    (0x21, 0x11, INET[:-1]),
    (0x21, 0x21, INET),
    (0x21, 0x11, INET + SSL[:-1]),
]


@pytest.mark.parametrize(("command", "family", "rest"), BAD_V2)
def test_version_2_broken(command: int, family: int, rest: bytes) -> None:
    with pytest.raises(RequestSyntaxError):
        parse_v2(command, family, rest)


@pytest.mark.slow
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_connections_begin_with_a_header(loop: str) -> None:
    argv = ["plain:asgi", "--proxy-protocol", "auto", "--forwarded-allow-ips", "127.0.0.1", "--loop", loop]
    with Running(*argv, "--timeout-request-head", "0.5") as server:
        address = server.address()
        version2 = SIGNATURE + bytes([0x21, 0x11]) + struct.pack("!H", len(INET)) + INET
        for header in (b"PROXY TCP4 192.0.2.1 192.0.2.2 5 443\r\n", version2):
            with Client(address) as client:
                for position in range(len(header)):  # in the smallest pieces
                    client.sock.sendall(header[position : position + 1])
                client.send("/scope", "X-Forwarded-For: 1.2.3.4")  # a stranger by now: the client speaks for itself
                scope = json.loads(client.read()[2])
                assert scope["client"] == ["192.0.2.1", 5]
                assert scope["server"] == ["192.0.2.2", 443]
                assert json.loads(client.get("/scope")[2])["client"] == ["192.0.2.1", 5]
        with Client(address) as client:
            client.sock.sendall(header + b"GET /scope HTTP/1.1\r\nHost: a\r\n\r\n")  # in one piece with the request
            assert json.loads(client.read()[2])["client"] == ["192.0.2.1", 5]
        for wrong in (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"PROXY TCP4 nonsense\r\n", b"PROXY " + b"x" * 200, b""):
            with Client(address) as client:
                client.sock.sendall(wrong)
                assert client.closed()
        server.messages.wait("No PROXY protocol header from", 4)
        assert server.end() == 0


@pytest.mark.slow
def test_strangers_may_not_send_one() -> None:
    with Running("plain:asgi", "--proxy-protocol", "v1", "--proxy-allow-from", "192.0.2.0/24") as server:
        with Client(server.address()) as client:
            assert client.closed()
        server.messages.wait("the peer is not among --proxy-allow-from")


@pytest.mark.slow
@pytest.mark.parametrize("trusted", [True, False], ids=["trusted", "stranger"])
@pytest.mark.parametrize("app", ["plain:asgi", "plain:wsgi", "requests_app:app"])
def test_every_interface_is_told_of_the_client(app: str, trusted: bool) -> None:
    allowed = "127.0.0.0/8" if trusted else "192.0.2.0/24"
    secure = INET + SSL
    header = SIGNATURE + bytes([0x21, 0x11]) + struct.pack("!H", len(secure)) + secure
    with Running(app, "--proxy-protocol", "v2", "--proxy-allow-from", allowed, "--workers", "2") as server:
        with Client(server.address()) as client:
            client.sock.sendall(header)
            if not trusted:
                assert client.closed()
                server.messages.wait("the peer is not among --proxy-allow-from")
            else:
                client.send("/environ" if app == "plain:wsgi" else "/scope", "X-Forwarded-For: 1.2.3.4")
                seen = json.loads(client.read()[2])
                if app == "plain:asgi":
                    assert (seen["client"], seen["server"], seen["scheme"]) == (
                        ["192.0.2.1", 5],
                        ["192.0.2.2", 443],
                        "https",
                    )
                elif app == "plain:wsgi":
                    assert (seen["REMOTE_ADDR"], seen["SERVER_PORT"], seen["wsgi.url_scheme"]) == (
                        "192.0.2.1",
                        "443",
                        "https",
                    )
                else:
                    assert (seen["remote_ip"], seen["protocol"]) == ("192.0.2.1", "https")
        assert server.end() == 0
