"""Client address and scheme as a trusted proxy reports them (Tornado's ``xheaders``)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from bridge.core.net.addresses import is_valid_ip

if TYPE_CHECKING:
    from bridge.core.connection.context import ConnectionContext
    from bridge.core.connection.interfaces import Connection, ConnectionDelegate, Exchange, ExchangeDelegate

__all__ = ["ForwardedDelegate", "forwarded_context"]

_NAMES = frozenset({b"x-forwarded-for", b"x-real-ip", b"x-scheme", b"x-forwarded-proto"})


class ForwardedDelegate:
    """Gives every exchange the context that its fields report; the connection's own is left as it is."""

    __slots__ = ("_delegate", "_trusted")

    def __init__(self, delegate: ConnectionDelegate, trusted: frozenset[str]) -> None:
        self._delegate = delegate
        self._trusted = trusted

    def start_exchange(self, exchange: Exchange) -> ExchangeDelegate:
        """Start the exchange with the forwarded context."""
        exchange.context = forwarded_context(exchange.context, exchange.head.fields, self._trusted)
        return self._delegate.start_exchange(exchange)

    def on_close(self, connection: Connection) -> None:
        """Pass on the end of a connection."""
        self._delegate.on_close(connection)


def forwarded_context(
    context: ConnectionContext, fields: Iterable[tuple[bytes, bytes]], trusted: frozenset[str]
) -> ConnectionContext:
    """Return *context*, or a copy with the address and scheme that the fields report.

    X-Real-Ip wins over X-Forwarded-For, of which the rightmost address that is not trusted counts; X-Scheme wins over
    X-Forwarded-Proto, of which the last element counts. What is no address, and no http or https, is ignored.
    """
    found: dict[bytes, str] = {}
    for name, value in fields:
        if name in _NAMES:
            text = value.decode("latin-1")
            found[name] = f"{found[name]},{text}" if name in found else text
    if not found:
        return context
    result = context.copy()
    ip = context.remote_ip
    for candidate in (part.strip(" \t") for part in reversed(found.get(b"x-forwarded-for", ip).split(","))):
        ip = candidate
        if ip not in trusted:
            break
    ip = found.get(b"x-real-ip", ip)
    if is_valid_ip(ip):
        if b"x-forwarded-for" in found or b"x-real-ip" in found:
            result.has_remote = True  # else it is the 0.0.0.0 that stands for a peer on a unix socket
        result.remote_ip = ip
        if ip != context.remote_ip:
            result.remote_port = 0
    scheme = found.get(b"x-scheme", found.get(b"x-forwarded-proto", ""))
    scheme = scheme.rsplit(",", 1)[-1].strip(" \t")
    if scheme in {"http", "https"}:
        result.protocol = scheme
    return result
