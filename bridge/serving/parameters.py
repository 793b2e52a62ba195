"""From settings to the limits and times of connections."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bridge.apps.lifecycle import Application
from bridge.config import Config
from bridge.core.connection.parameters import ConnectionParameters, HTTP2Parameters
from bridge.core.http.limits import Limits
from bridge.telemetry.observers import Observers

if TYPE_CHECKING:
    from bridge.core.connection.context import ConnectionContext
    from bridge.core.connection.interfaces import Observer
    from bridge.core.middleware.proxy import ProxyPolicy

__all__ = ["connection_parameters"]


def connection_parameters(
    config: Config, application: Application, observers: list[Observer], *, timed: bool, answers: bool
) -> ConnectionParameters:
    """Return the limits and times of connections.

    Args:
        config: The settings.
        application: What is served.
        observers: The observers of connections and exchanges.
        timed: Note when each exchange began, and how long it waited.
        answers: Note when it answered, too.
    """
    return ConnectionParameters(
        limits=Limits(
            request_line=config.limit_request_line,
            field_line=config.limit_request_field_size,
            fields=config.limit_request_fields,
            head=config.limit_request_head,
        ),
        no_keep_alive=config.timeout_keep_alive == 0,
        max_body_size=config.body_limit(application.default_body_limit),
        head_timeout=config.timeout_request_head,
        keep_alive_timeout=config.timeout_keep_alive or None,
        body_timeout=config.timeout_request_body,
        min_body_rate=config.rate_request_body,
        write_timeout=config.timeout_write,
        max_requests=config.limit_keep_alive_requests or 0,
        limit_after_start=application.limit_after_start,
        observer=Observers.of(observers),
        timed=timed,
        timed_answers=answers,
        http2=_http2_parameters(config, application) if config.serves_http2 else None,
    )


def _http2_parameters(config: Config, application: Application) -> HTTP2Parameters:
    policy: ProxyPolicy | None = None

    def trusts(context: ConnectionContext) -> bool:
        nonlocal policy
        if policy is None:  # made for the first peer that asks: its import takes 20 ms of CPU
            from bridge.core.middleware.proxy import ProxyPolicy

            policy = ProxyPolicy(
                {"off": (), "trusted": config.forwarded_allow_ips, "on": ("*",)}[config.http2_cleartext]
            )
        return policy.trusts(context)

    return HTTP2Parameters(
        cleartext=trusts,
        alone=not config.serves_http1,
        max_concurrent_streams=config.http2_max_concurrent_streams,
        max_stream_window=config.http2_max_stream_window,
        max_header_list_size=config.http2_max_header_list_size,
        ping_interval=config.http2_ping_interval,
        extended_connect=getattr(application.delegate, "takes_websockets", False),
    )
