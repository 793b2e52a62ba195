"""The table of settings: what can be set, to what, and what it means.

The fields of `Config` are the table. Options, environment variables and ``docs/options.md`` are generated from it, and
nothing else in bridge knows a default. Sizes are bytes and times are seconds.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from typing import Final, Literal

from bridge.errors import ConfigError
from bridge.settings import (
    ADDRESSES,
    DIRECTORY,
    FILE,
    HOST,
    MODE,
    NETWORKS,
    PORT,
    ROOT_PATH,
    SIZE,
    SWITCH,
    TEXT,
    Address,
    FileDescriptor,
    Setting,
    TCPAddress,
    UnixAddress,
    choice,
    off_or,
    seconds,
    setting,
    whole,
)

__all__ = ["GROUPS", "SETTINGS", "Config"]

APPLICATION = "Application"
BINDING = "Where to listen"
WSGI = "WSGI"
TLS = "TLS"
LIMITS = "Limits"
TIMEOUTS = "Timeouts"
PROXIES = "Behind a proxy"
OUTPUT = "Logs and responses"
GROUPS: Final = (APPLICATION, BINDING, WSGI, TLS, LIMITS, TIMEOUTS, PROXIES, OUTPUT)

KIB = 1 << 10
GIB = 1 << 30
LINE = 8190


def _usable_cpus() -> int:
    """Count the CPUs this process may run on, which a container often restricts."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Every setting with its value; immutable, one per process.

    `bridge.settings_sources.load` makes one from the command line and the environment. Made directly, the values must
    have the types below; they are not converted.

    Raises:
        ConfigError: Two settings contradict each other.
    """

    target: str = setting(
        APPLICATION,
        TEXT,
        "",
        "module:attribute, module:factory(), path/to/file.py:attribute, or a module"
        " (then its application, app, asgi or wsgi)",
        positional=True,
    )
    interface: str = setting(
        APPLICATION,
        choice("KIND", "auto", "asgi3", "asgi2", "wsgi", "tornado", "delegate", "callable", synonyms={"asgi": "asgi3"}),
        "auto",
        "what TARGET is: CHOICES; auto looks at the object",
    )
    factory: bool = setting(
        APPLICATION, SWITCH, False, "call TARGET without arguments and serve what it returns", aliases=("call",)
    )
    app_dir: str | None = setting(
        APPLICATION, DIRECTORY, None, "put this directory first on the import path", shown="the current one"
    )
    lifespan: str = setting(
        APPLICATION,
        choice("WHEN", "auto", "on", "off"),
        "auto",
        "ASGI lifespan events: CHOICES; auto goes without when the application refuses them",
        aliases=("asgi-lifespan",),
    )
    root_path: str = setting(
        APPLICATION,
        ROOT_PATH,
        "",
        "the path the application is mounted at: root_path in ASGI, SCRIPT_NAME in WSGI",
        aliases=("url-path-prefix", "url-prefix"),
    )
    loop: str = setting(
        APPLICATION,
        choice("NAME", "auto", "asyncio", "uvloop"),
        "auto",
        "the event loop: CHOICES; auto takes uvloop when it is installed",
        aliases=("asgi-loop",),
    )

    host: str = setting(BINDING, HOST, "127.0.0.1", "listen on this host; * means every interface")
    port: int = setting(BINDING, PORT, 8000, "listen on this port; 0 takes any free one", foreign=("PORT",))
    bind: tuple[Address, ...] = setting(
        BINDING,
        ADDRESSES,
        (),
        "listen on HOST:PORT, [IPV6]:PORT, :PORT, unix:PATH or fd://N instead of --host and --port; may be repeated",
        short="-b",
        aliases=("listen",),
    )
    uds: str | None = setting(BINDING, FILE, None, "listen on this Unix domain socket", aliases=("unix-socket",))
    uds_permissions: int = setting(
        BINDING, MODE, 0o660, "the file mode of Unix domain sockets", aliases=("unix-socket-perms",), shown="660"
    )
    fd: int | None = setting(BINDING, whole(0), None, "listen on this inherited socket")
    backlog: int = setting(BINDING, whole(1, 65535), 2048, "connections that the kernel queues until they are accepted")

    threads: int = setting(
        WSGI,
        whole(1, 10_000),
        min(32, _usable_cpus() + 4),
        "the most threads that run WSGI requests",
        aliases=("wsgi-threads", "blocking-threads"),
        shown="CPUs + 4, at most 32",
    )
    threads_min: int = setting(WSGI, whole(0, 10_000), 1, "threads that stay when there is nothing to do")
    threads_idle: float = setting(WSGI, seconds(), 30.0, "end a thread beyond --threads-min after this idle time")
    wsgi_queue: int = setting(WSGI, whole(1), 100, "requests that wait for a thread; one more is answered 503")
    wsgi_buffer_requests: int | None = setting(
        WSGI,
        off_or(SIZE),
        64 * KIB,
        "receive the content before a thread is taken, beyond this size in a temporary file; off streams it",
        aliases=("inbuf-overflow",),
    )

    ssl_certfile: str | None = setting(
        TLS,
        FILE,
        None,
        "the certificate with its chain (PEM); switches TLS on",
        aliases=("certfile", "ssl-certificate"),
    )
    ssl_keyfile: str | None = setting(
        TLS, FILE, None, "the private key (PEM), when it is not in the certificate's file", aliases=("keyfile",)
    )
    ssl_keyfile_password: str | None = setting(
        TLS,
        TEXT,
        None,
        "the password of the private key; better set in the environment, where other users cannot see it",
        aliases=("keyfile-password",),
        secret=True,
    )
    ssl_ca_certs: str | None = setting(
        TLS, FILE, None, "the authorities that sign client certificates (PEM)", aliases=("ca-certs", "ssl-ca")
    )
    ssl_cert_reqs: str = setting(
        TLS,
        choice("WHEN", "none", "optional", "required", synonyms={"0": "none", "1": "optional", "2": "required"}),
        "none",
        "whether clients must show a certificate: CHOICES",
        aliases=("cert-reqs",),
    )
    ssl_ciphers: str | None = setting(
        TLS, TEXT, None, "TLS 1.2 cipher suites, in OpenSSL's notation", aliases=("ciphers",), shown="OpenSSL's choice"
    )

    limit_request_line: int = setting(LIMITS, SIZE, LINE, "the request line; beyond it 414")
    limit_request_fields: int = setting(LIMITS, whole(1), 100, "header fields in a request; beyond it 431")
    limit_request_field_size: int = setting(LIMITS, SIZE, LINE, "one header field; beyond it 431")
    limit_request_head: int = setting(
        LIMITS,
        SIZE,
        64 * KIB,
        "the whole head of a request; beyond it 431",
        aliases=("max-request-header-size", "h11-max-incomplete-event-size"),
    )
    limit_request_body: int | Literal["auto"] | None = setting(
        LIMITS,
        off_or(SIZE),
        "auto",
        "the content of a request; beyond it 413",
        aliases=("max-request-body-size",),
        shown="off for ASGI, 1 GiB for WSGI",
    )
    limit_concurrency: int | None = setting(
        LIMITS,
        off_or(whole(1)),
        None,
        "requests in progress; beyond it 503",
        aliases=("backpressure",),
    )
    limit_connections: int | None = setting(
        LIMITS,
        off_or(whole(1)),
        None,
        "open connections; beyond it none is accepted",
        aliases=("worker-connections", "connection-limit"),
    )
    limit_keep_alive_requests: int | None = setting(
        LIMITS,
        off_or(whole(1)),
        None,
        "requests on one connection; then it is closed",
        aliases=("max-requests-per-connection",),
    )

    timeout_keep_alive: float = setting(
        TIMEOUTS,
        seconds(zero=True),
        5.0,
        "how long an idle connection stays open; 0 closes it after each response",
        aliases=("keep-alive", "channel-timeout"),
    )
    timeout_request_head: float | None = setting(
        TIMEOUTS,
        off_or(seconds()),
        10.0,
        "the whole head of a request, for the first one from the start of the connection; then 408",
        aliases=("header-timeout",),
    )
    timeout_request_body: float | None = setting(
        TIMEOUTS,
        off_or(seconds()),
        30.0,
        "content of a request without progress; then 408",
        aliases=("body-timeout", "read-timeout"),
    )
    timeout_write: float | None = setting(
        TIMEOUTS, off_or(seconds()), 60.0, "a response that the client does not read; then the connection is reset"
    )
    timeout_tls_handshake: float = setting(
        TIMEOUTS, seconds(), 10.0, "the TLS handshake", aliases=("ssl-handshake-timeout",)
    )
    timeout_request: float | None = setting(
        TIMEOUTS,
        off_or(seconds()),
        None,
        "the application's whole answer; then 503, or a cut when it has begun",
        aliases=("http-timeout",),
    )
    timeout_graceful_shutdown: float | None = setting(
        TIMEOUTS,
        off_or(seconds(zero=True)),
        30.0,
        "how long requests in progress may take when the server stops",
        aliases=("graceful-timeout", "shutdown-timeout", "workers-kill-timeout"),
    )

    proxy_headers: bool = setting(
        PROXIES,
        SWITCH,
        False,
        "take client address and scheme from X-Forwarded-...; on by itself when --forwarded-allow-ips is given",
    )
    forwarded_allow_ips: tuple[str, ...] = setting(
        PROXIES,
        NETWORKS,
        ("127.0.0.1", "::1", "unix"),
        "the peers whose forwarded fields are believed: addresses, networks, unix, or * for anybody",
        foreign=("FORWARDED_ALLOW_IPS",),
    )

    access_log: bool = setting(OUTPUT, SWITCH, True, "write one line per request")
    log_level: str = setting(
        OUTPUT,
        choice("LEVEL", "debug", "info", "warning", "error", "critical", synonyms={"warn": "warning"}),
        "info",
        "the least severe messages to write: CHOICES",
    )
    server_header: bool = setting(OUTPUT, SWITCH, True, "send a Server field")
    date_header: bool = setting(OUTPUT, SWITCH, True, "send a Date field")

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other."""
        if self.threads_min > self.threads:
            raise ConfigError(f"--threads-min: {self.threads_min} is more than --threads, {self.threads}")
        head = self.limit_request_head
        for option, size in (
            ("--limit-request-line", self.limit_request_line),
            ("--limit-request-field-size", self.limit_request_field_size),
        ):
            if size > max(head, LINE):  # who lowers the limit of the head need not lower these too
                raise ConfigError(f"{option}: {size} bytes are more than --limit-request-head, {head}")
        if self.ssl_cert_reqs != "none" and self.ssl_ca_certs is None:
            raise ConfigError(
                f"--ssl-cert-reqs: {self.ssl_cert_reqs!r} needs --ssl-ca-certs, which says whom to believe"
            )
        if self.ssl_certfile is None:
            for name in ("ssl_keyfile", "ssl_keyfile_password", "ssl_ca_certs", "ssl_ciphers"):
                if getattr(self, name) is not None:
                    raise ConfigError(f"--{name.replace('_', '-')}: needs --ssl-certfile, which switches TLS on")

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Where to listen: all of ``bind``, ``uds`` and ``fd``, or else ``host`` and ``port``."""
        found = list(self.bind)
        if self.uds is not None:
            found.append(UnixAddress(self.uds))
        if self.fd is not None:
            found.append(FileDescriptor(self.fd))
        return tuple(found) or (TCPAddress(self.host, self.port),)

    def body_limit(self, *, wsgi: bool) -> int | None:
        """Return the most bytes of content a request may have, None for no limit."""
        if self.limit_request_body == "auto":
            return GIB if wsgi else None
        return self.limit_request_body


SETTINGS: Final = tuple(Setting(field.name, field.default, **field.metadata) for field in fields(Config))
