"""gunicorn's options and settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any

from bridge.config.hooks import POINTS, Hooks
from bridge.dialects.convert import (
    access_format,
    cert_reqs,
    each,
    fact,
    host_and_port,
    only,
    statsd,
    statsd_prefix,
    window,
    with_attribute,
    zero_is_off,
)
from bridge.dialects.files import in_words
from bridge.dialects.gunicornfile import SCRIPT_NAME, options, require_target
from bridge.dialects.table import Dialect, Fate, Grammar, Option, Row, Takes, Translation, row
from bridge.dialects.workerclasses import imported, worker_class
from bridge.errors import ConfigError
from bridge.hooks.logger import overrides_access

__all__ = ["DIALECT", "with_gunicorns_defaults"]

SAME, NEAR, NO_EFFECT, REFUSED = Fate.SAME, Fate.NEAR, Fate.NO_EFFECT, Fate.REFUSED

_DEFAULT_FORMAT = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"'
# The fields that can say the scheme, and the values that mean https.
_SCHEME_FIELDS = {
    "x-forwarded-proto": {"https"},
    "x-forwarded-protocol": {"https", "ssl"},
    "x-forwarded-ssl": {"on"},
    "x-forwarded-scheme": {"https"},
    "x-scheme": {"https"},
}
# gunicorn's default: X-FORWARDED-PROTO: https, X-FORWARDED-PROTOCOL: ssl, X-FORWARDED-SSL: on.
_USUAL_SCHEME_FIELDS = ["x-forwarded-proto", "x-forwarded-protocol", "x-forwarded-ssl"]
_HEARTBEAT = "a worker whose event loop stands still for so long is replaced; a request may take longer"
_NO_LIMIT = "neither a request nor a worker has a limit of time"
_DIRTY = "bridge has no dirty workers; run such work in a task queue"
_STRICT = "bridge always refuses such requests: they are used to smuggle other requests"
_SYSLOG = "bridge does not speak to syslog; a --log-config with a SysLogHandler does"
_CONTROL = "gunicorn's control socket has its own protocol; see docs/signals.md for what signals do"


# --- conversions -----------------------------------------------------------------------------------------------------


def _bind(value: Any, t: Translation) -> None:
    for item in value if isinstance(value, list | tuple) else str(value).split(","):
        if str(item).strip():
            t.add("bind", _address(str(item).strip()))


def _address(text: str) -> str:
    """Return one address as ``--bind`` takes it; gunicorn's rules, where a host alone has port 8000."""
    if text.startswith(("unix:", "fd://")):
        return text
    text = text.removeprefix("tcp://")
    if text.startswith("["):
        host, _, port = text[1:].partition("]")
        return host_and_port(host, port.lstrip(":") or "8000")
    host, colon, port = text.rpartition(":")
    if not colon:
        return host_and_port(text, "8000")
    return host_and_port(host, port or "8000")


def _timeout(value: Any, t: Translation) -> tuple[Fate, str] | None:
    t.dialect["timeout"] = int(value)
    return None  # settled in _finish: it depends on the kind of worker


def _keepalive(value: Any, t: Translation) -> None:
    t.set("timeout_keep_alive", value)


def _workers(value: Any, t: Translation) -> tuple[Fate, str] | None:
    t.set("workers", max(int(value), 1))
    return (NEAR, "there is at least one worker") if int(value) < 1 else None


def _threads(value: Any, t: Translation) -> None:
    t.dialect["threads"] = max(int(value), 1)


def _line_size(option: str) -> Callable[[Any, Translation], tuple[Fate, str] | None]:
    """Return a conversion that sets *option* to the limit of one line, and lets the whole head be longer than that."""

    def translate(value: Any, t: Translation) -> tuple[Fate, str] | None:
        number = int(value)
        if number == 0:
            t.set(option, "64k")
            return NEAR, "there is always a limit: 64 KiB in place of none"
        t.set(option, number)
        if number > 65536:
            t.set("limit_request_head", number * 2)
        return None

    return translate


def _accesslog(value: Any, t: Translation) -> None:
    t.set("access_log", "on" if value else "off")
    if value:
        t.set("access_logfile", value)


