"""The table of settings: their names, kinds, defaults and meanings.

The fields of `Config` are the table. Options, environment variables and ``docs/options.md`` are generated from it, and
no other module of bridge knows a default. Sizes are bytes and times are seconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final, Literal

from bridge.config.budgets import BUDGETS
from bridge.config.http2 import HTTP2, HTTP2Config
from bridge.config.kinds import (
    ADDRESSES,
    CERTIFICATES,
    DIRECTORY,
    FILE,
    FUNCTION,
    HOST,
    MODE,
    MOUNTS,
    NETWORKS,
    PORT,
    ROOT_PATH,
    SIZE,
    SWITCH,
    TEXT,
    Address,
    FileDescriptor,
    TCPAddress,
    UnixAddress,
    choice,
    off_or,
    seconds,
    whole,
    words,
)
from bridge.config.operation import OPERATION
from bridge.config.output import OUTPUT
from bridge.config.process import DEVELOPMENT, WORKERS
from bridge.config.table import setting
from bridge.errors import ConfigError

__all__ = ["GROUPS", "SETTINGS", "TORNADO_BODY_LIMIT", "WSGI_BODY_LIMIT", "Config", "option"]

APPLICATION = "Application"
BINDING = "Where to listen"
WSGI = "WSGI"
WEBSOCKET = "WebSocket"
TLS = "TLS"
LIMITS = "Limits"
TIMEOUTS = "Timeouts"
PROXIES = "Behind a proxy"
GROUPS: Final = (
    *(APPLICATION, BINDING, WORKERS, WSGI, WEBSOCKET, TLS, HTTP2, LIMITS, TIMEOUTS, BUDGETS, PROXIES),
    *(OUTPUT, OPERATION, DEVELOPMENT),
)

#: The fields by which proxies report the client, as they are believed unless the settings say otherwise.
FORWARDED_FIELDS: Final = (
    "x-forwarded-for",
    "x-real-ip",
    "x-forwarded-proto",
    "x-scheme",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "forwarded",
)
#: Fields that are believed only if the settings name them: those in which old proxies report the scheme, and
#: gunicorn's.
RARE_FORWARDED_FIELDS: Final = ("x-forwarded-scheme", "x-forwarded-protocol", "x-forwarded-ssl", "script_name")

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
LINE = 8190

#: The most content of one request that goes to a temporary file (bytes), unless the settings say otherwise.
WSGI_BODY_LIMIT = GIB
#: The same for Tornado's interface, where most applications get the content as one object in memory. It is
#: HTTPServer's ``max_buffer_size``.
TORNADO_BODY_LIMIT = 100 * MIB


def _is_loopback(address: Address) -> bool:
    """Tell whether *address* can only be reached from this machine, as far as its text tells."""
    if isinstance(address, TCPAddress):
        return address.host in {"localhost", "::1"} or address.host.startswith("127.")
    return isinstance(address, UnixAddress)


class Config(HTTP2Config):
    """Every setting with its value. An instance is immutable.

    `bridge.config.sources.load` makes one from files, the environment and the command line. The constructor converts
    nothing: its values must have the types below.

    Raises:
        ConfigError: Two settings contradict each other.
    """

    target: str = setting(
        APPLICATION,
        TEXT,
        "",
        "module:attribute, module:factory(), path/to/file.py:attribute, or a module alone, whose application,"
        " app, asgi or wsgi is served",
        positional=True,
    )
    interface: str = setting(
        APPLICATION,
        choice("KIND", "auto", "asgi3", "asgi2", "wsgi", "tornado", "delegate", "callable", synonyms={"asgi": "asgi3"}),
        "auto",
        "the interface of TARGET: CHOICES; auto detects it",
    )
    factory: bool = setting(
        APPLICATION, SWITCH, False, "call TARGET without arguments and serve what it returns", aliases=("call",)
    )
    app_dir: str | None = setting(
        APPLICATION, DIRECTORY, None, "the directory that is put first on the import path", shown="the current one"
    )
    lifespan: str = setting(
        APPLICATION,
        choice("WHEN", "auto", "on", "off"),
        "auto",
        "whether the application gets ASGI lifespan events: CHOICES; auto sends them unless the application"
        " refuses them",
        aliases=("asgi-lifespan",),
    )
    asgi_pathsend: bool = setting(
        APPLICATION,
        SWITCH,
        False,
        "offer ASGI's pathsend extension, which sends files by sendfile; middleware that reads the content of"
        " responses must support it",
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
        "the event loop: CHOICES; auto uses uvloop if it is installed",
        aliases=("asgi-loop",),
    )
    mount: tuple[tuple[str, str, str], ...] = setting(
        APPLICATION,
        MOUNTS,
        (),
        "PATH=TARGET or HOST/PATH=TARGET: serve another application below this path; may be repeated; the TARGET"
        " without --mount is served at /",
    )

    host: str = setting(BINDING, HOST, "127.0.0.1", "listen on this host; * means every interface")
    port: int = setting(BINDING, PORT, 8000, "listen on this port; 0 picks a free one", foreign=("PORT",))
    bind: tuple[Address, ...] = setting(
        BINDING,
        ADDRESSES,
        (),
        "listen on HOST:PORT, [IPV6]:PORT, :PORT, unix:PATH, fd://N or systemd[:NAME] instead of --host and --port;"
        " may be repeated",
        short="-b",
        aliases=("listen",),
    )
    uds: str | None = setting(BINDING, FILE, None, "listen on this Unix domain socket", aliases=("unix-socket",))
    uds_permissions: int = setting(
        BINDING, MODE, 0o660, "the file mode of Unix domain sockets", aliases=("unix-socket-perms",), shown="660"
    )
    uds_owner: str | None = setting(
        BINDING, TEXT, None, "give Unix domain sockets to this USER, USER:GROUP or :GROUP", shown="the process's user"
    )
    fd: int | None = setting(BINDING, whole(0), None, "listen on this inherited socket")
    backlog: int = setting(BINDING, whole(1, 65535), 2048, "connections that the kernel queues until they are accepted")
    reuse_port: bool = setting(BINDING, SWITCH, False, "let other servers listen on the same port (SO_REUSEPORT)")
    proxy_protocol: str = setting(
        BINDING,
        choice("VERSION", "off", "v1", "v2", "auto", synonyms={"1": "v1", "2": "v2", "on": "auto"}),
        "off",
        "whether each connection begins with a PROXY protocol header: CHOICES; auto accepts both versions",
    )
    proxy_allow_from: tuple[str, ...] = setting(
        BINDING,
        NETWORKS,
        ("127.0.0.1", "::1", "unix"),
        "the peers that may send a PROXY protocol header; connections of other peers are closed",
        aliases=("proxy-allow-ips",),
    )

    threads: int = setting(
        WSGI,
        whole(1, 10_000),
        64,
        "how many threads may run WSGI requests at once; a thread starts only when a request waits",
        aliases=("wsgi-threads", "blocking-threads"),
    )
    threads_min: int = setting(WSGI, whole(0, 10_000), 1, "how many threads stay while there is nothing to do")
    threads_idle: float = setting(
        WSGI, seconds(), 30.0, "how long a thread beyond --threads-min may be idle before it ends"
    )
    wsgi_queue: int = setting(WSGI, whole(1), 1024, "how many requests may wait for a thread; more are answered 503")
    wsgi_queue_timeout: float = setting(
        WSGI, seconds(), 30.0, "how long a request may wait for a thread; then it is answered 503"
    )
    wsgi_buffer_requests: int | None = setting(
        WSGI,
        off_or(SIZE),
        64 * KIB,
        "all content is received before the request gets a thread; content beyond this size goes to a temporary"
        " file; off gives the request a thread at once, and streams the content",
        aliases=("inbuf-overflow",),
    )
    wsgi_buffer_responses: int = setting(
        WSGI,
        SIZE,
        64 * MIB,
        "how much of one response waits in a temporary file for a slow client; beyond that, the thread waits",
        aliases=("outbuf-high-watermark",),
    )

    ws: bool = setting(WEBSOCKET, SWITCH, True, "serve WebSockets to ASGI applications", aliases=("websockets",))
    ws_max_size: int = setting(
        WEBSOCKET,
        SIZE,
        16 * MIB,
        "the largest message, after decompression; a larger one closes the WebSocket with code 1009",
        aliases=("websocket-max-message-size",),
    )
    ws_max_queue: int = setting(
        WEBSOCKET,
        whole(1),
        32,
        "how many messages may wait for the application; then bridge reads no more until the application takes one",
    )
    ws_ping_interval: float | None = setting(
        WEBSOCKET,
        off_or(seconds()),
        20.0,
        "the time between two pings to a client",
        aliases=("ping-interval", "websocket-ping-interval"),
    )
    ws_ping_timeout: float | None = setting(
        WEBSOCKET,
        off_or(seconds()),
        20.0,
        "how long a client may be silent after a ping; then the WebSocket is closed",
        aliases=("ping-timeout",),
    )
    ws_max_control_frames: int | None = setting(
        WEBSOCKET,
        off_or(whole(1)),
        200,
        "how many pings and pongs a client may send in a second; more close the WebSocket with code 1008",
    )
    ws_per_message_deflate: bool = setting(
        WEBSOCKET, SWITCH, True, "compress messages if the client supports it", aliases=("websockets-compression",)
    )

    ssl_certfile: str | None = setting(
        TLS,
        FILE,
        None,
        "the certificate with its chain (PEM); switches TLS on",
        aliases=("certfile", "ssl-certificate"),
    )
    ssl_keyfile: str | None = setting(
        TLS, FILE, None, "the private key (PEM), if it is not in the certificate's file", aliases=("keyfile",)
    )
    ssl_keyfile_password: str | None = setting(
        TLS,
        TEXT,
        None,
        "the password of the private key; set it in the environment, where other users cannot see it",
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
    ssl_minimum_version: str = setting(
        TLS,
        choice(
            "VERSION", "1.2", "1.3", synonyms={"tls1.2": "1.2", "tls1.3": "1.3", "tlsv1.2": "1.2", "tlsv1.3": "1.3"}
        ),
        "1.2",
        "the oldest version of TLS: CHOICES",
        aliases=("ssl-protocol-min",),
    )
    ssl_sni: tuple[tuple[str, str, str], ...] = setting(
        TLS,
        CERTIFICATES,
        (),
        "HOST=CERTIFICATE[,KEY]: the certificate for clients that ask for this host; *.NAME is every host one"
        " level below NAME; may be repeated",
    )
    ssl_reload: bool = setting(TLS, SWITCH, True, "read certificates again when their files change")
    ssl_context_factory: str | Callable[..., Any] | None = setting(
        TLS,
        FUNCTION,
        None,
        "a function, module:name, that makes the ssl.SSLContext; bridge calls it with the Config and the function"
        " that makes the usual context",
    )

    limit_request_line: int = setting(LIMITS, SIZE, LINE, "the longest request line; a longer one is answered 414")
    limit_request_fields: int = setting(
        LIMITS, whole(1), 100, "how many header fields a request may have; more are answered 431"
    )
    limit_request_field_size: int = setting(
        LIMITS, SIZE, LINE, "the longest header field; a longer one is answered 431"
    )
    limit_request_head: int = setting(
        LIMITS,
        SIZE,
        64 * KIB,
        "the largest head of a request, with all its fields; a larger one is answered 431",
        aliases=("max-request-header-size", "h11-max-incomplete-event-size"),
    )
    limit_request_body: int | Literal["auto"] | None = setting(
        LIMITS,
        off_or(SIZE),
        "auto",
        "the largest content of a request; more is answered 413",
        aliases=("max-request-body-size",),
        shown="off for ASGI, 1 GiB for WSGI, 100 MiB for Tornado's interface",
    )
    limit_concurrency: int | None = setting(
        LIMITS,
        off_or(whole(1)),
        None,
        "how many requests may be in progress at once; more are answered 503",
        aliases=("backpressure",),
    )
    limit_connections: int | None = setting(
        LIMITS,
        off_or(whole(1)),
        None,
        "how many connections may be open at once; then no more are accepted",
        aliases=("worker-connections", "connection-limit"),
    )
    limit_keep_alive_requests: int | None = setting(
        LIMITS,
        off_or(whole(1)),
        None,
        "how many requests one connection may have; then it is closed",
        aliases=("max-requests-per-connection",),
    )

    timeout_keep_alive: float = setting(
        TIMEOUTS,
        seconds(zero=True),
        5.0,
        "how long an idle connection stays open; 0 closes it after each response",
        aliases=("keep-alive", "channel-timeout"),
    )
    timeout_keep_alive_proxy: float | None = setting(
        TIMEOUTS,
        off_or(seconds()),
        75.0,
        "how long an idle connection of a known proxy stays open; known proxies are peers on Unix sockets, peers"
        " that send a PROXY header, and peers whose address or network --forwarded-allow-ips names; off means"
        " --timeout-keep-alive for them too",
    )
    timeout_request_head: float | None = setting(
        TIMEOUTS,
        off_or(seconds()),
        10.0,
        "how long a client may take to send the head of a request; then it is answered 408; for the first request"
        " the time begins with the connection",
        aliases=("header-timeout",),
    )
    timeout_request_body: float | None = setting(
        TIMEOUTS,
        off_or(seconds()),
        30.0,
        "how long a client may send no content of its request, or less than --rate-request-body on average; then"
        " it is answered 408",
        aliases=("body-timeout", "read-timeout"),
    )
    timeout_write: float | None = setting(
        TIMEOUTS,
        off_or(seconds()),
        60.0,
        "how long a client may read nothing of its response; then the connection is reset",
    )
    timeout_tls_handshake: float = setting(
        TIMEOUTS, seconds(), 10.0, "how long the TLS handshake may take", aliases=("ssl-handshake-timeout",)
    )
    timeout_request: float | None = setting(
        TIMEOUTS,
        off_or(seconds()),
        None,
        "how long an application of ASGI or WSGI may take for a response; then the request is answered 504, or the"
        " connection is cut if the response has begun; Tornado's interface has no such limit",
        aliases=("http-timeout",),
    )
    timeout_disconnect_grace: float | None = setting(
        TIMEOUTS,
        off_or(seconds()),
        3.0,
        "how long an ASGI application may go on after its client has left; then it is cancelled",
        aliases=("asgi-disconnect-grace-period", "application-close-timeout"),
    )
    timeout_drain_websockets: float | None = setting(
        TIMEOUTS, off_or(seconds(zero=True)), 5.0, "how long WebSockets stay open when the server stops"
    )
    timeout_drain_streams: float | Literal["auto"] | None = setting(
        TIMEOUTS,
        off_or(seconds(zero=True)),
        "auto",
        "how long event streams (text/event-stream, multipart/x-mixed-replace) go on when the server stops",
        shown="until they send nothing for 5 s",
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
        "take the client's address, scheme and host from X-Forwarded-... of trusted proxies;"
        " --forwarded-allow-ips switches this on",
    )
    forwarded_allow_ips: tuple[str, ...] = setting(
        PROXIES,
        NETWORKS,
        ("127.0.0.1", "::1", "unix"),
        "the trusted proxies, whose X-Forwarded-... fields bridge believes: addresses, networks, unix, or * for"
        " all; --http2-cleartext trusted and --request-id proxy mean the same peers, or 127.0.0.1,::1,unix if this"
        " is not given",
        foreign=("FORWARDED_ALLOW_IPS",),
        shown="nobody; with --proxy-headers 127.0.0.1,::1,unix",
    )
    forwarded_hops: int | None = setting(
        PROXIES,
        off_or(whole(1, 100)),
        None,
        "the number of proxies in front, if their addresses are not known; needs --forwarded-allow-ips",
        aliases=("trusted-proxy-count", "trusted-hops"),
    )
    forwarded_fields: tuple[str, ...] = setting(
        PROXIES,
        words(
            "NAMES",
            f"a list of {', '.join(FORWARDED_FIELDS + RARE_FORWARDED_FIELDS)}",
            *FORWARDED_FIELDS,
            *RARE_FORWARDED_FIELDS,
        ),
        FORWARDED_FIELDS,
        "the fields that the proxies in front set; the others are removed; these count only if they are named"
        f" here: {', '.join(RARE_FORWARDED_FIELDS)}",
        aliases=("trusted-proxy-headers",),
    )
    forwarded_strip: bool = setting(
        PROXIES,
        SWITCH,
        True,
        "remove forwarded fields of peers that are not trusted; without this, the application sees what any"
        " client has sent",
        aliases=("clear-untrusted-proxy-headers",),
    )

    def _check(self) -> None:
        if self.threads_min > self.threads:
            raise ConfigError(f"--threads-min: {self.threads_min} is more than --threads, {self.threads}")
        head = self.limit_request_head
        for option, size in (
            ("--limit-request-line", self.limit_request_line),
            ("--limit-request-field-size", self.limit_request_field_size),
        ):
            if size > max(head, LINE):  # the defaults are fine, even if only the limit of the head is lowered
                raise ConfigError(f"{option}: {size} bytes are more than --limit-request-head, {head}")
        self._check_tls()
        self.check_http2(self.ssl_certfile is not None or self.ssl_context_factory is not None)
        if self.workers is not None and self.workers > 1 and not hasattr(os, "fork"):
            raise ConfigError(f"--workers: {self.workers} processes need fork(), which this system lacks")
        self._check_operation(self.addresses, tuple(path for _, path, _ in self.mount if path))
        if self.hooks and self.workers is None and not self.reload:
            raise ConfigError("--hooks: need --workers: without a master there is nobody to call most of them")
        if self.forwarded_hops is not None and not self.proxy_headers:
            raise ConfigError(
                "--forwarded-hops: needs --forwarded-allow-ips; name the proxies, or '*' if only they can reach the"
                " server"
            )
        if self.debug and not self.debug_anywhere:
            for address in self.addresses:
                if not _is_loopback(address):
                    raise ConfigError(f"--debug: {address} is not on the loopback interface; see --debug-anywhere")

    def _check_tls(self) -> None:
        if self.ssl_cert_reqs != "none" and self.ssl_ca_certs is None:
            raise ConfigError(
                f"--ssl-cert-reqs: {self.ssl_cert_reqs!r} needs --ssl-ca-certs, which names the authorities to trust"
            )
        if self.ssl_certfile is None:
            for name in ("ssl_keyfile", "ssl_keyfile_password", "ssl_ca_certs", "ssl_ciphers"):
                if getattr(self, name) is not None:
                    raise ConfigError(f"--{name.replace('_', '-')}: needs --ssl-certfile, which switches TLS on")
            if self.ssl_sni:
                raise ConfigError("--ssl-sni: needs --ssl-certfile, for clients that name none of these hosts")

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The addresses to listen on: all of ``bind``, ``uds`` and ``fd``, or else ``host`` and ``port``."""
        found = list(self.bind)
        if self.uds is not None:
            found.append(UnixAddress(self.uds))
        if self.fd is not None:
            found.append(FileDescriptor(self.fd))
        return tuple(found) or (TCPAddress(self.host, self.port),)

    def body_limit(self, default: int | None) -> int | None:
        """Return the most bytes of content a request may have, None for no limit.

        Args:
            default: The limit of the application's interface, which applies unless ``limit_request_body`` is given.
        """
        return default if self.limit_request_body == "auto" else self.limit_request_body


def option(name: str) -> str:
    """Return how the command line spells a setting, for messages: ``app_dir`` is ``--app-dir``.

    Raises:
        KeyError: There is no setting *name*.
    """
    return Config.rows[name].option


SETTINGS: Final = tuple(sorted(Config.rows.values(), key=lambda row: GROUPS.index(row.group)))
