"""What the proxies in front report of the client: whom to believe, and what follows for one exchange.

The fields are X-Forwarded-For, -Proto, -Host, -Port and -Prefix, X-Real-Ip, X-Scheme, and Forwarded (RFC 7239). A
report is believed if the connection comes from a trusted peer; from anybody else the fields are removed, so that no
application takes them for true. What is believed stands in the exchange's own copy of the context, never on the
connection, which a proxy uses for many clients.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING

from bridge.core.http.message import RequestHead

if TYPE_CHECKING:
    from bridge.core.connection.context import ConnectionContext
    from bridge.core.connection.interfaces import Connection, ConnectionDelegate, Exchange, ExchangeDelegate

__all__ = ["ALL_FIELDS", "ProxyDelegate", "ProxyPolicy"]

#: Every field that a proxy may report with, in lower case.
ALL_FIELDS = frozenset(
    {
        b"x-forwarded-for",
        b"x-real-ip",
        b"x-forwarded-proto",
        b"x-scheme",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"forwarded",
        # Never believed, and so always removed: other spellings that frameworks know.
        b"x-forwarded-by",
        b"x-forwarded-server",
        b"x-forwarded-ssl",
        b"x-forwarded-protocol",
        b"x-forwarded-scheme",
    }
)

_PORT = re.compile(r"[0-9]{1,5}")  # int() raises an error for very many digits
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,255})(?::([0-9]{1,5}))?")
# Unreserved characters, sub-delims, ":" and "@", percent-encoded ones; each segment has at least one (no "//").
_PREFIX = re.compile(r"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+)*/?")
# forwarded-pair = token "=" ( token / quoted-string ); RFC 7239 section 4. "[" and ":" are not allowed in a token,
# but so common in it that leaving them out would help nobody.
_PAIR = re.compile(r"[ \t]*([A-Za-z]+)=(?:\"((?:[^\"\\]|\\.)*)\"|([^\s\",;=]*))[ \t]*")
_QUOTED_PAIR = re.compile(r"\\(.)")
_DECISIONS_MAX = 1024


class ProxyPolicy:
    """Whom to believe, and what.

    Args:
        trusted: Addresses, networks in CIDR notation, ``unix`` for peers on a unix socket, ``*`` for anybody.
        hops: How many proxies are in front. Their number then says which address of a list is the client's; without
            it, it is the last one that is not trusted.
        fields: The names that are believed; the others are removed even when they come from a trusted peer.

    Raises:
        ValueError: An address or network is none.
    """

    def __init__(
        self, trusted: Iterable[str], hops: int | None = None, fields: Iterable[str | bytes] = ALL_FIELDS
    ) -> None:
        words = set(trusted)
        self._anybody = "*" in words
        self._unix = "unix" in words
        self._networks: list[IPv4Network | IPv6Network] = [
            ip_network(word, strict=False) for word in sorted(words - {"*", "unix"})
        ]
        self._hops = hops
        names = {name.encode() if isinstance(name, str) else name for name in fields}
        self.believed = ALL_FIELDS & names
        self._decisions: dict[str, bool] = {}

    def trusts(self, context: ConnectionContext) -> bool:
        """Tell whether the peer of a connection is believed."""
        if self._anybody:
            return True
        if not isinstance(context.address, tuple):
            return self._unix
        return self.trusts_address(context.remote_ip)

    def trusts_address(self, address: str) -> bool:
        """Tell whether *address* is one of the trusted ones; what is no address is not."""
        decision = self._decisions.get(address)
        if decision is None:
            if len(self._decisions) >= _DECISIONS_MAX:  # addresses come from clients
                self._decisions.clear()
            decision = self._decisions[address] = self._in_networks(address)
        return decision

    def _in_networks(self, address: str) -> bool:
        try:
            ip = ip_address(address)
        except ValueError:
            return False
        mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None  # how a dual-stack socket shows IPv4 peers
        return any(ip in network or (mapped is not None and mapped in network) for network in self._networks)

    def choose(self, addresses: list[str]) -> int:
        """Return the index, counted from the right, of the client's address in the list that proxies have made."""
        if self._hops is not None:
            return min(self._hops, len(addresses)) - 1
        for index, address in enumerate(reversed(addresses)):
            if not self.trusts_address(address):
                return index
        return len(addresses) - 1


