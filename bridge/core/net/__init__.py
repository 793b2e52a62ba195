"""Sockets to listen on, accepting, TLS contexts."""
