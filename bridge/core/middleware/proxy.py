"""What proxies report of the client: which reports are believed, and what they change for one exchange.

The fields are X-Forwarded-For, -Proto, -Host, -Port and -Prefix, X-Real-Ip, X-Scheme, and Forwarded (RFC 7239); if they
are named, also X-Forwarded-Scheme, -Protocol and -Ssl, and SCRIPT_NAME. Reports from a trusted peer are believed. From
any other peer the fields are removed, so that no application believes them. A report changes the exchange's own copy of
the context. The connection keeps its context: a proxy uses one connection for many clients.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING

from bridge.core.http.cache import remember
from bridge.core.http.message import RequestHead, request_line, with_fields
from bridge.core.middleware.reports import members, reports_in

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
        # Other names for the scheme, which old proxies use. Believed only where the settings name them.
        b"x-forwarded-scheme",
        b"x-forwarded-protocol",
        b"x-forwarded-ssl",
        # SCRIPT_NAME: where the application is mounted, for paths that still begin with the mount point. Believed only
        # where the settings name it.
        b"script_name",
        # Other spellings that frameworks read. They are never believed, and so always removed.
        b"x-forwarded-by",
        b"x-forwarded-server",
    }
)

# IPv4 addresses, which nearly all clients have, are read without ipaddress. With it, the reports of a request took
# 16.7 us; now they take 9.0 (requests of benchmarks/mixed.py, CPython 3.11). The same addresses are accepted.
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = re.compile(rf"({_OCTET})\.({_OCTET})\.({_OCTET})\.({_OCTET})")
_PORT = re.compile(r"[0-9]{1,5}")  # bounded, as int() raises ValueError for thousands of digits
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,255})(?::([0-9]{1,5}))?")
# Segments of at least one character, so no "//": unreserved characters, sub-delims, ":", "@", percent-encoded octets.
_PREFIX = re.compile(r"(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})+)*/?")
# forwarded-pair = token "=" ( token / quoted-string ); RFC 7239 section 4. A token has no "[" and no ":", but many
# proxies write addresses without quotes, and their meaning is plain.
_PAIR = re.compile(r"[ \t]*([A-Za-z]+)=(?:\"((?:[^\"\\]|\\.)*)\"|([^\s\",;=]*))[ \t]*")
_QUOTED_PAIR = re.compile(r"\\(.)")
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}
# Each field with its words for the schemes. The first of these fields that a request has counts.
_OTHER_SCHEME_FIELDS = (
    (b"x-forwarded-scheme", _SCHEMES),
    (b"x-forwarded-protocol", {**_SCHEMES, "ssl": "https"}),
    (b"x-forwarded-ssl", {"on": "https", "off": "http"}),
)
_DECISIONS_MAX = 1024


class ProxyPolicy:
    """Which peers are believed, and which fields.

    Args:
        trusted: Addresses, networks in CIDR notation, ``unix`` for peers on a unix socket, ``*`` for every peer.
        hops: The number of proxies in front, which says which address of a list is the client's. None: the client's is
            the last address that is not trusted.
        fields: The names that are believed. The others are removed even when a trusted peer sends them.

    Attributes:
        believed: The names that are believed, in lower case.

    Raises:
        ValueError: An item of *trusted* is no address and no network.
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
        # The first address and the mask of each IPv4 network.
        self._ipv4 = [
            (int(network.network_address), int(network.netmask))
            for network in self._networks
            if isinstance(network, IPv4Network)
        ]
        self._hops = hops
        names = {name.encode() if isinstance(name, str) else name for name in fields}
        self.believed = ALL_FIELDS & names
        # By address. A look-up takes 0.06 µs, a comparison with two networks 5.5 µs (CPython 3.11).
        self._decisions: dict[str, bool] = {}

    def trusts(self, context: ConnectionContext) -> bool:
        """Tell whether the peer of a connection is believed."""
        if self._anybody:
            return True
        if not isinstance(context.address, tuple):
            return self._unix
        return self.trusts_address(context.remote_ip)

    def trusts_address(self, address: str) -> bool:
        """Tell whether *address* is trusted; text that is no address is not."""
        decision = self._decisions.get(address)
        if decision is None:
            decision = self._in_networks(address)
            remember(self._decisions, address, decision, _DECISIONS_MAX)  # clients may make addresses up
        return decision

    def _in_networks(self, address: str) -> bool:
        match = _IPV4.fullmatch(address)
        if match is not None:
            a, b, c, d = map(int, match.groups())
            number = a << 24 | b << 16 | c << 8 | d
            return any(number & mask == first for first, mask in self._ipv4)
        try:
            ip = ip_address(address)
        except ValueError:
            return False
        mapped = ip.ipv4_mapped if isinstance(ip, IPv6Address) else None  # so a dual-stack socket shows IPv4 peers
        return any(ip in network or (mapped is not None and mapped in network) for network in self._networks)

    def choose(self, addresses: list[str]) -> int:
        """Return which of *addresses* is the client's: 0 for the last one, 1 for the one before it.

        Each proxy adds the address of its peer at the end. Whatever stands before that address was written by that
        peer. So without a number of proxies the last address that is not trusted is the client's.
        """
        if self._hops is not None:
            return min(self._hops, len(addresses)) - 1
        for index, address in enumerate(reversed(addresses)):
            if not self.trusts_address(address):
                return index
        return len(addresses) - 1