def _errorlog(value: Any, t: Translation) -> None:
    t.set("error_logfile", value or "-")


def _loglevel(value: Any, t: Translation) -> tuple[Fate, str] | None:
    known = {"debug", "info", "warning", "warn", "error", "critical"}
    word = str(value or "info").lower()
    t.set("log_level", word if word in known else "info")
    return None if word in known else (NEAR, "there is no such level; info is used, as gunicorn does")


def _pythonpath(value: Any, t: Translation) -> None:
    t.paths += [path for path in str(value).split(",") if path]


def _daemon(value: Any, t: Translation) -> tuple[Fate, str] | None:
    t.detach = bool(value)
    return None if value else (SAME, "")


def _extra_files(value: Any, t: Translation) -> None:
    for path in value if isinstance(value, list | tuple) else [value]:
        if os.path.isdir(path):
            t.add("reload_dir", path)
            t.add("reload_include", "*")
        else:
            t.add("reload_dir", os.path.dirname(path) or ".")
            t.add("reload_include", os.path.basename(path))


def _forwarded(value: Any, t: Translation) -> None:
    t.dialect["believed"] = value if isinstance(value, str) else ",".join(value)


def _scheme_headers(value: Any, t: Translation) -> tuple[Fate, str] | None:
    names = [str(name).lower() for name, word in dict(value or {}).items()
             if str(word).lower() in _SCHEME_FIELDS.get(str(name).lower(), ())]  # fmt: skip
    t.dialect["scheme_fields"] = names
    useless = [f"{name}: {word}" for name, word in dict(value or {}).items() if str(name).lower() not in names]
    if useless:
        known = "; ".join(f"{name}: {' or '.join(sorted(words))}" for name, words in _SCHEME_FIELDS.items())
        return NO_EFFECT, f"{', '.join(useless)} changes no scheme; what can is {known}"
    return None


def _forwarder_headers(value: Any, t: Translation) -> tuple[Fate, str] | None:
    names = [name.strip().upper() for name in (value if isinstance(value, str) else ",".join(value)).split(",")]
    t.dialect["believes_script_name"] = "SCRIPT_NAME" in names
    others = [name for name in names if name not in {"", "SCRIPT_NAME", "PATH_INFO"}]
    return (NO_EFFECT, f"{', '.join(others)}: of such fields only SCRIPT_NAME is believed") if others else None


def _proxy_protocol(value: Any, t: Translation) -> tuple[Fate, str] | None:
    word = {True: "auto", False: "off", "true": "auto", "false": "off"}.get(value, value)
    t.set("proxy_protocol", word)
    return (SAME, "") if word == "off" else None


def _log_config(value: Any, t: Translation) -> None:
    if value:
        t.set("log_config", value)
        t.dialect["log_config"] = True


def _log_config_dict(value: Any, t: Translation) -> tuple[Fate, str] | None:
    if not value:
        return None
    t.objects["log_config"] = with_gunicorns_defaults(value)
    t.dialect["log_config"] = True
    return None


