"""hypercorn's options, and the names in its configuration files."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import Any

from bridge.dialects.convert import (
    access_format,
    cert_reqs,
    file_target,
    host_and_port,
    silence_requests,
    statsd,
    statsd_prefix,
    zero_is_off,
)
from bridge.dialects.files import in_words, names_of_module, names_of_program, read
from bridge.dialects.parsing import last_of_each, parse, single
from bridge.dialects.table import Dialect, Fate, Grammar, Option, Row, Takes, Translation, row
from bridge.errors import ConfigError

__all__ = ["DIALECT", "ROWS", "settle_defaults"]

SAME, NEAR, NO_EFFECT, REFUSED = Fate.SAME, Fate.NEAR, Fate.NO_EFFECT, Fate.REFUSED

_FORMAT = '%(h)s %(l)s %(l)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'


def address(text: str) -> str:
    """Return an address as ``--bind`` takes it; hypercorn's rules, where a host alone has port 8000."""
    if text.startswith(("unix:", "fd://")):
        return text
    bare = text.replace("[", "").replace("]", "")
    host, colon, port = bare.rpartition(":")
    return host_and_port(host, port) if colon and port.isdecimal() else host_and_port(bare, 8000)


def _bind(value: Any, t: Translation) -> None:
    for item in value if isinstance(value, list | tuple) else [value]:
        t.add("bind", address(str(item)))


def _insecure(value: Any, t: Translation) -> tuple[Fate, str] | None:
    if not value:
        return SAME, ""
    return REFUSED, "one bridge serves either TLS or plain HTTP; run a second one for these addresses"


def _quic(value: Any, t: Translation) -> tuple[Fate, str] | None:
    if not value:
        return SAME, ""
    return NO_EFFECT, "bridge does not speak HTTP/3"


def _access(value: Any, t: Translation) -> tuple[Fate, str] | None:
    t.set("access_log", "on" if value else "off")
    if isinstance(value, str) and value:
        t.set("access_logfile", value)
    elif value:
        return NEAR, "a logger object; lines go to standard output"
    return None


def _error(value: Any, t: Translation) -> tuple[Fate, str] | None:
    if value is None or isinstance(value, str):
        t.set("error_logfile", value or "-")
        return None
    return NEAR, "a logger object; messages go to standard error"


def _worker_class(value: Any, t: Translation) -> tuple[Fate, str] | None:
    if value in {"asyncio", "uvloop"}:
        t.set("loop", value)
        return None
    return REFUSED, f"{value}: bridge runs on asyncio or uvloop"


def _log_config(value: Any, t: Translation) -> tuple[Fate, str] | None:
    if not value:
        return SAME, ""
    kind, colon, path = str(value).partition(":")
    if colon and kind in {"json", "toml"}:
        if not path.endswith("." + kind):
            return REFUSED, f"the file's name must end in .{kind}"
        value = path
    t.set("log_config", value)
    return None


def _log_config_dict(value: Any, t: Translation) -> None:
    if value:
        t.objects["log_config"] = dict(value)


def _log_level(value: Any, t: Translation) -> None:
    t.set("log_level", str(value or "info").lower())


def _max_requests(value: Any, t: Translation) -> None:
    if value is not None:
        t.set("limit_max_requests", "off" if int(value) == 0 else value)


def _umask(value: Any, t: Translation) -> None:
    if value is not None:
        t.set("umask", f"{int(value):03o}")


def _optional(name: str) -> Any:
    def convert(value: Any, t: Translation) -> None:
        if value is not None:
            t.set(name, value)

    return convert


def _read_timeout(value: Any, t: Translation) -> None:
    if value is not None:
        t.set("timeout_request_body", value)
        t.set("timeout_request_head", value)


def _workers(value: Any, t: Translation) -> tuple[Fate, str] | None:
    if int(value) > 0:
        t.set("workers", value)
        return None
    return NEAR, "one process without a master"


def _names(value: Any, t: Translation) -> tuple[Fate, str] | None:
    return None if value else (SAME, "")


def _alpn(value: Any, t: Translation) -> None:
    known = {"h2": "h2", "http/1.1": "h1"}
    t.set("http_protocols", ",".join(known[word] for word in value if word in known) or "h1")


def _alt_svc(value: Any, t: Translation) -> None:
    for item in value:
        t.add("header", f"alt-svc: {item}", "\n")


def _target(value: Any, t: Translation) -> None:
    text = str(value)
    for prefix, interface in (("asgi:", "asgi3"), ("wsgi:", "wsgi")):
        if text.startswith(prefix):
            text = text.removeprefix(prefix)
            t.set("interface", interface)
    text = file_target(text)
    t.set("target", text if ":" in text else f"{text}:app")


