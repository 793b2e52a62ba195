"""uWSGI's options: those that configuration files of Python applications use."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

from bridge.dialects.convert import each, host_and_port, zero_is_off
from bridge.dialects.table import Dialect, Fate, Grammar, Option, Row, Takes, Translation, Usage, row
from bridge.dialects.uwsgifile import options

__all__ = ["DIALECT"]

SAME, NEAR, NO_EFFECT, REFUSED = Fate.SAME, Fate.NEAR, Fate.NO_EFFECT, Fate.REFUSED

_NGINX = (
    "bridge speaks HTTP, not the uwsgi protocol: with nginx write proxy_pass http://ADDRESS; and proxy_set_header Host"
    " $host; in place of uwsgi_pass ADDRESS; and include uwsgi_params;"
)
_TASKS = "bridge runs no background work; use a task queue, or a unit of its own"
_STATIC = "bridge serves no static files; let nginx do it, or whitenoise"
_BUFFER = "bridge sizes its buffers itself"
_CHEAPER = "bridge run --workers MIN..MAX lets the number follow the load"
_ALWAYS = "bridge always does this"


def _address(text: str) -> str:
    if text.startswith("/") or ("/" in text and ":" not in text):
        return f"unix:{text}"
    host, colon, port = text.rpartition(":")
    return host_and_port(host if colon else "", port)


def _http(value: Any, t: Translation) -> None:
    for text in value:
        t.add("bind", _address(text.partition(",")[0]))


def _socket(value: Any, t: Translation) -> tuple[Fate, str] | None:
    if t.dialect.get("protocol") != "http":
        return REFUSED, _NGINX
    _http(value, t)
    return SAME, ""


def _protocol(value: Any, t: Translation) -> tuple[Fate, str] | None:
    t.dialect["protocol"] = value
    return None if value == "http" else (REFUSED, _NGINX)


def _https(value: Any, t: Translation) -> tuple[Fate, str] | None:
    for text in value:
        address, *files = text.split(",")
        t.add("bind", _address(address))
        if len(files) >= 2:
            t.set("ssl_certfile", files[0])
            t.set("ssl_keyfile", files[1])
    return None


def _module(value: Any, t: Translation) -> None:
    module, colon, name = str(value).partition(":")
    t.dialect["module"] = module
    if colon:
        t.dialect["callable"] = name


def _wsgi_file(value: Any, t: Translation) -> None:
    t.dialect["file"] = value


def _callable(value: Any, t: Translation) -> None:
    t.dialect["callable"] = value


def _mount(value: Any, t: Translation) -> tuple[Fate, str] | None:
    for text in value:
        path, equals, target = text.partition("=")
        if not equals:
            return REFUSED, f"{text}: this is no PATH=MODULE"
        name = target if ":" in target or target.endswith(".py") else f"{target}:application"
        t.add("mount", f"{path}={name}")
    return None


def _yes(name: str) -> Any:
    def convert(value: Any, t: Translation) -> tuple[Fate, str] | None:
        if str(value).lower() in {"false", "0", "no", "off"}:
            return SAME, ""
        if name:
            t.set(name, True)
        return None

    return convert


def _seconds(name: str) -> Any:
    return zero_is_off(name)


def _buffer(value: Any, t: Translation) -> tuple[Fate, str] | None:
    number = int(value)
    if number < 8190:
        return NEAR, "request heads have at least 8190 bytes"
    t.set("limit_request_head", max(number, 8190))
    t.set("limit_request_line", min(number, 65536))
    t.set("limit_request_field_size", min(number, 65536))
    return None


def _logto(value: Any, t: Translation) -> None:
    t.set("error_logfile", value)
    t.set("access_logfile", value)


def _daemonize(value: Any, t: Translation) -> tuple[Fate, str] | None:
    return REFUSED, "run it under systemd or another supervisor, with logto = FILE; only `bridge gunicorn` detaches"


def _path(value: Any, t: Translation) -> None:
    t.paths += value


def _chmod(value: Any, t: Translation) -> None:
    t.set("uds_permissions", value if str(value).isdigit() else "666")


def _expires(value: Any, t: Translation) -> tuple[Fate, str] | None:
    return NO_EFFECT, _STATIC


def _rss(value: Any, t: Translation) -> None:
    t.set("workers_max_rss", f"{value}m")


def _header(value: Any, t: Translation) -> None:
    for text in value:
        t.add("header", text, "\n")


def _home(value: Any, t: Translation) -> tuple[Fate, str] | None:
    import sys

    if os.path.realpath(str(value)) == os.path.realpath(sys.prefix):
        return SAME, ""
    return REFUSED, f"start the bridge of that environment: {value}/bin/bridge"


def _plugin(value: Any, t: Translation) -> tuple[Fate, str] | None:
    others = [
        name
        for text in value
        for name in re.split(r"[,\s]+", text)
        if not re.match(r"python|http|router|corerouter|logfile|cheaper|$", name)
    ]
    return (REFUSED, f"{', '.join(others)}: bridge has no plugins") if others else None


_L, _T = Takes.LIST, Takes.TEXT


def _names(
    names: str, fate: Fate, becomes: str = "", remark: str = "", takes: Takes = _T, convert: Any = None
) -> list[Row]:
    made = row("--x", fate, becomes, remark, takes=takes, convert=convert)
    return [made._replace(name=name, spellings=()) for name in names.split()]


ROWS: tuple[Row, ...] = (
    *_names("http http-socket", SAME, "bind", takes=_L, convert=_http),
    *_names("https https-socket", SAME, "bind ssl_certfile ssl_keyfile", takes=_L, convert=_https),
    *_names("protocol", SAME, convert=_protocol),
    *_names(
        "socket uwsgi-socket fastcgi-socket scgi-socket shared-socket",
        REFUSED,
        "",
        _NGINX,
        takes=_L,
        convert=_socket,
    ),
    *_names("module wsgi", SAME, "target", convert=_module),
    *_names("wsgi-file file", SAME, "target", convert=_wsgi_file),
    *_names("callable", SAME, "target", convert=_callable),
    *_names("mount", SAME, "mount", takes=_L, convert=_mount),
    *_names(
        "manage-script-name",
        NEAR,
        "",
        _ALWAYS,
        convert=_yes(""),
    ),
    *_names("chdir", SAME, "chdir"),
    *_names("chdir2", SAME, "chdir"),
    *_names(
        "pythonpath python-path pp",
        SAME,
        "",
        takes=_L,
        convert=_path,
    ),
    *_names(
        "home virtualenv venv pyhome",
        NEAR,
        "",
        "bridge runs in the environment it is installed in",
        convert=_home,
    ),
    *_names("processes workers", SAME, "workers"),
    *_names("threads", SAME, "threads"),
    *_names(
        "enable-threads",
        NEAR,
        "",
        _ALWAYS,
        convert=_yes(""),
    ),
    *_names(
        "master",
        NEAR,
        "",
        "processes = N starts a master",
        convert=_yes(""),
    ),
    *_names("listen", SAME, "backlog"),
    *_names(
        "harakiri http-timeout socket-timeout",
        NEAR,
        "timeout_request",
        "the request is answered with 504; no worker is killed",
        convert=_seconds("timeout_request"),
    ),
    *_names(
        "harakiri-verbose",
        NEAR,
        "",
        _ALWAYS,
        convert=_yes(""),
    ),
    *_names("max-requests", SAME, "limit_max_requests", convert=zero_is_off("limit_max_requests")),
    *_names("max-requests-delta", SAME, "limit_max_requests_jitter"),
    *_names("max-worker-lifetime", SAME, "workers_lifetime", convert=zero_is_off("workers_lifetime")),
    *_names("max-worker-lifetime-delta", SAME, "workers_lifetime_jitter"),
    *_names(
        "min-worker-lifetime",
        NEAR,
        "",
        "a successor serves before a worker ends",
    ),
    *_names("worker-reload-mercy reload-mercy", SAME, "timeout_graceful_shutdown"),
    *_names("reload-on-rss evil-reload-on-rss", SAME, "workers_max_rss", convert=_rss),
    *_names("reload-on-as evil-reload-on-as", NO_EFFECT, "", "bridge limits resident memory: use reload-on-rss"),
    *_names(
        (
            "cheaper cheaper-algo cheaper-initial cheaper-step cheaper-overload cheaper-busyness- "
            "multiplier cheaper-busyness-min cheaper-busyness-max cheaper-busyness-backlog-alert cheaper- "
            "busyness-backlog-step cheaper-busyness-verbose cheaper-rss-limit-soft idle cheap"
        ),
        NO_EFFECT,
        "",
        _CHEAPER,
    ),
    *_names(
        "static-map static-map2 check-static static-index static-safe offload-threads",
        REFUSED,
        "",
        _STATIC,
        takes=_L,
    ),
    *_names(
        "static-expires static-expires-uri static-gzip static-gzip-all",
        NO_EFFECT,
        "",
        _STATIC,
        takes=_L,
        convert=_expires,
    ),
    *_names("buffer-size", SAME, "limit_request_head", convert=_buffer),
    *_names("limit-post", SAME, "limit_request_body", convert=zero_is_off("limit_request_body")),
    *_names("post-buffering", SAME, "wsgi_buffer_requests", convert=zero_is_off("wsgi_buffer_requests")),
    *_names(
        "post-buffering-bufsize",
        NEAR,
        "",
        _BUFFER,
    ),
    *_names("uid", SAME, "user"),
    *_names("gid", SAME, "group"),
    *_names("umask", SAME, "umask"),
    *_names("chmod-socket", SAME, "uds_permissions", convert=_chmod),
    *_names("chown-socket", SAME, "uds_owner"),
    *_names("env", SAME, "env", takes=_L, convert=each("env", "\n")),
    *_names(
        "lazy-apps lazy",
        SAME,
        "",
        convert=lambda value, t: t.dialect.update(lazy=str(value).lower() != "false"),
    ),
    *_names(
        (
            "need-app single-interpreter strict die-on-term vacuum no-orphans thunder-lock close-on-exec "
            "http-keepalive so-keepalive tcp-nodelay http-auto-chunked http-chunked-input auto-procname "
            "memory-report py-call-osafterfork wsgi-env-behaviour wsgi-disable-file-wrapper ignore- "
            "sigpipe ignore-write-errors disable-write-exception show-config honour-stdin vhost py- "
            "tracebacker catch-exceptions"
        ),
        NEAR,
        "",
        _ALWAYS,
        convert=_yes(""),
    ),
    *_names(
        "http-keepalive",
        NEAR,
        "",
        "--timeout-keep-alive says how long",
        convert=_yes(""),
    ),
    *_names("add-header", SAME, "header", takes=_L, convert=_header),
    *_names("reuse-port", SAME, "reuse_port", convert=_yes("reuse_port")),
    *_names(
        "py-autoreload python-autoreload",
        SAME,
        "reload",
        convert=lambda value, t: t.set("reload", str(value) not in {"0", "false"}),
    ),
    *_names(
        "touch-reload touch-chain-reload touch-workers-reload fs-reload",
        NO_EFFECT,
        "",
        "send SIGHUP to the master: kill -HUP $(cat PIDFILE)",
        takes=_L,
    ),
    *_names("pidfile pidfile2 safe-pidfile", SAME, "pid"),
    *_names("procname procname-master procname-prefix procname-prefix-spaced", SAME, "process_name"),
    *_names(
        "logto logto2 logger req-logger log-master",
        SAME,
        "error_logfile access_logfile",
        convert=lambda value, t: (
            _logto(value, t) if "/" in str(value) else (NEAR, "lines go to standard output and error")
        ),
    ),
    *_names(
        "daemonize daemonize2",
        REFUSED,
        "",
        "run it under a supervisor",
        convert=_daemonize,
    ),
    *_names(
        "disable-logging",
        SAME,
        "access_log",
        convert=lambda value, t: t.set("access_log", str(value).lower() == "false"),
    ),
    *_names(
        (
            "log-format logformat log-date log-x-forwarded-for log-4xx log-5xx log-slow log-micros log- "
            "maxsize log-backupname log-reopen log-zero logformat-strftime logfile-chown log-encoder req- "
            "log-encoder threaded-logger log-drain log-filter touch-logreopen"
        ),
        NO_EFFECT,
        "",
        "use --access-logformat, with gunicorn's atoms, in BRIDGE_ACCESS_LOGFORMAT",
        takes=_L,
    ),
    *_names(
        "stats stats-server stats-http memory-report-interval carbon statsd-push stats-push",
        NO_EFFECT,
        "",
        "uWSGI's statistics have a format of their own",
    ),
    *_names(
        "master-fifo emperor emperor-tyrant emperor-stats vassals",
        REFUSED,
        "",
        "one bridge serves one set of applications; use a systemd template unit for each",
    ),
    *_names(
        "attach-daemon attach-daemon2 smart-attach-daemon legion-attach-daemon",
        REFUSED,
        "",
        _TASKS,
        takes=_L,
    ),
    *_names(
        (
            "cron cron2 unique-cron legion-cron timer spooler spooler-processes spooler-frequency "
            "spooler-import mule mules farm queue"
        ),
        REFUSED,
        "",
        _TASKS,
        takes=_L,
    ),
    *_names(
        "cache2 cache lock locks sharedarea snmp rpc",
        REFUSED,
        "",
        "bridge has no such service; use Redis or the database",
        takes=_L,
    ),
    *_names(
        ("route route-if route-host route-uri route-run route-label final-route response-route error- route"),
        REFUSED,
        "",
        "routes belong into the proxy or the application",
        takes=_L,
    ),
    *_names(
        (
            "hook-master-start exec-asap exec-pre-jail exec-post-jail exec-in-jail exec-as-root exec-as- "
            "user exec-as-user-atexit exec-pre-app exec-post-app hook-asap hook-pre-app hook-post-app "
            "hook-as-user"
        ),
        REFUSED,
        "",
        "run such commands before the server, in the unit or the container's entry point",
        takes=_L,
    ),
    *_names(
        "gevent async ugreen asyncio gevent-monkey-patch greenlet gevent-early-monkey-patch",
        REFUSED,
        "",
        "bridge patches no sockets; threads = N does the same for applications that wait",
    ),
    *_names(
        "paste paste-logger ini-paste ini-paste-logged pecan",
        REFUSED,
        "",
        "bridge reads no PasteDeploy file; name a function that calls paste.deploy.loadapp",
    ),
    *_names(
        "import shared-import spooler-python-import",
        NO_EFFECT,
        "",
        "import it in the application's module",
        takes=_L,
    ),
    *_names(
        "plugin plugins plugins-dir need-plugin need-plugins",
        NEAR,
        "",
        "bridge needs no plugins",
        takes=_L,
        convert=_plugin,
    ),
    *_names(
        "if-env ini include inherit for endfor endif",
        NEAR,
        "",
        "bridge has already followed this",
        takes=_L,
    ),
)

_BY_NAME: dict[str, Row] = {}
for _row in ROWS:
    _BY_NAME.setdefault(_row.name, _row)


def _options(words: list[str], environ: Mapping[str, str]) -> list[Option]:
    return options(_BY_NAME, words, environ)


def _finish(t: Translation) -> None:
    facts = t.dialect
    if "mount" not in t.layer:
        t.origin = "module"
        if "file" in facts:
            t.set("target", f"{facts['file']}:{facts.get('callable', 'application')}")
        elif "module" in facts:
            t.set("target", f"{facts['module']}:{facts.get('callable', 'application')}")
        elif not any(outcome.fate is REFUSED for outcome in t.outcomes):
            raise Usage("there is no module, no wsgi-file and no mount")
    if "bind" not in t.layer and not any(outcome.fate is REFUSED for outcome in t.outcomes):
        raise Usage("there is no http and no http-socket to listen on")
    t.default("interface", "wsgi", "uwsgi") if "mount" not in t.layer else None
    if "threads" not in t.layer:
        t.default("threads", "1", "uwsgi")
    if not facts.get("lazy"):
        t.default("preload", "on" if "workers" in t.layer else "off", "uwsgi")


DIALECT = Dialect(
    name="uwsgi",
    version="2.0",
    usage="uwsgi FILE.ini",
    grammar=Grammar.GETOPT,
    rows=tuple(_BY_NAME.values()),
    options=_options,
    finish=_finish,
)
