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

    access_log: bool = setting(OUTPUT, SWITCH, True, "write the access log, one line for each request")
    access_logfile: str = setting(
        OUTPUT, FILE, "-", "the file of the access log; - is standard output", aliases=("access-log-file", "accesslog")
    )
    access_logformat: str = setting(
        OUTPUT,
        TEXT,
        '%(h)s - - %(t)s "%(r)s" %(s)s %(b)s %(L)s%(cut)s',
        "the format of a line of the access log: see the page on logs",
        aliases=("access-log-format", "access-log-fmt"),
    )
    access_log_exclude: tuple[str, ...] = setting(
        OUTPUT,
        words("PATHS", "a list of paths"),
        (),
        "paths that are not logged, such as /health; /static/* is every path that begins with /static/",
    )
    request_id: str = setting(
        OUTPUT,
        choice("SOURCE", "off", "new", "proxy", "any", "traceparent", synonyms={"on": "proxy"}),
        "off",
        "give each request an id, for the application, the response and the log: CHOICES; new always makes one;"
        " proxy takes the id that a peer of --forwarded-allow-ips sends, any the id that any peer sends,"
        " traceparent the trace id of that field; if there is none, each of them makes one",
    )
    request_id_header: str = setting(
        OUTPUT, FIELD_NAME, "x-request-id", "the field of requests and responses that has the id"
    )
    log_format: str = setting(
        OUTPUT, choice("FORMAT", "text", "json"), "text", "the form of messages and of the access log: CHOICES"
    )
    error_logfile: str = setting(
        OUTPUT, FILE, "-", "the file of the messages; - is standard error", aliases=("log-file", "errorlog")
    )
    log_config: str | Mapping[str, Any] | None = setting(
        OUTPUT,
        FILE,
        None,
        "a configuration file for Python's logging (.ini, .json, .toml or .yaml), which replaces bridge's own handlers",
    )
    use_colors: bool | None = setting(
        OUTPUT, SWITCH, None, "colour messages", aliases=("use-colours",), shown="on a terminal, unless NO_COLOR is set"
    )
    log_level: str = setting(
        OUTPUT,
        choice("LEVEL", "debug", "info", "warning", "error", "critical", synonyms={"warn": "warning"}),
        "info",
        "the lowest level of messages that are written: CHOICES",
    )
    header: tuple[tuple[bytes, bytes], ...] = setting(
        OUTPUT,
        FIELDS,
        (),
        "NAME: VALUE: a field of every response; it replaces the application's field of that name; may be repeated",
        aliases=("headers",),
    )
    server_header: bool = setting(OUTPUT, SWITCH, True, "send a Server field")
    date_header: bool = setting(OUTPUT, SWITCH, True, "send a Date field")