_FILE = Takes.FILE_ONLY
ROWS: tuple[Row, ...] = (
    row("application", SAME, "target", convert=_target),
    row("--access-log", SAME, "access_logfile", convert=_access),
    row("--access-logfile", SAME, "access_logfile", name="accesslog", convert=_access),
    row("--access-logformat", SAME, "access_logformat", name="access_log_format", convert=access_format),
    row("--backlog", SAME, "backlog", takes=Takes.INT),
    row("-b --bind", SAME, "bind", takes=Takes.LIST, convert=_bind),
    row("--ca-certs", SAME, "ssl_ca_certs", convert=_optional("ssl_ca_certs")),
    row("--certfile", SAME, "ssl_certfile", convert=_optional("ssl_certfile")),
    row("--cert-reqs", SAME, "ssl_cert_reqs", takes=Takes.INT, convert=cert_reqs),
    row("--ciphers", SAME, "ssl_ciphers", convert=_optional("ssl_ciphers")),
    row("-c --config", SAME, "", convert=lambda value, t: None),
    row("-D --daemon", NO_EFFECT, "", "it has no effect in hypercorn either", takes=Takes.FLAG),
    row("--debug", NEAR, "log_level", "messages of the level debug are written", takes=Takes.FLAG,
        convert=lambda value, t: t.set("log_level", "debug") if value else (SAME, "")),
    row("--error-log", SAME, "error_logfile", convert=_error),
    row("--error-logfile --log-file", SAME, "error_logfile", name="errorlog", convert=_error),
    row("--graceful-timeout", SAME, "timeout_graceful_shutdown", takes=Takes.INT),
    row("--read-timeout", SAME, "timeout_request_head timeout_request_body", takes=Takes.INT, convert=_read_timeout),
    row("--max-requests", SAME, "limit_max_requests", takes=Takes.INT, convert=_max_requests),
    row("--max-requests-jitter", SAME, "limit_max_requests_jitter", takes=Takes.INT),
    row("-g --group", NEAR, "group", "the processes change to the group; hypercorn changes only the owner of unix"
        " sockets", takes=Takes.INT, convert=_optional("group")),
    row("-k --worker-class", SAME, "loop", convert=_worker_class),
    row("--keep-alive", SAME, "timeout_keep_alive", name="keep_alive_timeout", takes=Takes.INT),
    row("--keyfile", SAME, "ssl_keyfile", convert=_optional("ssl_keyfile")),
    row("--keyfile-password", SAME, "ssl_keyfile_password", convert=_optional("ssl_keyfile_password")),
    row("--insecure-bind", REFUSED, "", "one bridge serves either TLS or plain HTTP", name="insecure_bind",
        takes=Takes.LIST, convert=_insecure),
    row("--log-config", SAME, "log_config", name="logconfig", convert=_log_config),
    row("--log-level", SAME, "log_level", name="loglevel", convert=_log_level),
    row("-p --pid", SAME, "pid", name="pid_path", convert=_optional("pid")),
    row("--quic-bind", NO_EFFECT, "", "bridge does not speak HTTP/3", name="quic_bind", takes=Takes.LIST,
        convert=_quic),
    row("--reload", SAME, "reload", name="use_reloader", takes=Takes.FLAG),
    row("--root-path", SAME, "root_path"),
    row("--server-name", NO_EFFECT, "", "bridge takes every Host; let the application refuse (ALLOWED_HOSTS,"
        " TrustedHostMiddleware), or use --mount HOST/=TARGET", name="server_names", takes=Takes.LIST, convert=_names),
    row("--statsd-host", NEAR, "statsd", "the metrics have gunicorn's names", convert=statsd),
    row("--statsd-prefix", NEAR, "statsd_prefix", "the metrics have gunicorn's names", convert=statsd_prefix),
    row("-m --umask", SAME, "umask", takes=Takes.INT, convert=_umask),
    row("-u --user", NEAR, "user", "the processes change to the user; hypercorn changes only the owner of unix sockets",
        takes=Takes.INT, convert=_optional("user")),
    row("--verify-mode", SAME, "ssl_cert_reqs", convert=cert_reqs),
    row("--websocket-ping-interval", SAME, "ws_ping_interval", takes=Takes.INT, convert=_optional("ws_ping_interval")),
    row("-w --workers", SAME, "workers", takes=Takes.INT, convert=_workers),
    # names of configuration files only
    row("application_path", SAME, "target", takes=_FILE, convert=_target),
    row("alpn_protocols", SAME, "http_protocols", takes=_FILE, convert=_alpn),
    row("alt_svc_headers", SAME, "header", takes=_FILE,
        convert=_alt_svc),
    row("dogstatsd_tags", SAME, "dogstatsd_tags", takes=_FILE),
    row("h11_max_incomplete_size", SAME, "limit_request_head", takes=_FILE),
    row("h11_pass_raw_headers", NO_EFFECT, "", "names of fields are lower-case, as ASGI asks for", takes=_FILE),
    row("h2_max_concurrent_streams", SAME, "http2_max_concurrent_streams", takes=_FILE),
    row("h2_max_header_list_size", SAME, "http2_max_header_list_size", takes=_FILE),
    row("h2_max_inbound_frame_size", NEAR, "", "frames have up to 16 KiB", takes=_FILE),
    row("include_date_header", SAME, "date_header", takes=_FILE),
    row("include_server_header", SAME, "server_header", takes=_FILE),
    row("keep_alive_max_requests", SAME, "limit_keep_alive_requests", takes=_FILE,
        convert=zero_is_off("limit_keep_alive_requests")),
    row("logconfig_dict", SAME, "log_config", takes=_FILE, convert=_log_config_dict),
    row("logger_class", NO_EFFECT, "", "bridge has its own logger; --log-config says where it writes", takes=_FILE),
    row("max_app_queue_size", NEAR, "", "bridge reads from the client only what the application reads", takes=_FILE),
    row("shutdown_timeout", NEAR, "", "the lifespan's shutdown has what is left of the graceful timeout", takes=_FILE),
    row("ssl_handshake_timeout", SAME, "timeout_tls_handshake", takes=_FILE),
    row("startup_timeout", SAME, "timeout_worker_startup", takes=_FILE),
    row("verify_flags", NO_EFFECT, "", "use --ssl-context-factory", takes=_FILE, convert=_names),
    row("websocket_max_message_size", SAME, "ws_max_size", takes=_FILE),
    row("wsgi_max_body_size", SAME, "limit_request_body", takes=_FILE),
)  # fmt: skip

