"""The delegates and observers between connections and the application's delegate, as the settings ask for them."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from bridge.config import Config
from bridge.core.middleware.concurrency import ConcurrencyLimit

if TYPE_CHECKING:
    from collections.abc import Callable

    from bridge.core.connection.context import ConnectionContext
    from bridge.core.connection.interfaces import Observer
    from bridge.core.middleware.requestid import RequestIds

__all__ = ["known_proxies", "trusted_peers", "wrap"]


def wrap(config: Config, delegate: Any) -> tuple[Any, list[Observer]]:
    """Return *delegate* inside the middleware that *config* switches on, and the observers that the middleware needs.

    Args:
        config: The settings.
        delegate: The application's delegate, of any kind. The returned one is native.
    """
    observers: list[Observer] = []
    if not hasattr(delegate, "start_exchange"):
        from bridge.core.tornado.dispatch import adapt

        delegate = adapt(delegate, decompress=False)
    if config.limit_concurrency is not None:
        delegate = limit = ConcurrencyLimit(delegate, config.limit_concurrency)
        observers.append(limit)
    if config.header:
        from bridge.core.middleware.fields import FieldsDelegate

        delegate = FieldsDelegate(delegate, config.header)
    if config.proxy_headers:
        from bridge.core.middleware.proxy import ProxyDelegate, ProxyPolicy

        delegate = ProxyDelegate(
            delegate,
            ProxyPolicy(config.forwarded_allow_ips, config.forwarded_hops, config.forwarded_fields),
            strip=config.forwarded_strip,
        )
    if config.request_id != "off":
        from bridge.core.middleware.requestid import RequestIdDelegate

        delegate = RequestIdDelegate(delegate, _request_ids(config))
    if config.debug:
        from bridge.serving.debugging import Marking

        delegate = Marking(delegate, everybody=config.debug_anywhere)
    return delegate, observers


def _request_ids(config: Config) -> RequestIds:
    """Return the source of request ids."""
    from bridge.core.middleware.proxy import ProxyPolicy
    from bridge.core.middleware.requestid import RequestIds

    name = config.request_id_header.encode()
    if config.request_id == "proxy":
        return RequestIds(name, ProxyPolicy(config.forwarded_allow_ips).trusts)
    accepts = config.request_id == "any"
    return RequestIds(name, lambda _: accepts, traced=config.request_id == "traceparent")


def trusted_peers(config: Config) -> Callable[[ConnectionContext], bool] | None:
    """Return a function that tells whether the peer of a connection is a trusted proxy; None if none is trusted."""
    if not config.proxy_headers:
        return None
    from bridge.core.middleware.proxy import ProxyPolicy

    return ProxyPolicy(config.forwarded_allow_ips).trusts


def known_proxies(config: Config) -> Callable[[ConnectionContext, bool], bool] | None:
    """Return a function that tells whether a connection comes from a known proxy, so that it may be idle for long.

    It gets the two ends, and whether a PROXY header has come first. A proxy is known by its address or network, by a
    Unix socket, or by a PROXY header, if only some peers may send one. ``*`` makes no proxy known: otherwise any client
    could hold connections.
    """
    if config.timeout_keep_alive_proxy is None:
        return None
    header_names = config.proxy_protocol != "off" and "*" not in config.proxy_allow_from
    named = [word for word in config.forwarded_allow_ips if word != "*"] if config.proxy_headers else []
    trusts: Callable[[ConnectionContext], bool] | None = None
    if named:
        from bridge.core.middleware.proxy import ProxyPolicy

        trusts = ProxyPolicy([word for word in named if word != "unix"]).trusts

    def is_proxy(context: ConnectionContext, header: bool) -> bool:
        if context.address_family == getattr(socket, "AF_UNIX", None):
            return True
        if header:
            return header_names
        return trusts is not None and trusts(context)

    return is_proxy