class Report:
    """What trusted proxies say of one request. An attribute is empty, or 0, without a valid value.

    Attributes:
        address: The client's IP address.
        port: The client's port.
        scheme: ``http`` or ``https``.
        host: The Host field that the client sent, perhaps with a port.
        proxy_port: The port at which the outermost proxy was asked.
        prefix: The path that proxies have taken off the front of the request's.
        mount: A prefix, as SCRIPT_NAME gives it, that has to be taken off the path if the path still begins with it.
    """

    __slots__ = ("address", "host", "mount", "port", "prefix", "proxy_port", "scheme")

    def __init__(self) -> None:
        self.address = ""
        self.port = 0
        self.scheme = ""
        self.host = ""
        self.proxy_port = 0
        self.prefix = ""
        self.mount = ""


class ProxyDelegate:
    """Gives each exchange what trusted proxies report, and removes the reports of other peers.

    Args:
        delegate: The next delegate.
        policy: Which peers and fields are believed.
        strip: Remove the fields that are not believed.
    """

    __slots__ = ("_delegate", "_policy", "_strip")

    def __init__(self, delegate: ConnectionDelegate, policy: ProxyPolicy, *, strip: bool = True) -> None:
        self._delegate = delegate
        self._policy = policy
        self._strip = strip

    def start_exchange(self, exchange: Exchange) -> ExchangeDelegate:
        """Start the exchange with the client's own context and head."""
        head = exchange.head
        found = reports_in(head.fields, ALL_FIELDS)
        if found:
            policy = self._policy
            believed: dict[bytes, str] = {}
            host = ""
            if policy.trusts(exchange.context):
                believed = {name: text for name, text in found.items() if name in policy.believed}
                report = _read(policy, believed)
                exchange.context = _applied(report, exchange.context)
                host = report.host
                if report.mount:
                    exchange.head = _below(report.mount, exchange.head)
                    head = exchange.head
            if (self._strip and len(believed) != len(found)) or host:
                exchange.head = _without_reports(head, believed if self._strip else ALL_FIELDS, host)
        return self._delegate.start_exchange(exchange)

    def on_close(self, connection: Connection) -> None:
        """Pass on the end of a connection."""
        self._delegate.on_close(connection)


def _below(mount: str, head: RequestHead) -> RequestHead:
    """Return *head* without *mount* at the beginning of its path; *head* itself if that has been taken off before."""
    line, root = head.line, mount.encode("ascii")
    if line.path != root and not line.path.startswith(root + b"/"):
        return head
    other = with_fields(head, head.fields)
    path = line.path[len(root) :]  # empty for the mount point itself, as in CGI
    other.line = request_line(
        line.method, line.method_text, line.target, line.version, path, line.query, line.authority
    )
    return other


