"""When certificates end."""

from __future__ import annotations

import calendar
import ssl
import time

from bridge.config import Config

__all__ = ["expiries", "not_after"]


def expiries(config: Config) -> dict[str, int]:
    """Return when each certificate ends (seconds since 1970), by the host that it is for; ``*`` for all others."""
    files = [("*", config.ssl_certfile), *((host, certificate) for host, certificate, _ in config.ssl_sni)]
    found = {}
    for host, path in files:
        expiry = None if path is None else _expiry(path)
        if expiry is not None:
            found[host] = expiry
    return found


def _expiry(path: str) -> int | None:
    """Return when the first certificate of a file ends, in seconds since 1970; None if that cannot be read."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            text = file.read()
        start = text.index("-----BEGIN CERTIFICATE-----")
        end = text.index("-----END CERTIFICATE-----", start)
        return not_after(ssl.PEM_cert_to_DER_cert(text[start:end] + "-----END CERTIFICATE-----\n"))
    except (OSError, ValueError, IndexError):
        return None


def not_after(der: bytes) -> int:
    """Return when a certificate ends, in seconds since 1970 (RFC 5280 section 4.1.2.5).

    Args:
        der: The certificate.

    Raises:
        ValueError: It is none.
    """
    _, certificate, _ = _element(der)
    _, fields, _ = _element(certificate)
    while True:  # the validity is the only sequence of two times: version, serial number, algorithm, issuer come first
        tag, content, fields = _element(fields)
        if tag != 0x30:
            continue
        first, _, rest = _element(content)
        if first in {0x17, 0x18}:
            kind, text, _ = _element(rest)
            break
    form = "%y%m%d%H%M%SZ" if kind == 0x17 else "%Y%m%d%H%M%SZ"
    return calendar.timegm(time.strptime(text.decode("ascii"), form))


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """Return tag, content and rest of the first element of *data* (X.690)."""
    if len(data) < 2:
        raise ValueError("the end of a certificate is missing")
    tag, size, start = data[0], data[1], 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(data[2:start], "big")
    if start + size > len(data):
        raise ValueError("the end of a certificate is missing")
    return tag, data[start : start + size], data[start + size :]
