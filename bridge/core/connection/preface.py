"""Which connections speak HTTP/2: by ALPN, or by the connection preface (RFC 9113 section 3)."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from bridge.core.connection.context import ConnectionContext
    from bridge.core.connection.parameters import HTTP2Parameters

__all__ = ["PREFACE_HEAD", "agreed_on_http2", "preface_refusal"]

PREFACE_HEAD = b"PRI * HTTP/2.0\r\n\r\n"
"""The first part of the preface (section 3.4). HTTP/1 reads it as a request head with a version that it refuses."""


def agreed_on_http2(transport: asyncio.Transport) -> bool:
    """Tell whether client and server have agreed on HTTP/2 in the TLS handshake (section 3.2)."""
    tls = transport.get_extra_info("ssl_object")
    return tls is not None and tls.selected_alpn_protocol() == "h2"


def preface_refusal(
    http2: HTTP2Parameters | None, context: ConnectionContext, transport: asyncio.Transport
) -> str | None:
    """Return why a peer that begins with the preface may not speak HTTP/2; None if it may.

    Args:
        http2: How HTTP/2 is served; None if it is not.
        context: The two ends.
        transport: The transport.
    """
    if http2 is None:
        return "it is not served here (--http-protocols)"
    if transport.get_extra_info("ssl_object") is not None:
        return "over TLS both sides have to agree on it by ALPN (RFC 9113 section 3.2)"
    if not http2.cleartext(context):
        return "without TLS it is not for this peer (--http2-cleartext)"
    return None
