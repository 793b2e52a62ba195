"""Client address and scheme as a trusted proxy reports them (Tornado's ``xheaders``).

``bridge run`` uses :class:`bridge.core.middleware.proxy.ProxyDelegate`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from bridge.core.middleware.reports import members, reports_in
from bridge.core.net.addresses import is_valid_ip

if TYPE_CHECKING:
    from bridge.core.connection.context import ConnectionContext
    from bridge.core.connection.interfaces import Connection, ConnectionDelegate, Exchange, ExchangeDelegate

__all__ = ["ForwardedDelegate", "forwarded_context"]

_NAMES = frozenset({b"x-forwarded-for", b"x-real-ip", b"x-scheme", b"x-forwarded-proto"})


class ForwardedDelegate:
    """Gives every exchange the context that its fields report; the connection's own context does not change.

    Args:
        delegate: The next delegate.
        trusted: The addresses of proxies, which are passed over in X-Forwarded-For.
    """

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

    X-Real-Ip wins over X-Forwarded-For. In X-Forwarded-For the rightmost address that is not in *trusted* is the
    client's. X-Scheme wins over X-Forwarded-Proto; the last member counts. A value that is no address, or not http or
    https, is ignored.

    Args:
        context: The two ends of the connection.
        fields: The request's (name, value) pairs.
        trusted: The addresses of proxies.
    """
    found = reports_in(fields, _NAMES)
    if not found:
        return context
    result = context.copy()
    ip = context.remote_ip
    for candidate in reversed(members(found.get(b"x-forwarded-for", ip))):
        ip = candidate
        if ip not in trusted:
            break
    ip = found.get(b"x-real-ip", ip)
    if is_valid_ip(ip):
        if b"x-forwarded-for" in found or b"x-real-ip" in found:
            result.has_remote = True  # on a unix socket the address comes only from a report: 0.0.0.0 means "none"
        result.remote_ip = ip
        if ip != context.remote_ip:
            result.remote_port = 0  # the proxy's port would be a lie
    scheme = members(found.get(b"x-scheme", found.get(b"x-forwarded-proto", "")))[-1]
    if scheme in {"http", "https"}:
        result.protocol = scheme
    return result
