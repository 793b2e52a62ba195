"""What proxies report of the client: whom to believe, what follows, what is removed."""

from __future__ import annotations

import socket
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridge.config.settings import FORWARDED_FIELDS, RARE_FORWARDED_FIELDS
from bridge.core.connection.context import ConnectionContext
from bridge.core.http.limits import Limits
from bridge.core.http.message import RequestHead
from bridge.core.http1.request import parse_head
from bridge.core.middleware import proxy
from bridge.core.middleware.proxy import ALL_FIELDS, ProxyDelegate, ProxyPolicy

PROXY = ("10.0.0.1", 4000)
STRANGER = ("203.0.113.66", 4000)


class FakeExchange:
    """What the delegate needs of an exchange."""

    def __init__(self, lines: list[str], peer: Any) -> None:
        wire = "GET /a HTTP/1.1\r\nHost: inner\r\n" + "".join(f"{line}\r\n" for line in lines) + "\r\n"
        head = parse_head(wire.encode("latin-1"), 0, Limits())
        assert head is not None
        self.head: RequestHead = head
        family = socket.AF_INET6 if isinstance(peer, tuple) and ":" in peer[0] else socket.AF_INET
        if not isinstance(peer, tuple):
            family = socket.AF_UNIX
        self.context = ConnectionContext(peer, family, "http", ("127.0.0.1", 8000))


class Last:
    """The delegate behind."""

    def start_exchange(self, exchange: Any) -> Any:
        return exchange

    def on_close(self, connection: Any) -> None:
        self.closed = connection


def passed(
    lines: list[str],
    *,
    peer: Any = PROXY,
    trusted: tuple[str, ...] = ("10.0.0.0/8",),
    hops: int | None = None,
    fields: Any = ALL_FIELDS,
) -> tuple[ConnectionContext, list[tuple[bytes, bytes]], FakeExchange]:
    exchange = FakeExchange(lines, peer)
    before, fields_before = exchange.context, exchange.head.fields
    ProxyDelegate(Last(), ProxyPolicy(trusted, hops, fields)).start_exchange(exchange)  # type: ignore[arg-type]
    assert before.remote_ip == (peer[0] if isinstance(peer, tuple) else "0.0.0.0")  # the connection's own is untouched
    assert before.protocol == "http"
    assert next(name for name, _ in fields_before) == b"host"
    return exchange.context, list(exchange.head.fields), exchange


FOR = [
    (["X-Forwarded-For: 198.51.100.7"], "198.51.100.7"),
    (["X-Forwarded-For: 198.51.100.7, 10.0.0.9"], "198.51.100.7"),  # the last that is not a proxy of ours
    (["X-Forwarded-For: 1.2.3.4, 198.51.100.7, 10.0.0.9,10.0.0.8"], "198.51.100.7"),  # the first is the client's tale
    (["X-Forwarded-For: 1.2.3.4", "X-Forwarded-For: 198.51.100.7"], "198.51.100.7"),
    (["X-Forwarded-For: 10.0.0.9"], "10.0.0.9"),  # all are proxies: one of them asks
    (["X-Forwarded-For: 198.51.100.7:5000"], "198.51.100.7"),
    (["X-Forwarded-For: 2001:DB8::1"], "2001:db8::1"),
    (["X-Forwarded-For: [2001:db8::1]:5000"], "2001:db8::1"),
    (["X-Forwarded-For: 198.51.100.7, garbage"], "10.0.0.1"),  # never an address further left: anybody wrote that
    (["X-Forwarded-For: unknown"], "10.0.0.1"),
    (["X-Forwarded-For: "], "10.0.0.1"),
    (["X-Forwarded-For: fe80::1%eth0"], "10.0.0.1"),
    (["X-Forwarded-For: 010.0.0.1"], "10.0.0.1"),
    (["X-Forwarded-For: \t198.51.100.7 "], "198.51.100.7"),
    (["X-Forwarded-For: 1.2.3.4,\xa0198.51.100.7"], "10.0.0.1"),  # white space to Python, but not to HTTP
    (["X-Real-Ip: 198.51.100.7"], "198.51.100.7"),
    (["X-Real-Ip: 1.2.3.4", "X-Forwarded-For: 198.51.100.7"], "198.51.100.7"),
    (["Forwarded: for=198.51.100.7"], "198.51.100.7"),
    (["Forwarded: For=\"[2001:db8:cafe::17]:4711\""], "2001:db8:cafe::17"),
    (["Forwarded: for=1.2.3.4, for=198.51.100.7;proto=https;by=10.0.0.2, for=10.0.0.9"], "198.51.100.7"),
    (["Forwarded: for=1.2.3.4", "Forwarded: for=198.51.100.7"], "198.51.100.7"),
    (["Forwarded: for=unknown"], "10.0.0.1"),
    (["Forwarded: for=_hidden, for=10.0.0.9"], "10.0.0.1"),
    (["Forwarded: for=\"198.51.100.7"], "10.0.0.1"),  # the quotation does not end: nothing of it counts
    (["Forwarded: for=198.51.100.7 junk"], "10.0.0.1"),
    (["Forwarded: for=198.51.100.7;for=1.2.3.4"], "10.0.0.1"),
    (["Forwarded: \"for=1.2.3.4\", for=198.51.100.7"], "10.0.0.1"),
    (["Forwarded: for=\"1.2.3.4, for=5.6.7.8\", for=198.51.100.7"], "198.51.100.7"),  # a comma in a quotation
    (["Forwarded: for=1.2.3.4", "X-Forwarded-For: 198.51.100.7"], "198.51.100.7"),  # both: what most proxies set
    (["Forwarded: for=1.2.3.4", "X-Forwarded-Proto: https"], "10.0.0.1"),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "address"), FOR)
