"""PasteDeploy's files: ``pserve``, and ``bridge gunicorn --paste``."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bridge.contrib.paste import application, serve
from bridge.errors import ConfigError
from tests.support import ROOT
from tests.support.running import Running, get

PROJECT = """
from pyramid.config import Configurator
from pyramid.response import Response


def main(global_config, **settings):
    with Configurator(settings=settings) as config:
        config.add_route("index", "/")
        config.add_view(lambda request: Response(settings["greeting"]), route_name="index")
        return config.make_wsgi_app()
"""
PLAIN = """
def main(global_config, **settings):
    def app(environ, start_response):
        start_response("200 OK", [])
        return [(settings["greeting"] + global_config.get("stage", "")).encode()]

    return app
"""
INI = """
[app:main]
paste.app_factory = project:main
greeting = hi

[app:other]
paste.app_factory = project:main
greeting = other

[server:main]
use = egg:bridge#main
listen = 127.0.0.1:0
threads = 2
%s

[loggers]
keys = root

[handlers]
keys = console

[formatters]
keys = generic

[logger_root]
level = INFO
handlers = console

[handler_console]
class = StreamHandler
args = (sys.stderr,)
formatter = generic

[formatter_generic]
format = ini: %%(message)s
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "project.py").write_text(PLAIN)
    (tmp_path / "development.ini").write_text(INI % "")
    return tmp_path


@pytest.fixture
def library() -> None:
    pytest.importorskip("paste.deploy", reason="PasteDeploy is not installed (extra apps)")


@pytest.mark.slow
@pytest.mark.parametrize("more", ["", pytest.param("workers = 2", marks=pytest.mark.wide)])
def test_pserve(place: Path, more: str) -> None:
    pytest.importorskip("pyramid", reason="Pyramid is not installed (extra apps)")
    (place / "project.py").write_text(PROJECT)
    (place / "development.ini").write_text(INI % more)
    environ = {"PYTHONPATH": f"{ROOT}{os.pathsep}{place}"}
    command = [sys.executable, "-m", "pyramid.scripts.pserve", "development.ini"]
    with Running(command=command, cwd=place, environ=environ) as server:
        assert get(server.address())[2] == b"hi"
        assert server.end() == 0


@pytest.mark.slow
@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("words", "content"),
    [(["development.ini"], b"hi"), (["development.ini#other", "--paste-global", "stage=2"], b"other2")],
)
def test_gunicorn_with_a_file(place: Path, words: list[str], content: bytes) -> None:
    command = [sys.executable, "-m", "bridge", "gunicorn", "-b", "127.0.0.1:0", "--paste", *words]
    with Running(command=command, cwd=place) as server:
        server.messages.wait("ini: Worker 0 .* is ready")  # the file's loggers are used
        assert get(server.address())[2] == content
        assert server.end() == 0


@pytest.mark.slow
def test_a_setting_that_does_not_exist(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        serve(lambda environ, start_response: [], {}, thraeds="2")
    assert caught.value.code == 2
    assert capsys.readouterr().err == "bridge: thraeds: there is no such setting; did you mean threads?\n"


@pytest.mark.usefixtures("library")
def test_a_file_that_does_not_exist(place: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.ini: there is no such file"):
        application("none.ini")
    done = subprocess.run(
        [sys.executable, "-m", "bridge", "gunicorn", "--paste", "none.ini"], cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "none.ini: FileNotFoundError" in done.stderr


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "paste.deploy", None)
    with pytest.raises(ConfigError, match="needs the package PasteDeploy: pip install PasteDeploy"):
        application("a.ini")
