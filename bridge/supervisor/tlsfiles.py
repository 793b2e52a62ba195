"""The server's TLS context from the files that the settings name."""

from __future__ import annotations

import ssl

from bridge.config import Config
from bridge.errors import ConfigError

__all__ = ["tls_context"]

_REQUIRED = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}


def tls_context(config: Config) -> ssl.SSLContext | None:
    """Return a context, or None without ``--ssl-certfile``. TLS 1.2 is the oldest version (RFC 8996).

    Raises:
        ConfigError: A file cannot be read or does not fit the others; the message names it.
    """
    if config.ssl_certfile is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(["http/1.1"])
    _readable("--ssl-certfile", config.ssl_certfile)
    _readable("--ssl-keyfile", config.ssl_keyfile)
    _readable("--ssl-ca-certs", config.ssl_ca_certs)
    try:
        # A function, so that OpenSSL never asks for the password on the terminal.
        context.load_cert_chain(config.ssl_certfile, config.ssl_keyfile, lambda: config.ssl_keyfile_password or "")
    except (OSError, ValueError) as exc:
        key = f" and --ssl-keyfile {config.ssl_keyfile}" if config.ssl_keyfile else ""
        raise ConfigError(f"--ssl-certfile {config.ssl_certfile}{key}: {_reason(exc)}") from exc
    if config.ssl_ca_certs is not None:
        try:
            context.load_verify_locations(config.ssl_ca_certs)
        except (OSError, ValueError) as exc:
            raise ConfigError(f"--ssl-ca-certs {config.ssl_ca_certs}: {_reason(exc)}") from exc
    context.verify_mode = _REQUIRED[config.ssl_cert_reqs]
    if config.ssl_ciphers is not None:
        try:
            context.set_ciphers(config.ssl_ciphers)
        except ssl.SSLError:
            raise ConfigError(f"--ssl-ciphers: OpenSSL knows no cipher suite in {config.ssl_ciphers!r}") from None
    return context


def _readable(option: str, path: str | None) -> None:
    if path is not None:
        try:
            with open(path, "rb"):
                pass
        except OSError as exc:
            raise ConfigError(f"{option} {path}: {exc.strerror}") from exc


def _reason(exc: Exception) -> str:
    if isinstance(exc, ssl.SSLError):
        if exc.reason == "KEY_VALUES_MISMATCH":
            return "the key does not belong to the certificate"
        if exc.reason in {"BAD_DECRYPT", "BAD_PASSWORD_READ"} or "PASSWORD" in (exc.reason or ""):
            return "the key's password is wrong or missing (--ssl-keyfile-password)"
        if exc.reason in {"NO_START_LINE", None} or "PEM" in str(exc):
            return "no certificate or key in PEM form in it"
    return str(exc)