def _without_reports(head: RequestHead, keep: Container[bytes], host: str) -> RequestHead:
    """Return a copy of *head* without the reports that are not in *keep*, and with *host* unless that is empty."""
    fields = [field for field in head.fields if field[0] not in ALL_FIELDS or field[0] in keep]
    if not host:
        return with_fields(head, tuple(fields))
    value = host.encode("ascii")
    other = with_fields(head, ((b"host", value), *(field for field in fields if field[0] != b"host")))
    other.host = value
    return other


def _applied(report: Report, context: ConnectionContext) -> ConnectionContext:
    """Return a copy of *context* with what *report* says."""
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
    """Read the believed fields *found* of a request from a trusted peer."""
    report = Report()
    if b"forwarded" in found and len(found) == 1:
        _read_forwarded(policy, found[b"forwarded"], report)
        return report
    # With both kinds of fields only X-Forwarded-* counts, which nearly every proxy sets. A proxy that sets one kind may
    # pass on the other as the client has sent it.
    index = 0
    if b"x-forwarded-for" in found:
        addresses = [_bare_address(member) for member in members(found[b"x-forwarded-for"])]
        index = policy.choose(addresses)
        report.address = _address(addresses[-1 - index])
    elif b"x-real-ip" in found:
        report.address = _address(_bare_address(members(found[b"x-real-ip"])[-1]))
    scheme = found.get(b"x-forwarded-proto") or found.get(b"x-scheme")
    if scheme:
        report.scheme = _SCHEMES.get(_at(scheme, index).lower(), "")
    else:
        _set_scheme(report, found, index)
    port = found.get(b"x-forwarded-port")
    if port:
        port = _at(port, index)
        if _PORT.fullmatch(port) and 0 < int(port) < 65536:
            report.proxy_port = int(port)
    host = found.get(b"x-forwarded-host")
    if host:
        _set_host(report, _at(host, index))
    prefix = found.get(b"x-forwarded-prefix")
    if prefix:
        report.prefix = _clean_prefix(_at(prefix, index))
    mount = found.get(b"script_name")
    if mount:
        report.prefix = report.mount = _clean_prefix(mount)
    return report


def _clean_prefix(text: str) -> str:
    """Return a prefix of paths without a slash at its end; empty if *text* is none."""
    if _PREFIX.fullmatch(text) is None or "/../" in text + "/" or "/./" in text + "/":
        return ""
    return text.rstrip("/")


def _set_scheme(report: Report, found: dict[bytes, str], index: int) -> None:
    for name, words in _OTHER_SCHEME_FIELDS:
        if found.get(name):
            report.scheme = words.get(_at(found[name], index).lower(), "")
            return


def _read_forwarded(policy: ProxyPolicy, text: str, report: Report) -> None:
    """Read the element of the proxy that the client has reached (RFC 7239 section 4)."""
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
    """Return the elements of a Forwarded field, as parameters by name; none if the field breaks its grammar."""
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
    """Return the member at *index* from the right, or the first of a shorter list: not every proxy adds a member."""
    if "," not in text:
        return text.strip(" \t")
    parts = members(text)
    return parts[-1 - index] if index < len(parts) else parts[0]


def _bare_address(text: str) -> str:
    """Return an address without brackets and port."""
    if text.startswith("["):
        return text[1:].partition("]")[0]
    if text.count(":") == 1:
        return text.partition(":")[0]
    return text


def _address(text: str) -> str:
    """Return *text* in its usual spelling if it is an IP address, else nothing: ``unknown``, ``_hidden``."""
    if _IPV4.fullmatch(text) is not None:
        return text
    try:
        ip = ip_address(text)
    except ValueError:
        return ""
    if isinstance(ip, IPv6Address) and ip.scope_id is not None:
        return ""
    return str(ip)
