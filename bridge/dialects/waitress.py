"""waitress's options, and the keywords of its ``serve``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.dialects.convert import fact, host_and_port, zero_is_off
from bridge.dialects.parsing import last_of_each, parse
from bridge.dialects.table import Dialect, Fate, Grammar, Option, Row, Takes, Translation, Usage, row

__all__ = ["DIALECT", "keywords", "settle"]

SAME, NEAR, NO_EFFECT, REFUSED = Fate.SAME, Fate.NEAR, Fate.NO_EFFECT, Fate.REFUSED

_OWN_BUFFERS = "bridge sizes its buffers itself"
_KNOWN_FIELDS = {"x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "x-forwarded-by",
                 "forwarded"}  # fmt: skip
_TRUE = frozenset({"t", "true", "y", "yes", "on", "1"})


def _yes(value: Any) -> bool:
    return value if isinstance(value, bool) else str(value).strip().lower() in _TRUE


def _listen(value: Any, t: Translation) -> None:
    words = value if isinstance(value, list | tuple) else [value]
    for text in " ".join(map(str, words)).split():
        host, colon, port = text.rpartition(":")
        if colon and (":" not in host or host.startswith("[")):
            t.add("bind", host_and_port(host, port))
        else:
            t.add("bind", host_and_port(text, 8080))


def _trusted(value: Any, t: Translation) -> None:
    if value:
        t.set("forwarded_allow_ips", "*" if value == "*" else value)
        t.dialect["trusted"] = True


def _count(value: Any, t: Translation) -> None:
    t.set("forwarded_hops", value)


def _fields(value: Any, t: Translation) -> tuple[Fate, str] | None:
    words = value.replace(",", " ").split() if isinstance(value, str) else list(value)
    words = [word.lower() for word in words]
    unknown = [word for word in words if word not in _KNOWN_FIELDS]
    if unknown:
        return REFUSED, f"{', '.join(unknown)}: waitress takes none of these"
    t.set("forwarded_fields", ",".join(word for word in words if word != "x-forwarded-by"))
    return (NEAR, "x-forwarded-by: bridge does not read it") if "x-forwarded-by" in words else None


def _scheme(value: Any, t: Translation) -> tuple[Fate, str] | None:
    if value == "http":
        return SAME, ""
    return REFUSED, "the scheme comes from TLS or from a proxy's X-Forwarded-Proto (--trusted-proxy)"


def _prefix(value: Any, t: Translation) -> None:
    prefix = "/" + str(value).strip("/")
    t.set("root_path", "" if prefix == "/" else prefix)


def _ident(value: Any, t: Translation) -> None:
    if value:
        t.set("header", f"server: {value}")
    else:
        t.set("server_header", False)


def _tracebacks(value: Any, t: Translation) -> tuple[Fate, str] | None:
    if not _yes(value):
        return SAME, ""
    t.set("debug", True)
    return NEAR, "only browsers on this machine see them"


def _strip(value: Any, t: Translation) -> None:
    t.set("forwarded_strip", _yes(value))


def _sockets(value: Any, t: Translation) -> None:
    for sock in value:
        t.add("bind", f"fd://{sock.fileno()}")


ROWS: tuple[Row, ...] = (
    row("--help", SAME, "", takes=Takes.FLAG),
    row("--call", SAME, "factory", takes=Takes.FLAG, convert=lambda value, t: t.set("factory", value)),
    row("--host", SAME, "bind", convert=fact("host")),
    row("--port", SAME, "bind", convert=fact("port")),
    row("--ipv4", NEAR, "", "the address says which protocol it is", takes=Takes.FLAG, negative="--no-ipv4"),
    row("--ipv6", NEAR, "", "the address says which protocol it is", takes=Takes.FLAG, negative="--no-ipv6"),
    row("--listen", SAME, "bind", takes=Takes.LIST, convert=_listen),
    row("--threads", SAME, "threads"),
    row("--trusted-proxy", NEAR, "forwarded_allow_ips", "networks such as 10.0.0.0/8 are taken too", convert=_trusted),
    row("--trusted-proxy-count", SAME, "forwarded_hops", convert=_count),
    row("--trusted-proxy-headers", SAME, "forwarded_fields", convert=_fields),
    row("--log-untrusted-proxy-headers", NO_EFFECT, "", "they are not logged", takes=Takes.FLAG,
        negative="--no-log-untrusted-proxy-headers", convert=lambda value, t: None if _yes(value) else (SAME, "")),
    row("--clear-untrusted-proxy-headers", SAME, "forwarded_strip", takes=Takes.FLAG,
        negative="--no-clear-untrusted-proxy-headers", convert=_strip),
    row("--url-scheme", REFUSED, "", "the scheme comes from TLS or from a proxy", convert=_scheme),
    row("--url-prefix", SAME, "root_path", convert=_prefix),
    row("--backlog", SAME, "backlog"),
    row("--recv-bytes", NEAR, "", _OWN_BUFFERS),
    row("--send-bytes", NEAR, "", _OWN_BUFFERS),
    row("--outbuf-overflow", NEAR, "", "responses beyond 16 KiB in the transport go to a temporary file"),
    row("--outbuf-high-watermark", SAME, "wsgi_buffer_responses"),
    row("--inbuf-overflow", SAME, "wsgi_buffer_requests"),
    row("--connection-limit", SAME, "limit_connections"),
    row("--cleanup-interval", NEAR, "", "bridge checks idle connections twice a second"),
    row("--channel-timeout", SAME, "timeout_keep_alive"),
    row("--log-socket-errors", NEAR, "", "clients that leave are no errors", takes=Takes.FLAG,
        negative="--no-log-socket-errors"),
    row("--max-request-header-size", SAME, "limit_request_head"),
    row("--max-request-body-size", SAME, "limit_request_body", convert=zero_is_off("limit_request_body")),
    row("--expose-tracebacks", NEAR, "debug", "only browsers on this machine see them", takes=Takes.FLAG,
        negative="--no-expose-tracebacks", convert=_tracebacks),
    row("--ident", SAME, "header", convert=_ident),
    row("--asyncore-loop-timeout", NEAR, "", "the loop is asyncio's"),
    row("--asyncore-use-poll", NEAR, "", "the loop is asyncio's", takes=Takes.FLAG, negative="--no-asyncore-use-poll"),
    row("--unix-socket", SAME, "uds", convert=fact("unix_socket")),
    row("--unix-socket-perms", SAME, "uds_permissions",
        convert=lambda value, t: t.set("uds_permissions", f"{value:o}" if isinstance(value, int) else value)),
    row("--sockets", SAME, "bind", convert=_sockets),
    row("--channel-request-lookahead", NEAR, "", "bridge reads up to 64 KiB ahead"),
    row("--server-name", NEAR, "", "SERVER_NAME is the address to which the client has connected"),
)  # fmt: skip

_BY_NAME = {one.name: one for one in ROWS}


def _options(words: list[str], environ: Mapping[str, str]) -> list[Option]:
    found, arguments = parse(ROWS, words, Grammar.GETOPT)
    if len(arguments) != 1:
        raise Usage("Specify one application only")
    target = row("application", SAME, "target", convert=lambda value, t: t.set("target", value))
    found.append(Option(target, arguments[0], "APPLICATION"))
    return last_of_each(found)


def keywords(given: Mapping[str, Any], t: Translation) -> list[str]:
    """Take keywords of ``waitress.serve`` into *t*. Return a sentence for each that does not mean the same.

    Raises:
        Usage: There is no such keyword.
    """
    remarks = []
    for name, value in given.items():
        one = _BY_NAME.get(name)
        if one is None or name in {"help", "call"}:
            raise Usage(f"Unknown adjustment {name!r}")
        t.take(Option(one, value, name))
        if t.outcomes[-1].fate is not SAME:
            remarks.append(f"{name}: {t.outcomes[-1].remark}")
    settle(t)
    return remarks


def settle(t: Translation) -> None:
    """Set the address, and what differs between waitress and bridge when nobody says anything."""
    facts = t.dialect
    if "unix_socket" in facts:
        t.origin = "--unix-socket"
        t.set("bind", f"unix:{facts['unix_socket']}")
    elif "host" in facts or "port" in facts:
        if "bind" in t.layer:
            raise Usage("host or port may not be set if listen is set.")
        t.origin = "--host, --port"
        t.set("bind", host_and_port(str(facts.get("host", "0.0.0.0")), facts.get("port", 8080)))  # noqa: S104 - waitress's default
    for name in ("trusted_proxy_count", "trusted_proxy_headers"):
        if name in t.given and t.given[name].value and not facts.get("trusted"):
            raise Usage(f"{name} has no meaning without setting trusted_proxy")
    if facts.get("trusted"):
        t.default("forwarded_fields", "x-forwarded-proto", "waitress")
    t.default("bind", ":8080", "waitress")
    t.default("interface", "wsgi", "waitress")
    t.default("threads", "4", "waitress")
    t.default("access_log", "off", "waitress")
    t.default("limit_connections", "100", "waitress")
    if not facts.get("trusted"):  # then waitress trusts no proxy and removes the fields
        t.default("proxy_headers", "on", "waitress")
        t.default("forwarded_allow_ips", "0.0.0.0/32", "waitress")


DIALECT = Dialect(
    name="waitress-serve",
    version="3.0",
    usage="waitress-serve [OPTS] [MODULE:OBJECT]",
    grammar=Grammar.GETOPT,
    rows=ROWS,
    options=_options,
    finish=settle,
)