def with_gunicorns_defaults(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return gunicorn's default logging configuration with *given* on top."""
    stream = {"class": "logging.StreamHandler", "formatter": "generic"}
    settings: dict[str, Any] = {
        "version": 1,
        "disable_existing_loggers": False,
        "root": {"level": "INFO", "handlers": ["console"]},
        "loggers": {
            "gunicorn.error": {"level": "INFO", "handlers": ["error_console"], "propagate": True},
            "gunicorn.access": {"level": "INFO", "handlers": ["console"], "propagate": True},
        },
        "handlers": {
            "console": {**stream, "stream": "ext://sys.stdout"},
            "error_console": {**stream, "stream": "ext://sys.stderr"},
        },
        "formatters": {
            "generic": {
                "format": "%(asctime)s [%(process)d] [%(levelname)s] %(message)s",
                "datefmt": "[%Y-%m-%d %H:%M:%S %z]",
                "class": "logging.Formatter",
            }
        },
    }
    settings.update(given)
    handlers = settings.get("handlers", {})
    used = settings.get("root", {}).get("handlers", [])
    if not set(used) <= handlers.keys():  # the file's handlers have replaced those that the root logger would use
        settings.pop("root")
    return settings


def _log_config_json(value: Any, t: Translation) -> None:
    if value:
        t.set("log_config", value)
        t.dialect["log_config"] = True


def _logger_class(value: Any, t: Translation) -> tuple[Fate, str] | None:
    if value == "gunicorn.glogging.Logger" or not value:
        return SAME, ""
    if isinstance(value, str):
        found = imported(value)
        if isinstance(found, str):
            return REFUSED, found
        value = found
    if not isinstance(value, type):
        raise TypeError("not a class")
    t.dialect["logger_class"] = value
    return None


def _hook(name: str) -> Any:
    def convert(value: Any, t: Translation) -> None:
        t.hooks[name] = value

    return convert


def _ssl_context(value: Any, t: Translation) -> None:
    t.objects["ssl_context_factory"] = value


def _check_only(value: Any, t: Translation) -> None:
    t.check_only = bool(value)


def _print_only(value: Any, t: Translation) -> None:
    t.print_only = bool(value)


def _protocols(value: Any, t: Translation) -> tuple[Fate, str] | None:
    known = {"h1": "h1", "http/1.1": "h1", "http1": "h1", "h2": "h2", "http/2": "h2"}
    words = [word.strip().lower() for word in (value if isinstance(value, str) else ",".join(value)).split(",")]
    unknown = [word for word in words if word not in known]
    t.set("http_protocols", ",".join(dict.fromkeys(known[word] for word in words if word in known)) or "h1")
    return (NO_EFFECT, f"{', '.join(unknown)}: bridge does not speak it") if unknown else None


def _cleartext(value: Any, t: Translation) -> tuple[Fate, str] | None:
    word = str(value).lower()
    t.set("http2_cleartext", {"off": "off", "prior-knowledge": "on"}.get(word, "on"))
    return None if word in {"off", "prior-knowledge"} else (NEAR, "HTTP/2 without TLS begins by prior knowledge only")


def _root_path(value: Any, t: Translation) -> None:
    t.set("root_path", value or "")


def _mode(value: Any, t: Translation) -> None:
    text = str(value)
    number = int(text, 8 if text.startswith("0") and text.isdecimal() else 0)  # 027 is octal, as in a shell
    if number:
        t.set("umask", f"{number:03o}")


def _identity(name: str) -> Any:
    def convert(value: Any, t: Translation) -> None:
        if value is not None and str(value) != str(os.geteuid() if name == "user" else os.getegid()):
            t.set(name, value)

    return convert


def _optional(name: str) -> Any:
    def convert(value: Any, t: Translation) -> None:
        if value:
            t.set(name, value)

    return convert


def _target(value: Any, t: Translation) -> None:
    t.set("target", with_attribute(str(value), "application"))


def _paste(value: Any, t: Translation) -> None:
    if value:
        t.dialect["paste"] = os.path.abspath(value)


def _settle_paste(t: Translation) -> None:
    """Set the application of a PasteDeploy file, and its loggers."""
    uri = t.dialect.get("paste")
    if not uri:
        return
    added = dict(item.partition("=")[::2] for item in t.dialect.get("paste_global", ()))
    t.settle("paste", "target", f"bridge.contrib.paste:application({uri!r}, {added!r})")
    path = uri.partition("#")[0]
    try:
        with open(path, encoding="utf-8") as file:
            has_loggers = any(line.strip() == "[loggers]" for line in file)
    except (OSError, ValueError) as exc:  # no name of a file, or no text in it
        raise ConfigError(f"--paste {path:.300}: {in_words(exc)}") from exc
    if has_loggers and "log_config" not in t.layer and "log_config" not in t.objects:
        t.set("log_config", path)
        t.dialect["log_config"] = True


def _chdir(value: Any, t: Translation) -> None:
    t.set("chdir", value)


# --- the table -------------------------------------------------------------------------------------------------------

_FILE = Takes.FILE_ONLY
ROWS: tuple[Row, ...] = (
    row("-c --config", SAME, remark="", convert=lambda value, t: None),
    row("wsgi_app", SAME, "target", convert=_target),
    row("-b --bind", SAME, "bind", takes=Takes.LIST, convert=_bind),
    row("--backlog", SAME, "backlog", takes=Takes.INT),
    row("-w --workers", SAME, "workers", takes=Takes.INT, convert=_workers),
    row("-k --worker-class", SAME, "interface", convert=worker_class),
    row("--threads", SAME, "threads", takes=Takes.INT, convert=_threads),
    row("--worker-connections", NEAR, "limit_connections", "a connection beyond it waits in the kernel's queue",
        takes=Takes.INT, convert=zero_is_off("limit_connections")),
    row("--max-requests", SAME, "limit_max_requests", takes=Takes.INT, convert=zero_is_off("limit_max_requests")),
    row("--max-requests-jitter", SAME, "limit_max_requests_jitter", takes=Takes.INT),
    row("-t --timeout", NEAR, "timeout_worker timeout_request",
        "a worker whose event loop stands still for so long is replaced; requests of a sync worker that take longer are"
        " answered with 504",
        takes=Takes.INT, convert=_timeout),
    row("--graceful-timeout", SAME, "timeout_graceful_shutdown", takes=Takes.INT),
    row("--keep-alive", NEAR, "timeout_keep_alive", "sync workers keep connections open too; this blocks no worker",
        name="keepalive", takes=Takes.INT, convert=_keepalive),
    row("--limit-request-line", SAME, "limit_request_line", takes=Takes.INT, convert=_line_size("limit_request_line")),
    row("--limit-request-fields", SAME, "limit_request_fields", takes=Takes.INT),
    row("--limit-request-field_size", SAME, "limit_request_field_size", name="limit_request_field_size",
        takes=Takes.INT, convert=_line_size("limit_request_field_size")),
    row("--reload", SAME, "reload", takes=Takes.FLAG),
    row("--reload-engine", NEAR, "", "bridge watches with the package watchfiles"),
    row("--reload-extra-file", NEAR, "reload_dir reload_include", "files of such names are watched in the directories",
        name="reload_extra_files", takes=Takes.LIST, convert=_extra_files),
    row("--spew", NO_EFFECT, "", "bridge traces no lines; python -m trace does", takes=Takes.FLAG),
    row("--check-config", SAME, "", takes=Takes.FLAG, convert=_check_only),
    row("--print-config", NEAR, "", "bridge's settings are printed", takes=Takes.FLAG, convert=_print_only),
    row("--preload", SAME, "preload", name="preload_app", takes=Takes.FLAG),
    row("--no-sendfile", NO_EFFECT, "", "files go by sendfile where the application asks for that", name="sendfile",
        takes=Takes.FLAG),
    row("--reuse-port", SAME, "reuse_port", takes=Takes.FLAG),
    row("--chdir", SAME, "chdir", convert=_chdir),
    row("-D --daemon", NEAR, "", "the process leaves its terminal; a daemon that nobody supervises stays down when it"
        " ends", takes=Takes.FLAG, convert=_daemon),
    row("-e --env", SAME, "env", name="raw_env", takes=Takes.LIST, convert=each("env", "\n")),
    row("-p --pid", SAME, "pid", name="pidfile", convert=_optional("pid")),
    row("--worker-tmp-dir", NEAR, "", "heartbeats need no files, so no disk can delay them"),
    row("-u --user", SAME, "user", convert=_identity("user")),
    row("-g --group", SAME, "group", convert=_identity("group")),
    row("-m --umask", SAME, "umask", convert=_mode),
    row("--initgroups", NEAR, "", "the groups of --user are always taken", takes=Takes.FLAG),
    row("tmp_upload_dir", NO_EFFECT, "", "uploads wait in TMPDIR", takes=_FILE,
        convert=lambda value, t: None if value else (SAME, "")),
    row("secure_scheme_headers", NEAR, "forwarded_fields", "names may be in upper or lower case; if fields"
        " contradict each other, X-Forwarded-Proto counts, where gunicorn answers 400", takes=_FILE,
        convert=_scheme_headers),
    row("--forwarded-allow-ips", SAME, "forwarded_allow_ips", convert=_forwarded),
    row("--access-logfile", SAME, "access_logfile", name="accesslog", convert=_accesslog),
    row("--disable-redirect-access-to-syslog", NEAR, "", "no requests go to syslog", takes=Takes.FLAG),
    row("--access-logformat", SAME, "access_logformat", name="access_log_format", convert=access_format),
    row("--error-logfile --log-file", SAME, "error_logfile", name="errorlog", convert=_errorlog),
    row("--log-level", SAME, "log_level", name="loglevel", convert=_loglevel),
    row("--capture-output", NEAR, "", "what the application prints stays on standard output and error",
        takes=Takes.FLAG),
    row("--logger-class", NEAR, "", "its methods are called for the messages of hooks, for time-outs and for requests"
        " if it overrides access() or atoms()", convert=_logger_class),
    row("--log-config", SAME, "log_config", name="logconfig", convert=_log_config),
    row("logconfig_dict", SAME, "log_config", takes=_FILE, convert=_log_config_dict),
    row("--log-config-json", SAME, "log_config", name="logconfig_json", convert=_log_config_json),
    row("--log-syslog-to", NO_EFFECT, "", _SYSLOG, name="syslog_addr"),
    row("--log-syslog", NO_EFFECT, "", _SYSLOG, name="syslog", takes=Takes.FLAG),
    row("--log-syslog-prefix", NO_EFFECT, "", _SYSLOG, name="syslog_prefix"),
    row("--log-syslog-facility", NO_EFFECT, "", _SYSLOG, name="syslog_facility"),
    row("-R --enable-stdio-inheritance", NEAR, "", "standard output and error are always inherited", takes=Takes.FLAG),
    row("--statsd-host", SAME, "statsd", convert=statsd),
    row("--dogstatsd-tags", SAME, "dogstatsd_tags", convert=_optional("dogstatsd_tags")),
    row("--statsd-prefix", SAME, "statsd_prefix", convert=statsd_prefix),
    row("--enable-backlog-metric", NO_EFFECT, "", "the accept queue is among the metrics of --admin-bind",
        takes=Takes.FLAG),
    row("-n --name", SAME, "process_name", name="proc_name", convert=_optional("process_name")),
    row("default_proc_name", NO_EFFECT, "", "the name is that of --name", takes=_FILE),
    row("--pythonpath", SAME, "", convert=_pythonpath),
    row("--paste --paster", SAME, "target", convert=_paste),
    *(row(name, SAME, "hooks", takes=_FILE, convert=_hook(name)) for name in POINTS),
    row("ssl_context", SAME, "ssl_context_factory", takes=_FILE, convert=_ssl_context),
    row("--proxy-protocol", NEAR, "proxy_protocol", "a connection that does not begin with a PROXY header is closed, as"
        " its specification asks for; gunicorn serves it", takes=Takes.OPTIONAL, convert=_proxy_protocol),
    row("--proxy-allow-from", SAME, "proxy_allow_from", name="proxy_allow_ips", convert=each("proxy_allow_from")),
    row("--protocol", SAME, "", convert=only("http", REFUSED, "bridge speaks HTTP; with nginx write proxy_pass"
        " http://... in place of uwsgi_pass or fastcgi_pass")),
    row("--uwsgi-allow-from", NO_EFFECT, "", "bridge does not speak the uwsgi protocol", name="uwsgi_allow_ips"),
    row("--keyfile", SAME, "ssl_keyfile", convert=_optional("ssl_keyfile")),
    row("--certfile", SAME, "ssl_certfile", convert=_optional("ssl_certfile")),
    row("--ssl-version", NEAR, "", "bridge always offers TLS 1.2 and 1.3; gunicorn ignores this option too"),
    row("--cert-reqs", SAME, "ssl_cert_reqs", convert=cert_reqs),
    row("--ca-certs", SAME, "ssl_ca_certs", convert=_optional("ssl_ca_certs")),
    row("--suppress-ragged-eofs", NEAR, "", "bridge never takes such an end for an error", takes=Takes.FLAG),
    row("--do-handshake-on-connect", NEAR, "", "handshakes do not hold up other connections", takes=Takes.FLAG),
    row("--ciphers", SAME, "ssl_ciphers", convert=_optional("ssl_ciphers")),
    row("--http-protocols", SAME, "http_protocols", convert=_protocols),
    row("--http2-cleartext", SAME, "http2_cleartext", convert=_cleartext),
    row("--http2-max-concurrent-streams", SAME, "http2_max_concurrent_streams", takes=Takes.INT),
    row("--http2-initial-window-size", NEAR, "http2_max_stream_window", "windows begin with 65535 bytes and grow",
        takes=Takes.INT, convert=window),
    row("--http2-max-frame-size", NEAR, "", "frames have up to 16 KiB", takes=Takes.INT),
    row("--http2-max-header-list-size", SAME, "http2_max_header_list_size", takes=Takes.INT),
    row("--paste-global", SAME, "", name="raw_paste_global_conf", takes=Takes.LIST, convert=fact("paste_global")),
    row("--permit-obsolete-folding", NO_EFFECT, "", _STRICT, takes=Takes.FLAG),
    row("--strip-header-spaces", NO_EFFECT, "", _STRICT, takes=Takes.FLAG),
    row("--permit-unconventional-http-method", NEAR, "", "every method that RFC 9110 allows is taken",
        takes=Takes.FLAG),
    row("--permit-unconventional-http-version", NO_EFFECT, "", _STRICT, takes=Takes.FLAG),
    row("--casefold-http-method", NO_EFFECT, "", "methods are case-sensitive (RFC 9110 section 9.1)", takes=Takes.FLAG),
    row("--forwarder-headers", SAME, "", convert=_forwarder_headers),
    row("--header-map", SAME, "", convert=only("drop", NO_EFFECT, "a field whose name has an underscore never becomes a"
        " variable: it could pass for another")),
    row("--asgi-loop", SAME, "loop"),
    row("--asgi-lifespan", SAME, "lifespan"),
    row("--asgi-disconnect-grace-period", SAME, "timeout_disconnect_grace", takes=Takes.INT,
        convert=zero_is_off("timeout_disconnect_grace")),
    row("--websocket-max-message-size", SAME, "ws_max_size", takes=Takes.INT),
    row("--http-parser", NEAR, "", "bridge has its own parser"),
    row("--root-path", SAME, "root_path", convert=_root_path),
    row("--dirty-app", REFUSED, "", _DIRTY, name="dirty_apps", takes=Takes.LIST,
        convert=lambda value, t: None if value else (SAME, "")),
    row("--dirty-workers", NO_EFFECT, "", _DIRTY, takes=Takes.INT),
    row("--dirty-timeout", NO_EFFECT, "", _DIRTY, takes=Takes.INT),
    row("--dirty-threads", NO_EFFECT, "", _DIRTY, takes=Takes.INT),
    row("--dirty-graceful-timeout", NO_EFFECT, "", _DIRTY, takes=Takes.INT),
    *(row(name, NO_EFFECT, "", _DIRTY, takes=_FILE)
      for name in ("on_dirty_starting", "dirty_post_fork", "dirty_worker_init", "dirty_worker_exit")),
    row("--control-socket", NO_EFFECT, "", _CONTROL),
    row("--control-socket-mode", NO_EFFECT, "", _CONTROL),
    row("--no-control-socket", NEAR, "", "bridge has no control socket of gunicorn's", name="control_socket_disable",
        takes=Takes.FLAG),
)  # fmt: skip


def _options(words: list[str], environ: Mapping[str, str]) -> list[Option]:
    return options(ROWS, words, environ)


def _finish(t: Translation) -> None:
    _settle_time_and_threads(t)
    _settle_proxies(t)
    _settle_paste(t)
    default = t.default
    if "bind" not in t.layer:
        default("bind", "127.0.0.1:8000", "gunicorn")
    default("workers", "1", "gunicorn")
    default("lifespan", "auto", "gunicorn")
    default("timeout_graceful_shutdown", "30", "gunicorn")
    if t.dialect.get("log_config") and ("access_log" not in t.layer or t.layer["access_log"].text == "off"):
        t.set("access_log", "on")  # a configuration of loggers switches it on in gunicorn
    if "logger_class" in t.dialect and overrides_access(t.dialect["logger_class"]):
        t.set("access_log", "off")  # the class writes the lines, if accesslog says so
    if "access_log" not in t.layer:
        default("access_log", "off", "gunicorn")
        t.note("(default)", "", NEAR, "no line for each request, as in gunicorn; --access-logfile - writes them")
    if "access_logformat" not in t.layer:
        default("access_logformat", _DEFAULT_FORMAT, "gunicorn")
    if "process_name" in t.layer:
        from importlib.util import find_spec

        if find_spec("setproctitle") is None:
            del t.layer["process_name"]
            t.correct("proc_name", NO_EFFECT, "a process gets a name only if the package setproctitle is there")
    given = {name: option.value for name, option in t.given.items()}
    hooks = Hooks(t.hooks.items(), given, t.dialect.get("logger_class"))
    if hooks:
        t.objects["hooks"] = hooks
    if "target" not in t.layer and t.status < 2:
        require_target(t)


def _settle_mount(t: Translation) -> None:
    """Set where a WSGI application is mounted: gunicorn reads the variable SCRIPT_NAME, which raw_env may set."""
    for item in t.given["raw_env"].value if "raw_env" in t.given else ():
        name, _, path = item.partition("=")
        if name == SCRIPT_NAME.name:
            t.origin = t.given["raw_env"].origin
            t.set("root_path", path)
            return
    if SCRIPT_NAME.name in t.given:
        t.settle(SCRIPT_NAME.name, "root_path", t.given[SCRIPT_NAME.name].value)


def _settle_proxies(t: Translation) -> None:
    """Set the trusted proxies: gunicorn always trusts peers on Unix sockets, uvicorn's worker only with ``*``."""
    peers = [word.strip() for word in t.dialect.get("believed", "127.0.0.1,::1").split(",") if word.strip()]
    if not t.dialect.get("is_uvicorn") and "*" not in peers:
        peers.append("unix")
    if peers:
        t.default("proxy_headers", "on", "gunicorn")
        t.settle("forwarded_allow_ips", "forwarded_allow_ips", ",".join(dict.fromkeys(peers)))
    else:
        t.settle("forwarded_allow_ips", "proxy_headers", "off")
    t.default("forwarded_strip", "off", "gunicorn")
    if t.dialect.get("is_uvicorn"):  # which has set the fields that its middleware reads
        if "secure_scheme_headers" in t.given:
            remark = "uvicorn's worker always uses X-Forwarded-Proto and X-Forwarded-For"
            t.correct("secure_scheme_headers", NEAR, remark)
        return
    # Applications behind gunicorn read the other fields themselves (ProxyFix, SECURE_PROXY_SSL_HEADER).
    fields = [*t.dialect.get("scheme_fields", _USUAL_SCHEME_FIELDS)]
    if t.dialect.get("believes_script_name", True):
        fields.append("script_name")
    t.settle("secure_scheme_headers", "forwarded_fields", ",".join(fields) or "x-forwarded-prefix")


def _settle_time_and_threads(t: Translation) -> None:
    """Set the threads, and the two timeouts of bridge that gunicorn's single ``timeout`` becomes."""
    facts = t.dialect
    kind = facts.get("kind", "sync")
    threads = facts.get("threads", 1)
    if kind == "sync" and threads > 1:
        kind = "gthread"
    if kind in {"sync", "gthread"}:
        _settle_mount(t)
        t.settle("threads", "threads", threads if kind == "gthread" else 1)
        t.default("interface", "wsgi", "gunicorn")
    timeout = facts.get("timeout", 30)
    never = timeout == 0 or timeout >= 9999
    t.settle("timeout", "timeout_worker", "off" if never else timeout)
    if kind == "sync" and not never:
        t.settle("timeout", "timeout_request", timeout)
    elif "timeout" in t.given:
        t.correct("timeout", NEAR, _NO_LIMIT if never else _HEARTBEAT)


DIALECT = Dialect(
    name="gunicorn",
    version="27",
    usage="gunicorn [OPTIONS] [APP_MODULE]",
    grammar=Grammar.ARGPARSE,
    rows=ROWS,
    options=_options,
    finish=_finish,
)