def test_the_clients_address(lines: list[str], address: str) -> None:
    context, _, _ = passed(lines)
    assert context.remote_ip == address
    assert context.address == PROXY


@pytest.mark.parametrize(
    ("hops", "address"), [(1, "10.0.0.9"), (2, "198.51.100.7"), (3, "1.2.3.4"), (4, "1.2.3.4"), (9, "1.2.3.4")]
)
def test_hops_count_from_the_right(hops: int, address: str) -> None:
    lines = ["X-Forwarded-For: 1.2.3.4, 198.51.100.7, 10.0.0.9"]
    assert passed(lines, hops=hops, trusted=("*",), peer=STRANGER)[0].remote_ip == address


def test_anybody_is_one_proxy() -> None:
    assert passed(["X-Forwarded-For: 1.2.3.4, 198.51.100.7"], trusted=("*",))[0].remote_ip == "198.51.100.7"


TRUST = [
    (("10.0.0.1",), PROXY, True),
    (("10.0.0.2",), PROXY, False),
    (("10.0.0.0/31",), PROXY, True),
    (("10.0.0.2/31",), PROXY, False),
    (("10.0.0.1",), ("::ffff:10.0.0.1", 1), True),
    (("::1",), ("::1", 1), True),
    (("2001:db8::/32",), ("2001:db8::9", 1), True),
    (("2001:db8::/32",), ("2001:db9::9", 1), False),
    (("unix",), "", True),
    (("unix",), PROXY, False),
    (("10.0.0.0/8",), "", False),
    (("*",), "", True),
    ((), PROXY, False),
]


@pytest.mark.parametrize(("trusted", "peer", "believed"), TRUST)
def test_whom_to_believe(trusted: tuple[str, ...], peer: Any, believed: bool) -> None:
    context, fields, _ = passed(["X-Forwarded-For: 198.51.100.7", "A: b"], trusted=trusted, peer=peer)
    assert (context.remote_ip == "198.51.100.7") == believed
    assert (b"x-forwarded-for" in dict(fields)) == believed
    assert (b"a", b"b") in fields
    assert context.has_remote == (believed or isinstance(peer, tuple))


SPOOFED = [
    "X-Forwarded-For: 1.2.3.4", "X-Real-Ip: 1.2.3.4", "X-Forwarded-Proto: https", "X-Scheme: https",
    "X-Forwarded-Host: evil.example", "X-Forwarded-Port: 1", "X-Forwarded-Prefix: /evil",
    "Forwarded: for=1.2.3.4;host=evil.example;proto=https", "X-Forwarded-Ssl: on", "X-Forwarded-Scheme: https",
    "X-Forwarded-Protocol: ssl", "X-Forwarded-By: a", "X-Forwarded-Server: a",
]  # fmt: skip


def test_from_strangers_all_of_it_is_removed() -> None:
    context, fields, exchange = passed(SPOOFED, peer=STRANGER)
    assert fields == [(b"host", b"inner")]
    assert (context.remote_ip, context.protocol, context.prefix) == (STRANGER[0], "http", "")
    assert (exchange.head.host, context.local_address) == (b"inner", ("127.0.0.1", 8000))


def test_fields_that_the_proxy_does_not_set_are_removed() -> None:
    lines = ["X-Forwarded-For: 198.51.100.7", *SPOOFED[4:]]
    context, fields, exchange = passed(lines, fields=("x-forwarded-for", "x-forwarded-proto"))
    assert fields == [(b"host", b"inner"), (b"x-forwarded-for", b"198.51.100.7")]
    assert (context.remote_ip, context.protocol, context.prefix) == ("198.51.100.7", "http", "")
    assert exchange.head.host == b"inner"


