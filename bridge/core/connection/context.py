"""The two ends of a connection: addresses, scheme, and what a trusted proxy has reported of them."""

from __future__ import annotations

import socket
from typing import Any

__all__ = ["ConnectionContext"]

# A tuple: to look a family up in a set calls Python code, since it is an enum's.
_INTERNET = (socket.AF_INET, socket.AF_INET6)


class ConnectionContext:
    """The two ends of a connection; or of one exchange, if a trusted proxy has reported others.

    Args:
        address: The peer's socket address.
        address_family: The socket's family; None if unknown.
        protocol: ``http`` or ``https``.
        local_address: The server's socket address.
        trusted_downstream: Addresses that are skipped from the right of X-Forwarded-For.

    Attributes:
        address: The peer's socket address as ``getpeername`` returns it; of a unix socket a path, often empty.
        address_family: ``socket.AF_INET``, ``AF_INET6`` or ``AF_UNIX``; None if unknown.
        remote_ip: The client's address as text; ``0.0.0.0`` on unix sockets.
        remote_port: The client's port; 0 if there is none or it is not known.
        protocol: ``http`` or ``https``.
        local_address: The server's end as ``getsockname`` returns it.
        trusted_downstream: The argument.
        has_remote: ``remote_ip`` is the client's address. False on a unix socket, unless a proxy has reported one.
        forwarded_server: ``local_address`` is the host and port that the client has asked for, as a proxy reported.
        request_id: The id of the exchange; empty without ids, and in the connection's own context.
        prefix: The path below which the client sees the application, as a proxy reported: percent-encoded as in the
            request target, without a slash at the end; empty for none.
    """

    __slots__ = (
        "address",
        "address_family",
        "forwarded_server",
        "has_remote",
        "local_address",
        "prefix",
        "protocol",
        "remote_ip",
        "remote_port",
        "request_id",
        "trusted_downstream",
    )

    def __init__(
        self,
        address: Any,
        address_family: int | None,
        protocol: str,
        local_address: Any = None,
        trusted_downstream: frozenset[str] = frozenset(),
    ) -> None:
        self.address = address
        self.address_family = address_family
        self.protocol = protocol
        self.local_address = local_address
        self.trusted_downstream = trusted_downstream
        self.forwarded_server = False
        self.prefix = ""
        self.request_id = ""
        self.has_remote = isinstance(address, tuple)
        if address_family in _INTERNET and address:
            self.remote_ip = str(address[0])
            self.remote_port = int(address[1])
        else:
            self.remote_ip = "0.0.0.0"  # noqa: S104 -- Tornado's word for "no address"; nothing is bound to it
            self.remote_port = 0

    def __str__(self) -> str:
        if self.address_family in _INTERNET:
            return self.remote_ip
        if isinstance(self.address, bytes):
            return self.address.decode("utf-8", "replace")
        return str(self.address)

    def copy(self) -> ConnectionContext:
        """Return a copy whose values can be replaced for one exchange."""
        # Without __init__, and not by copy.copy(): with request ids, every request has a copy.
        other = ConnectionContext.__new__(ConnectionContext)
        other.address = self.address
        other.address_family = self.address_family
        other.forwarded_server = self.forwarded_server
        other.has_remote = self.has_remote
        other.local_address = self.local_address
        other.prefix = self.prefix
        other.protocol = self.protocol
        other.remote_ip = self.remote_ip
        other.remote_port = self.remote_port
        other.request_id = self.request_id
        other.trusted_downstream = self.trusted_downstream
        return other