class Report:
    """What trusted proxies said of one request; empty where they said nothing, or nothing that makes sense."""

    __slots__ = ("address", "host", "port", "prefix", "proxy_port", "scheme")

    def __init__(self) -> None:
        self.address = ""
        self.port = 0
        self.scheme = ""
        self.host = ""
        self.proxy_port = 0
        self.prefix = ""


class ProxyDelegate:
    """Gives each exchange what trusted proxies report, and takes away what others pretend.

    Args:
        delegate: The next one.
        policy: Whom to believe.
    """

    __slots__ = ("_delegate", "_policy")

    def __init__(self, delegate: ConnectionDelegate, policy: ProxyPolicy) -> None:
        self._delegate = delegate
        self._policy = policy

    def start_exchange(self, exchange: Exchange) -> ExchangeDelegate:
        """Start the exchange with the client's own context and head."""
        head = exchange.head
        found: dict[bytes, str] | None = None
        for name, value in head.fields:
            if name in ALL_FIELDS:
                if found is None:
                    found = {}
                text = value.decode("latin-1")
                found[name] = f"{found[name]},{text}" if name in found else text
        if found is not None:
            policy = self._policy
            if policy.trusts(exchange.context):
                believed = {name: text for name, text in found.items() if name in policy.believed}
                report = _read(policy, believed)
                exchange.context = _applied(report, exchange.context)
                keep = frozenset(believed)
            else:
                report = None
                keep = frozenset()
            if len(keep) != len(found) or (report is not None and report.host):
                exchange.head = _without_reports(head, keep, report.host if report is not None else "")
        return self._delegate.start_exchange(exchange)

    def on_close(self, connection: Connection) -> None:
        """Pass on the end of a connection."""
        self._delegate.on_close(connection)


def _without_reports(head: RequestHead, keep: frozenset[bytes], host: str) -> RequestHead:
    """Return a copy of *head* without the forwarding fields that are not in *keep*, and with another host."""
    fields = [field for field in head.fields if field[0] not in ALL_FIELDS or field[0] in keep]
    if not host:
        return head.with_fields(tuple(fields))
    value = host.encode("ascii")
    other = head.with_fields(((b"host", value), *(field for field in fields if field[0] != b"host")))
    other.host = value
    return other


def _applied(report: Report, context: ConnectionContext) -> ConnectionContext:
    """Return a copy of *context* with what was reported."""
    result = context.copy()
    if report.address:
        result.remote_ip = report.address
        result.remote_port = report.port
        result.has_remote = True
    if report.scheme:
        result.protocol = report.scheme
    if report.host or report.proxy_port:
        host, _, port = report.host.rpartition(":") if _has_port(report.host) else (report.host, "", "")
        number = int(port) if port else (443 if result.protocol == "https" else 80)
        if not host:
            local = context.local_address
            host = str(local[0]) if isinstance(local, tuple) else "localhost"
            number = report.proxy_port
        result.local_address = (host.strip("[]"), number)
        result.forwarded_server = True
    result.prefix = report.prefix
    return result