SCHEMES = [
    (["X-Forwarded-Proto: https"], "https"), (["X-Scheme: HTTPS"], "https"), (["X-Forwarded-Proto: wss"], "https"),
    (["X-Forwarded-Proto: ftp"], "http"), (["X-Forwarded-Proto: https, http"], "http"),
    (["X-Forwarded-For: 198.51.100.7, 10.0.0.9", "X-Forwarded-Proto: https, http"], "https"),
    (["X-Forwarded-For: 198.51.100.7, 10.0.0.9", "X-Forwarded-Proto: https"], "https"),
    (["Forwarded: proto=https"], "https"), (["Forwarded: proto=gopher"], "http"),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "scheme"), SCHEMES)
def test_the_scheme(lines: list[str], scheme: str) -> None:
    assert passed(lines)[0].protocol == scheme


OLD_SCHEMES = [
    (["X-Forwarded-Ssl: on"], "https"), (["X-Forwarded-Ssl: off"], "http"), (["X-Forwarded-Ssl: https"], "http"),
    (["X-Forwarded-Protocol: ssl"], "https"), (["X-Forwarded-Protocol: HTTPS"], "https"),
    (["X-Forwarded-Protocol: on"], "http"), (["X-Forwarded-Scheme: https"], "https"),
    (["X-Forwarded-Scheme: ssl"], "http"), (["X-Forwarded-Proto: http", "X-Forwarded-Ssl: on"], "http"),
    (["X-Forwarded-Scheme: http", "X-Forwarded-Protocol: ssl"], "http"), (["X-Forwarded-Ssl:"], "http"),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "scheme"), OLD_SCHEMES)
def test_the_scheme_in_fields_that_must_be_named(lines: list[str], scheme: str) -> None:
    assert passed(lines, fields=("x-forwarded-proto", *RARE_FORWARDED_FIELDS))[0].protocol == scheme
    assert passed(lines, fields=FORWARDED_FIELDS)[0].protocol == "http"
    assert passed(lines, fields=RARE_FORWARDED_FIELDS, peer=STRANGER)[0].protocol == "http"


HOSTS = [
    (["X-Forwarded-Host: www.example"], b"www.example", ("www.example", 80)),
    (["X-Forwarded-Host: www.example:81"], b"www.example:81", ("www.example", 81)),
    (["X-Forwarded-Host: www.example", "X-Forwarded-Port: 8443"], b"www.example:8443", ("www.example", 8443)),
    (["X-Forwarded-Host: a.example", "X-Forwarded-Port: 443", "X-Forwarded-Proto: https"], b"a.example",
     ("a.example", 443)),
    (["X-Forwarded-Host: [2001:db8::1]:81"], b"[2001:db8::1]:81", ("2001:db8::1", 81)),
    (["X-Forwarded-Port: 8443"], b"inner", ("127.0.0.1", 8443)),
    (["X-Forwarded-Port: 99999"], b"inner", ("127.0.0.1", 8000)),
    (["X-Forwarded-Port: " + "9" * 5000], b"inner", ("127.0.0.1", 8000)),
    (["Forwarded: for=\"192.0.2.7:" + "9" * 5000 + "\""], b"inner", ("127.0.0.1", 8000)),
    (["X-Forwarded-Host: a.example/../"], b"inner", ("127.0.0.1", 8000)),
    (["X-Forwarded-Host: a.example:0"], b"inner", ("127.0.0.1", 8000)),
    (["X-Forwarded-Host: a.example@b"], b"inner", ("127.0.0.1", 8000)),
    (["Forwarded: host=\"a.example:81\""], b"a.example:81", ("a.example", 81)),
]  # fmt: skip


@pytest.mark.parametrize(("lines", "host", "server"), HOSTS)
def test_host_and_server(lines: list[str], host: bytes, server: tuple[str, int]) -> None:
    context, fields, exchange = passed(lines)
    assert exchange.head.host == host
    assert [value for name, value in fields if name == b"host"] == [host]
    assert context.local_address == server


@pytest.mark.parametrize(
    ("value", "prefix"),
    [
        ("/app", "/app"), ("/app/", "/app"), ("/a/b%20c", "/a/b%20c"), ("/", ""), ("", ""), ("app", ""), ("//a", ""),
        ("/a//b", ""), ("/a?b", ""), ("/a#b", ""), ("/../a", ""), ("/a/./b", ""), ("/a b", ""), ("/%zz", ""),
    ],
)  # fmt: skip
def test_the_prefix(value: str, prefix: str) -> None:
    assert passed([f"X-Forwarded-Prefix: {value}"])[0].prefix == prefix


