"""uvicorn's options, and the keywords of its ``Config``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.dialects.convert import cert_reqs, each, fact, host_and_port, silence_requests, zero_is_off
from bridge.dialects.parsing import from_variables, last_of_each, parse, single
from bridge.dialects.table import Dialect, Fate, Grammar, Option, Row, Takes, Translation, Usage, row

__all__ = ["ACCESS_FORMAT", "DIALECT", "keywords", "settle_address", "settle_defaults"]

SAME, NEAR, NO_EFFECT, REFUSED = Fate.SAME, Fate.NEAR, Fate.NO_EFFECT, Fate.REFUSED

#: The line that uvicorn writes for a request.
ACCESS_FORMAT = 'INFO:     %({REMOTE_ADDR}e)s:%({REMOTE_PORT}e)s - "%(r)s" %(s)s %(st)s'
_OWN_PARSER = "bridge has its own implementation"


def _http(value: Any, t: Translation) -> tuple[Fate, str] | None:
    if value in {"auto", "h11", "httptools", "zttp"}:
        return None
    return REFUSED, f"{value}: bridge has its own implementation, and takes no class of another's"


def _ws(value: Any, t: Translation) -> tuple[Fate, str] | None:
    if value == "none":
        t.set("ws", False)
        return SAME, ""
    if value == "auto":
        return SAME, ""
    if value in {"websockets", "websockets-sansio", "wsproto"}:
        return None
    return REFUSED, f"{value}: bridge has its own implementation, and takes no class of another's"


def _loop(value: Any, t: Translation) -> tuple[Fate, str] | None:
    if value in {"auto", "asyncio", "uvloop"}:
        t.set("loop", value)
        return None
    if value in {"zuvloop", "none"}:
        t.set("loop", "auto")
        return NEAR, "bridge makes its own loop, uvloop where it is installed"
    return REFUSED, f"{value}: the loops are auto, asyncio and uvloop"


def _target(value: Any, t: Translation) -> tuple[Fate, str] | None:
    if not isinstance(value, str):
        t.objects["app"] = value
        return None
    if value.startswith("${") or value.startswith("$"):
        return (
            REFUSED,
            "this is a variable that no shell has replaced; write the command as one string, without brackets",
        )
    t.set("target", value)
    return None


def _workers(value: Any, t: Translation) -> None:
    if int(value) > 1:
        t.set("workers", value)


def _log_level(value: Any, t: Translation) -> tuple[Fate, str] | None:
    names = {50: "critical", 40: "error", 30: "warning", 20: "info", 10: "debug", 5: "trace"}
    word = names.get(value, "info") if isinstance(value, int) else str(value).lower()
    t.set("log_level", "debug" if word == "trace" else word)
    return (NEAR, "there is no level trace; debug is the lowest") if word == "trace" else None


def _log_config(value: Any, t: Translation) -> tuple[Fate, str] | None:
    if isinstance(value, Mapping):
        if not _is_uvicorns(value):
            t.objects["log_config"] = dict(value)
        return None
    t.set("log_config", value)
    return None


def _is_uvicorns(value: Mapping[str, Any]) -> bool:
    """Tell whether this is uvicorn's default configuration, for which bridge has its own form of messages."""
    formatters = value.get("formatters", {})
    usual = {
        "default": "%(levelprefix)s %(message)s",
        "access": '%(levelprefix)s %(client_addr)s - "%(request_line)s" %(status_code)s',
    }
    return (
        formatters.keys() == usual.keys()
        and all(formatters[name].get("fmt") == usual[name] for name in usual)
        and set(value.get("loggers", ())) <= {"uvicorn", "uvicorn.error", "uvicorn.access"}
        and set(value.get("handlers", ())) <= {"default", "access"}
        and not value.get("filters")
    )


def _ws_time(name: str) -> Any:
    def convert(value: Any, t: Translation) -> None:
        t.set(name, "off" if not value or float(value) == 0 else value)

    return convert


def _headers(value: Any, t: Translation) -> None:
    for item in value if isinstance(value, list | tuple) else [value]:
        name, text = item if isinstance(item, tuple | list) else str(item).split(":", 1)
        t.add("header", f"{name}: {text.strip() if isinstance(text, str) else text}", "\n")


def _graceful(value: Any, t: Translation) -> None:
    t.set("timeout_graceful_shutdown", value)


def _concurrency(value: Any, t: Translation) -> tuple[Fate, str] | None:
    t.set("limit_concurrency", value)
    return None


def _forwarded(value: Any, t: Translation) -> None:
    t.set("forwarded_allow_ips", value if isinstance(value, str) else ",".join(value))


def _ssl_factory(value: Any, t: Translation) -> None:
    t.objects["ssl_context_factory"] = value