def _read(policy: ProxyPolicy, found: dict[bytes, str]) -> Report:
    """Make sense of the fields of a request from a trusted peer."""
    report = Report()
    if b"forwarded" in found and len(found) == 1:
        _read_forwarded(policy, found[b"forwarded"], report)
        return report
    # Both families: a proxy that sets the one and passes on a client's other would be believed twice. The older one,
    # which nearly every proxy sets, wins.
    index = 0
    if b"x-forwarded-for" in found:
        addresses = [_bare_address(part) for part in found[b"x-forwarded-for"].split(",")]
        index = policy.choose(addresses)
        report.address = _address(addresses[-1 - index])
    elif b"x-real-ip" in found:
        report.address = _address(_bare_address(_last(found[b"x-real-ip"])))
    scheme = _at(found.get(b"x-forwarded-proto") or found.get(b"x-scheme", ""), index).lower()
    report.scheme = {"http": "http", "https": "https", "ws": "http", "wss": "https"}.get(scheme, "")
    port = _at(found.get(b"x-forwarded-port", ""), index)
    if _PORT.fullmatch(port) and 0 < int(port) < 65536:
        report.proxy_port = int(port)
    _set_host(report, _at(found.get(b"x-forwarded-host", ""), index))
    prefix = _at(found.get(b"x-forwarded-prefix", ""), index)
    if _PREFIX.fullmatch(prefix) and "/../" not in prefix + "/" and "/./" not in prefix + "/":
        report.prefix = prefix.rstrip("/")
    return report


def _read_forwarded(policy: ProxyPolicy, text: str, report: Report) -> None:
    """Read the element that the proxy next to the client has made (RFC 7239 section 4)."""
    elements = _elements(text)
    if not elements:
        return
    nodes = [_bare_address(element.get("for", "")) for element in elements]
    index = policy.choose(nodes)
    element = elements[-1 - index]
    node = element.get("for", "")
    report.address = _address(_bare_address(node))
    if report.address:
        _, colon, port = node.rpartition(":")
        if colon and _PORT.fullmatch(port) and (node.startswith("[") or node.count(":") == 1):
            report.port = int(port) if int(port) < 65536 else 0
    scheme = element.get("proto", "").lower()
    report.scheme = scheme if scheme in {"http", "https"} else ""
    _set_host(report, element.get("host", ""))


def _elements(text: str) -> list[dict[str, str]]:
    """Return the elements of a Forwarded field; empty if it breaks its grammar anywhere."""
    elements: list[dict[str, str]] = [{}]
    position = 0
    while position < len(text):
        match = _PAIR.match(text, position)
        if match is not None:
            name = match[1].lower()
            if name in elements[-1]:
                return []
            elements[-1][name] = match[3] if match[2] is None else _QUOTED_PAIR.sub(r"\1", match[2])
            position = match.end()
        if position == len(text):
            break
        if text[position] == ",":
            elements.append({})
        elif text[position] != ";":
            return []
        position += 1
    return [element for element in elements if element]


def _set_host(report: Report, host: str) -> None:
    match = _HOST.fullmatch(host)
    if match is None or (match[2] and not 0 < int(match[2]) < 65536):
        return
    usual = {"http": 80, "https": 443}.get(report.scheme, 0)
    if not match[2] and report.proxy_port and report.proxy_port != usual:
        host = f"{host}:{report.proxy_port}"
    report.host = host


def _has_port(host: str) -> bool:
    return host.rpartition(":")[2].isdecimal() and not host.endswith("]")


def _at(text: str, index: int) -> str:
    """Return the element at *index* from the right, or the first if there are fewer: proxies need not all add one."""
    parts = [part.strip() for part in text.split(",")]
    return parts[-1 - index] if index < len(parts) else parts[0]


def _last(text: str) -> str:
    return text.rpartition(",")[2].strip()


def _bare_address(text: str) -> str:
    """Return an address without brackets and port."""
    text = text.strip()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    if text.count(":") == 1:
        return text.partition(":")[0]
    return text


def _address(text: str) -> str:
    """Return *text* in its usual spelling if it is an IP address, else nothing (``unknown``, ``_hidden``)."""
    try:
        ip = ip_address(text)
    except ValueError:
        return ""
    if isinstance(ip, IPv6Address) and ip.scope_id is not None:
        return ""
    return str(ip)