@pytest.mark.parametrize(
    ("value", "prefix", "path"),
    [
        ("/a", "/a", b""), ("/a/", "/a", b""), ("/b", "/b", b"/a"), ("/", "", b"/a"), ("a", "", b"/a"),
        ("/a/../b", "", b"/a"), ("//a", "", b"/a"), ("/A", "/A", b"/a"),
    ],
)  # fmt: skip
def test_script_name(value: str, prefix: str, path: bytes) -> None:
    context, fields, exchange = passed([f"SCRIPT_NAME: {value}"], fields=("script_name",))
    assert (context.prefix, exchange.head.line.path, exchange.head.line.target) == (prefix, path, b"/a")
    assert fields[0] == (b"host", b"inner")
    context, _, exchange = passed([f"SCRIPT_NAME: {value}"], fields=("script_name",), peer=STRANGER)
    assert (context.prefix, exchange.head.line.path) == ("", b"/a")
    context, _, exchange = passed([f"SCRIPT_NAME: {value}"], fields=FORWARDED_FIELDS)
    assert (context.prefix, exchange.head.line.path) == ("", b"/a")


def test_without_a_report_nothing_is_copied() -> None:
    exchange = FakeExchange(["A: b"], PROXY)
    head, context = exchange.head, exchange.context
    ProxyDelegate(Last(), ProxyPolicy(("*",))).start_exchange(exchange)  # type: ignore[arg-type]
    assert exchange.head is head
    assert exchange.context is context


def test_the_port_of_forwarded() -> None:
    assert passed(['Forwarded: for="198.51.100.7:4711"'])[0].remote_port == 4711
    assert passed(['Forwarded: for="[2001:db8::1]:4711"'])[0].remote_port == 4711
    assert passed(["X-Forwarded-For: 198.51.100.7:4711"])[0].remote_port == 0


def test_decisions_are_bounded() -> None:
    policy = ProxyPolicy(("10.0.0.0/8",))
    for number in range(3000):
        policy.trusts_address(f"10.0.{number >> 8}.{number & 255}")
    assert len(policy._decisions) <= 1024


def test_the_end_of_a_connection_is_passed_on() -> None:
    last = Last()
    ProxyDelegate(last, ProxyPolicy(())).on_close("connection")  # type: ignore[arg-type]
    assert last.closed == "connection"


def test_what_is_no_network() -> None:
    with pytest.raises(ValueError, match="does not appear"):
        ProxyPolicy(("10.0.0.0/99",))


# ---------------------------------------------------------------------- addresses

NUMBERS = st.sampled_from(
    ["0", "1", "9", "10", "99", "100", "192", "199", "200", "249", "250", "255", "256", "01", "00", ""]
)
SEPARATORS = st.sampled_from([".", ".", ".", ".", "..", ",", "\n", " "])
TEXTS = st.lists(st.tuples(NUMBERS, SEPARATORS), min_size=1, max_size=5).map(
    lambda pairs: "".join(number + separator for number, separator in pairs)
)
NETWORKS = ["10.0.0.0/8", "192.0.2.0/24", "199.249.0.0/17", "1.1.1.1", "::1", "2001:db8::/32", "0.0.0.0/32"]


def by_ipaddress(text: str) -> tuple[str, bool]:
    """Return an address in its usual spelling, and whether it is in one of the networks."""
    try:
        ip = ip_address(text)
    except ValueError:
        return "", False
    return str(ip), any(ip in ip_network(network) for network in NETWORKS)


@given(
    TEXTS.flatmap(lambda text: st.sampled_from([text, text[:-1]])) | st.ip_addresses().map(str) | st.text(max_size=9)
)
@example("192.0.2.255")
@example("10.0.0.1\n")
@example("\uff11.1.1.1")
@example("1.1.1.\u0661")
@example("0.0.0.0")
@example("255.255.255.255")
@example("199.249.127.255")
@example("199.249.128.0")
def test_addresses_are_read_as_by_ipaddress(text: str) -> None:
    assert (proxy._address(text), ProxyPolicy(NETWORKS).trusts_address(text)) == by_ipaddress(text)


@pytest.mark.parametrize("networks", [["0.0.0.0/0"], ["::/0"], ["::ffff:0:0/96"], ["*"]])
def test_the_widest_networks(networks: list[str]) -> None:
    policy = ProxyPolicy(networks)
    assert policy.trusts_address("192.0.2.1") is (networks[0] == "0.0.0.0/0")