ROWS: tuple[Row, ...] = (
    row("app", SAME, "target", convert=_target),
    row("--host", SAME, "bind", convert=fact("host")),
    row("--port", SAME, "bind", takes=Takes.INT, convert=fact("port")),
    row("--uds", SAME, "uds", convert=fact("uds")),
    row("--fd", SAME, "fd", takes=Takes.INT, convert=fact("fd")),
    row("--reload", SAME, "reload", takes=Takes.FLAG),
    row("--reload-dir", SAME, "reload_dir", name="reload_dirs", takes=Takes.LIST, convert=each("reload_dir")),
    row("--reload-include", SAME, "reload_include", name="reload_includes", takes=Takes.LIST,
        convert=each("reload_include")),
    row("--reload-exclude", SAME, "reload_exclude", name="reload_excludes", takes=Takes.LIST,
        convert=each("reload_exclude")),
    row("--reload-delay", SAME, "reload_delay", takes=Takes.FLOAT),
    row("--workers", SAME, "workers", takes=Takes.INT, convert=_workers),
    row("--loop", SAME, "loop", convert=_loop),
    row("--http", NEAR, "", _OWN_PARSER, convert=_http),
    row("--http2", SAME, "http_protocols", takes=Takes.FLAG,
        convert=lambda value, t: t.set("http_protocols", "h2,h1" if value else "h1")),
    row("--ws", NEAR, "ws", _OWN_PARSER, convert=_ws),
    row("--ws-max-size", SAME, "ws_max_size", takes=Takes.INT),
    row("--ws-max-queue", SAME, "ws_max_queue", takes=Takes.INT),
    row("--ws-ping-interval", SAME, "ws_ping_interval", takes=Takes.FLOAT, convert=_ws_time("ws_ping_interval")),
    row("--ws-ping-timeout", SAME, "ws_ping_timeout", takes=Takes.FLOAT, convert=_ws_time("ws_ping_timeout")),
    row("--ws-per-message-deflate", SAME, "ws_per_message_deflate", takes=Takes.BOOL),
    row("--lifespan", SAME, "lifespan", choices="auto on off"),
    row("--interface", SAME, "interface", choices="auto asgi3 asgi2 wsgi"),
    row("--env-file", SAME, "env_file"),
    row("--log-config", SAME, "log_config", convert=_log_config),
    row("--log-level", SAME, "log_level", choices="critical error warning info debug trace", convert=_log_level),
    row("--access-log", SAME, "access_log", takes=Takes.FLAG, negative="--no-access-log"),
    row("--use-colors", SAME, "use_colors", takes=Takes.FLAG, negative="--no-use-colors"),
    row("--proxy-headers", SAME, "proxy_headers", takes=Takes.FLAG, negative="--no-proxy-headers"),
    row("--server-header", SAME, "server_header", takes=Takes.FLAG, negative="--no-server-header"),
    row("--date-header", SAME, "date_header", takes=Takes.FLAG, negative="--no-date-header"),
    row("--forwarded-allow-ips", SAME, "forwarded_allow_ips", convert=_forwarded),
    row("--root-path", SAME, "root_path"),
    row("--limit-concurrency", SAME, "limit_concurrency", takes=Takes.INT, convert=_concurrency),
    row("--backlog", SAME, "backlog", takes=Takes.INT),
    row("--limit-max-requests", SAME, "limit_max_requests", takes=Takes.INT, convert=zero_is_off("limit_max_requests")),
    row("--limit-max-requests-jitter", SAME, "limit_max_requests_jitter", takes=Takes.INT),
    row("--timeout-keep-alive", SAME, "timeout_keep_alive", takes=Takes.INT),
    row("--timeout-graceful-shutdown", SAME, "timeout_graceful_shutdown", takes=Takes.INT, convert=_graceful),
    row("--timeout-worker-healthcheck", SAME, "timeout_worker", takes=Takes.INT, convert=zero_is_off("timeout_worker")),
    row("--ssl-keyfile", SAME, "ssl_keyfile"),
    row("--ssl-certfile", SAME, "ssl_certfile"),
    row("--ssl-keyfile-password", SAME, "ssl_keyfile_password"),
    row("--ssl-version", NEAR, "", "bridge always offers TLS 1.2 and 1.3", takes=Takes.INT),
    row("--ssl-cert-reqs", SAME, "ssl_cert_reqs", takes=Takes.INT, convert=cert_reqs),
    row("--ssl-ca-certs", SAME, "ssl_ca_certs"),
    row("--ssl-ciphers", SAME, "ssl_ciphers"),
    row("--header", SAME, "header", name="headers", takes=Takes.LIST, convert=_headers),
    row("--version", SAME, "", takes=Takes.FLAG),
    row("--app-dir", SAME, "app_dir"),
    row("--h11-max-incomplete-event-size", SAME, "limit_request_head", takes=Takes.INT),
    row("--reset-contextvars", NEAR, "", "each request runs in its own copy of the context that the lifespan leaves",
        takes=Takes.FLAG),
    row("--factory", SAME, "factory", takes=Takes.FLAG),
)  # fmt: skip

