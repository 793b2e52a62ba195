"""The TLS extension of scopes (ASGI TLS extension 0.2)."""

from __future__ import annotations

import ssl
from typing import Any

from bridge.adapters.names import distinguished_name

__all__ = ["tls_extension"]

# The version numbers of the TLS specifications.
_VERSIONS = {"TLSv1": 0x0301, "TLSv1.1": 0x0302, "TLSv1.2": 0x0303, "TLSv1.3": 0x0304}

_suites: dict[str, int] = {}


def tls_extension(tls: ssl.SSLObject, certificate: str | None) -> dict[str, Any]:
    """Return the value of the ``tls`` extension for a connection.

    Args:
        tls: The connection's TLS object, after the handshake.
        certificate: The server's own certificate (PEM), None if it is not known.
    """
    chain = _client_chain(tls)
    subject: Any = (tls.getpeercert() or {}).get("subject", ()) if chain else ()
    return {
        "server_cert": certificate,
        "client_cert_chain": chain,
        "client_cert_name": distinguished_name(subject) if chain else None,
        "client_cert_error": None,  # a certificate that fails the verification ends the handshake
        "tls_version": _VERSIONS.get(tls.version() or ""),
        "cipher_suite": _suite_number(tls),
    }


def _client_chain(tls: ssl.SSLObject) -> tuple[str, ...]:
    leaf = tls.getpeercert(binary_form=True)
    if not leaf:
        return ()
    chain: list[bytes] = []
    if hasattr(tls, "get_unverified_chain"):  # since Python 3.13: all certificates that the client has sent
        chain = list(tls.get_unverified_chain())
    return tuple(map(ssl.DER_cert_to_PEM_cert, chain or [leaf]))


def _suite_number(tls: ssl.SSLObject) -> int | None:
    """Return the number of the cipher suite in the handshake (two bytes)."""
    cipher = tls.cipher()
    if cipher is None:
        return None
    if cipher[0] not in _suites:
        # The context knows the numbers of its suites. The table stays small: a process has few contexts.
        _suites.update((known["name"], known["id"] & 0xFFFF) for known in tls.context.get_ciphers())
    return _suites.get(cipher[0])
