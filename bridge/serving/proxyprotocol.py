"""The PROXY protocol, versions 1 and 2: the header that a proxy sends first (haproxy, "The PROXY protocol").

The header is read from the socket before TLS and HTTP. A proxy of this kind makes one connection for each client, so
the client's address goes into the context of the connection, not of the exchange.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Any

from bridge.core.log import gen_log
from bridge.core.middleware.proxy import ProxyPolicy
from bridge.errors import RequestSyntaxError

if TYPE_CHECKING:
    from bridge.core.connection.context import ConnectionContext

__all__ = ["HeaderReader", "ProxyHeader", "parse_v1", "parse_v2"]

_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_V1_MAX = 107
# Most bytes of addresses and extensions. The specification asks receivers to accept at least 536.
_V2_MAX = 4096
_PP2_TYPE_SSL = 0x20
_PP2_CLIENT_SSL = 0x01


class ProxyHeader:
    """The content of a header.

    Attributes:
        family: ``AF_INET`` or ``AF_INET6``; None if the header names no client.
        source: The client's address and port.
        destination: The address and port that the client has connected to.
        tls: The client speaks TLS to the proxy.
    """

    __slots__ = ("destination", "family", "source", "tls")

    def __init__(
        self,
        family: socket.AddressFamily | None = None,
        source: tuple[str, int] = ("", 0),
        destination: tuple[str, int] = ("", 0),
        tls: bool = False,
    ) -> None:
        self.family = family
        self.source = source
        self.destination = destination
        self.tls = tls

    def apply(self, context: ConnectionContext) -> None:
        """Write the client's addresses into the connection's context."""
        if self.tls:
            context.protocol = "https"
        if self.family is None:
            return
        context.address_family = self.family
        context.address = self.source
        context.remote_ip, context.remote_port = self.source
        context.local_address = self.destination
        context.has_remote = True


class HeaderReader:
    """Reads the headers of new connections (a ``PrefaceReader``).

    Args:
        version: ``v1``, ``v2``, or ``auto`` for both.
        trusted: The addresses and networks of the peers that may send a header.
        timeout: Seconds for the whole header; None for no limit.
    """

    def __init__(self, version: str, trusted: Iterable[str], timeout: float | None) -> None:
        self._version = version
        self._policy = ProxyPolicy(trusted)
        self._timeout = timeout

    async def read(self, loop: asyncio.AbstractEventLoop, sock: socket.socket, address: Any) -> ProxyHeader | None:
        """Return the header. If it is invalid, late, or not from a trusted peer, log that and return None."""
        try:
            if not self._trusts(sock, address):
                raise RequestSyntaxError("the peer is not among --proxy-allow-from")
            async with asyncio.timeout(self._timeout):
                return await self._read(loop, sock)
        except RequestSyntaxError as exc:
            gen_log.info("No PROXY protocol header from %s: %s", address, exc)
        except TimeoutError:
            gen_log.info("No PROXY protocol header from %s in time", address)
        except OSError:
            pass  # the peer has left
        return None

    def _trusts(self, sock: socket.socket, address: Any) -> bool:
        from bridge.core.connection.context import ConnectionContext

        return self._policy.trusts(ConnectionContext(address, sock.family, "http"))

    async def _read(self, loop: asyncio.AbstractEventLoop, sock: socket.socket) -> ProxyHeader:
        start = await _exactly(loop, sock, 12)  # every valid header is longer
        if start == _SIGNATURE and self._version != "v1":
            rest = await _exactly(loop, sock, 4)
            length = int.from_bytes(rest[2:], "big")
            if length > _V2_MAX:
                raise RequestSyntaxError(f"{length} bytes, limit {_V2_MAX}")
            return parse_v2(rest[0], rest[1], await _exactly(loop, sock, length))
        if start.startswith(b"PROXY ") and self._version != "v2":
            line = start
            while not line.endswith(b"\n"):
                if len(line) >= _V1_MAX:
                    raise RequestSyntaxError(f"no line end in {_V1_MAX} bytes")
                line += await _exactly(loop, sock, 1)  # one byte at a time: what follows belongs to TLS or HTTP
            return parse_v1(line)
        raise RequestSyntaxError(f"it begins with {start!r}")


async def _exactly(loop: asyncio.AbstractEventLoop, sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = await loop.sock_recv(sock, size - len(data))
        if not part:
            raise RequestSyntaxError("the connection ended")
        data += part
    return data


def parse_v1(line: bytes) -> ProxyHeader:
    """Parse a header of version 1 (section 2.1).

    Args:
        line: The header, its CRLF included.

    Raises:
        RequestSyntaxError: It is not valid.
    """
    if not line.endswith(b"\r\n"):
        raise RequestSyntaxError("the line does not end with CRLF")
    words = line[:-2].split(b" ")
    if words[:2] == [b"PROXY", b"UNKNOWN"]:
        return ProxyHeader()
    families = {b"TCP4": (socket.AF_INET, IPv4Address), b"TCP6": (socket.AF_INET6, IPv6Address)}
    if len(words) != 6 or words[0] != b"PROXY" or words[1] not in families:
        raise RequestSyntaxError(f"not a header of version 1: {line[:80]!r}")
    family, parse = families[words[1]]
    if b"%" in line:  # ipaddress accepts any text as the zone of an address, even control characters
        raise RequestSyntaxError(f"an address with a zone in {line[:80]!r}")
    try:
        source, destination = (str(parse(word.decode("ascii"))) for word in words[2:4])
    except ValueError:
        raise RequestSyntaxError(f"no addresses in {line[:80]!r}") from None
    return ProxyHeader(family, (source, _port(words[4])), (destination, _port(words[5])))


def _port(word: bytes) -> int:
    if not word.isdigit() or len(word) > 5 or int(word) > 65535 or (len(word) > 1 and word[:1] == b"0"):
        raise RequestSyntaxError(f"no port: {word[:20]!r}")
    return int(word)


def parse_v2(command: int, protocol: int, rest: bytes) -> ProxyHeader:
    """Parse a header of version 2 (section 2.2).

    Args:
        command: The 13th byte: version and command.
        protocol: The 14th byte: address family and transport.
        rest: The bytes after the length: addresses and extensions.

    Raises:
        RequestSyntaxError: It is not valid.
    """
    if command not in {0x20, 0x21}:
        raise RequestSyntaxError(f"version and command {command:#04x}")
    if command == 0x20:  # LOCAL: the connection is the proxy's own, for instance a health check
        return ProxyHeader()
    sizes = {0x1: 12, 0x2: 36}
    family = protocol >> 4
    if family not in sizes or protocol & 0xF != 1:  # unix sockets and datagrams name no client
        if family > 3 or protocol & 0xF > 2:
            raise RequestSyntaxError(f"address family and transport {protocol:#04x}")
        return ProxyHeader()
    size = sizes[family]
    if len(rest) < size:
        raise RequestSyntaxError(f"{len(rest)} bytes of addresses, {size} expected")
    width = 4 if family == 1 else 16
    kind = socket.AF_INET if family == 1 else socket.AF_INET6
    source = socket.inet_ntop(kind, rest[:width])
    destination = socket.inet_ntop(kind, rest[width : 2 * width])
    ports = int.from_bytes(rest[2 * width : 2 * width + 2], "big"), int.from_bytes(rest[2 * width + 2 : size], "big")
    return ProxyHeader(kind, (source, ports[0]), (destination, ports[1]), _client_tls(rest[size:]))


def _client_tls(extensions: bytes) -> bool:
    """Tell whether the TLS extension says that the client speaks TLS (section 2.2.5)."""
    position = 0
    while position + 3 <= len(extensions):
        kind = extensions[position]
        length = int.from_bytes(extensions[position + 1 : position + 3], "big")
        position += 3
        if position + length > len(extensions):
            raise RequestSyntaxError("an extension is longer than the header")
        if kind == _PP2_TYPE_SSL and length >= 1:
            return bool(extensions[position] & _PP2_CLIENT_SSL)
        position += length
    return False
