"""HTTP/2 as pure functions and values: frames, field compression, request heads (RFC 9113, RFC 7541)."""
