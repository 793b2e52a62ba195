"""What stands between the connections and the application's delegate, as the settings ask for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bridge.config import Config
from bridge.core.middleware.concurrency import ConcurrencyLimit

if TYPE_CHECKING:
    from bridge.core.connection.interfaces import Observer
    from bridge.core.middleware.requestid import RequestIds

__all__ = ["front"]


def front(config: Config, delegate: Any, observers: list[Observer]) -> Any:
    """Return *delegate*, as a native one, behind what is switched on.

    Args:
        config: The settings.
        delegate: The application's, of any kind.
        observers: Those that have to be told of exchanges are added here.
    """
    if not hasattr(delegate, "start_exchange"):
        from bridge.core.tornado.dispatch import adapt

        delegate = adapt(delegate, decompress=False)
    if config.limit_concurrency is not None:
        delegate = limit = ConcurrencyLimit(delegate, config.limit_concurrency)
        observers.append(limit)
    if config.proxy_headers:
        from bridge.core.middleware.proxy import ProxyDelegate, ProxyPolicy

        delegate = ProxyDelegate(
            delegate, ProxyPolicy(config.forwarded_allow_ips, config.forwarded_hops, config.forwarded_fields)
        )
    if config.request_id != "off":
        from bridge.core.middleware.requestid import RequestIdDelegate

        delegate = RequestIdDelegate(delegate, _request_ids(config))
    return delegate


def _request_ids(config: Config) -> RequestIds:
    """Return what makes the ids of requests."""
    from bridge.core.middleware.proxy import ProxyPolicy
    from bridge.core.middleware.requestid import RequestIds

    name = config.request_id_header.encode()
    if config.request_id == "proxy":
        return RequestIds(name, ProxyPolicy(config.forwarded_allow_ips).trusts)
    takes = config.request_id == "any"
    return RequestIds(name, lambda _: takes)
