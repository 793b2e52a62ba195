"""Logging configurations that were written for other servers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any
from urllib.request import Request, urlopen

import pytest

from bridge.serving.embedding import Server
from bridge.telemetry.accessrecords import records_for

pytest_plugins = ["bridge.pytest_plugin"]

NAMES = ("bridge", "bridge.access", "gunicorn.error", "gunicorn.access", "uvicorn", "uvicorn.access")
#: The records that the handler has got.
RECORDS: list[logging.LogRecord] = []
WRITTEN = threading.Event()


class Kept(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        RECORDS.append(record)
        if record.name.endswith("access"):
            WRITTEN.set()


@pytest.fixture(autouse=True)
def loggers() -> Iterator[None]:
    RECORDS.clear()
    WRITTEN.clear()
    forget_loggers()  # of tests before
    yield
    forget_loggers()


def forget_loggers() -> None:
    for name in NAMES:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
    logging.getLogger("bridge").parent = logging.root


def app(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("X-Kind", "test")])
    return [b"hi"]


def configuration(messages: str, access: str) -> dict[str, Any]:
    kept = {"handlers": ["kept"], "level": "INFO", "propagate": False}
    return {"handlers": {"kept": {"()": Kept}}, "loggers": {messages: kept, access: kept}}


def records(serve: Callable[..., Server], messages: str, access: str, **options: Any) -> dict[str, logging.LogRecord]:
    server = serve(app, interface="wsgi", access_log=True, log_config=configuration(messages, access), **options)
    with urlopen(Request(server.url + "/a?b=1", headers={"Authorization": "Basic am9lOnB3", "X-Thing": "é"})):
        pass
    assert WRITTEN.wait(30)
    return {record.name: record for record in RECORDS}


def test_atoms_for_the_formatters_of_gunicorn(bridge_server: Callable[..., Server]) -> None:
    form = '%(h)s %(u)s "%(r)s" %(s)s %(B)d %({X-Thing}i)s %({x-kind}o)s'
    found = records(bridge_server, "gunicorn.error", "gunicorn.access", access_logformat=form)
    record = found["gunicorn.access"]
    assert record.getMessage() == '127.0.0.1 joe "GET /a?b=1 HTTP/1.1" 200 2 \\xe9 test'
    assert isinstance(record.args, dict)
    assert record.args["m"] == "GET"
    assert record.args["{x-thing}i"] == "\\xe9"
    assert record.args["{no}i"] == "-"


def test_arguments_for_the_formatter_of_uvicorn(bridge_server: Callable[..., Server]) -> None:
    record = records(bridge_server, "uvicorn", "uvicorn.access")["uvicorn.access"]
    assert isinstance(record.args, tuple)
    client, *rest = record.args
    assert str(client).startswith("127.0.0.1:")
    assert rest == ["GET", "/a?b=1", "1.1", 200]


def test_other_loggers_get_lines() -> None:
    assert records_for(logging.getLogger("bridge.access"), "%(h)s") is None
