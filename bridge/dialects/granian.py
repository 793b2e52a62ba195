"""granian's options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.dialects.convert import access_format, each, fact, factor, file_target, window, with_attribute
from bridge.dialects.parsing import from_variables, last_of_each, parse, single
from bridge.dialects.table import Dialect, Fate, Grammar, Option, Row, Takes, Translation, Usage, row
from bridge.dialects.uvicorn import settle_address

__all__ = ["DIALECT"]

SAME, NEAR, NO_EFFECT, REFUSED = Fate.SAME, Fate.NEAR, Fate.NO_EFFECT, Fate.REFUSED

_FORMAT = '[%(time)s] %(addr)s - "%(method)s %(path)s %(protocol)s" %(status)s %(dt_ms)s'
_HTTP2 = "bridge sizes this itself"
_RUST = "bridge has no Rust threads"
_STATIC = "bridge serves no static files; let a proxy do it, or whitenoise"
_METRICS = "granian's metrics have names of their own"


def _interface(value: Any, t: Translation) -> tuple[Fate, str] | None:
    if value == "rsgi":
        return REFUSED, "RSGI is granian's own interface: add --interface asgi or --interface wsgi"
    t.set("interface", {"asginl": "asgi3", "asgi": "asgi3"}.get(value, value))
    if value == "asginl":
        t.set("lifespan", "off")
    return None


def _duration(name: str) -> Any:
    def convert(value: Any, t: Translation) -> None:
        t.set(name, _seconds(str(value)))

    return convert


def _seconds(text: str) -> str:
    """Return ``1h30m`` as seconds."""
    import re

    match = re.fullmatch(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?", text)
    if text.isdecimal() or match is None:
        return text
    return str(sum(int(number or 0) * size for number, size in zip(match.groups(), (86400, 3600, 60, 1), strict=True)))


def _http(value: Any, t: Translation) -> None:
    t.set("http_protocols", {"1": "h1", "2": "h2"}.get(value, "h2,h1"))
    if value == "2":
        t.set("http2_cleartext", "on")


def _log_level(value: Any, t: Translation) -> None:
    t.set("log_level", "debug" if value == "notset" else value)


def _keep_alive(value: Any, t: Translation) -> None:
    if not value:
        t.set("timeout_keep_alive", 0)


def _verify(value: Any, t: Translation) -> None:
    if value:
        t.set("ssl_cert_reqs", "required")


def _loop(value: Any, t: Translation) -> tuple[Fate, str] | None:
    if value in {"rloop", "winloop"}:
        t.set("loop", "auto")
        return NEAR, "bridge runs on asyncio or uvloop"
    t.set("loop", value)
    return None


def _unless_off(value: Any, t: Translation) -> tuple[Fate, str] | None:
    return None if value else (SAME, "")


def _log(value: Any, t: Translation) -> tuple[Fate, str] | None:
    if not value:
        t.set("log_level", "critical")
        return NEAR, "messages of the level critical are still written"
    return SAME, ""


ROWS: tuple[Row, ...] = (
    row("app", SAME, "target", convert=lambda value, t: t.set("target", file_target(value))),
    row("--host", SAME, "bind", convert=fact("host")),
    row("--port", SAME, "bind", takes=Takes.INT, convert=fact("port")),
    row("--uds", SAME, "uds", convert=fact("uds")),
    row("--uds-permissions", SAME, "uds_permissions"),
    row("--interface", SAME, "interface", choices="asgi asginl rsgi wsgi", convert=_interface),
    row("--http", SAME, "http_protocols", choices="auto 1 2", convert=_http),
    row("--ws", SAME, "ws", name="websockets", takes=Takes.FLAG, negative="--no-ws"),
    row("--workers", SAME, "workers", takes=Takes.INT),
    row("--blocking-threads", SAME, "threads", takes=Takes.INT),
    row("--blocking-threads-idle-timeout", SAME, "threads_idle", convert=_duration("threads_idle")),
    row("--runtime-threads", NEAR, "", _RUST, takes=Takes.INT),
    row("--runtime-blocking-threads", NEAR, "", _RUST, takes=Takes.INT),
    row("--runtime-mode", NEAR, "", _RUST, choices="auto mt st"),
    row("--loop", SAME, "loop", choices="auto asyncio rloop uvloop winloop", convert=_loop),
    row("--task-impl", NEAR, "", "tasks are asyncio's", choices="asyncio rust"),
    row("--backlog", SAME, "backlog", takes=Takes.INT),
    row("--backpressure", NEAR, "limit_connections", "connections beyond it wait in the kernel's queue, in each worker",
        takes=Takes.INT, convert=lambda value, t: t.set("limit_connections", value)),
    row("--http1-buffer-size", NEAR, "", "bridge reads up to 64 KiB ahead", takes=Takes.INT),
    row("--http1-header-read-timeout", SAME, "timeout_request_head", takes=Takes.INT,
        convert=factor("timeout_request_head", 0.001)),
    row("--http1-keep-alive", SAME, "timeout_keep_alive", takes=Takes.FLAG, negative="--no-http1-keep-alive",
        convert=_keep_alive),
    row("--http1-pipeline-flush", NEAR, "", "bridge always writes the responses of one turn together", takes=Takes.FLAG,
        negative="--no-http1-pipeline-flush"),
    row("--http2-adaptive-window", NO_EFFECT, "", _HTTP2, takes=Takes.FLAG, negative="--no-http2-adaptive-window"),
    row("--http2-initial-connection-window-size", NO_EFFECT, "", _HTTP2, takes=Takes.INT),
    row("--http2-initial-stream-window-size", NEAR, "http2_max_stream_window",
        "windows begin with 65535 bytes and grow", takes=Takes.INT, convert=window),
    row("--http2-keep-alive-interval", SAME, "http2_ping_interval", takes=Takes.INT,
        convert=factor("http2_ping_interval", 0.001)),
    row("--http2-keep-alive-timeout", NO_EFFECT, "", _HTTP2),
    row("--http2-max-concurrent-streams", SAME, "http2_max_concurrent_streams", takes=Takes.INT),
    row("--http2-max-frame-size", NO_EFFECT, "", _HTTP2, takes=Takes.INT),
    row("--http2-max-headers-size", SAME, "http2_max_header_list_size", takes=Takes.INT),
    row("--http2-max-send-buffer-size", NO_EFFECT, "", _HTTP2, takes=Takes.INT),
    row("--log", SAME, "log_level", takes=Takes.FLAG, negative="--no-log", name="log_enabled", convert=_log),
    row("--log-level", SAME, "log_level", choices="critical error warning warn info debug notset", convert=_log_level),
    row("--log-config", SAME, "log_config"),
    row("--access-log", SAME, "access_log", takes=Takes.FLAG, negative="--no-access-log", name="log_access_enabled"),
    row("--access-log-fmt", SAME, "access_logformat", name="log_access_fmt", convert=access_format),
    row("--ssl-certificate", SAME, "ssl_certfile"),
    row("--ssl-keyfile", SAME, "ssl_keyfile"),
    row("--ssl-keyfile-password", SAME, "ssl_keyfile_password"),
    row("--ssl-protocol-min", SAME, "ssl_minimum_version", choices="tls1.2 tls1.3"),
    row("--ssl-ca", SAME, "ssl_ca_certs"),
    row("--ssl-crl", REFUSED, "", "bridge reads no list of revoked certificates; use --ssl-context-factory",
        takes=Takes.LIST),
    row("--ssl-client-verify", SAME, "ssl_cert_reqs", takes=Takes.FLAG, negative="--no-ssl-client-verify",
        convert=_verify),
    row("--url-path-prefix", NEAR, "root_path", "paths outside the prefix are served too"),
    row("--respawn-failed-workers", NEAR, "", "a worker that ends is always replaced", takes=Takes.FLAG,
        negative="--no-respawn-failed-workers"),
    row("--respawn-interval", NEAR, "", "workers are replaced one after the other, each when its successor serves",
        takes=Takes.FLOAT),
    row("--rss-sample-interval", SAME, "rss_interval", convert=_duration("rss_interval")),
    row("--rss-samples", SAME, "rss_samples", takes=Takes.INT),
    row("--workers-lifetime", SAME, "workers_lifetime", convert=_duration("workers_lifetime")),
    row("--workers-max-rss", SAME, "workers_max_rss", takes=Takes.INT,
        convert=lambda value, t: t.set("workers_max_rss", f"{value}m")),
    row("--workers-kill-timeout", SAME, "timeout_graceful_shutdown", convert=_duration("timeout_graceful_shutdown")),
    row("--factory", SAME, "factory", takes=Takes.FLAG, negative="--no-factory"),
    row("--working-dir", SAME, "chdir"),
    row("--env-files", SAME, "env_file", takes=Takes.LIST, convert=each("env_file")),
    row("--static-path-route", REFUSED, "", _STATIC, takes=Takes.LIST),
    row("--static-path-mount", REFUSED, "", _STATIC, takes=Takes.LIST),
    row("--static-path-dir-to-file", NO_EFFECT, "", _STATIC),
    row("--static-path-expires", NO_EFFECT, "", _STATIC),
    row("--metrics", NO_EFFECT, "", _METRICS, takes=Takes.FLAG, negative="--no-metrics", name="metrics_enabled",
        convert=_unless_off),
    row("--metrics-scrape-interval", NO_EFFECT, "", _METRICS),
    row("--metrics-address", NO_EFFECT, "", _METRICS),
    row("--metrics-port", NO_EFFECT, "", _METRICS, takes=Takes.INT),
    row("--reload", SAME, "reload", takes=Takes.FLAG, negative="--no-reload"),
    row("--reload-paths", SAME, "reload_dir", takes=Takes.LIST, convert=each("reload_dir")),
    row("--reload-ignore-dirs", SAME, "reload_exclude", takes=Takes.LIST, convert=each("reload_exclude")),
    row("--reload-ignore-patterns", NEAR, "reload_exclude", "patterns are those of a shell, not regular expressions",
        takes=Takes.LIST, convert=each("reload_exclude")),
    row("--reload-ignore-paths", SAME, "reload_exclude", takes=Takes.LIST, convert=each("reload_exclude")),
    row("--reload-tick", SAME, "reload_delay", takes=Takes.INT, convert=factor("reload_delay", 0.001)),
    row("--reload-ignore-worker-failure", NEAR, "", "bridge always waits for a worker that fails", takes=Takes.FLAG,
        negative="--no-reload-ignore-worker-failure"),
    row("--process-name", SAME, "process_name"),
    row("--pid-file", SAME, "pid"),
    row("--version", SAME, "", takes=Takes.FLAG),
)  # fmt: skip


def _options(words: list[str], environ: Mapping[str, str]) -> list[Option]:
    found = from_variables(ROWS, "GRANIAN", environ)
    given, arguments = parse(ROWS, words, Grammar.CLICK)
    found += given
    app = single(arguments, Grammar.CLICK)
    if app is not None:
        found.append(Option(ROWS[0], app, "APP"))
    return last_of_each(found)


def _finish(t: Translation) -> None:
    if "target" not in t.layer:
        raise Usage("Missing argument 'APP'.")
    factory = "factory" in t.layer and t.layer["factory"].text == "on"
    given = t.layer["target"]
    t.layer["target"] = given._replace(text=with_attribute(given.text, "create_app" if factory else "app"))
    if "interface" not in t.layer and not any(outcome.option.endswith("nterface") for outcome in t.outcomes):
        t.note("(default)", "--interface rsgi", REFUSED, "RSGI is granian's own interface: add --interface asgi or"
               " --interface wsgi")  # fmt: skip
    settle_address(t)
    t.default("workers", "1", "granian")
    t.default("access_log", "off", "granian")
    t.default("access_logformat", _FORMAT, "granian")
    t.default("ssl_minimum_version", "1.3", "granian")
    t.default("timeout_request_head", "30", "granian")


DIALECT = Dialect(
    name="granian",
    version="2.8",
    usage="granian [OPTIONS] APP",
    grammar=Grammar.CLICK,
    rows=ROWS,
    options=_options,
    finish=_finish,
)
