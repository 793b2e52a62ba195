"""daphne's options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.dialects.convert import fact, host_and_port, zero_is_off
from bridge.dialects.parsing import last_of_each, parse, single
from bridge.dialects.table import Dialect, Fate, Grammar, Option, Row, Takes, Translation, Usage, row

__all__ = ["DIALECT"]

SAME, NEAR, NO_EFFECT, REFUSED = Fate.SAME, Fate.NEAR, Fate.NO_EFFECT, Fate.REFUSED

_FORMAT = '%(h)s:%({REMOTE_PORT}e)s - - %(t)s "%(m)s %(Uq)s" %(s)s %(b)s'
_LEVELS = {0: "warning", 1: "info", 2: "debug", 3: "debug"}


def _endpoints(value: Any, t: Translation) -> tuple[Fate, str] | None:
    """Convert Twisted's descriptions of endpoints: ``tcp:8000:interface=127.0.0.1``, ``unix:/a``, ``ssl:443:...``."""
    remarks = []
    for text in value:
        kind, arguments, named = _parts(text)
        if kind in {"tcp", "tcp6", "ssl"}:
            port = named.get("port") or (arguments[0] if arguments else "8000")
            t.add("bind", host_and_port(named.get("interface", "").replace("\\:", ":"), port))
        elif kind == "unix":
            t.add("bind", f"unix:{named.get('address') or arguments[0]}")
            if "mode" in named:
                t.set("uds_permissions", named["mode"])
        elif kind == "fd":
            t.add("bind", f"fd://{named.get('fileno') or arguments[0]}")
        elif kind == "systemd":
            t.add("bind", "systemd")
        else:
            return REFUSED, f"{text}: the kinds are tcp, ssl, unix, fd and systemd"
        if kind == "ssl":
            if "privateKey" in named:
                t.set("ssl_keyfile", named["privateKey"])
            t.set("ssl_certfile", named.get("certKey") or named.get("privateKey", "server.pem"))
            extra = [name for name in ("extraCertChain", "sslmethod", "dhParameters") if name in named]
            if extra:
                remarks.append(f"{', '.join(extra)}: put the chain into the certificate's file")
    return (NEAR, "; ".join(remarks)) if remarks else None


def _parts(text: str) -> tuple[str, list[str], dict[str, str]]:
    words = text.replace("\\:", "\0").split(":")
    words = [word.replace("\0", "\\:") for word in words]
    named = dict(word.split("=", 1) for word in words[1:] if "=" in word)
    return words[0], [word for word in words[1:] if "=" not in word], named


def _access(value: Any, t: Translation) -> None:
    t.set("access_log", True)
    t.set("access_logfile", value)


def _verbosity(value: Any, t: Translation) -> None:
    t.set("log_level", _LEVELS.get(int(value), "debug"))
    t.dialect["verbosity"] = int(value)


def _proxy(value: Any, t: Translation) -> tuple[Fate, str] | None:
    t.set("proxy_headers", True)
    return NEAR, "set FORWARDED_ALLOW_IPS if the proxy is not on this machine; daphne believes everybody"


def _field(usual: str) -> Any:
    def convert(value: Any, t: Translation) -> tuple[Fate, str] | None:
        if str(value).lower() in {usual, "x-forwarded-for", "x-real-ip"}:
            return SAME, ""
        return REFUSED, f"{value}: bridge reads X-Forwarded-For and -Port, X-Real-Ip and Forwarded"

    return convert


def _name(value: Any, t: Translation) -> tuple[Fate, str] | None:
    if value:
        t.set("header", f"server: {value}")
    else:
        t.set("server_header", False)
    return None