#: Keywords of ``uvicorn.Config`` that are no options.
_MORE_ROWS = (
    row("ssl_context_factory", SAME, "ssl_context_factory", takes=Takes.FILE_ONLY, convert=_ssl_factory),
    row("timeout_notify", NEAR, "", "workers beat by themselves", takes=Takes.FILE_ONLY),
    row("callback_notify", NO_EFFECT, "", "nothing is called for a beat", takes=Takes.FILE_ONLY,
        convert=lambda value, t: None),
)  # fmt: skip
_BY_NAME = {one.name: one for one in (*ROWS, *_MORE_ROWS)}
_NONE_MATTERS = frozenset({"ws_ping_interval", "ws_ping_timeout"})


def keywords(given: Mapping[str, Any], t: Translation) -> list[str]:
    """Take keywords of ``uvicorn.Config`` into *t*. Return a sentence for each that does not mean the same."""
    remarks = []
    for name, value in given.items():
        one = _BY_NAME.get(name)
        if one is None:
            remarks.append(f"{name}: bridge does not know it")
            continue
        if value is None and name not in _NONE_MATTERS:
            continue
        t.take(Option(one, list(value) if isinstance(value, tuple) and one.takes is Takes.LIST else value, name))
        outcome = t.outcomes[-1]
        if outcome.fate is not SAME:
            remarks.append(f"{name}: {outcome.remark}")
    return remarks


def settle_address(t: Translation) -> None:
    """Set the address: a descriptor or a Unix socket comes before host and port, as in uvicorn."""
    facts = t.dialect
    if facts.get("fd") is not None:
        t.origin = "--fd"
        t.set("bind", f"fd://{facts['fd']}")
    elif facts.get("uds"):
        t.origin = "--uds"
        t.set("bind", f"unix:{facts['uds']}")
    elif "host" in facts or "port" in facts:
        t.origin = "--host, --port"
        port = 8000 if facts.get("port") is None else facts["port"]
        t.set("bind", host_and_port(str(facts.get("host") or "127.0.0.1"), port))
    else:
        t.default("bind", "127.0.0.1:8000", "uvicorn")


def settle_defaults(t: Translation) -> None:
    """Set uvicorn's defaults where they differ from bridge's."""
    default = t.default
    default("proxy_headers", "on", "uvicorn")
    default("forwarded_allow_ips", "127.0.0.1", "uvicorn")
    default("forwarded_fields", "x-forwarded-for,x-forwarded-proto", "uvicorn")
    default("forwarded_strip", "off", "uvicorn")
    silence_requests(t)
    if "timeout_worker" not in t.layer and "workers" in t.layer:
        default("timeout_worker", "5", "uvicorn")
    if "log_config" not in t.layer and "log_config" not in t.objects:
        default("access_logformat", ACCESS_FORMAT, "uvicorn")
    if "timeout_graceful_shutdown" not in t.layer:
        t.note(
            "(default)", "", NEAR, "requests in progress have 30 s at a stop; uvicorn waits for them without a limit"
        )


def _options(words: list[str], environ: Mapping[str, str]) -> list[Option]:
    found = from_variables(ROWS, "UVICORN", environ)
    if environ.get("WEB_CONCURRENCY"):
        found.insert(0, Option(_BY_NAME["workers"], _whole("WEB_CONCURRENCY", environ), "WEB_CONCURRENCY"))
    if environ.get("FORWARDED_ALLOW_IPS"):
        found.insert(0, Option(_BY_NAME["forwarded_allow_ips"], environ["FORWARDED_ALLOW_IPS"], "FORWARDED_ALLOW_IPS"))
    given, arguments = parse(ROWS, words, Grammar.CLICK)
    found += given
    app = single(arguments, Grammar.CLICK)
    if app is not None:
        found.append(Option(ROWS[0], app, "APP"))
    return last_of_each(found)


def _whole(variable: str, environ: Mapping[str, str]) -> int:
    try:
        return int(environ[variable])
    except ValueError:
        raise Usage(f"Invalid value for '{variable}': {environ[variable]!r} is not a valid integer.") from None


def _finish(t: Translation) -> None:
    if "target" not in t.layer and "app" not in t.objects and not any(o.fate is REFUSED for o in t.outcomes):
        raise Usage("Missing argument 'APP'.")
    if "reload" in t.layer and "workers" in t.layer:
        t.layer.pop("workers")
        t.correct("workers", NEAR, "ignored beside --reload, as in uvicorn")
    settle_address(t)
    settle_defaults(t)


DIALECT = Dialect(
    name="uvicorn",
    version="0.54",
    usage="uvicorn [OPTIONS] APP",
    grammar=Grammar.CLICK,
    rows=ROWS,
    options=_options,
    finish=_finish,
)
