"""IP addresses as text."""

from __future__ import annotations

import socket

__all__ = ["is_valid_ip"]


def is_valid_ip(ip: str) -> bool:
    """Tell whether *ip* is an IPv4 or IPv6 address literal; never raises for a str."""
    if not ip or len(ip) > 45:
        return False
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, ip)
        except (OSError, ValueError):
            continue
        return True
    return False