ROWS: tuple[Row, ...] = (
    row("-p --port", SAME, "bind", takes=Takes.INT, convert=fact("port")),
    row("-b --bind", SAME, "bind", name="host", convert=fact("host")),
    row("--websocket_timeout", NO_EFFECT, "", "WebSockets have no time limit; pings find out who has left",
        takes=Takes.INT),
    row("--websocket_connect_timeout", NEAR, "", "the application has --timeout-request to accept a WebSocket",
        takes=Takes.INT),
    row("-u --unix-socket", SAME, "bind", convert=fact("unix_socket")),
    row("--fd", SAME, "bind", name="file_descriptor", takes=Takes.INT, convert=fact("fd")),
    row("-e --endpoint", SAME, "bind", name="socket_strings", takes=Takes.LIST, convert=_endpoints),
    row("-v --verbosity", SAME, "log_level access_log", takes=Takes.INT, convert=_verbosity),
    row("-t --http-timeout", NEAR, "timeout_request", "the answer is 504, in daphne 503", takes=Takes.INT,
        convert=zero_is_off("timeout_request")),
    row("--access-log", SAME, "access_logfile", convert=_access),
    row("--log-fmt", NO_EFFECT, "", "messages have bridge's form; a --log-config changes it"),
    row("--ping-interval", SAME, "ws_ping_interval", takes=Takes.INT, convert=zero_is_off("ws_ping_interval")),
    row("--ping-timeout", SAME, "ws_ping_timeout", takes=Takes.INT, convert=zero_is_off("ws_ping_timeout")),
    row("--websocket-max-message-size", SAME, "ws_max_size", takes=Takes.INT),
    row("--websocket-max-frame-size", NEAR, "", "the limit for messages also limits their frames", takes=Takes.INT),
    row("--application-close-timeout", SAME, "timeout_disconnect_grace", takes=Takes.INT,
        convert=zero_is_off("timeout_disconnect_grace")),
    row("--root-path", SAME, "root_path"),
    row("--proxy-headers", NEAR, "proxy_headers", "the proxy must be trusted", takes=Takes.FLAG, convert=_proxy),
    row("--proxy-headers-host", SAME, "", convert=_field("x-forwarded-for")),
    row("--proxy-headers-port", SAME, "", convert=_field("x-forwarded-port")),
    row("application", SAME, "target", convert=lambda value, t: t.set("target", value)),
    row("-s --server-name", SAME, "header", convert=_name),
    row("--no-server-name", SAME, "server_header", name="no_server_name", takes=Takes.FLAG,
        convert=lambda value, t: t.set("server_header", False)),
)  # fmt: skip

_BY_NAME = {one.name: one for one in ROWS}


def _options(words: list[str], environ: Mapping[str, str]) -> list[Option]:
    found, arguments = parse(ROWS, words, Grammar.ARGPARSE)
    application = str(single(arguments, Grammar.ARGPARSE, "application"))
    if application.endswith(":channel_layer"):
        raise Usage(f"{application}: Channels 1 has ended; name the ASGI application, as project.asgi:application")
    found.append(Option(_BY_NAME["application"], application, "APPLICATION"))
    return last_of_each(found)


def _finish(t: Translation) -> None:
    facts = t.dialect
    host, port = facts.get("host"), facts.get("port")
    other = [name for name in ("unix_socket", "fd") if facts.get(name) is not None]
    t.origin = "--bind, --port"
    if host or port is not None:
        t.add("bind", host_and_port(host or "127.0.0.1", 8000 if port is None else port))
    for name in other:
        t.origin = "--unix-socket" if name == "unix_socket" else "--fd"
        t.add("bind", f"unix:{facts[name]}" if name == "unix_socket" else f"fd://{facts[name]}")
    t.default("bind", "127.0.0.1:8000", "daphne")
    t.default("access_log", "on" if facts.get("verbosity", 1) >= 1 else "off", "daphne")
    t.default("access_logformat", _FORMAT, "daphne")
    t.default("forwarded_strip", "off", "daphne")
    t.default("ws_ping_timeout", "30", "daphne")
    t.default("ws_max_size", str(1 << 20), "daphne")
    t.default("timeout_disconnect_grace", "10", "daphne")


DIALECT = Dialect(
    name="daphne",
    version="4.2",
    usage="daphne [OPTIONS] application",
    grammar=Grammar.ARGPARSE,
    rows=ROWS,
    options=_options,
    finish=_finish,
)
