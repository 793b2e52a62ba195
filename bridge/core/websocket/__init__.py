"""WebSocket: the handshake, frames and messages as pure functions of bytes (RFC 6455, RFC 7692)."""
