"""What configuration files of gunicorn do with its modules and loggers."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import pytest

from bridge.compat import gunicorn
from bridge.hooks.logger import Logger
from bridge.hooks.requests import ResponseView
from tests.support.running import Running, get

FILE = """
import logging
from logging import Formatter
from bridge.hooks.logger import Logger


class Excludes(logging.Filter):
    def filter(self, record):
        return not record.args.get("U", "").startswith("/ping")


class Mine(Logger):
    def setup(self, cfg):
        super().setup(cfg)
        logging.getLogger("gunicorn.access").addFilter(Excludes())
        self._set_handler(self.error_log, cfg.errorlog, Formatter("MINE %(message)s"))


logger_class = Mine
accesslog = "access.log"
access_log_format = "%(m)s %(U)s"


def on_starting(server):
    server.log.info("it begins")
"""
APPLICATION = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'hi']\n"


@pytest.mark.slow
def test_a_logger_with_a_format_and_a_filter(tmp_path: Path) -> None:
    (tmp_path / "gunicorn.conf.py").write_text(FILE)
    (tmp_path / "app.py").write_text(APPLICATION)
    command = [sys.executable, "-m", "bridge", "gunicorn", "-b", "127.0.0.1:0", "app:app"]
    with Running(command=command, cwd=tmp_path) as server:
        address = server.address()
        for path in ("/ping", "/a", "/ping", "/b"):
            assert get(address, path)[2] == b"hi"
        assert server.end() == 0
        assert [line for line in server.messages.lines if "it begins" in line] == ["MINE it begins"]
    assert (tmp_path / "access.log").read_text() == "GET /a\nGET /b\n"


def test_names_that_files_change_or_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bridge.compat.gunicorn.importable", lambda name: None)
    places: dict[str, dict[str, object]] = {}
    monkeypatch.setattr("bridge.compat.gunicorn.put_in_place", places.update)
    gunicorn.install()
    defaults = places["gunicorn.glogging"]["CONFIG_DEFAULTS"]
    assert isinstance(defaults, dict)
    assert set(defaults["loggers"]) == {"gunicorn.error", "gunicorn.access"}
    assert places["gunicorn.http.wsgi"]["Response"] is ResponseView
    assert ResponseView.default_headers(ResponseView(None)) == []  # type: ignore[arg-type]


def test_a_handler_takes_the_place_of_the_usual_one(tmp_path: Path) -> None:
    logger, usual, own = logging.Logger("x"), logging.NullHandler(), logging.NullHandler()
    bridge = logging.getLogger("bridge")
    bridge.addHandler(usual)
    try:
        logger.handlers = [usual, own]
        mine = Logger.__new__(Logger)
        for _ in range(2):
            mine._set_handler(logger, os.fspath(tmp_path / "a.log"), logging.Formatter("%(message)s"))
        assert logger.handlers[0] is own
        assert len(logger.handlers) == 2
        assert not logger.propagate
        logger.handlers[1].close()
    finally:
        bridge.removeHandler(usual)
