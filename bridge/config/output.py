"""The settings for logs and for fields of each response, a part of the table in `bridge.config.settings`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bridge.config.kinds import (
    FIELD_NAME,
    FIELDS,
    FILE,
    SWITCH,
    TEXT,
    choice,
    words,
)
from bridge.config.operation import OperationConfig
from bridge.config.table import setting

__all__ = ["OUTPUT", "OutputConfig"]

OUTPUT = "Logs and responses"


class OutputConfig(OperationConfig):
    """What is logged, where, and in which form; and which fields every response has."""

    access_log: bool = setting(OUTPUT, SWITCH, True, "write one line per request")
    access_logfile: str = setting(
        OUTPUT, FILE, "-", "where these lines go; - is standard output", aliases=("access-log-file", "accesslog")
    )
    access_logformat: str = setting(
        OUTPUT,
        TEXT,
        '%(h)s - - %(t)s "%(r)s" %(s)s %(b)s %(L)s%(cut)s',
        "what a line says: see the page on logs",
        aliases=("access-log-format", "access-log-fmt"),
    )
    access_log_exclude: tuple[str, ...] = setting(
        OUTPUT, words("PATHS", "a list of paths"), (), "paths without a line, such as /health; /static/* is a beginning"
    )
    request_id: str = setting(
        OUTPUT,
        choice("SOURCE", "off", "new", "proxy", "any", "traceparent", synonyms={"on": "proxy"}),
        "off",
        "give each request an id, for the application, the response and the log: CHOICES. new makes one always; proxy"
        " takes the request's from --forwarded-allow-ips, any from everybody, traceparent the trace id of that field,"
        " and each makes one where there is none",
    )
    request_id_header: str = setting(OUTPUT, FIELD_NAME, "x-request-id", "the field that has the id")
    log_format: str = setting(
        OUTPUT, choice("FORMAT", "text", "json"), "text", "how messages and requests are written: CHOICES"
    )
    error_logfile: str = setting(
        OUTPUT, FILE, "-", "where messages go; - is standard error", aliases=("log-file", "errorlog")
    )
    log_config: str | Mapping[str, Any] | None = setting(
        OUTPUT,
        FILE,
        None,
        "a configuration of Python's logging (.ini, .json, .toml or .yaml) in place of our own handlers",
    )
    use_colors: bool | None = setting(
        OUTPUT, SWITCH, None, "colour messages", aliases=("use-colours",), shown="on a terminal, unless NO_COLOR is set"
    )
    log_level: str = setting(
        OUTPUT,
        choice("LEVEL", "debug", "info", "warning", "error", "critical", synonyms={"warn": "warning"}),
        "info",
        "the least severe messages to write: CHOICES",
    )
    header: tuple[tuple[bytes, bytes], ...] = setting(
        OUTPUT,
        FIELDS,
        (),
        "NAME: VALUE, a field that every response gets in place of the application's; may be repeated",
        aliases=("headers",),
    )
    server_header: bool = setting(OUTPUT, SWITCH, True, "send a Server field")
    date_header: bool = setting(OUTPUT, SWITCH, True, "send a Date field")
