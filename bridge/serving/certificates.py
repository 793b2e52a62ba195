"""The server's certificates: read from the files that the settings name, and again when the files change."""

from __future__ import annotations

import asyncio
import os
import ssl
from typing import Any, Self

from bridge.config import Config
from bridge.core.log import gen_log
from bridge.errors import ConfigError

__all__ = ["Certificates", "empty_context", "tls_context"]

_REQUIRED = {"none": ssl.CERT_NONE, "optional": ssl.CERT_OPTIONAL, "required": ssl.CERT_REQUIRED}
_ALPN = {"h2": "h2", "h1": "http/1.1"}  # the names of RFC 9113 section 3.2 and RFC 7301 section 6
_MINIMUM = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
# Seconds between two looks at the files.
_INTERVAL = 1.0

# Time of change, size and inode of each file; None for a file whose status cannot be read.
Stamps = tuple[tuple[int, int, int] | None, ...]


class Certificates:
    """The TLS context for new connections. Open connections keep the context that they began with.

    Args:
        config: The settings.
        usual: What :func:`tls_context` has made, for a factory of the user's to take at the first time.
        empty: What :func:`empty_context` has made, for the first context.

    Attributes:
        context: The context for the next connection.
        server_certificate: The certificate (PEM) that every client gets. None if clients may get different ones, or
            if the user's factory makes the context.

    Raises:
        ConfigError: A file cannot be read or does not fit the others; the message names it.
    """

    def __init__(
        self, config: Config, usual: ssl.SSLContext | None = None, empty: ssl.SSLContext | None = None
    ) -> None:
        self._config = config
        self._stamps = self._look()
        self.context, self.server_certificate = make_context(config, usual, empty), _server_certificate(config)
        self._expiries: dict[str, int] | None = None
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    def of(
        cls, config: Config, usual: ssl.SSLContext | None = None, empty: ssl.SSLContext | None = None
    ) -> Self | None:
        """Return the certificates of *config*, or None without TLS. The arguments are those of the class."""
        if config.ssl_certfile is None and config.ssl_context_factory is None:
            return None
        return cls(config, usual, empty)

    @property
    def expiries(self) -> dict[str, int]:
        """When each certificate ends (seconds since 1970), by the host that it is for; ``*`` for all others."""
        if self._expiries is None:
            from bridge.serving.expiry import expiries

            self._expiries = expiries(self._config)
        return self._expiries

    def reload(self) -> bool:
        """Make the context again and return True. On failure log why, keep the old context, and return False."""
        self._stamps = self._look()
        try:
            self.context, self.server_certificate = make_context(self._config), _server_certificate(self._config)
        except ConfigError as exc:
            gen_log.error("The TLS files cannot be used, the old certificate stays: %s", exc)
            return False
        self._expiries = None
        gen_log.info("TLS: new connections get %s as it is now", self._config.ssl_certfile or "the certificate")
        return True

    def watch(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look at the files every second until :meth:`close`, and reload them when they have changed."""
        config = self._config
        if config.ssl_reload and config.ssl_certfile is not None:
            self._timer = loop.call_later(_INTERVAL, self._check, loop, self._stamps)

    def close(self) -> None:
        """Stop watching the files."""
        if self._timer is not None:
            self._timer.cancel()

    def _check(self, loop: asyncio.AbstractEventLoop, before: Stamps) -> None:
        now = self._look()
        # Certificate and key are written one after the other, so they are read once nothing has changed for a second.
        if now != self._stamps and now == before:
            self.reload()
        self._timer = loop.call_later(_INTERVAL, self._check, loop, now)

    def _look(self) -> Stamps:
        config = self._config
        paths = [config.ssl_certfile, config.ssl_keyfile, config.ssl_ca_certs]
        for _, certificate, key in config.ssl_sni:
            paths += [certificate, key]
        return tuple(_stamp(path) for path in paths if path)


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def make_context(
    config: Config, usual: ssl.SSLContext | None = None, empty: ssl.SSLContext | None = None
) -> ssl.SSLContext:
    """Return the context for *config*; if there is a factory of the user's, it makes the context.

    Args:
        config: The settings.
        usual: The context that a factory may take; None to make it when the factory asks.
        empty: See :func:`tls_context`.

    Raises:
        ConfigError: As for :func:`tls_context`; or the factory fails.
    """
    if config.ssl_context_factory is None:
        context = tls_context(config, empty)
        assert context is not None
        return context
    import importlib

    try:
        factory: Any = config.ssl_context_factory
        if isinstance(factory, str):
            module, _, name = factory.partition(":")
            factory = importlib.import_module(module)
            for part in name.split("."):
                factory = getattr(factory, part)
        made = factory(config, lambda: usual or tls_context(config))
    except ConfigError:
        raise
    except Exception as exc:
        raise ConfigError(f"--ssl-context-factory {config.ssl_context_factory}: {type(exc).__name__}: {exc}") from exc
    if not isinstance(made, ssl.SSLContext):
        raise ConfigError(f"--ssl-context-factory {config.ssl_context_factory}: it returned no ssl.SSLContext")
    return made


def empty_context() -> ssl.SSLContext:
    """Return a context that has nothing but the keys of its session tickets (RFC 8446 section 4.6.1).

    OpenSSL makes these keys with the context, and Python can neither read nor set them. So processes that begin with
    a copy of one context, from before they were forked, take each other's tickets.
    """
    return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)


def tls_context(config: Config, empty: ssl.SSLContext | None = None) -> ssl.SSLContext | None:
    """Return a context, or None without ``--ssl-certfile``. TLS 1.2 is the oldest version (RFC 8996).

    Args:
        config: The settings.
        empty: What :func:`empty_context` has made: it becomes the context. The contexts of ``--ssl-sni`` need no such
            thing, since OpenSSL takes the keys of the context that a connection begins with.

    Raises:
        ConfigError: A file cannot be read or does not fit the others; the message names it.
    """
    if config.ssl_certfile is None:
        return None
    context = _context(config, "--ssl-certfile", config.ssl_certfile, config.ssl_keyfile, empty)
    if config.ssl_sni:
        exact: dict[str, ssl.SSLContext] = {}
        below: dict[str, ssl.SSLContext] = {}
        for host, certificate, key in config.ssl_sni:
            made = _context(config, f"--ssl-sni {host}", certificate, key or None)
            if host.startswith("*."):
                below[host[2:]] = made
            else:
                exact[host] = made

        def choose(tls: ssl.SSLSocket | ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            if name:
                name = name.lower().rstrip(".")
                found = exact.get(name) or below.get(name.partition(".")[2])
                if found is not None:
                    tls.context = found

        context.sni_callback = choose
    return context


def _context(
    config: Config, option: str, certificate: str, key: str | None, empty: ssl.SSLContext | None = None
) -> ssl.SSLContext:
    context = empty or empty_context()
    context.minimum_version = _MINIMUM[config.ssl_minimum_version]
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols([_ALPN[name] for name in config.http_protocols])
    _readable(option, certificate)
    _readable("--ssl-keyfile", key)
    _readable("--ssl-ca-certs", config.ssl_ca_certs)
    try:
        # With a function, OpenSSL never asks for the password on the terminal.
        context.load_cert_chain(certificate, key, lambda: config.ssl_keyfile_password or "")
    except (OSError, ValueError) as exc:
        with_key = f" and key {key}" if key else ""
        raise ConfigError(f"{option} {certificate}{with_key}: {_missing(certificate, key) or _reason(exc)}") from exc
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


def _server_certificate(config: Config) -> str | None:
    """Return the first certificate of ``ssl_certfile`` (PEM); None if clients may get another certificate.

    Raises:
        ConfigError: The file cannot be read.
    """
    if config.ssl_certfile is None or config.ssl_sni or config.ssl_context_factory is not None:
        return None
    try:
        with open(config.ssl_certfile, encoding="ascii", errors="replace") as file:
            text = file.read()
    except OSError as exc:
        raise ConfigError(f"--ssl-certfile {config.ssl_certfile}: {exc.strerror}") from exc
    end = "-----END CERTIFICATE-----"
    start = text.find("-----BEGIN CERTIFICATE-----")
    if start < 0 or end not in text[start:]:
        return None
    return text[start : text.index(end, start) + len(end)] + "\n"


def _readable(option: str, path: str | None) -> None:
    if path is not None:
        try:
            with open(path, "rb"):
                pass
        except OSError as exc:
            raise ConfigError(f"{option} {path}: {exc.strerror}") from exc


def _missing(certificate: str, key: str | None) -> str:
    """Return which of certificate and private key is in neither file, and what to do; empty if both are there."""
    names = [certificate] if key is None else [certificate, key]
    texts = []
    for name in names:
        with open(name, "rb") as file:
            texts.append(file.read())
    if b"-----BEGIN CERTIFICATE-----" not in texts[0]:
        return ""
    if any(b"PRIVATE KEY-----" in text for text in texts[-1:]):
        return ""
    if key is None:
        return "it has a certificate and no private key; name the key's file with --ssl-keyfile"
    return f"no private key in PEM form in {key}"


def _reason(exc: Exception) -> str:
    if isinstance(exc, ssl.SSLError):
        if exc.reason == "KEY_VALUES_MISMATCH":
            return "the key does not belong to the certificate"
        if exc.reason in {"BAD_DECRYPT", "BAD_PASSWORD_READ"} or "PASSWORD" in (exc.reason or ""):
            return "the key's password is wrong or missing (--ssl-keyfile-password)"
        if exc.reason in {"NO_START_LINE", None} or "PEM" in str(exc):
            return "no certificate or key in PEM form in it"
    return str(exc)