_BY_NAME = {one.name: one for one in ROWS}


def _options(words: list[str], environ: Mapping[str, str]) -> list[Option]:
    given, arguments = parse(ROWS, words, Grammar.ARGPARSE)
    application = single(arguments, Grammar.ARGPARSE, "application")
    path = next((str(option.value) for option in reversed(given) if option.row.name == "config"), None)
    found = [] if path is None else _file(path)
    found += given
    found.append(Option(ROWS[0], application, "APPLICATION"))
    return last_of_each(found)


def _file(path: str) -> list[Option]:
    """Return the settings of a configuration file: TOML, ``file:`` for Python, ``python:`` for a module."""
    if path.startswith("python:"):
        sys.path.insert(0, os.getcwd())
        values = names_of_module(path.removeprefix("python:"))
    elif path.startswith("file:"):
        values = names_of_program(path.removeprefix("file:"), "hypercorn_config")
    else:
        import tomllib

        content = read(path)
        try:
            values = tomllib.loads(content.decode())
        except (ValueError, RecursionError) as exc:  # no TOML, no UTF-8, or tables in tables in tables
            raise ConfigError(f"{path}: {in_words(exc)}") from exc
    return [Option(_BY_NAME[name], value, f"{path}: {name}") for name, value in values.items() if name in _BY_NAME]


def settle_defaults(t: Translation) -> None:
    """Set hypercorn's defaults where they differ from bridge's."""
    t.default("bind", "127.0.0.1:8000", "hypercorn")
    t.default("workers", "1", "hypercorn")
    t.default("ws_ping_interval", "off", "hypercorn")
    t.default("access_logformat", _FORMAT, "hypercorn")
    silence_requests(t)
    if "timeout_graceful_shutdown" not in t.layer:
        t.note("(default)", "", NEAR, "requests in progress have 30 s at a stop; 3 s in hypercorn")
    if "access_log" not in t.layer:
        on = "log_config" in t.layer or "log_config" in t.objects
        t.default("access_log", "on" if on else "off", "hypercorn")


def _finish(t: Translation) -> None:
    settle_defaults(t)


DIALECT = Dialect(
    name="hypercorn",
    version="0.18",
    usage="hypercorn [OPTIONS] application",
    grammar=Grammar.ARGPARSE,
    rows=ROWS,
    options=_options,
    finish=_finish,
)
